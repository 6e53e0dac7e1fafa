//! Lines that carry less than full packets: for how long nothing arrives when one becomes so, and
//! what passes then.
//!
//! At 100 ms there and back per hop, with one seed and 2 % loss; with as many as `ALTNET_SIM_SEEDS` says
//! without loss and with 5 % too. Gaps are printed.

use altnet_sim::chaos::{Chaos, Uplink};
use altnet_sim::founder::Founder;
use altnet_sim::homes::{entry, invited, join, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_sim::world::World;
use altnet_wire::control::DATA;
use altnet_wire::record::Roles;
use altnet_wire::time::Duration;

/// A packet that every IPv6 link carries.
const FULL: usize = 1280;
/// The longest gap that is allowed up to 2 % loss, and with more.
const MOST: [Duration; 2] = [Duration::from_secs(2), Duration::from_millis(2400)];
const DELAY: Duration = Duration::from_millis(50);

fn seeds() -> u64 {
    let given = std::env::var("ALTNET_SIM_SEEDS");
    given
        .map_or(1, |text| text.parse().expect("a number of seeds"))
        .min(10)
}

fn losses() -> &'static [u64] {
    match std::env::var_os("ALTNET_SIM_SEEDS") {
        Some(_) => &[0, 20, 50],
        None => &[20],
    }
}

/// Two homes that talk, directly or by a relay.
fn begin(seed: u64, is_direct: bool, loss: u64) -> Chaos {
    let kind = if is_direct {
        Kind::PORT_RESTRICTED
    } else {
        Kind::SYMMETRIC_RANDOM
    };
    let mut chaos = Chaos::new(seed, 2, [Uplink::V4; 2], kind);
    chaos.world.delay(DELAY);
    for _ in 0..15 {
        chaos.flow(seconds(2));
        if (0..2).all(|side| chaos.path(side).is_ok() == is_direct) {
            chaos.world.lose(loss);
            return chaos;
        }
    }
    panic!("direct: {is_direct}\n{}", chaos.story());
}

/// How many datagrams each home sent in pieces.
fn cut(chaos: &Chaos) -> [u64; 2] {
    chaos
        .homes
        .map(|home| chaos.world.node(home).counters().cut)
}

/// Narrows the line of one home while full packets flow, and holds the gaps.
fn narrows(mtu: usize, is_direct: bool) {
    let mut faults = Vec::new();
    let seeds = |loss| (0..seeds()).map(move |seed| (loss, seed));
    for (loss, seed) in losses().iter().copied().flat_map(seeds) {
        for side in 0..2 {
            let mut chaos = begin(700 + seed, is_direct, loss);
            chaos.flow_of(FULL, seconds(3));
            // A probe may be lost, and what is new to a path goes in pieces until one was answered.
            let before = cut(&chaos);
            assert!(loss > 0 || before == [0, 0], "{}", chaos.story());
            chaos.world.narrow(chaos.homes[side], Some(mtu));
            let gaps = chaos.flow_of(FULL, seconds(6));
            let (name, how) = (
                ["A", "B"][side],
                if is_direct { "direct" } else { "relayed" },
            );
            let (there, back) = (gaps.there.as_millis(), gaps.back.as_millis());
            let run = format!(
                "MTU of {name} to {mtu}, {how}, {loss} in 1000 lost, seed {seed}: {there} ms there, {back} ms back",
            );
            println!("gap: {run}");
            if gaps.longest() > MOST[usize::from(loss > 20)] {
                faults.push(format!("{run}\n{}", chaos.story()));
            }
            let cut = cut(&chaos);
            let grown = (0..2).all(|side| cut[side] > before[side] + 100);
            assert!(grown, "{before:?} {cut:?} {}", chaos.story());
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_line_that_narrows_to_1280_bytes_keeps_full_packets_waiting_for_two_seconds_at_most() {
    narrows(1280, true);
    narrows(1280, false);
}

#[test]
fn a_line_that_narrows_to_1000_bytes_keeps_full_packets_waiting_for_two_seconds_at_most() {
    narrows(1000, true);
    narrows(1000, false);
}

#[test]
fn a_line_that_narrows_to_600_bytes_keeps_full_packets_waiting_for_two_seconds_at_most() {
    narrows(600, true);
    narrows(600, false);
}

#[test]
fn a_line_that_narrows_to_576_bytes_still_carries_full_packets() {
    narrows(576, true);
    narrows(576, false);
}

#[test]
fn nothing_is_probed_where_only_small_packets_pass() {
    let mut chaos = begin(701, true, 0);
    chaos.world.capture = true;
    chaos.flow_of(500, seconds(20));
    let largest = chaos.world.captured.iter().map(|c| c.bytes.len()).max();
    assert!(largest <= Some(544), "{largest:?}");
}

#[test]
fn a_narrow_line_carries_whole_datagrams_again_once_it_is_wide() {
    let mut chaos = begin(702, true, 0);
    let home = chaos.homes[0];
    chaos.world.narrow(home, Some(1000));
    chaos.flow_of(FULL, seconds(5));
    assert!(cut(&chaos)[0] > 0);
    chaos.world.narrow(home, None);
    chaos.flow_of(FULL, seconds(20));
    let before = cut(&chaos);
    chaos.flow_of(FULL, seconds(2));
    assert_eq!(cut(&chaos), before);
}

/// Control data as small as a probe that asks what the peer can, or as large as one that asks what passes.
fn is_probe(datagram: &[u8]) -> bool {
    let is_control =
        |datagram: &[u8]| datagram.first() == Some(&DATA) && matches!(datagram.len(), 50 | 520..);
    is_control(datagram) || datagram.get(28..).is_some_and(is_control)
}

#[test]
fn a_peer_that_answers_no_probe_is_sent_everything_whole_and_misses_nothing() {
    for is_direct in [true, false] {
        let mut chaos = begin(703, is_direct, 0);
        chaos.world.lose_kind(is_probe);
        let gaps = chaos.flow_of(FULL, seconds(20));
        assert!(gaps.longest() < Duration::from_millis(200), "{gaps:?}");
        assert_eq!(cut(&chaos), [0, 0]);
    }
}

#[test]
fn records_arrive_by_a_narrow_line_without_any_packet() {
    let mut chaos = begin(704, true, 0);
    chaos.world.loses_fragments = true;
    let home = chaos.homes[0];
    chaos.world.power_off(home);
    chaos.world.narrow(home, Some(700));
    chaos.world.power_on(home);
    chaos.world.run(seconds(30));
    let story = chaos.story();
    assert_eq!(chaos.registered(0), 2, "{story}");
    assert!(cut(&chaos)[0] > 0, "{story}");
}

/// The MTU that an ICMPv6 Packet Too Big tells, if the packet is one.
fn told_mtu(packet: &[u8]) -> Option<u32> {
    let is_error = packet.get(6) == Some(&58) && packet.get(40) == Some(&2);
    let mtu = packet.get(44..48).filter(|_| is_error)?;
    Some(u32::from_be_bytes(mtu.try_into().unwrap()))
}

#[test]
fn larger_packets_are_told_what_fits_and_pass_where_there_is_room() {
    for (mtu, expected) in [(1500, 1420), (1440, 1376), (1340, 1280), (1000, 1280)] {
        let mut chaos = Chaos::new(705, 2, [Uplink::V4; 2], Kind::PORT_RESTRICTED);
        chaos.world.narrow(chaos.homes[1], Some(mtu));
        chaos.flow(seconds(10));
        assert_eq!([0, 1].map(|side| chaos.path(side)), [Ok(()), Ok(())]);
        let (home, ends) = (chaos.homes[0], (chaos.lan(1, 0x11), chaos.lan(2, 0x80)));
        let packet = |bytes: usize| packet::udp((ends.0, 4000), (ends.1, 80), &vec![7; bytes - 48]);
        chaos.world.delivered(home);
        let _ = chaos.world.send(home, &packet(1420));
        let told: Vec<_> = chaos
            .world
            .delivered(home)
            .iter()
            .filter_map(|p| told_mtu(p))
            .collect();
        assert_eq!(told, [1280], "what is not known yet");
        // Somebody goes on sending full packets, and tries larger ones.
        for _ in 0..200 {
            let _ = chaos.world.send(home, &packet(FULL));
            let _ = chaos.world.send(home, &packet(1420));
            chaos.world.run(Duration::from_millis(20));
        }
        let told = chaos.world.delivered(home);
        assert!(
            told.iter()
                .filter_map(|p| told_mtu(p))
                .all(|mtu| mtu >= 1280)
        );
        chaos.world.delivered(chaos.homes[1]);
        for bytes in [expected, expected + 1] {
            chaos.world.run(seconds(3));
            let _ = chaos.world.send(home, &packet(bytes));
            chaos.world.run(seconds(1));
            let came = chaos.world.delivered(chaos.homes[1]);
            let told = chaos.world.delivered(home);
            let told: Vec<_> = told.iter().filter_map(|p| told_mtu(p)).collect();
            let story = chaos.story();
            match bytes > expected {
                false => assert!(came.iter().any(|p| p.len() == bytes), "{mtu} {story}"),
                true => assert_eq!(told, [expected as u32], "{mtu} {story}"),
            }
        }
    }
}

#[test]
fn both_ends_of_a_connection_are_told_the_same_largest_segment() {
    let mut chaos = begin(706, true, 0);
    let ends = ((chaos.lan(1, 0x11), 4000), (chaos.lan(2, 0x80), 80));
    let mut syn = packet::syn(ends.0, ends.1);
    // With an option: 24 bytes of header, and segments of 1440.
    syn.extend([2, 4, 5, 0xa0]);
    syn[5] += 4;
    syn[52] = 6 << 4;
    chaos.world.delivered(chaos.homes[1]);
    chaos.world.send(chaos.homes[0], &syn).unwrap();
    chaos.world.run(seconds(1));
    let mut came = chaos.world.delivered(chaos.homes[1]);
    came.retain(|packet| packet[6] == 6);
    assert_eq!(came.len(), 1);
    assert_eq!(came[0][60..64], [2, 4, 4, 0xc4], "1220 and 60 are 1280");
}

#[test]
fn an_interface_that_says_what_fits_costs_a_packet_and_not_a_second() {
    for is_direct in [true, false] {
        let mut chaos = begin(707, is_direct, 0);
        chaos.flow_of(FULL, seconds(3));
        let home = chaos.homes[0];
        chaos.world.narrow_interface(home, 1000);
        let gaps = chaos.flow_of(FULL, seconds(5));
        assert!(gaps.longest() < Duration::from_millis(200), "{gaps:?}");
        assert!(cut(&chaos)[0] > 100, "{}", chaos.story());
    }
}

#[test]
fn a_peer_that_takes_no_pieces_gets_fragments_by_a_narrow_interface() {
    let mut chaos = begin(708, true, 0);
    chaos.world.lose_kind(is_probe);
    let home = chaos.homes[0];
    chaos.world.narrow_interface(home, 1000);
    let gaps = chaos.flow_of(FULL, seconds(10));
    assert!(gaps.longest() < Duration::from_millis(200), "{gaps:?}");
    assert_eq!(cut(&chaos), [0, 0]);
}

#[test]
fn a_gateway_joins_by_a_narrow_line() {
    let mut world = World::new(709);
    let mut founder = Founder::new("home", 7);
    let relay = world.host("203.0.113.10", None);
    join(&mut world, relay, founder.relay_bundle(entry()));
    let nat = world.nat(Kind::PORT_RESTRICTED, "198.51.100.1");
    let home = world.host("192.168.1.2", Some(nat));
    world.narrow(home, Some(700));
    let link = founder.invite("house-a", Roles::GATEWAY, Some(1), entry());
    join(&mut world, home, invited(link));
    world.run(seconds(10));
    let status = world.node(home).status(world.now());
    assert!(status.relays.iter().any(|relay| relay.up), "{status:?}");
}
