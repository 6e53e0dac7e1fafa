//! An LDAP directory: a name and a password are asked of it, and whether somebody is still there.
//!
//! In: the `[[ldap]]` part of the config, what somebody typed, who was logged in before. Out: an
//! [`Identity`] with their DN and groups, or why not. It promises that nothing of what is typed can
//! change the filter, that no password crosses a network in plain text, that an empty one is
//! refused before the server could call it an anonymous bind, and that no server makes it panic,
//! recurse or keep more than a megabyte. It follows no referrals and changes nothing there.
//!
//! The three operations of LDAP that this needs are written here rather than taken from the
//! `ldap3` crate: version 0.12 panics on answers it doesn't expect (in this binary a panic ends
//! the process, and before StartTLS anybody on the way can send one), reads messages of any length
//! and nests as deep as they say.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::directory::{Identity, SignInError, Standing};
use connection::{Connection, Fault, Security, Server};
use filter::Filter;
pub use filter::FilterError;
use message::{Entry, Outcome, PolicyError, Scope, Search, code};

mod ber;
mod connection;
mod dn;
mod filter;
mod message;

/// How long a sign-in or a second look may take, all its connections together.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server may take for one search.
const TIME_LIMIT_S: u32 = 8;
/// How many groups are asked for; who is in more is in these.
const MAX_GROUPS: u32 = 1000;
/// How long the name of a group may be; a longer one is left out.
const MAX_GROUP_BYTES: usize = 1024;
/// How long a name or a password may be.
const MAX_TYPED_BYTES: usize = 256;
/// How long the file with the password may be.
const MAX_SECRET_BYTES: u64 = 1024;

/// How a directory is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `ldaps://host:port`, or `ldap://host:port` with `start_tls`; without either only for an
    /// address of this machine itself, as 127.0.0.1. The port may be left out: 636 and 389.
    pub url: String,
    /// Whether TLS begins after the connection does.
    #[serde(default)]
    pub start_tls: bool,
    /// Who may have signed the server's certificate, as PEM; Mozilla's roots if absent.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The DN below which people are.
    pub base: String,
    /// Whom the gateway itself binds as, to search.
    pub bind_dn: String,
    /// The file with that account's password, which only its owner may read.
    pub bind_password_file: PathBuf,
    /// Which entry is the person who typed `{}`: one or none.
    #[serde(default = "Settings::default_user_filter")]
    pub user_filter: String,
    /// What holds the name that policies use.
    #[serde(default = "Settings::default_name_attribute")]
    pub name_attribute: String,
    /// What holds a person's groups.
    #[serde(default = "Settings::default_group_attribute")]
    pub group_attribute: String,
    /// The DN below which groups are, for a directory whose people don't know theirs.
    #[serde(default)]
    pub group_base: Option<String>,
    /// Which groups have the member with the DN `{}`; `(member={})` if absent.
    #[serde(default)]
    pub group_filter: Option<String>,
    /// Which people are switched off, of those who are looked up again too: `(pwdAccountLockedTime=*)` for OpenLDAP's password policy,
    /// `(nsAccountLock=TRUE)` for 389, `(userAccountControl:1.2.840.113556.1.4.803:=2)` for
    /// Active Directory.
    #[serde(default)]
    pub disabled_filter: Option<String>,
}

impl Settings {
    fn default_user_filter() -> String {
        "(uid={})".to_owned()
    }

    fn default_name_attribute() -> String {
        "uid".to_owned()
    }

    fn default_group_attribute() -> String {
        "memberOf".to_owned()
    }
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// No URL of a directory.
    #[error("{0:?} isn't ldaps://host:port or ldap://host:port")]
    Url(String),
    /// Passwords would cross a network in plain text.
    #[error(
        "{0} would send passwords in plain text: use ldaps:// or start_tls = true, or write 127.0.0.1 for this machine"
    )]
    Plain(String),
    /// One of the filters isn't one.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// One of the attributes isn't the name of one.
    #[error("{0:?} isn't the name of an attribute")]
    Attribute(String),
    /// The service account has no DN.
    #[error("bind_dn is empty: say which account the gateway searches with")]
    NoAccount,
    /// A file can't be read.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not, and what to do about it.
        reason: String,
    },
}

/// A directory that can be asked. Keeps no connection.
pub struct Directory {
    server: Server,
    base: String,
    bind_dn: String,
    bind_password: Zeroizing<String>,
    user_filter: Filter,
    name_attribute: String,
    group_attribute: String,
    groups: Option<(String, Filter)>,
    disabled: Option<Filter>,
    any: Filter,
}

impl Directory {
    /// Reads what the settings name. Doesn't connect: a directory may come up later.
    ///
    /// # Errors
    /// [`SettingsError`] says which setting and what to write instead.
    pub fn new(settings: &Settings) -> Result<Directory, SettingsError> {
        let attribute = |name: &String| {
            filter::described(name).map_err(|_| SettingsError::Attribute(name.clone()))
        };
        if settings.bind_dn.is_empty() {
            return Err(SettingsError::NoAccount);
        }
        let groups = match &settings.group_base {
            None => None,
            Some(base) => {
                let filter = settings.group_filter.as_deref().unwrap_or("(member={})");
                Some((base.clone(), Filter::parse(filter, true)?))
            }
        };
        let disabled = settings.disabled_filter.as_deref();
        Ok(Directory {
            server: server(settings)?,
            base: settings.base.clone(),
            bind_dn: settings.bind_dn.clone(),
            bind_password: secret(&settings.bind_password_file)?,
            user_filter: Filter::parse(&settings.user_filter, true)?,
            name_attribute: attribute(&settings.name_attribute)?,
            group_attribute: attribute(&settings.group_attribute)?,
            groups,
            disabled: disabled
                .map(|filter| Filter::parse(filter, false))
                .transpose()?,
            any: Filter::any(),
        })
    }

    /// Asks who `name` with `password` is.
    ///
    /// # Errors
    /// [`SignInError::Wrong`] for a name or password that isn't right, [`SignInError::Expired`] and
    /// [`SignInError::Revoked`] where the directory says so, [`SignInError::Unreachable`] for all
    /// that is no answer.
    pub async fn sign_in(&self, name: &str, password: &str) -> Result<Identity, SignInError> {
        // A DN with an empty password binds anonymously, with success (RFC 4513 section 5.1.2).
        if password.is_empty() || password.len() > MAX_TYPED_BYTES {
            return Err(SignInError::Wrong);
        }
        if name.is_empty() || name.len() > MAX_TYPED_BYTES {
            return Err(SignInError::Wrong);
        }
        match tokio::time::timeout(TIMEOUT, self.sign_in_untimed(name, password)).await {
            Ok(Ok(decided)) => decided,
            Ok(Err(fault)) => Err(SignInError::Unreachable(self.described(&fault))),
            Err(_) => Err(SignInError::Unreachable(self.described(&Fault::Late))),
        }
    }

    /// Looks up somebody who signed in before.
    pub async fn look_again(&self, identity: &Identity) -> Standing {
        match tokio::time::timeout(TIMEOUT, self.look_again_untimed(&identity.handle)).await {
            Ok(Ok(standing)) => standing,
            Ok(Err(fault)) => Standing::Unreachable(self.described(&fault)),
            Err(_) => Standing::Unreachable(self.described(&Fault::Late)),
        }
    }

    async fn sign_in_untimed(
        &self,
        name: &str,
        password: &str,
    ) -> Result<Result<Identity, SignInError>, Fault> {
        let mut service = self.service().await?;
        // One more than there may be, to see that there is.
        let (mut entries, ended) = service
            .search(&self.search(&self.base, Scope::Subtree, 2, &self.user_filter, name))
            .await?;
        if ended == code::NO_SUCH_OBJECT {
            return Err(Fault::Missing(self.base.clone()));
        }
        let entry = match (entries.pop(), entries.is_empty(), ended) {
            (Some(entry), true, code::SUCCESS) if !entry.dn.is_empty() => entry,
            _ => return Ok(Err(SignInError::Wrong)),
        };
        let outcome = Connection::open(&self.server)
            .await?
            .bind(&entry.dn, password)
            .await?;
        if let Err(refused) = judged(outcome)? {
            return Ok(Err(refused));
        }
        // Only who knows the password learns that the account is switched off.
        if self.is_disabled(&mut service, &entry.dn).await? {
            return Ok(Err(SignInError::Revoked));
        }
        self.identity(&mut service, entry).await.map(Ok)
    }

    async fn look_again_untimed(&self, dn: &str) -> Result<Standing, Fault> {
        let mut service = self.service().await?;
        let (entries, ended) = service
            .search(&self.search(dn, Scope::Base, 1, &self.any, ""))
            .await?;
        let Some(entry) = entries.into_iter().next() else {
            // The limit is one: a server that sends none and says that was too much is no answer.
            return match ended {
                code::SIZE_LIMIT_EXCEEDED => Err(Fault::Malformed),
                _ => Ok(Standing::Ended(SignInError::Revoked)),
            };
        };
        if self.is_disabled(&mut service, dn).await? {
            return Ok(Standing::Ended(SignInError::Revoked));
        }
        let identity = self.identity(&mut service, entry).await?;
        Ok(Standing::Holds(identity))
    }

    /// A connection that is bound as the service account.
    async fn service(&self) -> Result<Connection, Fault> {
        let mut connection = Connection::open(&self.server).await?;
        let outcome = connection.bind(&self.bind_dn, &self.bind_password).await?;
        match outcome.code {
            code::SUCCESS => Ok(connection),
            _ => Err(Fault::refused("gateway's own bind", outcome)),
        }
    }

    fn search<'a>(
        &'a self,
        base: &'a str,
        scope: Scope,
        limit: u32,
        filter: &'a Filter,
        name: &'a str,
    ) -> Search<'a> {
        Search {
            base,
            scope,
            limit,
            time_limit_s: TIME_LIMIT_S,
            filter,
            name,
            // "1.1" asks for no attribute at all (RFC 4511 section 4.5.1.8).
            attributes: &["1.1"],
        }
    }

    async fn is_disabled(&self, service: &mut Connection, dn: &str) -> Result<bool, Fault> {
        let Some(filter) = &self.disabled else {
            return Ok(false);
        };
        let (entries, _) = service
            .search(&self.search(dn, Scope::Base, 1, filter, ""))
            .await?;
        Ok(!entries.is_empty())
    }

    /// Who `entry` is, by what it says of itself and by the groups that have it.
    async fn identity(&self, service: &mut Connection, entry: Entry) -> Result<Identity, Fault> {
        let attributes = [self.name_attribute.as_str(), self.group_attribute.as_str()];
        let (entries, _) = service
            .search(&Search {
                attributes: &attributes,
                ..self.search(&entry.dn, Scope::Base, 1, &self.any, "")
            })
            .await?;
        let entry = entries.into_iter().next().ok_or(Fault::Malformed)?;
        let name = entry.values(&self.name_attribute).find(|name| fits(name));
        let name = name.ok_or_else(|| {
            Fault::Missing(format!("{} in {} that fits", self.name_attribute, entry.dn))
        })?;
        let mut groups: BTreeSet<String> = entry
            .values(&self.group_attribute)
            .filter(|group| group.len() <= MAX_GROUP_BYTES)
            .take(MAX_GROUPS as usize)
            .map(written_one_way)
            .collect();
        if let Some((base, filter)) = &self.groups {
            let search = self.search(base, Scope::Subtree, MAX_GROUPS, filter, &entry.dn);
            let (found, _) = service.search(&search).await?;
            groups.extend(found.iter().map(|group| written_one_way(&group.dn)));
        }
        Ok(Identity {
            subject: written_one_way(&entry.dn),
            name: name.to_owned(),
            groups,
            expires: None,
            handle: Zeroizing::new(entry.dn),
        })
    }

    fn described(&self, fault: &Fault) -> String {
        format!("the directory {} ({fault})", self.server.host)
    }
}

/// What a bind's outcome means for whoever typed the password.
fn judged(outcome: Outcome) -> Result<Result<(), SignInError>, Fault> {
    Ok(match (outcome.code, outcome.policy) {
        (_, Some(PolicyError::AccountLocked)) => Err(SignInError::Revoked),
        // After a reset the server takes nothing but a new password.
        (_, Some(PolicyError::PasswordExpired | PolicyError::ChangeAfterReset)) => {
            Err(SignInError::Expired)
        }
        (code::SUCCESS, _) => Ok(()),
        (code::INVALID_CREDENTIALS, _) => Err(by_active_directory(&outcome.diagnostic)),
        _ => return Err(Fault::refused("bind", outcome)),
    })
}

/// Active Directory has no policy control; it writes a Win32 error in hex behind `data `.
fn by_active_directory(diagnostic: &str) -> SignInError {
    let error = diagnostic
        .split_once(", data ")
        .and_then(|(_, rest)| rest.split(',').next());
    match error {
        // Password expired, account expired, password must be reset.
        Some("532" | "701" | "773") => SignInError::Expired,
        // Disabled, locked out.
        Some("533" | "775") => SignInError::Revoked,
        _ => SignInError::Wrong,
    }
}

/// Whether a name can be shown and compared.
fn fits(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_TYPED_BYTES && !name.chars().any(char::is_control)
}

/// A DN in the one way that configs write it; anything else as it is.
fn written_one_way(value: &str) -> String {
    dn::normalized(value).unwrap_or_else(|| value.to_owned())
}

/// Where the settings' URL leads.
fn server(settings: &Settings) -> Result<Server, SettingsError> {
    let wrong = || SettingsError::Url(settings.url.clone());
    let (is_tls, rest) = match settings.url.split_once("://") {
        Some(("ldaps", rest)) if !settings.start_tls => (true, rest),
        Some(("ldap", rest)) => (false, rest),
        _ => return Err(wrong()),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
            (host, port.strip_prefix(':'))
        }
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let port = match port {
        None => {
            if is_tls {
                636
            } else {
                389
            }
        }
        Some(port) => port.parse().map_err(|_| wrong())?,
    };
    let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
    // A name, even localhost, is whatever a resolver makes of it.
    let is_here = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let security = match (is_tls, settings.start_tls) {
        (true, _) => Security::Tls(tls(settings.ca_file.as_deref())?, name),
        (false, true) => Security::StartTls(tls(settings.ca_file.as_deref())?, name),
        (false, false) if is_here => Security::Plain,
        (false, false) => return Err(SettingsError::Plain(settings.url.clone())),
    };
    Ok(Server {
        host: host.to_owned(),
        port,
        security,
    })
}

fn tls(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, SettingsError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let failed = |reason: String| SettingsError::File {
                path: path.to_owned(),
                reason,
            };
            let certificates = CertificateDer::pem_file_iter(path)
                .map_err(|error| failed(format!("can't be read as PEM: {error}")))?;
            for certificate in certificates {
                let certificate =
                    certificate.map_err(|error| failed(format!("isn't PEM: {error}")))?;
                roots
                    .add(certificate)
                    .map_err(|error| failed(format!("holds no CA that can be used: {error}")))?;
            }
            if roots.is_empty() {
                return Err(failed(
                    "holds no certificate; put the CA there as PEM".into(),
                ));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has ciphers for TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A password out of a file that nobody else may read, without the newline at its end.
fn secret(path: &Path) -> Result<Zeroizing<String>, SettingsError> {
    let failed = |reason: String| SettingsError::File {
        path: path.to_owned(),
        reason,
    };
    let mut file = File::open(path).map_err(|error| failed(format!("can't be read: {error}")))?;
    let metadata = file.metadata().map_err(|error| failed(error.to_string()))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(failed("others may read this password: chmod 600 it".into()));
    }
    if metadata.len() > MAX_SECRET_BYTES {
        return Err(failed(format!("is longer than {MAX_SECRET_BYTES} bytes")));
    }
    let mut text = Zeroizing::new(String::with_capacity(MAX_SECRET_BYTES as usize + 1));
    file.by_ref()
        .take(MAX_SECRET_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| failed(format!("can't be read: {error}")))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    match secret.is_empty() {
        true => Err(failed(
            "is empty; write the account's password into it".into(),
        )),
        false => Ok(Zeroizing::new(secret.to_owned())),
    }
}

/// Reads an answer as [`Directory`] does, and what it writes one way.
pub(crate) fn untrusted(bytes: &[u8]) {
    let _ = ber::element_length(bytes);
    if let Ok(message) = message::decode(bytes)
        && let message::Response::Entry(entry) = message.response
    {
        let _ = written_one_way(&entry.dn);
        entry
            .values("memberOf")
            .for_each(|group| drop(written_one_way(group)));
    }
}

#[cfg(test)]
mod tests;
