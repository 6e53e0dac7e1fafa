//! What a policy says besides its rules: whose logins count, and who may bring others in.

use std::collections::BTreeSet;
use std::ops::Range;

use altnet_core::policy::{Draft, DraftSponsor};
use altnet_wire::policy::{MAX_SPONSORS, MAX_VOUCHERS};
use altnet_wire::record::MAX_GROUPS;

use super::{Compiler, Place};
use crate::policy::words::Reference;

/// What is wrong with a reference that can't stand there, and what to do; none if it can.
pub(super) const fn unfit(
    reference: &Reference,
    place: Place,
) -> Option<(&'static str, &'static str)> {
    use Reference::{Bare, Device, Group, Members, Person, Site};
    match (place, reference) {
        (Place::LoginAt, Bare(_) | Device(_) | Site(_) | Group(_))
        | (Place::LoginOf, Bare(_) | Members | Person(_) | Group(_))
        | (Place::Sponsor, Bare(_) | Members | Device(_) | Person(_) | Group(_)) => None,
        (Place::LoginAt, _) => Some((
            "that is no gateway, so nobody logs in there",
            "Write gateways, as in site:home, device:box or group:gateways.",
        )),
        (Place::LoginOf, _) => Some((
            "nobody can be logged in as that",
            "Write persons, groups that they may be counted in, or members for every person.",
        )),
        (_, _) => Some((
            "that can bring in nobody",
            "Write members, persons, groups or devices.",
        )),
    }
}

impl Compiler<'_> {
    pub(super) fn logins(&mut self, draft: &mut Draft) {
        let source = self.source;
        for login in &source.logins {
            let at = self.atoms(&login.at, Place::LoginAt);
            let of = self.atoms(&login.of, Place::LoginOf);
            for gateway in at {
                let pairs = of.iter().map(|who| (gateway.clone(), who.clone()));
                draft.vouchers.extend(pairs);
            }
            self.at_most(draft.vouchers.len(), MAX_VOUCHERS, "logins", &login.head);
        }
    }

    pub(super) fn sponsors(&mut self, draft: &mut Draft) {
        let source = self.source;
        for sponsor in &source.sponsors {
            let who = self.atoms(&sponsor.who, Place::Sponsor);
            let mut groups = BTreeSet::new();
            for at in &sponsor.groups {
                if self.check_group(&at.value, &at.span) {
                    groups.insert(at.value.clone());
                }
            }
            let head = &sponsor.head;
            self.at_most(groups.len(), MAX_GROUPS, "groups of a sponsor's", head);
            draft
                .sponsors
                .extend(who.into_iter().map(|who| DraftSponsor {
                    who,
                    most: sponsor.most,
                    depth: sponsor.depth,
                    groups: groups.clone(),
                }));
            self.at_most(draft.sponsors.len(), MAX_SPONSORS, "sponsors", head);
        }
    }

    fn at_most(&mut self, count: usize, most: usize, what: &str, span: &Range<usize>) {
        if count > most {
            let message = format!("with these there are more than {most} {what}");
            let next = "Put those with the same rights into a group, and name that.";
            self.report.fault(span, message, next);
        }
    }
}
