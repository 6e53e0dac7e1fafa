//! What people read who wrote something that can't be.

use std::path::Path;

use altnet_router::board::Ports;
use altnet_router::config::File;

mod lab;

fn read(text: &str, ports: &Ports) -> String {
    let found = File::house(Path::new("altnet.toml"), text, ports);
    found.map(|_| ()).unwrap_err().to_string()
}

/// The lines of the error that name a place are `expected`.
fn check(text: &str, expected: &[&str]) {
    let said = read(text, &lab::board());
    let places: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("altnet.toml:"))
        .collect();
    assert_eq!(places, expected, "{text}");
}

#[test]
fn all_that_is_wrong_is_told_in_the_order_of_the_file() {
    let text = r#"
[[router.wan]]
vlan = 4095

[[router.network]]
name = "lan"
zone = "attic"

[[router.forward]]
port = 80
to = "nas"
"#;
    check(
        text,
        &[
            "altnet.toml:3:8: router.wan[1].vlan: a VLAN's id is 1 to 4094",
            "altnet.toml:7:8: router.network[1].zone: there is no zone attic; write one of guest, lan, wan, or a [[router.zone]] for it",
            "altnet.toml:11:6: router.forward[1].to: there is no host nas; write a [[router.host]] for it, or an address",
        ],
    );
}

#[test]
fn what_isnt_written_is_told_where_it_would_be() {
    check(
        "[router]\n[[router.wifi]]\ncountry = \"CH\"\nssid = [{ name = \"home\" }]\n",
        &[
            "altnet.toml:4:9: router.wifi[1].ssid[1].password: this Wi-Fi needs either a password or a password_file; for one without write security = \"owe\"",
        ],
    );
}

#[test]
fn an_unknown_key_is_told_with_those_that_there_are() {
    check(
        "[router.offload]\nenabld = true\n",
        &["altnet.toml:2:1: unknown field `enabld`, expected `enabled`"],
    );
}

#[test]
fn a_board_without_the_port_is_told() {
    let said = read("[router]", &Ports::default());
    let expected = "altnet.toml:1:1: router.wan[1].interface: this board has no port:wan; write an interface's name, which `ip link` shows";
    assert_eq!(said.lines().next(), Some(expected));
    // Away from the board any port may be there.
    let house = File::house(
        Path::new("a"),
        "[[router.wan]]\ninterface = \"port:lan9\"",
        &Ports::any(),
    );
    assert!(house.is_ok());
}

#[test]
fn what_altnetd_says_elsewhere_in_the_file_counts_too() {
    check(
        "listen_port = 0\n[tun]\nname = \"a\\\" accept\"\n[router]\n",
        &[
            "altnet.toml:1:15: listen_port: beside a [router] altnetd's port has a number; write one, as 51820",
            "altnet.toml:3:8: tun.name: \"a\\\" accept\" is no interface; its name has 1 to 15 letters, digits, `-`, `_` and `.`; `ip link` shows them",
        ],
    );
}

#[test]
fn no_secret_is_in_an_error() {
    let text = r#"
[[router.wan]]
connection = "pppoe"
pppoe = { username = "anna", password = "ses\name", password_file = "/etc/sesame" }
"#;
    let said = read(text, &lab::board());
    assert!(
        said.contains("router.wan[1].pppoe") && !said.contains("ses"),
        "{said}"
    );
}

#[test]
fn more_than_twenty_mistakes_are_counted() {
    let forward = "[[router.forward]]\nport = 80\nto = \"nobody\"\n";
    let said = read(&forward.repeat(30), &lab::board());
    assert_eq!(said.lines().last(), Some("and 10 more"));
}

#[test]
fn a_file_that_holds_a_password_is_known_as_one() {
    let holds = |text: &str| {
        File::parse(Path::new("a"), text)
            .unwrap()
            .router
            .unwrap()
            .holds_password()
    };
    let ssid = "[[router.wifi]]\ncountry = \"CH\"\n[[router.wifi.ssid]]\nname = \"a\"\n";
    assert!(!holds(&format!("{ssid}password_file = \"/etc/wifi\"")));
    assert!(holds(&format!("{ssid}password = \"12345678\"")));
    assert!(holds(
        "[[router.wan]]\npppoe = { username = \"a\", password = \"b\" }"
    ));
}
