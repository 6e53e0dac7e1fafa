//! Whether a gateway started anew since it was last heard, by the clock it sends along.

use altnet_wire::time::Instant;

/// The gateway's clock when it was last heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch {
    server_s: u32,
    at: Instant,
}

impl Epoch {
    pub(super) const fn new(server_s: u32, at: Instant) -> Self {
        Self { server_s, at }
    }

    /// Whether a gateway that says `next` by PCP has forgotten what it knew at `self`.
    pub(super) fn is_broken_by(&self, next: &Self) -> bool {
        // RFC 6887 section 8.5, with its own tolerances.
        let elapsed_s = next.at.saturating_since(self.at).as_secs();
        let (before, after) = (u64::from(self.server_s), u64::from(next.server_s));
        let passed_s = after.saturating_sub(before);
        after + 1 < before
            || elapsed_s + 2 < passed_s - passed_s / 16
            || passed_s + 2 < elapsed_s - elapsed_s / 16
    }

    /// The same by NAT-PMP.
    pub(super) fn is_broken_by_old(&self, next: &Self) -> bool {
        // RFC 6886 section 3.6: clocks may be slow by an eighth, and two seconds.
        let elapsed_s = next.at.saturating_since(self.at).as_secs();
        let (before, after) = (u64::from(self.server_s), u64::from(next.server_s));
        after + 2 < before + elapsed_s - elapsed_s.div_ceil(8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_wire::time::Duration;

    type Law = fn(&Epoch, &Epoch) -> bool;
    const PCP: Law = Epoch::is_broken_by;
    const NAT_PMP: Law = Epoch::is_broken_by_old;

    fn check(law: Law, before: u32, elapsed_s: u64, after: u32, expected: bool) {
        let start = Instant::from_micros(7_000_000);
        let first = Epoch::new(before, start);
        let next = Epoch::new(after, start.after(Duration::from_secs(elapsed_s)));
        let broken = law(&first, &next);
        assert_eq!(broken, expected, "{before} +{elapsed_s} s {after}");
    }

    #[test]
    fn a_pcp_clock_that_goes_on_is_the_same() {
        check(PCP, 100, 1000, 1100, false);
        // 8.5: two seconds and a sixteenth are forgiven, either way, and one second back.
        check(PCP, 100, 1600, 1700 - 98, false);
        check(PCP, 100, 1600, 1700 + 98, false);
        check(PCP, 100, 0, 99, false);
    }

    #[test]
    fn a_pcp_clock_that_jumps_is_another() {
        check(PCP, 100, 5, 0, true);
        check(PCP, 100, 0, 98, true);
        check(PCP, 100, 1600, 1400, true);
        check(PCP, 100, 100, 5000, true);
    }

    #[test]
    fn a_nat_pmp_clock_may_only_be_slow() {
        check(NAT_PMP, 100, 800, 900, false);
        check(NAT_PMP, 100, 800, 798, false);
        check(NAT_PMP, 100, 800, 797, true);
        check(NAT_PMP, 100, 5, 0, true);
        check(NAT_PMP, 100, 5, 5000, false);
    }
}
