//! What a person could do for a better way to a peer: what was tried, how the NATs map, and one
//! action.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::NodeId;
use altnet_wire::message::{CandidateKind, Filtering, Mapping};
use altnet_wire::record::NodeRecord;

use super::peers::Peer;
use super::traversal::is_public;
use super::{NatView, Node};
use crate::path::Tried;
use crate::path::search::Ended;

/// How a NAT maps, in words.
pub(super) const fn words_of(mapping: Mapping) -> &'static str {
    match mapping {
        Mapping::EndpointIndependent => "one port for every destination, or no NAT",
        Mapping::EndpointDependent => "another port for each destination",
        _ => "not known",
    }
}

/// Whom a NAT lets in, in words.
pub(super) const fn words_of_filtering(filtering: Filtering) -> &'static str {
    match filtering {
        Filtering::EndpointIndependent => "everybody",
        Filtering::AddressDependent => "whom it was sent to from inside, from any port",
        Filtering::AddressAndPortDependent => "answers alone",
        _ => "not known",
    }
}

/// Whether a search could find a way between two such NATs.
fn may_search(ours: Mapping, theirs: Mapping) -> bool {
    [ours, theirs].contains(&Mapping::EndpointDependent)
}

impl<A: Aead> Node<A> {
    /// The NAT before this node, for programs.
    pub(super) fn nat_view(&self) -> NatView {
        let independent = "endpoint-independent";
        NatView {
            mapping: match self.mapping() {
                Mapping::EndpointIndependent => independent,
                Mapping::EndpointDependent => "endpoint-dependent",
                _ => "unknown",
            },
            filtering: match self.filtering() {
                Filtering::EndpointIndependent => independent,
                Filtering::AddressDependent => "address-dependent",
                Filtering::AddressAndPortDependent => "address-and-port-dependent",
                _ => "unknown",
            },
        }
    }

    /// How both NATs map and whom they let in.
    pub(super) fn nats_text(&self, peer: &Peer) -> String {
        let words = |mapping, filtering| {
            let lets_in = words_of_filtering(filtering);
            format!("{}, lets in: {lets_in}", words_of(mapping))
        };
        let ours = words(self.mapping(), self.filtering());
        let theirs = words(peer.meeting.mapping, peer.meeting.filtering);
        format!("ours: {ours}; theirs: {theirs}")
    }

    /// The addresses of a peer that were tried.
    pub(super) fn tried_text(&self, peer: &Peer) -> String {
        let told = |tried: Tried| {
            let said = match (tried.is_alive, tried.rtt, tried.unanswered) {
                (true, Some(rtt), _) => format!("answers in {} ms", rtt.as_micros() / 1000),
                (true, None, _) => "answers".into(),
                (false, _, 0) => "not tried yet".into(),
                (false, _, times) => format!("no answer to {times}"),
            };
            format!("{} {}: {said}", tried.kind.name(), tried.address)
        };
        let mut all: Vec<String> = peer.path.tried().map(told).collect();
        if let Some(ended) = peer.meeting.ended {
            all.push(format!("a search through the NATs: {ended}"));
        }
        if all.is_empty() {
            return "it has told no address".into();
        }
        all.join("; ")
    }

    /// One thing that would better the way to a peer; nothing if it is a direct one.
    pub(super) fn advice(&self, node: NodeId, peer: &Peer) -> Option<String> {
        let name = self.name_of(node);
        let relay = match peer.path.current() {
            Some(Endpoint::Direct(_)) => return None,
            Some(Endpoint::Relayed { relay, .. }) if !peer.path.is_foreign() => Some(relay),
            _ => None,
        };
        let link = relay.and_then(|relay| self.relays.get(&relay));
        if link.is_some_and(|link| link.carriers.by_stream) {
            return Some("no UDP passes from here to the relay: let it out to its port".into());
        }
        if relay.is_none() && self.relays.values().all(|link| link.token.is_none()) {
            return Some(
                "no relay answers: check that one is up and reachable, or make another gateway one"
                    .to_string(),
            );
        }
        let whose = match (self.is_let_in(), self.lets_in(node, peer)) {
            (true, true) => {
                return Some(format!(
                    "both sides' UDP ports are open as far as is known: look for a firewall between here and {name}"
                ));
            }
            (false, true) => "this node's UDP port on the router before it".into(),
            (true, false) => format!("{name}'s UDP port on the router before it"),
            _ => format!("this node's UDP port on the router before it, or before {name}"),
        };
        let open = format!("open {whose}: by hand, or by UPnP or PCP there");
        Some(
            match (self.mapping(), peer.meeting.mapping, peer.meeting.ended) {
                (ours, theirs, _) if self.config.metered && may_search(ours, theirs) => {
                    format!("this line is metered, so no way through both NATs is searched: {open}")
                }
                (_, _, Some(Ended::Quota)) => {
                    format!("the carrier gives few ports: use IPv6, or {open}")
                }
                (Mapping::Unknown, ..) => format!(
                    "make another gateway with a public address a relay (`--role relay`): two relays show how NATs map; or {open}"
                ),
                _ => open,
            },
        )
    }

    /// Whether everybody is let in here already, as far as is known: at whichever port, or at the one that is mapped
    /// or set. A new port that lets in answers alone says nothing against those.
    fn is_let_in(&self) -> bool {
        let is_mapped = self.presence.mapped.iter().any(|at| is_public(*at));
        is_open(self.filtering()) || is_mapped || !self.fixed_endpoints().is_empty()
    }

    /// Whether a peer lets everybody in, as it says.
    fn lets_in(&self, node: NodeId, peer: &Peer) -> bool {
        let is_said = |tried: Tried| match tried.kind {
            CandidateKind::Fixed => true,
            CandidateKind::Mapped => is_public(tried.address),
            _ => false,
        };
        let is_fixed = |record: NodeRecord| !record.fixed_endpoints.is_empty();
        let is_set = self.record_of(node).is_some_and(is_fixed);
        is_open(peer.meeting.filtering) || is_set || peer.path.tried().any(is_said)
    }
}

fn is_open(filtering: Filtering) -> bool {
    filtering == Filtering::EndpointIndependent
}
