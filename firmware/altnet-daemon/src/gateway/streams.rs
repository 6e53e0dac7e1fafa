//! What comes and goes over streams ([`crate::streams`]), handed to the node and to the tasks.

use altnet_core::node::{Command, Verdict};
use altnet_wire::frame::Frame;
use altnet_wire::time::Instant;

use serde_json::{Value, json};

use super::{BATCH, Gateway};
use crate::api::{ApiError, types};
use crate::clock;
use crate::news::News;
use crate::streams::Came;

impl Gateway {
    /// Takes what came over streams, up to a batch.
    pub(super) fn take_streamed(&mut self, first: Came, frame: &mut Frame<'_>) {
        self.take_batch(
            first,
            |gateway| &mut gateway.streams.news,
            Self::take_one,
            frame,
        );
    }

    /// Takes what tasks told, up to a batch of it: `first`, and what else is among the news.
    pub(super) fn take_batch<C>(
        &mut self,
        first: C,
        news: fn(&mut Self) -> &mut News<C>,
        take: fn(&mut Self, C, &mut Frame<'_>),
        frame: &mut Frame<'_>,
    ) {
        take(self, first, frame);
        for _ in 1..BATCH {
            match news(self).try_came() {
                Some(came) => take(self, came, frame),
                None => return,
            }
        }
    }

    fn take_one(&mut self, came: Came, frame: &mut Frame<'_>) {
        let now = clock::now();
        let verdict = match came {
            Came::Up(relay, sender) => {
                self.streams.up(relay, sender);
                self.node.handle_stream(relay, true, now);
                return;
            }
            Came::Down(relay, why) => {
                crate::debug!("no stream to relay {}: {why}", self.node.name_of(relay));
                self.streams.down(relay, now);
                self.node.handle_stream(relay, false, now);
                return;
            }
            Came::Gone(connection) => {
                if let Some(stream) = self.streams.gone(connection) {
                    self.node.handle_stream_closed(stream);
                }
                return;
            }
            Came::FromRelay(relay, from, datagram) => match frame.set(&datagram) {
                Ok(()) => self.node.handle_streamed(relay, from, frame, now),
                // Longer than any of ours.
                Err(_) => return,
            },
            Came::Guest(connection) => {
                let stream = self.streams.stream_of(connection);
                if self.node.handle_stream_opened(stream, now).is_err() {
                    self.streams.close_client(stream);
                }
                return;
            }
            Came::FromClient(connection, to, datagram) => {
                let stream = self.streams.stream_of(connection);
                match frame.set(&datagram) {
                    Ok(()) => self.node.handle_client(stream, to, frame, now),
                    Err(_) => return,
                }
            }
        };
        // What is refused was counted by the node.
        if let Ok(verdict) = verdict {
            self.carry_out(verdict, frame);
        }
    }

    /// Makes and ends streams as the node wants it. Returns when to look again.
    pub(super) fn tend_streams(&mut self, now: Instant) -> Instant {
        let wanted: Vec<_> = self.node.wanted_streams(now).collect();
        let node = &mut self.node;
        let streams = &mut self.streams;
        streams.tend(&wanted, |relay| node.handle_stream(relay, false, now), now)
    }

    /// Sends what goes over a stream; whether it was that.
    pub(super) fn send_streamed(&self, verdict: Verdict, frame: &Frame<'_>) {
        match verdict {
            Verdict::ToRelay { relay, to } => self.streams.to_relay(relay, to, frame.packet()),
            Verdict::ToClient { stream, from } => {
                self.streams.to_client(stream, from, frame.packet());
            }
            _ => {}
        }
    }

    /// What this node forwards.
    pub(super) fn relaying(&self, now: Instant) -> types::Relaying {
        let (is_relay, clients, counted) = self.node.relaying();
        let settings = &self.config.relay;
        types::Relaying {
            is_relay,
            clients,
            most_clients: settings.clients,
            tls: self.streams.listens().map(|at| at.to_string()),
            streams: self.streams.clients(),
            forwarded: counted.forwarded,
            forwarded_bytes: counted.forwarded_bytes,
            refused: counted.refused,
            no_such_node: counted.no_such_node,
            over: counted.over,
            load: self.node.relay_load(now),
            rate_mbit: settings.rate_mbit,
            monthly_gb: settings.monthly_gb,
            uplink_mbit: settings.uplink_mbit,
            members: self.node.relay_clients(),
            links: self.node.relay_links(),
        }
    }

    /// Makes another relay the home.
    pub(super) fn rotate_relay(&mut self, now: Instant) -> Result<Value, ApiError> {
        self.node.handle_command(Command::RotateRelay, now)?;
        let relays = self.node.status(now).relays;
        let home = relays.into_iter().find(|relay| relay.home);
        let home = home.map(|relay| relay.name).unwrap_or_default();
        Ok(json!(types::Rotation { home }))
    }
}
