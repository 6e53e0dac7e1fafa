//! How busy relays are: said by this one to its clients, and heard from those that this one uses (ADR 0018).

use altnet_tunnel::aead::Aead;
use altnet_wire::id::NodeId;
use altnet_wire::mesh::MeshNotice;
use altnet_wire::message::{Message, Notice};
use altnet_wire::time::{Duration, Instant};

use super::relays::RelayLink;
use super::sessions::Standing;
use super::{DropReason, Event, Node};
use crate::relay::{Parcel, Quotas};

/// A load that is another by less is not told.
const SAME: u8 = 20;
/// A relay as busy as that is left for another.
pub(super) const BUSY: u8 = 90;
/// How often at most clients are told.
const PAUSE: Duration = Duration::from_secs(10);
/// How often that doubles while nothing changes: clients that rest are not to be woken for it.
const DOUBLINGS: u8 = 6;
/// How long a relay that was too busy comes last.
const REST: Duration = Duration::from_secs(600);
/// The longest time for which a relay is believed that it forwards nothing.
const REFUSED_MOST: Duration = Duration::from_secs(3600);

/// What this relay told its clients last of how busy it is.
#[derive(Debug, Default)]
pub(super) struct Load {
    told: u8,
    at: Instant,
    /// How often the same was told.
    again: u8,
}

impl RelayLink {
    /// Whether it forwards nothing of ours for a while: we sent as much as we may.
    pub(super) fn refuses(&self, now: Instant) -> bool {
        self.refused_until > now
    }
}

impl<A: Aead> Node<A> {
    /// Bounds what this node forwards as a relay, from now on.
    pub const fn set_quotas(&mut self, quotas: Quotas) {
        self.relay.set_quotas(quotas);
    }

    /// Counts what a client, or another relay, wants forwarded.
    pub(super) fn charge(
        &mut self,
        node: NodeId,
        parcel: Parcel,
        now: Instant,
    ) -> Result<(), DropReason> {
        let links = &self.mesh.links;
        let spent = self
            .relay
            .spend(node, parcel, &|node| links.is_linked(node), now);
        spent.map_err(|(_, warns)| {
            if warns {
                let refused = self.relay.month_left(now);
                let refused_s = u32::try_from(refused.as_secs()).unwrap_or(u32::MAX);
                self.say_load(node, refused_s.max(1), now);
            }
            DropReason::RelayOver
        })
    }

    /// Tells clients how busy this relay is, if that is new to them. Returns when to look again.
    pub(super) fn tend_load(&mut self, now: Instant) -> Instant {
        if self.relay_node().is_none() || self.relay.is_empty() {
            return Instant::NEVER;
        }
        let percent = self.relay.load(now);
        let is_same = percent.abs_diff(self.load.told) < SAME
            && (percent >= BUSY) == (self.load.told >= BUSY);
        if is_same && percent < BUSY {
            // Nobody is told, and nobody needs to look before something is forwarded.
            let is_idle = percent == 0 || self.relay.quotas().uplink_bytes_per_s == 0;
            return if is_idle {
                Instant::NEVER
            } else {
                now.after(PAUSE)
            };
        }
        let again = if is_same { self.load.again } else { 0 };
        let pause = PAUSE * (1 << again.min(DOUBLINGS));
        let due = self.load.at.after(pause);
        if self.load.at > Instant::ZERO && due > now {
            return due;
        }
        self.load = Load {
            told: percent,
            at: now,
            again: again.saturating_add(1),
        };
        let clients: alloc::vec::Vec<NodeId> = self.relay.clients().collect();
        for client in clients {
            self.say_load(client, 0, now);
        }
        now.after(PAUSE)
    }

    /// A client has registered: it is told if this relay is busy.
    pub(super) fn say_load_to_new(&mut self, client: NodeId, now: Instant) {
        if self.load.told >= SAME {
            self.say_load(client, 0, now);
        }
    }

    fn say_load(&mut self, client: NodeId, refused_s: u32, now: Instant) {
        let mut sessions = self.sessions.iter();
        let theirs = sessions.find(|(_, s)| s.greeted && s.standing == Standing::Member(client));
        let Some(session) = theirs.map(|(session, _)| *session) else {
            return;
        };
        let percent = self.load.told;
        let notice = MeshNotice::Load { percent, refused_s };
        self.say(session, &Message::Notice(Notice::Mesh(notice)), now);
    }

    /// A relay says how busy it is, or that it forwards nothing more for this node.
    pub(super) fn handle_load(&mut self, relay: NodeId, percent: u8, refused_s: u32, now: Instant) {
        // Of those that are told at once a half goes at a time.
        let goes = self.rng.next_u64() & 1 == 0;
        let home = self.homes().next();
        let Some(link) = self.relays.get_mut(&relay) else {
            return;
        };
        link.load = percent.min(100);
        let did_rest = link.rests_until > now;
        if refused_s > 0 {
            let refused = Duration::from_secs(refused_s.into()).min(REFUSED_MOST);
            link.refused_until = now.after(refused);
            link.rests_until = link.rests_until.max(link.refused_until);
        } else if percent >= BUSY && goes {
            link.rests_until = link.rests_until.max(now.after(REST));
        }
        let leaves = link.rests_until > now && !did_rest;
        if leaves {
            for peer in self.peers.values_mut() {
                peer.path.leave(relay);
            }
        }
        self.relays_changed(now);
        let next = self.homes().next();
        if let Some(next) = next.filter(|_| next != home) {
            self.tell(Event::HomeRelay { relay: next });
            self.presence_changed(now);
        }
        self.timers.housekeeping_at(now);
    }
}
