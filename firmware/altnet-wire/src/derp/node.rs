//! Nodes of altnet where a relay has keys of clients: a relay of ours carries datagrams for a node by
//! the node's id, whatever its client's key is, and knows itself by its own.

use super::PublicKey;
use crate::id::NodeId;

/// What follows a node's id where a key would be. Nobody finds a key that ends so by chance.
const LABEL: [u8; 16] = *b"altnet node v1\0\0";

/// Where a key would be, for a datagram to or from `node`.
pub fn key_of(node: NodeId) -> PublicKey {
    let mut key = [0; 32];
    let (id, label) = key.split_at_mut(node.0.len());
    id.copy_from_slice(&node.0);
    label.copy_from_slice(&LABEL);
    PublicKey(key)
}

/// The node that is meant, if it isn't a client's key.
pub fn node_of(key: &PublicKey) -> Option<NodeId> {
    let id = key.0.strip_suffix(&LABEL)?;
    Some(NodeId(id.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_told_from_every_other_key() {
        let node = NodeId([0xfd; 16]);
        assert_eq!(node_of(&key_of(node)), Some(node));
        assert_eq!(node_of(&PublicKey([7; 32])), None);
    }
}
