//! Answers to DNS questions about `.alt` and our addresses, from records and without a heap.
//!
//! In: one DNS message and a [`ZoneView`] of the records in force. Out: an [`Answer`]: a
//! reply written, or the advice to ask onward, or to say nothing.
//!
//! | question | answer |
//! |---|---|
//! | `<host>.<network>.alt` | AAAA from records; `<network>` is a petname or a network id in base32 |
//! | `ns.<network>.alt` | AAAA: the gateways that answer |
//! | `<network>.alt`, `alt` | SOA, NS |
//! | addresses in a network's /48 under `ip6.arpa` | PTR from records |
//! | anything else in `alt` or `d.f.ip6.arpa` | NXDOMAIN, or no data if names lie below |
//! | everything else | [`Answer::Forward`] |
//!
//! Promises: `.alt` is never forwarded (RFC 9476), nor are the names of unique local
//! addresses (RFC 6303 section 4.4); the question comes back in the case it was asked in; a
//! reply is never longer than the asker can take; no bytes panic. A message that is itself a
//! reply is never answered.
//!
//! There is no DNSSEC here: the DO bit is copied (RFC 3225) and nothing is signed.

use core::net::Ipv6Addr;

use altnet_wire::address::Prefix;
use altnet_wire::id::{Name, NetworkId};

use message::{Query, Reply};
pub use message::{Rcode, RecordType};

pub mod message;
mod zone;

/// How long an answer may be kept, in seconds, and the same for the absence of a name
/// (RFC 2308 section 5): short, because a name changes as soon as a record does.
pub const TTL_S: u32 = 60;

/// The longest reply over UDP without EDNS, in bytes (RFC 1035 section 4.2.1).
pub const MIN_UDP_BYTES: usize = 512;

/// The longest reply over UDP with EDNS, in bytes: nothing larger gets through every
/// path unfragmented (DNS flag day 2020).
pub const MAX_UDP_BYTES: usize = 1232;

/// What carries the question, and so bounds the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// One datagram: 512 bytes, or what the asker says it can take, up to [`MAX_UDP_BYTES`].
    Udp,
    /// A stream: as long as the buffer for the reply. The two length bytes in front of a
    /// message (RFC 1035 section 4.2.2) are the driver's.
    Tcp,
}

/// What to do with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The reply was written: this many bytes.
    Reply(usize),
    /// It is not about us: ask whomever this home chose. If nobody can be asked,
    /// [`refuse_with`] writes the reply.
    Forward,
    /// Say nothing: the message is cut off before its header ends, or is itself a reply.
    Ignore,
}

/// A network, as the view numbers it. Means nothing after the records have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneIndex(pub u16);

/// What records say about names.
pub trait ZoneView {
    /// The network that this home calls `petname`.
    fn by_petname(&self, petname: &Name) -> Option<ZoneIndex>;

    /// The network with the id `id`.
    fn by_id(&self, id: &NetworkId) -> Option<ZoneIndex>;

    /// The network whose /48 `address` lies in.
    fn by_address(&self, address: Ipv6Addr) -> Option<ZoneIndex>;

    /// What this home calls the network `zone`.
    fn petname(&self, zone: ZoneIndex) -> Name;

    /// Grows whenever a name of the network `zone` changes: the SOA's serial.
    fn serial(&self, zone: ZoneIndex) -> u32;

    /// Names each address of the host or app `name` to `found`, in a fixed order. An unknown
    /// name has none.
    fn addresses(&self, zone: ZoneIndex, name: &Name, found: &mut dyn FnMut(Ipv6Addr));

    /// Names each address at which the network `zone` can be asked for names.
    fn gateways(&self, zone: ZoneIndex, found: &mut dyn FnMut(Ipv6Addr));

    /// The host or app at `address`.
    fn name_at(&self, zone: ZoneIndex, address: Ipv6Addr) -> Option<Name>;

    /// Whether a host or an app of any network lies in `prefix`, or `prefix` holds the whole
    /// /48 of a network.
    fn has_below(&self, prefix: Prefix) -> bool;
}

/// Answers the DNS message `query`, writing to `reply`.
///
/// `reply` should have [`MAX_UDP_BYTES`] for [`Carrier::Udp`]; a shorter one is a lower limit.
///
/// Source: RFC 1034 section 4.3.2, RFC 1035 section 4, RFC 2308 (absence), RFC 6891 (EDNS),
/// RFC 8482 (ANY), RFC 9476 (`.alt`), RFC 6303 (local zones).
pub fn answer(query: &[u8], zones: &impl ZoneView, carrier: Carrier, reply: &mut [u8]) -> Answer {
    let query = match Query::parse(query) {
        Ok(query) => query,
        Err(message::BadQuery::Ignore) => return Answer::Ignore,
        Err(message::BadQuery::Refuse(query, rcode)) => {
            return written(Reply::new(&query, carrier, reply).finish_with(rcode));
        }
    };
    let reply = Reply::new(&query, carrier, reply);
    match zone::resolve(&query, zones, reply) {
        zone::Resolved::Reply(length) => written(length),
        zone::Resolved::Forward => Answer::Forward,
    }
}

/// Writes a reply to `query` that holds nothing but `rcode`: [`Rcode::SERVFAIL`] for a question
/// that could not be forwarded, [`Rcode::REFUSED`] for one that may not be.
pub fn refuse_with(rcode: Rcode, query: &[u8], carrier: Carrier, reply: &mut [u8]) -> Answer {
    let query = match Query::parse(query) {
        Ok(query) | Err(message::BadQuery::Refuse(query, _)) => query,
        Err(message::BadQuery::Ignore) => return Answer::Ignore,
    };
    written(Reply::new(&query, carrier, reply).finish_with(rcode))
}

fn written(length: Option<usize>) -> Answer {
    length.map_or(Answer::Ignore, Answer::Reply)
}

#[cfg(test)]
mod tests;
