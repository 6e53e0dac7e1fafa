use super::*;
use proptest::prelude::*;

const NOW_S: u64 = 1_800_000_000;
const DAY_S: u64 = 24 * 3600;
const DIRECTORY: &str = "https://ca.test/dir";

fn leaf(from_s: u64, life_s: u64) -> Leaf {
    Leaf {
        names: vec!["a.example".into()],
        not_before_s: from_s,
        not_after_s: from_s + life_s,
        hash: "aa".into(),
        issuer: None,
        ari: None,
    }
}

fn next(plan: &Plan, leaf: Option<&Leaf>, now_s: u64) -> Next {
    let names = ["a.example".to_owned()];
    let wanted = Wanted {
        names: &names,
        directory: DIRECTORY,
    };
    plan.next(wanted, leaf, now_s)
}

fn plan() -> Plan {
    let mut plan = Plan::default();
    plan.got(DIRECTORY, NOW_S - DAY_S);
    plan.heard(
        &leaf(NOW_S, 90 * DAY_S),
        None,
        Duration::from_secs(DAY_S),
        0,
        NOW_S,
    );
    plan
}

/// What is done from `from_s` on, when waiting as told: the first that isn't waiting.
fn acts(plan: &Plan, leaf: &Leaf, from_s: u64) -> (Next, u64) {
    let mut now_s = from_s;
    loop {
        match next(plan, Some(leaf), now_s) {
            Next::Wait(until_s) => {
                assert!(until_s > now_s, "a deadline in the past");
                now_s = until_s;
            }
            act => return (act, now_s),
        }
    }
}

#[test]
fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
    let (mut plan, leaf) = (plan(), leaf(NOW_S, 90 * DAY_S));
    let mut now_s = NOW_S;
    let asked = loop {
        match acts(&plan, &leaf, now_s) {
            (Next::AskWindow, at_s) => {
                plan.heard(&leaf, None, Duration::ZERO, 0, at_s);
                now_s = at_s;
            }
            (_, at_s) => break at_s,
        }
    };
    assert_eq!(asked, NOW_S + 60 * DAY_S);
}

#[test]
fn what_is_not_what_is_wanted_is_got_at_once() {
    let (plan, held) = (plan(), leaf(NOW_S, 90 * DAY_S));
    assert!(matches!(next(&plan, Some(&held), NOW_S), Next::Wait(_)));
    assert_eq!(next(&plan, None, NOW_S), Next::Get);
    let mut other = held.clone();
    other.names.push("b.example".into());
    assert_eq!(next(&plan, Some(&other), NOW_S), Next::Get);
    let staging = Plan {
        directory: "https://staging.test/".into(),
        ..plan.clone()
    };
    assert_eq!(next(&staging, Some(&held), NOW_S), Next::Get);
    assert_eq!(next(&plan, Some(&held), NOW_S + 91 * DAY_S), Next::Get);
}

#[test]
fn the_authority_may_hurry_and_not_delay_beyond_the_end() {
    let (mut plan, leaf) = (plan(), leaf(NOW_S, 90 * DAY_S));
    let again = Duration::from_secs(6 * 3600);
    // RFC 9773 section 4.2: a window that is past says now.
    plan.heard(
        &leaf,
        Some((NOW_S - 2 * DAY_S, NOW_S - DAY_S)),
        again,
        7,
        NOW_S,
    );
    assert_eq!(next(&plan, Some(&leaf), NOW_S), Next::Get);
    plan.heard(
        &leaf,
        Some((NOW_S + DAY_S, NOW_S + 3 * DAY_S)),
        again,
        u32::MAX / 2,
        NOW_S,
    );
    assert!(plan.renews_s(&leaf).abs_diff(NOW_S + 2 * DAY_S) < 2);
    plan.heard(
        &leaf,
        Some((NOW_S + 400 * DAY_S, u64::MAX)),
        again,
        0,
        NOW_S,
    );
    assert_eq!(plan.renews_s(&leaf), NOW_S + 81 * DAY_S);
    // What it said of another certificate says nothing of this one.
    let mut other = leaf.clone();
    other.hash = "bb".into();
    assert_eq!(plan.renews_s(&other), NOW_S + 60 * DAY_S);
}

#[test]
fn pauses_grow_to_a_day_and_are_kept_over_a_restart() {
    let mut plan = Plan::default();
    let mut before = 0;
    let mut now_s = NOW_S;
    for failures in 1..=40 {
        plan.failed("no".into(), None, 0, 0, now_s);
        let pause_s = plan.pause_until_s - now_s;
        assert!(
            pause_s >= before && pause_s <= DAY_S,
            "{failures}: {pause_s}"
        );
        before = pause_s;
        // As it is read again from the disk.
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        assert!(matches!(
            next(&plan, None, now_s + pause_s - 1),
            Next::Wait(_)
        ));
        now_s += pause_s;
        assert_eq!(next(&plan, None, now_s), Next::Get);
    }
    assert_eq!(before, DAY_S);
    assert_eq!(plan.failures, 40);
    let least = pause(1, 0, u32::MAX);
    assert_eq!(least, FIRST_PAUSE * 3 / 4);
    // One that lives six days is tried for at least twice a day.
    assert_eq!(pause(40, 6 * DAY_S, 0).as_secs(), DAY_S / 2);
}

#[test]
fn what_the_authority_says_to_wait_is_waited_but_not_for_ever() {
    let mut plan = Plan::default();
    plan.failed("limited".into(), Some(NOW_S + 3 * DAY_S), 0, 0, NOW_S);
    assert!(matches!(
        next(&plan, None, NOW_S + 3 * DAY_S - 1),
        Next::Wait(_)
    ));
    assert_eq!(next(&plan, None, NOW_S + 3 * DAY_S), Next::Get);
    plan.failed("limited".into(), Some(u64::MAX), 0, 0, NOW_S);
    assert_eq!(plan.told_until_s, NOW_S + LONGEST_TOLD.as_secs());
    // A clock that was far ahead when it was written doesn't hold us up.
    plan.failed("limited".into(), Some(NOW_S * 2), 0, 0, NOW_S * 2);
    assert_eq!(next(&plan, None, NOW_S), Next::Get);
}

/// How many orders there are within `within_s`, when `again` says what is noted after each.
fn orders(within_s: u64, again: impl Fn(&mut Plan, u64) -> Option<Leaf>) -> u32 {
    let (mut plan, mut held) = (Plan::default(), None);
    let (mut now_s, mut orders) = (NOW_S, 0);
    while now_s <= NOW_S + within_s {
        match next(&plan, held.as_ref(), now_s) {
            Next::Wait(until_s) => now_s = until_s,
            act => {
                orders += u32::from(act == Next::Get);
                plan.got(DIRECTORY, now_s);
                held = again(&mut plan, now_s);
                now_s += 1;
            }
        }
    }
    orders
}

#[test]
fn what_is_due_again_at_once_is_not_got_again_at_once() {
    let hurried = |plan: &mut Plan, now_s| {
        let leaf = leaf(now_s, 90 * DAY_S);
        plan.heard(&leaf, Some((1, 2)), Duration::ZERO, 0, now_s);
        Some(leaf)
    };
    assert_eq!(orders(3600, hurried), 1);
    assert_eq!(orders(7 * DAY_S, hurried), 8);
    // Our clock is two thirds of a life ahead of the authority's.
    let ahead = |_: &mut Plan, now_s| Some(leaf(now_s - 61 * DAY_S, 90 * DAY_S));
    assert_eq!(orders(3600, ahead), 1);
    // What is published can't be read.
    assert_eq!(orders(3600, |_, _| None), 2);
    // Another process wants other names here.
    let others = |_: &mut Plan, now_s| {
        let names = vec!["b.example".into()];
        Some(Leaf {
            names,
            ..leaf(now_s, 90 * DAY_S)
        })
    };
    assert_eq!(orders(3600, others), 5);
}

#[test]
fn what_was_got_by_a_clock_that_was_ahead_or_elsewhere_holds_nothing_up() {
    let mut plan = Plan::default();
    plan.got(DIRECTORY, NOW_S + 1);
    assert_eq!(next(&plan, None, NOW_S), Next::Get);
    plan.got("https://staging.test/", NOW_S);
    assert_eq!(next(&plan, Some(&leaf(NOW_S, DAY_S)), NOW_S), Next::Get);
}

#[test]
fn a_plan_of_before_successes_were_dated_is_read() {
    let mut json = serde_json::to_value(plan()).unwrap();
    json.as_object_mut().unwrap().remove("got_s").unwrap();
    let read: Plan = serde_json::from_value(json).unwrap();
    assert_eq!(read, Plan { got_s: 0, ..plan() });
}

#[test]
fn without_a_window_what_was_said_before_stands() {
    let (mut plan, leaf) = (plan(), leaf(NOW_S, 90 * DAY_S));
    let said = Some((NOW_S + DAY_S, NOW_S + 2 * DAY_S));
    plan.heard(&leaf, said, Duration::ZERO, 0, NOW_S);
    // RFC 9773 section 4.2: one that ends where it begins, or before, is none.
    for none in [None, Some((5, 5)), Some((7, 5))] {
        plan.heard(&leaf, none, Duration::MAX, 0, NOW_S);
        assert_eq!(plan.renews_s(&leaf), NOW_S + DAY_S);
        let again_s = plan.window.as_ref().unwrap().again_s - NOW_S;
        assert_eq!(again_s, if none.is_some() { DAY_S / 4 } else { DAY_S });
    }
}

#[test]
fn without_the_time_nobody_is_asked() {
    assert_eq!(next(&Plan::default(), None, 12), Next::Wait(72));
}

proptest! {
    #[test]
    fn no_dates_make_a_busy_loop(
        now_s in any::<u32>(), from_s in any::<u32>(), life_s in any::<u32>(),
        pause_until_s in any::<u64>(), told_until_s in any::<u64>(),
        renew_s in any::<Option<u64>>(), again_s in any::<u64>(), got_s in any::<u64>(),
    ) {
        let leaf = leaf(from_s.into(), life_s.into());
        let window = Window { of: leaf.hash.clone(), renew_s, again_s };
        let plan = Plan {
            directory: DIRECTORY.into(), failures: 3, got_s, pause_until_s, told_until_s, why: None,
            window: Some(window),
        };
        for held in [Some(&leaf), None] {
            if let Next::Wait(until_s) = next(&plan, held, now_s.into()) {
                prop_assert!(until_s > u64::from(now_s));
                prop_assert!(until_s <= u64::from(now_s) + LOOK_AGAIN.as_secs());
            }
        }
    }

    #[test]
    fn whatever_dates_are_stored_something_is_done_in_time(
        past_s in 0..30 * DAY_S, life_s in 1..400 * DAY_S, pause_s in date(), told_s in date(),
        again_s in date(), got_s in date(), renew_s in prop::option::of(date()),
    ) {
        let leaf = leaf(NOW_S - past_s, life_s);
        let window = Window { of: leaf.hash.clone(), renew_s, again_s };
        let plan = Plan {
            directory: DIRECTORY.into(), failures: 3, got_s, pause_until_s: pause_s,
            told_until_s: told_s, why: None, window: Some(window),
        };
        for held in [Some(&leaf), None] {
            let mut now_s = NOW_S;
            while let Next::Wait(until_s) = next(&plan, held, now_s) {
                prop_assert!(until_s > now_s);
                now_s = until_s;
                // One that was too far ahead to be believed may be near enough once another one ends, and
                // then what was got rests.
                let longest = 2 * (LONGEST_TOLD + LONGEST_PAUSE + WINDOW_AGAIN.1) + LONGEST_PAUSE;
                prop_assert!(now_s <= NOW_S + longest.as_secs());
            }
        }
    }

    #[test]
    fn a_window_is_chosen_within(start_s in any::<u64>(), end_s in any::<u64>(), chance in any::<u32>()) {
        let (mut plan, leaf) = (Plan::default(), leaf(NOW_S, DAY_S));
        plan.heard(&leaf, Some((start_s, end_s)), Duration::MAX, chance, NOW_S);
        match plan.window.unwrap().renew_s {
            Some(renew_s) => prop_assert!(renew_s >= start_s && renew_s <= end_s),
            None => prop_assert!(end_s <= start_s),
        }
    }
}

/// Dates around now, and any at all.
fn date() -> impl Strategy<Value = u64> {
    prop_oneof![NOW_S - 40 * DAY_S..NOW_S + 40 * DAY_S, any::<u64>()]
}
