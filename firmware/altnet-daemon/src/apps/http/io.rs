//! Between tokio's streams and hyper's: two traits that say the same.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Read, ReadBufCursor, Sleep, Timer, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::guard::{Guard, Passed};
use super::head::Fault;

/// Bytes read at a time.
const READ_BYTES: usize = 4096;

/// A stream of tokio's, for hyper.
#[derive(Debug)]
pub struct ForHyper<T>(pub T);

impl<T: AsyncRead + Unpin> Read for ForHyper<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // Through a buffer of our own: hyper lends its memory only to those who promise what no
        // compiler checks.
        let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
        let len = cursor.remaining().min(READ_BYTES);
        let mut buffer = ReadBuf::uninit(&mut bytes[..len]);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
        cursor.put_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Write for ForHyper<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A stream of hyper's, for tokio.
#[derive(Debug)]
pub struct ForTokio<T>(pub T);

impl<T: Read + Unpin> AsyncRead for ForTokio<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
        let len = buffer.remaining().min(READ_BYTES);
        let mut read = hyper::rt::ReadBuf::uninit(&mut bytes[..len]);
        ready!(Pin::new(&mut self.0).poll_read(cx, read.unfilled()))?;
        buffer.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl<T: Write + Unpin> AsyncWrite for ForTokio<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// What those who answer requests and the [`Guard`] of their connection tell each other.
#[derive(Debug, Default)]
pub struct Gate(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    is_tunnel: Option<bool>,
    fault: Option<Fault>,
    waker: Option<Waker>,
}

impl Gate {
    /// Decides whether bytes behind a request to leave HTTP are a tunnel's.
    pub fn part(&self, is_tunnel: bool) {
        let mut inside = self.inside();
        inside.is_tunnel = Some(is_tunnel);
        if let Some(waker) = inside.waker.take() {
            waker.wake();
        }
    }

    /// Why the body of the request in work was broken off, if it was.
    pub fn fault(&self) -> Option<Fault> {
        self.inside().fault
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A caller's stream, of which hyper reads only what the [`Guard`] lets through.
#[derive(Debug)]
pub struct Guarded<T> {
    stream: ForHyper<T>,
    guard: Guard,
    gate: Arc<Gate>,
    // Read and not yet passed; at most `READ_BYTES`.
    unread: Vec<u8>,
    // Passed and not yet taken; at most a head.
    passed: Vec<u8>,
    taken: usize,
}

impl<T> Guarded<T> {
    pub fn new(stream: T, gate: Arc<Gate>) -> Self {
        Self {
            stream: ForHyper(stream),
            guard: Guard::default(),
            gate,
            unread: Vec::new(),
            passed: Vec::new(),
            taken: 0,
        }
    }
}

impl<T: AsyncRead + Unpin> Read for Guarded<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        loop {
            if own.taken < own.passed.len() {
                let rest = &own.passed[own.taken..];
                let len = rest.len().min(cursor.remaining());
                cursor.put_slice(&rest[..len]);
                own.taken += len;
                return Poll::Ready(Ok(()));
            }
            own.passed.clear();
            own.taken = 0;
            if own.guard.is_parting() {
                let mut inside = own.gate.inside();
                let Some(is_tunnel) = inside.is_tunnel.take() else {
                    inside.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                };
                own.guard.part(is_tunnel);
            }
            if own.unread.is_empty() {
                let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
                let mut buffer = ReadBuf::uninit(&mut bytes);
                ready!(Pin::new(&mut own.stream.0).poll_read(cx, &mut buffer))?;
                if buffer.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
                own.unread.extend_from_slice(buffer.filled());
            }
            match own.guard.pass(&own.unread, &mut own.passed) {
                Passed::Bytes(len) => drop(own.unread.drain(..len)),
                Passed::Nothing => {}
                Passed::Refused => own.unread.clear(),
                Passed::Broken(fault) => {
                    own.gate.inside().fault = Some(fault);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)));
                }
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> Write for Guarded<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// tokio's time, for hyper.
#[derive(Clone, Copy, Debug)]
pub struct Clock;

struct Sleeping(Pin<Box<tokio::time::Sleep>>);

impl Future for Sleeping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl Sleep for Sleeping {}

impl Timer for Clock {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(Sleeping(Box::pin(tokio::time::sleep(duration))))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let sleep = tokio::time::sleep_until(deadline.into());
        Box::pin(Sleeping(Box::pin(sleep)))
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn bytes_pass_both_adapters_and_the_guard() {
        let (mut caller, ours) = duplex(64);
        let gate = Arc::new(Gate::default());
        let mut guarded = ForTokio(Guarded::new(ours, Arc::clone(&gate)));
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
        let mut buffer = [0; 256];
        let write = async {
            caller.write_all(request).await.unwrap();
            caller.write_all(b"frame").await.unwrap();
        };
        let (len, ()) = tokio::join!(guarded.read(&mut buffer), write);
        assert_eq!(&buffer[..len.unwrap()], request);
        gate.part(true);
        let len = guarded.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], b"frame");
        guarded.write_all(b"answer").await.unwrap();
        let len = caller.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], b"answer");
    }

    #[tokio::test]
    async fn a_broken_body_is_an_error_and_the_gate_knows_why() {
        let (mut caller, ours) = duplex(256);
        let gate = Arc::new(Gate::default());
        let mut guarded = ForTokio(Guarded::new(ours, Arc::clone(&gate)));
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        caller.write_all(head).await.unwrap();
        let mut buffer = vec![0; head.len()];
        guarded.read_exact(&mut buffer).await.unwrap();
        assert_eq!(gate.fault(), None);
        caller.write_all(b"zz\r\n").await.unwrap();
        let error = guarded.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(gate.fault(), Some(Fault::Malformed));
    }
}
