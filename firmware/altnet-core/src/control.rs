//! Control sessions: messages between two nodes, sealed, whole, once and in order, over
//! datagrams that get lost.
//!
//! In: datagrams with where they came from, messages to send, time, entropy. Out: datagrams
//! with where they go ([`Control::poll_transmit`]), facts ([`Control::poll_event`]) and the
//! moment to come back ([`Control::deadline`]). A node drains both polls after each input.
//!
//! Promises: nobody without a key that `admit` takes learns more than that an XX handshake
//! is possible, and not even that unless strangers are welcome; no answer before
//! authentication is larger than its request; a replayed datagram changes nothing that
//! lasts; every table has a bound. A session stays where it is until the node moves it:
//! addresses are evidence ([`ControlEvent::Heard`]), not orders.
//!
//! What the messages mean is none of its business, nor whether a path is a good one.
//! Sessions don't survive a restart.
//!
//! Source: the Noise Protocol Framework, revision 34; retransmission after RFC 6298 and
//! acknowledgements, path challenges and retries after RFC 9000.

mod event;
mod limits;

use altnet_wire::endpoint::Endpoint;
use altnet_wire::frame::Frame;
use altnet_wire::id::ControlKey;
use altnet_wire::time::{Duration, Instant};

pub use crate::records::ControlSecret;
pub use event::{
    CloseReason, ClosedWhy, ControlEvent, DropReason, FailReason, Full, MessageId, Pattern,
    SendError, SessionId,
};
pub use limits::ControlLimits;

/// Every control session of one node.
pub struct Control {
    limits: ControlLimits,
    local: ControlSecret,
    seed: [u8; 32],
    strangers: bool,
}

#[allow(unused_variables)]
impl Control {
    /// Makes a machine without sessions that holds the key `local`. `seed` must never have
    /// been used before and be known to nobody else.
    pub fn new(limits: ControlLimits, local: ControlSecret, seed: [u8; 32]) -> Self {
        Self {
            limits,
            local,
            seed,
            strangers: false,
        }
    }

    /// Mixes fresh entropy in.
    pub fn handle_entropy(&mut self, entropy: &[u8; 32]) {}

    /// The public half of this node's key.
    pub fn local(&self) -> ControlKey {
        self.local.public()
    }

    /// Whether strangers may call (XX). At first they may not, and get no answer.
    pub fn welcome_strangers(&mut self, welcome: bool) {
        self.strangers = welcome;
    }

    /// Calls whoever is at `endpoint`: the holder of `remote` (IK), or anybody (XX).
    ///
    /// Ends in [`ControlEvent::Established`] or [`ControlEvent::Failed`].
    ///
    /// # Errors
    /// [`Full`] if there are as many sessions as there may be.
    pub fn connect(
        &mut self,
        remote: Option<ControlKey>,
        endpoint: Endpoint,
        now: Instant,
    ) -> Result<SessionId, Full> {
        Err(Full)
    }

    /// Takes a datagram that came from `from`. `admit` says whether the holder of a key may
    /// call this node; it is asked about authenticated IK callers only.
    ///
    /// # Errors
    /// See [`DropReason`]: nothing came of it, but for a Retry.
    pub fn handle_datagram(
        &mut self,
        from: Endpoint,
        datagram: &[u8],
        admit: &mut dyn FnMut(&ControlKey) -> bool,
        now: Instant,
    ) -> Result<(), DropReason> {
        Err(DropReason::UnknownSession)
    }

    /// Queues a message of at most [`altnet_wire::control::MAX_MESSAGE_BYTES`].
    ///
    /// # Errors
    /// See [`SendError`]: the message was not taken.
    pub fn send(
        &mut self,
        session: SessionId,
        message: &[u8],
        now: Instant,
    ) -> Result<MessageId, SendError> {
        Err(SendError::UnknownSession)
    }

    /// Asks the other side to answer from `to`, any endpoint that may be its own. Sent
    /// once; an answer is [`ControlEvent::PathAnswered`]. The oldest of more than 16
    /// unanswered ones is forgotten.
    pub fn challenge(&mut self, session: SessionId, to: Endpoint, now: Instant) {}

    /// Moves a session to another endpoint.
    pub fn set_endpoint(&mut self, session: SessionId, endpoint: Endpoint) {}

    /// Where a session sends to.
    pub fn endpoint(&self, session: SessionId) -> Option<Endpoint> {
        None
    }

    /// The key of the other side, once the session is established.
    pub fn remote(&self, session: SessionId) -> Option<ControlKey> {
        None
    }

    /// The smoothed round-trip time of a session's messages, once one was measured.
    pub fn rtt(&self, session: SessionId) -> Option<Duration> {
        None
    }

    /// Ends a session at once, telling the other side why if that arrives. No event
    /// follows.
    pub fn close(&mut self, session: SessionId, reason: CloseReason, now: Instant) {}

    /// The next fact, until there is none.
    pub fn poll_event(&mut self) -> Option<ControlEvent> {
        None
    }

    /// Puts the next datagram into `frame` and returns where it goes, until there is none.
    pub fn poll_transmit(&mut self, frame: &mut Frame<'_>, now: Instant) -> Option<Endpoint> {
        None
    }

    /// When [`Control::handle_timeout`] is due; [`Instant::NEVER`] if it isn't.
    pub fn deadline(&self) -> Instant {
        Instant::NEVER
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {}
}
