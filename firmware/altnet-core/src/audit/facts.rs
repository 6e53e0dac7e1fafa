//! Which of a node's facts are worth an entry, and what it says.

use core::fmt;

use altnet_wire::id::NodeId;

use super::entry::{Fact, Kind};
use crate::node::{Decision, Event, Refused};

impl Fact {
    /// The entry for what a node tells; none for what comes and goes by itself: paths, tunnels,
    /// relays, answers. Nodes are called as `name` says.
    pub fn of_event<N: fmt::Display>(event: &Event, name: impl Fn(NodeId) -> N) -> Option<Self> {
        let fact = |kind| Self::new(kind);
        Some(match event {
            Event::Joined { network, name } => fact(Kind::JOINED).about(name).detail(network),
            Event::JoinFailed { why } => fact(Kind::JOIN_FAILED).detail(why),
            Event::Left { network, revoked } => {
                let how = if *revoked { "put out" } else { "left" };
                fact(Kind::LEFT).about(network).detail(how)
            }
            Event::MemberChanged { member, name } => {
                fact(Kind::MEMBER_CHANGED).about(format_args!("{name} {member}"))
            }
            Event::MemberGone { member } => fact(Kind::MEMBER_GONE).about(member),
            Event::Rotated { epoch } => fact(Kind::ROTATED).detail(format_args!("epoch {epoch}")),
            Event::Renewed => fact(Kind::RENEWED),
            Event::Admitted { name, sponsor } => match sponsor {
                Some(sponsor) => fact(Kind::ADMITTED)
                    .about(name)
                    .detail(format_args!("brought in by {sponsor}")),
                None => fact(Kind::ADMITTED).about(name),
            },
            Event::NotAdmitted { why } => fact(Kind::NOT_ADMITTED).detail(why),
            Event::HeadBehind { node } => fact(Kind::HEAD_BEHIND).about(name(*node)),
            Event::RecordRefused { why } => fact(Kind::RECORD_REFUSED).detail(why),
            Event::Arrived { node } => fact(Kind::LOGIN).about(name(*node)),
            Event::Decided {
                what,
                record,
                signer,
            } => match &**what {
                Decision::Owners => fact(Kind::OWNERS_CHANGED)
                    .about(record)
                    .detail(format_args!("signed by {signer}")),
                Decision::Issuer { issuer } => fact(Kind::ISSUER_CHANGED)
                    .about(issuer)
                    .detail(format_args!("signed by {signer}")),
                Decision::Policy => fact(Kind::POLICY_CHANGED)
                    .about(record)
                    .detail(format_args!("signed by {signer}")),
                Decision::Invited { sponsor, uses, .. } => fact(Kind::INVITED)
                    .about(what.subject())
                    .detail(format_args!(
                        "for {uses} by member {sponsor}, signed by {signer}"
                    )),
                Decision::Revoked { reason, .. } => fact(Kind::REVOKED)
                    .about(what.subject())
                    .detail(format_args!("{reason}, signed by {signer}")),
            },
            Event::Witnessed { node, witnessed } => fact(Kind::WITNESSED)
                .about(name(*node))
                .detail(format_args!("through {}", witnessed.head.sequence))
                .proof(&**witnessed),
            // Always in the same words, so that it is one row however often: the proof has the rest.
            Event::PastRewritten { node, rewrite } => fact(Kind::REWRITTEN)
                .about(name(*node))
                .detail("showed a past that does not go on from what it had signed")
                .proof(&**rewrite),
            Event::PastNotShown { node, from, to } => fact(Kind::NOT_SHOWN)
                .about(name(*node))
                .detail(format_args!("from entry {from} to {to}")),
            Event::PastContradicted { node, held } => fact(Kind::CONTRADICTED)
                .about(name(*node))
                .detail(format_args!("holds entry {}, signed by us", held.sequence)),
            // Who signed it stands in the entry of the decision.
            Event::PolicyChanged { serial, rules } => {
                fact(Kind::POLICY_IN_FORCE).detail(format_args!("serial {serial}, {rules} rules"))
            }
            Event::PolicyGone => fact(Kind::POLICY_GONE).detail("nothing is allowed"),
            Event::PolicyUnusable { why } => fact(Kind::POLICY_UNUSABLE).detail(why),
            Event::PathChanged { .. }
            | Event::TunnelUp { .. }
            | Event::HomeRelay { .. }
            | Event::Mapping { .. }
            | Event::Filtering { .. }
            | Event::SearchEnded { .. }
            | Event::RelayUp { .. }
            | Event::RelayDown { .. }
            | Event::DirectorySynced { .. }
            | Event::DirectoryLost { .. }
            | Event::Certified { .. }
            | Event::Benched { .. }
            | Event::TurnUp { .. }
            | Event::TurnDown { .. }
            | Event::DerperUp { .. }
            | Event::DerperDown { .. }
            | Event::Pong { .. } => return None,
        })
    }

    /// The entry for packets or datagrams that went no further; none where nobody was refused
    /// anything: there was no way, no room, no network.
    pub fn of_refusal<N: fmt::Display>(
        refused: &Refused,
        name: impl Fn(NodeId) -> N,
    ) -> Option<Self> {
        let fact = Self::new(Kind::REFUSED)
            .detail(refused.why)
            .times(refused.count);
        Some(match refused.node {
            Some(node) => fact.about(name(node)),
            None if refused.is_ours => fact.about("our side"),
            None => fact.about("strangers"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::DropReason;
    use alloc::boxed::Box;
    use altnet_wire::id::{MemberId, RecordId, SigningKey};
    use altnet_wire::record::RevocationTarget;
    use std::string::ToString;

    fn check(event: &Event, expected: (Kind, &str, &str)) {
        let fact = Fact::of_event(event, |_| "house-b").unwrap();
        let found = (fact.kind, fact.subject.as_str(), fact.detail.as_str());
        assert_eq!(found, expected);
    }

    #[test]
    fn facts_say_who_and_what() {
        let node = NodeId([1; 16]);
        check(&Event::Arrived { node }, (Kind::LOGIN, "house-b", ""));
        check(&Event::Rotated { epoch: 3 }, (Kind::ROTATED, "", "epoch 3"));
        let (member, signer) = (MemberId([2; 16]), SigningKey([3; 32]));
        let revoked = Event::Decided {
            what: Box::new(Decision::Revoked {
                target: RevocationTarget::Member(member),
                reason: heapless::String::try_from("stolen").unwrap(),
            }),
            record: RecordId([4; 32]),
            signer,
        };
        let subject = std::format!("member {member}");
        let detail = std::format!("stolen, signed by {signer}");
        check(&revoked, (Kind::REVOKED, &subject, &detail));
        let invited = Event::Decided {
            what: Box::new(Decision::Invited {
                invite: SigningKey([5; 32]),
                sponsor: member,
                uses: 2,
            }),
            record: RecordId([4; 32]),
            signer,
        };
        let subject = std::format!("invite {}", SigningKey([5; 32]));
        let detail = std::format!("for 2 by member {member}, signed by {signer}");
        check(&invited, (Kind::INVITED, &subject, &detail));
        let name = |text| altnet_wire::id::Name::new(text).unwrap();
        let admitted = Event::Admitted {
            name: name("friend"),
            sponsor: Some(name("ann")),
        };
        check(&admitted, (Kind::ADMITTED, "friend", "brought in by ann"));
        assert_eq!(Fact::of_event(&Event::TunnelUp { node }, |n| n), None);
    }

    #[test]
    fn a_refusal_says_whose_it_was() {
        let refused = |node, is_ours| Refused {
            node,
            is_ours,
            why: DropReason::Denied,
            count: 9,
        };
        let about = |refused| {
            let fact = Fact::of_refusal(&refused, |_| "house-b").unwrap();
            assert_eq!((fact.count, fact.detail.as_str()), (9, "denied"));
            fact.subject.as_str().to_string()
        };
        assert_eq!(about(refused(Some(NodeId([1; 16])), false)), "house-b");
        assert_eq!(about(refused(None, true)), "our side");
        assert_eq!(about(refused(None, false)), "strangers");
    }
}
