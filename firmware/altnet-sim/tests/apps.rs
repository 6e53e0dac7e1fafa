//! Apps: reached by their own keys and addresses, and nothing else by them.

use std::net::Ipv6Addr;

use altnet_core::ip::Protocol;
use altnet_core::node::{Command, CommandError, DropReason};
use altnet_sim::homes::{Homes, entry, invited, join, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_sim::rules::{policy, rule, udp};
use altnet_sim::world::HostId;
use altnet_wire::id::{Name, SiteId};
use altnet_wire::policy::Atom;
use altnet_wire::record::Roles;
use altnet_wire::time::Duration;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn add(called: &str) -> Command {
    Command::AddApp {
        name: name(called),
        note: (*b"where it leads to").into(),
    }
}

fn site(number: u16) -> Atom {
    Atom::Site(SiteId::new(number).unwrap())
}

/// Two homes, and an app `chat` on house B's gateway that house A's machines may reach at port 80.
struct Apps {
    homes: Homes,
    app: Ipv6Addr,
}

impl Apps {
    fn new(seed: u64, nat_a: Kind, nat_b: Kind) -> Self {
        let mut homes = Homes::new(seed, nat_a, nat_b);
        let b = homes.b;
        homes.world.command(b, add("chat"));
        let app = homes.world.node(b).own_app(&name("chat")).unwrap();
        let chat = Atom::App(homes.member("house-b"), name("chat"));
        let draft = policy([rule("chat", &[site(1)], &[chat], &[udp(80)])]);
        for record in homes.founder.publish_policy(&draft) {
            homes.publish(&record);
        }
        let mut apps = Self { homes, app };
        let known = |homes: &Homes| {
            let registry = homes.world.node(homes.a).registry().unwrap();
            registry.app_by_name(&name("chat")).is_some()
                && homes
                    .world
                    .node(homes.a)
                    .policy_view(homes.world.now())
                    .serial
                    == 2
        };
        for _ in 0..30 {
            if known(&apps.homes) {
                return apps;
            }
            apps.homes.world.run(seconds(1));
        }
        panic!("house A does not know: {}", apps.homes.story());
    }

    fn laptop(&self) -> Ipv6Addr {
        self.homes.lan(1, 0x11)
    }

    /// Sends from a machine in house A to an address, up to five times. Whether it came to the app.
    fn comes(&mut self, to: Ipv6Addr, port: u16) -> bool {
        let packet = packet::udp((self.laptop(), 4000), (to, port), b"hello");
        let (b, app) = (self.homes.b, self.app);
        self.homes.world.delivered_to_apps(b);
        (0..5).any(|_| {
            let _ = self.homes.world.send(self.homes.a, &packet);
            self.homes.world.run_for(seconds(2), |world| {
                let came = world.delivered_to_apps(b);
                came.iter()
                    .any(|(at, p)| *at == app && packet::payload(p) == b"hello")
            })
        })
    }

    /// Whether an answer of the app's comes back.
    fn answers(&mut self) -> bool {
        let packet = packet::udp((self.app, 80), (self.laptop(), 4000), b"hi");
        let (a, b) = (self.homes.a, self.homes.b);
        self.homes.world.delivered(a);
        self.homes.world.send_from_app(b, self.app, &packet).is_ok()
            && self.homes.world.run_for(seconds(2), |world| {
                let came = world.delivered(a);
                came.iter().any(|p| packet::payload(p) == b"hi")
            })
    }

    fn dropped(&self, host: HostId, reason: DropReason) -> u64 {
        self.homes.world.node(host).counters().dropped(reason)
    }
}

#[test]
fn an_app_is_reached_by_its_own_key_and_answers() {
    for (seed, nat) in [(501, Kind::SYMMETRIC), (502, Kind::FULL_CONE)] {
        let mut apps = Apps::new(seed, nat, nat);
        assert!(apps.comes(apps.app, 80), "{}", apps.homes.story());
        assert!(apps.answers(), "{}", apps.homes.story());
        // Nothing of it came to the LAN.
        assert!(apps.homes.world.delivered(apps.homes.b).is_empty());
        // The name leads there.
        let node = apps.homes.world.node(apps.homes.a);
        let service = Some((Protocol::UDP, 80));
        let verdict = node.check_flow("house-a", "chat", service, apps.homes.world.now());
        assert_eq!(verdict.unwrap().target, apps.app.to_string());
        // And the app is told who called.
        let b = apps.homes.world.node(apps.homes.b);
        let caller = b.caller(apps.laptop()).unwrap();
        assert_eq!(
            (caller.member_name.as_str(), caller.site),
            ("house-a", Some(1))
        );
        assert_eq!((caller.name, caller.person), (None, None));
        assert_eq!(b.caller("2001:db8::1".parse().unwrap()), None);
    }
}

#[test]
fn sharing_an_app_shares_nothing_else() {
    let mut apps = Apps::new(503, Kind::FULL_CONE, Kind::FULL_CONE);
    assert!(apps.comes(apps.app, 80));
    assert!(!apps.comes(apps.app, 81));
    let b = apps.homes.b;
    apps.homes.world.delivered(b);
    let others = [1, 0x80, 0x99].map(|host| apps.homes.lan(2, host));
    for to in others {
        let packet = packet::udp((apps.laptop(), 4000), (to, 80), b"hello");
        let _ = apps.homes.world.send(apps.homes.a, &packet);
        apps.homes.world.run(seconds(1));
    }
    assert!(apps.homes.world.delivered(b).is_empty());
    // The app itself begins nothing, not with its own LAN either.
    for to in [apps.laptop(), apps.homes.lan(2, 0x80)] {
        let packet = packet::udp((apps.app, 5000), (to, 80), b"scan");
        let refused = apps.homes.world.send_from_app(b, apps.app, &packet);
        assert_eq!(refused, Err(DropReason::Denied));
    }
    // Nor does it speak for anybody else.
    let forged = packet::udp((apps.homes.lan(2, 0x80), 80), (apps.laptop(), 4000), b"x");
    let refused = apps.homes.world.send_from_app(b, apps.app, &forged);
    assert_eq!(refused, Err(DropReason::ForeignSource));
}

#[test]
fn an_app_is_reached_from_its_own_lan_by_the_same_rules() {
    let mut apps = Apps::new(504, Kind::FULL_CONE, Kind::FULL_CONE);
    let (b, app, machine) = (apps.homes.b, apps.app, apps.homes.lan(2, 0x42));
    let packet = packet::udp((machine, 4000), (app, 80), b"hello");
    let _ = apps.homes.world.send(b, &packet);
    assert!(apps.homes.world.delivered_to_apps(b).is_empty());
    let chat = Atom::App(apps.homes.member("house-b"), name("chat"));
    let draft = policy([rule("both", &[site(1), site(2)], &[chat], &[udp(80)])]);
    for record in apps.homes.founder.publish_policy(&draft) {
        apps.homes.publish(&record);
    }
    apps.homes.world.run(seconds(3));
    apps.homes.world.send(b, &packet).unwrap();
    assert_eq!(apps.homes.world.delivered_to_apps(b).len(), 1);
    apps.homes.world.delivered(b);
    let answer = packet::udp((app, 80), (machine, 4000), b"hi");
    apps.homes.world.send_from_app(b, app, &answer).unwrap();
    let came = apps.homes.world.delivered(b);
    assert_eq!(
        came.iter().map(|p| packet::payload(p)).collect::<Vec<_>>(),
        [b"hi"]
    );
}

#[test]
fn an_app_keeps_its_keys_over_a_restart_and_takes_them_along_when_it_goes() {
    let mut apps = Apps::new(505, Kind::FULL_CONE, Kind::FULL_CONE);
    assert!(apps.comes(apps.app, 80));
    let b = apps.homes.b;
    let before = apps.homes.world.node(b).app_views();
    apps.homes.world.restart(b);
    assert_eq!(apps.homes.world.node(b).app_views(), before);
    let hosted: Vec<_> = apps
        .homes
        .world
        .node(b)
        .hosted_apps()
        .map(|(_, _, note)| note)
        .collect();
    assert_eq!(hosted, [b"where it leads to"]);
    // WireGuard notices after 15 s that a session is forgotten (whitepaper section 6.5).
    assert!(
        (0..6).any(|_| apps.comes(apps.app, 80)),
        "{}",
        apps.homes.story()
    );
    assert!(apps.answers());
    let taken = apps
        .homes
        .world
        .with(b, |node, now| node.handle_command(add("chat"), now));
    assert_eq!(taken, Err(CommandError::NameTaken));
    apps.homes
        .world
        .command(b, Command::RemoveApp { name: name("chat") });
    apps.homes.world.run(seconds(5));
    assert!(!apps.comes(apps.app, 80));
    let disk = apps.homes.world.disk(b);
    assert!(
        disk.keys().all(|slot| !slot.starts_with("app-")),
        "{:?}",
        disk.keys()
    );
    apps.homes.world.restart(b);
    assert!(apps.homes.world.node(b).app_views().is_empty());
}

#[test]
fn an_app_outlives_its_hosts_and_its_callers_rotations() {
    let mut apps = Apps::new(506, Kind::FULL_CONE, Kind::FULL_CONE);
    assert!(apps.comes(apps.app, 80));
    for host in [apps.homes.a, apps.homes.b, apps.homes.a, apps.homes.b] {
        apps.homes.world.command(host, Command::Rotate);
        apps.homes.world.run(seconds(5));
        assert!(apps.comes(apps.app, 80), "{}", apps.homes.story());
        assert!(apps.answers(), "{}", apps.homes.story());
    }
    // Past WireGuard's own rekeying.
    for _ in 0..20 {
        apps.homes.world.run(seconds(20));
        assert!(apps.comes(apps.app, 80) && apps.answers());
    }
}

#[test]
fn a_revoked_caller_loses_the_app_at_once() {
    let mut apps = Apps::new(507, Kind::FULL_CONE, Kind::FULL_CONE);
    assert!(apps.comes(apps.app, 80));
    let record = apps.homes.founder.revoke(apps.homes.member("house-a"));
    apps.homes.publish(&record);
    apps.homes.world.run(seconds(3));
    assert!(!apps.comes(apps.app, 80));
    let packet = packet::udp((apps.app, 80), (apps.laptop(), 4000), b"hi");
    let b = apps.homes.b;
    assert!(
        apps.homes
            .world
            .send_from_app(b, apps.app, &packet)
            .is_err()
    );
}

#[test]
fn only_a_member_with_the_role_runs_apps() {
    let mut homes = Homes::new(508, Kind::FULL_CONE, Kind::FULL_CONE);
    let link = homes.founder.invite("phone", Roles::empty(), None, entry());
    let phone = homes.world.host("203.0.113.50", None);
    let try_to = |homes: &mut Homes, called: &str| {
        homes
            .world
            .with(phone, |node, now| node.handle_command(add(called), now))
    };
    assert_eq!(try_to(&mut homes, "chat"), Err(CommandError::NotMember));
    join(&mut homes.world, phone, invited(link));
    assert_eq!(try_to(&mut homes, "chat"), Err(CommandError::NotAppHost));
    // A machine's name is taken.
    let b = homes.b;
    let taken = homes
        .world
        .with(b, |node, now| node.handle_command(add("wiki"), now));
    assert_eq!(taken, Err(CommandError::NameTaken));
}

#[test]
fn apps_are_bounded_and_idle_tunnels_go() {
    let mut apps = Apps::new(509, Kind::FULL_CONE, Kind::FULL_CONE);
    let b = apps.homes.b;
    let mut made = 1;
    let refused = loop {
        let called = format!("app{made}");
        let done = apps
            .homes
            .world
            .with(b, |node, now| node.handle_command(add(&called), now));
        match done {
            Ok(()) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 100, "no bound");
    };
    assert_eq!(refused, CommandError::NoRoomForKey);
    assert!(apps.comes(apps.app, 80), "{}", apps.homes.story());
    apps.homes.world.run(Duration::from_secs(1200));
    assert!(apps.comes(apps.app, 80), "{}", apps.homes.story());
    assert_eq!(apps.dropped(b, DropReason::SpoofedSource), 0);
}
