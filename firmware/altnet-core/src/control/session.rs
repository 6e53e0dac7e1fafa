//! One established session: sealed datagrams in and out, what is due when, when it ends.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;

use altnet_tunnel::replay::ReplayWindow;
use altnet_wire::control::{
    ChallengeToken, CloseReason, ControlFrame, ControlPacket, DATA_HEADER_BYTES,
    MAX_DATAGRAM_BYTES, MAX_SENT_BYTES, Pattern, TAG_BYTES, TAKES_PIECES,
};
use altnet_wire::endpoint::Endpoint;
use altnet_wire::frame::{Frame, HEADROOM, TAILROOM};
use altnet_wire::hash::Hash;
use altnet_wire::time::{Duration, Instant};

use super::event::{Cargo, ClosedWhy, ControlEvent, DropReason, MessageId, SendError, SessionId};
use super::inbound::Inbound;
use super::limits::{
    CHALLENGE_LIFE, ControlLimits, MAX_AGE, MAX_CHALLENGES, MAX_COUNTER, MAX_TRIES, retry_wait,
};
use super::noise::Keys;
use super::outbound::Outbound;

/// Counters that are told apart behind the newest: more than two windows of fragments.
const REPLAY_COUNTERS: u16 = 128;
/// The most plaintext that a datagram of ours seals.
const PLAIN_BYTES: usize = MAX_SENT_BYTES - DATA_HEADER_BYTES - TAG_BYTES;
/// The most that a probe seals.
const PROBE_BYTES: usize = MAX_DATAGRAM_BYTES - DATA_HEADER_BYTES - TAG_BYTES;

/// An established session.
pub(super) struct Session {
    pub(super) id: SessionId,
    /// The other side's index.
    peer: u32,
    keys: Keys,
    pub(super) pattern: Pattern,
    pub(super) initiator: bool,
    pub(super) endpoint: Endpoint,
    /// Where it was when it began.
    pub(super) origin: Endpoint,
    counter: u64,
    window: ReplayWindow,
    outbound: Outbound,
    inbound: Inbound,
    paths: Paths,
    /// A Ping or Pong is to be sent.
    ping: bool,
    pong: bool,
    beginning: Beginning,
    pub(super) born: Instant,
    heard: Instant,
    /// When the last whole message arrived here or there.
    pub(super) spoke: Instant,
    sent: Instant,
    idle: Duration,
    stranger_idle: Duration,
    keepalive: Duration,
    /// Until then silence is agreed on.
    rests_until: Instant,
    is_known: bool,
    /// What the last datagram was.
    pub(super) cargo: Cargo,
}

/// How much of the beginning isn't over yet.
enum Beginning {
    /// We called and don't know whether the last word of the handshake (a Finish, or with IK
    /// the first Ping) arrived.
    Unconfirmed {
        finish: Option<Vec<u8>>,
        tries: u8,
        due: bool,
        next: Instant,
    },
    /// We were called: the same Finish may come again until the caller has heard us.
    Finished { finish: Hash },
    /// Both know.
    Over,
}

#[derive(Default)]
struct Paths {
    challenges: VecDeque<Challenge>,
    answers: VecDeque<Answer>,
}

struct Challenge {
    token: ChallengeToken,
    to: Endpoint,
    /// When it was asked for, and then sent.
    at: Instant,
    is_sent: bool,
    /// How large the datagram is to be; as small as it can be if none.
    bytes: Option<u16>,
}

struct Answer {
    to: Endpoint,
    token: ChallengeToken,
    observed: Option<SocketAddr>,
    /// Whether who asked knows abilities.
    says_abilities: bool,
}

/// A challenge or an answer that is sent next.
struct Turn {
    to: Endpoint,
    frame: ControlFrame<'static>,
    says_abilities: bool,
    bytes: Option<u16>,
}

/// What makes a session: the two indexes, the keys, and who is where.
pub(super) struct Start {
    pub(super) id: SessionId,
    pub(super) peer: u32,
    pub(super) keys: Keys,
    pub(super) pattern: Pattern,
    pub(super) endpoint: Endpoint,
}

impl Session {
    /// The caller's side. `finish` is the third Noise message, with XX.
    pub(super) fn called(
        start: Start,
        finish: Option<Vec<u8>>,
        limits: &ControlLimits,
        now: Instant,
    ) -> Self {
        let beginning = Beginning::Unconfirmed {
            finish,
            tries: 0,
            due: true,
            next: now,
        };
        Self::new(start, true, beginning, limits, now)
    }

    /// The side that was called. `finish` is the hash of the third Noise message, with XX.
    pub(super) fn answered(
        start: Start,
        finish: Option<Hash>,
        limits: &ControlLimits,
        now: Instant,
    ) -> Self {
        let beginning = finish.map_or(Beginning::Over, |finish| Beginning::Finished { finish });
        let mut session = Self::new(start, false, beginning, limits, now);
        // Lets the caller know that its last word arrived.
        session.pong = true;
        session
    }

    fn new(
        start: Start,
        initiator: bool,
        beginning: Beginning,
        limits: &ControlLimits,
        now: Instant,
    ) -> Self {
        Self {
            id: start.id,
            peer: start.peer,
            keys: start.keys,
            pattern: start.pattern,
            initiator,
            endpoint: start.endpoint,
            origin: start.endpoint,
            counter: 0,
            window: ReplayWindow::new(REPLAY_COUNTERS),
            outbound: Outbound::new(),
            inbound: Inbound::new(limits.reassembly_bytes),
            paths: Paths::default(),
            ping: false,
            pong: false,
            beginning,
            born: now,
            heard: now,
            spoke: now,
            sent: now,
            idle: limits.idle,
            stranger_idle: limits.stranger_idle,
            keepalive: limits.keepalive,
            rests_until: Instant::ZERO,
            is_known: false,
            cargo: Cargo::Usual,
        }
    }

    /// Neither side has to say anything until then, to be taken for alive.
    pub(super) fn rest(&mut self, until: Instant) {
        self.rests_until = self.rests_until.max(until);
    }

    /// When nothing was heard for too long.
    fn idle_at(&self) -> Instant {
        self.heard.max(self.rests_until).after(self.idle)
    }

    /// When the other side is to hear from us.
    fn ping_at(&self) -> Instant {
        self.sent.max(self.rests_until).after(self.keepalive)
    }

    pub(super) fn established(&self) -> ControlEvent {
        ControlEvent::Established {
            session: self.id,
            remote: self.keys.remote,
            pattern: self.pattern,
            initiator: self.initiator,
            handshake: self.keys.hash,
            endpoint: self.endpoint,
        }
    }

    /// Whether somebody called us without a key that we had to know, and nobody knows yet who it is.
    pub(super) fn is_stranger(&self) -> bool {
        self.pattern == Pattern::Xx && !self.initiator && !self.is_known
    }

    /// The other side has said who it is, and that is so.
    pub(super) const fn is_known_now(&mut self) {
        self.is_known = true;
    }

    pub(super) const fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.outbound.rtt()
    }

    pub(super) fn measure(&mut self, rtt: Duration) {
        self.outbound.measure(rtt);
    }

    pub(super) fn send(
        &mut self,
        message: &[u8],
        limits: &ControlLimits,
    ) -> Result<MessageId, SendError> {
        self.outbound.push(message, limits).map(MessageId)
    }

    /// Moves to another endpoint; what wasn't acknowledged is sent there at once.
    pub(super) fn set_endpoint(&mut self, endpoint: Endpoint) {
        if self.endpoint != endpoint {
            self.endpoint = endpoint;
            self.outbound.restart();
        }
    }

    /// Has `to` challenged, by a datagram of `bytes` if it is to have a certain size.
    pub(super) fn challenge(
        &mut self,
        token: ChallengeToken,
        to: Endpoint,
        bytes: Option<u16>,
        now: Instant,
    ) {
        let challenges = &mut self.paths.challenges;
        while challenges.len() >= MAX_CHALLENGES {
            challenges.pop_front();
        }
        challenges.push_back(Challenge {
            token,
            to,
            at: now,
            is_sent: false,
            bytes,
        });
    }

    /// A Finish for a session that has one: answered while the caller may not know.
    pub(super) fn finish_again(&mut self, hash: &Hash) -> Result<(), DropReason> {
        match &self.beginning {
            Beginning::Finished { finish } if finish == hash => {
                self.pong = true;
                Ok(())
            }
            _ => Err(DropReason::OutOfTurn),
        }
    }

    /// Opens a datagram and does what its frames say. `Ok(Some(..))` ends the session.
    pub(super) fn receive(
        &mut self,
        from: Endpoint,
        counter: u64,
        sealed: &[u8],
        events: &mut VecDeque<ControlEvent>,
        now: Instant,
    ) -> Result<Option<ClosedWhy>, DropReason> {
        let mut plain = [0; MAX_DATAGRAM_BYTES];
        let used = self
            .keys
            .open(counter, sealed, &mut plain)
            .ok_or(DropReason::BadSeal)?;
        // The order matters: only an authentic counter moves the window.
        self.window
            .note(counter)
            .map_err(|_| DropReason::Replayed)?;
        self.heard = now;
        self.beginning = Beginning::Over;
        if from != self.endpoint {
            events.push_back(ControlEvent::Heard {
                session: self.id,
                from,
            });
        }
        let mut rest = plain.get(..used).unwrap_or(&[]);
        let mut abilities = None;
        while !rest.is_empty() {
            let Ok((frame, behind)) = ControlFrame::take(rest) else {
                return Ok(Some(ClosedWhy::Damaged));
            };
            rest = behind;
            match frame {
                ControlFrame::Able(bits) => abilities = Some(bits),
                ControlFrame::PathChallenge(token) => {
                    self.paths.asked(token, from, abilities.is_some());
                }
                ControlFrame::PathResponse { token, observed } => {
                    let answer = (token, observed, abilities.unwrap_or_default());
                    events.extend(self.paths.answered(self.id, answer, now));
                }
                _ => {}
            }
            if let Some(why) = self.handle_frame(frame, from, events, now) {
                return Ok(Some(why));
            }
        }
        Ok(None)
    }

    fn handle_frame(
        &mut self,
        frame: ControlFrame<'_>,
        from: Endpoint,
        events: &mut VecDeque<ControlEvent>,
        now: Instant,
    ) -> Option<ClosedWhy> {
        match frame {
            ControlFrame::Fragment {
                message,
                index,
                count,
                bytes,
            } => {
                if self.inbound.fragment(message, index, count, bytes).is_err() {
                    return Some(ClosedWhy::Damaged);
                }
                while let Some(bytes) = self.inbound.next_message() {
                    self.spoke = now;
                    events.push_back(ControlEvent::Message {
                        session: self.id,
                        from,
                        bytes,
                    });
                }
            }
            ControlFrame::Ack { message, fragments } => {
                if self.outbound.ack(message, fragments, now) {
                    self.spoke = now;
                    events.push_back(ControlEvent::Delivered {
                        session: self.id,
                        message: MessageId(message),
                    });
                }
            }
            ControlFrame::Ping => self.pong = true,
            ControlFrame::Pong
            | ControlFrame::Able(_)
            | ControlFrame::PathChallenge(_)
            | ControlFrame::PathResponse { .. } => {}
            ControlFrame::Close(reason) => return Some(ClosedWhy::Remote(reason)),
        }
        None
    }

    /// Puts the next datagram into `frame` and returns where it goes.
    pub(super) fn transmit(&mut self, frame: &mut Frame<'_>, now: Instant) -> Option<Endpoint> {
        self.cargo = Cargo::Usual;
        if self.begin(frame, now) {
            return Some(self.endpoint);
        }
        let mut plain = [0; PROBE_BYTES];
        if let Some(turn) = self.paths.next(now) {
            let used = turn.encode(&mut plain)?;
            self.seal(plain.get(..used)?, frame)?;
            if turn.bytes.is_some() {
                self.cargo = Cargo::Probe;
            }
            return Some(turn.to);
        }
        let used = self.fill(plain.get_mut(..PLAIN_BYTES)?, now);
        if used == 0 {
            return None;
        }
        self.seal(plain.get(..used)?, frame)?;
        self.sent = now;
        Some(self.endpoint)
    }

    /// Sends the Finish again, or has a Ping sent, until the other side was heard.
    fn begin(&mut self, frame: &mut Frame<'_>, now: Instant) -> bool {
        let Beginning::Unconfirmed {
            finish,
            tries,
            due,
            next,
        } = &mut self.beginning
        else {
            return false;
        };
        if !core::mem::take(due) {
            return false;
        }
        *next = now.after(retry_wait(*tries));
        match finish {
            None => {
                self.ping = true;
                false
            }
            Some(noise) => {
                let packet = ControlPacket::Finish {
                    receiver: self.peer,
                    noise,
                };
                put(&packet, frame)
            }
        }
    }

    /// Collects frames for one datagram to the session's endpoint.
    fn fill(&mut self, plain: &mut [u8], now: Instant) -> usize {
        let mut used = 0;
        let mut put = |frame: ControlFrame<'_>, used: usize| {
            let room = plain.get_mut(used..).unwrap_or(&mut []);
            frame.encode(room).map_or(used, |len| used + len)
        };
        if core::mem::take(&mut self.pong) {
            used = put(ControlFrame::Pong, used);
        }
        if core::mem::take(&mut self.ping) {
            used = put(ControlFrame::Ping, used);
        }
        // All acknowledgements that may wait fit before a small fragment.
        while let Some(ack) = self.inbound.next_ack() {
            used = put(ack, used);
        }
        while let Some(fragment) = self.outbound.next_fragment(PLAIN_BYTES - used, now) {
            used = put(fragment, used);
        }
        if self.outbound.sent_again() {
            self.cargo = Cargo::Again;
        }
        used
    }

    /// Seals `plain` into a Data datagram. Nothing if the frame is too small or the
    /// counters are used up.
    fn seal(&mut self, plain: &[u8], frame: &mut Frame<'_>) -> Option<()> {
        let counter = self.counter;
        if counter >= MAX_COUNTER {
            return None;
        }
        self.counter = counter + 1;
        let mut sealed = [0; MAX_DATAGRAM_BYTES];
        let used = self.keys.seal(counter, plain, &mut sealed)?;
        let packet = ControlPacket::Data {
            receiver: self.peer,
            counter,
            sealed: sealed.get(..used)?,
        };
        put(&packet, frame).then_some(())
    }

    /// The datagram that tells of the session's end.
    pub(super) fn farewell(&mut self, reason: CloseReason) -> Option<Vec<u8>> {
        let mut plain = [0; 2];
        let used = ControlFrame::Close(reason).encode(&mut plain).ok()?;
        let mut buffer = [0; HEADROOM + 64 + TAILROOM];
        let mut frame = Frame::new(&mut buffer);
        self.seal(plain.get(..used)?, &mut frame)?;
        Some(frame.packet().to_vec())
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Instant {
        if self.is_exhausted() {
            return Instant::ZERO;
        }
        let beginning = match &self.beginning {
            Beginning::Unconfirmed { next, .. } => *next,
            Beginning::Finished { .. } | Beginning::Over => Instant::NEVER,
        };
        self.outbound
            .deadline()
            .min(beginning)
            .min(self.idle_at())
            .min(self.silent_at())
            .min(self.ping_at())
            .min(self.born.after(MAX_AGE))
    }

    /// When a stranger has had nothing to say for too long.
    fn silent_at(&self) -> Instant {
        if self.is_stranger() {
            self.spoke.after(self.stranger_idle)
        } else {
            Instant::NEVER
        }
    }

    fn is_exhausted(&self) -> bool {
        self.counter >= MAX_COUNTER || self.outbound.is_exhausted()
    }

    /// Does what is due. `Some` ends the session.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<ClosedWhy> {
        if self.is_exhausted() || self.born.after(MAX_AGE) <= now {
            return Some(ClosedWhy::Expired);
        }
        if self.idle_at() <= now {
            return Some(ClosedWhy::Idle);
        }
        if self.silent_at() <= now {
            return Some(ClosedWhy::Silent);
        }
        if self.outbound.handle_timeout(now).is_err() {
            return Some(ClosedWhy::NoAnswer);
        }
        if let Beginning::Unconfirmed {
            tries, due, next, ..
        } = &mut self.beginning
            && *next <= now
            && !*due
        {
            *tries = tries.saturating_add(1);
            *due = true;
            if *tries > MAX_TRIES {
                return Some(ClosedWhy::NoAnswer);
            }
        }
        if self.ping_at() <= now {
            self.ping = true;
            // Also when nothing can be sent now, the next one is due later.
            self.sent = now;
        }
        self.paths.forget(now);
        None
    }
}

impl Paths {
    /// Has a challenge answered to where it came from.
    fn asked(&mut self, token: ChallengeToken, from: Endpoint, says_abilities: bool) {
        if self.answers.len() < MAX_CHALLENGES {
            self.answers.push_back(Answer {
                to: from,
                token,
                observed: from.direct(),
                says_abilities,
            });
        }
    }

    fn answered(
        &mut self,
        session: SessionId,
        (token, observed, abilities): (ChallengeToken, Option<SocketAddr>, u32),
        now: Instant,
    ) -> Option<ControlEvent> {
        let is_it = |challenge: &Challenge| challenge.is_sent && challenge.token == token;
        let place = self.challenges.iter().position(is_it)?;
        let challenge = self.challenges.remove(place)?;
        let rtt = now.saturating_since(challenge.at);
        let endpoint = challenge.to;
        let answered = match challenge.bytes {
            Some(bytes) => ControlEvent::Probed {
                session,
                endpoint,
                bytes,
                takes_pieces: abilities & TAKES_PIECES != 0,
                rtt,
                observed,
            },
            None => ControlEvent::PathAnswered {
                session,
                endpoint,
                rtt,
                observed,
            },
        };
        (rtt < CHALLENGE_LIFE).then_some(answered)
    }

    /// The next answer or challenge to send.
    fn next(&mut self, now: Instant) -> Option<Turn> {
        if let Some(Answer {
            to,
            token,
            observed,
            says_abilities,
        }) = self.answers.pop_front()
        {
            return Some(Turn {
                to,
                frame: ControlFrame::PathResponse { token, observed },
                says_abilities,
                bytes: None,
            });
        }
        let challenge = self.challenges.iter_mut().find(|c| !c.is_sent)?;
        challenge.is_sent = true;
        challenge.at = now;
        Some(Turn {
            to: challenge.to,
            frame: ControlFrame::PathChallenge(challenge.token),
            says_abilities: challenge.bytes.is_some(),
            bytes: challenge.bytes,
        })
    }

    fn forget(&mut self, now: Instant) {
        self.challenges
            .retain(|challenge| now.saturating_since(challenge.at) < CHALLENGE_LIFE);
    }
}

impl Turn {
    /// Writes what is to be sealed to the beginning of `plain`; returns its length in bytes.
    fn encode(&self, plain: &mut [u8]) -> Option<usize> {
        let mut used = 0;
        if self.says_abilities {
            used += ControlFrame::Able(TAKES_PIECES).encode(plain).ok()?;
        }
        used += self.frame.encode(plain.get_mut(used..)?).ok()?;
        let whole = usize::from(self.bytes.unwrap_or_default());
        let padded = whole.saturating_sub(DATA_HEADER_BYTES + TAG_BYTES);
        while used < padded {
            used += ControlFrame::Pong.encode(plain.get_mut(used..)?).ok()?;
        }
        Some(used)
    }
}

/// Writes a datagram into a frame; false if there is no room.
pub(super) fn put(packet: &ControlPacket<'_>, frame: &mut Frame<'_>) -> bool {
    frame.clear();
    let space = frame.space();
    match packet.encode(space) {
        Ok(used) => frame.set_len(used).is_ok(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::ControlSecret;
    use super::super::noise::Handshake;
    use super::*;
    use zeroize::Zeroizing;

    fn session() -> Session {
        let secret = |byte| ControlSecret::from_bytes(&[byte; 32]);
        let fresh = |byte| Zeroizing::new([byte; 32]);
        let remote = Some(secret(2).public());
        let (mut a, init) = Handshake::call(&secret(1), remote, 7, fresh(3)).unwrap();
        let mut b = Handshake::answer(Pattern::Ik, &secret(2), 7, fresh(4), &init).unwrap();
        let response = b.write(Pattern::Ik.response_bytes()).unwrap();
        a.read(&response).unwrap();
        let start = Start {
            id: SessionId(7),
            peer: 8,
            keys: a.complete().unwrap(),
            pattern: Pattern::Ik,
            endpoint: Endpoint::Direct(([192, 0, 2, 1], 1).into()),
        };
        Session::called(start, None, &ControlLimits::ROUTER, Instant::ZERO)
    }

    #[test]
    fn a_counter_is_never_used_twice_and_the_last_one_ends_the_session() {
        let mut session = session();
        session.counter = MAX_COUNTER - 1;
        let mut buffer = [0; altnet_wire::frame::FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        assert!(session.seal(&[5], &mut frame).is_some());
        assert!(session.seal(&[5], &mut frame).is_none());
        assert!(session.deadline() <= Instant::ZERO);
        assert_eq!(
            session.handle_timeout(Instant::ZERO),
            Some(ClosedWhy::Expired)
        );
    }

    #[test]
    fn a_session_that_rests_says_nothing_until_then_and_lasts_on() {
        let mut session = session();
        session.beginning = Beginning::Over;
        let until = Instant::ZERO.after(Duration::from_secs(300));
        session.rest(until);
        // An earlier end of it changes nothing.
        session.rest(Instant::ZERO);
        let limits = ControlLimits::ROUTER;
        assert_eq!(session.deadline(), until.after(limits.keepalive));
        assert_eq!(session.handle_timeout(until), None);
        assert!(!session.ping);
        assert_eq!(session.handle_timeout(until.after(limits.keepalive)), None);
        assert!(session.ping);
        let end = session.handle_timeout(until.after(limits.idle));
        assert_eq!(end, Some(ClosedWhy::Idle));
    }

    #[test]
    fn a_frame_without_room_loses_the_datagram_and_nothing_else() {
        let mut session = session();
        let message = session.send(b"message", &ControlLimits::ROUTER).unwrap();
        assert_eq!(message, MessageId(0));
        let mut small = [0; 8];
        let mut frame = Frame::new(&mut small);
        assert_eq!(session.transmit(&mut frame, Instant::ZERO), None);
        let later = session.deadline();
        assert_eq!(session.handle_timeout(later), None);
        let mut buffer = [0; altnet_wire::frame::FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        assert!(session.transmit(&mut frame, later).is_some());
    }
}
