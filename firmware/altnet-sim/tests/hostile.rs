//! A member that is hostile: it has its own keys and runs what it likes. It sends house B whatever
//! it can seal, and nothing is delivered that policy doesn't allow it.

use std::net::{Ipv6Addr, SocketAddr};

use altnet_core::node::{Command, DropReason};
use altnet_sim::founder::FOUNDED;
use altnet_sim::homes::{HOUSE_B, Homes, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_sim::rules::{policy, rule, udp};
use altnet_tunnel::aead::ChaChaPoly;
use altnet_tunnel::engine::{
    Engine, EngineLimits, LocalKeyId, Opened, Output, PeerConfig, PeerIndex, Sealed,
};
use altnet_tunnel::key::TunnelSecret;
use altnet_tunnel::tai64n::Tai64n;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::id::{Name, SiteId};
use altnet_wire::policy::Atom;
use altnet_wire::time::Duration;

/// House A's keys in somebody's hands, who wrote a WireGuard of their own.
struct Hostile {
    homes: Homes,
    engine: Engine<ChaChaPoly>,
    local: LocalKeyId,
    peer: PeerIndex,
    at: SocketAddr,
    to: SocketAddr,
}

impl Hostile {
    fn new(seed: u64) -> Self {
        let mut homes = Homes::new(seed, Kind::FULL_CONE, Kind::FULL_CONE);
        homes.world.capture = true;
        assert!(homes.path_becomes("direct"));
        let wiki = Atom::Host(SiteId::new(2).unwrap(), Name::new("wiki").unwrap());
        let web = rule(
            "web",
            &[Atom::Site(SiteId::new(1).unwrap())],
            &[wiki],
            &[udp(80)],
        );
        for record in homes.founder.publish_policy(&policy([web])) {
            homes.publish(&record);
        }
        homes.world.run(seconds(5));
        let b: std::net::IpAddr = HOUSE_B.parse().unwrap();
        let to = homes.world.captured.iter().find(|c| c.from.ip() == b);
        let to = to.expect("house B spoke").from;
        let identity = homes.world.node(homes.a).identity();
        let secret = TunnelSecret::new(*identity.tunnel.secret.expose());
        let theirs = homes.world.node(homes.b).identity().tunnel.secret.public();
        homes.world.power_off(homes.a);
        homes.world.run(seconds(1));
        let now = homes.world.now();
        let mut engine = Engine::new(EngineLimits::ROUTER, [seed as u8; 32]);
        engine.set_calendar(Some(FOUNDED.after(Duration::from_secs(1 << 20))), now);
        let local = engine.add_local_key(secret, Tai64n::ZERO).unwrap();
        let mut config = PeerConfig::new(theirs, local);
        config.endpoint = Some(Endpoint::Direct(to));
        let peer = engine.add_peer(config, now).unwrap();
        let mut hostile = Self {
            homes,
            engine,
            local,
            peer,
            at: SocketAddr::new("203.0.113.66".parse().unwrap(), 4444),
            to,
        };
        hostile.shake(peer);
        hostile
    }

    /// Makes a session with a key of house B's.
    fn shake(&mut self, peer: PeerIndex) {
        let now = self.homes.world.now();
        self.engine.rekey(peer, now).unwrap();
        self.turn();
        let stats = self.engine.stats(peer, self.homes.world.now());
        assert!(stats.unwrap().is_up, "{}", self.homes.story());
    }

    /// Makes an app on house B's gateway, and a tunnel with its key, by which packets go from now
    /// on. Returns the app's address.
    fn tunnel_to_an_app(&mut self) -> Ipv6Addr {
        let (b, chat) = (self.homes.b, Name::new("chat").unwrap());
        let (name, note) = (chat.clone(), Box::default());
        self.homes.world.command(b, Command::AddApp { name, note });
        let registry = self.homes.world.node(b).registry().unwrap();
        let app = registry.app_by_name(&chat).unwrap();
        let (address, key) = (app.address, app.record.tunnel.unwrap().key);
        let mut config = PeerConfig::new(key, self.local);
        config.endpoint = Some(Endpoint::Direct(self.to));
        let now = self.homes.world.now();
        self.peer = self.engine.add_peer(config, now).unwrap();
        self.shake(self.peer);
        address
    }

    /// Carries datagrams to and fro for a second.
    fn turn(&mut self) {
        let mut buffer = [0; FRAME_BYTES];
        for _ in 0..20 {
            let mut frame = Frame::new(&mut buffer);
            let now = self.homes.world.now();
            loop {
                match self.engine.poll_output(&mut frame, now) {
                    Output::Transmit { .. } => self.inject(frame.packet().to_vec()),
                    Output::Event(altnet_tunnel::engine::TunnelEvent::SaveStamps {
                        local,
                        until,
                    }) => self.engine.stamps_saved(local, until),
                    Output::Event(_) => {}
                    Output::Wait(_) => break,
                }
            }
            self.homes.world.run(Duration::from_millis(50));
            let now = self.homes.world.now();
            for datagram in std::mem::take(&mut self.homes.world.captured) {
                if datagram.to == self.at {
                    frame.set(&datagram.bytes).unwrap();
                    let from = Endpoint::Direct(datagram.from);
                    let opened = self.engine.handle_datagram(from, &mut frame, now);
                    assert!(
                        !matches!(opened, Ok(Opened::Packet { .. })),
                        "an answer came"
                    );
                }
            }
            self.engine.handle_timeout(now);
        }
    }

    fn inject(&mut self, bytes: Vec<u8>) {
        self.homes.world.inject(self.at, self.to, bytes);
    }

    /// Seals what it likes and sends it.
    fn send(&mut self, packet: &[u8]) {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(packet).unwrap();
        let now = self.homes.world.now();
        match self.engine.seal(self.peer, &mut frame, now).unwrap() {
            Sealed::Transmit { .. } => self.inject(frame.packet().to_vec()),
            Sealed::Queued => panic!("the session stands"),
        }
    }

    /// What comes of sending `packets`: how many are delivered, and what was counted.
    fn attempt(&mut self, packets: &[Vec<u8>]) -> (usize, Vec<DropReason>) {
        let b = self.homes.b;
        self.homes.world.delivered(b);
        let count = |homes: &Homes| {
            DropReason::ALL.map(|reason| homes.world.node(b).counters().dropped(reason))
        };
        let before = count(&self.homes);
        for packet in packets {
            self.send(packet);
        }
        self.turn();
        let after = count(&self.homes);
        let counted = DropReason::ALL.iter().zip(after.iter().zip(before));
        let counted = counted.flat_map(|(reason, (after, before))| {
            std::iter::repeat_n(*reason, usize::try_from(after - before).unwrap())
        });
        (self.homes.world.delivered(b).len(), counted.collect())
    }

    fn laptop(&self) -> Ipv6Addr {
        self.homes.lan(1, 0x11)
    }

    fn wiki(&self) -> Ipv6Addr {
        self.homes.lan(2, 0x80)
    }
}

/// Puts an extension header of `kind` between the fixed header and what followed it.
fn extended(packet: &[u8], kind: u8, header: &[u8]) -> Vec<u8> {
    let mut out = packet.to_vec();
    let mut header = header.to_vec();
    header[0] = out[6];
    out[6] = kind;
    out.splice(40..40, header);
    let length = u16::try_from(out.len() - 40).unwrap();
    out[4..6].copy_from_slice(&length.to_be_bytes());
    out
}

/// A fragment of `payload` at an offset in bytes.
fn fragment(source: Ipv6Addr, to: Ipv6Addr, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = packet::udp((source, 0), (to, 0), &[]);
    out.truncate(40);
    out[6] = 44;
    let place = (offset | u16::from(more)).to_be_bytes();
    out.extend([17, 0, place[0], place[1], 0, 0, 0, 9]);
    out.extend(payload);
    let length = u16::try_from(out.len() - 40).unwrap();
    out[4..6].copy_from_slice(&length.to_be_bytes());
    out
}

fn check(hostile: &mut Hostile, packets: &[Vec<u8>], reason: DropReason) {
    let (delivered, counted) = hostile.attempt(packets);
    assert_eq!(delivered, 0, "{counted:?}");
    assert_eq!(counted, vec![reason; packets.len()]);
}

#[test]
fn what_policy_allows_it_is_delivered() {
    let mut hostile = Hostile::new(401);
    let allowed = packet::udp((hostile.laptop(), 4000), (hostile.wiki(), 80), b"x");
    assert_eq!(hostile.attempt(&[allowed]), (1, vec![]));
}

#[test]
fn a_source_of_anybody_else_is_refused() {
    let mut hostile = Hostile::new(402);
    let wiki = hostile.wiki();
    let relay = hostile.homes.world.node(hostile.homes.relay);
    let relay = relay.status(hostile.homes.world.now()).network.unwrap();
    let sources: [Ipv6Addr; 6] = [
        // Another site's prefix, house B's own, a site that nobody has, the relay's node.
        hostile.homes.lan(3, 0x11),
        hostile.homes.lan(2, 0x11),
        hostile.homes.lan(99, 1),
        relay.address.parse().unwrap(),
        // Outside of the network.
        "2001:db8::1".parse().unwrap(),
        "fe80::1".parse().unwrap(),
    ];
    let packets = sources.map(|source| packet::udp((source, 4000), (wiki, 80), b"x"));
    check(&mut hostile, &packets, DropReason::SpoofedSource);
}

#[test]
fn a_lan_that_is_scanned_answers_nothing() {
    let mut hostile = Hostile::new(403);
    let laptop = hostile.laptop();
    // Every machine but the named one, and the named one's other ports.
    let mut packets: Vec<_> = (1..=0x7f)
        .map(|host| packet::udp((laptop, 4000), (hostile.homes.lan(2, host), 80), b"x"))
        .collect();
    let wiki = hostile.wiki();
    packets.extend((1..=79).map(|port| packet::udp((laptop, 4000), (wiki, port), b"x")));
    check(&mut hostile, &packets, DropReason::Denied);
    // What isn't house B's isn't passed on by it, to the relay or to the world.
    let beyond = [
        hostile.homes.lan(1, 9),
        hostile.homes.lan(7, 9),
        "2001:db8::1".parse().unwrap(),
    ];
    let packets = beyond.map(|to| packet::udp((laptop, 4000), (to, 80), b"x"));
    check(&mut hostile, &packets, DropReason::ForeignDestination);
}

#[test]
fn fragments_carry_nothing_past_the_rules() {
    let mut hostile = Hostile::new(404);
    let (laptop, wiki) = (hostile.laptop(), hostile.wiki());
    let datagram =
        |port, length| packet::udp((laptop, 4000), (wiki, port), &vec![0; length])[40..].to_vec();
    let first = |port| fragment(laptop, wiki, 0, true, &datagram(port, 40));
    let later = fragment(laptop, wiki, 48, false, &[1; 16]);
    // A later one of a packet that was refused, or never begun.
    check(
        &mut hostile,
        std::slice::from_ref(&later),
        DropReason::Fragment,
    );
    let (delivered, counted) = hostile.attempt(&[first(81), later.clone()]);
    assert_eq!(
        (delivered, counted),
        (0, vec![DropReason::Denied, DropReason::Fragment])
    );
    // One that writes other ports over the first, which was allowed (RFC 5722).
    let overlapping = fragment(laptop, wiki, 0, true, &datagram(81, 40));
    let over = fragment(laptop, wiki, 40, false, &[0; 16]);
    let mut alone = |packet: Vec<u8>| hostile.attempt(&[packet]);
    assert_eq!(alone(first(80)), (1, vec![]));
    assert_eq!(alone(overlapping), (0, vec![DropReason::Denied]));
    assert_eq!(alone(over.clone()), (0, vec![DropReason::Fragment]));
    assert_eq!(alone(first(80)), (1, vec![]));
    assert_eq!(alone(over), (0, vec![DropReason::Fragment]));
    assert_eq!(alone(later), (0, vec![DropReason::Fragment]));
    // A first fragment too short to hold the whole header, though the ports are there (RFC 7112).
    let mut short = fragment(laptop, wiki, 0, true, &datagram(80, 40)[..8]);
    short[40] = 6;
    assert_eq!(alone(short), (0, vec![DropReason::BadPacket]));
}

#[test]
fn extension_headers_hide_nothing() {
    let mut hostile = Hostile::new(405);
    let (laptop, wiki) = (hostile.laptop(), hostile.wiki());
    let denied = packet::udp((laptop, 4000), (wiki, 81), b"x");
    let allowed = packet::udp((laptop, 4000), (wiki, 80), b"x");
    let options = [0, 0, 1, 4, 0, 0, 0, 0];
    // Hop-by-hop and destination options are looked through.
    check(
        &mut hostile,
        &[
            extended(&denied, 0, &options),
            extended(&denied, 60, &options),
        ],
        DropReason::Denied,
    );
    assert_eq!(hostile.attempt(&[extended(&allowed, 60, &options)]).0, 1);
    // A routing header that would send it on elsewhere, and a header that can't be read.
    let mut route = vec![0, 2, 4, 1, 0, 0, 0, 0];
    route.extend(hostile.homes.lan(2, 9).octets());
    let unknown = extended(&allowed, 253, &options);
    let routed = extended(&allowed, 43, &route);
    let (delivered, counted) = hostile.attempt(&[routed, unknown]);
    assert_eq!(delivered, 0, "{counted:?}");
}

#[test]
fn errors_and_answers_that_nobody_asked_for_are_refused() {
    let mut hostile = Hostile::new(406);
    let (laptop, wiki) = (hostile.laptop(), hostile.wiki());
    let icmp = |message: &[u8]| {
        let mut out = packet::udp((laptop, 0), (wiki, 0), &[]);
        out.truncate(40);
        out[6] = 58;
        out.extend(message);
        let length = u16::try_from(out.len() - 40).unwrap();
        out[4..6].copy_from_slice(&length.to_be_bytes());
        out
    };
    let quoted = packet::udp((wiki, 5000), (laptop, 53), b"never sent");
    let unreachable = icmp(&[&[1, 4, 0, 0, 0, 0, 0, 0], &quoted[..]].concat());
    let too_big = icmp(&[&[2, 0, 0, 0, 0, 0, 5, 0], &quoted[..]].concat());
    let reply = icmp(&[129, 0, 0, 0, 0, 7, 0, 1]);
    let advertisement = icmp(&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    let redirect = icmp(&[&[137, 0, 0, 0, 0, 0, 0, 0], &[0; 32][..]].concat());
    let packets = [unreachable, too_big, reply, advertisement, redirect];
    check(&mut hostile, &packets, DropReason::Denied);
}

#[test]
fn the_tunnel_of_an_app_leads_to_nothing_but_the_app() {
    let mut hostile = Hostile::new(408);
    let laptop = hostile.laptop();
    let device = hostile.peer;
    let app = hostile.tunnel_to_an_app();
    let b = hostile.homes.b;
    // Where every member may make a tunnel, the rules still decide: none allows it to the app.
    let to_app = packet::udp((laptop, 4000), (app, 80), b"x");
    check(
        &mut hostile,
        std::slice::from_ref(&to_app),
        DropReason::Denied,
    );
    // What house A may reach by the device's tunnel it reaches by that alone, and the other way.
    let to_wiki = packet::udp((laptop, 4000), (hostile.wiki(), 80), b"x");
    check(
        &mut hostile,
        std::slice::from_ref(&to_wiki),
        DropReason::ForeignDestination,
    );
    hostile.peer = device;
    check(&mut hostile, &[to_app], DropReason::ForeignDestination);
    assert_eq!(hostile.attempt(&[to_wiki]), (1, vec![]));
    // Nobody speaks for the app to its own host.
    let as_app = packet::udp((app, 80), (hostile.wiki(), 80), b"x");
    check(&mut hostile, &[as_app], DropReason::SpoofedSource);
    assert!(hostile.homes.world.delivered_to_apps(b).is_empty());
}

#[test]
fn an_older_policy_and_head_change_nothing() {
    let mut hostile = Hostile::new(407);
    let homes = &mut hostile.homes;
    let relay = homes.relay;
    let serial = |homes: &Homes| {
        homes
            .world
            .node(homes.b)
            .policy_view(homes.world.now())
            .serial
    };
    let registry = homes.world.node(relay).registry().unwrap();
    let old: Vec<Vec<u8>> = registry.iter().map(|(_, bytes)| bytes.to_vec()).collect();
    for record in homes.founder.publish_policy(&policy([])) {
        homes.publish(&record);
    }
    homes.world.run(seconds(5));
    assert_eq!(serial(homes), 3);
    // It hands round every record that was ever signed, as often as it likes.
    for record in old.iter().chain(&old) {
        let (b, relay) = (homes.b, homes.relay);
        for host in [b, relay] {
            let _ = homes
                .world
                .with(host, |node, now| node.publish(record, now));
        }
    }
    homes.world.run(seconds(5));
    assert_eq!(serial(homes), 3);
    let allowed_before = packet::udp((hostile.laptop(), 4000), (hostile.wiki(), 80), b"x");
    check(&mut hostile, &[allowed_before], DropReason::Denied);
}
