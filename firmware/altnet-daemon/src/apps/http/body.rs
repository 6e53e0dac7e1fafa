//! Bodies on their way through, and pages of our own.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use super::fields;

/// A body.
#[derive(Debug)]
pub enum Body {
    /// A caller's, whose trailers can't say who it is.
    Request {
        /// What comes.
        body: Incoming,
        /// How much of it came.
        progress: Progress,
    },
    /// The target's.
    Response(Incoming),
    /// A page of ours; none once it is read.
    Page(Option<Bytes>),
}

/// Counts the pieces of a body that went on, so that a long one isn't taken for a stalled one.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicUsize>);

impl Progress {
    /// Pieces so far.
    pub fn pieces(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Request { body, progress } => {
                let polled = Pin::new(body).poll_frame(cx);
                polled.map_ok(|mut frame| {
                    progress.0.fetch_add(1, Ordering::Relaxed);
                    if let Some(trailers) = frame.trailers_mut() {
                        fields::strip_ours(trailers);
                    }
                    frame
                })
            }
            Self::Response(body) => Pin::new(body).poll_frame(cx),
            Self::Page(page) => Poll::Ready(page.take().map(|page| Ok(Frame::data(page)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Request { body, .. } | Self::Response(body) => body.is_end_stream(),
            Self::Page(page) => page.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Request { body, .. } | Self::Response(body) => body.size_hint(),
            Self::Page(page) => {
                SizeHint::with_exact(page.as_ref().map_or(0, |page| page.len() as u64))
            }
        }
    }
}

/// A short plain page. It ends the connection if `is_last`.
pub fn page(status: StatusCode, text: &str, is_last: bool) -> Response<Body> {
    let mut response = Response::new(Body::Page(Some(format!("{text}\n").into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if is_last {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
