//! Exact bytes, and the law that what was written is read.

use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const A: PublicKey = PublicKey([0xaa; 32]);
const B: PublicKey = PublicKey([0xbb; 32]);

fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut out = vec![0; frame.encoded_len()];
    assert_eq!(frame.encode(&mut out), Ok(out.len()));
    out
}

fn read(bytes: &[u8]) -> Result<Frame<'_>, BadFrame> {
    let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>().unwrap();
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
    assert_eq!(length as usize, body.len());
    Frame::parse(FrameKind(header[0]), body)
}

fn check(frame: Frame<'_>, pieces: &[&[u8]]) {
    let expected = pieces.concat();
    assert_eq!(encoded(&frame), expected);
    assert_eq!(read(&expected), Ok(frame));
    let needed = expected.len();
    let mut small = vec![0; needed - 1];
    assert_eq!(frame.encode(&mut small), Err(NoRoom { needed }));
}

#[test]
fn every_frame_keeps_its_exact_bytes() {
    check(
        Frame::ServerKey(A),
        &[&[1, 0, 0, 0, 40], "DERP🔑".as_bytes(), &A.0],
    );
    let sealed = &[9; 40];
    check(
        Frame::ClientInfo { key: A, sealed },
        &[&[2, 0, 0, 0, 72], &A.0, sealed],
    );
    check(Frame::ServerInfo(sealed), &[&[3, 0, 0, 0, 40], sealed]);
    let packet = b"hi";
    check(
        Frame::SendPacket { to: B, packet },
        &[&[4, 0, 0, 0, 34], &B.0, packet],
    );
    check(
        Frame::RecvPacket { from: A, packet },
        &[&[5, 0, 0, 0, 34], &A.0, packet],
    );
    check(Frame::KeepAlive, &[&[6, 0, 0, 0, 0]]);
    check(Frame::NotePreferred(true), &[&[7, 0, 0, 0, 1, 1]]);
    check(Frame::NotePreferred(false), &[&[7, 0, 0, 0, 1, 0]]);
    let reason = GoneReason::NOT_HERE;
    check(
        Frame::PeerGone { peer: A, reason },
        &[&[8, 0, 0, 0, 33], &A.0, &[1]],
    );
    let forward = Frame::ForwardPacket {
        from: A,
        to: B,
        packet,
    };
    check(forward, &[&[10, 0, 0, 0, 66], &A.0, &B.0, packet]);
    check(Frame::WatchConns, &[&[0x10, 0, 0, 0, 0]]);
    check(Frame::ClosePeer(A), &[&[0x11, 0, 0, 0, 32], &A.0]);
    check(
        Frame::Ping(*b"12345678"),
        &[&[0x12, 0, 0, 0, 8], b"12345678"],
    );
    check(
        Frame::Pong(*b"12345678"),
        &[&[0x13, 0, 0, 0, 8], b"12345678"],
    );
    check(Frame::Health(b"sick"), &[&[0x14, 0, 0, 0, 4], b"sick"]);
    check(
        Frame::Restarting {
            reconnect_in_ms: 1,
            try_for_ms: 256,
        },
        &[&[0x15, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 1, 0]],
    );
}

#[test]
fn a_present_peer_is_told_in_the_three_lengths_that_servers_used() {
    let present = |address: Option<&str>, flags| Frame::PeerPresent {
        peer: A,
        address: address.map(|text| text.parse().unwrap()),
        flags,
    };
    let v4 = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];
    check(present(None, None), &[&[9, 0, 0, 0, 32], &A.0]);
    check(
        present(Some("192.0.2.1:258"), None),
        &[&[9, 0, 0, 0, 50], &A.0, &v4, &[1, 2]],
    );
    check(
        present(Some("192.0.2.1:258"), Some(PresentFlags::REGULAR)),
        &[&[9, 0, 0, 0, 51], &A.0, &v4, &[1, 2, 1]],
    );
    check(
        present(None, Some(PresentFlags::PROBER)),
        &[&[9, 0, 0, 0, 51], &A.0, &[0; 18], &[4]],
    );
}

#[test]
fn what_is_behind_a_known_body_is_ignored() {
    let greeting = [&MAGIC[..], &A.0, b"more"].concat();
    assert_eq!(
        Frame::parse(FrameKind::SERVER_KEY, &greeting),
        Ok(Frame::ServerKey(A))
    );
    assert_eq!(
        Frame::parse(FrameKind::PING, b"12345678more"),
        Ok(Frame::Ping(*b"12345678"))
    );
    // The first servers gave no reason.
    let reason = GoneReason::DISCONNECTED;
    assert_eq!(
        Frame::parse(FrameKind::PEER_GONE, &A.0),
        Ok(Frame::PeerGone { peer: A, reason })
    );
}

#[test]
fn what_is_too_short_is_refused() {
    for kind in [1, 2, 4, 5, 8, 9, 10, 17] {
        let short = BadFrame::Short { kind, found: 7 };
        assert_eq!(Frame::parse(FrameKind(kind), &[0; 7]), Err(short));
    }
    let found = Frame::parse(FrameKind::SERVER_KEY, &[0; 40]);
    assert_eq!(found, Err(BadFrame::NotDerp));
}

#[test]
fn a_packets_prefix_is_what_its_frame_begins_with() {
    let packet = &[1, 2, 3];
    let frame = encoded(&Frame::RecvPacket { from: A, packet });
    let prefix = packet_prefix(FrameKind::RECV_PACKET, &A, packet.len());
    assert_eq!(frame, [&prefix[..], packet].concat());
}

proptest! {
    #[test]
    fn what_was_written_is_read(kind in 1_u8..0x18, body in proptest::collection::vec(any::<u8>(), 0..120)) {
        if let Ok(frame) = Frame::parse(FrameKind(kind), &body) {
            let again = encoded(&frame);
            prop_assert_eq!(read(&again), Ok(frame));
            prop_assert!(again.len() <= HEADER_BYTES + body.len() + 1);
        }
    }
}
