//! Decoders: any bytes are refused or read, and what was read writes itself again.

use std::net::Ipv6Addr;
use std::sync::OnceLock;

use altnet_core::invite::{Bundle, Link};
use altnet_core::lan::advertisement::Solicitation;
use altnet_core::names::{self, Carrier};
use altnet_core::node::{Config, Identity, Node, read_invitation};
use altnet_core::records;
use altnet_tunnel::aead::ChaChaPoly;
use altnet_tunnel::message::Message as Tunnel;
use altnet_wire::control::{ControlFrame, ControlPacket, MAX_MESSAGE_BYTES};
use altnet_wire::echo;
use altnet_wire::envelope::{Envelope, RecordKind};
use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::id::NodeId;
use altnet_wire::mesh::{HEADER_BYTES, MAX_HOPS, MeshPacket};
use altnet_wire::message::{self, Packed};
use altnet_wire::policy::Run;
use altnet_wire::record::{
    self, AppRecord, DerpRecord, Genesis, HostRecord, Invite, IssuerCertificate, Membership,
    NetworkHead, NodeRecord, OwnerChange, Revocation,
};
use altnet_wire::relay::RelayPacket;
use altnet_wire::stun::attribute::{self, Attribute};
use altnet_wire::stun::channel::Channel;
use altnet_wire::stun::integrity::Integrity;
use altnet_wire::stun::write::Writer;
use altnet_wire::stun::{self, Class, Method, TransactionId, carry, stream};
use altnet_wire::time::Instant;
use altnet_wire::tls::{TlsAuthority, TlsCertificate, TlsRequest};

use crate::fixtures;

/// Reads an envelope and, by its kind, its body; and the bytes as every body there is.
pub fn envelope(data: &[u8]) {
    let _ = altnet_wire::id::network_id(data);
    bodies(data);
    let Ok(envelope) = Envelope::parse(data) else {
        return;
    };
    assert_eq!(envelope.bytes(), data);
    let _ = (
        envelope.id(),
        envelope.signed_hash(),
        envelope.header().kind.name(),
    );
    let _ = records::verify(&envelope);
    let max = envelope.header().kind.max_bytes();
    assert!(data.len() <= max || envelope.header().kind == RecordKind::POLICY);
    bodies(envelope.body());
}

fn bodies(body: &[u8]) {
    let _ = record::decode::<Genesis>(body);
    let _ = record::decode::<OwnerChange>(body);
    let _ = record::decode::<IssuerCertificate>(body);
    let _ = record::decode::<Membership>(body);
    let _ = record::decode::<NodeRecord>(body);
    let _ = record::decode::<HostRecord>(body);
    let _ = record::decode::<AppRecord>(body);
    let _ = record::decode::<Revocation>(body);
    let _ = record::decode::<Invite>(body);
    let _ = record::decode::<NetworkHead>(body);
    let _ = record::decode::<TlsAuthority>(body);
    let _ = record::decode::<TlsRequest>(body);
    let _ = record::decode::<TlsCertificate>(body);
    let _ = record::decode::<DerpRecord>(body);
}

/// Reads a control message, and the bytes as packed records.
pub fn message(data: &[u8]) {
    let length: usize = Packed(data).map(<[u8]>::len).sum();
    assert!(length <= data.len());
    if data.len() > MAX_MESSAGE_BYTES {
        return;
    }
    if let Ok(message) = message::decode(data) {
        let mut out = vec![0; MAX_MESSAGE_BYTES];
        let again = message::encode(&message, &mut out).expect("no larger than it was");
        assert_eq!(message::decode(again), Ok(message));
    }
}

/// Reads a control datagram, and the bytes as the frames within one.
pub fn control_packet(data: &[u8]) {
    let mut out = [0; 2048];
    if let Ok(packet) = ControlPacket::parse(data) {
        assert!(ControlPacket::is_control(data));
        let length = packet.encode(&mut out).expect("as large as it was");
        assert_eq!(&out[..length], data);
    }
    let mut rest = data;
    while let Ok((frame, left)) = ControlFrame::take(rest) {
        assert!(left.len() < rest.len());
        if let Ok(length) = frame.encode(&mut out) {
            assert_eq!(length, frame.encoded_len());
        }
        rest = left;
    }
}

/// Reads a relay header, of a client's or between relays, and puts it in front again.
pub fn relay_header(data: &[u8]) {
    let mut buffer = [0; FRAME_BYTES];
    let mut frame = Frame::new(&mut buffer);
    if let Ok(packet) = MeshPacket::parse(data, NodeId([9; 16])) {
        assert!(packet.hops < MAX_HOPS);
        if frame.set(&data[HEADER_BYTES..]).is_ok() && packet.push(&mut frame).is_ok() {
            assert_eq!(frame.packet(), data);
        }
    }
    let Ok((packet, header)) = RelayPacket::parse(data) else {
        return;
    };
    if frame.set(&data[header..]).is_ok() && packet.push(&mut frame).is_ok() {
        assert_eq!(frame.packet()[..header], data[..header]);
    }
}

/// The key of what was sent itself, in the corpus.
const ECHO_KEY: echo::Key = [7; 32];

/// Reads what a node may have sent itself, and writes it again.
pub fn echo(data: &[u8]) {
    let Some(sequence) = echo::read(&ECHO_KEY, data) else {
        return;
    };
    let mut buffer = [0; FRAME_BYTES];
    let mut frame = Frame::new(&mut buffer);
    if echo::write(&ECHO_KEY, sequence, data.len(), &mut frame).is_ok() {
        // The padding is whatever whoever has the key makes it.
        assert_eq!(frame.len(), data.len());
        assert_eq!(echo::read(&ECHO_KEY, frame.packet()), Some(sequence));
    }
}

/// Reads a WireGuard message.
pub fn wireguard_message(data: &[u8]) {
    // mac1 and mac2 are put behind a handshake message once it is encoded.
    let before_macs = |encoded: &[u8]| {
        let length = encoded.len().saturating_sub(32);
        assert_eq!(encoded[..length], data[..length]);
    };
    match Tunnel::parse(data) {
        Ok(Tunnel::Initiation(message)) => before_macs(&message.encode()),
        Ok(Tunnel::Response(message)) => before_macs(&message.encode()),
        Ok(Tunnel::CookieReply(message)) => assert_eq!(&message.encode()[..], data),
        Ok(Tunnel::Transport(message)) => assert!(data.starts_with(&message.encode())),
        _ => {}
    }
}

/// Reads a STUN message or ChannelData, as a datagram and as a stream's beginning; and writes the
/// attributes again.
pub fn stun(data: &[u8]) {
    if let Ok(Some(framed)) = stream::framed(data) {
        assert!(framed.length <= stream::MAX_STREAM_BYTES && framed.padding < 4);
    }
    let mut buffer = [0; FRAME_BYTES];
    let mut frame = Frame::new(&mut buffer);
    if frame.set(data).is_ok() {
        match Channel::pop(&mut frame) {
            Some(channel) => {
                channel.push(&mut frame).expect("where it was");
                assert!(data.starts_with(frame.packet()));
            }
            None if carry::pop_data(&mut frame).is_some() => assert!(frame.len() < data.len()),
            None => assert_eq!(frame.packet(), data),
        }
    }
    let Ok(message) = stun::Message::parse(data) else {
        return;
    };
    let by_whom = message.signed_by();
    let is_signed = |by| message.is_signed_with(by, b"nobody's key");
    assert!(!is_signed(Integrity::Sha1) && !is_signed(Integrity::Sha256));
    let _ = (by_whom, message.fingerprint(), message.error());
    let mut out = vec![0; data.len()];
    let (class, method) = (message.class(), message.method());
    let mut writer = Writer::new(&mut out, class, method, message.transaction()).expect("room");
    for found in message.attributes() {
        readings(&found, message.transaction());
        writer
            .put(found.kind, found.value)
            .expect("as large as it was");
    }
    let again = stun::Message::parse(writer.bytes()).expect("what was written is read");
    assert_eq!((again.class(), again.method()), (class, method));
    let pairs = again.attributes().zip(message.attributes());
    assert!(pairs.into_iter().all(|(new, old)| new == old));
}

fn readings(found: &Attribute<'_>, transaction: TransactionId) {
    let mut out = [0; 64];
    let mut writer = Writer::new(&mut out, Class::Success, Method::BINDING, transaction)
        .expect("room for a header");
    if let Some(address) = found.xor_address(&transaction) {
        writer.put_xor_address(found.kind, address).expect("room");
        let again = stun::Message::parse(writer.bytes()).expect("a message");
        assert_eq!(again.xor_address(found.kind), Some(address));
    }
    if let Some(error) = found.error() {
        assert!((300..700).contains(&error.code));
    }
    let _ = (found.address(), found.number(), found.text());
    assert!(found.list().count() * 2 <= found.value.len());
}

fn member() -> &'static Node<ChaChaPoly> {
    static MEMBER: OnceLock<Node<ChaChaPoly>> = OnceLock::new();
    MEMBER.get_or_init(|| {
        let stored = &fixtures::town().disks[2];
        Node::new(
            Config::router(fixtures::FOUNDED),
            stored,
            [1; 32],
            Instant::ZERO,
        )
        .expect("a disk that was written whole")
    })
}

/// Answers a DNS message by both carriers.
pub fn dns(data: &[u8]) {
    let mut reply = [0; 4096];
    for carrier in [Carrier::Udp, Carrier::Tcp] {
        let room = if carrier == Carrier::Udp {
            names::MAX_UDP_BYTES
        } else {
            4096
        };
        if let names::Answer::Reply(length) = member().handle_dns(data, carrier, &mut reply[..room])
        {
            assert!(length <= room && reply[..2] == data[..2] && reply[2] & 0x80 != 0);
        }
        let _ = names::refuse_with(names::message::Rcode::SERVFAIL, data, carrier, &mut reply);
    }
    let _ = names::refuse_with(
        names::message::Rcode::REFUSED,
        data,
        Carrier::Udp,
        &mut reply[..20],
    );
}

/// Reads a router solicitation.
pub fn solicitation(data: &[u8]) {
    for source in [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST] {
        let _ = Solicitation::parse(data, source, 255);
    }
}

/// Reads an invite's link.
pub fn link(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else {
        return;
    };
    let _ = read_invitation(text);
    if let Ok(link) = Link::parse(text) {
        let again = Link::parse(&link.to_text()).expect("its own text");
        assert_eq!(again.invite(), link.invite());
    }
}

/// Reads a first-boot bundle.
pub fn bundle(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else {
        return;
    };
    if let Ok(bundle) = Bundle::parse(text) {
        let again = bundle.to_text().expect("it was a text");
        assert!(Bundle::parse(&again).is_ok());
    }
}

/// Reads a device's stored keys.
pub fn identity(data: &[u8]) {
    let _ = Identity::decode(data);
}

/// Valid inputs for the decoders.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let town = fixtures::town();
    let of_kind = |first: core::ops::RangeInclusive<u8>| -> Vec<Vec<u8>> {
        let mut seen = std::collections::BTreeSet::new();
        let bytes = town.captured.iter().map(|c| c.bytes.clone());
        bytes
            .filter(|b| first.contains(&b[0]) && seen.insert((b[0], b.len())))
            .take(8)
            .collect()
    };
    match target {
        "envelope" => fixtures::network().records.clone(),
        "message" => messages(),
        "control_packet" => of_kind(0x20..=0x2f),
        "relay_header" => {
            let between = |first: u8, inner: &[u8]| {
                [&[first], &[7; 7][..], &[9; 10], &[8; 10], inner].concat()
            };
            let mut all = of_kind(0x10..=0x12);
            all.extend([between(0x17, &[4, 0, 0, 0]), between(0x18, &[])]);
            all
        }
        "echo" => vec![echo_of(0, 24), echo_of(1, 64), echo_of(70_000, 1180)],
        "wireguard_message" => of_kind(1..=4),
        "stun" => stun_messages(),
        "dns" => queries(),
        "solicitation" => vec![
            vec![133, 0, 0, 0, 0, 0, 0, 0],
            vec![133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7],
        ],
        "link" => vec![town.link.clone().into_bytes()],
        "bundle" => vec![town.bundle.clone().into_bytes()],
        "identity" => vec![
            town.disks[0]["identity"].clone(),
            town.disks[1]["identity"].clone(),
        ],
        _ => Vec::new(),
    }
}

fn echo_of(sequence: u32, bytes: usize) -> Vec<u8> {
    let mut buffer = [0; FRAME_BYTES];
    let mut frame = Frame::new(&mut buffer);
    echo::write(&ECHO_KEY, sequence, bytes, &mut frame).expect("room");
    frame.packet().to_vec()
}

fn stun_messages() -> Vec<Vec<u8>> {
    let address = "203.0.113.10:51820".parse().expect("an address");
    let far = "[2001:db8::10]:51820".parse().expect("an address");
    let mut out = [0; 512];
    let mut message = |class, method, write: &dyn Fn(&mut Writer<'_>)| {
        let transaction = TransactionId(*b"twelve bytes");
        let mut writer = Writer::new(&mut out, class, method, transaction).expect("room");
        write(&mut writer);
        writer.bytes().to_vec()
    };
    let mut all = vec![
        message(Class::Request, Method::BINDING, &|writer| {
            let _ = writer
                .put(attribute::SOFTWARE, b"altnet")
                .and_then(|w| w.put_fingerprint());
        }),
        message(Class::Success, Method::BINDING, &|writer| {
            let _ = writer.put_xor_address(attribute::XOR_MAPPED_ADDRESS, address);
            let _ = writer.put_address(attribute::MAPPED_ADDRESS, far);
        }),
        message(Class::Error, Method::ALLOCATE, &|writer| {
            let _ = writer.put_error(attribute::UNAUTHENTICATED, "Unauthorized");
            let _ = writer.put(attribute::REALM, b"example.net");
            let _ = writer.put(attribute::NONCE, b"obMatJos2AAAB/once");
            let _ = writer.put(attribute::PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0]);
            let _ = writer.put_unknown([7, 9].into_iter());
        }),
        message(Class::Success, Method::ALLOCATE, &|writer| {
            let _ = writer.put_xor_address(attribute::XOR_RELAYED_ADDRESS, far);
            let _ = writer.put_number(attribute::LIFETIME, 600);
            let _ = writer
                .sign(Integrity::Sha1, b"key")
                .and_then(|w| w.sign(Integrity::Sha256, b"key"));
            let _ = writer.put_fingerprint();
        }),
        message(Class::Indication, Method::DATA, &|writer| {
            let _ = writer.put_xor_address(attribute::XOR_PEER_ADDRESS, address);
            let _ = writer.put(attribute::DATA, b"hello");
        }),
    ];
    all.push(b"\x40\x01\x00\x05hello\0\0\0".to_vec());
    all
}

fn messages() -> Vec<Vec<u8>> {
    use altnet_wire::audit::{AuditHead, SignedHead, Testimony};
    use altnet_wire::message::{
        Candidate, CandidateKind, Cursor, Find, Hello, Message, Notice, Presence, Refusal, Reply,
        Request, pack, packed_len,
    };
    let network = fixtures::network();
    let mut chain = Vec::new();
    for record in &network.records[..5] {
        let mut one = vec![0; packed_len(record.len())];
        let length = pack(record, &mut one).expect("room");
        chain.extend_from_slice(&one[..length]);
    }
    let mut presence = Presence::default();
    let address = "203.0.113.10:51820".parse().expect("an address");
    let kind = CandidateKind::Reflexive;
    let _ = presence.candidates.push(Candidate { address, kind });
    let cursor = Cursor::default();
    let node = altnet_wire::id::NodeId([3; 16]);
    let name = altnet_wire::id::Name::new("wiki").expect("a label");
    let request = |request| Message::Request { id: 7, request };
    let reply = |reply| Message::Reply { id: 7, reply };
    let records = &chain[..];
    let heads = heapless::Vec::new();
    let signature = [[5; 32], [6; 32]];
    let head = SignedHead {
        head: AuditHead {
            sequence: 7,
            hash: [8; 32],
            time: fixtures::FOUNDED,
        },
        signature,
    };
    let all = [
        Message::Hello(Hello {
            network: network.id,
            chain: records,
            heads,
        }),
        request(Request::Renew),
        request(Request::Register),
        request(Request::Announce { records }),
        request(Request::Find(Find::Name(name))),
        request(Request::Subscribe { cursor }),
        request(Request::Introduce {
            to: node,
            presence: presence.clone(),
        }),
        reply(Reply::Redeemed { records }),
        reply(Reply::Records {
            records,
            cursor,
            more: true,
        }),
        reply(Reply::Registered {
            token: 9,
            observed: address,
            lifetime_s: 90,
        }),
        reply(Reply::Refused(Refusal::InviteExpired)),
        Message::Notice(Notice::Presence(presence.clone())),
        Message::Notice(Notice::Logins {
            logins: Run::new(records),
        }),
        Message::Notice(Notice::Introduced {
            chain: records,
            presence,
        }),
        Message::Notice(Notice::Changed { records, cursor }),
        request(Request::Witness {
            head,
            from: 6,
            digests: &[4; 32],
            is_all: false,
        }),
        reply(Reply::Witnessed(Testimony {
            since: 1,
            at: fixtures::FOUNDED,
            signature,
        })),
        reply(Reply::Holds(head)),
    ];
    let mut out = vec![0; MAX_MESSAGE_BYTES];
    all.iter()
        .filter_map(|message| Some(message::encode(message, &mut out)?.to_vec()))
        .collect()
}

fn queries() -> Vec<Vec<u8>> {
    let query = |labels: &[&str], kind: u16, extra: &[u8]| {
        let mut bytes = vec![
            0x12,
            0x34,
            1,
            0,
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            u8::from(!extra.is_empty()),
        ];
        for label in labels {
            bytes.push(label.len() as u8);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        bytes.extend_from_slice(extra);
        bytes
    };
    let edns = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    vec![
        query(&["wiki", "home", "alt"], 28, &[]),
        query(&["wiki", "home", "alt"], 28, &edns),
        query(&["home", "alt"], 6, &edns),
        query(&["home", "alt"], 2, &[]),
        query(&["nobody", "home", "alt"], 255, &[]),
        query(&["alt"], 1, &edns),
        query(&["example", "com"], 1, &edns),
        query(&["8", "7", "f", "ip6", "arpa"], 12, &[]),
    ]
}
