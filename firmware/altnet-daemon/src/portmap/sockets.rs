//! The sockets of one address family towards its gateway.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use altnet_core::portmap::{Network, is_public};
use altnet_wire::portmap::{CLIENT_PORT, MAX_BYTES, SERVER_PORT};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use crate::igd::ssdp;
use crate::netlink::Reachable;
use crate::netlink::gateway::Gateway;

/// The group of all hosts on a link, to which routers announce that they started anew.
const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What came in.
#[derive(Debug)]
pub(super) enum Heard {
    /// A datagram for the machine.
    Datagram(SocketAddr, Vec<u8>),
    /// Nothing listens at the gateway's port.
    Unreachable,
    /// The gateway's UPnP device has come.
    IgdRestart,
    /// Something else.
    Nothing,
}

/// The sockets.
#[derive(Debug)]
pub(super) struct Sockets {
    gateway: IpAddr,
    // Connected to the gateway's port, so that the kernel says when nothing listens there.
    own: UdpSocket,
    announced: Option<UdpSocket>,
    notices: Option<UdpSocket>,
}

impl Sockets {
    pub(super) fn open(network: &Network) -> io::Result<Self> {
        let own = std::net::UdpSocket::bind(SocketAddr::new(network.internal.ip(), 0))?;
        own.connect(server(network.gateway, network.interface))?;
        own.set_nonblocking(true)?;
        let announced = match network.internal.ip() {
            IpAddr::V4(_) => SocketAddrV4::new(ALL_HOSTS, CLIENT_PORT).into(),
            IpAddr::V6(_) => SocketAddrV6::new(ALL_NODES, CLIENT_PORT, 0, network.interface).into(),
        };
        let notices = match network.internal.ip() {
            IpAddr::V4(own) => Some(group_member(ssdp::GROUP, ssdp::PORT, own)),
            IpAddr::V6(_) => None,
        };
        Ok(Self {
            gateway: network.gateway,
            own: UdpSocket::from_std(own)?,
            announced: or_without(shared(announced)),
            notices: notices.and_then(or_without),
        })
    }

    /// Sends to the gateway's port.
    pub(super) fn send(&self, datagram: &[u8]) -> io::Result<()> {
        // Past tokio, which waits for the first sign that the socket can be written to.
        SockRef::from(&self.own).send(datagram).map(|_| ())
    }

    /// Waits for the next datagram.
    pub(super) async fn hear(&self) -> Heard {
        let (mut answer, mut announcement) = ([0; MAX_BYTES + 1], [0; MAX_BYTES + 1]);
        let mut notice = [0; ssdp::MAX_DATAGRAM_BYTES];
        tokio::select! {
            received = self.own.recv_from(&mut answer) => match received {
                Ok((length, from)) => datagram(from, answer.get(..length)),
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Heard::Unreachable,
                Err(e) => {
                    crate::debug!("the socket to {} says: {e}", self.gateway);
                    Heard::Nothing
                }
            },
            received = receive(self.announced.as_ref(), &mut announcement) => match received {
                Ok((length, from)) => datagram(from, announcement.get(..length)),
                Err(_) => Heard::Nothing,
            },
            received = receive(self.notices.as_ref(), &mut notice) => match (received, self.gateway) {
                (Ok((length, from)), IpAddr::V4(gateway)) => {
                    let notice = notice.get(..length).unwrap_or(&[]);
                    if from.ip() == gateway && ssdp::is_alive(notice, gateway) {
                        Heard::IgdRestart
                    } else {
                        Heard::Nothing
                    }
                }
                _ => Heard::Nothing,
            },
        }
    }
}

/// Our address on the way to a gateway.
pub(super) fn own_address(gateway: &Gateway, addresses: &[Reachable]) -> Option<IpAddr> {
    if gateway.address.is_ipv4() {
        let probe = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        probe
            .connect(server(gateway.address, gateway.interface))
            .ok()?;
        return Some(probe.local_addr().ok()?.ip());
    }
    // The gateway's is link-local, and so would be the one that the kernel chooses towards it.
    let reachable = |found: &&Reachable| found.ip.is_ipv6() && is_public(found.ip);
    let there = |found: &&Reachable| found.interface == gateway.interface;
    let mut on_link = addresses.iter().filter(there).filter(reachable);
    let mut anywhere = addresses.iter().filter(reachable);
    on_link
        .next()
        .or_else(|| anywhere.next())
        .map(|found| found.ip)
}

fn server(gateway: IpAddr, interface: u32) -> SocketAddr {
    match gateway {
        IpAddr::V4(v4) => SocketAddrV4::new(v4, SERVER_PORT).into(),
        IpAddr::V6(v6) => {
            let is_link_local = v6.is_unicast_link_local();
            let scope = if is_link_local { interface } else { 0 };
            SocketAddrV6::new(v6, SERVER_PORT, 0, scope).into()
        }
    }
}

fn datagram(from: SocketAddr, bytes: Option<&[u8]>) -> Heard {
    bytes.map_or(Heard::Nothing, |bytes| {
        Heard::Datagram(from, bytes.to_vec())
    })
}

async fn receive(socket: Option<&UdpSocket>, out: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(out).await,
        None => std::future::pending().await,
    }
}

/// A socket that others may have too, and that gets nothing but what is sent to the group: bound
/// to all addresses it would take from them what is theirs.
fn shared(group: SocketAddr) -> io::Result<UdpSocket> {
    let kind = Type::DGRAM.cloexec().nonblocking();
    let socket = Socket::new(Domain::for_address(group), kind, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&group.into())?;
    UdpSocket::from_std(socket.into())
}

fn group_member(group: Ipv4Addr, port: u16, own: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = shared(SocketAddrV4::new(group, port).into())?;
    socket.join_multicast_v4(group, own)?;
    Ok(socket)
}

fn or_without(socket: io::Result<UdpSocket>) -> Option<UdpSocket> {
    if let Err(e) = &socket {
        crate::debug!("routers' announcements can't be heard: {e}");
    }
    socket.ok()
}
