//! DERP: streams of either side cut anywhere, and a relay to whom clients write anything.

use altnet_core::derp::boxes::SecretKey;
use altnet_core::derp::handshake::{
    MAX_ADMISSION_BYTES, MAX_INTRODUCTION_BYTES, ServerIdentity, introduction,
};
use altnet_core::derp::rate::Rate;
use altnet_core::derp::server::{
    ConnectionId, MAX_DUPLICATES, Origin, Output, Server, ServerLimits, Verdict,
};
use altnet_wire::derp::info::{ClientInfo, MAX_ENCODED_BYTES, MeshKey, ServerInfo};
use altnet_wire::derp::split::{RawFrame, Splitter, Writer};
use altnet_wire::derp::{
    Frame, FrameKind, GoneReason, HEADER_BYTES, MAX_BODY_BYTES, PresentFlags, PublicKey,
};
use altnet_wire::time::{Duration, Instant};

use crate::bytes::Bytes;

/// Scenarios longer than this many steps are cut off.
const STEPS: usize = 64;
const MESH: MeshKey = MeshKey([9; 32]);
/// How many keys there are.
const KEYS: u8 = 4;

/// Reads a stream of either side, whole and cut, and the bytes as what a handshake's boxes hold.
pub fn derp(data: &[u8]) {
    for writer in [Writer::Client, Writer::Server] {
        let whole = frames(writer, data, data.len());
        for cut in [1, 7, 64] {
            assert_eq!(frames(writer, data, cut), whole, "cut into pieces of {cut}");
        }
        for (kind, body) in &whole {
            assert!(body.len() <= MAX_BODY_BYTES);
            if let Ok(frame) = Frame::parse(*kind, body) {
                let mut out = vec![0; frame.encoded_len()];
                assert_eq!(frame.encode(&mut out), Ok(out.len()));
                assert_eq!(Frame::parse(*kind, &out[HEADER_BYTES..]), Ok(frame));
            }
        }
    }
    let mut out = [0; MAX_ENCODED_BYTES];
    if let Ok(info) = ClientInfo::decode(data) {
        let length = info.encode(&mut out).expect("there is room");
        let again = ClientInfo::decode(&out[..length]).expect("as it was written");
        assert_eq!(again.version, info.version);
        let key = |info: &ClientInfo| info.mesh_key.map(|key| key.0);
        assert_eq!(key(&again), key(&info));
    }
    if let Ok(info) = ServerInfo::decode(data) {
        let length = info.encode(&mut out).expect("there is room");
        assert_eq!(ServerInfo::decode(&out[..length]), Ok(info));
    }
}

/// The frames of a stream that comes in pieces of `cut` bytes.
fn frames(writer: Writer, data: &[u8], cut: usize) -> Vec<(FrameKind, Vec<u8>)> {
    let mut splitter = Splitter::new(writer);
    let (mut held, mut found) = (Vec::new(), Vec::new());
    for piece in data.chunks(cut.max(1)) {
        held.extend_from_slice(piece);
        let mut rest = held.as_slice();
        loop {
            match splitter.next(&mut rest) {
                Ok(Some(raw)) => found.push((raw.kind, raw.body.to_vec())),
                Ok(None) => break,
                Err(_) => return found,
            }
        }
        let taken = held.len() - rest.len();
        held.drain(..taken);
    }
    found
}

/// Lets clients come, go and write to a relay, and holds it to its limits.
pub fn derp_server(data: &[u8]) {
    let identity = ServerIdentity::new(SecretKey::new([1; 32]), Some(MESH));
    let limits = ServerLimits {
        connections: 10,
        watchers: 2,
        watcher_backlog: 3,
        rate: Rate {
            per_s: 100_000,
            burst: 0,
        },
        ..ServerLimits::ROUTER
    };
    let mut server = Server::new(identity.public(), limits, [2; 32]);
    let mut here: Vec<ConnectionId> = Vec::new();
    let mut bytes = Bytes(data);
    let mut now = Instant::from_micros(1);
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        match bytes.octet() % 6 {
            0 | 1 => {
                let seed = bytes.octet() % KEYS + 2;
                let arrival = arrive(&identity, seed, bytes.octet() % 4 == 0);
                let came = server.connect(&arrival, Origin::default(), now);
                assert_eq!(came.is_err(), here.len() == limits.connections);
                here.extend(came);
            }
            2 => {
                let at = usize::from(bytes.octet());
                if !here.is_empty() {
                    let id = here.remove(at % here.len());
                    server.disconnect(id);
                    server.disconnect(id);
                }
            }
            3 => server.remove(&key(bytes.octet() % KEYS + 2)),
            4 => now = now.after(Duration::from_millis(u64::from(bytes.pair()) * 8)),
            _ => {
                if let Some(id) = bytes.choose(&here).copied() {
                    write(&mut server, &mut here, id, &mut bytes, now);
                }
            }
        }
        drain(&mut server, &mut here, now);
        let counters = server.counters();
        assert_eq!(counters.connections, here.len() as u64);
        assert!(counters.home_connections <= counters.connections);
        assert!(counters.duplicates <= counters.connections);
        let lost = counters.unknown_destination + counters.unknown_on_forward;
        assert_eq!(
            counters.received + counters.forwarded_in,
            counters.delivered + lost
        );
    }
}

fn key(seed: u8) -> PublicKey {
    SecretKey::new([seed; 32]).public()
}

fn arrive(
    identity: &ServerIdentity,
    seed: u8,
    is_mesh: bool,
) -> altnet_core::derp::handshake::Arrival {
    let secret = SecretKey::new([seed; 32]);
    let shared = secret.shared(&identity.public()).expect("no key of zeros");
    let info = ClientInfo {
        mesh_key: is_mesh.then_some(MESH),
        ..ClientInfo::default()
    };
    let mut out = [0; MAX_INTRODUCTION_BYTES];
    let length = introduction(secret.public(), &shared, &info, &[0; 24], &mut out);
    let body = &out[HEADER_BYTES..length.expect("there is room")];
    let kind = FrameKind::CLIENT_INFO;
    let arrival = identity
        .identify(RawFrame { kind, body })
        .expect("as it was written");
    let mut out = [0; MAX_ADMISSION_BYTES];
    assert!(
        arrival
            .admission(&ServerInfo::PLAIN, &[0; 24], &mut out)
            .is_ok()
    );
    arrival
}

fn write(
    server: &mut Server,
    here: &mut Vec<ConnectionId>,
    id: ConnectionId,
    bytes: &mut Bytes<'_>,
    now: Instant,
) {
    let kind = FrameKind(bytes.octet());
    let from = key(bytes.octet() % KEYS + 2);
    let to = key(bytes.octet() % KEYS + 2);
    let length = usize::from(bytes.octet());
    let rest = bytes.take(length);
    // A disco message now and then.
    let disco = [b"TS\xf0\x9f\x92\xac", &[0; 56][..], rest].concat();
    let packet: &[u8] = if kind.0 & 0x80 == 0 { rest } else { &disco };
    let frame = match kind.0 % 8 {
        0 | 1 => Frame::SendPacket { to, packet },
        2 => Frame::ForwardPacket { from, to, packet },
        3 => Frame::NotePreferred(kind.0 & 0x40 != 0),
        4 => Frame::WatchConns,
        5 => Frame::ClosePeer(to),
        6 => Frame::Ping([kind.0; 8]),
        _ => Frame::Health(rest),
    };
    let mut out = vec![0; frame.encoded_len()];
    assert!(frame.encode(&mut out).is_ok());
    let raw = RawFrame {
        kind: frame.kind(),
        body: &out[HEADER_BYTES..],
    };
    let _ = server.pace(id, raw.body.len(), now);
    match server.handle_frame(id, raw, now) {
        Ok(Verdict::Deliver { to, .. }) => assert!(here.contains(&to), "it isn't here any more"),
        Ok(_) => {}
        Err(_) => {
            here.retain(|other| *other != id);
            server.disconnect(id);
        }
    }
}

fn drain(server: &mut Server, here: &mut Vec<ConnectionId>, now: Instant) {
    let mut told = 0;
    loop {
        match server.poll_output(now) {
            Output::Send { to, .. } => assert!(here.contains(&to)),
            Output::Watch { to } => {
                while server.poll_watcher(to).is_some() {
                    told += 1;
                }
            }
            Output::Close { connection, .. } => {
                here.retain(|other| *other != connection);
                server.disconnect(connection);
            }
            Output::Wait(deadline) => {
                assert!(deadline > now);
                break;
            }
        }
        assert!(told <= 1000, "it never ends");
    }
    assert!(here.len() <= KEYS as usize * MAX_DUPLICATES);
}

/// Valid inputs.
pub fn seeds(name: &str) -> Vec<Vec<u8>> {
    match name {
        "derp" => streams(),
        "derp_server" => vec![
            vec![
                0, 0, 1, 0, 1, 1, 5, 0, 0, 0, 0, 1, 4, 1, 2, 3, 4, 5, 0, 0, 6, 0, 0, 0, 2, 0, 4,
                255, 255,
            ],
            vec![
                0, 0, 0, 5, 0, 0, 4, 0, 0, 0, 0, 1, 1, 0, 2, 1, 5, 0, 1, 0x80, 0, 3, 0, 2, 1, 3, 2,
            ],
            vec![
                0, 0, 1, 0, 0, 1, 0, 0, 1, 5, 0, 0, 3, 0, 0, 0, 5, 0, 1, 0, 0, 0, 3, 9, 9, 9, 2, 0,
                2, 0,
            ],
        ],
        _ => Vec::new(),
    }
}

fn streams() -> Vec<Vec<u8>> {
    let (peer, packet) = (PublicKey([7; 32]), &b"packet"[..]);
    let reason = GoneReason::NOT_HERE;
    let from_client = [
        Frame::ClientInfo {
            key: peer,
            sealed: &[1; 90],
        },
        Frame::NotePreferred(true),
        Frame::SendPacket { to: peer, packet },
        Frame::Ping(*b"12345678"),
        Frame::ForwardPacket {
            from: peer,
            to: peer,
            packet,
        },
        Frame::WatchConns,
        Frame::ClosePeer(peer),
    ];
    let from_server = [
        Frame::ServerKey(peer),
        Frame::ServerInfo(&[1; 60]),
        Frame::RecvPacket { from: peer, packet },
        Frame::PeerGone { peer, reason },
        Frame::PeerPresent {
            peer,
            address: "192.0.2.1:443".parse().ok(),
            flags: Some(PresentFlags::REGULAR),
        },
        Frame::KeepAlive,
        Frame::Pong(*b"12345678"),
        Frame::Health(b"ill"),
        Frame::Restarting {
            reconnect_in_ms: 1000,
            try_for_ms: 9000,
        },
    ];
    let written = |frames: &[Frame<'_>]| {
        let mut stream = Vec::new();
        for frame in frames {
            let mut out = vec![0; frame.encoded_len()];
            assert!(frame.encode(&mut out).is_ok());
            stream.extend(out);
        }
        stream
    };
    let key = "ab".repeat(32);
    let info = format!(
        r#"{{"meshKey":"{key}","version":2,"CanAckPings":true,"IsProber":false,"AppName":"x\u00e9","more":[{{}},1.5e3,null]}}"#
    );
    let limits = br#"{"version":2,"TokenBucketBytesPerSecond":1000,"TokenBucketBytesBurst":70000}"#;
    vec![
        written(&from_client),
        written(&from_server),
        info.into_bytes(),
        limits.to_vec(),
    ]
}
