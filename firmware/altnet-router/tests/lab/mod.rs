//! What tests have in common: a board, a world that has said something of each WAN, and the real nft.
#![allow(dead_code, reason = "each test takes what it needs")]

pub mod made;
pub mod mistakes;
pub mod street;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use altnet_router::board::Ports;
use altnet_router::config::{File, Secret};
use altnet_router::house::House;
use altnet_router::plan::{Delegated, Leased, Places, Plan, WanState, World};

/// A board with a WAN port, four LAN ports and two radios.
pub fn board() -> Ports {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Ports {
        wan: Some("wan".into()),
        lan: names(&["lan1", "lan2", "lan3", "lan4"]),
        radios: names(&["wlan0", "wlan1"]),
    }
}

/// What `text` means on that board.
pub fn house(text: &str) -> House {
    let house = File::house(Path::new("altnet.toml"), text, &board());
    house
        .unwrap_or_else(|e| panic!("{e}"))
        .expect("there is a [router]")
}

/// Each WAN is up, with addresses and a prefix of its own.
pub fn world(house: &House) -> World {
    let mut world = World {
        has_flow_tables: true,
        ..World::default()
    };
    for (i, wan) in (1_u8..).zip(house.wans()) {
        let leased = |net: String| Leased {
            net: net.parse().unwrap(),
            valid_until_s: Some(3600),
        };
        let state = WanState {
            is_up: true,
            answers: None,
            addresses: vec![
                leased(format!("198.51.{i}.2/24")),
                leased(format!("2001:db8:ffff:{i}::2/64")),
            ],
            gateway4: Some([198, 51, i, 1].into()),
            gateway6: Some(format!("fe80::{i}").parse().unwrap()),
            resolvers: vec![[198, 51, i, 53].into()],
            prefixes: vec![Delegated {
                net: format!("2001:db8:{i}00::/56").parse().unwrap(),
                valid_until_s: Some(7200),
                preferred_until_s: Some(3600),
            }],
        };
        world.wans.insert(wan.name.clone(), state);
        world.present.push(wan.interface.clone());
        world.present.push(wan.line.clone());
    }
    world.present.extend(board().lan);
    for file in house.password_files() {
        world
            .passwords
            .insert(file.into(), Secret::new("from its file".into()));
    }
    world
}

/// The plan of a house in that world.
pub fn plan(house: &House) -> Plan {
    Plan::new(house, &world(house), &Places::default())
}

/// Whether this machine can ask its kernel about a ruleset, or why not.
pub fn can_ask_nft() -> Result<(), String> {
    match in_namespace(&[], "nft list ruleset", "") {
        Ok(_) => Ok(()),
        Err(e) => Err(format!(
            "nft in a network namespace of its own doesn't run here (it needs root and nftables): {e}"
        )),
    }
}

/// Runs a shell's line in a network namespace of its own that has these interfaces.
pub fn in_namespace(interfaces: &[String], line: &str, input: &str) -> Result<String, String> {
    let made: Vec<String> = interfaces
        .iter()
        .map(|name| format!("ip link add {name} type bridge && "))
        .collect();
    let mut child = Command::new("unshare")
        .args(["--net", "sh", "-c", &format!("{}{line}", made.concat())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let mut stdin = child.stdin.take().expect("it is piped");
    // Who ends before it has read everything says why in its own words.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(said(&output.stdout));
    }
    Err(said(&output.stderr))
}

/// Whether the kernel has flow tables; without them, rulesets are asked about without.
pub fn has_flow_tables() -> bool {
    const PROBE: &str = "table inet probe { flowtable f { hook ingress priority filter; devices = { br-probe }; }; }";
    in_namespace(&["br-probe".into()], "nft -f -", PROBE).is_ok()
}
