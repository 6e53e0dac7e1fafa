//! How much memory and patience control sessions may take.

use altnet_wire::control::MAX_MESSAGE_BYTES;
use altnet_wire::time::Duration;

/// The bounds of [`super::Control`]. Past one, what came last is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlLimits {
    /// Sessions, our own unfinished handshakes included.
    pub sessions: usize,
    /// How many of them may be with strangers that called us (XX).
    pub strangers: usize,
    /// How many of those may have called from one place: an IPv4 address, an IPv6 /64 or a
    /// relayed node. One more ends that of them which has been silent for the longest.
    pub strangers_per_place: usize,
    /// How many of the sessions may be with one remote key. One more ends the oldest of
    /// them: two stand while both sides have called at once.
    pub sessions_per_key: usize,
    /// Unfinished handshakes of callers; strangers get at most half, one place (see
    /// `strangers_per_place`) at most a quarter.
    pub half_open: usize,
    /// Messages that wait to be acknowledged, per session.
    pub queued_messages: usize,
    /// Their bytes, per session.
    pub queued_bytes: usize,
    /// Bytes of incomplete and early messages, per session. At least twice
    /// [`MAX_MESSAGE_BYTES`]; less counts as that.
    pub reassembly_bytes: usize,
    /// Events and handshake answers that wait to be polled, each.
    pub waiting: usize,
    /// Callers' handshakes begun in a second without a cookie; as many at once. Past that
    /// a Retry asks for a cookie, which proves that the caller is where it says.
    pub handshakes_per_s: u32,
    /// The same for strangers (XX) alone.
    pub strangers_per_s: u32,
    /// Handshakes begun in a second with a good cookie; past that they are dropped.
    pub proven_handshakes_per_s: u32,
    /// A session ends when nothing was heard for this long.
    pub idle: Duration,
    /// A session with a stranger that called us (XX) ends when no whole message arrived,
    /// either way, for this long: staying alive is not a reason to stay.
    pub stranger_idle: Duration,
    /// A session pings when nothing was sent for this long; less than a third of `idle`.
    pub keepalive: Duration,
}

impl ControlLimits {
    /// For a router, a relay or a computer.
    pub const ROUTER: Self = Self {
        sessions: 256,
        strangers: 32,
        strangers_per_place: 4,
        sessions_per_key: 2,
        half_open: 64,
        queued_messages: 64,
        queued_bytes: 8 * MAX_MESSAGE_BYTES,
        reassembly_bytes: 3 * MAX_MESSAGE_BYTES,
        waiting: 256,
        handshakes_per_s: 50,
        strangers_per_s: 4,
        proven_handshakes_per_s: 100,
        idle: Duration::from_secs(90),
        stranger_idle: Duration::from_secs(60),
        keepalive: Duration::from_secs(25),
    };

    /// For a microcontroller.
    pub const MICRO: Self = Self {
        sessions: 8,
        strangers: 1,
        half_open: 8,
        queued_messages: 8,
        queued_bytes: MAX_MESSAGE_BYTES,
        reassembly_bytes: 2 * MAX_MESSAGE_BYTES,
        waiting: 32,
        handshakes_per_s: 5,
        strangers_per_s: 1,
        proven_handshakes_per_s: 10,
        ..Self::ROUTER
    };
}

/// An unanswered handshake message, or a fragment, is first sent again after this long,
/// until round trips were measured (half of RFC 6298's second: our networks are small).
pub(super) const FIRST_RETRANSMIT: Duration = Duration::from_millis(500);
/// The shortest wait before something is sent again.
pub(super) const MIN_RETRANSMIT: Duration = Duration::from_millis(200);
/// The longest.
pub(super) const MAX_RETRANSMIT: Duration = Duration::from_secs(8);
/// Retransmissions without an answer after which a handshake or session is given up:
/// 0.5 + 1 + 2 + 4 + 8 + 8 s.
pub(super) const MAX_TRIES: u8 = 6;
/// Places that one caller's handshake is answered at: a call may move before it is answered.
pub(super) const MAX_ANSWERED: usize = 4;
/// How long a caller's unfinished handshake is kept.
pub(super) const HALF_OPEN_LIFE: Duration = Duration::from_secs(15);
/// How long an unanswered path challenge is kept.
pub(super) const CHALLENGE_LIFE: Duration = Duration::from_secs(10);
/// Unanswered path challenges, per session.
pub(super) const MAX_CHALLENGES: usize = 16;
/// A session ends at this age; its owner connects anew.
pub(super) const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Datagrams that one key seals at most.
pub(super) const MAX_COUNTER: u64 = 1 << 32;
/// Messages that are under way at once in one direction.
pub(super) const MESSAGE_WINDOW: u32 = 8;
/// Messages, those of the window and as many before it, whose acknowledgements wait to be sent, per session.
pub(super) const MAX_ACKS: usize = 16;

/// How long to wait for an answer to a handshake message that was sent again `tries` times.
pub(super) fn retry_wait(tries: u8) -> Duration {
    FIRST_RETRANSMIT
        .saturating_mul(1 << tries.min(MAX_TRIES))
        .min(MAX_RETRANSMIT)
}
