//! Questions are written and replies read back by `hickory-proto`.

use super::*;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Question, ResponseCode};
use hickory_proto::rr;
use proptest::prelude::*;
use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

/// The network "home" with two names at one address, and "work" with many addresses.
struct Homes;

const HOME: ZoneIndex = ZoneIndex(0);
const WORK: ZoneIndex = ZoneIndex(1);
const HOME_ID: NetworkId = NetworkId([0x11; 32]);
const SERIAL: u32 = 2026;

fn home(site: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd11, 0x1111, 0x1111, site, 0, 0, 0, host)
}

fn work(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd22, 0x2222, 0x2222, 0, 0, 0, 0, host)
}

impl ZoneView for Homes {
    fn by_petname(&self, petname: &Name) -> Option<ZoneIndex> {
        match petname.as_str() {
            "home" => Some(HOME),
            "work" => Some(WORK),
            _ => None,
        }
    }
    fn by_id(&self, id: &NetworkId) -> Option<ZoneIndex> {
        (*id == HOME_ID).then_some(HOME)
    }
    fn by_address(&self, address: Ipv6Addr) -> Option<ZoneIndex> {
        let is_in = |other| Prefix::new(other, 48).contains(address);
        match () {
            () if is_in(home(0, 0)) => Some(HOME),
            () if is_in(work(0)) => Some(WORK),
            () => None,
        }
    }
    fn petname(&self, zone: ZoneIndex) -> Name {
        Name::new(if zone == HOME { "home" } else { "work" }).unwrap()
    }
    fn serial(&self, _: ZoneIndex) -> u32 {
        SERIAL
    }
    fn addresses(&self, zone: ZoneIndex, name: &Name, found: &mut dyn FnMut(Ipv6Addr)) {
        match (zone, name.as_str()) {
            (HOME, "wiki") => found(home(7, 0xd)),
            (WORK, "many") => (0..60).for_each(|host| found(work(host))),
            _ => {}
        }
    }
    fn gateways(&self, zone: ZoneIndex, found: &mut dyn FnMut(Ipv6Addr)) {
        if zone == HOME {
            found(home(1, 1));
        }
    }
    fn name_at(&self, _: ZoneIndex, address: Ipv6Addr) -> Option<Name> {
        (address == home(7, 0xd)).then(|| Name::new("wiki").unwrap())
    }
    fn has_below(&self, prefix: Prefix) -> bool {
        let is_over = |network: Ipv6Addr| prefix.bits() <= 48 && prefix.contains(network);
        prefix.contains(home(7, 0xd)) || is_over(home(0, 0)) || is_over(work(0))
    }
}

fn question(name: &str, kind: rr::RecordType) -> Message {
    let mut message = Message::new(0xbeef, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let name = rr::Name::from_ascii(name).unwrap();
    message.add_query(Question::query(name, kind));
    message
}

fn ask_bytes(query: &[u8], carrier: Carrier) -> (Answer, Vec<u8>) {
    let mut reply = [0xaa; 4096];
    let answer = answer(query, &Homes, carrier, &mut reply);
    let length = if let Answer::Reply(length) = answer {
        length
    } else {
        0
    };
    (answer, reply[..length].to_vec())
}

fn ask(query: &Message) -> Message {
    let (answer, reply) = ask_bytes(&query.to_vec().unwrap(), Carrier::Udp);
    assert!(matches!(answer, Answer::Reply(_)), "{answer:?}");
    Message::from_vec(&reply).unwrap()
}

fn text(records: &[rr::Record]) -> String {
    let one = |record: &rr::Record| {
        assert_eq!((record.ttl, record.dns_class), (TTL_S, rr::DNSClass::IN));
        format!("{} {} {}", record.name, record.record_type(), record.data)
    };
    records.iter().map(one).collect::<Vec<_>>().join(" + ")
}

/// What comes back: the code, the answers, the authorities.
fn check(name: &str, kind: rr::RecordType, code: ResponseCode, answers: &str, authorities: &str) {
    let query = question(name, kind);
    let reply = ask(&query);
    assert_eq!(reply.metadata.response_code, code, "{name} {kind}");
    assert_eq!(text(&reply.answers), answers, "{name} {kind}");
    assert_eq!(text(&reply.authorities), authorities, "{name} {kind}");
    assert_eq!(reply.queries, query.queries);
    assert_eq!(reply.queries[0].name.to_string(), name, "the case is kept");
    assert_eq!(reply.metadata.id, 0xbeef);
    let flags = reply.metadata;
    assert!(flags.authoritative && flags.recursion_available && flags.recursion_desired);
    assert!(!flags.truncation && !flags.authentic_data);
}

use ResponseCode::{FormErr, NXDomain, NoError, NotImp, Refused, ServFail};
use rr::RecordType::{A, AAAA, ANY, DS, NS, PTR, SOA, SRV};

const TIMES: &str = "3600 1200 604800 60";

fn home_soa(apex: &str) -> String {
    format!("{apex} SOA ns.{apex} nobody.invalid. {SERIAL} {TIMES}")
}

fn local_soa(apex: &str) -> String {
    format!("{apex} SOA {apex} nobody.invalid. 1 {TIMES}")
}

#[test]
fn a_host_is_found_by_petname_and_by_network_id() {
    let address = home(7, 0xd);
    check(
        "wiki.home.alt.",
        AAAA,
        NoError,
        &format!("wiki.home.alt. AAAA {address}"),
        "",
    );
    check(
        "WiKi.HOME.aLt.",
        AAAA,
        NoError,
        &format!("WiKi.HOME.aLt. AAAA {address}"),
        "",
    );
    let name = format!("wiki.{HOME_ID}.alt.");
    check(&name, AAAA, NoError, &format!("{name} AAAA {address}"), "");
    check(
        "wiki.home.alt.",
        ANY,
        NoError,
        &format!("wiki.home.alt. AAAA {address}"),
        "",
    );
    let server = format!("ns.home.alt. AAAA {}", home(1, 1));
    check("ns.home.alt.", AAAA, NoError, &server, "");
}

#[test]
fn an_absent_type_and_an_absent_name_are_told_apart() {
    let soa = home_soa("home.alt.");
    check("wiki.home.alt.", A, NoError, "", &soa);
    check("wiki.home.alt.", SRV, NoError, "", &soa);
    check("ns.home.alt.", A, NoError, "", &soa);
    check("ns.work.alt.", AAAA, NoError, "", &home_soa("work.alt."));
    check("home.alt.", AAAA, NoError, "", &soa);
    check("nobody.home.alt.", AAAA, NXDomain, "", &soa);
    check("nobody.home.alt.", ANY, NXDomain, "", &soa);
    check("a.wiki.home.alt.", AAAA, NXDomain, "", &soa);
    check("_http._tcp.home.alt.", SRV, NXDomain, "", &soa);
    check("_dmarc.home.alt.", A, NXDomain, "", &soa);
    check("elsewhere.alt.", AAAA, NXDomain, "", &local_soa("alt."));
    check(
        "wiki.elsewhere.alt.",
        AAAA,
        NXDomain,
        "",
        &local_soa("alt."),
    );
    check("alt.", A, NoError, "", &local_soa("alt."));
}

#[test]
fn a_zone_has_a_start_and_a_server() {
    check("home.alt.", SOA, NoError, &home_soa("home.alt."), "");
    check("Home.Alt.", NS, NoError, "Home.Alt. NS ns.Home.Alt.", "");
    check("home.alt.", ANY, NoError, "home.alt. HINFO RFC8482 ", "");
    check("home.alt.", DS, NoError, "", &local_soa("alt."));
    check("alt.", SOA, NoError, &local_soa("alt."), "");
    check("alt.", NS, NoError, "alt. NS alt.", "");
    let reverse = "1.1.1.1.1.1.1.1.1.1.d.f.ip6.arpa.";
    let soa = format!("{reverse} SOA ns.home.alt. nobody.invalid. {SERIAL} {TIMES}");
    check(reverse, SOA, NoError, &soa, "");
    check(
        reverse,
        NS,
        NoError,
        &format!("{reverse} NS ns.home.alt."),
        "",
    );
    check(reverse, DS, NoError, "", &local_soa("d.f.ip6.arpa."));
    check(
        "d.f.ip6.arpa.",
        SOA,
        NoError,
        &local_soa("d.f.ip6.arpa."),
        "",
    );
}

#[test]
fn an_address_has_a_name_and_what_lies_above_it_exists() {
    let name = rr::Name::from(home(7, 0xd)).to_string();
    let zone = "1.1.1.1.1.1.1.1.1.1.d.f.ip6.arpa.";
    let soa = format!("{zone} SOA ns.home.alt. nobody.invalid. {SERIAL} {TIMES}");
    check(
        &name,
        PTR,
        NoError,
        &format!("{name} PTR wiki.home.alt."),
        "",
    );
    check(
        &name,
        ANY,
        NoError,
        &format!("{name} PTR wiki.home.alt."),
        "",
    );
    check(&name, A, NoError, "", &soa);
    check(&name[2..], PTR, NoError, "", &soa);
    check(&format!("7.0.0.0.{zone}"), PTR, NoError, "", &soa);
    check(&format!("8.0.0.0.{zone}"), PTR, NXDomain, "", &soa);
    check(
        &rr::Name::from(home(7, 0xe)).to_string(),
        PTR,
        NXDomain,
        "",
        &soa,
    );
    let local = local_soa("d.f.ip6.arpa.");
    check("1.1.d.f.ip6.arpa.", PTR, NoError, "", &local);
    check("9.1.d.f.ip6.arpa.", PTR, NXDomain, "", &local);
    check(&format!("1.{name}"), PTR, NXDomain, "", &local);
    check("x.d.f.ip6.arpa.", PTR, NXDomain, "", &local);
    let other = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1);
    check(
        &rr::Name::from(other).to_string(),
        PTR,
        NXDomain,
        "",
        &local,
    );
}

#[test]
fn everything_else_is_forwarded() {
    for name in [
        "example.org.",
        ".",
        "alt.example.",
        "xalt.",
        "wiki.home.",
        "8.e.f.ip6.arpa.",
        "f.ip6.arpa.",
        "ip6.arpa.",
    ] {
        let query = question(name, AAAA).to_vec().unwrap();
        assert_eq!(ask_bytes(&query, Carrier::Udp).0, Answer::Forward, "{name}");
    }
}

fn check_code(query: &[u8], code: ResponseCode) {
    let (answer, reply) = ask_bytes(query, Carrier::Udp);
    assert!(
        matches!(answer, Answer::Reply(_)),
        "{answer:?} {query:02x?}"
    );
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.metadata.response_code, code, "{query:02x?}");
    assert_eq!(reply.metadata.message_type, MessageType::Response);
}

#[test]
fn what_is_no_query_gets_the_right_refusal() {
    let good = question("wiki.home.alt.", AAAA).to_vec().unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    check_code(&with(2, 4 << 3), NotImp); // NOTIFY
    check_code(&with(2, 5 << 3), NotImp); // UPDATE
    check_code(&with(5, 0), FormErr);
    check_code(&with(5, 2), FormErr);
    check_code(&with(11, 1), FormErr); // a record that isn't there
    check_code(&with(12, 0xc0), FormErr); // a pointer in the question
    check_code(&with(12, 0x40), FormErr);
    check_code(&good[..good.len() - 1], FormErr);
    check_code(&good[..12], FormErr);
    check_code(&with(good.len() - 1, 3), Refused); // class CH
    check_code(
        &question("home.alt.", rr::RecordType::AXFR)
            .to_vec()
            .unwrap(),
        Refused,
    );
    check_code(
        &question("example.org.", rr::RecordType::IXFR)
            .to_vec()
            .unwrap(),
        Refused,
    );
    assert_eq!(ask_bytes(&with(2, 0x80), Carrier::Udp).0, Answer::Ignore);
    assert_eq!(ask_bytes(&good[..11], Carrier::Udp).0, Answer::Ignore);
    let long = [
        &good[..12],
        &[b"\x3f".as_slice(), &[b'a'; 63]].concat().repeat(4),
        &[0, 0, 28, 0, 1],
    ]
    .concat();
    check_code(&long, FormErr);
}

#[test]
fn a_question_that_nobody_answered_can_be_refused() {
    let mut reply = [0; 512];
    let query = question("example.org.", AAAA);
    let bytes = query.to_vec().unwrap();
    let Answer::Reply(length) = refuse_with(Rcode::SERVFAIL, &bytes, Carrier::Udp, &mut reply)
    else {
        panic!("no reply");
    };
    let reply = Message::from_vec(&reply[..length]).unwrap();
    assert_eq!(
        (reply.metadata.response_code, reply.queries),
        (ServFail, query.queries)
    );
    assert!(!reply.metadata.authoritative);
}

#[test]
fn edns_is_answered_with_edns() {
    let mut query = question("wiki.home.alt.", AAAA);
    assert!(ask(&query).edns.is_none());
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_dnssec_ok(true);
    query.set_edns(edns.clone());
    let reply = ask(&query);
    let found = reply.edns.as_ref().unwrap();
    assert_eq!((found.max_payload(), found.version()), (1232, 0));
    assert!(found.flags().dnssec_ok);
    assert_eq!(reply.answers.len(), 1);
    edns.set_version(1);
    query.set_edns(edns);
    let reply = ask(&query);
    // 16 is BADVERS here and BADSIG elsewhere (RFC 6895 section 2.3).
    assert_eq!(u16::from(reply.metadata.response_code), 16);
    assert_eq!(reply.answers.len(), 0);
    // Two of them.
    let mut twice = query.to_vec().unwrap();
    let opt = twice[twice.len() - 11..].to_vec();
    twice.extend(opt);
    twice[11] = 2;
    check_code(&twice, FormErr);
}

#[test]
fn what_does_not_fit_is_cut_off_and_fits_over_tcp() {
    let mut query = question("many.work.alt.", AAAA);
    let cut = ask(&query);
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    assert_eq!(cut.queries, query.queries);
    let (_, whole) = ask_bytes(&query.to_vec().unwrap(), Carrier::Tcp);
    let whole = Message::from_vec(&whole).unwrap();
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 60);
    let mut edns = Edns::new();
    edns.set_max_payload(65000);
    query.set_edns(edns);
    assert!(ask(&query).metadata.truncation, "1232 bytes are the most");
}

#[test]
fn edns_is_never_what_is_left_out() {
    let mut query = question("many.work.alt.", AAAA);
    query.set_edns(Edns::new());
    let bytes = query.to_vec().unwrap();
    // The query is as long as a reply without answers.
    for room in bytes.len()..600 {
        let mut reply = vec![0; room];
        let Answer::Reply(length) = answer(&bytes, &Homes, Carrier::Udp, &mut reply) else {
            panic!("no reply in {room} bytes");
        };
        let reply = Message::from_vec(&reply[..length]).unwrap();
        assert!(reply.edns.is_some() && reply.metadata.truncation, "{room}");
    }
}

/// A query with whatever follows the header.
fn any_query() -> impl Strategy<Value = Vec<u8>> {
    let label = prop_oneof![
        Just("wiki"),
        Just("many"),
        Just("home"),
        Just("work"),
        Just("alt"),
        Just("arpa"),
        Just("ip6"),
        Just("d"),
        Just("f"),
        Just("1"),
        Just("0"),
        Just("ns"),
        Just("-"),
    ];
    let name = (proptest::collection::vec(label, 0..40), 0u8..6);
    (
        name,
        any::<[u8; 4]>(),
        prop_oneof![Just(Vec::new()), any::<Vec<u8>>()],
        any::<u16>(),
        0u8..4,
    )
        .prop_map(|((labels, tail), kind, rest, size, mode)| {
            let mut bytes = std::vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(mode > 0)];
            let tail: &[&str] = match tail {
                0 => &["alt"],
                1 => &["work", "alt"],
                2 => &["many", "work", "alt"],
                3 => &["d", "f", "ip6", "arpa"],
                _ => &[],
            };
            for label in labels.iter().chain(tail) {
                bytes.push(label.len() as u8);
                bytes.extend(label.as_bytes());
            }
            bytes.push(0);
            bytes.extend([0, [28, 6, 255, kind[1]][usize::from(kind[0] % 4)], 0, 1]);
            if mode > 0 {
                let [high, low] = size.to_be_bytes();
                bytes.extend([0, 0, 41, high, low, 0, 0, kind[2] & 0x80, 0, 0, 0]);
            }
            bytes.extend(rest);
            bytes
        })
}

proptest! {
    #[test]
    fn a_reply_can_be_read_and_is_never_too_long(query in any_query(), room in 0usize..1500) {
        let mut reply = std::vec![0; room];
        if let Answer::Reply(length) = answer(&query, &Homes, Carrier::Udp, &mut reply) {
            prop_assert!(length <= room.min(MAX_UDP_BYTES));
            let parsed = Query::parse(&query).ok();
            let is_plain = query[11] == 0;
            prop_assert!(!is_plain || length <= MIN_UDP_BYTES);
            if room >= MIN_UDP_BYTES && parsed.is_some() {
                let reply = Message::from_vec(&reply[..length]);
                prop_assert!(reply.is_ok(), "{:?}", reply);
            }
        }
    }

    #[test]
    fn no_bytes_panic(mut query: Vec<u8>, is_query: bool, room in 0usize..600) {
        if is_query && query.len() > 12 {
            query[2] &= 0x07;
            query[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 1]);
        }
        let mut reply = std::vec![0; room];
        let _ = answer(&query, &Homes, Carrier::Tcp, &mut reply);
        let _ = refuse_with(Rcode::REFUSED, &query, Carrier::Udp, &mut reply);
    }

    #[test]
    fn alt_is_never_forwarded(labels in proptest::collection::vec("[a-zA-Z0-9_-]{1,20}", 0..6), kind: u16) {
        let mut bytes = std::vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in labels.iter().map(String::as_str).chain(["aLT"]) {
            bytes.push(label.len() as u8);
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        let mut reply = [0; 512];
        prop_assert!(matches!(answer(&bytes, &Homes, Carrier::Udp, &mut reply), Answer::Reply(_)));
    }
}
