//! Mistakes that people make in a good file, and the key that an error has to name.

use toml::{Table, Value};

use super::made::Chance;

/// What makes a good file a bad one. Gives the key to be named, or None where the file has nothing to get wrong so.
pub type Mistake = fn(&mut Table, &mut Chance) -> Option<&'static str>;

/// A WAN, a network and so on that is there whatever chance made.
fn section<'a>(router: &'a mut Table, name: &str, fallback: &str) -> &'a mut Table {
    let list = router
        .entry(name)
        .or_insert_with(|| Value::Array(Vec::new()));
    let list = list.as_array_mut().unwrap();
    if list.is_empty() {
        list.push(toml::from_str::<Table>(fallback).unwrap().into());
    }
    list[0].as_table_mut().unwrap()
}

fn wan(router: &mut Table) -> &mut Table {
    section(router, "wan", "")
}

fn network(router: &mut Table) -> &mut Table {
    section(router, "network", "name = 'lan'")
}

fn host(router: &mut Table) -> &mut Table {
    section(
        router,
        "host",
        "name = 'host-0'\nmac = '02:00:5e:00:53:00'\nipv4 = '192.168.77.20'",
    )
}

fn forward(router: &mut Table) -> &mut Table {
    section(router, "forward", "port = 80\nto = '192.168.77.9'")
}

fn pinhole(router: &mut Table) -> &mut Table {
    section(router, "pinhole", "suffix = '::9'")
}

fn rule(router: &mut Table) -> &mut Table {
    section(
        router,
        "rule",
        "from = 'lan'\nto = 'wan'\naction = 'accept'",
    )
}

fn radio(router: &mut Table) -> &mut Table {
    section(
        router,
        "wifi",
        "country = 'CH'\nssid = [{ name = 'a', password = '12345678' }]",
    )
}

fn ssid(router: &mut Table) -> &mut Table {
    radio(router)["ssid"].as_array_mut().unwrap()[0]
        .as_table_mut()
        .unwrap()
}

fn table<'a>(of: &'a mut Table, key: &str) -> &'a mut Table {
    let entry = of.entry(key).or_insert_with(|| Table::new().into());
    entry.as_table_mut().unwrap()
}

fn push(router: &mut Table, name: &str, section: &str) {
    let list = router
        .entry(name)
        .or_insert_with(|| Value::Array(Vec::new()));
    list.as_array_mut()
        .unwrap()
        .push(toml::from_str::<Table>(section).unwrap().into());
}

/// Puts a value at a key and names the key.
macro_rules! put {
    ($of:expr, $key:literal, $value:expr) => {{
        $of.insert($key.into(), $value.into());
        Some($key)
    }};
}

/// One key of a section of which there is one whatever chance made.
pub const MISTAKES: &[Mistake] = &[
    |r, _| put!(r, "fierwall", true),
    |r, _| put!(wan(r), "metrik", 5),
    |r, c| put!(wan(r), "vlan", *c.one_of(&[0, 4095, 5000])),
    |r, c| put!(wan(r), "mtu_bytes", *c.one_of(&[67, 575, 9001])),
    |r, c| {
        put!(
            wan(r),
            "mac",
            *c.one_of(&[
                "01:00:5e:00:53:01",
                "02:00:5e:00:53",
                "00:00:00:00:00:00",
                "2:0:5e:0:53:1"
            ])
        )
    },
    |r, c| {
        put!(
            wan(r),
            "interface",
            *c.one_of(&[
                "port:lan9",
                "port:lan",
                "lo",
                "altnet0",
                "br-lan",
                "eth 0",
                "port:dsl"
            ])
        )
    },
    |r, c| put!(wan(r), "prefix_hint", *c.one_of(&[0, 32, 65])),
    |r, _| put!(wan(r), "resolvers", vec!["0.0.0.0"]),
    |r, _| put!(wan(r), "ipv6", "on"),
    |r, c| put!(table(wan(r), "probes"), "interval_s", *c.one_of(&[0, 3601])),
    |r, _| put!(table(wan(r), "probes"), "targets", vec!["224.0.0.1"]),
    |r, _| {
        wan(r).insert(
            "sqm".into(),
            toml::from_str::<Table>("download_kbit = 7\nupload_kbit = 1000")
                .unwrap()
                .into(),
        );
        Some("download_kbit")
    },
    |r, _| {
        let wan = wan(r);
        for key in ["ipv4", "pppoe", "hostname"] {
            wan.remove(key);
        }
        wan.insert("ipv6".into(), "auto".into());
        put!(wan, "connection", "static")
    },
    |r, _| {
        let wan = wan(r);
        for key in ["ipv4", "pppoe", "hostname"] {
            wan.remove(key);
        }
        put!(wan, "connection", "pppoe")
    },
    |r, c| {
        let wan = wan(r);
        for key in ["pppoe", "hostname"] {
            wan.remove(key);
        }
        wan.insert("connection".into(), "static".into());
        let text = *c.one_of(&[
            "address = '203.0.113.2/29'\ngateway = '203.0.114.1'",
            "address = '203.0.113.2/29'\ngateway = '203.0.113.2'",
        ]);
        wan.insert("ipv4".into(), toml::from_str::<Table>(text).unwrap().into());
        Some("gateway")
    },
    |r, c| {
        let wan = wan(r);
        for key in ["ipv4", "hostname"] {
            wan.remove(key);
        }
        wan.insert("connection".into(), "pppoe".into());
        let text = *c.one_of(&[
            "username = 'a'",
            "username = 'a'\npassword = 'b'\npassword_file = '/c'",
            "username = 'a'\npassword = \"b\\nplugin x\"",
            "username = 'a'\npassword = ''",
        ]);
        wan.insert(
            "pppoe".into(),
            toml::from_str::<Table>(text).unwrap().into(),
        );
        Some("password")
    },
    |r, _| {
        wan(r);
        push(r, "wan", "name = 'w0'\ninterface = 'eth7'");
        wan(r).insert("name".into(), "w0".into());
        Some("wan[")
    },
    |r, _| {
        network(r);
        push(
            r,
            "network",
            "name = 'twin'\nipv4 = '192.168.77.9/24'\nsubnet = 99",
        );
        network(r).insert("ipv4".into(), "192.168.0.1/16".into());
        network(r).remove("dhcp");
        Some("ipv4")
    },
    |r, _| {
        push(r, "network", "name = 'twin'\nports = ['eth7']\nsubnet = 99");
        network(r).insert("ports".into(), vec!["eth7"].into());
        Some("ports[")
    },
    |r, c| {
        put!(
            network(r),
            "ipv4",
            *c.one_of(&[
                "192.168.77.0/24",
                "192.168.77.255/24",
                "224.0.0.1/24",
                "10.0.0.1/31",
                "10.0.0.1/7",
                "10.0.0.1"
            ])
        )
    },
    |r, c| {
        network(r).insert("tagged".into(), vec!["port:lan1"].into());
        put!(network(r), "vlan", *c.one_of(&[0, 4095]))
    },
    |r, _| {
        network(r).remove("vlan");
        put!(network(r), "tagged", vec!["port:lan1"])
    },
    |r, _| put!(network(r), "zone", "nowhere"),
    |r, _| put!(network(r), "zone", "wan"),
    |r, _| {
        push(r, "network", "name = 'twin'\nsubnet = 3000");
        network(r).insert("ipv6".into(), true.into());
        put!(network(r), "subnet", 3000)
    },
    |r, c| {
        put!(
            table(network(r), "dhcp"),
            "first",
            *c.one_of(&["192.168.78.5", "192.168.77.0", "192.168.77.255"])
        )
    },
    |r, _| {
        *table(network(r), "dhcp") =
            toml::from_str("first = '192.168.77.1'\nlast = '192.168.77.9'").unwrap();
        Some("first")
    },
    |r, _| {
        *table(network(r), "dhcp") =
            toml::from_str("first = '192.168.77.90'\nlast = '192.168.77.9'").unwrap();
        Some("last")
    },
    |r, c| {
        put!(
            table(network(r), "dhcp"),
            "lease_s",
            *c.one_of(&[0, 119, 2_592_001])
        )
    },
    |r, c| {
        put!(
            host(r),
            "ipv4",
            *c.one_of(&[
                "192.168.77.1",
                "192.168.77.0",
                "192.168.77.255",
                "172.31.0.5"
            ])
        )
    },
    |r, c| put!(host(r), "suffix", *c.one_of(&["2001:db8::5", "::", "::1"])),
    |r, _| {
        host(r);
        push(r, "host", "name = 'twin'\nmac = '02:00:5e:00:53:00'");
        Some("mac")
    },
    |r, _| {
        host(r);
        push(
            r,
            "host",
            "name = 'twin'\nmac = '02:00:5e:00:53:ff'\nipv4 = '192.168.77.20'",
        );
        Some("ipv4")
    },
    |r, c| {
        put!(
            host(r),
            "name",
            *c.one_of(&["", "Printer", "a,b", "a\nb", "-a"])
        )
    },
    |r, _| {
        let first = forward(r).clone();
        let list = r["forward"].as_array_mut().unwrap();
        list.push(first.into());
        Some("port")
    },
    |r, _| {
        push(
            r,
            "forward",
            "port = '51000-52000'\nprotocol = 'udp'\nto = '192.168.77.9'",
        );
        r.insert("listen_port".into(), 51820.into());
        Some("port")
    },
    |r, c| {
        put!(
            forward(r),
            "to",
            *c.one_of(&["nobody", "192.168.77.1", "172.31.0.5", "192.168.77.255"])
        )
    },
    |r, c| {
        put!(
            forward(r),
            "port",
            *c.one_of(&["0", "5-4", "70000", "http"])
        )
    },
    |r, _| put!(forward(r), "to_port", 0),
    |r, c| put!(forward(r), "protocol", *c.one_of(&["icmp", "any", "esp"])),
    |r, _| put!(forward(r), "from", vec!["2001:db8::/32"]),
    |r, _| put!(forward(r), "wan", "nowhere"),
    |r, _| put!(pinhole(r), "network", "nowhere"),
    |r, _| put!(pinhole(r), "from", vec!["10.0.0.0/8"]),
    |r, _| {
        let pinhole = pinhole(r);
        pinhole.insert("ports".into(), vec![1].into());
        pinhole.insert("protocol".into(), "esp".into());
        Some("ports")
    },
    |r, _| put!(rule(r), "from", "nowhere"),
    |r, _| put!(rule(r), "to", "nowhere"),
    |r, _| put!(rule(r), "action", "drop"),
    |r, _| put!(rule(r), "source", vec!["10.0.0.1/8"]),
    |r, _| {
        rule(r).insert("source".into(), vec!["10.0.0.0/8"].into());
        put!(rule(r), "destination", vec!["2001:db8::/32"])
    },
    |r, _| {
        push(r, "rule", "from = 'wan'\nto = 'any'\naction = 'accept'");
        Some("rule[")
    },
    |r, _| {
        rule(r).insert("protocol".into(), "icmp".into());
        put!(rule(r), "ports", vec![80])
    },
    |r, c| {
        let text = *c.one_of(&[
            "name = 'wan'\nto = ['lan']",
            "name = 'things-2'\nto = ['nowhere']",
        ]);
        let list = r
            .entry("zone")
            .or_insert_with(|| Value::Array(Vec::new()))
            .as_array_mut()
            .unwrap();
        list.retain(|zone| zone["name"].as_str() != Some("wan"));
        push(r, "zone", text);
        Some("to")
    },
    |r, c| {
        let text = *c.one_of(&[
            "name = 'any'",
            "name = 'router'",
            "name = 'Things'",
            "name = 'things'",
            "name = 'much-too-long'",
        ]);
        push(r, "zone", text);
        push(r, "zone", "name = 'things'");
        Some("name")
    },
    |r, _| {
        let list = r
            .entry("zone")
            .or_insert_with(|| Value::Array(Vec::new()))
            .as_array_mut()
            .unwrap();
        list.retain(|zone| zone["name"].as_str() != Some("wan"));
        push(r, "zone", "name = 'wan'\nservices = ['dns']");
        Some("services")
    },
    |r, c| {
        put!(
            radio(r),
            "country",
            *c.one_of(&["", "ch", "XX", "CH\nchannel=14"])
        )
    },
    |r, c| put!(radio(r), "channel", *c.one_of(&[0, 14, 34, 200])),
    |r, _| {
        radio(r).insert("band".into(), "2.4".into());
        put!(radio(r), "width", "80")
    },
    |r, c| {
        ssid(r).insert("security".into(), "wpa3".into());
        put!(
            ssid(r),
            "password",
            *c.one_of(&[
                "short",
                "",
                "a\nb12345678",
                "p\u{e4}ssw\u{f6}rter",
                &"x".repeat(64)
            ])
        )
    },
    |r, _| {
        ssid(r).remove("password");
        ssid(r).insert("security".into(), "wpa2".into());
        Some("password")
    },
    |r, c| {
        put!(
            ssid(r),
            "name",
            *c.one_of(&["", "a\nwpa=0", &"x".repeat(33)])
        )
    },
    |r, _| put!(ssid(r), "network", "nowhere"),
    |r, _| put!(table(r, "upnp"), "networks", vec!["nowhere"]),
    |r, c| {
        put!(
            table(r, "ntp"),
            "servers",
            vec![*c.one_of(&["a b", "a\nallow all", "", "-x.example"])]
        )
    },
    |r, _| {
        for n in 0..600 {
            push(
                r,
                "host",
                &format!(
                    "name = 'many-{n}'\nmac = '02:00:5e:01:{:02x}:{:02x}'",
                    n / 256,
                    n % 256
                ),
            );
        }
        Some("router.host")
    },
    |r, _| {
        for n in 0..9 {
            push(
                r,
                "network",
                &format!(
                    "name = 'many-{n}'\nipv4 = '172.16.{n}.1/24'\nsubnet = {}",
                    100 + n
                ),
            );
        }
        Some("router.network")
    },
];
