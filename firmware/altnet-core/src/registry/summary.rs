//! How far the network has come here, and whether somebody has come further.

use alloc::vec::Vec;

use altnet_wire::envelope::RecordKind;
use altnet_wire::hash::{self, Hash};
use altnet_wire::id::{RecordId, Serial, SigningKey};

use super::held::Body;
use super::{Registry, Slot};

/// What a [`altnet_wire::record::NetworkHead`] says of the registry it was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Hash over the ids of the revocations in force, in ascending order.
    pub revocations: Hash,
    /// How many they are.
    pub revocation_count: u32,
    /// The id of the policy in force, zero if none.
    pub policy: Hash,
    /// The serial of that policy, 0 if none.
    pub policy_serial: Serial,
    /// Serial of the last owner change in force.
    pub owner_serial: u64,
}

/// The part of a [`Summary`] that has to be gathered: kept, so that asking costs nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Revocations {
    hash: Hash,
    count: u32,
}

impl Revocations {
    /// Over the ids of revocations, in any order.
    pub(super) fn of(ids: impl Iterator<Item = RecordId>) -> Self {
        let mut ids: Vec<RecordId> = ids.collect();
        ids.sort_unstable();
        let parts: Vec<&[u8]> = ids.iter().map(|id| &id.0[..]).collect();
        Self {
            hash: hash::labelled("altnet revocations v1", &parts),
            count: u32::try_from(ids.len()).unwrap_or(u32::MAX),
        }
    }
}

impl Registry {
    /// What a head signed now would say. Asking costs nothing that grows.
    pub fn summary(&self) -> Summary {
        let policy = self.in_force(&Slot::POLICY);
        Summary {
            revocations: self.revocations.hash,
            revocation_count: self.revocations.count,
            policy: policy.map_or([0; hash::HASH_BYTES], |held| held.id.0),
            policy_serial: policy.map_or(Serial(0), |held| held.header.serial),
            owner_serial: self.owner_head().1.0,
        }
    }

    /// Gathers the revocations in force anew.
    pub(super) fn sum_up(&mut self) {
        let revocations = self
            .all(RecordKind::REVOCATION)
            .filter(|held| matches!(held.body, Body::Revocation(_)));
        self.revocations = Revocations::of(revocations.map(|held| held.id));
    }

    /// Whether some head in force tells of more revocations, a later policy or a later owner change
    /// than are held: there is something to fetch before delivering. A policy that is held and
    /// stands aside, since its signer may no longer sign it, is not fetched again.
    pub fn is_behind(&self) -> bool {
        let own = self.summary();
        let held = self.records.get(&Slot::POLICY);
        let policy_serial = held.map_or(Serial(0), |held| held.header.serial);
        // More than there is room for can't be fetched; that it was refused is counted elsewhere.
        let is_full = own.revocation_count >= u32::from(self.limits().revocations);
        let speaks = |signer: &SigningKey| self.is_owner(signer) || self.issuer(signer).is_some();
        self.heads()
            .filter(|(signer, _, _)| speaks(signer))
            .any(|(_, _, head)| {
                head.owner_serial > own.owner_serial
                    || head.policy_serial > policy_serial
                    || (!is_full && head.revocation_count > own.revocation_count)
            })
    }
}
