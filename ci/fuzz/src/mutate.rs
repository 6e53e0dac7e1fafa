//! Mutations of an input, the same ones at every run.

/// The `n`th mutation of `input`: octets flipped, set, cut out, doubled or put in, the end
/// cut off, or part of `other` spliced in.
pub fn mutated(input: &[u8], other: &[u8], n: u64) -> Vec<u8> {
    let mut chance = Chance(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut bytes = input.to_vec();
    for _ in 0..1 + chance.below(3) {
        let at = chance.below(bytes.len() + 1);
        match chance.below(8) {
            0 => flip(&mut bytes, at, 1 << chance.below(8)),
            1 => flip(&mut bytes, at, chance.next() as u8),
            2 => set(
                &mut bytes,
                at,
                [0, 1, 0x7f, 0x80, 0xfe, 0xff][chance.below(6)],
            ),
            3 => bytes.truncate(at),
            4 => {
                let end = (at + chance.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let run: Vec<u8> = (0..chance.below(16)).map(|_| chance.next() as u8).collect();
                bytes.splice(at..at, run);
            }
            6 => {
                let end = (at + chance.below(64)).min(bytes.len());
                let run = bytes[at..end].to_vec();
                bytes.splice(at..at, run);
            }
            _ => {
                let from = chance.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

fn flip(bytes: &mut [u8], at: usize, with: u8) {
    if let Some(octet) = bytes.get_mut(at) {
        *octet ^= with;
    }
}

fn set(bytes: &mut [u8], at: usize, to: u8) {
    if let Some(octet) = bytes.get_mut(at) {
        *octet = to;
    }
}

/// xorshift64* (Vigna 2016).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_mutates_the_same_way() {
        let input = b"a valid input of some length";
        assert_eq!(mutated(input, b"other", 7), mutated(input, b"other", 7));
        assert!((0..100).any(|n| mutated(input, b"other", n) != input));
        assert!((0..100).all(|n| mutated(b"", b"", n).len() < 100));
    }
}
