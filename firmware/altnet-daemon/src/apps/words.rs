//! What a caller means, whichever way it came: one type for both, so that everything behind it is
//! compiled once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use super::stream::Stream;

/// A stream of a caller's words.
#[derive(Debug)]
pub(super) enum Words {
    /// As the caller sent them.
    Plain(Stream),
    /// Out of TLS, which ended elsewhere.
    Secure(UnixStream),
}

macro_rules! either {
    ($self:expr, $stream:ident => $done:expr) => {
        match $self.get_mut() {
            Words::Plain(stream) => {
                let $stream = Pin::new(stream);
                $done
            }
            Words::Secure(stream) => {
                let $stream = Pin::new(stream);
                $done
            }
        }
    };
}

impl AsyncRead for Words {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Words {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}
