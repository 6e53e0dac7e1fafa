//! Handshakes under way: ours, which are sent again until answered or given up, and
//! callers', which are kept for seconds and in small numbers.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use altnet_wire::control::{COOKIE_BYTES, ControlPacket, Pattern};
use altnet_wire::endpoint::Endpoint;
use altnet_wire::hash::{self, Hash};
use altnet_wire::id::ControlKey;
use altnet_wire::time::{Duration, Instant};

use super::event::DropReason;
use super::limits::{ControlLimits, HALF_OPEN_LIFE, MAX_ANSWERED, MAX_TRIES, retry_wait};
use super::noise::{BadHandshake, Ephemeral, Handshake, Keys};
use super::{ControlSecret, Full};

/// A call of ours that isn't answered yet.
pub(super) struct Call {
    pub(super) handshake: Handshake,
    noise: Vec<u8>,
    cookie: [u8; COOKIE_BYTES],
    pub(super) endpoint: Endpoint,
    tries: u8,
    due: bool,
    next: Instant,
    sent: Instant,
    /// A Retry was followed since the last timeout: one more could be a loop.
    retried: bool,
}

impl Call {
    pub(super) fn new(
        handshake: Handshake,
        noise: Vec<u8>,
        endpoint: Endpoint,
        now: Instant,
    ) -> Self {
        Self {
            handshake,
            noise,
            cookie: [0; COOKIE_BYTES],
            endpoint,
            tries: 0,
            due: true,
            next: now,
            sent: now,
            retried: false,
        }
    }

    /// Calls at another endpoint, at once if it is another.
    pub(super) fn set_endpoint(&mut self, endpoint: Endpoint) {
        self.due |= self.endpoint != endpoint;
        self.endpoint = endpoint;
    }

    /// Takes a cookie and sends the Init again with it.
    pub(super) fn retry(&mut self, cookie: [u8; COOKIE_BYTES]) -> Result<(), DropReason> {
        if self.retried || self.due {
            return Err(DropReason::OutOfTurn);
        }
        self.cookie = cookie;
        self.retried = true;
        self.due = true;
        Ok(())
    }

    /// The Init, if it is to be sent now.
    pub(super) fn transmit(&mut self, sender: u32, now: Instant) -> Option<ControlPacket<'_>> {
        if !core::mem::take(&mut self.due) {
            return None;
        }
        self.sent = now;
        self.next = now.after(retry_wait(self.tries));
        Some(ControlPacket::Init {
            pattern: self.handshake.pattern(),
            sender,
            cookie: self.cookie,
            noise: &self.noise,
        })
    }

    /// From the Init to now, unless it isn't sure which one was answered.
    pub(super) fn rtt(&self, now: Instant) -> Option<Duration> {
        (self.tries == 0 && !self.retried).then(|| now.saturating_since(self.sent))
    }

    pub(super) fn deadline(&self) -> Instant {
        self.next
    }

    /// Has the Init sent again if it is due; true if the call is to be given up.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.due || self.next > now {
            return false;
        }
        self.tries = self.tries.saturating_add(1);
        self.due = true;
        self.retried = false;
        self.tries > MAX_TRIES
    }
}

/// Callers' handshakes that wait for their last word.
pub(super) struct HalfOpen {
    table: BTreeMap<u32, Waiting>,
    limit: usize,
}

/// One of them.
pub(super) struct Waiting {
    /// The caller's index.
    pub(super) peer: u32,
    pub(super) progress: Progress,
    /// The Init, to know it again and to begin again from.
    init: Vec<u8>,
    id: Hash,
    ephemeral: Ephemeral,
    /// The answer, for an Init that comes again.
    response: Vec<u8>,
    /// Where the first Init came from and the first Response went.
    source: Endpoint,
    /// Where else the same Init came from, and the Response went.
    moved: heapless::Vec<Endpoint, { MAX_ANSWERED - 1 }>,
    until: Instant,
}

/// What an Init that came again is answered with.
pub(super) struct Again<'a> {
    pub(super) receiver: u32,
    pub(super) sender: u32,
    pub(super) noise: &'a [u8],
}

/// How far it is.
pub(super) enum Progress {
    /// Waits for the Finish.
    Xx(Box<Handshake>),
    /// Waits for a first Data.
    Ik(Keys),
}

/// What an Init said.
pub(super) struct Caller<'a> {
    pub(super) pattern: Pattern,
    pub(super) peer: u32,
    pub(super) noise: &'a [u8],
    pub(super) from: Endpoint,
}

impl Caller<'_> {
    fn id(&self) -> Hash {
        let label = match self.pattern {
            Pattern::Xx => "altnet control init xx",
            Pattern::Ik => "altnet control init ik",
        };
        hash::labelled(label, &[&self.peer.to_le_bytes(), self.noise])
    }
}

impl HalfOpen {
    pub(super) const fn new(limits: &ControlLimits) -> Self {
        Self {
            table: BTreeMap::new(),
            limit: limits.half_open,
        }
    }

    pub(super) fn contains(&self, index: u32) -> bool {
        self.table.contains_key(&index)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether more than half is taken, so that a cookie is needed.
    pub(super) fn is_crowded(&self) -> bool {
        self.table.len() >= self.limit.div_ceil(2)
    }

    /// The Response to an Init that was answered before. None of it if it has come from too
    /// many places: a call moves, but whoever has seen an Init could send it from anywhere.
    pub(super) fn again(&mut self, caller: &Caller<'_>) -> Option<Result<Again<'_>, Full>> {
        let id = caller.id();
        let mut table = self.table.iter_mut();
        let (index, waiting) = table.find(|(_, waiting)| waiting.id == id)?;
        if !waiting.was_answered_at(&caller.from) && waiting.moved.push(caller.from).is_err() {
            return Some(Err(Full));
        }
        Some(Ok(Again {
            receiver: waiting.peer,
            sender: *index,
            noise: &waiting.response,
        }))
    }

    /// Whether a caller may wait too.
    pub(super) fn has_room(&self, caller: &Caller<'_>) -> Result<(), Full> {
        let strangers = self.table.values().filter(|waiting| waiting.is_stranger());
        let source = |waiting: &&Waiting| is_one_place(&waiting.source, &caller.from);
        let neighbours = self.table.values().filter(source);
        if self.table.len() >= self.limit
            || (caller.pattern == Pattern::Xx && strangers.count() >= self.limit.div_ceil(2))
            || neighbours.count() >= self.limit.div_ceil(4)
        {
            return Err(Full);
        }
        Ok(())
    }

    /// Reads an Init and makes its answer. `admit` judges an IK caller.
    pub(super) fn answer(
        &mut self,
        index: u32,
        caller: &Caller<'_>,
        local: &ControlSecret,
        ephemeral: Ephemeral,
        admit: &mut dyn FnMut(&ControlKey) -> bool,
        now: Instant,
    ) -> Result<Vec<u8>, DropReason> {
        let Caller {
            pattern,
            peer,
            noise,
            from,
        } = *caller;
        let bad = |_: BadHandshake| DropReason::BadSeal;
        let mut handshake =
            Handshake::answer(pattern, local, peer, ephemeral.clone(), noise).map_err(bad)?;
        if pattern == Pattern::Ik {
            let known = handshake.remote().is_some_and(|remote| admit(&remote));
            known.then_some(()).ok_or(DropReason::NotAdmitted)?;
        }
        let response = handshake.write(pattern.response_bytes()).map_err(bad)?;
        let progress = match pattern {
            Pattern::Xx => Progress::Xx(Box::new(handshake)),
            Pattern::Ik => Progress::Ik(handshake.complete().map_err(bad)?),
        };
        let waiting = Waiting {
            peer,
            progress,
            init: noise.to_vec(),
            id: caller.id(),
            ephemeral,
            response: response.clone(),
            source: from,
            moved: heapless::Vec::new(),
            until: now.after(HALF_OPEN_LIFE),
        };
        self.table.insert(index, waiting);
        Ok(response)
    }

    /// Reads the last message of an XX handshake. A forged one leaves it as it was.
    pub(super) fn finish(
        &mut self,
        index: u32,
        local: &ControlSecret,
        noise: &[u8],
    ) -> Result<(), DropReason> {
        let waiting = self
            .table
            .get_mut(&index)
            .ok_or(DropReason::UnknownSession)?;
        let Progress::Xx(handshake) = &mut waiting.progress else {
            return Err(DropReason::OutOfTurn);
        };
        if handshake.read(noise).is_ok() {
            return Ok(());
        }
        // What was read of a forged message may have changed the keys: begin again, with
        // the same ephemeral key and so the same Response.
        let ephemeral = waiting.ephemeral.clone();
        let mut fresh =
            Handshake::answer(Pattern::Xx, local, waiting.peer, ephemeral, &waiting.init)
                .map_err(|_| DropReason::BadSeal)?;
        fresh
            .write(Pattern::Xx.response_bytes())
            .map_err(|_| DropReason::BadSeal)?;
        **handshake = fresh;
        Err(DropReason::BadSeal)
    }

    pub(super) fn get(&self, index: u32) -> Option<&Waiting> {
        self.table.get(&index)
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Waiting> {
        self.table.remove(&index)
    }

    pub(super) fn deadline(&self) -> Instant {
        let first = self.table.values().map(|waiting| waiting.until).min();
        first.unwrap_or(Instant::NEVER)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.table.retain(|_, waiting| waiting.until > now);
    }
}

impl Waiting {
    fn was_answered_at(&self, place: &Endpoint) -> bool {
        self.source == *place || self.moved.contains(place)
    }

    /// Where the session is whose last handshake message came from `from`.
    ///
    /// Only who has seen the Response can make that message, so it shows that the caller is
    /// where a Response went; where the message itself came from shows nothing, for anybody
    /// on its way may have passed it on.
    pub(super) fn endpoint(&self, from: Endpoint) -> Endpoint {
        if self.was_answered_at(&from) {
            from
        } else {
            self.source
        }
    }

    fn is_stranger(&self) -> bool {
        matches!(self.progress, Progress::Xx(_))
    }
}

/// Whether two endpoints have one IPv4 address or one IPv6 /64, or are one relayed node.
pub(super) fn is_one_place(a: &Endpoint, b: &Endpoint) -> bool {
    let (Endpoint::Direct(a), Endpoint::Direct(b)) = (a, b) else {
        return a == b;
    };
    match (a.ip(), b.ip()) {
        // Whoever has one address of a /64 has all of them (RFC 4291, section 2.5.4).
        (IpAddr::V6(a), IpAddr::V6(b)) if a.to_ipv4_mapped().is_none() => {
            a.to_bits() >> 64 == b.to_bits() >> 64
        }
        (a, b) => a == b,
    }
}
