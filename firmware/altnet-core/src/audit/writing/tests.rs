use super::super::segment::resume;
use super::super::verify::verify;
use super::testing::{CLOCK, Disk, fact, testify, written};
use super::*;
use crate::records::SigningSecret;
use proptest::prelude::*;
use std::format;

const fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn small() -> Limits {
    Limits::of(Limits::LEAST_BYTES)
}

#[test]
fn what_is_decided_is_written_at_once_and_the_rest_waits_for_company() {
    let mut disk = Disk::default();
    let mut log = disk.open(Limits::ROUTER, at(0));
    let slow = || Fact::new(Kind::MEMBER_CHANGED).about("house-b");
    log.record(slow(), CLOCK, at(0));
    assert_eq!(disk.drain(&mut log, at(0)), (Vec::new(), at(600)));
    log.record(fact(1), CLOCK, at(10));
    let (links, until) = disk.drain(&mut log, at(10));
    assert_eq!((links.len(), until, disk.appends), (2, Instant::NEVER, 1));
    // Alone it waits ten minutes, and a page of it not even that.
    log.record(slow(), CLOCK, at(20));
    assert_eq!(disk.drain(&mut log, at(619)).0.len(), 0);
    assert_eq!(disk.drain(&mut log, at(620)).0.len(), 1);
    for _ in 0..200 {
        log.record(slow(), CLOCK, at(700));
    }
    assert!(disk.drain(&mut log, at(700)).0.len() > 100);
    assert!(verify(disk.segments()).is_ok());
}

#[test]
fn a_flood_of_refusals_costs_few_entries_and_few_writes() {
    let mut disk = Disk::default();
    let mut log = disk.open(Limits::ROUTER, at(0));
    let refused = || Fact::new(Kind::REFUSED).about("strangers").detail("tunnel");
    for second in 0..86_400 {
        log.record(refused().times(10), CLOCK, at(second));
        disk.drain(&mut log, at(second));
    }
    let found = verify(disk.segments()).unwrap();
    assert!(found.entries < 30, "{}", found.entries);
    assert!(disk.appends < 30, "{}", disk.appends);
}

#[test]
fn the_oldest_segment_goes_first_and_the_rest_still_verifies() {
    let mut disk = Disk::default();
    let limits = small();
    let mut log = disk.open(limits, at(0));
    for number in 0..5000 {
        log.record(fact(number), CLOCK, at(number));
        disk.drain(&mut log, at(number));
        assert!(disk.bytes() <= limits.max_bytes as usize);
    }
    let found = verify(disk.segments()).unwrap();
    assert!(found.first > 1 && found.last.sequence == 5000, "{found:?}");
    assert_eq!(found.last, log.end());
    assert!(disk.bytes() > limits.max_bytes as usize / 2);
}

#[test]
fn a_disk_that_does_not_write_costs_entries_and_not_memory() {
    let mut log = Log::new(Limits::ROUTER, [], None, CLOCK, at(0));
    for number in 0..10_000 {
        log.record(fact(number), CLOCK, at(number));
        while let Output::Append { .. } = log.poll_output(at(number)) {
            log.handle_appended(false, at(number));
        }
        assert!(log.waiting.len() <= MAX_WAITING_BYTES);
    }
    let mut disk = Disk::default();
    disk.drain(&mut log, at(20_000));
    log.record(fact(1), CLOCK, at(20_000));
    disk.drain(&mut log, at(20_000));
    let found = verify(disk.segments()).unwrap();
    let last = disk.files.values().next_back().unwrap();
    let lost = super::super::segment::entries(last)
        .find(|(framed, ..)| framed.entry.kind == Kind::LOST)
        .unwrap();
    assert_eq!(lost.0.entry.count + found.entries - 2, 10_000);
}

#[test]
fn an_entry_counts_only_once_it_is_synced() {
    let mut log = Log::new(Limits::ROUTER, [], None, CLOCK, at(0));
    log.record(fact(1), CLOCK, at(0));
    let Output::Append { bytes, .. } = log.poll_output(at(0)) else {
        panic!("it is urgent");
    };
    assert!(matches!(log.poll_output(at(0)), Output::Wait(_)));
    log.handle_appended(false, at(0));
    assert_eq!(log.poll_output(at(0)), Output::Wait(at(5)));
    let again = log.poll_output(at(5));
    assert!(matches!(again, Output::Append { bytes: b, .. } if b == bytes));
    log.handle_appended(true, at(5));
    assert!(matches!(log.poll_output(at(5)), Output::Synced(_)));
    assert!(!log.is_pending());
}

#[test]
fn a_log_that_was_changed_while_nobody_ran_is_left_as_it_is_and_told() {
    let mut disk = Disk {
        files: written(400, 64 << 10).into_iter().collect(),
        ..Disk::default()
    };
    let before = disk.files.clone();
    let (_, bytes) = disk.files.iter_mut().next().unwrap();
    bytes[300] ^= 1;
    let changed = disk.files.clone();
    let mut log = disk.open(Limits::ROUTER, at(0));
    disk.drain(&mut log, at(0));
    assert_eq!(disk.files.len(), before.len() + 1);
    for (at, bytes) in &changed {
        assert_eq!(disk.files.get(at), Some(bytes));
    }
    let fault = verify(disk.segments()).unwrap_err();
    assert!(format!("{fault}").contains("was changed"), "{fault}");
    let (segment, bytes) = disk.files.last_key_value().unwrap();
    assert_eq!(*segment, 401);
    let first = super::super::segment::entries(bytes)
        .next()
        .unwrap()
        .0
        .entry;
    assert_eq!((first.kind, first.sequence), (Kind::BROKEN, 401));
}

/// What another process would find after a power cut: everything synced, and of what was being
/// appended any part.
fn after_power_cut(disk: &Disk, flight: Option<(u64, u32, Vec<u8>)>, seed: u64) -> Disk {
    let mut disk = disk.clone();
    let Some((segment, offset, mut bytes)) = flight else {
        return disk;
    };
    let kept = seed as usize % (bytes.len() + 1);
    match seed >> 32 & 3 {
        0 => bytes.truncate(kept),
        1 => bytes[kept..].fill(0),
        2 => bytes[..kept].fill(0),
        _ => bytes.iter_mut().for_each(|byte| *byte ^= seed as u8 | 1),
    }
    if seed >> 40 & 1 == 0 || offset > 0 {
        disk.write(segment, offset, &bytes);
    }
    disk
}

proptest! {
    /// However often the power goes, what was synced is there, and the log goes on and verifies.
    #[test]
    fn a_power_cut_loses_nothing_that_was_synced(
        rounds in proptest::collection::vec((1u64..60, any::<u64>()), 1..12),
    ) {
        let mut disk = Disk::default();
        let (mut now, mut number, mut synced) = (0, 0, 0);
        for (facts, seed) in rounds {
            let mut log = disk.open(small(), at(now));
            let mut flight = None;
            for _ in 0..facts {
                now += 1;
                number += 1;
                log.record(fact(number), CLOCK, at(now));
                // The last append of the round is cut off.
                if number % 7 != 0 {
                    let (links, _) = disk.drain(&mut log, at(now));
                    synced = links.last().map_or(synced, |link| link.sequence);
                }
            }
            if let Output::Append { segment, offset, bytes } = log.poll_output(at(now)) {
                flight = Some((segment, offset, bytes));
            }
            disk = after_power_cut(&disk, flight, seed);
        }
        let mut log = disk.open(small(), at(now));
        log.record(fact(0), CLOCK, at(now));
        disk.drain(&mut log, at(now));
        let found = verify(disk.segments());
        prop_assert!(found.is_ok(), "{:?}", found);
        prop_assert!(found.unwrap().last.sequence > synced);
    }

    #[test]
    fn a_log_opened_again_goes_on_where_it_was(parts in proptest::collection::vec(0u64..80, 1..6)) {
        let mut disk = Disk::default();
        let mut total = 0;
        for part in parts {
            let mut log = disk.open(small(), at(0));
            prop_assert_eq!(log.end().sequence, total);
            for number in 0..part {
                log.record(fact(number), CLOCK, at(0));
                disk.drain(&mut log, at(0));
            }
            total += part;
            let last = disk.files.values().next_back();
            let tail = last.and_then(|bytes| resume(bytes, &mut |_| {}));
            prop_assert_eq!(tail.map_or(End::default(), |tail| tail.end), log.end());
        }
        prop_assert_eq!(verify(disk.segments()).unwrap().entries, total);
    }
}

/// Thirty days of a home with much going on, and of an internet that knocks all the time.
///
/// Assumed: 20 devices of the house and 12 other members, each of which opens 5 sessions a day;
/// 300,000 refused datagrams a day from strangers, for 6 reasons, without a pause; every other
/// member and 40 machines behind this gateway denied something several times a day; 40 acts of
/// people; a countersignature by three members every hour; and the small things of a network
/// that is kept in order.
#[test]
fn thirty_days_of_a_busy_home_fit_in_eight_megabytes() {
    let mut disk = Disk::default();
    let mut log = disk.open(Limits::ROUTER, at(0));
    let witnesses = [1u8, 2, 3].map(|seed| SigningSecret::from_bytes(&[seed; 32]));
    let reasons = [
        "tunnel",
        "stranger",
        "control",
        "not-ours",
        "relay-token",
        "bad-packet",
    ];
    let mut heap = 0u64;
    for minute in 0..30 * 24 * 60u64 {
        let now = at(minute * 60);
        let day_minute = minute % 1440;
        for reason in reasons {
            // 300,000 a day.
            log.record(
                Fact::new(Kind::REFUSED)
                    .about("strangers")
                    .detail(reason)
                    .times(35),
                CLOCK,
                now,
            );
        }
        if day_minute % 9 == 0 {
            // 160 sessions a day.
            let who = minute / 9 % 32;
            log.record(
                Fact::new(Kind::LOGIN).about(format_args!("member-with-a-long-name-{who}")),
                CLOCK,
                now,
            );
        }
        if day_minute % 7 == 0 {
            let who = minute / 7 % 52;
            let detail = "denied: rule guests-may-not-reach-the-printer";
            log.record(
                Fact::new(Kind::REFUSED)
                    .about(format_args!("machine-{who}"))
                    .detail(detail)
                    .times(20),
                CLOCK,
                now,
            );
        }
        if day_minute % 36 == 0 {
            let detail = "host-add: done";
            log.record(
                Fact::new(Kind::ACT)
                    .about("user 1000 (somebody)")
                    .detail(detail),
                CLOCK,
                now,
            );
        }
        if day_minute % 60 == 0 {
            for witness in &witnesses {
                let fact = testify(&log, witness, log.end().hash);
                log.record(fact, CLOCK, now);
            }
        }
        if day_minute % 240 == 0 {
            log.record(
                Fact::new(Kind::MEMBER_CHANGED).about("house-b 7qwertzuiopasdfghjklyxcvbn"),
                CLOCK,
                now,
            );
            log.record(Fact::new(Kind::HEAD_BEHIND).about("house-b"), CLOCK, now);
        }
        if day_minute == 0 {
            log.record(Fact::new(Kind::CONFIGURED).detail("[[lan]]"), CLOCK, now);
            log.record(
                Fact::new(Kind::POLICY_CHANGED)
                    .about("z".repeat(52))
                    .detail("z".repeat(60)),
                CLOCK,
                now,
            );
            log.record(
                Fact::new(Kind::REVOKED)
                    .about("device of house-x")
                    .detail("stolen"),
                CLOCK,
                now,
            );
        }
        disk.drain(&mut log, now);
        heap = heap.max(log.waiting.len() as u64);
    }
    let found = verify(disk.segments()).unwrap();
    assert_eq!(found.first, 1, "something was given up");
    assert_eq!((found.covers.len(), found.unchecked), (3, 0));
    let (bytes, entries) = (disk.bytes(), log.end().sequence);
    std::println!(
        "{entries} entries, {bytes} bytes, {} appends, {heap} waiting",
        disk.appends
    );
    assert!(bytes < 8 << 20, "{bytes}");
    assert!(disk.appends < 30 * 600, "{}", disk.appends);
}

/// The worst that strangers and members can do to it: another name and reason every second.
#[test]
fn thirty_days_of_noise_push_out_nothing_that_was_decided() {
    let mut disk = Disk::default();
    let mut log = disk.open(Limits::ROUTER, at(0));
    log.record(fact(1), CLOCK, at(0));
    for step in 0..30 * 24 * 60u64 {
        let now = at(step * 60);
        for kind in [
            Kind::REFUSED,
            Kind::LOGIN,
            Kind::NOT_ADMITTED,
            Kind::REWRITTEN,
        ] {
            for other in 0..4 {
                let name =
                    format!("a-name-as-long-as-a-name-may-be-a-name-as-long-as-a-{step}-{other}");
                log.record(
                    Fact::new(kind).about(name).detail("for some reason"),
                    CLOCK,
                    now,
                );
            }
        }
        disk.drain(&mut log, now);
    }
    let found = verify(disk.segments()).unwrap();
    assert_eq!(found.first, 1);
    assert!(
        found.entries <= 2 * (30 * 720 + 48) + 1,
        "{}",
        found.entries
    );
    std::println!("{} entries, {} bytes", found.entries, disk.bytes());
}
