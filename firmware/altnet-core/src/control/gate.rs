//! What an unknown caller must pass: rates, and a cookie that proves where it is.
//!
//! The gate keeps nothing per caller. A cookie is a keyed hash of the caller's endpoint
//! and index, so it is good only where a Retry to that endpoint is read; its secret changes
//! every two minutes and the one before is still taken (after WireGuard whitepaper section
//! 5.4.7 and RFC 9000 section 8.1.2).

use core::net::IpAddr;

use altnet_wire::control::{COOKIE_BYTES, Pattern};
use altnet_wire::endpoint::Endpoint;
use altnet_wire::hash;
use altnet_wire::time::{Duration, Instant};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::ControlLimits;
use super::handshakes::Caller;
use crate::rng::Rng;

/// A secret makes cookies for this long and takes them for twice as long.
const SECRET_LIFE: Duration = Duration::from_secs(120);

/// What is to be done with an Init.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Read it.
    Pass,
    /// Ask for it again with this cookie.
    Retry([u8; COOKIE_BYTES]),
    /// Drop it.
    Drop,
}

/// The gate.
pub(super) struct Gate {
    newer: Zeroizing<[u8; 32]>,
    older: Zeroizing<[u8; 32]>,
    made: Instant,
    handshakes: Bucket,
    strangers: Bucket,
    proven: Bucket,
}

impl Gate {
    pub(super) fn new(limits: &ControlLimits, rng: &mut Rng) -> Self {
        Self {
            newer: Zeroizing::new(rng.array()),
            older: Zeroizing::new(rng.array()),
            made: Instant::ZERO,
            handshakes: Bucket::new(limits.handshakes_per_s),
            strangers: Bucket::new(limits.strangers_per_s),
            proven: Bucket::new(limits.proven_handshakes_per_s),
        }
    }

    /// Judges an Init. `crowded` says that a cookie is needed whatever the rate.
    pub(super) fn judge(
        &mut self,
        caller: &Caller<'_>,
        cookie: &[u8; COOKIE_BYTES],
        crowded: bool,
        rng: &mut Rng,
        now: Instant,
    ) -> Judgement {
        self.turn(rng, now);
        let Caller { from, peer, .. } = caller;
        if self.is_good(from, *peer, cookie) {
            return if self.proven.take(now) {
                Judgement::Pass
            } else {
                Judgement::Drop
            };
        }
        let is_free = !crowded
            && (caller.pattern == Pattern::Ik || self.strangers.take(now))
            && self.handshakes.take(now);
        if is_free {
            Judgement::Pass
        } else {
            Judgement::Retry(bake(&self.newer, from, *peer))
        }
    }

    fn turn(&mut self, rng: &mut Rng, now: Instant) {
        let age = now.saturating_since(self.made);
        if age < SECRET_LIFE {
            return;
        }
        let fresh = Zeroizing::new(rng.array());
        self.older = core::mem::replace(&mut self.newer, fresh);
        if age >= SECRET_LIFE * 2 {
            self.older = Zeroizing::new(rng.array());
        }
        self.made = now;
    }

    fn is_good(&self, from: &Endpoint, sender: u32, cookie: &[u8; COOKIE_BYTES]) -> bool {
        let newer = bake(&self.newer, from, sender).ct_eq(cookie);
        let older = bake(&self.older, from, sender).ct_eq(cookie);
        (newer | older).into()
    }
}

fn bake(secret: &[u8; 32], from: &Endpoint, sender: u32) -> [u8; COOKIE_BYTES] {
    let sender = sender.to_le_bytes();
    let label = "altnet control cookie v1";
    let hash = match from {
        Endpoint::Direct(address) => {
            let port = address.port().to_le_bytes();
            match address.ip() {
                IpAddr::V4(ip) => {
                    hash::labelled(label, &[secret, &sender, &[4], &port, &ip.octets()])
                }
                IpAddr::V6(ip) => {
                    hash::labelled(label, &[secret, &sender, &[6], &port, &ip.octets()])
                }
            }
        }
        Endpoint::Relayed { relay, node } => {
            hash::labelled(label, &[secret, &sender, &[1], &relay.0, &node.0])
        }
    };
    let mut cookie = [0; COOKIE_BYTES];
    for (to, from) in cookie.iter_mut().zip(hash) {
        *to = from;
    }
    cookie
}

/// A token bucket: `per_s` tokens come in a second, as many fit in.
struct Bucket {
    per_s: u32,
    /// In millionths of a token.
    level: u64,
    filled: Instant,
}

const TOKEN: u64 = 1_000_000;

impl Bucket {
    fn new(per_s: u32) -> Self {
        Self {
            per_s,
            level: u64::from(per_s) * TOKEN,
            filled: Instant::ZERO,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_since(self.filled);
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let full = u64::from(self.per_s) * TOKEN;
        let gained = elapsed_us.saturating_mul(self.per_s.into());
        self.level = self.level.saturating_add(gained).min(full);
        self.filled = self.filled.max(now);
        match self.level.checked_sub(TOKEN) {
            Some(left) => {
                self.level = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    fn place(port: u16) -> Endpoint {
        Endpoint::Direct(([192, 0, 2, 1], port).into())
    }

    fn caller(port: u16, pattern: Pattern, peer: u32) -> Caller<'static> {
        let (noise, from) = (&[][..], place(port));
        Caller {
            pattern,
            peer,
            noise,
            from,
        }
    }

    #[test]
    fn a_cookie_is_good_at_its_endpoint_for_its_index_and_for_its_time() {
        let mut rng = Rng::new([1; 32]);
        let mut gate = Gate::new(&ControlLimits::ROUTER, &mut rng);
        let mut judge = |port, sender, cookie: &[u8; 16], now| {
            let caller = caller(port, Pattern::Xx, sender);
            gate.judge(&caller, cookie, true, &mut rng, at(now))
        };
        let Judgement::Retry(cookie) = judge(1, 7, &[0; 16], 130) else {
            panic!("no retry");
        };
        assert_eq!(judge(1, 7, &cookie, 131), Judgement::Pass);
        assert!(matches!(judge(2, 7, &cookie, 131), Judgement::Retry(_)));
        assert!(matches!(judge(1, 8, &cookie, 131), Judgement::Retry(_)));
        assert_eq!(judge(1, 7, &cookie, 251), Judgement::Pass);
        assert!(matches!(judge(1, 7, &cookie, 372), Judgement::Retry(_)));
    }

    #[test]
    fn strangers_past_their_rate_are_asked_for_a_cookie_and_members_are_not() {
        let mut rng = Rng::new([1; 32]);
        let limits = ControlLimits::ROUTER;
        let mut gate = Gate::new(&limits, &mut rng);
        let mut judge = |pattern, now| {
            let caller = caller(1, pattern, 7);
            gate.judge(&caller, &[0; 16], false, &mut rng, at(now))
        };
        for _ in 0..limits.strangers_per_s {
            assert_eq!(judge(Pattern::Xx, 1), Judgement::Pass);
        }
        assert!(matches!(judge(Pattern::Xx, 1), Judgement::Retry(_)));
        assert_eq!(judge(Pattern::Ik, 1), Judgement::Pass);
        assert_eq!(judge(Pattern::Xx, 2), Judgement::Pass);
    }

    #[test]
    fn even_proven_callers_have_a_rate() {
        let mut rng = Rng::new([1; 32]);
        let limits = ControlLimits::MICRO;
        let mut gate = Gate::new(&limits, &mut rng);
        let cookie = bake(&gate.newer, &place(1), 7);
        let caller = caller(1, Pattern::Ik, 7);
        let mut judge = || gate.judge(&caller, &cookie, true, &mut rng, at(1));
        for _ in 0..limits.proven_handshakes_per_s {
            assert_eq!(judge(), Judgement::Pass);
        }
        assert_eq!(judge(), Judgement::Drop);
    }
}
