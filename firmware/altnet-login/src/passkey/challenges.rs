//! Challenges that browsers were given: each is good once, for one browser on one device, for a
//! while.

use std::time::Duration;

use tokio::time::Instant;

/// How long a person may take, which is what section 15.1 of Web Authentication recommends.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// The most challenges at a time, and of one device.
const MAX_CHALLENGES: usize = 256;
const MAX_OF_ONE: usize = 4;
/// Twice what section 13.4.3 asks for.
pub const CHALLENGE_BYTES: usize = 32;

/// What a challenge is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To add a passkey to what the device is logged in by.
    Add {
        /// The device.
        device: String,
        /// Its session's number.
        number: u64,
        /// The user handle that the authenticator was told.
        user: String,
    },
    /// To log in.
    Use,
}

/// Who was given a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The browser's cookie.
    pub browser: String,
    /// The device's address.
    pub address: String,
}

/// Challenges that are open.
#[derive(Debug, Default)]
pub struct Challenges {
    all: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    challenge: [u8; CHALLENGE_BYTES],
    asker: Asker,
    purpose: Purpose,
    at: Instant,
}

impl Challenges {
    /// Makes a challenge. The oldest makes way if there are too many: the device's own first.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn begin(
        &mut self,
        asker: Asker,
        purpose: Purpose,
        now: Instant,
    ) -> Result<[u8; CHALLENGE_BYTES], getrandom::Error> {
        let mut challenge = [0; CHALLENGE_BYTES];
        getrandom::fill(&mut challenge)?;
        self.all.retain(|open| now < open.at + PATIENCE);
        let is_own = |open: &Open| open.asker.address == asker.address;
        if self.all.iter().filter(|open| is_own(open)).count() >= MAX_OF_ONE {
            let oldest = self.all.iter().position(is_own);
            oldest.map(|place| self.all.remove(place));
        } else if self.all.len() >= MAX_CHALLENGES {
            self.all.remove(0);
        }
        self.all.push(Open {
            challenge,
            asker,
            purpose,
            at: now,
        });
        Ok(challenge)
    }

    /// Takes a challenge back, for good. Nothing if it isn't this asker's or took too long.
    pub fn take(&mut self, challenge: &[u8], asker: &Asker, now: Instant) -> Option<Purpose> {
        let is_it = |open: &Open| open.challenge == challenge && open.asker == *asker;
        let place = self.all.iter().position(is_it)?;
        let open = self.all.remove(place);
        (now < open.at + PATIENCE).then_some(open.purpose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(address: &str) -> Asker {
        Asker {
            browser: "cookie".into(),
            address: address.into(),
        }
    }

    #[test]
    fn a_challenge_is_good_once_and_for_its_browser() {
        let (mut all, now) = (Challenges::default(), Instant::now());
        let challenge = all.begin(asker("a"), Purpose::Use, now).unwrap();
        assert_eq!(all.take(&challenge, &asker("b"), now), None);
        let mut other = asker("a");
        other.browser = "other".into();
        assert_eq!(all.take(&challenge, &other, now), None);
        assert_eq!(all.take(&challenge[1..], &asker("a"), now), None);
        assert_eq!(all.take(&challenge, &asker("a"), now), Some(Purpose::Use));
        assert_eq!(all.take(&challenge, &asker("a"), now), None);
    }

    #[test]
    fn a_challenge_ends() {
        let (mut all, now) = (Challenges::default(), Instant::now());
        let challenge = all.begin(asker("a"), Purpose::Use, now).unwrap();
        assert_eq!(all.take(&challenge, &asker("a"), now + PATIENCE), None);
    }

    #[test]
    fn who_asks_often_drives_nobody_else_out() {
        let (mut all, now) = (Challenges::default(), Instant::now());
        let challenge = all.begin(asker("a"), Purpose::Use, now).unwrap();
        for _ in 0..10 * MAX_CHALLENGES {
            all.begin(asker("b"), Purpose::Use, now).unwrap();
        }
        assert_eq!(all.all.len(), 1 + MAX_OF_ONE);
        assert!(all.take(&challenge, &asker("a"), now).is_some());
        for n in 0..2 * MAX_CHALLENGES {
            all.begin(asker(&n.to_string()), Purpose::Use, now).unwrap();
        }
        assert_eq!(all.all.len(), MAX_CHALLENGES);
    }
}
