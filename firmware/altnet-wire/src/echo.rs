//! What a node sends itself by a relay to measure it.
//!
//! ```text
//! 0x31 | 0 0 0 | sequence u32 | padding | mac 16
//! ```
//! Numbers are big-endian. The mac is the first half of `H("altnet echo v1", key, everything before)`.
//! The key is one run's, made at random, and known to the one node that both sends and takes it: so
//! nobody else's word counts, the relay's included. To relays it is a datagram like any other.

use crate::frame::{Frame, NoRoom};
use crate::hash::{self, HASH_BYTES};

/// First byte.
pub const ECHO: u8 = 0x31;
/// The least length, in bytes: without padding.
pub const LEAST_BYTES: usize = HEADER_BYTES + MAC_BYTES;

const HEADER_BYTES: usize = 8;
const MAC_BYTES: usize = HASH_BYTES / 2;

/// The key of one run.
pub type Key = [u8; 32];

/// Writes number `sequence` into the frame, in `bytes` bytes; no fewer than [`LEAST_BYTES`].
///
/// # Errors
/// [`NoRoom`] if the frame has none.
pub fn write(key: &Key, sequence: u32, bytes: usize, frame: &mut Frame<'_>) -> Result<(), NoRoom> {
    frame.clear();
    frame.set_len(bytes.max(LEAST_BYTES))?;
    if let Some((covered, mac)) = frame.packet_mut().split_last_chunk_mut::<MAC_BYTES>() {
        covered.fill(0);
        if let Some((head, _)) = covered.split_first_chunk_mut::<HEADER_BYTES>() {
            let [a, b, c, d] = sequence.to_be_bytes();
            *head = [ECHO, 0, 0, 0, a, b, c, d];
        }
        *mac = mac_of(key, covered);
    }
    Ok(())
}

/// The number of a datagram that was written with this key; nothing of any other.
pub fn read(key: &Key, datagram: &[u8]) -> Option<u32> {
    let (covered, mac) = datagram.split_last_chunk::<MAC_BYTES>()?;
    let (&[ECHO, 0, 0, 0, a, b, c, d], _) = covered.split_first_chunk::<HEADER_BYTES>()? else {
        return None;
    };
    let expected = mac_of(key, covered);
    // In the same time, wherever they differ.
    let pairs = expected.iter().zip(mac);
    let difference = pairs.fold(0, |sum, (one, other)| sum | (one ^ other));
    (difference == 0).then_some(u32::from_be_bytes([a, b, c, d]))
}

fn mac_of(key: &Key, covered: &[u8]) -> [u8; MAC_BYTES] {
    let hash = hash::labelled("altnet echo v1", &[key, covered]);
    let mut mac = [0; MAC_BYTES];
    for (out, byte) in mac.iter_mut().zip(hash) {
        *out = byte;
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FRAME_BYTES;
    use proptest::prelude::*;
    use std::vec::Vec;

    const KEY: Key = [7; 32];

    fn written(key: &Key, sequence: u32, bytes: usize) -> Vec<u8> {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        write(key, sequence, bytes, &mut frame).unwrap();
        frame.packet().to_vec()
    }

    #[test]
    fn it_keeps_its_exact_bytes() {
        let bytes = written(&KEY, 0x0102_0304, 0);
        // Computed with Python's `hashlib.blake2s`.
        let expected = [
            0x31, 0, 0, 0, 1, 2, 3, 4, 0xb4, 0x88, 0xd7, 0xd0, 0x77, 0x96, 0x02, 0x32, 0x43, 0x63,
            0xb6, 0x7f, 0x9e, 0xd1, 0xe1, 0x3c,
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn another_run_another_number_or_a_changed_byte_is_not_read() {
        let bytes = written(&KEY, 9, 100);
        assert_eq!((bytes.len(), read(&KEY, &bytes)), (100, Some(9)));
        assert_eq!(read(&[8; 32], &bytes), None);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(read(&KEY, &changed), None, "byte {at}");
        }
        assert_eq!(read(&KEY, &bytes[..99]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(read(&KEY, &bytes), None);
        }

        #[test]
        fn what_is_written_is_read(key: Key, sequence: u32, length in 0usize..1400) {
            let bytes = written(&key, sequence, length);
            prop_assert_eq!(bytes.len(), length.max(LEAST_BYTES));
            prop_assert_eq!(read(&key, &bytes), Some(sequence));
        }
    }
}
