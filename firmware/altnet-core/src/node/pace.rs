//! How often things are said that nobody asked for: as usual, or as rarely as being reached allows,
//! where the line is paid by the byte (ADR 0015).
//!
//! Deliberately absent: what packets of people's cost. Those pass either way.

use altnet_tunnel::aead::Aead;
use altnet_wire::time::Duration;

use super::Node;
use crate::path;

/// A tunnel in use is kept open through NATs this often.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(25);

/// A choice of pauses.
#[derive(Debug)]
pub(super) struct Pace {
    /// A relay that registered us is kept by small datagrams alone from so long after on: what
    /// changes about a network does so around its beginning.
    pub(super) settled: Duration,
    /// Once something was relayed its relay is challenged for so long, to notice if it goes.
    pub(super) relay_in_use: Duration,
    /// How often the head of the audit log is shown to witnesses.
    pub(super) witnesses: Duration,
    /// Whether ways are searched through NATs that map endpoint-dependently: up to two thousand
    /// datagrams.
    pub(super) searches: bool,
    /// How the addresses of peers are tried.
    pub(super) path: path::Pace,
}

impl Pace {
    const USUAL: Self = Self {
        settled: Duration::from_secs(90),
        relay_in_use: Duration::from_secs(10),
        witnesses: Duration::from_secs(3600),
        searches: true,
        path: path::Pace::USUAL,
    };

    /// Where the line is paid by the byte. That a relay goes while something is relayed shows all the
    /// same, end to end (ADR 0016).
    const METERED: Self = Self {
        settled: Duration::from_secs(10),
        relay_in_use: Duration::ZERO,
        witnesses: Duration::from_secs(6 * 3600),
        searches: false,
        path: path::Pace::METERED,
    };
}

impl<A: Aead> Node<A> {
    /// How often things are said.
    pub(super) const fn pace(&self) -> &'static Pace {
        match self.config.metered {
            true => &Pace::METERED,
            false => &Pace::USUAL,
        }
    }

    /// How often a tunnel is kept open through NATs: where that costs, as rarely as they are known to
    /// bear.
    pub(super) fn keepalive(&self) -> Duration {
        match (self.config.metered, self.uplinks.survived()) {
            (true, Some(survived)) => survived.max(KEEPALIVE),
            _ => KEEPALIVE,
        }
    }
}
