//! Which zone a question belongs to and what that zone says.

use core::net::Ipv6Addr;

use altnet_wire::address::{NETWORK_PREFIX_BITS, Prefix};
use altnet_wire::id::{Name, NetworkId};

use super::message::{Labels, Query, Rcode, RecordType, Reply, Suffix, Written};
use super::{ZoneIndex, ZoneView};

/// The top-level name that is ours (RFC 9476).
const ALT: &str = "alt";
/// The host that answers for a network.
const NAME_SERVER: &str = "ns";
/// The zones under `ip6.arpa` whose names are never asked of others: `fd00::/8`
/// (RFC 6303 section 4.4).
const LOCAL_REVERSE_BITS: u8 = 8;
/// Labels of `ip6.arpa`.
const ARPA_LABELS: usize = 2;
/// Bits of a label under `ip6.arpa` (RFC 3596 section 2.5).
const NIBBLE_BITS: u8 = 4;
/// The class of the Internet, and of any class.
const CLASSES: [u16; 2] = [1, 255];

/// What became of a question.
pub(super) enum Resolved {
    /// A reply of this length; none if there was no room.
    Reply(Option<usize>),
    /// It isn't about us.
    Forward,
}

/// Answers from the zone that `query` is about.
pub(super) fn resolve(query: &Query<'_>, zones: &impl ZoneView, mut reply: Reply<'_>) -> Resolved {
    let labels = query.labels();
    let is_alt = is_label(&labels, 0, ALT);
    let reverse = reverse_prefix(&labels);
    let is_transaction = query.kind().is_transaction();
    if !is_alt && reverse.is_none() && !is_transaction {
        return Resolved::Forward;
    }
    if is_transaction || !CLASSES.contains(&query.class()) {
        return Resolved::Reply(reply.finish_with(Rcode::REFUSED));
    }
    reply.authoritative();
    let asked = Asked {
        kind: query.kind(),
        labels: &labels,
        zones,
    };
    Resolved::Reply(match reverse {
        None => asked.alt(reply),
        Some(Reverse::Prefix(prefix)) => asked.reverse(prefix, reply),
        Some(Reverse::NotAnAddress) => {
            asked.absent(&local_reverse_zone(&labels), Rcode::NXDOMAIN, reply)
        }
    })
}

/// Where a zone begins, and its SOA.
struct Zone {
    apex: Suffix,
    server: ServerName,
    serial: u32,
}

/// The name of a zone's server, which is also in its SOA.
enum ServerName {
    /// The zone itself (RFC 6303 section 3).
    Apex,
    /// `ns` in the zone.
    InZone,
    /// `ns.<petname>.alt`.
    Of(Name),
}

impl Zone {
    fn with_server<T>(&self, then: impl FnOnce(Written<'_>) -> T) -> T {
        match &self.server {
            ServerName::Apex => then(Written {
                labels: &[],
                suffix: Some(self.apex),
            }),
            ServerName::InZone => then(Written {
                labels: &[NAME_SERVER],
                suffix: Some(self.apex),
            }),
            ServerName::Of(petname) => then(Written {
                labels: &[NAME_SERVER, petname.as_str(), ALT],
                suffix: None,
            }),
        }
    }

    fn soa(&self, is_answer: bool, reply: &mut Reply<'_>) {
        self.with_server(|server| reply.start_of(self.apex, server, self.serial, is_answer));
    }
}

struct Asked<'a, Z> {
    kind: RecordType,
    labels: &'a Labels<'a>,
    zones: &'a Z,
}

impl<Z: ZoneView> Asked<'_, Z> {
    /// A name in `alt`.
    fn alt(&self, reply: Reply<'_>) -> Option<usize> {
        let alt = Zone {
            apex: self.labels.suffix(1),
            server: ServerName::Apex,
            serial: 1,
        };
        if self.labels.count() == 1 {
            return self.apex(&alt, reply);
        }
        let Some(index) = self.network() else {
            return self.absent(&alt, Rcode::NXDOMAIN, reply);
        };
        let zone = Zone {
            apex: self.labels.suffix(2),
            server: ServerName::InZone,
            serial: self.zones.serial(index),
        };
        match self.labels.count() {
            // RFC 4035 section 3.1.4.1: DS is the parent's to answer.
            2 if self.kind == RecordType::DS => self.absent(&alt, Rcode::NOERROR, reply),
            2 => self.apex(&zone, reply),
            3 => self.host(index, &zone, reply),
            _ => self.absent(&zone, Rcode::NXDOMAIN, reply),
        }
    }

    /// `<host>.<network>.alt`.
    fn host(&self, index: ZoneIndex, zone: &Zone, mut reply: Reply<'_>) -> Option<usize> {
        let Some(name) = self.labels.label(2).and_then(name_of) else {
            return self.absent(zone, Rcode::NXDOMAIN, reply);
        };
        let is_wanted = self.kind == RecordType::AAAA || self.kind == RecordType::ANY;
        let mut is_found = false;
        let mut found = |address| {
            is_found = true;
            if is_wanted {
                reply.address(address);
            }
        };
        // The zone's NS names its server, which so exists whoever is at home.
        let is_server = name.as_str() == NAME_SERVER;
        if is_server {
            self.zones.gateways(index, &mut found);
        } else {
            self.zones.addresses(index, &name, &mut found);
        }
        match is_found {
            true if is_wanted => reply.finish_with(Rcode::NOERROR),
            false if !is_server => self.absent(zone, Rcode::NXDOMAIN, reply),
            _ => self.absent(zone, Rcode::NOERROR, reply),
        }
    }

    /// A name in `d.f.ip6.arpa`, which stands for `prefix`.
    fn reverse(&self, prefix: Prefix, mut reply: Reply<'_>) -> Option<usize> {
        let index = if prefix.bits() >= NETWORK_PREFIX_BITS {
            self.zones.by_address(prefix.address())
        } else {
            None
        };
        let Some(index) = index else {
            let zone = local_reverse_zone(self.labels);
            return if prefix.bits() == LOCAL_REVERSE_BITS {
                self.apex(&zone, reply)
            } else if self.zones.has_below(prefix) {
                self.absent(&zone, Rcode::NOERROR, reply)
            } else {
                self.absent(&zone, Rcode::NXDOMAIN, reply)
            };
        };
        let petname = self.zones.petname(index);
        let zone = Zone {
            apex: reverse_suffix(self.labels, NETWORK_PREFIX_BITS),
            server: ServerName::Of(petname.clone()),
            serial: self.zones.serial(index),
        };
        if prefix.bits() == NETWORK_PREFIX_BITS {
            return if self.kind == RecordType::DS {
                let parent = local_reverse_zone(self.labels);
                self.absent(&parent, Rcode::NOERROR, reply)
            } else {
                self.apex(&zone, reply)
            };
        }
        if prefix.bits() < 128 {
            let rcode = if self.zones.has_below(prefix) {
                Rcode::NOERROR
            } else {
                Rcode::NXDOMAIN
            };
            return self.absent(&zone, rcode, reply);
        }
        let Some(name) = self.zones.name_at(index, prefix.address()) else {
            return self.absent(&zone, Rcode::NXDOMAIN, reply);
        };
        if self.kind != RecordType::PTR && self.kind != RecordType::ANY {
            return self.absent(&zone, Rcode::NOERROR, reply);
        }
        reply.pointer(Written {
            labels: &[name.as_str(), petname.as_str(), ALT],
            suffix: None,
        });
        reply.finish_with(Rcode::NOERROR)
    }

    /// The first name of `zone`.
    fn apex(&self, zone: &Zone, mut reply: Reply<'_>) -> Option<usize> {
        match self.kind {
            RecordType::SOA => zone.soa(true, &mut reply),
            RecordType::NS => zone.with_server(|server| reply.name_server(server)),
            RecordType::ANY => reply.nothing_to_any(),
            _ => return self.absent(zone, Rcode::NOERROR, reply),
        }
        reply.finish_with(Rcode::NOERROR)
    }

    /// Says that `zone` has no such name ([`Rcode::NXDOMAIN`]), or nothing of this type for it
    /// ([`Rcode::NOERROR`]), for as long as its SOA says (RFC 2308 section 3).
    fn absent(&self, zone: &Zone, rcode: Rcode, mut reply: Reply<'_>) -> Option<usize> {
        if self.kind == RecordType::ANY && rcode == Rcode::NOERROR {
            reply.nothing_to_any();
        } else {
            zone.soa(false, &mut reply);
        }
        reply.finish_with(rcode)
    }

    /// The network that the question's second label from the root names. The id comes
    /// first: no petname can stand in for it.
    fn network(&self) -> Option<ZoneIndex> {
        let label = self.labels.label(1)?;
        let text = core::str::from_utf8(label).ok()?;
        let by_id = text.parse::<NetworkId>().ok();
        by_id
            .and_then(|id| self.zones.by_id(&id))
            .or_else(|| self.zones.by_petname(&name_of(label)?))
    }
}

/// A label as a name, in lower case; nothing if it can't be one.
fn name_of(label: &[u8]) -> Option<Name> {
    let mut lower = [0u8; 63];
    let lower = lower.get_mut(..label.len())?;
    lower.copy_from_slice(label);
    lower.make_ascii_lowercase();
    Name::new(core::str::from_utf8(lower).ok()?).ok()
}

fn is_label(labels: &Labels<'_>, from_root: usize, text: &str) -> bool {
    labels
        .label(from_root)
        .is_some_and(|label| label.eq_ignore_ascii_case(text.as_bytes()))
}

/// A name in `d.f.ip6.arpa`.
enum Reverse {
    /// Every label is a nibble: the prefix they spell.
    Prefix(Prefix),
    /// Some label isn't, or there are more than an address has.
    NotAnAddress,
}

/// What a name under `ip6.arpa` spells, if it lies in `d.f.ip6.arpa`.
fn reverse_prefix(labels: &Labels<'_>) -> Option<Reverse> {
    if !is_label(labels, 0, "arpa") || !is_label(labels, 1, "ip6") {
        return None;
    }
    if !is_label(labels, 2, "f") || !is_label(labels, 3, "d") {
        return None;
    }
    let (mut address, mut bits) = (0u128, 0u8);
    for index in ARPA_LABELS..labels.count() {
        let nibble = match labels.label(index) {
            Some([digit]) => char::from(*digit).to_digit(16),
            _ => None,
        };
        let (Some(nibble), true) = (nibble, bits < 128) else {
            return Some(Reverse::NotAnAddress);
        };
        bits += NIBBLE_BITS;
        address |= u128::from(nibble) << (128 - u32::from(bits));
    }
    Some(Reverse::Prefix(Prefix::new(Ipv6Addr::from(address), bits)))
}

/// The part of a name under `ip6.arpa` that spells the first `bits` bits.
fn reverse_suffix(labels: &Labels<'_>, bits: u8) -> Suffix {
    labels.suffix(ARPA_LABELS + usize::from(bits / NIBBLE_BITS))
}

fn local_reverse_zone(labels: &Labels<'_>) -> Zone {
    Zone {
        apex: reverse_suffix(labels, LOCAL_REVERSE_BITS),
        server: ServerName::Apex,
        serial: 1,
    }
}
