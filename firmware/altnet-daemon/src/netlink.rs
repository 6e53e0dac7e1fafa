//! The few routing requests altnetd makes of the kernel, over NETLINK_ROUTE.
//!
//! Messages are built by hand: five kinds of request don't justify a crate that knows every
//! kind of link there is. Requests are synchronous; the kernel answers within the call.
//!
//! Source: rtnetlink(7), netlink(7), linux/rtnetlink.h, linux/if_addr.h.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use altnet_wire::address::Prefix;
use socket2::{Domain, Protocol, Socket, Type};

/// The protocol number of altnetd's routes and addresses, so that a later altnetd finds what
/// a killed one left behind. From the range the kernel leaves to user space (above
/// `RTPROT_STATIC`), not in iproute2's list.
pub const OWN_PROTOCOL: u8 = 97;

const BUFFER_BYTES: usize = 32 * 1024;
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);
const HEADER_BYTES: usize = 16;
/// `IFA_PROTO` of linux/if_addr.h, since Linux 5.18; older kernels skip it.
const IFA_PROTO: u16 = 11;
/// `IFA_FLAGS`: flags past the eight that the fixed part holds.
const IFA_FLAGS: u16 = libc::IFA_FLAGS;

/// What happens to packets that a route matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// They go out of the interface with this index.
    Interface(u32),
    /// They are refused with an ICMPv6 unreachable.
    Unreachable,
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: Prefix,
    /// What happens.
    pub via: Via,
    /// The smaller one wins among routes to the same prefix.
    pub metric: u32,
}

/// An address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface's index.
    pub interface: u32,
    /// The address.
    pub address: Ipv6Addr,
    /// The length of the prefix that is on the link.
    pub prefix_bits: u8,
}

/// A NETLINK_ROUTE socket.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a socket. Changes need CAP_NET_ADMIN.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW.cloexec(),
            Some(Protocol::from(libc::NETLINK_ROUTE)),
        )?;
        socket.set_read_timeout(Some(REPLY_TIMEOUT))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Sets an interface up, with an MTU in bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bring_up(&mut self, interface: u32, mtu_bytes: Option<u32>) -> io::Result<()> {
        let up = libc::IFF_UP as u32;
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        // struct ifinfomsg: family, padding, type, index, flags, mask of flags to change.
        message.bytes(&[libc::AF_UNSPEC as u8, 0, 0, 0]);
        message.bytes(&interface.to_ne_bytes());
        message.bytes(&up.to_ne_bytes());
        message.bytes(&up.to_ne_bytes());
        if let Some(mtu) = mtu_bytes {
            message.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
        }
        self.change(message)
    }

    /// Adds an address that needs no duplicate detection (it is derived or ours by record).
    /// Adding it twice is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_address(&mut self, address: Address) -> io::Result<()> {
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
        let mut message = address.message(libc::RTM_NEWADDR, flags);
        message.attribute(IFA_FLAGS, &libc::IFA_F_NODAD.to_ne_bytes());
        message.attribute(IFA_PROTO, &[OWN_PROTOCOL]);
        self.change(message)
    }

    /// Removes an address. Removing one that isn't there is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_address(&mut self, address: Address) -> io::Result<()> {
        let result = self.change(address.message(libc::RTM_DELADDR, 0));
        ignore(result, &[libc::EADDRNOTAVAIL, libc::ENODEV])
    }

    /// Adds a route of ours. Adding it twice is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_route(&mut self, route: Route) -> io::Result<()> {
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
        self.change(route.message(libc::RTM_NEWROUTE, flags))
    }

    /// Removes a route of ours. Removing one that isn't there is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_route(&mut self, route: Route) -> io::Result<()> {
        let result = self.change(route.message(libc::RTM_DELROUTE, 0));
        ignore(result, &[libc::ESRCH, libc::ENODEV])
    }

    /// The IPv6 addresses on interfaces, each with whether an altnetd put it there; kernels
    /// before 5.18 don't keep that and say that none was.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn addresses(&mut self) -> io::Result<Vec<(Address, bool)>> {
        let mut message = Message::new(libc::RTM_GETADDR, libc::NLM_F_DUMP as u16);
        message.bytes(&[libc::AF_INET6 as u8, 0, 0, 0, 0, 0, 0, 0]);
        let mut found = Vec::new();
        self.dump(message, libc::RTM_NEWADDR, |body| {
            found.extend(address_and_owner(body));
        })?;
        Ok(found)
    }

    /// The routes that an altnetd added to the main table.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn own_routes(&mut self) -> io::Result<Vec<Route>> {
        let mut message = Message::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP as u16);
        let mut fixed = [0; 12];
        fixed[0] = libc::AF_INET6 as u8;
        message.bytes(&fixed);
        let mut found = Vec::new();
        self.dump(message, libc::RTM_NEWROUTE, |body| {
            found.extend(own_route(body));
        })?;
        Ok(found)
    }

    /// The addresses that others could reach this machine at: global, and neither tentative,
    /// nor deprecated, nor temporary. Each with its interface's index, in the kernel's order.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn reachable_addresses(&mut self) -> io::Result<Vec<(u32, IpAddr)>> {
        let mut message = Message::new(libc::RTM_GETADDR, libc::NLM_F_DUMP as u16);
        message.bytes(&[libc::AF_UNSPEC as u8, 0, 0, 0, 0, 0, 0, 0]);
        let mut found = Vec::new();
        self.dump(message, libc::RTM_NEWADDR, |body| {
            found.extend(reachable_address(body));
        })?;
        Ok(found)
    }

    /// The MAC address of an interface, if it is an Ethernet.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn mac_address(&mut self, interface: u32) -> io::Result<Option<[u8; 6]>> {
        // No dump flag: one answer, then the acknowledgement.
        let mut message = Message::new(libc::RTM_GETLINK, libc::NLM_F_ACK as u16);
        message.bytes(&[libc::AF_UNSPEC as u8, 0, 0, 0]);
        message.bytes(&interface.to_ne_bytes());
        message.bytes(&[0; 8]);
        let mut found = None;
        self.dump(message, libc::RTM_NEWLINK, |body| {
            let attributes = body.get(16..).unwrap_or(&[]);
            let mut attributes = Attributes(attributes);
            let address = attributes.find(|(kind, _)| *kind == libc::IFLA_ADDRESS);
            found = address.and_then(|(_, value)| value.try_into().ok());
        })?;
        Ok(found)
    }

    fn change(&mut self, mut message: Message) -> io::Result<()> {
        message.flag(libc::NLM_F_ACK as u16);
        self.dump(message, 0, |_| {})
    }

    /// Sends a request and reads its answers: `each` sees the body of every message of type
    /// `kind`, until the end of a dump or an acknowledgement.
    fn dump(&mut self, message: Message, kind: u16, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&message.finish(self.sequence))?;
        loop {
            let len = self.socket.read(&mut self.buffer)?;
            let mut rest = self.buffer.get(..len).unwrap_or(&[]);
            while let Some((header, body, behind)) = split_message(rest) {
                rest = behind;
                if header.sequence != self.sequence {
                    continue; // the answer to a request that timed out
                }
                match i32::from(header.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => return acknowledged(body),
                    _ if header.kind == kind => each(body),
                    _ => {}
                }
            }
        }
    }
}

/// Opens a socket that becomes readable whenever a link or an IPv6 address changes. What is
/// read from it need not be understood: it says "look again".
///
/// # Errors
/// What the kernel says.
pub fn watch() -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::RAW.cloexec().nonblocking(),
        Some(Protocol::from(libc::NETLINK_ROUTE)),
    )?;
    for group in [libc::RTNLGRP_LINK, libc::RTNLGRP_IPV6_IFADDR] {
        set_option(
            &socket,
            libc::SOL_NETLINK,
            libc::NETLINK_ADD_MEMBERSHIP,
            &group,
        )?;
    }
    Ok(socket)
}

/// Sets a socket option that no crate names.
pub(crate) fn set_option<T: Copy>(
    socket: &impl std::os::fd::AsRawFd,
    level: i32,
    name: i32,
    value: &T,
) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed; `value` points to `len`
    // initialized bytes that the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            len,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

impl Address {
    fn message(&self, kind: u16, flags: u16) -> Message {
        let mut message = Message::new(kind, flags);
        // struct ifaddrmsg: family, prefix length, flags, scope, index.
        message.bytes(&[
            libc::AF_INET6 as u8,
            self.prefix_bits,
            0,
            libc::RT_SCOPE_UNIVERSE,
        ]);
        message.bytes(&self.interface.to_ne_bytes());
        message.attribute(libc::IFA_ADDRESS, &self.address.octets());
        message
    }
}

impl Route {
    fn message(&self, kind: u16, flags: u16) -> Message {
        let route_type = match self.via {
            Via::Interface(_) => libc::RTN_UNICAST,
            Via::Unreachable => libc::RTN_UNREACHABLE,
        };
        let mut message = Message::new(kind, flags);
        // struct rtmsg: family, destination and source lengths, tos, table, protocol, scope,
        // type, flags.
        message.bytes(&[
            libc::AF_INET6 as u8,
            self.destination.bits(),
            0,
            0,
            libc::RT_TABLE_MAIN,
            OWN_PROTOCOL,
            libc::RT_SCOPE_UNIVERSE,
            route_type,
        ]);
        message.bytes(&[0; 4]);
        message.attribute(libc::RTA_DST, &self.destination.address().octets());
        message.attribute(libc::RTA_PRIORITY, &self.metric.to_ne_bytes());
        if let Via::Interface(index) = self.via {
            message.attribute(libc::RTA_OIF, &index.to_ne_bytes());
        }
        message
    }
}

fn address_and_owner(body: &[u8]) -> Option<(Address, bool)> {
    let (fixed, attributes) = body.split_at_checked(8)?;
    let mut address = None;
    let mut is_own = false;
    for (kind, value) in Attributes(attributes) {
        match kind {
            libc::IFA_ADDRESS => address = <[u8; 16]>::try_from(value).ok(),
            IFA_PROTO => is_own = value == [OWN_PROTOCOL],
            _ => {}
        }
    }
    let address = Address {
        interface: u32::from_ne_bytes(fixed[4..].try_into().ok()?),
        address: address?.into(),
        prefix_bits: fixed[1],
    };
    Some((address, is_own))
}

fn reachable_address(body: &[u8]) -> Option<(u32, IpAddr)> {
    let (fixed, attributes) = body.split_at_checked(8)?;
    let mut flags = u32::from(fixed[2]);
    let (mut address, mut local) = (None, None);
    for (kind, value) in Attributes(attributes) {
        match kind {
            libc::IFA_ADDRESS => address = ip_address(value),
            // The own end, where a link's address is the other's (IPv4 point to point).
            libc::IFA_LOCAL => local = ip_address(value),
            IFA_FLAGS => flags = value.try_into().map(u32::from_ne_bytes).ok()?,
            _ => {}
        }
    }
    // The same bit means "secondary" for IPv4, which is no flaw.
    let is_v6 = i32::from(fixed[0]) == libc::AF_INET6;
    let flaws = libc::IFA_F_TENTATIVE | libc::IFA_F_DEPRECATED | libc::IFA_F_DADFAILED;
    let flaws = if is_v6 {
        flaws | libc::IFA_F_TEMPORARY
    } else {
        0
    };
    if fixed[3] != libc::RT_SCOPE_UNIVERSE || flags & flaws != 0 {
        return None;
    }
    let interface = u32::from_ne_bytes(fixed[4..].try_into().ok()?);
    Some((interface, local.or(address)?))
}

fn ip_address(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from).ok();
    v4.or(<[u8; 16]>::try_from(value).map(IpAddr::from).ok())
}

fn own_route(body: &[u8]) -> Option<Route> {
    let (fixed, attributes) = body.split_at_checked(12)?;
    if fixed[4] != libc::RT_TABLE_MAIN || fixed[5] != OWN_PROTOCOL {
        return None;
    }
    let mut destination = [0; 16];
    let (mut metric, mut interface) = (0, None);
    for (kind, value) in Attributes(attributes) {
        let number = || value.try_into().map(u32::from_ne_bytes).ok();
        match kind {
            libc::RTA_DST => destination = value.try_into().ok()?,
            libc::RTA_PRIORITY => metric = number()?,
            libc::RTA_OIF => interface = number(),
            _ => {}
        }
    }
    let via = match fixed[7] {
        libc::RTN_UNICAST => Via::Interface(interface?),
        libc::RTN_UNREACHABLE => Via::Unreachable,
        _ => return None,
    };
    Some(Route {
        destination: Prefix::new(destination.into(), fixed[1]),
        via,
        metric,
    })
}

fn acknowledged(body: &[u8]) -> io::Result<()> {
    let code = body
        .first_chunk()
        .map_or(0, |code| i32::from_ne_bytes(*code));
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}

fn ignore(result: io::Result<()>, codes: &[i32]) -> io::Result<()> {
    match result {
        Err(e) if e.raw_os_error().is_some_and(|code| codes.contains(&code)) => Ok(()),
        other => other,
    }
}

struct Header {
    kind: u16,
    sequence: u32,
}

fn align(len: usize) -> usize {
    len.saturating_add(3) & !3
}

fn split_message(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let [l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, ..] = *header;
    let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
    let body = bytes.get(HEADER_BYTES..len)?;
    let behind = bytes.get(align(len)..).unwrap_or(&[]);
    let header = Header {
        kind: u16::from_ne_bytes([k0, k1]),
        sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
    };
    Some((header, body, behind))
}

struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [l0, l1, k0, k1] = *self.0.first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(align(len)..).unwrap_or(&[]);
        Some((u16::from_ne_bytes([k0, k1]), value))
    }
}

struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        Self(bytes)
    }

    fn flag(&mut self, flag: u16) {
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | flag;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let len = (value.len() + 4) as u16;
        self.bytes(&len.to_ne_bytes());
        self.bytes(&kind.to_ne_bytes());
        self.bytes(value);
        self.0.resize(align(self.0.len()), 0);
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn route() -> Route {
        Route {
            destination: Prefix::new("fd12:3456:789a::".parse().unwrap(), 48),
            via: Via::Interface(7),
            metric: 512,
        }
    }

    #[test]
    fn a_route_reads_back_from_its_message() {
        for route in [
            route(),
            Route {
                via: Via::Unreachable,
                ..route()
            },
        ] {
            let bytes = route.message(libc::RTM_NEWROUTE, 0).finish(3);
            let (header, body, behind) = split_message(&bytes).unwrap();
            assert_eq!((header.kind, header.sequence), (libc::RTM_NEWROUTE, 3));
            assert_eq!(own_route(body), Some(route));
            assert!(behind.is_empty());
        }
    }

    #[test]
    fn only_addresses_marked_as_ours_are_ours() {
        let address = Address {
            interface: 3,
            address: "fd00::1".parse().unwrap(),
            prefix_bits: 64,
        };
        let mut message = address.message(libc::RTM_NEWADDR, 0);
        let read = |message: &Message| address_and_owner(&message.0[HEADER_BYTES..]);
        assert_eq!(read(&message), Some((address, false)));
        message.attribute(IFA_PROTO, &[OWN_PROTOCOL]);
        assert_eq!(read(&message), Some((address, true)));
    }

    #[test]
    fn a_refusal_keeps_the_kernels_reason() {
        let refused = acknowledged(&(-libc::EPERM).to_ne_bytes()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!(acknowledged(&0i32.to_ne_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(bytes: Vec<u8>) {
            let mut rest = bytes.as_slice();
            while let Some((_, body, behind)) = split_message(rest) {
                let _ = (address_and_owner(body), own_route(body));
                prop_assert!(behind.len() < rest.len());
                rest = behind;
            }
            let _ = (address_and_owner(&bytes), own_route(&bytes), reachable_address(&bytes));
        }
    }
}
