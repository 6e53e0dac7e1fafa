//! What happens when nothing happens.

use altnet_wire::time::Instant;

use super::Engine;
use super::api::PeerIndex;
use super::peer::{REKEY_ATTEMPT_TIME, REPEAT_AFTER, Timer};
use crate::aead::Aead;

impl<A: Aead> Engine<A> {
    /// Looks at the timers. Early calls are harmless and cheap.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.earliest {
            return;
        }
        // Deadlines only move `earliest` down; here it is found anew.
        self.earliest = Instant::NEVER;
        for at in 0..self.peers.len() {
            let index = PeerIndex(at as u16);
            self.fire(index, now);
            self.note_ready(index);
        }
    }

    fn fire(&mut self, index: PeerIndex, now: Instant) {
        let Some(Some(peer)) = self.peers.get_mut(usize::from(index.0)) else {
            return;
        };
        if peer.deadline() > now {
            return;
        }
        if peer.take_due(Timer::Keepalive, now) {
            peer.keepalive_due(now);
        }
        if peer.take_due(Timer::Silence, now) {
            peer.ask(now);
        }
        if peer.take_due(Timer::Persistent, now) {
            peer.wants.keepalive = true;
            if let Some(every) = peer.persistent {
                peer.set(Timer::Persistent, now.after(every));
            }
        }
        if peer.take_due(Timer::Retransmit, now) {
            let is_late = |since| now.saturating_since(since) >= REKEY_ATTEMPT_TIME;
            if peer.asking_since.is_none_or(is_late) {
                self.give_up(index);
            } else {
                peer.waits_for_stamp = false;
                peer.wants.initiation = true;
            }
        }
        if let Some(peer) = self.peer_mut(index)
            && peer.take_due(Timer::Repeat, now)
            && peer.shaking.is_some()
        {
            peer.wants.repetition = true;
            if let Some(last) = peer
                .last_initiation
                .filter(|last| now < last.after(REPEAT_AFTER * 2))
            {
                peer.set(Timer::Repeat, last.after(REPEAT_AFTER * 3));
            }
        }
        let Some(Some(peer)) = self.peers.get_mut(usize::from(index.0)) else {
            return;
        };
        if peer.take_due(Timer::Expire, now) {
            let indices = &mut self.indices;
            peer.expire(now, |index| indices.remove(index));
        }
    }

    /// Nobody answered: what waited is dropped, until somebody wants to send again.
    fn give_up(&mut self, index: PeerIndex) {
        let Some(Some(peer)) = self.peers.get_mut(usize::from(index.0)) else {
            return;
        };
        peer.news.failed = peer.asking_since.is_some();
        peer.stop_asking();
        let shaking = peer.shaking.take();
        if let Some(shaking) = shaking {
            self.indices.remove(shaking.index);
        }
        self.queue.forget(index);
    }
}
