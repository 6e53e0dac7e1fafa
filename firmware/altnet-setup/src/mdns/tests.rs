//! Questions are written and answers read back by `hickory-proto`.

use hickory_proto::op::{Message, MessageType, OpCode, Query as Asked};
use hickory_proto::rr::rdata::PTR as Pointer;
use hickory_proto::rr::{self, DNSClass, RData, RecordType};
use proptest::prelude::*;

use super::*;

const AT: Addresses = Addresses {
    v4: Some(Ipv4Addr::new(192, 168, 1, 1)),
    v6: Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
};

fn names() -> Names {
    Names {
        label: "altnet-ab12cd".into(),
        port: 51821,
        text: vec!["v=1".into(), "board=rpi".into()],
    }
}

fn dns(text: &str) -> rr::Name {
    rr::Name::from_ascii(text).unwrap()
}

fn query(questions: &[(&str, RecordType)], is_unicast: bool) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    for (name, kind) in questions {
        let mut question = Asked::query(dns(name), *kind);
        if is_unicast {
            question.set_query_class(DNSClass::Unknown(0x8001));
        }
        message.add_query(question);
    }
    message
}

fn ask(message: &Message, is_legacy: bool) -> Option<(To, Message)> {
    let reply = names().answer(&message.to_vec().unwrap(), AT, is_legacy)?;
    Some((reply.to, Message::from_vec(&reply.bytes).unwrap()))
}

fn told(records: &[rr::Record]) -> Vec<String> {
    let said = |record: &rr::Record| {
        format!(
            "{} {} {} {}",
            record.name,
            record.ttl,
            record.record_type(),
            record.data
        )
    };
    records.iter().map(said).collect()
}

const INSTANCE: &str = "altnet-ab12cd._altnet-setup._tcp.local.";

#[test]
fn who_looks_for_boxes_gets_all_there_is() {
    let (to, said) = ask(
        &query(&[("_ALTNET-setup._tcp.local.", RecordType::PTR)], false),
        false,
    )
    .unwrap();
    assert_eq!(
        (to, said.metadata.id, said.queries.len()),
        (To::Group, 0, 0)
    );
    assert_eq!(
        told(&said.answers),
        [format!("_altnet-setup._tcp.local. 4500 PTR {INSTANCE}")]
    );
    let more = told(&said.additionals);
    assert_eq!(more.len(), 4, "{more:?}");
    assert_eq!(
        more[0],
        format!("{INSTANCE} 120 SRV 0 0 51821 altnet-ab12cd.local.")
    );
    assert!(
        more[1].contains("v=1") && more[1].contains("board=rpi"),
        "{more:?}"
    );
    assert!(
        more[2].ends_with("A 192.168.1.1") && more[3].ends_with("AAAA fe80::1"),
        "{more:?}"
    );
}

#[test]
fn who_asks_for_one_record_gets_that() {
    for (name, kind, answer) in [
        (
            "_services._dns-sd._udp.local.",
            RecordType::PTR,
            "_altnet-setup._tcp.local.",
        ),
        (INSTANCE, RecordType::SRV, "0 0 51821 altnet-ab12cd.local."),
        ("altnet-ab12cd.local.", RecordType::A, "192.168.1.1"),
        ("altnet-ab12cd.local.", RecordType::AAAA, "fe80::1"),
    ] {
        let (to, said) = ask(&query(&[(name, kind)], true), false).unwrap();
        assert_eq!(to, To::Asker);
        let said = told(&said.answers);
        assert!(said.len() == 1 && said[0].ends_with(answer), "{said:?}");
    }
    for (name, kind) in [
        ("altnet-ab12ce.local.", RecordType::A),
        (INSTANCE, RecordType::A),
        ("local.", RecordType::ANY),
    ] {
        assert_eq!(ask(&query(&[(name, kind)], false), false), None);
    }
}

#[test]
fn who_knows_no_multicast_dns_gets_an_ordinary_answer() {
    let (to, said) = ask(
        &query(&[("_altnet-setup._tcp.local.", RecordType::PTR)], false),
        true,
    )
    .unwrap();
    assert_eq!(
        (to, said.metadata.id, said.queries.len()),
        (To::Asker, 7, 1)
    );
    for record in said.answers.iter().chain(&said.additionals) {
        assert!(
            record.ttl <= 10 && record.dns_class == DNSClass::IN,
            "{record}"
        );
    }
}

#[test]
fn what_the_asker_knows_is_not_said_again() {
    for (ttl, is_answered) in [(4500, false), (2250, false), (2249, true)] {
        let mut message = query(&[("_altnet-setup._tcp.local.", RecordType::PTR)], false);
        let target = RData::PTR(Pointer(dns(INSTANCE)));
        message.add_answer(rr::Record::from_rdata(
            dns("_altnet-setup._tcp.local."),
            ttl,
            target,
        ));
        assert_eq!(ask(&message, false).is_some(), is_answered, "{ttl}");
    }
}

#[test]
fn it_says_goodbye() {
    let said = Message::from_vec(&names().announcement(AT, true)).unwrap();
    assert_eq!(said.answers.len(), 1);
    assert!(
        said.answers
            .iter()
            .chain(&said.additionals)
            .all(|record| record.ttl == 0)
    );
}

#[test]
fn answers_and_pointers_that_lead_nowhere_are_not_answered() {
    let answer = names().announcement(AT, false);
    assert_eq!(names().answer(&answer, AT, false), None);
    let mut looped = query(&[("_altnet-setup._tcp.local.", RecordType::PTR)], false)
        .to_vec()
        .unwrap();
    looped.truncate(12);
    for pointer in [[0xc0, 12], [0xc0, 13], [0xff, 0xff], [0x80, 0]] {
        let bytes = [&looped[..], &pointer, &[0, 12, 0, 1]].concat();
        assert_eq!(names().answer(&bytes, AT, false), None);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), is_legacy: bool) {
        let mut whole = vec![0; 12];
        whole[5] = 1;
        whole[7] = bytes.first().copied().unwrap_or(0) & 3;
        whole.extend(bytes);
        let _ = names().answer(&whole, AT, is_legacy);
    }
}
