//! Where on the gateway something is: an `http` URL that leads nowhere else.

use std::net::{Ipv4Addr, SocketAddrV4};

/// The longest path with its query, in bytes.
const MAX_PATH_BYTES: usize = 1024;

/// A place on the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The gateway's address and a TCP port.
    pub address: SocketAddrV4,
    /// The path with its query, as it stands in a request's first line.
    pub path: String,
}

impl Location {
    /// Reads an absolute URL. One with another host than `gateway`, with a name for a host, another
    /// scheme, a user, or characters that would end a request's line leads nowhere.
    pub fn parse(url: &str, gateway: Ipv4Addr) -> Option<Self> {
        let (scheme, rest) = url.trim().split_once("://")?;
        if !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end)?;
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, 80),
        };
        if host.parse() != Ok(gateway) || port == 0 {
            return None;
        }
        Some(Self {
            address: SocketAddrV4::new(gateway, port),
            path: clean(path, "/")?,
        })
    }

    /// Follows `reference` from here: an absolute URL on the gateway, an absolute path, or a
    /// relative one (RFC 3986 section 5.2, without dot segments, which nobody writes here).
    pub fn join(&self, reference: &str) -> Option<Self> {
        let reference = reference.trim();
        if reference.is_empty() {
            return None;
        }
        if reference.contains("://") {
            return Self::parse(reference, *self.address.ip());
        }
        if reference.starts_with("//") {
            return Self::parse(&format!("http:{reference}"), *self.address.ip());
        }
        let path = self.path.split('?').next().unwrap_or("/");
        let (folder, _) = path.rsplit_once('/').unwrap_or(("", ""));
        Some(Self {
            address: self.address,
            path: clean(reference, &format!("{folder}/"))?,
        })
    }
}

/// A path as a request's first line may have it, from `folder` on if it is relative.
fn clean(path: &str, folder: &str) -> Option<String> {
    let path = path.split('#').next().unwrap_or("");
    let whole = match path.strip_prefix('/') {
        Some(_) => path.to_owned(),
        None => format!("{folder}{path}"),
    };
    let is_clean = whole.bytes().all(|b| b.is_ascii_graphic());
    (is_clean && whole.len() <= MAX_PATH_BYTES).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

    fn check(url: &str, expected: Option<(u16, &str)>) {
        let found = Location::parse(url, GATEWAY);
        let found = found.as_ref().map(|l| (l.address.port(), l.path.as_str()));
        assert_eq!(found, expected, "{url}");
    }

    #[test]
    fn a_url_on_the_gateway_is_followed_and_no_other() {
        check(
            "http://192.168.1.1:5000/rootDesc.xml",
            Some((5000, "/rootDesc.xml")),
        );
        check(" HTTP://192.168.1.1/a?b=c#d ", Some((80, "/a?b=c")));
        check("http://192.168.1.1:49152", Some((49152, "/")));
        check("http://192.168.1.1?x", Some((80, "/?x")));
        for elsewhere in [
            "http://192.168.1.2:5000/rootDesc.xml",
            "http://router.lan/rootDesc.xml",
            "http://192.168.1.1@198.51.100.7/",
            "http://user@192.168.1.1/",
            "http://192.168.1.1:0/",
            "http://192.168.1.1:99999/",
            "http://192.168.1.1.example/",
            "http://0xc0a80101/",
            "https://192.168.1.1/",
            "file:///etc/passwd",
            "192.168.1.1/",
            "",
        ] {
            check(elsewhere, None);
        }
    }

    #[test]
    fn a_path_cannot_end_the_requests_line() {
        check("http://192.168.1.1/a b", None);
        check("http://192.168.1.1/a\r\nHost: b", None);
        check("http://192.168.1.1/\u{e9}", None);
        check(&format!("http://192.168.1.1/{}", "a".repeat(1024)), None);
    }

    #[test]
    fn a_reference_is_followed_from_where_it_stands() {
        let base = Location::parse("http://192.168.1.1:49153/69692b70/gatedesc.xml?x", GATEWAY);
        let join = |reference: &str| {
            base.as_ref()?
                .join(reference)
                .map(|l| (l.address.port(), l.path))
        };
        let at = |port, path: &str| Some((port, path.to_owned()));
        assert_eq!(join("/ctl/IPConn"), at(49153, "/ctl/IPConn"));
        assert_eq!(join("ctl/IPConn"), at(49153, "/69692b70/ctl/IPConn"));
        assert_eq!(join("http://192.168.1.1:80/upnp"), at(80, "/upnp"));
        assert_eq!(join("//192.168.1.1/upnp"), at(80, "/upnp"));
        assert_eq!(join("http://192.168.1.9/upnp"), None);
        assert_eq!(join("//192.168.1.9/upnp"), None);
        assert_eq!(join(""), None);
    }

    proptest! {
        #[test]
        fn no_url_leads_elsewhere(url in "\\PC{0,60}", reference in "\\PC{0,60}") {
            let base = Location { address: SocketAddrV4::new(GATEWAY, 80), path: "/".into() };
            for found in [Location::parse(&url, GATEWAY), base.join(&reference)].into_iter().flatten() {
                prop_assert_eq!(*found.address.ip(), GATEWAY);
                prop_assert!(found.path.starts_with('/') && !found.path.contains(char::is_whitespace));
            }
        }
    }
}
