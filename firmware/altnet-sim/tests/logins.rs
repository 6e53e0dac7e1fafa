//! Machines without software: who logged in from them decides, at both ends (ADR 0008).

use std::net::Ipv6Addr;

use altnet_core::ip::Protocol;
use altnet_core::node::{Command, CommandError};
use altnet_core::policy::{Draft, DraftProfile};
use altnet_sim::homes::{Homes, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_sim::rules::{policy, rule, tcp, udp};
use altnet_sim::world::HostId;
use altnet_wire::id::{Name, SiteId};
use altnet_wire::message::Login;
use altnet_wire::policy::Atom;
use altnet_wire::time::Duration;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn site(number: u16) -> Atom {
    Atom::Site(SiteId::new(number).unwrap())
}

fn person(text: &str) -> Atom {
    Atom::Person(name(text))
}

fn group(text: &str) -> Atom {
    Atom::Group(name(text))
}

fn wiki() -> Atom {
    Atom::Host(SiteId::new(2).unwrap(), name("wiki"))
}

/// Ann reaches the wiki's port 80, guests its port 81. House A may say that Ann logged in and who
/// is a guest; house B may say nothing.
fn rules() -> Draft {
    Draft {
        vouchers: [(site(1), person("ann")), (site(1), group("guests"))].into(),
        ..policy([
            rule("ann", &[person("ann")], &[wiki()], &[udp(80)]),
            rule("guests", &[group("guests")], &[wiki()], &[udp(81)]),
            rule("bob", &[person("bob")], &[Atom::Anything], &[udp(82)]),
        ])
    }
}

fn login(address: Ipv6Addr, person: Option<&str>, groups: &[&str], seconds: u32) -> Command {
    Command::Login(Box::new(Login {
        address,
        person: person.map(name),
        groups: groups.iter().map(|group| name(group)).collect(),
        seconds,
    }))
}

struct House {
    homes: Homes,
    laptop: Ipv6Addr,
}

impl House {
    fn new(seed: u64, draft: &Draft) -> Self {
        let homes = Homes::new(seed, Kind::FULL_CONE, Kind::PORT_RESTRICTED);
        let laptop = homes.lan(1, 0x11);
        let mut house = Self { homes, laptop };
        house.publish(draft);
        house
    }

    fn publish(&mut self, draft: &Draft) {
        let serial = |world: &altnet_sim::world::World, host: HostId| {
            world.node(host).policy_view(world.now()).serial
        };
        let (a, b) = (self.homes.a, self.homes.b);
        let before = serial(&self.homes.world, a);
        for record in self.homes.founder.publish_policy(draft) {
            self.homes.publish(&record);
        }
        let done = self.homes.world.run_for(seconds(30), |world| {
            [a, b].iter().all(|host| serial(world, *host) > before)
        });
        assert!(done, "{}", self.homes.story());
    }

    fn logs_in(&mut self, who: Option<&str>, groups: &[&str], seconds: u32) {
        let command = login(self.laptop, who, groups, seconds);
        self.homes.world.command(self.homes.a, command);
        self.homes.world.run(Duration::from_millis(200));
    }

    fn logs_out(&mut self) {
        self.logs_in(None, &[], 0);
    }

    /// Whether the only packet that the laptop sends to a port of the wiki comes there.
    fn comes(&mut self, port: u16) -> bool {
        let packet = packet::udp((self.laptop, 4000), (self.homes.lan(2, 0x80), port), b"x");
        let b = self.homes.b;
        self.homes.world.delivered(b);
        let _ = self.homes.world.send(self.homes.a, &packet);
        let delivered = |world: &mut altnet_sim::world::World| !world.delivered(b).is_empty();
        self.homes.world.run_for(seconds(3), delivered)
    }

    /// What `host` says of the laptop's way to a port of the wiki.
    fn rule_at(&self, host: HostId, port: u16) -> String {
        let now = self.homes.world.now();
        let (source, node) = (self.laptop.to_string(), self.homes.world.node(host));
        let service = Some((Protocol::UDP, port));
        let verdict = node.check_flow(&source, "wiki", service, now).unwrap();
        verdict.rule.unwrap()
    }
}

#[test]
fn a_laptop_may_what_who_logged_in_from_it_may() {
    let mut house = House::new(701, &rules());
    let b = house.homes.b;
    assert!(!house.comes(80) && !house.comes(81));
    house.logs_in(Some("ann"), &[], 3600);
    assert!(house.comes(80), "{}", house.homes.story());
    assert!(!house.comes(81));
    assert_eq!(house.rule_at(b, 80), "ann");
    let (world, now) = (&house.homes.world, house.homes.world.now());
    let caller = world.node(b).caller(house.laptop).unwrap();
    assert_eq!(caller.person.as_deref(), Some("ann"));
    let seen = world.node(b).logins(now);
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].gateway.as_str(), seen[0].not_counted.len()),
        ("house-a", 0)
    );
    // A neighbour on the same LAN is nobody.
    let other = packet::udp(
        (house.homes.lan(1, 0x12), 4000),
        (house.homes.lan(2, 0x80), 80),
        b"x",
    );
    house.homes.world.delivered(b);
    let _ = house.homes.world.send(house.homes.a, &other);
    house.homes.world.run(seconds(2));
    assert!(house.homes.world.delivered(b).is_empty());
    // Groups come and go with what the directory says.
    house.logs_in(Some("ann"), &["guests"], 3600);
    assert!(house.comes(81) && house.comes(80));
    house.logs_in(None, &["guests"], 3600);
    assert!(house.comes(81) && !house.comes(80));
    house.logs_out();
    assert!(!house.comes(81) && !house.comes(80));
    let now = house.homes.world.now();
    assert!(house.homes.world.node(b).logins(now).is_empty());
    assert_eq!(house.rule_at(b, 80), "default-deny");
}

#[test]
fn the_first_packet_to_a_member_never_met_before_comes_through() {
    let mut house = House::new(702, &rules());
    house.logs_in(Some("ann"), &[], 3600);
    // Nobody has a session with anybody.
    house.homes.world.restart(house.homes.a);
    house.homes.world.restart(house.homes.b);
    house.homes.world.run(seconds(5));
    house.logs_in(Some("ann"), &[], 3600);
    let came = (0..3).any(|_| house.comes(80));
    assert!(came, "{}", house.homes.story());
}

#[test]
fn a_gateway_vouches_for_whom_policy_lets_it_and_nobody_else() {
    let mut house = House::new(703, &rules());
    let (a, b) = (house.homes.a, house.homes.b);
    house.logs_in(Some("bob"), &["guests", "admins"], 3600);
    assert!(house.comes(81), "{}", house.homes.story());
    assert!(!house.comes(82));
    let now = house.homes.world.now();
    for host in [a, b] {
        let seen = house.homes.world.node(host).logins(now);
        assert_eq!(seen[0].person, None);
        assert_eq!(seen[0].not_counted, ["bob", "admins"]);
        assert_eq!(house.rule_at(host, 82), "default-deny");
    }
    // House B may say nothing, and neither may say anything of the other's machines.
    let theirs = house.homes.lan(2, 0x33);
    house
        .homes
        .world
        .command(b, login(theirs, Some("ann"), &[], 3600));
    let elsewhere = |node: &mut altnet_core::node::Node<_>, now| {
        node.handle_command(login(theirs, Some("ann"), &[], 3600), now)
    };
    let refused = house.homes.world.with(a, elsewhere);
    assert_eq!(refused, Err(CommandError::ForeignAddress));
    let now = house.homes.world.now();
    let (node, source) = (house.homes.world.node(b), theirs.to_string());
    let service = Some((Protocol::UDP, 80));
    let verdict = node.check_flow(&source, "wiki", service, now).unwrap();
    assert_eq!(verdict.rule.as_deref(), Some("default-deny"));
    // The policy takes the right away: what was said no longer counts.
    let draft = Draft {
        vouchers: [].into(),
        ..rules()
    };
    house.publish(&draft);
    assert!(!house.comes(81));
    // And gives it back: it counts again, and is told again.
    house.publish(&rules());
    assert!(house.comes(81), "{}", house.homes.story());
}

#[test]
fn a_login_ends_by_itself_and_live_flows_with_it() {
    let mut house = House::new(704, &rules());
    house.logs_in(Some("ann"), &[], 20);
    assert!(house.comes(80));
    while house
        .homes
        .world
        .node(house.homes.a)
        .logins(house.homes.world.now())
        .len()
        == 1
    {
        house.homes.world.run(Duration::from_millis(500));
    }
    assert!(!house.comes(80));
    assert_eq!(house.rule_at(house.homes.b, 80), "default-deny");
}

#[test]
fn what_a_gateway_said_before_it_restarted_is_forgotten_when_it_greets() {
    let mut house = House::new(705, &rules());
    house.logs_in(Some("ann"), &[], 3600);
    assert!(house.comes(80));
    house.homes.world.restart(house.homes.a);
    let b = house.homes.b;
    let forgotten = house.homes.world.run_for(seconds(60), |world| {
        let now = world.now();
        world.node(b).logins(now).is_empty()
    });
    assert!(forgotten, "{}", house.homes.story());
    assert!(!house.comes(80));
}

#[test]
fn a_guest_who_logs_in_is_held_to_what_names_guests() {
    let everybody = rule("all", &[Atom::Members], &[wiki()], &[udp(90)]);
    let mut draft = rules();
    draft.rules.push(everybody);
    draft.profiles = vec![DraftProfile {
        group: name("guests"),
        exclusive: true,
        window: None,
    }];
    let mut house = House::new(706, &draft);
    assert!(house.comes(90));
    house.logs_in(None, &["guests"], 3600);
    assert!(house.comes(81) && !house.comes(90));
    house.logs_out();
    assert!(house.comes(90));
}

#[test]
fn there_is_room_for_so_many_and_one_gateway_does_not_take_it_all() {
    let mut house = House::new(707, &rules());
    let a = house.homes.a;
    house.logs_in(None, &["guests"], 3600);
    assert!(house.comes(81));
    let mut room = 1;
    for host in 0x1000.. {
        let command = login(house.homes.lan(1, host), None, &["guests"], 3600);
        let given = house
            .homes
            .world
            .with(a, |node, now| node.handle_command(command, now));
        match given {
            Ok(()) => room += 1,
            Err(refused) => {
                assert_eq!(refused, CommandError::NoRoomForLogin);
                break;
            }
        }
    }
    assert_eq!(room, 256);
    house.homes.world.run(seconds(5));
    let now = house.homes.world.now();
    // In several notices, and all of them.
    assert_eq!(house.homes.world.node(house.homes.b).logins(now).len(), 256);
}

#[test]
fn plain_http_of_nobody_goes_to_the_login_page() {
    let draft = Draft {
        vouchers: [(site(1), person("ann")), (site(1), group("guests"))].into(),
        ..policy([rule("ann", &[person("ann")], &[wiki()], &[tcp(80)])])
    };
    let mut house = House::new(708, &draft);
    let (a, b) = (house.homes.a, house.homes.b);
    let (laptop, wiki) = (house.laptop, house.homes.lan(2, 0x80));
    let opens_the_page = |house: &mut House, from: Ipv6Addr, port: u16| {
        let packet = packet::syn((from, 4000), (wiki, port));
        let _ = house.homes.world.send(a, &packet);
        let answered = house.homes.world.sent_to_login_page(a);
        assert!(answered.iter().all(|answered| *answered == packet));
        !answered.is_empty()
    };
    assert!(opens_the_page(&mut house, laptop, 80));
    // By TLS nobody can be sent elsewhere. A guest by his place alone may still log in.
    assert!(!opens_the_page(&mut house, laptop, 443));
    house.logs_in(None, &["guests"], 3600);
    assert!(opens_the_page(&mut house, laptop, 80));
    house.logs_in(Some("ann"), &[], 3600);
    house.homes.world.delivered(b);
    assert!(!opens_the_page(&mut house, laptop, 80));
    let comes = |world: &mut altnet_sim::world::World| !world.delivered(b).is_empty();
    let came = house.homes.world.run_for(seconds(3), comes);
    assert!(came, "{}", house.homes.story());
    // Somebody who is logged in and may not is told so, and the gateway is no browser.
    house.publish(&rules());
    assert!(!opens_the_page(&mut house, laptop, 80));
    house.logs_out();
    assert!(opens_the_page(&mut house, laptop, 80));
    let gateway = house.homes.lan(1, 1);
    assert!(!opens_the_page(&mut house, gateway, 80));
}
