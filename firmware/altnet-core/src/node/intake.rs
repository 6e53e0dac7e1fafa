//! Taking records in: whole or not at all each, at a bounded rate, in whatever order they come.
//!
//! Records prove themselves, so it doesn't matter who carries them; but verifying costs time
//! and keeping costs flash. A directory has judged what it hands on. Everybody else may bring
//! what is new, and replace what a device said of itself only so often.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use altnet_tunnel::aead::Aead;
use altnet_wire::envelope::{Envelope, RecordKind};
use altnet_wire::id::SigningKey;
use altnet_wire::message::Packed;
use altnet_wire::record::{self, AppRecord, HostRecord, Invite};
use altnet_wire::time::{Duration, Instant};
use altnet_wire::tls::TlsRequest;

use super::Node;
use crate::registry::{RecordError, Registry, Slot as RecordSlot};

/// Records that may wait for what they rest on.
const WAITING: usize = 64;
/// Replacements one device may make at once of what it said before.
const DEVICE_BURST: u32 = 32;
/// One more after each of these.
const DEVICE_EVERY: Duration = Duration::from_secs(30);
/// Records all strangers together may bring at once.
const STRANGER_BURST: u32 = 512;
/// One more after each of these.
const STRANGER_EVERY: Duration = Duration::from_millis(125);

/// Who brings records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// A directory that this node follows, or asked.
    Directory,
    /// Another member, or an owner's computer.
    Member,
    /// Anybody.
    Stranger,
}

/// So many at once, one more every so often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    tokens: u32,
    filled: Instant,
}

impl Bucket {
    pub(super) const fn full(burst: u32, now: Instant) -> Self {
        Self {
            tokens: burst,
            filled: now,
        }
    }

    pub(super) fn take(&mut self, burst: u32, every: Duration, now: Instant) -> bool {
        let passed = now.saturating_since(self.filled).as_micros();
        let new = passed / every.as_micros().max(1);
        if new > 0 {
            let new = u32::try_from(new).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(new).min(burst);
            self.filled = now;
        }
        let left = self.tokens.checked_sub(1);
        self.tokens = left.unwrap_or(0);
        left.is_some()
    }
}

/// What is remembered between records.
#[derive(Debug)]
pub(super) struct Intake {
    waiting: VecDeque<Vec<u8>>,
    devices: BTreeMap<SigningKey, Bucket>,
    strangers: Bucket,
}

impl Intake {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            waiting: VecDeque::new(),
            devices: BTreeMap::new(),
            strangers: Bucket::full(STRANGER_BURST, now),
        }
    }

    /// Whether a record may be looked at, judged by what it would cost.
    fn admits(
        &mut self,
        bytes: &[u8],
        carrier: Carrier,
        registry: &Registry,
        now: Instant,
    ) -> bool {
        if carrier == Carrier::Directory {
            return true;
        }
        let Ok(envelope) = Envelope::parse(bytes) else {
            return false;
        };
        let held = replaced(&envelope, registry);
        if held == Some(bytes) {
            return true;
        }
        if carrier == Carrier::Stranger && !self.strangers.take(STRANGER_BURST, STRANGER_EVERY, now)
        {
            return false;
        }
        let (kind, signer) = (envelope.header().kind, envelope.header().signer);
        // A member may go on making invites, in the place of those that ended.
        let is_members_invite = kind == RecordKind::INVITE && registry.is_device_key(&signer);
        if held.is_none() && !is_members_invite {
            return true;
        }
        let most = usize::from(registry.limits().members);
        if self.devices.len() >= most && !self.devices.contains_key(&signer) {
            self.devices
                .retain(|_, b| now.saturating_since(b.filled) < DEVICE_EVERY * DEVICE_BURST);
            if self.devices.len() >= most {
                return false;
            }
        }
        self.devices
            .entry(signer)
            .or_insert_with(|| Bucket::full(DEVICE_BURST, now))
            .take(DEVICE_BURST, DEVICE_EVERY, now)
    }

    fn wait(&mut self, bytes: &[u8]) {
        if self.waiting.iter().any(|held| held == bytes) {
            return;
        }
        if self.waiting.len() >= WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(bytes.into());
    }
}

/// What a device, or of an invite anybody, said before in the place of this record.
fn replaced<'r>(envelope: &Envelope<'_>, registry: &'r Registry) -> Option<&'r [u8]> {
    let slot = match envelope.header().kind {
        RecordKind::NODE => RecordSlot::node(envelope.header().signer),
        RecordKind::DERP => RecordSlot::derp(envelope.header().signer),
        RecordKind::HOST => {
            let body: HostRecord = record::decode(envelope.body()).ok()?;
            RecordSlot::host(body.site, &body.name)
        }
        RecordKind::APP => {
            let body: AppRecord = record::decode(envelope.body()).ok()?;
            RecordSlot::app(body.app)
        }
        RecordKind::TLS_REQUEST => {
            let body: TlsRequest = record::decode(envelope.body()).ok()?;
            RecordSlot::tls_request(body.subject(&envelope.header().signer))
        }
        RecordKind::INVITE => {
            let body: Invite = record::decode(envelope.body()).ok()?;
            RecordSlot::invite(body.invite)
        }
        _ => return None,
    };
    registry.bytes(&slot)
}

impl<A: Aead> Node<A> {
    /// Takes records in. Returns how many are held now, and how many were refused.
    pub(super) fn take_records(
        &mut self,
        packed: &[u8],
        carrier: Carrier,
        now: Instant,
    ) -> (u16, u16) {
        let Some(network) = &mut self.network else {
            return (0, 0);
        };
        let registry = &mut network.registry;
        let before = registry.revision();
        let (mut held, mut refused) = (0u16, 0u16);
        let mut admitted = Vec::new();
        for record in Packed(packed) {
            if self.intake.admits(record, carrier, registry, now) {
                admitted.push(record);
            } else {
                refused = refused.saturating_add(1);
            }
        }
        registry.apply_all(admitted.iter().copied(), &mut self.clock);
        for record in admitted {
            match registry.apply(record, &mut self.clock) {
                Ok(_) => held = held.saturating_add(1),
                Err(error) => {
                    refused = refused.saturating_add(1);
                    if matches!(error, RecordError::Missing(_)) && carrier != Carrier::Stranger {
                        // Pages are cut anywhere: what this one rests on may be on the next.
                        self.intake.wait(record);
                    }
                }
            }
        }
        if registry.revision() == before {
            return (held, refused);
        }
        if !self.intake.waiting.is_empty() {
            let waiting = core::mem::take(&mut self.intake.waiting);
            registry.apply_all(waiting.iter().map(Vec::as_slice), &mut self.clock);
            for record in waiting {
                let applied = registry.apply(&record, &mut self.clock);
                if matches!(applied, Err(RecordError::Missing(_))) {
                    self.intake.waiting.push_back(record);
                }
            }
        }
        self.records_changed(before, now);
        self.say_hosts_again(now);
        (held, refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::ZERO;
        let mut bucket = Bucket::full(3, start);
        let every = Duration::from_secs(1);
        let taken = (0..10).filter(|_| bucket.take(3, every, start)).count();
        assert_eq!(taken, 3);
        assert!(bucket.take(3, every, start.after(every)));
        assert!(!bucket.take(3, every, start.after(every)));
        let later = start.after(every * 100);
        let taken = (0..10).filter(|_| bucket.take(3, every, later)).count();
        assert_eq!(taken, 3);
    }
}
