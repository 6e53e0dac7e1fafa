//! A device's description: which of its services opens ports, and where it is called.
//!
//! Source: UPnP Device Architecture 1.1 section 2.

use super::location::Location;
use super::xml::{self, BadXml};

/// The most services that are tried: devices with several lines have one each.
const MAX_SERVICES: usize = 4;

/// The kinds of service that open ports, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Knows AddAnyPortMapping.
    WanIp2,
    /// The usual one.
    WanIp1,
    /// The same over PPP.
    WanPpp1,
}

impl Kind {
    /// The type's name.
    pub const fn urn(self) -> &'static str {
        match self {
            Self::WanIp2 => "urn:schemas-upnp-org:service:WANIPConnection:2",
            Self::WanIp1 => "urn:schemas-upnp-org:service:WANIPConnection:1",
            Self::WanPpp1 => "urn:schemas-upnp-org:service:WANPPPConnection:1",
        }
    }

    fn from_urn(urn: &str) -> Option<Self> {
        let all = [Self::WanIp2, Self::WanIp1, Self::WanPpp1];
        all.into_iter().find(|kind| kind.urn() == urn)
    }
}

/// A service that opens ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its kind.
    pub kind: Kind,
    /// Where it is called.
    pub control: Location,
}

/// The services of the device described by `document`, which was found at `base`; the best
/// first. One that is elsewhere than on the gateway is left out.
///
/// # Errors
/// [`BadXml`].
pub fn parse(document: &str, base: &Location) -> Result<Vec<Service>, BadXml> {
    let (mut kind, mut control) = (None, None);
    let mut root = None;
    let mut found: Vec<(Kind, String)> = Vec::new();
    xml::each_element(document, |path, text| match path {
        // Before UPnP 1.1, which has references start from the description's own place.
        [_, "URLBase"] if !text.is_empty() => root = Some(text.to_owned()),
        [.., "service", "serviceType"] => kind = Kind::from_urn(text),
        [.., "service", "controlURL"] => control = Some(text.to_owned()),
        [.., "service"] => {
            if let (Some(kind), Some(control)) = (kind.take(), control.take()) {
                found.push((kind, control));
            }
        }
        _ => {}
    })?;
    let root = root.and_then(|url| Location::parse(&url, *base.address.ip()));
    let base = root.as_ref().unwrap_or(base);
    let mut services: Vec<Service> = found
        .into_iter()
        .filter_map(|(kind, control)| {
            let control = base.join(&control)?;
            Some(Service { kind, control })
        })
        .collect();
    services.sort_by_key(|service| service.kind);
    services.truncate(MAX_SERVICES);
    Ok(services)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn check(services: &[(&str, &str)], head: &str, expected: &[(Kind, u16, &str)]) {
        let listed: String = services
            .iter()
            .map(|(urn, control)| {
                format!("<service><serviceType>{urn}</serviceType><serviceId>x</serviceId><controlURL>{control}</controlURL><SCPDURL>/x.xml</SCPDURL></service>")
            })
            .collect();
        let document = format!(
            "<?xml version=\"1.0\"?>\n<root xmlns=\"urn:schemas-upnp-org:device-1-0\">{head}<device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><friendlyName>R & D</friendlyName><deviceList><device><serviceList>{listed}</serviceList></device></deviceList></device></root>"
        );
        let base = "http://192.168.1.1:5000/desc/root.xml";
        let base = Location::parse(base, Ipv4Addr::new(192, 168, 1, 1)).unwrap();
        let found = parse(&document, &base).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|s| (s.kind, s.control.address.port(), s.control.path.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn services_that_open_ports_are_found_the_best_first() {
        let layer3 = "urn:schemas-upnp-org:service:Layer3Forwarding:1";
        check(
            &[
                (layer3, "/ctl/L3F"),
                (Kind::WanPpp1.urn(), "/ctl/PPP"),
                (Kind::WanIp1.urn(), "ctl/IP1"),
                (Kind::WanIp2.urn(), "/ctl/IP2"),
            ],
            "",
            &[
                (Kind::WanIp2, 5000, "/ctl/IP2"),
                (Kind::WanIp1, 5000, "/desc/ctl/IP1"),
                (Kind::WanPpp1, 5000, "/ctl/PPP"),
            ],
        );
        check(&[(layer3, "/ctl/L3F")], "", &[]);
    }

    #[test]
    fn a_services_type_is_not_taken_for_the_nexts() {
        check(
            &[(Kind::WanIp1.urn(), ""), ("urn:other", "/ctl/other")],
            "",
            &[],
        );
    }

    #[test]
    fn a_base_on_the_gateway_is_followed_and_no_other() {
        let one = [(Kind::WanIp1.urn(), "ctl")];
        let there = "<URLBase>http://192.168.1.1:80/</URLBase>";
        check(&one, there, &[(Kind::WanIp1, 80, "/ctl")]);
        let elsewhere = "<URLBase>http://192.168.1.9:80/</URLBase>";
        check(&one, elsewhere, &[(Kind::WanIp1, 5000, "/desc/ctl")]);
        let absolute = [(Kind::WanIp1.urn(), "http://192.168.1.9/ctl")];
        check(&absolute, "", &[]);
    }
}
