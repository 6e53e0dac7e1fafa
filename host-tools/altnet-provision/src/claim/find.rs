//! Looking for boxes by multicast DNS, as a resolver that asks once (RFC 6762 section 5.1).
//!
//! It asks from a port of its own, on each interface and by both families, so it needs no daemon and no
//! privileges, and boxes answer to it alone. A box is where its answer came from: over IPv6 that is a link-local address, which works where
//! a computer has no other.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use altnet_claim::hello::MAX_TEXT;
use altnet_claim::{PORT, SERVICE};
use hickory_proto::ProtoError;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use socket2::{Domain, Protocol, Socket, Type};

use super::BoxSummary;
use crate::error::{Error, Result};

/// How long answers are waited for.
pub const WAIT: Duration = Duration::from_millis(2500);
/// When it is asked again, in case the first question was lost.
const AGAIN: Duration = Duration::from_millis(900);
const POLL: Duration = Duration::from_millis(20);
const MDNS_PORT: u16 = 5353;
const GROUP4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// The most interfaces that are asked on, and the most boxes that are told of.
const MAX_INTERFACES: usize = 32;
const MAX_BOXES: usize = 64;
const MAX_ANSWER: usize = 9000;

/// Looks for boxes on every LAN of this computer, for [`WAIT`].
///
/// # Errors
/// [`Error::Claim`] if it can't be asked on any.
pub fn find() -> Result<Vec<BoxSummary>> {
    let failed = |error: &dyn std::fmt::Display| Error::Claim {
        what: format!("the LAN can't be asked for boxes: {error}"),
        next: "Give the box's address: it is this computer's router, http://ADDRESS/ is its page."
            .into(),
    };
    let id = u16::from_be_bytes(crate::chance::bytes()?);
    let query = question(id).map_err(|error| failed(&error))?;
    let mut lines: Vec<Line> = interfaces().iter().flat_map(Line::open).collect();
    let began = Instant::now();
    let mut asked = 0;
    let mut found = BTreeMap::new();
    while began.elapsed() < WAIT {
        if asked == 0 || (asked == 1 && began.elapsed() > AGAIN) {
            asked += 1;
            // An interface without a way out of it is as good as none.
            lines.retain(|line| line.socket.send_to(&query, line.group).is_ok());
            if lines.is_empty() {
                return Err(failed(&"no interface is up"));
            }
        }
        let mut heard = false;
        for line in &lines {
            let mut bytes = [0; MAX_ANSWER];
            let Ok((length, from)) = line.socket.recv_from(&mut bytes) else {
                continue;
            };
            heard = true;
            if let Some(summary) = read(&bytes[..length], id, from)
                && (found.len() < MAX_BOXES || found.contains_key(&summary.fingerprint))
            {
                keep(&mut found, summary);
            }
        }
        if !heard {
            std::thread::sleep(POLL);
        }
    }
    Ok(found.into_values().collect())
}

/// Of two answers of one box the one over IPv6 counts: that address stays if the LAN's are changed.
fn keep(found: &mut BTreeMap<String, BoxSummary>, summary: BoxSummary) {
    let known = found.get(&summary.fingerprint);
    if known.is_none_or(|known| known.address.is_ipv4()) {
        found.insert(summary.fingerprint.clone(), summary);
    }
}

fn question(id: u16) -> std::result::Result<Vec<u8>, ProtoError> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(SERVICE)?, RecordType::PTR));
    message.to_vec()
}

/// What an answer says of a box.
fn read(bytes: &[u8], id: u16, from: SocketAddr) -> Option<BoxSummary> {
    let message = Message::from_vec(bytes).ok()?;
    let service = Name::from_ascii(SERVICE).ok()?;
    if message.metadata.id != id || message.metadata.message_type != MessageType::Response {
        return None;
    }
    let records = || message.answers.iter().chain(&message.additionals);
    let is_service = |name: &Name| {
        name.to_lowercase().to_ascii().trim_end_matches('.')
            == service.to_ascii().trim_end_matches('.')
    };
    let instance = records().find_map(|record| match &record.data {
        RData::PTR(target) if is_service(&record.name) => Some(&target.0),
        _ => None,
    })?;
    let port = records().find_map(|record| match &record.data {
        RData::SRV(server) if record.name == *instance => Some(server.port),
        _ => None,
    })?;
    let mut told = BTreeMap::new();
    for record in records() {
        if let RData::TXT(text) = &record.data
            && record.name == *instance
        {
            let pairs = text
                .txt_data
                .iter()
                .filter_map(|pair| str::from_utf8(pair).ok()?.split_once('='));
            told.extend(pairs);
        }
    }
    // It is shown at a terminal, and nobody vouches for it.
    let said = |key: &str| {
        let text = told.get(key)?;
        let is_good =
            text.len() <= MAX_TEXT && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        is_good.then(|| (*text).to_owned())
    };
    let mut address = from;
    address.set_port(port);
    (told.get("v") == Some(&"1") && port > 0).then_some(())?;
    Some(BoxSummary {
        address,
        fingerprint: said("fp")?,
        board: said("board")?,
        version: said("version")?,
    })
}

/// A socket that asks on one interface by one family.
struct Line {
    socket: UdpSocket,
    group: SocketAddr,
}

impl Line {
    /// Those of an interface; one that can't be opened is left out.
    fn open(interface: &Interface) -> Vec<Self> {
        let groups: [SocketAddr; 2] = [
            (GROUP4, MDNS_PORT).into(),
            SocketAddrV6::new(GROUP6, MDNS_PORT, 0, interface.index).into(),
        ];
        let lines = groups
            .into_iter()
            .filter_map(|group| Self::to(group, interface).ok());
        lines.collect()
    }

    fn to(group: SocketAddr, interface: &Interface) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
        let any: IpAddr = match group {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        interface.hold(&socket)?;
        match group {
            SocketAddr::V4(_) => socket.set_multicast_ttl_v4(255)?,
            SocketAddr::V6(_) => socket.set_multicast_hops_v6(255)?,
        }
        socket.bind(&SocketAddr::new(any, 0).into())?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: socket.into(),
            group,
        })
    }
}

/// An interface that may lead to a LAN.
struct Interface {
    #[cfg_attr(
        not(target_os = "linux"),
        allow(dead_code, reason = "sockets are held to interfaces on Linux alone")
    )]
    name: String,
    index: u32,
}

impl Interface {
    /// Has a socket send and receive on this interface alone.
    #[cfg(target_os = "linux")]
    fn hold(&self, socket: &Socket) -> io::Result<()> {
        socket.bind_device(Some(self.name.as_bytes()))
    }

    /// Elsewhere the system chooses.
    #[cfg(not(target_os = "linux"))]
    fn hold(&self, _: &Socket) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn interfaces() -> Vec<Interface> {
    // linux/if.h
    const UP: u32 = 1;
    const LOOPBACK: u32 = 8;
    const MULTICAST: u32 = 0x1000;
    let Ok(entries) = std::fs::read_dir("/sys/class/net") else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let found = names.filter_map(|name| {
        let read = |what: &str| {
            std::fs::read_to_string(Path::new("/sys/class/net").join(&name).join(what)).ok()
        };
        let flags = read("flags")?;
        let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).ok()?;
        let index = read("ifindex")?.trim().parse().ok()?;
        (flags & (UP | LOOPBACK | MULTICAST) == UP | MULTICAST).then_some(Interface { name, index })
    });
    found.take(MAX_INTERFACES).collect()
}

#[cfg(not(target_os = "linux"))]
fn interfaces() -> Vec<Interface> {
    vec![Interface {
        name: String::new(),
        index: 0,
    }]
}

/// Reads where a box is: an address with or without a port, and for a link-local one the interface, as in `fe80::1%eth0`.
///
/// # Errors
/// [`Error::Input`].
pub fn address(text: &str) -> Result<SocketAddr> {
    let bad = |why: &str| {
        Error::input(
            format!("`{text}` is not the address of a box: {why}"),
            "Write it as in 192.168.1.1, 192.168.1.1:51821 or fe80::1%eth0; or leave it out to look for the box.",
        )
    };
    if let Ok(whole) = text.parse::<SocketAddr>() {
        return Ok(whole);
    }
    let (plain, port) = match text
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]:"))
    {
        Some((plain, port)) => (
            plain,
            port.parse().map_err(|_| bad("the port is no number"))?,
        ),
        None => (text.trim_start_matches('[').trim_end_matches(']'), PORT),
    };
    let (plain, zone) = match plain.split_once('%') {
        Some((plain, zone)) => (plain, Some(zone)),
        None => (plain, None),
    };
    let ip: IpAddr = plain.parse().map_err(|_| bad("names are not looked up"))?;
    match (ip, zone) {
        (IpAddr::V6(ip), Some(zone)) => {
            let named =
                std::fs::read_to_string(Path::new("/sys/class/net").join(zone).join("ifindex"));
            let index = zone
                .parse()
                .ok()
                .or_else(|| named.ok()?.trim().parse().ok());
            let index = index.ok_or_else(|| bad(&format!("there is no interface {zone}")))?;
            Ok(SocketAddrV6::new(ip, port, 0, index).into())
        }
        (IpAddr::V6(ip), None) if ip.is_unicast_link_local() => {
            Err(bad("a link-local address needs its interface"))
        }
        (_, Some(_)) => Err(bad("it has no interface")),
        (ip, None) => Ok(SocketAddr::new(ip, port)),
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{PTR, SRV, TXT};
    use proptest::prelude::*;

    use super::*;

    fn from() -> SocketAddr {
        "[fe80::1%3]:5353".parse().unwrap()
    }

    fn answer(text: &[&str]) -> Message {
        let (service, instance) = (
            Name::from_ascii("_altnet-setup._tcp.local.").unwrap(),
            Name::from_ascii("a._altnet-setup._tcp.local.").unwrap(),
        );
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.add_answer(Record::from_rdata(
            service,
            10,
            RData::PTR(PTR(instance.clone())),
        ));
        let server = SRV::new(0, 0, 4000, Name::from_ascii("a.local.").unwrap());
        message.add_answer(Record::from_rdata(instance.clone(), 10, RData::SRV(server)));
        let text = TXT::new(text.iter().map(ToString::to_string).collect());
        message.add_answer(Record::from_rdata(instance, 10, RData::TXT(text)));
        message
    }

    #[test]
    fn a_box_is_where_its_answer_came_from() {
        let bytes = answer(&["v=1", "fp=ab12", "board=rpi", "version=v1", "new=x"])
            .to_vec()
            .unwrap();
        let found = read(&bytes, 7, from()).unwrap();
        assert_eq!(found.address, "[fe80::1%3]:4000".parse().unwrap());
        assert_eq!(
            (found.board.as_str(), found.fingerprint.as_str()),
            ("rpi", "ab12")
        );
        assert!(
            read(&bytes, 8, from()).is_none(),
            "an answer to somebody else"
        );
    }

    #[test]
    fn what_says_less_or_commands_a_terminal_is_no_box() {
        for text in [
            &["v=1"][..],
            &["v=2", "fp=a", "board=b", "version=c"],
            &["v=1", "fp=a", "board=\x1b[31m", "version=c"],
        ] {
            assert!(read(&answer(text).to_vec().unwrap(), 7, from()).is_none());
        }
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, expected) in [
            ("192.168.1.1", "192.168.1.1:51821"),
            ("192.168.1.1:9", "192.168.1.1:9"),
            ("fd00::1", "[fd00::1]:51821"),
            ("[fd00::1]", "[fd00::1]:51821"),
            ("[fd00::1]:9", "[fd00::1]:9"),
            ("fe80::1%7", "[fe80::1%7]:51821"),
            ("[fe80::1%7]:9", "[fe80::1%7]:9"),
        ] {
            assert_eq!(address(text).unwrap(), expected.parse().unwrap(), "{text}");
        }
        for text in [
            "",
            "router",
            "fe80::1",
            "fe80::1%nosuch",
            "192.168.1.1%7",
            "[fd00::1]:x",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0usize..200, by: u8, cut in 0usize..200) {
            let mut bytes = answer(&["v=1", "fp=ab12", "board=rpi", "version=v1"]).to_vec().unwrap();
            let length = bytes.len();
            bytes[at % length] ^= by;
            bytes.truncate(length - cut % length);
            let _ = read(&bytes, 7, from());
        }
    }
}
