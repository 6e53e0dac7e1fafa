//! `altnet.toml`: what a person decides about a gateway.
//!
//! Every key has a default, so an empty file is a good one; an unknown key is an error, so a
//! misspelt one is not a silent default. Bare numbers carry their unit in the key's name.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use altnet_core::limits::Limits;
use altnet_wire::id::{Name, SiteId};
use altnet_wire::record::MAX_FIXED_ENDPOINTS;
use serde::{Deserialize, Deserializer, Serialize};

use crate::log::Level;
use crate::tun::{MAX_MTU_BYTES, MIN_MTU_BYTES};

/// Where the file is unless somebody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/altnet/altnet.toml";
/// Where the local API listens unless the file says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/altnet/altnet.sock";
/// The largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 256 * 1024;
/// The most LANs a gateway serves.
pub const MAX_LANS: usize = 8;
/// The longest interface name, in bytes (`IFNAMSIZ` less its NUL).
const MAX_INTERFACE_BYTES: usize = 15;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where keys and records are kept.
    pub state_directory: PathBuf,
    /// The user to run as once sockets are open. Without one altnetd keeps its user and drops
    /// capabilities alone.
    pub user: Option<String>,
    /// How much is logged.
    pub log: Level,
    /// The UDP port of tunnels, control and relaying.
    pub listen_port: u16,
    /// Addresses at which this node can be reached from outside, beside those it finds out:
    /// of a host with a public address, or of a router's forwarded port.
    #[serde(deserialize_with = "public_addresses")]
    pub public_addresses: Vec<SocketAddr>,
    /// The network.
    pub network: Network,
    /// The TUN device.
    pub tun: Tun,
    /// The LANs this gateway serves.
    #[serde(deserialize_with = "lans")]
    pub lan: Vec<Lan>,
    /// Name service on the LANs.
    pub dns: Dns,
    /// The local API.
    pub api: Api,
    /// Prometheus metrics over HTTP.
    pub metrics: Metrics,
    /// Relaying for members.
    pub relay: Relay,
}

/// `[network]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// This home's own name for the network: `wiki.<petname>.alt`. Without one, the name that
    /// came with the invite.
    pub petname: Option<Name>,
}

/// `[tun]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tun {
    /// The device's name.
    #[serde(deserialize_with = "interface")]
    pub name: String,
    /// Its MTU in bytes, 1280 to 1420. 1280 passes every path; more is faster where paths
    /// carry it.
    #[serde(deserialize_with = "mtu")]
    pub mtu_bytes: u16,
}

/// `[[lan]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lan {
    /// The interface's name.
    #[serde(deserialize_with = "interface")]
    pub interface: String,
    /// The site of this LAN. Without one, the site of this node's membership.
    #[serde(default)]
    pub site: Option<SiteId>,
    /// What this gateway says in router advertisements.
    #[serde(default)]
    pub advertise: Advertise,
}

/// What a gateway says of itself on a LAN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Advertise {
    /// It is the LAN's IPv6 router: hosts take it as their default route.
    #[default]
    Router,
    /// Another router is the default; this one carries only the network's prefix.
    Beside,
    /// It says nothing; hosts are set up in another way.
    Off,
}

/// `[dns]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// Whether names are answered on the LANs.
    pub serve: bool,
    /// More addresses to answer on, beside the gateway's own on each LAN.
    pub listen: Vec<SocketAddr>,
    /// Resolvers for everything but `.alt`. Empty: those of `/etc/resolv.conf`, which altnetd
    /// reads and never writes.
    pub forward: Vec<Upstream>,
    /// How long one resolver is waited for, in milliseconds.
    pub timeout_ms: u32,
}

/// A resolver: an address, with port 53 unless it says another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Upstream(pub SocketAddr);

/// `[api]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// The socket's path.
    pub socket: PathBuf,
    /// The group whose members may operate the node.
    pub operators: String,
    /// What everybody else on this machine may do.
    pub others: Others,
}

/// What users may do who are neither root, nor altnetd's user, nor operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Others {
    /// Nothing.
    #[default]
    Refused,
    /// Look.
    Read,
}

/// `[metrics]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Where metrics are served over HTTP. Without one they are not.
    pub listen: Option<SocketAddr>,
}

/// `[relay]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Relay {
    /// The most members relayed for at a time, when this node's membership makes it a relay.
    pub clients: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_directory: "/var/lib/altnet".into(),
            user: None,
            log: Level::Info,
            listen_port: 51820,
            public_addresses: Vec::new(),
            network: Network::default(),
            tun: Tun::default(),
            lan: Vec::new(),
            dns: Dns::default(),
            api: Api::default(),
            metrics: Metrics::default(),
            relay: Relay::default(),
        }
    }
}

impl Default for Tun {
    fn default() -> Self {
        Self {
            name: "altnet0".into(),
            mtu_bytes: MIN_MTU_BYTES,
        }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            serve: true,
            listen: Vec::new(),
            forward: Vec::new(),
            timeout_ms: 2000,
        }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self {
            socket: DEFAULT_SOCKET.into(),
            operators: "altnet".into(),
            others: Others::Refused,
        }
    }
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            clients: Limits::ROUTER.relay_clients,
        }
    }
}

/// Why a file is not a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It can't be read.
    #[error(
        "can't read {path}; give the right file with --config, or write one (an empty one will do)"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The filesystem's reason.
        #[source]
        source: io::Error,
    },
    /// It is larger than a configuration can be.
    #[error("{path} is larger than {MAX_FILE_BYTES} bytes: that is no altnet.toml")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Something in it is wrong.
    #[error("{path}:{place}: {message}{}", quote(.line.as_deref(), .place))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where.
        place: Place,
        /// What, on one line.
        message: String,
        /// The line of the file.
        line: Option<String>,
    },
}

/// A place in a file, counted from 1 as editors do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

fn quote(line: Option<&str>, place: &Place) -> String {
    line.map_or_else(String::new, |line| {
        let number = place.line.to_string();
        let pad = " ".repeat(number.len());
        let before = " ".repeat(place.column.saturating_sub(1));
        format!("\n  {number} | {line}\n  {pad} | {before}^")
    })
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`], whose text names the line and says what to do.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable {
            path: path.into(),
            source,
        };
        if fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE_BYTES {
            return Err(ConfigError::TooLarge { path: path.into() });
        }
        Self::parse(path, &fs::read_to_string(path).map_err(unreadable)?)
    }

    /// Reads and checks `text`; `path` is named in errors.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|e| {
            let place = place(text, e.span().map_or(0, |span| span.start));
            let one_line: Vec<&str> = e.message().lines().map(str::trim).collect();
            ConfigError::Wrong {
                path: path.into(),
                place,
                message: one_line.join(" "),
                line: text.lines().nth(place.line - 1).map(str::to_owned),
            }
        })
    }

    /// What needs a restart to change, compared with `old`.
    pub fn restart_needed_since(&self, old: &Self) -> Vec<&'static str> {
        let mut keys = Vec::new();
        let mut check = |key, same: bool| {
            if !same {
                keys.push(key);
            }
        };
        check(
            "state_directory",
            self.state_directory == old.state_directory,
        );
        check("user", self.user == old.user);
        check("listen_port", self.listen_port == old.listen_port);
        check(
            "public_addresses",
            self.public_addresses == old.public_addresses,
        );
        check("[network]", self.network == old.network);
        check("[tun]", self.tun == old.tun);
        check("[dns]", self.dns == old.dns);
        check("[api]", self.api == old.api);
        check("[metrics]", self.metrics == old.metrics);
        check("[relay]", self.relay == old.relay);
        keys
    }
}

fn place(text: &str, at: usize) -> Place {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

fn interface<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    // What the kernel's dev_valid_name() takes, and no `%`, which it would number.
    let bad = |b: u8| b.is_ascii_whitespace() || b.is_ascii_control() || b"/:%".contains(&b);
    if name.is_empty() || name.len() > MAX_INTERFACE_BYTES || name == "." || name == ".." {
        return Err(serde::de::Error::custom(format_args!(
            "an interface name has 1 to {MAX_INTERFACE_BYTES} bytes; `ip link` shows them"
        )));
    }
    if name.bytes().any(bad) {
        return Err(serde::de::Error::custom(
            "an interface name has no spaces, `/`, `:` or `%`; `ip link` shows them",
        ));
    }
    Ok(name)
}

fn mtu<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let mtu = u16::deserialize(deserializer)?;
    if !(MIN_MTU_BYTES..=MAX_MTU_BYTES).contains(&mtu) {
        return Err(serde::de::Error::custom(format_args!(
            "mtu_bytes is {MIN_MTU_BYTES} (what IPv6 needs) to {MAX_MTU_BYTES} (what fits a tunnel)"
        )));
    }
    Ok(mtu)
}

fn public_addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<SocketAddr>, D::Error> {
    let addresses = Vec::<SocketAddr>::deserialize(deserializer)?;
    if addresses.len() > MAX_FIXED_ENDPOINTS {
        return Err(serde::de::Error::custom(format_args!(
            "a node has at most {MAX_FIXED_ENDPOINTS} public addresses; remove some"
        )));
    }
    Ok(addresses)
}

fn lans<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Lan>, D::Error> {
    let lans = Vec::<Lan>::deserialize(deserializer)?;
    if lans.len() > MAX_LANS {
        return Err(serde::de::Error::custom(format_args!(
            "a gateway serves at most {MAX_LANS} LANs; remove some [[lan]] sections"
        )));
    }
    for (i, lan) in lans.iter().enumerate() {
        if lans
            .iter()
            .take(i)
            .any(|other| other.interface == lan.interface)
        {
            return Err(serde::de::Error::custom(format_args!(
                "the LAN {} is there twice; remove one [[lan]] section",
                lan.interface
            )));
        }
    }
    Ok(lans)
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let with_port = text.parse::<SocketAddr>().ok();
        let address = text.parse::<IpAddr>().ok();
        with_port
            .or(address.map(|address| SocketAddr::new(address, 53)))
            .map(Self)
            .ok_or_else(|| {
                serde::de::Error::custom(format_args!(
                    "{text:?} is no resolver's address; write \"9.9.9.9\", \"2620:fe::fe\" or \"[2620:fe::fe]:53\""
                ))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("altnet.toml"), text)
    }

    /// The first line of the error is `expected`.
    fn check_wrong(text: &str, expected: &str) {
        let error = parse(text).unwrap_err().to_string();
        let first = error.lines().next().unwrap();
        assert_eq!(first, expected, "{text}");
    }

    #[test]
    fn an_empty_file_is_a_good_one() {
        let config = parse("").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!((config.listen_port, config.tun.mtu_bytes), (51820, 1280));
    }

    #[test]
    fn every_key_is_read() {
        let config = parse(
            r#"
            state_directory = "/tmp/state"
            user = "altnet"
            log = "debug"
            listen_port = 4500
            public_addresses = ["203.0.113.5:4500"]
            [network]
            petname = "home"
            [tun]
            name = "alt1"
            mtu_bytes = 1400
            [[lan]]
            interface = "br-lan"
            [[lan]]
            interface = "guest"
            site = 7
            advertise = "beside"
            [dns]
            serve = true
            listen = ["[::1]:53"]
            forward = ["9.9.9.9", "[2620:fe::fe]:5353"]
            timeout_ms = 1500
            [api]
            socket = "/tmp/a.sock"
            operators = "wheel"
            others = "read"
            [metrics]
            listen = "127.0.0.1:9551"
            [relay]
            clients = 16
            "#,
        )
        .unwrap();
        assert_eq!(config.lan[0].advertise, Advertise::Router);
        assert_eq!(config.lan[1].site, SiteId::new(7));
        assert_eq!(config.dns.forward[0].0, "9.9.9.9:53".parse().unwrap());
        assert_eq!(config.dns.forward[1].0.port(), 5353);
        assert_eq!(config.api.others, Others::Read);
        assert_eq!(parse(&toml::to_string(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn a_mistake_is_shown_where_it_is() {
        check_wrong(
            "[tun]\nmtu = 1400\n",
            "altnet.toml:2:1: unknown field `mtu`, expected `name` or `mtu_bytes`",
        );
        check_wrong(
            "[tun]\nmtu_bytes = 1500\n",
            "altnet.toml:2:13: mtu_bytes is 1280 (what IPv6 needs) to 1420 (what fits a tunnel)",
        );
        check_wrong(
            "[[lan]]\ninterface = \"a b\"\n",
            "altnet.toml:2:13: an interface name has no spaces, `/`, `:` or `%`; `ip link` shows them",
        );
        check_wrong(
            "[dns]\nforward = [\"one\"]\n",
            "altnet.toml:2:11: \"one\" is no resolver's address; write \"9.9.9.9\", \"2620:fe::fe\" or \"[2620:fe::fe]:53\"",
        );
        let quoted = parse("listen_port = 70000").unwrap_err().to_string();
        assert!(
            quoted.ends_with("\n  1 | listen_port = 70000\n    |               ^"),
            "{quoted}"
        );
    }

    #[test]
    fn a_lan_is_served_once() {
        let twice = "[[lan]]\ninterface = \"a\"\n[[lan]]\ninterface = \"a\"\n";
        let error = parse(twice).unwrap_err().to_string();
        assert!(error.contains("the LAN a is there twice"), "{error}");
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        let old = Config::default();
        let new = parse("listen_port = 1\n[dns]\nserve = false").unwrap();
        assert_eq!(new.restart_needed_since(&old), ["listen_port", "[dns]"]);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            if let Err(e) = parse(&text) {
                let _ = e.to_string();
            }
        }
    }
}
