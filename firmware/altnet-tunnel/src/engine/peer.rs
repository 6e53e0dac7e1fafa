//! One peer: its keys, sessions, timers and wishes.

use alloc::sync::Arc;

use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::TunnelKey;
use altnet_wire::time::{Duration, Instant};

use super::api::{LocalKeyId, PeerConfig, PeerStats};
use crate::aead::Aead;
use crate::cookie::{CookieJar, MacKeys};
use crate::counter::REKEY_AFTER_MESSAGES;
use crate::handshake::{Initiator, TransportKeys};
use crate::key::{PresharedKey, SharedSecret};
use crate::message::{INITIATION_BYTES, RESPONSE_BYTES};
use crate::replay::ReplayWindow;
use crate::session::{REJECT_AFTER_TIME, RecvSession, SendSession};
use crate::tai64n::Tai64n;

/// An initiator asks for a new session when the current one is this old and used
/// (whitepaper section 6.1).
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// How long an unanswered initiation is repeated (section 6.1).
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// How long an answer is waited for until the same initiation is sent once more; the next time twice as
/// long. Its bytes are the same, so it is still one in [`REKEY_TIMEOUT`]: who got it drops the copy.
pub(super) const REPEAT_AFTER: Duration = Duration::from_secs(1);
/// How long an answer is waited for, and the least time between initiations (section 6.1).
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Who received and has nothing to say sends a keepalive after this (section 6.1).
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Who sent data and heard nothing for this long asks for a new session (section 6.5).
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(15);
/// An initiator that only receives asks for a new session at this age (section 6.2).
const REKEY_WHEN_RECEIVING: Duration = Duration::from_secs(165);

/// Moments at which a peer wants to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// Make another initiation, or give up.
    Retransmit,
    /// Send the same initiation once more.
    Repeat,
    /// Say that we are here.
    Keepalive,
    /// Data was sent and nothing came back: the session may be dead.
    Silence,
    /// Keep a NAT's mapping open.
    Persistent,
    /// The oldest session is at its end.
    Expire,
}

const TIMERS: usize = 6;

/// Sessions of a peer that gave way to others and still receive.
///
/// WireGuard keeps one, `previous`, and clears it whenever it answers an initiation. The other
/// side may still send with it:
///
/// - Where both ask at once, each goes on with the old session until the other's response
///   reaches it, and afterwards with the session that it asked for itself.
/// - Whoever has two peers for the two keys of ours that it knows, as during a rotation, sends
///   with one while the other asks anew.
///
/// Handshakes that cross leave two sessions behind here, and what the other side sent with
/// until then is the third. Whatever is kept, none outlives [`REJECT_AFTER_TIME`].
const FORMERS: usize = 3;

/// The sessions a peer may have: one to send with, one that waits to be confirmed, and those
/// that gave way.
pub(super) const SESSIONS: usize = 2 + FORMERS;

/// Persistent keepalives come no faster than this.
const LEAST_PERSISTENT: Duration = Duration::from_secs(1);

/// One session, as the engine holds it.
pub(super) struct Session<A> {
    pub(super) send: Arc<SendSession<A>>,
    pub(super) recv: Arc<RecvSession<A>>,
    pub(super) window: ReplayWindow,
    pub(super) born: Instant,
    is_initiator: bool,
}

impl<A: Aead> Session<A> {
    pub(super) fn new(
        keys: &TransportKeys,
        ours: u32,
        theirs: u32,
        is_initiator: bool,
        (window, mtu_bytes): (u16, u16),
        now: Instant,
    ) -> Self {
        Self {
            send: Arc::new(SendSession::new(&keys.send, theirs, now, mtu_bytes)),
            recv: Arc::new(RecvSession::new(&keys.receive, ours, now)),
            window: ReplayWindow::new(window),
            born: now,
            is_initiator,
        }
    }

    /// Whether a packet just sent makes a new session due: after a time only its initiator
    /// asks, so that the two don't at once (section 6.2).
    pub(super) fn is_due_on_send(&self, now: Instant) -> bool {
        self.send.used() >= REKEY_AFTER_MESSAGES
            || (self.is_initiator && now.saturating_since(self.born) >= REKEY_AFTER_TIME)
    }

    fn is_due_on_receive(&self, now: Instant) -> bool {
        self.is_initiator && now.saturating_since(self.born) >= REKEY_WHEN_RECEIVING
    }

    fn is_expired(&self, now: Instant) -> bool {
        now.saturating_since(self.born) >= REJECT_AFTER_TIME
    }
}

/// An initiation that waits for its response.
pub(super) struct Shaking {
    pub(super) initiator: Initiator,
    pub(super) index: u32,
    pub(super) local: LocalKeyId,
    /// Its bytes, MACs not yet put in, where they went last, and how often they did.
    pub(super) message: [u8; INITIATION_BYTES],
    pub(super) to: Endpoint,
    pub(super) copies: u8,
}

/// What the peer wants sent.
#[derive(Default)]
pub(super) struct Wants {
    pub(super) response: Option<(Endpoint, [u8; RESPONSE_BYTES])>,
    /// The same response once more: somebody repeated what it answers, maybe not the peer.
    pub(super) response_again: Option<Endpoint>,
    pub(super) initiation: bool,
    /// The initiation that waits for its response is sent once more.
    pub(super) repetition: bool,
    pub(super) keepalive: bool,
    pub(super) queued: bool,
}

/// What the driver was not told yet.
#[derive(Default)]
pub(super) struct News {
    pub(super) sessions: bool,
    pub(super) rekeyed: bool,
    pub(super) failed: bool,
    pub(super) roamed: bool,
}

pub(super) struct Peer<A> {
    pub(super) public: TunnelKey,
    pub(super) local: LocalKeyId,
    /// The key shown before, which initiations may still be made for.
    pub(super) former: Option<LocalKeyId>,
    pub(super) macs: MacKeys,
    pub(super) preshared: PresharedKey,
    /// What `local` and `public` agree on.
    pub(super) shared: SharedSecret,
    pub(super) jar: CookieJar,
    pub(super) endpoint: Option<Endpoint>,
    roams: bool,
    pub(super) persistent: Option<Duration>,

    pub(super) shaking: Option<Shaking>,
    /// Since when a session is being asked for.
    pub(super) asking_since: Option<Instant>,
    pub(super) last_initiation: Option<Instant>,
    pub(super) waits_for_stamp: bool,
    /// The greatest stamp of the peer's initiations, and when the last one came.
    pub(super) last_stamp: Option<(Tai64n, Instant)>,

    /// What is sent with.
    pub(super) current: Option<Session<A>>,
    /// What the peer asked for and didn't confirm yet: it only receives.
    pub(super) next: Option<Session<A>>,
    /// The response that made it, MACs not yet put in, and when it was last given out: it may be lost.
    pub(super) responded: ([u8; RESPONSE_BYTES], Instant),
    /// What gave way, the newest first: they only receive.
    pub(super) formers: [Option<Session<A>>; FORMERS],

    timers: [Instant; TIMERS],
    keepalive_again: bool,
    pub(super) wants: Wants,
    pub(super) news: News,
    pub(super) told_up: bool,
    pub(super) is_ready: bool,
    pub(super) stats: PeerStats,
}

impl<A: Aead> Peer<A> {
    pub(super) fn new(config: PeerConfig, shared: SharedSecret) -> Self {
        Self {
            public: config.public,
            local: config.local,
            former: None,
            macs: MacKeys::new(&config.public),
            preshared: config.preshared,
            shared,
            jar: CookieJar::default(),
            endpoint: config.endpoint,
            roams: config.roams,
            persistent: config
                .persistent_keepalive
                .map(|every| every.max(LEAST_PERSISTENT)),
            shaking: None,
            asking_since: None,
            last_initiation: None,
            waits_for_stamp: false,
            last_stamp: None,
            current: None,
            next: None,
            responded: ([0; RESPONSE_BYTES], Instant::ZERO),
            formers: [const { None }; FORMERS],
            timers: [Instant::NEVER; TIMERS],
            keepalive_again: false,
            wants: Wants::default(),
            news: News::default(),
            told_up: false,
            is_ready: false,
            stats: PeerStats::default(),
        }
    }

    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        if let Some(slot) = self.timers.get_mut(timer as usize) {
            *slot = at;
        }
    }

    pub(super) fn at(&self, timer: Timer) -> Instant {
        self.timers
            .get(timer as usize)
            .copied()
            .unwrap_or(Instant::NEVER)
    }

    /// Whether the timer has run out; if so it is unset.
    pub(super) fn take_due(&mut self, timer: Timer, now: Instant) -> bool {
        let is_due = self.at(timer) <= now;
        if is_due {
            self.set(timer, Instant::NEVER);
        }
        is_due
    }

    pub(super) fn deadline(&self) -> Instant {
        self.timers.iter().copied().min().unwrap_or(Instant::NEVER)
    }

    pub(super) fn accepts(&self, public: &TunnelKey, local: LocalKeyId) -> bool {
        self.public == *public && (self.local == local || self.former == Some(local))
    }

    /// The session that can seal at `now`.
    pub(super) fn usable(&self, now: Instant) -> Option<&Session<A>> {
        self.current
            .as_ref()
            .filter(|session| !session.send.is_expired(now))
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = &Session<A>> {
        let slots = [&self.current, &self.next].into_iter();
        slots.chain(&self.formers).flatten()
    }

    /// Asks for a new session, unless that is under way.
    pub(super) fn ask(&mut self, now: Instant) {
        if self.asking_since.is_some() {
            return;
        }
        self.asking_since = Some(now);
        let earliest = self
            .last_initiation
            .map_or(Instant::ZERO, |last| last.after(REKEY_TIMEOUT));
        if earliest > now {
            self.set(Timer::Retransmit, earliest);
        } else {
            self.wants.initiation = true;
        }
    }

    /// Forgets that a session is asked for: there is one, or nobody answers.
    pub(super) fn stop_asking(&mut self) {
        self.asking_since = None;
        self.waits_for_stamp = false;
        self.wants.initiation = false;
        self.wants.repetition = false;
        self.set(Timer::Retransmit, Instant::NEVER);
        self.set(Timer::Repeat, Instant::NEVER);
    }

    /// Any authentic datagram was given out for sending (section 6.5).
    pub(super) fn note_sent(&mut self, bytes: usize, now: Instant) {
        self.stats.tx_bytes = self.stats.tx_bytes.saturating_add(bytes as u64);
        self.stats.tx_packets = self.stats.tx_packets.saturating_add(1);
        self.set(Timer::Keepalive, Instant::NEVER);
        self.keepalive_again = false;
        self.note_traffic(now);
    }

    /// Data was sent: something has to come back.
    pub(super) fn note_sent_data(&mut self, jitter: Duration, now: Instant) {
        if self.at(Timer::Silence) == Instant::NEVER {
            self.set(Timer::Silence, now.after(SILENCE_TIMEOUT).after(jitter));
        }
    }

    /// Any authentic datagram came in.
    pub(super) fn note_received(&mut self, from: Endpoint, bytes: usize, now: Instant) {
        self.stats.rx_bytes = self.stats.rx_bytes.saturating_add(bytes as u64);
        self.stats.rx_packets = self.stats.rx_packets.saturating_add(1);
        self.stats.last_received = Some(now);
        self.set(Timer::Silence, Instant::NEVER);
        self.note_traffic(now);
        if self.endpoint != Some(from) && (self.roams || self.endpoint.is_none()) {
            self.endpoint = Some(from);
            self.news.roamed = true;
        }
    }

    /// Data came in: something has to go back.
    pub(super) fn note_received_data(&mut self, now: Instant) {
        if self.at(Timer::Keepalive) == Instant::NEVER {
            self.set(Timer::Keepalive, now.after(KEEPALIVE_TIMEOUT));
        } else {
            self.keepalive_again = true;
        }
    }

    /// Asks for a new session if the current one is about to end and only receives.
    pub(super) fn keep_fresh(&mut self, now: Instant) {
        let is_due = |session: &Session<A>| session.is_due_on_receive(now);
        if self.current.as_ref().is_some_and(is_due) {
            self.ask(now);
        }
    }

    pub(super) fn set_persistent(&mut self, every: Option<Duration>, now: Instant) {
        self.persistent = every.map(|every| every.max(LEAST_PERSISTENT));
        self.wants.keepalive |= every.is_some();
        self.set(Timer::Persistent, Instant::NEVER);
        self.note_traffic(now);
    }

    fn note_traffic(&mut self, now: Instant) {
        if let Some(every) = self.persistent {
            self.set(Timer::Persistent, now.after(every));
        }
    }

    /// The keepalive timer ran out: one is sent now, and one later if data came meanwhile.
    pub(super) fn keepalive_due(&mut self, now: Instant) {
        self.wants.keepalive = true;
        if core::mem::take(&mut self.keepalive_again) {
            self.set(Timer::Keepalive, now.after(KEEPALIVE_TIMEOUT));
        }
    }

    /// Lets a session receive a while longer. Returns what is too old for that.
    fn give_way(&mut self, session: Option<Session<A>>) -> Option<Session<A>> {
        session.as_ref()?;
        // The newest pushes the others back, as far as one has ended or the oldest falls off.
        let mut pushed = session;
        for slot in &mut self.formers {
            pushed = core::mem::replace(slot, pushed);
            if pushed.is_none() {
                break;
            }
        }
        pushed
    }

    /// Makes room for a session that the peer asks for: the one it didn't confirm gives way.
    /// Returns what that drops.
    pub(super) fn clear_next(&mut self) -> Option<Session<A>> {
        let next = self.next.take();
        self.give_way(next)
    }

    /// Puts a session in place that we asked for: it is confirmed. Returns what that drops.
    pub(super) fn install_initiated(&mut self, session: Session<A>) -> [Option<Session<A>>; 2] {
        let is_rekey = self.current.is_some();
        let former = self.current.replace(session);
        // If one waits to be confirmed, the handshakes crossed, and the peer sends with that
        // one from now on: it is kept longer.
        let lost = [self.give_way(former), self.clear_next()];
        self.note_installed(is_rekey);
        lost
    }

    /// Puts a session in place that the peer asked for: it is confirmed by its first packet.
    /// There is none before it: see [`Peer::clear_next`].
    pub(super) fn install_responded(
        &mut self,
        session: Session<A>,
        response: [u8; RESPONSE_BYTES],
    ) {
        self.responded = (response, session.born);
        self.next = Some(session);
        self.news.sessions = true;
        self.set_expiry();
    }

    /// The first packet of the next session came: it is confirmed. Returns what that drops.
    pub(super) fn confirm_next(&mut self) -> Option<Session<A>> {
        let next = self.next.take()?;
        let is_rekey = self.current.is_some();
        let former = self.current.replace(next);
        let lost = self.give_way(former);
        self.note_installed(is_rekey);
        lost
    }

    fn note_installed(&mut self, is_rekey: bool) {
        self.stats.last_handshake = self.current.as_ref().map(|session| session.born);
        self.news.rekeyed = is_rekey;
        self.news.sessions = true;
        self.set_expiry();
    }

    /// Drops sessions that are too old; `drop_index` is given their indices.
    pub(super) fn expire(&mut self, now: Instant, mut drop_index: impl FnMut(u32)) {
        let slots = [&mut self.current, &mut self.next].into_iter();
        for slot in slots.chain(&mut self.formers) {
            if let Some(session) = slot.take_if(|session| session.is_expired(now)) {
                drop_index(session.recv.index());
                self.news.sessions = true;
            }
        }
        self.set_expiry();
    }

    fn set_expiry(&mut self) {
        let oldest = self.sessions().map(|session| session.born).min();
        let at = oldest.map_or(Instant::NEVER, |born| born.after(REJECT_AFTER_TIME));
        self.set(Timer::Expire, at);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::aead::ChaChaPoly;
    use crate::counter::REJECT_AFTER_MESSAGES;
    use crate::key::TunnelSecret;
    use std::vec::Vec;

    fn session(index: u32, is_initiator: bool, born: Instant) -> Session<ChaChaPoly> {
        let keys = TransportKeys {
            send: [1; 32],
            receive: [2; 32],
        };
        Session::new(&keys, index, 0, is_initiator, (64, 1420), born)
    }

    fn peer() -> Peer<ChaChaPoly> {
        let (ours, theirs) = (TunnelSecret::new([1; 32]), TunnelSecret::new([2; 32]));
        let local = LocalKeyId { at: 0, turn: 0 };
        let shared = ours.agree(&theirs.public()).unwrap();
        Peer::new(PeerConfig::new(theirs.public(), local), shared)
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO.after(Duration::from_secs(seconds))
    }

    #[test]
    fn either_side_asks_anew_after_2_to_the_60_packets() {
        let keys = [1; 32];
        let used = |packets| {
            let mut session = session(1, false, Instant::ZERO);
            let send = SendSession::new(&keys, 0, Instant::ZERO, 1420);
            session.send = Arc::new(send.having_used(packets));
            session
        };
        assert!(!used((1 << 60) - 1).is_due_on_send(Instant::ZERO));
        assert!(used(1 << 60).is_due_on_send(Instant::ZERO));
        let mut peer = peer();
        peer.current = Some(used(REJECT_AFTER_MESSAGES - 1));
        assert!(peer.usable(Instant::ZERO).is_some());
        peer.current = Some(used(REJECT_AFTER_MESSAGES));
        assert!(peer.usable(Instant::ZERO).is_none());
    }

    #[test]
    fn after_120_seconds_only_the_initiator_asks_anew() {
        let check = |is_initiator: bool, age: u64, on_send: bool, on_receive: bool| {
            let session = session(1, is_initiator, Instant::ZERO);
            assert_eq!(session.is_due_on_send(at(age)), on_send, "{age}");
            assert_eq!(session.is_due_on_receive(at(age)), on_receive, "{age}");
        };
        check(true, 119, false, false);
        check(true, 120, true, false);
        check(true, 164, true, false);
        check(true, 165, true, true);
        check(false, 179, false, false);
    }

    /// What gave way, by index: the newest first.
    fn formers(peer: &Peer<ChaChaPoly>) -> Vec<Option<u32>> {
        let index = |session: &Session<_>| session.recv.index();
        let slots = peer.formers.iter();
        slots.map(|slot| slot.as_ref().map(index)).collect()
    }

    #[test]
    fn of_sessions_that_gave_way_the_newest_stay_and_none_outlives_180_seconds() {
        let mut peer = peer();
        assert!(peer.give_way(None).is_none());
        for n in 0..3 {
            let born = at(u64::from(n) * 10);
            assert!(peer.give_way(Some(session(n, true, born))).is_none());
        }
        assert_eq!(formers(&peer), [Some(2), Some(1), Some(0)]);
        let lost = peer.give_way(Some(session(3, true, at(5))));
        assert_eq!(lost.map(|session| session.recv.index()), Some(0));
        assert_eq!(formers(&peer), [Some(3), Some(2), Some(1)]);
        let mut gone = Vec::new();
        peer.expire(at(190), |index| gone.push(index));
        assert_eq!(gone, [3, 1]);
        assert_eq!(formers(&peer), [None, Some(2), None]);
        // Where one ended there is room, so that none has to go.
        assert!(peer.give_way(Some(session(4, true, at(190)))).is_none());
        assert!(peer.give_way(Some(session(5, true, at(190)))).is_none());
        assert_eq!(formers(&peer), [Some(5), Some(4), Some(2)]);
        assert_eq!(peer.at(Timer::Expire), at(200));
    }
}
