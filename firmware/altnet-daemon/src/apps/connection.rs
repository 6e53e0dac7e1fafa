//! One connection of an app, and how many a caller may have.

use std::net::Ipv6Addr;

use smoltcp::iface::SocketHandle;
use smoltcp::time::Instant;

use super::Limits;
use super::link::Segment;
use super::stats::Refusal;

/// A connection in the stack's table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    /// Its socket.
    pub socket: SocketHandle,
    /// What opened it.
    pub segment: Segment,
    /// Who has it.
    pub phase: Phase,
    /// Since when; while it is held, since its last byte.
    pub since: Instant,
}

/// How far a connection is, beside what TCP says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The caller has not answered yet.
    HalfOpen,
    /// Somebody holds it.
    Held,
    /// Nobody does any more; what was written still leaves.
    Released,
}

impl Connection {
    /// Whether `segment` belongs to it.
    pub fn is_of(&self, segment: Segment) -> bool {
        let ends = |s: Segment| (s.caller, s.caller_port, s.to, s.port);
        ends(self.segment) == ends(segment)
    }
}

/// Why `caller` may not have one connection more beside `connections`.
pub(super) fn refusal<'a>(
    connections: impl Iterator<Item = &'a Connection>,
    caller: Ipv6Addr,
    limits: &Limits,
) -> Option<Refusal> {
    let (mut of_caller, mut of_site, mut half_open, mut half_open_of_site) = (0, 0, 0, 0);
    for connection in connections {
        let other = connection.segment.caller;
        let is_of_site = site(other) == site(caller);
        let is_half_open = connection.phase == Phase::HalfOpen;
        of_caller += usize::from(other == caller);
        of_site += usize::from(is_of_site);
        half_open += usize::from(is_half_open);
        half_open_of_site += usize::from(is_half_open && is_of_site);
    }
    if of_caller >= limits.per_caller {
        Some(Refusal::CallerFull)
    } else if of_site >= limits.per_site {
        Some(Refusal::SiteFull)
    } else if half_open >= limits.half_open || half_open_of_site >= limits.half_open.div_ceil(2) {
        Some(Refusal::HalfOpenFull)
    } else {
        None
    }
}

/// The /64 of an address.
fn site(address: Ipv6Addr) -> u128 {
    address.to_bits() >> 64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(site: u16, host: u16, phase: Phase) -> Connection {
        let segment = Segment {
            caller: Ipv6Addr::new(0xfd00, 0, 0, site, 0, 0, 0, host),
            caller_port: 1000,
            to: Ipv6Addr::LOCALHOST,
            port: 80,
            is_opening: true,
        };
        Connection {
            socket: SocketHandle::default(),
            segment,
            phase,
            since: Instant::ZERO,
        }
    }

    fn check(others: &[Connection], expected: Option<Refusal>) {
        let limits = Limits {
            per_caller: 2,
            per_site: 4,
            half_open: 4,
            ..Limits::default()
        };
        let caller = connection(1, 1, Phase::Held).segment.caller;
        assert_eq!(refusal(others.iter(), caller, &limits), expected);
    }

    #[test]
    fn each_bound_has_its_reason() {
        use Phase::{HalfOpen, Held, Released};
        check(&[], None);
        check(&[connection(1, 1, Held), connection(1, 2, Held)], None);
        let own = [connection(1, 1, Held), connection(1, 1, Released)];
        check(&own, Some(Refusal::CallerFull));
        let site: Vec<_> = (2..6).map(|host| connection(1, host, Held)).collect();
        check(&site, Some(Refusal::SiteFull));
        let elsewhere: Vec<_> = (2..9).map(|host| connection(2, host, Held)).collect();
        check(&elsewhere, None);
        let waiting = [connection(1, 2, HalfOpen), connection(1, 3, HalfOpen)];
        check(&waiting, Some(Refusal::HalfOpenFull));
        let waiting: Vec<_> = (2..6).map(|host| connection(host, 1, HalfOpen)).collect();
        check(&waiting[..3], None);
        check(&waiting, Some(Refusal::HalfOpenFull));
    }
}
