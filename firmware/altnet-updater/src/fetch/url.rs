//! Where something is fetched from.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most bytes of an address.
const MAX_BYTES: usize = 2048;

/// An `http://` or `https://` address without a login, in what printable ASCII can say (RFC 3986).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Url {
    is_tls: bool,
    /// A name or an address, this one without brackets.
    host: String,
    port: Option<u16>,
    /// From its first slash on.
    path: String,
}

/// A text that is no [`Url`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no address that can be fetched; write http://HOST/PATH or https://HOST/PATH")]
pub struct NoUrl;

impl Url {
    /// Whether it is fetched over TLS.
    pub const fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.is_tls { 443 } else { 80 })
    }

    /// What a request names.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Host and port as a request names them (RFC 9112 section 3.2).
    pub fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }

    /// A file in this folder.
    #[must_use]
    pub fn below(&self, name: &str) -> Self {
        let folder = self.path.split('?').next().unwrap_or("");
        Self {
            path: format!("{}/{name}", folder.trim_end_matches('/')),
            ..self.clone()
        }
    }

    /// Where a `Location` of an answer from here leads (RFC 9110 section 10.2.2).
    ///
    /// # Errors
    /// [`NoUrl`].
    pub fn follow(&self, location: &str) -> Result<Self, NoUrl> {
        let scheme = if self.is_tls { "https:" } else { "http:" };
        if location.starts_with("//") {
            return format!("{scheme}{location}").parse();
        }
        if location.starts_with('/') {
            return format!("{scheme}//{}{location}", self.authority()).parse();
        }
        if location.contains("://") {
            return location.parse();
        }
        let folder = self.path.split('?').next().unwrap_or("/");
        let folder = folder.rfind('/').map_or("/", |at| &folder[..=at]);
        format!("{scheme}//{}{folder}{location}", self.authority()).parse()
    }
}

impl FromStr for Url {
    type Err = NoUrl;

    fn from_str(text: &str) -> Result<Self, NoUrl> {
        let (is_tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(NoUrl),
        };
        let is_good = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#@".contains(&byte);
        if text.len() > MAX_BYTES || !text.bytes().all(is_good) {
            return Err(NoUrl);
        }
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(NoUrl)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| NoUrl)?;
                let port = match port.split_once(':') {
                    Some(("", port)) => Some(port),
                    None if port.is_empty() => None,
                    _ => return Err(NoUrl),
                };
                (host, port)
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_name) {
            return Err(NoUrl);
        }
        let port = port.map(|port| match port.bytes().all(|b| b.is_ascii_digit()) {
            true => port.parse().map_err(|_| NoUrl),
            false => Err(NoUrl),
        });
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/{path}"),
        };
        Ok(Self {
            is_tls,
            host: host.to_ascii_lowercase(),
            port: port.transpose()?.filter(|port| *port != 0),
            path,
        })
    }
}

impl TryFrom<String> for Url {
    type Error = NoUrl;

    fn try_from(text: String) -> Result<Self, NoUrl> {
        text.parse()
    }
}

impl From<Url> for String {
    fn from(url: Url) -> Self {
        url.to_string()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_comes_apart() {
        let check = |text: &str, host: &str, port: u16, path: &str| {
            let url: Url = text.parse().unwrap();
            assert_eq!(
                (url.host(), url.port(), url.path()),
                (host, port, path),
                "{text}"
            );
        };
        check("https://get.example", "get.example", 443, "/");
        check("http://get.example/a/b?c=d", "get.example", 80, "/a/b?c=d");
        check("http://[fd00::1]:8080/a", "fd00::1", 8080, "/a");
        check("http://box.HOME.alt:81", "box.home.alt", 81, "/");
        check("http://192.168.77.10/x", "192.168.77.10", 80, "/x");
        for bad in [
            "",
            "ftp://a/",
            "https://",
            "https:///a",
            "https://a@b/",
            "http://a b/",
            "http://a:b/",
            "http://a:99999/",
            "http://[::1/",
            "http://[x]/",
            "http://a/\u{e9}",
            "a/b",
            "http://a/#b",
            "http://a:+1/",
            "HTTP//a",
        ] {
            assert!(bad.parse::<Url>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_location_is_followed_as_it_is_meant() {
        let check = |location: &str, expected: &str| {
            let from: Url = "https://a.example:8443/x/y?z".parse().unwrap();
            let found = from.follow(location).map(|url| url.to_string());
            assert_eq!(found.as_deref().unwrap_or("none"), expected, "{location}");
        };
        check("/n", "https://a.example:8443/n");
        check("n", "https://a.example:8443/x/n");
        check("//b.example/n", "https://b.example/n");
        check("http://b.example/n", "http://b.example/n");
        check("ftp://b.example/n", "none");
        check("/a b", "none");
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_written_as_it_was(text in "(https?://)?[a-z\\[\\]:./?@0-9\u{e9} ]{0,40}", location: String) {
            if let Ok(url) = text.parse::<Url>() {
                prop_assert_eq!(url.to_string().parse::<Url>().unwrap(), url.clone());
                let _ = url.follow(&location);
            }
        }
    }
}
