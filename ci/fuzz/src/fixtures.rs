//! Valid things to begin from: a small network with every kind of record, and two homes whose
//! every datagram was kept.

use std::net::SocketAddr;
use std::sync::OnceLock;

use altnet_core::node::Stored;
use altnet_core::policy::Draft;
use altnet_core::records::{ControlSecret, SigningSecret, bind_app, sign_body, sign_record};
use altnet_core::registry::Registry;
use altnet_sim::homes::{Homes, entry, invited, join, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::world::Captured;
use altnet_tunnel::key::TunnelSecret;
use altnet_wire::envelope::{MAX_POLICY_BYTES, MAX_RECORD_BYTES, RecordKind};
use altnet_wire::id::{MemberId, Name, NetworkId, NodeId, RecordId, Serial, SiteId, network_id};
use altnet_wire::record::{
    AppRecord, Body, DerpRecord, Genesis, HostRecord, Invite, IssuerCertificate, Membership,
    NetworkHead, NodeRecord, OwnerChange, Revocation, RevocationTarget, Rights, Roles, TunnelEpoch,
};
use altnet_wire::time::UnixTime;
use altnet_wire::tls::{TlsAuthority, TlsCertificate, TlsRequest};

/// When the pretend network is made.
pub const FOUNDED: UnixTime = UnixTime::from_secs(1_795_000_000);
const LATER: UnixTime = UnixTime::from_secs(1_797_000_000);

/// One network's keys and records.
pub struct Network {
    /// Owner, recovery, issuer, device and a stranger's.
    pub keys: Vec<SigningSecret>,
    /// Its id.
    pub id: NetworkId,
    /// Every record, the genesis first.
    pub records: Vec<Vec<u8>>,
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a DNS label")
}

fn site(number: u16) -> SiteId {
    SiteId::new(number).expect("a site id")
}

/// The pretend network.
pub fn network() -> &'static Network {
    static NETWORK: OnceLock<Network> = OnceLock::new();
    NETWORK.get_or_init(make_network)
}

fn make_network() -> Network {
    let keys: Vec<_> = (1..=5)
        .map(|n| SigningSecret::from_bytes(&[n; 32]))
        .collect();
    let [owner, recovery, issuer, device, _] = &keys[..] else {
        unreachable!("five keys");
    };
    let genesis = Genesis {
        name: name("home"),
        owners: [owner.public()].into_iter().collect(),
        recovery: recovery.public(),
        issued: FOUNDED,
        nonce: [9; 16],
    };
    let mut out = [0; MAX_RECORD_BYTES];
    let genesis = sign_record(owner, NetworkId([0; 32]), &genesis, Serial(0), &mut out)
        .expect("a genesis fits")
        .to_vec();
    let id = network_id(&genesis);
    let mut records = vec![genesis.clone()];
    let registry = Registry::new(&genesis, altnet_core::limits::Limits::ROUTER).expect("valid");
    let (head, _): (RecordId, Serial) = registry.owner_head();
    let change = OwnerChange {
        previous: head,
        owners: [owner.public()].into_iter().collect(),
        recovery: recovery.public(),
        issued: FOUNDED,
    };
    records.push(signed(recovery, id, &change, 1));
    let certificate = IssuerCertificate {
        issuer: issuer.public(),
        rights: Rights::all(),
        roles: Roles::all(),
        first_site: site(0),
        last_site: site(SiteId::MAX),
        issued: FOUNDED,
        expires: UnixTime::from_secs(2_000_000_000),
    };
    records.push(signed(owner, id, &certificate, 1));
    let membership = Membership {
        member: MemberId([7; 16]),
        name: name("house-a"),
        person: Some(name("ada")),
        device: device.public(),
        roles: Roles::GATEWAY | Roles::RELAY | Roles::DIRECTORY | Roles::APPS,
        site: Some(site(1)),
        groups: [name("family")].into_iter().collect(),
        sponsor: None,
        invite: None,
        issued: FOUNDED,
        expires: LATER,
        replaces: None,
    };
    records.push(signed(issuer, id, &membership, 1));
    let tunnel = TunnelEpoch {
        epoch: 1,
        key: TunnelSecret::new([11; 32]).public(),
    };
    let endpoint: SocketAddr = "203.0.113.10:51820".parse().expect("an address");
    let node = NodeRecord {
        control: ControlSecret::from_bytes(&[12; 32]).public(),
        tunnel,
        previous_tunnel: None,
        home_relays: [NodeId([3; 16])].into_iter().collect(),
        fixed_endpoints: [endpoint].into_iter().collect(),
    };
    records.push(signed(device, id, &node, 1));
    let prefix = altnet_wire::address::site_prefix(&id, site(1));
    let host = HostRecord {
        name: name("wiki"),
        site: site(1),
        address: Some((u128::from(prefix.address()) | 0x80).into()),
    };
    records.push(signed(device, id, &host, 1));
    let app_key = SigningSecret::from_bytes(&[13; 32]);
    let app = AppRecord {
        name: name("photos"),
        app: app_key.public(),
        tunnel: None,
        binding: bind_app(&id, &app_key, &device.public()),
    };
    records.push(signed(device, id, &app, 1));
    let invite = Invite {
        invite: SigningSecret::of_invite(&[14; 16]).public(),
        issuer: issuer.public(),
        name: Some(name("house-b")),
        person: None,
        roles: Roles::GATEWAY,
        site: Some(site(2)),
        groups: heapless::Vec::new(),
        sponsor: Some(MemberId([7; 16])),
        uses: 1,
        issued: FOUNDED,
        expires: LATER,
    };
    records.push(signed(issuer, id, &invite, 1));
    let revocation = Revocation {
        target: RevocationTarget::Member(MemberId([8; 16])),
        issued: FOUNDED,
        reason: "lost".try_into().expect("short"),
    };
    records.push(signed(issuer, id, &revocation, 1));
    let head = NetworkHead {
        revocations: [1; 32],
        revocation_count: 1,
        policy: [0; 32],
        policy_serial: Serial(0),
        owner_serial: 0,
        issued: FOUNDED,
    };
    records.push(signed(issuer, id, &head, 1));
    records.push(signed_bytes(
        issuer,
        id,
        RecordKind::POLICY,
        &Draft::members_to_hosts(FOUNDED).encode().expect("a policy"),
        1,
    ));
    records.push(signed_bytes(
        issuer,
        id,
        RecordKind(77),
        b"a kind of tomorrow",
        1,
    ));
    let served = SigningSecret::from_bytes(&[15; 32]);
    let app = AppRecord {
        name: name("notes"),
        app: served.public(),
        tunnel: Some(TunnelEpoch {
            epoch: 1,
            key: TunnelSecret::new([16; 32]).public(),
        }),
        binding: bind_app(&id, &served, &device.public()),
    };
    records.push(signed(device, id, &app, 1));
    let certificate = |text: &[u8]| text.iter().copied().collect();
    let authority = TlsAuthority {
        issued: FOUNDED,
        expires: LATER,
        certificate: certificate(b"an authority"),
    };
    records.push(signed(owner, id, &authority, 1));
    for (app, subject) in [(Some(served.public()), &served), (None, device)] {
        let request = TlsRequest {
            app,
            key: [[17; 32], [18; 32]],
            proof: [[19; 32], [20; 32]],
        };
        records.push(signed(device, id, &request, 1));
        let answer = TlsCertificate {
            subject: subject.public(),
            request: Serial(1),
            authority: authority.hash(),
            expires: LATER,
            certificate: certificate(b"a certificate"),
        };
        records.push(signed(owner, id, &answer, 1));
    }
    records.push(signed(device, id, &DerpRecord { key: [21; 32] }, 1));
    Network { keys, id, records }
}

fn signed<T: Body>(secret: &SigningSecret, network: NetworkId, body: &T, serial: u64) -> Vec<u8> {
    let mut out = [0; MAX_RECORD_BYTES];
    let bytes = sign_record(secret, network, body, Serial(serial), &mut out);
    bytes.expect("a record fits").to_vec()
}

/// Signs any body; nothing if it is too large.
pub fn signed_bytes(
    secret: &SigningSecret,
    network: NetworkId,
    kind: RecordKind,
    body: &[u8],
    serial: u64,
) -> Vec<u8> {
    let mut out = [0; MAX_POLICY_BYTES];
    let bytes = sign_body(secret, network, kind, 1, body, Serial(serial), &mut out);
    bytes.map(<[u8]>::to_vec).unwrap_or_default()
}

/// Two homes and a relay as they are in the middle of their lives.
pub struct Town {
    /// The disks of the relay, house A and house B.
    pub disks: [Stored; 3],
    /// What passed the internet while they met.
    pub captured: Vec<Captured>,
    /// Texts of an invite's link, unused, and of a bundle.
    pub link: String,
    /// The bundle of a first node.
    pub bundle: String,
}

/// The pretend town.
pub fn town() -> &'static Town {
    static TOWN: OnceLock<Town> = OnceLock::new();
    TOWN.get_or_init(|| {
        let mut homes = Homes::new(1, Kind::FULL_CONE, Kind::FULL_CONE);
        homes.world.capture = true;
        let phone = homes.world.host("203.0.113.50", None);
        let link = homes.founder.invite("phone", Roles::empty(), None, entry());
        join(&mut homes.world, phone, invited(link));
        assert!(homes.reaches("a page"));
        homes.world.run(seconds(90));
        let link = homes
            .founder
            .invite("house-c", Roles::GATEWAY, Some(3), entry());
        let bundle = homes.founder.relay_bundle(entry());
        let disks = [homes.relay, homes.a, homes.b].map(|h| homes.world.disk(h).clone());
        Town {
            disks,
            captured: core::mem::take(&mut homes.world.captured),
            link: link.to_text(),
            bundle: bundle.to_text().expect("a bundle").to_string(),
        }
    })
}
