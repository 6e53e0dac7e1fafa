//! Who brought whom in: shown as a tree, and kept when a sponsor is put out.

use std::collections::BTreeMap;

use altnet_core::issuer::Issuer;
use altnet_wire::id::MemberId;
use altnet_wire::time::{Instant, UnixTime};

use super::{Draft, MemberSummary, Network, refused};
use crate::error::Result;

impl Network {
    /// All members, each after who brought it in and before the next of that one's, with how many
    /// sponsors are above it. Those whose sponsor is no member any more stand at the top.
    pub fn member_tree(&self, now: UnixTime) -> Vec<(usize, MemberSummary)> {
        let members = self.members(now);
        let mut below: BTreeMap<Option<MemberId>, Vec<&MemberSummary>> = BTreeMap::new();
        for member in &members {
            let known = self.registry.by_member(&member.id);
            let sponsor = known.and_then(|known| known.membership.sponsor);
            let sponsor = sponsor.filter(|id| self.registry.by_member(id).is_some());
            below.entry(sponsor).or_default().push(member);
        }
        let mut tree = Vec::new();
        let mut waiting: Vec<(usize, &MemberSummary)> = Vec::new();
        let mut next = below.remove(&None).unwrap_or_default();
        let mut depth = 0;
        loop {
            waiting.extend(next.into_iter().rev().map(|member| (depth, member)));
            let Some((at, member)) = waiting.pop() else {
                break;
            };
            tree.push((at, member.clone()));
            depth = at + 1;
            next = below.remove(&Some(member.id)).unwrap_or_default();
        }
        // Two that name each other as sponsor, as an issuer may sign it, are below nobody.
        let rest = below.into_values().flatten();
        tree.extend(rest.map(|member| (0, member.clone())));
        tree
    }

    /// Members that go aside when these are revoked, because they came in by an invite of theirs.
    pub(super) fn resting_on(&self, gone: &[MemberId]) -> Vec<MemberId> {
        let members = self
            .registry
            .members()
            .map(|member| member.membership.member);
        let rests = |id: &MemberId| {
            let on = self.registry.rests_on(id);
            on.is_some_and(|on| gone.contains(&on)) && !gone.contains(id)
        };
        members.filter(rests).collect()
    }
}

impl Draft {
    /// Signs anew for a member, so that it rests on nobody's invite.
    pub(super) fn vouch_for(&mut self, issuer: &mut Issuer, member: &MemberId) -> Result<()> {
        let Self {
            registry,
            clock,
            rng,
            ..
        } = self;
        issuer
            .adopt(registry, clock, member, Instant::ZERO, rng)
            .map_err(refused("keep whom it brought in"))
    }
}
