//! A stream that `zstd` packed, read as what it was.

use std::io::{self, BufRead, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// How far back a frame may refer, in bytes, which is what unpacking it takes of memory: images are packed
/// with 64 MiB.
const MAX_WINDOW_BYTES: u64 = 64 << 20;

/// Frames behind each other, each checked by its own checksum.
///
/// What is wrong with them is [`io::ErrorKind::InvalidData`]; an end within one is that, too.
pub struct Unpacked<R> {
    source: R,
    decoder: FrameDecoder,
    is_within: bool,
}

impl<R: BufRead> Unpacked<R> {
    /// Reads from `source`, which begins with a frame.
    pub fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW_BYTES);
        Self {
            source,
            decoder,
            is_within: false,
        }
    }

    /// Begins the next frame; false at the end.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.init(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let passed =
                        io::copy(&mut (&mut self.source).take(length.into()), &mut io::sink())?;
                    if passed != u64::from(length) {
                        return Err(damaged("it ends within a frame"));
                    }
                }
                Err(error) => return Err(damaged(error)),
            }
        }
    }

    /// What the frame says of itself must be what came out.
    fn end(&mut self) -> io::Result<()> {
        self.is_within = false;
        match (
            self.decoder.get_checksum_from_data(),
            self.decoder.get_calculated_checksum(),
        ) {
            (Some(said), found) if Some(said) != found => {
                Err(damaged("the checksum of what is packed in it is wrong"))
            }
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.is_within {
                if !self.begin()? {
                    return Ok(0);
                }
                self.is_within = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(damaged)?;
            }
            match self.decoder.read(buffer)? {
                0 => self.end()?,
                length => return Ok(length),
            }
        }
    }
}

fn damaged(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        // An image has an end, and so has a test.
        Unpacked::new(bytes).take(1 << 22).read_to_end(&mut all)?;
        Ok(all)
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    #[test]
    fn frames_behind_each_other_are_one_stream() {
        let skippable = [0x50, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let bytes = [packed(b"one "), skippable.to_vec(), packed(b"two")].concat();
        assert_eq!(unpacked(&bytes).unwrap(), b"one two");
    }

    #[test]
    fn a_stream_that_was_cut_or_changed_is_refused() {
        let bytes = packed(&[b"a packed thing ".as_slice(); 4000].concat());
        for end in 1..bytes.len() {
            assert!(unpacked(&bytes[..end]).is_err(), "cut at {end}");
        }
        for at in 4..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            let whole = unpacked(&bytes).unwrap();
            assert!(
                unpacked(&other).is_err_and(|e| e.kind() == io::ErrorKind::InvalidData)
                    || unpacked(&other).unwrap() == whole,
                "changed at {at}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), begins: bool) {
            let mut all = match begins {
                true => super::super::ZSTD_MAGIC.to_vec(),
                false => Vec::new(),
            };
            all.extend(bytes);
            let _ = unpacked(&all);
        }

        #[test]
        fn what_was_packed_is_unpacked(bytes in proptest::collection::vec(0u8..4, 0..5000)) {
            prop_assert_eq!(unpacked(&packed(&bytes)).unwrap(), bytes);
        }
    }
}
