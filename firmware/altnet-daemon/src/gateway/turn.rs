//! What comes and goes by TURN servers ([`crate::turn`]), handed to the node and to the task.

use altnet_wire::frame::Frame;

use super::Gateway;
use crate::clock;
use crate::turn::Came;

impl Gateway {
    /// Takes what came from a TURN server, up to a batch.
    pub(super) fn take_turned(&mut self, first: Came, frame: &mut Frame<'_>) {
        self.take_batch(
            first,
            |gateway| &mut gateway.turn.news,
            Self::take_one_turned,
            frame,
        );
    }

    fn take_one_turned(&mut self, came: Came, frame: &mut Frame<'_>) {
        let now = clock::now();
        match came {
            Came::Reached(attempt, address, outgoing) => {
                self.turn.reached(attempt, outgoing);
                self.node.handle_turn_reached(attempt, address, now);
            }
            Came::Lost(attempt, why) => self.node.handle_turn_lost(attempt, &why, now),
            Came::Message(attempt, message) => {
                if !self.turn.is_under_way(attempt) || frame.set(&message).is_err() {
                    return;
                }
                // What is refused was counted by the node.
                if let Ok(verdict) = self.node.handle_turned(frame, now) {
                    self.carry_out(verdict, frame);
                }
            }
        }
    }

    /// Begins and ends what the node wants of TURN servers.
    pub(super) fn tend_turn(&mut self) {
        self.turn.tend(self.node.wanted_turn());
    }
}
