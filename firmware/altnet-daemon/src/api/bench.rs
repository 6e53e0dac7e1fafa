//! `relay-bench`: what is asked and answered.

use serde::{Deserialize, Serialize};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bench {
    /// A relay's name or address.
    pub relay: String,
    /// The most bytes to send, each way; 2 MB if it isn't said.
    #[serde(default)]
    pub bytes: Option<u32>,
    /// Whether the line may be paid by the byte.
    #[serde(default)]
    pub even_if_metered: bool,
}

/// The result: a relay, measured by what this node sent itself through it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Benched {
    /// The relay's name.
    pub relay: String,
    /// Its id.
    pub node: String,
    /// By what this node reaches it: `udp` or `tls`.
    pub carrier: String,
    /// Small datagrams sent.
    pub pings: u16,
    /// Those that came back.
    pub answered: u16,
    /// The least round trip of those, in microseconds.
    pub rtt_least_us: Option<u64>,
    /// The median.
    pub rtt_median_us: Option<u64>,
    /// Large datagrams sent.
    pub datagrams: u32,
    /// Those that came back.
    pub came_back: u32,
    /// Bytes a second that it carried there and back at once, each way, at its best.
    pub rate_bytes_per_s: Option<u64>,
    /// Whether it may be more: the bytes that were allowed ended before a limit was reached.
    pub at_least: bool,
}
