//! The server that an app stands for: `host:port`, `[address]:port` or `unix:/path`.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// The longest host name (RFC 1035 section 2.3.4).
const MAX_HOST_BYTES: usize = 253;
/// The longest path of a UNIX socket, without its final zero (unix(7)).
const MAX_PATH_BYTES: usize = 107;

/// A server on this machine or one that it reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A TCP server. The name is looked up at each connection.
    Tcp {
        /// A host name or an address, without brackets.
        host: String,
        /// Its port, not 0.
        port: u16,
    },
    /// A UNIX socket's absolute path.
    Unix(PathBuf),
}

/// Text that names no server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no server; write HOST:PORT, [ADDRESS]:PORT or unix:/PATH")]
pub struct TargetError {
    /// What was given.
    pub text: String,
}

/// Bytes to and from a target.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// Why a target can't be talked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("{target} can't be connected to")]
    Refused { target: String, source: io::Error },
    #[error("{target} did not answer within {patience:?}")]
    Silent { target: String, patience: Duration },
}

impl Target {
    /// Connects. A name that has several addresses is tried at each.
    pub(super) async fn connect(&self, patience: Duration) -> Result<Box<dyn Bytes>, ConnectError> {
        let target = || self.to_string();
        let connected = timeout(patience, self.open()).await;
        connected
            .map_err(|_| ConnectError::Silent {
                target: target(),
                patience,
            })?
            .map_err(|source| ConnectError::Refused {
                target: target(),
                source,
            })
    }

    async fn open(&self) -> io::Result<Box<dyn Bytes>> {
        Ok(match self {
            Self::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        parse(text).ok_or_else(|| TargetError { text: text.into() })
    }
}

fn parse(text: &str) -> Option<Target> {
    if let Some(path) = text.strip_prefix("unix:") {
        let fits = path.starts_with('/') && path.len() <= MAX_PATH_BYTES && !path.contains('\0');
        return fits.then(|| Target::Unix(path.into()));
    }
    let (host, port) = text.rsplit_once(':')?;
    // `u16` would take a sign.
    let is_number = port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|port| is_number && *port != 0)?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let is_host = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            !host.is_empty() && host.len() <= MAX_HOST_BYTES && host.bytes().all(ok)
        }
    };
    let host = bare.unwrap_or(host).to_owned();
    is_host.then_some(Target::Tcp { host, port })
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn a_target_reads_back() {
        for text in [
            "nas.lan:8080",
            "127.0.0.1:1",
            "[fd00::1]:65535",
            "unix:/run/a.sock",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        let long = format!("unix:/{}", "a".repeat(MAX_PATH_BYTES));
        for text in [
            "",
            "nas",
            "nas:",
            ":80",
            "nas:0",
            "nas:+1",
            "nas:65536",
            "fd00::1:80",
            "[nas]:80",
            "http://nas:80",
            "a b:80",
            "unix:run",
            "unix:",
            &long,
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_unix_socket_is_a_target() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("app.sock");
        let target = Target::Unix(path.clone());
        let patience = Duration::from_secs(5);
        assert!(matches!(
            target.connect(patience).await,
            Err(ConnectError::Refused { .. })
        ));
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let mut ours = target.connect(patience).await.unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        ours.write_all(b"hello").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "hello");
    }
}
