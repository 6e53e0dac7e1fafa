//! A raw ICMPv6 socket on one LAN: router advertisements out, router solicitations in.
//!
//! The messages' bytes are the core's. This end keeps to the link: hop limit 255 both ways
//! (RFC 4861 sections 6.1.1 and 6.1.2), the all-routers group joined, and a kernel filter
//! that passes nothing but solicitations.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::unix::AsyncFd;

use crate::netlink::set_option;

pub mod routers;

/// ff02::1, every node on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// ff02::2, every router on the link.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// The largest solicitation that is read, in bytes.
pub const MAX_SOLICITATION_BYTES: usize = 512;

const ROUTER_SOLICITATION: u8 = 133;
const ON_LINK_HOPS: u32 = 255;
/// `ICMP6_FILTER` of netinet/icmp6.h, an option at level `IPPROTO_ICMPV6`.
const ICMP6_FILTER: i32 = 1;

/// The socket.
#[derive(Debug)]
pub struct LinkSocket {
    socket: AsyncFd<Socket>,
    interface: u32,
}

impl LinkSocket {
    /// Opens a socket on the interface called `name` with index `interface`. Needs CAP_NET_RAW
    /// and a tokio runtime with I/O.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(name: &str, interface: u32) -> io::Result<Self> {
        let kind = Type::RAW.cloexec().nonblocking();
        let socket = Socket::new(Domain::IPV6, kind, Some(Protocol::ICMPV6))?;
        // Before anything can arrive from another link.
        set_option(
            &socket,
            libc::IPPROTO_ICMPV6,
            ICMP6_FILTER,
            &pass_only(ROUTER_SOLICITATION),
        )?;
        socket.bind_device(Some(name.as_bytes()))?;
        socket.set_multicast_if_v6(interface)?;
        socket.set_multicast_hops_v6(ON_LINK_HOPS)?;
        socket.set_unicast_hops_v6(ON_LINK_HOPS)?;
        socket.set_multicast_loop_v6(false)?;
        socket.join_multicast_v6(&ALL_ROUTERS, interface)?;
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, &1i32)?;
        // SAFETY: the socket is owned by the `AsyncFd` from here on; nothing closes or
        // replaces its descriptor before it is dropped.
        let socket = unsafe { AsyncFd::register(socket)? };
        Ok(Self { socket, interface })
    }

    /// The index of its interface.
    pub fn interface(&self) -> u32 {
        self.interface
    }

    /// Sends an ICMPv6 message, whose checksum the kernel fills in, to `to` on this link.
    ///
    /// # Errors
    /// What the kernel says; [`io::ErrorKind::AddrNotAvailable`] while the interface has no
    /// link-local address yet.
    pub fn send(&self, message: &[u8], to: Ipv6Addr) -> io::Result<()> {
        let to = SockAddr::from(SocketAddrV6::new(to, 0, 0, self.interface));
        self.socket.get_ref().send_to(message, &to).map(|_| ())
    }

    /// Waits for the next solicitation that came from this link. Returns its length in
    /// `message` and who asked.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn receive(
        &self,
        message: &mut [u8; MAX_SOLICITATION_BYTES],
    ) -> io::Result<(usize, Ipv6Addr)> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| receive_now(socket.get_ref(), message)) {
                Ok(Ok(Some((length, from)))) => return Ok((length, *from.ip())),
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(e)) => return Err(e),
            }
        }
    }
}

/// `struct icmp6_filter`: a set bit blocks its type (RFC 3542 section 3.2).
fn pass_only(kind: u8) -> [u32; 8] {
    let mut blocked = [u32::MAX; 8];
    blocked[usize::from(kind >> 5)] &= !(1 << (kind & 31));
    blocked
}

/// The same filter, that lets nothing in.
const PASS_NOTHING: [u32; 8] = [u32::MAX; 8];

/// Reads one message; nothing if its hop limit shows that it crossed a router.
fn receive_now(socket: &Socket, message: &mut [u8]) -> io::Result<Option<(usize, SocketAddrV6)>> {
    // Aligned as cmsghdr wants, and room for one int with its header (24 bytes on 64 bits).
    let mut control = [0u64; 8];
    let mut part = libc::iovec {
        iov_base: message.as_mut_ptr().cast(),
        iov_len: message.len(),
    };
    // SAFETY: both are plain C structures for which all zeros is a value.
    let (mut from, mut header) = unsafe {
        (
            std::mem::zeroed::<libc::sockaddr_in6>(),
            std::mem::zeroed::<libc::msghdr>(),
        )
    };
    header.msg_name = (&raw mut from).cast();
    header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: `header` points to buffers on this stack frame and in `message`, with their
    // true lengths; the descriptor is open while `socket` is borrowed.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    if hop_limit(&header) != Some(ON_LINK_HOPS as i32) {
        return Ok(None);
    }
    let ip = Ipv6Addr::from(from.sin6_addr.s6_addr);
    Ok(Some((len, SocketAddrV6::new(ip, 0, 0, from.sin6_scope_id))))
}

fn hop_limit(header: &libc::msghdr) -> Option<i32> {
    // SAFETY: the kernel filled `header`'s control buffer and set its length; CMSG_FIRSTHDR
    // and CMSG_NXTHDR stay inside it and end with null. CMSG_DATA is read as unaligned bytes
    // and holds an int for this level and type (RFC 3542 section 6.3).
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while let Some(control) = at.as_ref() {
            if control.cmsg_level == libc::IPPROTO_IPV6 && control.cmsg_type == libc::IPV6_HOPLIMIT
            {
                return Some(libc::CMSG_DATA(at).cast::<i32>().read_unaligned());
            }
            at = libc::CMSG_NXTHDR(header, at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::index_of;
    use crate::netlink::Netlink;
    use crate::testing::{in_namespace, ip};

    #[test]
    fn the_filter_passes_one_type() {
        let filter = pass_only(ROUTER_SOLICITATION);
        let passes = |kind: u32| filter[(kind >> 5) as usize] & (1 << (kind & 31)) == 0;
        assert_eq!(
            (0..256).filter(|kind| passes(*kind)).collect::<Vec<_>>(),
            [133]
        );
    }

    /// Waits for an interface's link-local address to be usable.
    async fn link_local(socket: &LinkSocket, message: &[u8]) {
        while socket.send(message, ALL_NODES).is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    #[test]
    fn solicitations_from_this_link_alone_are_read() {
        in_namespace("solicitations_from_this_link_alone_are_read", async {
            ip("link add lan0 type veth peer host0");
            // Without duplicate detection link-local addresses work at once.
            for name in ["lan0", "host0"] {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_dad"), "0").unwrap();
            }
            let mut netlink = Netlink::open().unwrap();
            let (lan, host) = (index_of("lan0").unwrap(), index_of("host0").unwrap());
            netlink.bring_up(lan, None).unwrap();
            netlink.bring_up(host, None).unwrap();
            let router = LinkSocket::open("lan0", lan).unwrap();
            let client = LinkSocket::open("host0", host).unwrap();
            let solicitation = [133, 0, 0, 0, 0, 0, 0, 0];
            link_local(&client, &solicitation).await;

            // Again and again, for the other end may not be up yet.
            let far = tokio::spawn(async move {
                loop {
                    let far = client.socket.get_ref();
                    far.set_multicast_hops_v6(64).unwrap();
                    let _ = client.send(&[133, 0, 0, 0, 1, 1, 1, 1], ALL_ROUTERS);
                    far.set_multicast_hops_v6(255).unwrap();
                    let _ = client.send(&[134, 0, 0, 0, 2, 2, 2, 2], ALL_ROUTERS);
                    let _ = client.send(&[133, 0, 0, 0, 3, 3, 3, 3], ALL_ROUTERS);
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            });

            let mut message = [0; MAX_SOLICITATION_BYTES];
            loop {
                let (len, from) = router.receive(&mut message).await.unwrap();
                assert!(from.is_unicast_link_local());
                match &message[..len] {
                    [133, _, _, _, 3, 3, 3, 3] => break,
                    // The kernel's own, and the one that waited for its address.
                    [133, _, _, _, 0, 0, 0, 0, ..] => {}
                    other => panic!("{other:?} came through"),
                }
            }
            far.abort();
        });
    }
}
