//! `login.toml`: where the page listens, and whom it asks who somebody is.
//!
//! A value that isn't given has the default written here. Secrets are in files of their own that
//! nobody else can read.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use zeroize::Zeroizing;

pub use file::ConfigError;
pub use rules::{Counted, MAX_GROUPS, Person, Rules, is_policy_name};

mod check;
mod file;
mod rules;

/// Where the configuration is.
pub const DEFAULT_PATH: &str = "/etc/altnet/login.toml";
/// altnetd's socket, as in altnetd's own default.
pub const DEFAULT_SOCKET: &str = "/run/altnet/altnet.sock";
/// The largest configuration, and the largest file that it names, in bytes.
pub const MAX_FILE_BYTES: u64 = 256 * 1024;
/// The most directories of one kind.
pub const MAX_DIRECTORIES: usize = 16;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Addresses for plain HTTP.
    #[serde(deserialize_with = "check::listen")]
    pub listen: Vec<SocketAddr>,
    /// The page's own address as browsers see it, without a path: `https://login.home.example`.
    /// OpenID Connect needs it, and plain HTTP is sent there if it begins with `https:`.
    #[serde(deserialize_with = "check::url")]
    pub url: Option<String>,
    /// Where codes and logins are kept.
    pub state_directory: PathBuf,
    /// How long somebody stays logged in.
    #[serde(deserialize_with = "check::session_minutes")]
    pub session_minutes: u32,
    /// How long somebody stays logged in whose directory doesn't answer.
    #[serde(deserialize_with = "check::grace_minutes")]
    pub grace_minutes: u32,
    /// How often everybody is looked up again.
    #[serde(deserialize_with = "check::look_again_seconds")]
    pub look_again_seconds: u32,
    /// The page over HTTPS.
    pub tls: Option<Tls>,
    /// OpenID Connect providers.
    #[serde(deserialize_with = "check::directories")]
    pub oidc: Vec<Oidc>,
    /// Firebase projects.
    #[serde(deserialize_with = "check::directories")]
    pub firebase: Vec<Firebase>,
    /// LDAP directories.
    #[serde(deserialize_with = "check::directories")]
    pub ldap: Vec<Ldap>,
    /// Authorities whose certificates people have.
    #[serde(deserialize_with = "check::directories")]
    pub pki: Vec<Pki>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![(Ipv6Addr::UNSPECIFIED, 80).into()],
            url: None,
            state_directory: "/var/lib/altnet-login".into(),
            session_minutes: 720,
            grace_minutes: 60,
            look_again_seconds: 30,
            tls: None,
            oidc: Vec::new(),
            firebase: Vec::new(),
            ldap: Vec::new(),
            pki: Vec::new(),
        }
    }
}

/// The page over HTTPS.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Addresses for HTTPS.
    #[serde(default = "https", deserialize_with = "check::listen")]
    pub listen: Vec<SocketAddr>,
    /// Whether altnetd brings a certificate of the network's authority, as `tls = true` below
    /// `[login]` in altnet.toml has it ask for one.
    #[serde(default)]
    pub from_network: bool,
    /// A PEM file: the certificate, then those that vouch for it.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// A PEM file that only the owner can read: its key.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Addresses for HTTPS that ask for a client's certificate.
    #[serde(default)]
    pub client_certificates: Vec<SocketAddr>,
}

impl Tls {
    /// The files with the certificate and the key, unless altnetd brings both.
    pub fn files(&self) -> Option<(&Path, &Path)> {
        let files = self.certificate.as_deref().zip(self.key.as_deref());
        files.filter(|_| !self.from_network)
    }
}

fn https() -> Vec<SocketAddr> {
    vec![(Ipv6Addr::UNSPECIFIED, 443).into()]
}

/// A directory's section: fields of its own and those that every directory has.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($fields:tt)* }) => {
        $(#[$doc])*
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Its name on the page, 1 to 64 characters.
            #[serde(deserialize_with = "check::name")]
            pub name: Spanned<String>,
            /// From the directory's groups to those of policy; others count for nothing.
            #[serde(default, deserialize_with = "check::policy_names")]
            pub groups: BTreeMap<String, String>,
            /// From the directory's subject or name to a person of policy.
            #[serde(default, deserialize_with = "check::policy_names")]
            pub people: BTreeMap<String, String>,
            /// Who is who that isn't in `people`.
            #[serde(default)]
            pub person: Person,
            /// Instead of the page's own.
            #[serde(default, deserialize_with = "check::some_session_minutes")]
            pub session_minutes: Option<u32>,
            $($fields)*
        }

        impl $name {
            /// Who counts as whom.
            pub fn rules(&self) -> Rules {
                Rules {
                    groups: self.groups.clone(),
                    people: self.people.clone(),
                    person: self.person,
                }
            }
        }
    };
}

section! {
    /// An OpenID Connect provider.
    Oidc {
        /// Its issuer, exactly as it calls itself.
        #[serde(deserialize_with = "check::endpoint")]
        pub issuer: String,
        /// What it calls this page.
        pub client_id: String,
        /// A file with what proves that this page is it; a public client has none.
        #[serde(default)]
        pub client_secret_file: Option<PathBuf>,
        /// What is asked for. `offline_access` is left out where the provider doesn't have it.
        #[serde(default = "scopes")]
        pub scopes: Vec<String>,
        /// The claim that has the groups.
        #[serde(default = "groups_claim")]
        pub groups_claim: String,
        /// The claim that has the name.
        #[serde(default = "name_claim")]
        pub name_claim: String,
        /// Certificate authorities in PEM, besides the public ones.
        #[serde(default)]
        pub ca_file: Option<PathBuf>,
    }
}

section! {
    /// A Firebase project.
    Firebase {
        /// The project's id.
        pub project: String,
        /// The project's web API key, which is not a secret.
        pub api_key: String,
        /// The custom claim that has the groups.
        #[serde(default = "groups_claim")]
        pub groups_claim: String,
        /// Instead of where Google publishes its keys.
        #[serde(default, deserialize_with = "check::some_endpoint")]
        pub keys_url: Option<String>,
        /// Instead of `https://identitytoolkit.googleapis.com`.
        #[serde(default, deserialize_with = "check::some_endpoint")]
        pub identity_url: Option<String>,
        /// Instead of `https://securetoken.googleapis.com/v1/token`.
        #[serde(default, deserialize_with = "check::some_endpoint")]
        pub token_url: Option<String>,
        /// The Local Emulator Suite's host and port on this machine. Its tokens are not signed:
        /// whoever reaches this page can write one.
        #[serde(default, deserialize_with = "check::emulator")]
        pub emulator_host: Option<SocketAddr>,
        /// Certificate authorities in PEM, besides the public ones.
        #[serde(default)]
        pub ca_file: Option<PathBuf>,
    }
}

section! {
    /// An LDAP directory.
    Ldap {
        /// `[ldap.server]`: where it is and how it is asked.
        pub server: crate::ldap::Settings,
    }
}

section! {
    /// An authority whose certificates people have.
    Pki {
        /// `[pki.authority]`: which, and who says what it revoked.
        pub authority: crate::pki::Settings,
    }
}

fn scopes() -> Vec<String> {
    ["openid", "profile", "offline_access"]
        .map(String::from)
        .to_vec()
}

fn groups_claim() -> String {
    "groups".into()
}

fn name_claim() -> String {
    "preferred_username".into()
}

impl Config {
    /// How often everybody is looked up again.
    pub fn look_again(&self) -> Duration {
        Duration::from_secs(self.look_again_seconds.into())
    }

    /// Whether the page is meant to be seen over HTTPS alone.
    pub fn wants_https(&self) -> bool {
        self.url.as_ref().is_some_and(|u| u.starts_with("https:"))
    }
}

/// Reads a secret from a file, without the newline at its end.
///
/// # Errors
/// [`ConfigError::OpenSecret`] if others can read it; [`ConfigError::Unreadable`],
/// [`ConfigError::TooLarge`], [`ConfigError::NoText`].
pub fn secret(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let bytes = secret_bytes(path)?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| ConfigError::NoText { path: path.into() })?;
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).into()))
}

/// Reads a file that holds a secret.
///
/// # Errors
/// As [`secret`].
pub fn secret_bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    file::read(path, true)
}

/// Reads a file that holds none.
///
/// # Errors
/// As [`secret`].
pub fn public_bytes(path: &Path) -> Result<Vec<u8>, ConfigError> {
    Ok(file::read(path, false)?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, error: &str) {
        let found = Config::parse(Path::new("login.toml"), text).unwrap_err();
        let found = found.to_string();
        assert!(found.contains(error), "{found}");
    }

    const OIDC: &str = r#"url = "http://login.example"
[[oidc]]
name = "Work"
issuer = "https://id.example"
client_id = "altnet"
"#;

    #[test]
    fn an_empty_file_is_a_configuration() {
        let config = Config::parse(Path::new("login.toml"), "").unwrap();
        assert_eq!(config.listen, ["[::]:80".parse().unwrap()]);
        assert_eq!(config.look_again_seconds, 30);
        assert!(!config.wants_https());
    }

    #[test]
    fn a_whole_section_is_read() {
        let text = format!(
            "{OIDC}groups = {{ staff = \"team\" }}\npeople = {{ \"ann@example\" = \"ann\" }}\nperson = \"name\"\nsession_minutes = 5\n"
        );
        let config = Config::parse(Path::new("login.toml"), &text).unwrap();
        let oidc = &config.oidc[0];
        assert_eq!(oidc.name.get_ref(), "Work");
        assert_eq!(oidc.groups["staff"], "team");
        assert_eq!(oidc.person, Person::Name);
        assert_eq!(oidc.session_minutes, Some(5));
    }

    #[test]
    fn the_documented_file_is_a_configuration() {
        let page = include_str!("../../docs/login.md");
        let text = page.split("```toml").nth(1).unwrap();
        let text = text.split("```").next().unwrap();
        let config = Config::parse(Path::new("login.toml"), text).unwrap();
        let directories = [
            config.ldap.len(),
            config.oidc.len(),
            config.firebase.len(),
            config.pki.len(),
        ];
        assert_eq!(directories, [1; 4]);
        assert!(config.wants_https());
    }

    #[test]
    fn an_error_names_its_place_and_the_remedy() {
        check(
            "look_again_seconds = 31",
            "login.toml:1:22: look_again_seconds is 1 to 30",
        );
        check("lisen = []", "login.toml:1:1: unknown field `lisen`");
        check("listen = []", "give at least one address");
        check("url = \"https://a/b\"", "login.toml:1:7: ");
        check(
            &format!("{OIDC}groups = {{ a = \"B c\" }}"),
            "login.toml:6:",
        );
        check(
            &OIDC.replace("https://id", "http://id"),
            "login.toml:4:10: ",
        );
        check(
            &OIDC.replace("url = \"http://login.example\"", ""),
            "login.toml:3:8: ",
        );
        check(
            &format!("{OIDC}{}", OIDC.split_once('\n').unwrap().1),
            "login.toml:7:8: ",
        );
        check("url = \"https://a\"", "needs [tls]");
        check("[tls]\ncertificate = \"a\"\n", "a certificate and its key");
        check(
            "[tls]\nfrom_network = true\nkey = \"a\"\n",
            "a certificate and its key",
        );
        check("[tls]\nfrom_network = true\n", "url = \"https:");
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("secret");
        std::fs::write(&path, "hush\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        mode(0o600);
        assert_eq!(*secret(&path).unwrap(), "hush");
        for open in [0o640, 0o604] {
            mode(open);
            let error = secret(&path).unwrap_err();
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }
}
