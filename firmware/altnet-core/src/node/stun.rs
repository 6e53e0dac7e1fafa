//! A relay answers Binding requests ([`crate::stun`]) on the port that everything shares.

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::{Endpoint, PortId};
use altnet_wire::frame::Frame;
use altnet_wire::record::Roles;
use altnet_wire::time::Instant;

use super::{DropReason, Node, Verdict};
use crate::derp::rate::Rate;
use crate::stun::ANSWER_BYTES;

/// Answers that are larger than their requests.
pub(super) const SHORT_ANSWERS: Rate = Rate {
    per_s: 20,
    burst: 40,
};

impl<A: Aead> Node<A> {
    /// A datagram that is STUN by its first bytes.
    pub(super) fn handle_stun(
        &mut self,
        from: Endpoint,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let is_relay = self.own_roles().contains(Roles::RELAY);
        is_relay.then_some(()).ok_or(DropReason::Stun)?;
        // What comes through a relay has no address that could be told.
        let from = from.direct().ok_or(DropReason::Stun)?;
        let mut out = [0; ANSWER_BYTES];
        let length = self
            .stun
            .answer(frame.packet(), from, &mut out, now)
            .ok_or(DropReason::Stun)?;
        let answer = out.get(..length).unwrap_or_default();
        frame.set(answer).map_err(|_| DropReason::TooLarge)?;
        self.counters.stun_answers += 1;
        Ok(Verdict::Send {
            to: from,
            port: PortId::MAIN,
        })
    }
}
