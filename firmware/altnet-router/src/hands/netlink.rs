//! Requests to the kernel over NETLINK_ROUTE, one at a time.
//!
//! The messages are `netlink_packet_route`'s; here is the socket alone: it sends one request and reads
//! its answers. The kernel answers within the call, so nothing is awaited.
//!
//! Source: netlink(7), rtnetlink(7).

use std::io::{self, Read as _};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::net::netlink::SocketAddrNetlink;
use socket2::{Domain, Protocol, Socket, Type};

const BUFFER_BYTES: usize = 64 * 1024;
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a list is asked for again that changed while it was read.
const MAX_TRIES: usize = 4;
/// Of struct nlmsghdr (netlink(7)).
const HEADER_BYTES: usize = 16;

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

    /// Asks for a change, with flags beside those of any request (`NLM_F_CREATE` and the like).
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(message, flags | NLM_F_ACK, |_| {}).map(drop)
    }

    /// Asks for a list.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn list(&mut self, message: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut found = Vec::new();
        for _ in 0..MAX_TRIES {
            found.clear();
            let is_whole = self.ask(message.clone(), NLM_F_DUMP, |one| found.push(one))?;
            if is_whole {
                break;
            }
        }
        // One that never stands still is better than none: what is missed is seen at the next look.
        Ok(found)
    }

    /// Sends a request and hands each answer on. Returns whether nothing changed meanwhile.
    fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes)?;
        let mut is_whole = true;
        loop {
            let len = self.socket.read(&mut self.buffer)?;
            let mut rest = self.buffer.get(..len).unwrap_or(&[]);
            while let Some((one, behind)) = split(rest) {
                rest = behind;
                let answer = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(one) {
                    Ok(answer) => answer,
                    Err(e) => {
                        // A kind of link that the crate misreads is none of ours.
                        altnet_service::debug!("an answer of the kernel is passed over: {e}");
                        continue;
                    }
                };
                if answer.header.sequence_number != self.sequence {
                    continue; // the answer to a request that timed out
                }
                is_whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(is_whole),
                    NetlinkPayload::Error(said) => {
                        return match said.raw_code() {
                            0 => Ok(is_whole),
                            code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                        };
                    }
                    NetlinkPayload::InnerMessage(inner) => each(inner),
                    _ => {}
                }
            }
        }
    }
}

/// The first message of `bytes`, and what is behind it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = u32::from_ne_bytes(*bytes.first_chunk()?);
    let len = usize::try_from(len).ok()?;
    let one = bytes.get(..len).filter(|one| one.len() >= HEADER_BYTES)?;
    let behind = len.saturating_add(3) & !3;
    Some((one, bytes.get(behind..).unwrap_or(&[])))
}

/// Reads each message of a datagram of the kernel's.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = RouteNetlinkMessage> {
    let mut rest = datagram;
    let each = std::iter::from_fn(move || {
        let (one, behind) = split(rest)?;
        rest = behind;
        Some(NetlinkMessage::<RouteNetlinkMessage>::deserialize(one))
    });
    each.filter_map(|message| match message.ok()?.payload {
        NetlinkPayload::InnerMessage(inner) => Some(inner),
        _ => None,
    })
}

/// Opens a socket that becomes readable whenever a link, an address, a route or a rule of the routing policy changes.
///
/// # Errors
/// What the kernel says.
pub fn watch() -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::RAW.cloexec().nonblocking(),
        Some(Protocol::from(libc::NETLINK_ROUTE)),
    )?;
    let groups = [
        libc::RTNLGRP_LINK,
        libc::RTNLGRP_IPV4_IFADDR,
        libc::RTNLGRP_IPV6_IFADDR,
        libc::RTNLGRP_IPV4_ROUTE,
        libc::RTNLGRP_IPV6_ROUTE,
        libc::RTNLGRP_IPV4_RULE,
        libc::RTNLGRP_IPV6_RULE,
    ];
    let groups = groups.iter().fold(0, |all, group| all | 1 << (group - 1));
    let address = SocketAddrNetlink::new(0, groups);
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(bytes: Vec<u8>) {
            let _ = messages(&bytes).count();
            let mut rest = bytes.as_slice();
            while let Some((one, behind)) = split(rest) {
                let _ = NetlinkMessage::<RouteNetlinkMessage>::deserialize(one);
                prop_assert!(behind.len() < rest.len());
                rest = behind;
            }
        }
    }
}
