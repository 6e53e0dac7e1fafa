//! When to advertise: now and then, soon after somebody asks, several times after a change,
//! and goodbye.
//!
//! In: what to advertise, solicitations, time. Out: [`Advertiser::poll`] writes the next
//! message when it is due, [`Advertiser::deadline`] says when that is. Chance comes from a
//! seed. A flood of solicitations gets one advertisement per 3 seconds.

use core::net::Ipv6Addr;
use core::time::Duration;

use altnet_wire::time::Instant;

use super::ALL_NODES;
use super::advertisement::{
    Lifetimes, Mode, Network, ROUTER_LIFETIME_S, Solicitation, VALID_LIFETIME_S, Writer,
};

/// The longest time between advertisements (RFC 4861 section 6.2.1, MaxRtrAdvInterval).
pub const MAX_INTERVAL: Duration = Duration::from_secs(600);
/// The shortest time between advertisements that nobody asked for (MinRtrAdvInterval).
pub const MIN_INTERVAL: Duration = Duration::from_secs(200);
/// The longest time between the first few (RFC 4861 section 10, MAX_INITIAL_RTR_ADVERT_INTERVAL).
pub const INITIAL_INTERVAL: Duration = Duration::from_secs(16);
/// How many the first few are (MAX_INITIAL_RTR_ADVERTISEMENTS).
pub const INITIAL_COUNT: u8 = 3;
/// How many goodbyes there are (MAX_FINAL_RTR_ADVERTISEMENTS).
pub const FINAL_COUNT: u8 = 3;
/// The shortest time between any two (MIN_DELAY_BETWEEN_RAS).
pub const MIN_DELAY: Duration = Duration::from_secs(3);
/// The longest time to wait with an answer (MAX_RA_DELAY_TIME).
pub const MAX_ANSWER_DELAY: Duration = Duration::from_millis(500);
/// Networks that were advertised before and are still being taken back.
const MAX_PAST: usize = 2;

#[derive(Clone, Debug)]
enum State {
    /// Nothing to advertise yet, or no more.
    Silent,
    /// Advertising; the first few are `initial` more.
    Running { initial: u8 },
    /// Saying goodbye this many more times.
    Closing { left: u8 },
}

#[derive(Clone, Debug)]
struct Past {
    network: Network,
    valid_until: Instant,
}

/// Advertises one network on one link.
#[derive(Clone, Debug)]
pub struct Advertiser {
    link_address: Option<[u8; 6]>,
    mode: Mode,
    network: Option<Network>,
    past: heapless::Vec<Past, MAX_PAST>,
    state: State,
    last: Option<Instant>,
    due: Instant,
    chance: u64,
}

impl Advertiser {
    /// Makes an advertiser that has nothing to say yet. `link_address` is the link's own MAC
    /// address, if it has one; `seed` spreads the advertisements of many routers.
    pub fn new(link_address: Option<[u8; 6]>, seed: u64) -> Self {
        Self {
            link_address,
            mode: Mode::BesideRouter,
            network: None,
            past: heapless::Vec::new(),
            state: State::Silent,
            last: None,
            due: Instant::NEVER,
            // xorshift never leaves zero.
            chance: seed | 1,
        }
    }

    /// Advertises `network` from now on. If it differs from what was advertised before, that
    /// is taken back: no new flows, no routes, and its addresses end in 90 minutes.
    ///
    /// Source: RFC 4861 section 6.2.4 (changes are made known several times), RFC 9096
    /// section 3.5 (stale prefixes are deprecated).
    pub fn advertise(&mut self, mode: Mode, network: Network, now: Instant) {
        let is_running = matches!(self.state, State::Running { .. });
        if is_running && self.mode == mode && self.network.as_ref() == Some(&network) {
            return;
        }
        if let Some(before) = self.network.take() {
            self.take_back(before, &network, now);
        }
        // What is advertised again is no longer past.
        self.past.retain(|past| past.network != network);
        self.mode = mode;
        self.network = Some(network);
        self.state = State::Running {
            initial: INITIAL_COUNT,
        };
        self.due = self.not_before(now);
    }

    /// Says goodbye: up to three advertisements, the first at once, that end every route
    /// (RFC 4861 section 6.2.5). A driver in a hurry stops after the first.
    pub fn close(&mut self, now: Instant) {
        if matches!(self.state, State::Running { .. }) {
            self.state = State::Closing { left: FINAL_COUNT };
            self.due = now;
        }
    }

    /// Whether there is nothing to say, now and later.
    pub const fn is_silent(&self) -> bool {
        matches!(self.state, State::Silent)
    }

    /// Answers a machine that asks, after a short random time, together with all others
    /// that ask meanwhile (RFC 4861 section 6.2.6).
    pub fn handle_solicitation(&mut self, _from: &Solicitation, now: Instant) {
        if !matches!(self.state, State::Running { .. }) {
            return;
        }
        let delay = self.between(Duration::ZERO, MAX_ANSWER_DELAY);
        let answer = self.not_before(now.after(delay));
        self.due = self.due.min(answer);
    }

    /// When [`Advertiser::poll`] next has something to write.
    pub const fn deadline(&self) -> Instant {
        self.due
    }

    /// Writes the advertisement that is due into `out`, and says where it goes and how many
    /// bytes it has; nothing if none is due. `out` should have
    /// [`super::advertisement::MAX_ADVERTISEMENT_BYTES`]; options that don't fit are left out.
    ///
    /// The message begins with the ICMPv6 header, its checksum zero (see [`super::seal`]). It
    /// must leave from a link-local address with [`super::HOP_LIMIT`].
    pub fn poll(&mut self, out: &mut [u8], now: Instant) -> Option<(Ipv6Addr, usize)> {
        if now < self.due {
            return None;
        }
        self.past.retain(|past| now < past.valid_until);
        let length = self.write(out, now);
        self.last = Some(now);
        self.schedule(now);
        length.map(|length| (ALL_NODES, length))
    }

    fn write(&self, out: &mut [u8], now: Instant) -> Option<usize> {
        let network = self.network.as_ref()?;
        let (is_router, lifetimes) = match self.state {
            State::Silent => return None,
            State::Running { .. } => (self.mode == Mode::OnlyRouter, Lifetimes::FULL),
            State::Closing { .. } => (false, Lifetimes::ending(VALID_LIFETIME_S)),
        };
        let mut writer = Writer::new(out, if is_router { ROUTER_LIFETIME_S } else { 0 })?;
        if let Some(address) = self.link_address {
            writer.link_address(address);
        }
        writer.network(network, lifetimes);
        for past in &self.past {
            let left = past.valid_until.saturating_since(now).as_secs();
            let left = u32::try_from(left).unwrap_or(VALID_LIFETIME_S);
            let old = &past.network;
            if old.site != network.site {
                writer.prefix(old.site, Lifetimes::ending(left));
            }
            if old.network != network.network {
                writer.route(old.network, 0);
            }
            if old.resolver != network.resolver {
                writer.resolver(old.resolver, 0);
            }
            if let Some(petname) = old
                .petname
                .as_ref()
                .filter(|_| old.petname != network.petname)
            {
                writer.search(petname, 0);
            }
        }
        Some(writer.finish())
    }

    /// Chooses the time of the next advertisement, after one at `now`.
    fn schedule(&mut self, now: Instant) {
        let mut wait = self.between(MIN_INTERVAL, MAX_INTERVAL);
        match &mut self.state {
            State::Silent => {
                self.due = Instant::NEVER;
                return;
            }
            State::Running { initial } => {
                *initial = initial.saturating_sub(1);
                if *initial > 0 {
                    // RFC 4861 section 6.2.4.
                    wait = wait.min(INITIAL_INTERVAL);
                }
            }
            State::Closing { left } => {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.state = State::Silent;
                    self.due = Instant::NEVER;
                    return;
                }
                wait = MIN_DELAY;
            }
        }
        self.due = now.after(wait);
    }

    fn take_back(&mut self, before: Network, after: &Network, now: Instant) {
        if before == *after {
            return;
        }
        if self.past.is_full() {
            self.past.remove(0);
        }
        let past = Past {
            network: before,
            valid_until: now.after(Duration::from_secs(u64::from(VALID_LIFETIME_S))),
        };
        // There is room: one was just removed if there was none.
        let _ = self.past.push(past);
    }

    fn not_before(&self, wanted: Instant) -> Instant {
        self.last
            .map_or(wanted, |last| wanted.max(last.after(MIN_DELAY)))
    }

    /// A random time from `least` to `most` (xorshift64; spreading needs no secrecy).
    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let mut x = self.chance;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.chance = x;
        let span_us = u64::try_from(most.saturating_sub(least).as_micros()).unwrap_or(0);
        least + Duration::from_micros(x % span_us.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_wire::address::Prefix;
    use altnet_wire::id::Name;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn network(number: u16) -> Network {
        let at = |site, host| Ipv6Addr::new(0xfd01, number, 0, site, 0, 0, 0, host);
        Network {
            site: Prefix::new(at(7, 0), 64),
            network: Prefix::new(at(0, 0), 48),
            resolver: at(7, 1),
            petname: Some(Name::new("home").unwrap()),
        }
    }

    fn solicitation() -> Solicitation {
        Solicitation::parse(&[133, 0, 0, 0, 0, 0, 0, 0], Ipv6Addr::UNSPECIFIED, 255).unwrap()
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO.after(Duration::from_secs(seconds))
    }

    /// Runs until `until`: when each advertisement was sent and what it said.
    fn run(advertiser: &mut Advertiser, until: Instant) -> Vec<(Instant, Vec<u8>)> {
        let mut sent = Vec::new();
        while advertiser.deadline() <= until {
            let now = advertiser.deadline();
            let mut out = [0; 1240];
            let (to, length) = advertiser.poll(&mut out, now).unwrap();
            assert_eq!(to, ALL_NODES);
            assert!(advertiser.deadline() > now);
            sent.push((now, out[..length].to_vec()));
        }
        sent
    }

    fn router_lifetime(message: &[u8]) -> u16 {
        u16::from_be_bytes([message[6], message[7]])
    }

    /// The valid and preferred lifetimes of every prefix.
    fn prefixes(message: &[u8]) -> Vec<(u16, u32, u32)> {
        let mut found = Vec::new();
        let mut at = 16;
        while at < message.len() {
            if message[at] == 3 {
                let word =
                    |i: usize| u32::from_be_bytes(message[at + i..at + i + 4].try_into().unwrap());
                found.push((word(16 + 2).wrapping_shr(16) as u16, word(4), word(8)));
            }
            at += usize::from(message[at + 1]) * 8;
        }
        found
    }

    #[test]
    fn the_first_three_come_soon_and_the_rest_now_and_then() {
        let mut advertiser = Advertiser::new(None, 7);
        assert_eq!(advertiser.deadline(), Instant::NEVER);
        advertiser.advertise(Mode::OnlyRouter, network(1), at(5));
        let times: Vec<Instant> = run(&mut advertiser, at(100_000))
            .iter()
            .map(|s| s.0)
            .collect();
        assert_eq!(times[..3], [at(5), at(21), at(37)]);
        for pair in times[2..].windows(2) {
            let wait = pair[1].saturating_since(pair[0]);
            assert!((MIN_INTERVAL..=MAX_INTERVAL).contains(&wait), "{wait:?}");
        }
        assert!(times.len() > 166);
    }

    #[test]
    fn only_the_only_router_is_a_default_router() {
        let mut advertiser = Advertiser::new(Some([2, 0, 0, 0, 0, 1]), 7);
        advertiser.advertise(Mode::OnlyRouter, network(1), at(0));
        let sent = run(&mut advertiser, at(0));
        assert_eq!(router_lifetime(&sent[0].1), ROUTER_LIFETIME_S);
        advertiser.advertise(Mode::BesideRouter, network(1), at(1));
        let sent = run(&mut advertiser, at(3));
        assert_eq!((sent.len(), sent[0].0), (1, at(3)));
        assert_eq!(router_lifetime(&sent[0].1), 0);
    }

    #[test]
    fn a_flood_of_questions_gets_one_answer_in_three_seconds() {
        let mut advertiser = Advertiser::new(None, 7);
        advertiser.advertise(Mode::OnlyRouter, network(1), at(0));
        run(&mut advertiser, at(50));
        let mut sent = Vec::new();
        for ms in 50_001..60_000 {
            let now = Instant::from_micros(ms * 1000);
            advertiser.handle_solicitation(&solicitation(), now);
            sent.extend(run(&mut advertiser, now));
        }
        assert!((3..=4).contains(&sent.len()), "{}", sent.len());
        assert!(sent[0].0 <= Instant::from_micros(50_501_000));
        for pair in sent.windows(2) {
            assert!(pair[1].0.saturating_since(pair[0].0) >= MIN_DELAY);
        }
    }

    #[test]
    fn an_old_prefix_is_taken_back_until_its_addresses_end() {
        let mut advertiser = Advertiser::new(None, 7);
        advertiser.advertise(Mode::OnlyRouter, network(1), at(0));
        run(&mut advertiser, at(50));
        advertiser.advertise(Mode::OnlyRouter, network(2), at(100));
        let sent = run(&mut advertiser, at(10_000));
        assert_eq!(sent[0].0, at(100));
        assert_eq!(prefixes(&sent[0].1), [(2, 5400, 2700), (1, 5400, 0)]);
        let (time, last) = sent
            .iter()
            .rev()
            .find(|s| prefixes(&s.1).len() == 2)
            .unwrap();
        assert!(*time < at(5500));
        assert!(prefixes(last)[1].1 < 700 && prefixes(last)[1].2 == 0);
        // Coming back ends the taking back.
        advertiser.advertise(Mode::OnlyRouter, network(3), at(10_100));
        advertiser.advertise(Mode::OnlyRouter, network(2), at(10_101));
        let sent = run(&mut advertiser, at(10_200));
        assert_eq!(prefixes(&sent[0].1), [(2, 5400, 2700), (3, 5400, 0)]);
    }

    #[test]
    fn a_goodbye_ends_routes_and_new_flows_but_not_addresses() {
        let mut advertiser = Advertiser::new(None, 7);
        advertiser.advertise(Mode::OnlyRouter, network(1), at(0));
        run(&mut advertiser, at(50));
        advertiser.close(at(51));
        advertiser.handle_solicitation(&solicitation(), at(51));
        let sent = run(&mut advertiser, at(1000));
        assert_eq!(
            sent.iter().map(|s| s.0).collect::<Vec<_>>(),
            [at(51), at(54), at(57)]
        );
        assert_eq!(router_lifetime(&sent[0].1), 0);
        assert_eq!(prefixes(&sent[0].1), [(1, 5400, 0)]);
        assert!(advertiser.is_silent());
        assert_eq!(advertiser.deadline(), Instant::NEVER);
        advertiser.advertise(Mode::OnlyRouter, network(1), at(1001));
        assert_eq!(run(&mut advertiser, at(1001)).len(), 1);
    }

    proptest! {
        #[test]
        fn two_are_never_closer_than_three_seconds_but_for_goodbye(events in proptest::collection::vec((0u64..30_000, 0u8..4, 0u16..4), 0..60), seed: u64) {
            let mut advertiser = Advertiser::new(None, seed);
            let (mut now, mut last) = (Instant::ZERO, None::<Instant>);
            for (ms, event, number) in events {
                now = now.after(Duration::from_millis(ms));
                for (time, message) in run(&mut advertiser, now) {
                    if let Some(last) = last {
                        prop_assert!(time.saturating_since(last) >= MIN_DELAY);
                    }
                    prop_assert!(message.len() <= 1240);
                    last = Some(time);
                }
                match event {
                    0 => advertiser.advertise(Mode::OnlyRouter, network(number), now),
                    1 => advertiser.advertise(Mode::BesideRouter, network(number), now),
                    _ => advertiser.handle_solicitation(&solicitation(), now),
                }
            }
        }
    }
}
