//! How eagerly the addresses of a peer are tried.

use altnet_wire::time::Duration;

/// A choice of pauses and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Challenges in a row to an address that has not answered, before it rests.
    pub probes_in_a_row: u8,
    /// How long an address rests that didn't answer.
    pub rest: Duration,
    /// How often a direct path in use is challenged on which nothing is sent.
    pub confirm_unused: Duration,
}

impl Pace {
    /// Where bytes cost nothing.
    pub const USUAL: Self = Self {
        probes_in_a_row: 6,
        rest: Duration::from_secs(60),
        confirm_unused: Duration::from_secs(30),
    };

    /// Where they do. Three challenges pass NATs on both sides whose owners try at once: the first
    /// opens ours, the second comes after the peer's first.
    pub const METERED: Self = Self {
        probes_in_a_row: 3,
        rest: Duration::from_secs(600),
        confirm_unused: Duration::from_secs(120),
    };
}
