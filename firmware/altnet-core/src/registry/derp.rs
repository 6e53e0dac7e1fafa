//! By which keys other people's DERP servers know devices.

use altnet_wire::derp::PublicKey;
use altnet_wire::envelope::RecordKind;
use altnet_wire::id::NodeId;

use super::held::Body;
use super::{Registry, Slot};

impl Registry {
    /// The key that a member published.
    pub fn derp_key(&self, node: NodeId) -> Option<PublicKey> {
        let device = self.by_node(&node)?.membership.device;
        match &self.in_force(&Slot::derp(device))?.body {
            Body::Derp(body) => Some(PublicKey(body.key)),
            _ => None,
        }
    }

    /// The first member that published this key, in the order of devices.
    pub fn node_by_derp_key(&self, key: &PublicKey) -> Option<NodeId> {
        let mut all = self.all(RecordKind::DERP);
        let is_its = |body: &Body| matches!(body, Body::Derp(body) if body.key == key.0);
        let held = all.find(|held| is_its(&held.body))?;
        Some(self.by_device(&held.header.signer)?.id)
    }
}
