//! Name service on the LANs: listeners on port 53, and the way to other resolvers.
//!
//! In: datagrams and connections from LAN clients. Every query goes to the gateway first,
//! whose node answers for `.alt` from records; only what it hands back goes on to the home's
//! own resolvers, from a fresh random port with a fresh random id, and only an answer to the
//! same question from the same address comes back (RFC 5452).
//!
//! `.alt` never leaves this machine (RFC 9476): the node decides so, and [`Forwarder`] refuses
//! it once more.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

mod forward;
mod message;
pub mod upstream;

pub use forward::{ForwardError, Forwarder};
use message::{failure, read_message, write_message};

/// Where names are asked for (RFC 1035 section 4.2).
pub const PORT: u16 = 53;
/// The most queries in work at a time; more are dropped, and clients ask again.
pub const MAX_IN_FLIGHT: usize = 256;
/// The most TCP connections at a time.
pub const MAX_CONNECTIONS: usize = 32;
/// The largest datagram that is read or sent, in bytes.
pub const MAX_DATAGRAM_BYTES: usize = 4096;

const IDLE: Duration = Duration::from_secs(10);

/// A query on its way to the gateway.
#[derive(Debug)]
pub struct Inquiry {
    /// Who asks.
    pub client: SocketAddr,
    /// The message.
    pub query: Vec<u8>,
    /// Whether it came over TCP, so that an answer may be longer than a datagram's.
    pub is_tcp: bool,
    /// Where the decision goes.
    pub decision: oneshot::Sender<Decision>,
}

/// What becomes of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This is the answer.
    Answer(Vec<u8>),
    /// Other resolvers are asked.
    Forward,
    /// Nothing is said.
    Drop,
}

/// A listener's share of everything.
#[derive(Debug)]
pub struct Service {
    inquiries: mpsc::Sender<Inquiry>,
    forwarder: Forwarder,
    queries: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl Service {
    /// Makes a service whose queries go to `inquiries` first.
    pub fn new(inquiries: mpsc::Sender<Inquiry>, forwarder: Forwarder) -> Arc<Self> {
        Arc::new(Self {
            inquiries,
            forwarder,
            queries: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        })
    }

    /// Answers datagrams until it is dropped.
    pub async fn serve_udp(self: Arc<Self>, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let mut buffer = [0; MAX_DATAGRAM_BYTES];
        loop {
            let Ok((len, client)) = socket.recv_from(&mut buffer).await else {
                // An ICMP error of an earlier answer, or no memory: neither lasts.
                tokio::task::yield_now().await;
                continue;
            };
            let Ok(place) = Arc::clone(&self.queries).try_acquire_owned() else {
                continue;
            };
            let query = buffer[..len].to_vec();
            let (service, socket) = (Arc::clone(&self), Arc::clone(&socket));
            tokio::spawn(async move {
                if let Some(answer) = service.answer(client, query, false).await {
                    // A client that is gone needs no answer.
                    let _ = socket.send_to(&answer, client).await;
                }
                drop(place);
            });
        }
    }

    /// Answers connections until it is dropped.
    pub async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, client)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(place) = Arc::clone(&self.connections).try_acquire_owned() else {
                continue;
            };
            let service = Arc::clone(&self);
            tokio::spawn(async move {
                // A client that hangs up or stalls is its own affair.
                let _ = service.converse(stream, client).await;
                drop(place);
            });
        }
    }

    async fn converse(&self, mut stream: TcpStream, client: SocketAddr) -> io::Result<()> {
        loop {
            let query = timeout(IDLE, read_message(&mut stream)).await??;
            let Some(answer) = self.answer(client, query, true).await else {
                return Ok(());
            };
            timeout(IDLE, write_message(&mut stream, &answer)).await??;
        }
    }

    async fn answer(&self, client: SocketAddr, query: Vec<u8>, is_tcp: bool) -> Option<Vec<u8>> {
        let (decision, decided) = oneshot::channel();
        let inquiry = Inquiry {
            client,
            query: query.clone(),
            is_tcp,
            decision,
        };
        self.inquiries.send(inquiry).await.ok()?;
        match decided.await.ok()? {
            Decision::Answer(answer) => Some(answer),
            Decision::Drop => None,
            Decision::Forward => match self.forwarder.forward(&query, is_tcp).await {
                Ok(answer) => Some(answer),
                Err(e) => {
                    crate::debug!("a name could not be asked for: {}", crate::log::chain(&e));
                    failure(&query)
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::message::testing::{answer_to, query};
    use super::message::{SERVER_FAILURE, is_alt, question};
    use super::upstream::Upstreams;
    use super::*;
    use std::sync::Mutex;

    /// A service on loopback, whose gateway answers names under `.alt` and forwards the rest.
    async fn service(upstreams: Vec<SocketAddr>) -> (SocketAddr, Arc<Mutex<Vec<bool>>>) {
        let (inquiries, mut inbox) = mpsc::channel::<Inquiry>(8);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let saw = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Some(inquiry) = inbox.recv().await {
                saw.lock().unwrap().push(inquiry.is_tcp);
                let decision = match question(&inquiry.query) {
                    Some(question) if is_alt(question) => {
                        Decision::Answer(answer_to(&inquiry.query))
                    }
                    Some(_) => Decision::Forward,
                    None => Decision::Drop,
                };
                let _ = inquiry.decision.send(decision);
            }
        });
        let service = Service::new(
            inquiries,
            Forwarder::new(Upstreams::fixed(upstreams), Duration::from_millis(500)),
        );
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        tokio::spawn(Arc::clone(&service).serve_udp(udp));
        tokio::spawn(service.serve_tcp(tcp));
        (address, seen)
    }

    #[tokio::test]
    async fn queries_are_answered_over_both_transports() {
        let (address, seen) = service(Vec::new()).await;
        let asked = query(7, "wiki.home.alt");
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut buffer = [0; 512];
        socket.send_to(&asked, address).await.unwrap();
        let len = socket.recv(&mut buffer).await.unwrap();
        assert_eq!(buffer[..len], answer_to(&asked));
        let mut stream = TcpStream::connect(address).await.unwrap();
        for _ in 0..2 {
            write_message(&mut stream, &asked).await.unwrap();
            assert_eq!(read_message(&mut stream).await.unwrap(), answer_to(&asked));
        }
        assert_eq!(*seen.lock().unwrap(), [false, true, true]);
    }

    #[tokio::test]
    async fn a_failure_is_said_at_once() {
        let (address, _) = service(Vec::new()).await;
        let asked = query(7, "example.com");
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut buffer = [0; 512];
        socket.send_to(&asked, address).await.unwrap();
        let len = socket.recv(&mut buffer).await.unwrap();
        assert_eq!(buffer[..2], [0, 7]);
        assert_eq!(buffer[3] & 15, SERVER_FAILURE);
        assert_eq!(question(&buffer[..len]), question(&asked));
    }

    #[tokio::test]
    async fn a_tcp_query_is_forwarded_over_tcp() {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, _) = service(vec![upstream.local_addr().unwrap()]).await;
        tokio::spawn(async move {
            let (mut stream, _) = upstream.accept().await.unwrap();
            let asked = read_message(&mut stream).await.unwrap();
            write_message(&mut stream, &answer_to(&asked))
                .await
                .unwrap();
        });
        let asked = query(9, "example.com");
        let mut stream = TcpStream::connect(address).await.unwrap();
        write_message(&mut stream, &asked).await.unwrap();
        assert_eq!(read_message(&mut stream).await.unwrap(), answer_to(&asked));
    }
}
