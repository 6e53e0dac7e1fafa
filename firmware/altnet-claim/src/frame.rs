//! Messages on a stream: each with its length before it, 16 bits, big-endian.

use alloc::vec::Vec;

/// The longest message, in bytes, without its length.
pub const MAX_BYTES: usize = 4096;

/// A message is longer than [`MAX_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message has at most {MAX_BYTES} bytes, not {found}")]
pub struct TooLong {
    /// How many it has.
    pub found: usize,
}

/// Puts the length before a message.
///
/// # Errors
/// [`TooLong`].
pub fn encode(message: &[u8]) -> Result<Vec<u8>, TooLong> {
    let found = message.len();
    let length = u16::try_from(found).ok().filter(|_| found <= MAX_BYTES);
    let length = length.ok_or(TooLong { found })?;
    Ok([&length.to_be_bytes()[..], message].concat())
}

/// Reads a length.
///
/// # Errors
/// [`TooLong`]; then the stream can't be read on.
pub fn length(bytes: [u8; 2]) -> Result<usize, TooLong> {
    let found = usize::from(u16::from_be_bytes(bytes));
    match found <= MAX_BYTES {
        true => Ok(found),
        false => Err(TooLong { found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_length_before_it_and_none_is_too_long() {
        assert_eq!(encode(b"abc").unwrap(), b"\0\x03abc");
        let longest = encode(&[0; MAX_BYTES]).unwrap();
        assert_eq!(length([longest[0], longest[1]]), Ok(MAX_BYTES));
        for found in [MAX_BYTES + 1, 1 << 16] {
            assert_eq!(encode(&vec![0; found]), Err(TooLong { found }));
        }
        assert_eq!(length([0x10, 1]), Err(TooLong { found: 4097 }));
    }
}
