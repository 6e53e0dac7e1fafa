//! SSDP: asking the gateway whether it is a UPnP device, and hearing it say so.
//!
//! In: datagrams. Out: where the device's description is. Only what a gateway says of itself
//! counts: an answer's location has to be on the gateway, and the caller looks at the source.
//!
//! Source: UPnP Device Architecture 1.1 section 1.

use std::net::Ipv4Addr;

use super::location::Location;

/// Devices listen to this group.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
/// At this port.
pub const PORT: u16 = 1900;
/// The largest datagram that is read, in bytes.
pub const MAX_DATAGRAM_BYTES: usize = 2048;
/// What is searched for: the newest first, and what devices that say little say at least.
pub const TARGETS: [&str; 3] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "upnp:rootdevice",
];
/// Within so many seconds devices answer.
const WITHIN_S: u8 = 1;
const MAX_HEADERS: usize = 32;

/// The search for devices of one kind.
pub fn search(target: &str) -> String {
    format!(
        "M-SEARCH * HTTP/1.1\r\nHOST: {GROUP}:{PORT}\r\nMAN: \"ssdp:discover\"\r\nMX: {WITHIN_S}\r\nST: {target}\r\n\r\n"
    )
}

/// Where an answer to a search says that the device's description is.
pub fn parse_answer(datagram: &[u8], gateway: Ipv4Addr) -> Option<Location> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    answer.parse(datagram).ok()?;
    if answer.code != Some(200) {
        return None;
    }
    Location::parse(header(answer.headers, "location")?, gateway)
}

/// Whether a datagram to all says that a device has come (`ssdp:alive`), and is on the gateway.
pub fn is_alive(datagram: &[u8], gateway: Ipv4Addr) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut notice = httparse::Request::new(&mut headers);
    if notice.parse(datagram).is_err() || notice.method != Some("NOTIFY") {
        return false;
    }
    let is_alive = header(notice.headers, "nts").is_some_and(|nts| nts == "ssdp:alive");
    // Devices announce each of their parts; one of them is enough.
    let is_gateway = header(notice.headers, "nt").is_some_and(|nt| TARGETS[..2].contains(&nt));
    let location = header(notice.headers, "location");
    is_alive && is_gateway && location.is_some_and(|url| Location::parse(url, gateway).is_some())
}

fn header<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|h| h.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(found.value).ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

    #[test]
    fn a_search_keeps_its_exact_bytes() {
        let expected = "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: upnp:rootdevice\r\n\r\n";
        assert_eq!(search(TARGETS[2]), expected);
    }

    #[test]
    fn an_answer_of_the_gateway_leads_to_its_description() {
        let answer = "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nEXT:\r\nServer: a UPnP/1.1 b\r\nLOCATION: http://192.168.1.1:2189/rootDesc.xml\r\nOPT: \"http://schemas.upnp.org/upnp/1/0/\"; ns=01\r\n01-NLS: 1627958564\r\n\r\n";
        let found = parse_answer(answer.as_bytes(), GATEWAY).unwrap();
        assert_eq!(
            (found.address.port(), found.path.as_str()),
            (2189, "/rootDesc.xml")
        );
        let elsewhere = Ipv4Addr::new(192, 168, 1, 2);
        assert_eq!(parse_answer(answer.as_bytes(), elsewhere), None);
        let refused = answer.replace("200 OK", "404 Not Found");
        assert_eq!(parse_answer(refused.as_bytes(), GATEWAY), None);
        assert_eq!(parse_answer(search(TARGETS[0]).as_bytes(), GATEWAY), None);
    }

    #[test]
    fn only_a_gateway_that_comes_is_heard() {
        let notice = "NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nNT: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nNTS: ssdp:alive\r\nLOCATION: http://192.168.1.1:5000/rootDesc.xml\r\n\r\n";
        assert!(is_alive(notice.as_bytes(), GATEWAY));
        for (from, to) in [
            ("ssdp:alive", "ssdp:byebye"),
            ("192.168.1.1", "192.168.1.2"),
            ("InternetGatewayDevice", "MediaServer"),
            ("NOTIFY", "M-SEARCH"),
        ] {
            assert!(
                !is_alive(notice.replace(from, to).as_bytes(), GATEWAY),
                "{to}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_datagram_makes_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (parse_answer(&bytes, GATEWAY), is_alive(&bytes, GATEWAY));
        }
    }
}
