//! Twenty typical homes: what their firewalls are, line by line, and what other people's daemons are told.
//!
//! `ALTNET_WRITE_HOMES=1 cargo test -p altnet-router --test homes` writes down what is now; read the difference.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use altnet_router::plan::Plan;

mod lab;

fn homes() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/homes");
    let mut homes: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    homes.sort();
    homes
}

fn text_of(home: &Path) -> String {
    fs::read_to_string(home.join("altnet.toml")).unwrap()
}

fn check(path: &Path, found: &str) {
    if std::env::var_os("ALTNET_WRITE_HOMES").is_some() {
        fs::write(path, found).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(found, expected, "{} is another", path.display());
}

/// Command lines and files of a plan's children.
fn daemons(plan: &Plan) -> String {
    let mut text = String::new();
    for child in &plan.children {
        writeln!(text, "$ {} {}", child.program, child.arguments.join(" ")).unwrap();
        for file in &child.files {
            writeln!(text, "--- {:o} {}", file.mode, file.path.display()).unwrap();
            text.push_str(file.content.expose());
        }
        text.push('\n');
    }
    text
}

#[test]
fn twenty_typical_homes_have_the_firewalls_that_are_written_down() {
    let homes = homes();
    assert_eq!(homes.len(), 20);
    for home in homes {
        let plan = lab::plan(&lab::house(&text_of(&home)));
        check(&home.join("ruleset.nft"), &plan.ruleset);
    }
}

#[test]
fn daemons_of_typical_homes_are_told_what_is_written_down() {
    for home in homes() {
        let plan = lab::plan(&lab::house(&text_of(&home)));
        check(&home.join("daemons.txt"), &daemons(&plan));
        assert_eq!(plan.troubles, [""; 0], "{}", home.display());
    }
}

#[test]
#[ignore = "needs root and nftables; ci/test runs it as the step router-rules"]
fn the_kernel_takes_the_firewall_of_every_home() {
    lab::can_ask_nft().unwrap();
    let has_flow_tables = lab::has_flow_tables();
    if !has_flow_tables {
        println!("this kernel has no flow tables: firewalls are loaded without them");
    }
    for home in homes() {
        let house = lab::house(&text_of(&home));
        let mut world = lab::world(&house);
        world.has_flow_tables = has_flow_tables;
        let plan = Plan::new(&house, &world, &altnet_router::plan::Places::default());
        let mut interfaces: Vec<String> = house
            .networks()
            .iter()
            .map(|network| network.bridge.clone())
            .collect();
        interfaces.extend(world.present.iter().cloned());
        interfaces.sort();
        interfaces.dedup();
        // Twice: the second takes the place of the first, and of what somebody else has nothing is touched.
        const TWICE: &str = "cat > /dev/shm/$$; nft add table inet others && nft -f /dev/shm/$$ && nft -f /dev/shm/$$; code=$?; rm /dev/shm/$$; nft list tables; exit $code";
        let said = lab::in_namespace(&interfaces, TWICE, &plan.ruleset);
        let said = said.unwrap_or_else(|e| panic!("{}: {e}", home.display()));
        assert!(
            said.contains("inet others") && said.contains("inet altnet_router"),
            "{said}"
        );
    }
}

#[test]
#[ignore = "needs dnsmasq; ci/test runs it as the step router-rules"]
fn dnsmasq_takes_what_it_is_told_in_every_home() {
    for home in homes() {
        let plan = lab::plan(&lab::house(&text_of(&home)));
        let child = plan
            .children
            .iter()
            .find(|child| child.program == "dnsmasq")
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dnsmasq.conf");
        fs::write(&file, child.files[0].content.expose()).unwrap();
        let said = Command::new("dnsmasq")
            .arg("--test")
            .arg(format!("--conf-file={}", file.display()))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "{}: {text}", home.display());
    }
}
