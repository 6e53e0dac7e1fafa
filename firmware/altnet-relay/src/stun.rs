//! Answering STUN beside a DERP server: by that clients learn how the internet sees them, and need
//! the relay no more.
//!
//! In: a UDP port. Out: answers to Binding requests (RFC 8489), each from the address that was asked:
//! a NAT or a firewall lets no other one through. What is answered decides [`altnet_core::stun`].

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

use altnet_core::derp::rate::Rate;
use altnet_core::stun::{ANSWER_BYTES, Answers};
use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::clock;
use crate::server::ACCEPT_PAUSE;

/// The port that clients ask if they aren't told another one (RFC 8489 section 18.6).
pub const PORT: u16 = 3478;
/// The longest request that is read. Tailscale's clients send 40 bytes.
const REQUEST_BYTES: usize = 1280;
/// Answers that are larger than their requests. Tailscale's clients get such ones over IPv6, of 52
/// bytes. So what forged sources gain is 24 bytes 500 times a second.
const SHORT_ANSWERS: Rate = Rate {
    per_s: 500,
    burst: 1000,
};

/// A port at which nobody is answered yet.
#[derive(Debug)]
pub struct StunPort(UdpSocket);

/// Which of our addresses was asked.
#[derive(Clone, Copy)]
enum Asked {
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

impl StunPort {
    /// Opens a UDP port, for both families where the address is IPv6's unspecified one. Needs a tokio
    /// runtime with I/O.
    ///
    /// # Errors
    /// What the kernel says; [`io::ErrorKind::AddrInUse`] if somebody has the port.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let kind = Type::DGRAM.cloexec().nonblocking();
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, Ipv4PacketInfo, &true)?;
        }
        socket.bind(&address.into())?;
        Ok(Self(UdpSocket::from_std(socket.into())?))
    }

    /// Where it is open.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers until the future is dropped.
    pub async fn serve(self) {
        let mut answers = Answers::new(SHORT_ANSWERS);
        loop {
            let socket = self.0.as_raw_fd();
            let answered = self
                .0
                .async_io(Interest::READABLE, || answer_one(socket, &mut answers));
            if answered.await.is_err() {
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Reads one datagram and answers it, if it gets an answer.
fn answer_one(socket: RawFd, answers: &mut Answers) -> io::Result<()> {
    let (mut request, mut answer) = ([0; REQUEST_BYTES], [0; ANSWER_BYTES]);
    let Some((length, name, asked)) = receive(socket, &mut request)? else {
        return Ok(());
    };
    let request = request.get(..length).unwrap_or(&[]);
    let length =
        plain(&name).and_then(|from| answers.answer(request, from, &mut answer, clock::now()));
    let Some(answer) = length.and_then(|length| answer.get(..length)) else {
        return Ok(());
    };
    // Whoever can't be reached asked in vain; they ask again.
    let pieces = [IoSlice::new(answer)];
    let _ = sendmsg(
        socket,
        &pieces,
        &[asked.control()],
        MsgFlags::empty(),
        Some(&name),
    );
    Ok(())
}

/// Reads one datagram: how long it is, who sent it and which of our addresses it is for. None if it
/// was cut off, or the kernel doesn't say.
fn receive(socket: RawFd, into: &mut [u8]) -> io::Result<Option<(usize, SockaddrStorage, Asked)>> {
    let mut pieces = [IoSliceMut::new(into)];
    let mut control = nix::cmsg_space!(in6_pktinfo);
    let flags = MsgFlags::empty();
    let received = recvmsg::<SockaddrStorage>(socket, &mut pieces, Some(&mut control), flags)?;
    let asked = received
        .cmsgs()
        .ok()
        .and_then(|mut messages| messages.find_map(Asked::read));
    if received.flags.contains(MsgFlags::MSG_TRUNC) {
        return Ok(None);
    }
    let (from, length) = (received.address, received.bytes);
    Ok(from.zip(asked).map(|(from, asked)| (length, from, asked)))
}

impl Asked {
    /// Without the interface, so that the answer leaves by whichever leads there; a link-local
    /// address is none without it.
    fn read(message: ControlMessageOwned) -> Option<Self> {
        match message {
            ControlMessageOwned::Ipv4PacketInfo(mut info) => {
                info.ipi_ifindex = 0;
                Some(Self::V4(info))
            }
            ControlMessageOwned::Ipv6PacketInfo(mut info) => {
                if !Ipv6Addr::from(info.ipi6_addr.s6_addr).is_unicast_link_local() {
                    info.ipi6_ifindex = 0;
                }
                Some(Self::V6(info))
            }
            _ => None,
        }
    }

    const fn control(&self) -> ControlMessage<'_> {
        match self {
            Self::V4(info) => ControlMessage::Ipv4PacketInfo(info),
            Self::V6(info) => ControlMessage::Ipv6PacketInfo(info),
        }
    }
}

/// The address as it is on the wire: a socket for both families names IPv4 in IPv6's words.
fn plain(name: &SockaddrStorage) -> Option<SocketAddr> {
    let (ip, port) = match (name.as_sockaddr_in(), name.as_sockaddr_in6()) {
        (Some(v4), _) => (IpAddr::V4(v4.ip()), v4.port()),
        (_, Some(v6)) => (v6.ip().to_canonical(), v6.port()),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}
