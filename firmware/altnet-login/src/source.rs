//! Whom the page asks: each configured directory, and its own codes, behind one face.

use std::time::Duration;

use crate::codes::Codes;
use crate::config::{Config, ConfigError, Counted, Rules};
use crate::directory::{Identity, Standing};
use crate::firebase::Firebase;
use crate::ldap;
use crate::oidc::Provider;
use crate::pki::Authority;

/// What the page can ask.
pub enum Directory {
    /// Codes that an administrator gave out.
    Codes(Codes),
    /// OpenID Connect.
    Oidc(Box<Provider>),
    /// Firebase.
    Firebase(Box<Firebase>),
    /// LDAP.
    Ldap(Box<ldap::Directory>),
    /// Certificates.
    Pki(Box<Authority>),
}

/// A directory and what counts of it.
pub struct Source {
    /// Its name on the page.
    pub name: String,
    /// How it is told to altnetd, and what its logins are kept under: `oidc Work`.
    pub how: String,
    /// The directory.
    pub directory: Directory,
    /// Who counts as whom.
    pub rules: Rules,
    /// How long somebody stays logged in.
    pub session: Duration,
}

impl Source {
    /// Everything that is configured. Codes come first.
    ///
    /// # Errors
    /// [`ConfigError`] if a file that is named can't be used.
    pub fn all(config: &Config, codes: Codes) -> Result<Vec<Self>, ConfigError> {
        let minutes = |own: Option<u32>| {
            let minutes = own.unwrap_or(config.session_minutes);
            Duration::from_secs(60 * u64::from(minutes))
        };
        let mut all = vec![Self {
            name: "a code".into(),
            how: "code".into(),
            directory: Directory::Codes(codes),
            rules: Rules::default(),
            session: minutes(None),
        }];
        for section in &config.oidc {
            let number = all
                .iter()
                .filter(|s| matches!(s.directory, Directory::Oidc(_)))
                .count()
                + 1;
            let url = config.url.as_deref().unwrap_or_default();
            let redirect = format!("{url}/oidc/{number}/callback");
            all.push(Self {
                name: section.name.get_ref().clone(),
                how: format!("oidc {}", section.name.get_ref()),
                directory: Directory::Oidc(Box::new(Provider::new(section, redirect)?)),
                rules: section.rules(),
                session: minutes(section.session_minutes),
            });
        }
        for section in &config.firebase {
            all.push(Self {
                name: section.name.get_ref().clone(),
                how: format!("firebase {}", section.name.get_ref()),
                directory: Directory::Firebase(Box::new(Firebase::new(section)?)),
                rules: section.rules(),
                session: minutes(section.session_minutes),
            });
        }
        for section in &config.ldap {
            let made = ldap::Directory::new(&section.server);
            let made = made.map_err(|e| unusable(&section.name, &e))?;
            all.push(Self {
                name: section.name.get_ref().clone(),
                how: format!("ldap {}", section.name.get_ref()),
                directory: Directory::Ldap(Box::new(made)),
                rules: section.rules(),
                session: minutes(section.session_minutes),
            });
        }
        for section in &config.pki {
            let made = Authority::new(&section.authority);
            let made = made.map_err(|e| unusable(&section.name, &e))?;
            all.push(Self {
                name: section.name.get_ref().clone(),
                how: format!("pki {}", section.name.get_ref()),
                directory: Directory::Pki(Box::new(made)),
                rules: section.rules(),
                session: minutes(section.session_minutes),
            });
        }
        Ok(all)
    }

    /// Whether a login that altnetd has came from this page.
    pub fn is_how(how: &str) -> bool {
        let kind = how.split(' ').next().unwrap_or_default();
        matches!(kind, "code" | "oidc" | "firebase" | "ldap" | "pki")
    }

    /// Whom `identity` counts as; nothing if as nobody.
    pub fn count(&self, identity: &Identity) -> Option<Counted> {
        match &self.directory {
            // A code is given out in policy's own words.
            Directory::Codes(_) => Some(Counted {
                person: Some(identity.name.clone()).filter(|name| !name.is_empty()),
                groups: identity.groups.iter().cloned().collect(),
            }),
            _ => self.rules.count(identity),
        }
    }

    /// Whether somebody is still there.
    pub async fn look_again(&self, identity: &Identity) -> Standing {
        match &self.directory {
            Directory::Codes(codes) => {
                let (codes, id) = (codes.clone(), identity.subject.clone());
                // The lock and the medium may take their time.
                let looked = tokio::task::spawn_blocking(move || codes.look_again(&id));
                let looked = looked.await;
                looked.unwrap_or_else(|e| Standing::Unreachable(e.to_string()))
            }
            Directory::Oidc(provider) => provider.look_again(identity).await,
            Directory::Firebase(firebase) => firebase.look_again(identity).await,
            Directory::Ldap(directory) => directory.look_again(identity).await,
            Directory::Pki(authority) => authority.look_again(identity).await,
        }
    }
}

fn unusable(name: &toml::Spanned<String>, why: &dyn std::error::Error) -> ConfigError {
    ConfigError::Directory {
        name: name.get_ref().clone(),
        message: why.to_string(),
    }
}
