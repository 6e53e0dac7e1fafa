//! Which addresses of a peer there are to try: what it names, what others say, and what gives way.

use core::net::SocketAddr;

use altnet_wire::endpoint::Endpoint;
use altnet_wire::message::{Candidate, CandidateKind};
use altnet_wire::time::Instant;

use super::direct::Direct;
use super::{HINTS, Path};

impl Path {
    /// Takes the peer's candidates: new ones are tried, ones no longer named are forgotten
    /// unless they are alive, or in use and proven, or the peer was heard from there of late.
    pub fn set_candidates(&mut self, candidates: &[Candidate], now: Instant) {
        let used = self.current.filter(|_| self.proven);
        for direct in &mut self.directs {
            let is_named = candidates.iter().any(|c| c.address == direct.address);
            if direct.named && !is_named {
                // It was the peer's, and isn't any more.
                direct.alive = false;
            }
            direct.named = is_named;
        }
        self.directs.retain(|d| {
            d.alive
                || d.is_heard(now)
                || used == Some(Endpoint::Direct(d.address))
                || candidates.iter().any(|c| c.address == d.address)
        });
        for candidate in candidates {
            self.make_room_for(candidate.address);
            self.add(candidate.address, candidate.kind, now);
            let mut directs = self.directs.iter_mut();
            if let Some(added) = directs.find(|d| d.address == candidate.address) {
                added.named = true;
            }
        }
        self.choose(now);
    }

    /// Takes what somebody else says of the peer: two addresses at most, in place of those
    /// said before.
    pub fn hint(&mut self, candidates: &[Candidate], now: Instant) {
        self.directs.retain(|d| !d.hint || d.is_proven());
        let mut room = HINTS;
        for candidate in candidates {
            let is_known = self.directs.iter().any(|d| d.address == candidate.address);
            if is_known || room == 0 {
                continue;
            }
            let mut direct = Direct::new(candidate.address, candidate.kind, now);
            direct.hint = true;
            // What the peer itself said doesn't give way.
            if self.directs.push(direct).is_ok() {
                room -= 1;
            }
        }
        self.choose(now);
    }

    /// Takes one more candidate, if there is room.
    pub fn add_candidate(&mut self, candidate: Candidate, now: Instant) {
        self.add(candidate.address, candidate.kind, now);
        self.choose(now);
    }

    /// Of what the peer no longer names the address gives way that was heard from least lately: what
    /// it names now is worth more.
    fn make_room_for(&mut self, address: SocketAddr) {
        if !self.directs.is_full() || self.directs.iter().any(|d| d.address == address) {
            return;
        }
        let used = self.current;
        let old = self.directs.iter().enumerate();
        let old = old.filter(|(_, d)| !d.named && used != Some(Endpoint::Direct(d.address)));
        if let Some((at, _)) = old.min_by_key(|(_, d)| (d.alive, d.heard)) {
            self.directs.remove(at);
        }
    }

    pub(super) fn add(&mut self, address: SocketAddr, kind: CandidateKind, now: Instant) {
        match self.directs.iter_mut().find(|d| d.address == address) {
            Some(known) => {
                known.kind = kind;
                known.hint = false;
                if !known.alive && now.saturating_since(known.tried) >= self.pace.rest {
                    // Named again: the peer may just have opened its side of a NAT.
                    known.unanswered = 0;
                    known.next_probe = known.next_probe.min(now);
                }
            }
            None => {
                let direct = Direct::new(address, kind, now);
                if let Err(direct) = self.directs.push(direct) {
                    // Full: the one that is dead the longest makes room.
                    if let Some(slot) = self
                        .directs
                        .iter_mut()
                        .filter(|d| !d.alive)
                        .max_by_key(|d| (!d.is_proven(), d.unanswered))
                    {
                        *slot = direct;
                    }
                }
            }
        }
    }

    /// An address that was told turns out to be none of the peer's own. Whether a round trip to it
    /// was seen.
    pub fn drop_direct(&mut self, address: SocketAddr, now: Instant) -> bool {
        let was_proven = self.is_proven_at(address);
        self.directs.retain(|d| d.address != address);
        self.choose(now);
        was_proven
    }
}
