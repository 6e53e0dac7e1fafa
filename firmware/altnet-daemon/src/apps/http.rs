//! HTTP apps: every request tells the target who asks.
//!
//! A caller's bytes are read by [`guard`] first, then by hyper; each request gets its fields from
//! [`fields`] and goes to the target over a connection that serves this caller's connection
//! alone, so that no two callers' requests share a stream. The node is asked anew for every
//! request, because groups and memberships change while a connection lasts.
//!
//! It serves HTTP/1.1 and 1.0 and tunnels WebSocket; it refuses CONNECT, absolute targets and
//! other upgrades, caches nothing, and rewrites no body.

use std::convert::Infallible;
use std::net::Ipv6Addr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Version};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::sync::{mpsc, oneshot};

use super::serve::{CARRIED_BYTES, Shared, reason};
use super::stats::Refusal;
use super::target::ConnectError;
use super::words::Words;
use super::{AppConfig, Caller, WhoIs, portal};

pub(super) mod body;
mod fields;
mod guard;
mod head;
mod io;

use body::{Body, Progress, page};
use io::{Clock, ForHyper, ForTokio, Gate, Guarded};

/// What hyper may buffer of one connection in one direction: more than a head of
/// [`guard::MAX_HEAD_BYTES`].
const BUFFER_BYTES: usize = 2 * guard::MAX_HEAD_BYTES;

/// Where a connection is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct From {
    /// Who has it.
    pub address: Ipv6Addr,
    /// Whether it came by TLS, which has ended before it is served.
    pub is_secure: bool,
}

/// Serves one connection of a caller.
pub(super) async fn serve(
    stream: Words,
    from: From,
    shared: Arc<Shared>,
    config: Arc<AppConfig>,
    questions: mpsc::Sender<WhoIs>,
) {
    let name = config.name.clone();
    let head = config.patience.head;
    let conversation = Conversation {
        from,
        shared,
        config,
        questions,
        gate: Arc::default(),
        target: Mutex::new(None),
    };
    if let Err(e) = converse(stream, head, Answerer::App(conversation)).await {
        let why = crate::log::chain(&e);
        crate::debug!("a connection to the app {name} ended: {why}");
    }
}

/// What answers requests: one type for all, so that what serves them is compiled once.
pub(super) enum Answerer {
    /// An app.
    App(Conversation),
    /// The portal, which leads to this address.
    Portal(Arc<str>),
}

impl Answerer {
    async fn answer(&self, gate: &Gate, mut request: Request<Incoming>) -> Response<Body> {
        let is_refused = request.method().as_str() == guard::REFUSED;
        let wants_websocket = !is_refused && fields::wants_websocket(&request);
        let response = match self {
            Self::App(conversation) => {
                let parting = wants_websocket.then(|| hyper::upgrade::on(&mut request));
                conversation.answer(request, parting).await
            }
            Self::Portal(login) => portal::answer(login, (!is_refused).then_some(&request)),
        };
        if wants_websocket {
            gate.part(response.status() == StatusCode::SWITCHING_PROTOCOLS);
        }
        response
    }
}

/// Answers the requests of one connection, whose heads come within `head`.
pub(super) async fn converse(
    stream: Words,
    head: Duration,
    answerer: Answerer,
) -> Result<(), hyper::Error> {
    let gate = match &answerer {
        Answerer::App(conversation) => Arc::clone(&conversation.gate),
        Answerer::Portal(_) => Arc::default(),
    };
    let (answerer, of_requests) = (Arc::new(answerer), Arc::clone(&gate));
    let service = service_fn(move |request| {
        let (answerer, gate) = (Arc::clone(&answerer), Arc::clone(&of_requests));
        async move { Ok::<_, Infallible>(answerer.answer(&gate, request).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(Clock)
        .header_read_timeout(head)
        .max_buf_size(BUFFER_BYTES)
        .auto_date_header(false)
        .serve_connection(Guarded::new(stream, gate), service)
        .with_upgrades()
        .await
}

/// One connection of a caller, and the one to the target that goes with it.
pub(super) struct Conversation {
    from: From,
    shared: Arc<Shared>,
    config: Arc<AppConfig>,
    questions: mpsc::Sender<WhoIs>,
    gate: Arc<Gate>,
    target: Mutex<Option<SendRequest<Body>>>,
}

/// Why the target gave no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the target broke off")]
    Broke(#[from] hyper::Error),
    #[error("the target did not answer in time")]
    Silent,
}

impl Conversation {
    async fn answer(
        &self,
        request: Request<Incoming>,
        parting: Option<OnUpgrade>,
    ) -> Response<Body> {
        if request.method().as_str() == guard::REFUSED {
            return self.refuse(request.uri().path());
        }
        self.pass_on(request, parting).await
    }

    fn refuse(&self, path: &str) -> Response<Body> {
        self.shared.refuse(Refusal::BadRequest);
        let status = path.get(1..).and_then(|status| status.parse().ok());
        let (status, text) = match status.map(StatusCode::from_u16) {
            Some(Ok(status @ StatusCode::URI_TOO_LONG)) => (status, "The address is too long."),
            Some(Ok(status @ StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)) => {
                (status, "The request's head is too large.")
            }
            _ => (StatusCode::BAD_REQUEST, "This request can't be passed on."),
        };
        page(status, text, true)
    }

    async fn pass_on(
        &self,
        request: Request<Incoming>,
        parting: Option<OnUpgrade>,
    ) -> Response<Body> {
        let caller = match self.who().await {
            Some(Some(caller)) => caller,
            Some(None) => {
                self.shared.refuse(Refusal::Stranger);
                let text = "This gateway does not know (any more) who has your address.";
                return page(StatusCode::FORBIDDEN, text, true);
            }
            None => {
                let text = "This gateway is stopping.";
                return page(StatusCode::SERVICE_UNAVAILABLE, text, true);
            }
        };
        let progress = Progress::default();
        let request = self.rewrite(request, &caller, progress.clone(), parting.is_some());
        match self.ask(request, &progress).await {
            Ok(response) => self.pass_back(response, parting),
            Err(e) => self.explain(&e),
        }
    }

    /// Who calls; none within if nobody has the address, none at all if the node is gone.
    async fn who(&self) -> Option<Option<Caller>> {
        let (answer, answered) = oneshot::channel();
        let question = WhoIs {
            source: self.from.address,
            answer,
        };
        self.questions.send(question).await.ok()?;
        answered.await.ok()
    }

    fn rewrite(
        &self,
        request: Request<Incoming>,
        caller: &Caller,
        progress: Progress,
        is_parting: bool,
    ) -> Request<Body> {
        let mut request = request.map(|body| Body::Request { body, progress });
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        fields::introduce(headers, &self.config, self.from, caller, is_parting);
        request
    }

    /// Asks the target, over the connection it has or a new one.
    async fn ask(
        &self,
        mut request: Request<Body>,
        progress: &Progress,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let kept = self.slot().take();
        if let Some(mut target) = kept
            && target.ready().await.is_ok()
        {
            match self.wait(target, request, progress).await? {
                Ok(response) => return Ok(response),
                Err(Unsent {
                    error,
                    request: None,
                }) => return Err(error.into()),
                // It hung up while nobody asked anything, and saw nothing of this.
                Err(Unsent {
                    request: Some(unsent),
                    ..
                }) => request = *unsent,
            }
        }
        let stream = self.config.to.connect(self.config.patience.connect).await?;
        let (target, connection) = hyper::client::conn::http1::Builder::new()
            .title_case_headers(true)
            .max_buf_size(BUFFER_BYTES)
            .handshake(ForHyper(stream))
            .await?;
        // It ends when `target` is let go and nothing is under way.
        tokio::spawn(connection.with_upgrades());
        let answered = self.wait(target, request, progress).await?;
        answered.map_err(|unsent| unsent.error.into())
    }

    /// Sends a request and waits for the head of the answer, as long as the body goes on.
    async fn wait(
        &self,
        mut target: SendRequest<Body>,
        request: Request<Body>,
        progress: &Progress,
    ) -> Result<Result<Response<Incoming>, Unsent>, NoAnswer> {
        let mut answer = pin!(target.try_send_request(request));
        loop {
            let pieces = progress.pieces();
            match tokio::time::timeout(self.config.patience.answer, answer.as_mut()).await {
                Ok(Ok(response)) => {
                    self.shared.stack().stats.requests += 1;
                    *self.slot() = Some(target);
                    return Ok(Ok(response));
                }
                Ok(Err(mut e)) => {
                    let request = e.take_message().map(Box::new);
                    let error = e.into_error();
                    return Ok(Err(Unsent { error, request }));
                }
                Err(_) if progress.pieces() > pieces => {}
                Err(_) => return Err(NoAnswer::Silent),
            }
        }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<SendRequest<Body>>> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_back(
        &self,
        mut response: Response<Incoming>,
        parting: Option<OnUpgrade>,
    ) -> Response<Body> {
        let is_parting = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        match parting {
            Some(parting) if is_parting => {
                let theirs = hyper::upgrade::on(&mut response);
                tokio::spawn(tunnel(parting, theirs));
            }
            None if is_parting => {
                let text = "The app's server changed the protocol unasked.";
                return page(StatusCode::BAD_GATEWAY, text, true);
            }
            _ => {}
        }
        fields::strip_hop(response.headers_mut(), is_parting);
        *response.version_mut() = Version::HTTP_11;
        response.map(Body::Response)
    }

    fn explain(&self, error: &NoAnswer) -> Response<Body> {
        let name = &self.config.name;
        if self.gate.fault().is_some() {
            self.shared.refuse(Refusal::BadRequest);
            let text = "The request's body is malformed.";
            return page(StatusCode::BAD_REQUEST, text, true);
        }
        crate::debug!(
            "the app {name} gave no answer: {}",
            crate::log::chain(error)
        );
        let why = match error {
            NoAnswer::Connect(e) => reason(e),
            NoAnswer::Broke(_) => Refusal::TargetRefused,
            NoAnswer::Silent => Refusal::TargetSilent,
        };
        self.shared.refuse(why);
        let (status, text) = match why {
            Refusal::TargetSilent => (StatusCode::GATEWAY_TIMEOUT, "takes too long"),
            _ => (StatusCode::BAD_GATEWAY, "does not answer"),
        };
        let text = format!("The server of {name} {text}.");
        page(status, &text, false)
    }
}

/// A request that got no answer.
struct Unsent {
    error: hyper::Error,
    /// The request, if the target saw nothing of it.
    request: Option<Box<Request<Body>>>,
}

/// Carries bytes once both sides have left HTTP.
async fn tunnel(caller: OnUpgrade, target: OnUpgrade) {
    let (Ok(caller), Ok(target)) = tokio::join!(caller, target) else {
        return;
    };
    let (mut caller, mut target) = (ForTokio(caller), ForTokio(target));
    // Whoever hangs up ends it, and each side is told by its own stream.
    let _ =
        copy_bidirectional_with_sizes(&mut caller, &mut target, CARRIED_BYTES, CARRIED_BYTES).await;
}
