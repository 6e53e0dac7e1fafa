//! Finding out whom a NAT lets in: what comes to a port that is shown, and a trial in which anything comes.

use std::net::SocketAddr;

use altnet_core::path::filter::{Step, Trial};
use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::knock::{Key, Knocking, Origin};
use altnet_wire::message::Filtering;
use altnet_wire::time::{Duration, Instant};

use crate::bytes::Bytes;

/// The key of the trial, in the corpus.
const KEY: Key = Key([7; 16]);
/// Scenarios longer than this many steps are cut off.
const STEPS: usize = 64;

fn address(byte: u8) -> SocketAddr {
    let (host, port) = (10 + (byte & 1), 51_820 + u16::from(byte >> 1 & 1));
    SocketAddr::new([203, 0, 113, host].into(), port)
}

/// Reads the bytes as either datagram and writes it again; then has them say what happens in a trial.
pub fn knock(data: &[u8]) {
    let mut buffer = [0xff; FRAME_BYTES];
    let mut frame = Frame::new(&mut buffer);
    if let Some(knocking) = Knocking::parse(data) {
        knocking.write(&mut frame).expect("there is room");
        assert_eq!(frame.packet(), data);
    }
    let mut bytes = Bytes(data);
    let mut now = Instant::ZERO;
    let mut trial = Trial::new(KEY, address(0), now);
    let (mut shows, mut is_elsewhere) = (0, false);
    for _ in 0..STEPS {
        match trial.poll(now) {
            Step::Show(proof) => {
                assert_eq!(proof, KEY.shown());
                shows += 1;
            }
            Step::Wait(until) => {
                assert!(until > now && until == trial.deadline());
                now = now.after(Duration::from_millis(bytes.pair().into()));
            }
            Step::End(found) => {
                // Nothing but another relay's knock shows that everybody is let in.
                assert_eq!(found == Filtering::EndpointIndependent, is_elsewhere);
                return;
            }
        }
        let (what, from) = (usize::from(bytes.octet()), address(bytes.octet()));
        match Origin::ALL.get(what % 8) {
            Some(origin) => {
                assert!(trial.heard(KEY.knock(*origin), from, now));
                is_elsewhere |= *origin == Origin::OtherAddress && from.ip() != address(0).ip();
            }
            None if what % 8 == 3 => trial.is_asked(),
            None => {
                let key = Key([bytes.octet() | 8; 16]);
                assert!(!trial.heard(key.knock(Origin::Same), from, now));
            }
        }
        assert!(shows <= 3);
    }
}

/// Valid inputs.
pub fn seeds(name: &str) -> Vec<Vec<u8>> {
    if name != "knock" {
        return Vec::new();
    }
    let mut buffer = [0; FRAME_BYTES];
    let mut frame = Frame::new(&mut buffer);
    let mut written = |knocking: Knocking| {
        knocking.write(&mut frame).expect("there is room");
        frame.packet().to_vec()
    };
    let show = written(Knocking::Show(KEY.shown()));
    let knocks = Origin::ALL.map(|origin| written(Knocking::Knock(KEY.knock(origin))));
    // A trial in which all three come, and one in which another relay's doesn't.
    let all = vec![0, 0, 0, 9, 1, 2, 0, 9, 3, 0, 0, 9, 2, 1];
    let some = vec![0, 0, 0, 9, 1, 2, 0, 9, 3, 0, 255, 255, 4, 0, 255, 255];
    [vec![show, all, some], knocks.to_vec()].concat()
}
