//! What a box says to whoever connects, before anything is proved.

use alloc::string::String;
use alloc::vec::Vec;

use crate::key::BoxKey;

/// The first byte of the first message.
pub const VERSION: u8 = 1;
/// The longest text in it, in bytes.
pub const MAX_TEXT: usize = 64;

/// Whether a box lets itself be claimed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does.
    Open,
    /// Its ten minutes are over.
    TimeOver,
    /// As many codes were tried as may be.
    TriesUsed,
    /// It pairs with somebody else now.
    Busy,
}

/// What a box says of itself. Nobody vouches for it until the pairing is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Whether it can be claimed now.
    pub state: State,
    /// The key that it pairs with.
    pub key: BoxKey,
    /// How many codes may still be tried.
    pub tries_left: u8,
    /// How long it is open.
    pub seconds_left: u16,
    /// What board it is, as in `x86-64`; [`MAX_TEXT`] bytes at most, printable ASCII.
    pub board: String,
    /// What runs on it; as the board.
    pub version: String,
}

/// Why bytes are no hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// Another version of the protocol.
    #[error("it speaks version {found} of the protocol, and this program version {VERSION}")]
    Version {
        /// Which.
        found: u8,
    },
    /// Not what this version has.
    #[error("what answers there is no box that waits to be claimed")]
    Form,
}

impl Hello {
    /// The bytes. Of texts that are too long the beginning is said, and what isn't printable is left out.
    pub fn encode(&self) -> Vec<u8> {
        let state = match self.state {
            State::Open => 0,
            State::TimeOver => 1,
            State::TriesUsed => 2,
            State::Busy => 3,
        };
        let mut bytes = Vec::with_capacity(39 + 2 * MAX_TEXT);
        bytes.extend([VERSION, state]);
        bytes.extend(self.key.0);
        bytes.push(self.tries_left);
        bytes.extend(self.seconds_left.to_be_bytes());
        for text in [&self.board, &self.version] {
            let text: Vec<u8> = text
                .bytes()
                .filter(|b| is_printable(*b))
                .take(MAX_TEXT)
                .collect();
            bytes.push(text.len() as u8);
            bytes.extend(text);
        }
        bytes
    }

    /// Reads them.
    ///
    /// # Errors
    /// [`HelloError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, HelloError> {
        let (&found, rest) = bytes.split_first().ok_or(HelloError::Form)?;
        if found != VERSION {
            return Err(HelloError::Version { found });
        }
        Self::body(rest).ok_or(HelloError::Form)
    }

    fn body(bytes: &[u8]) -> Option<Self> {
        let (&state, bytes) = bytes.split_first()?;
        let state = match state {
            0 => State::Open,
            1 => State::TimeOver,
            2 => State::TriesUsed,
            3 => State::Busy,
            _ => return None,
        };
        let (key, bytes) = bytes.split_first_chunk()?;
        let (&tries_left, bytes) = bytes.split_first()?;
        let (seconds_left, bytes) = bytes.split_first_chunk()?;
        let (board, bytes) = text(bytes)?;
        let (version, bytes) = text(bytes)?;
        bytes.is_empty().then_some(Self {
            state,
            key: BoxKey(*key),
            tries_left,
            seconds_left: u16::from_be_bytes(*seconds_left),
            board,
            version,
        })
    }
}

fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (&length, bytes) = bytes.split_first()?;
    let (text, rest) = bytes.split_at_checked(usize::from(length))?;
    let is_good = text.len() <= MAX_TEXT && text.iter().all(|b| is_printable(*b));
    is_good.then_some((core::str::from_utf8(text).ok()?.into(), rest))
}

/// It is shown at terminals, so there is nothing in it that commands one.
fn is_printable(byte: u8) -> bool {
    byte == b' ' || byte.is_ascii_graphic()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello(board: &str) -> Hello {
        Hello {
            state: State::Open,
            key: BoxKey([9; 32]),
            tries_left: 5,
            seconds_left: 600,
            board: board.into(),
            version: "v0.1".into(),
        }
    }

    #[test]
    fn its_bytes_are_always_the_same() {
        let bytes = hello("rpi").encode();
        assert_eq!(bytes[..2], [1, 0]);
        assert_eq!(bytes[34..], *b"\x05\x02\x58\x03rpi\x04v0.1");
    }

    #[test]
    fn nothing_in_it_commands_a_terminal_and_nothing_is_too_long() {
        let said = Hello::decode(&hello("a\x1b[31mb").encode()).unwrap();
        assert_eq!(said.board, "a[31mb");
        let said = Hello::decode(&hello(&"x".repeat(300)).encode()).unwrap();
        assert_eq!(said.board.len(), MAX_TEXT);
        let mut bytes = hello("rpi").encode();
        bytes[38] = 0x1b;
        assert_eq!(Hello::decode(&bytes), Err(HelloError::Form));
        assert_eq!(Hello::decode(&[2]), Err(HelloError::Version { found: 2 }));
    }

    proptest! {
        #[test]
        fn what_was_read_is_written_as_the_same_bytes(bytes in prop::collection::vec(any::<u8>(), 0..80), state in 0u8..5) {
            let mut whole = vec![VERSION, state];
            whole.extend([3; 35]);
            whole.extend(bytes);
            if let Ok(hello) = Hello::decode(&whole) {
                prop_assert_eq!(hello.encode(), whole);
            }
        }
    }
}
