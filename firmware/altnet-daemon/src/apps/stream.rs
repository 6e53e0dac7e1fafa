//! A caller's connection as a stream of bytes.

use std::io;
use std::net::Ipv6Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use smoltcp::socket::tcp::RecvError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::serve::Shared;
use super::stack::Accepted;

/// One connection. Dropped, it ends with a FIN behind what was written; see [`Stream::break_off`].
#[derive(Debug)]
pub(super) struct Stream {
    shared: Arc<Shared>,
    accepted: Accepted,
    is_broken: bool,
}

impl Stream {
    pub fn new(shared: Arc<Shared>, accepted: Accepted) -> Self {
        Self {
            shared,
            accepted,
            is_broken: false,
        }
    }

    /// Who is at the other end.
    pub fn caller(&self) -> Ipv6Addr {
        self.accepted.caller
    }

    /// The port that was called.
    pub fn port(&self) -> u16 {
        self.accepted.port
    }

    /// Ends it with a RST, so that the caller doesn't take what it got for everything.
    pub fn break_off(mut self) {
        self.is_broken = true;
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let now = self.shared.now();
        let mut stack = self.shared.stack();
        let socket = stack.socket(self.accepted.socket);
        let read = socket.recv(|bytes| {
            let len = bytes.len().min(buffer.remaining());
            buffer.put_slice(&bytes[..len]);
            (len, len)
        });
        match read {
            Ok(0) if buffer.remaining() > 0 => {
                socket.register_recv_waker(cx.waker());
                Poll::Pending
            }
            Ok(len) => {
                stack.stats.received_bytes += len as u64;
                stack.note_bytes(self.accepted.socket, now);
                // The caller may send more.
                self.shared.changed();
                Poll::Ready(Ok(()))
            }
            Err(RecvError::Finished) => Poll::Ready(Ok(())),
            Err(RecvError::InvalidState) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let now = self.shared.now();
        let mut stack = self.shared.stack();
        let socket = stack.socket(self.accepted.socket);
        match socket.send_slice(bytes) {
            Ok(0) if !bytes.is_empty() => {
                socket.register_send_waker(cx.waker());
                Poll::Pending
            }
            Ok(len) => {
                stack.stats.sent_bytes += len as u64;
                stack.note_bytes(self.accepted.socket, now);
                self.shared.changed();
                Poll::Ready(Ok(len))
            }
            Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written leaves by itself.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.stack().socket(self.accepted.socket).close();
        self.shared.changed();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let now = self.shared.now();
        let mut stack = self.shared.stack();
        stack.release(self.accepted.socket, self.is_broken, now);
        self.shared.changed();
    }
}
