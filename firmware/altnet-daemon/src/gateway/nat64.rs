//! The NAT64 through which a machine without IPv4 reaches it: what routers on the side of the internet advertise
//! (RFC 8781), or else found by asking the resolver for a name that has IPv4 addresses alone (RFC 7050).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use altnet_core::lan::pref64::{self, Advertised, Router};
use altnet_wire::address::Prefix;
use altnet_wire::time::{Duration, Instant};
use tokio::sync::mpsc;

use crate::icmp6::routers::{Advertisement, RouterSocket};
use crate::netlink::Reachable;

/// The name, and the addresses that it has (RFC 7050 section 2.2).
const NAME: &str = "ipv4only.arpa";
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// How long an answer counts (RFC 7050 section 3: at most the records' lifetime, a day at the
/// name's own servers).
const AGAIN: Duration = Duration::from_secs(3600);
/// How soon it is asked again that said nothing; each next pause is twice as long, up to [`AGAIN`].
const RETRY: Duration = Duration::from_secs(30);
/// How long nothing is done where the kernel doesn't say where this machine is.
const PUT_OFF: Duration = Duration::from_secs(2);

/// How often routers are asked to advertise, and the pause between two times (RFC 4861 section 10).
const SOLICITATIONS: u8 = 3;
const SOLICIT_AGAIN: Duration = Duration::from_secs(4);
/// The hop limit that the socket saw: others it passes over.
const ON_LINK_HOPS: u8 = 255;

/// What came to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The resolver answered.
    Resolved(Option<Ipv6Addr>),
    /// A router advertised something.
    Advertised(Advertisement),
    /// No router is heard any more.
    Deaf,
}

/// What is known of the NAT64.
#[derive(Debug)]
pub struct Nat64 {
    /// What the resolver said.
    known: Option<Ipv6Addr>,
    advertised: Advertised,
    /// None if the kernel gave none.
    routers: Option<RouterSocket>,
    /// The interfaces on the side of the internet, while this machine has IPv6 alone.
    outside: Vec<u32>,
    solicited: u8,
    solicit: Instant,
    /// When the resolver is next asked; none while it is being asked, or needn't be.
    next: Option<Instant>,
    retry: Duration,
    /// Nothing is due before.
    not_before: Instant,
    /// The network's own prefix, which no NAT64 has.
    own: Option<Prefix>,
    outbox: mpsc::Sender<Option<Ipv6Addr>>,
    answers: mpsc::Receiver<Option<Ipv6Addr>>,
}

impl Default for Nat64 {
    fn default() -> Self {
        let (outbox, answers) = mpsc::channel(1);
        Self {
            known: None,
            advertised: Advertised::default(),
            routers: None,
            outside: Vec::new(),
            solicited: 0,
            solicit: Instant::NEVER,
            next: None,
            retry: RETRY,
            not_before: Instant::ZERO,
            own: None,
            outbox,
            answers,
        }
    }
}

impl Nat64 {
    /// Begins to listen to routers. Needs CAP_NET_RAW and a tokio runtime with I/O; without the former the resolver
    /// alone is asked.
    pub fn open() -> Self {
        let routers = RouterSocket::open();
        if let Err(e) = &routers {
            crate::warning!(
                "can't hear what routers advertise ({e}); a NAT64 is looked for by DNS alone"
            );
        }
        Self {
            routers: routers.ok(),
            ..Self::default()
        }
    }

    /// Looks at this machine's addresses on the side of the internet: with IPv4 there is nothing to
    /// ask. Returns the prefix to go by. Needs a tokio runtime.
    pub fn look(&mut self, outside: &[Reachable], now: Instant) -> Option<Ipv6Addr> {
        let mut has_v4 = false;
        let mut interfaces = Vec::new();
        for found in outside {
            match found.ip {
                // An address of nobody's network (RFC 3927) leads nowhere.
                IpAddr::V4(v4) => has_v4 |= !v4.is_link_local(),
                IpAddr::V6(_) if interfaces.contains(&found.interface) => {}
                IpAddr::V6(_) => interfaces.push(found.interface),
            }
        }
        let is_alone = !has_v4 && !interfaces.is_empty();
        if !is_alone {
            interfaces.clear();
        }
        self.listen(interfaces, now);
        if !is_alone {
            self.known = None;
            self.next = None;
        } else if self.advertised.prefix(now).is_some() {
            // The resolver is asked once that holds no more.
            self.next = None;
        } else if self.next.is_none_or(|next| next <= now) {
            self.next = Some(now.after(RETRY));
            let outbox = self.outbox.clone();
            tokio::spawn(async move {
                let found = tokio::net::lookup_host((NAME, 0)).await;
                let found = found
                    .ok()
                    .and_then(|found| prefix_in(found.map(|to| to.ip())));
                // Nobody is there any more at the end.
                let _ = outbox.send(found).await;
            });
        }
        self.prefix(now)
    }

    /// Hears routers on these interfaces, and asks those on new ones to advertise.
    fn listen(&mut self, outside: Vec<u32>, now: Instant) {
        self.advertised.expire(now);
        if outside != self.outside {
            self.advertised
                .keep(|interface| outside.contains(&interface));
            let has_some = !outside.is_empty() && self.routers.is_some();
            self.solicit = if has_some { now } else { Instant::NEVER };
            self.solicited = 0;
            self.retry = RETRY;
            if let Some(routers) = &self.routers
                && let Err(e) = routers.listen(has_some)
            {
                crate::warning!("can't hear what routers advertise: {e}");
            }
            self.outside = outside;
        }
        if self.solicit > now {
            return;
        }
        for interface in &self.outside {
            if let Some(routers) = &self.routers
                && let Err(e) = routers.solicit(*interface)
            {
                crate::debug!("can't ask the routers on interface {interface}: {e}");
            }
        }
        self.solicited += 1;
        let is_over = self.solicited >= SOLICITATIONS || self.advertised.prefix(now).is_some();
        self.solicit = if is_over {
            Instant::NEVER
        } else {
            now.after(SOLICIT_AGAIN)
        };
    }

    /// The prefix to go by: a router's word before a resolver's (RFC 9872).
    fn prefix(&self, now: Instant) -> Option<Ipv6Addr> {
        self.advertised.prefix(now).or(self.known)
    }

    /// When [`Nat64::look`] has to be called again.
    pub fn deadline(&self) -> Instant {
        let next = self.next.unwrap_or(Instant::NEVER).min(self.solicit);
        next.min(self.advertised.deadline()).max(self.not_before)
    }

    /// [`Nat64::look`] can't be called now, since it isn't known where this machine is.
    pub fn put_off(&mut self, now: Instant) {
        self.not_before = now.after(PUT_OFF);
    }

    /// Keeps from going by the network's own prefix.
    pub fn set_own(&mut self, own: Option<Prefix>) {
        self.own = own;
    }

    fn is_usable(&self, prefix: Ipv6Addr) -> bool {
        pref64::is_usable(prefix) && self.own.is_none_or(|own| !own.contains(prefix))
    }

    /// Waits until the resolver has answered, or a router is heard.
    pub async fn news(&mut self) -> News {
        let routers = self.routers.as_ref();
        let outside = &self.outside;
        let heard = async {
            match routers {
                Some(routers) => routers.receive(outside).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(answer) = self.answers.recv() => News::Resolved(answer),
            heard = heard => match heard {
                Ok(heard) => News::Advertised(heard),
                Err(e) => {
                    crate::warning!("routers are heard no more: {e}; a NAT64 is looked for by DNS alone");
                    News::Deaf
                }
            },
        }
    }

    /// Takes news; returns the prefix to go by.
    pub fn take(&mut self, news: News, now: Instant) -> Option<Ipv6Addr> {
        match news {
            News::Resolved(answer) if self.next.is_some() => {
                // One that says nothing once doesn't take back what it said.
                let answer = answer.filter(|prefix| self.is_usable(*prefix));
                self.known = answer.or(self.known);
                let pause = if answer.is_some() { AGAIN } else { self.retry };
                self.retry = (pause * 2).min(AGAIN);
                if answer.is_some() {
                    self.retry = RETRY;
                }
                self.next = Some(now.after(pause));
            }
            News::Resolved(_) => {}
            News::Deaf => self.routers = None,
            News::Advertised(heard) => {
                let router = Router {
                    interface: heard.interface,
                    address: heard.source,
                };
                let found = pref64::parse(&heard.message, heard.source, ON_LINK_HOPS);
                if let Ok(mut found) = found
                    && self.outside.contains(&heard.interface)
                {
                    found.retain(|one| self.is_usable(one.prefix));
                    self.advertised.handle(router, &found, now);
                }
            }
        }
        self.prefix(now)
    }
}

/// The prefix of 96 bits in what the name resolved to. Others (RFC 6052 section 2.2) are rare, and
/// passed over.
fn prefix_in(found: impl Iterator<Item = IpAddr>) -> Option<Ipv6Addr> {
    const LOW: u128 = u32::MAX as u128;
    let mut prefixes = found.filter_map(|ip| match ip {
        IpAddr::V6(v6) => {
            let low = u32::try_from(v6.to_bits() & LOW).ok()?;
            let is_embedded = ADDRESSES.contains(&Ipv4Addr::from_bits(low));
            is_embedded.then(|| Ipv6Addr::from_bits(v6.to_bits() & !LOW))
        }
        IpAddr::V4(_) => None,
    });
    prefixes.next().filter(|prefix| pref64::is_usable(*prefix))
}

/// Those that are on interfaces which a default route leads through. Where none is known to all of them may be:
/// somebody's rules may route by other tables.
pub fn on_the_way(outside: &[Reachable], through: &[u32]) -> Vec<Reachable> {
    let is_on = |found: &&Reachable| through.contains(&found.interface);
    let found: Vec<Reachable> = outside.iter().filter(is_on).copied().collect();
    if found.is_empty() {
        outside.to_vec()
    } else {
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(all: &[&str]) -> Vec<IpAddr> {
        all.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_prefix_is_what_stands_before_the_known_addresses() {
        let well_known = "64:ff9b::".parse().unwrap();
        let found = ips(&["192.0.0.170", "64:ff9b::c000:aa"]);
        assert_eq!(prefix_in(found.into_iter()), Some(well_known));
        let own = ips(&["2001:db8:64::c000:ab"]);
        assert_eq!(prefix_in(own.into_iter()), "2001:db8:64::".parse().ok());
        for other in [
            "192.0.0.170",
            "2001:db8::1",
            "::ffff:192.0.0.170",
            "::c000:aa",
        ] {
            assert_eq!(prefix_in(ips(&[other]).into_iter()), None, "{other}");
        }
    }

    fn on(interface: u32, all: &[&str]) -> Vec<Reachable> {
        let reachable = |ip| Reachable {
            interface,
            ip,
            bits: 64,
        };
        ips(all).into_iter().map(reachable).collect()
    }

    #[tokio::test]
    async fn a_machine_with_ipv4_asks_nobody_and_one_without_keeps_what_it_learnt() {
        let mut nat64 = Nat64::default();
        let now = Instant::from_micros(1);
        let both = on(2, &["192.0.2.1", "2001:db8::1"]);
        assert_eq!(nat64.look(&both, now), None);
        assert_eq!(nat64.deadline(), Instant::NEVER);
        let alone = on(2, &["169.254.1.1", "2001:db8::1"]);
        assert_eq!(nat64.look(&alone, now), None);
        assert_eq!(nat64.deadline(), now.after(RETRY));
        let prefix = "64:ff9b::".parse().ok();
        assert_eq!(nat64.take(News::Resolved(prefix), now), prefix);
        assert_eq!(nat64.take(News::Resolved(None), now), prefix);
        assert_eq!(nat64.look(&both, now), None);
        assert_eq!(nat64.take(News::Resolved(prefix), now), None);
    }

    /// A router's word that 2001:db8:64::/96 holds for so many seconds, a multiple of eight.
    fn advertised(interface: u32, lifetime_s: u16) -> News {
        let [a, b] = lifetime_s.to_be_bytes();
        let header = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        let option = [38, 2, a, b, 0x20, 1, 0x0d, 0xb8, 0, 0x64, 0, 0, 0, 0, 0, 0];
        News::Advertised(Advertisement {
            interface,
            source: "fe80::1".parse().unwrap(),
            message: [header, option].concat(),
        })
    }

    #[tokio::test]
    async fn what_a_router_says_goes_before_what_the_resolver_says_as_long_as_it_holds() {
        let mut nat64 = Nat64::default();
        let now = Instant::from_micros(1);
        let alone = on(2, &["2001:db8::1"]);
        nat64.look(&alone, now);
        let (by_name, by_router) = ("64:ff9b::".parse().ok(), "2001:db8:64::".parse().ok());
        assert_eq!(nat64.take(News::Resolved(by_name), now), by_name);
        // From a side on which nobody is the way to the internet.
        assert_eq!(nat64.take(advertised(3, 600), now), by_name);
        assert_eq!(nat64.take(advertised(2, 600), now), by_router);
        assert_eq!(nat64.take(News::Resolved(by_name), now), by_router);
        let later = now.after(Duration::from_secs(600));
        assert_eq!(nat64.deadline(), later);
        assert_eq!(nat64.look(&alone, later), by_name);
        assert!(nat64.deadline() > later);
        assert_eq!(nat64.take(advertised(2, 600), later), by_router);
        assert_eq!(nat64.take(advertised(2, 0), later), by_name);
        // With IPv4 of its own a machine goes by neither.
        assert_eq!(nat64.take(advertised(2, 600), later), by_router);
        assert_eq!(
            nat64.look(&on(2, &["192.0.2.1", "2001:db8::1"]), later),
            None
        );
        assert_eq!(nat64.take(advertised(2, 600), later), None);
    }

    #[tokio::test]
    async fn the_resolver_is_not_asked_while_a_router_says_it_and_else_ever_more_rarely() {
        let mut nat64 = Nat64::default();
        let mut now = Instant::from_micros(1);
        let alone = on(2, &["2001:db8::1"]);
        nat64.look(&alone, now);
        for pause in [30, 60, 120, 240, 480, 960, 1920, 3600, 3600] {
            nat64.take(News::Resolved(None), now);
            assert_eq!(nat64.deadline(), now.after(Duration::from_secs(pause)));
            now = nat64.deadline();
            nat64.look(&alone, now);
        }
        nat64.take(advertised(2, 7200), now);
        nat64.take(News::Resolved(None), now);
        let until = now.after(Duration::from_secs(7200));
        now = nat64.deadline();
        assert!(now < until);
        nat64.look(&alone, now);
        assert_eq!(nat64.deadline(), until);
        // Nobody says it any more.
        nat64.look(&alone, until);
        assert_eq!(nat64.deadline(), until.after(RETRY));
        // On another line it is asked soon again.
        nat64.look(&on(3, &["2001:db8::1"]), until.after(RETRY));
        let later = nat64.deadline();
        nat64.take(News::Resolved(None), later);
        assert_eq!(nat64.deadline(), later.after(RETRY));
    }

    #[tokio::test]
    async fn nothing_is_due_at_once_while_the_kernel_does_not_say_where_this_machine_is() {
        let mut nat64 = Nat64::default();
        let now = Instant::from_micros(1);
        nat64.look(&on(2, &["2001:db8::1"]), now);
        nat64.take(advertised(2, 600), now);
        let later = now.after(Duration::from_secs(10_000));
        assert!(nat64.deadline() <= later);
        nat64.put_off(later);
        assert_eq!(nat64.deadline(), later.after(PUT_OFF));
    }

    #[tokio::test]
    async fn no_prefix_inside_the_network_is_gone_by() {
        let mut nat64 = Nat64::default();
        let now = Instant::from_micros(1);
        nat64.look(&on(2, &["2001:db8::1"]), now);
        let own = "2001:db8:64::".parse().unwrap();
        nat64.set_own(Some(Prefix::new(own, 48)));
        assert_eq!(nat64.take(advertised(2, 600), now), None);
        assert_eq!(nat64.take(News::Resolved(Some(own)), now), None);
        nat64.set_own(None);
        assert_eq!(nat64.take(advertised(2, 600), now), Some(own));
    }

    #[test]
    fn what_no_default_route_leads_through_is_no_way_out_unless_none_is_known() {
        let bridge = on(7, &["172.17.0.1"]);
        let line = on(2, &["2001:db8::1"]);
        let all = [&bridge[..], &line[..]].concat();
        assert_eq!(on_the_way(&all, &[2, 9]), line);
        assert_eq!(on_the_way(&all, &[9]), all);
        assert_eq!(on_the_way(&all, &[]), all);
    }
}
