//! The owner's computer: makes a network, bundles and invites, as `altnet-provision` does.

use core::net::SocketAddr;

use altnet_core::clock::Clock;
use altnet_core::invite::{Bundle, Link};
use altnet_core::issuer::{Issuer, NewInvite, sign_anew};
use altnet_core::limits::Limits;
use altnet_core::policy::Draft;
use altnet_core::records::{SigningSecret, sign_body, sign_record};
use altnet_core::registry::{Registry, Slot};
use altnet_core::rng::Rng;
use altnet_wire::envelope::{MAX_RECORD_BYTES, RecordKind};
use altnet_wire::id::{MemberId, Name, NetworkId, Serial, SigningKey, SiteId};
use altnet_wire::policy::Policy;
use altnet_wire::record::{
    Body, Genesis, HostRecord, IssuerCertificate, OwnerChange, RevocationTarget, Rights, Roles,
};
use altnet_wire::time::{Duration, Instant, UnixTime};

/// When every pretend network is made.
pub const FOUNDED: UnixTime = UnixTime::from_secs(1_795_000_000);

/// An owner with a network.
pub struct Founder {
    owner: SigningSecret,
    recovery: SigningSecret,
    issuer: Issuer,
    admits: SigningSecret,
    /// What the owner's computer knows.
    pub registry: Registry,
    clock: Clock,
    rng: Rng,
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a test's name is a DNS label")
}

impl Founder {
    /// Makes a network called `petname`.
    pub fn new(petname: &str, seed: u8) -> Self {
        let mut rng = Rng::new([seed; 32]);
        let owner = SigningSecret::generate(&mut rng);
        let recovery = SigningSecret::generate(&mut rng);
        let own_issuer = SigningSecret::generate(&mut rng);
        let admits = SigningSecret::generate(&mut rng);
        let genesis = Genesis {
            name: name(petname),
            owners: [owner.public()].into_iter().collect(),
            recovery: recovery.public(),
            issued: FOUNDED,
            nonce: rng.array(),
        };
        let mut out = [0; MAX_RECORD_BYTES];
        let bytes = sign_record(&owner, NetworkId([0; 32]), &genesis, Serial(0), &mut out)
            .expect("a genesis fits");
        let mut registry = Registry::new(bytes, Limits::ROUTER).expect("a genesis is valid");
        let mut clock = Clock::new(FOUNDED);
        clock.set_running(FOUNDED, Instant::ZERO);
        for (issuer, rights) in [
            (own_issuer.public(), Rights::all()),
            (admits.public(), Rights::ADMIT),
        ] {
            certify(&owner, &mut registry, &mut clock, issuer, rights);
        }
        let issuer = Issuer::new(own_issuer, None, &registry).expect("a new issuer");
        let mut founder = Self {
            owner,
            recovery,
            issuer,
            admits,
            registry,
            clock,
            rng,
        };
        founder.publish_policy(&Draft::members_to_hosts(FOUNDED));
        founder
    }

    /// Puts a policy in force, and says so in a head. Returns both records.
    pub fn publish_policy(&mut self, draft: &Draft) -> [Vec<u8>; 2] {
        let body = draft.encode().expect("a test's policy is in order");
        let read = Policy::decode_versioned(&body);
        let (version, _) = read.expect("a draft makes policies");
        let serial = self.registry.next_serial(&Slot::POLICY);
        let (secret, network) = (self.issuer.secret(), self.registry.network());
        let mut out = vec![0; RecordKind::POLICY.max_bytes()];
        let policy = sign_body(
            secret,
            network,
            RecordKind::POLICY,
            version,
            &body,
            serial,
            &mut out,
        )
        .expect("a policy that fits")
        .to_vec();
        self.registry
            .apply(&policy, &mut self.clock)
            .expect("its issuer may sign policies");
        let head = self
            .issuer
            .head(&mut self.registry, &mut self.clock, Instant::ZERO)
            .expect("a head");
        [policy, head]
    }

    /// An owner's word of whatever kind, in its place. Returns the record.
    pub fn sign_as_owner<T: Body>(&mut self, slot: &Slot, body: &T) -> Vec<u8> {
        let serial = self.registry.next_serial(slot);
        let mut out = [0; MAX_RECORD_BYTES];
        let network = self.registry.network();
        let bytes = sign_record(&self.owner, network, body, serial, &mut out);
        let bytes = bytes.expect("a test's record fits").to_vec();
        self.registry
            .apply(&bytes, &mut self.clock)
            .expect("its owner may sign it");
        bytes
    }

    /// Takes in what others signed, as a sync does.
    pub fn learn(&mut self, records: &[Vec<u8>]) {
        let all = records.iter().map(Vec::as_slice);
        self.registry.apply_all(all, &mut self.clock);
    }

    /// Every record the owner has.
    pub fn records(&self) -> Vec<Vec<u8>> {
        self.registry
            .iter()
            .map(|(_, bytes)| bytes.to_vec())
            .collect()
    }

    /// An invite's link for one device.
    pub fn invite(
        &mut self,
        called: &str,
        roles: Roles,
        site: Option<u16>,
        entry: SocketAddr,
    ) -> Link {
        self.invite_lasting(
            called,
            roles,
            site,
            entry,
            Duration::from_secs(7 * 86_400),
            1,
        )
    }

    /// An invite that lasts so long and lets in so many.
    pub fn invite_lasting(
        &mut self,
        called: &str,
        roles: Roles,
        site: Option<u16>,
        entry: SocketAddr,
        lasts: Duration,
        uses: u16,
    ) -> Link {
        let issuer = self.admits.public();
        self.invite_at(issuer, called, roles, site, entry, lasts, uses)
    }

    /// An invite that only the owner's own computer may countersign.
    pub fn invite_by_hand(&mut self, called: &str, entry: SocketAddr) -> Link {
        let issuer = self.issuer.public();
        let week = Duration::from_secs(7 * 86_400);
        self.invite_at(issuer, called, Roles::empty(), None, entry, week, 1)
    }

    #[allow(clippy::too_many_arguments)] // what an invite says
    fn invite_at(
        &mut self,
        issuer: SigningKey,
        called: &str,
        roles: Roles,
        site: Option<u16>,
        entry: SocketAddr,
        lasts: Duration,
        uses: u16,
    ) -> Link {
        let new = NewInvite {
            issuer,
            name: (uses == 1).then(|| name(called)),
            person: None,
            roles,
            site: site.and_then(SiteId::new),
            groups: heapless::Vec::new(),
            sponsor: None,
            uses,
            lasts,
        };
        let (secret, bytes) = self
            .issuer
            .create_invite(
                &mut self.registry,
                &mut self.clock,
                new,
                Instant::ZERO,
                &mut self.rng,
            )
            .expect("the owner may invite");
        Link::new(&bytes, &[entry], secret).expect("an invite makes a link")
    }

    /// The first-boot bundle of the network's relay, directory and countersigner.
    pub fn relay_bundle(&mut self, endpoint: SocketAddr) -> Bundle {
        self.relay_bundle_at(&[endpoint])
    }

    /// The same, of one that says it is at several places.
    pub fn relay_bundle_at(&mut self, endpoints: &[SocketAddr]) -> Bundle {
        let roles = Roles::RELAY | Roles::DIRECTORY;
        let link = self.invite("relay1", roles, None, endpoints[0]);
        Bundle {
            records: self.records(),
            link: Some(link),
            issuer: Some(self.admits.clone()),
            roles,
            fixed_endpoints: endpoints.iter().copied().collect(),
            petname: None,
            settings: String::new(),
        }
    }

    /// Names a machine in a site, by the owner's own issuer key. Returns the record.
    pub fn host(&mut self, called: &str, site: u16, host: u64) -> Vec<u8> {
        let site = SiteId::new(site).expect("a test's site id");
        let prefix = altnet_wire::address::site_prefix(&self.registry.network(), site);
        let address = u128::from(prefix.address()) | u128::from(host);
        let record = HostRecord {
            name: name(called),
            site,
            address: Some(address.into()),
        };
        let slot = Slot::host(site, &record.name);
        let serial = self.registry.next_serial(&slot);
        let mut out = [0; MAX_RECORD_BYTES];
        let network = self.registry.network();
        sign_record(self.issuer.secret(), network, &record, serial, &mut out)
            .expect("a host record fits")
            .to_vec()
    }

    /// Revokes a member. Returns the record.
    pub fn revoke(&mut self, member: MemberId) -> Vec<u8> {
        self.revoke_target(RevocationTarget::Member(member))
    }

    /// Vouches for a member whose sponsor is to be revoked, after it heard what `known` are.
    /// Returns the records.
    pub fn adopt(&mut self, known: &[Vec<u8>], member: MemberId) -> Vec<Vec<u8>> {
        let known = known.iter().map(Vec::as_slice);
        self.registry.apply_all(known, &mut self.clock);
        let before = self.registry.revision();
        self.issuer
            .adopt(
                &mut self.registry,
                &mut self.clock,
                &member,
                Instant::ZERO,
                &mut self.rng,
            )
            .expect("the owner may invite");
        let changes = self.registry.changes_since(before);
        changes.map(|(_, _, bytes)| bytes.to_vec()).collect()
    }

    /// Takes an invite back. Returns the record.
    pub fn revoke_invite(&mut self, link: &Link) -> Vec<u8> {
        let invite = link.body().expect("a link that was made here").invite;
        self.revoke_target(RevocationTarget::Invite(invite))
    }

    fn revoke_target(&mut self, target: RevocationTarget) -> Vec<u8> {
        self.issuer
            .revoke(
                &mut self.registry,
                &mut self.clock,
                target,
                "stolen",
                Instant::ZERO,
            )
            .expect("the owner may revoke")
    }

    /// Puts a new owner in the place of the present one, with the recovery key. Returns the
    /// change, and what the new owner signed anew after it.
    pub fn replace_owner(&mut self) -> (Vec<u8>, Vec<Vec<u8>>) {
        let owner = SigningSecret::generate(&mut self.rng);
        let (previous, serial) = self.registry.owner_head();
        let change = OwnerChange {
            previous,
            owners: [owner.public()].into_iter().collect(),
            recovery: self.recovery.public(),
            issued: FOUNDED,
        };
        let mut out = [0; MAX_RECORD_BYTES];
        let network = self.registry.network();
        let change = sign_record(&self.recovery, network, &change, serial.next(), &mut out)
            .expect("an owner change fits")
            .to_vec();
        let mut apply = |registry: &mut Registry, bytes: &[u8]| {
            registry
                .apply(bytes, &mut self.clock)
                .expect("the recovery key decides");
        };
        apply(&mut self.registry, &change);
        let anew: Vec<Vec<u8>> = self
            .registry
            .standing_aside()
            .filter(|(slot, _)| slot.kind() == RecordKind::ISSUER_CERTIFICATE)
            .map(|(_, bytes)| sign_anew(&owner, bytes).expect("an envelope"))
            .collect();
        for bytes in &anew {
            apply(&mut self.registry, bytes);
        }
        self.owner = owner;
        (change, anew)
    }

    /// An owner key's public half, for tests that look at records.
    pub fn owner(&self) -> SigningKey {
        self.owner.public()
    }
}

fn certify(
    owner: &SigningSecret,
    registry: &mut Registry,
    clock: &mut Clock,
    issuer: SigningKey,
    rights: Rights,
) {
    let certificate = IssuerCertificate {
        issuer,
        rights,
        roles: Roles::all(),
        first_site: SiteId::new(0).expect("zero is a site id"),
        last_site: SiteId::new(SiteId::MAX).expect("the largest site id"),
        issued: FOUNDED,
        expires: FOUNDED.after(Duration::from_secs(3650 * 86_400)),
    };
    let mut out = [0; MAX_RECORD_BYTES];
    let network = registry.network();
    let bytes =
        sign_record(owner, network, &certificate, Serial(1), &mut out).expect("a certificate fits");
    registry.apply(bytes, clock).expect("an owner may certify");
}
