//! Whom NATs let in, as relays find out together with a member; and that nobody else is knocked at.

use std::net::SocketAddr;

use altnet_core::node::{DropReason, Event};
use altnet_sim::grid::{LINES, Line, Pair, RELAY_2};
use altnet_sim::homes::{HOUSE_A, HOUSE_B, Homes, RELAY, entry, seconds};
use altnet_sim::meshes::Meshes;
use altnet_sim::nat::Kind;
use altnet_sim::world::{Captured, PORT, World};
use altnet_wire::knock::{KNOCK, KNOCK_BYTES, SHOW, SHOW_BYTES};
use altnet_wire::message::Filtering;

use Filtering::{AddressAndPortDependent, AddressDependent, EndpointIndependent, Unknown};

#[test]
fn two_relays_find_out_whom_the_nat_of_every_line_lets_in() {
    for line in LINES {
        let expected = match line {
            Line::Open | Line::FullCone => EndpointIndependent,
            Line::AddressRestricted => AddressDependent,
            // Over TLS there is nothing to knock at.
            Line::UdpBlocked => Unknown,
            _ => AddressAndPortDependent,
        };
        let mut pair = Pair::new(17_001, [line, Line::Open]);
        pair.world.run(seconds(10));
        let found = pair.world.node(pair.homes[0]).filtering();
        assert_eq!(found, expected, "{line:?} {}", pair.story());
    }
}

#[test]
fn it_is_found_out_although_one_datagram_in_ten_is_lost() {
    let lines = [Line::FullCone, Line::AddressRestricted];
    for seed in 0..5 {
        let mut pair = Pair::new(17_100 + seed, lines);
        pair.world.lose(100);
        let kinds = [Kind::FULL_CONE, Kind::ADDRESS_RESTRICTED];
        for (n, (home, kind)) in (77..).zip(pair.homes.into_iter().zip(kinds)) {
            // Behind another NAT everything begins anew.
            let nat = pair.world.nat(kind, &format!("198.51.100.{n}"));
            pair.world
                .rewire(home, &[(format!("192.168.{n}.2"), Some(nat))]);
            let is_unknown = |world: &mut World| world.node(home).filtering() == Unknown;
            assert!(pair.world.run_for(seconds(60), is_unknown), "{seed}");
        }
        pair.world.run(seconds(200));
        let found = pair.homes.map(|home| pair.world.node(home).filtering());
        assert_eq!(found, [EndpointIndependent, AddressDependent], "{seed}");
    }
}

#[test]
fn one_relay_alone_tells_only_that_another_port_is_not_let_in() {
    for (kind, expected) in [
        (Kind::FULL_CONE, Unknown),
        (Kind::ADDRESS_RESTRICTED, Unknown),
        (Kind::PORT_RESTRICTED, AddressAndPortDependent),
    ] {
        let mut homes = Homes::new(17_201, kind, kind);
        homes.world.run(seconds(60));
        let found = homes.world.node(homes.a).filtering();
        assert_eq!(found, expected, "{kind:?}");
    }
}

#[test]
fn a_relay_that_does_not_know_how_is_not_taken_for_one_that_is_kept_out() {
    // One that is in no mesh knocks for nobody, like an older one.
    let old = |n: u8, config: &mut altnet_core::node::Config| {
        if n == 1 {
            config.limits.mesh_links = 0;
        }
    };
    let kinds = [Kind::ADDRESS_RESTRICTED, Kind::PORT_RESTRICTED];
    let mut meshes = Meshes::with(17_211, 2, [&[0], &[0]], kinds, old);
    meshes.world.run(seconds(60));
    let found = meshes.homes.map(|home| meshes.world.node(home).filtering());
    // Of a NAT that lets in nothing but answers the relay itself can tell.
    assert_eq!(found, [Unknown, AddressAndPortDependent]);
}

#[test]
fn both_homes_are_told_and_why_says_it() {
    let mut pair = Pair::new(17_301, [Line::AddressRestricted, Line::PortRestricted]);
    pair.world.run(seconds(10));
    assert!(pair.meet(seconds(5)).direct.is_some());
    let now = pair.world.now();
    for (home, name, ours, theirs) in [
        (
            0,
            "house-b",
            "whom it was sent to from inside, from any port",
            "answers alone",
        ),
        (
            1,
            "house-a",
            "answers alone",
            "whom it was sent to from inside, from any port",
        ),
    ] {
        let steps = pair.world.node(pair.homes[home]).why(name, now);
        let nat = steps.iter().find(|step| step.question == "nat");
        let alike = "one port for every destination, or no NAT, lets in:";
        let expected = format!("ours: {alike} {ours}; theirs: {alike} {theirs}");
        assert_eq!(nat.map(|step| step.answer.as_str()), Some(&*expected));
    }
    let status = pair.world.node(pair.homes[0]).status(now);
    assert_eq!(status.nat.mapping, "endpoint-independent");
    assert_eq!(status.nat.filtering, "address-dependent");
}

/// Moves the first home to another address on its LAN, as when it wakes or its network changes.
fn move_inside(pair: &mut Pair, host: u8) {
    let at = SocketAddr::new([192, 168, 77, host].into(), PORT);
    pair.world.with(pair.homes[0], |node, now| {
        node.handle_interfaces(&[at], now)
    });
}

#[test]
fn another_address_inside_leaves_what_is_known_and_is_tried_again_once_a_minute_at_most() {
    let mut pair = Pair::new(17_321, [Line::AddressRestricted, Line::Open]);
    pair.world.run(seconds(10));
    pair.world.capture = true;
    for n in 0..30 {
        move_inside(&mut pair, 10 + n);
        pair.world.run(seconds(10));
        assert_eq!(pair.world.node(pair.homes[0]).filtering(), AddressDependent);
    }
    let mut ports: Vec<SocketAddr> = of_kind(&pair.world, SHOW).iter().map(|c| c.from).collect();
    ports.dedup();
    assert!((3..=5).contains(&ports.len()), "{ports:?}");
}

#[test]
fn at_another_ip_everything_is_found_out_anew_and_peers_are_told_that_nothing_is_known() {
    let mut homes = Homes::new(17_331, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    homes.world.run(seconds(10));
    assert_eq!(
        homes.world.node(homes.a).filtering(),
        AddressAndPortDependent
    );
    assert!(homes.reaches("before"));
    homes.world.run(seconds(5));
    let (a, b) = (homes.a, homes.b);
    let theirs = |world: &World| {
        let steps = world.node(b).why("house-a", world.now());
        let nat = steps.iter().find(|step| step.question == "nat").unwrap();
        nat.answer.split("lets in: ").last().unwrap().to_owned()
    };
    assert_eq!(theirs(&homes.world), "answers alone");
    homes.world.told(a);
    homes.world.renumber(homes.nat_a, "198.51.100.77");
    let is_told = |world: &mut World| world.node(a).filtering() == Unknown;
    assert!(homes.world.run_for(seconds(300), is_told));
    let told = homes.world.told(a);
    let filtering = Unknown;
    assert!(told.contains(&Event::Filtering { filtering }), "{told:?}");
    let is_heard = |world: &mut World| theirs(world) == "not known";
    assert!(
        homes.world.run_for(seconds(40), is_heard),
        "{}",
        homes.story()
    );
    assert!(
        homes
            .world
            .run_for(seconds(120), |world| theirs(world) == "answers alone")
    );
    assert_eq!(homes.world.node(a).filtering(), AddressAndPortDependent);
}

/// How many ports of house B's NAT anything was sent from, while house A talks to it and nothing passes
/// between them.
fn ports_in_vain(line: Line) -> usize {
    let mut pair = Pair::new(17_401, [line, Line::SymmetricRandom]);
    pair.world.run(seconds(10));
    pair.world.block(HOUSE_A, HOUSE_B, true);
    pair.world.capture = true;
    assert!(pair.meet(seconds(15)).direct.is_none());
    let sent = pair.world.captured.iter();
    let ports = sent.filter(|c| c.from.ip().to_string() == HOUSE_B);
    let ports: std::collections::BTreeSet<u16> = ports.map(|c| c.from.port()).collect();
    ports.len()
}

#[test]
fn nothing_is_searched_toward_a_nat_that_plain_challenges_pass() {
    assert!(ports_in_vain(Line::PortRestricted) > 200);
    assert!(ports_in_vain(Line::AddressRestricted) < 20);
}

fn of_kind(world: &World, kind: u8) -> Vec<Captured> {
    let all = world.captured.iter();
    all.filter(|c| c.bytes[0] == kind).cloned().collect()
}

/// A pair whose first home has just asked both relays to knock, and what passed then.
fn asked(seed: u64) -> (Pair, Captured) {
    let mut pair = Pair::new(seed, [Line::FullCone, Line::Open]);
    pair.world.run(seconds(10));
    pair.world.captured.clear();
    pair.world.capture = true;
    let home = pair.homes[0];
    let at = SocketAddr::new("192.168.77.7".parse().unwrap(), PORT);
    pair.world
        .with(home, |node, now| node.handle_interfaces(&[at], now));
    let is_shown = |world: &mut World| !of_kind(world, SHOW).is_empty();
    assert!(pair.world.run_for(seconds(90), is_shown));
    let show = of_kind(&pair.world, SHOW).remove(0);
    (pair, show)
}

#[test]
fn no_more_bytes_are_knocked_with_than_were_shown_and_nothing_goes_elsewhere() {
    let (mut pair, show) = asked(17_501);
    pair.world.run(seconds(5));
    let shows = of_kind(&pair.world, SHOW);
    let knocks = of_kind(&pair.world, KNOCK);
    assert!(shows.iter().all(|c| c.bytes.len() == SHOW_BYTES));
    assert!(knocks.iter().all(|c| c.bytes.len() == KNOCK_BYTES));
    let is_there = |c: &Captured| c.to == show.from;
    assert!(knocks.iter().all(is_there), "{knocks:?}");
    // From the relay, another port of it, and the other relay.
    let mut origins: Vec<SocketAddr> = knocks.iter().map(|c| c.from).collect();
    origins.sort_unstable();
    origins.dedup();
    let is_main = |at: &&SocketAddr| at.port() == PORT;
    assert_eq!(origins.iter().filter(is_main).count(), 2, "{origins:?}");
    assert_eq!(origins.len(), 3, "{origins:?}");
    let ips: Vec<String> = origins.iter().map(|at| at.ip().to_string()).collect();
    assert!(ips.iter().any(|ip| ip == RELAY) && ips.iter().any(|ip| ip == RELAY_2));
    // What is knocked with was never seen before on the way.
    assert!(knocks.iter().all(|c| c.bytes[4..] != show.bytes[4..20]));
}

#[test]
fn nobody_is_knocked_at_who_did_not_show_the_port_from_where_the_relay_sees_that_member() {
    let (mut pair, show) = asked(17_601);
    let victim: SocketAddr = "203.0.113.66:4444".parse().unwrap();
    let mut other = show.bytes.clone();
    other[9] ^= 1;
    for n in 0..50 {
        // As it is, but from a stranger's address; and one that nobody asked for, from the right one.
        pair.world.inject(victim, show.to, show.bytes.clone());
        let port = SocketAddr::new(show.from.ip(), 5000 + n);
        pair.world.inject(port, show.to, other.clone());
    }
    pair.world.run(seconds(2));
    let knocks = of_kind(&pair.world, KNOCK);
    assert!(!knocks.is_empty());
    assert!(knocks.iter().all(|c| c.to == show.from), "{knocks:?}");
    let relay = if show.to == entry() { 0 } else { 1 };
    let dropped = pair.world.node(pair.relays[relay]).counters();
    assert!(dropped.dropped(DropReason::NotOurs) >= 100);
    // Much later what was seen on the way is worth nothing.
    pair.world.run(seconds(60));
    pair.world.captured.clear();
    pair.world.inject(show.from, show.to, show.bytes.clone());
    pair.world.run(seconds(2));
    assert!(of_kind(&pair.world, KNOCK).is_empty());
}

#[test]
fn a_member_is_knocked_at_three_times_a_place_however_often_it_asks() {
    let (mut pair, show) = asked(17_701);
    for n in 0..100 {
        pair.world.inject(show.from, show.to, show.bytes.clone());
        if n % 10 == 0 {
            // Asks again with another key: it is too soon.
            let home = pair.homes[0];
            let at = SocketAddr::new([192, 168, 77, 10 + n].into(), PORT);
            pair.world
                .with(home, |node, now| node.handle_interfaces(&[at], now));
        }
    }
    pair.world.run(seconds(4));
    assert_eq!(of_kind(&pair.world, KNOCK).len(), 9);
}

#[test]
fn an_idle_home_is_not_knocked_at_again_for_a_day() {
    let mut meshes = Meshes::with_nats(17_801, 2, [&[0], &[1]], [Kind::ADDRESS_RESTRICTED; 2]);
    meshes.world.run(seconds(60));
    let found = |meshes: &Meshes| meshes.homes.map(|home| meshes.world.node(home).filtering());
    // Neither reaches the other's relay, so that nothing it sends arrives.
    assert_eq!(found(&meshes), [AddressDependent; 2]);
    meshes.world.capture = true;
    meshes.world.run(seconds(20 * 3600));
    assert!(of_kind(&meshes.world, SHOW).is_empty());
    meshes.world.captured.clear();
    meshes.world.run(seconds(6 * 3600));
    assert!(!of_kind(&meshes.world, SHOW).is_empty());
    assert_eq!(found(&meshes), [AddressDependent; 2]);
}

#[test]
fn nobody_is_advised_to_open_a_port_that_is_mapped_although_a_new_one_lets_in_answers_alone() {
    let mut pair = Pair::new(17_901, [Line::PortRestricted; 2]);
    pair.world.block(HOUSE_A, HOUSE_B, true);
    pair.world.run(seconds(10));
    assert!(pair.meet(seconds(10)).direct.is_none());
    let advice = |pair: &Pair| {
        let node = pair.world.node(pair.homes[0]);
        assert_eq!(node.filtering(), AddressAndPortDependent);
        let steps = node.why("house-b", pair.world.now());
        let step = steps.into_iter().find(|step| step.question == "better");
        step.unwrap().answer
    };
    let ours = "open this node's UDP port";
    assert!(advice(&pair).contains(ours), "{}", advice(&pair));
    let mut map = |side: usize, address: &str| {
        let at = SocketAddr::new(address.parse().unwrap(), 40_000);
        pair.world
            .with(pair.homes[side], |node, now| node.handle_mapped(&[at], now));
        pair.world.run(seconds(10));
        advice(&pair)
    };
    // Mapped by a router that is behind another.
    assert!(map(0, "192.168.7.2").contains(ours));
    let theirs = map(0, HOUSE_A);
    assert!(theirs.contains("open house-b's UDP port"), "{theirs}");
    let both = map(1, HOUSE_B);
    assert!(both.contains("firewall"), "{both}");
}

#[test]
fn a_router_that_says_one_prefix_and_another_has_every_way_doubted_now_and_then() {
    let mut pair = Pair::new(17_911, [Line::Open; 2]);
    pair.world.run(seconds(10));
    assert!(pair.meet(seconds(5)).direct.is_some());
    let mut sent = |is_said: bool| {
        pair.world.captured.clear();
        pair.world.capture = true;
        for n in 0..200 {
            let prefix = (n % 2 == 0 && is_said).then(|| "64:ff9b::".parse().unwrap());
            pair.world
                .with(pair.homes[0], |node, now| node.handle_pref64(prefix, now));
            pair.world.run(altnet_wire::time::Duration::from_millis(50));
        }
        let from = pair
            .world
            .captured
            .iter()
            .filter(|c| c.from.ip().to_string() == HOUSE_A);
        from.count()
    };
    let (before, after) = (sent(false), sent(true));
    assert!(after < before + 40, "{before} {after}");
}
