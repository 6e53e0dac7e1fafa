//! The process with the sockets: three on each interface of the LAN, and after that no privileges.
//!
//! Everything is bound to the interface (`SO_BINDTODEVICE`), so that nothing is there on any other, whatever the firewall
//! says. How many connections there are at once is bounded; what is too many is closed.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::process::{ChildStdin, ChildStdout};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use altnet_claim::PORT;
use altnet_claim::code::Code;
use altnet_claim::key::BoxSecret;
use altnet_service::{debug, info};
use anyhow::{Context as _, Result, bail};
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use crate::mdns::{self, Addresses, Names, To};
use crate::offer::{Offer, Stage};
use crate::page;
use crate::pair;
use crate::pipe::{self, Answer, Wish};

/// The TCP port of the page.
const PAGE_PORT: u16 = 80;
/// How many connections there may be at once, to the page and to be paired.
const MAX_CONNECTIONS: usize = 8;
/// How long somebody may take to ask for the page and to read it.
const PAGE_PATIENCE: Duration = Duration::from_secs(5);
/// How long what was said last has to leave.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// A record is multicast once in this time at most (RFC 6762 section 6).
const BETWEEN: Duration = Duration::from_secs(1);

/// The other process.
pub struct Hands {
    to: Sender,
    from: Receiver,
}

impl Hands {
    /// Asks for something.
    ///
    /// # Errors
    /// It is gone.
    pub async fn wish(&mut self, wish: &Wish<'_>) -> Result<()> {
        let bytes = pipe::encode(wish)?;
        self.to.write_all(&bytes).await.context(HandsGone)
    }

    /// What it answers next.
    ///
    /// # Errors
    /// It is gone.
    pub async fn answer(&mut self) -> Result<Zeroizing<Vec<u8>>> {
        pair::receive(&mut self.from).await.context(HandsGone)
    }
}

/// The other process is gone.
#[derive(Debug)]
pub struct HandsGone;

impl fmt::Display for HandsGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the process that keeps the key is gone")
    }
}

/// What all connections share.
pub struct Desk {
    /// The code.
    pub code: Code,
    /// The box's key.
    pub secret: BoxSecret,
    /// The other process.
    pub hands: Mutex<Hands>,
    offer: RefCell<Offer>,
    changed: Notify,
    has_no_hands: Cell<bool>,
}

impl Desk {
    /// Asks what is offered now.
    pub fn offer<T>(&self, ask: impl FnOnce(&Offer, Duration) -> T) -> T {
        ask(&self.offer.borrow(), since_power_on())
    }

    /// Notes how far the box has come.
    pub fn set(&self, stage: Stage) {
        self.offer.borrow_mut().stage = stage;
        self.changed.notify_waiters();
    }

    /// Has a try written down.
    ///
    /// # Errors
    /// None may be made.
    pub async fn count(&self) -> Result<()> {
        self.tries(&Wish::Count).await
    }

    /// Has it written down that the last one was right.
    ///
    /// # Errors
    /// The other process is gone.
    pub async fn give_back(&self) -> Result<()> {
        self.tries(&Wish::GiveBack).await
    }

    async fn tries(&self, wish: &Wish<'_>) -> Result<()> {
        let mut hands = self.hands.lock().await;
        hands.wish(wish).await?;
        let bytes = hands.answer().await?;
        let Answer::Counted(Some(tries)) = pipe::decode(&bytes)? else {
            bail!("no more codes may be tried");
        };
        self.offer.borrow_mut().tries = pipe::heard(tries);
        Ok(())
    }
}

/// The sockets on one interface.
pub struct Sockets {
    page: std::net::TcpListener,
    pairing: std::net::TcpListener,
    v4: Socket,
    v6: Socket,
    /// What the interface is called, and its number.
    interface: (String, u32),
}

impl Sockets {
    /// Opens them, which takes privileges.
    ///
    /// # Errors
    /// There is no such interface, or a port is in use.
    pub fn open(interface: &str) -> Result<Self> {
        let probe = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        let index = rustix::net::netdevice::name_to_index(&probe, interface)
            .with_context(|| format!("there is no interface {interface}"))?;
        let at = |what: &str| format!("can't {what} on {interface}");
        Ok(Self {
            page: listen(interface, PAGE_PORT)
                .with_context(|| at("serve the page, on TCP port 80,"))?,
            pairing: listen(interface, PORT)
                .with_context(|| at("be claimed, on TCP port 51821,"))?,
            v4: multicast4(interface, index).with_context(|| at("use multicast DNS over IPv4"))?,
            v6: multicast6(interface, index).with_context(|| at("use multicast DNS over IPv6"))?,
            interface: (interface.into(), index),
        })
    }
}

fn listen(interface: &str, port: u16) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(i32::try_from(MAX_CONNECTIONS).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn multicast4(interface: &str, index: u32) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, mdns::PORT)).into())?;
    socket.join_multicast_v4_n(&mdns::GROUP4, &InterfaceIndexOrAddress::Index(index))?;
    // On the link and no further (RFC 6762 section 11).
    socket.set_multicast_ttl_v4(255)?;
    socket.set_ttl_v4(255)?;
    socket.set_multicast_loop_v4(false)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn multicast6(interface: &str, index: u32) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, mdns::PORT)).into())?;
    socket.join_multicast_v6(&mdns::GROUP6, index)?;
    socket.set_multicast_if_v6(index)?;
    socket.set_multicast_hops_v6(255)?;
    socket.set_unicast_hops_v6(255)?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What is known before anything is offered.
pub struct Setting {
    /// The box's key.
    pub secret: BoxSecret,
    /// The code.
    pub code: Code,
    /// What is offered.
    pub offer: Offer,
    /// A pipe to the other process, and one from it.
    pub pipes: (ChildStdin, ChildStdout),
}

/// Offers the box until it is a member.
///
/// # Errors
/// The other process is gone, or a socket can't be used.
pub fn run(setting: Setting, sockets: Vec<Sockets>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, offer(setting, sockets))
}

async fn offer(setting: Setting, sockets: Vec<Sockets>) -> Result<()> {
    let (to, from) = setting.pipes;
    let hands = Hands {
        to: Sender::from_owned_fd(to.into())?,
        from: Receiver::from_owned_fd(from.into())?,
    };
    let fingerprint = setting.secret.public().fingerprint();
    let names = Rc::new(Names {
        label: format!("altnet-{}", fingerprint.short()),
        port: PORT,
        text: vec![
            "v=1".into(),
            format!("fp={fingerprint}"),
            format!("board={}", setting.offer.board),
            format!("version={}", setting.offer.version),
        ],
    });
    let desk = Rc::new(Desk {
        code: setting.code,
        secret: setting.secret,
        hands: Mutex::new(hands),
        offer: RefCell::new(setting.offer),
        changed: Notify::new(),
        has_no_hands: Cell::new(false),
    });
    let mut speakers = Vec::new();
    for on in sockets {
        let (name, index) = on.interface.clone();
        tokio::task::spawn_local(serve_pages(desk.clone(), TcpListener::from_std(on.page)?));
        tokio::task::spawn_local(serve_pairings(
            desk.clone(),
            TcpListener::from_std(on.pairing)?,
        ));
        let groups: [(Socket, SocketAddr); 2] = [
            (on.v4, (mdns::GROUP4, mdns::PORT).into()),
            (
                on.v6,
                SocketAddrV6::new(mdns::GROUP6, mdns::PORT, 0, index).into(),
            ),
        ];
        for (socket, group) in groups {
            let speaker = Rc::new(Speaker {
                socket: UdpSocket::from_std(socket.into())?,
                group,
                interface: (name.clone(), index),
                names: names.clone(),
                pause: pause(&desk),
            });
            tokio::task::spawn_local(speaker.clone().serve());
            speakers.push(speaker);
        }
        info!(
            "offered on {name}, by its page, as {}.local and by TCP port {PORT}",
            names.label
        );
    }
    loop {
        let changed = desk.changed.notified();
        if desk.offer(|offer, _| offer.stage) == Stage::Joined {
            break;
        }
        if desk.has_no_hands.get() {
            bail!("{HandsGone}; what it said is above");
        }
        changed.await;
    }
    for speaker in &speakers {
        speaker.announce(true).await;
    }
    info!("the box is a member, and offers itself no more");
    sleep(LAST_WORDS).await;
    Ok(())
}

/// Between 20 and 120 ms, otherwise for every box, so that several don't answer at once (RFC 6762 section 6).
fn pause(desk: &Desk) -> Duration {
    let [first, ..] = desk.secret.public().0;
    Duration::from_millis(20 + u64::from(first) * 100 / 255)
}

async fn serve_pages(desk: Rc<Desk>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            sleep(BETWEEN).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let desk = desk.clone();
        tokio::task::spawn_local(async move {
            let _place = place;
            let served = timeout(PAGE_PATIENCE, async {
                let mut request = [0; page::MAX_REQUEST];
                let mut used = 0;
                while used < request.len() && !page::is_whole(&request[..used]) {
                    match stream.read(&mut request[used..]).await? {
                        0 => break,
                        read => used += read,
                    }
                }
                if let Some(response) =
                    desk.offer(|offer, now| page::respond(&request[..used], offer, now))
                {
                    stream.write_all(response.as_bytes()).await?;
                }
                stream.shutdown().await
            });
            // Who reads no page to its end doesn't want it.
            let _ = served.await;
        });
    }
}

async fn serve_pairings(desk: Rc<Desk>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            sleep(BETWEEN).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let desk = desk.clone();
        tokio::task::spawn_local(async move {
            let _place = place;
            if let Err(e) = pair::serve(&desk, stream).await {
                debug!("{from}: {e:#}");
                if e.is::<HandsGone>() {
                    desk.has_no_hands.set(true);
                    desk.changed.notify_waiters();
                }
            }
        });
    }
}

/// Multicast DNS on one interface, of one family.
struct Speaker {
    socket: UdpSocket,
    group: SocketAddr,
    interface: (String, u32),
    names: Rc<Names>,
    pause: Duration,
}

impl Speaker {
    async fn serve(self: Rc<Self>) {
        // Twice, a second apart (RFC 6762 section 8.3).
        self.announce(false).await;
        sleep(BETWEEN).await;
        self.announce(false).await;
        let mut said = Instant::now();
        let mut query = [0; mdns::MAX_QUERY + 1];
        loop {
            let Ok((length, from)) = self.socket.recv_from(&mut query).await else {
                sleep(BETWEEN).await;
                continue;
            };
            if !is_near(from.ip()) {
                continue;
            }
            let is_legacy = from.port() != mdns::PORT;
            let Some(reply) = self
                .names
                .answer(&query[..length], self.addresses(), is_legacy)
            else {
                continue;
            };
            match reply.to {
                // What isn't sent is asked again.
                To::Asker => drop(self.socket.send_to(&reply.bytes, from).await),
                To::Group if said.elapsed() >= BETWEEN => {
                    sleep(self.pause).await;
                    said = Instant::now();
                    drop(self.socket.send_to(&reply.bytes, self.group).await);
                }
                To::Group => {}
            }
        }
    }

    async fn announce(&self, is_goodbye: bool) {
        let bytes = self.names.announcement(self.addresses(), is_goodbye);
        // A LAN without a cable in it has nobody to hear it.
        let _ = self.socket.send_to(&bytes, self.group).await;
    }

    /// The interface's addresses now: those that the kernel would send from.
    fn addresses(&self) -> Addresses {
        let (name, index) = &self.interface;
        let own = |group: SocketAddr| -> Option<IpAddr> {
            let socket = Socket::new(Domain::for_address(group), Type::DGRAM, None).ok()?;
            socket.bind_device(Some(name.as_bytes())).ok()?;
            socket.connect(&group.into()).ok()?;
            Some(socket.local_addr().ok()?.as_socket()?.ip())
        };
        let v4 = own((mdns::GROUP4, mdns::PORT).into());
        let v6 = own(SocketAddrV6::new(mdns::GROUP6, mdns::PORT, 0, *index).into());
        Addresses {
            v4: v4.and_then(|ip| match ip {
                IpAddr::V4(ip) if !ip.is_unspecified() => Some(ip),
                _ => None,
            }),
            v6: v6.and_then(|ip| match ip {
                IpAddr::V6(ip) if ip.is_unicast_link_local() => Some(ip),
                _ => None,
            }),
        }
    }
}

/// Whether somebody is in the house: an answer is larger than its question, and goes to nobody else.
fn is_near(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_unique_local(),
    }
}

/// The kernel's clock since it began, which goes on while a machine sleeps.
pub fn since_power_on() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default()
}

/// The other process's first words.
///
/// # Errors
/// It is gone, which it said why on its own.
pub fn ready(from: &mut ChildStdout) -> Result<(BoxSecret, Code, (u8, u32))> {
    let bytes = pipe::read(from)?.context("the other process ended at once")?;
    match pipe::decode(&bytes)? {
        Answer::Ready { key, code, tries } => {
            let code = Code::parse(&code)?;
            Ok((BoxSecret::new(key), code, tries))
        }
        _ => bail!("the other process begins with something else"),
    }
}
