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
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

pub mod upstream;

/// The most queries in work at a time; more are dropped, and clients ask again.
pub const MAX_IN_FLIGHT: usize = 256;
/// The most TCP connections at a time.
pub const MAX_CONNECTIONS: usize = 32;
/// The largest datagram that is read or sent, in bytes.
pub const MAX_DATAGRAM_BYTES: usize = 4096;

const HEADER_BYTES: usize = 12;
const MAX_NAME_BYTES: usize = 255;
const IDLE: Duration = Duration::from_secs(10);
const SERVER_FAILURE: u8 = 2;

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

/// The way to other resolvers.
#[derive(Debug)]
pub struct Forwarder {
    upstreams: upstream::Upstreams,
    timeout: Duration,
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

/// Why no other resolver gave an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The query is not one question, or its name is under `.alt`.
    #[error("the query must not be forwarded")]
    NotForwarded,
    /// No resolver is known.
    #[error("no resolver is known; add some to [dns] forward in altnet.toml")]
    NoUpstream,
    /// None answered.
    #[error("no resolver answered")]
    NoAnswer(#[source] io::Error),
}

impl Forwarder {
    /// Makes a forwarder that waits `timeout` for each resolver.
    pub fn new(upstreams: upstream::Upstreams, timeout: Duration) -> Self {
        Self { upstreams, timeout }
    }

    /// Asks resolvers one after the other until one answers. The answer has the query's id.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn forward(&self, query: &[u8], is_tcp: bool) -> Result<Vec<u8>, ForwardError> {
        let question = question(query).ok_or(ForwardError::NotForwarded)?;
        if is_alt(question) {
            return Err(ForwardError::NotForwarded);
        }
        let mut last = None;
        for upstream in self.upstreams.now() {
            let asked = timeout(self.timeout, ask(upstream, query, question, is_tcp)).await;
            match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(answer) => return Ok(answer),
                Err(e) => last = Some(e),
            }
        }
        Err(last.map_or(ForwardError::NoUpstream, ForwardError::NoAnswer))
    }
}

async fn ask(to: SocketAddr, query: &[u8], question: &[u8], is_tcp: bool) -> io::Result<Vec<u8>> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let mut sent = query.to_vec();
    sent[..2].copy_from_slice(&id);
    let matches = |answer: &[u8]| {
        answer.first_chunk() == Some(&id)
            && answer.get(2).is_some_and(|flags| flags & 0x80 != 0)
            && self::question(answer).is_some_and(|echoed| echoed.eq_ignore_ascii_case(question))
    };
    let mut answer = if is_tcp {
        let mut stream = TcpStream::connect(to).await?;
        write_message(&mut stream, &sent).await?;
        let answer = read_message(&mut stream).await?;
        if !matches(&answer) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        answer
    } else {
        // A port of its own for every query, which the kernel draws at random; connected, so
        // that only the resolver's address is heard.
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(to).await?;
        socket.send(&sent).await?;
        let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
        loop {
            let len = socket.recv(&mut buffer).await?;
            if matches(&buffer[..len]) {
                buffer.truncate(len);
                break buffer;
            }
        }
    };
    answer[..2].copy_from_slice(&query[..2]);
    Ok(answer)
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = vec![0; len.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = Vec::with_capacity(2 + message.len());
    framed.extend_from_slice(&len.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

/// The bytes of the one question of a message: name, type and class. Nothing if there is not
/// exactly one, or if its name is compressed, which no question needs.
fn question(message: &[u8]) -> Option<&[u8]> {
    if message.get(4..6) != Some(&[0, 1]) {
        return None;
    }
    let body = message.get(HEADER_BYTES..)?;
    let mut at = 0;
    loop {
        match usize::from(*body.get(at)?) {
            0 => break,
            len if len < 64 => at += 1 + len,
            _ => return None,
        }
    }
    let end = at + 1;
    if end > MAX_NAME_BYTES {
        return None;
    }
    body.get(..end + 4)
}

/// Whether a question's name is `alt` or under it.
fn is_alt(question: &[u8]) -> bool {
    let mut last: &[u8] = &[];
    let mut rest = question;
    while let Some((len, behind)) = rest.split_first() {
        let Some((label, behind)) = behind.split_at_checked((*len).into()) else {
            return true; // not a name; better kept here
        };
        if label.is_empty() {
            break;
        }
        (last, rest) = (label, behind);
    }
    last.eq_ignore_ascii_case(b"alt")
}

/// SERVFAIL to `query`, with its question (RFC 1035 section 4.1.1).
fn failure(query: &[u8]) -> Option<Vec<u8>> {
    let question = question(query)?;
    let mut answer = query.get(..HEADER_BYTES)?.to_vec();
    // QR, the query's opcode and RD; RA, and no counts but the question's.
    answer[2] = 0x80 | (answer[2] & 0x79);
    answer[3] = 0x80 | SERVER_FAILURE;
    answer[6..].fill(0);
    answer.extend_from_slice(question);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::upstream::Upstreams;
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;

    fn query(id: u16, name: &str) -> Vec<u8> {
        let mut bytes = id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.').filter(|label| !label.is_empty()) {
            bytes.push(label.len() as u8);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.extend_from_slice(&[0, 0, 28, 0, 1]);
        bytes
    }

    fn answer_to(query: &[u8]) -> Vec<u8> {
        let mut answer = query.to_vec();
        answer[2] |= 0x80;
        answer
    }

    #[test]
    fn only_alt_is_alt() {
        let check = |name: &str, expected| {
            assert_eq!(
                is_alt(question(&query(1, name)).unwrap()),
                expected,
                "{name}"
            );
        };
        check("alt", true);
        check("wiki.home.ALT", true);
        check("alt.example", false);
        check("salt", false);
        check("", false);
    }

    fn forwarder(upstreams: Vec<SocketAddr>) -> Forwarder {
        Forwarder::new(Upstreams::fixed(upstreams), Duration::from_millis(500))
    }

    #[tokio::test]
    async fn alt_is_never_forwarded() {
        let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let forwarder = forwarder(vec![upstream.local_addr().unwrap()]);
        let result = forwarder.forward(&query(1, "wiki.home.alt"), false).await;
        assert!(matches!(result, Err(ForwardError::NotForwarded)));
        assert!(upstream.try_recv(&mut [0; 1]).is_err());
    }

    #[tokio::test]
    async fn forged_answers_are_waited_past() {
        let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let forwarder = forwarder(vec![upstream.local_addr().unwrap()]);
        let resolver = tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (len, from) = upstream.recv_from(&mut buffer).await.unwrap();
            let sent = &buffer[..len];
            let mut wrong_id = answer_to(sent);
            wrong_id[0] ^= 1;
            let wrong_question = answer_to(&query(
                u16::from_be_bytes([sent[0], sent[1]]),
                "other.example",
            ));
            for answer in [
                wrong_id,
                wrong_question,
                sent.to_vec(),
                vec![],
                answer_to(sent),
            ] {
                upstream.send_to(&answer, from).await.unwrap();
            }
            u16::from_be_bytes([sent[0], sent[1]])
        });
        let asked = query(0x1234, "example.com");
        let answer = forwarder.forward(&asked, false).await.unwrap();
        assert_eq!(answer, answer_to(&asked));
        // Equal once in 65536 runs, and then the answer above was still right.
        let _drawn = resolver.await.unwrap();
    }

    #[tokio::test]
    async fn a_silent_resolver_is_passed_over() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let forwarder = forwarder(vec![
            silent.local_addr().unwrap(),
            upstream.local_addr().unwrap(),
        ]);
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (len, from) = upstream.recv_from(&mut buffer).await.unwrap();
            upstream
                .send_to(&answer_to(&buffer[..len]), from)
                .await
                .unwrap();
        });
        assert!(
            forwarder
                .forward(&query(1, "example.com"), false)
                .await
                .is_ok()
        );
    }

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
        let service = Service::new(inquiries, forwarder(upstreams));
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

    proptest! {
        #[test]
        fn no_message_makes_the_reader_panic(message: Vec<u8>) {
            if let Some(question) = question(&message) {
                let _ = is_alt(question);
            }
            let _ = failure(&message);
            let _ = is_alt(&message);
        }
    }
}
