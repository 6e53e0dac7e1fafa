//! Filling in what a node tells about itself.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::Ipv6Addr;

use altnet_tunnel::aead::Aead;
use altnet_wire::address;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::envelope::Envelope;
use altnet_wire::id::{Name, NodeId};
use altnet_wire::record::Roles;
use altnet_wire::time::{Duration, Instant};

use super::view::{DirectoryView, NetworkView, PeerView, RecordView, RelayView, Status, Step};
use super::{Node, peers::Peer};
use crate::clock::Estimate;
use crate::path::Why;
use crate::registry::Subject;

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The names of roles, as they are typed and shown.
pub(super) fn role_names(roles: Roles) -> Vec<&'static str> {
    [
        (Roles::GATEWAY, "gateway"),
        (Roles::RELAY, "relay"),
        (Roles::DIRECTORY, "directory"),
        (Roles::APPS, "apps"),
    ]
    .into_iter()
    .filter(|(role, _)| roles.contains(*role))
    .map(|(_, name)| name)
    .collect()
}

impl<A: Aead> Node<A> {
    /// The node at a glance.
    pub fn status(&self, now: Instant) -> Status {
        let estimate = self.clock.estimate(now);
        Status {
            state: match (&self.network, &self.joining) {
                (Some(network), _) if network.is_aside() => "set-aside",
                (Some(_), _) => "member",
                (None, Some(_)) => "joining",
                (None, None) => "outside",
            },
            network: self.network_view(now),
            relays: self.relay_views(now),
            nat: self.nat_view(),
            directories: self.directory_views(),
            turn: self.turn_views(),
            derp_key: self.derp_key_text(),
            derpers: self.derper_views(),
            peers: self.peers.len(),
            time_known: matches!(estimate, Estimate::Running(_)),
            time: estimate.time().to_string(),
            waits_for: self.waits_for(now),
        }
    }

    fn network_view(&self, now: Instant) -> Option<NetworkView> {
        let network = self.network.as_ref()?;
        let id = network.registry.network();
        let member = network.registry.by_member(&network.own.member)?;
        let membership = member.membership;
        Some(NetworkView {
            id: id.to_string(),
            petname: network.petname.to_string(),
            prefix: address::network_prefix(&id).to_string(),
            name: membership.name.to_string(),
            member: membership.member.to_string(),
            address: network.own.node.to_string(),
            site: membership.site.map(altnet_wire::id::SiteId::as_u16),
            site_prefix: self.site_prefix().map(|prefix| prefix.to_string()),
            roles: role_names(membership.roles),
            expires: membership.expires.to_string(),
            expired: self.clock.is_expired(membership.expires, now),
            tunnel_epoch: self.identity.tunnel.epoch,
            tunnel_key: self.identity.tunnel.secret.public().to_string(),
            members: network.registry.members().count(),
            hosts: network.registry.hosts().count(),
            admits: self.issuer.is_some(),
        })
    }

    /// The name of a node, or its id if it has none.
    pub fn name_of(&self, node: NodeId) -> String {
        let registry = self.network.as_ref().map(|network| &network.registry);
        registry
            .and_then(|registry| registry.named(node))
            .map_or_else(|| node.to_string(), |m| m.membership.name.to_string())
    }

    /// The node with this name or address, or that speaks for the host with this name.
    pub fn node_called(&self, text: &str) -> Option<NodeId> {
        let network = self.network.as_ref()?;
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return network.registry.owner_of(address);
        }
        let label = text.split('.').next().unwrap_or(text);
        let name = Name::new(label).ok()?;
        if let Some(member) = network.registry.by_name(&name) {
            return Some(member.id);
        }
        let address = network.registry.host(&name)?.record.address?;
        network.registry.owner_of(address)
    }

    fn relay_views(&self, now: Instant) -> Vec<RelayView> {
        let home = self.homes().next();
        self.relays
            .iter()
            .map(|(node, link)| RelayView {
                name: self.name_of(*node),
                node: node.to_string(),
                address: link.address.map(|address| address.to_string()),
                up: link.token.is_some(),
                observed: link.observed.map(|address| address.to_string()),
                rtt_us: link
                    .session
                    .and_then(|session| self.control.rtt(session))
                    .map(micros),
                home: home == Some(*node),
                carrier: match (link.token.is_some(), link.carriers.by_stream) {
                    (false, _) => "",
                    (true, true) => "tls",
                    (true, false) => "udp",
                }
                .into(),
                load: link.load,
                refused_s: link.refused_until.saturating_since(now).as_secs(),
            })
            .collect()
    }

    fn directory_views(&self) -> Vec<DirectoryView> {
        let Some(network) = &self.network else {
            return Vec::new();
        };
        network
            .registry
            .directories()
            .filter(|member| member.id != network.own.node)
            .map(|member| DirectoryView {
                name: member.membership.name.to_string(),
                node: member.id.to_string(),
                synced: self.peers.get(&member.id).is_some_and(|peer| peer.synced),
            })
            .collect()
    }

    /// What this node waits for, in plain sentences.
    fn waits_for(&self, now: Instant) -> Vec<String> {
        let mut waits = Vec::new();
        let Some(network) = &self.network else {
            waits.push(match &self.joining {
                Some(_) => "for the network's issuer to answer".into(),
                None => "for an invite: join a network with 'altnet join'".into(),
            });
            return waits;
        };
        if network.is_aside() {
            waits.push(
                "for an owner to vouch for this node again, since whoever let it in no longer may; the network's servers are asked"
                    .into(),
            );
        } else if network.registry.relays().next().is_none() {
            waits.push(
                "for a relay: a network needs one reachable relay, and none is known yet".into(),
            );
        }
        if self.policy.rules().is_none() {
            waits.push(
                "for a policy: nothing is allowed until an owner publishes one with 'altnet-provision policy publish'"
                    .into(),
            );
        }
        for (node, link) in &self.relays {
            if link.token.is_none() {
                waits.push(format!("for relay {} to answer", self.name_of(*node)));
            } else if link.refuses(now) {
                waits.push(format!(
                    "for relay {} to forward again: this node has sent as much as it may there, so it forwards nothing more for it; another relay would",
                    self.name_of(*node)
                ));
            }
        }
        for directory in self.directory_views().iter().filter(|d| !d.synced) {
            waits.push(format!("for directory {} to answer", directory.name));
        }
        for (node, peer) in &self.peers {
            let in_use = now.saturating_since(peer.used) < Duration::from_secs(60);
            let up = self
                .engine
                .stats(peer.tunnel.index, now)
                .is_some_and(|stats| stats.is_up);
            if in_use && !peer.wanted && !up {
                waits.push(format!(
                    "for {} to answer ({})",
                    self.name_of(*node),
                    peer.path.why()
                ));
            }
        }
        let expired = network
            .registry
            .by_member(&network.own.member)
            .is_some_and(|own| self.clock.is_expired(own.membership.expires, now));
        if expired {
            waits.push("for its membership to be renewed: it has ended".into());
        }
        waits
    }

    /// Every peer with a tunnel or a path.
    pub fn peer_views(&self, now: Instant) -> Vec<PeerView> {
        self.peers
            .iter()
            .map(|(node, peer)| self.peer_view(*node, peer, now))
            .collect()
    }

    fn peer_view(&self, node: NodeId, peer: &Peer, now: Instant) -> PeerView {
        let stats = self
            .engine
            .stats(peer.tunnel.index, now)
            .unwrap_or_default();
        let record = self.record_of(node);
        let endpoint = peer.path.current();
        let rtt = match endpoint {
            Some(Endpoint::Direct(address)) => peer.path.direct_rtt(address).or(peer.rtt),
            _ => peer.session.and_then(|session| self.control.rtt(session)),
        };
        let site = self
            .network
            .as_ref()
            .and_then(|network| network.registry.by_node(&node))
            .and_then(|member| member.membership.site);
        PeerView {
            name: self.name_of(node),
            node: node.to_string(),
            site: site.map(altnet_wire::id::SiteId::as_u16),
            path: match endpoint {
                Some(Endpoint::Direct(_)) => "direct",
                Some(Endpoint::Relayed { .. }) if peer.path.why() == Why::Derp => "derp",
                Some(Endpoint::Relayed { .. }) if peer.path.is_foreign() => "turn",
                Some(Endpoint::Relayed { .. }) => "relay",
                None => "none",
            },
            endpoint: endpoint.map(|endpoint| self.endpoint_text(endpoint)),
            why: peer.path.why().id(),
            why_text: peer.path.why().to_string(),
            rtt_us: rtt.map(micros),
            tunnel_up: stats.is_up,
            last_handshake_s: stats
                .last_handshake
                .map(|at| now.saturating_since(at).as_secs()),
            tx_bytes: stats.tx_bytes,
            rx_bytes: stats.rx_bytes,
            tunnel_epoch: record.map_or(0, |record| record.tunnel.epoch),
            mtu_bytes: self.inner_mtu(node),
            datagram_bytes: peer.mtu.found(),
            in_pieces: peer.mtu.is_cut(),
        }
    }

    /// Every record held.
    pub fn record_views(&self) -> Vec<RecordView> {
        let Some(network) = &self.network else {
            return Vec::new();
        };
        network
            .registry
            .iter()
            .filter_map(|(slot, bytes)| {
                let envelope = Envelope::parse(bytes).ok()?;
                let header = envelope.header();
                Some(RecordView {
                    kind: header.kind.name(),
                    id: envelope.id().to_string(),
                    signer: header.signer.to_string(),
                    serial: header.serial.0,
                    bytes: bytes.len(),
                    text: self
                        .record_text(&envelope)
                        .unwrap_or_else(|| slot.to_string()),
                })
            })
            .collect()
    }

    fn record_text(&self, envelope: &Envelope<'_>) -> Option<String> {
        use altnet_wire::envelope::RecordKind;
        use altnet_wire::record::{self, HostRecord, Invite, Membership, NetworkHead, Revocation};
        let body = envelope.body();
        Some(match envelope.header().kind {
            RecordKind::MEMBERSHIP => {
                let body: Membership = record::decode(body).ok()?;
                let roles = role_names(body.roles).join(", ");
                format!("{} ({roles}) until {}", body.name, body.expires)
            }
            RecordKind::HOST => {
                let body: HostRecord = record::decode(body).ok()?;
                match body.address {
                    Some(address) => format!("{} in site {} at {address}", body.name, body.site),
                    None => format!("{} in site {} was given up", body.name, body.site),
                }
            }
            RecordKind::NODE => {
                let device = envelope.header().signer;
                let network = self.network.as_ref()?;
                let member = network.registry.by_device(&device)?;
                format!("keys of {}", member.membership.name)
            }
            RecordKind::DERP => {
                let device = envelope.header().signer;
                let network = self.network.as_ref()?;
                let member = network.registry.by_device(&device)?;
                format!("the key of {} at DERP servers", member.membership.name)
            }
            RecordKind::INVITE => {
                let body: Invite = record::decode(body).ok()?;
                let name = body
                    .name
                    .map_or_else(|| "a device".into(), |n| n.to_string());
                format!("invites {name}, {} uses, until {}", body.uses, body.expires)
            }
            RecordKind::REVOCATION => {
                let body: Revocation = record::decode(body).ok()?;
                format!("since {}: {}", body.issued, body.reason)
            }
            RecordKind::NETWORK_HEAD => {
                let body: NetworkHead = record::decode(body).ok()?;
                format!("{} revocations at {}", body.revocation_count, body.issued)
            }
            _ => return None,
        })
    }

    /// Walks through every step of reaching `target`: a name, a name under `.alt`, or an
    /// address.
    pub fn why(&self, target: &str, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut step = |question, ok, answer: String| {
            steps.push(Step {
                question,
                ok,
                answer,
            });
            ok
        };
        let Some(network) = &self.network else {
            step("member", false, "this node is in no network".into());
            return steps;
        };
        let petname = &network.petname;
        step(
            "member",
            true,
            format!("this node is a member of {petname}"),
        );
        let address = network.address_called(target);
        let Some(address) = address else {
            let text = format!("no host, app or member is called {target}");
            step("name", false, text);
            return steps;
        };
        step("name", true, format!("{target} is {address}"));
        let subject = network.registry.by_address(address);
        let what = network.describe(address);
        if !step("address", subject.is_some(), what) {
            return steps;
        }
        let member = subject.as_ref().and_then(Subject::member);
        let Some(member) = member else {
            step("gateway", false, "its site has no gateway".into());
            return steps;
        };
        let name = member.membership.name.to_string();
        if member.id == network.own.node {
            step("gateway", true, "this node speaks for it".into());
            return steps;
        }
        step("gateway", true, format!("{name} speaks for it"));
        let source = self
            .site_prefix()
            .map_or(network.own.node.address(), |prefix| prefix.address());
        let (allowed, text) = self.services_text(source, address, now);
        step("policy", allowed, text);
        let Some(peer) = self.peers.get(&member.id) else {
            let known = member.node.is_some();
            let text = if known {
                format!("nothing was sent to {name} yet; a path is sought at the first packet")
            } else {
                format!("{name} has not said its keys yet; is it running?")
            };
            step("path", known, text);
            return steps;
        };
        let text = match peer.path.current() {
            Some(endpoint) => {
                format!("{} ({})", peer.path.why(), self.endpoint_text(endpoint))
            }
            None => peer.path.why().to_string(),
        };
        step("path", peer.path.current().is_some(), text);
        if let Some(relays) = self.relays_text(member.id, peer) {
            step("relays", true, relays);
        }
        let stats = self
            .engine
            .stats(peer.tunnel.index, now)
            .unwrap_or_default();
        let text = match (stats.is_up, stats.last_handshake) {
            (true, Some(at)) => {
                format!(
                    "up, last handshake {} s ago",
                    now.saturating_since(at).as_secs()
                )
            }
            _ => format!("{name} has not answered a handshake"),
        };
        step("tunnel", stats.is_up, text);
        step("size", true, self.size_text(member.id));
        step("nat", true, self.nats_text(peer));
        let is_direct = peer.path.current().is_some_and(|to| to.direct().is_some());
        step("addresses", is_direct, self.tried_text(peer));
        if let Some(advice) = self.advice(member.id, peer) {
            step("better", false, advice);
        }
        steps
    }
}
