//! Countersigning audit logs: showing others how far our own has come, and vouching for theirs.
//!
//! A head is a sequence and a hash, signed by the device whose log it is. Who is asked to
//! countersign holds the newest head of each member it vouched for, and takes a newer one only
//! if it is shown the digests of every entry in between: so two pasts can't both go on. Digests
//! show nothing of what entries say.
//!
//! Heads are shown at most once an hour, when the log has grown, to [`ASKED`] members at a time.
//! What is held of others is on disk at most an hour later: nothing a member does writes often.

mod held;
mod own;

use alloc::boxed::Box;
use alloc::vec::Vec;

use altnet_tunnel::aead::Aead;
use altnet_wire::audit::{AuditHead, MAX_DIGESTS, SignedHead, Testimony};
use altnet_wire::hash::HASH_BYTES;
use altnet_wire::id::{NetworkId, NodeId, SigningKey};
use altnet_wire::message::{Refusal, Reply, Request};
use altnet_wire::time::{Duration, Instant, UnixTime};

use super::sessions::{Asked, Standing};
use super::{Event, Node, Slot};
use crate::audit::Link;
use crate::audit::proof::{Rewrite, Witnessed, halves, sign_head, verify_head};
use crate::clock::Estimate;
use crate::control::SessionId;
use held::{Held, Judged, MOST, Others, judge};
use own::Own;

/// Witnesses that are asked at a time.
const ASKED: usize = 3;
/// How long what is held of others may be newer than what is on disk.
const SAVE_EVERY: Duration = Duration::from_secs(3600);
/// Heads that are shown until the next round: to each, in steps, all that is remembered.
const SHOWN: u8 = 40;

/// What is in memory of witnesses and of those vouched for.
#[derive(Debug)]
pub(super) struct Witnesses {
    others: Others,
    own: Own,
}

impl Witnesses {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            others: Others::new(now),
            own: Own::new(now),
        }
    }

    /// Takes up what was kept of others; damaged, it is nothing.
    pub(super) fn load(&mut self, bytes: &[u8]) {
        self.others.load(bytes);
    }

    /// What is to be kept of others.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        self.others.bytes()
    }

    /// Forgets everybody: this node is in no network.
    pub(super) fn clear(&mut self) {
        self.others.clear();
        self.own.told.clear();
    }
}

impl<A: Aead> Node<A> {
    /// The calendar as this node believes it: what entries of the audit log are dated with.
    pub fn calendar(&self, now: Instant) -> Estimate {
        self.clock.estimate(now)
    }

    /// The newest heads of other members' audit logs that this node vouched for, and since which
    /// sequence it was shown every step, in the order of their device keys.
    pub fn witnessed_heads(&self) -> impl Iterator<Item = (SigningKey, AuditHead, u64)> {
        let held = self.witnesses.others.held.values();
        held.map(|held| (held.device, held.signed.head, held.since))
    }

    /// An entry of this device's audit log is on disk: others may be shown that the log has come
    /// so far. At start the driver goes through the newest entries there are, in order.
    pub fn handle_audit(&mut self, link: &Link, now: Instant) {
        let most = usize::from(self.config.limits.members).saturating_mul(4);
        let own = &mut self.witnesses.own;
        own.take(link, most);
        if !link.is_testimony {
            own.wanted = link.sequence;
            let ask_at = own.ask_at.max(now);
            self.timers.housekeeping_at(ask_at);
        }
    }

    /// The driver is about to stop: what is held of others is kept before its hour.
    pub fn keep_heads(&mut self) {
        if core::mem::take(&mut self.witnesses.others.is_unsaved) {
            self.saves.changed(Slot::Witnessed);
        }
    }

    /// Shows how far our log has come, and keeps what is held of others, when it is time.
    pub(super) fn tend_witnesses(&mut self, now: Instant) {
        let every = self.pace().witnesses;
        let others = &mut self.witnesses.others;
        if others.is_unsaved && now.saturating_since(others.saved_at) >= SAVE_EVERY {
            others.is_unsaved = false;
            others.saved_at = now;
            self.forget_heads();
            self.saves.changed(Slot::Witnessed);
        }
        let own = &mut self.witnesses.own;
        if own.wanted <= own.vouched || own.ask_at > now {
            return;
        }
        let mut peers: Vec<(u64, NodeId, SessionId)> = self
            .peers
            .iter()
            .filter_map(|(node, peer)| Some((*node, peer.session?)))
            .filter(|(_, session)| self.sessions.get(session).is_some_and(|s| s.greeted))
            .map(|(node, session)| (own.told.get(&node).copied().unwrap_or(0), node, session))
            .collect();
        if peers.is_empty() {
            return;
        }
        own.told.retain(|node, _| self.peers.contains_key(node));
        own.ask_at = now.after(every);
        own.left = SHOWN;
        // Who vouched longest ago comes first, so that everybody has its turn.
        peers.sort_unstable();
        for (told, _, session) in peers.into_iter().take(ASKED) {
            self.show_head(session, told, now);
        }
    }

    /// Asks for a countersignature of all that may be shown at once after `from`.
    fn show_head(&mut self, session: SessionId, from: u64, now: Instant) {
        let Some(network) = &self.network else {
            return;
        };
        let own = &mut self.witnesses.own;
        let Some(left) = own.left.checked_sub(1) else {
            return;
        };
        own.left = left;
        let oldest = own.oldest();
        // Nobody vouched yet, as far as is known: then it says what it holds.
        let begin = if from == 0 {
            own.end.sequence
        } else {
            from.max(oldest)
        };
        let Some(digests) = own.digests_after(begin) else {
            return;
        };
        let sequence = begin + (digests.len() / HASH_BYTES) as u64;
        let Some(hash) = own.hash_at(sequence) else {
            return;
        };
        let head = AuditHead {
            sequence,
            hash,
            time: self.clock.estimate(now).time(),
        };
        let signed = sign_head(&self.identity.device, &network.registry.network(), head);
        let request = Request::Witness {
            head: signed,
            from: begin,
            digests: &digests,
            is_all: from != 0 && from < oldest,
        };
        let is_whole = sequence == own.end.sequence;
        self.ask(session, &request, Asked::Witness(head, is_whole), now);
    }

    /// A witness answered.
    pub(super) fn witness_replied(
        &mut self,
        session: SessionId,
        node: NodeId,
        (head, is_whole): (AuditHead, bool),
        reply: &Reply<'_>,
        now: Instant,
    ) {
        let Some(network) = &self.network else {
            return;
        };
        let Some(member) = network.registry.by_node(&node) else {
            return;
        };
        let (id, device) = (network.registry.network(), network.own.device);
        match reply {
            Reply::Witnessed(testimony) => {
                let witnessed = Witnessed {
                    network: id,
                    device,
                    head,
                    witness: member.membership.device,
                    testimony: *testimony,
                };
                if witnessed.verify().is_err() {
                    return;
                }
                let own = &mut self.witnesses.own;
                own.told.insert(node, head.sequence);
                own.vouched = own.vouched.max(head.sequence);
                if !is_whole {
                    // More than went into one request.
                    self.show_head(session, head.sequence, now);
                    return;
                }
                let witnessed = Box::new(witnessed);
                self.tell(Event::Witnessed { node, witnessed });
            }
            Reply::Holds(held) => self.witness_holds(session, node, head, held, now),
            _ => {}
        }
    }

    /// A witness holds a head that what it was shown does not go on from.
    fn witness_holds(
        &mut self,
        session: SessionId,
        node: NodeId,
        shown: AuditHead,
        held: &SignedHead,
        now: Instant,
    ) {
        let Some(network) = &self.network else {
            return;
        };
        let (id, device) = (network.registry.network(), network.own.device);
        if verify_head(&id, &device, held).is_err() {
            // Whatever it is, it is not our word.
            return;
        }
        let own = &self.witnesses.own;
        let held = held.head;
        let is_ours = match own.hash_at(held.sequence) {
            Some(hash) => hash == held.hash,
            None => held.sequence < own.oldest(),
        };
        let is_new = own.told.get(&node) != Some(&held.sequence);
        if !is_ours {
            self.tell(Event::PastContradicted { node, held });
        }
        if shown.sequence > held.sequence && is_new {
            // Asked for once only: what it can't follow then, it never will. If this log is not
            // the one it knew, it shall know that too.
            self.witnesses.own.told.insert(node, held.sequence);
            self.show_head(session, held.sequence.max(1), now);
        }
    }

    /// A member asks for a countersignature.
    pub(super) fn witness(
        &mut self,
        standing: Standing,
        shown: &SignedHead,
        from: u64,
        digests: &[u8],
        is_all: bool,
        now: Instant,
    ) -> Reply<'static> {
        let (Standing::Member(node), Some(network)) = (standing, &self.network) else {
            return Reply::Refused(Refusal::NotAllowed);
        };
        let Some(member) = network.registry.by_node(&node) else {
            return Reply::Refused(Refusal::NotAllowed);
        };
        let (id, device) = (network.registry.network(), member.membership.device);
        let count = shown.head.sequence.checked_sub(from);
        let fits = count.is_some_and(|count| {
            count <= MAX_DIGESTS as u64 && digests.len() as u64 == count * HASH_BYTES as u64
        });
        if !fits || verify_head(&id, &device, shown).is_err() {
            return Reply::Refused(Refusal::Damaged);
        }
        if !self.witnesses.others.admits(device, now) {
            return Reply::Refused(Refusal::Busy);
        }
        let mut since = shown.head.sequence;
        if let Some(held) = self.witnesses.others.held.get(&device).copied() {
            match judge(&held.signed.head, &shown.head, from, digests) {
                Judged::GoesOn => since = held.since,
                Judged::BeginsLate if is_all => self.tell(Event::PastNotShown {
                    node,
                    from: held.signed.head.sequence,
                    to: since,
                }),
                Judged::BeginsLate => {
                    if self.witnesses.others.is_too_late(device) {
                        let (from, to) = (held.signed.head.sequence, since);
                        self.tell(Event::PastNotShown { node, from, to });
                    }
                    return Reply::Holds(held.signed);
                }
                Judged::Rewritten => {
                    let rewrite = Box::new(Rewrite {
                        network: id,
                        device,
                        held: held.signed,
                        shown: *shown,
                    });
                    self.tell(Event::PastRewritten { node, rewrite });
                    return Reply::Holds(held.signed);
                }
            }
        } else if self.witnesses.others.held.len() >= self.most_held() {
            self.forget_heads();
            if self.witnesses.others.held.len() >= self.most_held() {
                return Reply::Refused(Refusal::Busy);
            }
        }
        Reply::Witnessed(self.vouch(id, device, shown, since, now))
    }

    fn vouch(
        &mut self,
        network: NetworkId,
        device: SigningKey,
        shown: &SignedHead,
        since: u64,
        now: Instant,
    ) -> Testimony {
        let held = Held {
            device,
            signed: *shown,
            since,
        };
        let others = &mut self.witnesses.others;
        if others.hold(held) && !core::mem::replace(&mut others.is_unsaved, true) {
            let due = others.saved_at.after(SAVE_EVERY);
            self.timers.housekeeping_at(due.max(now));
        }
        let at = match self.clock.estimate(now) {
            Estimate::Running(time) => time,
            Estimate::AtLeast(_) => UnixTime::EPOCH,
        };
        let secret = &self.identity.device;
        let proof = Testimony::proof(&network, &device, &shown.head, since, at, &secret.public());
        Testimony {
            since,
            at,
            signature: halves(&secret.sign(&proof)),
        }
    }

    fn most_held(&self) -> usize {
        MOST.min(self.config.limits.members.into())
    }

    /// Lets go of the heads of devices that are no member's.
    fn forget_heads(&mut self) {
        let Some(network) = &self.network else {
            return;
        };
        let registry = &network.registry;
        let aside = |device: &SigningKey| {
            let mut aside = registry.members_aside();
            aside.any(|member| member.membership.device == *device)
        };
        self.witnesses
            .others
            .held
            .retain(|device, _| registry.by_device(device).is_some() || aside(device));
    }
}
