//! Direct addresses that stood for a while, kept on disk: how members find each other again when
//! no relay or directory is up.

use core::net::SocketAddr;

use altnet_tunnel::aead::Aead;
use altnet_wire::id::NodeId;
use altnet_wire::time::{Duration, Instant};

use super::Stored;
use super::{Node, Slot};
use crate::path::Why;

/// A direct address that stood this long is worth a write to disk.
const LASTING: Duration = Duration::from_secs(60);

/// The first of a peer's is worth one sooner: with none, nobody is found after a restart.
const LASTING_FIRST: Duration = Duration::from_secs(3);

/// A peer's lasting address is written to disk at most this often.
const KEEP_AGAIN: Duration = Duration::from_secs(3600);

impl<A: Aead> Node<A> {
    pub(super) fn load_paths(&mut self, stored: &Stored) {
        for (name, bytes) in stored {
            let Some(text) = name.strip_prefix("path-") else {
                continue;
            };
            let mut node = [0; 16];
            if altnet_wire::id::base32_parse(text, &mut node).is_ok()
                && let Ok(address) = postcard::from_bytes::<SocketAddr>(bytes)
            {
                self.last_paths.insert(NodeId(node), address);
            }
        }
    }

    pub(super) fn keep_last_path(&mut self, node: NodeId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let Some((address, since)) = peer.direct_since else {
            return;
        };
        let network = self.network.as_ref();
        let record = network.and_then(|network| network.registry.node_record(node));
        if record.is_some_and(|record| record.fixed_endpoints.contains(&address)) {
            // Its own record says so already.
            return;
        }
        let is_answered = matches!(peer.path.why(), Why::DirectAnswered(_));
        let stood = now.saturating_since(since);
        let is_first = !self.last_paths.contains_key(&node);
        let is_lasting = stood >= LASTING || (is_first && stood >= LASTING_FIRST);
        if !is_lasting {
            self.timers
                .housekeeping_at(since.after(LASTING_FIRST).max(now.after(LASTING_FIRST)));
        }
        let is_kept = self.last_paths.get(&node) == Some(&address);
        let again = |kept| now.saturating_since(kept) >= KEEP_AGAIN;
        if !is_answered || !is_lasting || is_kept || !peer.path_kept.is_none_or(again) {
            return;
        }
        peer.path_kept = Some(now);
        if !self.last_paths.contains_key(&node)
            && self.last_paths.len() >= usize::from(self.config.limits.peers)
        {
            let mut kept = self.last_paths.keys();
            let Some(old) = kept.find(|old| !self.peers.contains_key(old)).copied() else {
                return;
            };
            self.forget_last_path(old);
        }
        self.last_paths.insert(node, address);
        self.saves.changed(Slot::LastPath(node));
    }

    /// Forgets, also on disk, where a member was: it is none any more.
    pub(super) fn forget_last_path(&mut self, node: NodeId) {
        if self.last_paths.remove(&node).is_some() {
            self.saves.changed(Slot::LastPath(node));
        }
    }
}
