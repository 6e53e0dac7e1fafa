//! `[[derp]]`: other people's DERP servers that this gateway may use.

use std::fmt;

use altnet_core::node::MAX_DERPERS;
use altnet_relay::trust::{Pin, Trust};
use serde::{Deserialize, Deserializer, Serialize};

use super::host::split;

/// The port of DERP (HTTPS).
const PORT: u16 = 443;

/// `[[derp]]`: a server that admits this gateway, by which members are reached that use it too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Derp {
    /// Its host and port, as `derp.example.net:443`; without a port 443.
    pub server: String,
    /// The only certificate it may show, as `sha256-raw:` and 64 hexadecimal digits. Without it one of
    /// its name by an authority that browsers know.
    #[serde(default)]
    pub pin: Option<String>,
}

impl Derp {
    /// The host's name or address, and the port.
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        split(&self.server, PORT)
    }

    /// How its certificate is judged; nothing if the pin is none.
    pub fn trust(&self) -> Option<Trust> {
        match &self.pin {
            Some(pin) => Some(Trust::Pin(pin.parse::<Pin>().ok()?)),
            None => Some(Trust::public()),
        }
    }
}

pub(super) fn servers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Derp>, D::Error> {
    let wrong = |what: &dyn fmt::Display| Err(serde::de::Error::custom(what));
    let all = Vec::<Derp>::deserialize(deserializer)?;
    if all.len() > MAX_DERPERS {
        return wrong(&format_args!(
            "there are at most {MAX_DERPERS} [[derp]] sections; remove some"
        ));
    }
    for one in &all {
        let server = &one.server;
        if one.host_and_port().is_none() {
            return wrong(&format_args!(
                "{server:?} is no DERP server; write \"derp.example.net\" or \"[2001:db8::5]:443\""
            ));
        }
        if one.trust().is_none() {
            return wrong(&format_args!(
                "the pin of DERP server {server} is written sha256-raw: and 64 hexadecimal digits"
            ));
        }
    }
    Ok(all)
}
