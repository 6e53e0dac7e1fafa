//! A TURN client whose server and hours are in the bytes.
//!
//! The server asks for no password unless the bytes have it do so, so that what it says is
//! believed and every state is reached.

use std::net::SocketAddr;

use altnet_core::turn::{Credentials, Transport, TurnClient, TurnConfig, TurnOutput};
use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::stun::attribute::*;
use altnet_wire::stun::channel::{CHANNELS, Channel};
use altnet_wire::stun::write::Writer;
use altnet_wire::stun::{Class, Message, Method, TransactionId};
use altnet_wire::time::{Duration, Instant};

use crate::bytes::Bytes;

/// Scenarios longer than this many steps are cut off.
const STEPS: usize = 64;
/// Peers the client may have at once.
const PEERS: u16 = 3;
/// More than a client has to say at one moment: a request and a fact for each peer and itself.
const MOST_SAID: usize = 64;

struct Story {
    client: TurnClient,
    now: Instant,
    /// The last requests, by method and transaction.
    asked: Vec<(Method, TransactionId)>,
    /// The last thing that was answered.
    answered: Vec<u8>,
    allocations: usize,
}

/// Drives a client.
pub fn turn_client(data: &[u8]) {
    story(data);
}

/// Returns how often the client was told of an allocation.
fn story(data: &[u8]) -> usize {
    let mut bytes = Bytes(data);
    let config = TurnConfig {
        transport: match bytes.octet() & 1 {
            0 => Transport::Datagram,
            _ => Transport::Stream,
        },
        peers: PEERS,
        ..TurnConfig::new(server())
    };
    let credentials = Credentials::new("somebody", "sesame").expect("lengths that may be");
    let now = Instant::from_micros(1);
    let mut story = Story {
        client: TurnClient::new(config, credentials, [7; 32], now),
        now,
        asked: Vec::new(),
        answered: Vec::new(),
        allocations: 0,
    };
    story.drain();
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        story.step(&mut bytes);
        story.drain();
    }
    story.allocations
}

fn server() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 5], 3478))
}

fn peer(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n & 3], 7 + u16::from(n >> 7)))
}

impl Story {
    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.octet() % 10 {
            0 => self.now = self.now.after(Duration::from_millis(bytes.pair().into())),
            1 => self.now = self.now.after(Duration::from_secs(bytes.octet().into())),
            2 | 3 => self.answer(bytes),
            4 => {
                let again = bytes.changed(&self.answered);
                self.hear(&again);
            }
            5 => self.hear(bytes.run()),
            6 => {
                let _ = self.client.permit(peer(bytes.octet()), self.now);
            }
            7 => self.client.forget(peer(bytes.octet())),
            8 => self.data(bytes),
            _ => match bytes.octet() % 4 {
                0 => self.client.start(self.now),
                1 => self.client.refresh(self.now),
                2 => self.client.handle_entropy(&[bytes.octet(); 32]),
                _ => self.client.close(self.now),
            },
        }
    }

    /// Something from the server.
    fn hear(&mut self, datagram: &[u8]) {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        if frame.set(datagram).is_err() {
            return;
        }
        self.answered = datagram.to_vec();
        if self
            .client
            .receive(server(), &mut frame, self.now)
            .is_some()
        {
            assert!(
                frame.len() < datagram.len(),
                "a peer's datagram had a header"
            );
        }
    }

    /// Answers one of the last requests with what the bytes say.
    fn answer(&mut self, bytes: &mut Bytes<'_>) {
        let Some((method, transaction)) = bytes.choose(&self.asked).copied() else {
            return;
        };
        let code = bytes.pair() % 500;
        let class = if code < 200 {
            Class::Success
        } else {
            Class::Error
        };
        let mut out = [0; 1400];
        let mut writer = Writer::new(&mut out, class, method, transaction).expect("room");
        if code >= 200 {
            let known = [300, 400, 401, 403, 437, 438, 486, 508];
            let code = known.get(usize::from(code % 16)).copied().unwrap_or(code);
            let _ = writer.put_error(code.max(300), "");
        }
        let what = bytes.octet();
        let lifetime = u32::from(bytes.octet()) * 8;
        let relayed = SocketAddr::from(([203, 0, 113, 5], bytes.pair()));
        if what & 1 == 0 {
            let _ = writer.put_xor_address(XOR_RELAYED_ADDRESS, relayed);
        }
        if what & 2 == 0 {
            let _ = writer.put_xor_address(XOR_MAPPED_ADDRESS, relayed);
            let _ = writer.put_number(LIFETIME, lifetime);
        }
        if what & 4 != 0 {
            let _ = writer.put(REALM, bytes.run());
            let _ = writer.put(NONCE, bytes.run());
        }
        if what & 8 != 0 {
            let _ = writer.put(PASSWORD_ALGORITHMS, bytes.run());
        }
        if what & 16 != 0 {
            let _ = writer.put_address(ALTERNATE_SERVER, relayed);
        }
        let datagram = writer.bytes().to_vec();
        self.hear(&datagram);
    }

    /// Something to a peer, and something from one.
    fn data(&mut self, bytes: &mut Bytes<'_>) {
        let (to, content) = (peer(bytes.octet()), bytes.run().to_vec());
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        if frame.set(&content).is_ok() && self.client.send(to, &mut frame, self.now).is_ok() {
            let packet = frame.packet();
            let carried = match Channel::parse(packet) {
                Some((_, length)) => packet[4..4 + length].to_vec(),
                None => {
                    let message = Message::parse(packet).expect("an indication");
                    message.find(DATA).expect("with data").value.to_vec()
                }
            };
            assert_eq!(carried, content);
        }
        let number = CHANNELS.start() + bytes.pair() % 16;
        if let Some(channel) = Channel::new(number)
            && frame.set(&content).is_ok()
            && channel.push(&mut frame).is_ok()
        {
            let datagram = frame.packet().to_vec();
            self.hear(&datagram);
        }
    }

    /// What the client has to say now. It comes to an end, and then sleeps.
    fn drain(&mut self) {
        let mut buffer = [0; FRAME_BYTES];
        self.client.handle_timeout(self.now);
        for _ in 0..MOST_SAID {
            let mut frame = Frame::new(&mut buffer);
            match self.client.poll_output(&mut frame, self.now) {
                TurnOutput::Send { to } => {
                    assert_eq!(to, server());
                    let message = Message::parse(frame.packet()).expect("a client writes well");
                    if message.class() == Class::Request {
                        self.asked.push((message.method(), message.transaction()));
                    }
                    let old = self.asked.len().saturating_sub(8);
                    self.asked.drain(..old);
                }
                TurnOutput::Tell(event) => {
                    let is_allocated =
                        matches!(event, altnet_core::turn::TurnEvent::Allocated { .. });
                    self.allocations += usize::from(is_allocated);
                }
                TurnOutput::Wait(until) => {
                    assert!(until > self.now, "it never sleeps");
                    return;
                }
            }
        }
        panic!("it never stops talking");
    }
}

/// Scenarios that go well.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    if target != "turn_client" {
        return Vec::new();
    }
    // Answer the newest request of some with success and a lifetime of 600 s.
    let granted = |which: u8| [2, 0, which, 0, 0, 0, 75, 0xc3, 0x51].to_vec();
    let data = [8, 1, 0, 3, b'a', b'b', b'c', 0, 0].to_vec();
    let allocate = [vec![0], granted(0), vec![6, 1, 6, 2]].concat();
    // Permissions and channels of both peers, then data, then an hour with answers in it.
    let peers: Vec<u8> = (1..8).flat_map(granted).collect();
    let hour: Vec<u8> = (0..20)
        .flat_map(|n| [vec![1, 200], granted(n)].concat())
        .collect();
    let challenged = [
        vec![0, 2, 0, 0, 0, 210, 4, 75, 0xc3, 0x51, 0, 5],
        b"realm".to_vec(),
        vec![0, 5],
        b"nonce".to_vec(),
        vec![0, 0x03, 0xe8],
    ]
    .concat();
    let ended = vec![9, 1, 9, 3, 9, 0, 1, 200, 0, 0xff, 0xff];
    vec![
        allocate.clone(),
        [allocate.clone(), peers.clone(), data.clone()].concat(),
        [allocate.clone(), peers, data, hour].concat(),
        challenged,
        [allocate, ended].concat(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_reach_what_they_are_for() {
        let allocations: Vec<usize> = seeds("turn_client").iter().map(|s| story(s)).collect();
        assert_eq!(allocations, [1, 1, 1, 0, 1]);
    }
}
