//! Netlink's framing: messages of a header, a fixed part and attributes, all in the machine's
//! own byte order and padded to four bytes.
//!
//! Source: netlink(7), linux/netlink.h.

use std::io;

const HEADER_BYTES: usize = 16;

/// What an acknowledgement says.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn acknowledged(body: &[u8]) -> io::Result<()> {
    let code = body
        .first_chunk()
        .map_or(0, |code| i32::from_ne_bytes(*code));
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}

/// What a message is, and whose answer.
pub(super) struct Header {
    pub(super) kind: u16,
    pub(super) sequence: u32,
}

fn align(len: usize) -> usize {
    len.saturating_add(3) & !3
}

/// The first message of `bytes`: its header, its body, and what is behind it.
pub(super) fn split_message(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let [l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, ..] = *header;
    let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
    let body = bytes.get(HEADER_BYTES..len)?;
    let behind = bytes.get(align(len)..).unwrap_or(&[]);
    let header = Header {
        kind: u16::from_ne_bytes([k0, k1]),
        sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
    };
    Some((header, body, behind))
}

/// The attributes of a body, behind its fixed part.
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [l0, l1, k0, k1] = *self.0.first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(align(len)..).unwrap_or(&[]);
        Some((u16::from_ne_bytes([k0, k1]), value))
    }
}

/// A request under construction.
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        Self(bytes)
    }

    pub(super) fn flag(&mut self, flag: u16) {
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | flag;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let len = (value.len() + 4) as u16;
        self.bytes(&len.to_ne_bytes());
        self.bytes(&kind.to_ne_bytes());
        self.bytes(value);
        self.0.resize(align(self.0.len()), 0);
    }

    pub(super) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_refusal_keeps_the_kernels_reason() {
        let refused = acknowledged(&(-libc::EPERM).to_ne_bytes()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!(acknowledged(&0i32.to_ne_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(bytes: Vec<u8>) {
            let mut rest = bytes.as_slice();
            while let Some((_, body, behind)) = split_message(rest) {
                Attributes(body).for_each(drop);
                prop_assert!(behind.len() < rest.len());
                rest = behind;
            }
        }
    }
}
