//! Through an HTTP proxy: `CONNECT` (RFC 9110 section 9.3.6).
//!
//! In: a proxy's address as a URL, with a name and a password if it wants them. Out: a connection that
//! reaches the target. What a proxy wants else, and proxies that are spoken to by TLS, are refused.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use crate::http;

/// The port of a proxy that names none.
const DEFAULT_PORT: u16 = 80;

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What `Proxy-Authorization` says, if it wants that.
    credentials: Option<Zeroizing<String>>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

/// Not a proxy's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a proxy is written http://[NAME:PASSWORD@]HOST[:PORT]")]
pub struct BadProxy;

impl FromStr for Proxy {
    type Err = BadProxy;

    fn from_str(url: &str) -> Result<Self, BadProxy> {
        let rest = url.strip_prefix("http://").ok_or(BadProxy)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(basic(credentials)?), place),
            None => (None, rest),
        };
        let (host, port) = match place.rsplit_once(':') {
            // The colons of an IPv6 address are in brackets.
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| BadProxy)?)
            }
            _ => (place, DEFAULT_PORT),
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if host.is_empty() || !host.chars().all(is_name) || (bare.is_none() && host.contains(':')) {
            return Err(BadProxy);
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            credentials,
        })
    }
}

/// RFC 7617, of what a URL has percent-encoded.
fn basic(credentials: &str) -> Result<Zeroizing<String>, BadProxy> {
    let (name, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let mut bytes = Zeroizing::new(percent_decoded(name)?);
    if bytes.contains(&b':') {
        return Err(BadProxy);
    }
    bytes.push(b':');
    bytes.extend_from_slice(&Zeroizing::new(percent_decoded(password)?));
    Ok(Zeroizing::new(BASE64.encode(&bytes)))
}

fn percent_decoded(text: &str) -> Result<Vec<u8>, BadProxy> {
    let mut out = Vec::with_capacity(text.len());
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        if octet != b'%' {
            out.push(octet);
            continue;
        }
        let mut digit = || char::from(octets.next()?).to_digit(16);
        let (high, low) = (digit().ok_or(BadProxy)?, digit().ok_or(BadProxy)?);
        out.push(u8::try_from(high * 16 + low).map_err(|_| BadProxy)?);
    }
    Ok(out)
}

/// Why a proxy doesn't connect.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The connection to it broke.
    #[error("the proxy ended the connection: {0}")]
    Broke(#[from] std::io::Error),
    /// It wants a name and a password, or others.
    #[error("the proxy wants another name or password")]
    Credentials,
    /// It refused.
    #[error("the proxy answered {status}")]
    Refused {
        /// The status of its answer.
        status: u16,
    },
    /// What it answers isn't HTTP.
    #[error("what the proxy answers isn't HTTP")]
    NotHttp,
}

impl Proxy {
    /// What is asked of it.
    fn request(&self, host: &str, port: u16) -> Zeroizing<String> {
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let credentials = match &self.credentials {
            Some(basic) => Zeroizing::new(format!("Proxy-Authorization: Basic {}\r\n", **basic)),
            None => Zeroizing::new(String::new()),
        };
        Zeroizing::new(format!(
            "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{}\r\n",
            *credentials
        ))
    }

    /// Asks the proxy, over a connection to it, to connect to the target.
    ///
    /// # Errors
    /// [`ProxyError`].
    pub(crate) async fn connect(
        &self,
        stream: &TcpStream,
        host: &str,
        port: u16,
    ) -> Result<(), ProxyError> {
        let request = self.request(host, port);
        let mut rest = request.as_bytes();
        while !rest.is_empty() {
            stream.writable().await?;
            match stream.try_write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or(&[]),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
        let mut head = Vec::new();
        while http::head_length(&head).is_none() {
            stream.readable().await?;
            // One octet at a time would be safest; but nothing follows the head, since in TLS the
            // client speaks first.
            let mut chunk = [0; 1024];
            match stream.try_read(&mut chunk) {
                Ok(0) => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
                Ok(length) => head.extend_from_slice(chunk.get(..length).unwrap_or(&[])),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
            if head.len() > http::MAX_HEAD_BYTES {
                return Err(ProxyError::NotHttp);
            }
        }
        match http::status(&head) {
            Some(200..=299) if http::head_length(&head) == Some(head.len()) => Ok(()),
            Some(407) => Err(ProxyError::Credentials),
            Some(status @ (100..=199 | 300..=599)) => Err(ProxyError::Refused { status }),
            _ => Err(ProxyError::NotHttp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, host: &str, port: u16, request: &str) {
        let proxy: Proxy = url.parse().unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), (host, port), "{url}");
        let found = proxy.request("derp.example", 443);
        let begin = "CONNECT derp.example:443 HTTP/1.1\r\nHost: derp.example:443\r\n";
        assert_eq!(found.strip_prefix(begin), Some(request), "{url}");
    }

    #[test]
    fn a_proxys_address_is_read() {
        check("http://proxy.example:3128", "proxy.example", 3128, "\r\n");
        check("http://192.0.2.1/", "192.0.2.1", 80, "\r\n");
        check("http://[2001:db8::1]:8080", "2001:db8::1", 8080, "\r\n");
        check("http://[2001:db8::1]", "2001:db8::1", 80, "\r\n");
        // RFC 7617 section 2, with the space percent-encoded.
        let basic = "Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n";
        check("http://Aladdin:open%20sesame@p:1", "p", 1, basic);
    }

    #[test]
    fn what_is_no_proxys_address_is_refused() {
        for url in [
            "",
            "proxy:3128",
            "https://proxy",
            "http://",
            "http://:80",
            "http://a:b",
            "http://a b",
            "http://a/x",
            "http://2001:db8::1",
            "http://n%3:p@a",
            "http://n%3a:p@a",
            "http://a\r\nX: y",
        ] {
            assert_eq!(url.parse::<Proxy>(), Err(BadProxy), "{url:?}");
        }
    }

    #[test]
    fn a_proxy_shows_nobody_its_password() {
        let proxy: Proxy = "http://me:secret@p".parse().unwrap();
        assert_eq!(format!("{proxy:?}"), "Proxy(p:80)");
    }
}
