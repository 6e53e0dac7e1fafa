//! What people and programs on this machine ask of the router.
//!
//! One JSON object a line over a UNIX socket, several on one connection:
//!
//! ```text
//! > {"v":1,"id":7,"method":"apply","params":{"text":"[router]\n"}}
//! < {"v":1,"id":7,"result":{"confirm_within_s":90}}
//! < {"v":1,"id":7,"error":{"message":"...","hint":"..."}}
//! ```
//! The lines are those of altnetd's API. The socket is its owner's and its group's (0660): whoever may ask may change
//! everything.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use zeroize::{Zeroize as _, Zeroizing};

/// The version that is spoken.
pub const VERSION: u8 = 1;
/// The socket's name in the directory of the run.
pub const SOCKET: &str = "control";
/// The longest line in either direction, in bytes: a whole file, escaped, fits.
const MAX_LINE_BYTES: usize = 2 * 1024 * 1024;
/// The most connections at a time.
const MAX_CLIENTS: usize = 8;
/// How long a client may take between two lines.
const PATIENCE: Duration = Duration::from_secs(120);

/// A question.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    v: u8,
    id: u64,
    /// What is asked.
    #[serde(flatten)]
    pub question: Question,
}

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "kebab-case")]
pub enum Question {
    /// The router at a glance.
    Status {},
    /// What works now of what a house needs.
    Look {},
    /// What there is to carry out now.
    Plan {},
    /// Whether a whole file is a good one here, and what its plan is.
    Check {
        /// The file.
        text: Zeroizing<String>,
    },
    /// Put a whole file on trial.
    Apply {
        /// The file.
        text: Zeroizing<String>,
    },
    /// The file on trial is good.
    Confirm {},
    /// It isn't.
    Revert {},
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
struct Response {
    v: u8,
    id: u64,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Result(Value),
    Error(Refusal),
}

/// Why something was not done. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}{}{hint}", if hint.is_empty() { "" } else { "; " })]
pub struct Refusal {
    /// What happened, for people.
    pub message: String,
    /// What to do next; empty where the message says it.
    pub hint: String,
}

impl Refusal {
    /// Makes one.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// A question on its way to the router.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub question: Question,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Value, Refusal>>,
}

/// The listening socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens in `directory`, in the place of a router that is gone. Who is in `group` may ask too.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if a living one listens there; what the file system says.
    pub fn bind(directory: &Path, group: Option<u32>) -> io::Result<Self> {
        let path = directory.join(SOCKET);
        if fs::symlink_metadata(&path).is_ok_and(|meta| meta.file_type().is_socket()) {
            if std::os::unix::net::UnixStream::connect(&path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            fs::remove_file(&path)?;
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        if group.is_some() {
            chown(&path, None, group)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o660))?;
        }
        Ok(Self { listener, path })
    }

    /// Serves until it is dropped. Runs on a [`tokio::task::LocalSet`].
    pub async fn serve(self, calls: mpsc::Sender<Call>) {
        let room = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of descriptors, most likely: wait for some to come back.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                altnet_service::debug!("a client was turned away: {MAX_CLIENTS} are connected");
                continue;
            };
            let calls = calls.clone();
            tokio::task::spawn_local(async move {
                if let Err(e) = serve_one(stream, &calls).await {
                    altnet_service::debug!("a client left: {e}");
                }
                drop(place);
            });
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn serve_one(stream: UnixStream, calls: &mpsc::Sender<Call>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Zeroizing::new(Vec::new());
    loop {
        let read = tokio::time::timeout(PATIENCE, read_line(&mut reader, &mut line));
        if !read.await.map_err(|_| io::ErrorKind::TimedOut)?? {
            return Ok(());
        }
        let (id, outcome) = match serde_json::from_slice::<Request>(&line) {
            Ok(request) if request.v == VERSION => {
                (request.id, answered(request.question, calls).await)
            }
            Ok(request) => {
                let message = format!("version {} is not spoken here, only {VERSION}", request.v);
                (
                    request.id,
                    Err(Refusal::new(message, "update both to the same version")),
                )
            }
            // The reason may quote the line, and that may hold a password.
            Err(e) => {
                let place = format!("the line is not a request (column {})", e.column());
                let hint = r#"send one line like {"v":1,"id":1,"method":"status","params":{}}"#;
                (0, Err(Refusal::new(place, hint)))
            }
        };
        let outcome = outcome.map_or_else(Outcome::Error, Outcome::Result);
        let v = VERSION;
        let mut answer = serde_json::to_vec(&Response { v, id, outcome })?;
        answer.push(b'\n');
        writer.write_all(&answer).await?;
    }
}

async fn answered(question: Question, calls: &mpsc::Sender<Call>) -> Result<Value, Refusal> {
    let gone = || Refusal::new("altnet-routerd is shutting down", "start it and try again");
    let (reply, answer) = oneshot::channel();
    let call = Call { question, reply };
    calls.send(call).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

/// Reads one line of at most [`MAX_LINE_BYTES`] into `line`, without its end. Returns whether there was one.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if it is longer.
async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> io::Result<bool> {
    line.zeroize();
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(false);
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(chunk.len());
        if line.len() + taken > MAX_LINE_BYTES {
            let message = "a line is too long";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        line.extend_from_slice(&chunk[..taken]);
        reader.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody listens on the socket.
    #[error(
        "altnet-routerd does not answer at {path}; start it, or name its directory with --run-directory"
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The router said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection broke, or what came over it is no answer.
    #[error("the connection to altnet-routerd broke; see its log and try again")]
    Broken(#[source] io::Error),
}

/// Asks the router in `directory`.
///
/// # Errors
/// [`AskError`].
pub async fn ask(directory: &Path, question: Question) -> Result<Value, AskError> {
    let path = directory.join(SOCKET);
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(source) => return Err(AskError::NotRunning { path, source }),
    };
    let line = exchange(stream, question).await.map_err(AskError::Broken)?;
    let response = serde_json::from_slice::<Response>(&line);
    match response.map_err(|e| AskError::Broken(e.into()))?.outcome {
        Outcome::Result(value) => Ok(value),
        Outcome::Error(refusal) => Err(refusal.into()),
    }
}

async fn exchange(mut stream: UnixStream, question: Question) -> io::Result<Vec<u8>> {
    let v = VERSION;
    let mut line = Zeroizing::new(serde_json::to_vec(&Request { v, id: 1, question })?);
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = Vec::new();
    if !read_line(&mut BufReader::new(stream), &mut answer).await? {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::LocalSet;

    /// Runs `test` against a listener whose router answers a file with its length and refuses the rest.
    fn with_listener(test: impl AsyncFnOnce(&Path)) {
        let home = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(LocalSet::new().run_until(async {
            let listener = Listener::bind(home.path(), None).unwrap();
            let (calls, mut inbox) = mpsc::channel::<Call>(4);
            tokio::task::spawn_local(listener.serve(calls));
            tokio::task::spawn_local(async move {
                while let Some(call) = inbox.recv().await {
                    let _ = call.reply.send(match call.question {
                        Question::Apply { text } => Ok(text.len().into()),
                        _ => Err(Refusal::new("no", "ask for something else")),
                    });
                }
            });
            test(home.path()).await;
        }));
    }

    #[test]
    fn a_whole_file_goes_through_and_a_refusal_comes_back() {
        with_listener(async |directory| {
            let text = Zeroizing::new("\n\"\\".repeat(200_000));
            let len = text.len();
            let answer = ask(directory, Question::Apply { text }).await.unwrap();
            assert_eq!(answer, Value::from(len));
            let refused = ask(directory, Question::Confirm {}).await.unwrap_err();
            assert_eq!(refused.to_string(), "no; ask for something else");
        });
    }

    #[test]
    fn what_is_no_request_is_said_without_what_was_in_it() {
        with_listener(async |directory| {
            let mut stream = UnixStream::connect(directory.join(SOCKET)).await.unwrap();
            stream
                .write_all(
                    b"{\"sesame\":1}\n{\"v\":2,\"id\":5,\"method\":\"status\",\"params\":{}}\n",
                )
                .await
                .unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            for expected in ["the line is not a request", "version 2 is not spoken here"] {
                assert!(read_line(&mut stream, &mut line).await.unwrap());
                let said = String::from_utf8(line.clone()).unwrap();
                assert!(
                    said.contains(expected) && !said.contains("sesame"),
                    "{said}"
                );
            }
        });
    }

    #[test]
    fn a_line_without_an_end_is_cut_off() {
        with_listener(async |directory| {
            let mut stream = UnixStream::connect(directory.join(SOCKET)).await.unwrap();
            let chunk = vec![b'a'; 64 * 1024];
            let mut sent = 0;
            while stream.write_all(&chunk).await.is_ok() {
                sent += chunk.len();
                assert!(sent < 4 * MAX_LINE_BYTES, "it goes on reading");
            }
        });
    }

    #[test]
    fn a_living_router_is_not_replaced_and_a_dead_ones_socket_is() {
        let home = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let path = home.path().join(SOCKET);
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            let living = Listener::bind(home.path(), None).unwrap();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let second = Listener::bind(home.path(), None).unwrap_err();
            assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
            drop(living);
            assert!(!path.exists());
        });
    }
}
