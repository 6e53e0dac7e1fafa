//! What a relay tells about itself: its clients, its links to others, and which relays lead to a peer.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::NodeId;
use altnet_wire::time::Instant;
use serde::{Deserialize, Serialize};

use super::Node;
use super::peers::Peer;
use crate::relay::Way;

/// A relay's link to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelayLinkView {
    /// The other's name.
    pub name: String,
    /// Its node id.
    pub node: String,
    /// Whether datagrams for its clients can be sent there, and it answers.
    pub up: bool,
    /// The round-trip time in microseconds.
    pub rtt_us: Option<u64>,
    /// How many challenges in a thousand get no answer.
    pub lost_per_mille: u16,
    /// The name of the relay between by which its clients are reached, if they are not directly.
    pub by: Option<String>,
    /// How many clients it says it has.
    pub clients: usize,
    /// Datagrams sent to it.
    pub sent: u64,
    /// Datagrams that came from it.
    pub came: u64,
}

/// A relay's client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelayClientView {
    /// Its name.
    pub name: String,
    /// Its node id.
    pub node: String,
    /// `udp` or `tls`.
    pub carrier: String,
    /// Bytes forwarded for it since the relay started, or in the present thirty days.
    pub bytes: u64,
    /// Its datagrams that were not forwarded because it sent more than it may.
    pub over: u32,
}

impl<A: Aead> Node<A> {
    /// The links of this relay to others.
    pub fn relay_links(&self) -> Vec<RelayLinkView> {
        let micros = |rtt: core::time::Duration| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        self.mesh()
            .map(|link| RelayLinkView {
                name: self.name_of(link.relay),
                node: link.relay.to_string(),
                up: link.is_up,
                rtt_us: link.rtt.map(micros),
                lost_per_mille: link.lost_per_mille,
                by: link.by.map(|relay| self.name_of(relay)),
                clients: link.clients,
                sent: link.sent,
                came: link.came,
            })
            .collect()
    }

    /// The clients of this relay.
    pub fn relay_clients(&self) -> Vec<RelayClientView> {
        self.relay
            .uses()
            .map(|client| RelayClientView {
                name: self.name_of(client.node),
                node: client.node.to_string(),
                carrier: match client.way {
                    Way::Udp(_) => "udp",
                    Way::Stream(_) => "tls",
                }
                .into(),
                bytes: client.bytes,
                over: client.over,
            })
            .collect()
    }

    /// How busy this relay is, 0 to 100.
    pub fn relay_load(&self, now: Instant) -> u8 {
        self.relay.load(now)
    }

    /// The relays that what is sent to a peer passes, as far as they are known; none if it passes none.
    pub(super) fn relays_text(&self, node: NodeId, peer: &Peer) -> Option<String> {
        let Some(Endpoint::Relayed { relay, .. }) = peer.path.current() else {
            return None;
        };
        if peer.path.is_foreign() {
            return None;
        }
        let (name, first) = (self.name_of(node), self.name_of(relay));
        if self.network.as_ref().is_some_and(|n| n.own.node == relay) {
            let way = self.mesh.links.way_to(node);
            return Some(match way.filter(|_| !self.relay.serves(node)) {
                None => format!("this node is {name}'s relay"),
                Some((next, last)) if next == last => {
                    format!(
                        "this node passes on to {}, which {name} uses",
                        self.name_of(last)
                    )
                }
                Some((next, last)) => format!(
                    "this node passes on to {}, and that to {}, which {name} uses",
                    self.name_of(next),
                    self.name_of(last)
                ),
            });
        }
        if peer.told_relays.contains(&relay) {
            return Some(format!("{first}, which {name} uses too"));
        }
        let theirs: Vec<String> = peer.told_relays.iter().map(|r| self.name_of(*r)).collect();
        Some(match theirs.is_empty() {
            true => format!("{first}; {name} has not said which it uses"),
            false => format!(
                "{first} passes on to {}, which {name} uses",
                theirs.join(" or ")
            ),
        })
    }
}
