//! What an app counts, for metrics.

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The caller's address has all the connections it may have.
    CallerFull,
    /// The caller's site has.
    SiteFull,
    /// The app has.
    AppFull,
    /// Too many callers have not finished their handshake. The caller tries again by itself.
    HalfOpenFull,
    /// The target refused, or can't be found.
    TargetRefused,
    /// The target did not answer in time.
    TargetSilent,
    /// A request that isn't HTTP as it should be.
    BadRequest,
    /// Nobody has the caller's address.
    Stranger,
    /// There is no certificate, or nothing that could use it.
    NoTls,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::CallerFull,
        Self::SiteFull,
        Self::AppFull,
        Self::HalfOpenFull,
        Self::TargetRefused,
        Self::TargetSilent,
        Self::BadRequest,
        Self::Stranger,
        Self::NoTls,
    ];

    /// Its word in metrics.
    pub fn id(self) -> &'static str {
        match self {
            Self::CallerFull => "caller-full",
            Self::SiteFull => "site-full",
            Self::AppFull => "app-full",
            Self::HalfOpenFull => "half-open-full",
            Self::TargetRefused => "target-refused",
            Self::TargetSilent => "target-silent",
            Self::BadRequest => "bad-request",
            Self::Stranger => "stranger",
            Self::NoTls => "no-tls",
        }
    }
}

/// An app's counters since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections now, half-open ones included; not those that wait in TIME-WAIT alone.
    pub connections: u32,
    /// Connections whose handshake was finished.
    pub accepted: u64,
    /// Requests of HTTP apps that reached the target.
    pub requests: u64,
    /// Connections that were ended because no byte passed for too long.
    pub idle: u64,
    /// Packets dropped: not for the app, nothing it answers, or more than it takes.
    pub dropped: u64,
    /// Bytes from callers.
    pub received_bytes: u64,
    /// Bytes to callers.
    pub sent_bytes: u64,
    pub(super) refused: [u64; Refusal::ALL.len()],
}

impl Stats {
    /// How often something was refused for this reason.
    pub fn refused(&self, why: Refusal) -> u64 {
        self.refused[why as usize]
    }

    pub(super) fn refuse(&mut self, why: Refusal) {
        self.refused[why as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_apart() {
        let mut stats = Stats::default();
        for (i, why) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, i);
            for _ in 0..=i {
                stats.refuse(why);
            }
        }
        for (n, why) in (1..).zip(Refusal::ALL) {
            assert_eq!(stats.refused(why), n, "{}", why.id());
        }
    }
}
