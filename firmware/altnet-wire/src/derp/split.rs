//! Cuts a stream of bytes into frames.
//!
//! In: what has arrived, from the first byte that wasn't taken yet. Out: one frame at a time, borrowed.
//! A length that the side that wrote it may not use is refused as soon as its header is there, so a
//! reader never holds more than [`super::MAX_BODY_BYTES`] and a header. What isn't understood is
//! skipped without being held, whatever its length.

use super::{
    BadFrame, FrameKind, HEADER_BYTES, KEY_BYTES, MAX_BODY_BYTES, MAX_PACKET_BYTES, NONCE_BYTES,
};

/// The largest frame that a client accepts from a server, in bytes of its body.
const MAX_FROM_SERVER: u32 = 1 << 20;
/// The largest greeting that a client accepts.
const MAX_GREETING: u32 = 1 << 10;
/// The largest ping: its payload, and room for what may come.
const MAX_PING: u32 = 1000;
/// The largest `ClientInfo` that is accepted from somebody who hasn't shown who it is. Tailscale's
/// server takes 256 KiB; its own clients write some 150 bytes.
pub const MAX_CLIENT_INFO: u32 = 16 << 10;

/// Who wrote the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A client.
    Client,
    /// A server.
    Server,
}

/// A frame as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFrame<'a> {
    /// Its kind.
    pub kind: FrameKind,
    /// Its body, for [`super::Frame::parse`].
    pub body: &'a [u8],
}

/// Cuts what one side writes into frames.
#[derive(Clone, Copy, Debug)]
pub struct Splitter {
    writer: Writer,
    /// Bytes of a body that is being skipped.
    skip: u32,
}

impl Splitter {
    /// For a stream that `writer` writes, at its beginning.
    pub const fn new(writer: Writer) -> Self {
        Self { writer, skip: 0 }
    }

    /// Takes the next frame from the front of `bytes`; `None` if it isn't there as a whole.
    ///
    /// What remains in `bytes` then has to be kept, and handed in again in front of what comes next.
    ///
    /// # Errors
    /// [`BadFrame`]: the stream can't be read any further.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<RawFrame<'a>>, BadFrame> {
        loop {
            let here = usize::try_from(self.skip).unwrap_or(usize::MAX);
            let skipped = here.min(bytes.len());
            *bytes = bytes.get(skipped..).unwrap_or(&[]);
            self.skip = self
                .skip
                .saturating_sub(u32::try_from(skipped).unwrap_or(u32::MAX));
            let Some((&[kind, a, b, c, d], rest)) = bytes.split_first_chunk::<HEADER_BYTES>()
            else {
                return Ok(None);
            };
            let (kind, length) = (FrameKind(kind), u32::from_be_bytes([a, b, c, d]));
            if !self.writer.has_to_be_read(kind, length)? {
                self.skip = length;
                *bytes = rest;
                continue;
            }
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let Some((body, rest)) = rest.split_at_checked(length) else {
                return Ok(None);
            };
            *bytes = rest;
            return Ok(Some(RawFrame { kind, body }));
        }
    }

    /// Whether the stream stands between two frames, if all that `Splitter::next` left was empty.
    pub const fn is_between_frames(&self) -> bool {
        self.skip == 0
    }
}

impl Writer {
    /// Whether a body is to be read, rather than skipped.
    fn has_to_be_read(self, kind: FrameKind, length: u32) -> Result<bool, BadFrame> {
        let bytes = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let packet = bytes(KEY_BYTES)..=bytes(KEY_BYTES + MAX_PACKET_BYTES);
        let found = length;
        let (least, most) = match (self, kind) {
            (Self::Client, FrameKind::CLIENT_INFO) => {
                (bytes(KEY_BYTES + NONCE_BYTES), MAX_CLIENT_INFO)
            }
            (Self::Client, FrameKind::SEND_PACKET) | (Self::Server, FrameKind::RECV_PACKET) => {
                packet.into_inner()
            }
            (Self::Client, FrameKind::FORWARD_PACKET) => {
                (bytes(2 * KEY_BYTES), bytes(MAX_BODY_BYTES))
            }
            (Self::Client, FrameKind::NOTE_PREFERRED) => (1, 1),
            (Self::Client, FrameKind::WATCH_CONNS) => (0, 0),
            (Self::Client, FrameKind::CLOSE_PEER) => (bytes(KEY_BYTES), bytes(KEY_BYTES)),
            (Self::Client, FrameKind::PING) => (8, MAX_PING),
            (Self::Client, _) => return Ok(false),
            (Self::Server, FrameKind::SERVER_KEY) => (0, MAX_GREETING),
            (Self::Server, _) if length > MAX_FROM_SERVER => (0, MAX_FROM_SERVER),
            // A server may say more than is known of it; what is too large to hold isn't read.
            (Self::Server, _) => return Ok(length <= bytes(MAX_BODY_BYTES)),
        };
        let kind = kind.0;
        if found < least {
            Err(BadFrame::Short { kind, found })
        } else if found > most {
            Err(BadFrame::Long { kind, found })
        } else {
            Ok(true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derp::{Frame, PublicKey, header};
    use proptest::prelude::*;
    use std::vec::Vec;

    fn written(frames: &[Frame<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in frames {
            let at = out.len();
            out.resize(at + frame.encoded_len(), 0);
            frame.encode(&mut out[at..]).unwrap();
        }
        out
    }

    /// What a header alone leads to.
    fn check(writer: Writer, kind: FrameKind, length: u32, expected: Result<(), BadFrame>) {
        let bytes = header(kind, length);
        let found = Splitter::new(writer).next(&mut &bytes[..]).map(|_| ());
        assert_eq!(found, expected, "{kind:?} of {length}");
    }

    #[test]
    fn a_length_that_is_not_allowed_is_refused_before_its_body_comes() {
        let long = |kind: FrameKind, found| {
            Err(BadFrame::Long {
                kind: kind.0,
                found,
            })
        };
        let short = |kind: FrameKind, found| {
            Err(BadFrame::Short {
                kind: kind.0,
                found,
            })
        };
        use Writer::{Client, Server};
        // The bounds are those of Tailscale's `handleFrame*` and `recvPacket`.
        check(
            Client,
            FrameKind::SEND_PACKET,
            31,
            short(FrameKind::SEND_PACKET, 31),
        );
        check(Client, FrameKind::SEND_PACKET, 65568, Ok(()));
        check(
            Client,
            FrameKind::SEND_PACKET,
            65569,
            long(FrameKind::SEND_PACKET, 65569),
        );
        check(
            Client,
            FrameKind::FORWARD_PACKET,
            63,
            short(FrameKind::FORWARD_PACKET, 63),
        );
        check(
            Client,
            FrameKind::FORWARD_PACKET,
            65601,
            long(FrameKind::FORWARD_PACKET, 65601),
        );
        check(Client, FrameKind::PING, 7, short(FrameKind::PING, 7));
        check(Client, FrameKind::PING, 1000, Ok(()));
        check(Client, FrameKind::PING, 1001, long(FrameKind::PING, 1001));
        check(
            Client,
            FrameKind::NOTE_PREFERRED,
            2,
            long(FrameKind::NOTE_PREFERRED, 2),
        );
        check(
            Client,
            FrameKind::WATCH_CONNS,
            1,
            long(FrameKind::WATCH_CONNS, 1),
        );
        check(
            Client,
            FrameKind::CLOSE_PEER,
            33,
            long(FrameKind::CLOSE_PEER, 33),
        );
        check(Client, FrameKind(0x77), u32::MAX, Ok(()));
        check(
            Server,
            FrameKind(0x77),
            (1 << 20) + 1,
            long(FrameKind(0x77), (1 << 20) + 1),
        );
        check(Server, FrameKind::HEALTH, 1 << 20, Ok(()));
        check(
            Server,
            FrameKind::SERVER_KEY,
            1025,
            long(FrameKind::SERVER_KEY, 1025),
        );
    }

    #[test]
    fn an_unknown_frame_is_skipped_without_being_held() {
        let mut splitter = Splitter::new(Writer::Client);
        let mut stream = Vec::from(header(FrameKind(0x77), 100_000));
        stream.resize(stream.len() + 100_000, 0xff);
        stream.extend(written(&[Frame::Ping([7; 8])]));
        let mut found = Vec::new();
        for chunk in stream.chunks(1000) {
            let mut rest = chunk;
            while let Some(raw) = splitter.next(&mut rest).unwrap() {
                found.push(Frame::parse(raw.kind, raw.body).unwrap());
            }
            assert_eq!(rest, &[] as &[u8]);
        }
        assert_eq!(found, [Frame::Ping([7; 8])]);
    }

    proptest! {
        #[test]
        fn frames_are_the_same_however_the_stream_is_cut(
            packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..8),
            cuts in proptest::collection::vec(1_usize..30, 1..20),
        ) {
            let frames: Vec<_> = packets
                .iter()
                .map(|packet| Frame::SendPacket { to: PublicKey([3; 32]), packet })
                .collect();
            let stream = written(&frames);
            let mut splitter = Splitter::new(Writer::Client);
            let (mut held, mut found, mut at) = (Vec::new(), Vec::new(), 0);
            for cut in cuts.iter().cycle() {
                let end = stream.len().min(at + cut);
                held.extend_from_slice(&stream[at..end]);
                at = end;
                let mut rest = &held[..];
                while let Some(raw) = splitter.next(&mut rest).unwrap() {
                    found.push(raw.body.to_vec());
                }
                let taken = held.len() - rest.len();
                held.drain(..taken);
                if at == stream.len() {
                    break;
                }
            }
            prop_assert!(held.is_empty() && splitter.is_between_frames());
            prop_assert_eq!(found.len(), packets.len());
            for (body, packet) in found.iter().zip(&packets) {
                prop_assert_eq!(&body[32..], &packet[..]);
            }
        }

        #[test]
        fn no_stream_makes_a_splitter_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for writer in [Writer::Client, Writer::Server] {
                let mut rest = &bytes[..];
                let mut splitter = Splitter::new(writer);
                while let Ok(Some(raw)) = splitter.next(&mut rest) {
                    let _ = Frame::parse(raw.kind, raw.body);
                }
            }
        }
    }
}
