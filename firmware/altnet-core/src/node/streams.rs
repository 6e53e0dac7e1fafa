//! Relaying over a stream where no UDP passes: both sides, as far as they are decided here.
//!
//! A driver that is asked to ([`Node::wanted_streams`]) connects to a relay by TLS and carries
//! datagrams for nodes there, and what comes for this one. What the stream is made of is the
//! driver's: here it is a way along which a relay can be reached, and a client of a relay. Who a
//! client is shows in the control session that it begins over the stream, like any member's; until
//! it has registered it reaches the relay itself and nobody else.

use core::net::SocketAddr;

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::frame::Frame;
use altnet_wire::id::NodeId;
use altnet_wire::time::{Duration, Instant};

use super::door::is_door;
use super::peers::RETRY;
use super::{DropReason, Node, Output, Verdict};
use crate::control::CloseReason;
use crate::path::Change;
use crate::relay::{Parcel, RelayFull, StreamId};

/// How long a relay may be out of reach by UDP before a stream to it is wanted.
pub(super) const WITHOUT_UDP: Duration = Duration::from_secs(2);
/// How long UDP has to carry again before the stream is let go.
const WITH_UDP: Duration = Duration::from_secs(60);

/// What a node id begins with that stands for a client of whom nothing else is known yet. No node
/// has a multicast address.
const GUEST: [u8; 12] = *b"\xff\x02stream....";

/// A relay that a stream is wanted to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedStream {
    /// Which relay.
    pub relay: NodeId,
    /// Where it is, by UDP; a stream goes to the same addresses.
    pub addresses: heapless::Vec<SocketAddr, { altnet_wire::record::MAX_FIXED_ENDPOINTS }>,
}

/// How long each carrier of a relay's has been up or away.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Carriers {
    /// Whether a stream leads there.
    pub(super) stream: bool,
    /// Whether the registration is over the stream.
    pub(super) by_stream: bool,
    /// Since when this is so.
    pub(super) since: Instant,
}

impl Carriers {
    fn wants_stream(&self, is_up: bool, now: Instant) -> bool {
        let for_long = now.saturating_since(self.since);
        match (is_up, self.by_stream) {
            (false, _) => for_long >= WITHOUT_UDP,
            (true, true) => true,
            (true, false) => self.stream && for_long < WITH_UDP,
        }
    }
}

/// The endpoint of a client of whom nothing else is known yet.
fn guest(stream: StreamId) -> NodeId {
    let mut id = [0; 16];
    let (label, number) = id.split_at_mut(GUEST.len());
    label.copy_from_slice(&GUEST);
    number.copy_from_slice(&stream.0.to_be_bytes());
    NodeId(id)
}

/// The stream that such an endpoint stands for.
pub(super) fn stream_of(node: NodeId) -> Option<StreamId> {
    let number = node.0.strip_prefix(&GUEST)?;
    Some(StreamId(u32::from_be_bytes(number.try_into().ok()?)))
}

/// Whether a session is with a client of ours that has yet to register over its stream: by another relay it
/// could not.
pub(super) fn is_guests(at: Option<Endpoint>, to: Endpoint) -> bool {
    let is_guest = |end| matches!(end, Endpoint::Relayed { node, .. } if stream_of(node).is_some());
    at.is_some_and(is_guest) && to.direct().is_none()
}

impl<A: Aead> Node<A> {
    /// The relays that streams are wanted to at `now`. A driver compares them with those it has
    /// whenever it has drained the outputs, and tries again those that it hasn't.
    pub fn wanted_streams(&self, now: Instant) -> impl Iterator<Item = WantedStream> {
        let wanted = self.relays.iter().filter(move |(_, link)| {
            let carriers = &link.carriers;
            carriers.wants_stream(link.token.is_some(), now)
        });
        let wanted = wanted.filter_map(|(relay, _)| {
            let record = self.record_of(*relay)?;
            let addresses = record.fixed_endpoints.iter();
            Some(WantedStream {
                relay: *relay,
                addresses: addresses.map(|to| self.traversal.outward(*to)).collect(),
            })
        });
        wanted.chain(self.wanted_door(now))
    }

    /// When a stream may be wanted that isn't yet.
    pub(super) fn streams_deadline(&self, now: Instant) -> Instant {
        let soon = self.relays.values().map(|link| match link.token {
            None => link.carriers.since.after(WITHOUT_UDP),
            Some(_) => link.carriers.since.after(WITH_UDP),
        });
        soon.filter(|at| *at > now).min().unwrap_or(Instant::NEVER)
    }

    /// A stream to a relay stands, or has ended.
    pub fn handle_stream(&mut self, relay: NodeId, is_up: bool, now: Instant) {
        if is_door(relay) {
            return self.handle_door(relay, is_up, now);
        }
        let Some(link) = self.relays.get_mut(&relay) else {
            return;
        };
        if link.carriers.stream == is_up {
            return;
        }
        link.carriers.stream = is_up;
        if !is_up && link.carriers.by_stream {
            self.relay_lost(relay, now);
        }
        self.relays_changed(now);
        let session = self.stands(relay);
        let is_direct = session
            .and_then(|session| self.control.endpoint(session))
            .is_some_and(|at| at.direct().is_some());
        if is_up && !is_direct {
            // A call that no UDP carries is made over the stream, at once; so is one that another
            // relay carries, whom this one doesn't register by.
            match session {
                Some(session) => self.end_session(session, CloseReason::Done, now),
                None => {
                    let call = self
                        .peers
                        .get_mut(&relay)
                        .and_then(|peer| peer.session.take());
                    if let Some(call) = call {
                        self.control.close(call, CloseReason::Done, now);
                    }
                }
            }
            if let Some(peer) = self.peers.get_mut(&relay) {
                // What answered by UDP before doesn't now: else there would be no stream.
                peer.path.doubt(now);
                peer.retry_at = now;
                peer.retry = RETRY;
            }
            self.follow_path(relay, now);
        }
        self.timers.housekeeping_at(now);
    }

    /// No UDP leads to a relay any more, and its own stream does: it is called there. In a session
    /// that began by UDP it would go on answering by UDP.
    pub(super) fn call_over_stream(&mut self, node: NodeId, change: Change, now: Instant) {
        let is_direct = |end: Option<Endpoint>| end.is_some_and(|end| end.direct().is_some());
        let by_itself = Endpoint::Relayed { relay: node, node };
        if !is_direct(change.from) || change.to != Some(by_itself) {
            return;
        }
        if let Some(session) = self.stands(node) {
            self.end_session(session, CloseReason::Done, now);
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.retry_at = now;
            peer.retry = RETRY;
        }
    }

    /// Takes a datagram that came over the stream to `relay`, from `from` as the relay says.
    ///
    /// # Errors
    /// As of [`Node::handle_wan`].
    pub fn handle_streamed(
        &mut self,
        relay: NodeId,
        from: NodeId,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let has_stream = self
            .relays
            .get(&relay)
            .is_some_and(|link| link.carriers.stream);
        let node = from;
        let result = match frame.packet().first() {
            // A relayed header inside could make a loop of relays.
            None | Some(0x10..=0x1f) => Err(DropReason::NotOurs),
            Some(_) if is_door(relay) => self
                .door_endpoint(relay)
                .and_then(|from| self.handle_datagram(from, frame, now)),
            Some(_) if !has_stream => Err(DropReason::RelayUnknown),
            Some(_) => self.handle_datagram(Endpoint::Relayed { relay, node }, frame, now),
        };
        self.note_datagram(result)
    }

    /// Takes a datagram for `to` that a client of this relay sent over its stream.
    ///
    /// # Errors
    /// As of [`Node::handle_wan`].
    pub fn handle_client(
        &mut self,
        stream: StreamId,
        to: NodeId,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let result = self.take_from_client(stream, to, frame, now);
        self.note_datagram(result)
    }

    fn take_from_client(
        &mut self,
        stream: StreamId,
        to: NodeId,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        if matches!(frame.packet().first(), None | Some(0x10..=0x1f)) {
            return Err(DropReason::NotOurs);
        }
        let own = self.relay_node().ok_or(DropReason::RelayToken)?;
        let sender = self.relay.streamer(stream, now);
        if to == own || is_door(to) {
            let node = sender.unwrap_or_else(|| guest(stream));
            let from = Endpoint::Relayed { relay: own, node };
            return self.handle_datagram(from, frame, now);
        }
        // Who has just come back by UDP may not know it yet.
        let sender = self.relay.sends_over(stream, now);
        let sender = sender.ok_or(DropReason::RelayToken)?;
        self.charge(sender, Parcel::of(frame.packet()), now)?;
        self.pass_on(sender, to, frame, now)
    }

    /// A client's stream stands, of which nobody knows yet whose it is. It is closed unless a member
    /// registers over it in good time ([`crate::relay::guests::PATIENCE`]).
    ///
    /// # Errors
    /// [`RelayFull`]: it is to be closed at once.
    pub fn handle_stream_opened(
        &mut self,
        stream: StreamId,
        now: Instant,
    ) -> Result<(), RelayFull> {
        self.guests.came(stream, now)
    }

    /// A client's stream has ended.
    pub fn handle_stream_closed(&mut self, stream: StreamId) {
        self.guests.gone(stream);
        self.relay.stream_closed(stream);
        self.mesh_clients_changed();
    }

    /// The next stream of a client's to close.
    pub(super) fn poll_guests(&mut self, now: Instant) -> Option<Output> {
        let relay = &self.relay;
        let is_known = |stream| relay.streamer(stream, now).is_some();
        let stream = self.guests.poll(is_known, now)?;
        Some(Output::CloseClient { stream })
    }

    /// When [`Node::poll_guests`] next has something to say.
    pub(super) fn guests_deadline(&self) -> Instant {
        self.guests.deadline()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_told_from_every_node() {
        let stream = StreamId(0x0102_0304);
        assert_eq!(stream_of(guest(stream)), Some(stream));
        assert_eq!(stream_of(NodeId([0xfd; 16])), None);
    }

    #[test]
    fn a_stream_is_wanted_while_udp_is_away_and_a_while_after() {
        let at = |s: u64| Instant::from_micros(s * 1_000_000);
        let mut carriers = Carriers::default();
        assert!(!carriers.wants_stream(false, at(1)));
        assert!(carriers.wants_stream(false, at(2)));
        carriers.stream = true;
        carriers.by_stream = true;
        assert!(carriers.wants_stream(true, at(500)));
        carriers.by_stream = false;
        carriers.since = at(500);
        assert!(carriers.wants_stream(true, at(559)) && !carriers.wants_stream(true, at(560)));
        carriers.stream = false;
        assert!(!carriers.wants_stream(true, at(501)));
    }
}
