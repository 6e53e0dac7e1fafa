//! Probes: padded challenges, and what an older version makes of them.

use super::*;
use altnet_wire::control::{ControlFrame, DATA_HEADER_BYTES, MAX_DATAGRAM_BYTES, TAKES_PIECES};

fn probed(wire: &Wire, node: usize) -> Vec<(u16, bool)> {
    let told = wire.told[node].iter();
    let probed = told.filter_map(|event| match event {
        ControlEvent::Probed {
            bytes,
            takes_pieces,
            ..
        } => Some((*bytes, *takes_pieces)),
        _ => None,
    });
    probed.collect()
}

/// Opens what node 0 sealed in its session, as a version would that has no probes.
fn opened(wire: &Wire, session: SessionId, datagram: &Datagram) -> Vec<u8> {
    let Ok(ControlPacket::Data {
        counter, sealed, ..
    }) = ControlPacket::parse(&datagram.bytes)
    else {
        panic!("no data: {:02x?}", datagram.bytes);
    };
    let mut plain = [0; MAX_DATAGRAM_BYTES];
    let keys = wire.nodes[1].sessions[&session.0].keys();
    let used = keys.open(counter, sealed, &mut plain).unwrap();
    plain[..used].to_vec()
}

#[test]
fn a_probe_has_the_size_that_was_asked_for_and_a_small_answer_that_says_what_the_peer_can() {
    let mut wire = Wire::new(ControlLimits::ROUTER, 31);
    let (a, _) = wire.session(member());
    let sizes = [0, 100, 1204, 1312, 1472];
    for bytes in sizes {
        wire.drain(0);
        wire.nodes[0].probe(a, place(1, 1), bytes, wire.now);
        let before = wire.sent.len();
        wire.drain(0);
        let sent = &wire.sent[before].bytes;
        assert_eq!(sent.len(), usize::from(bytes).max(50));
        wire.run_for(Duration::from_millis(30));
        assert!(wire.sent.last().unwrap().bytes.len() <= 16 + 16 + 37);
    }
    assert_eq!(probed(&wire, 0), sizes.map(|bytes| (bytes, true)));
    assert!(!has_ended(&wire.told[1]));
}

#[test]
fn an_older_version_finds_a_challenge_and_nothing_that_it_does_not_know() {
    let mut wire = Wire::new(ControlLimits::ROUTER, 32);
    let (a, b) = wire.session(member());
    wire.nodes[0].probe(a, place(1, 1), 300, wire.now);
    wire.drain(0);
    let datagram = wire.sent.last().unwrap().clone();
    let plain = opened(&wire, b, &datagram);
    assert_eq!(plain.len(), 300 - DATA_HEADER_BYTES - TAG_BYTES);
    // An acknowledgement of a message that was never sent, a challenge, and Pongs.
    assert_eq!(plain[..9], [2, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    assert_eq!(plain[9], 3);
    assert!(plain[18..].iter().all(|byte| *byte == 6));
    let mut outbound = super::super::outbound::Outbound::new();
    assert!(!outbound.ack(u32::MAX, TAKES_PIECES, wire.now));
}

#[test]
fn an_answer_of_an_older_version_says_that_it_takes_no_pieces() {
    let mut wire = Wire::new(ControlLimits::ROUTER, 33);
    let (a, b) = wire.session(member());
    wire.nodes[0].probe(a, place(1, 1), 300, wire.now);
    wire.drain(0);
    let datagram = wire.sent.pop().unwrap();
    let plain = opened(&wire, b, &datagram);
    let answer = ControlFrame::PathResponse {
        token: plain[10..18].try_into().unwrap(),
        observed: None,
    };
    let mut plain = [0; 64];
    let used = answer.encode(&mut plain).unwrap();
    let mut sealed = [0; 80];
    let keys = wire.nodes[1].sessions[&b.0].keys();
    let used = keys.seal(900, &plain[..used], &mut sealed).unwrap();
    let packet = ControlPacket::Data {
        receiver: a.0,
        counter: 900,
        sealed: &sealed[..used],
    };
    let mut bytes = [0; 128];
    let used = packet.encode(&mut bytes).unwrap();
    let bytes = bytes[..used].to_vec();
    wire.deliver(&Datagram {
        from: place(1, 1),
        to: place(0, 1),
        bytes,
    })
    .unwrap();
    wire.drain(0);
    assert_eq!(probed(&wire, 0), [(300, false)]);
}

#[test]
fn what_is_sent_again_is_told_from_what_is_sent_for_the_first_time() {
    let mut wire = Wire::new(ControlLimits::ROUTER, 34);
    let (a, _) = wire.session(member());
    wire.run_for(TEN_SECONDS);
    wire.loss_percent = 100;
    wire.nodes[0].send(a, &[1; 1000], wire.now).unwrap();
    wire.drain(0);
    let mut buffer = [0; FRAME_BYTES];
    let mut frame = Frame::new(&mut buffer);
    wire.now = wire.nodes[0].deadline();
    wire.nodes[0].handle_timeout(wire.now);
    assert!(wire.nodes[0].poll_transmit(&mut frame, wire.now).is_some());
    assert_eq!(wire.nodes[0].cargo(), Cargo::Again);
    wire.loss_percent = 0;
    wire.run_for(TEN_SECONDS);
    wire.nodes[0].send(a, &[1; 1000], wire.now).unwrap();
    assert!(wire.nodes[0].poll_transmit(&mut frame, wire.now).is_some());
    assert_eq!(wire.nodes[0].cargo(), Cargo::Usual);
}
