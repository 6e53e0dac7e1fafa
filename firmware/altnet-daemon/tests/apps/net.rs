//! A pretend network of callers around one app: smoltcp at both ends, and a wire between that
//! loses and reorders as a seed says.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::Ipv6Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use altnet_daemon::apps::tls::Tls;
use altnet_daemon::apps::{App, AppConfig, Caller, Kind, Packet, WhoIs};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::time::Instant as Moment;
use smoltcp::wire::{HardwareAddress, IpCidr};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

pub const APP: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 2, 0x8000, 0, 0, 0, 1);
/// The most packets that wait for the node in these tests.
pub const OUTBOX: usize = 64;

/// The caller `host` of the site `site`.
pub fn caller(site: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 1, 2, site, 0, 0, 0, host)
}

/// What happens to packets.
#[derive(Clone, Copy, Default)]
pub struct Wire {
    /// Of a thousand packets, how many are lost.
    pub lost: u64,
    /// Of a thousand packets, how many are overtaken by the next.
    pub overtaken: u64,
}

pub struct Net {
    shared: Arc<Shared>,
    pub app: Arc<App>,
}

struct Shared {
    world: Mutex<World>,
    changed: Notify,
    began: Instant,
}

struct World {
    hosts: BTreeMap<Ipv6Addr, Host>,
    wire: Wire,
    chance: u64,
    held: [Option<Packet>; 2],
    next_port: u16,
    /// The most packets that waited for the node at once.
    longest_queue: usize,
    echoed: Vec<Packet>,
}

struct Host {
    interface: Interface,
    sockets: SocketSet<'static>,
    queues: Queues,
}

#[derive(Default)]
struct Queues {
    arrived: VecDeque<Packet>,
    leaving: VecDeque<Packet>,
}

impl Net {
    /// Starts the app, and a gateway that knows every caller.
    pub fn start(config: AppConfig, wire: Wire) -> Self {
        Self::start_with(config, wire, Tls::new(None).0, |address| {
            Some(known(address))
        })
    }

    pub fn start_with(
        config: AppConfig,
        wire: Wire,
        tls: Tls,
        who: impl Fn(Ipv6Addr) -> Option<Caller> + Send + 'static,
    ) -> Self {
        let (outbox, packets) = mpsc::channel(OUTBOX);
        let (questions, mut asked) = mpsc::channel::<WhoIs>(4);
        let app = Arc::new(App::start(config, outbox, questions, tls).unwrap());
        let shared = Arc::new(Shared {
            world: Mutex::new(World {
                hosts: BTreeMap::new(),
                wire,
                chance: 0x9e37_79b9_7f4a_7c15,
                held: [None, None],
                next_port: 40000,
                longest_queue: 0,
                echoed: Vec::new(),
            }),
            changed: Notify::new(),
            began: Instant::now(),
        });
        tokio::spawn(async move {
            while let Some(question) = asked.recv().await {
                let _ = question.answer.send(who(question.source));
            }
        });
        tokio::spawn(pump(Arc::clone(&shared), Arc::downgrade(&app), packets));
        Self { shared, app }
    }

    /// Opens a connection; it may be refused later.
    pub fn call(&self, from: Ipv6Addr, port: u16) -> Call {
        self.call_with(from, port, 64 * 1024)
    }

    pub fn call_with(&self, from: Ipv6Addr, port: u16, buffer_bytes: usize) -> Call {
        let mut world = self.shared.world();
        world.next_port += 1;
        let own_port = world.next_port;
        let host = world.host(from);
        let buffer = || SocketBuffer::new(vec![0; buffer_bytes]);
        let mut socket = Socket::new(buffer(), buffer());
        let context = host.interface.context();
        socket
            .connect(context, (APP, port), (from, own_port))
            .unwrap();
        let socket = host.sockets.add(socket);
        drop(world);
        self.shared.changed.notify_one();
        Call {
            shared: Arc::clone(&self.shared),
            from,
            socket,
        }
    }

    /// Sends bytes as they are, as if the node had let them through.
    pub fn inject(&self, packet: &[u8]) {
        let _ = self.app.deliver(packet);
    }

    /// Packets from the app that are not TCP, since the last time.
    pub fn take_echoes(&self) -> Vec<Packet> {
        std::mem::take(&mut self.shared.world().echoed)
    }

    pub fn longest_queue(&self) -> usize {
        self.shared.world().longest_queue
    }

    /// Nothing of what `from` sends or should get passes from now on.
    pub fn cut_off(&self, from: Ipv6Addr) {
        self.shared.world().hosts.remove(&from);
    }
}

/// Whom the gateway knows at an address.
pub fn known(address: Ipv6Addr) -> Caller {
    Caller {
        name: format!("host-{}", address.segments()[7]),
        member: format!("member-{}", address.segments()[3]),
        person: Some("ada".into()),
        groups: vec!["family".into(), "admins".into()],
        site: Some(address.segments()[3].to_string()),
    }
}

async fn pump(shared: Arc<Shared>, app: std::sync::Weak<App>, mut packets: mpsc::Receiver<Packet>) {
    loop {
        let deadline = {
            let app = app.upgrade();
            shared.world().settle(shared.now(), app.as_deref())
        };
        let deadline = deadline.map(|moment| {
            shared.began + Duration::from_micros(moment.total_micros().try_into().unwrap())
        });
        let sleep = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            packet = packets.recv() => {
                let Some(packet) = packet else { return };
                let mut world = shared.world();
                world.longest_queue = world.longest_queue.max(packets.len() + 1);
                world.arrive(packet);
            }
            () = shared.changed.notified() => {}
            () = sleep => {}
        }
    }
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn now(&self) -> Moment {
        Moment::from_micros(i64::try_from(self.began.elapsed().as_micros()).unwrap())
    }
}

impl World {
    fn host(&mut self, address: Ipv6Addr) -> &mut Host {
        self.hosts.entry(address).or_insert_with(|| {
            let mut queues = Queues::default();
            let mut config = Config::new(HardwareAddress::Ip);
            config.random_seed = 0x0123_4567_89ab_cdef;
            let mut interface = Interface::new(config, &mut queues, Moment::ZERO);
            interface.update_ip_addrs(|addresses| {
                addresses.push(IpCidr::new(address.into(), 128)).unwrap();
            });
            interface
                .routes_mut()
                .add_default_ipv6_route(address)
                .unwrap();
            Host {
                interface,
                sockets: SocketSet::new(Vec::new()),
                queues,
            }
        })
    }

    fn settle(&mut self, now: Moment, app: Option<&App>) -> Option<Moment> {
        let mut next = None;
        let mut sent = Vec::new();
        for host in self.hosts.values_mut() {
            host.interface
                .poll(now, &mut host.queues, &mut host.sockets);
            sent.extend(host.queues.leaving.drain(..));
            let at = host.interface.poll_at(now, &host.sockets);
            next = [next, at].into_iter().flatten().min();
        }
        for packet in sent {
            for packet in self.pass(0, packet) {
                // A full queue loses it, as a full queue does.
                let _ = app.map(|app| app.deliver(&packet));
            }
        }
        next
    }

    fn arrive(&mut self, packet: Packet) {
        assert_eq!(packet[8..24], APP.octets(), "a foreign source");
        assert!(packet.len() <= 1280);
        if packet[6] != 6 {
            self.echoed.push(packet);
            return;
        }
        for packet in self.pass(1, packet) {
            let to: [u8; 16] = packet[24..40].try_into().unwrap();
            if let Some(host) = self.hosts.get_mut(&to.into()) {
                host.queues.arrived.push_back(packet);
            }
        }
    }

    /// What becomes of a packet on the wire.
    fn pass(&mut self, direction: usize, packet: Packet) -> Vec<Packet> {
        if self.happens(self.wire.lost) {
            return Vec::new();
        }
        if self.held[direction].is_none() && self.happens(self.wire.overtaken) {
            self.held[direction] = Some(packet);
            return Vec::new();
        }
        let held = self.held[direction].take();
        std::iter::once(packet).chain(held).collect()
    }

    fn happens(&mut self, of_a_thousand: u64) -> bool {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance % 1000 < of_a_thousand
    }
}

impl Device for Queues {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Moment) -> Option<(Arrived, Leaving<'_>)> {
        let packet = self.arrived.pop_front()?;
        Some((Arrived(packet), Leaving(&mut self.leaving)))
    }

    fn transmit(&mut self, _: Moment) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.leaving))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1280;
        capabilities
    }
}

struct Arrived(Packet);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Leaving<'a>(&'a mut VecDeque<Packet>);

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

/// A caller's end of a connection.
pub struct Call {
    shared: Arc<Shared>,
    from: Ipv6Addr,
    socket: SocketHandle,
}

impl Call {
    fn with<R>(&self, f: impl FnOnce(&mut Socket<'static>) -> R) -> R {
        let mut world = self.shared.world();
        let result = f(world.host(self.from).sockets.get_mut(self.socket));
        drop(world);
        self.shared.changed.notify_one();
        result
    }

    pub fn state(&self) -> State {
        self.with(|socket| socket.state())
    }

    /// Waits until the connection stands, or was refused. Returns whether it stands.
    pub async fn is_connected(&self) -> bool {
        std::future::poll_fn(|cx| {
            self.with(|socket| match socket.state() {
                State::SynSent => {
                    socket.register_send_waker(cx.waker());
                    Poll::Pending
                }
                state => Poll::Ready(state != State::Closed),
            })
        })
        .await
    }

    pub fn reset(&self) {
        self.with(Socket::abort);
    }
}

impl AsyncRead for Call {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|socket| {
            if matches!(socket.state(), State::SynSent | State::SynReceived) {
                socket.register_recv_waker(cx.waker());
                return Poll::Pending;
            }
            let read = socket.recv(|bytes| {
                let len = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..len]);
                (len, len)
            });
            match read {
                Ok(0) => {
                    socket.register_recv_waker(cx.waker());
                    Poll::Pending
                }
                Ok(_) | Err(RecvError::Finished) => Poll::Ready(Ok(())),
                Err(RecvError::InvalidState) => {
                    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
                }
            }
        })
    }
}

impl AsyncWrite for Call {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|socket| {
            let is_opening = matches!(socket.state(), State::SynSent | State::SynReceived);
            match socket.send_slice(bytes) {
                Ok(0) => {
                    socket.register_send_waker(cx.waker());
                    Poll::Pending
                }
                Ok(len) => Poll::Ready(Ok(len)),
                Err(_) if is_opening => {
                    socket.register_send_waker(cx.waker());
                    Poll::Pending
                }
                Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(Socket::close);
        Poll::Ready(Ok(()))
    }
}

/// An app of `kind` at port 80 for the server `to`.
pub fn config(kind: Kind, to: &str) -> AppConfig {
    let mut config = AppConfig::new("wiki", APP, to.parse().unwrap(), kind);
    config.ports = vec![80];
    config
}
