//! What a driver does next.

use core::net::{Ipv6Addr, SocketAddr};

use altnet_tunnel::aead::Aead;
use altnet_tunnel::engine::Output as EngineOutput;
use altnet_wire::derp::PublicKey;
use altnet_wire::endpoint::{Endpoint, PortId};
use altnet_wire::frame::Frame;
use altnet_wire::id::NodeId;
use altnet_wire::time::Instant;

use super::{Event, LinkId, Node, Slot};
use crate::control::{Cargo, SessionId};
use crate::relay::StreamId;

/// What becomes of the packet in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Send the frame's datagram to `to`.
    Send {
        /// Where it goes.
        to: SocketAddr,
        /// From which of our UDP ports.
        port: PortId,
    },
    /// Send the frame's datagram over our stream to a relay, for a node that is there or for the
    /// relay itself.
    ToRelay {
        /// Which relay.
        relay: NodeId,
        /// For whom.
        to: NodeId,
    },
    /// Send the frame's datagram to a client of this relay, over its stream.
    ToClient {
        /// Its stream.
        stream: StreamId,
        /// Who it is from: another client, or this node.
        from: NodeId,
    },
    /// Send the frame's datagram by a DERP server of others ([`Node::wanted_derpers`]).
    ToDerper {
        /// Its place among those that were entered.
        server: usize,
        /// To the client with this key.
        to: PublicKey,
    },
    /// Send the frame's message over our stream to the TURN server ([`Node::wanted_turn`]).
    ToTurn,
    /// Hand the frame's IP packet to our side.
    Deliver,
    /// Hand the frame's IP packet to the app on this device with this address.
    App {
        /// The app.
        app: Ipv6Addr,
    },
    /// The frame's IP packet was refused, and is plain HTTP of a machine on this gateway's LAN from
    /// which nobody is logged in: what answers it in the place of whom it was meant for sends the
    /// browser to the login page. Only if there is [`Node::login_page`].
    LogIn,
    /// Nothing: it was taken.
    Consumed,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Output {
    /// Send the frame's datagram to `to`.
    Send {
        /// Where it goes.
        to: SocketAddr,
        /// From which of our UDP ports; one that wasn't used before is opened for it, at any
        /// number, but for [`PortId::FRAGMENTS`]. What comes there goes to [`Node::handle_wan_at`].
        port: PortId,
    },
    /// Send the frame's datagram over our stream to a relay, as of [`Verdict::ToRelay`].
    ToRelay {
        /// Which relay.
        relay: NodeId,
        /// For whom.
        to: NodeId,
    },
    /// Send the frame's datagram to a client of this relay, as of [`Verdict::ToClient`].
    ToClient {
        /// Its stream.
        stream: StreamId,
        /// Who it is from.
        from: NodeId,
    },
    /// Close a client's stream: nobody said in time whose it is.
    CloseClient {
        /// Its stream.
        stream: StreamId,
    },
    /// Send the frame's datagram by a DERP server of others, as of [`Verdict::ToDerper`].
    ToDerper {
        /// Its place among those that were entered.
        server: usize,
        /// To the client with this key.
        to: PublicKey,
    },
    /// Send the frame's message over our stream to the TURN server, as of [`Verdict::ToTurn`].
    ToTurn,
    /// Close a UDP port: nothing that comes there is wanted any more.
    ClosePort {
        /// Which.
        port: PortId,
    },
    /// Hand the frame's IP packet, which was held for a while, to our side.
    Deliver,
    /// Hand the frame's IP packet, which was held for a while, to the app on this device with this
    /// address.
    App {
        /// The app.
        app: Ipv6Addr,
    },
    /// Write [`Node::state_bytes`] of this slot to disk (none: remove it), sync, then say so
    /// with [`Node::handle_saved`].
    Save {
        /// The slot.
        slot: Slot,
    },
    /// Send the frame's ICMPv6 message (checksum zero) on a LAN link, from its link-local
    /// address, with hop limit 255.
    Advertise {
        /// Which link.
        link: LinkId,
        /// To whom.
        to: Ipv6Addr,
    },
    /// Take note of a fact.
    Tell(Event),
    /// Sleep until something comes in, or until this moment; then
    /// [`Node::handle_timeout`].
    Wait(Instant),
}

impl<A: Aead> Node<A> {
    /// The next thing to do. Drained after every input until it says [`Output::Wait`].
    ///
    /// `frame` is room for a datagram; what it held is lost.
    pub fn poll_output(&mut self, frame: &mut Frame<'_>, now: Instant) -> Output {
        loop {
            // Nothing else may be cut before these are gone.
            if let Some(output) = self.poll_pieces(frame, now) {
                return output;
            }
            if let Some(slot) = self.saves.poll() {
                return Output::Save { slot };
            }
            if let Some(event) = self.events.pop_front() {
                return Output::Tell(event);
            }
            if let Some(output) = self.poll_links(frame, now) {
                return output;
            }
            if let Some(output) = self.poll_traversal(frame) {
                return output;
            }
            if let Some(output) = self.poll_keeps(frame, now) {
                return output;
            }
            if let Some(output) = self.poll_guests(now) {
                return output;
            }
            if let Some(output) = self.poll_turn(frame, now) {
                return output;
            }
            if let Some(output) = self.poll_bench(frame, now) {
                return output;
            }
            if let Some(event) = self.control.poll_event() {
                self.handle_control_event(event, now);
                continue;
            }
            match self.poll_held(frame, now) {
                Some(Some(Verdict::Deliver)) => return Output::Deliver,
                Some(Some(Verdict::App { app })) => return Output::App { app },
                Some(_) => continue,
                None => {}
            }
            if let Some(to) = self.control.poll_transmit(frame, now) {
                if self.takes_challenge(to, frame) {
                    continue;
                }
                let (cargo, whose) = (self.control.cargo(), self.control.whose());
                if let Some(output) = self.sent_to(to, cargo, whose, frame, now) {
                    return output;
                }
                continue;
            }
            match self.engine.poll_output(frame, now) {
                EngineOutput::Transmit { to } => {
                    if let Some(output) = self.sent_to(to, Cargo::Usual, None, frame, now) {
                        return output;
                    }
                }
                EngineOutput::Event(event) => self.handle_tunnel_event(event, now),
                EngineOutput::Wait(tunnels) => {
                    if self.timers.due(now) {
                        self.housekeep(now);
                        continue;
                    }
                    let deadline = tunnels
                        .min(self.control.deadline())
                        .min(self.timers.deadline())
                        .min(self.keeps_deadline())
                        .min(self.guests_deadline())
                        .min(self.bench_deadline())
                        .min(self.traversal.deadline())
                        .min(self.turn.deadline())
                        .min(self.links_deadline());
                    return Output::Wait(deadline);
                }
            }
        }
    }

    /// What to do with a datagram for an endpoint, if there is a way. Of control, `session` is whose it is.
    pub(super) fn sent_to(
        &mut self,
        to: Endpoint,
        cargo: Cargo,
        session: Option<SessionId>,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Option<Output> {
        match self.direct_any(to, cargo, session, frame, now) {
            Ok(Verdict::Send { to, port }) => Some(Output::Send { to, port }),
            Ok(Verdict::ToRelay { relay, to }) => Some(Output::ToRelay { relay, to }),
            Ok(Verdict::ToClient { stream, from }) => Some(Output::ToClient { stream, from }),
            Ok(Verdict::ToTurn) => Some(Output::ToTurn),
            Ok(Verdict::ToDerper { server, to }) => Some(Output::ToDerper { server, to }),
            // Nothing else comes of an endpoint.
            Ok(_) => None,
            Err(reason) => {
                self.counters.drop(reason);
                None
            }
        }
    }
}
