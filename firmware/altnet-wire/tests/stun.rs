//! STUN and TURN messages from fixed inputs, byte by byte: a change of format is a red test.
//!
//! `stun.json` holds the inputs and the bytes; `ci/vectors/stun.py` makes the same bytes from the
//! inputs without any of this code. To accept a change, run this test with
//! `ALTNET_WRITE_VECTORS=1` and say why in the commit.

use std::fmt::Write;

use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::stun::attribute::*;
use altnet_wire::stun::channel::Channel;
use altnet_wire::stun::integrity::Integrity;
use altnet_wire::stun::write::Writer;
use altnet_wire::stun::{Class, Method, TransactionId, carry};

/// One attribute, as it is given.
enum Given<'a> {
    Value(u16, &'a [u8]),
    Number(u16, u32),
    Plain(u16, &'a str),
    Xor(u16, &'a str),
    Error(u16, &'a str),
    Unknown(&'a [u16]),
    Sha1(&'a [u8]),
    Sha256(&'a [u8]),
    Fingerprint,
}

use Given::{Error, Fingerprint, Number, Plain, Sha1, Sha256, Unknown, Value, Xor};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn class_name(class: Class) -> &'static str {
    match class {
        Class::Request => "request",
        Class::Indication => "indication",
        Class::Success => "success",
        Class::Error => "error",
    }
}

fn put(writer: &mut Writer<'_>, given: &Given<'_>) -> String {
    match given {
        Value(kind, value) => {
            writer.put(*kind, value).unwrap();
            format!(r#"["value", {kind}, "{}"]"#, hex(value))
        }
        Number(kind, number) => {
            writer.put_number(*kind, *number).unwrap();
            format!(r#"["number", {kind}, {number}]"#)
        }
        Plain(kind, address) => {
            writer.put_address(*kind, address.parse().unwrap()).unwrap();
            format!(r#"["plain", {kind}, "{address}"]"#)
        }
        Xor(kind, address) => {
            let address = address.parse().unwrap();
            writer.put_xor_address(*kind, address).unwrap();
            format!(r#"["xor", {kind}, "{address}"]"#)
        }
        Error(code, reason) => {
            writer.put_error(*code, reason).unwrap();
            format!(r#"["error", {code}, "{reason}"]"#)
        }
        Unknown(kinds) => {
            writer.put_unknown(kinds.iter().copied()).unwrap();
            format!(r#"["unknown", {kinds:?}]"#)
        }
        Sha1(key) => {
            writer.sign(Integrity::Sha1, key).unwrap();
            format!(r#"["sha1", "{}"]"#, hex(key))
        }
        Sha256(key) => {
            writer.sign(Integrity::Sha256, key).unwrap();
            format!(r#"["sha256", "{}"]"#, hex(key))
        }
        Fingerprint => {
            writer.put_fingerprint().unwrap();
            r#"["fingerprint"]"#.into()
        }
    }
}

fn message(class: Class, method: Method, given: &[Given<'_>]) -> String {
    let transaction = TransactionId(*b"twelve bytes");
    let mut buffer = [0xee; 512];
    let mut writer = Writer::new(&mut buffer, class, method, transaction).unwrap();
    let attributes: Vec<String> = given.iter().map(|given| put(&mut writer, given)).collect();
    format!(
        "    {{\n      \"class\": \"{}\",\n      \"method\": {},\n      \"transaction\": \"{}\",\n      \
         \"attributes\": [\n        {}\n      ],\n      \"bytes\": \"{}\"\n    }}",
        class_name(class),
        method.number(),
        hex(&transaction.0),
        attributes.join(",\n        "),
        hex(writer.bytes())
    )
}

fn messages() -> Vec<String> {
    const V4: &str = "203.0.113.9:51820";
    const V6: &str = "[2001:db8:1:2:3:4:5:6]:7";
    const KEY: &[u8] = &[0x5a; 16];
    let udp = [TRANSPORT_UDP, 0, 0, 0];
    let channel = Channel::new(0x4abc).unwrap();
    let who = || {
        [
            Value(USERNAME, b"somebody"),
            Value(REALM, b"example.net"),
            Value(NONCE, b"obMatJos2AAAB/once"),
        ]
    };
    let signed = |front: Vec<Given<'static>>, end: Vec<Given<'static>>| -> Vec<Given<'static>> {
        front.into_iter().chain(who()).chain(end).collect()
    };
    vec![
        message(Class::Request, Method::BINDING, &[]),
        message(
            Class::Request,
            Method::BINDING,
            &[
                Value(PADDING, &[0; 21]),
                Value(SOFTWARE, b"altnet"),
                Fingerprint,
            ],
        ),
        message(
            Class::Success,
            Method::BINDING,
            &[Xor(XOR_MAPPED_ADDRESS, V4)],
        ),
        message(
            Class::Success,
            Method::BINDING,
            &[
                Xor(XOR_MAPPED_ADDRESS, V6),
                Plain(MAPPED_ADDRESS, V6),
                Fingerprint,
            ],
        ),
        message(
            Class::Error,
            Method::BINDING,
            &[Error(420, "Unknown Attribute"), Unknown(&[0x7777, 0x24, 3])],
        ),
        message(
            Class::Error,
            Method::ALLOCATE,
            &[Error(300, "Try Alternate"), Plain(ALTERNATE_SERVER, V4)],
        ),
        message(
            Class::Request,
            Method::ALLOCATE,
            &[
                Value(REQUESTED_TRANSPORT, &udp),
                Value(REQUESTED_ADDRESS_FAMILY, &[FAMILY_V6, 0, 0, 0]),
                Value(EVEN_PORT, &[0x80]),
                Value(DONT_FRAGMENT, &[]),
                Number(LIFETIME, 600),
                Sha1(KEY),
            ],
        ),
        message(
            Class::Request,
            Method::ALLOCATE,
            &signed(
                vec![Value(REQUESTED_TRANSPORT, &[TRANSPORT_UDP, 0, 0, 0])],
                vec![
                    Value(PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0]),
                    Value(PASSWORD_ALGORITHM, &[0, 2, 0, 0]),
                    Sha256(KEY),
                    Fingerprint,
                ],
            ),
        ),
        message(
            Class::Success,
            Method::ALLOCATE,
            &[
                Xor(XOR_RELAYED_ADDRESS, V4),
                Number(LIFETIME, 3600),
                Xor(XOR_MAPPED_ADDRESS, V6),
                Sha1(KEY),
                Sha256(KEY),
                Fingerprint,
            ],
        ),
        message(
            Class::Request,
            Method::REFRESH,
            &signed(vec![Number(LIFETIME, 0)], vec![Sha1(KEY)]),
        ),
        message(
            Class::Request,
            Method::CREATE_PERMISSION,
            &signed(
                vec![Xor(XOR_PEER_ADDRESS, V4), Xor(XOR_PEER_ADDRESS, V6)],
                vec![Sha1(KEY)],
            ),
        ),
        message(
            Class::Request,
            Method::CHANNEL_BIND,
            &[
                Value(CHANNEL_NUMBER, &channel.value()),
                Xor(XOR_PEER_ADDRESS, V6),
                Sha1(KEY),
            ],
        ),
        message(
            Class::Indication,
            Method::DATA,
            &[Xor(XOR_PEER_ADDRESS, V4), Value(DATA, b"hello")],
        ),
    ]
}

/// What is put in front of datagrams where they lie.
fn carried() -> Vec<String> {
    let mut rows = Vec::new();
    let mut buffer = [0xee; FRAME_BYTES];
    for (length, peer) in [
        (0, "192.0.2.1:9"),
        (5, "[2001:db8::1]:65535"),
        (8, "[::1]:1"),
    ] {
        let data: Vec<u8> = (1..=length).collect();
        let mut frame = Frame::new(&mut buffer);
        frame.set(&data).unwrap();
        Channel::new(0x4fff).unwrap().push(&mut frame).unwrap();
        let channel = hex(frame.packet());
        frame.set(&data).unwrap();
        let transaction = TransactionId(*b"twelve bytes");
        carry::push_send(peer.parse().unwrap(), transaction, &mut frame).unwrap();
        rows.push(format!(
            "    {{\n      \"data\": \"{}\",\n      \"peer\": \"{peer}\",\n      \"channel\": {},\n      \
             \"channel_data\": \"{channel}\",\n      \"send\": \"{}\"\n    }}",
            hex(&data),
            0x4fff,
            hex(frame.packet())
        ));
    }
    rows
}

#[test]
fn every_stun_message_is_written_as_it_always_was() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stun.json");
    let now = format!(
        "{{\n  \"messages\": [\n{}\n  ],\n  \"carried\": [\n{}\n  ]\n}}\n",
        messages().join(",\n"),
        carried().join(",\n")
    );
    if std::env::var_os("ALTNET_WRITE_VECTORS").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let then = std::fs::read_to_string(path).unwrap();
    for (line, (now, then)) in now.lines().zip(then.lines()).enumerate() {
        assert_eq!(now, then, "line {} of stun.json", line + 1);
    }
    assert_eq!(now.len(), then.len());
}
