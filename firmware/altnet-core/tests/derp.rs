//! Keys for DERP servers of others: who may publish one, and whose one is.

mod common;

use altnet_core::limits::Limits;
use altnet_core::registry::{Missing, RecordError};
use altnet_wire::address::node_id;
use altnet_wire::derp::PublicKey;
use altnet_wire::record::{DerpRecord, RevocationTarget};
use common::*;

const KEY: PublicKey = PublicKey([7; 32]);

#[test]
fn a_member_publishes_its_key_until_it_is_put_out() {
    let town = Town::new();
    let mut registry = town.registry(Limits::ROUTER);
    let device = secret(20);
    let node = node_id(&registry.network(), &device.public());
    let record = town.sign(&device, &DerpRecord { key: KEY.0 }, 1);
    for bytes in town.certificates() {
        registry.apply(&bytes, &mut clock()).unwrap();
    }
    let stranger = registry.apply(&record, &mut clock()).unwrap_err();
    let missing = Missing::Device(device.public());
    assert_eq!(stranger, RecordError::Missing(missing));
    let membership = town.membership(1, &device, "alpha");
    let membership = town.sign(&town.issuer, &membership, 1);
    for bytes in [&membership, &record] {
        registry.apply(bytes, &mut clock()).unwrap();
    }
    assert_eq!(registry.derp_key(node), Some(KEY));
    assert_eq!(registry.node_by_derp_key(&KEY), Some(node));

    let newer = town.sign(&device, &DerpRecord { key: [8; 32] }, 2);
    registry.apply(&newer, &mut clock()).unwrap();
    assert_eq!(registry.derp_key(node), Some(PublicKey([8; 32])));
    assert_eq!(registry.node_by_derp_key(&KEY), None);
    assert!(
        registry.apply(&record, &mut clock()).is_err(),
        "an older one"
    );

    let out = town.revocation(RevocationTarget::Device(device.public()), 9);
    let out = town.sign(&town.owner, &out, 1);
    registry.apply(&out, &mut clock()).unwrap();
    assert_eq!(registry.derp_key(node), None);
    assert_eq!(registry.node_by_derp_key(&PublicKey([8; 32])), None);
    assert!(registry.apply(&newer, &mut clock()).is_err());
}
