//! An app's tasks: one that drives its stack, and one for each connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smoltcp::time::Instant as Moment;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::stack::Stack;
use super::stats::Refusal;
use super::stream::Stream;
use super::target::ConnectError;
use super::tls::Tls;
use super::words::Words;
use super::{AppConfig, Full, Kind, Packet, WhoIs, http, secure};

/// Packets taken in before those that answer them are sent.
const BATCH: usize = 32;
/// Bytes that are read at a time from either side and written to the other before more are.
pub(super) const CARRIED_BYTES: usize = 8 * 1024;

/// What an app's tasks share. They run on one thread; the lock is never waited for, and is there
/// because hyper hands a connection only to another task if it could go to another thread.
#[derive(Debug)]
pub(super) struct Shared {
    stack: Mutex<Stack>,
    changed: Notify,
    began: Instant,
}

impl Shared {
    pub fn new(stack: Stack) -> Self {
        Self {
            stack: Mutex::new(stack),
            changed: Notify::new(),
            began: Instant::now(),
        }
    }

    pub fn stack(&self) -> MutexGuard<'_, Stack> {
        // Nothing that holds it can leave it half changed.
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the stack driven: a socket was read, written or let go.
    pub fn changed(&self) {
        self.changed.notify_one();
    }

    /// The stack's time.
    pub fn now(&self) -> Moment {
        let elapsed = self.began.elapsed().as_micros();
        Moment::from_micros(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }

    /// Puts a packet into the stack's inbox; one that it has no room for is counted.
    pub fn deliver(&self, inbox: &mpsc::Sender<Packet>, packet: &[u8]) -> Result<(), Full> {
        if let Ok(place) = inbox.try_reserve() {
            place.send(packet.to_vec());
            return Ok(());
        }
        self.stack().stats.dropped += 1;
        Err(Full)
    }

    pub fn refuse(&self, why: Refusal) {
        self.stack().stats.refuse(why);
    }

    /// When `moment` is; none if it is too far away to be waited for.
    fn instant(&self, moment: Moment) -> Option<Instant> {
        let since = Duration::from_micros(u64::try_from(moment.total_micros()).ok()?);
        self.began.checked_add(since)
    }
}

/// Runs a stack until `packets` ends, and `serve` for each caller.
pub(super) async fn run<F: Future<Output = ()> + Send + 'static>(
    shared: Arc<Shared>,
    mut packets: mpsc::Receiver<Packet>,
    outbox: mpsc::Sender<Packet>,
    serve: impl Fn(Stream) -> F,
) {
    // Its connections end with it.
    let mut connections = JoinSet::new();
    loop {
        let deadline = settle(&shared);
        while let Some(accepted) = { shared.stack().accept() } {
            let stream = Stream::new(Arc::clone(&shared), accepted);
            connections.spawn(serve(stream));
        }
        if !shared.stack().has_room() {
            // Only the node can go on, by taking packets.
            if outbox.reserve().await.is_err() {
                return;
            }
            continue;
        }
        tokio::select! {
            packet = packets.recv() => match packet {
                Some(packet) => take_in(&shared, packet, &mut packets),
                None => break,
            },
            () = shared.changed.notified() => {}
            () = sleep(deadline) => {}
            Some(_) = connections.join_next() => {}
        }
    }
    shared.stack().close(shared.now());
}

/// Serves a caller of an app.
pub(super) async fn caller(
    stream: Stream,
    shared: Arc<Shared>,
    config: Arc<AppConfig>,
    questions: mpsc::Sender<WhoIs>,
    tls: Tls,
) {
    match config.kind {
        Kind::Tcp => carry(stream, &shared, &config).await,
        Kind::Http if config.tls_port == Some(stream.port()) => {
            secure::serve(stream, shared, config, questions, &tls).await;
        }
        Kind::Http => {
            let caller = http::From {
                address: stream.caller(),
                is_secure: false,
            };
            let stream = Words::Plain(stream);
            http::serve(stream, caller, shared, config, questions).await;
        }
    }
}

/// Drives the stack. Returns when to do so again.
fn settle(shared: &Shared) -> Option<Instant> {
    let now = shared.now();
    let next = shared.stack().settle(now)?;
    shared.instant(next)
}

async fn sleep(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn take_in(shared: &Shared, first: Packet, packets: &mut mpsc::Receiver<Packet>) {
    let now = shared.now();
    let mut stack = shared.stack();
    stack.handle_packet(first, now);
    for _ in 1..BATCH {
        if !stack.has_room() {
            return;
        }
        let Ok(packet) = packets.try_recv() else {
            return;
        };
        stack.handle_packet(packet, now);
    }
}

/// Carries bytes between a caller and the target, each way until its end.
async fn carry(mut stream: Stream, shared: &Shared, config: &AppConfig) {
    let connected = config.to.connect(config.patience.connect).await;
    let mut target = match connected {
        Ok(target) => target,
        Err(e) => {
            shared.refuse(reason(&e));
            crate::debug!(
                "the app {} turns a caller away: {}",
                config.name,
                crate::log::chain(&e)
            );
            stream.break_off();
            return;
        }
    };
    let carried =
        copy_bidirectional_with_sizes(&mut stream, &mut target, CARRIED_BYTES, CARRIED_BYTES);
    if let Err(e) = carried.await {
        crate::debug!("a connection to the app {} broke: {e}", config.name);
        stream.break_off();
    }
}

/// What a failure to connect is counted as.
pub(super) fn reason(error: &ConnectError) -> Refusal {
    match error {
        ConnectError::Refused { .. } => Refusal::TargetRefused,
        ConnectError::Silent { .. } => Refusal::TargetSilent,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv6Addr;

    use altnet_wire::frame::{FRAME_BYTES, Frame};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpSocket, TcpStream, UnixListener};

    use super::*;
    use crate::apps::{App, OUTBOX, QUESTIONS, Target};
    use crate::netlink::{Address, Netlink};
    use crate::testing::in_namespace;
    use crate::tun::Tun;

    const APP: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 1);
    /// The kernel's address beside an app's or the portal's.
    pub const KERNEL: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 2);

    /// A TUN device, with the kernel at its other end.
    pub fn kernel() -> Tun {
        let tun = Tun::open("altnet0").unwrap();
        let mut netlink = Netlink::open().unwrap();
        netlink.bring_up(tun.index(), Some(1280)).unwrap();
        let own = Address {
            interface: tun.index(),
            address: KERNEL,
            prefix_bits: 64,
        };
        netlink.add_address(own).unwrap();
        tun
    }

    /// Carries packets between the kernel and whoever takes them.
    pub async fn carry_packets(
        tun: Tun,
        deliver: impl Fn(&[u8]),
        mut packets: mpsc::Receiver<Packet>,
    ) {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        loop {
            tokio::select! {
                readable = tun.readable() => {
                    readable.unwrap();
                    while tun.try_read(&mut frame).unwrap() {
                        deliver(frame.packet());
                    }
                }
                Some(packet) = packets.recv() => tun.write(&packet).unwrap(),
            }
        }
    }

    pub async fn connect(to: Ipv6Addr, port: u16) -> std::io::Result<TcpStream> {
        loop {
            let socket = TcpSocket::new_v6()?;
            match socket.bind((KERNEL, 0).into()) {
                Ok(()) => return socket.connect((to, port).into()).await,
                // The address is the kernel's own a moment after it says so.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    #[test]
    fn linux_talks_to_an_app() {
        in_namespace("linux_talks_to_an_app", async {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("app.sock");
            let listener = UnixListener::bind(&path).unwrap();
            let (outbox, packets) = mpsc::channel(OUTBOX);
            let (questions, _asked) = mpsc::channel(QUESTIONS);
            let config = AppConfig::new("echo", APP, Target::Unix(path), Kind::Tcp);
            let app = Arc::new(App::start(config, outbox, questions, Tls::new(None).0).unwrap());

            let taker = Arc::clone(&app);
            // What isn't for the app, or more than it takes, is lost.
            let deliver = move |packet: &[u8]| {
                let _ = taker.deliver(packet);
            };
            tokio::spawn(carry_packets(kernel(), deliver, packets));
            let sent: Vec<u8> = (0..1024 * 1024u32).map(|i| (i * 31) as u8).collect();
            let mut stream = connect(APP, 80).await.unwrap();
            let (mut target, _) = listener.accept().await.unwrap();
            let (mut reader, mut writer) = stream.split();
            let mut heard = Vec::new();
            let echo = async {
                let (mut reader, mut writer) = target.split();
                tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let write = async {
                writer.write_all(&sent).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let (_, _, read) = tokio::join!(echo, write, reader.read_to_end(&mut heard));
            read.unwrap();
            assert!(heard == sent);

            let refused = connect(APP, 81).await.unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

            drop(listener);
            let mut stream = connect(APP, 80).await.unwrap();
            let broken = stream.read_u8().await.unwrap_err();
            assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
            assert_eq!(app.stats().refused(Refusal::TargetRefused), 1);
        });
    }
}
