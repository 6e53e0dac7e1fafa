//! How an issuer stores who redeemed what.
//!
//! One byte of version, then 80 bytes for each use: invite, device, member. A checksum is the
//! store's own matter.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use altnet_wire::id::{MemberId, SigningKey};

const VERSION: u8 = 1;
const USE_BYTES: usize = 80;

type Uses = BTreeMap<(SigningKey, SigningKey), MemberId>;

pub(super) fn write(uses: &Uses) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + uses.len() * USE_BYTES);
    bytes.push(VERSION);
    for ((invite, device), member) in uses {
        bytes.extend_from_slice(&invite.0);
        bytes.extend_from_slice(&device.0);
        bytes.extend_from_slice(&member.0);
    }
    bytes
}

pub(super) fn read(bytes: &[u8]) -> Option<Uses> {
    let (version, rest) = bytes.split_first()?;
    if *version != VERSION || !rest.len().is_multiple_of(USE_BYTES) {
        return None;
    }
    rest.chunks_exact(USE_BYTES)
        .map(|one| {
            let (invite, one) = one.split_first_chunk()?;
            let (device, one) = one.split_first_chunk()?;
            let member = one.first_chunk()?;
            let key = (SigningKey(*invite), SigningKey(*device));
            Some((key, MemberId(*member)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_read_back_and_a_cut_off_file_does_not() {
        let mut uses = Uses::new();
        uses.insert(
            (SigningKey([1; 32]), SigningKey([2; 32])),
            MemberId([3; 16]),
        );
        uses.insert(
            (SigningKey([1; 32]), SigningKey([4; 32])),
            MemberId([5; 16]),
        );
        let bytes = write(&uses);
        assert_eq!(read(&bytes), Some(uses));
        assert_eq!(read(&bytes[..bytes.len() - 1]), None);
        assert_eq!(read(&[]), None);
    }
}
