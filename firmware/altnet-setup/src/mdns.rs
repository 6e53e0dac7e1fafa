//! Answers by multicast DNS (RFC 6762, 6763): what the box is, and where.
//!
//! In: a datagram, and the addresses of the LAN now. Out: the datagram to answer with, if there is anything to say. Seven
//! records, no cache, no queries of its own. Their name follows from the box's key, so two boxes don't have the same one
//! and it isn't probed for (RFC 6762 section 8.1 exempts what is known to be unique).

use core::net::{Ipv4Addr, Ipv6Addr};

/// The largest query that is read. Larger ones are for many names, and come again in smaller pieces from who needs an answer.
pub const MAX_QUERY: usize = 1500;
/// The UDP port.
pub const PORT: u16 = 5353;
/// The IPv4 group.
pub const GROUP4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
/// The IPv6 group.
pub const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

const SERVICE: &[&str] = &["_altnet-setup", "_tcp", "local"];
const SERVICES: &[&str] = &["_services", "_dns-sd", "_udp", "local"];

const A: u16 = 1;
const PTR: u16 = 12;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const ANY: u16 = 255;
const IN: u16 = 1;
/// Of a class in a question: an answer to the asker alone is wanted. In an answer: all that is known otherwise is wrong.
const TOP_BIT: u16 = 0x8000;

/// Records with the box's name in them, in seconds (RFC 6762 section 10).
const TTL_HOST: u32 = 120;
const TTL_OTHER: u32 = 4500;
/// What a resolver that isn't one of multicast DNS may keep (RFC 6762 section 6.7).
const TTL_LEGACY: u32 = 10;
/// The most questions and known answers that are looked at.
const MAX_ENTRIES: u16 = 32;
const MAX_NAME: usize = 255;

/// What the box is called, and what is said of it.
#[derive(Clone, Debug)]
pub struct Names {
    /// One label: `altnet-` and the beginning of the fingerprint.
    pub label: String,
    /// The TCP port.
    pub port: u16,
    /// `key=value`, each 255 bytes at most.
    pub text: Vec<String>,
}

/// Where the box is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// On IPv4.
    pub v4: Option<Ipv4Addr>,
    /// On IPv6: the link-local one.
    pub v6: Option<Ipv6Addr>,
}

/// To whom an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The group.
    Group,
    /// Who asked.
    Asker,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// To whom.
    pub to: To,
    /// The datagram.
    pub bytes: Vec<u8>,
}

/// What a query asks of us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted {
    services: bool,
    pointer: bool,
    server: bool,
    text: bool,
    v4: bool,
    v6: bool,
}

impl Wanted {
    const fn is_nothing(self) -> bool {
        !(self.services || self.pointer || self.server || self.text || self.v4 || self.v6)
    }
}

/// How records are written.
#[derive(Clone, Copy)]
struct Style {
    is_legacy: bool,
    is_goodbye: bool,
}

impl Names {
    /// Answers a query. `is_legacy` says that it didn't come from port 5353: then the asker knows no multicast DNS, and gets an
    /// answer as from any server.
    pub fn answer(&self, query: &[u8], at: Addresses, is_legacy: bool) -> Option<Reply> {
        let asked = Query::read(query)?;
        let mut wanted = Wanted::default();
        let mut wants_unicast = true;
        for question in &asked.questions {
            let found = self.wanted(question);
            if !found.is_nothing() {
                wants_unicast &= question.class & TOP_BIT != 0;
                wanted = wanted.and(found);
            }
        }
        if asked.knows_pointer(self) {
            wanted.pointer = false;
        }
        if wanted.is_nothing() {
            return None;
        }
        let style = Style {
            is_legacy,
            is_goodbye: false,
        };
        let head = Head {
            id: if is_legacy { asked.id } else { 0 },
            questions: if is_legacy { &asked.questions } else { &[] },
        };
        let bytes = self.message(&head, wanted, at, style);
        let to = if is_legacy || wants_unicast {
            To::Asker
        } else {
            To::Group
        };
        Some(Reply { to, bytes })
    }

    /// What is said to the group unasked: at the beginning, and with a lifetime of zero at the end.
    pub fn announcement(&self, at: Addresses, is_goodbye: bool) -> Vec<u8> {
        let wanted = Wanted {
            pointer: true,
            ..Wanted::default()
        };
        let head = Head {
            id: 0,
            questions: &[],
        };
        self.message(
            &head,
            wanted,
            at,
            Style {
                is_legacy: false,
                is_goodbye,
            },
        )
    }

    fn wanted(&self, question: &Question) -> Wanted {
        let mut wanted = Wanted::default();
        if ![IN, ANY].contains(&(question.class & !TOP_BIT)) {
            return wanted;
        }
        let asks = |kind| question.kind == kind || question.kind == ANY;
        if is_name(&question.name, SERVICES) {
            wanted.services = asks(PTR);
        } else if is_name(&question.name, SERVICE) {
            wanted.pointer = asks(PTR);
        } else if is_name(&question.name, &self.instance()) {
            (wanted.server, wanted.text) = (asks(SRV), asks(TXT));
        } else if is_name(&question.name, &self.host()) {
            (wanted.v4, wanted.v6) = (asks(A), asks(AAAA));
        }
        wanted
    }

    fn instance(&self) -> Vec<&str> {
        [&[self.label.as_str()], SERVICE].concat()
    }

    fn host(&self) -> Vec<&str> {
        vec![&self.label, "local"]
    }

    fn message(&self, head: &Head<'_>, wanted: Wanted, at: Addresses, style: Style) -> Vec<u8> {
        let mut answers = Section::new(style);
        let mut more = Section::new(style);
        if wanted.services {
            answers.add(SERVICES, PTR, TTL_OTHER, false, &name(SERVICE));
        }
        if wanted.pointer {
            answers.add(SERVICE, PTR, TTL_OTHER, false, &name(&self.instance()));
        }
        // Whoever wants one of these wants the others next (RFC 6763 section 12).
        let (server, text) = (
            wanted.server || wanted.pointer,
            wanted.text || wanted.pointer,
        );
        if server {
            let section = if wanted.server {
                &mut answers
            } else {
                &mut more
            };
            let data = [
                &[0, 0, 0, 0],
                &self.port.to_be_bytes()[..],
                &name(&self.host()),
            ]
            .concat();
            section.add(&self.instance(), SRV, TTL_HOST, true, &data);
        }
        if text {
            let section = if wanted.text { &mut answers } else { &mut more };
            let mut data = Vec::with_capacity(256);
            for pair in &self.text {
                let pair = &pair.as_bytes()[..pair.len().min(255)];
                data.push(pair.len() as u8);
                data.extend(pair);
            }
            section.add(&self.instance(), TXT, TTL_OTHER, true, &data);
        }
        let v4 = at.v4.filter(|_| server || wanted.v4);
        let v6 = at.v6.filter(|_| server || wanted.v6);
        if let Some(address) = v4 {
            let section = if wanted.v4 { &mut answers } else { &mut more };
            section.add(&self.host(), A, TTL_HOST, true, &address.octets());
        }
        if let Some(address) = v6 {
            let section = if wanted.v6 { &mut answers } else { &mut more };
            section.add(&self.host(), AAAA, TTL_HOST, true, &address.octets());
        }
        let mut bytes = Vec::with_capacity(512);
        // A response, and authoritative.
        for number in [
            head.id,
            0x8400,
            head.questions.len() as u16,
            answers.count,
            0,
            more.count,
        ] {
            bytes.extend(number.to_be_bytes());
        }
        for question in head.questions {
            bytes.extend(&question.name);
            bytes.extend(question.kind.to_be_bytes());
            bytes.extend(question.class.to_be_bytes());
        }
        bytes.extend(answers.bytes);
        bytes.extend(more.bytes);
        bytes
    }
}

impl Wanted {
    const fn and(self, other: Self) -> Self {
        Self {
            services: self.services || other.services,
            pointer: self.pointer || other.pointer,
            server: self.server || other.server,
            text: self.text || other.text,
            v4: self.v4 || other.v4,
            v6: self.v6 || other.v6,
        }
    }
}

struct Head<'a> {
    id: u16,
    questions: &'a [Question],
}

/// Records of one section. Names are written out, since all of it fits into one packet.
struct Section {
    style: Style,
    count: u16,
    bytes: Vec<u8>,
}

impl Section {
    const fn new(style: Style) -> Self {
        Self {
            style,
            count: 0,
            bytes: Vec::new(),
        }
    }

    fn add(&mut self, owner: &[&str], kind: u16, ttl: u32, is_unique: bool, data: &[u8]) {
        let ttl = match self.style {
            Style {
                is_goodbye: true, ..
            } => 0,
            Style {
                is_legacy: true, ..
            } => ttl.min(TTL_LEGACY),
            _ => ttl,
        };
        let class = if is_unique && !self.style.is_legacy {
            IN | TOP_BIT
        } else {
            IN
        };
        self.bytes.extend(name(owner));
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend(class.to_be_bytes());
        self.bytes.extend(ttl.to_be_bytes());
        self.bytes.extend((data.len() as u16).to_be_bytes());
        self.bytes.extend(data);
        self.count += 1;
    }
}

/// A name as it is on the wire.
fn name(labels: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    for label in labels {
        let label = &label.as_bytes()[..label.len().min(63)];
        bytes.push(label.len() as u8);
        bytes.extend(label);
    }
    bytes.push(0);
    bytes
}

/// Whether a name on the wire is this one, in whatever case.
fn is_name(wire: &[u8], labels: &[&str]) -> bool {
    wire.eq_ignore_ascii_case(&name(labels))
}

struct Question {
    /// Without pointers.
    name: Vec<u8>,
    kind: u16,
    class: u16,
}

struct Query {
    id: u16,
    questions: Vec<Question>,
    /// The targets of pointers to our kind of service that the asker knows, and how long they are good.
    known: Vec<(Vec<u8>, u32)>,
}

impl Query {
    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_QUERY {
            return None;
        }
        let mut reader = Reader { bytes, at: 0 };
        let (id, flags) = (reader.number()?, reader.number()?);
        let (questions, answers) = (reader.number()?, reader.number()?);
        reader.number()?;
        reader.number()?;
        // A response, or no ordinary query: not for us.
        if flags & 0xf800 != 0 || questions > MAX_ENTRIES || answers > MAX_ENTRIES {
            return None;
        }
        let mut query = Self {
            id,
            questions: Vec::new(),
            known: Vec::new(),
        };
        for _ in 0..questions {
            let (name, kind, class) = (reader.name()?, reader.number()?, reader.number()?);
            query.questions.push(Question { name, kind, class });
        }
        for _ in 0..answers {
            let owner = reader.name()?;
            let (kind, _class) = (reader.number()?, reader.number()?);
            let ttl = u32::from(reader.number()?) << 16 | u32::from(reader.number()?);
            let length = usize::from(reader.number()?);
            let end = reader
                .at
                .checked_add(length)
                .filter(|end| *end <= bytes.len())?;
            if kind == PTR && is_name(&owner, SERVICE) {
                query.known.push((reader.name()?, ttl));
            }
            reader.at = end;
        }
        Some(query)
    }

    /// Whether the asker knows our pointer for long enough (RFC 6762 section 7.1).
    fn knows_pointer(&self, names: &Names) -> bool {
        let instance = names.instance();
        let mut known = self.known.iter();
        known.any(|(target, ttl)| is_name(target, &instance) && *ttl >= TTL_OTHER / 2)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn number(&mut self) -> Option<u16> {
        let bytes = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += 2;
        Some(u16::from_be_bytes(*bytes))
    }

    /// A name with its pointers followed (RFC 1035 section 4.1.4). Each has to point further back than the one before, so
    /// that following them ends.
    fn name(&mut self) -> Option<Vec<u8>> {
        let mut name = Vec::with_capacity(64);
        let (mut at, mut before, mut end) = (self.at, self.at, None);
        loop {
            let length = *self.bytes.get(at)?;
            match length >> 6 {
                0 => {
                    let next = at + 1 + usize::from(length);
                    name.extend(self.bytes.get(at..next)?);
                    if name.len() > MAX_NAME {
                        return None;
                    }
                    at = next;
                    if length == 0 {
                        self.at = end.unwrap_or(at);
                        return Some(name);
                    }
                }
                3 => {
                    let low = *self.bytes.get(at + 1)?;
                    end.get_or_insert(at + 2);
                    let to = usize::from(length & 0x3f) << 8 | usize::from(low);
                    if to >= before {
                        return None;
                    }
                    (at, before) = (to, to);
                }
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests;
