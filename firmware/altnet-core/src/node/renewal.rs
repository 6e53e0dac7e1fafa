//! Memberships that end, and heads that say how far the network has come.

use alloc::vec::Vec;

use altnet_tunnel::aead::Aead;
use altnet_wire::id::NodeId;
use altnet_wire::message::Request;
use altnet_wire::record::Rights;
use altnet_wire::time::{Duration, Instant};

use super::intake::Carrier;
use super::peers::serves;
use super::sessions::Asked;
use super::{Deferred, Node};
use crate::control::SessionId;

/// A head is signed again this often even if nothing changed, so that a stale one shows.
const HEAD_EVERY: Duration = Duration::from_secs(86_400);

/// A membership is renewed when a third of it is left.
pub(super) const RENEW_AT: u64 = 10 * 86_400;

/// How often renewal is asked for until it succeeds.
const RENEW_EVERY: Duration = Duration::from_secs(3600);

impl<A: Aead> Node<A> {
    /// Asks for a longer membership in time, and lets go of members whose own has ended.
    pub(super) fn tend_membership(&mut self, now: Instant) {
        self.sign_head_if_due(now);
        let Some(network) = &mut self.network else {
            return;
        };
        let ended: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(node, _)| {
                network.registry.by_node(node).is_some_and(|member| {
                    self.clock.is_expired(member.membership.expires, now)
                        && !serves(member.membership.roles)
                })
            })
            .map(|(node, _)| *node)
            .collect();
        let clients: Vec<NodeId> = self
            .relay
            .clients()
            .filter(|node| {
                network
                    .registry
                    .by_node(node)
                    .is_none_or(|member| self.clock.is_expired(member.membership.expires, now))
            })
            .collect();
        for node in clients {
            self.relay.remove(node);
        }
        if !ended.is_empty() {
            self.policy.rejudge();
        }
        let Some(own) = network.registry.by_member(&network.own.member) else {
            return;
        };
        let left = own
            .membership
            .expires
            .saturating_since(self.clock.estimate(now).time());
        let due = left.as_secs() < RENEW_AT
            && (self.timers.renew_asked == Instant::ZERO
                || now.saturating_since(self.timers.renew_asked) >= RENEW_EVERY);
        let own_member = network.own.member;
        if due {
            self.timers.renew_asked = now;
            let before = network.registry.revision();
            let renewed = self.issuer.as_mut().is_some_and(|issuer| {
                issuer
                    .renew(&mut network.registry, &mut self.clock, &own_member, now)
                    .is_ok()
            });
            if renewed {
                self.records_changed(before, now);
            } else {
                self.ask_renewal(now);
            }
        }
        for node in ended {
            self.forget(node, now);
        }
    }

    pub(super) fn ask_renewal(&mut self, now: Instant) {
        let sessions: Vec<SessionId> = self
            .peers
            .values()
            .filter(|peer| peer.wanted)
            .filter_map(|peer| peer.session)
            .collect();
        for session in sessions {
            self.ask(session, &Request::Renew, Asked::Renew, now);
        }
    }

    pub(super) fn renewed(&mut self, records: &[u8], now: Instant) {
        self.take_records(records, Carrier::Member, now);
    }

    /// Signs how far the network has come here, when that changed or a day has passed.
    pub(super) fn sign_head_if_due(&mut self, now: Instant) {
        let (Some(network), Some(issuer)) = (&mut self.network, &mut self.issuer) else {
            return;
        };
        let summary = network.registry.summary();
        let key = issuer.public();
        let newest = network
            .registry
            .heads()
            .find(|(signer, _, _)| *signer == key);
        let says_so = newest.is_some_and(|(_, _, head)| {
            head.revocations == summary.revocations
                && head.policy == summary.policy
                && head.owner_serial == summary.owner_serial
        });
        // By the calendar too: this node may just have started.
        let time = self.clock.estimate(now).time();
        let age = newest.map(|(_, _, head)| time.saturating_since(head.issued));
        let fresh = age.is_some_and(|age| age < HEAD_EVERY)
            && now.saturating_since(self.timers.head_signed) < HEAD_EVERY;
        if says_so && fresh {
            return;
        }
        let may = network.registry.issuer(&key).is_some_and(|certificate| {
            certificate
                .rights
                .intersects(Rights::ADMIT | Rights::INVITE | Rights::REVOKE)
        });
        if !may {
            return;
        }
        self.timers.head_signed = now;
        if issuer
            .head(&mut network.registry, &mut self.clock, now)
            .is_ok()
        {
            self.save_records();
            self.after_save(Deferred::Push, now);
        }
    }
}
