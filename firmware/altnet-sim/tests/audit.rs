//! Audit logs that members countersign for each other.

use std::collections::BTreeMap;

use altnet_core::audit::verify::{Verified, verify};
use altnet_core::audit::{Fact, Kind, Limits, Link, Log, Output};
use altnet_core::clock::Estimate;
use altnet_core::node::Event;
use altnet_sim::founder::FOUNDED;
use altnet_sim::homes::{Homes, seconds};
use altnet_sim::nat::Kind as Nat;
use altnet_sim::world::HostId;
use altnet_wire::time::Instant;

const CLOCK: Estimate = Estimate::Running(FOUNDED);

/// A log, its files, and what they add to the chain.
struct Book {
    log: Log,
    files: BTreeMap<u64, Vec<u8>>,
    links: Vec<Link>,
}

impl Book {
    fn new() -> Self {
        Self {
            log: Log::new(Limits::ROUTER, [], None, CLOCK, Instant::ZERO),
            files: BTreeMap::new(),
            links: Vec::new(),
        }
    }

    /// A log of so many acts, which differ from another's if `who` does.
    fn of(who: &str, acts: u64) -> Self {
        let mut book = Self::new();
        for act in 0..acts {
            book.note(Fact::new(Kind::ACT).about(who).detail(act));
        }
        book
    }

    /// Writes a fact; returns the links that are new.
    fn note(&mut self, fact: Fact) -> Vec<Link> {
        self.log.record(fact, CLOCK, Instant::ZERO);
        self.log.flush();
        let before = self.links.len();
        loop {
            match self.log.poll_output(Instant::ZERO) {
                Output::Append {
                    segment,
                    offset,
                    bytes,
                } => {
                    let file = self.files.entry(segment).or_default();
                    file.truncate(offset as usize);
                    file.extend_from_slice(&bytes);
                    self.log.handle_appended(true, Instant::ZERO);
                }
                Output::Remove { segment } => drop(self.files.remove(&segment)),
                Output::Synced(link) => self.links.push(link),
                Output::Wait(_) => return self.links[before..].to_vec(),
            }
        }
    }

    fn verified(&self) -> Verified {
        verify(self.files.values().map(Vec::as_slice)).unwrap()
    }

    /// The last entry that a member of that key vouches for, and since when it watches.
    fn cover(&self, homes: &Homes, witness: HostId) -> (u64, u64) {
        let key = homes.world.node(witness).identity().device.public();
        let covers = self.verified().covers;
        let cover = covers.iter().find(|cover| cover.witness == key);
        cover.map_or((0, 0), |cover| (cover.through, cover.since))
    }
}

/// Has a node hear of entries.
fn hear(homes: &mut Homes, host: HostId, links: &[Link]) {
    for link in links {
        homes
            .world
            .with(host, |node, now| node.handle_audit(link, now));
    }
}

/// Notes an act, and lets `time` pass in which what the node tells is noted too.
fn act(homes: &mut Homes, host: HostId, book: &mut Book, hours: u64) -> Vec<Event> {
    let new = book.note(Fact::new(Kind::ACT).about("user 0"));
    hear(homes, host, &new);
    let mut told = Vec::new();
    for _ in 0..hours * 12 {
        homes.world.run(seconds(300));
        for event in homes.world.told(host) {
            if let Some(fact) = Fact::of_event(&event, |node| node) {
                let new = book.note(fact);
                hear(homes, host, &new);
            }
            told.push(event);
        }
    }
    told
}

fn homes(seed: u64) -> Homes {
    let mut homes = Homes::new(seed, Nat::PORT_RESTRICTED, Nat::PORT_RESTRICTED);
    for host in [homes.relay, homes.a, homes.b] {
        homes.world.told(host);
    }
    homes
}

#[test]
fn members_countersign_each_others_logs() {
    let mut homes = homes(601);
    assert!(homes.reaches("so that the houses have a session"));
    let (a, b, relay) = (homes.a, homes.b, homes.relay);
    let mut book = Book::of("a", 10);
    hear(&mut homes, a, &book.links.clone());
    let told = act(&mut homes, a, &mut book, 1);
    let witnessed = told.iter().filter(|e| matches!(e, Event::Witnessed { .. }));
    assert!(witnessed.count() >= 1, "{told:?}");
    let (through, since) = book.cover(&homes, relay);
    assert!(through >= 11 && since == through, "{through} {since}");
    // It goes on, also when the witness lost power after what it holds was on its disk.
    act(&mut homes, a, &mut book, 2);
    let disk = homes.world.disk(relay).get("witnessed").cloned();
    assert!(disk.is_some());
    homes.world.restart(relay);
    let told = act(&mut homes, a, &mut book, 2);
    let (later, still) = book.cover(&homes, relay);
    assert!(
        later > through && still == since,
        "{later} {still} {told:?}"
    );
    for host in [b, relay] {
        let told = homes.world.told(host);
        let bad = told.iter().find(|event| {
            matches!(
                event,
                Event::PastRewritten { .. } | Event::PastNotShown { .. }
            )
        });
        assert_eq!(bad, None);
    }
    // Whoever vouches says so to who asks it.
    let device = homes.world.node(a).identity().device.public();
    let mut held = homes.world.node(relay).witnessed_heads();
    let (_, head, _) = held.find(|(of, ..)| *of == device).unwrap();
    let link = book
        .links
        .iter()
        .find(|link| link.sequence == head.sequence);
    assert_eq!(link.map(|link| link.hash), Some(head.hash));
}

#[test]
fn what_is_held_of_others_is_written_once_an_hour_and_at_the_end() {
    let mut homes = homes(607);
    let (a, relay) = (homes.a, homes.relay);
    let mut book = Book::of("a", 3);
    hear(&mut homes, a, &book.links.clone());
    let written = |homes: &mut Homes| homes.world.disk(relay).get("witnessed").cloned();
    homes.world.run(seconds(300));
    let held: Vec<_> = homes.world.node(relay).witnessed_heads().collect();
    assert_eq!((held.len(), written(&mut homes)), (1, None));
    homes.world.with(relay, |node, _| node.keep_heads());
    homes.world.restart(relay);
    let again: Vec<_> = homes.world.node(relay).witnessed_heads().collect();
    assert_eq!(again, held);
    let (mut changes, mut last) = (0, written(&mut homes));
    for _ in 0..12 {
        act(&mut homes, a, &mut book, 1);
        let now = written(&mut homes);
        changes += usize::from(now != last);
        last = now;
    }
    assert!((5..=12).contains(&changes), "{changes}");
}

#[test]
fn a_log_that_says_nothing_new_is_shown_once() {
    let mut homes = homes(602);
    let a = homes.a;
    let mut book = Book::of("a", 3);
    hear(&mut homes, a, &book.links.clone());
    act(&mut homes, a, &mut book, 1);
    let told = (0..5).flat_map(|_| {
        homes.world.run(seconds(3600));
        homes.world.told(a)
    });
    let again = told
        .filter(|e| matches!(e, Event::Witnessed { .. }))
        .count();
    assert_eq!(again, 0);
}

#[test]
fn a_log_of_thousands_of_entries_is_shown_in_steps() {
    let mut homes = homes(603);
    let (a, relay) = (homes.a, homes.relay);
    let mut book = Book::of("a", 5);
    hear(&mut homes, a, &book.links.clone());
    act(&mut homes, a, &mut book, 1);
    let (_, since) = book.cover(&homes, relay);
    for _ in 0..1500 {
        let new = book.note(Fact::new(Kind::ACT).about("user 0"));
        hear(&mut homes, a, &new);
    }
    let told = act(&mut homes, a, &mut book, 2);
    let (through, still) = book.cover(&homes, relay);
    assert!(through > 1500 && still == since, "{through} {told:?}");
}

/// House A comes back with another log than before. What the relay and house A say of it.
fn comes_back_with(seed: u64, mut other: Book) -> (Vec<Event>, Vec<Event>) {
    let mut homes = homes(seed);
    let (a, relay) = (homes.a, homes.relay);
    let mut book = Book::of("a", 10);
    hear(&mut homes, a, &book.links.clone());
    act(&mut homes, a, &mut book, 1);
    assert!(book.cover(&homes, relay).0 >= 11);
    homes.world.told(relay);
    homes.world.restart(a);
    hear(&mut homes, a, &other.links.clone());
    let told = act(&mut homes, a, &mut other, 1);
    assert_eq!(other.cover(&homes, relay), (0, 0), "{told:?}");
    (homes.world.told(relay), told)
}

fn is_rewritten(event: &Event) -> bool {
    match event {
        Event::PastRewritten { rewrite, .. } => {
            assert_eq!(rewrite.verify(), Ok(()));
            true
        }
        _ => false,
    }
}

#[test]
fn a_rewritten_log_is_refused_and_reported() {
    for (seed, acts) in [(604, 40), (605, 8)] {
        // Longer than what was vouched for, and shorter, as from an old copy.
        let other = if acts > 20 {
            Book::of("b", acts)
        } else {
            Book::of("a", acts)
        };
        let (relay, a) = comes_back_with(seed, other);
        assert!(relay.iter().any(is_rewritten), "{acts}: {relay:?}");
        let knows = |event: &Event| matches!(event, Event::PastContradicted { .. });
        assert!(a.iter().any(knows), "{acts}: {a:?}");
    }
}

#[test]
fn a_log_that_only_goes_on_after_a_restart_is_no_other_past() {
    let mut homes = homes(606);
    let (a, relay) = (homes.a, homes.relay);
    let mut book = Book::of("a", 10);
    hear(&mut homes, a, &book.links.clone());
    act(&mut homes, a, &mut book, 1);
    let (through, since) = book.cover(&homes, relay);
    homes.world.restart(a);
    hear(&mut homes, a, &book.links.clone());
    act(&mut homes, a, &mut book, 1);
    let (later, still) = book.cover(&homes, relay);
    assert!(later > through && still == since);
    assert!(!homes.world.told(relay).iter().any(is_rewritten));
}
