//! What a plan is made to, as the world changes.

use altnet_router::config::Name;
use altnet_router::house::House;
use altnet_router::plan::{
    Address, Addressing, Delegated, LinkKind, Places, Plan, Queue, Route, RouteTo, Stale, World,
};

mod lab;

const TWO_WANS: &str = "
[[router.wan]]
name = \"fibre\"
[[router.wan]]
name = \"mobile\"
interface = \"usb0\"
";

fn plan(house: &House, world: &World) -> Plan {
    Plan::new(house, world, &Places::default())
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The default routes of a family in a table, the preferred first: by which link, and with which metric.
fn defaults(plan: &Plan, table: u32, is_v4: bool) -> Vec<&str> {
    let is_default = |route: &&Route| {
        route.table == table
            && route.destination.prefix_len() == 0
            && route.destination.addr().is_ipv4() == is_v4
    };
    let mut routes: Vec<&Route> = plan.routes.iter().filter(is_default).collect();
    routes.sort_by_key(|route| route.metric);
    let link = |route: &Route| match &route.to {
        RouteTo::Via { link, .. } | RouteTo::Link(link) => link.clone(),
        RouteTo::Unreachable => panic!("{route:?}"),
    };
    let links: Vec<String> = routes.into_iter().map(link).collect();
    let known = ["wan", "usb0", "ppp-dsl"];
    links
        .iter()
        .map(|link| *known.iter().find(|name| *name == link).unwrap())
        .collect()
}

fn addresses_of<'a>(plan: &'a Plan, link: &str) -> Vec<(String, &'a Address)> {
    let of_link = plan.addresses.iter().filter(|address| address.link == link);
    of_link
        .map(|address| (address.net.to_string(), address))
        .collect()
}

#[test]
fn an_empty_table_is_a_house_with_a_lan() {
    let house = lab::house("[router]");
    let plan = lab::plan(&house);
    let bridges: Vec<_> = plan
        .links
        .iter()
        .filter(|link| link.bridge.as_deref() == Some("br-lan"))
        .collect();
    let ports: Vec<&str> = bridges.iter().map(|link| link.name.as_str()).collect();
    assert_eq!(ports, ["lan1", "lan2", "lan3", "lan4"]);
    let nets: Vec<String> = addresses_of(&plan, "br-lan")
        .into_iter()
        .map(|(net, _)| net)
        .collect();
    assert_eq!(nets, ["192.168.77.1/24", "2001:db8:100::1/64"]);
    assert_eq!(
        (defaults(&plan, 254, true), defaults(&plan, 254, false)),
        (vec!["wan"], vec!["wan"])
    );
    assert!(plan.rules.is_empty(), "one WAN needs no policy");
    let programs: Vec<&str> = plan
        .children
        .iter()
        .map(|child| child.program.as_str())
        .collect();
    assert_eq!(programs, ["dhcpcd", "dnsmasq", "chronyd"]);
    assert_eq!(
        plan.resolvers,
        ["198.51.1.53".parse::<std::net::IpAddr>().unwrap()]
    );
}

#[test]
fn a_wan_whose_probes_fail_stands_behind_the_other_and_its_prefix_is_left() {
    let house = lab::house(TWO_WANS);
    let mut world = lab::world(&house);
    let before = plan(&house, &world);
    assert_eq!(before.working, ["fibre", "mobile"]);
    assert_eq!(defaults(&before, 254, true), ["wan", "usb0"]);
    world.wans.get_mut(&name("fibre")).unwrap().answers = Some(false);
    let after = plan(&house, &world);
    assert_eq!(after.working, ["mobile"]);
    for is_v4 in [true, false] {
        assert_eq!(defaults(&after, 254, is_v4), ["usb0", "wan"]);
        // By its own table each stays reachable, so that probes find out that it is back.
        assert_eq!(defaults(&after, 1100, is_v4), ["wan"]);
        assert_eq!(defaults(&after, 1101, is_v4), ["usb0"]);
    }
    let preferred = |plan: &Plan, net: &str| {
        let all = addresses_of(plan, "br-lan");
        all.iter()
            .find(|(text, _)| text == net)
            .unwrap()
            .1
            .preferred_until_s
    };
    assert_eq!(preferred(&before, "2001:db8:100::1/64"), Some(3600));
    assert_eq!(preferred(&after, "2001:db8:100::1/64"), Some(0));
    assert_eq!(preferred(&after, "2001:db8:200::1/64"), Some(3600));
    // If none works, none is better: prefixes stay as they are.
    world.wans.get_mut(&name("mobile")).unwrap().is_up = false;
    let alone = plan(&house, &world);
    assert_eq!(alone.working, [""; 0]);
    assert_eq!(defaults(&alone, 254, true), ["wan"]);
    assert_eq!(preferred(&alone, "2001:db8:100::1/64"), Some(3600));
}

#[test]
fn what_came_by_a_wan_goes_back_by_it() {
    let house = lab::house(TWO_WANS);
    let plan = lab::plan(&house);
    let table_of = |source: &str| {
        let rule = plan
            .rules
            .iter()
            .find(|rule| rule.from.is_some_and(|net| net.to_string() == source));
        rule.map(|rule| rule.table)
    };
    assert_eq!(table_of("198.51.1.2/32"), Some(1100));
    assert_eq!(table_of("198.51.2.2/32"), Some(1101));
    assert_eq!(table_of("2001:db8:100::/56"), Some(1100));
    assert_eq!(table_of("2001:db8:200::/56"), Some(1101));
    let marks: Vec<_> = plan
        .rules
        .iter()
        .filter_map(|rule| Some((rule.mark?, rule.table)))
        .collect();
    assert_eq!(
        marks,
        [
            ((0x0001_0000, 0x00ff_0000), 1100),
            ((0x0002_0000, 0x00ff_0000), 1101)
        ]
    );
    // What the main table knows besides its defaults comes first.
    let first = &plan.rules[0];
    assert_eq!((first.table, first.suppress_prefix_length), (254, Some(0)));
    assert!(plan.rules.is_sorted_by_key(|rule| rule.priority));
}

#[test]
fn a_prefix_of_before_is_deprecated_unless_it_is_there_again() {
    let house = lab::house("[router]");
    let mut world = lab::world(&house);
    let stale = |net: &str| Stale {
        network: name("lan"),
        address: net.parse().unwrap(),
        until_s: 7200,
    };
    world.stale = vec![stale("2001:db8:900::1/64"), stale("2001:db8:100::1/64")];
    let plan = plan(&house, &world);
    let found: Vec<_> = addresses_of(&plan, "br-lan")
        .into_iter()
        .map(|(net, address)| (net, address.valid_until_s, address.preferred_until_s))
        .collect();
    let expected = [
        ("192.168.77.1/24", None, None),
        ("2001:db8:100::1/64", Some(7200), Some(3600)),
        ("2001:db8:900::1/64", Some(7200), Some(0)),
    ];
    assert_eq!(
        found,
        expected.map(|(net, valid, preferred)| (net.to_owned(), valid, preferred))
    );
}

#[test]
fn a_network_that_a_prefix_has_no_room_for_is_told() {
    let house =
        lab::house("[[router.network]]\nname = \"lan\"\n[[router.network]]\nname = \"guest\"");
    let mut world = lab::world(&house);
    let state = world.wans.get_mut(&name("wan")).unwrap();
    state.prefixes = vec![Delegated {
        net: "2001:db8:100::/64".parse().unwrap(),
        valid_until_s: None,
        preferred_until_s: None,
    }];
    let plan = plan(&house, &world);
    assert_eq!(addresses_of(&plan, "br-lan").len(), 2);
    assert_eq!(addresses_of(&plan, "br-guest").len(), 1);
    assert!(
        plan.troubles[0].contains("guest has no subnet 1 of the prefix 2001:db8:100::/64"),
        "{:?}",
        plan.troubles
    );
}

#[test]
fn pppoe_leads_by_its_session_and_is_queued_as_the_line_counts() {
    let house = lab::house(
        "[[router.wan]]
        name = \"dsl\"
        connection = \"pppoe\"
        vlan = 7
        pppoe = { username = \"anna\", password_file = \"/etc/altnet/pppoe\" }
        sqm = { download_kbit = 50000, upload_kbit = 10000, line = \"vdsl\" }",
    );
    let mut world = lab::world(&house);
    world.wans.get_mut(&name("dsl")).unwrap().gateway6 = None;
    let up = plan(&house, &world);
    assert_eq!(
        (defaults(&up, 254, true), defaults(&up, 254, false)),
        (vec!["ppp-dsl"], vec!["ppp-dsl"])
    );
    let line = up.links.iter().find(|link| link.name == "wan.7").unwrap();
    let vlan = LinkKind::Vlan {
        parent: "wan".into(),
        id: 7,
    };
    assert_eq!((&line.kind, line.addressing), (&vlan, Addressing::None));
    let queues: Vec<_> = up
        .queues
        .iter()
        .map(
            |Queue {
                 link,
                 ingress_of,
                 overhead_bytes,
                 ..
             }| (link.as_str(), ingress_of.as_deref(), *overhead_bytes),
        )
        .collect();
    assert_eq!(
        queues,
        [("ppp-dsl", None, 30), ("ifb-dsl", Some("ppp-dsl"), 30)]
    );
    // Without its password there is no session to be had, and everything else is.
    world.passwords.clear();
    let mute = plan(&house, &world);
    assert!(
        mute.troubles[0]
            .contains("the WAN dsl can't log in: there is no password in /etc/altnet/pppoe")
    );
    assert!(mute.children.iter().all(|child| child.program != "pppd"));
    assert!(mute.children.iter().any(|child| child.program == "dnsmasq"));
}

#[test]
fn a_password_that_would_break_a_line_is_no_password() {
    let house = lab::house(
        "[[router.wifi]]
        country = \"CH\"
        ssid = [{ name = \"a\", password_file = \"/etc/altnet/wifi\" }]",
    );
    let mut world = lab::world(&house);
    for text in ["12345678\nwpa=0", "", "short"] {
        let secret = altnet_router::config::Secret::new(text.into());
        world.passwords.insert("/etc/altnet/wifi".into(), secret);
        let plan = plan(&house, &world);
        assert!(
            plan.children.iter().all(|child| child.program != "hostapd"),
            "{text:?}"
        );
        assert!(
            plan.troubles[0].contains("the radio wlan0 stays off"),
            "{:?}",
            plan.troubles
        );
    }
}

#[test]
fn a_plan_shows_no_password() {
    let house = lab::house(
        "[[router.wan]]
        connection = \"pppoe\"
        pppoe = { username = \"anna\", password = \"sesame\" }",
    );
    let plan = lab::plan(&house);
    assert!(
        plan.children
            .iter()
            .flat_map(|child| &child.files)
            .any(|file| file.content.expose().contains("sesame"))
    );
    assert!(!format!("{plan:?} {house:?}").contains("sesame"));
    assert!(
        !toml::to_string(&plan.children[0])
            .unwrap()
            .contains("sesame")
    );
}

#[test]
fn the_file_that_the_documentation_shows_is_a_good_one() {
    let page = include_str!("../../docs/router.md");
    let (_, rest) = page.split_once("```toml\n").unwrap();
    let (file, _) = rest.split_once("```").unwrap();
    let plan = lab::plan(&lab::house(file));
    assert_eq!(plan.troubles, [""; 0]);
    let programs: Vec<&str> = plan
        .children
        .iter()
        .map(|child| child.program.as_str())
        .collect();
    assert_eq!(
        programs,
        [
            "pppd",
            "dhcpcd",
            "dnsmasq",
            "hostapd",
            "chronyd",
            "miniupnpd"
        ]
    );
}
