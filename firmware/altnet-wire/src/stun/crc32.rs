//! CRC-32 as in ITU-T V.42 and zlib, four bits at a time: 64 bytes of table.

/// The remainder of each four bits, for the polynomial 0x04C11DB7 with its bits reversed.
const TABLE: [u32; 16] = {
    let mut table = [0; 16];
    let mut n = 0;
    while n < 16 {
        let mut rest = n as u32;
        let mut bit = 0;
        while bit < 4 {
            rest = (rest >> 1) ^ if rest & 1 == 1 { 0xedb8_8320 } else { 0 };
            bit += 1;
        }
        table[n] = rest;
        n += 1;
    }
    table
};

/// A sum under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crc32(u32);

impl Crc32 {
    pub(super) const fn new() -> Self {
        Self(u32::MAX)
    }

    #[must_use]
    pub(super) fn with(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            self.0 ^= u32::from(*byte);
            for _ in 0..2 {
                // Masked, so there is a place for it.
                let place = usize::from(self.0.to_le_bytes()[0] & 15);
                self.0 = (self.0 >> 4) ^ TABLE[place];
            }
        }
        self
    }

    pub(super) const fn sum(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_one_that_every_catalogue_gives() {
        assert_eq!(Crc32::new().with(b"123456789").sum(), 0xcbf4_3926);
        assert_eq!(Crc32::new().with(b"1234").with(b"56789").sum(), 0xcbf4_3926);
        assert_eq!(Crc32::new().sum(), 0);
    }
}
