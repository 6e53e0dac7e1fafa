//! Measuring relays for people.

use std::time::Duration;

use altnet_core::node::{Command, CommandError};
use altnet_core::relay::bench::{Report, USUAL_BYTES};
use altnet_wire::id::NodeId;
use altnet_wire::time::Instant;
use serde_json::Value;

use super::Gateway;
use super::calls::{What, json_of, nobody, params};
use crate::api::bench::{Bench, Benched};
use crate::api::{ApiError, Code};

/// How long a run is waited for: it takes six seconds where nothing is slow.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

impl Gateway {
    /// Begins to measure a relay.
    pub(super) fn begin_bench(
        &mut self,
        given: Value,
        now: Instant,
    ) -> Result<(What, Duration), ApiError> {
        let bench: Bench = params(given)?;
        if self.node.registry().is_none() {
            return Err(CommandError::NotMember.into());
        }
        let relay = self.node.node_called(&bench.relay);
        let relay = relay.ok_or_else(|| nobody(&bench.relay))?;
        let command = Command::Bench {
            relay,
            bytes: bench.bytes.unwrap_or(USUAL_BYTES),
            even_if_metered: bench.even_if_metered,
        };
        let begun = self.begin(command, What::Bench(relay), now);
        begun.map_err(|error| match bench.even_if_metered {
            false if error.message == CommandError::Metered.to_string() => {
                let hint = "`altnet relay bench --yes` measures all the same";
                ApiError::new(Code::Refused, error.message, hint)
            }
            _ => error,
        })
    }

    /// Says what was found of a relay.
    pub(super) fn found(
        &self,
        relay: NodeId,
        report: &Report,
        now: Instant,
    ) -> Result<Value, ApiError> {
        let us =
            |time: altnet_wire::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let node = relay.to_string();
        let relays = self.node.status(now).relays;
        let view = relays.into_iter().find(|relay| relay.node == node);
        json_of(Benched {
            relay: self.node.name_of(relay),
            node,
            carrier: view.map(|view| view.carrier).unwrap_or_default(),
            pings: report.pings.0,
            answered: report.pings.1,
            rtt_least_us: report.rtt_least.map(us),
            rtt_median_us: report.rtt_median.map(us),
            datagrams: report.datagrams.0,
            came_back: report.datagrams.1,
            rate_bytes_per_s: report.rate_bytes_per_s,
            at_least: report.is_at_least,
        })
    }
}
