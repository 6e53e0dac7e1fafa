//! Queues in a real kernel, looked at by `tc`.

use super::*;
use crate::plan::Queue;

fn tc(words: &str) -> String {
    let output = Command::new("tc").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "tc {words}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether the kernel has VLANs and cake; says so if not.
fn has_queues(name: &str) -> bool {
    ip("link add probe type veth peer name far-probe");
    let works = |program: &str, words: &str| {
        let output = Command::new(program).args(words.split(' ')).output();
        output.is_ok_and(|output| output.status.success())
    };
    let has = works("ip", "link add link probe name probe.5 type vlan id 5")
        && works("tc", "qdisc add dev probe root cake");
    ip("link delete probe");
    if !has {
        eprintln!(
            "skipped: {name} needs a kernel with VLANs and cake; nothing was tested, ci/guest has one"
        );
    }
    has
}

#[test]
fn a_vlan_and_queues_at_it_are_made_changed_and_go_again() {
    let name = "a_vlan_and_queues_at_it_are_made_changed_and_go_again";
    in_namespace(name, move || {
        if !has_queues(name) {
            return;
        }
        board();
        let line = || LinkKind::Vlan {
            parent: "wan".into(),
            id: 7,
        };
        let links = [
            link("wan", LinkKind::Device, None),
            link("wan.7", line(), None),
            link("ifb-wan", LinkKind::Ifb, None),
        ];
        let queue = |link: &str, ingress_of: Option<&str>, rate_kbit| Queue {
            link: link.into(),
            ingress_of: ingress_of.map(str::to_owned),
            rate_kbit,
            overhead_bytes: 30,
            smallest_bytes: 68,
            atm: false,
            nat: true,
        };
        let mut netlink = Netlink::open().unwrap();
        let mut carry_out = |links: &[Link], queues: &[Queue]| {
            let mut troubles = Vec::new();
            links::make(&mut netlink, links, &mut troubles);
            links::settle(&mut netlink, links, &mut troubles);
            let found = links::read(&mut netlink).unwrap();
            let indexes = Indexes::new(&found, &Plan::default());
            queues::apply(&mut netlink, queues, &indexes, &mut troubles);
            assert_eq!(troubles, Vec::<String>::new());
        };
        let both = |up, down| {
            [
                queue("wan.7", None, up),
                queue("ifb-wan", Some("wan.7"), down),
            ]
        };
        carry_out(&links, &both(10_000, 50_000));
        assert!(ip("-o -d link show wan.7").contains("vlan protocol 802.1Q id 7"));
        let up = tc("qdisc show dev wan.7 root");
        for expected in [
            "cake a177:",
            "bandwidth 10Mbit",
            "nat",
            "overhead 30",
            "mpu 68",
            "noatm",
        ] {
            assert!(up.contains(expected), "{expected} is not in: {up}");
        }
        let down = tc("qdisc show dev ifb-wan root");
        assert!(
            down.contains("bandwidth 50Mbit") && down.contains("ingress"),
            "{down}"
        );
        let filter = tc("filter show dev wan.7 ingress");
        assert!(
            filter.contains("mirred (Egress Redirect to device ifb-wan) stolen"),
            "{filter}"
        );
        // Another rate, and another interface of the same name.
        ip("link delete ifb-wan");
        carry_out(&links, &both(20_000, 60_000));
        assert!(tc("qdisc show dev wan.7 root").contains("bandwidth 20Mbit"));
        assert_eq!(
            tc("filter show dev wan.7 ingress")
                .matches("ifb-wan")
                .count(),
            1
        );
        carry_out(&links, &both(20_000, 60_000));
        // Another VLAN, and no queue.
        let links = [
            link("wan", LinkKind::Device, None),
            link(
                "wan.7",
                LinkKind::Vlan {
                    parent: "wan".into(),
                    id: 8,
                },
                None,
            ),
        ];
        carry_out(&links, &[]);
        assert!(ip("-o -d link show wan.7").contains("id 8"));
        // Queues at what isn't ours to remove.
        let links = [
            link("wan", LinkKind::Device, None),
            link("ifb-wan", LinkKind::Ifb, None),
        ];
        carry_out(
            &links,
            &[
                queue("wan", None, 1000),
                queue("ifb-wan", Some("wan"), 1000),
            ],
        );
        assert!(
            tc("qdisc show dev wan").contains("cake")
                && tc("qdisc show dev wan").contains("ingress")
        );
        carry_out(&links[..1], &[]);
        let left = tc("qdisc show dev wan");
        assert!(
            !left.contains("cake") && !left.contains("ingress"),
            "{left}"
        );
    });
}
