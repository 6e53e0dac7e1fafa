//! DNS messages: one question read, one reply written. No heap, no compression followed.

use core::net::Ipv6Addr;

use super::{Carrier, MAX_UDP_BYTES, MIN_UDP_BYTES, TTL_S};

/// Bytes of a message's header (RFC 1035 section 4.1.1).
const HEADER_BYTES: usize = 12;
/// The longest name on the wire in bytes (RFC 1035 section 2.3.4).
const MAX_NAME_BYTES: usize = 255;
/// The most labels that fit in a name, the root not counted.
const MAX_LABELS: usize = 127;
/// An OPT record without options (RFC 6891 section 6.1.2).
const OPT_BYTES: usize = 11;

const QR: u16 = 0x8000;
const AA: u16 = 0x0400;
const TC: u16 = 0x0200;
const RD: u16 = 0x0100;
const RA: u16 = 0x0080;
const CD: u16 = 0x0010;
const OPCODE_SHIFT: u16 = 11;

/// A response code, its upper bits in the OPT record (RFC 6891 section 6.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rcode(u16);

impl Rcode {
    /// No error.
    pub const NOERROR: Self = Self(0);
    /// The message could not be read.
    pub const FORMERR: Self = Self(1);
    /// Nobody could be asked.
    pub const SERVFAIL: Self = Self(2);
    /// There is no such name.
    pub const NXDOMAIN: Self = Self(3);
    /// Not a query.
    pub const NOTIMP: Self = Self(4);
    /// Not answered here.
    pub const REFUSED: Self = Self(5);
    /// A version of EDNS that is not spoken here.
    pub const BADVERS: Self = Self(16);
}

/// The type of a record or a question (IANA "Resource Record (RR) TYPEs").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordType(pub u16);

impl RecordType {
    /// A name server.
    pub const NS: Self = Self(2);
    /// The start of a zone.
    pub const SOA: Self = Self(6);
    /// The name of an address.
    pub const PTR: Self = Self(12);
    /// What answers ANY (RFC 8482).
    pub const HINFO: Self = Self(13);
    /// An IPv6 address.
    pub const AAAA: Self = Self(28);
    /// EDNS.
    pub const OPT: Self = Self(41);
    /// A delegation's signer: asked of the parent zone.
    pub const DS: Self = Self(43);
    /// Anything there is.
    pub const ANY: Self = Self(255);

    /// Whether it asks for a transfer or for a type that only transactions use.
    pub(super) const fn is_transaction(self) -> bool {
        self.0 >= 249 && self.0 <= 254
    }
}

/// EDNS, as the asker speaks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edns {
    udp_bytes: u16,
    version: u8,
    is_dnssec_ok: bool,
}

/// A query with one question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<'a> {
    id: u16,
    flags: u16,
    /// The question as it was asked: name, type, class. Empty if it could not be read.
    question: &'a [u8],
    kind: RecordType,
    class: u16,
    edns: Option<Edns>,
}

/// A message that is not a query.
#[derive(Clone, Copy, Debug)]
pub(super) enum BadQuery<'a> {
    /// Not to be answered at all.
    Ignore,
    /// To be answered with this code.
    Refuse(Query<'a>, Rcode),
}

impl<'a> Query<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, BadQuery<'a>> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(BadQuery::Ignore)?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let mut query = Self {
            id: word(0),
            flags: word(2),
            question: &[],
            kind: RecordType(0),
            class: 0,
            edns: None,
        };
        if query.flags & QR != 0 {
            return Err(BadQuery::Ignore);
        }
        if (query.flags >> OPCODE_SHIFT) & 0xf != 0 {
            return Err(BadQuery::Refuse(query, Rcode::NOTIMP));
        }
        if word(4) != 1 {
            return Err(BadQuery::Refuse(query, Rcode::FORMERR));
        }
        let rest = bytes.get(HEADER_BYTES..).unwrap_or(&[]);
        let damaged = BadQuery::Refuse(query, Rcode::FORMERR);
        let name = plain_name_length(rest).ok_or(damaged)?;
        let (question, mut rest) = rest.split_at_checked(name + 4).ok_or(damaged)?;
        query.question = question;
        if let Some([k0, k1, c0, c1]) = question.last_chunk() {
            query.kind = RecordType(u16::from_be_bytes([*k0, *k1]));
            query.class = u16::from_be_bytes([*c0, *c1]);
        }
        let damaged = BadQuery::Refuse(query, Rcode::FORMERR);
        if query.kind == RecordType::OPT {
            return Err(damaged);
        }
        let before = u32::from(word(6)) + u32::from(word(8));
        for index in 0..before + u32::from(word(10)) {
            let (record, behind) = Record::parse(rest).ok_or(damaged)?;
            rest = behind;
            if record.kind != RecordType::OPT {
                continue;
            }
            // RFC 6891 section 6.1.1: one at most, with the root as its name, in the last section.
            if index < before || query.edns.is_some() || !record.is_root {
                return Err(damaged);
            }
            query.edns = Some(Edns {
                udp_bytes: record.class,
                version: record.ttl.to_be_bytes()[1],
                is_dnssec_ok: record.ttl & 0x8000 != 0,
            });
        }
        match query.edns {
            Some(edns) if edns.version > 0 => Err(BadQuery::Refuse(query, Rcode::BADVERS)),
            _ => Ok(query),
        }
    }

    pub(super) const fn kind(&self) -> RecordType {
        self.kind
    }

    pub(super) const fn class(&self) -> u16 {
        self.class
    }

    /// The labels of the question's name.
    pub(super) fn labels(&self) -> Labels<'a> {
        Labels::of(self.question)
    }
}

/// A name cut into labels, from the host to the root.
#[derive(Clone, Copy)]
pub(super) struct Labels<'a> {
    name: &'a [u8],
    /// Where each label's length byte is in the name.
    offsets: [u8; MAX_LABELS],
    count: usize,
}

impl<'a> Labels<'a> {
    fn of(name: &'a [u8]) -> Self {
        let mut labels = Self {
            name,
            offsets: [0; MAX_LABELS],
            count: 0,
        };
        let mut at = 0u8;
        while let Some(length) = name.get(usize::from(at)).filter(|length| **length != 0) {
            let Some(place) = labels.offsets.get_mut(labels.count) else {
                break;
            };
            *place = at;
            labels.count += 1;
            let Some(next) = at.checked_add(1).and_then(|at| at.checked_add(*length)) else {
                break;
            };
            at = next;
        }
        labels
    }

    /// How many, the root not counted.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// The label `index` places before the root: 0 is the top-level one.
    pub(super) fn label(&self, index: usize) -> Option<&'a [u8]> {
        let at = usize::from(self.offset_from_root(index)?);
        let length = usize::from(*self.name.get(at)?);
        self.name.get(at + 1..at + 1 + length)
    }

    /// Where in the question's name its last `count` labels begin, in bytes.
    pub(super) fn suffix(&self, count: usize) -> Suffix {
        let at = count
            .checked_sub(1)
            .and_then(|index| self.offset_from_root(index));
        Suffix(at.unwrap_or(0))
    }

    fn offset_from_root(&self, index: usize) -> Option<u8> {
        let place = self.count.checked_sub(index.checked_add(1)?)?;
        self.offsets.get(place).copied()
    }
}

/// The end of the question's name, from this byte of the name on. Written as a pointer, it
/// keeps the case that was asked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suffix(u8);

/// A name to write: some labels, then perhaps the end of the question's name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written<'a> {
    pub(super) labels: &'a [&'a str],
    pub(super) suffix: Option<Suffix>,
}

/// What is written of a record outside the question.
struct Record {
    kind: RecordType,
    class: u16,
    ttl: u32,
    is_root: bool,
}

impl Record {
    /// Reads a record at the front of `bytes`, and returns what is behind it.
    fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let name = name_length(bytes)?;
        let fixed: &[u8; 10] = bytes.get(name..)?.first_chunk()?;
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let record = Self {
            kind: RecordType(u16::from_be_bytes([fixed[0], fixed[1]])),
            class: u16::from_be_bytes([fixed[2], fixed[3]]),
            ttl: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            is_root: name == 1,
        };
        Some((record, bytes.get(name + 10 + length..)?))
    }
}

/// The length of the uncompressed name at the front of `bytes`.
fn plain_name_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0usize;
    loop {
        match *bytes.get(at)? {
            0 => break,
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
        if at >= MAX_NAME_BYTES {
            return None;
        }
    }
    Some(at + 1)
}

/// The length of the name at the front of `bytes`, which may end in a pointer that is not
/// followed (RFC 1035 section 4.1.4).
fn name_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0usize;
    while at < MAX_NAME_BYTES {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return bytes.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
    None
}

/// A reply being written. What does not fit is left out and the reply says that it is cut off.
pub(super) struct Reply<'b> {
    buffer: &'b mut [u8],
    /// Where the next record begins.
    end: usize,
    /// Where the question ends.
    question_end: usize,
    limit: usize,
    answers: u16,
    authorities: u16,
    is_cut: bool,
    is_authoritative: bool,
    id: u16,
    flags: u16,
    edns: Option<Edns>,
}

impl<'b> Reply<'b> {
    pub(super) fn new(query: &Query<'_>, carrier: Carrier, buffer: &'b mut [u8]) -> Self {
        let most = match carrier {
            Carrier::Udp => query.edns.map_or(MIN_UDP_BYTES, |edns| {
                usize::from(edns.udp_bytes).clamp(MIN_UDP_BYTES, MAX_UDP_BYTES)
            }),
            Carrier::Tcp => usize::from(u16::MAX),
        };
        let size = most.min(buffer.len());
        let opt = if query.edns.is_some() { OPT_BYTES } else { 0 };
        let mut reply = Self {
            buffer,
            end: HEADER_BYTES,
            question_end: HEADER_BYTES,
            limit: size.saturating_sub(opt),
            answers: 0,
            authorities: 0,
            is_cut: false,
            is_authoritative: false,
            id: query.id,
            flags: query.flags,
            edns: query.edns,
        };
        reply.put(query.question);
        reply.question_end = reply.end;
        reply
    }

    /// Says that the answer is ours to give.
    pub(super) fn authoritative(&mut self) {
        self.is_authoritative = true;
    }

    /// Adds an AAAA record for the question's name.
    pub(super) fn address(&mut self, address: Ipv6Addr) {
        self.answer(RecordType::AAAA, |reply| reply.put(&address.octets()));
    }

    /// Adds a PTR record for the question's name.
    pub(super) fn pointer(&mut self, name: Written<'_>) {
        self.answer(RecordType::PTR, |reply| reply.put_name(name));
    }

    /// Adds an NS record for the question's name.
    pub(super) fn name_server(&mut self, server: Written<'_>) {
        self.answer(RecordType::NS, |reply| reply.put_name(server));
    }

    /// Adds the answer to ANY where there is nothing to give (RFC 8482 section 4.2).
    pub(super) fn nothing_to_any(&mut self) {
        self.answer(RecordType::HINFO, |reply| reply.put(b"\x07RFC8482\x00"));
    }

    /// Adds the SOA of `zone` to the answers, or to the authorities for something absent.
    pub(super) fn start_of(
        &mut self,
        zone: Suffix,
        server: Written<'_>,
        serial: u32,
        is_answer: bool,
    ) {
        // Refresh, retry and expire of RFC 6303 section 3; nobody transfers this zone.
        const TIMES: [u32; 4] = [3600, 1200, 604_800, TTL_S];
        let owner = Written {
            labels: &[],
            suffix: Some(zone),
        };
        let is_added = self.record(owner, RecordType::SOA, |reply| {
            reply.put_name(server)
                && reply.put_name(Written {
                    labels: &["nobody", "invalid"],
                    suffix: None,
                })
                && reply.put(&serial.to_be_bytes())
                && TIMES.iter().all(|time| reply.put(&time.to_be_bytes()))
        });
        match is_added {
            true if is_answer => self.answers += 1,
            true => self.authorities += 1,
            false => {}
        }
    }

    /// Ends the reply: its length, or nothing if there is no room for a header.
    pub(super) fn finish_with(mut self, rcode: Rcode) -> Option<usize> {
        if self.is_cut {
            // RFC 2181 section 9: what is left of a set that doesn't fit is of no use.
            self.end = self.question_end;
            self.answers = 0;
            self.authorities = 0;
        }
        let questions = u16::from(self.question_end > HEADER_BYTES);
        if let Some(edns) = self.edns {
            self.limit = self.limit.saturating_add(OPT_BYTES);
            let [kind_0, kind_1] = RecordType::OPT.0.to_be_bytes();
            let [size_0, size_1] = (MAX_UDP_BYTES as u16).to_be_bytes();
            let upper = (rcode.0 >> 4) as u8;
            let dnssec = if edns.is_dnssec_ok { 0x80 } else { 0 };
            // Root, type, size, upper bits of the code, version 0, flags, no options.
            let opt = [0, kind_0, kind_1, size_0, size_1, upper, 0, dnssec, 0, 0, 0];
            if !self.put(&opt) {
                self.edns = None;
            }
        }
        let mut flags = QR | RA | (self.flags & (RD | CD | 0x7800)) | (rcode.0 & 0xf);
        if self.is_cut {
            flags |= TC;
        }
        if self.is_authoritative {
            flags |= AA;
        }
        let words = [
            self.id,
            flags,
            questions,
            self.answers,
            self.authorities,
            u16::from(self.edns.is_some()),
        ];
        let header: &mut [u8; HEADER_BYTES] = self.buffer.first_chunk_mut()?;
        for (to, word) in header.chunks_exact_mut(2).zip(words) {
            to.copy_from_slice(&word.to_be_bytes());
        }
        Some(self.end)
    }

    fn answer(&mut self, kind: RecordType, data: impl FnOnce(&mut Self) -> bool) {
        let owner = Written {
            labels: &[],
            suffix: Some(Suffix(0)),
        };
        if self.record(owner, kind, data) {
            self.answers += 1;
        }
    }

    /// Adds a record whole or not at all.
    fn record(
        &mut self,
        owner: Written<'_>,
        kind: RecordType,
        data: impl FnOnce(&mut Self) -> bool,
    ) -> bool {
        const CLASS_IN: u16 = 1;
        let start = self.end;
        let is_begun = !self.is_cut
            && self.put_name(owner)
            && self.put(&kind.0.to_be_bytes())
            && self.put(&CLASS_IN.to_be_bytes())
            && self.put(&TTL_S.to_be_bytes());
        let length_at = self.end;
        let is_whole = is_begun && self.put(&[0, 0]) && data(self);
        if !is_whole {
            self.end = start;
            self.is_cut = true;
            return false;
        }
        // What was put is shorter than the limit, which is a u16.
        let length = (self.end - length_at - 2) as u16;
        if let Some(place) = self.buffer.get_mut(length_at..length_at + 2) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        true
    }

    fn put_name(&mut self, name: Written<'_>) -> bool {
        for label in name.labels {
            // Labels are `Name`s or our own words: 63 bytes at most.
            if !(self.put(&[label.len().min(63) as u8]) && self.put(label.as_bytes())) {
                return false;
            }
        }
        match name.suffix {
            Some(Suffix(at)) => {
                let pointer = 0xc000 | (HEADER_BYTES as u16 + u16::from(at));
                self.put(&pointer.to_be_bytes())
            }
            None => self.put(&[0]),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> bool {
        let end = self.end.saturating_add(bytes.len());
        if end > self.limit {
            return false;
        }
        let Some(place) = self.buffer.get_mut(self.end..end) else {
            return false;
        };
        place.copy_from_slice(bytes);
        self.end = end;
        true
    }
}
