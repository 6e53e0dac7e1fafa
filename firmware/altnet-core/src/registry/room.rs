//! How much of everything is held: a table for each kind, and a share of it for each device.

use core::ops::RangeInclusive;

use altnet_wire::envelope::RecordKind;
use altnet_wire::id::SigningKey;
use altnet_wire::time::UnixTime;

use super::held::{Body, Held};
use super::{RecordError, Registry, Slot};

/// One device may hold one in so many entries of the tables of hosts, of apps and of their
/// requests for certificates.
const DEVICE_SHARE: u16 = 4;
/// Records that aren't understood which one device may have held.
const MAX_UNKNOWN_PER_DEVICE: u16 = 4;
/// Invites that nobody came in by which one device may have held.
pub const MAX_INVITES_PER_DEVICE: u16 = 8;
/// Devices together may have held one in so many entries of the table of invites.
const DEVICES_SHARE: u16 = 2;

impl Registry {
    /// Sees to it that the table of the new record's kind has room.
    ///
    /// Given up first is what stands aside, then what ended before the floor: an invite that no
    /// membership rests on, a membership, a certificate for TLS. What ended by a clock that may be forged stays.
    pub(super) fn make_room(
        &mut self,
        slot: &Slot,
        signer: &SigningKey,
        body: &Body,
        floor: UnixTime,
    ) -> Result<(), RecordError> {
        self.keep_quota(slot, signer, body, floor)?;
        if self.records.contains_key(slot) {
            return Ok(());
        }
        let kind = slot.kind();
        let unknown = matches!(body, Body::Unknown);
        let limit = self.limit(kind, unknown);
        let range = table_of(kind, unknown);
        let alike = |held: &Held| unknown == matches!(held.body, Body::Unknown);
        let table = self.records.range(range.clone());
        if table.filter(|(_, held)| alike(held)).count() < usize::from(limit) {
            return Ok(());
        }
        let spare = match body {
            Body::OwnerChange(_) => self.owners.spare(),
            _ => self
                .records
                .range(range.clone())
                .find(|(_, held)| alike(held) && !held.standing)
                .or_else(|| {
                    let mut table = self.records.range(range);
                    table.find(|(_, held)| alike(held) && self.has_ended(held, floor))
                })
                .map(|(slot, _)| *slot),
        };
        let Some(spare) = spare else {
            self.refused_full = self.refused_full.saturating_add(1);
            return Err(RecordError::Full { kind, limit });
        };
        self.give_up(&spare);
        Ok(())
    }

    /// Sees to it that one device takes no more of a table than its share.
    ///
    /// What it can add for itself, so could somebody who holds a stolen device; owners and
    /// issuers are bounded by the table alone. Its own records that stand aside go first.
    fn keep_quota(
        &mut self,
        slot: &Slot,
        signer: &SigningKey,
        body: &Body,
        floor: UnixTime,
    ) -> Result<(), RecordError> {
        let unknown = matches!(body, Body::Unknown);
        let kind = slot.kind();
        let limit = match body {
            Body::Host(_) => self.limits.hosts.div_ceil(DEVICE_SHARE),
            Body::App(_) | Body::TlsRequest(_) => self.limits.apps.div_ceil(DEVICE_SHARE),
            Body::Unknown => MAX_UNKNOWN_PER_DEVICE,
            Body::Invite(body) if self.is_device_key(signer) => {
                return self.keep_invites(slot, signer, body.issued.max(floor));
            }
            _ => return Ok(()),
        };
        if self.is_owner(signer) || self.issuer_at(signer, None).is_ok() {
            return Ok(());
        }
        let own = |held: &Held| {
            held.header.signer == *signer && unknown == matches!(held.body, Body::Unknown)
        };
        if self.records.get(slot).is_some_and(own) {
            return Ok(());
        }
        let table = || {
            let table = self.records.range(table_of(kind, unknown));
            table.filter(|(_, held)| own(held))
        };
        if table().count() < usize::from(limit) {
            return Ok(());
        }
        let spare = table().find(|(_, held)| !held.standing);
        let Some(spare) = spare.map(|(slot, _)| *slot) else {
            self.refused_full = self.refused_full.saturating_add(1);
            return Err(RecordError::Full { kind, limit });
        };
        self.give_up(&spare);
        Ok(())
    }

    /// Sees to it that one device's invites, and all devices' together, take no more than their
    /// share. An invite that somebody came in by stays; of the others one goes that doesn't stand,
    /// or had ended when this one was made, by its maker's own word.
    fn keep_invites(
        &mut self,
        slot: &Slot,
        signer: &SigningKey,
        made: UnixTime,
    ) -> Result<(), RecordError> {
        if self.records.contains_key(slot) {
            return Ok(());
        }
        let kind = RecordKind::INVITE;
        let table = || {
            let table = self.records.range(table_of(kind, false));
            table.filter(|(_, held)| self.is_device_key(&held.header.signer))
        };
        let share = self.limits.invites.div_ceil(DEVICES_SHARE);
        let all = table().count();
        let mut idle = 0;
        let mut spare = None;
        for (slot, held) in table().filter(|(_, held)| held.header.signer == *signer) {
            let Body::Invite(body) = &held.body else {
                continue;
            };
            if self.is_rested_on(body.invite) {
                continue;
            }
            idle += 1;
            if !held.standing || body.expires <= made {
                spare = Some(*slot);
            }
        }
        let limit = match idle >= usize::from(MAX_INVITES_PER_DEVICE) {
            true => MAX_INVITES_PER_DEVICE,
            false if all >= usize::from(share) => share,
            false => return Ok(()),
        };
        let Some(spare) = spare else {
            self.refused_full = self.refused_full.saturating_add(1);
            return Err(RecordError::Full { kind, limit });
        };
        self.give_up(&spare);
        Ok(())
    }

    /// Whether any membership held came by this invite.
    fn is_rested_on(&self, invite: SigningKey) -> bool {
        let members = self.records.range(table_of(RecordKind::MEMBERSHIP, false));
        members.into_iter().any(|(_, held)| match &held.body {
            Body::Membership(body, _) => body.invite.is_some_and(|r| r.invite == invite),
            _ => false,
        })
    }

    fn give_up(&mut self, spare: &Slot) {
        let was_in_force = self.records.get(spare).is_some_and(|held| held.in_force);
        self.remove(spare);
        if was_in_force {
            self.rebuild();
        }
    }

    /// Whether a record ended before `floor` and nothing rests on it.
    fn has_ended(&self, held: &Held, floor: UnixTime) -> bool {
        match &held.body {
            Body::Membership(body, _) => {
                let mut members = self.records.range(table_of(RecordKind::MEMBERSHIP, false));
                let is_on = |held: &Held| self.inviter(held) == Some(body.device);
                body.expires <= floor && !members.any(|(_, held)| is_on(held))
            }
            Body::TlsCertificate(body) => body.expires <= floor,
            Body::Invite(body) => body.expires <= floor && !self.is_rested_on(body.invite),
            _ => false,
        }
    }

    fn limit(&self, kind: RecordKind, unknown: bool) -> u16 {
        let limits = &self.limits;
        match kind {
            _ if unknown => limits.unknown_records,
            RecordKind::OWNER_CHANGE => limits.owner_changes,
            RecordKind::ISSUER_CERTIFICATE | RecordKind::NETWORK_HEAD => limits.issuers,
            RecordKind::MEMBERSHIP | RecordKind::NODE | RecordKind::DERP => limits.members,
            RecordKind::HOST => limits.hosts,
            RecordKind::APP => limits.apps,
            RecordKind::REVOCATION => limits.revocations,
            RecordKind::INVITE => limits.invites,
            RecordKind::POLICY | RecordKind::TLS_AUTHORITY => 1,
            RecordKind::TLS_REQUEST | RecordKind::TLS_CERTIFICATE => limits.apps,
            _ => limits.unknown_records,
        }
    }
}

/// The slots of a table. Records of a known kind in a later version share its slots' range.
const fn table_of(kind: RecordKind, unknown: bool) -> RangeInclusive<Slot> {
    if unknown {
        Slot::first(RecordKind(0))..=Slot::last(RecordKind(u16::MAX))
    } else {
        Slot::first(kind)..=Slot::last(kind)
    }
}
