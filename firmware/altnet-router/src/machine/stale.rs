//! Addresses that machines on the networks have been told of, and those of them that are no more.
//!
//! Source: RFC 9096 section 3.5: a router that comes back with another prefix advertises the old one with a preferred
//! lifetime of 0, for as long as machines may have kept it, at most two hours (section 3.4 and RFC 4862 section 5.5.3).

use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

use super::kept::{Kept, Remembered};
use crate::config::Name;
use crate::house::House;
use crate::plan::{Plan, Stale};

/// How long an address that is no more is said to be deprecated.
pub(super) const DEPRECATED: Duration = Duration::from_secs(7200);

#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    kept: Kept,
    /// Whether `kept` is other than what is on flash.
    is_changed: bool,
    /// Addresses that the plan before had.
    current: Vec<Remembered>,
    stale: Vec<Stale>,
}

impl Addresses {
    pub(super) fn new(kept: Kept) -> Self {
        Self {
            kept,
            ..Self::default()
        }
    }

    pub(super) fn stale(&self) -> &[Stale] {
        &self.stale
    }

    /// What is on flash, or will be.
    #[cfg(test)]
    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// What is to be kept, if it is other than what was kept before.
    pub(super) fn take_changed(&mut self) -> Option<Kept> {
        std::mem::take(&mut self.is_changed).then(|| self.kept.clone())
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        let times = self.stale.iter().map(|stale| stale.until_s);
        times.min().map(Duration::from_secs)
    }

    /// Forgets what is over.
    pub(super) fn expire(&mut self, now: Duration) {
        let (over, stale) = std::mem::take(&mut self.stale)
            .into_iter()
            .partition(|stale| stale.until_s <= now.as_secs());
        self.stale = stale;
        let over: Vec<Stale> = over;
        for gone in &over {
            self.forget(&gone.network, gone.address);
        }
    }

    /// Looks at what would be planned if nothing was stale, and finds out what is.
    pub(super) fn notice(&mut self, house: &House, plan: &Plan, now: Duration) {
        let current = current(house, plan);
        let before = std::mem::replace(&mut self.current, current);
        let current = self.current.clone();
        // What is back is no longer no more.
        self.stale
            .retain(|stale| !has(&current, &stale.network, stale.address));
        let until_s = (now + DEPRECATED).as_secs();
        for one in self.kept.addresses.clone() {
            let Remembered { network, address } = &one;
            let is_there = house
                .networks()
                .iter()
                .any(|found| found.name == *network && found.ipv6);
            if has(&current, network, *address) || self.is_stale(network, *address) {
                continue;
            }
            // After a start, a prefix may only be late. Once there is another one, it isn't.
            let was_there = has(&before, network, *address);
            let is_replaced = current.iter().any(|other| other.network == *network);
            if is_there && (was_there || is_replaced) {
                self.stale.push(Stale {
                    network: network.clone(),
                    address: *address,
                    until_s,
                });
            }
        }
        for one in current {
            if !has(&self.kept.addresses, &one.network, one.address) {
                self.kept.remember(one);
                self.is_changed = true;
            }
        }
    }

    fn is_stale(&self, network: &Name, address: Ipv6Net) -> bool {
        let mut stale = self.stale.iter();
        stale.any(|stale| stale.network == *network && stale.address == address)
    }

    fn forget(&mut self, network: &Name, address: Ipv6Net) {
        let count = self.kept.addresses.len();
        self.kept
            .addresses
            .retain(|one| one.network != *network || one.address != address);
        self.is_changed |= self.kept.addresses.len() != count;
    }
}

fn has(addresses: &[Remembered], network: &Name, address: Ipv6Net) -> bool {
    addresses
        .iter()
        .any(|one| one.network == *network && one.address == address)
}

/// The addresses of a plan that machines make their own of.
fn current(house: &House, plan: &Plan) -> Vec<Remembered> {
    let mut found = Vec::new();
    for network in house.networks() {
        let on_it = plan
            .addresses
            .iter()
            .filter(|address| address.link == network.bridge);
        for address in on_it {
            let IpNet::V6(net) = address.net else {
                continue;
            };
            if net.prefix_len() == 64 && is_global(net) {
                found.push(Remembered {
                    network: network.name.clone(),
                    address: net,
                });
            }
        }
    }
    found
}

/// Whether it is of what providers hand out (2000::/3, RFC 4291 section 2.4).
fn is_global(net: Ipv6Net) -> bool {
    net.addr().segments()[0] & 0xe000 == 0x2000
}
