//! Hands for TURN: names are looked up, and over TCP bytes are carried. What they mean is the node's.
//!
//! One server at a time, and one task for it. Over UDP the task ends once the address is known: what
//! goes there goes from the main port. Messages wait in bounded queues; a full one loses them, as a
//! network does.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use altnet_core::node::WantedTurn;
use altnet_wire::stun::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::{Transport, Turn};
use crate::news::News;

/// Messages that wait, each way.
const WAITING: usize = 256;
/// How long a name or a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Something about the attempt with that number.
#[derive(Debug)]
pub enum Came {
    /// The server is there; over TCP, messages for it go here.
    Reached(u32, SocketAddr, Option<mpsc::Sender<Vec<u8>>>),
    /// It sent a message.
    Message(u32, Vec<u8>),
    /// It can't be reached, or not any more.
    Lost(u32, String),
}

/// An attempt under way.
#[derive(Debug)]
struct Attempt {
    number: u32,
    task: JoinHandle<()>,
    outgoing: Option<mpsc::Sender<Vec<u8>>>,
}

/// The servers that may be used.
#[derive(Debug)]
pub struct TurnServers {
    servers: Vec<Turn>,
    attempt: Option<Attempt>,
    /// What the tasks tell.
    pub news: News<Came>,
}

impl TurnServers {
    /// None is used yet.
    pub fn new(servers: &[Turn]) -> Self {
        Self {
            servers: servers.to_vec(),
            attempt: None,
            news: News::new(WAITING),
        }
    }

    /// Begins what is wanted and ends what isn't. Needs a tokio runtime.
    pub fn tend(&mut self, wanted: Option<WantedTurn>) {
        let number = self.attempt.as_ref().map(|attempt| attempt.number);
        if number == wanted.map(|wanted| wanted.attempt) {
            return;
        }
        self.end();
        let Some(wanted) = wanted else {
            return;
        };
        if let Some(server) = self.servers.get(wanted.server) {
            let number = wanted.attempt;
            let task = run(number, server.clone(), self.news.outbox());
            self.attempt = Some(Attempt {
                number,
                task: tokio::spawn(task),
                outgoing: None,
            });
        }
    }

    fn end(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            attempt.task.abort();
        }
    }

    /// Notes where messages for the server go.
    pub fn reached(&mut self, number: u32, outgoing: Option<mpsc::Sender<Vec<u8>>>) {
        if let Some(attempt) = self.attempt.as_mut().filter(|one| one.number == number) {
            attempt.outgoing = outgoing;
        }
    }

    /// Whether an attempt is the one under way.
    pub fn is_under_way(&self, number: u32) -> bool {
        self.attempt
            .as_ref()
            .is_some_and(|one| one.number == number)
    }

    /// Sends a message over the stream to the server.
    pub fn send(&self, message: &[u8]) {
        let outgoing = self.attempt.as_ref().and_then(|one| one.outgoing.as_ref());
        if let Some(outgoing) = outgoing {
            // What there is no room for is lost.
            let _ = outgoing.try_send(message.to_vec());
        }
    }
}

impl Drop for TurnServers {
    fn drop(&mut self) {
        self.end();
    }
}

async fn run(number: u32, server: Turn, outbox: mpsc::Sender<Came>) {
    let ended = match server.transport {
        Transport::Udp => match look_up(&server).await {
            Ok(mut addresses) => {
                // Most peers have IPv4, and a server gives addresses of the kind it is asked at. Which
                // of its addresses can be reached shows: the next attempt takes the next.
                addresses.sort_by_key(|address| !address.is_ipv4());
                let place = number as usize % addresses.len().max(1);
                let address = addresses.get(place).copied();
                address.ok_or_else(|| io::Error::other("its name has no address"))
            }
            Err(e) => Err(e),
        }
        .map(|address| Came::Reached(number, address, None)),
        Transport::Tcp => match connect(&server).await {
            Ok((address, stream)) => Err(carry(number, address, stream, &outbox).await),
            Err(e) => Err(e),
        },
    };
    let came = ended.unwrap_or_else(|e| Came::Lost(number, e.to_string()));
    // Nobody is there any more at the end.
    let _ = outbox.send(came).await;
}

async fn look_up(server: &Turn) -> io::Result<Vec<SocketAddr>> {
    let named = server.host_and_port();
    let named = named.ok_or_else(|| io::Error::other("it has no name"))?;
    let found = timeout(PATIENCE, tokio::net::lookup_host(named)).await;
    let found = found.map_err(|_| io::Error::other("its name is not answered"))??;
    Ok(found.collect())
}

async fn connect(server: &Turn) -> io::Result<(SocketAddr, TcpStream)> {
    let mut why = io::Error::other("its name has no address");
    for address in look_up(server).await? {
        match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok((address, stream));
            }
            Ok(Err(e)) => why = e,
            Err(_) => why = io::Error::other("connecting takes too long"),
        }
    }
    Err(why)
}

/// Carries messages until the stream ends; says why it did.
async fn carry(
    number: u32,
    address: SocketAddr,
    mut stream: TcpStream,
    outbox: &mpsc::Sender<Came>,
) -> io::Error {
    let (sender, mut outgoing) = mpsc::channel::<Vec<u8>>(WAITING);
    let reached = Came::Reached(number, address, Some(sender));
    if outbox.send(reached).await.is_err() {
        return io::Error::other("nobody is there any more");
    }
    let (mut reader, mut writer) = stream.split();
    let read = async {
        let mut unread = Vec::with_capacity(2 * stream::MAX_STREAM_BYTES);
        loop {
            match reader.read_buf(&mut unread).await {
                Ok(0) => return io::Error::other("the server ended the connection"),
                Ok(_) => {}
                Err(e) => return e,
            }
            loop {
                match stream::framed(&unread) {
                    Ok(Some(framed)) if unread.len() >= framed.length + framed.padding => {
                        let message = unread.get(..framed.length).unwrap_or_default();
                        let _ = outbox.try_send(Came::Message(number, message.to_vec()));
                        unread.drain(..framed.length + framed.padding);
                    }
                    Ok(_) => break,
                    Err(e) => return io::Error::other(e),
                }
            }
        }
    };
    let write = async {
        while let Some(message) = outgoing.recv().await {
            if let Err(e) = writer.write_all(&message).await {
                return e;
            }
        }
        io::Error::other("it is not wanted any more")
    };
    tokio::select! {
        why = read => why,
        why = write => why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn server(at: SocketAddr, transport: Transport) -> TurnServers {
        TurnServers::new(&[Turn {
            server: at.to_string(),
            transport,
            username: "anna".into(),
            password: None,
            password_file: None,
        }])
    }

    const WANTED: WantedTurn = WantedTurn {
        server: 0,
        attempt: 7,
    };

    #[tokio::test]
    async fn over_tcp_messages_are_found_in_whatever_pieces_they_come() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let mut servers = server(at, Transport::Tcp);
        servers.tend(Some(WANTED));
        let (mut far, _) = listener.accept().await.unwrap();
        let Came::Reached(7, found, outgoing) = servers.news.came().await else {
            panic!("not reached");
        };
        assert_eq!(found, at);
        servers.reached(7, outgoing);
        servers.send(b"hello");
        let mut heard = [0; 5];
        far.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
        // ChannelData of five bytes, filled up to eight, and the beginning of a second one.
        let both = [
            0x40, 1, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0, 0x40, 2, 0, 1, 9, 0, 0, 0,
        ];
        for piece in both.chunks(7) {
            far.write_all(piece).await.unwrap();
            far.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        for expected in [&both[..9], &both[12..17]] {
            let Came::Message(7, message) = servers.news.came().await else {
                panic!("no message");
            };
            assert_eq!(message, expected);
        }
        far.write_all(&[0xff; 8]).await.unwrap();
        let Came::Lost(7, why) = servers.news.came().await else {
            panic!("not lost");
        };
        assert!(why.contains("neither a STUN message"), "{why}");
    }

    #[tokio::test]
    async fn over_udp_the_address_is_all_there_is_and_nobody_there_is_said() {
        let at = "127.0.0.1:3478".parse().unwrap();
        let mut servers = server(at, Transport::Udp);
        servers.tend(Some(WANTED));
        assert!(matches!(servers.news.came().await, Came::Reached(7, found, None) if found == at));
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = closed.local_addr().unwrap();
        drop(closed);
        let mut servers = server(at, Transport::Tcp);
        servers.tend(Some(WANTED));
        assert!(matches!(servers.news.came().await, Came::Lost(7, _)));
        servers.tend(None);
        assert!(!servers.is_under_way(7));
    }
}
