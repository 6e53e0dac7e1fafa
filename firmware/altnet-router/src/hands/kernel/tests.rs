//! Plans carried out by a real kernel, and looked at by `ip`.

use std::io::Read as _;
use std::time::Duration;

use super::super::netlink;
use super::*;
use crate::hands::testing::{in_namespace, ip};
use crate::plan::{Address, Addressing, Link, PolicyRule, Route, RouteTo};

mod fair_sharing;

const NOW: Duration = Duration::from_secs(1000);

fn link(name: &str, kind: LinkKind, bridge: Option<&str>) -> Link {
    Link {
        name: name.into(),
        kind,
        bridge: bridge.map(str::to_owned),
        mac: None,
        mtu_bytes: None,
        isolated: false,
        addressing: Addressing::Plan,
    }
}

fn address(link: &str, net: &str, until_s: Option<(u64, u64)>) -> Address {
    Address {
        link: link.into(),
        net: net.parse().unwrap(),
        valid_until_s: until_s.map(|(valid, _)| valid),
        preferred_until_s: until_s.map(|(_, preferred)| preferred),
    }
}

fn route(table: u32, destination: &str, to: RouteTo) -> Route {
    Route {
        table,
        destination: destination.parse().unwrap(),
        to,
        metric: 100,
        source: None,
    }
}

fn rule(family: u8, from: &str) -> PolicyRule {
    PolicyRule {
        priority: 11100,
        family,
        from: Some(from.parse().unwrap()),
        mark: None,
        table: 1100,
        suppress_prefix_length: None,
    }
}

const RULESET: &str = "table inet altnet_router; delete table inet altnet_router; table inet altnet_router { chain input { type filter hook input priority 0; policy drop; }; }";

/// A house with a LAN of two ports, one of which is kept from others, and a provider on `wan`.
fn house() -> Plan {
    let via = |gateway: &str| RouteTo::Via {
        link: "wan".into(),
        gateway: gateway.parse().unwrap(),
    };
    let isolated = Link {
        isolated: true,
        ..link("lan2", LinkKind::Device, Some("br-lan"))
    };
    let wan = Link {
        mac: Some(crate::config::Mac([2, 0, 0, 0, 0, 7])),
        mtu_bytes: Some(1400),
        ..link("wan", LinkKind::Device, None)
    };
    Plan {
        links: vec![
            wan,
            link("br-lan", LinkKind::Bridge, None),
            link("lan1", LinkKind::Device, Some("br-lan")),
            isolated,
        ],
        addresses: vec![
            address("br-lan", "192.168.77.1/24", None),
            address("br-lan", "2001:db8:a::1/64", Some((4600, 2800))),
            address("br-lan", "2001:db8:b::1/64", Some((8200, 0))),
            address("wan", "192.0.2.2/24", None),
        ],
        routes: vec![
            route(1100, "0.0.0.0/0", via("192.0.2.1")),
            route(1100, "::/0", via("fe80::1")),
            route(254, "2001:db8:a::/56", RouteTo::Unreachable),
            route(1100, "192.168.77.0/24", RouteTo::Link("br-lan".into())),
        ],
        rules: vec![rule(4, "192.0.2.2/32"), rule(6, "2001:db8:a::/56")],
        sysctls: vec![
            ("net/ipv4/conf/all/forwarding".into(), "1".into()),
            ("net/ipv4/conf/none0/rp_filter".into(), "0".into()),
        ],
        ruleset: RULESET.into(),
        ..Plan::default()
    }
}

/// Ports of a board, each with a cable in it, and what belongs to somebody else.
fn board() {
    for port in ["wan", "lan1", "lan2"] {
        ip(&format!("link add {port} type veth peer name far-{port}"));
        ip(&format!("link set far-{port} up"));
    }
    ip("link add br-other type bridge");
    ip("address add 198.51.100.1/24 dev br-other");
    ip("link set br-other up");
    ip("route add 203.0.113.0/24 dev br-other");
    ip("rule add from 198.51.100.0/24 table 77 priority 11500");
}

fn everything() -> String {
    [
        "-o -d link",
        "-o address",
        "-4 route show table all",
        "-6 route show table all",
        "rule",
        "-6 rule",
    ]
    .map(ip)
    .concat()
}

/// Without what goes on by itself: lifetimes count down, addresses of links are tried out, bridges tick and come up.
fn still(text: &str) -> String {
    let moves = |word: &&str| word.ends_with("sec") || ["tentative", "linkdown"].contains(word);
    // The address of a link has a route of its own once it was tried out.
    let goes_on = |line: &&str| line.contains("mtu") || line.starts_with("local fe80:");
    let lines = text.lines().filter(|line| !goes_on(line));
    let lines = lines.map(|line| {
        line.split(' ')
            .filter(|word| !moves(word))
            .collect::<Vec<_>>()
    });
    lines.map(|words| words.join(" ") + "\n").collect()
}

#[test]
fn a_plan_is_carried_out_and_carried_out_again_nothing_changes() {
    in_namespace(
        "a_plan_is_carried_out_and_carried_out_again_nothing_changes",
        || {
            board();
            let mut kernel = Kernel::open().unwrap();
            assert_eq!(kernel.apply(&house(), NOW), Applied::default());
            let said = everything();
            for expected in [
                "link/ether 02:00:00:00:00:07",
                "mtu 1400",
                "inet 192.168.77.1/24 brd 192.168.77.255",
                "inet6 2001:db8:a::1/64 scope global nodad dynamic",
                "valid_lft 3600sec preferred_lft 1800sec",
                "inet6 2001:db8:b::1/64 scope global nodad deprecated dynamic",
                "valid_lft 7200sec preferred_lft 0sec",
                "default via 192.0.2.1 dev wan table 1100 proto 177 metric 100 onlink",
                "default via fe80::1 dev wan table 1100 proto 177 metric 100 onlink",
                "unreachable 2001:db8:a::/56 dev lo proto 177 metric 100",
                "11100:\tfrom 192.0.2.2 lookup 1100 proto 177",
                "11100:\tfrom 2001:db8:a::/56 lookup 1100 proto 177",
            ] {
                assert!(said.contains(expected), "{expected} is not in:\n{said}");
            }
            let port = ip("-o -d link show lan2");
            assert!(
                port.contains("master br-lan") && port.contains("isolated on"),
                "{port}"
            );
            assert!(ip("-o -d link show lan1").contains("isolated off"));
            // Of the reader's own namespace.
            let forwarding = fs::read_to_string("/proc/sys/net/ipv4/conf/all/forwarding").unwrap();
            assert_eq!(forwarding.trim(), "1");
            assert_eq!(kernel.apply(&house(), NOW), Applied::default());
            assert_eq!(still(&everything()), still(&said));
        },
    );
}

#[test]
fn what_a_killed_router_left_goes_and_what_is_others_stays() {
    in_namespace(
        "what_a_killed_router_left_goes_and_what_is_others_stays",
        || {
            board();
            let before = everything();
            let mut kernel = Kernel::open().unwrap();
            kernel.apply(&house(), NOW);
            assert_ne!(everything(), before);
            // Another process, that knows nothing of the first, and a file that wants the port alone.
            let plan = Plan {
                links: vec![link("wan", LinkKind::Device, None)],
                ruleset: RULESET.into(),
                ..Plan::default()
            };
            let mut kernel = Kernel::open().unwrap();
            assert_eq!(kernel.apply(&plan, NOW), Applied::default());
            let after = everything();
            for ours in ["br-lan", "proto 177", "2001:db8", "altnet-router", "11100:"] {
                assert!(!after.contains(ours), "{ours} is still in:\n{after}");
            }
            for theirs in [
                "br-other",
                "203.0.113.0/24 dev br-other",
                "11500:",
                "198.51.100.1/24",
            ] {
                assert!(after.contains(theirs), "{theirs} is not in:\n{after}");
            }
        },
    );
}

#[test]
fn what_is_taken_from_a_plan_is_heard_of_and_what_others_take_from_theirs_is_not() {
    let name = "what_is_taken_from_a_plan_is_heard_of_and_what_others_take_from_theirs_is_not";
    in_namespace(name, || {
        board();
        let mut kernel = Kernel::open().unwrap();
        kernel.apply(&house(), NOW);
        let before = still(&everything());
        let mut announced = netlink::watch().unwrap();
        let mut heard = |words: &str| {
            ip(words);
            let (mut buffer, mut is_taken) = ([0; 8192], false);
            while let Ok(len) = announced.read(&mut buffer) {
                is_taken |= netlink::messages(&buffer[..len]).any(|one| super::is_taken(&one));
            }
            is_taken
        };
        for theirs in [
            "route del 203.0.113.0/24 dev br-other",
            "rule del from 198.51.100.0/24 table 77 priority 11500",
            "address del 198.51.100.1/24 dev br-other",
            "address add 198.51.100.9/24 dev br-lan",
        ] {
            assert!(!heard(theirs), "{theirs}");
        }
        for ours in [
            "address del 192.168.77.1/24 dev br-lan",
            "address del 2001:db8:a::1/64 dev br-lan",
            "route del default table 1100",
            "-6 route del unreachable 2001:db8:a::/56",
            "rule del priority 11100",
            "-6 rule del priority 11100",
        ] {
            assert!(heard(ours), "{ours}");
        }
        assert_eq!(kernel.apply(&house(), NOW), Applied::default());
        let after = still(&everything());
        for line in before.lines().filter(|line| line.contains("proto 177")) {
            assert!(after.contains(line), "{line} is not in:\n{after}");
        }
        assert!(after.contains("inet 192.168.77.1/24"), "{after}");
    });
}

#[test]
fn a_refused_ruleset_leaves_everything_as_it_was() {
    in_namespace("a_refused_ruleset_leaves_everything_as_it_was", || {
        board();
        let mut kernel = Kernel::open().unwrap();
        kernel.apply(&house(), NOW);
        let before = still(&everything());
        let plan = Plan {
            addresses: Vec::new(),
            ruleset: "table inet altnet_router { chain c { nonsense; } }".into(),
            ..house()
        };
        let refused = kernel.apply(&plan, NOW).refused.unwrap();
        assert!(refused.starts_with("nft: "), "{refused}");
        assert!(check_ruleset(&plan.ruleset).is_err() && check_ruleset(RULESET).is_ok());
        assert_eq!(still(&everything()), before);
        assert!(ip("-o link show").contains("br-lan"));
    });
}

#[test]
fn a_missing_port_is_said_and_the_rest_is_done() {
    in_namespace("a_missing_port_is_said_and_the_rest_is_done", || {
        board();
        ip("link delete lan2");
        let mut kernel = Kernel::open().unwrap();
        let outcome = kernel.apply(&house(), NOW);
        assert_eq!(outcome.troubles.len(), 1, "{outcome:?}");
        assert!(outcome.troubles[0].contains("lan2"), "{outcome:?}");
        assert!(ip("-o address show br-lan").contains("192.168.77.1/24"));
        let links = kernel.links().unwrap();
        let lan = links.iter().find(|link| link.name == "br-lan").unwrap();
        assert!(lan.is_up && lan.has_carrier);
        assert!(!links.iter().any(|link| link.name == "lan2"));
    });
}

#[test]
fn an_interface_that_a_child_makes_is_left_to_it_but_for_its_isolation() {
    let name = "an_interface_that_a_child_makes_is_left_to_it_but_for_its_isolation";
    in_namespace(name, || {
        board();
        let mut plan = house();
        plan.links.push(Link {
            isolated: true,
            ..link("wlan0", LinkKind::Childs, Some("br-lan"))
        });
        let mut kernel = Kernel::open().unwrap();
        assert_eq!(kernel.apply(&plan, NOW), Applied::default());
        ip("link add wlan0 type veth peer name far-wlan0");
        assert_eq!(kernel.apply(&plan, NOW), Applied::default());
        let before = ip("-o -d link show wlan0");
        assert!(
            before.contains("state DOWN") && !before.contains("master"),
            "{before}"
        );
        ip("link set wlan0 master br-lan");
        assert_eq!(kernel.apply(&plan, NOW), Applied::default());
        assert!(ip("-o -d link show wlan0").contains("isolated on"));
    });
}

#[test]
fn a_radio_is_set_up_and_plugged_in_by_nobody_but_its_child() {
    let name = "a_radio_is_set_up_and_plugged_in_by_nobody_but_its_child";
    in_namespace(name, || {
        board();
        let mut plan = house();
        plan.links
            .push(link("wlan0", LinkKind::Radio, Some("br-lan")));
        let mut kernel = Kernel::open().unwrap();
        let troubles = kernel.apply(&plan, NOW).troubles;
        assert!(
            matches!(&troubles[..], [one] if one.contains("wlan0: it is not there")),
            "{troubles:?}"
        );
        ip("link add wlan0 type veth peer name far-wlan0");
        assert_eq!(kernel.apply(&plan, NOW), Applied::default());
        let radio = kernel.links().unwrap();
        let radio = radio.iter().find(|link| link.name == "wlan0").unwrap();
        assert!(radio.is_up && radio.bridge == 0, "{radio:?}");
    });
}

#[test]
fn somebody_elses_interface_of_the_same_name_is_left_alone() {
    in_namespace(
        "somebody_elses_interface_of_the_same_name_is_left_alone",
        || {
            board();
            ip("link add br-lan type veth peer name br-far");
            let mut kernel = Kernel::open().unwrap();
            let outcome = kernel.apply(&house(), NOW);
            assert!(
                outcome
                    .troubles
                    .iter()
                    .any(|one| one.contains("another one of that name"))
            );
            assert!(ip("-o -d link show br-lan").contains("veth"));
        },
    );
}

#[test]
fn only_settings_of_an_interface_or_of_bridges_may_be_missing() {
    assert!(may_be_missing("net/ipv4/conf/ppp-wan/rp_filter"));
    assert!(may_be_missing("net/ipv6/neigh/br-lan/gc_stale_time"));
    assert!(may_be_missing("net/bridge/bridge-nf-call-iptables"));
    assert!(!may_be_missing("net/ipv4/conf/all/forwarding"));
    assert!(!may_be_missing("net/ipv4/ip_forward"));
    assert!(set("net/ipv4/conf/none0/rp_filter", "0").is_ok());
    assert!(set("net/ipv4/no_such_thing", "0").is_err());
}
