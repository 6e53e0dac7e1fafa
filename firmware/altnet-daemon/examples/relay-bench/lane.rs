//! A client's socket under load: the same for every relay over UDP, so that they are loaded alike.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use altnet_daemon::gateway::batch::{self, Inbox, Outbox};

use crate::{Load, Moved};

/// Datagrams on their way in one direction at most: they fit into a relay's socket buffer of the size a
/// kernel grants by default, so that what is measured is forwarding and not dropping.
const WINDOW: u64 = 80;
/// How long nothing came before what is on its way counts as lost.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long a client rests that can do nothing.
const REST: Duration = Duration::from_micros(20);
/// What a payload begins with; neither kind of relay takes it for a header.
const MARK: &[u8; 8] = b"\x04bench \xff";
/// Datagrams kept that aren't of the load.
const STRAYS: usize = 64;

/// One client's socket.
pub struct Lane {
    socket: UdpSocket,
    relay: SocketAddr,
    inbox: Inbox,
    outbox: Outbox,
    strays: Vec<Vec<u8>>,
    sent: u64,
    received: u64,
}

impl Lane {
    pub fn new(relay: SocketAddr) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        // Connected, so that only the relay is heard.
        socket.connect(relay)?;
        socket.set_nonblocking(true)?;
        let can_segment = batch::enable_trains(socket.as_fd());
        Ok(Self {
            socket,
            relay,
            inbox: Inbox::default(),
            outbox: Outbox::new(can_segment),
            strays: Vec::new(),
            sent: 0,
            received: 0,
        })
    }

    /// Where the relay is.
    pub const fn relay(&self) -> SocketAddr {
        self.relay
    }

    /// Where this client is.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Sends one datagram to the relay.
    pub fn send(&self, datagram: &[u8]) {
        // What is lost is for the machines to say again.
        let _ = self.socket.send(datagram);
    }

    /// The next datagram, if one is there.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        if let Some(stray) = self.strays.pop() {
            return Some(stray);
        }
        if self.inbox.is_empty() {
            self.inbox.fill(self.socket.as_fd()).ok()?;
        }
        self.inbox.pop().map(|(datagram, _)| datagram.to_vec())
    }

    /// Sends as many of `datagram` as may be on their way.
    fn push(&mut self, datagram: &[u8], on_their_way: u64) {
        let room = WINDOW.saturating_sub(on_their_way);
        // In one breath or not at all: a client that sends by the train has a train to send.
        if room < WINDOW / 2 {
            return;
        }
        for _ in 0..room {
            if !self.outbox.push(datagram, self.relay) {
                self.outbox.send(self.socket.as_fd());
                self.outbox.push(datagram, self.relay);
            }
        }
        self.outbox.send(self.socket.as_fd());
        self.sent += room;
    }

    /// Counts what came and ends in the payload.
    fn pull(&mut self, payload: &[u8]) -> u64 {
        let mut count = 0;
        while self.inbox.fill(self.socket.as_fd()).is_ok() {
            while let Some((datagram, _)) = self.inbox.pop() {
                if datagram.ends_with(payload) {
                    count += 1;
                } else if self.strays.len() < STRAYS {
                    self.strays.push(datagram.to_vec());
                }
            }
        }
        self.received += count;
        count
    }
}

/// A payload of a length.
pub fn payload(bytes: usize) -> Vec<u8> {
    let rest = (0..).map(|at: u32| at.wrapping_mul(31) as u8);
    MARK.iter().copied().chain(rest).take(bytes).collect()
}

/// Has two clients send to each other for as long as asked: `headers` is what each puts before a payload.
pub fn load(lanes: [&mut Lane; 2], headers: [&[u8]; 2], asked: Load) -> anyhow::Result<Moved> {
    let payload = payload(asked.bytes);
    let datagrams = headers.map(|header| [header, &payload].concat());
    let [a, b] = lanes;
    for lane in [&mut *a, &mut *b] {
        let can_segment = asked.has_trains && batch::enable_trains(lane.socket.as_fd());
        lane.outbox = Outbox::new(can_segment);
        (lane.sent, lane.received) = (0, 0);
    }
    let began = Instant::now();
    let mut heard = began;
    let mut lost = [0; 2];
    while began.elapsed().as_secs_f64() < asked.seconds {
        a.push(&datagrams[0], a.sent.saturating_sub(b.received + lost[0]));
        b.push(&datagrams[1], b.sent.saturating_sub(a.received + lost[1]));
        if a.pull(&payload) + b.pull(&payload) > 0 {
            heard = Instant::now();
            continue;
        }
        if heard.elapsed() > PATIENCE {
            lost = [
                a.sent.saturating_sub(b.received),
                b.sent.saturating_sub(a.received),
            ];
            heard = Instant::now();
        }
        std::thread::sleep(REST);
    }
    let seconds = began.elapsed().as_secs_f64();
    // What is still on its way is forwarded too.
    std::thread::sleep(PATIENCE);
    a.pull(&payload);
    b.pull(&payload);
    Ok(Moved {
        sent: a.sent + b.sent,
        received: a.received + b.received,
        seconds,
    })
}
