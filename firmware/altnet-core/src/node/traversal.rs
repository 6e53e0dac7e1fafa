//! Ways through NATs that map endpoint-dependently: how this node's NAT maps, meetings by a relay,
//! and the search ([`crate::path::search`]) with what it sends.
//!
//! A search begins when both sides asked a relay that serves both to meet: it tells each where the
//! other is, as it sees it at that moment ([`Notice::Meeting`]). So no member can have another
//! knock at a stranger's ports: the address is the relay's word, has to be one that the peer itself
//! told, and both have to want it. One search at a time, its packets counted, and pauses between
//! two with one peer that double.
//!
//! What goes to many places at once is one sealed challenge: whichever copy arrives first is
//! answered, the others are replays. Whoever is heard at a further port from then on is sent to from
//! that port.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::{Endpoint, PortId};
use altnet_wire::frame::Frame;
use altnet_wire::id::NodeId;
use altnet_wire::message::{MEETING_S, Mapping, Message, Notice, Refusal, Reply, Request};
use altnet_wire::stun::write::Writer;
use altnet_wire::stun::{self, Class, Method, TransactionId};
use altnet_wire::time::{Duration, Instant};
use heapless::Vec;

use super::sessions::Asked;
use super::{Event, Node, Output};
use crate::path::search::{Ended, MAX_PORTS, Run, Search, Side, Step};

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
/// How long no ports are opened after a NAT gave no more.
const QUOTA_PAUSE: Duration = Duration::from_secs(3600);
/// How long a further port is kept that leads nowhere any more.
const KEEP: Duration = Duration::from_secs(30);
/// How long what others said of how they see this node counts.
const SEEN_LIFE: Duration = Duration::from_secs(60);
/// Who says how they see this node.
const OBSERVERS: usize = 8;
/// Ports of one search, those of the ones before that lead somewhere not counted.
const BLOCK: u16 = 512;
/// Blocks of ports that take turns.
const BLOCKS: u16 = 16;
/// Ways that lead through further ports at a time.
const BOUND: usize = 8;
/// Copies of one challenge.
const COPIES: usize = 32;
/// Bytes of a sealed challenge at most.
const CHALLENGE_BYTES: usize = 192;
/// Questions to relays without an answer at a time.
const ASKS: usize = 8;
/// Clients that wait for each other at a relay.
const MEETINGS: usize = 256;
/// A question that an answer to is no larger than (RFC 8489 section 5: the header; 12 or 24 bytes
/// of address).
const ASK_BYTES: usize = 64;

/// How somebody sees this node's main port.
#[derive(Clone, Copy, Debug)]
struct Seen {
    by: IpAddr,
    address: SocketAddr,
    at: Instant,
}

/// A peer that is reached through a further port.
#[derive(Clone, Copy, Debug)]
struct Bound {
    peer: SocketAddr,
    port: PortId,
    alive: Instant,
}

/// A client of this relay that wants to meet another.
#[derive(Clone, Copy, Debug)]
struct Wish {
    who: NodeId,
    with: NodeId,
    ends: Instant,
}

/// A search, and what it is about to send.
#[derive(Debug)]
struct Running {
    node: NodeId,
    /// Where the relay sees the peer.
    peer: SocketAddr,
    /// One, or both sides of one where nobody knows yet how either NAT maps.
    searches: Vec<Search, 2>,
    relay: SocketAddr,
    next: Instant,
    /// A sealed challenge, and where copies of it go.
    challenge: Vec<u8, CHALLENGE_BYTES>,
    copies: Vec<(SocketAddr, PortId), COPIES>,
    asks: Vec<(TransactionId, PortId), ASKS>,
    unsent: Vec<(TransactionId, PortId), ASKS>,
    tell: Option<Run>,
}

/// What this node knows of its NATs, and does about them.
#[derive(Debug, Default)]
pub(super) struct Traversal {
    seen: Vec<Seen, OBSERVERS>,
    told: Mapping,
    running: Option<Running>,
    bound: Vec<Bound, BOUND>,
    open: Vec<PortId, { MAX_PORTS as usize + BOUND }>,
    closing: Vec<PortId, { MAX_PORTS as usize + BOUND }>,
    block: u16,
    quota_until: Instant,
    wishes: Vec<Wish, MEETINGS>,
    pref64: Option<Ipv6Addr>,
}

/// A peer's part in it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meeting {
    /// How its NAT maps, as it says.
    pub(super) mapping: Mapping,
    /// When it is next asked for; none before there was a reason.
    next: Option<Instant>,
    askings: u8,
    /// Until when a relay's word that it is there is taken.
    expected: Instant,
    pause: Duration,
    /// How the last search ended, if one was made and found nothing.
    pub(super) ended: Option<Ended>,
}

impl Traversal {
    /// The port from which what goes to `to` is sent.
    pub(super) fn port_to(&self, to: SocketAddr) -> PortId {
        let bound = self.bound.iter().find(|bound| bound.peer == to);
        bound.map_or(PortId::MAIN, |bound| bound.port)
    }

    /// An address as the driver writes it: IPv4 through a NAT64, where there is no other way.
    pub(super) fn outward(&self, to: SocketAddr) -> SocketAddr {
        match (self.pref64, to) {
            (Some(prefix), SocketAddr::V4(v4)) => {
                let bits = prefix.to_bits() | u128::from(v4.ip().to_bits());
                SocketAddr::new(Ipv6Addr::from_bits(bits).into(), v4.port())
            }
            _ => to,
        }
    }

    /// The address that a NAT64 stands for.
    pub(super) fn inward(&self, from: SocketAddr) -> SocketAddr {
        const LOW: u128 = u32::MAX as u128;
        match (self.pref64, from) {
            (Some(prefix), SocketAddr::V6(v6)) if v6.ip().to_bits() & !LOW == prefix.to_bits() => {
                let low = u32::try_from(v6.ip().to_bits() & LOW).unwrap_or_default();
                SocketAddr::new(Ipv4Addr::from_bits(low).into(), v6.port())
            }
            _ => from,
        }
    }

    pub(super) fn is_open(&self, port: PortId) -> bool {
        port == PortId::MAIN || self.open.contains(&port)
    }

    /// On what this node's mapping depends: whether two see it alike that aren't one.
    pub(super) fn mapping(&self) -> Mapping {
        let mut mapping = Mapping::Unknown;
        for (place, one) in self.seen.iter().enumerate() {
            let others = self.seen.get(place + 1..).unwrap_or(&[]);
            let is_comparable = |other: &&Seen| {
                other.by != one.by && other.address.is_ipv4() == one.address.is_ipv4()
            };
            for other in others.iter().filter(is_comparable) {
                if other.address != one.address {
                    return Mapping::EndpointDependent;
                }
                mapping = Mapping::EndpointIndependent;
            }
        }
        mapping
    }

    pub(super) fn deadline(&self) -> Instant {
        self.running.as_ref().map_or(Instant::NEVER, |run| run.next)
    }

    fn open_port(&mut self, port: PortId) {
        if !self.is_open(port) {
            let _ = self.open.push(port);
        }
    }

    fn close(&mut self, keep: impl Fn(PortId) -> bool) {
        let closing = &mut self.closing;
        self.open.retain(|port| {
            let keeps = keep(*port);
            if !keeps {
                let _ = closing.push(*port);
            }
            keeps
        });
    }
}

impl<A: Aead> Node<A> {
    /// The prefix by which a NAT64 on the way translates to IPv4 (RFC 6052; found by RFC 7050 or
    /// RFC 8781), of 96 bits; none while this machine has IPv4 of its own.
    pub fn handle_pref64(&mut self, prefix: Option<Ipv6Addr>, now: Instant) {
        if self.traversal.pref64 == prefix {
            return;
        }
        self.traversal.pref64 = prefix;
        for peer in self.peers.values_mut() {
            peer.path.doubt(now);
        }
        self.timers.housekeeping_at(now);
    }

    /// On what the mapping of the NAT before this node depends, as far as others showed.
    pub fn mapping(&self) -> Mapping {
        self.traversal.mapping()
    }

    /// Somebody at `by` sees this node's main port as `address`.
    pub(super) fn seen_as(&mut self, by: IpAddr, address: SocketAddr, now: Instant) {
        let seen = &mut self.traversal.seen;
        // What was seen before the address changed is no longer comparable.
        let moved = seen.iter().any(|s| s.by == by && s.address != address);
        seen.retain(|s| s.by != by && now.saturating_since(s.at) < SEEN_LIFE && !moved);
        if seen.is_full() {
            seen.remove(0);
        }
        let at = now;
        let _ = seen.push(Seen { by, address, at });
        if moved {
            // The others are asked at once.
            for link in self
                .relays
                .values_mut()
                .filter(|link| link.observed != Some(address))
            {
                link.renew = link.renew.min(now);
            }
            self.timers.housekeeping_at(now);
        }
        let mapping = self.traversal.mapping();
        if mapping != self.traversal.told {
            self.traversal.told = mapping;
            for peer in self.peers.values_mut() {
                peer.meeting.begin_anew();
            }
            self.tell(Event::Mapping { mapping });
            self.tell_mapping(now);
        }
    }

    /// Says to every peer with a session how this node's NAT maps.
    fn tell_mapping(&mut self, now: Instant) {
        let mut last = None;
        while let Some(node) = self.peer_after(last) {
            last = Some(node);
            self.tell_mapping_to(node, now);
        }
    }

    /// Says so to a peer, if there is something to say.
    pub(super) fn tell_mapping_to(&mut self, node: NodeId, now: Instant) {
        let mapping = self.traversal.mapping();
        let Some(session) = self.stands(node).filter(|_| mapping != Mapping::Unknown) else {
            return;
        };
        if self.sessions.get(&session).is_some_and(|s| s.greeted) {
            self.say(session, &Message::Notice(Notice::Nat { mapping }), now);
        }
    }

    pub(super) fn peer_maps(&mut self, node: NodeId, mapping: Mapping, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&node) {
            if peer.meeting.mapping != mapping {
                peer.meeting.ended = None;
            }
            peer.meeting.mapping = mapping;
            self.timers.housekeeping_at(now);
        }
    }

    /// What this node would do in a search with a peer; nothing if none makes sense.
    ///
    /// Who knows of neither NAT does both: with one relay nobody can tell how a NAT maps.
    fn sides(&self, theirs: Mapping, now: Instant) -> Vec<Side, 2> {
        use Mapping::{EndpointDependent as Dependent, EndpointIndependent as Independent};
        let sides: &[Side] = match (self.traversal.mapping(), theirs) {
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
    pub(super) fn seek_meeting(&mut self, node: NodeId, now: Instant) -> Instant {
        let Some(peer) = self.peers.get(&node) else {
            return Instant::NEVER;
        };
        if !matches!(peer.path.current(), Some(Endpoint::Relayed { .. })) {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.meeting.next = None;
            }
            return Instant::NEVER;
        }
        let hopeless = peer.meeting.ended == Some(Ended::Unpredictable);
        let can = peer.path.is_sent_to(now)
            && !hopeless
            && !self.sides(peer.meeting.mapping, now).is_empty();
        // Of the relays that serve both the one with the least id, which both sides agree on; they
        // may send by different ones.
        let serves = |relay: &&NodeId| self.relays.get(*relay).is_some_and(|l| l.session.is_some());
        let common = peer.told_relays.iter().filter(serves).min();
        let by = common.and_then(|relay| self.relays.get(relay)?.session);
        let is_free = self.traversal.running.is_none();
        let Some(peer) = self.peers.get_mut(&node) else {
            return Instant::NEVER;
        };
        let (Some(session), true) = (by, can) else {
            return Instant::NEVER;
        };
        let next = *peer.meeting.next.get_or_insert(now.after(PATIENCE));
        if next > now {
            return next;
        }
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
        peer.meeting.expected = now.after(Duration::from_secs(u64::from(MEETING_S) + 2));
        self.ask(session, &Request::Meet { with: node }, Asked::Meet, now);
        now.after(wait)
    }

    /// A client of this relay wants to meet another.
    pub(super) fn meet_clients(
        &mut self,
        who: NodeId,
        with: NodeId,
        now: Instant,
    ) -> Reply<'static> {
        let (Some(own), Some(other)) = (self.relay.address(who), self.relay.address(with)) else {
            return Reply::Refused(Refusal::NotFound);
        };
        let wishes = &mut self.traversal.wishes;
        wishes.retain(|wish| wish.ends > now && (wish.who, wish.with) != (who, with));
        let is_other = |wish: &Wish| (wish.who, wish.with) == (with, who);
        let Some(place) = wishes.iter().position(is_other) else {
            // Room for one who has few: nobody crowds out the others.
            let held = wishes.iter().filter(|wish| wish.who == who).count();
            let ends = now.after(Duration::from_secs(MEETING_S.into()));
            if held >= BOUND || wishes.push(Wish { who, with, ends }).is_err() {
                return Reply::Refused(Refusal::Busy);
            }
            return Reply::Done;
        };
        wishes.swap_remove(place);
        for (to, with, address) in [(with, who, own), (who, with, other)] {
            if let Some(session) = self.stands(to) {
                let notice = Notice::Meeting { with, address };
                self.say(session, &Message::Notice(notice), now);
            }
        }
        Reply::Done
    }

    /// A relay says where a peer is that wants to meet this node too.
    pub(super) fn handle_meeting(
        &mut self,
        relay: NodeId,
        with: NodeId,
        address: SocketAddr,
        now: Instant,
    ) {
        let Some(relay) = self.relays.get(&relay).and_then(|link| link.address) else {
            return;
        };
        let Some(peer) = self.peers.get(&with) else {
            return;
        };
        let is_expected = peer.meeting.expected > now && self.traversal.running.is_none();
        let is_relayed = matches!(peer.path.current(), Some(Endpoint::Relayed { .. }));
        if !is_expected || !is_relayed || !peer.path.is_told_at(address.ip()) {
            return;
        }
        let sides = self.sides(peer.meeting.mapping, now);
        let traversal = &mut self.traversal;
        let in_use = |block: u16| traversal.bound.iter().any(|b| b.port.0 / BLOCK == block);
        let mut blocks = (1..=BLOCKS).map(|n| (traversal.block + n) % BLOCKS + 1);
        let Some(block) = blocks.find(|block| !in_use(*block)) else {
            return;
        };
        traversal.block = block;
        let chance = self.rng.next_u64();
        let begin = |side| Search::new(side, address, block * BLOCK, chance, now);
        let searches: Vec<Search, 2> = sides.into_iter().map(begin).collect();
        if searches.is_empty() {
            return;
        }
        self.traversal.running = Some(Running {
            node: with,
            peer: address,
            searches,
            relay,
            next: now,
            challenge: Vec::new(),
            copies: Vec::new(),
            asks: Vec::new(),
            unsent: Vec::new(),
            tell: None,
        });
        if let Some(peer) = self.peers.get_mut(&with) {
            let pause = peer.meeting.next_pause();
            peer.meeting.next = Some(now.after(pause));
            peer.meeting.ended = None;
        }
        self.tend_search(now);
    }

    /// A peer that looks for one of this node's ports, or whose ports this node looks for, says how
    /// its NAT goes on.
    pub(super) fn peer_goes_on(&mut self, node: NodeId, run: Run) {
        if let Some(running) = &mut self.traversal.running
            && running.node == node
        {
            for search in &mut running.searches {
                search.peer_goes_on(run);
            }
        }
    }

    /// Does what the search has to do now.
    pub(super) fn tend_search(&mut self, now: Instant) {
        let Some(mut running) = self.traversal.running.take_if(|run| run.next <= now) else {
            return;
        };
        let node = running.node;
        let path = self.peers.get(&node).map(|peer| peer.path.current());
        let is_relayed = matches!(path, Some(Some(Endpoint::Relayed { .. })));
        let Some(session) = self.stands(node).filter(|_| is_relayed) else {
            // Found, or gone.
            self.end_search(node, None);
            return;
        };
        if !running.copies.is_empty() {
            // Not sent yet: the driver is slower than time.
            running.next = now.after(Duration::from_millis(20));
            self.traversal.running = Some(running);
            return;
        }
        running.next = Instant::NEVER;
        let mut ended = None;
        running.searches.retain_mut(|search| {
            let left = loop {
                if running.copies.is_full() {
                    break Ok(now);
                }
                match search.poll(now) {
                    Step::Send { to, port } => {
                        self.traversal.open_port(port);
                        let _ = running.copies.push((to, port));
                    }
                    Step::Ask { port } => {
                        self.traversal.open_port(port);
                        let ask = (TransactionId(self.rng.array()), port);
                        if running.asks.is_full() {
                            running.asks.remove(0);
                        }
                        let _ = running.asks.push(ask);
                        let _ = running.unsent.push(ask);
                    }
                    Step::Tell(run) => running.tell = Some(run),
                    Step::Wait(until) => break Ok(until),
                    Step::End(why) => break Err(why),
                }
            };
            match left {
                Ok(until) => running.next = running.next.min(until),
                Err(why) => ended = Some(why),
            }
            left.is_ok()
        });
        if let Some(Run { last, step }) = running.tell.take() {
            let notice = Notice::Ports { last, step };
            self.say(session, &Message::Notice(notice), now);
        }
        if ended == Some(Ended::Quota) {
            self.traversal.quota_until = now.after(QUOTA_PAUSE);
        }
        if let (Some(why), true) = (ended, running.searches.is_empty()) {
            self.end_search(node, Some(why));
            return;
        }
        if !running.copies.is_empty() {
            let marker = SocketAddr::new(running.peer.ip(), 0);
            self.control
                .challenge(session, Endpoint::Direct(marker), now);
        }
        self.traversal.running = Some(running);
    }

    /// Ends a search; the ports that lead somewhere stay open.
    fn end_search(&mut self, node: NodeId, why: Option<Ended>) {
        self.traversal.running = None;
        let bound = self.traversal.bound.clone();
        self.traversal
            .close(|port| bound.iter().any(|bound| bound.port == port));
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.meeting.ended = why;
            if let Some(why) = why {
                self.tell(Event::SearchEnded { node, why });
            }
        }
    }

    /// Whether a datagram goes to the places of a search rather than to `to`; takes it if so.
    pub(super) fn takes_challenge(&mut self, to: Endpoint, frame: &Frame<'_>) -> bool {
        let Endpoint::Direct(address) = to else {
            return false;
        };
        if address.port() != 0 {
            return false;
        }
        if let Some(running) = &mut self.traversal.running {
            running.challenge.clear();
            if running.challenge.extend_from_slice(frame.packet()).is_err() {
                running.copies.clear();
            }
        }
        true
    }

    /// What the search sends next, and ports that nobody needs any more.
    pub(super) fn poll_traversal(&mut self, frame: &mut Frame<'_>) -> Option<Output> {
        if let Some(port) = self.traversal.closing.pop() {
            return Some(Output::ClosePort { port });
        }
        let running = self.traversal.running.as_mut()?;
        if !running.unsent.is_empty() {
            let (transaction, port) = running.unsent.remove(0);
            write_ask(transaction, frame)?;
            let to = self
                .traversal
                .outward(self.traversal.running.as_ref()?.relay);
            return Some(Output::Send { to, port });
        }
        if running.challenge.is_empty() {
            return None;
        }
        let Some((to, port)) = running.copies.pop() else {
            running.challenge.clear();
            return None;
        };
        frame.set(&running.challenge).ok()?;
        let to = self.traversal.outward(to);
        Some(Output::Send { to, port })
    }

    /// A relay's answer to how one of our ports looks; whether it is one that was waited for.
    pub(super) fn handle_stun_answer(&mut self, port: PortId, datagram: &[u8]) -> Option<()> {
        let running = self.traversal.running.as_mut()?;
        let message = stun::Message::parse(datagram).ok()?;
        if message.class() != Class::Success || message.method() != Method::BINDING {
            return None;
        }
        let ask = (message.transaction(), port);
        let place = running.asks.iter().position(|asked| *asked == ask)?;
        let seen = message.xor_address(stun::attribute::XOR_MAPPED_ADDRESS)?;
        running.asks.swap_remove(place);
        for search in &mut running.searches {
            search.seen(port, seen);
        }
        Some(())
    }

    /// Something authentic came to a further port from `from`: it is answered from there.
    pub(super) fn heard_at(&mut self, port: PortId, from: SocketAddr, now: Instant) {
        let traversal = &mut self.traversal;
        if let Some(bound) = traversal.bound.iter_mut().find(|bound| bound.peer == from) {
            if now.saturating_since(bound.alive) > Duration::from_secs(1) || bound.port == port {
                bound.port = port;
                bound.alive = now;
            }
            return;
        }
        let searched = traversal.running.as_ref().map(|run| run.peer.ip());
        if searched == Some(from.ip()) {
            let alive = now;
            let peer = from;
            let _ = traversal.bound.push(Bound { peer, port, alive });
        }
    }

    /// Lets go of further ports that lead nowhere any more.
    pub(super) fn tend_ports(&mut self, now: Instant) {
        if self.traversal.bound.is_empty() {
            return;
        }
        let peers = &self.peers;
        let leads = |to| peers.values().any(|peer| peer.path.is_alive_at(to));
        self.traversal.bound.retain_mut(|bound| {
            if leads(bound.peer) {
                bound.alive = now;
            }
            now.saturating_since(bound.alive) < KEEP
        });
        if self.traversal.running.is_none() {
            let bound = self.traversal.bound.clone();
            self.traversal
                .close(|port| bound.iter().any(|bound| bound.port == port));
        }
    }
}

impl Meeting {
    fn next_pause(&mut self) -> Duration {
        self.askings = 0;
        self.pause = if self.pause == Duration::ZERO {
            PAUSE
        } else {
            (self.pause * 2).min(PAUSE_MOST)
        };
        self.pause
    }

    /// Where either side is has changed: it may be searched for at once.
    pub(super) fn begin_anew(&mut self) {
        self.ended = None;
        self.next = None;
        self.askings = 0;
        self.pause = Duration::ZERO;
    }
}

/// Asks how a port looks, in a request that its answer isn't larger than.
fn write_ask(transaction: TransactionId, frame: &mut Frame<'_>) -> Option<()> {
    let mut out = [0; ASK_BYTES];
    let mut writer = Writer::new(&mut out, Class::Request, Method::BINDING, transaction).ok()?;
    let padding = [b' '; ASK_BYTES - stun::HEADER_BYTES - stun::attribute::ATTRIBUTE_HEADER_BYTES];
    writer.put(stun::attribute::SOFTWARE, &padding).ok()?;
    frame.set(writer.bytes()).ok()
}
