//! `/etc/config/altnet`: the same keys as in `altnet.toml`, where OpenWrt's people write them.
//!
//! The options of `config altnet` are the keys at the top, `config dns` is `[dns]`, each `config lan` is a
//! `[[lan]]`, and so on. One section more, `config openwrt`, says how altnetd and what OpenWrt brings go
//! together; the package's init script reads it too.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use altnet_service::{mistake, uci};
use serde::Deserialize;

use super::{Answers, Config, ConfigError, Upstream};

/// Where the file is on OpenWrt.
pub const UCI_PATH: &str = "/etc/config/altnet";
/// The kind of section whose options are the keys at the top.
const MAIN: &str = "altnet";
/// The kind of section that is about OpenWrt.
const OWN: &str = "openwrt";

/// `config openwrt`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct OpenWrt {
    /// Whether altnetd is started at boot. The init script's affair.
    enabled: bool,
    /// Who answers names on the LANs.
    dns: Handover,
    /// The port at which the other one is asked: dnsmasq if altnetd is the resolver, altnetd if it is
    /// behind dnsmasq.
    dns_port: u16,
    /// Whether the package gave altnet its interface and its zone. Written by it, as is
    /// the list of what it made.
    set_up: bool,
    made: Vec<String>,
}

/// Who answers names on the LANs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Handover {
    /// altnetd, which asks dnsmasq for everything but `.alt`.
    Resolver,
    /// dnsmasq, which asks altnetd for `.alt`.
    #[default]
    Behind,
    /// As `config dns` says; dnsmasq is left alone.
    None,
}

impl Default for OpenWrt {
    fn default() -> Self {
        Self {
            enabled: true,
            dns: Handover::Behind,
            dns_port: 5300,
            set_up: false,
            made: Vec::new(),
        }
    }
}

impl OpenWrt {
    fn apply(&self, config: &mut Config) {
        let other = SocketAddr::from((Ipv4Addr::LOCALHOST, self.dns_port));
        match self.dns {
            Handover::Resolver => {
                config.dns.answers = Answers::Every;
                if config.dns.forward.is_empty() {
                    config.dns.forward.push(Upstream(other));
                }
            }
            Handover::Behind => {
                config.dns.answers = Answers::Listed;
                config.dns.listen.push(other);
            }
            Handover::None => {}
        }
    }
}

impl Config {
    /// Reads and checks the UCI file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`], whose text names the line and says what to do.
    pub fn load_uci(path: &Path) -> Result<Self, ConfigError> {
        let text = super::file::read(path)?;
        let config = Self::parse_uci(path, &text)?;
        config.refuse_exposed(path)?;
        Ok(config)
    }

    /// Reads and checks UCI; `path` is named in errors.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`].
    pub fn parse_uci(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut file = uci::File::parse(path, text)?;
        let around: Around = file.take(OWN).read("")?;
        let mut config: Self = file.read(MAIN)?;
        if config.router.is_some() {
            let at = text.find("router").unwrap_or(0);
            let message = "OpenWrt is the router here, by its own files; remove this section";
            return Err(mistake::Mistake::at(path, text, at, message.into()).into());
        }
        around.openwrt.apply(&mut config);
        Ok(config)
    }
}

/// A file's sections that are no keys of ours.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Around {
    openwrt: OpenWrt,
}

#[cfg(test)]
mod tests {
    use super::super::tests::EVERY_KEY;
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse_uci(Path::new("altnet"), text)
    }

    /// Neither side of the handover, so that what is read is what is written.
    const ALONE: &str = "config openwrt\n\toption dns none\n";

    fn word(value: &toml::Value) -> String {
        match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Boolean(is) => u8::from(*is).to_string(),
            other => other.to_string(),
        }
    }

    fn options(table: &toml::Table) -> String {
        let mut text = String::new();
        for (name, value) in table {
            match value {
                toml::Value::Array(all) => {
                    for one in all {
                        text += &format!("\tlist {name} '{}'\n", word(one));
                    }
                }
                value => text += &format!("\toption {name} '{}'\n", word(value)),
            }
        }
        text
    }

    /// TOML as UCI.
    fn translated(text: &str) -> String {
        let (mut top, mut sections) = (toml::Table::new(), String::new());
        let mut section = |name: &str, table: &toml::Value| {
            sections += &format!("config {name}\n{}", options(table.as_table().unwrap()));
        };
        for (name, value) in text.parse::<toml::Table>().unwrap() {
            match &value {
                toml::Value::Table(_) => section(&name, &value),
                toml::Value::Array(all) if all.iter().all(toml::Value::is_table) => {
                    all.iter().for_each(|one| section(&name, one));
                }
                _ => {
                    top.insert(name, value);
                }
            }
        }
        format!("{ALONE}{sections}config altnet\n{}", options(&top))
    }

    /// Every key of a configuration and of its sections, as `dns.serve`.
    fn keys(name: &str, value: &serde_json::Value, found: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(table) => {
                for (key, value) in table {
                    keys(format!("{name}.{key}").trim_matches('.'), value, found);
                }
            }
            serde_json::Value::Array(all) if all.iter().any(serde_json::Value::is_object) => {
                all.iter().for_each(|one| keys(name, one, found));
            }
            _ => {
                found.insert(name.into());
            }
        }
    }

    #[test]
    fn every_key_has_its_option() {
        let config = Config::parse(Path::new("altnet.toml"), EVERY_KEY).unwrap();
        assert_eq!(parse(&translated(EVERY_KEY)).unwrap(), config);
        // Nothing is left out of that file: what serde knows is what stands there.
        let (mut known, mut written) = (BTreeSet::new(), BTreeSet::new());
        keys("", &serde_json::to_value(&config).unwrap(), &mut known);
        let text: toml::Table = EVERY_KEY.parse().unwrap();
        keys("", &serde_json::to_value(text).unwrap(), &mut written);
        assert_eq!(known, written);
        // A list of sections that is empty would hide its keys.
        let empty = serde_json::to_value(Config::default()).unwrap();
        let empty: BTreeMap<String, serde_json::Value> = serde_json::from_value(empty).unwrap();
        for name in empty.keys() {
            let is_key = |key: &String| key == name || key.starts_with(&format!("{name}."));
            assert!(written.iter().any(is_key), "{name} is not in EVERY_KEY");
        }
    }

    #[test]
    fn an_empty_file_puts_altnetd_behind_dnsmasq() {
        let config = parse("").unwrap();
        let mut expected = Config::default();
        expected.dns.answers = Answers::Listed;
        expected.dns.listen = vec!["127.0.0.1:5300".parse().unwrap()];
        assert_eq!(config, expected);
        assert_eq!(parse(ALONE).unwrap(), Config::default());
    }

    #[test]
    fn as_resolver_it_asks_dnsmasq() {
        let text = "config openwrt\noption dns resolver\noption dns_port 54\n";
        let dns = parse(text).unwrap().dns;
        assert_eq!(dns.answers, Answers::Every);
        assert_eq!(dns.forward[0].0, "127.0.0.1:54".parse().unwrap());
        let text = format!("{text}config dns\nlist forward 9.9.9.9\n");
        let dns = parse(&text).unwrap().dns;
        assert_eq!(dns.forward[0].0, "9.9.9.9:53".parse().unwrap());
    }

    #[test]
    fn a_mistake_names_its_line_and_option() {
        for (text, expected) in [
            (
                "config tun\nconfig router\n",
                "altnet:2:8: OpenWrt is the router here",
            ),
            (
                "config tun\n\toption mtu_bytes 1500\n",
                "altnet:2:9: mtu_bytes: mtu_bytes is 1280",
            ),
            (
                "config openwrt\n\toption dns first\n",
                "altnet:2:9: dns: unknown variant `first`, expected one of `resolver`, `behind`, `none`",
            ),
            (
                "config lan\n\toption interface br-lan\nconfig lan\n\toption interface br-lan\n",
                "the LAN br-lan is there twice",
            ),
            (
                "config metrics\n\toption listen 9551\n",
                "altnet:2:9: listen: invalid socket address",
            ),
        ] {
            let said = parse(text).unwrap_err().to_string();
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn a_password_is_in_a_file_that_others_cannot_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("altnet");
        let text = "config turn\noption server a\noption username b\noption password sesame\n";
        fs::write(&path, text).unwrap();
        for (mode, is_good) in [(0o600, true), (0o644, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Config::load_uci(&path).is_ok(), is_good, "{mode:o}");
        }
    }
}
