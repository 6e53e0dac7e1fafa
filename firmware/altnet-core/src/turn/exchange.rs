//! One request and its repetitions (RFC 8489 section 6.2).

use altnet_wire::stun::TransactionId;
use altnet_wire::time::{Duration, Instant};

use super::Transport;

/// How long the first answer is waited for; twice as long each time (section 6.2.1).
pub const RTO: Duration = Duration::from_millis(500);
/// How often a request is sent in all.
pub const RC: u32 = 7;
/// How many RTOs the last one is waited for.
pub const RM: u32 = 16;
/// How long an answer over a stream is waited for (section 6.2.2): as long as all of that takes.
pub const TI: Duration = Duration::from_millis(39_500);

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    pub(super) transaction: TransactionId,
    sent: u32,
    /// When it is to be sent, again or at all, or given up.
    next: Instant,
    /// How often it was begun anew because its nonce was too old.
    pub(super) stale: u8,
}

impl Exchange {
    /// One that is sent at once.
    pub(super) const fn new(transaction: TransactionId, now: Instant) -> Self {
        Self {
            transaction,
            sent: 0,
            next: now,
            stale: 0,
        }
    }

    /// The same request as another transaction: its nonce was none, or too old.
    pub(super) const fn again(&mut self, transaction: TransactionId, now: Instant) {
        self.transaction = transaction;
        self.sent = 0;
        self.next = now;
        self.stale = self.stale.saturating_add(1);
    }

    /// Whether it is to be sent now; counts it if so.
    pub(super) fn take_due(&mut self, transport: Transport, now: Instant) -> bool {
        if self.next > now || self.sent >= most(transport) {
            return false;
        }
        self.sent += 1;
        let patience = match transport {
            Transport::Stream => TI,
            Transport::Datagram if self.sent == RC => RTO * RM,
            Transport::Datagram => RTO * (1 << (self.sent - 1)),
        };
        self.next = now.after(patience);
        true
    }

    /// Whether nobody will answer any more.
    pub(super) fn is_over(&self, transport: Transport, now: Instant) -> bool {
        self.sent >= most(transport) && self.next <= now
    }

    /// When something is next to be done about it.
    pub(super) const fn next(&self) -> Instant {
        self.next
    }
}

const fn most(transport: Transport) -> u32 {
    match transport {
        Transport::Datagram => RC,
        Transport::Stream => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_request_is_repeated_as_the_rfc_says_and_then_given_up() {
        for (transport, expected) in [
            (
                Transport::Datagram,
                &[0, 500, 1500, 3500, 7500, 15_500, 31_500][..],
            ),
            (Transport::Stream, &[0]),
        ] {
            let mut exchange = Exchange::new(TransactionId([0; 12]), Instant::ZERO);
            let mut sent = Vec::new();
            let mut now = Instant::ZERO;
            while !exchange.is_over(transport, now) {
                if exchange.take_due(transport, now) {
                    sent.push(now.as_micros() / 1000);
                }
                now = exchange.next();
            }
            assert_eq!(sent, expected);
            assert_eq!(now.as_micros() / 1000, 39_500);
        }
    }
}
