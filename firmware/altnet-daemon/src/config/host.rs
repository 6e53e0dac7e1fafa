//! A host and a port, as people write them.

/// Reads `host`, `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`; nothing if it is none of
/// these.
pub(super) fn split(server: &str, default_port: u16) -> Option<(&str, u16)> {
    let (host, port) = match server.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            let port = match rest {
                "" => None,
                rest => Some(rest.strip_prefix(':')?),
            };
            (host, port)
        }
        None => match server.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (server, None),
        },
    };
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let is_host = match server.starts_with('[') {
        true => host.parse::<std::net::Ipv6Addr>().is_ok(),
        // RFC 1035 section 2.3.4.
        false => !host.is_empty() && host.len() <= 253 && host.bytes().all(is_name),
    };
    let port = port.map_or(Ok(default_port), str::parse).ok()?;
    (is_host && port != 0).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(server: &str, expected: Option<(&str, u16)>) {
        assert_eq!(split(server, 3478), expected, "{server}");
    }

    #[test]
    fn a_server_is_a_host_and_maybe_a_port() {
        check("turn.example.net", Some(("turn.example.net", 3478)));
        check("turn.example.net:5000", Some(("turn.example.net", 5000)));
        check("192.0.2.5:3478", Some(("192.0.2.5", 3478)));
        check("[2001:db8::5]:443", Some(("2001:db8::5", 443)));
        check("[2001:db8::5]", Some(("2001:db8::5", 3478)));
        for wrong in [
            "",
            ":1",
            "host:",
            "host:0",
            "host:70000",
            "2001:db8::5",
            "[host]:1",
            "[::1",
            "[::1]1",
            "a b",
            "turn:host:3478",
        ] {
            check(wrong, None);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = split(&text, 1);
        }
    }
}
