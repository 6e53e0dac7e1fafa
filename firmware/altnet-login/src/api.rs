//! Telling altnetd who logged in: the client of its local API (JSON lines, one answer a question).
//!
//! One task owns the connection. When altnetd closes it, or says what is no answer, the task ends
//! and so does the process: whatever runs services starts it again.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

/// The version of the API that is spoken.
const VERSION: u8 = 1;
/// The longest line in either direction, in bytes.
const MAX_LINE_BYTES: usize = 256 * 1024;
/// Questions that wait for those before them.
const QUEUE: usize = 64;
/// How long altnetd may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why altnetd didn't do something.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{message}{}{hint}", if hint.is_empty() { "" } else { "; " })]
pub struct ApiError {
    /// For programs.
    pub code: String,
    /// What happened, for people.
    pub message: String,
    /// What to do next, for people; empty where the message says it.
    #[serde(default)]
    pub hint: String,
}

impl ApiError {
    /// Whether what was named isn't there.
    pub fn is_not_found(&self) -> bool {
        self.code == "not-found"
    }

    fn gone() -> Self {
        Self {
            code: "failed".into(),
            message: "the gateway is stopping".into(),
            hint: "try again in a moment".into(),
        }
    }
}

/// Whom a device is to be counted as.
#[derive(Clone, Debug, Serialize)]
pub struct Login {
    /// An address of the device.
    pub address: String,
    /// The person; none if only groups are given.
    pub person: Option<String>,
    /// The groups.
    pub groups: Vec<String>,
    /// For how long.
    pub seconds: u64,
    /// How they logged in, for the audit log.
    pub how: String,
}

/// What altnetd made of a login.
#[derive(Clone, Debug, Deserialize)]
pub struct LoggedIn {
    /// The device's MAC address.
    pub device: String,
    /// What policy doesn't let this gateway say, in words.
    #[serde(default)]
    pub not_counted: Vec<String>,
}

/// The page's certificate and key, as altnetd keeps them.
#[derive(Deserialize)]
pub struct Served {
    /// The certificate as DER, base64.
    pub certificate: String,
    /// The secret key as PKCS #8 in DER, base64.
    pub key: Zeroizing<String>,
}

/// The network's authority for TLS, which devices are to trust.
#[derive(Clone, Debug, Deserialize)]
pub struct Authority {
    /// SHA-256 of its certificate, as browsers show it.
    pub fingerprint: String,
    /// The certificate as PEM.
    pub pem: String,
    /// The certificate as DER, base64.
    pub der: String,
    /// A profile for iOS and macOS.
    pub mobileconfig: String,
    /// What who trusts it trusts it for.
    pub text: String,
}

#[derive(Deserialize)]
struct Device {
    device: String,
}

/// A device that counts as somebody.
#[derive(Clone, Debug, Deserialize)]
pub struct Known {
    /// Its MAC address.
    pub device: String,
    /// How whoever it is logged in.
    #[serde(default)]
    pub how: String,
}

#[derive(Deserialize)]
struct Logins {
    logins: Vec<Known>,
}

#[derive(Deserialize)]
struct Response {
    id: u64,
    result: Option<Value>,
    error: Option<ApiError>,
}

struct Question {
    method: &'static str,
    params: Value,
    answer: oneshot::Sender<Result<Value, ApiError>>,
}

/// altnetd, as the page sees it.
#[derive(Clone, Debug)]
pub struct Api {
    questions: mpsc::Sender<Question>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiConnectError {
    /// Nobody listens on the socket.
    #[error("altnetd does not answer at {path}; start it, or name its socket with --api")]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// Connects to the socket at `path`.
///
/// # Errors
/// [`ApiConnectError::NotRunning`].
pub fn connect(path: &Path) -> Result<std::os::unix::net::UnixStream, ApiConnectError> {
    let stream = std::os::unix::net::UnixStream::connect(path);
    stream.map_err(|source| ApiConnectError::NotRunning {
        path: path.into(),
        source,
    })
}

impl Api {
    /// Talks over `stream`. The second future ends with the connection, and says why.
    ///
    /// # Errors
    /// The event loop doesn't take the socket.
    pub fn start(
        stream: std::os::unix::net::UnixStream,
    ) -> io::Result<(Self, impl Future<Output = io::Error>)> {
        stream.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(stream)?.into_split();
        let (questions, inbox) = mpsc::channel(QUEUE);
        let (lines, answers) = mpsc::channel(1);
        let talk = async move {
            tokio::select! {
                e = listen(read, lines) => e,
                e = talk(write, inbox, answers) => e,
            }
        };
        Ok((Self { questions }, talk))
    }

    /// Counts a device as somebody.
    ///
    /// # Errors
    /// altnetd's reason.
    pub async fn login(&self, login: &Login) -> Result<LoggedIn, ApiError> {
        self.call("login", json!(login)).await
    }

    /// Counts a device as nobody again.
    ///
    /// # Errors
    /// altnetd's reason.
    pub async fn logout(&self, device: &str) -> Result<(), ApiError> {
        let params = json!({ "device": device });
        self.call::<Value>("logout", params).await.map(|_| ())
    }

    /// The devices that count as somebody.
    ///
    /// # Errors
    /// altnetd's reason.
    pub async fn logins(&self) -> Result<Vec<Known>, ApiError> {
        let logins: Logins = self.call("logins", json!({})).await?;
        Ok(logins.logins)
    }

    /// The MAC address of the device on the LAN that has `address`.
    ///
    /// # Errors
    /// altnetd's reason; [`ApiError::is_not_found`] if no device has it.
    pub async fn whose(&self, address: &str) -> Result<String, ApiError> {
        let params = json!({ "address": address });
        Ok(self.call::<Device>("whose", params).await?.device)
    }

    /// The page's certificate of the network's authority.
    ///
    /// # Errors
    /// altnetd's reason; [`ApiError::is_not_found`] while there is none.
    pub async fn login_tls(&self) -> Result<Served, ApiError> {
        self.call("login-tls", json!({})).await
    }

    /// The network's authority.
    ///
    /// # Errors
    /// altnetd's reason; [`ApiError::is_not_found`] if there is none.
    pub async fn tls_authority(&self) -> Result<Authority, ApiError> {
        self.call("tls-ca", json!({})).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
    ) -> Result<T, ApiError> {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            method,
            params,
            answer,
        };
        let sent = self.questions.send(question).await;
        sent.map_err(|_| ApiError::gone())?;
        let value = answered.await.map_err(|_| ApiError::gone())??;
        serde_json::from_value(value).map_err(|e| ApiError {
            code: "failed".into(),
            message: format!("altnetd's answer to {method} can't be read: {e}"),
            hint: "use the altnetd and the altnet-login of one version".into(),
        })
    }
}

/// Reads lines until the connection ends.
async fn listen(read: OwnedReadHalf, lines: mpsc::Sender<Vec<u8>>) -> io::Error {
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut read).take(MAX_LINE_BYTES as u64);
        match limited.read_until(b'\n', &mut line).await {
            Ok(_) if line.ends_with(b"\n") => {}
            Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => return io::Error::other("a line is too long or was cut off"),
            Err(e) => return e,
        }
        if lines.send(line).await.is_err() {
            return io::ErrorKind::BrokenPipe.into();
        }
    }
}

/// Asks one question after the other.
async fn talk(
    mut write: OwnedWriteHalf,
    mut inbox: mpsc::Receiver<Question>,
    mut answers: mpsc::Receiver<Vec<u8>>,
) -> io::Error {
    let mut id = 0u64;
    while let Some(question) = inbox.recv().await {
        id += 1;
        let asked = ask(&mut write, &mut answers, id, &question);
        match tokio::time::timeout(PATIENCE, asked).await {
            // Whoever asked may have gone.
            Ok(Ok(answer)) => drop(question.answer.send(answer)),
            Ok(Err(e)) => return e,
            Err(_) => return io::ErrorKind::TimedOut.into(),
        }
    }
    io::ErrorKind::BrokenPipe.into()
}

async fn ask(
    write: &mut OwnedWriteHalf,
    answers: &mut mpsc::Receiver<Vec<u8>>,
    id: u64,
    question: &Question,
) -> io::Result<Result<Value, ApiError>> {
    let request = json!({
        "v": VERSION, "id": id, "method": question.method, "params": question.params,
    });
    write.write_all(format!("{request}\n").as_bytes()).await?;
    let line = answers.recv().await.ok_or(io::ErrorKind::UnexpectedEof)?;
    let response: Response = serde_json::from_slice(&line)?;
    if response.id != id {
        return Err(io::Error::other("an answer has another question's number"));
    }
    match (response.result, response.error) {
        (_, Some(error)) => Ok(Err(error)),
        (result, None) => Ok(Ok(result.unwrap_or_default())),
    }
}
