//! What leaves: packets in hand, and whatever waits its turn.

use altnet_wire::frame::Frame;
use altnet_wire::time::{Duration, Instant};

use super::api::{Output, PeerIndex, SealRefused, Sealed, TunnelEvent};
use super::peer::{Peer, REKEY_TIMEOUT, REPEAT_AFTER, Shaking, Timer};
use super::{Engine, local_mut};
use crate::aead::Aead;
use crate::handshake::Initiator;
use crate::session::SealError;
use crate::tai64n::Tai64n;

/// So often an initiation is sent: endpoints may come and go faster than peers answer.
const MOST_COPIES: u8 = 6;

impl<A: Aead> Engine<A> {
    /// Seals the frame's packet for `peer` in place, or keeps a copy until there is a session.
    ///
    /// In: an IPv4 or IPv6 packet. Out: with [`Sealed::Transmit`] the frame holds a datagram,
    /// 32 to 47 bytes longer. If sending it fails, send the same bytes again.
    ///
    /// # Errors
    /// [`SealRefused`]; the frame then holds what it held. With [`SealRefused::QueueFull`] a
    /// handshake is under way all the same.
    pub fn seal(
        &mut self,
        peer: PeerIndex,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Sealed, SealRefused> {
        let jitter = self.silence_jitter;
        let Some(Some(entry)) = self.peers.get_mut(usize::from(peer.0)) else {
            return Err(SealRefused::UnknownPeer);
        };
        let to = entry.endpoint.ok_or(SealRefused::NoEndpoint)?;
        if let Some(sealed) = entry.seal_data(frame, jitter, now) {
            let result = sealed.map(|()| Sealed::Transmit { to });
            self.note_ready(peer);
            return result;
        }
        entry.ask(now);
        // Somebody still wants to get through, so the 90 seconds begin anew.
        entry.asking_since = Some(now);
        self.note_ready(peer);
        if self.queue.push(peer, frame.packet()) {
            Ok(Sealed::Queued)
        } else {
            Err(SealRefused::QueueFull)
        }
    }

    /// Takes note of packets that a worker sealed with the peer's [`Engine::sender`].
    pub fn note_sealed(&mut self, peer: PeerIndex, packets: u32, bytes: u64, now: Instant) {
        let jitter = self.silence_jitter;
        let Some(entry) = self.peer_mut(peer).filter(|_| packets > 0) else {
            return;
        };
        let last = usize::try_from(bytes).unwrap_or(usize::MAX);
        let others = u64::from(packets.saturating_sub(1));
        entry.stats.tx_packets = entry.stats.tx_packets.saturating_add(others);
        entry.note_sent(last, now);
        entry.note_sent_data(jitter, now);
        entry.ask_if_due(now);
        self.note_ready(peer);
    }

    /// Gives the next thing to do: a datagram in `frame`, a fact, or how long to wait.
    ///
    /// What the frame held is lost. Call it after every input until it says
    /// [`Output::Wait`], which holds the moment for [`Engine::handle_timeout`].
    pub fn poll_output(&mut self, frame: &mut Frame<'_>, now: Instant) -> Output {
        frame.clear();
        while let Some((to, reply)) = self.cookie_replies.pop_front() {
            if frame.set(&reply).is_ok() {
                return Output::Transmit { to };
            }
        }
        loop {
            if let Some(event) = self.next_stamp_event() {
                return Output::Event(event);
            }
            let Some(index) = self.ready.front().copied() else {
                return Output::Wait(self.earliest);
            };
            if let Some(output) = self.poll_peer(index, frame, now) {
                return output;
            }
            self.ready.pop_front();
            if let Some(peer) = self.peer_mut(index) {
                peer.is_ready = false;
            }
        }
    }

    /// Reservations of stamps that the driver was not asked to save yet.
    fn next_stamp_event(&mut self) -> Option<TunnelEvent> {
        if !self.has_stamp_news {
            return None;
        }
        for key in self.locals.iter_mut().flatten() {
            let until = key.stamps.to_save();
            if until.is_some() && until != key.told {
                key.told = until;
                let local = key.id;
                return until.map(|until| TunnelEvent::SaveStamps { local, until });
            }
        }
        self.has_stamp_news = false;
        None
    }

    fn poll_peer(
        &mut self,
        index: PeerIndex,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Option<Output> {
        let peer = self.peer_mut(index)?;
        if let Some(event) = peer.next_event(index) {
            return Some(Output::Event(event));
        }
        if let Some((to, mut bytes)) = peer.wants.response.take() {
            peer.jar.stamp(&peer.macs, &mut bytes, now);
            peer.note_sent(bytes.len(), now);
            let is_set = frame.set(&bytes).is_ok();
            self.note_ready(index);
            if is_set {
                return Some(Output::Transmit { to });
            }
        }
        let peer = self.peer_mut(index)?;
        if let Some(to) = peer.wants.response_again.take() {
            // It is no sign of life to the peer, to which it may not go at all.
            let mut bytes = peer.responded.0;
            peer.jar.stamp(&peer.macs, &mut bytes, now);
            let is_set = frame.set(&bytes).is_ok();
            self.note_ready(index);
            if is_set {
                return Some(Output::Transmit { to });
            }
        }
        if core::mem::take(&mut self.peer_mut(index)?.wants.initiation) {
            let output = self.initiate(index, frame, now);
            self.note_ready(index);
            if output.is_some() {
                return output;
            }
        }
        if let Some(output) = self.peer_mut(index)?.repeat_initiation(frame, now) {
            self.note_ready(index);
            return Some(output);
        }
        let output = self.poll_packets(index, frame, now);
        self.note_ready(index);
        output
    }

    /// Packets that waited, else a keepalive.
    fn poll_packets(
        &mut self,
        index: PeerIndex,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Option<Output> {
        let jitter = self.silence_jitter;
        let Some(Some(peer)) = self.peers.get_mut(usize::from(index.0)) else {
            return None;
        };
        let Some(to) = peer.endpoint else {
            peer.wants.keepalive = false;
            peer.wants.queued = false;
            return None;
        };
        while peer.wants.queued {
            if peer.usable(now).is_none() || !self.queue.has(index) {
                peer.wants.queued = false;
                break;
            }
            if self.queue.pop(index, frame) && peer.seal_data(frame, jitter, now) == Some(Ok(())) {
                peer.wants.keepalive = false;
                return Some(Output::Transmit { to });
            }
        }
        if core::mem::take(&mut peer.wants.keepalive) {
            frame.clear();
            match peer.seal(frame, now) {
                Some(Ok(())) => return Some(Output::Transmit { to }),
                Some(Err(_)) => {}
                None => {
                    peer.ask(now);
                    if core::mem::take(&mut peer.wants.initiation) {
                        return self.initiate(index, frame, now);
                    }
                }
            }
        }
        None
    }

    /// Writes an initiation into the frame (section 5.4.2), if there is a stamp for it and
    /// somewhere to send it; in any case the timer is set that tries again.
    fn initiate(
        &mut self,
        index: PeerIndex,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Option<Output> {
        let again = now.after(REKEY_TIMEOUT).after(self.draw_jitter());
        let calendar = self.calendar(now);
        let Some(Some(peer)) = self.peers.get_mut(usize::from(index.0)) else {
            return None;
        };
        peer.set(Timer::Retransmit, again);
        peer.set(Timer::Repeat, now.after(REPEAT_AFTER));
        peer.wants.repetition = false;
        let to = peer.endpoint?;
        let key = local_mut(&mut self.locals, peer.local)?;
        let stamp = key.stamps.stamp(calendar);
        self.has_stamp_news |= key.stamps.to_save().is_some();
        let Ok(stamp) = stamp else {
            // If saving failed, the driver is asked anew with every attempt.
            key.told = None;
            peer.waits_for_stamp = true;
            return None;
        };
        if let Some(former) = peer.shaking.take() {
            self.indices.remove(former.index);
        }
        let sender = self.indices.draw(index, &mut self.random)?;
        let (initiator, message) = Initiator::start(
            &key.public,
            &peer.public,
            &peer.shared,
            sender,
            stamp,
            &mut self.random,
        )
        .ok()?;
        let mut bytes = message.encode();
        peer.shaking = Some(Shaking {
            initiator,
            index: sender,
            local: peer.local,
            message: bytes,
            to,
            copies: 1,
        });
        peer.last_initiation = Some(now);
        peer.jar.stamp(&peer.macs, &mut bytes, now);
        peer.note_sent(bytes.len(), now);
        frame.set(&bytes).ok()?;
        Some(Output::Transmit { to })
    }

    fn calendar(&self, now: Instant) -> Option<Tai64n> {
        let (time, then) = self.calendar?;
        let since = now.saturating_since(then);
        Some(Tai64n::from_unix(
            time.as_secs().saturating_add(since.as_secs()),
            since.subsec_nanos(),
        ))
    }
}

impl<A: Aead> Peer<A> {
    pub(super) fn has_output(&self) -> bool {
        self.wants.response.is_some()
            || self.wants.response_again.is_some()
            || self.wants.initiation
            || self.wants.repetition
            || self.wants.keepalive
            || self.wants.queued
            || self.news.sessions
            || self.news.rekeyed
            || self.news.failed
            || self.news.roamed
            || self.told_up != self.current.is_some()
    }

    fn next_event(&mut self, peer: PeerIndex) -> Option<TunnelEvent> {
        let take = core::mem::take::<bool>;
        if take(&mut self.news.sessions) {
            return Some(TunnelEvent::SessionsChanged { peer });
        }
        if take(&mut self.news.roamed)
            && let Some(to) = self.endpoint
        {
            return Some(TunnelEvent::Roamed { peer, to });
        }
        let is_up = self.current.is_some();
        let is_rekeyed = take(&mut self.news.rekeyed);
        if self.told_up != is_up {
            self.told_up = is_up;
            return Some(if is_up {
                TunnelEvent::SessionUp { peer }
            } else {
                TunnelEvent::SessionDown { peer }
            });
        }
        if is_rekeyed {
            return Some(TunnelEvent::Rekeyed { peer });
        }
        take(&mut self.news.failed).then_some(TunnelEvent::HandshakeFailed { peer })
    }

    /// Sends the initiation that waits for its response once more, maybe along another way, if that is
    /// wanted: the same bytes, so that it is still one in [`REKEY_TIMEOUT`] (section 6.1).
    fn repeat_initiation(&mut self, frame: &mut Frame<'_>, now: Instant) -> Option<Output> {
        if !core::mem::take(&mut self.wants.repetition) {
            return None;
        }
        let to = self.endpoint?;
        let shaking = self.shaking.as_mut().filter(|s| s.copies < MOST_COPIES)?;
        shaking.copies += 1;
        shaking.to = to;
        let mut bytes = shaking.message;
        self.jar.stamp(&self.macs, &mut bytes, now);
        self.note_sent(bytes.len(), now);
        frame.set(&bytes).ok()?;
        Some(Output::Transmit { to })
    }

    /// Seals with the current session; nothing if there is none that can.
    fn seal(&mut self, frame: &mut Frame<'_>, now: Instant) -> Option<Result<(), SealRefused>> {
        let session = self.usable(now)?;
        match session.send.reserve(1).seal(frame, now) {
            Ok(()) => {
                self.note_sent(frame.len(), now);
                self.ask_if_due(now);
                Some(Ok(()))
            }
            Err(SealError::NoRoom) => Some(Err(SealRefused::NoRoom)),
            Err(_) => None,
        }
    }

    fn seal_data(
        &mut self,
        frame: &mut Frame<'_>,
        jitter: Duration,
        now: Instant,
    ) -> Option<Result<(), SealRefused>> {
        let is_keepalive = frame.is_empty();
        let sealed = self.seal(frame, now)?;
        if sealed.is_ok() && !is_keepalive {
            self.note_sent_data(jitter, now);
        }
        Some(sealed)
    }

    fn ask_if_due(&mut self, now: Instant) {
        if self
            .usable(now)
            .is_none_or(|session| session.is_due_on_send(now))
        {
            self.ask(now);
        }
    }
}
