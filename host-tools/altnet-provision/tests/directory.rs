//! Publishing, fetching and recovering against real nodes on loopback.

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use altnet_core::invite::{Bundle, Link};
use altnet_core::node::{Config, Event, Output, Stored, Verdict};
use altnet_provision::Error;
use altnet_provision::directory::recover_from;
use altnet_provision::home::Home;
use altnet_provision::network::{
    BundleWish, Created, HostPlace, InviteWish, Invited, Network, Target,
};
use altnet_provision::recovery::RecoveryKey;
use altnet_provision::sealed::Passphrase;
use altnet_sim::world::SimNode;
use altnet_wire::frame::{FRAME_BYTES, Frame, MAX_PACKET_BYTES};
use altnet_wire::id::{Name, SiteId};
use altnet_wire::record::Roles;
use altnet_wire::time::{Instant, UnixTime};
use common::{Computer, text};

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
/// Far more than loopback needs; only a failing test waits so long.
const WAIT: Duration = Duration::from_secs(10);

fn passphrase() -> Passphrase {
    Passphrase::new("correct horse").unwrap().with_less_work(2)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A node that runs on a thread of its own with a socket on loopback.
struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts a device that joins with `bundle`, and waits until it has.
    fn start(socket: UdpSocket, bundle: Bundle, now: UnixTime, seed: u8) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (joined, has_joined) = channel();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            run(&socket, bundle, now, seed, &stopped, &|event| {
                let _ = joined.send(event);
            });
        });
        wait_for_join(&has_joined);
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn wait_for_join(events: &Receiver<Event>) {
    loop {
        match events.recv_timeout(WAIT).expect("the device joins") {
            Event::Joined { .. } => return,
            Event::JoinFailed { why } => panic!("could not join: {why}"),
            _ => {}
        }
    }
}

fn run(
    socket: &UdpSocket,
    bundle: Bundle,
    time: UnixTime,
    seed: u8,
    stop: &AtomicBool,
    tell: &dyn Fn(Event),
) {
    let began = std::time::Instant::now();
    let now = || Instant::ZERO.after(began.elapsed());
    let config = Config::router(UnixTime::EPOCH);
    let mut node = SimNode::new(config, &Stored::new(), [seed; 32], now()).unwrap();
    node.handle_clock(time, now());
    node.join_bundle(bundle, None, now()).unwrap();
    let mut buffer = [0; FRAME_BYTES];
    while !stop.load(Ordering::Relaxed) {
        let mut frame = Frame::new(&mut buffer);
        loop {
            match node.poll_output(&mut frame, now()) {
                Output::Send { to } => {
                    let _ = socket.send_to(frame.packet(), to);
                }
                Output::Save { slot } => node.handle_saved(&slot, now()),
                Output::Tell(event) => tell(event),
                Output::Advertise { .. } | Output::Deliver => {}
                Output::Wait(_) => break,
            }
        }
        socket
            .set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        let mut datagram = [0; MAX_PACKET_BYTES];
        if let Ok((len, from)) = socket.recv_from(&mut datagram) {
            frame.set(&datagram[..len]).unwrap();
            if let Ok(Verdict::Send { to }) = node.handle_wan(from, &mut frame, now()) {
                let _ = socket.send_to(frame.packet(), to);
            }
        }
        node.handle_timeout(now());
    }
}

fn socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn wish(called: &str, roles: Roles, endpoints: Vec<SocketAddr>) -> InviteWish {
    InviteWish {
        name: Some(name(called)),
        person: None,
        groups: Vec::new(),
        roles,
        site: None,
        sponsor: None,
        uses: 1,
        lasts: Duration::from_secs(86_400),
        endpoints,
    }
}

/// Makes a network and starts its relay-and-directory.
fn founded(home: &Home, called: &str) -> (Created, SocketAddr, Running) {
    let mut made = Network::create(home, &name(called), &passphrase(), NOW).unwrap();
    let (socket, address) = socket();
    let wish = BundleWish {
        invite: wish("relay1", Roles::RELAY | Roles::DIRECTORY, vec![address]),
        admit: true,
    };
    let text = made
        .network
        .bundle(&made.secrets, &wish, NOW, |_| Ok(()))
        .unwrap()
        .text;
    let relay = Running::start(socket, Bundle::parse(&text).unwrap(), NOW, 1);
    (made, address, relay)
}

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
    let bundle = Bundle {
        link: Some(Link::parse(&made.link).unwrap()),
        ..Bundle::default()
    };
    let _gateway = Running::start(socket().0, bundle, NOW, 2);
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
    let wish = BundleWish {
        invite: wish("relay1", Roles::RELAY | Roles::DIRECTORY, vec![address]),
        admit: true,
    };
    made.network
        .bundle(&made.secrets, &wish, NOW, |_| Ok(()))
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
fn a_lost_computer_is_replaced_with_the_paper_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (made, address, _relay) = founded(&home(dir.path()), "home");
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
    let made_now = found.create_invite(&secrets, &wish("house-a", Roles::GATEWAY, vec![]), NOW);
    let bundle = Bundle {
        link: Some(Link::parse(&made_now.unwrap().link).unwrap()),
        ..Bundle::default()
    };
    let _gateway = Running::start(socket().0, bundle, NOW, 3);
    found.exchange(Some(&secrets), NOW, WAIT).unwrap();
    assert_eq!(found.members(NOW).len(), 2);
    assert!(found.issuers().iter().all(|issuer| issuer.key != lost));
    let refused = network
        .exchange(Some(&made.secrets), NOW, WAIT)
        .unwrap_err();
    assert!(refused.to_string().contains("refuses"), "{refused}");
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
        let bundle = Bundle {
            link: Some(Link::parse(&made.link).unwrap()),
            ..Bundle::default()
        };
        running.push(Running::start(socket().0, bundle, NOW, seed));
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

#[test]
fn a_change_after_an_old_backup_is_made_on_the_newest_records() {
    let computer = Computer::new();
    let (socket, address) = socket();
    computer.json(&["network", "create", "home"]);
    computer.json(&[
        "bundle",
        "--name",
        "relay1",
        "--role",
        "relay",
        "--role",
        "directory",
        "--admit",
        "--endpoint",
        &address.to_string(),
        "-o",
        "relay1.bundle",
    ]);
    computer.json(&["backup", "-o", "old.backup"]);
    let file = std::fs::read_to_string(computer.file("relay1.bundle")).unwrap();
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let time = UnixTime::from_secs(time.as_secs());
    let _relay = Running::start(socket, Bundle::parse(&file).unwrap(), time, 8);
    let named = |mac: &str| {
        let args = ["host", "add", "wiki", "--site", "2", "--mac", mac, "--json"];
        let output = computer.run(&args);
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
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
    computer.json(&["network", "create", "home"]);
    computer.json(&[
        "bundle",
        "--name",
        "relay1",
        "--role",
        "relay",
        "--role",
        "directory",
        "--admit",
        "--endpoint",
        &address.to_string(),
        "-o",
        "relay1.bundle",
    ]);
    let file = std::fs::read_to_string(computer.file("relay1.bundle")).unwrap();
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let time = UnixTime::from_secs(time.as_secs());
    let relay = Running::start(socket, Bundle::parse(&file).unwrap(), time, 4);
    let online = |args: &[&str]| {
        let output = computer.run(&[args, &["--json"]].concat());
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let added = online(&[
        "host",
        "add",
        "wiki",
        "--site",
        "2",
        "--mac",
        "02:00:00:00:00:01",
    ]);
    assert_eq!(added["publish"]["pending"], 0, "{added}");
    assert_eq!(added["publish"]["directory"], address.to_string());
    assert_eq!(computer.json(&["members"])["members"][0]["name"], "relay1");
    let mut again = (0..20).map(|_| online(&["sync"]));
    assert!(again.any(|again| again["fetched"] == 0));
    drop(again);
    assert_eq!(online(&["publish"])["published"], 0);
    assert_eq!(online(&["doctor"])["healthy"], true);
    // With the directory gone the change is made, and said to wait.
    drop(relay);
    let added = online(&[
        "host",
        "add",
        "www",
        "--site",
        "2",
        "--mac",
        "02:00:00:00:00:02",
    ]);
    assert_eq!(added["publish"]["pending"], 1, "{added}");
    assert!(
        added["notes"][0]
            .as_str()
            .unwrap()
            .contains("wait to be published"),
        "{added}"
    );
    // Revoking the relay takes its key to countersign with it.
    let gone = computer.json(&["revoke", "relay1"]);
    assert_eq!(gone["revoked"][0], "relay1");
    assert_eq!(gone["issuers"].as_array().unwrap().len(), 1);
    assert_eq!(gone["has_relay"], false);
}
