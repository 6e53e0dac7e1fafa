//! Who was refused what, counted in a small table that a driver empties into the audit log.
//!
//! Nothing here allocates: it is on the way of every packet that goes no further. Strangers are
//! one row for each reason: an address that anybody could have put there names nobody.

use altnet_tunnel::aead::Aead;
use altnet_wire::id::NodeId;

use super::{DropReason, Node};

/// Rows at a time; what there is no row for counts for nobody in particular.
const ROWS: usize = 32;

/// What was refused since the driver last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Whose it was, if a member sealed it.
    pub node: Option<NodeId>,
    /// Whether it came from our side.
    pub is_ours: bool,
    /// Why.
    pub why: DropReason,
    /// How often.
    pub count: u64,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    rows: heapless::Vec<Refused, ROWS>,
    /// Who sealed the packet in hand.
    sealed_by: Option<NodeId>,
}

impl Refusals {
    /// The packet in hand was sealed by `node`.
    pub(super) const fn sealed_by(&mut self, node: NodeId) {
        self.sealed_by = Some(node);
    }

    /// The datagram in hand was refused.
    pub(super) fn refuse_datagram(&mut self, why: DropReason) {
        let node = self.sealed_by.take();
        self.count(node, false, why);
    }

    /// The datagram in hand passed.
    pub(super) const fn passed(&mut self) {
        self.sealed_by = None;
    }

    /// A packet from our side was refused.
    pub(super) fn refuse_packet(&mut self, why: DropReason) {
        self.count(None, true, why);
    }

    fn count(&mut self, node: Option<NodeId>, is_ours: bool, why: DropReason) {
        if !why.is_refusal() {
            return;
        }
        let same =
            |row: &&mut Refused| row.node == node && row.is_ours == is_ours && row.why == why;
        if let Some(row) = self.rows.iter_mut().find(same) {
            row.count = row.count.saturating_add(1);
            return;
        }
        let row = Refused {
            node,
            is_ours,
            why,
            count: 1,
        };
        if self.rows.push(row).is_err()
            && let Some(last) = self.rows.last_mut()
        {
            // The last place stands for all there is no room for.
            last.node = None;
            last.count = last.count.saturating_add(1);
        }
    }
}

impl DropReason {
    /// Whether somebody was refused something. The rest is a way, a network or room that there
    /// is not.
    pub const fn is_refusal(self) -> bool {
        match self {
            Self::NotOurs
            | Self::BadPacket
            | Self::ForeignSource
            | Self::Denied
            | Self::Fragment
            | Self::SpoofedSource
            | Self::ForeignDestination
            | Self::Tunnel
            | Self::Stranger
            | Self::Control
            | Self::Stun
            | Self::RelayToken
            | Self::RelayUnknown => true,
            Self::NotMember
            | Self::NoRoute
            | Self::NoPath
            | Self::RelayNoSuchNode
            | Self::RelayOver
            | Self::HeadBehind
            | Self::Full
            | Self::TooLarge => false,
        }
    }
}

impl<A: Aead> Node<A> {
    /// Gives `take` what was refused since this was last called, for the audit log. To be called
    /// every minute or so.
    pub fn take_refusals(&mut self, take: &mut impl FnMut(Refused)) {
        for row in &self.refusals.rows {
            take(*row);
        }
        self.refusals.rows.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(refusals: &Refusals) -> u64 {
        refusals.rows.iter().map(|row| row.count).sum()
    }

    #[test]
    fn a_refusal_is_counted_for_whoever_sealed_it() {
        let mut refusals = Refusals::default();
        let node = NodeId([1; 16]);
        refusals.refuse_datagram(DropReason::Tunnel);
        refusals.sealed_by(node);
        refusals.refuse_datagram(DropReason::Denied);
        refusals.sealed_by(node);
        refusals.passed();
        refusals.refuse_datagram(DropReason::Tunnel);
        refusals.refuse_packet(DropReason::Denied);
        refusals.refuse_packet(DropReason::NoPath);
        let rows: std::vec::Vec<_> = refusals
            .rows
            .iter()
            .map(|row| (row.node, row.is_ours, row.why, row.count))
            .collect();
        assert_eq!(
            rows,
            [
                (None, false, DropReason::Tunnel, 2),
                (Some(node), false, DropReason::Denied, 1),
                (None, true, DropReason::Denied, 1),
            ]
        );
    }

    #[test]
    fn a_full_table_still_counts_everything() {
        let mut refusals = Refusals::default();
        for node in 0..100 {
            refusals.sealed_by(NodeId([node; 16]));
            refusals.refuse_datagram(DropReason::Denied);
        }
        assert_eq!((refusals.rows.len(), sum(&refusals)), (ROWS, 100));
        assert_eq!(refusals.rows.last().unwrap().node, None);
    }
}
