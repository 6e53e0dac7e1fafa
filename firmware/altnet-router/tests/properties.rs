//! Five hundred good files are planned, five hundred bad ones refused.

use std::fs;
use std::path::Path;

use altnet_router::config::{File, Router};
use altnet_router::house::House;
use altnet_router::plan::{Places, Plan, World};
use lab::made::{Chance, good};
use lab::mistakes::MISTAKES;
use proptest::prelude::*;

mod lab;

const CASES: u64 = 500;

fn read(text: &str) -> Result<House, String> {
    let found = File::house(Path::new("altnet.toml"), text, &lab::board());
    found
        .map(|house| house.expect("there is a [router]"))
        .map_err(|e| e.to_string())
}

fn check_good(seed: u64) -> (House, Plan) {
    let file = good(&mut Chance(seed));
    let text = toml::to_string(&file).unwrap();
    let house = read(&text).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{text}"));
    let plan = lab::plan(&house);
    assert_eq!(plan, lab::plan(&house), "seed {seed}: two plans");
    (house, plan)
}

#[test]
fn five_hundred_good_files_are_planned() {
    for seed in 0..CASES {
        let (house, plan) = check_good(seed);
        // Also of a world that has said nothing yet.
        let silent = Plan::new(&house, &World::default(), &Places::default());
        let defaults = silent
            .routes
            .iter()
            .filter(|route| route.destination.prefix_len() == 0);
        assert_eq!(
            defaults.count(),
            0,
            "seed {seed}: a way out of a house whose WANs are down"
        );
        check_plan(seed, &plan);
        check_plan(seed, &silent);
    }
}

/// What holds of every plan.
fn check_plan(seed: u64, plan: &Plan) {
    let mut names: Vec<&str> = Vec::new();
    for link in &plan.links {
        assert!((1..=15).contains(&link.name.len()), "seed {seed}: {link:?}");
        assert!(
            !names.contains(&link.name.as_str()),
            "seed {seed}: {} twice",
            link.name
        );
        if let altnet_router::plan::LinkKind::Vlan { parent, .. } = &link.kind {
            assert!(
                names.contains(&parent.as_str()),
                "seed {seed}: {} before {parent}",
                link.name
            );
        }
        names.push(&link.name);
    }
    for address in &plan.addresses {
        assert!(
            names.contains(&address.link.as_str()),
            "seed {seed}: {address:?}"
        );
    }
    for child in &plan.children {
        for file in &child.files {
            assert!(matches!(file.mode, 0o600 | 0o700), "seed {seed}: {file:?}");
            let is_plain = |c: char| c == '\n' || !c.is_control();
            assert!(
                file.content.expose().chars().all(is_plain),
                "seed {seed}: {}",
                file.path.display()
            );
        }
    }
}

/// Whether an error names a key, or shows the line in which it is written.
fn is_named(said: &str, key: &str) -> bool {
    let forms = [format!(".{key}"), format!("`{key}`"), format!("{key} =")];
    forms.iter().any(|form| said.contains(form))
        || (key.starts_with("router.") && said.contains(key))
}

#[test]
fn five_hundred_bad_files_are_refused_with_the_key_that_is_wrong() {
    let mut refused = 0;
    for (seed, mistake) in (0..CASES).zip(MISTAKES.iter().cycle()) {
        let mut chance = Chance(seed);
        let mut file = good(&mut chance);
        let router = file["router"].as_table_mut().unwrap();
        let Some(key) = mistake(router, &mut chance) else {
            continue;
        };
        if let Some(port) = router.remove("listen_port") {
            file.insert("listen_port".into(), port);
        }
        let text = toml::to_string(&file).unwrap();
        let number = seed as usize % MISTAKES.len();
        let Err(said) = read(&text) else {
            panic!("seed {seed}: mistake {number} about {key} passes\n{text}");
        };
        assert!(
            is_named(&said, key),
            "seed {seed}: mistake {number} about {key} is told as {said}"
        );
        assert!(said.starts_with("altnet.toml:"), "seed {seed}: {said}");
        refused += 1;
    }
    assert_eq!(refused, CASES);
}

#[test]
#[ignore = "needs root and nftables; ci/test runs it as the step router-rules"]
fn the_kernel_takes_the_firewalls_of_five_hundred_good_files() {
    lab::can_ask_nft().unwrap();
    let has_flow_tables = lab::has_flow_tables();
    let folder = tempfile::tempdir().unwrap();
    let mut interfaces: Vec<String> = Vec::new();
    for seed in 0..CASES {
        let (house, _) = check_good(seed);
        let mut world = lab::world(&house);
        world.has_flow_tables = has_flow_tables;
        let plan = Plan::new(&house, &world, &Places::default());
        fs::write(folder.path().join(format!("{seed}.nft")), plan.ruleset).unwrap();
        interfaces.extend(world.present);
        interfaces.extend(
            house
                .networks()
                .iter()
                .map(|network| network.bridge.clone()),
        );
    }
    interfaces.sort();
    interfaces.dedup();
    let line = format!(
        "for file in {}/*.nft; do nft -c -f $file || exit 1; done; echo all",
        folder.path().display()
    );
    let said = lab::in_namespace(&interfaces, &line, "");
    assert_eq!(said.as_deref(), Ok("all\n"));
}

proptest! {
    #[test]
    fn a_file_is_shown_as_it_was_read(seed: u64) {
        let mut file = good(&mut Chance(seed));
        let router: Router = file.remove("router").unwrap().try_into().unwrap();
        let shown: Router = toml::from_str(&toml::to_string(&router).unwrap()).unwrap();
        // But for passwords.
        let blank = |router: &Router| {
            let mut router = router.clone();
            for wan in &mut router.wan {
                wan.pppoe = None;
            }
            for wifi in &mut router.wifi {
                wifi.ssid.clear();
            }
            router
        };
        prop_assert_eq!(blank(&router), blank(&shown));
    }

    #[test]
    fn no_text_makes_a_file_panic(text: String) {
        let _ = read(&format!("[router]\n{text}"));
    }

    #[test]
    fn a_file_with_a_byte_gone_or_changed_is_read_or_refused(seed: u64, at: usize, byte in proptest::option::of(32_u8..127)) {
        let mut text = toml::to_string(&good(&mut Chance(seed))).unwrap().into_bytes();
        let at = at % text.len();
        match byte {
            Some(byte) => text[at] = byte,
            None => drop(text.remove(at)),
        }
        if let Ok(Some(house)) = File::house(Path::new("a"), &String::from_utf8_lossy(&text), &lab::board()) {
            lab::plan(&house);
        }
    }
}
