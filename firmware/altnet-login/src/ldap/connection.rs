//! One connection to an LDAP server: TCP, TLS by LDAPS or StartTLS, one request at a time.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::ber;
use super::message::{self, Entry, Message, Outcome, Response, Search, code};

/// How long a message may be. An entry with ten thousand groups has a megabyte.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// How many search references are read over in one search.
const MAX_REFERENCES: usize = 64;

/// Where the server is and how it is spoken to.
#[derive(Clone)]
pub struct Server {
    pub host: String,
    pub port: u16,
    pub security: Security,
}

#[derive(Clone)]
pub enum Security {
    /// Only to this machine itself.
    Plain,
    /// TLS from the first byte.
    Tls(Arc<ClientConfig>, ServerName<'static>),
    /// TLS after StartTLS (RFC 4511 section 4.14).
    StartTls(Arc<ClientConfig>, ServerName<'static>),
}

/// Why the server can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("{0}")]
    Connection(#[from] io::Error),
    #[error("no answer within {} s", super::TIMEOUT.as_secs())]
    Late,
    #[error("it sent what isn't LDAP")]
    Malformed,
    #[error("it sent more than a login needs")]
    TooMuch,
    #[error("there is no {0}")]
    Missing(String),
    #[error("it refused the {what} with code {code}: {diagnostic}")]
    Refused {
        what: &'static str,
        code: u32,
        diagnostic: String,
    },
}

impl From<ber::Malformed> for Fault {
    fn from(_: ber::Malformed) -> Fault {
        Fault::Malformed
    }
}

impl Fault {
    pub fn refused(what: &'static str, outcome: Outcome) -> Fault {
        Fault::Refused {
            what,
            code: outcome.code,
            // It goes into logs and onto pages.
            diagnostic: outcome
                .diagnostic
                .chars()
                .filter(|c| !c.is_control())
                .take(120)
                .collect(),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection. Dropping it closes it.
pub struct Connection {
    stream: Box<dyn Stream>,
    /// What was read of the next message.
    buffer: Vec<u8>,
    last_id: u32,
}

impl Connection {
    /// Connects, and begins TLS unless the server is this machine.
    pub async fn open(server: &Server) -> Result<Connection, Fault> {
        let tcp = TcpStream::connect((server.host.as_str(), server.port)).await?;
        tcp.set_nodelay(true)?;
        let (config, name, tcp) = match &server.security {
            Security::Plain => return Ok(Connection::over(Box::new(tcp))),
            Security::Tls(config, name) => (config, name, tcp),
            Security::StartTls(config, name) => (config, name, start_tls(tcp).await?),
        };
        let tls = TlsConnector::from(config.clone())
            .connect(name.clone(), tcp)
            .await?;
        Ok(Connection::over(Box::new(tls)))
    }

    fn over(stream: Box<dyn Stream>) -> Connection {
        Connection {
            stream,
            buffer: Vec::new(),
            last_id: 0,
        }
    }

    /// Binds with a password. `Ok` whatever the server decides; look at the outcome.
    pub async fn bind(&mut self, dn: &str, password: &str) -> Result<Outcome, Fault> {
        let id = self.next_id();
        self.stream
            .write_all(&message::bind(id, dn, password))
            .await?;
        self.stream.flush().await?;
        match self.answer(id).await? {
            Response::Bind(outcome) => Ok(outcome),
            _ => Err(Fault::Malformed),
        }
    }

    /// The entries that a search finds, at most its limit, and how it ended: with success, with no
    /// such object, or with the limit exceeded.
    pub async fn search(&mut self, search: &Search<'_>) -> Result<(Vec<Entry>, u32), Fault> {
        let id = self.next_id();
        self.stream.write_all(&message::search(id, search)).await?;
        self.stream.flush().await?;
        let (mut entries, mut references) = (Vec::new(), 0);
        loop {
            match self.answer(id).await? {
                Response::Entry(entry) if entries.len() < search.limit as usize => {
                    entries.push(entry);
                }
                Response::Reference if references < MAX_REFERENCES => references += 1,
                Response::Search(outcome) => match outcome.code {
                    code::SUCCESS | code::NO_SUCH_OBJECT | code::SIZE_LIMIT_EXCEEDED => {
                        return Ok((entries, outcome.code));
                    }
                    _ => return Err(Fault::refused("search", outcome)),
                },
                Response::Entry(_) | Response::Reference => return Err(Fault::TooMuch),
                Response::Bind(_) | Response::Extended(_) => return Err(Fault::Malformed),
            }
        }
    }

    fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    async fn answer(&mut self, id: u32) -> Result<Response, Fault> {
        let message = read_message(&mut self.stream, &mut self.buffer).await?;
        match message.id == id {
            true => Ok(message.response),
            // Id 0 is the server's goodbye (RFC 4511 section 4.4.1); others answer nothing.
            false => Err(Fault::Malformed),
        }
    }
}

/// Asks for TLS. What the server sent behind its answer in plain text would count as if TLS had
/// carried it, so there must be nothing.
async fn start_tls(mut tcp: TcpStream) -> Result<TcpStream, Fault> {
    tcp.write_all(&message::start_tls(1)).await?;
    let mut buffer = Vec::new();
    let message = read_message(&mut tcp, &mut buffer).await?;
    match message.response {
        Response::Extended(outcome) if message.id == 1 && buffer.is_empty() => match outcome.code {
            code::SUCCESS => Ok(tcp),
            _ => Err(Fault::refused("StartTLS", outcome)),
        },
        _ => Err(Fault::Malformed),
    }
}

/// Reads one message; what follows it stays in `buffer`.
async fn read_message(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
    buffer: &mut Vec<u8>,
) -> Result<Message, Fault> {
    loop {
        if let Some(length) = ber::element_length(buffer)? {
            if length > MAX_MESSAGE_BYTES {
                return Err(Fault::TooMuch);
            }
            if buffer.len() >= length {
                let message = message::decode(&buffer[..length])?;
                buffer.drain(..length);
                return Ok(message);
            }
        }
        let mut chunk = [0; 8192];
        match stream.read(&mut chunk).await? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            read => buffer.extend_from_slice(&chunk[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Result<Message, Fault> {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(async { read_message(&mut &*bytes, &mut Vec::new()).await })
    }

    /// What comes of StartTLS when the server sends `answer`.
    async fn start_tls_answered(answer: &[u8]) -> Result<TcpStream, Fault> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(answer).await.unwrap();
        start_tls(tcp).await
    }

    #[tokio::test]
    async fn nothing_may_follow_the_answer_to_start_tls() {
        const YES: [u8; 14] = [0x30, 12, 2, 1, 1, 0x78, 7, 0x0a, 1, 0, 4, 0, 4, 0];
        assert!(start_tls_answered(&YES).await.is_ok());
        // A bind that somebody on the way answered before TLS could say who is there.
        let injected = [
            &YES[..],
            &[0x30, 12, 2, 1, 1, 0x61, 7, 0x0a, 1, 0, 4, 0, 4, 0],
        ]
        .concat();
        let refused = start_tls_answered(&injected).await;
        assert!(matches!(refused, Err(Fault::Malformed)));
        let mut no = YES;
        no[9] = 2;
        let refused = start_tls_answered(&no).await;
        assert!(matches!(refused, Err(Fault::Refused { code: 2, .. })));
    }

    #[test]
    fn a_message_longer_than_a_megabyte_isnt_waited_for() {
        assert!(matches!(
            decoded(&[0x30, 0x84, 0x7f, 0, 0, 0]),
            Err(Fault::TooMuch)
        ));
        assert!(matches!(decoded(&[0x30, 0x80]), Err(Fault::Malformed)));
        assert!(matches!(decoded(&[0x30, 5, 2]), Err(Fault::Connection(_))));
    }
}
