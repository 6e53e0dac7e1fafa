//! The socket's asking end.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::server::read_line;
use super::{ApiError, Method, Outcome, Request, Response, VERSION};

/// A connection to altnetd.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    next_id: u64,
    line: Vec<u8>,
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("altnetd does not answer at {path}; start it, or name its socket with --socket")]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// altnetd said no.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The connection broke, or what came over it is not an answer.
    #[error("the connection to altnetd broke; see its log and try again")]
    Broken(#[source] io::Error),
}

impl Client {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`].
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).await;
        let stream = stream.map_err(|source| ClientError::NotRunning {
            path: path.into(),
            source,
        })?;
        Ok(Self {
            stream: BufReader::new(stream),
            next_id: 1,
            line: Vec::new(),
        })
    }

    /// Asks for `method` and waits for its answer.
    ///
    /// # Errors
    /// [`ClientError::Api`] with altnetd's reason; [`ClientError::Broken`].
    pub async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        params: &impl Serialize,
    ) -> Result<T, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        let request = Request {
            v: VERSION,
            id,
            method: method.name().into(),
            params: serde_json::to_value(params).map_err(broken)?,
        };
        let mut line = serde_json::to_vec(&request).map_err(broken)?;
        line.push(b'\n');
        self.stream.write_all(&line).await.map_err(broken)?;
        let line = self.next_line().await?;
        let line = line.ok_or_else(|| broken(io::ErrorKind::UnexpectedEof))?;
        let response: Response = serde_json::from_str(&line).map_err(broken)?;
        match response.outcome {
            Outcome::Result(value) => serde_json::from_value(value).map_err(broken),
            Outcome::Error(e) => Err(e.into()),
        }
    }

    /// The next line, such as an event's; nothing when altnetd closed the connection.
    ///
    /// # Errors
    /// [`ClientError::Broken`].
    pub async fn next_line(&mut self) -> Result<Option<String>, ClientError> {
        if !read_line(&mut self.stream, &mut self.line)
            .await
            .map_err(broken)?
        {
            return Ok(None);
        }
        let line = String::from_utf8(std::mem::take(&mut self.line));
        line.map(Some).map_err(|e| broken(io::Error::other(e)))
    }
}

fn broken(reason: impl Into<io::Error>) -> ClientError {
    ClientError::Broken(reason.into())
}
