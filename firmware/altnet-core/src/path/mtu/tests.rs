//! The machine alone, on a path that loses what is larger than it.

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

const RTT: Duration = Duration::from_millis(100);
/// IPv4 without a relay.
const OVERHEAD: u16 = 28;

fn way(port: u16) -> Endpoint {
    Endpoint::Direct(core::net::SocketAddr::from(([192, 0, 2, 1], port)))
}

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1000)
}

/// A path, the peer at its end, and time.
struct Run {
    mtu: PathMtu,
    now: u64,
    /// The largest datagram that passes.
    passes: u16,
    answers: bool,
    takes_pieces: bool,
    probes: Vec<(u64, u16)>,
    coming: Vec<(u64, u16)>,
    /// When a datagram was lost that was sent whole.
    lost: Vec<u64>,
}

impl Run {
    fn new(passes: u16) -> Self {
        Self {
            mtu: PathMtu::new(),
            now: 0,
            passes,
            answers: true,
            takes_pieces: true,
            probes: Vec::new(),
            coming: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// Lets time pass, sending a datagram of `bytes` every so often.
    fn flow(&mut self, ms: u64, bytes: u16, every: u64) {
        let end = self.now + ms;
        while self.now < end {
            if every > 0 && self.now.is_multiple_of(every) {
                let most = self.mtu.most(way(1)).unwrap_or(u16::MAX);
                self.mtu.sent(way(1), OVERHEAD, bytes, at(self.now));
                if bytes.min(most) > self.passes {
                    self.lost.push(self.now);
                }
            }
            self.step();
            self.now += 5;
        }
    }

    fn step(&mut self) {
        let now = self.now;
        for (_, bytes) in self.coming.extract_if(.., |(due, _)| *due <= now) {
            self.mtu.answered(way(1), bytes, self.takes_pieces, at(now));
        }
        let mut count = 0;
        while let Some(bytes) = self.mtu.poll_probe(way(1), Some(RTT), at(now)) {
            self.probes.push((now, bytes));
            if self.answers && bytes <= self.passes {
                self.coming.push((now + 100, bytes));
            }
            count += 1;
            assert!(count < 4, "probes without end");
        }
        let deadline = self.mtu.deadline(way(1), Some(RTT), at(now));
        assert!(deadline > at(now), "would spin");
    }

    fn sizes(&self) -> Vec<u16> {
        self.probes.iter().map(|(_, size)| *size).collect()
    }
}

#[test]
fn who_sends_nothing_large_is_never_probed() {
    let mut run = Run::new(400);
    run.flow(60_000, FLOOR, 20);
    assert_eq!(run.sizes(), []);
    assert_eq!(run.mtu.deadline(way(1), None, at(run.now)), Instant::NEVER);
}

#[test]
fn a_full_packet_that_passes_is_confirmed_while_more_follow_and_no_more_often_than_need_be() {
    let mut run = Run::new(1472);
    run.flow(10_000, WHOLE, 20);
    assert_eq!(run.sizes()[..2], [WHOLE, 0]);
    assert!(run.sizes()[2..].iter().all(|size| *size == WHOLE));
    assert!((10..=17).contains(&run.probes.len()), "{:?}", run.probes);
    assert_eq!((run.mtu.most(way(1)), run.mtu.inner()), (Some(WHOLE), 1280));
    let before = run.probes.len();
    run.flow(60_000, 0, 0);
    assert!(run.probes.len() <= before + 1);
}

#[test]
fn a_path_that_narrows_loses_datagrams_for_a_little_more_than_a_second() {
    for (passes, found) in [(1252, 1252), (1000, 972), (700, FLOOR), (600, FLOOR)] {
        let mut run = Run::new(1472);
        run.flow(5_000, WHOLE, 20);
        run.passes = passes;
        run.flow(10_000, WHOLE, 20);
        let (first, last) = (run.lost[0], *run.lost.last().unwrap());
        assert!(last - first <= 1_300, "{passes}: {} ms", last - first);
        assert_eq!(run.mtu.most(way(1)), Some(found.max(FLOOR)), "{passes}");
        assert!(run.mtu.is_cut() && run.mtu.inner() == 1280);
    }
}

#[test]
fn a_path_that_narrows_once_more_loses_pieces_for_no_longer() {
    let mut run = Run::new(1252);
    run.flow(5_000, WHOLE, 20);
    assert_eq!(run.mtu.most(way(1)), Some(1252));
    // Half of a full packet and its header are more.
    run.passes = 600;
    run.flow(1_500, WHOLE, 20);
    assert_eq!(run.mtu.most(way(1)), Some(FLOOR));
}

#[test]
fn a_narrow_path_is_known_within_a_second_of_the_first_large_datagram() {
    let mut run = Run::new(600);
    run.flow(60_000, WHOLE, 20);
    assert!(*run.lost.last().unwrap() <= 800, "{:?}", run.lost.last());
    assert_eq!(run.mtu.most(way(1)), Some(FLOOR));
    // Again after 15 s, after a minute: three tries each.
    assert!(run.probes.len() < 30, "{:?}", run.probes);
}

#[test]
fn a_path_that_widens_again_is_used_to_the_full() {
    let mut run = Run::new(1472);
    run.flow(2_000, WHOLE, 20);
    run.passes = 900;
    run.flow(5_000, WHOLE, 20);
    assert!(run.mtu.is_cut());
    run.passes = 1472;
    run.flow(16_000, WHOLE, 20);
    assert_eq!(run.mtu.most(way(1)), Some(WHOLE));
}

#[test]
fn what_is_wanted_larger_is_found_where_there_is_room() {
    for (passes, inner) in [(1472, 1440), (1464, 1424), (1400, 1360), (1312, 1280)] {
        let mut run = Run::new(passes);
        run.mtu.wants(way(1), OVERHEAD, 1500, at(0));
        run.flow(1_900, 0, 0);
        let before = run.mtu.inner();
        run.mtu.wants(way(1), OVERHEAD, 1500, at(run.now));
        run.flow(4_000, WHOLE, 20);
        assert_eq!(
            run.mtu.inner(),
            inner,
            "{passes}: {before}, {:?}",
            run.probes
        );
        assert!(run.lost.is_empty());
    }
}

#[test]
fn an_older_peer_is_asked_once_and_sent_everything_whole() {
    let mut run = Run::new(900);
    run.takes_pieces = false;
    run.flow(60_000, WHOLE, 20);
    assert_eq!(run.mtu.most(way(1)), None);
    assert_eq!(run.mtu.inner(), 1280);
    assert_eq!(run.probes.len(), 2, "{:?}", run.probes);
    run.mtu.begins_anew();
    run.takes_pieces = true;
    run.flow(2_000, WHOLE, 20);
    assert!(run.mtu.is_cut());
}

#[test]
fn who_answers_nothing_is_asked_less_and_sent_everything_whole() {
    let mut run = Run::new(900);
    run.answers = false;
    run.flow(60_000, WHOLE, 20);
    assert_eq!(run.mtu.most(way(1)), None);
    // Three pairs every 2.6 s.
    assert!(run.probes.len() <= 150, "{}", run.probes.len());
}

#[test]
fn another_path_begins_in_pieces_and_goes_whole_after_one_round_trip() {
    let mut run = Run::new(1472);
    run.flow(1_000, WHOLE, 20);
    run.mtu.sent(way(2), OVERHEAD, WHOLE, at(run.now));
    assert_eq!(run.mtu.most(way(1)), None);
    assert_eq!(run.mtu.most(way(2)), Some(FLOOR));
    let probe = run.mtu.poll_probe(way(2), None, at(run.now));
    assert_eq!(probe, Some(WHOLE));
    run.mtu.answered(way(2), WHOLE, true, at(run.now + 100));
    assert_eq!(run.mtu.most(way(2)), Some(WHOLE));
}

#[test]
fn a_link_that_refuses_a_size_is_believed_at_once() {
    let mut run = Run::new(1252);
    run.flow(200, 1200, 20);
    run.mtu.sent(way(1), OVERHEAD, WHOLE, at(run.now));
    run.mtu.too_large(way(1), WHOLE, at(run.now));
    run.flow(5_000, WHOLE, 20);
    assert!(run.lost.is_empty());
    assert_eq!(run.mtu.most(way(1)), Some(1252));
}

proptest! {
    #[test]
    fn whatever_happens_sizes_stay_in_bounds_and_nothing_spins(
        happens in proptest::collection::vec((0u8..7, 0u16..2000, 0u64..3000), 0..80),
    ) {
        let mut mtu = PathMtu::new();
        let mut now = 0;
        for (what, bytes, ms) in happens {
            now += ms;
            let port = bytes % 3;
            match what {
                0 => mtu.sent(way(port), bytes % 80, bytes, at(now)),
                1 => mtu.wants(way(port), bytes % 80, bytes, at(now)),
                2 => mtu.answered(way(port), bytes, true, at(now)),
                3 => mtu.answered(way(port), bytes, false, at(now)),
                4 => mtu.too_large(way(port), bytes, at(now)),
                5 => mtu.begins_anew(),
                _ => {}
            }
            for port in 0..3 {
                let mut count = 0;
                while let Some(size) = mtu.poll_probe(way(port), None, at(now)) {
                    prop_assert!(size <= 2000);
                    count += 1;
                    prop_assert!(count < 8);
                }
                prop_assert!(mtu.deadline(way(port), None, at(now)) > at(now));
                prop_assert!(mtu.most(way(port)).is_none_or(|most| most >= FLOOR));
            }
            prop_assert!(mtu.inner() >= 1280);
        }
    }
}
