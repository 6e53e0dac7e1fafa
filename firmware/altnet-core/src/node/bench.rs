//! Measuring a relay: a run of [`crate::relay::bench`], whose datagrams this node sends itself.
//!
//! They go by the registration there is, by UDP or over a stream, as anything does that is relayed. What
//! comes back is taken only from the relay that is measured, as from this node itself, and only with
//! the mac of this run.

use altnet_tunnel::aead::Aead;
use altnet_wire::echo::{self, Key};
use altnet_wire::endpoint::Endpoint;
use altnet_wire::frame::Frame;
use altnet_wire::id::NodeId;
use altnet_wire::time::Instant;

use super::{CommandError, DropReason, Event, Node, Output, Verdict};
use crate::control::Cargo;
use crate::relay::bench::{Bench, Step};

/// A run.
pub(super) struct Benching {
    relay: NodeId,
    key: Key,
    run: Bench,
}

impl<A: Aead> Node<A> {
    /// Begins a run; it ends in [`Event::Benched`].
    pub(super) fn begin_bench(
        &mut self,
        relay: NodeId,
        bytes: u32,
        even_if_metered: bool,
        now: Instant,
    ) -> Result<(), CommandError> {
        if self.network.is_none() {
            return Err(CommandError::NotMember);
        }
        if self.config.metered && !even_if_metered {
            return Err(CommandError::Metered);
        }
        let link = self.relays.get(&relay).ok_or(CommandError::NoSuchRelay)?;
        link.ready().ok_or(CommandError::RelayDown)?;
        if self.bench.is_some() {
            return Err(CommandError::Measuring);
        }
        self.bench = Some(Benching {
            relay,
            key: self.rng.array(),
            run: Bench::new(bytes, now),
        });
        Ok(())
    }

    /// What a run sends next.
    pub(super) fn poll_bench(&mut self, frame: &mut Frame<'_>, now: Instant) -> Option<Output> {
        let Some(node) = self.network.as_ref().map(|network| network.own.node) else {
            self.bench = None;
            return None;
        };
        loop {
            let bench = self.bench.as_mut()?;
            let relay = bench.relay;
            match bench.run.poll(now) {
                Step::Send { sequence, bytes } => {
                    let written = echo::write(&bench.key, sequence, bytes.into(), frame);
                    let to = Endpoint::Relayed { relay, node };
                    // What finds no way is lost, as on any line.
                    if written.is_ok()
                        && let Some(output) = self.sent_to(to, Cargo::Probe, None, frame, now)
                    {
                        return Some(output);
                    }
                }
                Step::Wait(_) => return None,
                Step::End(report) => {
                    self.bench = None;
                    return Some(Output::Tell(Event::Benched { relay, report }));
                }
            }
        }
    }

    /// When [`Node::poll_bench`] next has something to say.
    pub(super) fn bench_deadline(&self) -> Instant {
        let bench = self.bench.as_ref();
        bench.map_or(Instant::NEVER, |bench| bench.run.deadline())
    }

    /// Something that this node may have sent itself.
    pub(super) fn handle_echo(
        &mut self,
        from: Endpoint,
        frame: &Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let own = self.network.as_ref().map(|network| network.own.node);
        let own = own.ok_or(DropReason::NotOurs)?;
        let bench = self.bench.as_mut().ok_or(DropReason::NotOurs)?;
        let relay = bench.relay;
        if from != (Endpoint::Relayed { relay, node: own }) {
            return Err(DropReason::NotOurs);
        }
        let sequence = echo::read(&bench.key, frame.packet()).ok_or(DropReason::NotOurs)?;
        bench.run.came(sequence, now);
        Ok(Verdict::Consumed)
    }
}
