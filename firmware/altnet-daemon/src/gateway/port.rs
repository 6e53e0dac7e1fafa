//! The UDP port that carries everything: tunnels, control and relaying, IPv6 and IPv4.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::task::{Context, Poll};

use altnet_wire::frame::Frame;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::batch::{self, Inbox, Outbox, Sent};

/// What the kernel may hold for us in each direction, in bytes. It grants less where its own
/// limit (`net.core.rmem_max`) is lower.
const BUFFER_BYTES: usize = 1 << 20;

/// The port.
#[derive(Debug)]
pub struct Port {
    socket: UdpSocket,
    is_v6: bool,
}

impl Port {
    /// Opens UDP port `port` on all addresses; of IPv4 alone where the kernel has no IPv6.
    /// Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// What the kernel says; [`io::ErrorKind::AddrInUse`] if somebody has the port.
    pub fn open(port: u16) -> io::Result<Self> {
        let (socket, is_v6) = match open(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()) {
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                let any = (Ipv4Addr::UNSPECIFIED, port).into();
                (open(Domain::IPV4, any)?, false)
            }
            other => (other?, true),
        };
        Ok(Self {
            socket: UdpSocket::from_std(socket.into())?,
            is_v6,
        })
    }

    /// The port's number.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn number(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// Waits until a datagram can be read.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// The same, for whoever waits for several.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_recv_ready(context)
    }

    /// Reads one datagram into `frame` and says where it came from; nothing if none is there.
    /// One that is longer than a frame is cut off, and so opens nowhere.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn try_receive(&self, frame: &mut Frame<'_>) -> io::Result<Option<SocketAddr>> {
        match self.socket.try_recv_from(frame.space()) {
            Ok((len, from)) => {
                frame.set_len(len).map_err(io::Error::other)?;
                Ok(Some(from))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes room for datagrams by the batch. From then on they are to be read by
    /// [`Port::receive_batch`] alone: the kernel may hand over several as one.
    pub fn batches(&self) -> (Inbox, Outbox) {
        let can_segment = batch::enable_trains(self.socket.as_fd());
        (Inbox::default(), Outbox::new(can_segment))
    }

    /// Reads what is there into an empty inbox; whether anything was.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn receive_batch(&self, inbox: &mut Inbox) -> io::Result<bool> {
        let socket = &self.socket;
        let filled = socket.try_io(Interest::READABLE, || inbox.fill(socket.as_fd()));
        match filled {
            Ok(()) => Ok(!inbox.is_empty()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Puts a datagram into an outbox; whether there was room.
    pub fn put(&self, datagram: &[u8], to: SocketAddr, outbox: &mut Outbox) -> bool {
        outbox.push(datagram, self.name(to))
    }

    /// Sends what an outbox holds.
    pub fn send_batch(&self, outbox: &mut Outbox) -> Sent {
        outbox.send(self.socket.as_fd())
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// What the kernel says, such as that there is no route;
    /// [`io::ErrorKind::WouldBlock`] if its queue is full and the datagram is lost.
    pub fn send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        // Past tokio, which waits for the first sign that the socket can be written to.
        let socket = SockRef::from(&self.socket);
        socket.send_to(datagram, &self.name(to).into()).map(|_| ())
    }

    /// Sends what an outbox holds, in fragments of IP where it is too large for a link.
    pub fn send_fragments(&self, outbox: &mut Outbox) -> Sent {
        let socket = SockRef::from(&self.socket);
        discover_mtu(
            &socket,
            self.is_v6,
            [libc::IP_PMTUDISC_DONT, libc::IPV6_PMTUDISC_DONT],
        );
        let sent = self.send_batch(outbox);
        discover_mtu(&socket, self.is_v6, WHOLE);
        sent
    }

    /// What the socket calls an address.
    fn name(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V4(v4) if self.is_v6 => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            other => other,
        }
    }
}

fn open(domain: Domain, address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::DGRAM.cloexec().nonblocking();
    let socket = Socket::new(domain, kind, Some(Protocol::UDP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    discover_mtu(&socket, domain == Domain::IPV6, WHOLE);
    // Less than asked for is no fault.
    let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Has the kernel send datagrams whole or not at all, and remember no path's MTU: the node finds that
/// out, and anybody could forge what the kernel goes by (ADR 0017).
const WHOLE: [libc::c_int; 2] = [libc::IP_PMTUDISC_PROBE, libc::IPV6_PMTUDISC_PROBE];

/// Says what the kernel does with what is too large, by IPv4 and by IPv6. One that can't goes on as it
/// was.
fn discover_mtu(socket: &Socket, is_v6: bool, [v4, v6]: [libc::c_int; 2]) {
    let set = |level, name, value: libc::c_int| {
        let len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: both options are an `int`, and the pointer is to one that outlives the call.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                len,
            );
        }
    };
    // IPv4 passes a socket of IPv6 too.
    set(libc::SOL_IP, libc::IP_MTU_DISCOVER, v4);
    if is_v6 {
        set(libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, v6);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_wire::endpoint::PortId;
    use altnet_wire::frame::FRAME_BYTES;

    #[tokio::test]
    async fn one_port_speaks_both_families() {
        let port = Port::open(0).unwrap();
        let number = port.number().unwrap();
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        for (own, to) in [("[::1]:0", "[::1]"), ("127.0.0.1:0", "127.0.0.1")] {
            let peer = UdpSocket::bind(own).await.unwrap();
            let to: SocketAddr = format!("{to}:{number}").parse().unwrap();
            peer.send_to(b"ping", to).await.unwrap();
            let from = loop {
                port.readable().await.unwrap();
                if let Some(from) = port.try_receive(&mut frame).unwrap() {
                    break from;
                }
            };
            assert_eq!(frame.packet(), b"ping");
            assert_eq!(from.ip().to_canonical(), peer.local_addr().unwrap().ip());
            port.send(b"pong", peer.local_addr().unwrap()).unwrap();
            let mut answer = [0; 8];
            assert_eq!(peer.recv(&mut answer).await.unwrap(), 4);
        }
    }

    #[test]
    fn what_is_too_large_for_a_link_is_refused_and_passes_in_fragments() {
        let name = "what_is_too_large_for_a_link_is_refused_and_passes_in_fragments";
        crate::testing::in_namespace(name, async {
            for arguments in ["link set lo up", "link set lo mtu 1280"] {
                crate::testing::ip(arguments);
            }
            let mut ports = crate::gateway::ports::Ports::from(Port::open(0).unwrap());
            for (own, headers) in [("[::1]:0", 48), ("127.0.0.1:0", 28)] {
                let peer = UdpSocket::bind(own).await.unwrap();
                let to = peer.local_addr().unwrap();
                let most = 1280 - headers;
                let mut got = [0; 2000];
                ports.send(&[1; 1280], to, PortId::MAIN).unwrap();
                let sent = ports.flush().unwrap_err();
                let (at, bytes) = sent.too_large.unwrap();
                assert_eq!(
                    (at.ip().to_canonical(), bytes, sent.lost),
                    (to.ip(), 1280, 1)
                );
                for _ in 0..3 {
                    ports.send(&[2; 1300], to, PortId::MAIN).unwrap();
                }
                let sent = ports.flush().unwrap_err();
                assert_eq!((sent.too_large.unwrap().1, sent.lost), (1300, 3));
                ports.send(&[3; 1300], to, PortId::FRAGMENTS).unwrap();
                ports.flush().unwrap();
                assert_eq!(peer.recv(&mut got).await.unwrap(), 1300);
                ports.send(&vec![4; most], to, PortId::MAIN).unwrap();
                ports.flush().unwrap();
                assert_eq!((peer.recv(&mut got).await.unwrap(), got[0]), (most, 4));
            }
        });
    }
}
