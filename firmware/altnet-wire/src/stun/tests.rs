//! Published vectors, exact bytes and laws. Bytes that this code writes are worked out again in
//! `ci/vectors/stun.py`.

use std::vec::Vec;

use proptest::prelude::*;

use super::attribute::*;
use super::channel::Channel;
use super::integrity::Integrity;
use super::write::Writer;
use super::*;
use crate::frame::{FRAME_BYTES, Frame, MAX_PACKET_BYTES};

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter_map(|c| char::from(c).to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// RFC 5769 section 2.1.
const REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c\
    69656e74002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aea\
    a70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";
/// RFC 5769 section 2.2.
const V4_RESPONSE: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f\
    7220002000080001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";
/// RFC 5769 section 2.3.
const V6_RESPONSE: &str = "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f\
    7220002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275\
    bfe3ed4180280004c8fb0b4c";
/// RFC 5769 section 2.4.
const LONG_TERM: &str = "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383\
    e382afe382b900000015001c662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578\
    616d706c652e6f72670000080014f67024656dd64a3e02b8e0712e85c9a28ca89666";
/// RFC 8489 appendix B.1 with erratum 6268.
const LONG_TERM_SHA256: &str = "000100902112a44278ad3433c6ad72c029da412e001e00204a3cf38fef6992bd\
    a952c6780417da0f24819415569e60b205c46e41407f170400150029 6f624d61744a6f7332414141\
    43662f2f3439396b39353464364f4c33346f4c39465354767936347341000000\
    0014000b6578616d706c652e6f726700001d000400020000001c0020b5c7bf005b6c52a21c51c5e892f819241362\
    96cb927c43149309278cc6518e65";

/// The password of the first three.
const SHORT_TERM_KEY: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";
/// MD5 and SHA-256 of "マトリックス:example.org:TheMatrIX".
const LONG_TERM_KEY: &str = "e8ca7ad59d5eb0518e312911d2dab2a9";
const LONG_TERM_KEY_SHA256: &str =
    "dd295a613b9058c3c23d6dc7165bda072304d989c9d0af3a8c7e184b4f9bb4a1";

fn check_response(text: &str, expected: &str) {
    let bytes = unhex(text);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.class(), Class::Success);
    assert_eq!(message.method(), Method::BINDING);
    let software = message.find(SOFTWARE).unwrap();
    assert_eq!(software.text(), Some("test vector"));
    let address = message.xor_address(XOR_MAPPED_ADDRESS);
    assert_eq!(address, Some(expected.parse().unwrap()));
    assert!(message.is_signed_with(Integrity::Sha1, SHORT_TERM_KEY));
    assert_eq!(message.fingerprint(), Some(true));
}

#[test]
fn the_vectors_of_rfc_5769_are_read_and_believed() {
    let bytes = unhex(REQUEST);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.class(), Class::Request);
    let transaction = unhex("b7e7a701bc34d686fa87dfae");
    assert_eq!(message.transaction().0[..], transaction);
    let text = |kind| message.find(kind).and_then(|found| found.text());
    assert_eq!(text(SOFTWARE), Some("STUN test client"));
    assert_eq!(text(USERNAME), Some("evtj:h6vY"));
    assert_eq!(message.signed_by(), Some(Integrity::Sha1));
    assert!(message.is_signed_with(Integrity::Sha1, SHORT_TERM_KEY));
    assert!(!message.is_signed_with(Integrity::Sha256, SHORT_TERM_KEY));
    assert_eq!(message.fingerprint(), Some(true));
    check_response(V4_RESPONSE, "192.0.2.1:32853");
    check_response(V6_RESPONSE, "[2001:db8:1234:5678:11:2233:4455:6677]:32853");
}

#[test]
fn requests_with_long_term_credentials_are_written_as_the_vectors_say() {
    let transaction = TransactionId(unhex("78ad3433c6ad72c029da412e").try_into().unwrap());
    let mut buffer = [0xee; 256];
    let mut writer =
        Writer::new(&mut buffer, Class::Request, Method::BINDING, transaction).unwrap();
    let user = "\u{30de}\u{30c8}\u{30ea}\u{30c3}\u{30af}\u{30b9}";
    let put = |writer: &mut Writer<'_>, kind, text: &str| {
        writer.put(kind, text.as_bytes()).unwrap();
    };
    put(&mut writer, USERNAME, user);
    put(&mut writer, NONCE, "f//499k954d6OL34oL9FSTvy64sA");
    put(&mut writer, REALM, "example.org");
    writer.sign(Integrity::Sha1, &unhex(LONG_TERM_KEY)).unwrap();
    assert_eq!(writer.bytes(), unhex(LONG_TERM));

    let mut writer =
        Writer::new(&mut buffer, Class::Request, Method::BINDING, transaction).unwrap();
    let hash = unhex("4a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704");
    writer.put(USERHASH, &hash).unwrap();
    put(
        &mut writer,
        NONCE,
        "obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA",
    );
    put(&mut writer, REALM, "example.org");
    writer.put(PASSWORD_ALGORITHM, &[0, 2, 0, 0]).unwrap();
    let key = unhex(LONG_TERM_KEY_SHA256);
    writer.sign(Integrity::Sha256, &key).unwrap();
    assert_eq!(writer.bytes(), unhex(LONG_TERM_SHA256));
    let message = Message::parse(writer.bytes()).unwrap();
    assert!(message.is_signed_with(Integrity::Sha256, &key));
}

#[test]
fn a_changed_bit_anywhere_is_noticed() {
    let bytes = unhex(REQUEST);
    for at in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[at / 8] ^= 1 << (at % 8);
        let Ok(message) = Message::parse(&changed) else {
            continue;
        };
        let is_believed = message.is_signed_with(Integrity::Sha1, SHORT_TERM_KEY);
        assert!(
            !is_believed || message.fingerprint() != Some(true),
            "bit {at}"
        );
    }
}

#[test]
fn what_stands_behind_a_signature_is_passed_over() {
    let mut buffer = [0; 256];
    let transaction = TransactionId([7; 12]);
    let mut writer =
        Writer::new(&mut buffer, Class::Success, Method::REFRESH, transaction).unwrap();
    writer.put_number(LIFETIME, 600).unwrap();
    writer.sign(Integrity::Sha1, b"key").unwrap();
    writer.put_number(LIFETIME, 9).unwrap();
    writer.put(REALM, b"forged").unwrap();
    writer.put_fingerprint().unwrap();
    let message = Message::parse(writer.bytes()).unwrap();
    assert!(message.is_signed_with(Integrity::Sha1, b"key"));
    assert_eq!(message.fingerprint(), Some(true));
    assert_eq!(message.number(LIFETIME), Some(600));
    assert_eq!(message.find(REALM), None);
    assert_eq!(message.attributes().count(), 1);
}

#[test]
fn a_shortened_sha256_signature_counts_down_to_sixteen_bytes() {
    let transaction = TransactionId([7; 12]);
    for (length, expected) in [(32, true), (28, true), (16, true), (12, false), (0, false)] {
        // Signed as a message that ends behind a check of that length.
        let mut buffer = [0; 64];
        let mut writer =
            Writer::new(&mut buffer, Class::Success, Method::BINDING, transaction).unwrap();
        let covered = integrity::Covered::new(writer.bytes(), HEADER_BYTES, length);
        let mac = integrity::sha256(b"key", &covered).unwrap();
        writer
            .put(MESSAGE_INTEGRITY_SHA256, &mac[..length])
            .unwrap();
        let message = Message::parse(writer.bytes()).unwrap();
        let is_signed = message.is_signed_with(Integrity::Sha256, b"key");
        assert_eq!(is_signed, expected, "{length} bytes");
    }
}

#[test]
fn messages_whose_lengths_do_not_fit_are_refused() {
    let check = |bytes: &[u8], expected| assert_eq!(Message::parse(bytes).err(), Some(expected));
    let request = unhex(REQUEST);
    check(&[], BadStun::NotStun);
    check(&request[..19], BadStun::NotStun);
    let found = request.len() - HEADER_BYTES - 4;
    let said = found + 4;
    check(
        &request[..request.len() - 4],
        BadStun::Length { said, found },
    );
    let mut other = request.clone();
    other[4] ^= 1;
    check(&other, BadStun::NotStun);
    let mut other = request.clone();
    other[0] |= 0x40;
    check(&other, BadStun::NotStun);
    let mut other = request.clone();
    other[23] = 0xff;
    check(&other, BadStun::Attribute);
    let mut other = request.clone();
    other.extend([0x80, 0x22, 0, 0]);
    other[3] += 4;
    check(&other, BadStun::AfterFingerprint);
    let mut many = unhex("000100842112a442000000000000000000000000");
    many.extend([0x80, 0x22, 0, 0].repeat(MAX_ATTRIBUTES + 1));
    check(&many, BadStun::TooMany);
    many.truncate(many.len() - 4);
    many[3] -= 4;
    assert_eq!(Message::parse(&many).unwrap().attributes().count(), 32);
}

#[test]
fn an_error_is_read_as_it_was_written_and_only_if_it_is_one() {
    let mut buffer = [0; 128];
    let mut writer = Writer::new(
        &mut buffer,
        Class::Error,
        Method::ALLOCATE,
        TransactionId([1; 12]),
    )
    .unwrap();
    writer.put_error(420, "Unknown Attribute").unwrap();
    writer.put_unknown([0x7fff, 0x0024].into_iter()).unwrap();
    let message = Message::parse(writer.bytes()).unwrap();
    let error = message.error().unwrap();
    assert_eq!((error.code, error.reason), (420, "Unknown Attribute"));
    let unknown = message.find(UNKNOWN_ATTRIBUTES).unwrap();
    assert_eq!(unknown.list().collect::<Vec<u16>>(), [0x7fff, 0x0024]);
    for value in [
        &[0u8, 0, 7, 0][..],
        &[0, 0, 2, 0],
        &[0, 0, 4, 100],
        &[0, 0, 4],
    ] {
        let kind = ERROR_CODE;
        let attribute = Attribute { kind, value, at: 0 };
        assert_eq!(attribute.error(), None);
    }
}

#[test]
fn what_must_be_understood_and_is_not_is_named() {
    let bytes = unhex(REQUEST);
    let message = Message::parse(&bytes).unwrap();
    let unknown: Vec<u16> = message.unknown_required(&[USERNAME]).collect();
    // PRIORITY must be understood; ICE-CONTROLLED and SOFTWARE need not.
    assert_eq!(unknown, [0x0024]);
}

#[test]
fn channel_data_is_four_bytes_in_front_and_nothing_behind_counts() {
    let mut buffer = [0; FRAME_BYTES];
    let mut frame = Frame::new(&mut buffer);
    let channel = Channel::new(0x4001).unwrap();
    frame.set(b"hello").unwrap();
    channel.push(&mut frame).unwrap();
    assert_eq!(frame.packet(), b"\x40\x01\x00\x05hello");
    stream::pad(&mut frame).unwrap();
    assert_eq!(frame.packet(), b"\x40\x01\x00\x05hello\0\0\0");
    assert_eq!(Channel::pop(&mut frame), Some(channel));
    assert_eq!(frame.packet(), b"hello");
    for (bytes, what) in [
        (&b"\x40\x01\x00\x06hello"[..], "cut off"),
        (b"\x40\x01\x00\x01hello", "with more than padding behind"),
        (b"\x50\x01\x00\x05hello", "of a reserved channel"),
        (b"\x3f\xff\x00\x05hello", "of no channel"),
    ] {
        assert_eq!(Channel::parse(bytes), None, "{what}");
    }
}

#[test]
fn a_stream_is_cut_where_its_messages_end() {
    use stream::{BadStream, Framed, framed};
    let request = unhex(REQUEST);
    let whole = Framed {
        length: 108,
        padding: 0,
    };
    for cut in 0..request.len() {
        let expected = (cut >= 4).then_some(whole);
        let bytes = &request[..cut];
        // Half a cookie isn't wrong yet.
        assert_eq!(framed(bytes), Ok(expected), "{cut} bytes");
    }
    let data = b"\x40\x01\x00\x05hello\0\0\0\x40";
    let length = 9;
    assert_eq!(framed(data), Ok(Some(Framed { length, padding: 3 })));
    assert_eq!(
        framed(b"GET / HTTP"),
        Err(BadStream::TooLong { found: 21540 })
    );
    assert_eq!(framed(&[0x80, 0, 0, 0]), Err(BadStream::NotTurn));
    assert_eq!(framed(b"\0\x01\0\0SIP/"), Err(BadStream::NotTurn));
}

fn peers() -> impl Strategy<Value = SocketAddr> {
    any::<(core::net::IpAddr, u16)>().prop_map(SocketAddr::from)
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::parse(&bytes);
        let _ = Channel::parse(&bytes);
        let _ = stream::framed(&bytes);
        // And with a header that fits, so that attributes are reached.
        let mut message = bytes;
        message.truncate(message.len() / 4 * 4);
        let mut whole = unhex("000100002112a442000102030405060708090a0b");
        whole[3] = message.len() as u8;
        whole.extend(message);
        if let Ok(message) = Message::parse(&whole) {
            for attribute in message.attributes() {
                let _ = (attribute.address(), attribute.error(), attribute.number());
                let _ = attribute.xor_address(&message.transaction());
                prop_assert!(attribute.value_at() + attribute.value.len() <= whole.len());
            }
            prop_assert!(!message.is_signed_with(Integrity::Sha1, b"key"));
            prop_assert!(!message.is_signed_with(Integrity::Sha256, b"key"));
        }
    }

    #[test]
    fn what_is_written_is_read(
        method in 0u16..0x1000,
        class in 0usize..4,
        transaction in any::<[u8; 12]>(),
        address in peers(),
        values in proptest::collection::vec(
            (0x0100u16.., proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
    ) {
        let class = [Class::Request, Class::Indication, Class::Success, Class::Error][class];
        let transaction = TransactionId(transaction);
        let values: Vec<_> = values.into_iter().filter(|(kind, _)| *kind != FINGERPRINT).collect();
        let mut buffer = [0xaa; 700];
        let mut writer = Writer::new(&mut buffer, class, Method(method), transaction).unwrap();
        for (kind, value) in &values {
            writer.put(*kind, value).unwrap();
        }
        writer.put_xor_address(XOR_PEER_ADDRESS, address).unwrap();
        writer.put_address(MAPPED_ADDRESS, address).unwrap();
        writer.sign(Integrity::Sha1, b"one").unwrap().sign(Integrity::Sha256, b"two").unwrap();
        writer.put_fingerprint().unwrap();
        let message = Message::parse(writer.bytes()).unwrap();
        prop_assert_eq!((message.class(), message.method()), (class, Method(method)));
        prop_assert_eq!(message.transaction(), transaction);
        let read = message.attributes().take(values.len());
        let read: Vec<_> = read.map(|a| (a.kind, a.value.to_vec())).collect();
        prop_assert_eq!(read, values);
        prop_assert_eq!(message.xor_address(XOR_PEER_ADDRESS), Some(address));
        prop_assert_eq!(message.address(MAPPED_ADDRESS), Some(address));
        prop_assert!(message.is_signed_with(Integrity::Sha1, b"one"));
        prop_assert!(message.is_signed_with(Integrity::Sha256, b"two"));
        prop_assert!(!message.is_signed_with(Integrity::Sha1, b"two"));
        prop_assert_eq!(message.fingerprint(), Some(true));
    }

    #[test]
    fn a_datagram_carried_in_place_is_what_a_writer_would_write(
        peer in peers(),
        transaction in any::<[u8; 12]>(),
        data in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let transaction = TransactionId(transaction);
        let mut buffer = [0xaa; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(&data).unwrap();
        carry::push_send(peer, transaction, &mut frame).unwrap();
        let mut out = [0; 256];
        let mut writer = Writer::new(&mut out, Class::Indication, Method::SEND, transaction).unwrap();
        writer.put_xor_address(XOR_PEER_ADDRESS, peer).unwrap();
        writer.put(DATA, &data).unwrap();
        prop_assert_eq!(frame.packet(), writer.bytes());
        // As the server passes it on.
        let mut writer = Writer::new(&mut out, Class::Indication, Method::DATA, transaction).unwrap();
        writer.put(DATA, &data).unwrap();
        writer.put_xor_address(XOR_PEER_ADDRESS, peer).unwrap();
        frame.set(writer.bytes()).unwrap();
        prop_assert_eq!(carry::pop_data(&mut frame), Some(peer));
        prop_assert_eq!(frame.packet(), data);
    }
}

#[test]
fn a_full_datagram_has_room_for_a_send_indication_and_a_larger_one_is_refused() {
    let mut buffer = [0; FRAME_BYTES];
    let mut frame = Frame::new(&mut buffer);
    let peer = "[2001:db8::1]:5".parse().unwrap();
    frame.set(&[1; MAX_PACKET_BYTES]).unwrap();
    let pushed = carry::push_send(peer, TransactionId([0; 12]), &mut frame);
    assert_eq!(pushed, Ok(()));
    assert_eq!(frame.len(), MAX_PACKET_BYTES + carry::SEND_HEADER_BYTES);
    let mut frame = Frame::new(&mut buffer[..80]);
    frame.set(&[1; 13]).unwrap();
    frame.push_front(40).unwrap();
    let pushed = carry::push_send(peer, TransactionId([0; 12]), &mut frame);
    assert!(pushed.is_err());
}
