//! How many handshakes are computed: a rate for all, and one for each source.

use alloc::boxed::Box;
use alloc::vec;

use altnet_wire::endpoint::Endpoint;
use altnet_wire::time::{Duration, Instant};
use zeroize::Zeroizing;

use crate::cookie::{mac, source_bytes};
use crate::random::Random;

/// Handshake messages a second from one source that proved its address, while under load
/// (the figures of WireGuard's Linux implementation, `ratelimiter.c`).
const SOURCE_PER_S: u16 = 20;
const SOURCE_BURST: u16 = 5;

/// A rate with a burst: the generic cell rate algorithm (ITU-T I.371), one moment of state.
#[derive(Clone, Copy, Debug)]
struct Rate {
    interval: Duration,
    tolerance: Duration,
}

impl Rate {
    fn new(per_s: u16, burst: u16) -> Self {
        let interval = Duration::from_secs(1) / u32::from(per_s.max(1));
        Self {
            interval,
            tolerance: interval * u32::from(burst.max(1) - 1),
        }
    }

    /// Whether one more is within the rate; `due` is when the next would come if they came
    /// evenly.
    fn take(&self, due: &mut Instant, now: Instant) -> bool {
        if *due > now.after(self.tolerance) {
            return false;
        }
        *due = (*due).max(now).after(self.interval);
        true
    }
}

/// Decides whether a node is under load.
pub(super) struct Load {
    rate: Rate,
    due: Instant,
    source_rate: Rate,
    sources: Box<[Instant]>,
    key: Zeroizing<[u8; 32]>,
}

impl Load {
    pub(super) fn new(per_s: u16, burst: u16, sources: u16, random: &mut Random) -> Self {
        Self {
            rate: Rate::new(per_s, burst),
            due: Instant::ZERO,
            source_rate: Rate::new(SOURCE_PER_S, SOURCE_BURST),
            sources: vec![Instant::ZERO; usize::from(sources.max(1))].into_boxed_slice(),
            key: random.secret(),
        }
    }

    /// Whether a handshake message may be computed without asking for a cookie.
    pub(super) fn is_light(&mut self, now: Instant) -> bool {
        self.rate.take(&mut self.due, now)
    }

    /// Whether a source that proved its address may be computed for. Sources share a fixed
    /// number of buckets by a secret hash, so a crowd can't make the table grow and nobody
    /// can choose whom to share with.
    pub(super) fn allows(&mut self, from: &Endpoint, now: Instant) -> bool {
        let from = match from {
            // All ports of an address are one source.
            Endpoint::Direct(address) => {
                let mut address = *address;
                address.set_port(0);
                Endpoint::Direct(address)
            }
            relayed => *relayed,
        };
        let [a, b, c, d, ..] = mac(self.key.as_slice(), &[&source_bytes(&from)]);
        let at = u32::from_le_bytes([a, b, c, d]) as usize % self.sources.len();
        self.sources
            .get_mut(at)
            .is_some_and(|due| self.source_rate.take(due, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_and_then_the_rate_counts() {
        let rate = Rate::new(10, 3);
        let mut due = Instant::ZERO;
        let start = Instant::from_micros(5_000_000);
        let taken = |due: &mut Instant, now| (0..9).filter(|_| rate.take(due, now)).count();
        assert_eq!(taken(&mut due, start), 3);
        assert_eq!(taken(&mut due, start.after(Duration::from_millis(99))), 0);
        assert_eq!(taken(&mut due, start.after(Duration::from_millis(100))), 1);
        assert_eq!(taken(&mut due, start.after(Duration::from_secs(60))), 3);
    }

    #[test]
    fn one_source_does_not_use_up_another() {
        let mut load = Load::new(1, 1, 64, &mut Random::new([0; 32]));
        let source = |last: u8, port| Endpoint::Direct(([192, 0, 2, last], port).into());
        let now = Instant::from_micros(1);
        let taken = (0..20).filter(|p| load.allows(&source(1, *p), now)).count();
        assert_eq!(taken, usize::from(SOURCE_BURST));
        let others = (2..40).filter(|last| load.allows(&source(*last, 1), now));
        assert!(others.count() > 30);
    }
}
