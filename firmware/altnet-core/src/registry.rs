//! Every record in force: what this node believes about its network.
//!
//! In: record envelopes from any carrier, in any order. Out: who the owners, issuers and members
//! are, who has which address and name, and the bytes to store and to pass on. A record is
//! applied whole or not at all, after its whole chain of signatures up to the genesis was
//! checked; who carried it never matters.
//!
//! # Which of two records wins
//! - Of two about the same subject, one whose signer may (still) sign it beats one whose signer
//!   may not; then the larger serial; then the smaller record id.
//! - Owner changes form a tree. At a fork a change signed by the recovery key beats one signed
//!   by an owner, then one that a recovery change follows, then the smaller record id; what
//!   follows the loser is void. So only the recovery key ends a quarrel between owners.
//! - A certificate holds while its owner is one. When an owner leaves, what it certified or
//!   revoked stands aside (held, passed over) until a present owner signs it anew: see
//!   [`Registry::standing_aside`].
//! - A revoked issuer's records stand as far as they say they were issued no later than the
//!   revocation; those without a time stand aside, and so does what it revoked, until an owner
//!   signs it anew: it could date back, and a revocation is for good.
//! - A revocation is final and beats everything, whatever came first.
//! - Of two members with the same name, device key or site to be gateway of, the one with the
//!   smaller member id is in force, unless the other's membership replaces its device. Control and
//!   tunnel keys belong to the first that came with them (see below).
//! - A member that came in by another member's invite gives way to one that didn't, or by a
//!   shorter line of members, before ids are compared; and it stands aside while that other is no
//!   member, until an issuer that may invite adopts it ([`crate::issuer::Issuer::adopt`]).
//! - Of two hosts with the same name in different sites, one that an issuer signed wins, then
//!   the smaller site id.
//!
//! So the records in force follow from the set of records alone, not from their order, once each
//! was offered after what it rests on ([`Registry::apply_all`]).
//!
//! # Keys that somebody else claims
//! A node record is signed with the device key, and the X25519 keys in it can't sign: nothing in
//! a record shows that its signer holds them. So a member may claim another's keys. Where the
//! other's record is held, even while it stands aside, the claim is refused and nothing changes;
//! a claim is never a reason to put a held key out of force. Where the claim came first, the true
//! holder's record is refused ([`Claim::Key`]) until it names other keys or the claimant is
//! revoked: an ordinary error, on which the holder rotates. Who claims gains nothing, since
//! every session and tunnel needs the secret halves, and what it signed is the proof to revoke it
//! by. A rule over the records alone (the smaller member id, the earlier membership) would let a
//! claimant that it favours put a member out of force everywhere and for good.
//!
//! # Bounds
//! Each kind has a table of its own bounded by [`Limits`]. A full table gives up a record that
//! stands aside, then one that ended before the clock's floor, before it refuses a new one. What a
//! device signs by itself has a share of its table besides: a quarter of the hosts, of the apps
//! and of their requests for certificates, eight invites that nobody came in by, and four records
//! that aren't understood. Look-ups don't allocate; applying does.

mod derp;
mod error;
mod held;
mod judge;
mod look_up;
mod owners;
mod room;
mod slot;
mod sponsors;
mod summary;
mod tls;
mod view;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use altnet_wire::envelope::{Envelope, Header, RecordKind};
use altnet_wire::id::{self, NetworkId, RecordId, Serial, SigningKey};
use altnet_wire::record::{self, Genesis, Rights};

use crate::clock::Clock;
use crate::limits::Limits;
use crate::records;

pub use error::{Applied, Changes, Claim, Missing, RecordError};
pub use look_up::{App, Host, Member, Subject};
pub use room::MAX_INVITES_PER_DEVICE;
pub use slot::Slot;
pub use sponsors::{Allowance, MAX_SPONSOR_DEPTH, MAX_SPONSORED_S, Unfit};
pub use summary::Summary;
pub use tls::TlsAsked;

use held::{Body, Held};
use owners::Owners;
use summary::Revocations;
use view::View;

/// The longest a membership may last, from `issued` to `expires`, in seconds: 90 days.
pub const MAX_MEMBERSHIP_S: u64 = 90 * 86_400;

/// What this node believes about one network.
#[derive(Clone, Debug)]
pub struct Registry {
    network: NetworkId,
    genesis: Genesis,
    genesis_bytes: Box<[u8]>,
    limits: Limits,
    records: BTreeMap<Slot, Held>,
    owners: Owners,
    view: View,
    revocations: Revocations,
    revision: u64,
    by_revision: BTreeMap<u64, Slot>,
    unsaved: BTreeSet<Slot>,
    refused_full: u64,
}

/// What became of the records given to [`Registry::apply_all`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records taken in.
    pub new: usize,
    /// Records that were refused to the last, or held already.
    pub rest: usize,
}

impl Registry {
    /// Begins with the signed genesis of a network, which gives the network its id.
    ///
    /// # Errors
    /// [`RecordError`] if it isn't a genesis signed by one of its owners.
    pub fn new(genesis: &[u8], limits: Limits) -> Result<Self, RecordError> {
        let envelope = Envelope::parse(genesis)?;
        let header = envelope.header();
        let bad = RecordError::Body(RecordKind::GENESIS);
        if header.kind != RecordKind::GENESIS || header.version != 1 || header.network.0 != [0; 32]
        {
            return Err(bad);
        }
        let body: Genesis = record::decode(envelope.body()).map_err(|_| bad)?;
        if !owners::is_list(&body.owners) {
            return Err(bad);
        }
        if !body.owners.contains(&header.signer) {
            return Err(RecordError::NotAuthorized);
        }
        records::verify(&envelope)?;
        let mut unsaved = BTreeSet::new();
        unsaved.insert(Slot::GENESIS);
        Ok(Self {
            network: id::network_id(genesis),
            owners: Owners::new(&body, id::record_id(genesis)),
            genesis: body,
            genesis_bytes: genesis.into(),
            limits,
            records: BTreeMap::new(),
            view: View::default(),
            revocations: Revocations::of(core::iter::empty()),
            revision: 1,
            by_revision: BTreeMap::from([(1, Slot::GENESIS)]),
            unsaved,
            refused_full: 0,
        })
    }

    /// Verifies a record and takes it in if it is newer than what is held. Raises the clock's
    /// floor to its `issued` if an owner, or an issuer that may invite, signed it. (Issuers that
    /// only countersign run where the clock may be forged.)
    ///
    /// # Errors
    /// See [`RecordError`]; nothing was changed then.
    pub fn apply(&mut self, bytes: &[u8], clock: &mut Clock) -> Result<Applied, RecordError> {
        let envelope = Envelope::parse(bytes)?;
        if bytes == &*self.genesis_bytes {
            clock.raise(self.genesis.issued);
            return Ok(Applied::Same);
        }
        let header = *envelope.header();
        if header.network != self.network {
            return Err(RecordError::OtherNetwork(header.network));
        }
        let body = Body::read(&envelope)?;
        let id = envelope.id();
        let slot = body.slot(&header, id);
        if self.records.get(&slot).is_some_and(|held| held.id == id) {
            return Ok(Applied::Same);
        }
        self.judge(&header, &body)?;
        if let Body::Invite(body) = &body {
            self.check_invite(&header.signer, body)?;
        }
        self.check_newer(&slot, &header, id)?;
        self.check_clash(&header, &body)?;
        self.check_keys(&slot, &header, &body)?;
        self.verify(&envelope, &body)?;
        self.make_room(&slot, &header.signer, &body, clock.floor())?;
        if let Some(issued) = body.issued().filter(|_| self.vouches(&header.signer)) {
            clock.raise(issued);
        }
        let unknown = matches!(body, Body::Unknown);
        let changes = self.insert(
            slot,
            Held {
                bytes: bytes.into(),
                id,
                header,
                body,
                revision: 0,
                standing: true,
                in_force: true,
            },
        );
        Ok(if unknown {
            Applied::Kept { slot }
        } else {
            Applied::New { slot, changes }
        })
    }

    /// Applies records in any order: again and again, until a round brings nothing new.
    pub fn apply_all<'a>(
        &mut self,
        records: impl Iterator<Item = &'a [u8]> + Clone,
        clock: &mut Clock,
    ) -> Tally {
        // A chain needs no more rounds than it has links: owner changes can follow each other,
        // then certificate, invite and membership of each sponsor, node. The bound only stops what
        // can't happen.
        let sponsors = 2 * usize::from(MAX_SPONSOR_DEPTH);
        let most = usize::from(self.limits.owner_changes) + sponsors + 8;
        let all = records.clone().count();
        let mut tally = Tally::default();
        for _ in 0..most {
            let mut new = 0;
            // What decides over others goes first, so that the others are judged but once.
            for first in [true, false] {
                for bytes in records.clone().filter(|bytes| decides(bytes) == first) {
                    if matches!(
                        self.apply(bytes, clock),
                        Ok(Applied::New { .. } | Applied::Kept { .. })
                    ) {
                        new += 1;
                    }
                }
            }
            tally.new += new;
            if new == 0 {
                break;
            }
        }
        tally.rest = all.saturating_sub(tally.new);
        tally
    }

    /// Takes up records that were held before, read back from storage: what stood aside, for
    /// whatever reason, does so again until what puts it back is there.
    pub fn apply_stored<'a>(
        &mut self,
        records: impl Iterator<Item = &'a [u8]> + Clone,
        clock: &mut Clock,
    ) {
        let is_change = |bytes: &&[u8]| {
            let envelope = Envelope::parse(bytes);
            envelope.is_ok_and(|e| e.header().kind == RecordKind::OWNER_CHANGE)
        };
        self.apply_all(records.clone().filter(is_change), clock);
        let mut held: Vec<(Slot, Held)> = records
            .filter(|bytes| !is_change(bytes))
            .filter_map(|bytes| self.read_stored(bytes).ok())
            .collect();
        // What others rest on comes first when they are handed on.
        held.sort_unstable_by_key(|(slot, _)| *slot);
        for (slot, held) in held {
            let may = self.records.contains_key(&slot)
                || self
                    .make_room(&slot, &held.header.signer, &held.body, clock.floor())
                    .is_ok();
            if may {
                self.records.insert(slot, held);
                self.unsaved.insert(slot);
                self.touch(&slot);
            }
        }
        self.rebuild();
        let vouched = self.records.values().filter(|held| held.standing);
        let issued = vouched
            .filter(|held| self.vouches(&held.header.signer))
            .filter_map(|held| held.body.issued());
        if let Some(latest) = issued.max() {
            clock.raise(latest);
        }
    }

    /// A record of ours as it is held while nothing is known of what it rests on.
    fn read_stored(&self, bytes: &[u8]) -> Result<(Slot, Held), RecordError> {
        let envelope = Envelope::parse(bytes)?;
        let header = *envelope.header();
        if header.network != self.network {
            return Err(RecordError::OtherNetwork(header.network));
        }
        let body = Body::read(&envelope)?;
        self.verify(&envelope, &body)?;
        let id = envelope.id();
        let slot = body.slot(&header, id);
        let held = Held {
            bytes: bytes.into(),
            id,
            header,
            body,
            revision: 0,
            standing: false,
            in_force: false,
        };
        Ok((slot, held))
    }

    /// The network's id.
    pub const fn network(&self) -> NetworkId {
        self.network
    }

    /// How the network began.
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The bounds it was made with.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The present owners.
    pub fn owners(&self) -> &[SigningKey] {
        self.owners.present()
    }

    /// The present recovery key.
    pub fn recovery(&self) -> SigningKey {
        self.owners.recovery()
    }

    /// The last owner change in force, or the genesis, and its serial: what the next owner
    /// change names as `previous`, and one less than its serial.
    pub fn owner_head(&self) -> (RecordId, Serial) {
        self.owners.head()
    }

    /// How many records were refused because a table was full.
    pub const fn refused_full(&self) -> u64 {
        self.refused_full
    }

    /// The bytes kept in `slot`; none means that nothing is to be stored there.
    pub fn bytes(&self, slot: &Slot) -> Option<&[u8]> {
        if *slot == Slot::GENESIS {
            return Some(&self.genesis_bytes);
        }
        self.records.get(slot).map(|held| &*held.bytes)
    }

    /// The next slot whose stored bytes are no longer those of [`Registry::bytes`]: to be
    /// written, or removed. Each is named once per change.
    pub fn next_unsaved(&mut self) -> Option<Slot> {
        self.unsaved.pop_first()
    }

    /// Forgets that anything is unsaved: the records were just read from storage.
    pub fn mark_saved(&mut self) {
        self.unsaved.clear();
    }

    /// The serial for the next record in `slot`: one more than the largest seen there.
    pub fn next_serial(&self, slot: &Slot) -> Serial {
        self.records
            .get(slot)
            .map_or(Serial(1), |held| held.header.serial.next())
    }

    /// This registry's count of changes. It begins anew with the process.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Records taken in, or standing again, after `revision`, the oldest first: with 0 all of
    /// them, the genesis first. Those that stand aside are left out.
    pub fn changes_since(&self, revision: u64) -> impl Iterator<Item = (u64, Slot, &[u8])> {
        let after = revision.saturating_add(1);
        self.by_revision
            .range(after..)
            .filter_map(|(revision, slot)| self.change(*revision, slot))
    }

    /// The same taken in before `revision`, the newest first.
    pub fn changes_before(&self, revision: u64) -> impl Iterator<Item = (u64, Slot, &[u8])> {
        self.by_revision
            .range(..revision)
            .rev()
            .filter_map(|(revision, slot)| self.change(*revision, slot))
    }

    fn change(&self, revision: u64, slot: &Slot) -> Option<(u64, Slot, &[u8])> {
        if *slot == Slot::GENESIS {
            return Some((revision, *slot, &*self.genesis_bytes));
        }
        let held = self.records.get(slot).filter(|held| held.standing)?;
        Some((revision, *slot, &*held.bytes))
    }

    /// Every record's place and bytes, in the order of slots, the genesis first.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &[u8])> {
        core::iter::once((Slot::GENESIS, &*self.genesis_bytes)).chain(
            self.records
                .iter()
                .map(|(slot, held)| (*slot, &*held.bytes)),
        )
    }

    /// Records whose signer may no longer sign them. After an owner left, a present owner signs
    /// the certificates and revocations among them anew.
    pub fn standing_aside(&self) -> impl Iterator<Item = (Slot, &[u8])> {
        self.records
            .iter()
            .filter(|(_, held)| !held.standing)
            .map(|(slot, held)| (*slot, &*held.bytes))
    }

    /// Verifies the envelope's signature and those inside its body.
    fn verify(&self, envelope: &Envelope<'_>, body: &Body) -> Result<(), RecordError> {
        records::verify(envelope)?;
        match body {
            Body::Membership(body, _) => {
                if let Some(redemption) = &body.invite {
                    records::verify_redemption(redemption, &body.device)?;
                }
            }
            Body::App(body) => {
                records::verify_binding(&self.network, body, &envelope.header().signer)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether what `signer` says of the time raises the floor.
    fn vouches(&self, signer: &SigningKey) -> bool {
        self.owners().contains(signer)
            || self.recovery() == *signer
            || self
                .issuer(signer)
                .is_some_and(|certificate| certificate.rights.contains(Rights::INVITE))
    }

    /// Refuses what isn't newer than the record held in its place. Of two revocations an owner's
    /// goes before an issuer's, whatever their serials: it still stands when the issuer is revoked.
    fn check_newer(&self, slot: &Slot, header: &Header, id: RecordId) -> Result<(), RecordError> {
        let Some(held) = self.records.get(slot).filter(|held| held.standing) else {
            return Ok(());
        };
        let is_device = |signer| slot.kind() == RecordKind::INVITE && self.is_device_key(signer);
        if is_device(&held.header.signer) && !is_device(&header.signer) {
            return Ok(());
        }
        let (current, found) = (held.header.serial, header.serial);
        let is_final = |signer| slot.kind() == RecordKind::REVOCATION && self.is_owner(signer);
        let newer = match (is_final(&header.signer), is_final(&held.header.signer)) {
            (true, false) => true,
            (false, true) => false,
            _ => found > current || (found == current && id < held.id),
        };
        if newer {
            Ok(())
        } else {
            Err(RecordError::Stale { current, found })
        }
    }

    fn insert(&mut self, slot: Slot, held: Held) -> Changes {
        let changes = changes_of(&held.body);
        if let Body::OwnerChange(body) = &held.body {
            self.owners
                .add(held.id, held.header.serial, held.header.signer, body);
        }
        let old = self.records.insert(slot, held);
        if let Some(old) = &old {
            self.by_revision.remove(&old.revision);
        }
        self.unsaved.insert(slot);
        self.touch(&slot);
        self.settle(&slot, old.as_ref());
        changes
    }

    fn remove(&mut self, slot: &Slot) {
        if let Some(old) = self.records.remove(slot) {
            self.by_revision.remove(&old.revision);
            self.unsaved.insert(*slot);
            if matches!(old.body, Body::OwnerChange(_)) {
                self.owners.remove(old.id);
            }
        }
    }

    /// Gives the record in `slot` the next revision.
    fn touch(&mut self, slot: &Slot) {
        self.revision = self.revision.saturating_add(1);
        if let Some(held) = self.records.get_mut(slot) {
            self.by_revision.remove(&held.revision);
            held.revision = self.revision;
            self.by_revision.insert(self.revision, *slot);
        }
    }
}

/// Whether a record is of a kind that other records' standing follows from.
fn decides(bytes: &[u8]) -> bool {
    Envelope::parse(bytes).is_ok_and(|envelope| {
        matches!(
            envelope.header().kind,
            RecordKind::OWNER_CHANGE | RecordKind::ISSUER_CERTIFICATE | RecordKind::REVOCATION
        )
    })
}

fn changes_of(body: &Body) -> Changes {
    let mut changes = Changes::default();
    match body {
        Body::OwnerChange(_) => {
            changes.owners = true;
            changes.issuers = true;
            changes.members = true;
            changes.names = true;
            changes.nodes = true;
            changes.policy = true;
        }
        Body::Certificate(_) => {
            changes.issuers = true;
            changes.members = true;
            changes.names = true;
            changes.policy = true;
        }
        Body::Revocation(_) => {
            changes.revocations = true;
            changes.issuers = true;
            changes.members = true;
            changes.names = true;
        }
        Body::Membership(..) => {
            changes.members = true;
            changes.names = true;
        }
        Body::Invite(_) => changes.members = true,
        Body::Node(_) => changes.nodes = true,
        Body::Host(_) | Body::App(_) => changes.names = true,
        Body::Policy => changes.policy = true,
        Body::Head(_) => changes.heads = true,
        Body::TlsAuthority(_) | Body::TlsRequest(_) | Body::TlsCertificate(_) => changes.tls = true,
        // Looked up whenever it is needed.
        Body::Derp(_) | Body::Unknown => {}
    }
    changes
}
