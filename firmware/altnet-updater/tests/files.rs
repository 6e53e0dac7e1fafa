//! The program on a box made of files: what is installed, what is refused, and the ways there and back.

mod support;

use std::fs;

use altnet_update::appliance::Watch;
use altnet_update::choice::{Choice, Slot};
use altnet_update::confirm::{Facts, Finding, Limits};
use altnet_update::manifest::Manifest;
use altnet_wire::time::{Instant, UnixTime};
use support::{Done, House, SLOT_BYTES, alone, current, key, now, put_reboot, run, run_with, slot};

/// Runs the slot that was booted for two minutes in which everything works.
fn works(house: &House) {
    let (_, appliance) = house.boot();
    let at = |second: u64| Instant::from_micros(second * 1_000_000);
    let (mut watch, _) = Watch::begin(appliance, Limits::HOUSE, at(9)).unwrap();
    let works = Finding::Works;
    for second in (10..130).step_by(10) {
        let facts = Facts {
            wan: works,
            dns: works,
            private: works,
            lan: works,
        };
        watch.handle_facts(facts, at(second)).unwrap();
    }
}

fn install(house: &House, bundle: &[u8], words: &[&str]) -> Done {
    let file = house.put("bundle", bundle);
    let mut all = vec!["install", file.to_str().unwrap()];
    all.extend(words);
    run(house, &all)
}

#[test]
fn a_release_is_installed_booted_confirmed_and_gone_back_from() {
    let _alone = alone();
    let house = House::new("u-boot");
    works(&house);
    let status = run(&house, &["--json", "status"]).json();
    assert_eq!(status["slot"], "A");
    assert_eq!(
        (&status["version"], &status["has_way_back"]),
        (&"0.1.0".into(), &false.into())
    );
    assert!(status["pending"].is_null() && status["last"].is_null());

    let done = install(&house, &current(2, &[1, 3], |_| ()), &[]);
    assert!(done.is_good, "{}", done.err);
    assert!(
        done.out.contains("0.2.0 is in slot B") && done.out.contains("by: reboot"),
        "{}",
        done.out
    );
    assert!(
        done.err.contains("what works now is not known"),
        "{}",
        done.err
    );
    assert!(done.err.contains("100 %"), "{}", done.err);
    assert!(fs::read(house.path("dev/altnet/slot-b")).unwrap() == slot(2));

    let status = run(&house, &["--json", "status"]).json();
    assert_eq!(
        (&status["slot"], &status["next"]),
        (&"A".into(), &"B".into())
    );
    assert_eq!(status["pending"]["phase"], "boot");
    house.boot();
    let status = run(&house, &["status"]);
    assert!(
        status
            .out
            .contains("0.2.0 in slot B runs, and isn't known to be good"),
        "{}",
        status.out
    );
    // It is the way back that an installation would write over.
    let refused = install(&house, &current(3, &[1, 3], |m| m.counter = 3), &[]);
    assert!(
        !refused.is_good && refused.err.contains("isn't confirmed yet"),
        "{}",
        refused.err
    );

    works(&house);
    let status = run(&house, &["--json", "status"]).json();
    assert_eq!(
        (&status["last"]["ended"], &status["floor"]),
        (&"confirmed".into(), &2.into())
    );
    assert_eq!(house.choice(), Choice::new(Slot::B, 3, 3));

    let back = run(&house, &["rollback"]);
    assert!(
        back.is_good && back.out.contains("Slot A is booted next"),
        "{}",
        back.err
    );
    assert_eq!(house.boot().0, Slot::A);
    // Below the floor that the confirmed one raised.
    let refused = install(
        &house,
        &current(1, &[1, 3], |m| (m.counter, m.floor) = (1, 1)),
        &[],
    );
    assert!(
        !refused.is_good && refused.err.contains("releases below 2 are refused"),
        "{}",
        refused.err
    );
}

#[test]
fn what_is_not_for_this_box_is_refused_with_what_to_do_and_costs_nothing() {
    let _alone = alone();
    let house = House::new("grub");
    works(&house);
    let good = current(2, &[1, 2], |_| ());
    let with = |change: &dyn Fn(&mut Manifest)| current(2, &[1, 2], change);
    let mut damaged = good.clone();
    let last = damaged.len() - 3;
    damaged[last] ^= 1;
    let mut forged = good.clone();
    // Of the first key: behind the manifest, how many there are, and the key itself (`bundle`).
    let manifest = u32::from_le_bytes(good[9..13].try_into().unwrap()) as usize;
    forged[13 + manifest + 1 + 32] ^= 1;
    let cases: [(Vec<u8>, &str, &str); 10] = [
        (
            forged,
            "1 of the 2 signatures",
            "Get the bundle from where releases come from",
        ),
        (
            current(2, &[1], |_| ()),
            "1 of the 2 signatures",
            "Get the bundle from",
        ),
        (
            current(2, &[1, 9], |_| ()),
            "not known here is",
            "install the release that brings them",
        ),
        (
            with(&|m| m.board = "x86-64".parse().unwrap()),
            "for the board x86-64, and this is rpi",
            "for this box",
        ),
        (
            with(&|m| (m.counter, m.floor) = (0, 0)),
            "releases below 1 are refused",
            "newer release",
        ),
        (
            with(&|m| {
                (m.made, m.not_after) = (UnixTime::EPOCH, UnixTime::from_secs(now().as_secs() - 9))
            }),
            "it counts until",
            "Get the newest release",
        ),
        (
            good[..good.len() - 1].to_vec(),
            "it ends in frame 2 of 2",
            "compare its size",
        ),
        (
            good[..40].to_vec(),
            "it ends in its head",
            "compare its size",
        ),
        (damaged, "frame 2 of 2 is damaged", "compare its size"),
        (
            b"PK\x03\x04 something else".to_vec(),
            "it is no bundle",
            "Get it again",
        ),
    ];
    let before = house.choice();
    for (bundle, why, next) in cases {
        let refused = install(&house, &bundle, &["--json"]);
        assert!(!refused.is_good);
        let error = refused.json();
        let said = error["error"]["message"].as_str().unwrap();
        assert!(
            said.contains(why) && refused.err.contains(next),
            "{}",
            refused.err
        );
        assert_eq!(house.choice(), before);
        assert!(!house.path("data/etc/update.state").exists());
        assert!(fs::read(house.path("dev/altnet/slot-b")).unwrap() == vec![0; SLOT_BYTES]);
    }
    let absent = run(&house, &["install", "/nonexistent/bundle"]);
    assert!(
        !absent.is_good && absent.err.contains("/nonexistent/bundle"),
        "{}",
        absent.err
    );
}

#[test]
fn a_slot_that_is_too_small_is_left_as_it_is() {
    let _alone = alone();
    let house = House::new("u-boot");
    works(&house);
    house.put("dev/altnet/slot-b", &vec![7; SLOT_BYTES - 512]);
    let refused = install(&house, &current(2, &[1, 2], |_| ()), &[]);
    assert!(!refused.is_good);
    assert!(
        refused.err.contains("has room for") && refused.err.contains("flash a new image"),
        "{}",
        refused.err
    );
    assert!(fs::read(house.path("dev/altnet/slot-b")).unwrap() == vec![7; SLOT_BYTES - 512]);
}

#[test]
fn a_stream_is_installed_and_one_that_breaks_off_costs_the_way_back_alone() {
    let _alone = alone();
    let house = House::new("u-boot");
    works(&house);
    let good = current(2, &[1, 2], |_| ());
    let broken = run_with(&house, &["install", "-"], &good[..good.len() - 9]);
    assert!(
        !broken.is_good && broken.err.contains("ends in frame 2 of 2"),
        "{}",
        broken.err
    );
    let status = run(&house, &["--json", "status"]).json();
    assert_eq!(
        (&status["writing"], &status["next"]),
        (&"B".into(), &"A".into())
    );
    assert!(
        status["expected"]
            .as_str()
            .unwrap()
            .contains("install again")
    );
    let refused = run(&house, &["rollback"]);
    assert!(
        !refused.is_good && refused.err.contains("holds no release"),
        "{}",
        refused.err
    );
    assert!(run_with(&house, &["install", "-"], &good).is_good);
    assert_eq!(house.boot().0, Slot::B);
}

#[test]
fn it_boots_again_only_when_told_to() {
    let _alone = alone();
    let house = House::new("u-boot");
    works(&house);
    let good = current(2, &[1, 2], |_| ());
    let done = install(&house, &good, &["--reboot"]);
    assert!(
        !done.is_good && done.err.contains("sbin/reboot"),
        "{}",
        done.err
    );
    put_reboot(&house);
    for words in [&[][..], &["--no-reboot"]] {
        assert!(install(&house, &good, words).is_good);
        assert!(!house.path("rebooted").exists());
    }
    assert!(install(&house, &good, &["--json", "--reboot"]).is_good);
    assert!(house.path("rebooted").exists());
    let both = install(&house, &good, &["--reboot", "--no-reboot"]);
    assert!(
        !both.is_good && both.err.contains("cannot be used with"),
        "{}",
        both.err
    );
}

#[test]
fn a_person_confirms_what_waits_and_nothing_else() {
    let _alone = alone();
    let house = House::new("grub");
    works(&house);
    let refused = run(&house, &["confirm"]);
    assert!(
        !refused.is_good && refused.err.contains("doesn't wait"),
        "{}",
        refused.err
    );
    assert!(install(&house, &current(2, &[1, 2], |_| ()), &[]).is_good);
    house.boot();
    let done = run(&house, &["--json", "confirm"]);
    assert_eq!(done.json()["ended"], "confirmed-by-hand");
}

#[test]
fn the_owners_keys_are_enough_where_the_owner_says_so() {
    let _alone = alone();
    let house = House::new("u-boot");
    works(&house);
    let own = current(2, &[8], |_| ());
    assert!(!install(&house, &own, &[]).is_good);
    house.put(
        "data/etc/release-keys",
        format!("rule adds\nthreshold 1\nkey {}\n", key(8)).as_bytes(),
    );
    assert!(install(&house, &own, &[]).is_good);
}

#[test]
fn while_somebody_installs_nobody_else_does() {
    let _alone = alone();
    let house = House::new("u-boot");
    works(&house);
    let lock = fs::File::create(house.path("run/altnet/update.lock")).unwrap();
    lock.lock().unwrap();
    let busy = install(&house, &current(2, &[1, 2], |_| ()), &[]);
    assert!(
        !busy.is_good && busy.err.contains("another update is under way"),
        "{}",
        busy.err
    );
    assert!(run(&house, &["status"]).is_good);
}

#[test]
fn a_machine_that_is_no_appliance_is_told_so() {
    let _alone = alone();
    let house = House::new("u-boot");
    fs::remove_dir_all(house.path("run")).unwrap();
    for words in [
        &["status"][..],
        &["check"],
        &["install", "x"],
        &["rollback"],
    ] {
        let refused = run(&house, words);
        assert!(!refused.is_good);
        assert!(
            refused.err.contains("not an altnet appliance")
                && refused.err.contains("by packages on OpenWrt"),
            "{}",
            refused.err
        );
    }
}
