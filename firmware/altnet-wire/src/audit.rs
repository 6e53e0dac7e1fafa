//! The head of an audit log: what its device signs, and what a witness says of it.
//!
//! A log is a chain of hashes. Its head, a sequence number and the hash there, stands for every
//! entry up to it: whoever has seen a head notices when anything before it is another. Plain
//! data; what an entry holds is `altnet-core`'s.

use serde::{Deserialize, Serialize};

use crate::hash::{HASH_BYTES, Hash, labelled};
use crate::id::{NetworkId, SigningKey};
use crate::message::SignatureHalves;
use crate::time::UnixTime;

/// Most digests in one request: half an hour of a busy log, and three quarters of a message.
pub const MAX_DIGESTS: usize = 448;

/// Where the chain stands before the first entry.
pub const NO_ENTRIES: Hash = [0; HASH_BYTES];

/// How far a log has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// The number of the last entry; the first is 1.
    pub sequence: u64,
    /// The chain's hash there.
    pub hash: Hash,
    /// When that was, by the log's own clock.
    pub time: UnixTime,
}

impl AuditHead {
    /// What the log's device signs.
    pub fn proof(&self, network: &NetworkId, device: &SigningKey) -> Hash {
        let parts = [&network.0[..], &device.0, &self.to_bytes()];
        labelled("altnet audit head v1", &parts)
    }

    fn to_bytes(self) -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..40].copy_from_slice(&self.hash);
        bytes[40..].copy_from_slice(&self.time.as_secs().to_be_bytes());
        bytes
    }
}

/// A head with its device's signature over [`AuditHead::proof`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHead {
    /// The head.
    pub head: AuditHead,
    /// The signature.
    pub signature: SignatureHalves,
}

/// A witness's word for a head: it holds no other line of that log, and will take none that
/// does not go on from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testimony {
    /// The sequence since which the log was shown to it step by step. What is before is held by
    /// the hash alone.
    pub since: u64,
    /// When it said so, by its own clock; [`UnixTime::EPOCH`] if it does not know the time.
    pub at: UnixTime,
    /// Its device key's signature over [`Testimony::proof`].
    pub signature: SignatureHalves,
}

impl Testimony {
    /// What the device key of `witness` signs about the log of `device`.
    pub fn proof(
        network: &NetworkId,
        device: &SigningKey,
        head: &AuditHead,
        since: u64,
        at: UnixTime,
        witness: &SigningKey,
    ) -> Hash {
        let parts = [
            &network.0[..],
            &device.0,
            &head.to_bytes(),
            &since.to_be_bytes(),
            &at.as_secs().to_be_bytes(),
            &witness.0,
        ];
        labelled("altnet audit witness v1", &parts)
    }
}

/// What stands for one entry in the chain: enough to follow it, and shows nothing of what the
/// entry says to whoever can't guess all of it.
pub fn digest(entry: &[u8]) -> Hash {
    labelled("altnet audit entry v1", &[entry])
}

/// The chain's hash after the entry with this digest.
pub fn next(previous: &Hash, digest: &Hash) -> Hash {
    labelled("altnet audit chain v1", &[previous, digest])
}

/// The chain's hash after the entries with these digests, one after the other.
pub fn follow(from: &Hash, digests: &[u8]) -> Hash {
    let (digests, _) = digests.as_chunks::<HASH_BYTES>();
    digests
        .iter()
        .fold(*from, |hash, digest| next(&hash, digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: AuditHead = AuditHead {
        sequence: 7,
        hash: [1; 32],
        time: UnixTime::from_secs(9),
    };

    #[test]
    fn a_head_is_signed_with_everything_it_says() {
        let (network, device) = (NetworkId([2; 32]), SigningKey([3; 32]));
        let proof = HEAD.proof(&network, &device);
        let others = [
            AuditHead {
                sequence: 8,
                ..HEAD
            },
            AuditHead {
                hash: [2; 32],
                ..HEAD
            },
            AuditHead {
                time: UnixTime::EPOCH,
                ..HEAD
            },
        ];
        for other in others {
            assert_ne!(other.proof(&network, &device), proof);
        }
        assert_ne!(HEAD.proof(&NetworkId([3; 32]), &device), proof);
        assert_ne!(HEAD.proof(&network, &SigningKey([2; 32])), proof);
    }

    #[test]
    fn a_testimony_is_for_one_witness_and_moment() {
        let (network, device) = (NetworkId([2; 32]), SigningKey([3; 32]));
        let say = |since, at, witness: u8| {
            let at = UnixTime::from_secs(at);
            Testimony::proof(
                &network,
                &device,
                &HEAD,
                since,
                at,
                &SigningKey([witness; 32]),
            )
        };
        let proof = say(1, 2, 4);
        for other in [say(2, 2, 4), say(1, 3, 4), say(1, 2, 5)] {
            assert_ne!(other, proof);
        }
        assert_ne!(HEAD.proof(&network, &device), proof);
    }

    #[test]
    fn the_chain_depends_on_every_entry_and_their_order() {
        let (a, b) = (digest(b"a"), digest(b"b"));
        let both = follow(&NO_ENTRIES, [a, b].as_flattened());
        assert_eq!(both, next(&next(&NO_ENTRIES, &a), &b));
        assert_ne!(both, follow(&NO_ENTRIES, [b, a].as_flattened()));
        assert_ne!(both, follow(&NO_ENTRIES, &a));
        assert_eq!(follow(&both, &[]), both);
    }
}
