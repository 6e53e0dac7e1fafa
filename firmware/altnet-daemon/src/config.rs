//! `altnet.toml`: what a person decides about a gateway.
//!
//! Every key has a default, so an empty file is a good one; an unknown key is an error, so a
//! misspelt one is not a silent default. Bare numbers carry their unit in the key's name.

use std::net::SocketAddr;
use std::path::PathBuf;

use altnet_core::audit;
use altnet_core::limits::Limits;
use altnet_core::relay::Quotas;
use altnet_router::config::Router;
use altnet_updater::config::Update;
use altnet_wire::id::{Name, SiteId};
use serde::{Deserialize, Serialize};

use crate::log::Level;
use crate::tun::MIN_MTU_BYTES;

mod check;
mod derp;
mod file;
mod host;
mod house;
mod openwrt;
mod socket;
mod turn;

use check::{
    audit_bytes, interface, lans, mac, machines, mtu, port, proxy, public_addresses, vlan,
    without_password,
};
pub use derp::Derp;
pub use file::ConfigError;
pub use house::resolver_addresses;
pub use openwrt::UCI_PATH;
pub use socket::default_socket;
pub use turn::{Password, PasswordError, Transport, Turn};

/// Where the file is unless somebody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/altnet/altnet.toml";
/// The largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 256 * 1024;
/// The most LANs a gateway serves.
pub const MAX_LANS: usize = 8;
/// The most sections about machines on the LANs.
pub const MAX_MACHINES: usize = 64;

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
    /// Whether this node's line to the internet is paid by the byte. Then nothing is sent that being
    /// reached doesn't take.
    pub metered: bool,
    /// The HTTP proxy through which relays are reached where nothing else passes:
    /// `http://[user:password@]host:port`.
    #[serde(deserialize_with = "proxy", serialize_with = "without_password")]
    pub proxy: Option<String>,
    /// Other people's TURN servers, by which peers are reached where nothing better is left.
    #[serde(deserialize_with = "turn::servers")]
    pub turn: Vec<Turn>,
    /// Other people's DERP servers, by which members are reached that use them too.
    #[serde(deserialize_with = "derp::servers")]
    pub derp: Vec<Derp>,
    /// The network.
    pub network: Network,
    /// The TUN device.
    pub tun: Tun,
    /// The LANs this gateway serves.
    #[serde(deserialize_with = "lans")]
    pub lan: Vec<Lan>,
    /// Machines on the LANs that are in groups by where they are.
    #[serde(deserialize_with = "machines")]
    pub machines: Vec<Machines>,
    /// Name service on the LANs.
    pub dns: Dns,
    /// The local API.
    pub api: Api,
    /// Prometheus metrics over HTTP.
    pub metrics: Metrics,
    /// Relaying for members.
    pub relay: Relay,
    /// The login page for machines without software.
    pub login: Login,
    /// TLS of apps.
    pub tls: Tls,
    /// The audit log.
    pub audit: Audit,
    /// A port on the router before this machine.
    pub port_mapping: PortMapping,
    /// Where an appliance's releases come from. `altnet update` goes by it, altnetd doesn't.
    pub update: Update,
    /// The router of the house, where this machine is it. `altnet-routerd` carries it out; without the section somebody else
    /// routes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<Router>,
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

/// `[[machines]]`: machines on the LANs that count as in groups of the policy, as far as the policy
/// lets this gateway say so. All that is given has to fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machines {
    /// The groups.
    pub groups: Vec<Name>,
    /// The port of the LAN's bridge that they are plugged into; a Wi-Fi network is one too.
    #[serde(default, deserialize_with = "port")]
    pub port: Option<String>,
    /// The VLAN that they are in, 1 to 4094.
    #[serde(default, deserialize_with = "vlan")]
    pub vlan: Option<u16>,
    /// The MAC address of one.
    #[serde(default, deserialize_with = "mac")]
    pub mac: Option<String>,
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
    /// At which addresses of this machine there.
    pub answers: Answers,
    /// More addresses to answer on, beside the gateway's own on each LAN.
    pub listen: Vec<SocketAddr>,
    /// Resolvers for everything but `.alt`. Empty: those of `/etc/resolv.conf`, which altnetd
    /// reads and never writes.
    pub forward: Vec<Upstream>,
    /// How long one resolver is waited for, in milliseconds.
    pub timeout_ms: u32,
}

/// The addresses on the LANs at which names are answered, always at port 53.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answers {
    /// The gateway's own address in the network, on the LAN of its site.
    #[default]
    Own,
    /// Every address that this machine has on any of the LANs: it is their resolver, of IPv4 too, and before it joins.
    Every,
    /// None but those in `listen`: another resolver serves the LANs.
    Listed,
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
    /// Whether a gateway relays for members on its LANs, whether or not its membership makes it a relay.
    pub lan: bool,
    /// Where TLS is served, as `[::]:443`, for those whose networks pass no UDP. Without it, nowhere.
    pub listen: Option<SocketAddr>,
    /// The certificate and its chain, a PEM file. Without one, one that is made once and signed by
    /// itself: members don't need more.
    pub certificate: Option<PathBuf>,
    /// Its key, a PEM file.
    pub key: Option<PathBuf>,
    /// The folder in which altnet-acme keeps a certificate that it gets and renews. It is shown once it is
    /// there; until then, the one above, or that which is signed by itself.
    pub acme: Option<PathBuf>,
    /// A file with DERP keys, a line each, of clients of Tailscale's that this relay serves too.
    pub derp_clients: Option<PathBuf>,
    /// How many megabits a second are forwarded for one member at most; 0 for as many as come.
    pub rate_mbit: u32,
    /// How many gigabytes are forwarded for one member in thirty days at most, counted from when altnetd started; 0
    /// for as many as come.
    pub monthly_gb: u32,
    /// How many megabits a second this machine's line carries upwards. Members then share it fairly, and are told
    /// when it is full; 0 if it is no matter.
    pub uplink_mbit: u32,
}

impl Relay {
    /// What that comes to in bytes.
    pub fn quotas(&self) -> Quotas {
        const BYTES_PER_MBIT: u32 = 1_000_000 / 8;
        Quotas {
            rate_bytes_per_s: self.rate_mbit.saturating_mul(BYTES_PER_MBIT),
            month_bytes: u64::from(self.monthly_gb) * 1_000_000_000,
            uplink_bytes_per_s: self.uplink_mbit.saturating_mul(BYTES_PER_MBIT),
        }
    }
}

/// `[login]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Login {
    /// The group that altnet-login runs as, which may log machines on the LANs in and out, and
    /// nothing else. With one, `login.<network>.alt` leads to this gateway.
    pub group: Option<String>,
    /// Whether the page has a certificate of the network's authority: then one is asked for, which
    /// an owner signs with `altnet-provision tls sign`.
    pub tls: bool,
}

/// `[tls]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The program `altnet-tls`, in which the TLS of apps ends. Without one, the one beside
    /// altnetd's own.
    pub command: Option<PathBuf>,
}

/// `[audit]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// The most that the audit log takes of the state directory's disk, in bytes, 65536 to
    /// 1073741824. 8388608 hold more than 30 days of a busy home; the oldest entries go first.
    #[serde(deserialize_with = "audit_bytes")]
    pub max_bytes: u32,
}

/// `[port_mapping]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PortMapping {
    /// Whether the router before this machine is asked to let `listen_port` through, by PCP,
    /// NAT-PMP or UPnP. Without, peers behind strict NATs may need a relay.
    pub enabled: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_directory: "/var/lib/altnet".into(),
            user: None,
            log: Level::Info,
            listen_port: 51820,
            public_addresses: Vec::new(),
            metered: false,
            network: Network::default(),
            tun: Tun::default(),
            lan: Vec::new(),
            machines: Vec::new(),
            dns: Dns::default(),
            api: Api::default(),
            metrics: Metrics::default(),
            proxy: None,
            turn: Vec::new(),
            derp: Vec::new(),
            relay: Relay::default(),
            login: Login::default(),
            tls: Tls::default(),
            audit: Audit::default(),
            port_mapping: PortMapping::default(),
            update: Update::default(),
            router: None,
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
            answers: Answers::Own,
            listen: Vec::new(),
            forward: Vec::new(),
            timeout_ms: 2000,
        }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self {
            socket: default_socket(),
            operators: "altnet".into(),
            others: Others::Refused,
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            max_bytes: audit::Limits::ROUTER.max_bytes,
        }
    }
}

impl Default for PortMapping {
    fn default() -> Self {
        Self { enabled: true }
    }
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            clients: Limits::ROUTER.relay_clients,
            lan: true,
            listen: None,
            certificate: None,
            key: None,
            acme: None,
            derp_clients: None,
            rate_mbit: 0,
            monthly_gb: 0,
            uplink_mbit: 0,
        }
    }
}

impl Config {
    /// Every key or section that differs from `old`.
    pub fn changed_since(&self, old: &Self) -> Vec<&'static str> {
        let mut keys = self.restart_needed_since(old);
        if self.lan != old.lan {
            keys.push("[[lan]]");
        }
        if self.machines != old.machines {
            keys.push("[[machines]]");
        }
        if self.log != old.log {
            keys.push("log");
        }
        keys
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
        check("metered", self.metered == old.metered);
        check("proxy", self.proxy == old.proxy);
        check("[[turn]]", self.turn == old.turn);
        check("[[derp]]", self.derp == old.derp);
        check("[network]", self.network == old.network);
        check("[tun]", self.tun == old.tun);
        check("[dns]", self.dns == old.dns);
        check("[api]", self.api == old.api);
        check("[metrics]", self.metrics == old.metrics);
        check("[relay]", self.relay == old.relay);
        check("[login]", self.login == old.login);
        check("[tls]", self.tls == old.tls);
        check("[audit]", self.audit == old.audit);
        check("[port_mapping]", self.port_mapping == old.port_mapping);
        let resolves_at = |config: &Self| {
            config
                .house()
                .map(|house| house::resolver_addresses(&house))
        };
        check("[[router.network]]", resolves_at(self) == resolves_at(old));
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    /// A file in which every key stands.
    pub(super) const EVERY_KEY: &str = r#"
state_directory = "/tmp/state"
user = "altnet"
log = "debug"
listen_port = 4500
public_addresses = ["203.0.113.5:4500"]
metered = true
proxy = "http://proxy.example.net:3128"
[[turn]]
server = "turn.example.net"
username = "anna"
password = "sesame"
[[turn]]
server = "[2001:db8::5]:443"
transport = "tcp"
username = "anna"
password_file = "/etc/altnet/turn.password"
[[derp]]
server = "derp.example.net"
[[derp]]
server = "192.0.2.7:8443"
pin = "sha256-raw:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
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
[[machines]]
groups = ["guests"]
port = "lan4"
vlan = 20
[[machines]]
groups = ["children", "players"]
mac = "02:00:00:AB:00:7f"
[dns]
serve = true
answers = "every"
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
listen = "[::]:443"
certificate = "/etc/altnet/relay.pem"
key = "/etc/altnet/relay.key"
derp_clients = "/etc/altnet/derp-clients"
rate_mbit = 20
monthly_gb = 500
uplink_mbit = 100
lan = false
acme = "/var/lib/altnet-acme"
[login]
group = "altnet-login"
tls = true
[tls]
command = "/usr/libexec/altnet-tls"
[audit]
max_bytes = 1048576
[port_mapping]
enabled = false
[update]
from = "https://get.example/altnet/"
ca = "/etc/altnet/update-ca.pem"
"#;

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
    fn a_turn_server_has_a_name_a_user_and_one_password() {
        let turn = |text: &str| parse(&format!("[[turn]]\n{text}")).unwrap_err().to_string();
        for (text, expected) in [
            (
                "server = \"turn:a\"\nusername = \"a\"\npassword = \"b\"",
                "is no TURN server",
            ),
            (
                "server = \"a\"\nusername = \"\"\npassword = \"b\"",
                "the username of TURN server a",
            ),
            (
                "server = \"a\"\nusername = \"a\"",
                "needs either a password or a password_file",
            ),
            (
                "server = \"a\"\nusername = \"a\"\npassword = \"\"",
                "the password of TURN server a",
            ),
            (
                "server = \"a\"\nusername = \"a\"\npassword = \"b\"\npassword_file = \"c\"",
                "needs either a password or a password_file",
            ),
        ] {
            let said = turn(text);
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn a_derp_server_has_a_name_and_maybe_a_pin() {
        for (text, expected) in [
            ("server = \"https://derp\"", "is no DERP server"),
            (
                "server = \"derp\"\npin = \"12\"",
                "the pin of DERP server derp",
            ),
        ] {
            let said = parse(&format!("[[derp]]\n{text}")).unwrap_err().to_string();
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn an_empty_file_is_a_good_one() {
        let config = parse("").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!((config.listen_port, config.tun.mtu_bytes), (51820, 1280));
    }

    #[test]
    fn every_key_is_read() {
        let config = parse(EVERY_KEY).unwrap();
        assert_eq!(
            config.derp[0].host_and_port(),
            Some(("derp.example.net", 443))
        );
        assert_eq!(config.turn[1].transport, Transport::Tcp);
        assert!(config.turn[0].credentials().is_ok());
        assert_eq!(config.lan[0].advertise, Advertise::Router);
        assert_eq!(config.lan[1].site, SiteId::new(7));
        assert_eq!(config.machines[0].port.as_deref(), Some("lan4"));
        assert_eq!(config.machines[1].mac.as_deref(), Some("02:00:00:ab:00:7f"));
        assert_eq!(config.dns.forward[0].0, "9.9.9.9:53".parse().unwrap());
        assert_eq!(config.dns.forward[1].0.port(), 5353);
        assert_eq!(config.api.others, Others::Read);
        let quotas = config.relay.quotas();
        assert_eq!(quotas.rate_bytes_per_s, 2_500_000);
        assert_eq!(quotas.month_bytes, 500_000_000_000);
        assert_eq!(quotas.uplink_bytes_per_s, 12_500_000);
        assert_eq!(Config::default().relay.quotas(), Quotas::default());
        assert!(!config.relay.lan && Config::default().relay.lan);
        assert!(config.metered && !Config::default().metered);
        assert!(!config.port_mapping.enabled && Config::default().port_mapping.enabled);
        let mut shown = parse(&toml::to_string(&config).unwrap()).unwrap();
        assert_ne!(shown, config, "the password is not shown");
        shown.turn[0].password.clone_from(&config.turn[0].password);
        assert_eq!(shown, config);
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
    fn machines_are_somewhere_and_in_groups() {
        let check = |text: &str, expected: &str| {
            let error = parse(&format!("[[machines]]\n{text}")).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("port = \"lan4\"", "missing field `groups`");
        check(
            "groups = []\nvlan = 2",
            "give these machines a group of the policy",
        );
        check("groups = [\"a\"]", "say which: by port, vlan or mac");
        check("groups = [\"a\"]\nvlan = 0", "a VLAN's id is 1 to 4094");
        check("groups = [\"a\"]\nvlan = 4095", "a VLAN's id is 1 to 4094");
        check(
            "groups = [\"a\"]\nmac = \"2:0:0:0:0:1\"",
            "written like \"02:00:5e:00:53:01\"",
        );
        check("groups = [\"a\"]\nport = \"a b\"", "an interface name");
        let nine: Vec<String> = (0..9)
            .map(|n| format!("groups = [\"g{n}\"]\nvlan = 2\n"))
            .collect();
        check(&nine.join("[[machines]]\n"), "name at most 8 groups in all");
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
