//! How a node finds out whom the NAT before it lets in (RFC 4787 section 5), with the help of relays.
//!
//! ```text
//! Show  0x1a | 0 0 0 | proof 16 | zeros 140    from a port that has sent nothing before, to a relay
//! Knock 0x1b | 0 0 0 | proof 16                to where the relay saw that Show, from three places
//! ```
//! A proof is the first half of `H("altnet knock v1", key, origin u8)`; the key is one trial's, made at random
//! and said to the relay inside the session. So nobody on the way of a `Show` can tell what the knocks will
//! look like. All three knocks together are shorter than the `Show` that they answer, headers of IPv6 and UDP with them.

use serde::{Deserialize, Serialize};

use crate::frame::{Frame, NoRoom};
use crate::hash::{self, HASH_BYTES};

/// First byte of a datagram that shows a relay one of the sender's ports.
pub const SHOW: u8 = 0x1a;
/// First byte of one that tries whether it is let in.
pub const KNOCK: u8 = 0x1b;
/// Length of a `Show` in bytes: with its headers no shorter than the three knocks for it with theirs.
pub const SHOW_BYTES: usize = 160;
/// Length of a `Knock` in bytes.
pub const KNOCK_BYTES: usize = HEADER_BYTES + PROOF_BYTES;

const HEADER_BYTES: usize = 4;
const PROOF_BYTES: usize = HASH_BYTES / 2;
/// What a `Show`'s proof is made of.
const SHOWN: u8 = 0;

/// What the proofs of one trial are made of.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub [u8; 16]);

impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// From where a knock comes, as whoever showed a port to a relay sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The address and port that the `Show` went to. Any NAT lets that in.
    Same,
    /// Another port of that address.
    OtherPort,
    /// Another relay, which that port has sent nothing.
    OtherAddress,
}

impl Origin {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Same, Self::OtherPort, Self::OtherAddress];

    const fn byte(self) -> u8 {
        match self {
            Self::Same => 1,
            Self::OtherPort => 2,
            Self::OtherAddress => 3,
        }
    }
}

/// What only who knows the key could have made.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Proof(pub [u8; PROOF_BYTES]);

impl core::fmt::Debug for Proof {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Proof(..)")
    }
}

impl PartialEq for Proof {
    /// In the same time, wherever they differ.
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(other.0);
        pairs.fold(0, |sum, (one, other)| sum | (one ^ other)) == 0
    }
}

impl Eq for Proof {}

impl Key {
    /// What a `Show` of this trial bears.
    pub fn shown(&self) -> Proof {
        self.proof(SHOWN)
    }

    /// What a knock of this trial bears that comes from there.
    pub fn knock(&self, origin: Origin) -> Proof {
        self.proof(origin.byte())
    }

    fn proof(&self, byte: u8) -> Proof {
        let hash = hash::labelled("altnet knock v1", &[&self.0, &[byte]]);
        let mut proof = [0; PROOF_BYTES];
        for (out, byte) in proof.iter_mut().zip(hash) {
            *out = byte;
        }
        Proof(proof)
    }
}

/// One of the two, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knocking {
    /// Somebody shows a port.
    Show(Proof),
    /// Somebody tries whether it is let in.
    Knock(Proof),
}

impl Knocking {
    /// Reads a datagram; nothing of any that [`Knocking::write`] doesn't write.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let (&[kind, 0, 0, 0], rest) = datagram.split_first_chunk::<HEADER_BYTES>()? else {
            return None;
        };
        let (proof, rest) = rest.split_first_chunk::<PROOF_BYTES>()?;
        let proof = Proof(*proof);
        match (kind, datagram.len()) {
            (SHOW, SHOW_BYTES) if rest.iter().all(|byte| *byte == 0) => Some(Self::Show(proof)),
            (KNOCK, KNOCK_BYTES) => Some(Self::Knock(proof)),
            _ => None,
        }
    }

    /// Writes the datagram into the frame.
    ///
    /// # Errors
    /// [`NoRoom`] if the frame has none.
    pub fn write(&self, frame: &mut Frame<'_>) -> Result<(), NoRoom> {
        let (kind, length, proof) = match self {
            Self::Show(proof) => (SHOW, SHOW_BYTES, proof),
            Self::Knock(proof) => (KNOCK, KNOCK_BYTES, proof),
        };
        frame.clear();
        frame.set_len(length)?;
        let out = frame.packet_mut();
        out.fill(0);
        if let Some((header, rest)) = out.split_first_chunk_mut::<HEADER_BYTES>() {
            *header = [kind, 0, 0, 0];
            if let Some(out) = rest.first_chunk_mut::<PROOF_BYTES>() {
                *out = proof.0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FRAME_BYTES;
    use proptest::prelude::*;
    use std::vec::Vec;

    const PROOFS: [u128; 4] = [
        0x47e4_bfc8_b61c_7847_983f_66ea_535d_cd24,
        0xc662_6388_bfdc_afeb_2a6c_1094_d23d_3393,
        0x2e4d_08d4_3384_6a9b_db46_5ff6_c3f8_afec,
        0xe1f7_923f_28e2_249d_33a9_8645_7edf_ed10,
    ];

    fn written(knocking: Knocking) -> Vec<u8> {
        let mut buffer = [0xff; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        knocking.write(&mut frame).unwrap();
        frame.packet().to_vec()
    }

    #[test]
    fn both_keep_their_exact_bytes() {
        let key = Key([7; 16]);
        let show = written(Knocking::Show(key.shown()));
        let expected = [&[0x1a, 0, 0, 0][..], &key.shown().0, &[0; 140]].concat();
        assert_eq!(show, expected);
        let knock = written(Knocking::Knock(key.knock(Origin::Same)));
        let expected = [&[0x1b, 0, 0, 0][..], &key.knock(Origin::Same).0].concat();
        assert_eq!(knock, expected);
    }

    #[test]
    fn the_proofs_of_a_key_are_those_that_anybody_would_compute() {
        // Computed with Python's `hashlib.blake2s`.
        let key = Key([7; 16]);
        let knocks = Origin::ALL.map(|origin| key.knock(origin));
        let proofs = [key.shown(), knocks[0], knocks[1], knocks[2]];
        assert_eq!(proofs.map(|proof| u128::from_be_bytes(proof.0)), PROOFS);
    }

    #[test]
    fn no_more_bytes_are_knocked_with_than_were_shown() {
        // Of IPv6 and UDP; those of IPv4 are less.
        const HEADERS: usize = 40 + 8;
        assert!(Origin::ALL.len() * (HEADERS + KNOCK_BYTES) <= HEADERS + SHOW_BYTES);
    }

    #[test]
    fn another_length_or_kind_or_anything_in_the_padding_is_neither() {
        let key = Key([7; 16]);
        let show = written(Knocking::Show(key.shown()));
        for length in 0..SHOW_BYTES {
            assert_eq!(Knocking::parse(&show[..length]), None, "{length}");
        }
        assert_eq!(Knocking::parse(&[&show[..], &[0]].concat()), None);
        for at in (0..HEADER_BYTES).chain(KNOCK_BYTES..SHOW_BYTES) {
            let mut changed = show.clone();
            changed[at] ^= 0x80;
            assert_eq!(Knocking::parse(&changed), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_again(mut bytes in proptest::collection::vec(any::<u8>(), 0..170), is_show: bool, fits: bool) {
            let length = if is_show { SHOW_BYTES } else { KNOCK_BYTES };
            if fits {
                bytes.resize(length, 0);
                bytes[..HEADER_BYTES].copy_from_slice(&[if is_show { SHOW } else { KNOCK }, 0, 0, 0]);
                bytes[KNOCK_BYTES.min(length)..].fill(0);
            }
            match Knocking::parse(&bytes) {
                Some(knocking) => prop_assert_eq!(written(knocking), bytes),
                None => prop_assert!(!fits),
            }
        }
    }
}
