//! `[[router.wifi]]`: an access point a radio, with one or more names.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::words::{Name, Port, Secret};

/// `[[router.wifi]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wifi {
    /// The radio's interface. Without one, that of the section's place in the file: `port:radio1` for the first.
    #[serde(default)]
    pub radio: Option<Port>,
    /// The country whose law it keeps to: two capitals, as `CH` (ISO 3166-1).
    pub country: String,
    /// The band.
    #[serde(default)]
    pub band: Band,
    /// The channel. Without one, 6 at 2.4 GHz, 36 at 5 GHz, 37 at 6 GHz.
    #[serde(default)]
    pub channel: Option<u8>,
    /// How wide a channel is.
    #[serde(default)]
    pub width: Width,
    /// The names under which it is found, and what they lead to.
    pub ssid: Vec<Ssid>,
}

/// Bands, by their frequency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Band {
    /// 2.4 GHz: far, and crowded.
    #[default]
    #[serde(rename = "2.4")]
    Two,
    /// 5 GHz.
    #[serde(rename = "5")]
    Five,
    /// 6 GHz: WPA3 alone.
    #[serde(rename = "6")]
    Six,
}

/// Widths of a channel, in MHz.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Width {
    /// 20 MHz: what everything can.
    #[default]
    #[serde(rename = "20")]
    Twenty,
    /// 40 MHz.
    #[serde(rename = "40")]
    Forty,
    /// 80 MHz, at 5 and 6 GHz.
    #[serde(rename = "80")]
    Eighty,
}

/// `[[router.wifi.ssid]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ssid {
    /// The name that people see, 1 to 32 bytes.
    pub name: String,
    /// How it is kept.
    #[serde(default)]
    pub security: Security,
    /// The password, 8 to 63 characters. The file is to be unreadable for others then.
    #[serde(default)]
    pub password: Option<Secret>,
    /// A file that holds the password, in its first line.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The network it leads to. Without one, the first.
    #[serde(default)]
    pub network: Option<Name>,
    /// Whether machines on it are kept from each other. They always are on a network that is `isolated`.
    #[serde(default)]
    pub isolated: bool,
    /// Whether the name isn't said aloud.
    #[serde(default)]
    pub hidden: bool,
}

/// How a Wi-Fi is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    /// WPA3, and WPA2 for what doesn't know it.
    #[default]
    Wpa2Wpa3,
    /// WPA3 alone.
    Wpa3,
    /// WPA2 alone, for radios that can't do better.
    Wpa2,
    /// No password, and yet encrypted (RFC 8110).
    Owe,
    /// Nothing.
    Open,
}
