//! Files made by chance: good ones, and good ones with one mistake.
#![allow(dead_code, reason = "each test takes what it needs")]

use toml::{Table, Value, toml};

/// Chance that begins with a seed (SplitMix64), so that a failure is one number long.
pub struct Chance(pub u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `from` to `to`, both of them in it.
    pub fn number(&mut self, from: u64, to: u64) -> i64 {
        (from + self.next() % (to - from + 1)).try_into().unwrap()
    }

    /// Once in `many` times.
    pub fn once_in(&mut self, many: u64) -> bool {
        self.next().is_multiple_of(many)
    }

    pub fn one_of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[(self.next() % items.len() as u64) as usize]
    }
}

/// A good file.
pub fn good(chance: &mut Chance) -> Table {
    let mut router = Table::new();
    let networks = networks(chance);
    if !chance.once_in(4) {
        router.insert("wan".into(), tables(wans(chance)));
    }
    let hosts = hosts(chance);
    router.insert("forward".into(), tables(forwards(chance, &hosts)));
    router.insert("pinhole".into(), tables(pinholes(chance, &hosts)));
    router.insert("host".into(), tables(hosts));
    router.insert("rule".into(), tables(rules(chance)));
    router.insert("zone".into(), tables(zones(chance)));
    router.insert("wifi".into(), tables(wifi(chance, &networks)));
    router.insert("network".into(), tables(networks));
    if chance.once_in(2) {
        router.insert(
            "upnp".into(),
            toml! { enabled = true
            networks = ["lan"] }
            .into(),
        );
    }
    if chance.once_in(2) {
        let enabled = chance.once_in(2);
        router.insert("offload".into(), toml! { enabled = enabled }.into());
    }
    if chance.once_in(3) {
        router.insert(
            "ntp".into(),
            toml! { servers = ["ntp.example.net", "2001:db8::123"] }.into(),
        );
    }
    let mut file = Table::new();
    if chance.once_in(3) {
        file.insert("listen_port".into(), chance.number(40000, 50000).into());
    }
    file.insert("router".into(), router.into());
    file
}

fn tables(list: Vec<Table>) -> Value {
    Value::Array(list.into_iter().map(Value::Table).collect())
}

fn wans(chance: &mut Chance) -> Vec<Table> {
    let many = chance.number(1, 4);
    (0..many).map(|n| wan(n, chance)).collect()
}

fn wan(n: i64, chance: &mut Chance) -> Table {
    let mut wan = Table::new();
    wan.insert("name".into(), format!("w{n}").into());
    wan.insert(
        "interface".into(),
        if n == 0 {
            "port:wan".into()
        } else {
            format!("enx0011223344{n}5").into()
        },
    );
    let mut maybe = |chance: &mut Chance, key: &str, value: Value| {
        if chance.once_in(3) {
            wan.insert(key.into(), value);
        }
    };
    let vlan = chance.number(1, 4094);
    maybe(chance, "vlan", vlan.into());
    maybe(chance, "mac", "02:00:5e:00:53:AA".into());
    let mtu = chance.number(1280, 1500);
    maybe(chance, "mtu_bytes", mtu.into());
    maybe(chance, "resolvers", vec!["9.9.9.9", "2620:fe::fe"].into());
    let hint = chance.number(49, 56);
    maybe(chance, "prefix_hint", hint.into());
    let (down, up) = (chance.number(64, 1_000_000), chance.number(64, 1_000_000));
    let line = *chance.one_of(&["ethernet", "docsis", "vdsl", "adsl"]);
    maybe(
        chance,
        "sqm",
        toml! { download_kbit = down
        upload_kbit = up
        line = line }
        .into(),
    );
    maybe(
        chance,
        "probes",
        toml! { targets = ["9.9.9.9", "2620:fe::fe"] }.into(),
    );
    let ipv6 = format!("2001:db8:{n}::/56");
    match chance.number(0, 3) {
        0 => drop(wan.insert("ipv6".into(), "off".into())),
        1 => drop(
            wan.insert(
                "ipv6".into(),
                toml! { address = "2001:db8:ff::2/64"
                gateway = "fe80::1"
                prefix = ipv6 }
                .into(),
            ),
        ),
        _ => {}
    }
    match chance.number(0, 3) {
        0 => {
            wan.insert("connection".into(), "static".into());
            let (address, gateway) = (format!("203.0.{n}.2/29"), format!("203.0.{n}.1"));
            wan.insert(
                "ipv4".into(),
                toml! { address = address
                gateway = gateway }
                .into(),
            );
        }
        1 => {
            wan.insert("connection".into(), "pppoe".into());
            let password = *chance.one_of(&["sesame", "a \"b\" \\c", "# \u{20ac} ' {};"]);
            wan.insert(
                "pppoe".into(),
                toml! { username = "anna@provider.example"
                password = password }
                .into(),
            );
        }
        _ if chance.once_in(2) => drop(wan.insert("hostname".into(), "box".into())),
        _ => {}
    }
    wan
}

/// `lan` is 192.168.77.0/24, where the hosts are.
fn networks(chance: &mut Chance) -> Vec<Table> {
    let many = chance.number(1, 5);
    let names = ["lan", "guest", "n2", "n3", "n4"];
    let mut networks: Vec<Table> = Vec::new();
    for (n, name) in (0..many).zip(names) {
        let mut network = Table::new();
        network.insert("name".into(), name.into());
        if n > 0 && chance.once_in(2) {
            let bits = chance.number(16, 30);
            network.insert("ipv4".into(), format!("10.{n}.0.1/{bits}").into());
        } else if chance.once_in(2) {
            let (first, last) = (chance.number(2, 120), chance.number(120, 254));
            let (first, last) = (
                format!("192.168.{}.{first}", 77 + n),
                format!("192.168.{}.{last}", 77 + n),
            );
            let lease = chance.number(120, 100_000);
            network.insert(
                "dhcp".into(),
                toml! { first = first
                last = last
                lease_s = lease }
                .into(),
            );
        }
        if chance.once_in(3) {
            network.insert(
                "tagged".into(),
                vec![format!("port:lan{}", chance.number(1, 4))].into(),
            );
            network.insert("vlan".into(), (10 * (n + 1)).into());
        }
        for (key, value) in [("isolated", true), ("ipv6", n == 0)] {
            if chance.once_in(3) {
                network.insert(key.into(), value.into());
            }
        }
        if chance.once_in(3) {
            network.insert("subnet".into(), (n + 10 * chance.number(0, 5)).into());
        } else {
            network.insert("subnet".into(), n.into());
        }
        if n > 1 {
            network.insert(
                "zone".into(),
                (*chance.one_of(&["lan", "guest", "things"])).into(),
            );
        }
        if chance.once_in(4) {
            network.insert("address6".into(), format!("fd00:77:{n}::1/64").into());
        }
        if chance.once_in(4) {
            network.insert("domain".into(), "home.arpa".into());
        }
        networks.push(network);
    }
    for port in 1..=4 {
        let whose = chance.number(0, networks.len() as u64) as usize;
        if let Some(network) = networks.get_mut(whose) {
            let ports = network
                .entry("ports")
                .or_insert_with(|| Value::Array(Vec::new()));
            ports
                .as_array_mut()
                .unwrap()
                .push(format!("port:lan{port}").into());
        }
    }
    networks
}

fn hosts(chance: &mut Chance) -> Vec<Table> {
    let many = chance.number(0, 6);
    let host = |n: i64| {
        let mut host = Table::new();
        host.insert("name".into(), format!("host-{n}").into());
        host.insert("mac".into(), format!("02:00:5e:00:53:{n:02x}").into());
        host.insert("ipv4".into(), format!("192.168.77.{}", 20 + n).into());
        host.insert("suffix".into(), format!("::{:x}", 0x20 + n).into());
        host
    };
    (0..many).map(host).collect()
}

fn forwards(chance: &mut Chance, hosts: &[Table]) -> Vec<Table> {
    let many = chance.number(0, 8);
    let mut forwards = Vec::new();
    for n in 0..many {
        let mut forward = Table::new();
        let first = 1000 * (n + 1) + chance.number(0, 800);
        let span = if chance.once_in(2) {
            0
        } else {
            chance.number(1, 99)
        };
        forward.insert(
            "port".into(),
            if span == 0 {
                first.into()
            } else {
                format!("{first}-{}", first + span).into()
            },
        );
        forward.insert(
            "protocol".into(),
            (*chance.one_of(&["tcp", "udp", "tcp+udp"])).into(),
        );
        let to = match hosts.first() {
            Some(host) if chance.once_in(2) => host["name"].clone(),
            _ => format!("192.168.77.{}", chance.number(2, 254)).into(),
        };
        forward.insert("to".into(), to);
        if chance.once_in(3) {
            forward.insert("to_port".into(), chance.number(1, 60000).into());
        }
        if chance.once_in(3) {
            forward.insert("from".into(), vec!["198.51.100.0/24", "203.0.113.7"].into());
        }
        if chance.once_in(3) {
            forward.insert("hairpin".into(), false.into());
        }
        forwards.push(forward);
    }
    forwards
}

fn pinholes(chance: &mut Chance, hosts: &[Table]) -> Vec<Table> {
    let many = chance.number(0, 4);
    let mut pinholes = Vec::new();
    for n in 0..many {
        let mut pinhole = Table::new();
        match hosts.first() {
            Some(host) if chance.once_in(2) => {
                drop(pinhole.insert("host".into(), host["name"].clone()))
            }
            _ => drop(pinhole.insert("suffix".into(), format!("::1:{n:x}").into())),
        }
        if chance.once_in(2) {
            pinhole.insert(
                "ports".into(),
                Value::Array(vec![80.into(), "8000-8010".into()]),
            );
        }
        if chance.once_in(3) {
            pinhole.insert("from".into(), vec!["2001:db8:7::/48"].into());
        }
        pinholes.push(pinhole);
    }
    pinholes
}

fn rules(chance: &mut Chance) -> Vec<Table> {
    let many = chance.number(0, 8);
    let mut rules = Vec::new();
    for _ in 0..many {
        let mut rule = Table::new();
        rule.insert(
            "from".into(),
            (*chance.one_of(&["lan", "guest", "wan", "things"])).into(),
        );
        rule.insert(
            "to".into(),
            (*chance.one_of(&["lan", "guest", "wan", "router", "any"])).into(),
        );
        rule.insert(
            "action".into(),
            (*chance.one_of(&["accept", "refuse"])).into(),
        );
        let protocol = *chance.one_of(&["tcp", "udp", "tcp+udp", "icmp", "esp"]);
        rule.insert("protocol".into(), protocol.into());
        if !matches!(protocol, "icmp" | "esp")
            && (rule["from"].as_str() == Some("wan") || chance.once_in(2))
        {
            rule.insert(
                "ports".into(),
                Value::Array(vec![22.into(), "100-200".into(), "201-300".into()]),
            );
        }
        for (key, nets) in [
            ("source", ["10.0.0.0/8", "2001:db8:1::/48"]),
            ("destination", ["192.0.2.7", "2001:db8:2::7"]),
        ] {
            match chance.number(0, 5) {
                0 => drop(rule.insert(key.into(), nets.to_vec().into())),
                1 => drop(rule.insert(key.into(), nets[..1].to_vec().into())),
                _ => {}
            }
        }
        rules.push(rule);
    }
    rules
}

fn zones(chance: &mut Chance) -> Vec<Table> {
    let mut zones = vec![toml! { name = "things"
    to = [] }];
    if chance.once_in(2) {
        zones.push(toml! { name = "lan"
        to = ["wan", "things", "guest"] });
    }
    if chance.once_in(2) {
        let (private, within) = (chance.once_in(2), chance.once_in(2));
        zones.push(toml! { name = "guest"
        private = private
        within = within
        services = ["dhcp", "dns"] });
    }
    if chance.once_in(3) {
        zones.push(toml! { name = "wan"
        services = ["ping"] });
    }
    zones
}

fn wifi(chance: &mut Chance, networks: &[Table]) -> Vec<Table> {
    let many = chance.number(0, 2);
    let mut radios = Vec::new();
    for n in 0..many {
        let mut radio = Table::new();
        radio.insert(
            "country".into(),
            (*chance.one_of(&["CH", "US", "JP", "BR"])).into(),
        );
        let band = if n == 0 { "2.4" } else { "5" };
        radio.insert("band".into(), band.into());
        let width = *chance.one_of(if n == 0 {
            &["20", "40"]
        } else {
            &["20", "40", "80"][..]
        });
        radio.insert("width".into(), width.into());
        if chance.once_in(2) {
            let channel = *chance.one_of(if n == 0 {
                &[1, 6, 11][..]
            } else {
                &[36, 40, 44, 48, 100, 104]
            });
            radio.insert("channel".into(), channel.into());
        }
        let mut ssids = Vec::new();
        for m in 0..chance.number(1, 3) {
            let mut ssid = Table::new();
            ssid.insert(
                "name".into(),
                format!(
                    "{} {m}",
                    chance.one_of(&["home", "M\u{fc}ller", "a \"b\" #c"])
                )
                .into(),
            );
            match *chance.one_of(&["wpa2-wpa3", "wpa3", "wpa2", "owe", "open"]) {
                kind @ ("owe" | "open") => drop(ssid.insert("security".into(), kind.into())),
                kind => {
                    ssid.insert("security".into(), kind.into());
                    ssid.insert(
                        "password".into(),
                        (*chance.one_of(&[
                            "correct horse",
                            "a|mac=02:00:00:00:00:01",
                            "\"#'\\ = x",
                        ]))
                        .into(),
                    );
                }
            }
            ssid.insert("network".into(), chance.one_of(networks)["name"].clone());
            ssids.push(ssid);
        }
        radio.insert("ssid".into(), tables(ssids));
        radios.push(radio);
    }
    radios
}
