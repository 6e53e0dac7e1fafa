//! Who may reach what, as an issuer signs it: the body of [`RecordKind::POLICY`], version 2. Version 1
//! ended before [`Policy::vouchers`] and is still read.
//!
//! A policy only allows: what no rule names is refused, and the order of rules decides nothing but
//! which of several is called by name. Rules speak of [`Atom`]s by their place in one sorted table,
//! and every list is a run of postcard values read in place ([`Run`]), so that a policy of 16 KiB
//! takes no memory to read.
//!
//! People and groups are names that issuers give; devices are member ids, because a newcomer may
//! choose its own name; hosts are a name and the site whose gateway answers for it; apps are a name
//! and the member that runs it. So nobody comes under a rule by calling itself something.

mod check;

use core::fmt;
use core::marker::PhantomData;

use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

use crate::canonical::{self, NotCanonical};
use crate::envelope::RecordKind;
use crate::id::{MemberId, Name, SiteId};
use crate::record::Body;
use crate::time::UnixTime;

/// Most atoms in a policy.
pub const MAX_ATOMS: usize = 2048;
/// Most rules in a policy.
pub const MAX_RULES: usize = 2048;
/// Most windows in a policy.
pub const MAX_WINDOWS: usize = 32;
/// Most spans in a window.
pub const MAX_SPANS: usize = 4;
/// Most combinations of source, target and service that all rules name together.
pub const MAX_ROWS: usize = 16_384;
/// Most vouchers in a policy.
pub const MAX_VOUCHERS: usize = 1024;
/// Most lines about sponsors in a policy.
pub const MAX_SPONSORS: usize = 64;
/// The longest pattern in bytes.
pub const MAX_PATTERN_BYTES: usize = 63;
/// Minutes in a day.
pub const DAY_MINUTES: u16 = 24 * 60;

/// Values one after the other in postcard's form, read in place.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Run<'a, T> {
    #[serde(borrow)]
    bytes: &'a [u8],
    #[serde(skip)]
    of: PhantomData<T>,
}

// Whatever the values are: they are read anew each time.
impl<T> Clone for Run<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Run<'_, T> {}

impl<'a, T> Run<'a, T> {
    /// A run of these bytes; what they hold is found out when it is read.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            of: PhantomData,
        }
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether it holds nothing.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl<'a, T: Serialize + Deserialize<'a>> Run<'a, T> {
    /// The values. The last is an error if the rest is damaged or not in canonical form.
    pub fn iter(&self) -> impl Iterator<Item = Result<T, NotCanonical>> + use<'a, T> {
        let mut left = self.bytes;
        core::iter::from_fn(move || {
            if left.is_empty() {
                return None;
            }
            let taken = canonical::take(left);
            left = taken.as_ref().map_or(&[], |(_, rest)| *rest);
            Some(taken.map(|(value, _)| value))
        })
    }

    /// The values of a run that was checked: those before the first fault.
    pub fn values(&self) -> impl Iterator<Item = T> + use<'a, T> {
        self.iter().map_while(Result::ok)
    }
}

/// A name with at most one `*`, which stands for any letters: `media-*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pattern(String<MAX_PATTERN_BYTES>);

impl Pattern {
    /// Reads a pattern of the letters a name may have (RFC 1035 section 2.3.1, lower case).
    pub fn new(text: &str) -> Option<Self> {
        let pattern = Self(String::try_from(text).ok()?);
        pattern.is_valid().then_some(pattern)
    }

    pub(super) fn is_valid(&self) -> bool {
        let stars = self.0.bytes().filter(|byte| *byte == b'*').count();
        let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-*".contains(&b);
        !self.0.is_empty() && stars <= 1 && self.0.bytes().all(is_letter)
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `name` is one that it stands for.
    pub fn fits(&self, name: &Name) -> bool {
        let name = name.as_str();
        match self.0.split_once('*') {
            None => self.0.as_str() == name,
            Some((before, after)) => {
                name.len() >= before.len() + after.len()
                    && name.starts_with(before)
                    && name.ends_with(after)
            }
        }
    }
}

/// Whom or what a rule speaks of: as a source who begins a flow, as a target with whom. New kinds
/// are added at the end only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Atom {
    /// Every member's device and every machine behind a member that is a gateway, except those
    /// of a profile that is exclusive. Only a source.
    Members,
    /// The devices of a person.
    Person(Name),
    /// What is in a group, by its membership or by [`Policy::groups`].
    Group(Name),
    /// A member's own addresses: of a gateway the router itself, not what is behind it.
    Device(MemberId),
    /// The machines on a site's LAN, named or not; not its router.
    Site(SiteId),
    /// A named machine on a site's LAN.
    Host(SiteId, Name),
    /// An app of a member.
    App(MemberId, Name),
    /// Every named machine. Only a target.
    Hosts,
    /// Every app. Only a target.
    Apps,
    /// Everything that the network has, routers too. Only a target.
    Anything,
    /// Every named machine and app whose name fits. Only a target: a gateway calls its machines
    /// as it likes.
    Named(Pattern),
}

impl Atom {
    /// Whether it can't be a source.
    pub(super) const fn is_only_target(&self) -> bool {
        matches!(
            self,
            Self::Hosts | Self::Apps | Self::Anything | Self::Named(_)
        )
    }
}

/// An upper-layer protocol and its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Service {
    /// The protocol's number (IANA); none is every protocol.
    pub protocol: Option<u8>,
    /// The first port; 0 where a protocol has none.
    pub first_port: u16,
    /// The last port.
    pub last_port: u16,
}

impl Service {
    /// TCP's number.
    pub const TCP: u8 = 6;
    /// UDP's number.
    pub const UDP: u8 = 17;
    /// ICMPv6's number: echo requests, for what else it has is carried with flows or not at all.
    pub const ICMPV6: u8 = 58;
    /// Everything.
    pub const ANY: Self = Self::all_of(None);

    /// All of one protocol, or of every one.
    pub const fn all_of(protocol: Option<u8>) -> Self {
        Self {
            protocol,
            first_port: 0,
            last_port: u16::MAX,
        }
    }
}

impl fmt::Display for Service {
    /// Writes it as people write it: `tcp 80`, `udp 5000-5100`, `ping`, `anything`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            None => return f.write_str("anything"),
            Some(Self::ICMPV6) => return f.write_str("ping"),
            Some(Self::TCP) => f.write_str("tcp")?,
            Some(Self::UDP) => f.write_str("udp")?,
            Some(number) => write!(f, "protocol {number}")?,
        }
        match (self.first_port, self.last_port) {
            (0, u16::MAX) => Ok(()),
            (first, last) if first == last => write!(f, " {first}"),
            (first, last) => write!(f, " {first}-{last}"),
        }
    }
}

/// Days of the week and the minutes of such a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Bit 0 is Monday, bit 6 Sunday: the days on which it begins.
    pub days: u8,
    /// The minute of the local day at which it opens, 0 to 1439.
    pub opens_min: u16,
    /// The minute at which it closes, 1 to 1440; no later than `opens_min` is on the next day.
    pub closes_min: u16,
}

/// When a rule holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// It is open in any of these.
    pub spans: Vec<Span, MAX_SPANS>,
    /// Whether it is open while the time isn't known.
    pub open_without_clock: bool,
}

/// One moment of a year at which clocks are put forward or back, as POSIX writes it:
/// `Mmonth.week.day/time` (IEEE Std 1003.1, section 8.3, TZ).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// 1 to 12.
    pub month: u8,
    /// 1 to 5; 5 is the last.
    pub week: u8,
    /// 0 is Sunday, 6 Saturday.
    pub weekday: u8,
    /// Minutes after local midnight, -10080 to 10080 (RFC 9636 section 3.3.1).
    pub minute: i16,
}

/// Summer time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summer {
    /// Minutes east of Greenwich while it lasts.
    pub offset_min: i16,
    /// When it begins, in standard time.
    pub begins: Switch,
    /// When it ends, in summer time.
    pub ends: Switch,
}

/// What the local time is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Minutes east of Greenwich.
    pub offset_min: i16,
    /// Summer time, if there is one.
    pub summer: Option<Summer>,
}

/// That one atom is in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InGroup {
    /// The place of what is in it: a person, device, site, host or app, or names that fit.
    pub atom: u16,
    /// The place of the [`Atom::Group`].
    pub group: u16,
}

/// What holds for everybody in a group, whichever rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The place of the [`Atom::Group`].
    pub group: u16,
    /// Only rules that name them, their device or a group of theirs count, not those for all
    /// members or for a site.
    pub exclusive: bool,
    /// The place of a window outside of which nothing is allowed.
    pub window: Option<u8>,
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule<'a> {
    /// The place of its name.
    pub name: u16,
    /// The places of those it allows.
    #[serde(borrow)]
    pub from: Run<'a, u16>,
    /// The places of what it allows them to reach.
    #[serde(borrow)]
    pub to: Run<'a, u16>,
    /// The services there.
    #[serde(borrow)]
    pub services: Run<'a, Service>,
    /// The place of the window in which it holds; always if none.
    pub window: Option<u8>,
    /// Whether it holds only while a head is held that is no older than [`Policy::stale_after_s`].
    pub needs_fresh_head: bool,
}

/// That somebody may say who logged in from a device behind it, which has no key to prove it by.
/// What no voucher covers is not counted, here or elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Voucher {
    /// The place of the gateway: an [`Atom::Device`], [`Atom::Site`] or [`Atom::Group`].
    pub at: u16,
    /// The place of whom it may say this of: an [`Atom::Person`], an [`Atom::Group`] that it may
    /// count people in, or [`Atom::Members`] for every person.
    pub who: u16,
}

/// That members may bring others in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sponsor<'a> {
    /// The place of the members: an [`Atom::Device`], [`Atom::Person`], [`Atom::Group`] or
    /// [`Atom::Members`].
    pub who: u16,
    /// How many members each of them may have brought in at a time, at least one.
    pub most: u16,
    /// How long a line of sponsors may get from a member that no member brought in, at least one:
    /// with 1 those who were brought in bring in nobody.
    pub depth: u8,
    /// The places of the [`Atom::Group`]s that those are in who come in so.
    #[serde(borrow)]
    pub groups: Run<'a, u16>,
}

/// The body of a policy record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy<'a> {
    /// When it was made.
    pub issued: UnixTime,
    /// What windows take for local time.
    pub zone: Zone,
    /// A newest head older than this many seconds counts as stale.
    pub stale_after_s: u32,
    /// What rules name, ascending.
    #[serde(borrow)]
    pub atoms: Run<'a, Atom>,
    /// What rules are called, and how sites are (see `sites`), each once.
    #[serde(borrow)]
    pub names: Run<'a, Name>,
    /// How the author calls sites, for people who read the policy: a site and its name's place.
    #[serde(borrow)]
    pub sites: Run<'a, (SiteId, u16)>,
    /// When rules hold.
    #[serde(borrow)]
    pub windows: Run<'a, Window>,
    /// Who is in a group beside those whose membership says so, ascending.
    #[serde(borrow)]
    pub groups: Run<'a, InGroup>,
    /// What holds for groups.
    #[serde(borrow)]
    pub profiles: Run<'a, Profile>,
    /// The rules.
    #[serde(borrow)]
    pub rules: Run<'a, Rule<'a>>,
    /// Who may say who logged in, ascending.
    #[serde(borrow)]
    pub vouchers: Run<'a, Voucher>,
    /// Who may bring others in; of several lines that fit a member the most generous holds.
    #[serde(borrow)]
    pub sponsors: Run<'a, Sponsor<'a>>,
}

impl Body for Policy<'_> {
    const KIND: RecordKind = RecordKind::POLICY;
    const VERSION: u8 = 2;
}

/// Version 1: all but the last two sections.
#[derive(Deserialize, Serialize)]
struct First<'a> {
    issued: UnixTime,
    zone: Zone,
    stale_after_s: u32,
    #[serde(borrow)]
    atoms: Run<'a, Atom>,
    #[serde(borrow)]
    names: Run<'a, Name>,
    #[serde(borrow)]
    sites: Run<'a, (SiteId, u16)>,
    #[serde(borrow)]
    windows: Run<'a, Window>,
    #[serde(borrow)]
    groups: Run<'a, InGroup>,
    #[serde(borrow)]
    profiles: Run<'a, Profile>,
    #[serde(borrow)]
    rules: Run<'a, Rule<'a>>,
}

impl<'a> From<First<'a>> for Policy<'a> {
    fn from(first: First<'a>) -> Self {
        Self {
            issued: first.issued,
            zone: first.zone,
            stale_after_s: first.stale_after_s,
            atoms: first.atoms,
            names: first.names,
            sites: first.sites,
            windows: first.windows,
            groups: first.groups,
            profiles: first.profiles,
            rules: first.rules,
            vouchers: Run::new(&[]),
            sponsors: Run::new(&[]),
        }
    }
}

/// Why the bytes are no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPolicy {
    /// They don't decode in canonical form.
    #[error("the policy is damaged: {0}")]
    Damaged(#[from] NotCanonical),
    /// More of something than there may be.
    #[error("the policy has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The most there may be.
        limit: usize,
    },
    /// A place that nothing is at, or something else than it has to be.
    #[error("the policy names {0} that it doesn't hold")]
    NoSuch(&'static str),
    /// A table that isn't in ascending order, or holds something twice.
    #[error("the policy's {0} are not in order")]
    Order(&'static str),
    /// A time, a day or a port that there isn't.
    #[error("the policy has {0} that can't be")]
    Impossible(&'static str),
}

impl<'a> Policy<'a> {
    /// Reads a policy of either version that takes up all of `bytes`, and checks everything in it,
    /// so that what compiles it meets no surprise.
    ///
    /// # Errors
    /// See [`BadPolicy`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, BadPolicy> {
        Self::decode_versioned(bytes).map(|(_, policy)| policy)
    }

    /// The same, with the version that these bytes are of: no bytes are of both, because one is
    /// longer.
    ///
    /// # Errors
    /// See [`BadPolicy`].
    pub fn decode_versioned(bytes: &'a [u8]) -> Result<(u8, Self), BadPolicy> {
        let (version, policy): (u8, Self) = match canonical::decode(bytes) {
            Ok(policy) => (Self::VERSION, policy),
            Err(why) => match canonical::decode::<First<'_>>(bytes) {
                Ok(first) => (1, first.into()),
                Err(_) => return Err(why.into()),
            },
        };
        policy.check()?;
        Ok((version, policy))
    }

    /// The same in the oldest version that has words for it, so that nodes which are not of today
    /// read it too. None if only this version has.
    pub fn as_first(&self) -> Option<impl Serialize + use<'a>> {
        let is_first = self.vouchers.is_empty() && self.sponsors.is_empty();
        is_first.then_some(First {
            issued: self.issued,
            zone: self.zone,
            stale_after_s: self.stale_after_s,
            atoms: self.atoms,
            names: self.names,
            sites: self.sites,
            windows: self.windows,
            groups: self.groups,
            profiles: self.profiles,
            rules: self.rules,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;
    use std::vec::Vec;

    #[test]
    fn a_pattern_stands_for_the_names_that_fit() {
        let check = |pattern: &str, name: &str, fits: bool| {
            let name = Name::new(name).unwrap();
            assert_eq!(
                Pattern::new(pattern).unwrap().fits(&name),
                fits,
                "{pattern} {name}"
            );
        };
        check("media-*", "media-tv", true);
        check("media-*", "media", false);
        check("*-tv", "media-tv", true);
        check("a*a", "a", false);
        check("a*a", "aa", true);
        check("wiki", "wiki", true);
        check("wiki", "wiki2", false);
        check("*", "anything", true);
        for bad in ["", "a*b*", "A", "a.b", &"x".repeat(64)] {
            assert_eq!(Pattern::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_service_is_written_as_people_write_it() {
        let ports = |protocol, first_port, last_port| Service {
            protocol: Some(protocol),
            first_port,
            last_port,
        };
        let check = |service: Service, text: &str| assert_eq!(service.to_string(), text);
        check(ports(6, 80, 80), "tcp 80");
        check(ports(17, 5000, 5100), "udp 5000-5100");
        check(Service::all_of(Some(6)), "tcp");
        check(Service::all_of(Some(58)), "ping");
        check(Service::all_of(Some(132)), "protocol 132");
        check(Service::ANY, "anything");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Policy::decode(&bytes);
            let run: Run<'_, Rule<'_>> = Run::new(&bytes);
            // Every value takes at least a byte.
            prop_assert!(run.iter().count() <= bytes.len());
            prop_assert!(run.values().count() <= run.iter().count());
        }
    }
}
