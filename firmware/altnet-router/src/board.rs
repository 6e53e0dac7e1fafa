//! What a board has: its ports by role. A value, so that no code knows a board.

use serde::{Deserialize, Serialize};

/// The most LAN ports or radios of a board.
pub const MAX_PORTS: usize = 32;

/// A board's ports, by the names that the kernel gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ports {
    /// The port that leads to the provider: `port:wan`.
    pub wan: Option<String>,
    /// The ports for the house, in the order of their labels: `port:lan1` is the first, `port:lan` all of them.
    pub lan: Vec<String>,
    /// The Wi-Fi interfaces: `port:radio1` is the first.
    pub radios: Vec<String>,
}

impl Ports {
    /// Ports with which a file is checked away from its board: any role that it may name is there.
    pub fn any() -> Self {
        let numbered = |role: &str| (1..=MAX_PORTS).map(|n| format!("{role}{n}")).collect();
        Self {
            wan: Some("wan".into()),
            lan: numbered("lan"),
            radios: numbered("wlan"),
        }
    }
}
