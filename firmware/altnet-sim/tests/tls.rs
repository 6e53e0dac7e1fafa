//! Certificates for apps: asked for on the device, given by an owner, handed on by records.

use altnet_core::node::{Command, CommandError, Event, NewTlsKey, TlsKey};
use altnet_core::registry::Slot;
use altnet_sim::founder::FOUNDED;
use altnet_sim::homes::{Homes, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::world::HostId;
use altnet_wire::id::{Name, SigningKey};
use altnet_wire::time::UnixTime;
use altnet_wire::tls::{TlsAuthority, TlsCertificate};

const LATER: UnixTime = UnixTime::from_secs(FOUNDED.as_secs() + 397 * 86_400);
const SECRET: &[u8] = b"a secret that only this device has";

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn ask(app: &str) -> Command {
    Command::AskTls {
        app: Some(name(app)),
        key: Box::new(NewTlsKey {
            secret: TlsKey::new(SECRET),
            key: [[1; 32], [2; 32]],
            proof: [[3; 32], [4; 32]],
        }),
    }
}

/// Two homes with an app on house B's gateway, which asks for a certificate.
struct Asked {
    homes: Homes,
    subject: SigningKey,
}

impl Asked {
    fn new(seed: u64) -> Self {
        let mut homes = Homes::new(seed, Kind::FULL_CONE, Kind::FULL_CONE);
        let b = homes.b;
        let add = Command::AddApp {
            name: name("notes"),
            note: (*b"where it leads to").into(),
        };
        homes.world.command(b, add);
        let node = homes.world.node(b);
        let subject = node.tls_subject(Some(&name("notes"))).unwrap();
        homes.world.command(b, ask("notes"));
        let subject = subject.subject;
        let mut asked = Self { homes, subject };
        let a = asked.homes.a;
        assert!(asked.homes.world.run_for(seconds(30), |world| {
            let registry = world.node(a).registry().unwrap();
            registry.tls_request(&subject).is_some()
        }));
        asked.learn();
        asked
    }

    /// Has the owner's computer know what the houses say, as a sync does.
    fn learn(&mut self) {
        let node = self.homes.world.node(self.homes.a);
        let records: Vec<Vec<u8>> = node
            .registry()
            .unwrap()
            .iter()
            .map(|(_, b)| b.to_vec())
            .collect();
        self.homes.founder.learn(&records);
    }

    /// Gives it a certificate by an authority of this name.
    fn certify(&mut self, by: &[u8]) {
        let authority = TlsAuthority {
            issued: FOUNDED,
            expires: LATER,
            certificate: heapless::Vec::from_slice(by).unwrap(),
        };
        let founder = &mut self.homes.founder;
        let asked = founder.registry.tls_request(&self.subject).unwrap();
        let certificate = TlsCertificate {
            subject: self.subject,
            request: asked.serial,
            authority: authority.hash(),
            expires: LATER,
            certificate: heapless::Vec::from_slice(b"a certificate").unwrap(),
        };
        let records = [
            founder.sign_as_owner(&Slot::TLS_AUTHORITY, &authority),
            founder.sign_as_owner(&Slot::tls_certificate(self.subject), &certificate),
        ];
        for record in records {
            self.homes.publish(&record);
        }
    }

    fn is_served(&self, host: HostId) -> bool {
        let mut views = self.homes.world.node(host).tls_views();
        let view = views.next().expect("a key was kept");
        assert!(views.next().is_none());
        assert_eq!(view.app, Some(&name("notes")));
        assert_eq!(view.key.expose(), SECRET);
        view.certificate == Some((b"a certificate", LATER))
    }

    fn is_told(&mut self) -> bool {
        let b = self.homes.b;
        self.homes.world.run_for(seconds(30), |world| {
            let is_it =
                |event: &Event| matches!(event, Event::Certified { name, .. } if name == "notes");
            world.told(b).iter().any(is_it)
        })
    }
}

#[test]
fn a_device_asks_an_owner_answers_and_both_outlast_a_restart() {
    let mut asked = Asked::new(901);
    let b = asked.homes.b;
    assert!(!asked.is_served(b));
    asked.certify(b"an authority");
    assert!(asked.is_told(), "{}", asked.homes.story());
    assert!(asked.is_served(b));
    asked.homes.world.restart(b);
    asked.homes.world.run(seconds(5));
    assert!(asked.is_served(b));

    // Another authority takes the place of the first, and what that one certified counts no more.
    let authority = TlsAuthority {
        issued: FOUNDED,
        expires: LATER,
        certificate: heapless::Vec::from_slice(b"another").unwrap(),
    };
    let slot = Slot::TLS_AUTHORITY;
    let record = asked.homes.founder.sign_as_owner(&slot, &authority);
    asked.homes.publish(&record);
    asked.homes.world.run(seconds(10));
    assert!(!asked.is_served(b));
}

#[test]
fn a_new_key_waits_for_a_new_certificate() {
    let mut asked = Asked::new(902);
    let b = asked.homes.b;
    asked.certify(b"an authority");
    assert!(asked.is_told());
    asked.homes.world.command(b, ask("notes"));
    assert!(!asked.is_served(b));
}

#[test]
fn a_key_goes_with_its_app_and_with_the_network() {
    let mut asked = Asked::new(903);
    let b = asked.homes.b;
    let kept = |homes: &mut Homes| {
        homes
            .world
            .disk(b)
            .keys()
            .any(|slot| slot.starts_with("tls-"))
    };
    assert!(kept(&mut asked.homes));
    let remove = Command::RemoveApp {
        name: name("notes"),
    };
    asked.homes.world.command(b, remove);
    asked.homes.world.run(seconds(2));
    assert!(!kept(&mut asked.homes));
    assert!(asked.homes.world.node(b).tls_views().next().is_none());

    let mut asked = Asked::new(904);
    asked.homes.world.command(b, Command::Leave);
    asked.homes.world.run(seconds(2));
    assert!(!kept(&mut asked.homes));
}

#[test]
fn only_what_is_here_is_asked_for() {
    let asked = Asked::new(905);
    let node = asked.homes.world.node(asked.homes.b);
    let subject = |app: &str| node.tls_subject(Some(&name(app))).unwrap_err();
    assert_eq!(subject("elsewhere"), CommandError::NoSuchApp);
    assert_eq!(subject("login"), CommandError::NoTlsForName);
    assert!(node.tls_subject(None).is_ok());
}
