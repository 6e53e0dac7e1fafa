//! A raw ICMPv6 socket on every interface: router advertisements in, router solicitations out.
//!
//! The kernel passes options that it doesn't know on to others only where it takes advertisements itself, which
//! on a router it often doesn't; a raw socket hears them either way.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::{ALL_ROUTERS, ICMP6_FILTER, ON_LINK_HOPS, PASS_NOTHING, pass_only, receive_now};
use crate::netlink::set_option;

/// The largest advertisement that is read, in bytes: an Ethernet's MTU less the IPv6 header.
pub const MAX_ADVERTISEMENT_BYTES: usize = 1460;

const ROUTER_ADVERTISEMENT: u8 = 134;
/// A router solicitation without options (RFC 4861 section 4.1).
const SOLICITATION: [u8; 8] = [133, 0, 0, 0, 0, 0, 0, 0];

/// An advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// The interface it came in by.
    pub interface: u32,
    /// The router's address there.
    pub source: Ipv6Addr,
    /// The ICMPv6 message.
    pub message: Vec<u8>,
}

/// The socket.
#[derive(Debug)]
pub struct RouterSocket {
    socket: AsyncFd<Socket>,
}

impl RouterSocket {
    /// Opens a socket that hears nothing yet. Needs CAP_NET_RAW and a tokio runtime with I/O.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        let kind = Type::RAW.cloexec().nonblocking();
        let socket = Socket::new(Domain::IPV6, kind, Some(Protocol::ICMPV6))?;
        set_option(&socket, libc::IPPROTO_ICMPV6, ICMP6_FILTER, &PASS_NOTHING)?;
        socket.set_multicast_hops_v6(ON_LINK_HOPS)?;
        socket.set_multicast_loop_v6(false)?;
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, &1i32)?;
        // SAFETY: the socket is owned by the `AsyncFd` from here on; nothing closes or
        // replaces its descriptor before it is dropped.
        let socket = unsafe { AsyncFd::register(socket)? };
        Ok(Self { socket })
    }

    /// Hears advertisements from now on, or nothing: the kernel keeps from the daemon what it has no use for.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn listen(&self, on: bool) -> io::Result<()> {
        let filter = match on {
            true => pass_only(ROUTER_ADVERTISEMENT),
            false => PASS_NOTHING,
        };
        let socket = self.socket.get_ref();
        set_option(socket, libc::IPPROTO_ICMPV6, ICMP6_FILTER, &filter)
    }

    /// Asks the routers on an interface to advertise now.
    ///
    /// # Errors
    /// What the kernel says; [`io::ErrorKind::AddrNotAvailable`] while the interface has no link-local address.
    pub fn solicit(&self, interface: u32) -> io::Result<()> {
        let to = SockAddr::from(SocketAddrV6::new(ALL_ROUTERS, 0, 0, interface));
        self.socket
            .get_ref()
            .send_to(&SOLICITATION, &to)
            .map(|_| ())
    }

    /// Waits for the next advertisement that came from one of these interfaces; others are dropped.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn receive(&self, interfaces: &[u32]) -> io::Result<Advertisement> {
        let mut message = [0; MAX_ADVERTISEMENT_BYTES];
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| receive_now(socket.get_ref(), &mut message)) {
                Ok(Ok(Some((length, from)))) if interfaces.contains(&from.scope_id()) => {
                    return Ok(Advertisement {
                        interface: from.scope_id(),
                        source: *from.ip(),
                        message: message.get(..length).unwrap_or_default().to_vec(),
                    });
                }
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(e)) => return Err(e),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::icmp6::{ALL_NODES, LinkSocket, MAX_SOLICITATION_BYTES};
    use crate::link::index_of;
    use crate::netlink::Netlink;
    use crate::testing::in_namespace;
    use altnet_core::lan::pref64;
    use std::process::Command;

    /// As Scapy 2.8.0 writes it: a router lifetime of 1800 s, a link-layer address, 2001:db8:64::/96 for 1800 s.
    const FOREIGN: &str = "86000000000807080000000000000000\
        01010200000000092602070820010db80064000000000000";

    fn foreign() -> Vec<u8> {
        let octet = |at: usize| u8::from_str_radix(&FOREIGN[at..at + 2], 16).unwrap();
        (0..FOREIGN.len()).step_by(2).map(octet).collect()
    }

    #[test]
    fn a_router_that_is_asked_is_heard_on_the_link_where_it_is() {
        in_namespace(
            "a_router_that_is_asked_is_heard_on_the_link_where_it_is",
            async {
                let made = Command::new("ip")
                    .args(["link", "add", "isp0", "type", "veth", "peer", "wan0"])
                    .status();
                assert!(made.unwrap().success());
                // Without duplicate detection link-local addresses work at once.
                for name in ["isp0", "wan0"] {
                    let conf = format!("/proc/sys/net/ipv6/conf/{name}");
                    std::fs::write(format!("{conf}/accept_dad"), "0").unwrap();
                    // As on a router, where the kernel takes none itself.
                    std::fs::write(format!("{conf}/accept_ra"), "0").unwrap();
                }
                let mut netlink = Netlink::open().unwrap();
                let (isp, wan) = (index_of("isp0").unwrap(), index_of("wan0").unwrap());
                netlink.bring_up(isp, None).unwrap();
                netlink.bring_up(wan, None).unwrap();
                let (on_isp, on_wan) = ([isp], [wan]);
                let host = RouterSocket::open().unwrap();
                host.listen(true).unwrap();
                let deaf = RouterSocket::open().unwrap();
                let elsewhere = RouterSocket::open().unwrap();
                elsewhere.listen(true).unwrap();
                let router = LinkSocket::open("isp0", isp).unwrap();
                while host.solicit(wan).is_err() {
                    tokio::task::yield_now().await;
                }
                let answers = tokio::spawn(async move {
                    let mut message = [0; MAX_SOLICITATION_BYTES];
                    loop {
                        router.receive(&mut message).await.unwrap();
                        let _ = router.send(&foreign(), ALL_NODES);
                    }
                });
                // Again and again, for the other end may not be up yet.
                let heard = loop {
                    tokio::select! {
                        heard = host.receive(&on_wan) => break heard.unwrap(),
                        () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {
                            let _ = host.solicit(wan);
                        }
                    }
                };
                answers.abort();
                // The same came to the others: one isn't to be told, of the other's interfaces it is none.
                let is_silent = |socket: &RouterSocket| {
                    let mut message = [0; MAX_ADVERTISEMENT_BYTES];
                    let error = receive_now(socket.socket.get_ref(), &mut message).unwrap_err();
                    error.kind() == io::ErrorKind::WouldBlock
                };
                assert!(is_silent(&deaf));
                tokio::select! {
                    biased;
                    heard = elsewhere.receive(&on_isp) => panic!("{heard:?}"),
                    () = tokio::task::yield_now() => {}
                }
                assert!(is_silent(&elsewhere));
                assert_eq!(heard.interface, wan);
                let found = pref64::parse(&heard.message, heard.source, 255).unwrap();
                let expected = pref64::Pref64 {
                    prefix: "2001:db8:64::".parse().unwrap(),
                    bits: 96,
                    lifetime_s: 1800,
                };
                assert_eq!(found, [expected]);
            },
        );
    }
}
