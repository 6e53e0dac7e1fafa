//! A box from the installation of a release to its confirmation, or back; and what it refuses.

mod common;

use std::fs;
use std::path::Path;

use altnet_update::appliance::{Appliance, Calendar, Error, Watch};
use altnet_update::choice::{Choice, Slot};
use altnet_update::confirm::{Event, Facts, Finding, Limits};
use altnet_update::manifest::Manifest;
use altnet_update::state::{Ended, Working};
use altnet_update::verdict::Refusal;
use altnet_wire::time::{Duration, Instant, UnixTime};

use common::{House, NOW, bundle, key, slot};

const BEFORE: Working = Working {
    wan: true,
    dns: true,
    private: true,
    lan: true,
};

const CALENDAR: Calendar = Calendar {
    now: Some(NOW),
    floor: UnixTime::EPOCH,
};

fn install(house: &House, appliance: &Appliance, bundle: &[u8]) -> Result<(), Error> {
    let file = house.put("bundle", bundle);
    let done = appliance.install(&file, CALENDAR, BEFORE, &mut |_| ());
    done.map(|release| assert_eq!(release.version.as_str(), "0.2.0"))
}

fn at(second: u64) -> Instant {
    Instant::from_micros(second * 1_000_000)
}

/// Runs a slot for ten minutes; whether it wants to boot again, and what it told.
fn run(appliance: &Appliance, finding: Finding) -> (bool, Vec<Event>) {
    let (mut watch, heard) = Watch::begin(appliance.clone(), Limits::HOUSE, at(9)).unwrap();
    let (mut events, mut reboot) = (heard.events, heard.reboot);
    let mut deadline = heard.deadline;
    let facts = Facts {
        wan: finding,
        dns: finding,
        private: finding,
        lan: finding,
    };
    for second in (10..700).step_by(10) {
        if reboot || deadline.is_none() {
            break;
        }
        assert!(deadline.unwrap() <= at(second).after(Duration::from_secs(10)));
        let heard = watch.handle_facts(facts, at(second)).unwrap();
        assert!(heard.unkept.is_none());
        events.extend(heard.events);
        (reboot, deadline) = (heard.reboot, heard.deadline);
    }
    (reboot, events)
}

fn ended(events: &[Event]) -> Option<Ended> {
    events.iter().find_map(|event| match event {
        Event::Ended(outcome) => Some(outcome.ended),
        _ => None,
    })
}

#[test]
fn a_release_is_installed_booted_and_confirmed() {
    for boot in ["u-boot", "grub"] {
        let house = House::new(boot);
        let (slot_a, appliance) = house.boot();
        assert_eq!(slot_a, Slot::A);
        assert_eq!(run(&appliance, Finding::Works), (false, vec![]));
        assert!(!appliance.status().unwrap().has_way_back);
        install(&house, &appliance, &bundle(2, &[1, 3], |_| ())).unwrap();
        assert_eq!(fs::read(house.path("dev/altnet/slot-b")).unwrap(), slot(2));
        let status = appliance.status().unwrap();
        assert_eq!((status.next, status.floor), (Slot::B, 1));
        let (slot_b, appliance) = house.boot();
        assert_eq!(slot_b, Slot::B);
        let (reboot, events) = run(&appliance, Finding::Works);
        assert_eq!((reboot, ended(&events)), (false, Some(Ended::Confirmed)));
        let status = appliance.status().unwrap();
        assert_eq!(status.state.floor, 2);
        assert_eq!(status.state.validity_floor, NOW);
        assert!(status.has_way_back && status.damage.is_none());
        assert_eq!(house.choice(), Choice::new(Slot::B, 3, 3));
    }
}

#[test]
fn a_release_in_which_nothing_works_is_left_for_the_one_before() {
    let house = House::new("grub");
    let (_, appliance) = house.boot();
    install(&house, &appliance, &bundle(2, &[1, 2], |_| ())).unwrap();
    let (_, appliance) = house.boot();
    let (reboot, events) = run(&appliance, Finding::Here);
    assert!(reboot && matches!(ended(&events), Some(Ended::DidNotWork { .. })));
    let (slot, appliance) = house.boot();
    assert_eq!(slot, Slot::A);
    assert_eq!(run(&appliance, Finding::Works), (false, vec![]));
    assert_eq!(appliance.status().unwrap().state.floor, 0);
}

#[test]
fn what_is_not_for_this_box_is_refused_and_costs_nothing() {
    let house = House::new("u-boot");
    let (_, appliance) = house.boot();
    let good = bundle(2, &[1, 2], |_| ());
    let label = |text: &str| text.parse().unwrap();
    let with = |change: &dyn Fn(&mut Manifest)| bundle(2, &[1, 2], change);
    let refusals: [(Vec<u8>, &str); 7] = [
        (bundle(2, &[1], |_| ()), "1 of the 2 signatures"),
        (bundle(2, &[1, 9], |_| ()), "not known here"),
        (
            with(&|m| m.board = label("x86-64")),
            "is for the board x86-64, and this is rpi",
        ),
        (
            with(&|m| (m.counter, m.floor) = (0, 0)),
            "releases below 1 are refused",
        ),
        (
            with(&|m| {
                m.made = UnixTime::EPOCH;
                m.not_after = UnixTime::from_secs(NOW.as_secs() - 1);
            }),
            "it counts until",
        ),
        (good[..good.len() - 1].to_vec(), "it ends in frame 2 of 2"),
        (vec![], "it ends in its head"),
    ];
    let before = house.choice();
    for (bad, why) in refusals {
        let refused = install(&house, &appliance, &bad).unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
        assert!(!refused.next_step().is_empty());
        assert_eq!(house.choice(), before);
        assert!(!house.path("data/etc/update.state").exists());
    }
    // One bit, anywhere in the frames.
    let mut bad = good.clone();
    let last = bad.len() - 3;
    bad[last] ^= 4;
    let refused = install(&house, &appliance, &bad).unwrap_err();
    assert!(
        refused.to_string().contains("frame 2 of 2 is damaged"),
        "{refused}"
    );
    let untouched = vec![0; common::SLOT_BYTES];
    assert_eq!(
        fs::read(house.path("dev/altnet/slot-b")).unwrap(),
        untouched
    );
}

#[test]
fn a_data_partition_that_cannot_be_written_is_refused_before_the_slot_is_touched() {
    let house = House::new("u-boot");
    let (_, appliance) = house.boot();
    // Root may write anywhere; a folder in the file's place it can't.
    fs::create_dir(house.path("data/etc/update.new")).unwrap();
    let refused = install(&house, &appliance, &bundle(2, &[1, 2], |_| ())).unwrap_err();
    assert!(matches!(refused, Error::Install(_)), "{refused}");
    assert_eq!(house.choice(), Choice::new(Slot::A, 2, 3));
    let untouched = vec![0; common::SLOT_BYTES];
    assert_eq!(
        fs::read(house.path("dev/altnet/slot-b")).unwrap(),
        untouched
    );
}

#[test]
fn a_person_goes_back_and_a_person_confirms() {
    let house = House::new("grub");
    let (_, appliance) = house.boot();
    let refused = appliance.rollback().unwrap_err();
    assert!(matches!(refused, Error::NoWayBack { slot: Slot::B }));
    let refused = appliance.confirm().unwrap_err();
    assert!(matches!(refused, Error::NothingToConfirm { slot: Slot::A }));
    install(&house, &appliance, &bundle(2, &[1, 2], |_| ())).unwrap();
    let (_, appliance) = house.boot();
    assert_eq!(appliance.rollback().unwrap(), Slot::A);
    let (slot, appliance) = house.boot();
    assert_eq!(slot, Slot::A);
    let last = appliance.status().unwrap().state.last.unwrap();
    assert_eq!((last.slot, last.ended), (Slot::B, Ended::RolledBack));
    assert_eq!(run(&appliance, Finding::Works), (false, vec![]));
    // And again, with another's word.
    install(&house, &appliance, &bundle(3, &[1, 2], |_| ())).unwrap();
    let (_, appliance) = house.boot();
    assert_eq!(appliance.confirm().unwrap().ended, Ended::ConfirmedByHand);
    assert_eq!(appliance.status().unwrap().floor, 2);
}

#[test]
fn a_watch_leaves_it_to_the_next_boot_when_somebody_else_decided() {
    let house = House::new("grub");
    let (_, appliance) = house.boot();
    install(&house, &appliance, &bundle(2, &[1, 2], |_| ())).unwrap();
    let (_, appliance) = house.boot();
    let (mut watch, _) = Watch::begin(appliance.clone(), Limits::HOUSE, at(9)).unwrap();
    appliance.confirm().unwrap();
    let heard = watch.handle_timeout(at(5000)).unwrap();
    assert!(!heard.reboot && heard.deadline.is_none() && heard.events.is_empty());
    assert_eq!(house.choice(), Choice::new(Slot::B, 3, 3));
}

#[test]
fn a_watch_that_begins_again_in_a_boot_leaves_what_waits_for_the_next_one() {
    let house = House::new("u-boot");
    let (_, appliance) = house.boot();
    assert_eq!(run(&appliance, Finding::Works), (false, vec![]));
    install(&house, &appliance, &bundle(2, &[1, 2], |_| ())).unwrap();
    // Whoever ran it was killed, and is there again.
    let (reboot, events) = run(&appliance, Finding::Here);
    assert!(!reboot && events.is_empty(), "{events:?}");
    assert_eq!(house.choice(), Choice::new(Slot::B, 3, 3));
    let (slot, appliance) = house.boot();
    assert_eq!(slot, Slot::B);
    // In the new slot each beginning costs a boot: the tenth leaves it.
    let mut begun = 0;
    let ended = loop {
        begun += 1;
        let (_, heard) = Watch::begin(appliance.clone(), Limits::HOUSE, at(9)).unwrap();
        if heard.reboot {
            break ended(&heard.events);
        }
    };
    assert!(
        matches!(ended, Some(Ended::DidNotWork { .. })) && begun == 10,
        "{begun}"
    );
}

#[test]
fn an_offer_is_judged_by_its_head_alone() {
    let house = House::new("u-boot");
    let (_, appliance) = house.boot();
    let offer = |bundle: &[u8], head_bytes: usize| {
        let head = &bundle[..head_bytes.min(bundle.len())];
        appliance.check(Path::new("offer"), head, CALENDAR)
    };
    let good = bundle(2, &[1, 2], |_| ());
    let frames =
        Manifest::decode(&good[13..13 + usize::from(good[9]) + 256 * usize::from(good[10])])
            .unwrap()
            .packed_bytes() as usize;
    let head_bytes = good.len() - frames;
    let found = offer(&good, head_bytes).unwrap();
    assert!(
        found.is_news() && found.packed_bytes == frames as u64,
        "{found:?}"
    );
    assert!(matches!(
        offer(&good, head_bytes - 1),
        Err(Error::Bundle { .. })
    ));
    let same = offer(
        &bundle(2, &[1, 2], |m| (m.counter, m.floor) = (1, 1)),
        usize::MAX,
    )
    .unwrap();
    assert!(same.verdict.is_ok() && same.order.is_eq() && !same.is_news());
    let old = offer(
        &bundle(2, &[1, 2], |m| (m.counter, m.floor) = (0, 0)),
        usize::MAX,
    )
    .unwrap();
    assert!(old.order.is_lt() && matches!(old.verdict, Err(Refusal::BelowFloor { .. })));
    let forged = offer(&bundle(2, &[1], |_| ()), usize::MAX).unwrap();
    assert!(matches!(forged.verdict, Err(Refusal::Signatures { .. })) && !forged.is_news());
}

#[test]
fn new_release_keys_count_from_the_confirmation_on_also_in_the_slot_from_before() {
    let house = House::new("u-boot");
    let (_, appliance) = house.boot();
    let next = altnet_update::keys::KeySet::new(2, 1, vec![key(7)]).unwrap();
    let brings = bundle(2, &[1, 2], |m| m.keys = Some(next.clone()));
    install(&house, &appliance, &brings).unwrap();
    let (_, appliance) = house.boot();
    run(&appliance, Finding::Works);
    appliance.rollback().unwrap();
    let (slot, appliance) = house.boot();
    assert_eq!(slot, Slot::A);
    let newer = |signers: &[u8]| bundle(3, signers, |m| m.counter = 3);
    let refused = install(&house, &appliance, &newer(&[1, 2])).unwrap_err();
    assert!(matches!(
        refused,
        Error::Refused {
            source: Refusal::Signatures { .. },
            ..
        }
    ));
    install(&house, &appliance, &newer(&[7])).unwrap();
}

#[test]
fn the_owners_keys_count_by_their_rule_and_a_slip_in_them_is_told() {
    let house = House::new("u-boot");
    let (_, appliance) = house.boot();
    let own = bundle(2, &[8], |_| ());
    assert!(install(&house, &appliance, &own).is_err());
    let keys = |text: &str| house.put("data/etc/release-keys", text.as_bytes());
    keys(&format!("threshold 1\nkey {}\n", key(8)));
    let refused = install(&house, &appliance, &own).unwrap_err();
    assert!(matches!(refused, Error::Keys { .. }), "{refused}");
    keys(&format!("rule replaces\nthreshold 1\nkey {}\n", key(8)));
    assert!(install(&house, &appliance, &bundle(2, &[1, 2], |_| ())).is_err());
    // Also where the image pins none.
    fs::remove_file(house.path("etc/altnet/release-keys")).unwrap();
    install(&house, &appliance, &own).unwrap();
    fs::remove_file(house.path("data/etc/release-keys")).unwrap();
    let refused = install(&house, &appliance, &own).unwrap_err();
    assert!(
        refused.to_string().contains("pins no release keys"),
        "{refused}"
    );
}

#[test]
fn a_damaged_state_is_told_and_the_images_floor_counts() {
    let house = House::new("u-boot");
    let (_, appliance) = house.boot();
    house.put("data/etc/update.state", b"what is this");
    let status = appliance.status().unwrap();
    assert!(status.damage.is_some());
    assert_eq!(status.floor, 1);
    install(&house, &appliance, &bundle(2, &[1, 2], |_| ())).unwrap();
    assert!(appliance.status().unwrap().damage.is_none());
}

#[test]
fn only_one_at_a_time_changes_something() {
    let house = House::new("u-boot");
    let (_, appliance) = house.boot();
    let file = fs::File::create(house.path("run/altnet/update.lock")).unwrap();
    file.lock().unwrap();
    assert!(matches!(appliance.rollback(), Err(Error::Busy)));
    assert!(appliance.status().is_ok());
}

#[test]
fn what_is_no_box_says_so() {
    let house = House::new("u-boot");
    fs::remove_file(house.path("run/altnet/slot")).unwrap();
    let places = altnet_update::appliance::Places::under(house.path(""));
    let refused = Appliance::open(places).unwrap_err();
    assert!(matches!(refused, Error::NotAnAppliance { .. }), "{refused}");
}
