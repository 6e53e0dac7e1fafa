//! A disk for tests, and a log on it.

use std::collections::BTreeMap;
use std::vec::Vec;

use altnet_wire::audit::{AuditHead, Testimony};
use altnet_wire::hash::Hash;
use altnet_wire::id::{NetworkId, SigningKey};
use altnet_wire::time::{Instant, UnixTime};

use super::super::entry::{Fact, Kind};
use super::super::proof::{Witnessed, halves};
use super::super::segment::{Link, resume};
use super::{Limits, Log, Output};
use crate::clock::Estimate;
use crate::records::SigningSecret;

/// What the clock says in tests.
pub const CLOCK: Estimate = Estimate::Running(UnixTime::from_secs(1_795_000_000));

/// Segment files by their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub files: BTreeMap<u64, Vec<u8>>,
    pub appends: u64,
}

impl Disk {
    /// Does what the log says until it waits; returns the links that came, and until when.
    pub fn drain(&mut self, log: &mut Log, now: Instant) -> (Vec<Link>, Instant) {
        let mut links = Vec::new();
        loop {
            match log.poll_output(now) {
                Output::Append {
                    segment,
                    offset,
                    bytes,
                } => {
                    self.appends += 1;
                    self.write(segment, offset, &bytes);
                    log.handle_appended(true, now);
                }
                Output::Remove { segment } => {
                    self.files.remove(&segment);
                }
                Output::Synced(link) => links.push(link),
                Output::Wait(until) => return (links, until),
            }
        }
    }

    pub fn write(&mut self, segment: u64, offset: u32, bytes: &[u8]) {
        let file = self.files.entry(segment).or_default();
        assert!(file.len() >= offset as usize, "a hole");
        file.truncate(offset as usize);
        file.extend_from_slice(bytes);
    }

    pub fn bytes(&self) -> usize {
        self.files.values().map(Vec::len).sum()
    }

    /// A log that goes on from what is here, as a driver makes it.
    pub fn open(&mut self, limits: Limits, now: Instant) -> Log {
        let mut tail = None;
        while let Some((segment, bytes)) = self.files.last_key_value() {
            tail = resume(bytes, &mut |_| {});
            if tail.is_some() {
                break;
            }
            let segment = *segment;
            self.files.remove(&segment);
        }
        let sizes = self
            .files
            .iter()
            .map(|(at, bytes)| (*at, bytes.len() as u32));
        Log::new(limits, sizes, tail, CLOCK, now)
    }

    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.files.values().map(Vec::as_slice)
    }
}

/// A fact that differs from every other.
pub fn fact(number: u64) -> Fact {
    Fact::new(Kind::ACT)
        .about(format_args!("user {}", number % 3))
        .detail(format_args!("did {number}"))
}

/// The segments of a log with so many entries.
pub fn written(entries: u64, segment_bytes: u32) -> Vec<(u64, Vec<u8>)> {
    let limits = Limits {
        segment_bytes,
        ..Limits::ROUTER
    };
    let mut disk = Disk::default();
    let mut log = disk.open(limits, Instant::ZERO);
    for number in 0..entries {
        log.record(fact(number), CLOCK, Instant::ZERO);
        disk.drain(&mut log, Instant::ZERO);
    }
    disk.files.into_iter().collect()
}

/// What a witness says of a log whose hash it was shown as `hash`.
pub fn testify(log: &Log, witness: &SigningSecret, hash: Hash) -> Fact {
    let (network, device) = (NetworkId([1; 32]), SigningKey([2; 32]));
    let head = AuditHead {
        sequence: log.end().sequence,
        hash,
        time: UnixTime::EPOCH,
    };
    let (since, at, key) = (1, UnixTime::from_secs(9), witness.public());
    let proof = Testimony::proof(&network, &device, &head, since, at, &key);
    Fact::new(Kind::WITNESSED)
        .about("house-b")
        .proof(&Witnessed {
            network,
            device,
            head,
            witness: key,
            testimony: Testimony {
                since,
                at,
                signature: halves(&witness.sign(&proof)),
            },
        })
}
