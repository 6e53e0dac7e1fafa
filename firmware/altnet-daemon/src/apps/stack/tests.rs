use super::*;
use crate::apps::{AppConfig, Kind};
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv6Packet, IpAddress, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

const OWN: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

fn caller(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, host)
}

fn stack(change: impl FnOnce(&mut AppConfig)) -> (Stack, mpsc::Receiver<Packet>) {
    let to = "127.0.0.1:80".parse().unwrap();
    let mut config = AppConfig::new("wiki", OWN, to, Kind::Tcp);
    config.limits.buffer_bytes = 2048;
    change(&mut config);
    let (outbox, packets) = mpsc::channel(64);
    (config.stack(outbox, 7), packets)
}

fn segment(host: u16, control: TcpControl, seq: i32, ack: Option<i32>, payload: &[u8]) -> Packet {
    let repr = TcpRepr {
        src_port: 1000,
        dst_port: 80,
        control,
        seq_number: TcpSeqNumber(seq),
        ack_number: ack.map(TcpSeqNumber),
        window_len: 1000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    let len = repr.buffer_len();
    let mut packet = vec![0x60, 0, 0, 0, (len >> 8) as u8, len as u8, 6, 64];
    packet.extend(caller(host).octets());
    packet.extend(OWN.octets());
    packet.resize(40 + len, 0);
    repr.emit(
        &mut TcpPacket::new_unchecked(&mut packet[40..]),
        &IpAddress::Ipv6(caller(host)),
        &IpAddress::Ipv6(OWN),
        &ChecksumCapabilities::default(),
    );
    packet
}

fn seconds(seconds: i64) -> Instant {
    Instant::from_secs(seconds)
}

/// Opens a connection of `host`. Returns the sequence number that the stack expects.
fn open(stack: &mut Stack, packets: &mut mpsc::Receiver<Packet>, host: u16, now: Instant) -> i32 {
    stack.handle_packet(segment(host, TcpControl::Syn, 100, None, &[]), now);
    stack.settle(now);
    let answer = packets.try_recv().unwrap();
    let own = TcpPacket::new_unchecked(&answer[40..]).seq_number().0;
    let own = own.wrapping_add(1);
    stack.handle_packet(segment(host, TcpControl::None, 101, Some(own), &[]), now);
    stack.settle(now);
    own
}

#[test]
fn a_caller_is_accepted_once_it_answered() {
    let (mut stack, mut packets) = stack(|_| {});
    let now = seconds(1);
    stack.handle_packet(segment(2, TcpControl::Syn, 100, None, &[]), now);
    // Again, because the answer was slow.
    stack.handle_packet(segment(2, TcpControl::Syn, 100, None, &[]), now);
    stack.settle(now);
    assert_eq!((stack.accept(), stack.stats().connections), (None, 1));
    let answer = packets.try_recv().unwrap();
    let own = TcpPacket::new_unchecked(&answer[40..]).seq_number().0 + 1;
    stack.handle_packet(segment(2, TcpControl::None, 101, Some(own), b""), now);
    stack.settle(now);
    assert_eq!(stack.accept().unwrap().caller, caller(2));
    assert_eq!(stack.accept(), None);
}

#[test]
fn what_never_answers_is_forgotten_in_time() {
    let (mut stack, mut packets) = stack(|_| {});
    stack.handle_packet(segment(2, TcpControl::Syn, 100, None, &[]), seconds(0));
    let mut now = seconds(0);
    while let Some(next) = stack.settle(now)
        && stack.stats().connections > 0
    {
        assert!(next > now, "a deadline that is no later than now");
        now = next;
    }
    assert!(now <= seconds(10));
    assert_eq!(
        (stack.connections.len(), stack.sockets.iter().count()),
        (0, 0)
    );
    let mut last = None;
    while let Ok(packet) = packets.try_recv() {
        last = Some(packet);
    }
    assert!(TcpPacket::new_unchecked(&last.unwrap()[40..]).rst());
}

#[test]
fn an_opening_taken_back_leaves_nothing() {
    let (mut stack, _packets) = stack(|_| {});
    let now = seconds(1);
    stack.handle_packet(segment(2, TcpControl::Syn, 100, None, &[]), now);
    stack.handle_packet(segment(2, TcpControl::Rst, 101, None, &[]), now);
    stack.settle(now);
    assert_eq!(
        (stack.connections.len(), stack.sockets.iter().count()),
        (0, 0)
    );
}

#[test]
fn a_caller_that_waits_elsewhere_lingers_only_so_long() {
    let (mut stack, mut packets) = stack(|_| {});
    open(&mut stack, &mut packets, 2, seconds(0));
    let accepted = stack.accept().unwrap();
    stack.release(accepted.socket, false, seconds(1));
    // It never ends its side.
    stack.settle(seconds(1));
    assert_eq!(stack.stats().connections, 1);
    stack.settle(seconds(22));
    assert_eq!(stack.stats().connections, 0);
}

#[test]
fn what_nobody_reads_holds_up_no_end() {
    let (mut stack, mut packets) = stack(|_| {});
    let own = open(&mut stack, &mut packets, 2, seconds(0));
    let accepted = stack.accept().unwrap();
    stack.release(accepted.socket, false, seconds(0));
    stack.settle(seconds(0));
    let mut seq = 101;
    // More than its buffer holds.
    for _ in 0..5 {
        let data = segment(2, TcpControl::None, seq, Some(own + 1), &[7; 1000]);
        stack.handle_packet(data, seconds(0));
        stack.settle(seconds(0));
        seq += 1000;
    }
    let end = segment(2, TcpControl::Fin, seq, Some(own + 1), &[]);
    stack.handle_packet(end, seconds(0));
    stack.settle(seconds(0));
    assert_eq!((stack.connections.len(), stack.stats().connections), (1, 0));
}

#[test]
fn a_caller_may_come_back_by_the_same_port() {
    let (mut stack, mut packets) = stack(|_| {});
    for n in 1..=3 {
        let own = open(&mut stack, &mut packets, 2, seconds(n));
        let accepted = stack.accept().unwrap();
        stack.release(accepted.socket, false, seconds(n));
        stack.settle(seconds(n));
        let end = segment(2, TcpControl::Fin, 101, Some(own + 1), &[]);
        stack.handle_packet(end, seconds(n));
        stack.settle(seconds(n));
        assert_eq!((stack.connections.len(), stack.stats().connections), (1, 0));
        while packets.try_recv().is_ok() {}
    }
}

#[test]
fn what_waits_gives_way_to_what_comes() {
    let (mut stack, mut packets) = stack(|config| config.limits.connections = 1);
    let own = open(&mut stack, &mut packets, 2, seconds(0));
    let accepted = stack.accept().unwrap();
    stack.release(accepted.socket, false, seconds(0));
    stack.settle(seconds(0));
    stack.handle_packet(
        segment(2, TcpControl::Fin, 101, Some(own + 1), &[]),
        seconds(0),
    );
    stack.settle(seconds(0));
    assert_eq!((stack.connections.len(), stack.stats().connections), (1, 0));
    while packets.try_recv().is_ok() {}
    open(&mut stack, &mut packets, 3, seconds(0));
    assert_eq!(stack.accept().unwrap().caller, caller(3));
    assert_eq!(stack.connections.len(), 1);
}

proptest! {
    /// Bytes that only pretend to be TCP, with a right checksum, so that they are looked into.
    #[test]
    fn no_bytes_break_it(
        pieces in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 20..100), any::<bool>(), any::<bool>()),
            0..40,
        ),
    ) {
        let (mut stack, mut packets) = stack(|_| {});
        open(&mut stack, &mut packets, 1, seconds(0));
        for (mut bytes, is_known, is_tcp) in pieces {
            if is_known {
                bytes[..4].copy_from_slice(&[3, 0xe8, 0, 80]);
            }
            let mut packet = segment(1, TcpControl::None, 0, None, &[]);
            packet.truncate(40);
            packet[5] = bytes.len() as u8;
            let (caller, own) = (IpAddress::Ipv6(caller(1)), IpAddress::Ipv6(OWN));
            if is_tcp {
                TcpPacket::new_unchecked(&mut bytes).fill_checksum(&caller, &own);
            } else {
                packet[6] = 58;
                bytes[0] = 128;
                Icmpv6Packet::new_unchecked(&mut bytes).fill_checksum(&self::caller(1), &OWN);
            }
            packet.extend(bytes);
            stack.handle_packet(packet, seconds(1));
            stack.settle(seconds(1));
            while packets.try_recv().is_ok() {}
        }
        prop_assert!(stack.connections.len() <= 16);
    }

    /// Whatever callers send, in whatever order, bounds hold and nothing is left for ever.
    #[test]
    fn no_segments_break_it(
        segments in proptest::collection::vec(
            (1u16..6, 0usize..5, -3i32..3000, proptest::option::of(any::<i32>()), 0usize..1200, 0u8..4),
            0..200,
        ),
    ) {
        let (mut stack, mut packets) = stack(|config| {
            config.limits.connections = 4;
            config.limits.per_caller = 1;
            config.limits.half_open = 4;
        });
        let controls = [TcpControl::None, TcpControl::Psh, TcpControl::Syn, TcpControl::Fin, TcpControl::Rst];
        let mut held = Vec::new();
        let mut own = 0;
        let mut now = seconds(0);
        for (host, control, seq, ack, len, deed) in segments {
            let ack = ack.map(|ack| if ack % 2 == 0 { own } else { ack });
            stack.handle_packet(segment(host, controls[control], 100 + seq, ack, &vec![7; len]), now);
            now += Duration::from_millis(500);
            stack.settle(now);
            while let Some(accepted) = stack.accept() {
                held.push(accepted.socket);
            }
            match held.pop() {
                Some(socket) if deed < 2 => stack.release(socket, deed == 0, now),
                Some(socket) => {
                    let _ = stack.socket(socket).send_slice(&[1; 3000]);
                    let _ = stack.socket(socket).recv(|bytes| (bytes.len(), ()));
                    stack.note_bytes(socket, now);
                    held.push(socket);
                }
                None => {}
            }
            while let Ok(packet) = packets.try_recv() {
                prop_assert!(packet.len() <= 1280);
                own = TcpPacket::new_unchecked(&packet[40..]).seq_number().0.wrapping_add(1);
            }
            prop_assert!(stack.connections.len() <= 4);
            prop_assert_eq!(stack.connections.len(), stack.sockets.iter().count());
        }
        for socket in held {
            stack.release(socket, false, now);
        }
        for _ in 0..200 {
            now += Duration::from_secs(1);
            stack.settle(now);
            while packets.try_recv().is_ok() {}
        }
        prop_assert_eq!(stack.connections.len(), 0);
    }
}
