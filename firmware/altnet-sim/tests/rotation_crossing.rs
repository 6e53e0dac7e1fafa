//! Tunnel keys that are replaced, on one side or both at once, while packets fly in both
//! directions on a wire that reorders and loses nothing: nothing may be lost.

use altnet_core::node::{Command, DropReason};
use altnet_sim::homes::{Homes, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_sim::world::HostId;
use altnet_wire::time::Duration;

const STEP: Duration = Duration::from_millis(1);

/// Numbers of those packets that came to `host` since it was asked last.
fn came(homes: &mut Homes, host: HostId) -> Vec<u32> {
    let got = homes.world.delivered(host);
    let number = |p: &Vec<u8>| Some(u32::from_be_bytes(packet::payload(p).try_into().ok()?));
    let mut numbers: Vec<u32> = got.iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// Lets a packet flow in each direction every millisecond, and has each side replace its key
/// at its moments. Every packet has to come, once.
fn check(homes: &mut Homes, packets: u32, a_rotates: &[u32], b_rotates: &[u32], what: &str) {
    let (laptop, wiki) = (homes.lan(1, 0x11), homes.lan(2, 0x80));
    let (a, b) = (homes.a, homes.b);
    for host in [a, b] {
        homes.world.delivered(host);
    }
    // What comes back is allowed once something went there.
    let first = packet::udp((laptop, 5000), (wiki, 80), b"first");
    assert_eq!(homes.world.send(a, &first), Ok(()));
    homes.world.run(seconds(1));
    for n in 0..packets {
        for (host, moments) in [(a, a_rotates), (b, b_rotates)] {
            if moments.contains(&n) {
                homes.world.command(host, Command::Rotate);
            }
        }
        for (host, from, to) in [
            (a, (laptop, 5000), (wiki, 80)),
            (b, (wiki, 80), (laptop, 5000)),
        ] {
            let packet = packet::udp(from, to, &n.to_be_bytes());
            let sent = homes.world.send(host, &packet);
            assert_eq!(sent, Ok(()), "{what}: {n}");
        }
        homes.world.run(STEP);
    }
    homes.world.run(seconds(1));
    for (host, name) in [(a, "A"), (b, "B")] {
        let came = came(homes, host);
        let missing: Vec<u32> = (0..packets)
            .filter(|n| came.binary_search(n).is_err())
            .collect();
        let counters = homes.world.node(host).counters();
        let dropped = counters.dropped(DropReason::Tunnel);
        assert_eq!(missing, [], "{what}: lost on the way to {name}; {dropped}");
        assert_eq!(came.len(), packets as usize, "{what}: {name}");
    }
}

fn homes(seed: u64) -> Homes {
    let mut homes = Homes::new(seed, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    assert!(homes.reaches("before"));
    assert!(homes.path_becomes("direct"));
    homes.world.run(seconds(20));
    homes
}

#[test]
fn no_packet_is_lost_when_one_side_replaces_its_key() {
    for seed in 600..612 {
        let mut homes = homes(seed);
        check(&mut homes, 800, &[100], &[], &format!("A, seed {seed}"));
        homes.world.run(seconds(seed % 7));
        check(&mut homes, 800, &[], &[100], &format!("B, seed {seed}"));
    }
}

#[test]
fn no_packet_is_lost_when_both_sides_replace_their_keys_at_once() {
    for seed in 620..640u64 {
        let mut homes = homes(seed);
        let b_rotates = (seed * 7919 % 80) as u32 + 60;
        let what = format!("seed {seed}, B at {b_rotates}");
        check(&mut homes, 1000, &[100], &[b_rotates], &what);
    }
}

#[test]
fn no_packet_is_lost_when_keys_are_replaced_again_and_again() {
    for seed in 640..646u64 {
        let mut homes = homes(seed);
        for turn in 0..6 {
            let what = format!("seed {seed}, turn {turn}");
            check(&mut homes, 700, &[50, 300], &[60 + turn * 20], &what);
        }
    }
}
