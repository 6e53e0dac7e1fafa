//! The bodies of records, each of one version ([`Body::VERSION`]); a policy's has a module of its own.
//!
//! postcard is positional: fields are never reordered or removed, a new shape is a new
//! version. Who may sign what, and which of two records wins, is `altnet-core`'s.

use core::net::{Ipv6Addr, SocketAddr};

use bitflags::bitflags;
use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

use crate::canonical::{self, NotCanonical};
use crate::envelope::RecordKind;
use crate::hash::Hash;
use crate::id::{
    ControlKey, MemberId, Name, NodeId, RecordId, Serial, SigningKey, SiteId, TunnelKey,
};
use crate::time::UnixTime;

/// Most owners at a time.
pub const MAX_OWNERS: usize = 8;
/// Most groups a member is in.
pub const MAX_GROUPS: usize = 8;
/// Most home relays of a node.
pub const MAX_HOME_RELAYS: usize = 4;
/// Most fixed endpoints of a node.
pub const MAX_FIXED_ENDPOINTS: usize = 4;
/// The longest reason in a revocation, in bytes of UTF-8.
pub const MAX_REASON_BYTES: usize = 120;

/// A body with a kind and a version of its own.
pub trait Body: Serialize {
    /// Its record kind.
    const KIND: RecordKind;
    /// Its format's version.
    const VERSION: u8 = 1;
}

/// Reads a body that takes up all of `bytes`, in canonical form.
///
/// # Errors
/// [`NotCanonical`].
pub fn decode<'a, T: Body + Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, NotCanonical> {
    canonical::decode(bytes)
}

macro_rules! body {
    ($type:ty, $kind:ident) => {
        impl Body for $type {
            const KIND: RecordKind = RecordKind::$kind;
        }
    };
}

/// The beginning of a network. Signed by one of its owners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// A name to begin with; every home may call the network otherwise.
    pub name: Name,
    /// The owners; any one of them may act.
    pub owners: Vec<SigningKey, MAX_OWNERS>,
    /// The key on paper that can replace them.
    pub recovery: SigningKey,
    /// When it was made.
    pub issued: UnixTime,
    /// Chance, so that two networks never have the same id.
    pub nonce: [u8; 16],
}
body!(Genesis, GENESIS);

/// A new list of owners. Signed by a present owner or by the recovery key.
///
/// The record's serial is its place in the chain: 1 follows the genesis. Only the recovery
/// key may name another recovery key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerChange {
    /// The record before: the genesis, or the owner change with the serial before this.
    pub previous: RecordId,
    /// All owners from now on.
    pub owners: Vec<SigningKey, MAX_OWNERS>,
    /// The recovery key from now on.
    pub recovery: SigningKey,
    /// When it was made.
    pub issued: UnixTime,
}
body!(OwnerChange, OWNER_CHANGE);

bitflags! {
    /// What an issuer may sign. Unknown bits are kept and mean nothing.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(transparent)]
    pub struct Rights: u16 {
        /// Make members without an invite, and invites.
        const INVITE = 1;
        /// Countersign invites that somebody with [`Rights::INVITE`] made, and renew memberships.
        const ADMIT = 2;
        /// Revoke.
        const REVOKE = 4;
        /// Sign policies.
        const POLICY = 8;
        /// Sign host records of the sites in its range.
        const HOSTS = 16;
    }
}

/// A power of an owner lent to an issuer key. Signed by an owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerCertificate {
    /// The key that may issue.
    pub issuer: SigningKey,
    /// What it may sign.
    pub rights: Rights,
    /// The roles it may give.
    pub roles: Roles,
    /// The first site id it may give.
    pub first_site: SiteId,
    /// The last site id it may give.
    pub last_site: SiteId,
    /// When it was made.
    pub issued: UnixTime,
    /// When it ends.
    pub expires: UnixTime,
}
body!(IssuerCertificate, ISSUER_CERTIFICATE);

bitflags! {
    /// What a member's device may be. Unknown bits are kept and mean nothing.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[serde(transparent)]
    pub struct Roles: u16 {
        /// The gateway of its site: speaks for the site's /64 and signs its host records.
        const GATEWAY = 1;
        /// Forwards for others.
        const RELAY = 2;
        /// Keeps and hands out records.
        const DIRECTORY = 4;
        /// Runs apps.
        const APPS = 8;
    }
}

/// How a member came in by an invite: what shows that whoever held the invite's secret half
/// wanted this device in, so that a stolen issuer key with [`Rights::ADMIT`] alone admits nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redemption {
    /// The public half of the invite.
    pub invite: SigningKey,
    /// What the redemption was bound to: [`redemption_session`].
    pub session: Hash,
    /// The invite key's signature over [`redemption_proof`], as two halves.
    pub proof: [[u8; 32]; 2],
}

/// A device that belongs to the network. Signed by an issuer.
///
/// The subject is `member`: of two, the one with the larger serial holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The member, the same through all its devices' keys.
    pub member: MemberId,
    /// The device's name.
    pub name: Name,
    /// Whose it is, if anybody's in particular.
    pub person: Option<Name>,
    /// The device key.
    pub device: SigningKey,
    /// What it may be.
    pub roles: Roles,
    /// The site it is in; a gateway has one.
    pub site: Option<SiteId>,
    /// Groups that policy may name.
    pub groups: Vec<Name, MAX_GROUPS>,
    /// Who invited it.
    pub sponsor: Option<MemberId>,
    /// The invite it redeemed, and the proof that it did.
    pub invite: Option<Redemption>,
    /// When it was made.
    pub issued: UnixTime,
    /// When it ends, unless renewed.
    pub expires: UnixTime,
    /// The device key that this one takes the place of.
    pub replaces: Option<SigningKey>,
}
body!(Membership, MEMBERSHIP);

/// A tunnel key and its place in the order of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelEpoch {
    /// Counts up at each rotation.
    pub epoch: u32,
    /// The key.
    pub key: TunnelKey,
}

/// What a device says of itself. Signed by its device key; the subject is the signer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Where its Noise sessions end.
    pub control: ControlKey,
    /// Where its tunnels end.
    pub tunnel: TunnelEpoch,
    /// The tunnel key before, still accepted.
    pub previous_tunnel: Option<TunnelEpoch>,
    /// Relays it can be reached through, the preferred first.
    pub home_relays: Vec<NodeId, MAX_HOME_RELAYS>,
    /// Endpoints that don't change: of a relay, or of a port forwarded by hand.
    pub fixed_endpoints: Vec<SocketAddr, MAX_FIXED_ENDPOINTS>,
}
body!(NodeRecord, NODE);

/// By which key other people's DERP servers name a device. Signed by the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DerpRecord {
    /// X25519, used for nothing else ([`crate::derp::PublicKey`]).
    pub key: [u8; 32],
}
body!(DerpRecord, DERP);

/// A machine on a site's LAN. Signed by the site's gateway, or by an issuer with
/// [`Rights::HOSTS`] for that site; the subject is `name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// Its name.
    pub name: Name,
    /// The site it is in.
    pub site: SiteId,
    /// Its address in the site's /64; none if the name was given up.
    pub address: Option<Ipv6Addr>,
}
body!(HostRecord, HOST);

/// An app: a member of its own on a device. Signed by the device; the subject is `app`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRecord {
    /// Its name.
    pub name: Name,
    /// Its key, from which its address follows.
    pub app: SigningKey,
    /// Its tunnel key; none if the app was removed.
    pub tunnel: Option<TunnelEpoch>,
    /// The app key's signature over [`app_binding`], which shows that the app agrees.
    pub binding: [[u8; 32]; 2],
}
body!(AppRecord, APP);

/// What an app key signs to let `device` speak for it.
pub fn app_binding(network: &crate::id::NetworkId, app: &SigningKey, device: &SigningKey) -> Hash {
    crate::hash::labelled("altnet app binding v1", &[&network.0, &app.0, &device.0])
}

/// What the holder of a recovery key, who has nothing else, calls its network in a Hello. Only
/// members know the key's public half, so nobody else can say it.
pub fn recovery_hint(recovery: &SigningKey) -> crate::id::NetworkId {
    crate::id::NetworkId(crate::hash::labelled(
        "altnet recovery hint v1",
        &[&recovery.0],
    ))
}

/// What is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RevocationTarget {
    /// A member with all its devices.
    Member(MemberId),
    /// One device key.
    Device(SigningKey),
    /// An issuer's certificate; what it signed before stays until it expires.
    Issuer(SigningKey),
    /// An invite.
    Invite(SigningKey),
}

/// The end of something. Signed by an owner, or by an issuer with [`Rights::REVOKE`] (which
/// can't revoke issuers).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// What ends.
    pub target: RevocationTarget,
    /// When it was said.
    pub issued: UnixTime,
    /// Why, for people.
    pub reason: String<MAX_REASON_BYTES>,
}
body!(Revocation, REVOCATION);

/// An open door. Signed by an issuer with [`Rights::INVITE`]; the secret half of `invite`
/// travels only in the link's fragment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// The public half: who can sign with the secret half may come in.
    pub invite: SigningKey,
    /// The one issuer that counts uses and countersigns.
    pub issuer: SigningKey,
    /// The device's name, if the inviter chose it.
    pub name: Option<Name>,
    /// Whose the device will be.
    pub person: Option<Name>,
    /// What the device will be.
    pub roles: Roles,
    /// Its site.
    pub site: Option<SiteId>,
    /// Its groups.
    pub groups: Vec<Name, MAX_GROUPS>,
    /// Who invites.
    pub sponsor: Option<MemberId>,
    /// How many devices may come in.
    pub uses: u16,
    /// When it was made.
    pub issued: UnixTime,
    /// When it ends.
    pub expires: UnixTime,
}
body!(Invite, INVITE);

/// The Noise session a redemption is bound to, so that nobody can pass it on: its handshake
/// hash and the newcomer's control key.
pub fn redemption_session(handshake: &Hash, control: &ControlKey) -> Hash {
    crate::hash::labelled("altnet redemption session v1", &[handshake, &control.0])
}

/// What a person redeeming an invite signs with its secret half.
pub fn redemption_proof(session: &Hash, device: &SigningKey) -> Hash {
    crate::hash::labelled("altnet redemption v1", &[session, &device.0])
}

/// How far an issuer has come: what its peers compare so that nobody can withhold a
/// revocation. Signed by the issuer; the subject is the signer, `serial` the counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkHead {
    /// Hash over the ids of all revocations known to it, in ascending order.
    pub revocations: Hash,
    /// How many they are.
    pub revocation_count: u32,
    /// Hash of the policy record in force, zero if none.
    pub policy: Hash,
    /// Serial of that record, 0 if none: of two policies the larger holds, so that whoever has a
    /// smaller one is behind.
    pub policy_serial: Serial,
    /// Serial of the last owner change.
    pub owner_serial: u64,
    /// When it was made.
    pub issued: UnixTime,
}

/// Version 1 had no `policy_serial`; it is retired.
impl Body for NetworkHead {
    const KIND: RecordKind = RecordKind::NETWORK_HEAD;
    const VERSION: u8 = 2;
}
