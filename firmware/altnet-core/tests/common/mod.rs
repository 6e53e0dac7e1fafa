//! A small network with fixed keys, for tests to build on.
#![allow(dead_code)]

use altnet_core::clock::Clock;
use altnet_core::limits::Limits;
use altnet_core::policy::{Draft, DraftProfile, DraftRule, DraftSponsor};
use altnet_core::records::{self, ControlSecret, SigningSecret};
use altnet_core::registry::Registry;
use altnet_tunnel::key::TunnelSecret;
use altnet_wire::address;
use altnet_wire::envelope::{MAX_POLICY_BYTES, RecordKind};
use altnet_wire::id::{MemberId, Name, NetworkId, RecordId, Serial, SigningKey, SiteId, record_id};
use altnet_wire::policy::{Atom, Pattern, Service, Span, Summer, Switch, Window, Zone};
use altnet_wire::record::*;
use altnet_wire::time::UnixTime;
use altnet_wire::tls::{TlsAuthority, TlsCertificate, TlsRequest};

pub const DAY: u64 = 86_400;
pub const T0: u64 = 1_790_000_000;

pub fn secret(byte: u8) -> SigningSecret {
    SigningSecret::from_bytes(&[byte; 32])
}

pub fn at(seconds: u64) -> UnixTime {
    UnixTime::from_secs(T0 + seconds)
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn site(id: u16) -> SiteId {
    SiteId::new(id).unwrap()
}

pub fn member(byte: u8) -> MemberId {
    MemberId([byte; 16])
}

pub fn keys<const N: usize>(secrets: &[&SigningSecret]) -> heapless::Vec<SigningKey, N> {
    secrets.iter().map(|secret| secret.public()).collect()
}

/// The keys of a network, and its genesis.
pub struct Town {
    pub owner: SigningSecret,
    pub second: SigningSecret,
    pub recovery: SigningSecret,
    /// May do everything.
    pub issuer: SigningSecret,
    /// May countersign invites.
    pub porter: SigningSecret,
    pub genesis: Vec<u8>,
    pub network: NetworkId,
}

/// The body of the policy that a network begins with.
pub fn policy_body() -> Vec<u8> {
    Draft::members_to_hosts(at(70)).encode().unwrap()
}

/// The body of a policy in which everything occurs that could in version 1.
pub fn full_policy_body() -> Vec<u8> {
    full_policy().encode().unwrap()
}

/// The same and what came with version 2.
pub fn full_policy_body_2() -> Vec<u8> {
    let sponsor = |who, most, depth, groups: &[&str]| DraftSponsor {
        who,
        most,
        depth,
        groups: groups.iter().map(|group| name(group)).collect(),
    };
    let family = Atom::Group(name("family"));
    let device = Atom::Device(MemberId([20; 16]));
    Draft {
        vouchers: [
            (family.clone(), Atom::Members),
            (device, Atom::Person(name("ann"))),
            (Atom::Site(site(3)), Atom::Group(name("children"))),
        ]
        .into(),
        sponsors: vec![
            sponsor(family, 300, 2, &["children", "things"]),
            sponsor(Atom::Members, 1, 1, &[]),
        ],
        ..full_policy()
    }
    .encode()
    .unwrap()
}

fn full_policy() -> Draft {
    let span = |days, opens_min, closes_min| Span {
        days,
        opens_min,
        closes_min,
    };
    let window = |spans: &[Span], open_without_clock| Window {
        spans: spans.iter().copied().collect(),
        open_without_clock,
    };
    let switch = |month, minute| Switch {
        month,
        week: 5,
        weekday: 0,
        minute,
    };
    let summer = Summer {
        offset_min: 120,
        begins: switch(3, 120),
        ends: switch(10, -60),
    };
    let ports = |protocol, first_port, last_port| Service {
        protocol: Some(protocol),
        first_port,
        last_port,
    };
    let evenings = window(&[span(0x1f, 1080, 1440), span(0x60, 480, 60)], false);
    let host = Atom::Host(site(3), name("wiki"));
    let app = Atom::App(MemberId([20; 16]), name("chat"));
    let media = Atom::Named(Pattern::new("media-*").unwrap());
    let rule = |called, from: &[Atom], to: &[Atom], services: &[Service]| DraftRule {
        name: name(called),
        from: from.iter().cloned().collect(),
        to: to.iter().cloned().collect(),
        services: services.iter().copied().collect(),
        window: None,
        needs_fresh_head: false,
    };
    let family = Atom::Group(name("family"));
    let web = rule(
        "web",
        &[Atom::Members, Atom::Person(name("ann"))],
        &[host, app, Atom::Hosts, Atom::Apps],
        &[ports(6, 80, 80), ports(17, 5000, 5100)],
    );
    let care = DraftRule {
        window: Some(window(&[span(0x7f, 0, 1440)], true)),
        needs_fresh_head: true,
        ..rule(
            "care",
            &[family, Atom::Device(MemberId([20; 16]))],
            &[Atom::Anything, Atom::Site(site(3))],
            &[Service::ANY, Service::all_of(Some(Service::ICMPV6))],
        )
    };
    let profile = DraftProfile {
        group: name("children"),
        exclusive: true,
        window: Some(evenings),
    };
    let things = [media, Atom::Site(site(3))];
    Draft {
        issued: at(80),
        zone: Zone {
            offset_min: 60,
            summer: Some(summer),
        },
        stale_after_s: 86_400,
        sites: [(site(3), name("cabin"))].into(),
        groups: [
            (name("family"), [Atom::Person(name("ann"))].into()),
            (name("things"), things.into()),
        ]
        .into(),
        profiles: vec![profile],
        rules: vec![web, care],
        ..Draft::default()
    }
}

impl Town {
    pub fn new() -> Self {
        let (owner, second, recovery) = (secret(1), secret(2), secret(3));
        let body = Genesis {
            name: name("town"),
            owners: keys(&[&owner, &second]),
            recovery: recovery.public(),
            issued: at(0),
            nonce: [4; 16],
        };
        let genesis = sign(&owner, NetworkId([0; 32]), &body, 0);
        let network = altnet_wire::id::network_id(&genesis);
        Self {
            owner,
            second,
            recovery,
            issuer: secret(5),
            porter: secret(6),
            genesis,
            network,
        }
    }

    pub fn registry(&self, limits: Limits) -> Registry {
        Registry::new(&self.genesis, limits).unwrap()
    }

    pub fn sign<T: Body>(&self, by: &SigningSecret, body: &T, serial: u64) -> Vec<u8> {
        sign(by, self.network, body, serial)
    }

    pub fn opaque(&self, by: &SigningSecret, kind: u16, version: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![0; MAX_POLICY_BYTES];
        let kind = RecordKind(kind);
        records::sign_body(by, self.network, kind, version, body, Serial(1), &mut out)
            .unwrap()
            .to_vec()
    }

    pub fn certificate(&self, issuer: &SigningSecret, rights: Rights) -> IssuerCertificate {
        IssuerCertificate {
            issuer: issuer.public(),
            rights,
            roles: Roles::all(),
            first_site: site(0),
            last_site: site(99),
            issued: at(1),
            expires: at(400 * DAY),
        }
    }

    /// Certificates of the issuer and the porter.
    pub fn certificates(&self) -> Vec<Vec<u8>> {
        vec![
            self.sign(
                &self.owner,
                &self.certificate(&self.issuer, Rights::all()),
                1,
            ),
            self.sign(
                &self.owner,
                &self.certificate(&self.porter, Rights::ADMIT),
                1,
            ),
        ]
    }

    pub fn membership(&self, id: u8, device: &SigningSecret, label: &str) -> Membership {
        Membership {
            member: member(id),
            name: name(label),
            person: None,
            device: device.public(),
            roles: Roles::empty(),
            site: None,
            groups: heapless::Vec::new(),
            sponsor: None,
            invite: None,
            issued: at(10),
            expires: at(30 * DAY),
            replaces: None,
        }
    }

    pub fn gateway(&self, id: u8, device: &SigningSecret, label: &str, at: u16) -> Membership {
        Membership {
            roles: Roles::GATEWAY | Roles::APPS,
            site: Some(site(at)),
            ..self.membership(id, device, label)
        }
    }

    pub fn node(&self, byte: u8) -> NodeRecord {
        NodeRecord {
            control: ControlSecret::from_bytes(&[byte; 32]).public(),
            tunnel: TunnelEpoch {
                epoch: 1,
                key: TunnelSecret::new([byte; 32]).public(),
            },
            previous_tunnel: None,
            home_relays: heapless::Vec::new(),
            fixed_endpoints: heapless::Vec::new(),
        }
    }

    pub fn host(&self, label: &str, id: u16, last: u16) -> HostRecord {
        let mut octets = address::site_prefix(&self.network, site(id))
            .address()
            .octets();
        octets[14..].copy_from_slice(&last.to_be_bytes());
        HostRecord {
            name: name(label),
            site: site(id),
            address: Some(octets.into()),
        }
    }

    pub fn app(&self, app: &SigningSecret, device: &SigningSecret, label: &str) -> AppRecord {
        AppRecord {
            name: name(label),
            app: app.public(),
            tunnel: Some(TunnelEpoch {
                epoch: 1,
                key: TunnelSecret::new(app.public().0).public(),
            }),
            binding: records::bind_app(&self.network, app, &device.public()),
        }
    }

    pub fn tls_authority(&self) -> TlsAuthority {
        TlsAuthority {
            issued: at(30),
            expires: at(3650 * DAY),
            certificate: heapless::Vec::from_slice(b"an authority").unwrap(),
        }
    }

    /// Asks for an app of the signer's, or for its login page.
    pub fn tls_request(&self, app: Option<&SigningSecret>) -> TlsRequest {
        TlsRequest {
            app: app.map(SigningSecret::public),
            key: [[61; 32], [62; 32]],
            proof: [[63; 32], [64; 32]],
        }
    }

    pub fn tls_certificate(
        &self,
        authority: &TlsAuthority,
        subject: SigningKey,
        request: u64,
    ) -> TlsCertificate {
        TlsCertificate {
            subject,
            request: Serial(request),
            authority: authority.hash(),
            expires: at(397 * DAY),
            certificate: heapless::Vec::from_slice(b"a certificate").unwrap(),
        }
    }

    pub fn revocation(&self, target: RevocationTarget, issued: u64) -> Revocation {
        Revocation {
            target,
            issued: at(issued),
            reason: heapless::String::try_from("test").unwrap(),
        }
    }

    pub fn invite(&self, secret: &[u8; 16]) -> Invite {
        Invite {
            invite: SigningSecret::of_invite(secret).public(),
            issuer: self.porter.public(),
            name: None,
            person: None,
            roles: Roles::empty(),
            site: None,
            groups: heapless::Vec::new(),
            sponsor: None,
            uses: 1,
            issued: at(5),
            expires: at(7 * DAY),
        }
    }

    pub fn change(
        &self,
        previous: RecordId,
        owners: &[&SigningSecret],
        issued: u64,
    ) -> OwnerChange {
        OwnerChange {
            previous,
            owners: keys(owners),
            recovery: self.recovery.public(),
            issued: at(issued),
        }
    }

    pub fn genesis_id(&self) -> RecordId {
        record_id(&self.genesis)
    }
}

pub fn sign<T: Body>(by: &SigningSecret, network: NetworkId, body: &T, serial: u64) -> Vec<u8> {
    let mut out = [0; 1024];
    records::sign_record(by, network, body, Serial(serial), &mut out)
        .unwrap()
        .to_vec()
}

pub fn clock() -> Clock {
    Clock::new(UnixTime::EPOCH)
}

/// What a registry shows to the world, without what depends on the order of arrival.
pub fn picture(registry: &Registry) -> String {
    let mut text = format!("{:?}\n{:?}\n", registry.owners(), registry.owner_head());
    for issuer in registry.issuers() {
        text += &format!("{issuer:?}\n");
    }
    for member in registry.members() {
        text += &format!("{member:?}\n");
        let mut count = 0;
        assert!(registry.chain_for(&member.membership.device, &mut |_| count += 1));
        text += &format!("{count}\n");
    }
    for host in registry.hosts() {
        text += &format!("{host:?}\n");
    }
    for app in registry.apps() {
        text += &format!("{app:?}\n");
    }
    for invite in registry.invites() {
        text += &format!("{invite:?}\n");
    }
    text += &format!("{:?}\n", registry.tls_authority());
    for asked in registry.tls_requests() {
        text += &format!("{asked:?} {:?}\n", registry.tls_certificate(&asked));
    }
    for head in registry.heads() {
        text += &format!("{head:?}\n");
    }
    text + &format!("{:?} {:?}", registry.summary(), registry.policy())
}
