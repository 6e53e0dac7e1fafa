//! Somebody else's DERP server: it knows clients by their keys, passes on what they send each other,
//! and says who isn't there.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use altnet_core::derp::boxes::SecretKey;
use altnet_wire::derp::PublicKey;
use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::time::Duration;

use super::{HostId, InFlight, World};

/// How long a connection takes to stand: TCP, TLS and what follows.
const SET_UP: Duration = Duration::from_millis(80);
/// One way by the server.
const ONE_WAY: Duration = Duration::from_millis(25);
/// The place of the server among those that a host knows.
const SERVER: usize = 0;

/// What arrives by the server.
pub(super) enum Derped {
    /// The host is connected.
    Up,
    /// A datagram of the client with this key.
    From(PublicKey, Vec<u8>),
    /// Nobody with this key is there.
    Gone(PublicKey),
}

/// The server.
#[derive(Default)]
pub(super) struct Derper {
    /// Who may connect to it.
    admitted: BTreeSet<HostId>,
    connected: BTreeMap<PublicKey, HostId>,
}

impl World {
    /// Has a host know the server, which admits it.
    pub fn use_derper(&mut self, host: HostId) {
        self.derper.admitted.insert(host);
        let names = vec!["derp.example:443".to_owned()];
        self.with(host, |node, now| node.handle_derpers(names, now));
    }

    /// Who is connected to the server.
    pub fn derped(&self) -> usize {
        self.derper.connected.len()
    }

    /// Makes the connection that a host wants, or ends it.
    pub(super) fn tend_derper(&mut self, host: HostId) {
        let Some(node) = &self.hosts[host.0].node else {
            return;
        };
        if !self.derper.admitted.contains(&host) {
            return;
        }
        let is_wanted = node.wanted_derpers().any(|server| server == SERVER);
        let secret = node.derp_secret().map(|secret| SecretKey::new(*secret));
        let connected = self.derper.connected.values().any(|other| *other == host);
        match secret.filter(|_| is_wanted) {
            Some(secret) if !connected => {
                self.derper.connected.insert(secret.public(), host);
                self.after_derped(SET_UP, host, Derped::Up);
            }
            None if connected => {
                self.derper.connected.retain(|_, other| *other != host);
                let now = self.now;
                if let Some(node) = &mut self.hosts[host.0].node {
                    node.handle_derper(SERVER, false, None, now);
                }
                self.drain(host);
            }
            _ => {}
        }
    }

    pub(super) fn send_derped(&mut self, host: HostId, to: PublicKey, bytes: Vec<u8>) {
        let mut connected = self.derper.connected.iter();
        let own = connected.find(|(_, other)| **other == host);
        let Some(from) = own.map(|(key, _)| *key) else {
            return;
        };
        match self.derper.connected.get(&to).copied() {
            Some(host) => self.after_derped(ONE_WAY, host, Derped::From(from, bytes)),
            None => self.after_derped(ONE_WAY, host, Derped::Gone(to)),
        }
    }

    fn after_derped(&mut self, delay: Duration, host: HostId, derped: Derped) {
        self.sequence += 1;
        self.wire
            .push(Reverse((self.now.after(delay), self.sequence)));
        self.in_flight
            .insert(self.sequence, InFlight::Derped { host, derped });
    }

    pub(super) fn arrive_derped(&mut self, host: HostId, derped: Derped) {
        let now = self.now;
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        let Some(node) = &mut self.hosts[host.0].node else {
            return;
        };
        match derped {
            Derped::Up => node.handle_derper(SERVER, true, None, now),
            Derped::Gone(key) => node.handle_derper_gone(SERVER, key, now),
            Derped::From(key, bytes) => {
                if frame.set(&bytes).is_err() {
                    return;
                }
                let verdict = node.handle_derped(SERVER, key, &mut frame, now);
                let bytes = frame.packet().to_vec();
                if let Ok(verdict) = verdict {
                    self.carry_out(host, verdict, bytes);
                }
            }
        }
        self.drain(host);
    }

    /// A host lost power, and its connection with it.
    pub(super) fn end_derped(&mut self, host: HostId) {
        self.derper.connected.retain(|_, other| *other != host);
    }
}
