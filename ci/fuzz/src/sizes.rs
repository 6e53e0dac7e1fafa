//! Sizes: pieces of datagrams from anybody, SYNs with any options, and paths on which anything
//! happens.

use altnet_core::ip::mss::{MSS_OVERHEAD_BYTES, clamp_mss};
use altnet_core::path::mtu::{FLOOR, PathMtu};
use altnet_core::split::{Cutter, Joined, Joiner};
use altnet_wire::endpoint::Endpoint;
use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::split::{MAX_WHOLE_BYTES, Piece};
use altnet_wire::time::{Duration, Instant};

use crate::bytes::Bytes;

/// Scenarios longer than this many steps are cut off.
const STEPS: usize = 64;
/// How many datagrams in pieces there is room for.
const PLACES: u16 = 3;

/// Reads the bytes as a piece, and as what senders send whose pieces come in any order.
pub fn pieces(data: &[u8]) {
    let mut buffer = [0; FRAME_BYTES];
    let mut frame = Frame::new(&mut buffer);
    if let Ok((piece, part)) = Piece::parse(data) {
        frame.set(part).expect("no piece is larger than a frame");
        piece.push(&mut frame).expect("there is room before it");
        assert_eq!(frame.packet(), data);
    }
    let mut bytes = Bytes(data);
    let mut joiner = Joiner::new(PLACES);
    let mut cutter = Cutter::new(bytes.pair().into());
    let mut now = Instant::ZERO;
    let mut cut: Vec<Vec<u8>> = Vec::new();
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        now = now.after(Duration::from_millis(u64::from(bytes.octet()) * 4));
        let from = sender(bytes.octet());
        if bytes.octet() & 1 == 0 {
            let whole = vec![bytes.octet(); usize::from(bytes.pair()) % (MAX_WHOLE_BYTES + 1)];
            frame.set(&whole).expect("it fits");
            if cutter.cut(from, bytes.pair().into(), &mut frame).is_ok() {
                cut.push(frame.packet().to_vec());
                while cutter.next(&mut frame).is_some() {
                    cut.push(frame.packet().to_vec());
                }
            }
        }
        let Some(piece) = bytes.choose(&cut).cloned() else {
            continue;
        };
        let piece = bytes.changed(&piece);
        if frame.set(&piece).is_ok() && joiner.take(from, &mut frame, now) == Ok(Joined::Whole) {
            assert!((2..=MAX_WHOLE_BYTES).contains(&frame.len()));
        }
    }
}

/// Takes the bytes for a packet whose SYN is to ask for less.
pub fn clamped_syn(data: &[u8]) {
    let mut packet = data.to_vec();
    let asked = clamp_mss(&mut packet, 1280);
    assert_eq!(packet.len(), data.len());
    let most = 1280 - MSS_OVERHEAD_BYTES;
    match asked.is_some_and(|asked| asked > most) {
        true => assert_eq!(clamp_mss(&mut packet, 1280), Some(most)),
        false => assert_eq!(packet, data),
    }
}

/// Has anything happen on the paths to a peer.
pub fn path_mtu(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut mtu = PathMtu::new();
    let mut now = Instant::ZERO;
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        now = now.after(Duration::from_millis(bytes.pair().into()));
        let (way, size) = (sender(bytes.octet() % 2), bytes.pair());
        match bytes.octet() % 7 {
            0 => mtu.sent(way, size % 77, size, now),
            1 => mtu.wants(way, size % 77, size, now),
            2 => mtu.answered(way, size, true, now),
            3 => mtu.answered(way, size, false, now),
            4 => mtu.too_large(way, size, now),
            5 => mtu.begins_anew(),
            _ => {}
        }
        let rtt = Duration::from_millis(bytes.pair().into());
        let mut probes = 0;
        while mtu.poll_probe(way, Some(rtt), now).is_some() {
            probes += 1;
            assert!(probes < 8, "probes without end");
        }
        assert!(mtu.deadline(way, Some(rtt), now) > now, "would spin");
        assert!(mtu.most(way).is_none_or(|most| most >= FLOOR));
        assert!(mtu.inner() >= 1280);
    }
}

fn sender(number: u8) -> Endpoint {
    Endpoint::Direct(([192, 0, 2, number % 4], 7).into())
}

/// Valid inputs for the targets here.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "pieces" => {
            let mut buffer = [0; FRAME_BYTES];
            let mut frame = Frame::new(&mut buffer);
            frame.set(&[7; 1312]).expect("it fits");
            let mut cutter = Cutter::new(9);
            cutter
                .cut(sender(1), 520, &mut frame)
                .expect("three pieces");
            let mut seeds = vec![frame.packet().to_vec()];
            while cutter.next(&mut frame).is_some() {
                seeds.push(frame.packet().to_vec());
            }
            // Cuts a datagram of 1312 bytes, and takes its pieces one after the other.
            let cut = [0, 1, 0, 1, 0, 7, 5, 0x20, 2, 8, 0, 0, 0];
            let others = [[0, 1, 1, 0, 1, 0], [0, 1, 1, 0, 2, 0]];
            seeds.push([&cut[..], &others.concat()].concat());
            seeds
        }
        "clamped_syn" => {
            let packet = |next: u8, extension: &[u8], options: &[u8]| {
                let length = extension.len() + 20 + options.len();
                let mut packet = vec![0x60, 0, 0, 0, 0, length as u8, next, 64];
                packet.extend([0xfd; 32]);
                packet.extend(extension);
                packet.extend([0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 0]);
                packet.extend([(5 + options.len() as u8 / 4) << 4, 2, 4, 0, 0, 0, 0, 0]);
                packet.extend(options);
                packet
            };
            let mss = [2, 4, 5, 0xa0];
            vec![
                packet(6, &[], &mss),
                packet(60, &[6, 0, 1, 4, 0, 0, 0, 0], &mss),
                packet(6, &[], &[1, 2, 4, 5, 0xa0, 4, 2, 0]),
            ]
        }
        "path_mtu" => {
            let step = |what: u8, size: u16| {
                let [high, low] = size.to_be_bytes();
                [0, 100, 1, high, low, what, 0, 50]
            };
            let narrow = [
                step(0, 1312),
                step(2, 0),
                step(6, 0),
                step(6, 0),
                step(6, 0),
            ];
            let wide = [step(1, 1452), step(2, 1452), step(0, 1452), step(4, 1300)];
            vec![narrow.concat(), wide.concat()]
        }
        _ => Vec::new(),
    }
}
