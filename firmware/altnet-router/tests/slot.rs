//! A box made of files whose router looks after the slot that runs, on what a machine found.

#[path = "../../altnet-update/tests/common/mod.rs"]
mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use altnet_router::board::Ports;
use altnet_router::config::File;
use altnet_router::hands::look::{Found, Look};
use altnet_router::hands::slot::Keeper;
use altnet_router::machine::kept::Kept;
use altnet_router::machine::told::{Lease4, News, Told};
use altnet_router::machine::{LinkFact, Machine, Setting, Surroundings};
use altnet_update::appliance::{Appliance, Calendar};
use altnet_update::choice::{Choice, Slot};
use altnet_update::confirm::Limits;
use altnet_update::state::{Ended, Working};
use common::{House, NOW, bundle};

const BEFORE: Working = Working {
    wan: true,
    dns: true,
    private: false,
    lan: true,
};

/// Held while a test runs: a child that another one begins has this one's lock for a moment, until it is its own program.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A router whose WAN has a cable, and a lease if somebody gives one.
fn router(has_cable: bool, has_lease: bool) -> Machine {
    let ports = Ports {
        wan: Some("wan".into()),
        lan: vec!["lan1".into()],
        radios: Vec::new(),
    };
    let house = File::house(Path::new("altnet.toml"), "[router]\n", &ports);
    let setting = Setting {
        house: house.unwrap().unwrap(),
        passwords: Default::default(),
        holds_password: false,
    };
    let mut machine = Machine::new(setting, Kept::default(), Surroundings::default(), s(1));
    let links = ["wan", "lan1", "br-lan"].map(|name| LinkFact {
        name: name.into(),
        is_up: true,
        has_carrier: name != "wan" || has_cable,
        bridge: 0,
    });
    machine.handle_links(links.into(), s(1));
    if has_lease {
        let lease = Lease4 {
            net: "198.51.100.7/24".parse().unwrap(),
            gateway: Some([198, 51, 100, 1].into()),
            resolvers: Vec::new(),
            lasts_s: None,
        };
        let told = Told {
            interface: "wan".into(),
            news: News::Ipv4(Some(lease)),
        };
        machine.handle_told(told, s(1));
    }
    machine
}

/// What is found by that router, with names as `dns` says.
fn look(machine: &Machine, dns: Found) -> Look {
    let known = machine.known();
    Look {
        wan: known.wan.into(),
        dns,
        private: Found::Here,
        lan: known.lan.into(),
        calendar: None,
    }
}

/// Writes a program, by another one: a file that this process had open for writing can't be run while a child that
/// was begun meanwhile still has it.
fn put_program(path: &Path, script: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let write = "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"";
    let mut command = Command::new("sh");
    command.args(["-c", write, "sh", script]).arg(path);
    assert!(command.status().unwrap().success());
}

/// The program that boots the box again notes that it was called.
fn put_reboot(house: &House) {
    let note = house.path("rebooted");
    let script = format!("#!/bin/sh\necho >>{}\n", note.display());
    put_program(&house.path("sbin/reboot"), &script);
}

/// A box into which a release was installed in which all worked.
fn installed() -> House {
    let house = House::new("u-boot");
    let (_, appliance) = house.boot();
    let file = house.put("bundle", &bundle(2, &[1, 2], |_| ()));
    let calendar = Calendar {
        now: Some(NOW),
        ..Calendar::default()
    };
    appliance
        .install(&file, calendar, BEFORE, &mut |_| ())
        .unwrap();
    put_reboot(&house);
    house
}

fn keeper(house: &House) -> (Appliance, Keeper) {
    let (_, appliance) = house.boot();
    (
        appliance,
        Keeper::new(&house.path(""), Limits::HOUSE, s(20)),
    )
}

/// Goes on until a time, or until the box was told to boot again; returns when.
fn live(house: &House, keeper: &mut Keeper, look: &Look, until: Duration) -> Duration {
    let mut now = s(20);
    while let Some(at) = keeper.deadline().filter(|at| *at <= until) {
        now = now.max(at);
        if keeper.handle_timeout(now) {
            keeper.handle_facts(look.facts(), now + Duration::from_millis(50));
        }
        if house.path("rebooted").exists() {
            fs::remove_file(house.path("rebooted")).unwrap();
            return now;
        }
    }
    now
}

fn ended(appliance: &Appliance) -> Option<Ended> {
    let state = appliance.status().unwrap().state;
    assert_eq!(state.pending.is_some(), state.last.is_none());
    state.last.map(|last| last.ended)
}

#[test]
fn what_works_as_before_is_confirmed_after_a_minute_and_nothing_is_asked_then() {
    let _alone = alone();
    let house = installed();
    let (appliance, mut keeper) = keeper(&house);
    assert_eq!(appliance.running(), Slot::B);
    let look = look(&router(true, true), Found::Works);
    let last = live(&house, &mut keeper, &look, s(1000));
    assert_eq!(ended(&appliance), Some(Ended::Confirmed));
    assert!(s(80) <= last && last <= s(110), "{last:?}");
    assert_eq!(keeper.deadline(), None);
    assert_eq!(house.choice(), Choice::new(Slot::B, 3, 3));
}

#[test]
fn names_that_are_not_resolved_any_more_bring_the_slot_before_back() {
    let _alone = alone();
    let house = installed();
    let (appliance, mut first) = keeper(&house);
    let look = look(&router(true, true), Found::Here);
    let when = live(&house, &mut first, &look, s(2000));
    assert!(s(500) <= when && when <= s(700), "{when:?}");
    assert!(matches!(ended(&appliance), Some(Ended::DidNotWork { .. })));
    let (appliance, mut second) = keeper(&house);
    assert_eq!(appliance.running(), Slot::A);
    live(&house, &mut second, &look, s(2000));
    assert_eq!(house.choice(), Choice::new(Slot::A, 3, 0));
}

#[test]
fn a_cable_that_is_not_plugged_in_costs_nothing_for_an_hour_and_then_the_slot_before_is_asked() {
    let _alone = alone();
    for out in [router(false, false), router(true, false)] {
        let house = installed();
        let (_, mut first) = keeper(&house);
        // Names can't be resolved then either.
        let dark = look(&out, Found::Here);
        let when = live(&house, &mut first, &dark, s(9000));
        assert!(s(3600) <= when && when <= s(3700), "{when:?}");
        let (appliance, mut second) = keeper(&house);
        assert_eq!((appliance.running(), ended(&appliance)), (Slot::A, None));
        live(&house, &mut second, &dark, s(1000));
        // It is over, and the new one is tried again.
        let works = look(&router(true, true), Found::Works);
        live(&house, &mut second, &works, s(2000));
        let (appliance, mut third) = keeper(&house);
        assert_eq!(appliance.running(), Slot::B);
        live(&house, &mut third, &works, s(1000));
        assert_eq!(ended(&appliance), Some(Ended::Confirmed));
    }
}

#[test]
fn a_router_that_cannot_boot_again_tries_until_it_does() {
    let _alone = alone();
    let house = installed();
    let (_, mut keeper) = keeper(&house);
    fs::remove_file(house.path("sbin/reboot")).unwrap();
    let look = look(&router(true, true), Found::Here);
    live(&house, &mut keeper, &look, s(700));
    assert!(keeper.deadline().is_some_and(|at| at > s(700)));
    put_reboot(&house);
    let when = live(&house, &mut keeper, &look, s(900));
    assert!(s(700) < when && when < s(720), "{when:?}");
}

#[test]
fn while_something_is_installed_the_watch_waits() {
    let _alone = alone();
    let house = installed();
    let (appliance, mut keeper) = keeper(&house);
    let lock = fs::File::create(house.path("run/altnet/update.lock")).unwrap();
    lock.lock().unwrap();
    let look = look(&router(true, true), Found::Works);
    live(&house, &mut keeper, &look, s(200));
    assert_eq!(ended(&appliance), None);
    lock.unlock().unwrap();
    live(&house, &mut keeper, &look, s(400));
    assert_eq!(ended(&appliance), Some(Ended::Confirmed));
}

#[test]
fn a_machine_without_slots_has_nothing_to_look_after() {
    let _alone = alone();
    let home = tempfile::tempdir().unwrap();
    let keeper = Keeper::new(home.path(), Limits::HOUSE, s(1));
    assert_eq!(keeper.deadline(), None);
}
