//! Who may reach what, between homes: a policy that changes, reaches everybody and ends flows.

use altnet_core::node::{Event, Verdict};
use altnet_core::policy::{Draft, DraftProfile};
use altnet_sim::founder::FOUNDED;
use altnet_sim::homes::{Homes, entry, invited, join, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_sim::rules::{policy, rule, udp};
use altnet_sim::world::HostId;
use altnet_wire::id::{Name, SiteId};
use altnet_wire::policy::{Atom, Service, Span, Window};
use altnet_wire::record::Roles;
use altnet_wire::time::Duration;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn site(number: u16) -> SiteId {
    SiteId::new(number).unwrap()
}

fn wiki() -> Atom {
    Atom::Host(site(2), name("wiki"))
}

fn serial(homes: &Homes, host: HostId) -> u64 {
    homes.world.node(host).policy_view(homes.world.now()).serial
}

/// Publishes a policy and waits until both gateways have it in force.
fn publish(homes: &mut Homes, draft: &Draft) -> Duration {
    let before = serial(homes, homes.a);
    for record in homes.founder.publish_policy(draft) {
        homes.publish(&record);
    }
    let since = homes.world.now();
    let (a, b) = (homes.a, homes.b);
    let done = homes.world.run_for(seconds(30), |world| {
        let now = world.now();
        [a, b]
            .iter()
            .all(|host| world.node(*host).policy_view(now).serial > before)
    });
    assert!(done, "{}", homes.story());
    homes.world.now().saturating_since(since)
}

/// Whether one datagram from a laptop in house A comes to a port of the wiki.
fn comes(homes: &mut Homes, port: u16) -> bool {
    let packet = packet::udp((homes.lan(1, 0x11), 4000), (homes.lan(2, 0x80), port), b"x");
    homes.world.delivered(homes.b);
    let _ = homes.world.send(homes.a, &packet);
    let b = homes.b;
    homes
        .world
        .run_for(seconds(2), |world| !world.delivered(b).is_empty())
}

#[test]
fn a_rule_for_one_port_refuses_every_other() {
    let mut homes = Homes::new(301, Kind::FULL_CONE, Kind::FULL_CONE);
    assert!(homes.reaches("at first every member reaches every host"));
    publish(
        &mut homes,
        &policy([rule("web", &[Atom::Members], &[wiki()], &[udp(80)])]),
    );
    assert!(comes(&mut homes, 80));
    assert!(!comes(&mut homes, 81));
    // The other home's router, its machines without a name, and the node itself.
    for host in [1, 0x99] {
        let to = homes.lan(2, host);
        let packet = packet::udp((homes.lan(1, 0x11), 4000), (to, 80), b"x");
        let answer = homes.world.send(homes.a, &packet);
        homes.world.run(seconds(1));
        assert!(answer.is_ok(), "an ICMPv6 error comes back");
        assert!(homes.world.delivered(homes.b).is_empty());
    }
    let now = homes.world.now();
    let check = |target, port| {
        let service = Some((altnet_core::ip::Protocol::UDP, port));
        let node = homes.world.node(homes.a);
        node.check_flow("house-a", target, service, now).unwrap()
    };
    assert_eq!(check("wiki", 80).rule.as_deref(), Some("web"));
    assert_eq!(check("wiki", 81).rule.as_deref(), Some("default-deny"));
    assert_eq!(check("house-b", 80).rule.as_deref(), Some("default-deny"));
}

#[test]
fn a_new_policy_reaches_everybody_and_ends_what_it_does_not_allow() {
    let mut homes = Homes::new(302, Kind::PORT_RESTRICTED, Kind::SYMMETRIC);
    assert!(comes(&mut homes, 80) && comes(&mut homes, 81));
    let took = publish(
        &mut homes,
        &policy([rule("web", &[Atom::Members], &[wiki()], &[udp(80)])]),
    );
    assert!(took < seconds(5), "{took:?}");
    // The flow to port 81 was admitted, and answered by nobody: it is judged again.
    assert!(!comes(&mut homes, 81));
    assert!(comes(&mut homes, 80));
    let told = homes.world.told(homes.b);
    let changed = |event: &Event| matches!(event, Event::PolicyChanged { rules: 1, .. });
    assert!(told.iter().any(changed), "{told:?}");
    publish(&mut homes, &policy([]));
    assert!(!comes(&mut homes, 80));
}

#[test]
fn the_same_policy_holds_after_a_restart_with_nobody_to_ask() {
    let mut homes = Homes::new(303, Kind::FULL_CONE, Kind::FULL_CONE);
    assert!(homes.path_becomes("direct"));
    publish(
        &mut homes,
        &policy([rule("web", &[Atom::Site(site(1))], &[wiki()], &[udp(80)])]),
    );
    // Long enough for a direct address to be kept.
    for _ in 0..10 {
        assert!(homes.reaches("for a while"));
        homes.world.run(seconds(1));
    }
    homes.world.power_off(homes.relay);
    homes.world.restart(homes.a);
    homes.world.restart(homes.b);
    assert_eq!(serial(&homes, homes.b), 2);
    assert!(homes.reaches("still"), "{}", homes.story());
    assert!(!comes(&mut homes, 81));
}

#[test]
fn what_is_open_in_hours_closes_on_the_minute() {
    let mut homes = Homes::new(304, Kind::FULL_CONE, Kind::FULL_CONE);
    // The network was founded on a Wednesday at 11:06:40 UTC.
    let span = Span {
        days: 0b100,
        opens_min: 11 * 60,
        closes_min: 11 * 60 + 20,
    };
    let window = Window {
        spans: heapless::Vec::from_iter([span]),
        open_without_clock: false,
    };
    let mut lunch = rule("lunch", &[Atom::Members], &[wiki()], &[Service::ANY]);
    lunch.window = Some(window);
    publish(&mut homes, &policy([lunch]));
    assert!(comes(&mut homes, 80));
    let closes = FOUNDED.as_secs() / 86_400 * 86_400 + u64::from(span.closes_min) * 60;
    let left = closes - FOUNDED.as_secs();
    while homes.world.now().as_micros() / 1_000_000 < left - 3 {
        // The flow goes on, and no packet of it is lost before its time.
        assert!(comes(&mut homes, 80));
        homes.world.run(seconds(20).min(seconds(left - 1)));
    }
    homes.world.run(seconds(30));
    assert!(!comes(&mut homes, 80));
    let (a, now) = (homes.a, homes.world.now());
    let steps = homes.world.node(a).why("wiki", now);
    let step = steps.iter().find(|step| step.question == "policy").unwrap();
    assert!(
        !step.ok && step.answer.contains("only at other times"),
        "{step:?}"
    );
}

#[test]
fn guests_reach_only_what_names_them() {
    let mut homes = Homes::new(305, Kind::FULL_CONE, Kind::FULL_CONE);
    let link = homes
        .founder
        .invite("visitor", Roles::empty(), None, entry());
    let visitor = homes.world.host("203.0.113.60", None);
    join(&mut homes.world, visitor, invited(link));
    let guest = Atom::Device(homes.member("visitor"));
    let everybody = || rule("all", &[Atom::Members], &[Atom::Hosts], &[udp(80)]);
    let mut draft = policy([everybody()]);
    publish(&mut homes, &draft);
    let wiki_at = homes.lan(2, 0x80);
    let own = homes.world.node(visitor).status(homes.world.now());
    let own = own.network.unwrap().address.parse().unwrap();
    let visits = |homes: &mut Homes, port: u16| {
        homes.world.run(seconds(5));
        homes.world.delivered(homes.b);
        let packet = packet::udp((own, 4000), (wiki_at, port), b"x");
        let b = homes.b;
        (0..3).any(|_| {
            let _ = homes.world.send(visitor, &packet);
            homes
                .world
                .run_for(seconds(2), |world| !world.delivered(b).is_empty())
        })
    };
    assert!(visits(&mut homes, 80), "a member like others");
    draft.groups.insert(name("guests"), [guest.clone()].into());
    draft.profiles = vec![DraftProfile {
        group: name("guests"),
        exclusive: true,
        window: None,
    }];
    publish(&mut homes, &draft);
    assert!(!visits(&mut homes, 80));
    assert!(homes.reaches("members still do"));
    let guests = Atom::Group(name("guests"));
    draft
        .rules
        .push(rule("guest-page", &[guests], &[wiki()], &[udp(8080)]));
    publish(&mut homes, &draft);
    assert!(visits(&mut homes, 8080));
    assert!(!visits(&mut homes, 80));
}

#[test]
fn who_was_away_learns_the_policy_before_anything_is_delivered() {
    let mut homes = Homes::new(306, Kind::FULL_CONE, Kind::FULL_CONE);
    assert!(homes.path_becomes("direct"));
    homes.world.power_off(homes.b);
    let draft = policy([rule("web", &[Atom::Members], &[wiki()], &[udp(80)])]);
    for record in homes.founder.publish_policy(&draft) {
        homes.publish(&record);
    }
    let a = homes.a;
    let known = homes.world.run_for(seconds(30), |world| {
        world.node(a).policy_view(world.now()).serial == 2
    });
    assert!(known, "{}", homes.story());
    // Only house A can tell.
    homes.world.power_off(homes.relay);
    homes.world.power_on(homes.b);
    assert_eq!(serial(&homes, homes.b), 1);
    homes.world.delivered(homes.b);
    let packet = packet::udp((homes.lan(1, 0x11), 4000), (homes.lan(2, 0x80), 80), b"x");
    for _ in 0..2000 {
        let _ = homes.world.send(a, &packet);
        homes.world.run(Duration::from_millis(10));
        if !homes.world.delivered(homes.b).is_empty() {
            assert_eq!(serial(&homes, homes.b), 2, "{}", homes.story());
            return;
        }
    }
    panic!("nothing came: {}", homes.story());
}

#[test]
fn a_rule_that_wants_fresh_heads_closes_when_nobody_speaks() {
    let mut homes = Homes::new(307, Kind::FULL_CONE, Kind::FULL_CONE);
    assert!(homes.path_becomes("direct"));
    let mut careful = rule("careful", &[Atom::Members], &[wiki()], &[udp(80)]);
    careful.needs_fresh_head = true;
    let mut draft = policy([
        careful,
        rule("easy", &[Atom::Members], &[wiki()], &[udp(81)]),
    ]);
    draft.stale_after_s = 2 * 86_400;
    publish(&mut homes, &draft);
    assert!(comes(&mut homes, 80) && comes(&mut homes, 81));
    homes.world.power_off(homes.relay);
    homes.world.run(seconds(3 * 86_400));
    assert!(!comes(&mut homes, 80));
    assert!((0..3).any(|_| comes(&mut homes, 81)), "{}", homes.story());
    homes.world.power_on(homes.relay);
    homes.world.run(seconds(90));
    assert!(comes(&mut homes, 80), "{}", homes.story());
}

#[test]
fn a_refused_packet_is_told_to_its_sender() {
    let mut homes = Homes::new(308, Kind::FULL_CONE, Kind::FULL_CONE);
    publish(&mut homes, &policy([]));
    let packet = packet::udp((homes.lan(1, 0x11), 4000), (homes.lan(2, 0x80), 80), b"x");
    let now = homes.world.now();
    let mut buffer = [0; altnet_wire::frame::FRAME_BYTES];
    let mut frame = altnet_wire::frame::Frame::new(&mut buffer);
    frame.set(&packet).unwrap();
    let verdict = homes
        .world
        .with(homes.a, |node, _| node.handle_lan(&mut frame, now));
    assert_eq!(verdict, Ok(Verdict::Deliver));
    // ICMPv6, destination unreachable, administratively prohibited (RFC 4443 section 3.1).
    assert_eq!(frame.packet()[6], 58);
    assert_eq!(frame.packet()[40..42], [1, 1]);
}
