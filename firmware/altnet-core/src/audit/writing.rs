//! The log as a machine: facts go in, bytes to append come out.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use altnet_wire::time::{Duration, Instant};

use super::entry::{Entry, Fact, Kind, MAX_ENTRY_BYTES, Weight};
use super::segment::{
    self, End, HEADER_BYTES, Header, Link, MAX_APPEND_BYTES, MAX_FRAME_BYTES, Tail,
};
use super::tally::Tally;
use crate::clock::Estimate;

/// How long what is not urgent may wait for company: flash is written in pages.
const PATIENCE: Duration = Duration::from_secs(600);
/// As much is written without waiting longer.
const PAGE_BYTES: usize = 4096;
/// How long after a write that failed it is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// What waits for a disk that does not write; what comes then is counted as lost.
const MAX_WAITING_BYTES: usize = 32 * 1024;

/// How large a log may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All segment files together, in bytes.
    pub max_bytes: u32,
    /// One segment file, in bytes: what is given up at a time.
    pub segment_bytes: u32,
    /// Things others cause that are told apart.
    pub rows: usize,
}

impl Limits {
    /// The least that a log makes sense with, in bytes.
    pub const LEAST_BYTES: u32 = 64 * 1024;
    /// A router: 8 MiB.
    pub const ROUTER: Self = Self::of(8 << 20);

    /// For so many bytes of storage, no less than [`Self::LEAST_BYTES`]: a sixteenth of it is
    /// given up at a time, and no more than 512 KiB.
    pub const fn of(max_bytes: u32) -> Self {
        let max_bytes = if max_bytes < Self::LEAST_BYTES {
            Self::LEAST_BYTES
        } else {
            max_bytes
        };
        let part = max_bytes / 16;
        let segment_bytes = if part > 512 << 10 {
            512 << 10
        } else if part < 16 << 10 {
            16 << 10
        } else {
            part
        };
        Self {
            max_bytes,
            segment_bytes,
            rows: if max_bytes < 1 << 20 { 8 } else { 32 },
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Output {
    /// Cut the file of `segment` to `offset` bytes, or make it; write `bytes` there; sync it, and
    /// its name if it is new; then [`Log::handle_appended`].
    Append {
        /// The segment, by the number of its first entry.
        segment: u64,
        /// Where, in bytes.
        offset: u32,
        /// What.
        bytes: Vec<u8>,
    },
    /// Remove the file of `segment`. That it is gone need not be synced.
    Remove {
        /// The segment.
        segment: u64,
    },
    /// An entry is on disk: a head may be shown that has it.
    Synced(Link),
    /// Sleep until something happens, or until this moment; then ask again.
    Wait(Instant),
}

/// An append that is under way.
#[derive(Debug)]
struct Flight {
    segment: u64,
    offset: u32,
    bytes: Vec<u8>,
    links: usize,
    is_offered: bool,
}

/// One device's audit log, as far as it is not on disk.
#[derive(Debug)]
pub struct Log {
    limits: Limits,
    end: End,
    /// Where the chain stood before what waits.
    written: End,
    segments: VecDeque<(u64, u32)>,
    /// Whether the next append begins a segment whatever room there is.
    is_parted: bool,
    waiting: VecDeque<u8>,
    links: VecDeque<(Link, usize)>,
    flight: Option<Flight>,
    synced: VecDeque<Link>,
    removed: VecDeque<u64>,
    is_urgent: bool,
    flush_at: Instant,
    retry_at: Instant,
    lost: u64,
    refusals: Tally,
    arrivals: Tally,
}

impl Log {
    /// Goes on from `segments`, each with its size in bytes, in order, and the last one's `tail`
    /// ([`segment::resume`]); begins anew if there are none.
    pub fn new(
        limits: Limits,
        segments: impl IntoIterator<Item = (u64, u32)>,
        tail: Option<Tail>,
        clock: Estimate,
        now: Instant,
    ) -> Self {
        let end = tail.map(|tail| tail.end).unwrap_or_default();
        let mut log = Self {
            limits,
            end,
            written: end,
            segments: segments.into_iter().collect(),
            is_parted: false,
            waiting: VecDeque::new(),
            links: VecDeque::new(),
            flight: None,
            synced: VecDeque::new(),
            removed: VecDeque::new(),
            is_urgent: false,
            flush_at: Instant::NEVER,
            retry_at: Instant::ZERO,
            lost: 0,
            refusals: Tally::new(limits.rows, now),
            arrivals: Tally::new(limits.rows, now),
        };
        if let Some(tail) = tail {
            log.mend(&tail, clock, now);
        }
        log
    }

    fn mend(&mut self, tail: &Tail, clock: Estimate, now: Instant) {
        if let Some(stray) = tail.stray {
            // What is there stays for whoever looks into it.
            self.is_parted = true;
            self.end.sequence = stray.max(self.end.sequence);
            self.written = self.end;
            let fact = Fact::new(Kind::BROKEN).detail(format_args!(
                "entries after {} do not fit those before; they are left as they are",
                tail.end.sequence
            ));
            self.record(fact, clock, now);
        } else if tail.torn_bytes > 0 {
            if let Some((_, bytes)) = self.segments.back_mut() {
                *bytes = tail.whole_bytes;
            }
            let fact = Fact::new(Kind::REPAIRED).detail(format_args!(
                "{} bytes after entry {} were no whole entry",
                tail.torn_bytes, tail.end.sequence
            ));
            self.record(fact, clock, now);
        }
    }

    /// Where the log has come to, what is on its way to disk included.
    pub const fn end(&self) -> End {
        self.end
    }

    /// Takes note of a fact.
    pub fn record(&mut self, fact: Fact, clock: Estimate, now: Instant) {
        match fact.kind.weight() {
            Weight::Refusal => self.refusals.count(fact, now),
            Weight::Arrival | Weight::Alarm => self.arrivals.count(fact, now),
            Weight::Prompt | Weight::Slow => self.append(fact, clock, now),
        }
        self.write_counted(clock, now);
    }

    /// Writes what was counted long enough.
    pub fn handle_timeout(&mut self, clock: Estimate, now: Instant) {
        self.write_counted(clock, now);
    }

    fn write_counted(&mut self, clock: Estimate, now: Instant) {
        while let Some(fact) = self.refusals.poll(now) {
            self.append(fact, clock, now);
        }
        while let Some(fact) = self.arrivals.poll(now) {
            self.append(fact, clock, now);
        }
    }

    /// Has everything written without waiting for company.
    pub const fn flush(&mut self) {
        self.is_urgent = true;
    }

    /// Whether something is not on disk yet.
    pub fn is_pending(&self) -> bool {
        self.flight.is_some() || !self.links.is_empty()
    }

    fn append(&mut self, fact: Fact, clock: Estimate, now: Instant) {
        if self.waiting.len() + 2 * MAX_FRAME_BYTES > MAX_WAITING_BYTES {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        if self.lost > 0 {
            let lost = Fact::new(Kind::LOST)
                .detail("the disk did not write")
                .times(core::mem::take(&mut self.lost));
            self.frame(lost, clock);
        }
        self.is_urgent |= matches!(fact.kind.weight(), Weight::Prompt | Weight::Alarm);
        self.flush_at = self.flush_at.min(now.after(PATIENCE));
        self.frame(fact, clock);
    }

    fn frame(&mut self, fact: Fact, clock: Estimate) {
        let entry = Entry {
            sequence: self.end.sequence.saturating_add(1),
            time: clock.time(),
            is_time_known: matches!(clock, Estimate::Running(_)),
            kind: fact.kind,
            subject: fact.subject,
            detail: fact.detail,
            count: fact.count,
            proof: fact.proof,
        };
        let mut room = [0; MAX_ENTRY_BYTES];
        let bytes = entry.encode(&mut room);
        let link = self.end.then(bytes, entry.kind == Kind::WITNESSED);
        let mut framed = Vec::with_capacity(MAX_FRAME_BYTES);
        segment::put(bytes, &link, &mut framed);
        self.links.push_back((link, framed.len()));
        self.waiting.extend(framed);
        self.end = link.into();
    }

    /// The next thing to do. Drained after every input until it says [`Output::Wait`].
    pub fn poll_output(&mut self, now: Instant) -> Output {
        if let Some(link) = self.synced.pop_front() {
            return Output::Synced(link);
        }
        if self.flight.is_none() && self.is_due(now) {
            self.take_off();
        }
        if let Some(segment) = self.removed.pop_front() {
            return Output::Remove { segment };
        }
        if let Some(flight) = &mut self.flight
            && !flight.is_offered
            && self.retry_at <= now
        {
            flight.is_offered = true;
            return Output::Append {
                segment: flight.segment,
                offset: flight.offset,
                bytes: flight.bytes.clone(),
            };
        }
        let counted = self.refusals.deadline().min(self.arrivals.deadline());
        Output::Wait(match &self.flight {
            Some(flight) if !flight.is_offered => counted.min(self.retry_at),
            Some(_) => counted,
            None => counted.min(self.flush_at),
        })
    }

    fn is_due(&self, now: Instant) -> bool {
        let waits = self.is_urgent || self.waiting.len() >= PAGE_BYTES || self.flush_at <= now;
        waits && !self.links.is_empty()
    }

    /// Makes an append of as much as may be under way at a time.
    fn take_off(&mut self) {
        let room = self.limits.segment_bytes as usize;
        let (mut links, mut length) = (0usize, 0);
        for (_, bytes) in &self.links {
            if HEADER_BYTES + length + bytes > MAX_APPEND_BYTES {
                break;
            }
            links += 1;
            length += bytes;
        }
        let goes_on = self
            .segments
            .back()
            .filter(|(_, bytes)| !self.is_parted && *bytes as usize + length <= room);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + length);
        let (segment, offset) = match goes_on {
            Some(last) => *last,
            None => {
                let previous = self.written;
                bytes.extend_from_slice(&Header { previous }.encode());
                let segment = previous.sequence.saturating_add(1);
                self.segments.push_back((segment, 0));
                self.is_parted = false;
                (segment, 0)
            }
        };
        bytes.extend(self.waiting.drain(..length.min(self.waiting.len())));
        self.make_room(bytes.len());
        if let Some((_, size)) = self.segments.back_mut() {
            *size = size.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        }
        if let Some((link, _)) = links.checked_sub(1).and_then(|last| self.links.get(last)) {
            self.written = (*link).into();
        }
        self.flight = Some(Flight {
            segment,
            offset,
            bytes,
            links,
            is_offered: false,
        });
    }

    /// Gives up the oldest segments until `more` bytes fit.
    fn make_room(&mut self, more: usize) {
        let sum = |segments: &VecDeque<(u64, u32)>| -> u64 {
            segments.iter().map(|(_, bytes)| u64::from(*bytes)).sum()
        };
        let most = u64::from(self.limits.max_bytes);
        while self.segments.len() > 1 && sum(&self.segments) + more as u64 > most {
            let oldest = self.segments.pop_front();
            self.removed.extend(oldest.map(|(segment, _)| segment));
        }
    }

    /// The driver wrote and synced what [`Output::Append`] said, or could not.
    pub fn handle_appended(&mut self, is_done: bool, now: Instant) {
        let Some(flight) = &mut self.flight else {
            return;
        };
        if !is_done {
            flight.is_offered = false;
            self.retry_at = now.after(RETRY);
            return;
        }
        let links = flight.links.min(self.links.len());
        self.synced
            .extend(self.links.drain(..links).map(|(link, _)| link));
        self.flight = None;
        if self.links.is_empty() {
            self.is_urgent = false;
            self.flush_at = Instant::NEVER;
        }
    }
}

#[cfg(test)]
pub(super) mod testing;

#[cfg(test)]
mod tests;
