//! The NAT64 through which a machine without IPv4 reaches it: found by asking its resolver for a
//! name that has IPv4 addresses alone (RFC 7050).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use altnet_wire::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The name, and the addresses that it has (RFC 7050 section 2.2).
const NAME: &str = "ipv4only.arpa";
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// How long an answer counts (RFC 7050 section 3: at most the records' lifetime, a day at the
/// name's own servers).
const AGAIN: Duration = Duration::from_secs(3600);
/// How soon it is asked again that said nothing.
const RETRY: Duration = Duration::from_secs(30);

/// What is known of the NAT64.
#[derive(Debug)]
pub struct Nat64 {
    known: Option<Ipv6Addr>,
    /// When the resolver is next asked; none while it is being asked, or needn't be.
    next: Option<Instant>,
    outbox: mpsc::Sender<Option<Ipv6Addr>>,
    answers: mpsc::Receiver<Option<Ipv6Addr>>,
}

impl Default for Nat64 {
    fn default() -> Self {
        let (outbox, answers) = mpsc::channel(1);
        Self {
            known: None,
            next: None,
            outbox,
            answers,
        }
    }
}

impl Nat64 {
    /// Looks at this machine's addresses on the side of the internet: with IPv4 there is nothing to
    /// ask. Returns the prefix to go by. Needs a tokio runtime.
    pub fn look(
        &mut self,
        outside: impl Iterator<Item = IpAddr>,
        now: Instant,
    ) -> Option<Ipv6Addr> {
        let (mut has_v4, mut has_v6) = (false, false);
        for ip in outside {
            match ip {
                // An address of nobody's network (RFC 3927) leads nowhere.
                IpAddr::V4(v4) => has_v4 |= !v4.is_link_local(),
                IpAddr::V6(_) => has_v6 = true,
            }
        }
        if has_v4 || !has_v6 {
            self.known = None;
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
        self.known
    }

    /// When [`Nat64::look`] has to be called again.
    pub fn deadline(&self) -> Instant {
        self.next.unwrap_or(Instant::NEVER)
    }

    /// Waits until the resolver has answered.
    pub async fn answered(&mut self) -> Option<Ipv6Addr> {
        match self.answers.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    /// Takes the resolver's answer; returns the prefix to go by.
    pub fn take(&mut self, answer: Option<Ipv6Addr>, now: Instant) -> Option<Ipv6Addr> {
        if self.next.is_some() {
            // One that says nothing once doesn't take back what it said.
            self.known = answer.or(self.known);
            self.next = Some(now.after(if answer.is_some() { AGAIN } else { RETRY }));
        }
        self.known
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
    prefixes
        .next()
        .filter(|prefix| prefix.to_ipv4_mapped().is_none() && !prefix.is_unspecified())
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

    #[tokio::test]
    async fn a_machine_with_ipv4_asks_nobody_and_one_without_keeps_what_it_learnt() {
        let mut nat64 = Nat64::default();
        let now = Instant::from_micros(1);
        let both = ips(&["192.0.2.1", "2001:db8::1"]);
        assert_eq!(nat64.look(both.clone().into_iter(), now), None);
        assert_eq!(nat64.deadline(), Instant::NEVER);
        let alone = ips(&["169.254.1.1", "2001:db8::1"]);
        assert_eq!(nat64.look(alone.into_iter(), now), None);
        assert_eq!(nat64.deadline(), now.after(RETRY));
        let prefix = "64:ff9b::".parse().ok();
        assert_eq!(nat64.take(prefix, now), prefix);
        assert_eq!(nat64.take(None, now), prefix);
        assert_eq!(nat64.look(both.into_iter(), now), None);
        assert_eq!(nat64.take(prefix, now), None);
    }
}
