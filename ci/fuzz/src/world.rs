//! A node with bytes as scenario: a relay and a gateway in a pretend internet, to which the
//! bytes send packets, datagrams, damaged copies of what passed, commands and power cuts.

use std::net::SocketAddr;

use altnet_core::limits::Limits;
use altnet_core::names::Carrier;
use altnet_core::node::{Command, Config, Node, Stored, read_invitation};
use altnet_sim::packet;
use altnet_sim::world::{HostId, World};
use altnet_tunnel::aead::ChaChaPoly;
use altnet_wire::address::site_prefix;
use altnet_wire::id::{Name, NetworkId, SiteId};
use altnet_wire::time::{Duration, Instant, UnixTime};

use crate::bytes::Bytes;
use crate::fixtures;

/// Scenarios longer than this many steps are cut off.
const STEPS: usize = 48;

/// Starts a node from a disk some of whose slots are damaged, and asks it everything.
pub fn stored(data: &[u8]) {
    let town = fixtures::town();
    let mut bytes = Bytes(data);
    let Some(disk) = bytes.choose(&town.disks) else {
        return;
    };
    let mut disk: Stored = disk.clone();
    let slots: Vec<String> = disk.keys().cloned().collect();
    for _ in 0..8 {
        if bytes.is_empty() {
            break;
        }
        let (how, slot) = (
            bytes.octet(),
            bytes.choose(&slots).cloned().unwrap_or_default(),
        );
        match how % 4 {
            0 => {
                disk.remove(&slot);
            }
            1 => {
                disk.insert(slot, bytes.run().to_vec());
            }
            2 => {
                let other = bytes
                    .choose(&slots)
                    .and_then(|other| disk.get(other).cloned());
                disk.insert(slot, other.unwrap_or_default());
            }
            _ => {
                let was = disk.get(&slot).cloned().unwrap_or_default();
                disk.insert(slot, bytes.changed(&was));
            }
        }
    }
    let config = if data.len().is_multiple_of(2) {
        Config::router(fixtures::FOUNDED)
    } else {
        Config::micro(fixtures::FOUNDED)
    };
    let now = Instant::from_micros(1);
    let Ok(node) = Node::<ChaChaPoly>::new(config, &disk, [5; 32], now) else {
        return;
    };
    look_at(&node, now);
}

fn look_at(node: &Node<ChaChaPoly>, now: Instant) {
    let _ = node.status(now);
    let _ = node.peer_views(now).len() + node.record_views().len();
    let _ = node.site_prefix();
    if let Some(registry) = node.registry() {
        assert!(registry.members().count() <= usize::from(Limits::ROUTER.members));
    }
}

fn world(bytes: &mut Bytes<'_>) -> (World, [HostId; 2], NetworkId) {
    let town = fixtures::town();
    let mut world = World::new(u64::from(bytes.octet()) + 1);
    world.capture = true;
    let config = Config {
        engine: altnet_tunnel::engine::EngineLimits::MICRO,
        ..Config::micro(fixtures::FOUNDED)
    };
    let hosts = [("203.0.113.10", 0), ("203.0.113.51", 1)].map(|(address, disk)| {
        let host = world.host_with(address, None, config.clone());
        world.power_off(host);
        *world.disk(host) = town.disks[disk].clone();
        world.slow_disk(host, disk == 1);
        world.power_on(host);
        host
    });
    let network = world.node(hosts[0]).registry().map(|r| r.network());
    (world, hosts, network.unwrap_or(NetworkId([0; 32])))
}

fn place(n: u8) -> SocketAddr {
    match n % 4 {
        0 => ([203, 0, 113, 10], 51820).into(),
        1 => ([203, 0, 113, 51], 51820).into(),
        2 => ([198, 51, 100, n], u16::from(n) << 8 | 1).into(),
        _ => (
            core::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)),
            9,
        )
            .into(),
    }
}

/// A relay and a gateway, and whatever the bytes do to them.
pub fn node(data: &[u8]) {
    let _ = node_story(data);
}

fn node_story(data: &[u8]) -> (World, [HostId; 2]) {
    let mut bytes = Bytes(data);
    let (mut world, hosts, network) = world(&mut bytes);
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        let (what, which) = (bytes.octet(), bytes.octet());
        let host = hosts[usize::from(which & 1)];
        match what % 12 {
            0 => {
                let packet = bytes.run();
                let packet = packet.get(..packet.len().min(1400)).unwrap_or(&[]);
                let _ = world.send(host, packet);
            }
            1 => {
                let in_site = |site: u8, host: u8| {
                    let site = SiteId::new(u16::from(site & 3)).expect("small");
                    let prefix = site_prefix(&network, site).address();
                    (u128::from(prefix) | u128::from(host)).into()
                };
                let (from, to) = (bytes.octet(), bytes.octet());
                let ends = ((in_site(1, from), 7), (in_site(which >> 1, to), 80));
                let _ = world.send(host, &packet::udp(ends.0, ends.1, bytes.take(2)));
            }
            2 => {
                let datagram = bytes.run();
                let datagram = datagram.get(..datagram.len().min(1472)).unwrap_or(&[]);
                world.inject(place(what), place(which & 1), datagram.to_vec());
            }
            3..=5 => {
                let seen = if what & 0x80 == 0 {
                    bytes.choose(&world.captured).cloned()
                } else {
                    bytes.choose(&fixtures::town().captured).cloned()
                };
                if let Some(seen) = seen {
                    let mut datagram = bytes.changed(&seen.bytes);
                    datagram.truncate(1472);
                    let from = if what & 0x40 == 0 {
                        seen.from
                    } else {
                        place(bytes.octet())
                    };
                    world.inject(from, place(which & 1), datagram);
                }
            }
            6 | 7 => world.run(Duration::from_millis(u64::from(bytes.pair()))),
            8 => command(&mut world, host, &mut bytes),
            9 => world.restart(host),
            10 => {
                let time = UnixTime::from_secs(u64::from(bytes.pair()) << (which >> 2));
                world.with(host, |node, now| node.handle_clock(time, now));
            }
            _ => {
                let mut reply = [0; 1232];
                let _ = world
                    .node(host)
                    .handle_dns(bytes.run(), Carrier::Udp, &mut reply);
                let entropy = [what; 32];
                world.with(host, |node, _| node.handle_entropy(&entropy));
                world.with(host, |node, now| {
                    node.handle_interfaces(&[place(which)], now)
                });
            }
        }
        world.captured.truncate(512);
    }
    world.run(Duration::from_millis(500));
    for host in hosts {
        look_at(world.node(host), world.now());
    }
    (world, hosts)
}

fn command(world: &mut World, host: HostId, bytes: &mut Bytes<'_>) {
    let network = world.node(host).registry();
    let nodes: Vec<_> = network
        .iter()
        .flat_map(|r| r.members().map(|m| m.id))
        .collect();
    let prefix = world.node(host).site_prefix();
    let command = match bytes.octet() % 6 {
        0 => Command::Rotate,
        1 => Command::Leave,
        2 => match bytes.choose(&nodes) {
            Some(node) => Command::Ping { node: *node },
            None => return,
        },
        3 | 4 => Command::SetHost {
            name: Name::new(["a", "b", "wiki"][usize::from(bytes.octet() % 3)]).expect("a label"),
            address: prefix
                .filter(|_| bytes.octet() & 3 != 0)
                .map(|prefix| (u128::from(prefix.address()) | u128::from(bytes.pair())).into()),
        },
        _ => match read_invitation(&fixtures::town().link) {
            Ok(bundle) => Command::Join {
                bundle: Box::new(bundle),
                name: None,
            },
            Err(_) => return,
        },
    };
    let _ = world.with(host, |node, now| node.handle_command(command, now));
}

/// Scenarios that go well, to begin from.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let second = [6, 0, 0x03, 0xe8];
    match target {
        "stored" => vec![
            vec![0, 0],
            vec![0, 1, 3, 0, 0, 1, 0, 9, 0x55],
            vec![0, 2, 0, 0, 4, 2, 0, 5, 0, 6, 1, 0, 7, 0, 2, 1, 2],
        ],
        "node" => {
            let packet = [1, 3, 0x11, 0x80, b'h', b'i'];
            let begin = [&[0][..], &second, &second].concat();
            let traffic = [&packet[..], &second, &packet, &second].concat();
            let life = [
                &[8, 1, 0][..],
                &second,
                &[8, 1, 3, 0, 1, 0, 9],
                &second,
                &[9, 1],
                &second,
            ];
            let join = [&[8, 1, 1][..], &second, &[8, 1, 5], &second, &second];
            let replay = [3, 0, 0, 1, 0].repeat(4);
            let damage = [4, 1, 0, 2, 1, 0, 6, 0x55, 0x43, 0, 0, 3, 0, 2].to_vec();
            vec![
                [
                    begin.clone(),
                    traffic.clone(),
                    life.concat(),
                    traffic.clone(),
                ]
                .concat(),
                [begin.clone(), join.concat(), traffic.clone()].concat(),
                [begin, traffic, replay, damage, second.to_vec()].concat(),
            ]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_of_node_get_as_far_as_sessions_commands_and_replays() {
        let mut ids = std::collections::BTreeSet::new();
        let mut drops = 0;
        for seed in seeds("node") {
            let (mut world, hosts) = node_story(&seed);
            for host in hosts {
                ids.extend(world.told(host).iter().map(|event| event.id()));
                let counters = world.node(host).counters();
                drops += counters.dropped(altnet_core::node::DropReason::Control);
            }
        }
        for id in ["relay-up", "directory-synced", "rotated", "left"] {
            assert!(ids.contains(id), "{id} is not among {ids:?}");
        }
        assert!(drops > 0);
    }
}
