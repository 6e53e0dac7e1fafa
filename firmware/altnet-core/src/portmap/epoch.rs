//! Whether a gateway started anew since it was last heard, by the clock it sends along.

use altnet_wire::time::Instant;

use super::Protocol;

/// The gateway's clock when it was last heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch {
    by: Protocol,
    server_s: u32,
    at: Instant,
}

impl Epoch {
    pub(super) const fn new(by: Protocol, server_s: u32, at: Instant) -> Self {
        Self { by, server_s, at }
    }

    /// Whether the gateway that says `next` has forgotten what it knew at `self`.
    pub(super) fn is_broken_by(&self, next: &Self) -> bool {
        let elapsed_s = next.at.saturating_since(self.at).as_secs();
        let (before, after) = (u64::from(self.server_s), u64::from(next.server_s));
        match (self.by, next.by) {
            (Protocol::Pcp, Protocol::Pcp) => {
                // RFC 6887 section 8.5, with its own tolerances.
                let passed_s = after.saturating_sub(before);
                after + 1 < before
                    || elapsed_s + 2 < passed_s - passed_s / 16
                    || passed_s + 2 < elapsed_s - elapsed_s / 16
            }
            (Protocol::NatPmp, Protocol::NatPmp) => {
                // RFC 6886 section 3.6: clocks may be slow by an eighth, and two seconds.
                after + 2 < before + elapsed_s - elapsed_s.div_ceil(8)
            }
            // Two clocks that nobody promised to be one.
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_wire::time::Duration;

    fn check(by: Protocol, before: u32, elapsed_s: u64, after: u32, expected: bool) {
        let start = Instant::from_micros(7_000_000);
        let first = Epoch::new(by, before, start);
        let next = Epoch::new(by, after, start.after(Duration::from_secs(elapsed_s)));
        let broken = first.is_broken_by(&next);
        assert_eq!(broken, expected, "{by:?} {before} +{elapsed_s} s {after}");
    }

    #[test]
    fn a_pcp_clock_that_goes_on_is_the_same() {
        check(Protocol::Pcp, 100, 1000, 1100, false);
        // 8.5: two seconds and a sixteenth are forgiven, either way, and one second back.
        check(Protocol::Pcp, 100, 1600, 1700 - 98, false);
        check(Protocol::Pcp, 100, 1600, 1700 + 98, false);
        check(Protocol::Pcp, 100, 0, 99, false);
    }

    #[test]
    fn a_pcp_clock_that_jumps_is_another() {
        check(Protocol::Pcp, 100, 5, 0, true);
        check(Protocol::Pcp, 100, 0, 98, true);
        check(Protocol::Pcp, 100, 1600, 1400, true);
        check(Protocol::Pcp, 100, 100, 5000, true);
    }

    #[test]
    fn a_nat_pmp_clock_may_only_be_slow() {
        check(Protocol::NatPmp, 100, 800, 900, false);
        check(Protocol::NatPmp, 100, 800, 798, false);
        check(Protocol::NatPmp, 100, 800, 797, true);
        check(Protocol::NatPmp, 100, 5, 0, true);
        check(Protocol::NatPmp, 100, 5, 5000, false);
    }

    #[test]
    fn clocks_of_two_protocols_are_not_compared() {
        let first = Epoch::new(Protocol::Pcp, 100, Instant::ZERO);
        let next = Epoch::new(Protocol::NatPmp, 0, Instant::ZERO);
        assert!(!first.is_broken_by(&next));
    }
}
