//! TCP's maximum segment size, lowered in a packet that passes.
//!
//! Two ends that believe in larger segments than the way between them carries find out by losing
//! them, or by ICMP that somebody drops. A SYN that says less spares them that.

use super::headers;
use super::{Fragment, HEADER_BYTES, Protocol};

/// Bytes of a TCP header without options (RFC 9293 section 3.1).
const TCP_HEADER_BYTES: usize = 20;
/// What a segment's packet has beside its data: the fixed headers alone (RFC 6691 section 2).
pub const MSS_OVERHEAD_BYTES: u16 = (HEADER_BYTES + TCP_HEADER_BYTES) as u16;
/// Kinds of options (RFC 9293 section 3.2).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const SYN: u8 = 0x02;

/// Has a SYN ask for no segments larger than packets of `mtu_bytes` hold, and corrects its checksum.
/// Returns the size that it asked for, if it did.
///
/// A SYN without the option asks for small segments (RFC 9293 section 3.7.1), and anything that is no
/// whole TCP segment is left as it is.
pub fn clamp_mss(packet: &mut [u8], mtu_bytes: u16) -> Option<u16> {
    let most = mtu_bytes.saturating_sub(MSS_OVERHEAD_BYTES);
    let chain = headers::walk(packet).ok()?;
    if chain.protocol != Protocol::TCP || chain.fragment != Fragment::Whole {
        return None;
    }
    let segment = packet.get_mut(chain.offset..)?;
    let header: &[u8; TCP_HEADER_BYTES] = segment.first_chunk()?;
    let length = usize::from(header[12] >> 4).saturating_mul(4);
    if header[13] & SYN == 0 || length > segment.len() {
        return None;
    }
    let at = find_mss(segment.get(..length)?)?;
    let value: [u8; 2] = segment.get(at..at.checked_add(2)?)?.try_into().ok()?;
    let asked = u16::from_be_bytes(value);
    if asked > most {
        segment
            .get_mut(at..)?
            .first_chunk_mut::<2>()?
            .copy_from_slice(&most.to_be_bytes());
        // Where it straddles two words, its bytes change places in the sum (RFC 1071 section 2 (B)).
        let swap = |word: u16| if at % 2 == 1 { word.swap_bytes() } else { word };
        let sum: &mut [u8; 2] = segment.get_mut(16..)?.first_chunk_mut()?;
        let corrected = corrected(u16::from_be_bytes(*sum), swap(asked), swap(most));
        *sum = corrected.to_be_bytes();
    }
    Some(asked)
}

/// Where the option's value begins.
fn find_mss(header: &[u8]) -> Option<usize> {
    let mut at = TCP_HEADER_BYTES;
    loop {
        match header.get(at..)? {
            [END, ..] | [] => return None,
            [NO_OPERATION, ..] => at = at.checked_add(1)?,
            [MSS, 4, _, _, ..] => return at.checked_add(2),
            [_, length, ..] if *length >= 2 => at = at.checked_add(usize::from(*length))?,
            _ => return None,
        }
    }
}

/// A checksum after `old` became `new` (RFC 1624 equation 3).
fn corrected(sum: u16, old: u16, new: u16) -> u16 {
    let mut total = u32::from(!sum) + u32::from(!old) + u32::from(new);
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    !u16::try_from(total).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::checksum;
    use crate::ip::testing::*;
    use core::net::Ipv6Addr;
    use proptest::prelude::*;
    use std::vec::Vec;

    const A: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 1, 0, 0, 0, 0xa);
    const B: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 2, 0, 0, 0, 0xb);

    /// A segment with these flags and options, its checksum right.
    fn segment(flags: u8, options: &[u8]) -> Vec<u8> {
        let mut bytes = tcp(4000, 80, flags);
        bytes.extend(options);
        while !bytes.len().is_multiple_of(4) {
            bytes.push(END);
        }
        bytes[12] = (bytes.len() as u8 / 4) << 4;
        let sum = checksum(A, B, Protocol::TCP, &bytes);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn check(flags: u8, options: &[u8], expected: &[u8], asked: Option<u16>) {
        for extension in [&[][..], &[6, 0, 1, 4, 0, 0, 0, 0]] {
            let next = if extension.is_empty() { 6 } else { 60 };
            let payload = |options| [extension, &segment(flags, options)].concat();
            let mut found = packet(A, B, next, &payload(options));
            assert_eq!(clamp_mss(&mut found, 1280), asked);
            assert_eq!(found, packet(A, B, next, &payload(expected)), "{options:?}");
        }
    }

    #[test]
    fn a_syn_asks_for_segments_that_fit_and_its_checksum_is_right() {
        // 1440 becomes 1220: 0x05a0 and 0x04c4.
        check(2, &[2, 4, 5, 0xa0], &[2, 4, 4, 0xc4], Some(1440));
        check(
            0x12,
            &[1, 2, 4, 5, 0xa0, 1],
            &[1, 2, 4, 4, 0xc4, 1],
            Some(1440),
        );
        let (before, after) = ([4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0], [1, 3, 3, 7]);
        let options = |mss: [u8; 4]| [&before[..], &mss, &after].concat();
        check(
            2,
            &options([2, 4, 0xff, 0xff]),
            &options([2, 4, 4, 0xc4]),
            Some(0xffff),
        );
    }

    #[test]
    fn what_asks_for_less_or_is_no_syn_is_left_as_it_is() {
        for (flags, options, asked) in [
            (2, &[2, 4, 4, 0xc4][..], Some(1220)),
            (2, &[2, 4, 2, 0x18], Some(536)),
            (0x10, &[2, 4, 5, 0xa0], None),
            (2, &[], None),
            (2, &[0, 0, 2, 4, 5, 0xa0], None),
            (2, &[3, 0, 2, 4, 5, 0xa0], None),
            (2, &[3, 40, 2, 4, 5, 0xa0], None),
            (2, &[2, 3, 5, 0], None),
        ] {
            check(flags, options, options, asked);
        }
        let later = fragment(6, 8, false, 1, &segment(2, &[2, 4, 5, 0xa0]));
        let mut fragment = packet(A, B, 44, &later);
        assert_eq!(clamp_mss(&mut fragment, 1280), None);
    }

    proptest! {
        #[test]
        fn no_packet_makes_it_panic_or_ask_for_more(
            next in 0u8..70, payload in proptest::collection::vec(any::<u8>(), 0..80), mtu: u16,
        ) {
            let mut found = packet(A, B, next, &payload);
            let before = found.clone();
            if clamp_mss(&mut found, mtu).is_none() {
                prop_assert_eq!(found, before);
            }
        }

        #[test]
        fn the_checksum_stays_right(
            pad in 0usize..4, asked: u16, mtu in 1280u16.., more in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            let [high, low] = asked.to_be_bytes();
            let mut options = std::vec![NO_OPERATION; pad];
            options.extend([2, 4, high, low, 253, 2 + more.len() as u8]);
            options.extend(more);
            let mut found = packet(A, B, 6, &segment(2, &options));
            prop_assert_eq!(clamp_mss(&mut found, mtu), Some(asked));
            prop_assert_eq!(checksum(A, B, Protocol::TCP, &found[HEADER_BYTES..]), 0);
            let mss = u16::from_be_bytes([found[62 + pad], found[63 + pad]]);
            prop_assert_eq!(mss, asked.min(mtu - 60));
        }
    }
}
