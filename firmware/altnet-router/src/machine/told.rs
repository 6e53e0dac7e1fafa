//! What a child tells by the hook, read from one datagram.
//!
//! A datagram is fields with a NUL behind each: `.by=dhcpcd`, a `.word=` for each word of the command line,
//! and the child's environment as it is. Much of that was written by whoever is on the other end of the
//! provider's line, so nothing here believes more than it understands: a field that doesn't read as what it
//! has to be counts as not there.
//!
//! Source: dhcpcd-run-hooks(8), pppd(8) "SCRIPTS".

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// The longest datagram, in bytes.
pub const MAX_BYTES: usize = 16 * 1024;
/// The most fields of a datagram.
const MAX_FIELDS: usize = 512;
/// The most of anything that is listed: addresses, prefixes, routers, resolvers.
const MAX_LISTED: usize = 8;
/// The lifetime that never ends (RFC 2131 section 3.3, RFC 4861 section 4.6.2).
const FOR_EVER_S: u32 = u32::MAX;
/// The longest name of an interface, in bytes (linux/if.h, without its NUL).
const MAX_INTERFACE_BYTES: usize = 15;

/// What happened at an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The interface.
    pub interface: String,
    /// What happened there.
    pub news: News,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// There is an IPv4 lease, or none any more.
    Ipv4(Option<Lease4>),
    /// There is a DHCPv6 lease, or none any more.
    Ipv6(Option<Lease6>),
    /// What routers say now.
    Advertised(Advertised),
    /// A PPP session speaks IPv4, or no more.
    Session4(Option<Session4>),
    /// A PPP session speaks IPv6, or no more; the other end's link-local address.
    Session6(Option<Ipv6Addr>),
}

/// An IPv4 lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease4 {
    /// The address, with its network's prefix length.
    pub net: Ipv4Net,
    /// The router.
    pub gateway: Option<Ipv4Addr>,
    /// The resolvers.
    pub resolvers: Vec<IpAddr>,
    /// How long it lasts, in seconds. None: for ever.
    pub lasts_s: Option<u32>,
}

/// A DHCPv6 lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease6 {
    /// The addresses, and for how many seconds they are ones. None: for ever.
    pub addresses: Vec<(Ipv6Addr, Option<u32>)>,
    /// The prefixes.
    pub prefixes: Vec<Prefix>,
    /// The resolvers.
    pub resolvers: Vec<IpAddr>,
}

/// A delegated prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The prefix.
    pub net: Ipv6Net,
    /// For how many seconds it is one, never 0. None: for ever.
    pub valid_s: Option<u32>,
    /// For how many seconds it is preferred. None: for ever.
    pub preferred_s: Option<u32>,
}

/// What routers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertised {
    /// The default router.
    pub gateway: Option<Ipv6Addr>,
    /// Addresses that were made of what they advertise.
    pub addresses: Vec<Ipv6Net>,
    /// The resolvers.
    pub resolvers: Vec<IpAddr>,
}

/// A PPP session's IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session4 {
    /// This end.
    pub local: Ipv4Addr,
    /// The resolvers.
    pub resolvers: Vec<IpAddr>,
}

/// Why a datagram tells nothing. Nothing was changed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToldError {
    /// It is longer than any hook's.
    #[error("it has {found} bytes, more than {MAX_BYTES}")]
    TooLong {
        /// Its length in bytes.
        found: usize,
    },
    /// It has more fields than any hook's.
    #[error("it has more than {MAX_FIELDS} fields")]
    TooMany,
    /// It is of no program that has a hook here.
    #[error("it is of no program that tells anything here")]
    Stranger,
    /// It doesn't say where something happened.
    #[error("it names no interface")]
    Nowhere,
    /// An address or a network that has to be there is missing or isn't one.
    #[error("it has no right {name}")]
    Without {
        /// The field's name.
        name: &'static str,
    },
}

/// Reads a datagram. Nothing where what happened is of no concern, as a child that looks for a carrier.
///
/// # Errors
/// [`ToldError`].
pub fn read(datagram: &[u8]) -> Result<Option<Told>, ToldError> {
    if datagram.len() > MAX_BYTES {
        let found = datagram.len();
        return Err(ToldError::TooLong { found });
    }
    let fields = Fields::read(datagram)?;
    let (interface, news) = match fields.text(".by") {
        Some("dhcpcd") => (fields.text("interface"), fields.dhcpcd()?),
        Some("pppd") => (fields.word(1), fields.pppd()?),
        _ => return Err(ToldError::Stranger),
    };
    let Some(news) = news else { return Ok(None) };
    let is_name = |name: &&str| !name.is_empty() && name.len() <= MAX_INTERFACE_BYTES;
    let interface = interface.filter(is_name).ok_or(ToldError::Nowhere)?;
    Ok(Some(Told {
        interface: interface.into(),
        news,
    }))
}

struct Fields<'a> {
    words: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Fields<'a> {
    fn read(datagram: &'a [u8]) -> Result<Self, ToldError> {
        let mut fields = Self {
            words: Vec::new(),
            named: BTreeMap::new(),
        };
        for (number, field) in datagram.split(|byte| *byte == 0).enumerate() {
            if number >= MAX_FIELDS {
                return Err(ToldError::TooMany);
            }
            let text = std::str::from_utf8(field).ok();
            match text.and_then(|text| text.split_once('=')) {
                Some((".word", word)) => fields.words.push(word),
                Some((name, value)) => {
                    // The first counts: nothing behind it can take its place.
                    fields.named.entry(name).or_insert(value);
                }
                None => {}
            }
        }
        Ok(fields)
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.named.get(name).copied()
    }

    fn word(&self, at: usize) -> Option<&'a str> {
        self.words.get(at).copied()
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.trim().parse().ok()
    }

    /// The addresses of a field that lists some, with spaces between them.
    fn listed<T: std::str::FromStr>(&self, name: &str) -> impl Iterator<Item = T> + use<'a, T> {
        let text = self.text(name).unwrap_or("");
        let parsed = text
            .split_ascii_whitespace()
            .filter_map(|one| one.parse().ok());
        parsed.take(MAX_LISTED)
    }

    /// A number of seconds; for ever is None.
    fn lasts(&self, name: &str) -> Option<u32> {
        let lasts: Option<u32> = self.parsed(name);
        lasts.filter(|seconds| *seconds != FOR_EVER_S)
    }

    fn dhcpcd(&self) -> Result<Option<News>, ToldError> {
        Ok(match self.text("reason").unwrap_or("") {
            "BOUND" | "RENEW" | "REBIND" | "REBOOT" => Some(News::Ipv4(Some(self.lease4()?))),
            "EXPIRE" | "FAIL" | "NAK" | "RELEASE" => Some(News::Ipv4(None)),
            "BOUND6" | "RENEW6" | "REBIND6" | "REBOOT6" | "INFORM6" => {
                Some(News::Ipv6(Some(self.lease6())))
            }
            "EXPIRE6" | "RELEASE6" => Some(News::Ipv6(None)),
            "ROUTERADVERT" => Some(News::Advertised(self.advertised())),
            // Stopping is no end of a lease: it is kept, and read again by the dhcpcd that comes after. Nor
            // is a cable that was pulled: who plugs it in again has the same addresses.
            _ => None,
        })
    }

    fn lease4(&self) -> Result<Lease4, ToldError> {
        let name = "new_ip_address";
        let address: Option<Ipv4Addr> = self.parsed(name);
        let address = address.ok_or(ToldError::Without { name })?;
        let name = "new_subnet_cidr";
        let bits: Option<u8> = self.parsed(name);
        let net = bits.and_then(|bits| Ipv4Net::new(address, bits).ok());
        Ok(Lease4 {
            net: net.ok_or(ToldError::Without { name })?,
            gateway: self.listed("new_routers").next(),
            resolvers: self.listed("new_domain_name_servers").collect(),
            lasts_s: self.lasts("new_dhcp_lease_time"),
        })
    }

    fn lease6(&self) -> Lease6 {
        let mut lease = Lease6 {
            resolvers: self.listed("new_dhcp6_name_servers").collect(),
            ..Lease6::default()
        };
        for (association, number) in pairs() {
            let address = format!("new_dhcp6_ia_na{association}_ia_addr{number}");
            let valid = format!("{address}_vltime");
            if let Some(found) = self.parsed(&address)
                && self.parsed(&valid) != Some(0)
                && lease.addresses.len() < MAX_LISTED
            {
                lease.addresses.push((found, self.lasts(&valid)));
            }
            let prefix = format!("new_dhcp6_ia_pd{association}_prefix{number}");
            if let Some(found) = self.prefix(&prefix)
                && lease.prefixes.len() < MAX_LISTED
            {
                lease.prefixes.push(found);
            }
        }
        lease
    }

    fn prefix(&self, name: &str) -> Option<Prefix> {
        let bits = self.parsed(&format!("{name}_length"))?;
        let net = Ipv6Net::new(self.parsed(name)?, bits).ok()?.trunc();
        let valid = format!("{name}_vltime");
        let preferred_s = self.lasts(&format!("{name}_pltime"));
        // One that is valid for no time is taken back (RFC 9915 section 18.2.10.1).
        let is_one = bits > 0 && self.parsed(&valid) != Some(0);
        is_one.then(|| Prefix {
            net,
            valid_s: self.lasts(&valid),
            preferred_s,
        })
    }

    fn advertised(&self) -> Advertised {
        let mut found = Advertised::default();
        for router in 1..=MAX_LISTED {
            let name = |what: &str| format!("nd{router}_{what}");
            let Some(from) = self.parsed::<Ipv6Addr>(&name("from")) else {
                break;
            };
            let is_router = self.parsed(&name("lifetime")) != Some(0u32);
            if found.gateway.is_none() && is_router {
                found.gateway = Some(from);
            }
            for number in 1..=MAX_LISTED {
                found
                    .addresses
                    .extend(self.parsed::<Ipv6Net>(&name(&format!("addr{number}"))));
                let resolvers = name(&format!("rdnss{number}_servers"));
                found.resolvers.extend(self.listed::<IpAddr>(&resolvers));
            }
        }
        found.addresses.truncate(MAX_LISTED);
        found.resolvers.truncate(MAX_LISTED);
        found
    }

    /// The words of pppd's scripts: which script, interface, device, speed, this end, the other end.
    fn pppd(&self) -> Result<Option<News>, ToldError> {
        Ok(match self.word(0).unwrap_or("") {
            "ip-up" => {
                let name = "local address";
                let local = self.word(4).and_then(|word| word.parse().ok());
                let resolvers = ["DNS1", "DNS2"].iter().filter_map(|name| self.parsed(name));
                Some(News::Session4(Some(Session4 {
                    local: local.ok_or(ToldError::Without { name })?,
                    resolvers: resolvers.collect(),
                })))
            }
            "ip-down" => Some(News::Session4(None)),
            "ipv6-up" => {
                let name = "remote address";
                let remote = self.word(5).and_then(|word| word.parse().ok());
                let remote = remote.ok_or(ToldError::Without { name })?;
                Some(News::Session6(Some(remote)))
            }
            "ipv6-down" => Some(News::Session6(None)),
            _ => None,
        })
    }
}

/// The numbers of identity associations and of what is in each.
fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (1..=MAX_LISTED)
        .flat_map(|association| (1..=MAX_LISTED).map(move |number| (association, number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(fields: &str) -> Result<Option<Told>, ToldError> {
        let datagram = fields
            .split_ascii_whitespace()
            .collect::<Vec<_>>()
            .join("\0");
        read(datagram.replace('+', " ").as_bytes())
    }

    fn news(fields: &str) -> News {
        let told = told(fields).unwrap().unwrap();
        assert_eq!(told.interface, "wan");
        told.news
    }

    /// As dhcpcd 9.4.1 has it of dnsmasq 2.90.
    const BOUND: &str =
        ".by=dhcpcd reason=BOUND interface=wan new_ip_address=198.51.100.51 new_subnet_cidr=24
        new_routers=198.51.100.1+198.51.100.2 new_domain_name_servers=198.51.100.53+198.51.100.54
        new_dhcp_lease_time=300 PATH=/usr/bin";

    /// As dhcpcd 9.4.1 has it of ISC's dhcpd 4.4.3.
    const BOUND6: &str = ".by=dhcpcd reason=BOUND6 interface=wan new_dhcp6_ia_pd1_prefix1_length=56
        new_dhcp6_ia_pd1_prefix1=2001:db8:a00:: new_dhcp6_ia_na1_t1=0 new_dhcp6_ia_pd1_prefix1_pltime=300
        new_dhcp6_ia_na1_ia_addr1=2001:db8:1::2000 new_dhcp6_ia_pd1_prefix1_vltime=600
        new_dhcp6_name_servers=2001:db8:1::53 new_dhcp6_ia_na1_ia_addr1_pltime=300
        new_dhcp6_ia_na1_ia_addr1_vltime=600 new_dhcp6_ia_pd1_iaid=00000002";

    #[test]
    fn an_ipv4_lease_is_read() {
        let lease = Lease4 {
            net: "198.51.100.51/24".parse().unwrap(),
            gateway: Some([198, 51, 100, 1].into()),
            resolvers: vec![[198, 51, 100, 53].into(), [198, 51, 100, 54].into()],
            lasts_s: Some(300),
        };
        assert_eq!(news(BOUND), News::Ipv4(Some(lease)));
        let for_ever = news(&BOUND.replace("=300", "=4294967295"));
        assert!(matches!(
            for_ever,
            News::Ipv4(Some(Lease4 { lasts_s: None, .. }))
        ));
        assert_eq!(
            news(".by=dhcpcd reason=EXPIRE interface=wan"),
            News::Ipv4(None)
        );
    }

    #[test]
    fn a_delegated_prefix_is_read() {
        let lease = Lease6 {
            addresses: vec![("2001:db8:1::2000".parse().unwrap(), Some(600))],
            prefixes: vec![Prefix {
                net: "2001:db8:a00::/56".parse().unwrap(),
                valid_s: Some(600),
                preferred_s: Some(300),
            }],
            resolvers: vec!["2001:db8:1::53".parse().unwrap()],
        };
        assert_eq!(news(BOUND6), News::Ipv6(Some(lease)));
        let taken_back = BOUND6.replace("vltime=600", "vltime=0");
        let nothing = Lease6 {
            resolvers: vec!["2001:db8:1::53".parse().unwrap()],
            ..Lease6::default()
        };
        assert_eq!(news(&taken_back), News::Ipv6(Some(nothing)));
    }

    #[test]
    fn what_routers_say_is_read() {
        let said = ".by=dhcpcd reason=ROUTERADVERT interface=wan nd1_from=fe80::1 nd1_lifetime=0 nd2_from=fe80::2
            nd1_addr1=2001:db8:1::5/64 nd2_rdnss1_servers=2001:db8::53+fe80::53 nd2_lifetime=1800";
        let expected = Advertised {
            gateway: Some("fe80::2".parse().unwrap()),
            addresses: vec!["2001:db8:1::5/64".parse().unwrap()],
            resolvers: vec!["2001:db8::53".parse().unwrap(), "fe80::53".parse().unwrap()],
        };
        assert_eq!(news(said), News::Advertised(expected));
    }

    #[test]
    fn a_ppp_session_is_read() {
        let up = ".by=pppd .word=ip-up .word=wan .word=/dev/pts/1 .word=0 .word=203.0.113.7 .word=203.0.113.1
            DNS1=192.0.2.1 DNS2=192.0.2.2";
        let session = Session4 {
            local: [203, 0, 113, 7].into(),
            resolvers: vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()],
        };
        assert_eq!(news(up), News::Session4(Some(session)));
        let up6 = ".by=pppd .word=ipv6-up .word=wan .word=x .word=0 .word=fe80::7 .word=fe80::1";
        assert_eq!(news(up6), News::Session6(Some("fe80::1".parse().unwrap())));
        assert_eq!(
            news(".by=pppd .word=ip-down .word=wan"),
            News::Session4(None)
        );
    }

    #[test]
    fn what_is_wrong_or_of_no_concern_is_said_so() {
        let without = |name| Err(ToldError::Without { name });
        assert_eq!(told(".by=dhcpcd reason=CARRIER interface=wan"), Ok(None));
        assert_eq!(told("reason=BOUND"), Err(ToldError::Stranger));
        assert_eq!(told(".by=dhcpcd reason=EXPIRE"), Err(ToldError::Nowhere));
        let too_long = BOUND.replace("interface=wan", "interface=sixteen-letters-");
        assert_eq!(told(&too_long), Err(ToldError::Nowhere));
        assert_eq!(
            told(&BOUND.replace(".51 ", ".951 ")),
            without("new_ip_address")
        );
        assert_eq!(
            told(&BOUND.replace("=24", "=33")),
            without("new_subnet_cidr")
        );
        assert_eq!(read(&[b'\0'; MAX_FIELDS]), Err(ToldError::TooMany));
        let found = MAX_BYTES + 1;
        assert_eq!(read(&vec![b'a'; found]), Err(ToldError::TooLong { found }));
    }

    #[test]
    fn what_a_provider_wrote_does_not_take_a_fields_place() {
        let forged = format!("{BOUND} new_ip_address=192.0.2.1 .by=pppd");
        assert_eq!(news(&forged), news(BOUND));
    }

    proptest! {
        #[test]
        fn no_datagram_makes_the_reader_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }

        #[test]
        fn no_field_makes_the_reader_panic(
            fields in proptest::collection::vec((field_names(), "[-+/:.0-9a-f ]{0,40}"), 0..30),
            reason in proptest::sample::select(vec!["BOUND", "BOUND6", "ROUTERADVERT"]),
        ) {
            let mut datagram = format!(".by=dhcpcd\0reason={reason}\0interface=wan");
            for (name, value) in fields {
                datagram.push_str(&format!("\0{name}={value}"));
            }
            if let Ok(Some(told)) = read(datagram.as_bytes())
                && let News::Ipv6(Some(lease)) = told.news
            {
                prop_assert!(lease.prefixes.len() <= MAX_LISTED);
                prop_assert!(lease.prefixes.iter().all(|prefix| prefix.valid_s != Some(0)));
            }
        }
    }

    fn field_names() -> impl Strategy<Value = String> {
        let name = "new_(ip_address|subnet_cidr|routers|dhcp_lease_time)|nd[1-9]_(from|addr1|lifetime|rdnss1_servers)";
        let name6 = "new_dhcp6_ia_(pd|na)[1-9]_(prefix|ia_addr)[1-9](_length|_vltime|_pltime)?";
        prop_oneof![
            proptest::string::string_regex(name).expect("it is a pattern"),
            proptest::string::string_regex(name6).expect("it is a pattern"),
        ]
    }
}
