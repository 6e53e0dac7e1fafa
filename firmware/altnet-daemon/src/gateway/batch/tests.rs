//! Batches between two real sockets.

use super::*;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

struct Pair {
    sender: UdpSocket,
    receiver: UdpSocket,
    inbox: Inbox,
    outbox: Outbox,
}

impl Pair {
    fn new(can_segment: bool) -> Self {
        let [sender, receiver] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        assert!(enable_trains(receiver.as_fd()), "a kernel since 4.18");
        Self {
            sender,
            receiver,
            inbox: Inbox::default(),
            outbox: Outbox::new(can_segment),
        }
    }

    /// Sends datagrams of these lengths, and expects them back whole and in this order.
    fn check(&mut self, lengths: &[usize]) {
        let to = self.receiver.local_addr().unwrap();
        let sent: Vec<Vec<u8>> = (0u8..)
            .zip(lengths)
            .map(|(number, len)| vec![number; *len])
            .collect();
        for datagram in &sent {
            if !self.outbox.push(datagram, to) {
                assert_eq!(self.outbox.send(self.sender.as_fd()).lost, 0);
                assert!(self.outbox.push(datagram, to));
            }
        }
        assert_eq!(self.outbox.send(self.sender.as_fd()).lost, 0);
        let began = Instant::now();
        for expected in &sent {
            while self.inbox.is_empty() {
                assert!(began.elapsed() < Duration::from_secs(5), "nothing came");
                let _ = self.inbox.fill(self.receiver.as_fd());
            }
            let (datagram, from) = self.inbox.pop().unwrap();
            assert_eq!(datagram, expected);
            assert_eq!(from, self.sender.local_addr().unwrap());
        }
        assert!(self.inbox.pop().is_none());
    }
}

#[test]
fn datagrams_arrive_whole_and_in_order_by_trains_and_singly() {
    for can_segment in [true, false] {
        let mut pair = Pair::new(can_segment);
        pair.check(&[1400; 60]);
        pair.check(&[64; 200]);
        pair.check(&[700, 700, 300, 700, 1400, 1, 1, 2]);
    }
}

#[test]
fn an_outbox_keeps_addresses_apart_and_says_when_it_is_full() {
    let mut outbox = Outbox::new(true);
    let to = |port: usize| SocketAddr::from(([127, 0, 0, 1], port as u16));
    for port in 1..=SLOTS {
        assert!(outbox.push(&[1; 100], to(port)));
    }
    assert!(!outbox.push(&[1; 100], to(SLOTS + 1)));
    // There is room in the train to an address that is there already.
    assert!(outbox.push(&[1; 100], to(1)));
    assert_eq!(outbox.count, SLOTS);
}

#[test]
fn a_refused_train_is_tried_singly_and_what_is_lost_is_counted() {
    let mut outbox = Outbox::new(true);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let unreachable: SocketAddr = "255.255.255.255:9".parse().unwrap();
    for _ in 0..3 {
        assert!(outbox.push(&[0; 10], unreachable));
    }
    // Without permission to broadcast each of them is refused, and counted.
    let sent = outbox.send(sender.as_fd());
    assert_eq!(sent.lost, 3);
    assert_eq!(sent.why.unwrap().0, unreachable);
    assert!(outbox.is_empty());
}

#[test]
fn what_came_apart_is_not_taken_for_a_train() {
    let mut pair = Pair::new(true);
    let to = pair.receiver.local_addr().unwrap();
    for number in 0..20 {
        pair.sender.send_to(&[number; 50], to).unwrap();
    }
    pair.sender.send_to(&[], to).unwrap();
    pair.sender.send_to(&[20; 50], to).unwrap();
    let mut came = Vec::new();
    let began = Instant::now();
    while came.len() < 21 {
        assert!(began.elapsed() < Duration::from_secs(5), "not all came");
        let _ = pair.inbox.fill(pair.receiver.as_fd());
        while let Some((datagram, _)) = pair.inbox.pop() {
            assert_eq!(datagram.len(), 50);
            came.push(datagram[0]);
        }
    }
    assert!((0..21).eq(came));
}
