//! Real nodes, each on a thread of its own with a socket on loopback.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use altnet_core::invite::{Bundle, Link};
use altnet_core::node::{Config, Event, Output, Stored, Verdict};
use altnet_core::registry::Registry;
use altnet_provision::home::Home;
use altnet_provision::network::{Created, Network};
use altnet_sim::world::SimNode;
use altnet_wire::frame::{FRAME_BYTES, Frame, MAX_PACKET_BYTES};
use altnet_wire::time::{Instant, UnixTime};

use super::{NOW, name, passphrase, relay_wish};

/// Far more than loopback needs; only a failing test waits so long.
pub const WAIT: Duration = Duration::from_secs(20);
/// How often a device that gets no answer says its packet again.
const AGAIN: Duration = Duration::from_millis(100);

type Question = Box<dyn FnOnce(&mut SimNode, Instant) + Send>;

enum Job {
    Ask(Question),
    FromLan(Vec<u8>),
}

/// A node that runs until it is dropped.
pub struct Running {
    stop: Arc<AtomicBool>,
    jobs: Sender<Job>,
    delivered: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts a device that joins with `bundle`, and waits until it has.
    pub fn start(socket: UdpSocket, bundle: Bundle, time: UnixTime, seed: u8) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, told) = channel();
        let (jobs, to_do) = channel();
        let (deliver, delivered) = channel();
        let driver = Driver {
            socket,
            stop: stop.clone(),
            jobs: to_do,
            told: tell,
            delivered: deliver,
        };
        let thread = std::thread::spawn(move || driver.run(bundle, time, seed));
        wait_for_join(&told);
        Self {
            stop,
            jobs,
            delivered,
            thread: Some(thread),
        }
    }

    /// What the node believes.
    pub fn believes<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Registry) -> T + Send + 'static,
    ) -> T {
        self.does(|node, _| look(node.registry().expect("it has joined")))
    }

    /// Has the node do something.
    pub fn does<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut SimNode, Instant) -> T + Send + 'static,
    ) -> T {
        let (answer, answered) = channel();
        let question = move |node: &mut SimNode, now: Instant| {
            let _ = answer.send(act(node, now));
        };
        self.jobs.send(Job::Ask(Box::new(question))).unwrap();
        answered.recv_timeout(WAIT).expect("the node runs")
    }

    /// Waits until the node believes something; fails if it never does.
    pub fn comes_to_believe(
        &self,
        what: &str,
        is_so: impl Fn(&Registry) -> bool + Clone + Send + 'static,
    ) {
        let began = std::time::Instant::now();
        while !self.believes(is_so.clone()) {
            assert!(began.elapsed() < WAIT, "never so: {what}");
        }
    }

    /// Whether a packet from this node's LAN comes to the LAN of `other`.
    pub fn reaches(&self, other: &Self, packet: &[u8]) -> bool {
        let began = std::time::Instant::now();
        while began.elapsed() < WAIT {
            self.jobs.send(Job::FromLan(packet.to_vec())).unwrap();
            // As a device does, it is said again until it arrives: what it takes to find the
            // way may cost the first ones.
            while let Ok(came) = other.delivered.recv_timeout(AGAIN) {
                if came == packet {
                    return true;
                }
            }
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn wait_for_join(events: &Receiver<Event>) {
    loop {
        match events.recv_timeout(WAIT).expect("the device joins") {
            Event::Joined { .. } => return,
            Event::JoinFailed { why } => panic!("could not join: {why}"),
            _ => {}
        }
    }
}

struct Driver {
    socket: UdpSocket,
    stop: Arc<AtomicBool>,
    jobs: Receiver<Job>,
    told: Sender<Event>,
    delivered: Sender<Vec<u8>>,
}

impl Driver {
    fn run(self, bundle: Bundle, time: UnixTime, seed: u8) {
        let began = std::time::Instant::now();
        let now = || Instant::ZERO.after(began.elapsed());
        let config = Config::router(UnixTime::EPOCH);
        let mut node = SimNode::new(config, &Stored::new(), [seed; 32], now()).unwrap();
        node.handle_clock(time, now());
        node.join_bundle(bundle, None, now()).unwrap();
        let pause = Some(Duration::from_millis(5));
        self.socket.set_read_timeout(pause).unwrap();
        let mut buffer = [0; FRAME_BYTES];
        while !self.stop.load(Ordering::Relaxed) {
            let mut frame = Frame::new(&mut buffer);
            self.drain(&mut node, &mut frame, now());
            while let Ok(job) = self.jobs.try_recv() {
                match job {
                    Job::Ask(question) => question(&mut node, now()),
                    Job::FromLan(packet) => {
                        frame.set(&packet).unwrap();
                        let verdict = node.handle_lan(&mut frame, now());
                        if let Ok(Verdict::Send { to, .. }) = verdict {
                            let _ = self.socket.send_to(frame.packet(), to);
                        }
                    }
                }
                self.drain(&mut node, &mut frame, now());
            }
            let mut datagram = [0; MAX_PACKET_BYTES];
            if let Ok((len, from)) = self.socket.recv_from(&mut datagram) {
                frame.set(&datagram[..len]).unwrap();
                match node.handle_wan(from, &mut frame, now()) {
                    Ok(Verdict::Send { to, .. }) => {
                        let _ = self.socket.send_to(frame.packet(), to);
                    }
                    Ok(Verdict::Deliver) => self.deliver(&frame),
                    // Nobody here is reached over a stream, or by a server of others.
                    Ok(
                        Verdict::ToRelay { .. }
                        | Verdict::ToClient { .. }
                        | Verdict::ToDerper { .. }
                        | Verdict::ToTurn,
                    ) => {}
                    Ok(Verdict::App { .. } | Verdict::LogIn | Verdict::Consumed) | Err(_) => {}
                }
            }
            node.handle_timeout(now());
        }
    }

    fn drain(&self, node: &mut SimNode, frame: &mut Frame<'_>, now: Instant) {
        loop {
            match node.poll_output(frame, now) {
                Output::Send { to, .. } => {
                    let _ = self.socket.send_to(frame.packet(), to);
                }
                Output::Save { slot } => node.handle_saved(&slot, now),
                Output::Tell(event) => {
                    // Nobody listens any more once it has joined.
                    let _ = self.told.send(event);
                }
                Output::ToRelay { .. } | Output::ToClient { .. } => {}
                Output::ToDerper { .. } | Output::ToTurn => {}
                Output::CloseClient { .. } | Output::ClosePort { .. } => {}
                Output::Deliver => self.deliver(frame),
                Output::App { .. } | Output::Advertise { .. } => {}
                Output::Wait(_) => return,
            }
        }
    }

    fn deliver(&self, frame: &Frame<'_>) {
        let _ = self.delivered.send(frame.packet().to_vec());
    }
}

pub fn socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// What a device is given that joins by a link.
pub fn by_link(link: &str) -> Bundle {
    Bundle {
        link: Some(Link::parse(link).unwrap()),
        ..Bundle::default()
    }
}

/// The time that the binary goes by.
pub fn wall_clock() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixTime::from_secs(since.as_secs())
}

/// Makes a network and starts its relay-and-directory.
pub fn founded(home: &Home, called: &str) -> (Created, SocketAddr, Running) {
    let mut made = Network::create(home, &name(called), &passphrase(), NOW).unwrap();
    let (socket, address) = socket();
    let text = made
        .network
        .bundle(&made.secrets, &relay_wish(address), NOW, |_| Ok(()))
        .unwrap()
        .text;
    let relay = Running::start(socket, Bundle::parse(&text).unwrap(), NOW, 1);
    (made, address, relay)
}
