//! The code that a box is claimed by: ten letters and digits, of which the last is a check.
//!
//! Nine symbols of five bits are the secret, 45 bits. The tenth is chosen so that a weighted sum of all ten in GF(32) is
//! zero. The weights differ, so one wrong symbol and two that changed places are always told; that costs no try. The alphabet is Crockford's
//! base32, in which nothing is mistaken for something else: `O` is read as `0`, `I` and `L` as `1`, and there is no `U`.

use alloc::string::String;
use core::fmt;

use zeroize::Zeroizing;

/// How many symbols a code has.
pub const SYMBOLS: usize = 10;
/// How many bytes of chance make a code.
pub const CHANCE_BYTES: usize = 9;

const GROUP: usize = 5;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A code. Wiped when dropped, never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Code(Zeroizing<[u8; SYMBOLS]>);

/// Why a text is no code. Nothing of the text is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// It is too short or too long.
    #[error("a code has {SYMBOLS} letters and digits, not {found}")]
    Length {
        /// How many there are.
        found: usize,
    },
    /// Something is in it that no code has.
    #[error("a code has digits and the letters A to Z without U only")]
    Symbol,
    /// It isn't as it was written down.
    #[error("that isn't the code: at least one letter or digit is wrong")]
    Check,
}

impl Code {
    /// Makes one from bytes of chance, five bits of each.
    pub fn new(chance: &[u8; CHANCE_BYTES]) -> Self {
        let mut symbols = Zeroizing::new([0; SYMBOLS]);
        for (symbol, byte) in symbols.iter_mut().zip(chance) {
            *symbol = byte & 31;
        }
        // The weight of the last is 1.
        symbols[SYMBOLS - 1] = weighted(&symbols);
        Self(symbols)
    }

    /// Reads what a person typed: case, spaces and dashes don't matter.
    ///
    /// # Errors
    /// [`CodeError`].
    pub fn parse(text: &str) -> Result<Self, CodeError> {
        let typed = || {
            text.chars()
                .filter(|c| !c.is_ascii_whitespace() && *c != '-')
        };
        let found = typed().count();
        if found != SYMBOLS {
            return Err(CodeError::Length { found });
        }
        let mut symbols = Zeroizing::new([0; SYMBOLS]);
        for (symbol, typed) in symbols.iter_mut().zip(typed()) {
            *symbol = value(typed).ok_or(CodeError::Symbol)?;
        }
        match weighted(&symbols) {
            0 => Ok(Self(symbols)),
            _ => Err(CodeError::Check),
        }
    }

    /// The text to read and type, in two groups.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(SYMBOLS + 1));
        for (at, symbol) in self.plain().iter().enumerate() {
            if at == GROUP {
                text.push('-');
            }
            text.push(char::from(*symbol));
        }
        text
    }

    /// The ten symbols as SPAKE2 gets them: capital letters and digits, in ASCII.
    pub fn plain(&self) -> Zeroizing<[u8; SYMBOLS]> {
        Zeroizing::new(self.0.map(|symbol| ALPHABET[usize::from(symbol & 31)]))
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(..)")
    }
}

fn value(typed: char) -> Option<u8> {
    let capital = match typed.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let at = ALPHABET
        .iter()
        .position(|known| char::from(*known) == capital)?;
    u8::try_from(at).ok()
}

/// The sum of the symbols times x to the 9, 8 ... 0, by Horner's rule.
fn weighted(symbols: &[u8; SYMBOLS]) -> u8 {
    symbols.iter().fold(0, |sum, symbol| doubled(sum) ^ symbol)
}

/// Times x in GF(32), by x^5 + x^2 + 1, of which x is a generator.
fn doubled(element: u8) -> u8 {
    let high = element >> 4 & 1;
    (element << 1 & 31) ^ (high * 0b0_0101)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_text_is_always_the_same() {
        // Written down once: labels outlive versions.
        let code = Code::new(&[7, 3, 20, 22, 20, 31, 0, 25, 255]);
        assert_eq!(*code.to_text(), "73MPM-Z0SZP");
        assert_eq!(format!("{code:?}"), "Code(..)");
    }

    #[test]
    fn what_is_no_code_is_said() {
        assert_eq!(Code::parse("73MPM"), Err(CodeError::Length { found: 5 }));
        assert_eq!(Code::parse("73MPM-Z0SZU"), Err(CodeError::Symbol));
        assert_eq!(Code::parse("73MPM-Z0SZD"), Err(CodeError::Check));
    }

    proptest! {
        #[test]
        fn a_code_is_read_however_it_is_typed(chance: [u8; CHANCE_BYTES]) {
            let code = Code::new(&chance);
            let text = code.to_text();
            prop_assert_eq!(Code::parse(&text), Ok(code.clone()));
            let typed = text.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l");
            prop_assert_eq!(Code::parse(&typed), Ok(code));
        }

        #[test]
        fn one_wrong_symbol_and_two_that_changed_places_are_told(chance: [u8; CHANCE_BYTES], at in 0..SYMBOLS, other in 0..SYMBOLS, by in 1u8..32) {
            let code = Code::new(&chance);
            let mut wrong = code.clone();
            wrong.0[at] ^= by;
            prop_assert_eq!(Code::parse(&wrong.to_text()), Err(CodeError::Check));
            let mut swapped = code.clone();
            swapped.0.swap(at, other);
            if swapped != code {
                prop_assert_eq!(Code::parse(&swapped.to_text()), Err(CodeError::Check));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = Code::parse(&text);
        }
    }
}
