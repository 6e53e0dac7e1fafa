//! What comes in: handshakes, cookies, packets.

use altnet_wire::endpoint::Endpoint;
use altnet_wire::frame::Frame;
use altnet_wire::time::{Duration, Instant};

use super::api::{DropReason, LocalKeyId, Opened, PeerIndex};
use super::peer::{Peer, REKEY_TIMEOUT, Session, Timer};
use super::{Engine, local_mut};
use crate::aead::Aead;
use crate::handshake::{HandshakeError, Named};
use crate::message::{CookieReply, Initiation, Message, Response};
use crate::session::{OpenError, Unreplayed};

/// A peer's initiations are computed at most this often: 50 a second, as in WireGuard's
/// Linux implementation (`INITIATIONS_PER_SECOND`).
const INITIATION_INTERVAL: Duration = Duration::from_millis(20);

impl<A: Aead> Engine<A> {
    /// Takes one datagram in, opening it in place.
    ///
    /// In: a whole datagram and where it came from. Out: what it was; with
    /// [`Opened::Packet`] the frame holds the inner packet.
    ///
    /// # Errors
    /// [`DropReason`]. Then the frame's contents go nowhere; a reply, if any, comes out of
    /// [`Engine::poll_output`] and is smaller than the datagram.
    pub fn handle_datagram(
        &mut self,
        from: Endpoint,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Opened, DropReason> {
        match Message::parse(frame.packet()).map_err(|_| DropReason::Malformed)? {
            Message::Initiation(message) => {
                self.handle_initiation(from, frame.packet(), &message, now)
            }
            Message::Response(message) => self.handle_response(from, frame.packet(), &message, now),
            Message::CookieReply(message) => self.handle_cookie(&message, now),
            Message::Transport(header) => {
                let peer = self.peer_of(header.receiver)?;
                let session = self
                    .peer(peer)
                    .and_then(|peer| {
                        peer.sessions()
                            .find(|session| session.recv.index() == header.receiver)
                    })
                    .ok_or(DropReason::UnknownReceiver)?;
                let packet = session.recv.open(frame, now)?;
                self.admit(packet, from, frame, now)
            }
        }
    }

    /// Decides on a packet whose tag a worker verified with one of [`Engine::receivers`].
    ///
    /// In: what `open` returned, and the frame it left. Out: as
    /// [`Engine::handle_datagram`].
    ///
    /// # Errors
    /// [`DropReason::Replayed`], [`DropReason::UnknownReceiver`] if the session is gone
    /// meanwhile, [`DropReason::NotIp`].
    pub fn admit(
        &mut self,
        packet: Unreplayed,
        from: Endpoint,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Opened, DropReason> {
        let index = self.peer_of(packet.index)?;
        let Some(Some(peer)) = self.peers.get_mut(usize::from(index.0)) else {
            return Err(DropReason::UnknownReceiver);
        };
        let session = [&mut peer.current, &mut peer.next]
            .into_iter()
            .chain(&mut peer.formers)
            .enumerate()
            .filter_map(|(at, slot)| Some((at, slot.as_mut()?)))
            .find(|(_, session)| session.recv.index() == packet.index);
        let Some((at, session)) = session else {
            return Err(DropReason::UnknownReceiver);
        };
        let is_next = at == 1;
        session
            .window
            .note(packet.counter)
            .map_err(|_| DropReason::Replayed)?;
        peer.note_received(from, packet.wire_bytes, now);
        if !frame.is_empty() {
            peer.note_received_data(now);
        }
        if is_next {
            self.confirm(index);
        }
        if let Some(peer) = self.peer_mut(index) {
            peer.keep_fresh(now);
        }
        self.note_ready(index);
        if frame.is_empty() {
            return Ok(Opened::Keepalive { peer: index, from });
        }
        let len = ip_len(frame.packet()).ok_or(DropReason::NotIp)?;
        frame.truncate(len);
        Ok(Opened::Packet { peer: index, from })
    }

    /// The responder's session is confirmed: it is the one to send with from now on.
    fn confirm(&mut self, index: PeerIndex) {
        let Some(Some(peer)) = self.peers.get_mut(usize::from(index.0)) else {
            return;
        };
        let lost = peer.confirm_next();
        peer.stop_asking();
        peer.wants.queued = self.queue.has(index);
        if let Some(shaking) = peer.shaking.take() {
            self.indices.remove(shaking.index);
        }
        self.drop_sessions([lost]);
    }

    fn handle_initiation(
        &mut self,
        from: Endpoint,
        bytes: &[u8],
        message: &Initiation,
        now: Instant,
    ) -> Result<Opened, DropReason> {
        let local = self.check_macs(from, bytes, message.sender, now)?;
        let key = self.local(local).ok_or(DropReason::BadMac1)?;
        let named = Named::read(&key.secret, &key.public, message)?;
        let public = named.public;
        let index = self.find_peer(&public, local);
        let peer = index.and_then(|index| self.peer(index));
        let proved = match peer.filter(|peer| peer.local == local) {
            Some(peer) => named.prove(&peer.shared, message)?,
            None => {
                let shared = key.secret.agree(&public);
                named.prove(&shared.map_err(|_| DropReason::WeakKey)?, message)?
            }
        };
        let Some(index) = index else {
            return Ok(Opened::Stranger { public, local });
        };
        let Some(Some(peer)) = self.peers.get_mut(usize::from(index.0)) else {
            return Err(DropReason::BadHandshake);
        };
        if let Some((stamp, when)) = peer.last_stamp {
            if proved.stamp == stamp {
                return peer
                    .respond_again(from, now)
                    .inspect(|_| self.note_ready(index));
            }
            if proved.stamp < stamp {
                return Err(DropReason::StaleInitiation);
            }
            if now.saturating_since(when) < INITIATION_INTERVAL {
                return Err(DropReason::TooOften);
            }
        }
        peer.last_stamp = Some((proved.stamp, now));
        // What has to go for this session gives its index back first, so that those for each
        // peer are always enough.
        if let Some(lost) = peer.clear_next() {
            self.indices.remove(lost.recv.index());
        }
        let sender = self
            .indices
            .draw(index, &mut self.random)
            .ok_or(DropReason::TooOften)?;
        let answer = proved.respond(&peer.preshared, sender, message.sender, &mut self.random);
        let Ok((keys, response)) = answer else {
            self.indices.remove(sender);
            return Err(DropReason::WeakKey);
        };
        let sizes = (self.limits.replay_window, self.limits.mtu_bytes);
        let session = Session::new(&keys, sender, message.sender, false, sizes, now);
        let response = response.encode();
        peer.install_responded(session, response);
        peer.wants.response = Some((from, response));
        peer.note_received(from, bytes.len(), now);
        self.note_ready(index);
        Ok(Opened::Handshake { peer: index, from })
    }

    fn handle_response(
        &mut self,
        from: Endpoint,
        bytes: &[u8],
        message: &Response,
        now: Instant,
    ) -> Result<Opened, DropReason> {
        let _local = self.check_macs(from, bytes, message.sender, now)?;
        let index = self.peer_of(message.receiver)?;
        let Some(Some(peer)) = self.peers.get_mut(usize::from(index.0)) else {
            return Err(DropReason::UnknownReceiver);
        };
        let shaking = peer
            .shaking
            .as_ref()
            .filter(|shaking| shaking.index == message.receiver)
            .ok_or(DropReason::UnknownReceiver)?;
        let key = local_mut(&mut self.locals, shaking.local).ok_or(DropReason::UnknownReceiver)?;
        let secret = &key.secret;
        let keys = shaking.initiator.finish(secret, &peer.preshared, message)?;
        // The handshake's index becomes the session's.
        peer.shaking = None;
        let sizes = (self.limits.replay_window, self.limits.mtu_bytes);
        let session = Session::new(&keys, message.receiver, message.sender, true, sizes, now);
        let lost = peer.install_initiated(session);
        peer.stop_asking();
        peer.note_received(from, bytes.len(), now);
        // The responder may not send before it heard something (section 5.1).
        peer.wants.queued = self.queue.has(index);
        peer.wants.keepalive = true;
        self.drop_sessions(lost);
        self.note_ready(index);
        Ok(Opened::Handshake { peer: index, from })
    }

    fn handle_cookie(&mut self, message: &CookieReply, now: Instant) -> Result<Opened, DropReason> {
        let index = self.peer_of(message.receiver)?;
        let peer = self.peer_mut(index).ok_or(DropReason::UnknownReceiver)?;
        if peer.jar.take(&peer.macs, message, now) {
            // It is used by the next message, whose time the timers know (section 6.6). Who has so much
            // to do gets no copies.
            peer.set(Timer::Repeat, Instant::NEVER);
            Ok(Opened::Nothing)
        } else {
            Err(DropReason::BadCookie)
        }
    }

    /// Decides whether a handshake message is worth computing, and for which of our keys.
    fn check_macs(
        &mut self,
        from: Endpoint,
        bytes: &[u8],
        sender: u32,
        now: Instant,
    ) -> Result<LocalKeyId, DropReason> {
        let mut keys = self.locals.iter().flatten();
        let key = keys
            .find(|key| key.macs.is_for_us(bytes))
            .ok_or(DropReason::BadMac1)?;
        let local = key.id;
        if self.load.is_light(now) {
            return Ok(local);
        }
        if self.cookies.knows(bytes, &from, now) {
            return if self.load.allows(&from, now) {
                Ok(local)
            } else {
                Err(DropReason::TooOften)
            };
        }
        if self.cookie_replies.len() >= usize::from(self.limits.cookie_replies) {
            return Err(DropReason::TooOften);
        }
        let reply = self
            .cookies
            .reply(&key.macs, sender, bytes, &from, &mut self.random, now);
        if let Some(reply) = reply {
            self.cookie_replies.push_back((from, reply.encode()));
        }
        Err(DropReason::UnderLoad)
    }

    fn peer_of(&self, index: u32) -> Result<PeerIndex, DropReason> {
        self.indices.peer(index).ok_or(DropReason::UnknownReceiver)
    }
}

impl<A: Aead> Peer<A> {
    /// The initiation that was answered last came once more: the response was lost, or came later than
    /// the initiator waits. That says nothing of where the peer is, as anybody may repeat what they saw,
    /// and takes nothing from initiations that are new.
    fn respond_again(&mut self, from: Endpoint, now: Instant) -> Result<Opened, DropReason> {
        let waits = |next: &Session<A>| now.saturating_since(next.born) < REKEY_TIMEOUT;
        if !self.next.as_ref().is_some_and(waits) {
            return Err(DropReason::StaleInitiation);
        }
        if now.saturating_since(self.responded.1) < INITIATION_INTERVAL {
            return Err(DropReason::TooOften);
        }
        self.responded.1 = now;
        self.wants.response_again = Some(from);
        Ok(Opened::Nothing)
    }
}

impl From<HandshakeError> for DropReason {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::BadSeal => Self::BadHandshake,
            HandshakeError::WeakKey => Self::WeakKey,
        }
    }
}

impl From<OpenError> for DropReason {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NotOurs => Self::UnknownReceiver,
            OpenError::Expired => Self::Expired,
            OpenError::BadSeal => Self::BadSeal,
        }
    }
}

/// The length that an IP packet says to have, if it has at least that and a whole header.
///
/// Source: RFC 791 section 3.1 (total length), RFC 8200 section 3 (payload length).
fn ip_len(packet: &[u8]) -> Option<usize> {
    const V4_HEADER_BYTES: usize = 20;
    const V6_HEADER_BYTES: usize = 40;
    let field = |at: usize| {
        let bytes = packet.get(at..)?.first_chunk::<2>()?;
        Some(usize::from(u16::from_be_bytes(*bytes)))
    };
    let (len, least) = match packet.first()? >> 4 {
        4 => (field(2)?, V4_HEADER_BYTES),
        6 => (field(4)? + V6_HEADER_BYTES, V6_HEADER_BYTES),
        _ => return None,
    };
    (least..=packet.len()).contains(&len).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ip_packet_is_as_long_as_it_says() {
        let check = |head: &[u8], len: usize, expected| {
            let mut packet = std::vec![0; len];
            packet[..head.len()].copy_from_slice(head);
            assert_eq!(ip_len(&packet), expected, "{head:?} {len}");
        };
        check(&[0x45, 0, 0, 20], 32, Some(20));
        check(&[0x45, 0, 0, 19], 32, None);
        check(&[0x45, 0, 0, 33], 32, None);
        check(&[0x60, 0, 0, 0, 0, 8], 48, Some(48));
        check(&[0x60, 0, 0, 0, 0, 0], 48, Some(40));
        check(&[0x60, 0, 0, 0, 0, 9], 48, None);
        check(&[0x50], 48, None);
        check(&[0x45], 1, None);
        assert_eq!(ip_len(&[]), None);
    }
}
