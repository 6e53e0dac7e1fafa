//! Bytes, connections and their bounds.

use std::net::Ipv6Addr;
use std::time::Duration;

use altnet_daemon::apps::{AppConfig, Kind, Refusal};
use smoltcp::socket::tcp::State;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::net::{APP, Call, Net, OUTBOX, Wire, caller, config};

const MIB: usize = 1024 * 1024;
/// More than any connection buffers on its way, the kernel's part included.
const PLENTY: usize = 8 * MIB;

async fn listen() -> (TcpListener, AppConfig) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap().to_string();
    (listener, config(Kind::Tcp, &to))
}

/// Echoes every connection until its end, and then ends it.
fn echo(listener: TcpListener) {
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
                let _ = writer.shutdown().await;
            });
        }
    });
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

async fn exchange(call: Call, sent: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(call);
    let mut heard = Vec::new();
    let write = async {
        writer.write_all(sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let (read, ()) = tokio::join!(reader.read_to_end(&mut heard), write);
    read.unwrap();
    heard
}

#[tokio::test(start_paused = true)]
async fn a_mebibyte_passes_both_ways() {
    let (listener, config) = listen().await;
    echo(listener);
    let net = Net::start(config, Wire::default());
    let sent = bytes(MIB);
    assert!(exchange(net.call(caller(1, 2), 80), &sent).await == sent);
    let stats = net.app.stats();
    assert_eq!(
        (stats.received_bytes, stats.sent_bytes),
        (MIB as u64, MIB as u64)
    );
    assert_eq!((stats.accepted, stats.dropped), (1, 0));
    assert!(net.longest_queue() <= OUTBOX);
}

#[tokio::test(start_paused = true)]
async fn a_mebibyte_passes_a_bad_wire() {
    let (listener, config) = listen().await;
    echo(listener);
    let wire = Wire {
        lost: 20,
        overtaken: 50,
    };
    let net = Net::start(config, wire);
    let sent = bytes(MIB);
    assert!(exchange(net.call(caller(1, 2), 80), &sent).await == sent);
}

#[tokio::test(start_paused = true)]
async fn each_direction_ends_by_itself() {
    let (listener, config) = listen().await;
    let net = Net::start(config, Wire::default());
    let mut call = net.call(caller(1, 2), 80);
    let (mut target, _) = listener.accept().await.unwrap();

    call.write_all(b"question").await.unwrap();
    call.shutdown().await.unwrap();
    let mut heard = String::new();
    target.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "question");
    // The other way still stands.
    target.write_all(b"answer").await.unwrap();
    drop(target);
    heard.clear();
    call.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "answer");

    let mut call = net.call(caller(1, 2), 80);
    let (mut target, _) = listener.accept().await.unwrap();
    target.write_all(b"greeting").await.unwrap();
    target.shutdown().await.unwrap();
    heard.clear();
    call.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "greeting");
    call.write_all(b"farewell").await.unwrap();
    call.shutdown().await.unwrap();
    heard.clear();
    target.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "farewell");
    drop((call, target));
    settled(&net).await;
    assert_eq!(net.app.stats().connections, 0);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_refuses_resets_the_caller() {
    let (listener, config) = listen().await;
    drop(listener);
    let net = Net::start(config, Wire::default());
    let mut call = net.call(caller(1, 2), 80);
    let error = call.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(net.app.stats().refused(Refusal::TargetRefused), 1);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_breaks_off_resets_the_caller() {
    let (listener, config) = listen().await;
    let net = Net::start(config, Wire::default());
    let mut call = net.call(caller(1, 2), 80);
    let (target, _) = listener.accept().await.unwrap();
    socket2::SockRef::from(&target)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(target);
    let error = call.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_breaks_off_ends_the_target_too() {
    let (listener, config) = listen().await;
    let net = Net::start(config, Wire::default());
    let call = net.call(caller(1, 2), 80);
    let (mut target, _) = listener.accept().await.unwrap();
    call.reset();
    assert_eq!(target.read(&mut [0; 8]).await.unwrap_or(0), 0);
    settled(&net).await;
    assert_eq!(net.app.stats().connections, 0);
}

/// Lets everything happen that happens without us.
async fn settled(net: &Net) {
    // Time jumps here only when nothing else is to be done, so this is how long nothing was.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _ = net.app.stats();
}

#[tokio::test(start_paused = true)]
async fn a_slow_target_holds_the_caller_up() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let net = Net::start(
        config(Kind::Tcp, &format!("unix:{}", path.display())),
        Wire::default(),
    );
    let call = net.call(caller(1, 2), 80);
    let (mut target, _) = listener.accept().await.unwrap();
    let (_reader, mut writer) = tokio::io::split(call);
    let sent = bytes(PLENTY);
    let all = sent.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&all).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    // Longer than a silent caller is waited for: this one isn't silent.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!writing.is_finished());
    let taken = usize::try_from(net.app.stats().received_bytes).unwrap();
    assert!(taken < MIB, "{taken} bytes went somewhere");

    // The caller is told at once that there is room, and need not find out by trying.
    let began = tokio::time::Instant::now();
    let mut heard = Vec::new();
    target.read_to_end(&mut heard).await.unwrap();
    assert!(heard == sent);
    assert!(began.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn a_slow_caller_holds_the_target_up() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let net = Net::start(
        config(Kind::Tcp, &format!("unix:{}", path.display())),
        Wire::default(),
    );
    let mut call = net.call(caller(1, 2), 80);
    let (mut target, _) = listener.accept().await.unwrap();
    let sent = bytes(PLENTY);
    let all = sent.clone();
    let writing = tokio::spawn(async move {
        target.write_all(&all).await.unwrap();
    });
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!writing.is_finished());
    let taken = usize::try_from(net.app.stats().sent_bytes).unwrap();
    assert!(taken < MIB, "{taken} bytes went somewhere");
    assert!(net.longest_queue() <= OUTBOX);

    let mut heard = Vec::new();
    call.read_to_end(&mut heard).await.unwrap();
    assert!(heard == sent);
}

#[tokio::test(start_paused = true)]
async fn connections_are_bounded_by_caller_site_and_app() {
    let (listener, config) = listen().await;
    echo(listener);
    let net = Net::start(config, Wire::default());
    let mut calls = Vec::new();
    let mut refused = 0;
    // One caller gets 16.
    for _ in 0..18 {
        let call = net.call(caller(1, 1), 80);
        refused += usize::from(!call.is_connected().await);
        calls.push(call);
    }
    assert_eq!(
        (refused, net.app.stats().refused(Refusal::CallerFull)),
        (2, 2)
    );
    // One site gets 48.
    for i in 16..50 {
        let call = net.call(caller(1, 2 + i / 8), 80);
        refused += usize::from(!call.is_connected().await);
        calls.push(call);
    }
    assert_eq!(
        (refused, net.app.stats().refused(Refusal::SiteFull)),
        (4, 2)
    );
    // All together get 64.
    for i in 48..70 {
        let call = net.call(caller(2, i), 80);
        refused += usize::from(!call.is_connected().await);
        calls.push(call);
    }
    assert_eq!(
        (refused, net.app.stats().refused(Refusal::AppFull)),
        (10, 6)
    );
    assert_eq!(net.app.stats().connections, 64);

    // Whoever leaves makes room.
    let mut first = calls.remove(0);
    assert_eq!(exchange_on(&mut first, b"bye").await, b"bye");
    settled(&net).await;
    assert!(net.call(caller(3, 1), 80).is_connected().await);
}

async fn exchange_on(call: &mut Call, sent: &[u8]) -> Vec<u8> {
    call.write_all(sent).await.unwrap();
    call.shutdown().await.unwrap();
    let mut heard = Vec::new();
    call.read_to_end(&mut heard).await.unwrap();
    heard
}

#[tokio::test(start_paused = true)]
async fn what_is_over_takes_no_room() {
    // A target that ends first leaves the app in TIME-WAIT.
    let (listener, config) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"page").await;
        }
    });
    let net = Net::start(config, Wire::default());
    for _ in 0..200 {
        let mut call = net.call(caller(1, 1), 80);
        let mut heard = String::new();
        call.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "page");
        call.shutdown().await.unwrap();
        while call.state() != State::Closed && call.state() != State::TimeWait {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(net.app.stats().accepted, 200);
}

/// A TCP SYN with a right checksum.
fn syn(from: Ipv6Addr, to: Ipv6Addr, from_port: u16, port: u16) -> Vec<u8> {
    segment(from, to, from_port, port, 2, &[])
}

fn segment(
    from: Ipv6Addr,
    to: Ipv6Addr,
    from_port: u16,
    port: u16,
    flags: u8,
    data: &[u8],
) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(from_port.to_be_bytes());
    tcp.extend(port.to_be_bytes());
    tcp.extend([0, 0, 1, 0, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    tcp.extend(data);
    packet(from, to, 6, 16, tcp)
}

/// An IPv6 packet whose checksum is `at` in its payload.
fn packet(from: Ipv6Addr, to: Ipv6Addr, next: u8, at: usize, mut payload: Vec<u8>) -> Vec<u8> {
    let mut pseudo = [from.octets(), to.octets()].concat();
    pseudo.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    pseudo.extend([0, 0, 0, next]);
    pseudo.extend(&payload);
    let sum: u32 = pseudo
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0)))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_openings_starves_nobody() {
    let (listener, config) = listen().await;
    echo(listener);
    let net = Net::start(config, Wire::default());
    let mut steady = net.call(caller(2, 1), 80);
    assert!(steady.is_connected().await);
    for i in 0..1000 {
        // A whole site's addresses, none of which ever answers.
        net.inject(&syn(caller(1, i % 100), APP, 1000 + i, 80));
        if i % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    settled(&net).await;
    let stats = net.app.stats();
    assert_eq!(
        stats.connections, 17,
        "half of the half-open ones, and the steady one"
    );
    assert!(stats.refused(Refusal::HalfOpenFull) > 900);
    steady.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    steady.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here");
    // Another site gets in meanwhile, and this one does once its flood is forgotten.
    assert!(net.call(caller(2, 2), 80).is_connected().await);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(net.call(caller(1, 200), 80).is_connected().await);
    assert_eq!(net.app.stats().connections, 3);
}

#[tokio::test(start_paused = true)]
async fn another_port_is_refused() {
    let (listener, config) = listen().await;
    echo(listener);
    let net = Net::start(config, Wire::default());
    for port in [22, 79, 81, 443, 65535] {
        assert!(!net.call(caller(1, 2), port).is_connected().await, "{port}");
    }
    let stats = net.app.stats();
    assert_eq!((stats.connections, stats.accepted), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_packet_for_another_address_does_nothing() {
    let (listener, config) = listen().await;
    echo(listener);
    let net = Net::start(config, Wire::default());
    let elsewhere = Ipv6Addr::new(0xfd00, 1, 2, 0x8000, 0, 0, 0, 2);
    for to in [elsewhere, "ff02::1".parse().unwrap(), Ipv6Addr::LOCALHOST] {
        net.inject(&syn(caller(1, 2), to, 1000, 80));
    }
    // From itself, or from nobody.
    for from in [APP, Ipv6Addr::UNSPECIFIED, "ff02::1".parse().unwrap()] {
        net.inject(&syn(from, APP, 1000, 80));
    }
    // With a checksum that isn't right.
    let mut wrong = syn(caller(1, 2), APP, 1000, 80);
    wrong[45] ^= 1;
    net.inject(&wrong);
    settled(&net).await;
    let stats = net.app.stats();
    assert_eq!((stats.connections, stats.dropped), (0, 6));
    assert_eq!(net.longest_queue(), 0, "something was answered");
}

#[tokio::test(start_paused = true)]
async fn a_blind_stranger_cannot_speak_in_another_connection() {
    let (listener, config) = listen().await;
    echo(listener);
    let net = Net::start(config, Wire::default());
    let mut call = net.call(caller(1, 2), 80);
    assert!(call.is_connected().await);
    // The node lets a source through only from the peer that has it; should one guess the
    // ports, its data and its RST are outside the window.
    let stranger = caller(9, 9);
    for from in [stranger, caller(1, 2)] {
        net.inject(&segment(from, APP, 40001, 80, 0x18, b"forged"));
        net.inject(&segment(from, APP, 40001, 80, 0x04, &[]));
    }
    assert_eq!(exchange_on(&mut call, b"mine").await, b"mine");
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_and_no_other_protocol() {
    let (_listener, config) = listen().await;
    let net = Net::start(config, Wire::default());
    let from = caller(1, 2);
    net.inject(&packet(
        from,
        APP,
        58,
        2,
        vec![128, 0, 0, 0, 0, 7, 0, 1, b'h', b'i'],
    ));
    // UDP, a router advertisement, a fragment, an unknown protocol.
    net.inject(&packet(from, APP, 17, 6, vec![0, 9, 0, 53, 0, 8, 0, 0]));
    net.inject(&packet(
        from,
        APP,
        58,
        2,
        vec![134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ));
    net.inject(&packet(from, APP, 44, 2, vec![6, 0, 0, 0, 0, 0, 0, 1]));
    net.inject(&packet(from, APP, 253, 2, vec![0; 8]));
    settled(&net).await;
    let echoes = net.take_echoes();
    assert_eq!(echoes.len(), 1);
    assert_eq!(echoes[0][24..40], from.octets());
    assert_eq!(
        (echoes[0][40], &echoes[0][44..]),
        (129, &[0, 7, 0, 1, b'h', b'i'][..])
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_caller_and_an_idle_one_are_let_go() {
    let (listener, mut config) = listen().await;
    echo(listener);
    config.patience.idle = Duration::from_secs(600);
    let net = Net::start(config, Wire::default());
    let gone = net.call(caller(1, 1), 80);
    let mut idle = net.call(caller(1, 2), 80);
    assert!(gone.is_connected().await && idle.is_connected().await);
    net.cut_off(caller(1, 1));
    tokio::time::sleep(Duration::from_secs(130)).await;
    assert_eq!(net.app.stats().connections, 1, "silent");
    tokio::time::sleep(Duration::from_secs(500)).await;
    assert_eq!(
        idle.read_u8().await.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    settled(&net).await;
    let stats = net.app.stats();
    assert_eq!((stats.connections, stats.idle), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn callers_are_told_when_an_app_stops() {
    let (listener, config) = listen().await;
    echo(listener);
    let net = Net::start(config, Wire::default());
    let mut call = net.call(caller(1, 1), 80);
    assert!(call.is_connected().await);
    drop(net);
    assert_eq!(
        call.read_u8().await.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
}
