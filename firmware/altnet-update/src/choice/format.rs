//! The two forms in which boot loaders keep a copy of a choice.
//!
//! U-Boot: 512 bytes as `env export -c -s 200` writes them: a CRC-32 (IEEE 802.3) of the 508 bytes
//! that follow, little-endian, then `NAME=VALUE` with a zero byte after each, one more zero byte, and
//! zeros. GRUB: an environment block of 1024 bytes, as `grub-editenv` knows it; since GRUB's language
//! computes no checksum, the variable `check` says the others again.

use super::{Choice, Copied, MAX_TRIES, Slot};

/// What a GRUB environment block begins with (GRUB's `include/grub/lib/envblk.h`).
const GRUB_SIGNATURE: &[u8] = b"# GRUB Environment Block\n";

/// Which boot loader's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// U-Boot's exported environment.
    UBoot,
    /// GRUB's environment block.
    Grub,
}

impl Format {
    /// Bytes of a copy.
    pub const fn bytes(self) -> usize {
        match self {
            Self::UBoot => 512,
            Self::Grub => 1024,
        }
    }

    /// Reads `u-boot` or `grub`, as a board's file names them.
    pub fn parse_name(name: &str) -> Option<Self> {
        match name {
            "u-boot" => Some(Self::UBoot),
            "grub" => Some(Self::Grub),
            _ => None,
        }
    }

    /// Reads a copy; `None` if it isn't good. Variables of others are passed over.
    pub fn parse(self, bytes: &[u8]) -> Option<Copied> {
        let bytes = bytes.get(..self.bytes())?;
        let mut variables = Variables::default();
        match self {
            Self::UBoot => {
                let (sum, rest) = bytes.split_first_chunk::<4>()?;
                if u32::from_le_bytes(*sum) != crc32(rest) {
                    return None;
                }
                for entry in rest.split(|octet| *octet == 0) {
                    if entry.is_empty() {
                        break;
                    }
                    variables.set(entry);
                }
                variables.copied()
            }
            Self::Grub => {
                let rest = bytes.strip_prefix(GRUB_SIGNATURE)?;
                for line in rest.split(|octet| *octet == b'\n') {
                    if !line.starts_with(b"#") {
                        variables.set(line);
                    }
                }
                let copied = variables.copied()?;
                (variables.check == check(&copied).as_bytes()).then_some(copied)
            }
        }
    }

    /// Writes a copy.
    pub fn write(self, copied: &Copied) -> Vec<u8> {
        let (order, a, b) = fields(&copied.choice);
        let serial = copied.serial % 10;
        match self {
            Self::UBoot => {
                let text = format!("order={order}\0serial={serial}\0tries_a={a}\0tries_b={b}\0\0");
                let mut rest = text.into_bytes();
                rest.resize(self.bytes() - 4, 0);
                [&crc32(&rest).to_le_bytes()[..], &rest].concat()
            }
            Self::Grub => {
                let check = check(copied);
                let text = format!(
                    "order={order}\nserial={serial}\ntries_a={a}\ntries_b={b}\ncheck={check}\n"
                );
                let mut bytes = [GRUB_SIGNATURE, text.as_bytes()].concat();
                bytes.resize(self.bytes(), b'#');
                bytes
            }
        }
    }
}

fn fields(choice: &Choice) -> (&'static str, u8, u8) {
    let order = match choice.first {
        Slot::A => "AB",
        Slot::B => "BA",
    };
    (order, choice.tries(Slot::A), choice.tries(Slot::B))
}

fn check(copied: &Copied) -> String {
    let (order, a, b) = fields(&copied.choice);
    format!("{order}{a}{b}{}", copied.serial)
}

/// The variables of a copy, each as it was said last, which is how both boot loaders take them.
#[derive(Default)]
struct Variables<'a> {
    order: &'a [u8],
    serial: &'a [u8],
    tries_a: &'a [u8],
    tries_b: &'a [u8],
    check: &'a [u8],
}

impl<'a> Variables<'a> {
    fn set(&mut self, entry: &'a [u8]) {
        let Some(at) = entry.iter().position(|octet| *octet == b'=') else {
            return;
        };
        let value = &entry[at + 1..];
        match &entry[..at] {
            b"order" => self.order = value,
            b"serial" => self.serial = value,
            b"tries_a" => self.tries_a = value,
            b"tries_b" => self.tries_b = value,
            b"check" => self.check = value,
            _ => {}
        }
    }

    fn copied(&self) -> Option<Copied> {
        let digit = |value: &[u8], most: u8| match value {
            [digit @ b'0'..=b'9'] => Some(digit - b'0').filter(|digit| *digit <= most),
            _ => None,
        };
        let first = match self.order {
            b"AB" => Slot::A,
            b"BA" => Slot::B,
            _ => return None,
        };
        let tries = |value| digit(value, MAX_TRIES);
        Some(Copied {
            choice: Choice::new(first, tries(self.tries_a)?, tries(self.tries_b)?),
            serial: digit(self.serial, 9)?,
        })
    }
}

/// CRC-32 of IEEE 802.3 as zlib has it, a bit at a time: what it sums up is 508 bytes long.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for octet in bytes {
        sum ^= u32::from(*octet);
        for _ in 0..8 {
            sum = (sum >> 1) ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: [Format; 2] = [Format::UBoot, Format::Grub];

    fn copied() -> Copied {
        Copied {
            choice: Choice::new(Slot::B, 2, 0),
            serial: 7,
        }
    }

    #[test]
    fn the_sum_is_the_one_that_every_catalogue_gives() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn the_bytes_are_those_of_the_page() {
        let bytes = Format::UBoot.write(&copied());
        let text = b"order=BA\0serial=7\0tries_a=2\0tries_b=0\0\0";
        assert_eq!(bytes.len(), 512);
        assert_eq!(&bytes[4..4 + text.len()], text);
        assert!(bytes[4 + text.len()..].iter().all(|octet| *octet == 0));
        let bytes = Format::Grub.write(&copied());
        let text =
            b"# GRUB Environment Block\norder=BA\nserial=7\ntries_a=2\ntries_b=0\ncheck=BA207\n#";
        assert_eq!(bytes.len(), 1024);
        assert_eq!(&bytes[..text.len()], text);
        assert!(bytes[text.len()..].iter().all(|octet| *octet == b'#'));
    }

    #[test]
    fn variables_of_others_are_passed_over_and_a_missing_one_is_not() {
        let read = |text: &str| {
            let mut rest = text.as_bytes().to_vec();
            rest.resize(508, 0);
            let sum = crc32(&rest).to_le_bytes();
            Format::UBoot.parse(&[&sum[..], &rest].concat())
        };
        let good = "order=BA\0serial=7\0tries_a=2\0tries_b=0\0";
        assert_eq!(read(good), Some(copied()));
        assert_eq!(
            read(&format!("a=b\0c\0{good}filesize=200\0")),
            Some(copied())
        );
        assert_eq!(read(&good.replace("tries_a", "tries_c")), None);
        for bad in [
            "order=AA",
            "order=A",
            "serial=10",
            "serial=",
            "tries_a=4",
            "tries_b=x",
        ] {
            assert_eq!(read(&format!("{good}{bad}\0")), None, "{bad}");
        }
    }

    #[test]
    fn a_block_whose_check_says_otherwise_is_not_good() {
        let good = Format::Grub.write(&copied());
        assert_eq!(Format::Grub.parse(&good), Some(copied()));
        let text = String::from_utf8(good).unwrap();
        for (from, to) in [
            ("tries_a=2", "tries_a=3"),
            ("check=BA207", "check=BA208"),
            ("check=BA207", "#heck=BA207"),
            ("# GRUB", "# Grub"),
        ] {
            let bad = text.replace(from, to);
            assert_eq!(Format::Grub.parse(bad.as_bytes()), None, "{to}");
        }
    }

    proptest! {
        #[test]
        fn a_copy_comes_back_whole_or_not_at_all(
            is_b: bool, a in 0u8..4, b in 0u8..4, serial in 0u8..10, torn in 0usize..512, with: u8,
        ) {
            let first = if is_b { Slot::B } else { Slot::A };
            let copied = Copied { choice: Choice::new(first, a, b), serial };
            for format in BOTH {
                let good = format.write(&copied);
                prop_assert_eq!(format.parse(&good), Some(copied));
                let mut bad = good.clone();
                bad[torn..].fill(with);
                let found = format.parse(&bad);
                prop_assert!(found.is_none() || found == Some(copied));
            }
        }

        #[test]
        fn any_bytes_are_good_or_not(bytes in prop::collection::vec(any::<u8>(), 0..1100)) {
            for format in BOTH {
                let _ = format.parse(&bytes);
            }
        }
    }
}
