//! Real connections over loopback: our server, our client, and raw HTTP.

#[path = "relay/acme.rs"]
mod acme;
mod common;

use std::time::Duration;

use altnet_core::derp::boxes::SecretKey;
use altnet_relay::client::{Connection, ConnectionError};
use altnet_relay::proxy::Proxy;
use altnet_relay::trust::{Pin, Trust};
use altnet_wire::derp::info::{ClientInfo, MeshKey};
use altnet_wire::derp::{GoneReason, PublicKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use common::{Heard, Member, World, member, proxy};

#[tokio::test]
async fn two_clients_exchange_packets_of_every_size() {
    let world = World::new().await;
    let (mut a, mut b) = (member(&world, 2).await, member(&world, 3).await);
    for length in [0, 1, 1400, 16_000, 16_384, 40_000, 65_536] {
        let packet: Vec<u8> = (0..length).map(|n| n as u8).collect();
        a.sender.send(&b.key, &packet).unwrap();
        assert_eq!(b.packet().await, (a.key, packet.clone()));
        b.sender.send(&a.key, &packet).unwrap();
        assert_eq!(a.packet().await, (b.key, packet));
    }
    assert!(a.sender.send(&b.key, &[0; 65_537]).is_err());
}

#[tokio::test]
async fn packets_in_bulk_arrive_in_order() {
    let world = World::new().await;
    let (a, mut b) = (member(&world, 2).await, member(&world, 3).await);
    // A window, as a transport within would keep one.
    let (count, window) = (20_000_u32, 64);
    let mut sent = 0;
    for received in 0..count {
        while sent < count && sent < received + window {
            let mut packet = vec![0; 1280];
            packet[..4].copy_from_slice(&sent.to_be_bytes());
            a.sender.send(&b.key, &packet).unwrap();
            sent += 1;
        }
        let (_, packet) = b.packet().await;
        assert_eq!(packet[..4], received.to_be_bytes());
    }
    let counters = world.relay.counters();
    assert_eq!(counters.delivered, u64::from(count));
    assert_eq!(counters.queue_full, 0);
}

#[tokio::test]
async fn a_ping_is_answered_and_who_was_sent_to_learns_that_a_client_left() {
    let world = World::new().await;
    let (mut a, mut b) = (member(&world, 2).await, member(&world, 3).await);
    a.sender.ping();
    assert!(matches!(a.next().await, Heard::Pong(took) if took < Duration::from_secs(5)));
    a.sender.note_preferred(true);
    a.sender.send(&b.key, b"hello").unwrap();
    b.packet().await;
    assert_eq!(world.relay.counters().home_connections, 1);
    a.sender.close();
    assert_eq!(b.next().await, Heard::Gone(a.key, GoneReason::DISCONNECTED));
    assert!(matches!(a.end().await, ConnectionError::Closed));
    assert!(!world.relay.is_connected(&a.key));
    // Only disco is told that nobody is there.
    b.sender.send(&a.key, b"hello?").unwrap();
    let disco = [&b"TS\xf0\x9f\x92\xac"[..], &[7; 60]].concat();
    b.sender.send(&a.key, &disco).unwrap();
    assert_eq!(b.next().await, Heard::Gone(a.key, GoneReason::NOT_HERE));
}

#[tokio::test]
async fn only_who_is_admitted_may_come_and_who_is_removed_goes() {
    let world = World::new().await;
    let stranger = SecretKey::new([66; 32]);
    world.refuse(stranger.public());
    let refused =
        Connection::connect(&world.target(), stranger.clone(), ClientInfo::default()).await;
    assert!(matches!(refused, Err(ConnectionError::Line(_))));
    // Unless it is a relay of the same region.
    let info = ClientInfo {
        mesh_key: Some(MeshKey([9; 32])),
        ..ClientInfo::default()
    };
    let mesh = Connection::connect(&world.target(), stranger, info).await;
    assert!(mesh.is_ok());
    let mut a = member(&world, 2).await;
    world.relay.remove(&a.key);
    assert!(matches!(a.end().await, ConnectionError::Line(_)));
    assert!(!world.relay.is_connected(&a.key));
}

#[tokio::test]
async fn another_relay_watches_forwards_and_disconnects() {
    let world = World::new().await;
    let mut a = member(&world, 2).await;
    let info = ClientInfo {
        mesh_key: Some(MeshKey([9; 32])),
        ..ClientInfo::default()
    };
    let mut mesh = Member::connect(&world.target(), 8, info).await;
    mesh.sender.watch();
    let mut present = [mesh.next().await, mesh.next().await];
    present.sort_by_key(|heard| matches!(heard, Heard::Present(key, _) if *key == mesh.key));
    assert!(matches!(present[0], Heard::Present(key, true) if key == a.key));
    assert!(matches!(present[1], Heard::Present(key, true) if key == mesh.key));
    let b = member(&world, 3).await;
    assert_eq!(mesh.next().await, Heard::Present(b.key, true));
    b.sender.close();
    assert_eq!(
        mesh.next().await,
        Heard::Gone(b.key, GoneReason::DISCONNECTED)
    );
    // Who isn't one is disconnected.
    a.sender.watch();
    assert!(matches!(a.end().await, ConnectionError::Line(_)));
}

#[tokio::test]
async fn the_relay_is_known_by_its_pin_its_key_or_an_authority() {
    let world = World::new().await;
    let connect = |target| async move {
        Connection::connect(&target, SecretKey::new([2; 32]), ClientInfo::default()).await
    };
    let mut target = world.target();
    target.trust = Trust::Pin(Pin([1; 32]));
    let refused = connect(target.clone()).await;
    assert!(matches!(refused, Err(ConnectionError::Line(_))));
    target.trust = Trust::public();
    let refused = connect(target.clone()).await;
    assert!(matches!(refused, Err(ConnectionError::Line(_))));
    target.trust = world.authority();
    assert!(connect(target.clone()).await.is_ok());
    target.host = "other.test".to_owned();
    let refused = connect(target.clone()).await;
    assert!(matches!(refused, Err(ConnectionError::Line(_))));
    target = world.target();
    target.key = Some(PublicKey([5; 32]));
    let refused = connect(target.clone()).await;
    assert!(matches!(refused, Err(ConnectionError::Machine(_))));
    target.key = Some(world.relay.public());
    assert!(connect(target).await.is_ok());
}

#[tokio::test]
async fn a_relay_is_reached_through_a_proxy() {
    let world = World::new().await;
    let address = proxy("Proxy-Authorization: Basic bWU6c2VjcmV0").await;
    let mut target = world.target();
    let url = format!("http://me:secret@{address}");
    target.proxy = Some(url.parse::<Proxy>().unwrap());
    let mut a = Member::connect(&target, 2, ClientInfo::default()).await;
    let mut b = member(&world, 3).await;
    a.sender.send(&b.key, b"through").unwrap();
    assert_eq!(b.packet().await, (a.key, b"through".to_vec()));
    b.sender.send(&a.key, b"back").unwrap();
    assert_eq!(a.packet().await, (b.key, b"back".to_vec()));
    let url = format!("http://me:wrong@{address}");
    target.proxy = Some(url.parse::<Proxy>().unwrap());
    let secret = SecretKey::new([4; 32]);
    let refused = Connection::connect(&target, secret, ClientInfo::default()).await;
    let refused = refused.map(|_| ()).unwrap_err().to_string();
    assert_eq!(refused, "the proxy wants another name or password");
}

#[tokio::test]
async fn what_tailscales_clients_ask_over_http_is_answered() {
    let world = World::new().await;
    let probe = world
        .ask("GET /derp/latency-check HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert!(probe.starts_with("HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\n"));
    let challenge = "X-Tailscale-Challenge: ts_1\r\n";
    let request = format!("GET /generate_204 HTTP/1.1\r\nHost: x\r\n{challenge}\r\n");
    let answer = world.ask(&request).await;
    assert!(
        answer.contains("X-Tailscale-Response: response ts_1\r\n"),
        "{answer}"
    );
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(9000));
    assert_eq!(world.ask(&endless).await, "");
    // The same without TLS, but for DERP itself.
    let answer = world.ask_plain(&request).await;
    assert!(
        answer.contains("X-Tailscale-Response: response ts_1\r\n"),
        "{answer}"
    );
    let upgrade = "GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\n\r\n";
    let answer = world.ask_plain(upgrade).await;
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    // Without the certificate's hint: the response, then the greeting.
    let upgrade = "GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n";
    let greeted = world.ask_bytes(upgrade, 200).await;
    let at = greeted.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&greeted[..at]).into_owned();
    let key = world.relay.public();
    assert!(head.starts_with("HTTP/1.1 101 "));
    assert!(head.contains(&format!("Derp-Public-Key: {key}\r\n")));
    let greeting = [&[1, 0, 0, 0, 40][..], "DERP🔑".as_bytes(), &key.0].concat();
    assert_eq!(greeted[at..], greeting);
}

#[tokio::test]
async fn keys_of_tls_are_updated_under_a_conversation() {
    let world = World::new().await;
    let mut a = member(&world, 2).await;
    let (mut raw, key) = world.raw_client(7).await;
    for n in 0..3_u8 {
        // Ours, and the relay is asked for its own.
        raw.get_mut().1.refresh_traffic_keys().unwrap();
        raw.write_all(&[&[4, 0, 0, 0, 33][..], &a.key.0, &[n]].concat())
            .await
            .unwrap();
        assert_eq!(a.packet().await, (key, vec![n]));
        a.sender.send(&key, &[n; 30_000]).unwrap();
        let mut frame = vec![0; 5 + 32 + 30_000];
        raw.read_exact(&mut frame).await.unwrap();
        assert_eq!((frame[0], frame[37..].to_vec()), (5, vec![n; 30_000]));
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_loses_packets_and_then_its_connection() {
    let world = World::new().await;
    let a = member(&world, 2).await;
    let b = Member::connect_and_stall(&world.target(), 3).await;
    let begin = tokio::time::Instant::now();
    while world.relay.is_connected(&b) {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "it is never closed"
        );
        for _ in 0..50 {
            a.sender.send(&b, &[0; 1400]).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(world.relay.counters().queue_full > 0);
    // Everybody else is served as before.
    let mut c = member(&world, 4).await;
    a.sender.send(&c.key, b"still").unwrap();
    assert_eq!(c.packet().await, (a.key, b"still".to_vec()));
}

#[tokio::test]
async fn a_client_is_slowed_down_to_its_rate() {
    let world = World::with_rate(200_000).await;
    let (a, mut b) = (member(&world, 2).await, member(&world, 3).await);
    let begin = tokio::time::Instant::now();
    // The bucket holds 200 kB; what is above takes a second.
    for n in 0..400_u32 {
        while a.sender.send(&b.key, &[n as u8; 968]).is_err() {}
        if n % 100 == 99 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    for n in 0..400_u32 {
        assert_eq!(b.packet().await.1[0], n as u8);
    }
    let took = begin.elapsed();
    assert!(took > Duration::from_millis(800), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn clients_are_told_of_a_restart() {
    let world = World::new().await;
    let mut a = member(&world, 2).await;
    world
        .relay
        .announce_restart(Duration::from_secs(1), Duration::from_secs(9));
    world.relay.stop();
    assert_eq!(
        a.next().await,
        Heard::Restarting(Duration::from_secs(1), Duration::from_secs(9))
    );
    assert!(matches!(a.end().await, ConnectionError::Line(_)));
    let target = world.target();
    // As a task, which has to be possible.
    let again = tokio::spawn(async move {
        Connection::connect(&target, SecretKey::new([2; 32]), ClientInfo::default()).await
    });
    assert!(again.await.unwrap().is_err());
}
