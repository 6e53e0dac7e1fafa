//! Directories this node follows and tells what is its own, and the relays it is linked to.

use alloc::vec::Vec;

use altnet_tunnel::aead::Aead;
use altnet_wire::id::NodeId;
use altnet_wire::message::{Cursor, Request};
use altnet_wire::record::Roles;
use altnet_wire::time::{Duration, Instant};

use super::intake::Carrier;
use super::membership::pack_into;
use super::peers::Peer;
use super::requests::PAGE_BYTES;
use super::sessions::Asked;
use super::{Deferred, Event, Node};
use crate::control::SessionId;

/// The first pause before what was refused is announced again; it doubles.
pub(super) const ANNOUNCE_AGAIN: Duration = Duration::from_secs(30);
const ANNOUNCE_MOST: Duration = Duration::from_secs(3600);

impl<A: Aead> Node<A> {
    fn is_directory(&self, node: NodeId) -> bool {
        let member = self
            .network
            .as_ref()
            .and_then(|n| n.registry.by_node(&node));
        member.is_some_and(|member| member.membership.roles.contains(Roles::DIRECTORY))
    }

    /// A member's session stands: if it is a directory, it is followed, and told what is ours.
    pub(super) fn follow_directory(&mut self, session: SessionId, node: NodeId, now: Instant) {
        if !self.is_directory(node) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.follows = true;
            peer.subscribe_at = None;
        }
        // A cursor is one directory's; another is asked for everything.
        let cursor = if self.cursor_of == Some(node) {
            self.cursor
        } else {
            Cursor::default()
        };
        self.ask(
            session,
            &Request::Subscribe { cursor },
            Asked::Subscribe(node),
            now,
        );
        self.announce_to(session, node, now);
    }

    /// Announces this node over the session it joined by, which ends with the answer.
    pub(super) fn introduce_own(&mut self, session: SessionId, now: Instant) {
        let Some(network) = &self.network else {
            return;
        };
        let records = network.pack_chain();
        let request = Request::Announce { records: &records };
        self.ask(session, &request, Asked::IntroduceOwn, now);
    }

    /// Announces what this node signed to every directory it has a session with.
    pub(super) fn announce_own(&mut self, now: Instant) {
        let sessions: Vec<(NodeId, SessionId)> = self
            .peers
            .iter()
            .filter_map(|(node, peer)| Some((*node, peer.session?)))
            .filter(|(_, session)| self.sessions.get(session).is_some_and(|s| s.greeted))
            .collect();
        for (node, session) in sessions {
            self.announce_to(session, node, now);
        }
    }

    fn announce_to(&mut self, session: SessionId, node: NodeId, now: Instant) {
        let Some(network) = &self.network else {
            return;
        };
        let mut pages = Vec::new();
        let mut records = network.pack_chain();
        for (slot, bytes) in network.registry.iter() {
            use altnet_wire::envelope::RecordKind;
            let is_said = match slot.kind() {
                RecordKind::HOST | RecordKind::APP | RecordKind::INVITE | RecordKind::DERP => true,
                // What is asked for an app that is gone would be refused, and said again.
                RecordKind::TLS_REQUEST => {
                    let subject = altnet_wire::id::SigningKey(*slot.subject());
                    network.registry.tls_request(&subject).is_some()
                }
                _ => false,
            };
            let ours = is_said
                && altnet_wire::envelope::Envelope::parse(bytes)
                    .is_ok_and(|envelope| envelope.header().signer == network.own.device);
            if !ours {
                continue;
            }
            if records.len() + bytes.len() + 3 >= PAGE_BYTES {
                pages.push(core::mem::take(&mut records));
            }
            pack_into(bytes, &mut records);
        }
        for page in pages {
            // Heard is what was said once the last page is.
            let request = Request::Announce { records: &page };
            self.ask(session, &request, Asked::Announce(node, 0), now);
        }
        let request = Request::Announce { records: &records };
        let asked = Asked::Announce(node, self.unheard.count());
        self.ask(session, &request, asked, now);
    }

    /// A directory, or another member, has what we announced on its disk, but for what it
    /// refused: that is announced again later, for it may have been too much at once.
    pub(super) fn announced(&mut self, node: NodeId, said: u32, refused: u16, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&node) {
            // A page that was taken says nothing of the one before that was not.
            if refused > 0 || peer.announce_at.is_some() {
                let again = now.after(peer.announce_pause);
                let again = *peer.announce_at.get_or_insert(again);
                self.timers.housekeeping_at(again);
                return;
            }
            peer.announce_pause = ANNOUNCE_AGAIN;
        }
        if self.is_directory(node) {
            self.unheard.heard(said);
        }
        // Whoever holds our newest record expects our newest key.
        if let Some(peer) = self.peers.get(&node) {
            let _ = self
                .engine
                .set_peer_local_key(peer.tunnel.index, self.local_key);
        }
        self.timers.housekeeping_at(now);
    }

    /// Records from a directory we follow.
    pub(super) fn followed(
        &mut self,
        directory: NodeId,
        records: &[u8],
        cursor: Cursor,
        more: bool,
        now: Instant,
    ) {
        self.take_records(records, Carrier::Directory, now);
        let keeps = self.cursor_of.is_none_or(|of| {
            let directory_still = self.network.as_ref().and_then(|n| n.registry.by_node(&of));
            of == directory
                || !directory_still.is_some_and(|m| m.membership.roles.contains(Roles::DIRECTORY))
        });
        if keeps && cursor != self.cursor && !records.is_empty() {
            // Never ahead of the records on disk: what it passes over isn't sent again.
            self.after_save(Deferred::Cursor(directory, cursor), now);
        }
        if let Some(peer) = self.peers.get_mut(&directory)
            && !more
            && !core::mem::replace(&mut peer.synced, true)
        {
            self.tell(Event::DirectorySynced { directory });
        }
    }

    pub(super) fn directory_lost(&mut self, directory: NodeId) {
        if let Some(peer) = self.peers.get_mut(&directory)
            && core::mem::replace(&mut peer.synced, false)
        {
            self.tell(Event::DirectoryLost { directory });
        }
    }

    /// Connects to every relay and directory there is room for, and lets go of those that
    /// are none any more.
    pub(super) fn link_relays(&mut self, now: Instant) {
        let Some(network) = &self.network else {
            return;
        };
        let most = usize::from(self.config.limits.relays);
        let own = network.own.node;
        let mesh = self.mesh_relays();
        let mut servers: Vec<(NodeId, Roles)> = network
            .registry
            .servers()
            .filter(|m| m.id != own && m.node.is_some_and(|n| !n.fixed_endpoints.is_empty()))
            .map(|m| (m.id, m.membership.roles))
            .collect();
        servers.sort_by_key(|(node, _)| !mesh.contains(node));
        servers.truncate(mesh.len() + most);
        servers.extend(self.nearby.relays().map(|node| (node, Roles::RELAY)));
        let gone: Vec<NodeId> = self
            .relays
            .keys()
            .filter(|node| {
                !servers
                    .iter()
                    .any(|(n, r)| n == *node && r.contains(Roles::RELAY))
            })
            .copied()
            .collect();
        for node in gone {
            self.relay_lost(node, now);
            self.relays.remove(&node);
        }
        for (node, peer) in &mut self.peers {
            peer.wanted = peer.wanted && servers.iter().any(|(server, _)| server == node);
        }
        for (node, roles) in servers {
            if self.meet(node, now).is_none() {
                continue;
            }
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.wanted = true;
            }
            if roles.contains(Roles::RELAY) && !self.relays.contains_key(&node) {
                let session = self.peers.get(&node).and_then(|peer| peer.session);
                let address = self.address_of(node);
                let link = self.relays.entry(node).or_default();
                link.address = address;
                link.session = session.filter(|s| self.sessions.get(s).is_some_and(|s| s.greeted));
                link.renew = now;
                link.carriers.since = now;
            }
        }
        self.set_mesh(&mesh, now);
        self.timers.housekeeping_at(now);
        self.publish_node(now);
    }

    /// Announces again to those that refused something.
    pub(super) fn tend_announcements(&mut self, now: Instant) {
        let due = |peer: &Peer| peer.announce_at.is_some_and(|at| at <= now);
        while let Some((node, peer)) = self.peers.iter_mut().find(|(_, peer)| due(peer)) {
            let node = *node;
            peer.announce_at = None;
            peer.announce_pause = (peer.announce_pause * 2).min(ANNOUNCE_MOST);
            if let Some(session) = self.stands(node) {
                self.announce_to(session, node, now);
            }
        }
        let next = self.peers.values().filter_map(|peer| peer.announce_at);
        if let Some(next) = next.min() {
            self.timers.housekeeping_at(next);
        }
    }

    /// Asks directories again that were busy.
    pub(super) fn tend_subscriptions(&mut self, now: Instant) {
        let due: Vec<(NodeId, SessionId)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.subscribe_at.is_some_and(|at| at <= now))
            .filter_map(|(node, peer)| Some((*node, peer.session?)))
            .collect();
        for (node, session) in due {
            self.follow_directory(session, node, now);
        }
    }
}
