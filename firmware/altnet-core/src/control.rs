//! Control sessions: messages between two nodes, sealed, whole, once and in order, over
//! datagrams that get lost.
//!
//! In: datagrams with where they came from, messages to send, time, entropy. Out: datagrams
//! with where they go ([`Control::poll_transmit`]), facts ([`Control::poll_event`]) and the
//! moment to come back ([`Control::deadline`]). A node drains both polls after each input.
//!
//! Promises: nobody without a key that `admit` takes gets an answer, but for strangers (XX)
//! while they are welcome and a Retry under load; no answer before authentication is larger
//! than its request; a replayed datagram changes nothing that lasts; every table has a
//! bound; one key has two sessions at most, a stranger one that it uses. A session begins
//! where the handshake's answer went and stays there until the node moves it: addresses are
//! evidence ([`ControlEvent::Heard`]), not orders.
//!
//! What the messages mean is none of its business, nor whether a path is a good one.
//! Sessions don't survive a restart.
//!
//! Source: the Noise Protocol Framework, revision 34; retransmission after RFC 6298;
//! acknowledgements, path challenges and retries after RFC 9000.

mod event;
mod gate;
mod handshakes;
mod inbound;
mod limits;
mod noise;
mod outbound;
mod session;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::ops::Bound;

use altnet_wire::control::{ControlPacket, INIT_BYTES};
use altnet_wire::endpoint::Endpoint;
use altnet_wire::frame::Frame;
use altnet_wire::hash;
use altnet_wire::id::ControlKey;
use altnet_wire::time::{Duration, Instant};
use zeroize::Zeroizing;

pub use crate::records::ControlSecret;
use crate::rng::Rng;
pub use event::{
    Cargo, CloseReason, ClosedWhy, ControlEvent, DropReason, FailReason, Full, MessageId, Pattern,
    SendError, SessionId,
};
use gate::{Gate, Judgement};
use handshakes::{Again, Call, Caller, HalfOpen, Progress, is_one_place};
pub use limits::ControlLimits;
use noise::Handshake;
use session::{Session, Start};

/// Every control session of one node.
pub struct Control {
    limits: ControlLimits,
    local: ControlSecret,
    rng: Rng,
    strangers_welcome: bool,
    gate: Gate,
    calls: BTreeMap<u32, Call>,
    half_open: HalfOpen,
    sessions: BTreeMap<u32, Session>,
    events: VecDeque<ControlEvent>,
    /// Answers to handshakes, and farewells.
    outbox: VecDeque<(Endpoint, Vec<u8>)>,
    /// The session that sent last: the others come first.
    served: u32,
    /// What it sent.
    cargo: Cargo,
    whose: Option<SessionId>,
    /// When something is due, as long as nothing happens. None: something has happened
    /// since it was last reckoned.
    quiet_until: Option<Instant>,
}

impl Control {
    /// Makes a machine without sessions that holds the key `local`. `seed` must never have
    /// been used before and be known to nobody else.
    pub fn new(limits: ControlLimits, local: ControlSecret, seed: [u8; 32]) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            gate: Gate::new(&limits, &mut rng),
            limits,
            local,
            rng,
            strangers_welcome: false,
            calls: BTreeMap::new(),
            half_open: HalfOpen::new(&limits),
            sessions: BTreeMap::new(),
            events: VecDeque::new(),
            outbox: VecDeque::new(),
            served: 0,
            cargo: Cargo::Usual,
            whose: None,
            quiet_until: None,
        }
    }

    /// Mixes fresh entropy in.
    pub fn handle_entropy(&mut self, entropy: &[u8; 32]) {
        self.rng.handle_entropy(entropy);
    }

    /// The public half of this node's key.
    pub fn local(&self) -> ControlKey {
        self.local.public()
    }

    /// Whether strangers may call (XX). At first they may not, and get no answer.
    pub fn welcome_strangers(&mut self, welcome: bool) {
        self.strangers_welcome = welcome;
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
        if !self.has_room() {
            return Err(Full);
        }
        self.quiet_until = None;
        let index = self.free_index();
        let ephemeral = Zeroizing::new(self.rng.array());
        match Handshake::call(&self.local, remote, index, ephemeral) {
            Ok((handshake, noise)) => {
                let call = Call::new(handshake, noise, endpoint, now);
                self.calls.insert(index, call);
            }
            Err(_) => self.fail(index, FailReason::BadKey),
        }
        Ok(SessionId(index))
    }

    /// Takes a datagram that came from `from`. `admit` says whether the holder of a key may
    /// call this node; it is asked about IK callers only, whose key is authentic but whose
    /// call may be a replayed one until [`ControlEvent::Established`].
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
        let packet = ControlPacket::parse(datagram).map_err(|_| DropReason::Malformed)?;
        if self.events.len() >= self.limits.waiting {
            return Err(DropReason::Full);
        }
        self.quiet_until = None;
        match packet {
            ControlPacket::Init {
                pattern,
                sender: peer,
                cookie,
                noise,
            } => {
                let caller = Caller {
                    pattern,
                    peer,
                    noise,
                    from,
                };
                self.handle_init(&caller, &cookie, admit, now)
            }
            ControlPacket::Retry { receiver, cookie } => self
                .calls
                .get_mut(&receiver)
                .ok_or(DropReason::OutOfTurn)?
                .retry(cookie),
            ControlPacket::Response {
                receiver,
                sender,
                noise,
            } => self.handle_response(from, receiver, sender, noise, now),
            ControlPacket::Finish { receiver, noise } => {
                self.handle_finish(from, receiver, noise, now)
            }
            ControlPacket::Data {
                receiver,
                counter,
                sealed,
            } => self.handle_data(from, receiver, counter, sealed, now),
        }
    }

    /// Queues a message of at most [`altnet_wire::control::MAX_MESSAGE_BYTES`].
    ///
    /// # Errors
    /// See [`SendError`]: the message was not taken.
    pub fn send(
        &mut self,
        session: SessionId,
        message: &[u8],
        _now: Instant,
    ) -> Result<MessageId, SendError> {
        match self.sessions.get_mut(&session.0) {
            Some(found) => {
                self.quiet_until = None;
                found.send(message, &self.limits)
            }
            None if self.calls.contains_key(&session.0) => Err(SendError::NotEstablished),
            None => Err(SendError::UnknownSession),
        }
    }

    /// Asks the other side to answer from `to`, any endpoint that may be its own. Sent
    /// once; an answer within 10 s is [`ControlEvent::PathAnswered`]. The oldest of more
    /// than 16 unanswered ones is forgotten. Nothing happens without a session.
    pub fn challenge(&mut self, session: SessionId, to: Endpoint, now: Instant) {
        if let Some(found) = self.sessions.get_mut(&session.0) {
            self.quiet_until = None;
            found.challenge(self.rng.array(), to, None, now);
        }
    }

    /// The same with a datagram of `bytes`, as far as they are more than a challenge has and at most
    /// [`altnet_wire::control::MAX_DATAGRAM_BYTES`]; an answer is [`ControlEvent::Probed`].
    pub fn probe(&mut self, session: SessionId, to: Endpoint, bytes: u16, now: Instant) {
        if let Some(found) = self.sessions.get_mut(&session.0) {
            self.quiet_until = None;
            found.challenge(self.rng.array(), to, Some(bytes), now);
        }
    }

    /// The other side of a session is somebody we know, whichever way it called: none of the bounds for
    /// strangers holds any more.
    pub fn is_known(&mut self, session: SessionId) {
        if let Some(found) = self.sessions.get_mut(&session.0) {
            self.quiet_until = None;
            found.is_known_now();
        }
    }

    /// Has a session not ping, nor take silence for its end, until then: both sides know otherwise
    /// that the other is there.
    pub fn rest(&mut self, session: SessionId, until: Instant) {
        if let Some(found) = self.sessions.get_mut(&session.0) {
            self.quiet_until = None;
            found.rest(until);
        }
    }

    /// Moves a session, or a call for one, to another endpoint. What isn't acknowledged yet
    /// is sent there at once.
    pub fn set_endpoint(&mut self, session: SessionId, endpoint: Endpoint) {
        self.quiet_until = None;
        if let Some(found) = self.sessions.get_mut(&session.0) {
            found.set_endpoint(endpoint);
        } else if let Some(call) = self.calls.get_mut(&session.0) {
            call.set_endpoint(endpoint);
        }
    }

    /// Where a session, or a call for one, sends to.
    pub fn endpoint(&self, session: SessionId) -> Option<Endpoint> {
        let established = self.sessions.get(&session.0).map(|found| found.endpoint);
        established.or_else(|| self.calls.get(&session.0).map(|call| call.endpoint))
    }

    /// The key of the other side, once the session is established.
    pub fn remote(&self, session: SessionId) -> Option<ControlKey> {
        self.sessions
            .get(&session.0)
            .map(|found| found.keys().remote)
    }

    /// The smoothed round-trip time of a session's datagrams, once one was measured.
    pub fn rtt(&self, session: SessionId) -> Option<Duration> {
        self.sessions.get(&session.0)?.rtt()
    }

    /// Ends a session or a call at once, telling the other side why if that arrives. What
    /// wasn't delivered is forgotten. No event follows.
    pub fn close(&mut self, session: SessionId, reason: CloseReason, _now: Instant) {
        self.quiet_until = None;
        self.calls.remove(&session.0);
        if let Some(ended) = self.sessions.remove(&session.0) {
            self.say_farewell(ended, reason);
        }
    }

    /// The next fact, until there is none.
    pub fn poll_event(&mut self) -> Option<ControlEvent> {
        self.events.pop_front()
    }

    /// Puts the next datagram into `frame` and returns where it goes, until there is none.
    /// It has at most [`altnet_wire::control::MAX_SENT_BYTES`], unless it is a probe.
    pub fn poll_transmit(&mut self, frame: &mut Frame<'_>, now: Instant) -> Option<Endpoint> {
        if self.quiet_until.is_some() {
            return None;
        }
        self.cargo = Cargo::Usual;
        self.whose = None;
        while let Some((to, datagram)) = self.outbox.pop_front() {
            if frame.set(&datagram).is_ok() {
                return Some(to);
            }
        }
        for (index, call) in &mut self.calls {
            let to = call.endpoint;
            if let Some(init) = call.transmit(*index, now)
                && session::put(&init, frame)
            {
                return Some(to);
            }
        }
        let turn = [
            (Bound::Excluded(self.served), Bound::Unbounded),
            (Bound::Unbounded, Bound::Included(self.served)),
        ];
        for range in turn {
            for (index, session) in self.sessions.range_mut(range) {
                if let Some(to) = session.transmit(frame, now) {
                    self.served = *index;
                    self.cargo = session.cargo;
                    self.whose = Some(SessionId(*index));
                    return Some(to);
                }
            }
        }
        self.quiet_until = Some(self.earliest());
        None
    }

    /// What the datagram was that [`Control::poll_transmit`] gave last.
    pub const fn cargo(&self) -> Cargo {
        self.cargo
    }

    /// The session whose datagram that was; nothing of a handshake's or a farewell, which are small.
    pub const fn whose(&self) -> Option<SessionId> {
        self.whose
    }

    /// When [`Control::handle_timeout`] is due; [`Instant::NEVER`] if it isn't.
    pub fn deadline(&self) -> Instant {
        self.quiet_until.unwrap_or_else(|| self.earliest())
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline() > now {
            return;
        }
        self.quiet_until = None;
        self.half_open.handle_timeout(now);
        let late = |(index, call): (&u32, &mut Call)| call.handle_timeout(now).then_some(*index);
        let failed: Vec<u32> = self.calls.iter_mut().filter_map(late).collect();
        for index in failed {
            self.calls.remove(&index);
            self.fail(index, FailReason::NoAnswer);
        }
        let over = |(index, session): (&u32, &mut Session)| {
            session.handle_timeout(now).map(|why| (*index, why))
        };
        let ended: Vec<_> = self.sessions.iter_mut().filter_map(over).collect();
        for (index, why) in ended {
            self.end(index, why);
        }
    }

    fn earliest(&self) -> Instant {
        let calls = self.calls.values().map(Call::deadline);
        let sessions = self.sessions.values().map(Session::deadline);
        calls
            .chain(sessions)
            .min()
            .unwrap_or(Instant::NEVER)
            .min(self.half_open.deadline())
    }

    fn handle_init(
        &mut self,
        caller: &Caller<'_>,
        cookie: &[u8; 16],
        admit: &mut dyn FnMut(&ControlKey) -> bool,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.half_open.handle_timeout(now);
        if let Some(again) = self.half_open.again(caller) {
            let Again {
                receiver,
                sender,
                noise,
            } = again.map_err(|Full| DropReason::Full)?;
            let noise = noise.to_vec();
            return self.respond(caller.from, receiver, sender, &noise);
        }
        if caller.pattern == Pattern::Xx && !self.strangers_welcome {
            return Err(DropReason::NotAdmitted);
        }
        if !self.may_become_session(caller.pattern, &caller.from) {
            return Err(DropReason::Full);
        }
        let crowded = self.half_open.is_crowded();
        let rng = &mut self.rng;
        let (from, peer) = (caller.from, caller.peer);
        match self.gate.judge(caller, cookie, crowded, rng, now) {
            Judgement::Pass => {}
            Judgement::Drop => return Err(DropReason::Full),
            Judgement::Retry(cookie) => {
                let receiver = peer;
                self.reply(from, &ControlPacket::Retry { receiver, cookie })?;
                return Err(DropReason::Retry);
            }
        }
        self.half_open
            .has_room(caller)
            .map_err(|Full| DropReason::Full)?;
        let index = self.free_index();
        let ephemeral = Zeroizing::new(self.rng.array());
        let noise = self
            .half_open
            .answer(index, caller, &self.local, ephemeral, admit, now)?;
        self.respond(from, peer, index, &noise)
    }

    fn respond(
        &mut self,
        to: Endpoint,
        receiver: u32,
        sender: u32,
        noise: &[u8],
    ) -> Result<(), DropReason> {
        let response = ControlPacket::Response {
            receiver,
            sender,
            noise,
        };
        self.reply(to, &response)
    }

    /// Answers an Init: never with more bytes than it has.
    fn reply(&mut self, to: Endpoint, packet: &ControlPacket<'_>) -> Result<(), DropReason> {
        let mut datagram = [0; INIT_BYTES];
        let used = packet.encode(&mut datagram).map_err(|_| DropReason::Full)?;
        let datagram = datagram.get(..used).ok_or(DropReason::Full)?;
        if self.outbox.len() >= self.limits.waiting {
            return Err(DropReason::Full);
        }
        self.outbox.push_back((to, datagram.to_vec()));
        Ok(())
    }

    fn handle_response(
        &mut self,
        from: Endpoint,
        receiver: u32,
        sender: u32,
        noise: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let call = self.calls.get_mut(&receiver).ok_or(DropReason::OutOfTurn)?;
        let pattern = call.handshake.pattern();
        if noise.len() != pattern.response_bytes() || call.handshake.read(noise).is_err() {
            return Err(DropReason::BadSeal);
        }
        let Some(mut call) = self.calls.remove(&receiver) else {
            return Err(DropReason::OutOfTurn);
        };
        let rtt = call.rtt(now);
        let finish = match pattern {
            Pattern::Xx => call.handshake.write(pattern.finish_bytes()).map(Some),
            Pattern::Ik => Ok(None),
        };
        let Ok((finish, keys)) = finish.and_then(|f| Ok((f, call.handshake.complete()?))) else {
            self.fail(receiver, FailReason::BadKey);
            return Ok(());
        };
        let id = SessionId(receiver);
        let start = Start {
            id,
            peer: sender,
            keys,
            pattern,
            endpoint: call.endpoint,
        };
        let mut session = Session::called(start, finish, &self.limits, now);
        if let Some(rtt) = rtt {
            session.measure(rtt);
        }
        self.establish(session, Some(from));
        Ok(())
    }

    fn handle_finish(
        &mut self,
        from: Endpoint,
        receiver: u32,
        noise: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let finish = hash::labelled("altnet control finish", &[noise]);
        if let Some(session) = self.sessions.get_mut(&receiver) {
            return session.finish_again(&finish);
        }
        let endpoint = self
            .half_open
            .get(receiver)
            .ok_or(DropReason::UnknownSession)?
            .endpoint(from);
        if !self.may_become_session(Pattern::Xx, &endpoint) {
            return Err(DropReason::Full);
        }
        self.half_open.finish(receiver, &self.local, noise)?;
        if let Some(silent) = self.given_up_for(&endpoint) {
            self.end(silent, ClosedWhy::Replaced);
        }
        let waiting = self
            .half_open
            .remove(receiver)
            .ok_or(DropReason::UnknownSession)?;
        let Progress::Xx(handshake) = waiting.progress else {
            return Err(DropReason::OutOfTurn);
        };
        let start = Start {
            id: SessionId(receiver),
            peer: waiting.peer,
            keys: handshake.complete().map_err(|_| DropReason::BadSeal)?,
            pattern: Pattern::Xx,
            endpoint,
        };
        let session = Session::answered(start, Some(finish), &self.limits, now);
        self.establish(session, Some(from));
        Ok(())
    }

    fn handle_data(
        &mut self,
        from: Endpoint,
        receiver: u32,
        counter: u64,
        sealed: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        if !self.sessions.contains_key(&receiver) {
            self.promote(from, receiver, counter, sealed, now)?;
        }
        let session = self
            .sessions
            .get_mut(&receiver)
            .ok_or(DropReason::UnknownSession)?;
        if let Some(why) = session.receive(from, counter, sealed, &mut self.events, now)? {
            self.end(receiver, why);
        }
        Ok(())
    }

    /// Makes a session of an IK caller that has shown, by a first Data, that its call is
    /// not a replayed one.
    fn promote(
        &mut self,
        from: Endpoint,
        index: u32,
        counter: u64,
        sealed: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let waiting = self
            .half_open
            .get(index)
            .ok_or(DropReason::UnknownSession)?;
        let Progress::Ik(keys) = &waiting.progress else {
            return Err(DropReason::OutOfTurn);
        };
        let mut plain = [0; altnet_wire::control::MAX_DATAGRAM_BYTES];
        keys.open(counter, sealed, &mut plain)
            .ok_or(DropReason::BadSeal)?;
        let endpoint = waiting.endpoint(from);
        if !self.may_become_session(Pattern::Ik, &endpoint) {
            return Err(DropReason::Full);
        }
        let Some(waiting) = self.half_open.remove(index) else {
            return Err(DropReason::UnknownSession);
        };
        let Progress::Ik(keys) = waiting.progress else {
            return Err(DropReason::OutOfTurn);
        };
        let start = Start {
            id: SessionId(index),
            peer: waiting.peer,
            keys,
            pattern: Pattern::Ik,
            endpoint,
        };
        let session = Session::answered(start, None, &self.limits, now);
        // Where the Data came from is told when it is read.
        self.establish(session, None);
        Ok(())
    }

    /// Takes a session in whose last handshake message came from `from`, and ends the
    /// oldest with the same key if they are too many.
    fn establish(&mut self, session: Session, from: Option<Endpoint>) {
        let remote = session.keys().remote;
        let id = session.id;
        self.events.push_back(session.established());
        if let Some(from) = from.filter(|from| *from != session.endpoint) {
            self.events
                .push_back(ControlEvent::Heard { session: id, from });
        }
        let same = |s: &&Session| s.keys().remote == remote;
        if self.sessions.values().filter(same).count() >= self.limits.sessions_per_key {
            let same = self.sessions.values().filter(same);
            if let Some(oldest) = same.min_by_key(|s| s.born).map(|s| s.id) {
                self.end(oldest.0, ClosedWhy::Replaced);
            }
        }
        self.sessions.insert(id.0, session);
    }

    fn has_room(&self) -> bool {
        self.sessions.len() + self.calls.len() < self.limits.sessions
    }

    /// Whether another caller could get a session, if need be in the place of one that
    /// [`Self::given_up_for`] it.
    fn may_become_session(&self, pattern: Pattern, from: &Endpoint) -> bool {
        let is_free = pattern == Pattern::Ik || self.strangers().count() < self.limits.strangers;
        self.has_room() && (is_free || self.given_up_for(from).is_some())
    }

    fn strangers(&self) -> impl Iterator<Item = &Session> {
        self.sessions
            .values()
            .filter(|session| session.is_stranger())
    }

    /// Of the strangers that came from where `from` is, if they are too many for one more, the one that
    /// has said nothing for the longest: most likely a machine that lost its power, and is back.
    fn given_up_for(&self, from: &Endpoint) -> Option<u32> {
        let neighbours = || {
            self.strangers()
                .filter(|session| is_one_place(&session.origin, from))
        };
        let are_many = neighbours().count() >= self.limits.strangers_per_place
            || self.strangers().count() >= self.limits.strangers;
        let silent = neighbours().min_by_key(|session| session.spoke)?;
        are_many.then_some(silent.id.0)
    }

    /// An index that nothing has. There are 2^32, and few hundred are taken.
    fn free_index(&mut self) -> u32 {
        loop {
            let index = u32::from_le_bytes(self.rng.array());
            let taken = self.sessions.contains_key(&index)
                || self.calls.contains_key(&index)
                || self.half_open.contains(index);
            if !taken {
                return index;
            }
        }
    }

    fn fail(&mut self, index: u32, why: FailReason) {
        let session = SessionId(index);
        self.events.push_back(ControlEvent::Failed { session, why });
    }

    fn end(&mut self, index: u32, why: ClosedWhy) {
        let session = SessionId(index);
        self.events.push_back(ControlEvent::Closed { session, why });
        let Some(ended) = self.sessions.remove(&index) else {
            return;
        };
        match why {
            ClosedWhy::Expired => self.say_farewell(ended, CloseReason::Expired),
            ClosedWhy::Damaged => self.say_farewell(ended, CloseReason::Damaged),
            ClosedWhy::Silent => self.say_farewell(ended, CloseReason::Done),
            ClosedWhy::Replaced => self.say_farewell(ended, CloseReason::Replaced),
            ClosedWhy::Remote(_) | ClosedWhy::NoAnswer | ClosedWhy::Idle => {}
        }
    }

    fn say_farewell(&mut self, mut ended: Session, reason: CloseReason) {
        if self.outbox.len() < self.limits.waiting
            && let Some(datagram) = ended.farewell(reason)
        {
            self.outbox.push_back((ended.endpoint, datagram));
        }
    }
}
