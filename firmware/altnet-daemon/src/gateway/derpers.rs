//! What comes and goes by other people's DERP servers ([`crate::derpers`]), handed to the node and to
//! the tasks.

use altnet_wire::frame::Frame;
use altnet_wire::time::Instant;

use super::Gateway;
use crate::clock;
use crate::derpers::Came;

impl Gateway {
    /// Takes what came by DERP servers, up to a batch.
    pub(super) fn take_derped(&mut self, first: Came, frame: &mut Frame<'_>) {
        self.take_batch(
            first,
            |gateway| &mut gateway.derpers.news,
            Self::take_one_derped,
            frame,
        );
    }

    fn take_one_derped(&mut self, came: Came, frame: &mut Frame<'_>) {
        let now = clock::now();
        match came {
            Came::Up(server, sender) => {
                if self.derpers.up(server, sender) {
                    self.node.handle_derper(server, true, None, now);
                }
            }
            Came::Down(server, why) => {
                self.derpers.down(server, now);
                self.node.handle_derper(server, false, Some(&why), now);
            }
            Came::Gone(server, key) => self.node.handle_derper_gone(server, key, now),
            Came::Datagram(server, from, datagram) => {
                // One that is longer is none of ours.
                if frame.set(&datagram).is_err() {
                    return;
                }
                // What is refused was counted by the node.
                if let Ok(verdict) = self.node.handle_derped(server, from, frame, now) {
                    self.carry_out(verdict, frame);
                }
            }
        }
    }

    /// Makes and ends connections as the node wants them. Returns when to look again.
    pub(super) fn tend_derpers(&mut self, now: Instant) -> Instant {
        let wanted: Vec<_> = self.node.wanted_derpers().collect();
        let secret = self.node.derp_secret();
        let node = &mut self.node;
        let ended = |server| node.handle_derper(server, false, None, now);
        self.derpers.tend(&wanted, secret.as_deref(), ended, now)
    }
}
