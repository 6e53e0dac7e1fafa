//! What is known of the ways to the internet, put together of what children told and probes found.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::told::{Advertised, Lease4, Lease6, News, Session4};
use crate::config::Probes;
use crate::plan::{Delegated, Leased, WanState};

/// What is known of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Uplink {
    lease4: Option<Until<Lease4>>,
    addresses6: Vec<Leased>,
    prefixes: Vec<Delegated>,
    resolvers6: Vec<IpAddr>,
    advertised: Advertised,
    session4: Option<Session4>,
    session6: Option<Ipv6Addr>,
    /// Why there is no session, as far as that was said.
    no_session: Option<&'static str>,
    probing: Probing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Until<T> {
    what: T,
    until_s: Option<u64>,
}

/// What probes found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Probing {
    next: Option<Duration>,
    is_asked: bool,
    sequence: u16,
    /// How many times in a row it was otherwise than the verdict.
    against: u8,
    verdict: Option<bool>,
}

/// When a number of seconds from now is over.
fn until(now: Duration, lasts_s: Option<u32>) -> Option<u64> {
    lasts_s.map(|lasts| now.as_secs().saturating_add(lasts.into()))
}

impl Uplink {
    pub(super) fn told(&mut self, news: News, now: Duration) {
        match news {
            News::Ipv4(lease) => {
                self.lease4 = lease.map(|what| Until {
                    until_s: until(now, what.lasts_s),
                    what,
                });
            }
            News::Ipv6(lease) => {
                let lease: Lease6 = lease.unwrap_or_default();
                let addresses = lease
                    .addresses
                    .into_iter()
                    .map(|(address, lasts_s)| Leased {
                        net: IpNet::V6(Ipv6Net::from(address)),
                        valid_until_s: until(now, lasts_s),
                    });
                self.addresses6 = addresses.collect();
                let prefixes = lease.prefixes.into_iter().map(|prefix| Delegated {
                    net: prefix.net,
                    valid_until_s: until(now, prefix.valid_s),
                    preferred_until_s: until(now, prefix.preferred_s),
                });
                self.prefixes = prefixes
                    .filter(|prefix| prefix.net.prefix_len() <= 64)
                    .collect();
                self.resolvers6 = lease.resolvers;
            }
            News::Advertised(said) => self.advertised = said,
            News::Session4(session) => self.session4 = session,
            News::Session6(remote) => self.session6 = remote,
        }
        if self.has_session() {
            self.no_session = None;
        }
    }

    /// Notes why no session comes about.
    pub(super) fn has_no_session(&mut self, why: &'static str) {
        self.no_session = Some(why);
    }

    /// Forgets the session: who kept it is gone, and had no time to say so.
    pub(super) fn hung_up(&mut self) {
        self.session4 = None;
        self.session6 = None;
    }

    /// Why there is no session, where there is none and that was said.
    pub(super) fn why_no_session(&self) -> Option<&'static str> {
        self.no_session.filter(|_| !self.has_session())
    }

    /// Whether a PPP session stands.
    pub(super) fn has_session(&self) -> bool {
        self.session4.is_some() || self.session6.is_some()
    }

    /// What there is to plan with.
    pub(super) fn state(&self, is_up: bool) -> WanState {
        let lease4 = self.lease4.as_ref();
        let leased4 = lease4.map(|lease| Leased {
            net: IpNet::V4(lease.what.net),
            valid_until_s: lease.until_s,
        });
        let session4 = self.session4.as_ref().map(|session| Leased {
            net: IpNet::V4(Ipv4Net::from(session.local)),
            valid_until_s: None,
        });
        let advertised = self.advertised.addresses.iter().map(|net| Leased {
            net: IpNet::V6(*net),
            valid_until_s: None,
        });
        let addresses = leased4.into_iter().chain(session4);
        let addresses = addresses
            .chain(self.addresses6.iter().cloned())
            .chain(advertised);
        let of_lease4 = lease4.iter().flat_map(|lease| &lease.what.resolvers);
        let of_session4 = self.session4.iter().flat_map(|session| &session.resolvers);
        let mut resolvers: Vec<IpAddr> = Vec::new();
        for resolver in of_lease4
            .chain(of_session4)
            .chain(&self.resolvers6)
            .chain(&self.advertised.resolvers)
        {
            if !resolvers.contains(resolver) {
                resolvers.push(*resolver);
            }
        }
        WanState {
            is_up,
            answers: self.probing.verdict,
            addresses: addresses.collect(),
            gateway4: lease4.and_then(|lease| lease.what.gateway),
            gateway6: self.advertised.gateway.or(self.session6),
            resolvers,
            prefixes: self.prefixes.clone(),
        }
    }

    /// Forgets what is over.
    pub(super) fn expire(&mut self, now: Duration) {
        let is_over =
            |until_s: Option<u64>| until_s.is_some_and(|until_s| until_s <= now.as_secs());
        self.lease4.take_if(|lease| is_over(lease.until_s));
        self.addresses6
            .retain(|address| !is_over(address.valid_until_s));
        self.prefixes
            .retain(|prefix| !is_over(prefix.valid_until_s));
    }

    /// When something is over next, or is to be asked.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let lease4 = self.lease4.iter().filter_map(|lease| lease.until_s);
        let addresses = self
            .addresses6
            .iter()
            .filter_map(|address| address.valid_until_s);
        let prefixes = self
            .prefixes
            .iter()
            .filter_map(|prefix| prefix.valid_until_s);
        let over = lease4.chain(addresses).chain(prefixes).min();
        let asked = self.probing.next.filter(|_| !self.probing.is_asked);
        over.map(Duration::from_secs).into_iter().chain(asked).min()
    }

    /// Whether it is time to ask; the sequence number then. Each is answered by [`Self::answered`].
    pub(super) fn ask(&mut self, probes: &Probes, is_up: bool, now: Duration) -> Option<u16> {
        if probes.targets.is_empty() || !is_up {
            self.forget_probes();
            return None;
        }
        let probing = &mut self.probing;
        let next = *probing.next.get_or_insert(now);
        if probing.is_asked || next > now {
            return None;
        }
        probing.is_asked = true;
        probing.sequence = probing.sequence.wrapping_add(1);
        probing.next = Some(now + Duration::from_secs(probes.interval_s.max(1).into()));
        Some(probing.sequence)
    }

    /// The same, of which no question is under way.
    pub(super) fn unasked(mut self) -> Self {
        self.forget_probes();
        self
    }

    fn forget_probes(&mut self) {
        self.probing = Probing {
            sequence: self.probing.sequence,
            ..Probing::default()
        };
    }

    /// Notes whether anybody answered to a question.
    pub(super) fn answered(
        &mut self,
        sequence: u16,
        probes: &Probes,
        answered: bool,
        now: Duration,
    ) {
        let probing = &mut self.probing;
        if !probing.is_asked || probing.sequence != sequence {
            return; // to one that is of no concern any more
        }
        probing.is_asked = false;
        probing.next = probing.next.map(|next| next.max(now));
        if probing.verdict == Some(answered) {
            probing.against = 0;
            return;
        }
        probing.against = probing.against.saturating_add(1);
        // A line of which nothing was known works as soon as somebody answers.
        let needed = match (answered, probing.verdict) {
            (true, None) => 1,
            (true, Some(_)) => probes.failures.div_ceil(2),
            (false, _) => probes.failures,
        };
        if probing.against >= needed {
            probing.verdict = Some(answered);
            probing.against = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::told::Prefix;
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lease4(lasts_s: Option<u32>) -> News {
        News::Ipv4(Some(Lease4 {
            net: "198.51.100.51/24".parse().unwrap(),
            gateway: Some([198, 51, 100, 1].into()),
            resolvers: vec![[198, 51, 100, 53].into()],
            lasts_s,
        }))
    }

    #[test]
    fn a_lease_is_known_until_it_is_over() {
        let mut uplink = Uplink::default();
        uplink.told(lease4(Some(300)), s(1000));
        assert_eq!(uplink.deadline(), Some(s(1300)));
        uplink.expire(s(1299));
        assert_eq!(uplink.state(true).addresses.len(), 1);
        uplink.expire(s(1300));
        assert_eq!(uplink.state(true), Uplink::default().state(true));
        uplink.told(lease4(None), s(2000));
        assert_eq!(uplink.deadline(), None);
    }

    #[test]
    fn a_later_dhcpv6_lease_takes_the_place_of_the_one_before() {
        let mut uplink = Uplink::default();
        let lease = |net: &str| {
            News::Ipv6(Some(Lease6 {
                prefixes: vec![Prefix {
                    net: net.parse().unwrap(),
                    valid_s: Some(600),
                    preferred_s: Some(300),
                }],
                ..Lease6::default()
            }))
        };
        uplink.told(lease("2001:db8:a00::/56"), s(10));
        uplink.told(lease("2001:db8:b00::/56"), s(20));
        let prefixes = uplink.state(true).prefixes;
        assert_eq!(prefixes.len(), 1);
        assert_eq!(prefixes[0].valid_until_s, Some(620));
        uplink.told(News::Ipv6(None), s(30));
        assert!(uplink.state(true).prefixes.is_empty());
    }

    fn probes() -> Probes {
        Probes {
            targets: vec![[192, 0, 2, 1].into()],
            interval_s: 5,
            failures: 3,
        }
    }

    /// Probes once for each of `answers`; the verdicts after each.
    fn probed(uplink: &mut Uplink, answers: &[bool]) -> Vec<Option<bool>> {
        let mut now = uplink.deadline().unwrap_or(s(100));
        let mut verdicts = Vec::new();
        for answered in answers {
            let sequence = uplink.ask(&probes(), true, now).unwrap();
            assert_eq!(uplink.ask(&probes(), true, now), None);
            assert_eq!(uplink.deadline(), None);
            uplink.answered(sequence, &probes(), *answered, now + s(2));
            verdicts.push(uplink.state(true).answers);
            now = uplink.deadline().unwrap();
        }
        verdicts
    }

    #[test]
    fn a_line_is_down_after_three_silences_and_up_after_two_answers() {
        let mut uplink = Uplink::default();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(probed(&mut uplink, &[false, false]), [None, None]);
        assert_eq!(probed(&mut uplink, &[true, false, true]), [yes, yes, yes]);
        assert_eq!(probed(&mut uplink, &[false, false, false]), [yes, yes, no]);
        assert_eq!(
            probed(&mut uplink, &[true, false, true, true]),
            [no, no, no, yes]
        );
    }

    #[test]
    fn an_answer_that_comes_after_the_cable_was_pulled_says_nothing() {
        let mut uplink = Uplink::default();
        let sequence = uplink.ask(&probes(), true, s(100)).unwrap();
        assert_eq!(uplink.ask(&probes(), false, s(101)), None);
        uplink.answered(sequence, &probes(), true, s(102));
        assert_eq!(uplink.state(false).answers, None);
        assert!(uplink.ask(&probes(), true, s(103)).is_some());
    }

    #[test]
    fn the_next_question_is_never_in_the_past() {
        let mut uplink = Uplink::default();
        let sequence = uplink.ask(&probes(), true, s(100)).unwrap();
        uplink.answered(sequence, &probes(), true, s(500));
        assert_eq!(uplink.deadline(), Some(s(500)));
    }
}
