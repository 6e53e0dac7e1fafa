//! A box made of files in rescue, and what computers on its LAN do with it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use altnet_update::appliance::Calendar;
use altnet_update::choice::{Choice, Slot};
use altnet_update::manifest::Manifest;
use altnet_update::state::Working;
use altnet_wire::time::UnixTime;
use serde_json::Value;

#[path = "../../altnet-update/tests/common/mod.rs"]
mod common;

use common::{House, bundle, slot};

const PATIENCE: Duration = Duration::from_secs(60);

/// `altnet-rescue serve` for a box.
struct Rescue {
    child: Child,
    at: SocketAddr,
}

impl Rescue {
    fn begin(house: &House, words: &[&str]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = free.local_addr().unwrap();
        drop(free);
        let child = Command::new(env!("CARGO_BIN_EXE_altnet-rescue"))
            .args(words)
            .args(["--why", "neither <slot> boots", "--listen", &at.to_string()])
            .arg("--root")
            .arg(house.path(""))
            .spawn()
            .unwrap();
        let rescue = Self { child, at };
        let began = Instant::now();
        while TcpStream::connect(at).is_err() {
            assert!(began.elapsed() < PATIENCE, "nobody listens");
            std::thread::sleep(Duration::from_millis(20));
        }
        rescue
    }

    /// Sends this, and nothing more; what comes back.
    fn say(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        said
    }

    fn put(&self, bundle: &[u8]) -> String {
        let len = bundle.len();
        let head = format!("PUT /bundle HTTP/1.1\r\nHost: box\r\nContent-Length: {len}\r\n\r\n");
        self.say(&[head.as_bytes(), bundle].concat())
    }

    fn status(&self) -> Value {
        let said = self.say(b"GET /status HTTP/1.1\r\nHost: box\r\n\r\n");
        let (_, body) = said.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    fn ends(mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it doesn't end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Rescue {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A bundle that hasn't expired by this machine's clock.
fn current(fill: u8, signers: &[u8]) -> Vec<u8> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = since.as_secs().max(1_795_000_000);
    bundle(fill, signers, |manifest: &mut Manifest| {
        manifest.made = UnixTime::from_secs(now);
        manifest.not_after = UnixTime::from_secs(now + 1_000_000);
    })
}

fn slot_b(house: &House) -> Vec<u8> {
    fs::read(house.path("dev/altnet/slot-b")).unwrap()
}

#[test]
fn the_page_says_what_is_wrong() {
    let house = House::new("u-boot");
    let rescue = Rescue::begin(&house, &["serve"]);
    let page = rescue.say(b"GET / HTTP/1.1\r\nHost: box\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("neither &lt;slot&gt; boots"), "{page}");
    assert!(page.contains("Board rpi, release 0.1.0, slot A."), "{page}");
    let status = rescue.status();
    assert_eq!(status["state"], "rescue");
    assert_eq!(status["why"], "neither <slot> boots");
    for (asked, answer) in [
        (&b"GET /data/etc HTTP/1.1\r\n\r\n"[..], "HTTP/1.1 404"),
        (b"PUT / HTTP/1.1\r\n\r\n", "HTTP/1.1 405"),
        (b"PUT /bundle HTTP/1.1\r\n\r\n", "HTTP/1.1 411"),
        (b"\x16\x03\x01\x00\x00\r\n\r\n", "HTTP/1.1 400"),
    ] {
        let said = rescue.say(asked);
        assert!(said.starts_with(answer), "{said}");
    }
}

#[test]
fn a_release_that_is_signed_is_installed_and_booted_next() {
    let house = House::new("u-boot");
    let rescue = Rescue::begin(&house, &["serve"]);
    let said = rescue.put(&current(7, &[1, 2]));
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
    assert!(said.contains("release 0.2.0 is in slot B"), "{said}");
    assert!(rescue.ends().success());
    assert!(slot_b(&house).starts_with(&slot(7)));
    assert_eq!(house.choice(), Choice::new(Slot::B, 3, 3));
}

#[test]
fn a_browsers_form_brings_a_release_too() {
    let house = House::new("grub");
    let rescue = Rescue::begin(&house, &["serve"]);
    let begin = b"--x7\r\nContent-Disposition: form-data; name=\"bundle\"; filename=\"a\"\r\nContent-Type: application/octet-stream\r\n\r\n";
    let body = [&begin[..], &current(7, &[2, 3]), b"\r\n--x7--\r\n"].concat();
    let head = format!(
        "POST / HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x7\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let said = rescue.say(&[head.as_bytes(), &body].concat());
    assert!(
        said.contains("<b>release 0.2.0 is in slot B. It boots now.</b>"),
        "{said}"
    );
    assert!(rescue.ends().success());
    assert!(slot_b(&house).starts_with(&slot(7)));
}

#[test]
fn what_is_not_signed_enough_is_refused_and_changes_nothing() {
    let house = House::new("u-boot");
    let rescue = Rescue::begin(&house, &["serve"]);
    let (before, choice) = (slot_b(&house), house.choice());
    let mut damaged = current(7, &[1, 2]);
    let middle = damaged.len() - 100;
    damaged[30] ^= 1;
    for bad in [
        current(7, &[1]),
        current(7, &[1, 9]),
        damaged.clone(),
        b"ALTNETUP".to_vec(),
        vec![0; middle],
    ] {
        let said = rescue.put(&bad);
        assert!(said.starts_with("HTTP/1.1 422 "), "{said}");
        assert!(said.contains("\"hint\""), "{said}");
    }
    assert_eq!((slot_b(&house), house.choice()), (before, choice));
    // And it still takes a good one.
    assert!(rescue.put(&current(7, &[1, 2])).contains("is in slot B"));
    assert!(rescue.ends().success());
}

#[test]
fn a_transfer_that_breaks_off_leaves_the_running_slot_and_can_be_made_again() {
    let house = House::new("u-boot");
    let rescue = Rescue::begin(&house, &["serve"]);
    let made = current(7, &[1, 2]);
    let head = format!(
        "PUT /bundle HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
        made.len()
    );
    // Whole in its first piece, cut off in the second.
    let cut = made.len() - 10;
    let said = rescue.say(&[head.as_bytes(), &made[..cut]].concat());
    assert!(said.starts_with("HTTP/1.1 422 "), "{said}");
    assert_eq!(house.choice().begun().0, Slot::A);
    assert!(rescue.put(&made).contains("is in slot B"));
    assert!(rescue.ends().success());
    assert_eq!(house.choice().begun().0, Slot::B);
}

#[test]
fn a_slot_that_was_never_confirmed_can_be_rescued_from() {
    let house = House::new("u-boot");
    let file = house.put("bundle", &current(7, &[1, 2]));
    let calendar = Calendar::default();
    let before = Working::default();
    house
        .open()
        .install(&file, calendar, before, &mut |_| ())
        .unwrap();
    let (booted, _) = house.boot();
    assert_eq!(booted, Slot::B);
    assert_eq!(house.choice().tries(Slot::B), 2);
    let rescue = Rescue::begin(&house, &["serve", "--asked-for"]);
    assert_eq!(house.choice().tries(Slot::B), 3, "a person asked for it");
    assert!(rescue.put(&current(9, &[1, 2])).contains("is in slot A"));
    assert!(rescue.ends().success());
    let (booted, appliance) = house.boot();
    assert_eq!(booted, Slot::A);
    let pending = appliance.status().unwrap().state.pending.unwrap();
    assert_eq!(pending.target, Slot::A);
}

#[test]
fn more_than_it_serves_at_once_are_told_to_come_back() {
    let house = House::new("u-boot");
    let rescue = Rescue::begin(&house, &["serve"]);
    let mut slow = Vec::new();
    let refused = (0..20).find_map(|_| {
        let mut stream = TcpStream::connect(rescue.at).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        slow.push(stream);
        (!said.is_empty()).then_some(said)
    });
    assert!(refused.unwrap().starts_with("HTTP/1.1 503 "));
    assert!(slow.len() >= 8, "{}", slow.len());
    drop(slow);
    let began = Instant::now();
    while !rescue
        .say(b"GET / HTTP/1.1\r\n\r\n")
        .starts_with("HTTP/1.1 200")
    {
        assert!(began.elapsed() < PATIENCE);
    }
}

#[test]
fn a_box_that_serves_its_house_takes_nothing() {
    let house = House::new("u-boot");
    let rescue = Rescue::begin(&house, &["notice"]);
    let page = rescue.say(b"GET / HTTP/1.1\r\nHost: box\r\n\r\n");
    assert!(
        page.contains("It serves the house meanwhile") && !page.contains("<form"),
        "{page}"
    );
    assert_eq!(rescue.status()["state"], "serving");
    let before = slot_b(&house);
    assert!(
        rescue
            .put(&current(7, &[1, 2]))
            .starts_with("HTTP/1.1 422 ")
    );
    assert_eq!(slot_b(&house), before);
}
