//! The recovery key as a person writes it down.
//!
//! Fourteen groups of four letters and digits (RFC 4648 base32): 32 bytes of key and three of
//! checksum, so that a slip of the pen is told before anything is signed with it. It is printed
//! once when a network is made and stored nowhere.

use std::fmt::{self, Write as _};

use altnet_wire::hash;
use altnet_wire::id::{base32_fmt, base32_parse};
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Result};

const KEY_BYTES: usize = 32;
const CHECK_BYTES: usize = 3;
const SYMBOLS: usize = (KEY_BYTES + CHECK_BYTES) * 8 / 5;
const GROUP: usize = 4;

/// The secret half of a network's recovery key. Wiped when dropped, never printed by `Debug`.
pub struct RecoveryKey(Zeroizing<[u8; KEY_BYTES]>);

impl RecoveryKey {
    /// Makes one from 32 bytes of chance.
    pub const fn new(seed: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Self(seed)
    }

    /// The 32 bytes.
    pub fn seed(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// The text to write down: fourteen groups of four, a space between.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES + CHECK_BYTES]);
        bytes[..KEY_BYTES].copy_from_slice(&*self.0);
        bytes[KEY_BYTES..].copy_from_slice(&checksum(&self.0));
        let mut plain = Zeroizing::new(String::with_capacity(SYMBOLS));
        // Writing to a String doesn't fail.
        let _ = base32_fmt(bytes.as_ref(), &mut *plain);
        let mut text = Zeroizing::new(String::with_capacity(SYMBOLS + SYMBOLS / GROUP));
        for (i, symbol) in plain.chars().enumerate() {
            if i > 0 && i % GROUP == 0 {
                text.push(' ');
            }
            text.push(symbol);
        }
        text
    }

    /// Reads what was written down: case, spaces and dashes don't matter, and 0, 1 and 8, which
    /// are never printed, stand for o, l and b.
    ///
    /// # Errors
    /// [`Error::Input`] if it isn't a recovery key or its checksum doesn't fit.
    pub fn from_text(text: &str) -> Result<Self> {
        let mut plain = Zeroizing::new(String::with_capacity(text.len()));
        for symbol in text.chars() {
            match symbol.to_ascii_lowercase() {
                ' ' | '-' | '\n' | '\r' | '\t' => {}
                '0' => plain.push('o'),
                '1' => plain.push('l'),
                '8' => plain.push('b'),
                other => plain.push(other),
            }
        }
        let found = plain.chars().count();
        if found != SYMBOLS {
            return Err(Error::input(
                format!("a recovery key has {SYMBOLS} letters and digits, not {found}"),
                "Type all fourteen groups from the paper.",
            ));
        }
        let mut bytes = Zeroizing::new([0; KEY_BYTES + CHECK_BYTES]);
        base32_parse(&plain, bytes.as_mut()).map_err(|_| {
            Error::input(
                "a recovery key has the letters a to z and the digits 2 to 7 only",
                "Look at the paper again; 0, 1 and 8 are taken for o, l and b.",
            )
        })?;
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        key.copy_from_slice(&bytes[..KEY_BYTES]);
        if bytes[KEY_BYTES..] != checksum(&key) {
            return Err(Error::input(
                "the recovery key's checksum does not fit: at least one letter is wrong",
                "Compare each group with the paper.",
            ));
        }
        Ok(Self(key))
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryKey(..)")
    }
}

fn checksum(key: &[u8; KEY_BYTES]) -> [u8; CHECK_BYTES] {
    let mut hash = hash::labelled("altnet recovery key v1", &[key]);
    let check = [hash[0], hash[1], hash[2]];
    hash.zeroize();
    check
}

/// The text in numbered lines of four groups, for a terminal.
pub fn in_lines(text: &str) -> Zeroizing<String> {
    let groups: Vec<&str> = text.split(' ').collect();
    let mut lines = Zeroizing::new(String::with_capacity(text.len() * 2));
    for (i, row) in groups.chunks(GROUP).enumerate() {
        // Writing to a String doesn't fail.
        let _ = writeln!(lines, "    {}:  {}", i + 1, row.join("  "));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(byte: u8) -> RecoveryKey {
        RecoveryKey::new(Zeroizing::new([byte; 32]))
    }

    #[test]
    fn the_text_has_fourteen_groups_and_reads_back_however_it_is_typed() {
        let text = key(7).to_text();
        assert_eq!(text.split(' ').count(), 14);
        let typed = text.to_uppercase().replace(' ', "-").replace('B', "8");
        let back = RecoveryKey::from_text(&typed).unwrap();
        assert_eq!(back.seed(), &[7; 32]);
        assert_eq!(in_lines(&text).lines().count(), 4);
    }

    proptest! {
        #[test]
        fn one_wrong_letter_is_told(seed: [u8; 32], at in 0usize..SYMBOLS, shift in 1usize..32) {
            let text = RecoveryKey::new(Zeroizing::new(seed)).to_text().replace(' ', "");
            let alphabet = b"abcdefghijklmnopqrstuvwxyz234567";
            let mut wrong = text.clone().into_bytes();
            let old = alphabet.iter().position(|b| *b == wrong[at]).unwrap();
            wrong[at] = alphabet[(old + shift) % 32];
            // A checksum of 24 bits misses one in 16 million.
            prop_assert!(RecoveryKey::from_text(std::str::from_utf8(&wrong).unwrap()).is_err());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = RecoveryKey::from_text(&text);
        }
    }
}
