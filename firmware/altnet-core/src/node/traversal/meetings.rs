//! Meetings: when a node asks a relay for a peer that no direct address leads to, and the relay's side,
//! which tells two clients where each is once both have asked.
//!
//! Two that have no relay in common ask one each; those pass it on to each other ([`crate::relay::meet`]).

use core::net::SocketAddr;

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::NodeId;
use altnet_wire::mesh::MeshNotice;
use altnet_wire::message::{
    Filtering, MAX_PRESENCE_RELAYS, Mapping, Message, Notice, Refusal, Reply, Request,
};
use altnet_wire::record::Roles;
use altnet_wire::time::{Duration, Instant};
use heapless::Vec;

use super::filtering::needs_no_search;
use crate::node::Node;
use crate::node::sessions::Asked;
use crate::path::search::{Ended, Side};
use crate::relay::meet::{Full, Relays, TOGETHER, Wanted, Word};

/// How long ordinary challenges have before a search is asked for.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long after asking to meet it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(4);
/// How soon after another search was under way.
const BUSY: Duration = Duration::from_secs(1);
/// Askings in a row that nobody met, before a pause.
const ASKINGS: u8 = 3;
/// The first pause between two searches with one peer; each next is twice as long.
const PAUSE: Duration = Duration::from_secs(60);
/// The longest.
const PAUSE_MOST: Duration = Duration::from_secs(3600);

/// A peer's part in it.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::node) struct Meeting {
    /// How its NAT maps, as it says.
    pub(in crate::node) mapping: Mapping,
    /// Whom it lets in, as the peer says.
    pub(in crate::node) filtering: Filtering,
    /// When it is next asked for; none before there was a reason.
    pub(super) next: Option<Instant>,
    askings: u8,
    /// Until when a relay's word that it is there is taken.
    pub(super) expected: Instant,
    pause: Duration,
    /// How the last search ended, if one was made and found nothing.
    pub(in crate::node) ended: Option<Ended>,
}

impl<A: Aead> Node<A> {
    /// What this node would do in a search with a peer; nothing if none makes sense.
    ///
    /// Who knows of neither NAT does both: with one relay nobody can tell how a NAT maps.
    pub(super) fn sides(&self, theirs: &Meeting, now: Instant) -> Vec<Side, 2> {
        use Mapping::{EndpointDependent as Dependent, EndpointIndependent as Independent};
        let ours = self.traversal.mapping();
        let is_found = needs_no_search(ours, self.filtering())
            || needs_no_search(theirs.mapping, theirs.filtering);
        let sides: &[Side] = match (ours, theirs.mapping) {
            _ if !self.pace().searches || is_found => &[],
            (Independent, Independent) => &[],
            (Dependent, Dependent) => &[Side::Predicts],
            (Dependent, _) | (_, Independent) => &[Side::Opens],
            (_, Dependent) | (Independent, _) => &[Side::Guesses],
            _ => &[Side::Opens, Side::Guesses],
        };
        let has_quota = now >= self.traversal.quota_until;
        let may = |side: &Side| *side == Side::Guesses || has_quota;
        sides.iter().copied().filter(may).collect()
    }

    /// Asks a relay to meet a peer that no direct address leads to. Returns when to look again.
    pub(in crate::node) fn seek_meeting(&mut self, node: NodeId, now: Instant) -> Instant {
        let Some(peer) = self.peers.get(&node) else {
            return Instant::NEVER;
        };
        if !matches!(peer.path.current(), Some(Endpoint::Relayed { .. })) {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.meeting.next = None;
            }
            return Instant::NEVER;
        }
        let hopeless = self.is_placed(node) || peer.meeting.ended == Some(Ended::Unpredictable);
        let can =
            peer.path.is_sent_to(now) && !hopeless && !self.sides(&peer.meeting, now).is_empty();
        // Of the relays that serve both the one with the least id, which both sides agree on; they
        // may send by different ones. If there is none, our home: it knows where the other is.
        let serves = |relay: &&NodeId| {
            let is_near = self.nearby.relays().any(|near| near == **relay);
            // By way of others there is a session with relays too that this node isn't registered with.
            let link = self.relays.get(*relay).filter(|link| link.token.is_some());
            !is_near && link.is_some_and(|link| link.session.is_some())
        };
        let common = peer.told_relays.iter().filter(serves).min().copied();
        if !can || !self.relays.keys().any(|relay| serves(&relay)) {
            return Instant::NEVER;
        }
        let is_due = peer.meeting.next.is_some_and(|next| next <= now);
        let by = common.or_else(|| {
            let mut homes = is_due.then(|| self.homes())?;
            homes.find(|home| serves(&home))
        });
        let by = by.and_then(|relay| self.relays.get(&relay)?.session);
        let is_free = self.traversal.running.is_none();
        let Some(peer) = self.peers.get_mut(&node) else {
            return Instant::NEVER;
        };
        let next = *peer.meeting.next.get_or_insert(now.after(PATIENCE));
        if next > now {
            return next;
        }
        let Some(session) = by else {
            return Instant::NEVER;
        };
        if !is_free {
            // Another search is under way.
            peer.meeting.next = Some(now.after(BUSY));
            return now.after(BUSY);
        }
        peer.meeting.askings += 1;
        let wait = if peer.meeting.askings >= ASKINGS {
            peer.meeting.next_pause()
        } else {
            ASK_AGAIN
        };
        peer.meeting.next = Some(now.after(wait));
        peer.meeting.expected = now.after(TOGETHER).after(Duration::from_secs(2));
        self.ask(session, &Request::Meet { with: node }, Asked::Meet, now);
        now.after(wait)
    }

    /// Whether one of the two is a relay that says where it is by IPv4, as searches go: whoever doesn't reach it there
    /// is kept from it by something that no search passes.
    fn is_placed(&self, node: NodeId) -> bool {
        let is_relay = |roles: Roles| roles.contains(Roles::RELAY);
        let registry = self.network.as_ref().map(|network| &network.registry);
        let member = registry.and_then(|registry| registry.by_node(&node));
        let theirs = member.filter(|member| is_relay(member.membership.roles));
        let theirs = theirs.and_then(|member| member.node);
        theirs.is_some_and(|record| says_where(&record.fixed_endpoints))
            || (is_relay(self.own_roles()) && says_where(&self.fixed_endpoints()))
    }

    /// A client of this relay wants to meet another, or one of another relay's.
    pub(in crate::node) fn meet_clients(
        &mut self,
        who: NodeId,
        with: NodeId,
        now: Instant,
    ) -> Reply<'static> {
        let Some(address) = self.relay.address(who) else {
            return Reply::Refused(Refusal::NotFound);
        };
        let other = self.relay.address(with);
        let relays = self.mesh.links.relays_of(with);
        let relays: Relays = relays.take(MAX_PRESENCE_RELAYS).collect();
        if other.is_none() && relays.is_empty() {
            return Reply::Refused(Refusal::NotFound);
        }
        let wanted = Wanted { who, address, with };
        match self.traversal.meetings.ask(wanted, other, relays, now) {
            Ok(words) => {
                self.say_words(&words, now);
                Reply::Done
            }
            Err(Full) => Reply::Refused(Refusal::Busy),
        }
    }

    /// Another relay says that a client of its own wants to meet one of this relay's.
    pub(in crate::node) fn meet_anothers_client(
        &mut self,
        by: NodeId,
        wanted: Wanted,
        now: Instant,
    ) {
        // A relay speaks for whom it says it has, and to whom we have.
        let own = self.relay.address(wanted.with);
        if let Some(own) = own.filter(|_| self.mesh.links.is_at(wanted.who, by)) {
            let words = self.traversal.meetings.called(by, wanted, own, now);
            self.say_words(&words, now);
        }
    }

    fn say_words(&mut self, words: &[Word], now: Instant) {
        for word in words {
            let (to, notice) = match *word {
                Word::Meeting { to, with, address } => (to, Notice::Meeting { with, address }),
                Word::Pass {
                    relay,
                    who,
                    address,
                    with,
                } => {
                    let meet = MeshNotice::Meet { who, address, with };
                    (relay, Notice::Mesh(meet))
                }
            };
            if let Some(session) = self.stands(to) {
                self.say(session, &Message::Notice(notice), now);
            }
        }
    }
}

/// Whether any of a node's fixed endpoints is one that a search could have found.
fn says_where(endpoints: &[SocketAddr]) -> bool {
    endpoints.iter().any(SocketAddr::is_ipv4)
}

impl Meeting {
    pub(super) fn next_pause(&mut self) -> Duration {
        self.askings = 0;
        self.pause = if self.pause == Duration::ZERO {
            PAUSE
        } else {
            (self.pause * 2).min(PAUSE_MOST)
        };
        self.pause
    }

    /// Where either side is has changed: it may be searched for at once.
    pub(in crate::node) fn begin_anew(&mut self) {
        self.ended = None;
        self.next = None;
        self.askings = 0;
        self.pause = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_is_placed_by_ipv6_alone_may_be_searched_for() {
        let (v4, v6) = ("203.0.113.1:9", "[2001:db8::1]:9");
        for (all, expected) in [(&[][..], false), (&[v6], false), (&[v6, v4], true)] {
            let all: std::vec::Vec<SocketAddr> = all.iter().map(|at| at.parse().unwrap()).collect();
            assert_eq!(says_where(&all), expected, "{all:?}");
        }
    }
}
