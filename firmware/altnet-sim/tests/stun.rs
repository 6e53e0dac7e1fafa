//! Relays tell whoever asks what its address is, and are no help to whoever forges one.

use std::net::SocketAddr;

use altnet_core::node::DropReason;
use altnet_sim::homes::{HOUSE_A, Homes, entry, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::world::{HostId, PORT};
use altnet_wire::address::node_address;
use altnet_wire::relay::{SEND, SEND_HEADER_BYTES};
use altnet_wire::stun::attribute::{PADDING, XOR_MAPPED_ADDRESS};
use altnet_wire::stun::write::Writer;
use altnet_wire::stun::{Class, Message, Method, TransactionId};
use altnet_wire::time::Duration;

fn asker(port: u16) -> SocketAddr {
    SocketAddr::new("203.0.113.77".parse().unwrap(), port)
}

/// A Binding request with so many bytes of padding.
fn request(padding: usize) -> Vec<u8> {
    let mut out = [0; 128];
    let transaction = TransactionId(*b"what am I to");
    let mut writer = Writer::new(&mut out, Class::Request, Method::BINDING, transaction).unwrap();
    if padding > 0 {
        writer.put(PADDING, &vec![0; padding]).unwrap();
    }
    writer.bytes().to_vec()
}

fn quiet_homes(seed: u64) -> Homes {
    let mut homes = Homes::new(seed, Kind::FULL_CONE, Kind::FULL_CONE);
    homes.world.capture = true;
    homes
}

/// Asks, and returns what came back.
fn ask(homes: &mut Homes, to: SocketAddr, from: SocketAddr, bytes: Vec<u8>) -> Vec<Vec<u8>> {
    homes.world.captured.clear();
    homes.world.inject(from, to, bytes);
    homes.world.run(Duration::from_millis(200));
    let back = homes.world.captured.iter().filter(|c| c.to == from);
    back.map(|c| c.bytes.clone()).collect()
}

fn counts(homes: &Homes, host: HostId) -> (u64, u64) {
    let counters = homes.world.node(host).counters();
    (counters.stun_answers, counters.dropped(DropReason::Stun))
}

#[test]
fn a_relay_tells_whoever_asks_its_address() {
    let mut homes = quiet_homes(401);
    let answers = ask(&mut homes, entry(), asker(40_000), request(0));
    assert_eq!(answers.len(), 1);
    let message = Message::parse(&answers[0]).unwrap();
    assert_eq!(message.transaction(), TransactionId(*b"what am I to"));
    let told = message.xor_address(XOR_MAPPED_ADDRESS);
    assert_eq!(told, Some(asker(40_000)));
    let relay = homes.relay;
    assert_eq!(counts(&homes, relay), (1, 0));
}

#[test]
fn a_gateway_that_is_no_relay_answers_nobody() {
    let mut homes = quiet_homes(402);
    homes.world.run(seconds(30));
    let from = homes.world.captured.iter().map(|c| c.from);
    let mut gateway = from.filter(|from| from.ip().to_string() == HOUSE_A);
    let gateway = gateway.next().expect("it keeps its mapping open");
    let answers = ask(&mut homes, gateway, asker(40_000), request(40));
    assert_eq!(answers, Vec::<Vec<u8>>::new());
    let host = homes.a;
    assert_eq!(counts(&homes, host), (0, 1));
    assert_eq!(entry().port(), PORT);
}

#[test]
fn what_comes_through_a_relay_is_not_answered() {
    let mut homes = Homes::new(406, Kind::SYMMETRIC, Kind::SYMMETRIC);
    homes.world.capture = true;
    assert!(homes.path_becomes("relay"));
    assert!(homes.reaches("a page"));
    let mut seen = homes.world.captured.iter();
    let sent = seen.find(|c| c.bytes.first() == Some(&SEND)).unwrap();
    let (from, mut datagram) = (sent.from, sent.bytes[..SEND_HEADER_BYTES].to_vec());
    // A client's own header, to the relay itself.
    let relay = homes.relay;
    let device = homes.world.node(relay).identity().device.public();
    let node = node_address(&homes.founder.registry.network(), &device);
    datagram[12..].copy_from_slice(&node.octets());
    datagram.extend(request(40));
    ask(&mut homes, entry(), from, datagram);
    assert_eq!(counts(&homes, relay), (0, 1));
    // From there without the header it is.
    ask(&mut homes, entry(), from, request(40));
    assert_eq!(counts(&homes, relay), (1, 1));
}

#[test]
fn short_requests_are_answered_forty_at_once_and_twenty_a_second_whoever_sends_them() {
    let mut homes = quiet_homes(403);
    let relay = homes.relay;
    for n in 0..500 {
        homes.world.inject(asker(n), entry(), request(0));
    }
    homes.world.run(Duration::from_millis(20));
    let (answers, _) = counts(&homes, relay);
    // One interval of the rate may pass while they arrive.
    assert!((40..=41).contains(&answers), "{answers}");
    for n in 0..5_000u16 {
        homes.world.inject(asker(n), entry(), request(0));
        homes.world.run(Duration::from_millis(1));
    }
    homes.world.run(Duration::from_millis(200));
    let (later, dropped) = counts(&homes, relay);
    assert!(
        (98..=102).contains(&(later - answers)),
        "{}",
        later - answers
    );
    assert_eq!(later + dropped, 5_500);
}

#[test]
fn requests_as_long_as_their_answers_are_always_answered() {
    let mut homes = quiet_homes(404);
    let relay = homes.relay;
    // The budget for short ones is spent, and these don't need it.
    for n in 0..100 {
        homes.world.inject(asker(n), entry(), request(0));
    }
    homes.world.run(Duration::from_millis(20));
    let (before, _) = counts(&homes, relay);
    for n in 0..500 {
        // 20 + 4 + 8 bytes: as long as an answer about IPv4.
        homes.world.inject(asker(n), entry(), request(8));
    }
    homes.world.run(Duration::from_millis(20));
    let (after, _) = counts(&homes, relay);
    assert_eq!(after - before, 500);
}

#[test]
fn no_flood_of_requests_has_a_third_party_get_more_than_was_sent_and_the_budget() {
    let mut homes = quiet_homes(405);
    homes.world.captured.clear();
    let mut sent = 0;
    for n in 0..3_000usize {
        let bytes = request(n % 30);
        sent += bytes.len();
        homes.world.inject(asker(9), entry(), bytes);
        homes.world.run(Duration::from_millis(1));
    }
    homes.world.run(Duration::from_millis(200));
    let to_victim = homes.world.captured.iter().filter(|c| c.to == asker(9));
    let got: usize = to_victim.map(|c| c.bytes.len()).sum();
    // 40 and 20 a second for 3.2 s, 12 bytes more each than was sent.
    assert!(got <= sent + 12 * (40 + 65), "{got} bytes for {sent}");
    assert!(got > 0);
}
