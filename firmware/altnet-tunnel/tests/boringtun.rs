//! Against another WireGuard in process: boringtun, whose clock is mocked, so that both
//! live in the same virtual time.

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use altnet_tunnel::engine::{DropReason, EngineLimits, Opened, PeerConfig, PeerIndex, TunnelEvent};
use altnet_tunnel::key::PresharedKey;
use altnet_wire::time::{Instant, UnixTime};
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use common::{Chance, Given, Node, PSK, address, number, packet, public, secret};
use mock_instant::MockClock;

const OURS: u8 = 1;
const THEIRS: u8 = 2;
const STEP: Duration = Duration::from_millis(50);

/// Our engine, boringtun, and a wire with weather between them.
struct Lab {
    ours: Node,
    peer: PeerIndex,
    theirs: Tunn,
    now: Instant,
    loss: u64,
    spread: u64,
    chance: Chance,
    /// Datagrams under way: when, to us or not, bytes.
    air: Vec<(Instant, bool, Vec<u8>)>,
    got: Vec<u32>,
    errors: Vec<String>,
    initiations: [u32; 2],
    cookies: u32,
}

impl Lab {
    fn new(preshared: bool, limits: EngineLimits, limiter: Option<Arc<RateLimiter>>) -> Self {
        let mut ours = Node::new(OURS, limits);
        ours.engine
            .set_calendar(Some(UnixTime::from_secs(1_800_000_000)), Instant::ZERO);
        let local = ours.own(OURS);
        let mut config = PeerConfig::new(public(THEIRS), local);
        if preshared {
            config.preshared = PresharedKey::new(PSK);
        }
        config.endpoint = Some(address(THEIRS));
        let peer = ours.engine.add_peer(config, Instant::ZERO).unwrap();
        let theirs = Tunn::new(
            x25519::StaticSecret::from(*secret(THEIRS).expose()),
            x25519::PublicKey::from(public(OURS).0),
            preshared.then_some(PSK),
            None,
            7,
            limiter,
        );
        Self {
            ours,
            peer,
            theirs,
            now: Instant::ZERO,
            loss: 0,
            spread: 0,
            chance: Chance::new(1),
            air: Vec::new(),
            got: Vec::new(),
            errors: Vec::new(),
            initiations: [0; 2],
            cookies: 0,
        }
    }

    fn fly(&mut self, to_us: bool, bytes: Vec<u8>) {
        match bytes[0] {
            1 => self.initiations[usize::from(to_us)] += 1,
            3 => self.cookies += 1,
            _ => {}
        }
        if self.chance.below(1000) < self.loss {
            return;
        }
        let delay = Duration::from_millis(5 + self.chance.below(self.spread + 1));
        self.air.push((self.now.after(delay), to_us, bytes));
    }

    fn carry(&mut self) {
        for bytes in self.ours.sent() {
            self.fly(false, bytes);
        }
    }

    /// Takes one of boringtun's answers; `true` if it may have more.
    fn take(&mut self, result: Answer) -> bool {
        match result {
            Answer::Send(bytes) => {
                self.fly(true, bytes);
                true
            }
            Answer::Deliver(bytes) => {
                self.got.push(number(&bytes));
                false
            }
            Answer::Error(error) => {
                self.errors.push(error);
                false
            }
            Answer::Done => false,
        }
    }

    fn theirs_hears(&mut self, datagram: &[u8]) {
        let mut buffer = [0; 2048];
        let from = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, OURS)));
        let mut answer = Answer::from(self.theirs.decapsulate(from, datagram, &mut buffer));
        while self.take(answer) {
            answer = Answer::from(self.theirs.decapsulate(None, &[], &mut buffer));
        }
    }

    fn give_ours(&mut self, packet: &[u8]) -> Given {
        let given = self.ours.give(self.peer, packet, self.now);
        self.carry();
        given
    }

    fn give_theirs(&mut self, packet: &[u8]) {
        let mut buffer = [0; 2048];
        let answer = Answer::from(self.theirs.encapsulate(packet, &mut buffer));
        self.take(answer);
    }

    fn step(&mut self) {
        self.now = self.now.after(STEP);
        MockClock::advance(STEP);
        self.ours.engine.handle_timeout(self.now);
        self.ours.drain(self.now);
        self.carry();
        let mut buffer = [0; 2048];
        let answer = Answer::from(self.theirs.update_timers(&mut buffer));
        self.take(answer);
        loop {
            self.air.sort_by_key(|entry| entry.0);
            if self.air.first().is_none_or(|entry| entry.0 > self.now) {
                return;
            }
            let (_, to_us, bytes) = self.air.remove(0);
            if to_us {
                let _ = self.ours.hear(address(THEIRS), &bytes, self.now);
                self.carry();
            } else {
                self.theirs_hears(&bytes);
            }
        }
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 20 {
            self.step();
        }
    }
}

enum Answer {
    Done,
    Send(Vec<u8>),
    Deliver(Vec<u8>),
    Error(String),
}

impl From<TunnResult<'_>> for Answer {
    fn from(result: TunnResult<'_>) -> Self {
        match result {
            TunnResult::Done => Self::Done,
            TunnResult::Err(error) => Self::Error(format!("{error:?}")),
            TunnResult::WriteToNetwork(bytes) => Self::Send(bytes.to_vec()),
            TunnResult::WriteToTunnelV4(bytes, _) | TunnResult::WriteToTunnelV6(bytes, _) => {
                Self::Deliver(bytes.to_vec())
            }
        }
    }
}

#[test]
fn we_begin_with_and_without_a_preshared_key() {
    for preshared in [false, true] {
        let mut lab = Lab::new(preshared, EngineLimits::ROUTER, None);
        assert_eq!(lab.give_ours(&packet(1, 100)), Given::Queued);
        lab.run(1);
        lab.give_theirs(&packet(2, 1400));
        lab.run(1);
        assert_eq!(lab.got, [1]);
        assert_eq!(lab.ours.numbers(), [2]);
        assert_eq!(lab.initiations, [1, 0]);
        assert!(lab.errors.is_empty(), "{:?}", lab.errors);
    }
}

#[test]
fn boringtun_begins_with_and_without_a_preshared_key() {
    for preshared in [false, true] {
        let mut lab = Lab::new(preshared, EngineLimits::MICRO, None);
        lab.give_theirs(&packet(1, 100));
        lab.run(1);
        assert_eq!(lab.ours.numbers(), [1]);
        assert_eq!(lab.give_ours(&packet(2, 1400)), Given::Sent);
        lab.run(1);
        assert_eq!(lab.got, [2]);
        assert_eq!(lab.initiations, [0, 1]);
        assert_eq!(lab.ours.drops, []);
    }
}

#[test]
fn sessions_are_renewed_by_whoever_began_and_nothing_is_lost() {
    for we_begin in [true, false] {
        let mut lab = Lab::new(true, EngineLimits::ROUTER, None);
        if we_begin {
            let _ = lab.give_ours(&packet(0, 80));
        } else {
            lab.give_theirs(&packet(0, 80));
        }
        lab.run(1);
        for n in 1..1000 {
            assert_eq!(lab.give_ours(&packet(n, 80)), Given::Sent);
            lab.give_theirs(&packet(n, 80));
            for _ in 0..12 {
                lab.step();
            }
        }
        lab.run(1);
        assert_eq!(lab.got.len(), 999 + usize::from(we_begin));
        assert_eq!(lab.ours.delivered.len(), 999 + usize::from(!we_begin));
        // 600 seconds: the first handshake and one every 120.
        let (beginner, other) = if we_begin { (0, 1) } else { (1, 0) };
        assert!(
            (5..=6).contains(&lab.initiations[beginner]),
            "{:?}",
            lab.initiations
        );
        assert_eq!(lab.initiations[other], 0);
        let peer = lab.peer;
        assert!(lab.ours.count(TunnelEvent::Rekeyed { peer }) >= 4);
        assert_eq!(lab.ours.count(TunnelEvent::SessionDown { peer }), 0);
    }
}

#[test]
fn loss_and_reordering_deliver_nothing_twice_and_most_of_it() {
    for seed in 0..8 {
        let mut lab = Lab::new(seed % 2 == 0, EngineLimits::ROUTER, None);
        lab.chance = Chance::new(seed);
        lab.loss = 100;
        lab.spread = 300;
        for n in 0..4000 {
            let _ = lab.give_ours(&packet(n, 60 + n as usize % 1300));
            if n > 20 {
                lab.give_theirs(&packet(n, 60 + n as usize % 700));
            }
            lab.step();
            lab.step();
        }
        lab.run(1);
        for mut numbers in [lab.got.clone(), lab.ours.numbers()] {
            let total = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), total, "seed {seed}");
            assert!(total > 3300, "seed {seed}: {total} of 4000");
        }
    }
}

#[test]
fn we_take_boringtuns_cookie_and_come_back_with_it() {
    // No handshake is computed without a cookie.
    let limiter = Arc::new(RateLimiter::new(
        &x25519::PublicKey::from(public(THEIRS).0),
        0,
    ));
    let mut lab = Lab::new(true, EngineLimits::ROUTER, Some(limiter));
    let _ = lab.give_ours(&packet(1, 100));
    lab.run(4);
    assert_eq!(lab.cookies, 1);
    assert_eq!(lab.got, []);
    lab.run(4);
    assert_eq!(lab.got, [1]);
    assert_eq!(lab.initiations, [2, 0]);
    assert_eq!(lab.ours.drops, []);
}

#[test]
fn boringtun_takes_our_cookie_and_comes_back_with_it() {
    let limits = EngineLimits {
        handshakes_per_s: 1,
        handshake_burst: 1,
        ..EngineLimits::ROUTER
    };
    let mut lab = Lab::new(true, limits, None);
    // Its own first initiation, heard over and over from elsewhere, is the load.
    let mut buffer = [0; 2048];
    let Answer::Send(first) = Answer::from(lab.theirs.encapsulate(&packet(1, 80), &mut buffer))
    else {
        panic!("no initiation");
    };
    assert!(lab.ours.hear(address(99), &first, lab.now).is_ok());
    lab.ours.sent();
    let heard = lab.ours.hear(address(THEIRS), &first, lab.now);
    assert_eq!(heard, Err(DropReason::UnderLoad));
    lab.carry();
    assert_eq!(lab.cookies, 1);
    for _ in 0..140 {
        let heard = lab.ours.hear(address(99), &first, lab.now);
        assert!(!matches!(heard, Ok(Opened::Handshake { .. })));
        lab.ours.sent();
        lab.step();
    }
    assert_eq!(lab.ours.numbers(), [1]);
    assert!(lab.errors.is_empty(), "{:?}", lab.errors);
}

#[test]
fn a_session_that_died_is_made_anew_by_either_side() {
    let mut lab = Lab::new(true, EngineLimits::ROUTER, None);
    let _ = lab.give_ours(&packet(1, 80));
    lab.run(200);
    lab.give_theirs(&packet(2, 80));
    lab.run(10);
    lab.run(200);
    let _ = lab.give_ours(&packet(3, 80));
    lab.run(10);
    assert_eq!(lab.got, [1, 3]);
    assert_eq!(lab.ours.numbers(), [2]);
}
