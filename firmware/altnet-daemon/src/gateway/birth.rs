//! Making a node of what is kept, or of nothing.

use altnet_core::node::{self, Node, Stored};
use altnet_wire::time::UnixTime;
use anyhow::Context as _;
use zeroize::{Zeroize, Zeroizing};

use crate::aead::RingAead;
use crate::config::Config;
use crate::store::directory::Directory;
use crate::store::{Store, StoreError};
use crate::{clock, log};

/// The build's own moment: a calendar before it is wrong. Seconds since 1970, given by release
/// builds as `SOURCE_DATE_EPOCH`.
const BUILT_S: Option<&str> = option_env!("SOURCE_DATE_EPOCH");
/// No altnetd was built before: 2026-11-01.
const EARLIEST_BUILD: UnixTime = UnixTime::from_secs(1_793_491_200);

/// Reads everything that is kept.
///
/// # Errors
/// The directory or the keys can't be read. What else is damaged is passed over.
pub fn load(store: &Store<Directory>) -> Result<Stored, StoreError> {
    let mut stored = Stored::new();
    for slot in store.slots()? {
        match store.load(&slot) {
            Ok(Some(mut bytes)) => {
                stored.insert(slot, std::mem::take(&mut *bytes));
            }
            Ok(None) => {}
            // Records come back from a directory; the device's keys do not.
            Err(e) if slot == "identity" => return Err(e),
            Err(e) => crate::warning!("going on without it: {}", log::chain(&e)),
        }
    }
    Ok(stored)
}

/// Makes the node that `stored` describes; of nothing, a device that nobody has seen.
///
/// # Errors
/// The keys can't be understood, or the system gives no random numbers.
pub fn make_node(config: &Config, mut stored: Stored) -> anyhow::Result<Node<RingAead>> {
    let built = BUILT_S.and_then(|text| text.parse().ok());
    let built = built.map_or(EARLIEST_BUILD, UnixTime::from_secs);
    let mut node = node::Config::router(built.max(EARLIEST_BUILD));
    node.petname.clone_from(&config.network.petname);
    node.limits.relay_clients = config.relay.clients;
    node.quotas = config.relay.quotas();
    node.has_login_page = config.login.group.is_some();
    node.metered = config.metered;
    node.relays_for_lan = config.relay.lan;
    node.engine.mtu_bytes = config.tun.mtu_bytes;
    node.fixed_endpoints = config.public_addresses.iter().copied().collect();
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).context("the system gives no random numbers")?;
    let made = Node::new(node, &stored, *seed, clock::now());
    for bytes in stored.values_mut() {
        bytes.zeroize();
    }
    Ok(made?)
}
