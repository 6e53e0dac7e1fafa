//! Who reaches whom in a house with guests, by real packets of both families, before and after a port is opened.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use altnet_router::plan::{Places, Plan};
use lab::street::Answer::{Closed, From, NoRoute, Refused, Silence};
use lab::street::{Answer, Street};

mod lab;

const HOUSE: &str = r#"
[[router.network]]
name = "lan"
ports = ["port:lan1", "port:lan2"]

[[router.network]]
name = "guest"
ports = ["port:lan4"]
"#;

const OPENED: &str = r#"
[[router.host]]
name = "anna"
mac = "02:00:5e:00:53:0a"
ipv4 = "192.168.77.10"
suffix = "::10"

[[router.forward]]
port = 8080
to = "anna"
to_port = 80

[[router.pinhole]]
host = "anna"
ports = [80]
"#;

/// A house with two machines on the LAN and one of a guest's, a provider, and somebody in the private network.
fn street() -> Street {
    let street = Street::new(&["router", "isp", "anna", "ben", "guest", "far"]);
    street.plug(("router", "wan"), ("isp", "line"));
    street.plug(("router", "altnet0"), ("far", "tun"));
    for (port, name) in [("lan1", "anna"), ("lan2", "ben"), ("lan4", "guest")] {
        street.plug(("router", port), (name, "eth0"));
    }
    let address = |name: &str, words: &str| street.ip(name, &format!("address add {words}"));
    address("router", "198.51.1.2/24 dev wan");
    address("router", "2001:db8:ffff:1::2/64 dev wan nodad");
    address("isp", "198.51.1.1/24 dev line");
    address("isp", "2001:db8:ffff:1::1/64 dev line nodad");
    address("isp", "fe80::1/64 dev line nodad");
    street.ip("isp", "route add 2001:db8:100::/56 via 2001:db8:ffff:1::2");
    // As a neighbour on the provider's network might try.
    street.ip("isp", "route add 192.168.0.0/16 via 198.51.1.2");
    address("router", "fd77::1/64 dev altnet0 nodad");
    address("far", "fd77::2/64 dev tun nodad");
    street.ip("far", "route add default via fd77::1");
    for (name, net4, net6, last) in [
        ("anna", 77, "2001:db8:100:", 10),
        ("ben", 77, "2001:db8:100:", 11),
        ("guest", 78, "2001:db8:100:1", 10),
    ] {
        address(name, &format!("192.168.{net4}.{last}/24 dev eth0"));
        address(
            name,
            &format!("{net6}::{last}/64 dev eth0 nodad").replace(":::", "::"),
        );
        street.ip(name, &format!("route add default via 192.168.{net4}.1"));
        street.ip(
            name,
            &format!("route add default via {net6}::1").replace(":::", "::"),
        );
    }
    for name in ["isp", "anna", "ben", "guest", "far"] {
        street.serve(name, &[80, 8000]);
    }
    street.serve("router", &[22, 53]);
    street
}

fn live_in(street: &Street, text: &str) {
    let house = lab::house(text);
    let mut world = lab::world(&house);
    world.has_flow_tables = lab::has_flow_tables();
    let plan =
        altnet_router::plan::Plan::new(&house, &world, &altnet_router::plan::Places::default());
    street.carry_out("router", &plan);
}

fn check(street: &Street, table: &[(&'static str, &str, Answer)]) {
    // All at once: silence takes its time.
    let heard: Vec<Answer> = thread::scope(|scope| {
        let ask = |(from, to, _): &(&'static str, &str, Answer)| {
            let (from, to) = (*from, to.to_string());
            scope.spawn(move || street.ask(from, &to))
        };
        let asking: Vec<_> = table.iter().map(ask).collect();
        let heard = asking.into_iter().map(|asking| asking.join().unwrap());
        heard.collect()
    });
    let others = table
        .iter()
        .zip(heard)
        .filter(|((.., expected), heard)| expected != heard);
    let others: Vec<String> = others
        .map(|((from, to, expected), heard)| {
            format!("{from} asks {to}: {heard:?} and not {expected:?}")
        })
        .collect();
    assert_eq!(others, [""; 0]);
}

fn from(name: &'static str, seen: &str) -> Answer {
    From(name, seen.parse().unwrap())
}

#[test]
#[ignore = "needs root, iproute2 and nftables; ci/test runs it as the step router-rules"]
fn who_reaches_whom_in_a_house_with_guests() {
    let street = street();
    live_in(&street, HOUSE);
    check(
        &street,
        &[
            ("anna", "198.51.1.1:80", from("isp", "198.51.1.2")),
            (
                "anna",
                "[2001:db8:ffff:1::1]:80",
                from("isp", "2001:db8:100::10"),
            ),
            ("anna", "192.168.77.11:80", from("ben", "192.168.77.10")),
            ("anna", "192.168.77.1:22", from("router", "192.168.77.10")),
            (
                "anna",
                "[2001:db8:100::1]:22",
                from("router", "2001:db8:100::10"),
            ),
            ("anna", "192.168.77.1:23", Closed),
            ("anna", "192.168.78.10:80", Refused),
            ("anna", "[2001:db8:100:1::10]:80", Refused),
            ("anna", "[fd77::2]:80", from("far", "2001:db8:100::10")),
            ("far", "[2001:db8:100::10]:80", from("anna", "fd77::2")),
            ("far", "[2001:db8:100:1::10]:80", Refused),
            ("guest", "198.51.1.1:80", from("isp", "198.51.1.2")),
            (
                "guest",
                "[2001:db8:ffff:1::1]:80",
                from("isp", "2001:db8:100:1::10"),
            ),
            ("guest", "192.168.78.1:53", from("router", "192.168.78.10")),
            (
                "guest",
                "[2001:db8:100:1::1]:53",
                from("router", "2001:db8:100:1::10"),
            ),
            ("guest", "192.168.78.1:22", Refused),
            ("guest", "192.168.77.1:22", Refused),
            ("guest", "198.51.1.2:22", Refused),
            ("guest", "[2001:db8:100:1::1]:22", Refused),
            ("guest", "[2001:db8:100::1]:22", Refused),
            ("guest", "192.168.77.10:80", Refused),
            ("guest", "[2001:db8:100::10]:80", Refused),
            ("guest", "[fd77::2]:80", Refused),
            ("isp", "198.51.1.2:22", Silence),
            ("isp", "198.51.1.2:53", Silence),
            ("isp", "198.51.1.2:8080", Silence),
            ("isp", "[2001:db8:ffff:1::2]:22", Silence),
            ("isp", "192.168.77.1:22", Silence),
            ("isp", "192.168.77.10:80", Silence),
            ("isp", "[2001:db8:100::1]:22", Silence),
            ("isp", "[2001:db8:100::10]:80", Silence),
            ("isp", "[2001:db8:100:1::10]:80", Silence),
            // RFC 7084 WPD-5: of the prefix, but nobody's.
            ("isp", "[2001:db8:100:7::1]:80", NoRoute),
        ],
    );
    // No port of the box's says that it is closed, but to the house.
    for to in [
        "198.51.1.2:9",
        "198.51.1.2:51820",
        "198.51.1.2:68",
        "[2001:db8:ffff:1::2]:9",
        "[2001:db8:ffff:1::2]:51820",
        "[2001:db8:ffff:1::2]:546",
    ] {
        assert_eq!(street.knock("isp", to), Silence, "isp knocks at {to}");
    }
    assert_eq!(street.knock("anna", "192.168.77.1:9"), Closed);
    let pings = |from: &str, to: &str| street.succeeds(from, &format!("ping -c 1 -W 1 {to}"));
    assert!(!pings("isp", "198.51.1.2") && !pings("isp", "2001:db8:ffff:1::2"));
    assert!(pings("guest", "192.168.78.1") && pings("guest", "2001:db8:100:1::1"));
    // RFC 4890 section 4.3.1.
    assert!(pings("isp", "2001:db8:100::10"));
    // Who says to be somebody else isn't heard.
    street.ip("guest", "address add 192.168.77.99/32 dev eth0");
    street.ip(
        "guest",
        "route replace default via 192.168.78.1 src 192.168.77.99",
    );
    check(
        &street,
        &[
            ("guest", "192.168.78.1:53", from("router", "192.168.78.10")),
            ("guest", "198.51.1.1:80", Silence),
        ],
    );
}

#[test]
#[ignore = "needs root, iproute2 and nftables; ci/test runs it as the step router-rules"]
fn an_opened_port_is_reached_from_outside_and_by_its_address_from_inside() {
    let street = street();
    live_in(&street, HOUSE);
    let asked: Vec<&str> = vec!["198.51.1.2:8080", "[2001:db8:100::10]:80"];
    for to in &asked {
        assert_eq!(street.ask("isp", to), Silence, "{to} before");
    }
    assert_eq!(street.ask("ben", "198.51.1.2:8080"), Closed);
    live_in(&street, &format!("{HOUSE}{OPENED}"));
    check(
        &street,
        &[
            ("isp", "198.51.1.2:8080", from("anna", "198.51.1.1")),
            (
                "isp",
                "[2001:db8:100::10]:80",
                from("anna", "2001:db8:ffff:1::1"),
            ),
            ("isp", "[2001:db8:100::11]:80", Silence),
            ("isp", "[2001:db8:100::10]:81", Silence),
            ("isp", "198.51.1.2:80", Silence),
            ("isp", "192.168.77.10:80", Silence),
            // On the same network the answer has to come back by the box.
            ("ben", "198.51.1.2:8080", from("anna", "192.168.77.1")),
            ("anna", "198.51.1.2:8080", from("anna", "192.168.77.1")),
            ("guest", "198.51.1.2:8080", from("anna", "192.168.78.10")),
            ("guest", "192.168.77.10:80", Refused),
            ("ben", "192.168.77.10:80", from("anna", "192.168.77.11")),
        ],
    );
    live_in(&street, HOUSE);
    for to in &asked {
        assert_eq!(street.ask("isp", to), Silence, "{to} after");
    }
}

const TWO_LINES: &str = r#"
[[router.wan]]
name = "fibre"

[[router.wan]]
name = "cable"
interface = "port:lan4"

[[router.network]]
name = "lan"
ports = ["port:lan1"]

[[router.forward]]
port = 8080
to = "192.168.77.10"
to_port = 80

[[router.rule]]
from = "wan"
to = "router"
protocol = "tcp"
ports = [22]
action = "accept"

[[router.pinhole]]
suffix = "::10"
ports = [80]
"#;

#[test]
#[ignore = "needs root, iproute2 and nftables; ci/test runs it as the step router-rules"]
fn what_comes_by_the_second_line_is_answered_by_it() {
    let street = Street::new(&["router", "isp", "cable", "anna", "net"]);
    street.plug(("router", "wan"), ("isp", "line"));
    street.plug(("router", "lan4"), ("cable", "line"));
    street.plug(("router", "lan1"), ("anna", "eth0"));
    // Somebody on the internet, behind both.
    street.plug(("net", "west"), ("isp", "net"));
    street.plug(("net", "east"), ("cable", "net"));
    for (n, (name, port, link)) in (1..).zip([("isp", "wan", "west"), ("cable", "lan4", "east")]) {
        street.ip("router", &format!("address add 198.51.{n}.2/24 dev {port}"));
        street.ip(
            "router",
            &format!("address add 2001:db8:ffff:{n}::2/64 dev {port} nodad"),
        );
        street.ip(name, &format!("address add 198.51.{n}.1/24 dev line"));
        street.ip(name, &format!("address add fe80::{n}/64 dev line nodad"));
        street.ip(
            name,
            &format!("route add 2001:db8:{n}00::/56 via 2001:db8:ffff:{n}::2 dev line onlink"),
        );
        street.ip(name, &format!("route add 2001:db8:ffff:{n}::/64 dev line"));
        street.ip(
            name,
            &format!("address add 203.0.113.{}/30 dev net", 4 * n + 1),
        );
        street.ip(
            "net",
            &format!("address add 203.0.113.{}/30 dev {link}", 4 * n + 2),
        );
        street.ip(
            name,
            &format!("address add 2001:db8:eeee:{n}::1/64 dev net nodad"),
        );
        street.ip(
            "net",
            &format!("address add 2001:db8:eeee:{n}::2/64 dev {link} nodad"),
        );
        street.ip(
            "net",
            &format!("route add 198.51.{n}.0/24 via 203.0.113.{}", 4 * n + 1),
        );
        street.ip(
            "net",
            &format!("route add 2001:db8:ffff:{n}::/64 via 2001:db8:eeee:{n}::1"),
        );
        street.ip(
            "net",
            &format!("route add 2001:db8:{n}00::/56 via 2001:db8:eeee:{n}::1"),
        );
        street.run(
            name,
            "sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        );
        // As providers do: nothing leaves by this line that isn't from it (RFC 2827).
        let only =
            format!("add rule ip wall forward iifname line ip saddr != 198.51.{n}.0/24 drop");
        street.run(name, "nft add table ip wall");
        street.run(
            name,
            "nft add chain ip wall forward { type filter hook forward priority 0; }",
        );
        street.run(name, &format!("nft {only}"));
        // Anybody on the internet is reached by either line.
        street.ip(
            name,
            &format!("route add 203.0.113.0/24 via 203.0.113.{}", 4 * n + 2),
        );
        street.ip(
            name,
            &format!("route add 2001:db8:eeee::/48 via 2001:db8:eeee:{n}::2"),
        );
        street.ip("anna", "link set eth0 up");
    }
    street.ip("anna", "address add 192.168.77.10/24 dev eth0");
    street.ip("anna", "route add default via 192.168.77.1");
    for n in [1, 2] {
        street.ip(
            "anna",
            &format!("address add 2001:db8:{n}00::10/64 dev eth0 nodad"),
        );
    }
    street.ip("anna", "route add default via 2001:db8:100::1");
    street.serve("anna", &[80]);
    street.serve("net", &[80]);
    street.serve("router", &[22]);
    live_in(&street, TWO_LINES);
    check(
        &street,
        &[
            ("net", "198.51.1.2:8080", from("anna", "203.0.113.6")),
            ("net", "198.51.2.2:8080", from("anna", "203.0.113.10")),
            ("net", "198.51.1.2:22", from("router", "203.0.113.6")),
            ("net", "198.51.2.2:22", from("router", "203.0.113.10")),
            (
                "net",
                "[2001:db8:ffff:1::2]:22",
                from("router", "2001:db8:eeee:1::2"),
            ),
            (
                "net",
                "[2001:db8:ffff:2::2]:22",
                from("router", "2001:db8:eeee:2::2"),
            ),
            (
                "net",
                "[2001:db8:100::10]:80",
                from("anna", "2001:db8:eeee:1::2"),
            ),
            (
                "net",
                "[2001:db8:200::10]:80",
                from("anna", "2001:db8:eeee:2::2"),
            ),
            // What begins at home goes by the first line, whoever it is for.
            ("anna", "203.0.113.6:80", from("net", "198.51.1.2")),
            ("anna", "203.0.113.10:80", from("net", "198.51.1.2")),
            ("net", "198.51.2.2:23", Silence),
        ],
    );
}

/// Asks the box by NAT-PMP (RFC 6886) for its TCP port 18080 to lead to one's own port 8000; the result's code, or why none came.
fn open_port(street: &Street, from: &'static str, to: &str) -> Result<u16, io::ErrorKind> {
    let to: SocketAddr = to.parse().unwrap();
    street.within(from, move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(to).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(250)))
            .unwrap();
        let mut request = vec![0, 2, 0, 0];
        request.extend([8000_u16.to_be_bytes(), 18080_u16.to_be_bytes()].concat());
        request.extend(600_u32.to_be_bytes());
        let mut answer = [0; 16];
        socket
            .send(&request)
            .and_then(|_| socket.recv(&mut answer))
            .map_err(|e| e.kind())?;
        Ok(u16::from_be_bytes([answer[2], answer[3]]))
    })
}

#[test]
#[ignore = "needs root, nftables and miniupnpd; ci/test runs it as the step router-rules"]
fn a_port_that_a_machine_opened_outlasts_a_change_of_the_rules() {
    let street = street();
    let text = format!("{HOUSE}[router.upnp]\nenabled = true\n");
    let house = lab::house(&text);
    let folder = tempfile::tempdir().unwrap();
    let places = Places {
        run: folder.path().into(),
        ..Places::default()
    };
    let plan = Plan::new(&house, &lab::world(&house), &places);
    live_in(&street, &text);
    let child = plan
        .children
        .iter()
        .find(|child| child.program == "miniupnpd")
        .unwrap();
    for file in &child.files {
        std::fs::write(&file.path, file.content.expose()).unwrap();
    }
    let _miniupnpd = street.start("router", &child.program, &child.arguments);
    // It says nothing when it is ready.
    let opened = (0..40).find_map(|_| {
        let opened = open_port(&street, "anna", "192.168.77.1:5351").ok();
        opened.or_else(|| {
            thread::sleep(Duration::from_millis(100));
            None
        })
    });
    assert_eq!(opened, Some(0), "NAT-PMP says that it is done");
    let is_open = || {
        check(
            &street,
            &[
                ("isp", "198.51.1.2:18080", from("anna", "198.51.1.1")),
                ("isp", "198.51.1.2:18081", Silence),
            ],
        )
    };
    is_open();
    live_in(
        &street,
        &format!("{text}[[router.rule]]\nfrom = 'guest'\nto = 'wan'\naction = 'refuse'\n"),
    );
    is_open();
    // Guests may open nothing.
    assert!(open_port(&street, "guest", "192.168.78.1:5351").is_err());
    live_in(&street, HOUSE);
    check(&street, &[("isp", "198.51.1.2:18080", Silence)]);
}

#[test]
#[ignore = "needs root, iproute2 and nftables; ci/test runs it as the step router-rules"]
fn most_of_a_long_connection_passes_by_the_shorter_way() {
    const BYTES: usize = 4 << 20;
    // A segment of a veth pair is at most 64 KiB.
    const LEAST_PACKETS: u64 = (BYTES >> 16) as u64;
    if !lab::has_flow_tables() {
        println!("skipped: this kernel has no flow tables");
        return;
    }
    let street = street();
    street.pour("isp", 9000, BYTES);
    // Counts what is forwarded the long way, outside of the router's own table.
    street.run("router", "nft add table inet watch");
    street.run(
        "router",
        "nft add chain inet watch forward { type filter hook forward priority -300; }",
    );
    street.run(
        "router",
        "nft add rule inet watch forward tcp sport 9000 counter",
    );
    let counted = |text: &str| {
        live_in(&street, text);
        let before = packets(&street);
        for to in ["198.51.1.1:9000", "[2001:db8:ffff:1::1]:9000"] {
            assert_eq!(street.drink("anna", to), BYTES);
        }
        packets(&street) - before
    };
    let long = counted(&format!("{HOUSE}[router.offload]\nenabled = false\n"));
    assert!(long >= 2 * LEAST_PACKETS, "{long} packets by the long way");
    let short = counted(HOUSE);
    assert!(
        short < long / 4,
        "{short} of {long} packets by the long way"
    );
}

/// What the watching rule counted.
fn packets(street: &Street) -> u64 {
    let said = street.says("router", "nft list chain inet watch forward");
    let (_, rest) = said.split_once("counter packets ").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}
