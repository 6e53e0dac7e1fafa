//! Staying reachable while nothing happens (ADR 0015): both sides, as far as a relay has to do with it.
//!
//! In: that a relay registered us, its answers, what leaves. Out: small datagrams to relays, and to
//! clients; rest for the control sessions between them. One relay, the home, is kept as often as the
//! NATs before this node demand; the others are asked now and then whether they are there.
//!
//! Deliberately absent: how the patience of a NAT is learnt ([`crate::path::keep`]).

use core::net::{IpAddr, SocketAddr};
use core::ops::Bound;

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::{Endpoint, PortId};
use altnet_wire::frame::Frame;
use altnet_wire::id::NodeId;
use altnet_wire::relay::{RelayPacket, Token};
use altnet_wire::time::{Duration, Instant};

use super::pace::Pace;
use super::relays::RelayLink;
use super::sessions::Standing;
use super::{DropReason, Node, Output, Verdict};
use crate::control::CloseReason;
use crate::path::keep::{Keep, Patience, Step};

/// How often a registration is renewed that is kept.
pub(super) const RENEW_KEPT: Duration = Duration::from_secs(4 * 3600);
/// A relay that answers no `Keep` is tried again after this long: it may have been replaced.
const NOT_UNDERSTOOD: Duration = Duration::from_secs(1800);
/// For how long a `Keep` stands for what both sides of a control session say to be taken for alive:
/// the longest silence.
const REST: Duration = Duration::from_secs(crate::path::keep::MOST_S as u64);
/// How long a relay forwards beyond that.
const LIFETIME: Duration = Duration::from_secs(crate::relay::LIFETIME_S as u64);
/// Addresses of ours whose NATs are remembered.
const UPLINKS: usize = 8;

/// What is known of the NATs at addresses of ours, and when anything left last.
#[derive(Debug, Default)]
pub(super) struct Uplinks {
    /// The one used last comes last.
    known: heapless::Vec<(IpAddr, Patience), UPLINKS>,
    pub(super) last_sent: Instant,
}

impl Uplinks {
    /// What is known of the NATs at `address`; those unused for the longest are forgotten for it.
    fn patience(&mut self, address: IpAddr) -> Option<&mut Patience> {
        let at = self.known.iter().position(|(known, _)| *known == address);
        let known = match at {
            Some(at) => self.known.remove(at).1,
            None if self.known.is_full() => {
                self.known.remove(0);
                Patience::default()
            }
            None => Patience::default(),
        };
        let _ = self.known.push((address, known));
        self.known.last_mut().map(|(_, patience)| patience)
    }

    /// The longest silence that the NATs now before this node are known to bear.
    pub(super) fn survived(&self) -> Option<Duration> {
        let (_, patience) = self.known.last()?;
        Some(Duration::from_secs(patience.survived_s().into()))
    }
}

impl RelayLink {
    /// A relay forwards for us that didn't before.
    pub(super) fn settles(&mut self, pace: &Pace, now: Instant) {
        self.keep = Keep::default();
        self.keep_from = now.after(pace.settled);
    }

    /// Something is relayed: whether the relay is there matters. True if it didn't until now.
    fn is_used_anew(&mut self, pace: &Pace, now: Instant) -> bool {
        let last = core::mem::replace(&mut self.used, now);
        now.saturating_since(last) >= pace.relay_in_use
    }

    /// Whether small datagrams are all that the relay gets.
    pub(super) fn rests(&self, pace: &Pace, now: Instant) -> bool {
        let is_kept = self.keep.is_on() && self.keep.is_understood();
        is_kept && now.saturating_since(self.used) >= pace.relay_in_use
    }

    /// Whether the relay forwards for us and says where it sees us.
    fn is_seen(&self) -> bool {
        self.token.is_some() && self.address.is_some() && self.observed.is_some()
    }

    /// When it begins to be kept, if it doesn't yet.
    fn begins(&self) -> Instant {
        match (self.token, self.carriers.by_stream, self.keep.is_on()) {
            (Some(_), false, false) => self.keep_from,
            _ => Instant::NEVER,
        }
    }
}

impl<A: Aead> Node<A> {
    /// The relay that is kept as often as need be: our home, if it is one by UDP.
    fn home_relay(&self) -> Option<NodeId> {
        let is_udp = |link: &RelayLink| !link.carriers.by_stream;
        self.homes()
            .find(|relay| self.relays.get(relay).is_some_and(is_udp))
    }

    /// Something goes or came by a relay.
    pub(super) fn relay_used(&mut self, relay: NodeId, now: Instant) {
        let pace = self.pace();
        let link = self.relays.get_mut(&relay);
        if link.is_some_and(|link| link.is_used_anew(pace, now)) {
            self.timers.housekeeping_at(now);
        }
    }

    /// Our addresses changed: the relays that are kept see us elsewhere, maybe.
    pub(super) fn keep_anew(&mut self, now: Instant) {
        for link in self.relays.values_mut().filter(|link| link.keep.is_on()) {
            link.keep.begin(now);
        }
    }

    /// A peer was heard no more by a relay, and is by another way. It is asked whether it is there and
    /// knows us: one that restarted is to be as good a spare as it was, before it is needed.
    pub(super) fn ask_silent_relay(&mut self, relay: NodeId, now: Instant) {
        if let Some(link) = self.relays.get_mut(&relay)
            && link.is_seen()
        {
            link.keep.doubt(now);
        }
    }

    /// The next small datagram to a relay or to a client of ours.
    pub(super) fn poll_keeps(&mut self, frame: &mut Frame<'_>, now: Instant) -> Option<Output> {
        while let Some(kept) = self.relay.poll_kept(now) {
            let (token, after_s) = (kept.token, kept.after_s);
            if (RelayPacket::Kept { token, after_s }).push(frame).is_ok() {
                let port = PortId::MAIN;
                return Some(Output::Send { to: kept.to, port });
            }
        }
        if self.keeps_deadline() > now {
            return None;
        }
        let home = self.home_relay();
        let mut last = None;
        while let Some((relay, link)) = {
            let from = last.map_or(Bound::Unbounded, Bound::Excluded);
            self.relays.range_mut((from, Bound::Unbounded)).next()
        } {
            let relay = *relay;
            last = Some(relay);
            if link.begins() <= now {
                link.keep.begin(now);
            }
            let (Some(token), Some(to), Some(seen)) = (link.token, link.address, link.observed)
            else {
                continue;
            };
            let Some(patience) = self.uplinks.patience(seen.ip()) else {
                continue;
            };
            match link.keep.poll(patience, home != Some(relay), now) {
                Some(Step::Ask { after_s }) => {
                    self.uplinks.last_sent = now;
                    if link.keep.is_understood() {
                        let until = now.after(REST);
                        link.ends = link.ends.max(until.after(LIFETIME));
                        if let Some(session) = link.session {
                            self.control.rest(session, until);
                        }
                    }
                    if after_s > 0 {
                        for other in self.relays.values_mut() {
                            other.keep.join_in(now);
                        }
                    }
                    if (RelayPacket::Keep { token, after_s }).push(frame).is_ok() {
                        return Some(Output::Send {
                            to: self.traversal.outward(to),
                            port: PortId::MAIN,
                        });
                    }
                }
                Some(Step::Silent) => self.keep_unanswered(relay, now),
                None => {}
            }
        }
        None
    }

    /// A relay that answered once and doesn't any more is called anew; one that never did is one that
    /// doesn't know how.
    fn keep_unanswered(&mut self, relay: NodeId, now: Instant) {
        let Some(link) = self.relays.get_mut(&relay) else {
            return;
        };
        link.keep_from = now.after(NOT_UNDERSTOOD);
        if !link.keep.is_understood() {
            return;
        }
        match link.session {
            Some(session) => self.end_session(session, CloseReason::Done, now),
            None => self.relay_lost(relay, now),
        }
    }

    /// When [`Node::poll_keeps`] next has something to say.
    pub(super) fn keeps_deadline(&self) -> Instant {
        // Nothing is due at a relay that has not said yet where it sees us: it is registered with first.
        let links = self.relays.values().filter(|link| link.is_seen());
        let links = links.map(|link| link.keep.deadline().min(link.begins()));
        links
            .min()
            .unwrap_or(Instant::NEVER)
            .min(self.relay.answers_at())
    }

    /// A client of ours is still there.
    pub(super) fn handle_keep(
        &mut self,
        from: SocketAddr,
        token: Token,
        after_s: u16,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        self.relay_node().ok_or(DropReason::RelayToken)?;
        if !self.may_register(Some(Endpoint::Direct(from))) {
            return Err(DropReason::RelayToken);
        }
        let Ok(node) = self.relay.keep(from, token, after_s, now) else {
            return self.unknown_token(token, from, frame);
        };
        let until = now.after(REST);
        let theirs = self.sessions.iter();
        let theirs = theirs.filter(|(_, s)| s.standing == Standing::Member(node));
        for session in theirs.map(|(session, _)| *session) {
            self.control.rest(session, until);
        }
        Ok(Verdict::Consumed)
    }

    /// A relay still forwards for us.
    pub(super) fn handle_kept(
        &mut self,
        relay: NodeId,
        token: Token,
        after_s: u16,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let home = self.home_relay();
        let link = self.relays.get_mut(&relay);
        let link = link.ok_or(DropReason::RelayUnknown)?;
        let seen = link.observed.filter(|_| link.token == Some(token));
        let seen = seen.ok_or(DropReason::RelayToken)?;
        let is_spare = home != Some(relay);
        let last_sent = self.uplinks.last_sent;
        let was_understood = link.keep.is_understood();
        if let Some(patience) = self.uplinks.patience(seen.ip()) {
            link.keep
                .answered(after_s, patience, is_spare, last_sent, now);
        }
        if !was_understood && link.keep.is_understood() {
            link.renew = now.after(RENEW_KEPT);
        }
        // A spare is asked so rarely that asking alone would have its registration end before.
        link.ends = link.ends.max(now.after(REST).after(LIFETIME));
        Ok(Verdict::Consumed)
    }
}
