//! Owners who lose their key or have it stolen, while the network goes on working: two houses
//! and a relay run on loopback and are asked what they believe.

mod common;

use std::net::{Ipv6Addr, SocketAddr};

use altnet_core::invite::Bundle;
use altnet_provision::directory::recover_from;
use altnet_provision::home::Home;
use altnet_provision::recovery::RecoveryKey;
use altnet_sim::packet;
use altnet_wire::address;
use altnet_wire::id::{NetworkId, SigningKey, SiteId};
use altnet_wire::record::Roles;
use common::running::{Running, WAIT, by_link, founded, socket, wall_clock};
use common::{Computer, NOW, host_add, name, passphrase, wish};
use serde_json::Value;

/// Two houses and a relay, and the computer of the person who made the network.
struct Town {
    first: Computer,
    made: Value,
    entry: SocketAddr,
    relay: Running,
    house_a: Running,
    house_b: Running,
}

impl Town {
    fn new() -> Self {
        let first = Computer::new();
        let (wire, entry) = socket();
        let made = first.with_relay_at(&entry.to_string());
        let file = std::fs::read_to_string(first.file("relay1.bundle")).unwrap();
        let relay = Running::start(wire, Bundle::parse(&file).unwrap(), wall_clock(), 1);
        let house_a = comes_in(&first, "house-a", 2);
        let house_b = comes_in(&first, "house-b", 3);
        let town = Self {
            first,
            made,
            entry,
            relay,
            house_a,
            house_b,
        };
        town.names("wiki", 2, &town.first);
        town
    }

    fn nodes(&self) -> [&Running; 3] {
        [&self.relay, &self.house_a, &self.house_b]
    }

    fn owner(&self) -> SigningKey {
        self.made["owners"][0].as_str().unwrap().parse().unwrap()
    }

    /// `computer` names a machine in a site; every node believes it, and the other house's
    /// devices reach it.
    fn names(&self, called: &str, site: u16, computer: &Computer) {
        let (number, mac) = (site.to_string(), "02:00:00:00:00:01");
        let added = computer.online(&host_add(called, &number, mac));
        let publish = &added["publish"];
        assert_eq!(
            (&publish["refused"], &publish["pending"]),
            (&0.into(), &0.into()),
            "{added}"
        );
        let machine = name(called);
        for node in self.nodes() {
            let machine = machine.clone();
            node.comes_to_believe(called, move |registry| registry.host(&machine).is_some());
        }
        let to: Ipv6Addr = added["address"].as_str().unwrap().parse().unwrap();
        self.carries(site, to);
    }

    /// A device in the other house reaches the machine at `to` in `site`.
    fn carries(&self, site: u16, to: Ipv6Addr) {
        let (from, far, near) = match site {
            2 => (1, &self.house_b, &self.house_a),
            _ => (2, &self.house_a, &self.house_b),
        };
        let id: NetworkId = self.made["id"].as_str().unwrap().parse().unwrap();
        let prefix = address::site_prefix(&id, SiteId::new(from).unwrap());
        let device = Ipv6Addr::from(u128::from(prefix.address()) | 0x99);
        let payload = format!("to {to}");
        let packet = packet::udp((device, 4000), (to, 80), payload.as_bytes());
        assert!(near.reaches(far, &packet), "{to} is not reached");
    }

    /// After the owners changed to those who are on `computer`: nobody lost anything, and what is
    /// signed there counts.
    fn goes_on_with(&self, computer: &Computer) {
        let listed = computer.online(&["network", "owner", "list"]);
        let owners: Vec<SigningKey> = listed["owners"]
            .as_array()
            .unwrap()
            .iter()
            .map(|owner| owner["key"].as_str().unwrap().parse().unwrap())
            .collect();
        assert!(!owners.contains(&self.owner()));
        for node in self.nodes() {
            let owners = owners.clone();
            node.comes_to_believe("the new owners", move |registry| {
                registry.owners() == owners && registry.standing_aside().next().is_none()
            });
            let members = node.believes(|registry| registry.members().count());
            assert_eq!(members, 3);
        }
        // What was named before is reached as before; then something new, the other way.
        let hosts = computer.online(&["host", "list"]);
        let wiki = hosts["hosts"][0]["address"].as_str().unwrap();
        self.carries(2, wiki.parse().unwrap());
        self.names("printer", 1, computer);
        let _house_c = comes_in(computer, "house-c", 9);
        computer.online(&["sync"]);
        let listed = computer.online(&["members"]);
        let names: Vec<_> = listed["members"]
            .as_array()
            .unwrap()
            .iter()
            .map(|member| member["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["house-a", "house-b", "house-c", "relay1"]);
        assert_eq!(computer.online(&["doctor"])["healthy"], true);
    }

    /// Whoever sits at the first computer can no longer change anything, once the second in which
    /// it was put out is over: what it says it signed until then stands. Whoever was put out by
    /// another owner may contest that until the paper speaks (both: decision 0003).
    fn ignores_the_first(&self, by_paper: bool) {
        let revoked = self.relay.believes(|registry| {
            let times = registry.revocations().map(|revocation| revocation.issued);
            times.max().expect("the first computer's issuer key")
        });
        while wall_clock() <= revoked {
            std::thread::yield_now();
        }
        let mut changes = vec![
            vec!["revoke", "house-a", "--yes"],
            host_add("fake", "1", "02:00:00:00:00:66").to_vec(),
        ];
        let key = Computer::new().json(&["network", "owner", "key"])["key"].clone();
        if by_paper {
            changes.push(vec!["network", "owner", "add", key.as_str().unwrap()]);
        }
        for change in &changes {
            let done = self.first.online(change);
            let publish = &done["publish"];
            assert_eq!(publish["directory"], Value::Null, "{done}");
            assert!(
                publish["why"].as_str().unwrap().contains("refuses"),
                "{done}"
            );
        }
        // Announcing takes no proof, so the records are offered; none is taken over.
        let offered = self.first.online(&["publish"]);
        assert!(offered["refused"].as_u64().unwrap() > 0, "{offered}");
        let stolen = self.owner();
        for node in self.nodes() {
            let (is_member, is_named, is_owner) = node.believes(move |registry| {
                let fake = registry.host(&name("fake")).is_some();
                let is_owner = registry.owners().contains(&stolen);
                (registry.by_name(&name("house-a")).is_some(), fake, is_owner)
            });
            assert_eq!((is_member, is_named, is_owner), (true, false, false));
        }
    }
}

#[test]
fn a_published_policy_comes_to_every_node_and_what_it_allows_is_carried() {
    let town = Town::new();
    let policy = "[[rules]]\nname = \"wiki-for-a\"\nfrom = [\"site:1\"]\nto = [\"host:wiki\"]\nservices = [\"udp/80\"]\n";
    std::fs::write(town.first.file("policy.toml"), policy).unwrap();
    town.first.online(&["sync"]);
    let plan = town.first.online(&["policy", "plan", "policy.toml"]);
    let all = |rows: &Value, side: &str| {
        let rows = rows.as_array().unwrap().clone();
        let names = rows
            .into_iter()
            .flat_map(|row| row[side].as_array().unwrap().clone());
        names.collect::<Vec<_>>()
    };
    assert!(plan["gains"].as_array().unwrap().is_empty(), "{plan}");
    // Routers are not what is behind them.
    let losers = all(&plan["loses"], "from");
    for one in ["device:house-a", "device:relay1", "site:1", "site:2"] {
        assert!(losers.contains(&one.into()), "{one}: {plan}");
    }
    let done = town
        .first
        .online(&["policy", "publish", "policy.toml", "--yes"]);
    let publish = &done["publish"];
    assert_eq!(
        (&publish["refused"], &publish["pending"]),
        (&0.into(), &0.into()),
        "{done}"
    );
    for node in town.nodes() {
        node.comes_to_believe("the policy", |registry| {
            registry.policy().is_some_and(|(serial, ..)| serial.0 == 2)
        });
    }
    let hosts = town.first.online(&["host", "list"]);
    let wiki = hosts["hosts"][0]["address"].as_str().unwrap();
    town.carries(2, wiki.parse().unwrap());
}

/// A gateway comes in by an invite that `computer` makes.
fn comes_in(computer: &Computer, called: &str, seed: u8) -> Running {
    let args = ["invite", "create", "--name", called, "--role", "gateway"];
    let made = computer.online(&args);
    let link = by_link(made["link"].as_str().unwrap());
    Running::start(socket().0, link, wall_clock(), seed)
}

/// What is on the paper.
fn paper(computer: &Computer, made: &Value) {
    computer.secret("paper", made["recovery_key"].as_str().unwrap());
}

const RECOVER: [&str; 5] = [
    "network",
    "owner",
    "recover",
    "--recovery-key-file",
    "paper",
];

#[test]
fn the_network_goes_on_when_a_lost_computer_is_replaced_with_the_paper() {
    let (town, second) = (Town::new(), Computer::new());
    paper(&second, &town.made);
    let entry = town.entry.to_string();
    let done = second.online(&[&RECOVER[..], &["--endpoint", &entry]].concat());
    let publish = &done["publish"];
    assert_eq!(
        (&publish["refused"], &publish["pending"]),
        (&0.into(), &0.into()),
        "{done}"
    );
    town.goes_on_with(&second);
    town.ignores_the_first(true);
}

#[test]
fn the_network_goes_on_when_a_lost_key_is_replaced_on_its_own_computer() {
    let town = Town::new();
    paper(&town.first, &town.made);
    let done = town.first.online(&RECOVER);
    assert_eq!(done["publish"]["pending"], 0, "{done}");
    town.goes_on_with(&town.first);
}

#[test]
fn the_network_goes_on_when_a_second_owner_removes_a_stolen_one() {
    let (town, second) = (Town::new(), Computer::new());
    let key = second.json(&["network", "owner", "key"])["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let share = second.file("home.share");
    town.first.online(&["network", "owner", "add", &key]);
    town.first
        .online(&["network", "share", "-o", share.to_str().unwrap()]);
    second.online(&["network", "owner", "adopt", "home.share"]);
    let stolen = town.owner().to_string();
    let listed = second.online(&["network", "owner", "list"]);
    let here = |key: &str| {
        let owners = listed["owners"].as_array().unwrap();
        owners.iter().find(|o| o["key"] == key).unwrap()["here"].clone()
    };
    assert_eq!((here(&stolen), here(&key)), (false.into(), true.into()));
    let done = second.online(&["network", "owner", "remove", &stolen]);
    assert_eq!(done["publish"]["pending"], 0, "{done}");
    town.goes_on_with(&second);
    town.ignores_the_first(false);
}

#[test]
fn a_lost_computer_is_replaced_with_the_paper_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (made, address, _relay) = founded(&Home::at(dir.path().join("home")), "home");
    let mut network = made.network;
    network.exchange(Some(&made.secrets), NOW, WAIT).unwrap();
    let (id, lost) = (network.id(), network.settings().issuer);
    let paper = RecoveryKey::from_text(&made.recovery.to_text()).unwrap();
    let second = Home::at(dir.path().join("second"));
    let wrong = RecoveryKey::new(zeroize::Zeroizing::new([9; 32]));
    let recover = |paper: &RecoveryKey| {
        recover_from(&second, None, address, paper, &[], &passphrase(), NOW, WAIT)
    };
    let error = recover(&wrong).unwrap_err();
    assert!(error.to_string().contains("another network"), "{error}");
    assert!(second.networks().unwrap().is_empty());
    let (mut found, secrets) = recover(&paper).unwrap();
    assert_eq!((found.id(), found.name().as_str()), (id, "home"));
    let done = found.exchange(Some(&secrets), NOW, WAIT).unwrap();
    assert_eq!((done.refused, done.pending), (0, 0));
    assert_eq!(found.members(NOW)[0].name, "relay1");
    // What is signed with the new keys counts, and the lost computer's no longer do.
    let made_now = found
        .create_invite(&secrets, &wish("house-a", Roles::GATEWAY, vec![]), NOW)
        .unwrap();
    let _gateway = Running::start(socket().0, by_link(&made_now.link), NOW, 3);
    found.exchange(Some(&secrets), NOW, WAIT).unwrap();
    assert_eq!(found.members(NOW).len(), 2);
    assert!(found.issuers().iter().all(|issuer| issuer.key != lost));
    let refused = network
        .exchange(Some(&made.secrets), NOW, WAIT)
        .unwrap_err();
    assert!(refused.to_string().contains("refuses"), "{refused}");
}
