//! Publishing and fetching against real nodes on loopback.

mod common;

use std::path::Path;
use std::time::Duration;

use altnet_core::invite::Bundle;
use altnet_provision::Error;
use altnet_provision::home::Home;
use altnet_provision::network::{HostPlace, Invited, Network, Target};
use altnet_wire::id::SiteId;
use altnet_wire::record::Roles;
use common::running::{Running, WAIT, by_link, founded, socket, wall_clock};
use common::{Computer, NOW, host_add, name, passphrase, relay_wish, wish};

fn home(dir: &Path) -> Home {
    Home::at(dir.join("home"))
}

#[test]
fn what_is_signed_here_is_published_and_who_joined_is_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let (made, address, _relay) = founded(&home(dir.path()), "home");
    let (mut network, secrets) = (made.network, made.secrets);
    assert!(network.settings().pending() > 0);
    let done = network.exchange(Some(&secrets), NOW, WAIT).unwrap();
    assert_eq!(
        (done.directory, done.refused, done.pending),
        (address, 0, 0)
    );
    assert_eq!(network.members(NOW)[0].name, "relay1");
    assert!(network.summary().entries[0].joined);
    // A gateway comes in by a link.
    let made = network
        .create_invite(&secrets, &wish("house-a", Roles::GATEWAY, vec![]), NOW)
        .unwrap();
    assert_eq!(
        (made.site, made.endpoints.as_slice()),
        (Some(1), &[address][..])
    );
    let _gateway = Running::start(socket().0, by_link(&made.link), NOW, 2);
    let site = SiteId::new(1).unwrap();
    let place = HostPlace::Mac([2, 0, 0, 0, 0, 1]);
    network
        .add_host(&secrets, &name("wiki"), site, place, NOW)
        .unwrap();
    let done = network.exchange(Some(&secrets), NOW, WAIT).unwrap();
    assert_eq!((done.refused, done.pending), (0, 0));
    let names: Vec<_> = network.members(NOW).into_iter().map(|m| m.name).collect();
    assert_eq!(names, ["house-a", "relay1"]);
    let invites = network.invites(NOW).into_iter();
    let used: Vec<_> = invites.flat_map(|invite| invite.used_by).collect();
    assert!(used.contains(&"house-a".to_owned()), "{used:?}");
    // Nothing is fetched twice, and it is all on the disk.
    let path = network.dir().to_path_buf();
    drop(network);
    let mut network = Network::open(&path).unwrap();
    assert_eq!(network.members(NOW).len(), 2);
    // What the gateway says of itself may still be on its way at first.
    let mut again = (0..20).map(|_| network.exchange(Some(&secrets), NOW, WAIT).unwrap());
    let quiet = again.find(|again| again.fetched == Some(0));
    assert_eq!(quiet.expect("the network comes to rest").published, 0);
    drop(again);
    // A revocation reaches the directory: another computer's copy shows it.
    let target = Target::Member("house-a".into());
    network
        .revoke(&secrets, &target, Invited::Ask, "stolen", NOW)
        .unwrap();
    let done = network.exchange(Some(&secrets), NOW, WAIT).unwrap();
    assert_eq!((done.refused, done.pending), (0, 0));
    assert_eq!(network.members(NOW).len(), 1);
}

#[test]
fn without_keys_publishing_works_and_reading_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (made, _, _relay) = founded(&home(dir.path()), "home");
    let mut network = made.network;
    let done = network.exchange(None, NOW, WAIT).unwrap();
    assert_eq!((done.pending, done.fetched), (0, None));
}

#[test]
fn another_networks_directory_is_not_believed_and_everything_stays_pending() {
    let dir = tempfile::tempdir().unwrap();
    let (_other, address, _relay) = founded(&Home::at(dir.path().join("other")), "other");
    let mut made = Network::create(&home(dir.path()), &name("home"), &passphrase(), NOW).unwrap();
    made.network
        .bundle(&made.secrets, &relay_wish(address), NOW, |_| Ok(()))
        .unwrap();
    let pending = made.network.settings().pending();
    let error = made
        .network
        .exchange(Some(&made.secrets), NOW, Duration::from_secs(2))
        .unwrap_err();
    assert!(matches!(error, Error::Directory { .. }), "{error}");
    assert_eq!(made.network.settings().pending(), pending);
}

#[test]
fn revoking_a_sponsor_asks_about_those_it_brought() {
    let dir = tempfile::tempdir().unwrap();
    let (made, _, _relay) = founded(&home(dir.path()), "home");
    let (mut network, secrets) = (made.network, made.secrets);
    let mut running = Vec::new();
    for (seed, called, sponsor) in [
        (5, "ann", None),
        (6, "bob", Some("ann")),
        (7, "cem", Some("bob")),
    ] {
        network.exchange(Some(&secrets), NOW, WAIT).unwrap();
        let mut wish = wish(called, Roles::empty(), vec![]);
        wish.sponsor = sponsor.map(name);
        let made = network.create_invite(&secrets, &wish, NOW).unwrap();
        running.push(Running::start(socket().0, by_link(&made.link), NOW, seed));
    }
    network.exchange(Some(&secrets), NOW, WAIT).unwrap();
    let mut open = wish("dan", Roles::empty(), vec![]);
    open.sponsor = Some(name("bob"));
    let open = network.create_invite(&secrets, &open, NOW).unwrap().invite;
    let target = Target::Member("ann".into());
    let brought = network.invited_by(&target, NOW).unwrap();
    let mut names: Vec<_> = brought.into_iter().map(|m| m.name).collect();
    names.sort();
    assert_eq!(names, ["bob", "cem"]);
    let before = common::snapshot(network.dir());
    let error = network
        .revoke(&secrets, &target, Invited::Ask, "", NOW)
        .unwrap_err();
    assert!(matches!(error, Error::NeedsConsent { .. }), "{error}");
    assert!(error.to_string().contains("bob"), "{error}");
    assert!(common::snapshot(network.dir()) == before);
    let done = network
        .revoke(&secrets, &target, Invited::Revoke, "", NOW)
        .unwrap();
    assert_eq!(done.revoked.len(), 3);
    assert_eq!(done.invites, [open.to_string()]);
    assert_eq!(network.members(NOW).len(), 1);
    let done = network.exchange(Some(&secrets), NOW, WAIT).unwrap();
    assert_eq!((done.refused, done.pending), (0, 0));
}

/// Starts the relay whose first-boot file is on `computer`.
fn relay_of(computer: &Computer, socket: std::net::UdpSocket, seed: u8) -> Running {
    let file = std::fs::read_to_string(computer.file("relay1.bundle")).unwrap();
    Running::start(socket, Bundle::parse(&file).unwrap(), wall_clock(), seed)
}

#[test]
fn a_change_after_an_old_backup_is_made_on_the_newest_records() {
    let computer = Computer::new();
    let (socket, address) = socket();
    computer.with_relay_at(&address.to_string());
    computer.json(&["backup", "-o", "old.backup"]);
    let _relay = relay_of(&computer, socket, 8);
    let named = |mac: &str| computer.online(&host_add("wiki", "2", mac));
    named("02:00:00:00:00:01");
    named("02:00:00:00:00:02");
    std::fs::remove_dir_all(computer.home()).unwrap();
    computer.json(&["restore", "old.backup"]);
    let added = named("02:00:00:00:00:03");
    assert_eq!(
        (&added["publish"]["refused"], &added["publish"]["pending"]),
        (&0.into(), &0.into())
    );
    let hosts = computer.json(&["host", "list"]);
    assert_eq!(hosts["hosts"][0]["address"], added["address"]);
}

#[test]
fn the_binary_publishes_after_each_change() {
    let computer = Computer::new();
    let (socket, address) = socket();
    computer.with_relay_at(&address.to_string());
    let relay = relay_of(&computer, socket, 4);
    let added = computer.online(&host_add("wiki", "2", "02:00:00:00:00:01"));
    assert_eq!(added["publish"]["pending"], 0, "{added}");
    assert_eq!(added["publish"]["directory"], address.to_string());
    assert_eq!(computer.json(&["members"])["members"][0]["name"], "relay1");
    let mut again = (0..20).map(|_| computer.online(&["sync"]));
    assert!(again.any(|again| again["fetched"] == 0));
    drop(again);
    assert_eq!(computer.online(&["publish"])["published"], 0);
    assert_eq!(computer.online(&["doctor"])["healthy"], true);
    // With the directory gone the change is made, and said to wait.
    drop(relay);
    let added = computer.online(&host_add("www", "2", "02:00:00:00:00:02"));
    assert_eq!(added["publish"]["pending"], 1, "{added}");
    let note = added["notes"][0].as_str().unwrap();
    assert!(
        note.contains("waiting to be published: 1 record,") && note.contains("publish` tries"),
        "{note}"
    );
    // Revoking the relay takes its key to countersign with it.
    let gone = computer.json(&["revoke", "relay1"]);
    assert_eq!(gone["revoked"][0], "relay1");
    assert_eq!(gone["issuers"].as_array().unwrap().len(), 1);
    assert_eq!(gone["has_relay"], false);
}
