//! How often one address may be challenged, whoever named it.
//!
//! A member can claim any address for itself. Without a bound over all peers, many members
//! naming one victim would make every gateway of a network knock at it.

use core::net::IpAddr;

use altnet_wire::time::{Duration, Instant};
use heapless::Vec;

/// Challenges to one address in a [`WINDOW`], all peers together.
pub const PER_DESTINATION: u8 = 24;
/// The time over which they are counted.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Destinations remembered; challenges to further ones wait.
const DESTINATIONS: usize = 128;

#[derive(Clone, Copy, Debug)]
struct Spent {
    destination: IpAddr,
    count: u8,
    since: Instant,
}

/// What was spent of late.
#[derive(Clone, Debug, Default)]
pub struct ProbeBudget {
    spent: Vec<Spent, DESTINATIONS>,
}

impl ProbeBudget {
    /// Nothing spent yet.
    pub const fn new() -> Self {
        Self { spent: Vec::new() }
    }

    /// Whether `destination` may be challenged once more now; counts it if so.
    pub fn take(&mut self, destination: IpAddr, now: Instant) -> bool {
        self.spent
            .retain(|spent| now.saturating_since(spent.since) < WINDOW);
        match self.spent.iter_mut().find(|s| s.destination == destination) {
            Some(spent) if spent.count < PER_DESTINATION => {
                spent.count += 1;
                true
            }
            Some(_) => false,
            None => self
                .spent
                .push(Spent {
                    destination,
                    count: 1,
                    since: now,
                })
                .is_ok(),
        }
    }

    /// Gives back what was spent on an address that has answered: it is nobody's victim.
    pub fn answered(&mut self, destination: IpAddr) {
        self.spent.retain(|spent| spent.destination != destination);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn one_destination_is_challenged_so_often_and_no_more() {
        let mut budget = ProbeBudget::new();
        let taken = (0..100)
            .filter(|_| budget.take(ip(1), Instant::ZERO))
            .count();
        assert_eq!(taken, usize::from(PER_DESTINATION));
        assert!(budget.take(ip(2), Instant::ZERO));
        assert!(budget.take(ip(1), Instant::ZERO.after(WINDOW)));
    }

    #[test]
    fn an_answer_gives_back_what_was_spent() {
        let mut budget = ProbeBudget::new();
        while budget.take(ip(1), Instant::ZERO) {}
        budget.answered(ip(1));
        assert!(budget.take(ip(1), Instant::ZERO));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut budget = ProbeBudget::new();
        let taken = (0..=255)
            .filter(|n| budget.take(ip(*n), Instant::ZERO))
            .count();
        assert_eq!(taken, DESTINATIONS);
    }
}
