//! A TCP connection with TLS on it, of which nothing is held while it is idle.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::tls::{Side, Tls, TlsError};

/// How long TCP may wait for the other side to acknowledge, before it gives the connection up.
const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a connection may be idle before TCP asks whether it lives; DERP itself asks more often.
const KEEPALIVE: Duration = Duration::from_secs(600);
/// What the kernel may hold unsent. More would be older than what a queue would drop.
const UNSENT_BYTES: u32 = 128 << 10;

/// Why a connection can't go on.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// TLS did.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The other side ended it.
    #[error("the other side ended the connection")]
    Ended,
    /// The other side is too slow.
    #[error("the other side takes too long")]
    TooSlow,
    /// The other side wrote more than it may.
    #[error("the other side wrote more than it may")]
    TooMuch,
}

/// Sets what Tailscale's server sets of a TCP connection. What the kernel refuses is done without.
pub(crate) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
}

/// A connection.
pub(crate) struct Line<S> {
    stream: TcpStream,
    tls: Tls<S>,
    /// Since when the kernel has taken nothing of what is to be written.
    stuck_since: Option<Instant>,
    /// Plaintext that isn't understood yet, since it isn't whole.
    pub(crate) plain: Vec<u8>,
}

impl<S: Side> Line<S> {
    pub(crate) const fn new(stream: TcpStream, tls: Tls<S>) -> Self {
        Self {
            stream,
            tls,
            stuck_since: None,
            plain: Vec::new(),
        }
    }

    pub(crate) const fn tls(&self) -> &Tls<S> {
        &self.tls
    }

    /// Completes TLS's handshake.
    pub(crate) async fn handshake(&mut self) -> Result<(), LineError> {
        loop {
            self.flush().await?;
            if self.tls.is_established() {
                return Ok(());
            }
            let read = self.read_more().await;
            if let Err(LineError::Tls(_)) = read {
                // The other side learns why, if TLS has a word for it.
                let _ = self.tls.arrived(0, &mut |_| ());
                let _ = self.try_flush();
            }
            read?;
        }
    }

    /// Waits for more plaintext behind what there is. May read none, when what came was TLS's own.
    pub(crate) async fn read_more(&mut self) -> Result<(), LineError> {
        self.stream.readable().await?;
        let mut plain = std::mem::take(&mut self.plain);
        let read = self.try_read(&mut |bytes| plain.extend_from_slice(bytes));
        self.plain = plain;
        read?;
        self.tls.rest();
        Ok(())
    }

    /// Seals plaintext, to be written.
    pub(crate) fn seal(&mut self, plaintext: &[u8]) -> Result<(), LineError> {
        Ok(self.tls.seal(plaintext)?)
    }

    /// Writes all that is sealed.
    pub(crate) async fn flush(&mut self) -> Result<(), LineError> {
        while !self.try_flush()? {
            self.stream.writable().await?;
        }
        Ok(())
    }

    /// Ends TLS as it wants to be ended, as far as that can be told without waiting.
    pub(crate) fn finish(&mut self) {
        if self.tls.finish().is_ok() {
            let _ = self.try_flush();
        }
    }

    /// Reads once and hands out what plaintext came; `false` if there was nothing to read.
    pub(crate) fn try_read(&mut self, plaintext: &mut dyn FnMut(&[u8])) -> Result<bool, LineError> {
        match self.stream.try_read(self.tls.space()) {
            Ok(0) => Err(LineError::Ended),
            Ok(length) => {
                self.tls.arrived(length, plaintext)?;
                if self.tls.has_ended() {
                    return Err(LineError::Ended);
                }
                Ok(true)
            }
            Err(e) if is_transient(&e) => {
                // Gives back the buffer that nothing was read into.
                self.tls.arrived(0, plaintext)?;
                Ok(false)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Writes what is sealed, as far as the kernel takes it; `true` once all is.
    pub(crate) fn try_flush(&mut self) -> Result<bool, LineError> {
        while self.has_outgoing() {
            match self.stream.try_write(self.tls.outgoing()) {
                Ok(length) => {
                    self.tls.written(length);
                    self.stuck_since = None;
                }
                Err(e) if is_transient(&e) => {
                    self.stuck_since.get_or_insert_with(Instant::now);
                    return Ok(false);
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }

    /// Since when the kernel has taken nothing of what is to be written, if it doesn't now.
    pub(crate) const fn stuck_since(&self) -> Option<Instant> {
        self.stuck_since
    }

    /// Whether something sealed waits to be written.
    pub(crate) fn has_outgoing(&self) -> bool {
        !self.tls.outgoing().is_empty()
    }

    /// Waits until there is something to read, unless that isn't wanted, or room for what waits to be
    /// written.
    pub(crate) async fn ready(&mut self, wants_to_read: bool) -> io::Result<()> {
        let interest = match (wants_to_read, self.has_outgoing()) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::READABLE,
            (false, true) => Interest::WRITABLE,
            (false, false) => return std::future::pending().await,
        };
        // A busy connection keeps its buffer: only one that has to wait gives it back.
        tokio::select! {
            biased;
            ready = self.stream.ready(interest) => return ready.map(|_| ()),
            () = std::future::ready(()) => self.tls.rest(),
        }
        self.stream.ready(interest).await.map(|_| ())
    }
}

fn is_transient(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
