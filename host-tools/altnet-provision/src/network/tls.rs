//! Certificates for TLS: the network's authority, what devices ask of it, and what they got.

use altnet_core::registry::{Slot, TlsAsked};
use altnet_wire::envelope::Envelope;
use altnet_wire::id::{NetworkId, SigningKey};
use altnet_wire::record::{self, Body};
use altnet_wire::time::UnixTime;
use altnet_wire::tls::{self, TlsAuthority, TlsCertificate};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Network;
use crate::error::{Error, Result};
use crate::secrets::Secrets;
use crate::settings::as_text;
use crate::x509::{self, Authority, Names};

/// A certificate that ends within this many seconds is made anew: 60 days.
pub const RENEW_S: u64 = 60 * 86_400;

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsState {
    /// Nobody has signed it yet.
    Waiting,
    /// It has a certificate that ends soon.
    Ending,
    /// It has a certificate.
    Signed,
    /// It can't be signed; the reason is beside it.
    Refused,
}

/// What a device asks a certificate for. The field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct TlsSummary {
    /// What it is for: an app's name, or `login`.
    pub name: String,
    /// The key of the app, or of the device.
    #[serde(with = "as_text")]
    pub subject: SigningKey,
    /// The device that asks.
    pub device: String,
    /// Its site.
    pub site: Option<u16>,
    /// The names that the certificate is or would be for.
    pub names: Vec<String>,
    /// How far it is.
    pub state: TlsState,
    /// Why it can't be signed.
    pub why: Option<String>,
    /// When its certificate ends.
    pub until: Option<String>,
}

impl TlsSummary {
    /// Whether it is to be signed now.
    pub fn is_due(&self) -> bool {
        matches!(self.state, TlsState::Waiting | TlsState::Ending)
    }
}

/// The network's authority for TLS. The field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct AuthoritySummary {
    /// SHA-256 of its certificate, as browsers show it.
    pub fingerprint: String,
    /// Its certificate.
    pub pem: String,
    /// The names below which it can certify, and no others.
    pub zones: Vec<String>,
    /// When it ends.
    pub until: String,
    /// Whether its key is on this computer; none if the keys were not opened.
    pub here: Option<bool>,
}

impl Network {
    fn tls_names(&self) -> Names {
        Names::new(self.registry.genesis().name.clone(), self.id())
    }

    /// The authority's key at work.
    fn authority(&self, secrets: &Secrets) -> Result<Authority> {
        let key = secrets.authority().ok_or_else(|| {
            Error::not_found(
                "the key of the network's authority for TLS is not on this computer",
                match self.registry.tls_authority() {
                    Some(_) => "Do it on the computer where `altnet-provision tls create` was run. If that is lost, `altnet-provision tls create --replace` makes another, which every device has to be told to trust.",
                    None => "Make one with `altnet-provision tls create`.",
                },
            )
        })?;
        let authority = Authority::from_key(self.tls_names(), key)?;
        let published = self.registry.tls_authority();
        if published.is_some_and(|published| !authority.made(&published.certificate)) {
            return Err(Error::not_allowed(
                "the network's authority for TLS is another than the one whose key is here",
                "Do it on the computer that has its key, or make another authority here with `altnet-provision tls create --replace`.",
            ));
        }
        Ok(authority)
    }

    /// Makes the network's authority for TLS.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is one, unless `replace`; [`Error::NotAllowed`].
    pub fn create_authority(
        &mut self,
        secrets: &mut Secrets,
        replace: bool,
        now: UnixTime,
    ) -> Result<AuthoritySummary> {
        let is_there = self.registry.tls_authority().is_some() || secrets.authority().is_some();
        if is_there && !replace {
            return Err(Error::exists(
                "the network has an authority for TLS already",
                "See it with `altnet-provision tls show`. To make another in its place, use --replace: what trusts the old one must then be told to trust the new.",
            ));
        }
        let owner = self.owner(secrets)?;
        let authority = Authority::generate(self.tls_names())?;
        let (certificate, expires) = authority.certificate(now)?;
        let body = TlsAuthority {
            issued: now,
            expires,
            certificate: stored(&certificate)?,
        };
        secrets.set_authority(&authority.key());
        let dir = self.dir.clone();
        self.change(now, |draft| {
            let slot = Slot::TLS_AUTHORITY;
            draft.add(&owner, &slot, &body, "publish the authority")?;
            // The key is on disk before the record that needs it.
            secrets.write(&dir)
        })?;
        self.authority_summary(Some(secrets))
    }

    /// The network's authority; with `secrets` also whether its key is here.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub fn authority_summary(&self, secrets: Option<&Secrets>) -> Result<AuthoritySummary> {
        let authority = self.registry.tls_authority().ok_or_else(|| {
            Error::not_found(
                "no authority for TLS is in force in this network, as far as is known here",
                "Fetch what is new with `altnet-provision sync`, or make one with `altnet-provision tls create`.",
            )
        })?;
        Ok(AuthoritySummary {
            fingerprint: x509::fingerprint(&authority.certificate),
            pem: x509::pem(&authority.certificate),
            zones: self.tls_names().zones().into(),
            until: authority.expires.to_string(),
            here: secrets.map(|secrets| secrets.authority().is_some()),
        })
    }

    /// What devices ask certificates for, in the order of names.
    pub fn tls_requests(&self, now: UnixTime) -> Vec<TlsSummary> {
        let asked = self.registry.tls_requests();
        let mut all: Vec<_> = asked.map(|asked| self.tls_summary(&asked, now)).collect();
        all.sort_by(|a, b| (&a.name, &a.device).cmp(&(&b.name, &b.device)));
        all
    }

    fn tls_summary(&self, asked: &TlsAsked<'_>, now: UnixTime) -> TlsSummary {
        let name = match &asked.app {
            Some(app) => app.record.name.to_string(),
            None => tls::LOGIN.to_owned(),
        };
        let member = self.registry.by_device(&asked.device);
        let certificate = self.registry.tls_certificate(asked);
        let expires = certificate.map(|certificate| certificate.expires);
        let why = self.check_request(asked, &name).err();
        let state = match expires {
            _ if why.is_some() => TlsState::Refused,
            None => TlsState::Waiting,
            Some(expires) if expires.saturating_since(now).as_secs() < RENEW_S => TlsState::Ending,
            Some(_) => TlsState::Signed,
        };
        TlsSummary {
            names: self.tls_names().of(&name).into(),
            name,
            subject: asked.subject(),
            device: member.map_or_else(|| "-".into(), |m| m.membership.name.to_string()),
            site: member.and_then(|m| m.membership.site).map(u16::from),
            state,
            why: why.map(Into::into),
            until: expires.map(|expires| expires.to_string()),
        }
    }

    /// Whether a request may be answered. The registry has seen to it that the device asks for its
    /// own; here is what only this computer can judge.
    fn check_request(
        &self,
        asked: &TlsAsked<'_>,
        name: &str,
    ) -> std::result::Result<(), &'static str> {
        if !is_proven(&self.id(), asked) {
            return Err("the device does not show that it has the key it asks for");
        }
        let Some(app) = &asked.app else {
            return Ok(());
        };
        if name == tls::LOGIN {
            return Err("an app called login could pass for a login page");
        }
        let holds = self.registry.app_by_name(&app.record.name);
        if holds.is_none_or(|holder| holder.record.app != app.record.app) {
            return Err("another app has that name");
        }
        let is_taken = self.registry.host(&app.record.name).is_some()
            || self.registry.by_name(&app.record.name).is_some();
        if is_taken {
            return Err("a machine or a member has that name");
        }
        Ok(())
    }

    /// Signs what `subjects` ask for, as [`Network::tls_requests`] lists them. Returns what was
    /// signed.
    ///
    /// # Errors
    /// [`Error::NotFound`] without the authority's key; [`Error::NotAllowed`] without an owner's.
    pub fn sign_tls(
        &mut self,
        secrets: &Secrets,
        subjects: &[SigningKey],
        now: UnixTime,
    ) -> Result<Vec<TlsSummary>> {
        self.uphold_authority(secrets, now)?;
        let authority = self.authority(secrets)?;
        let owner = self.owner(secrets)?;
        let body = self.registry.tls_authority();
        let (hash, end) = body.map_or(([0; 32], now), |body| (body.hash(), body.expires));
        let mut bodies = Vec::new();
        for subject in subjects {
            let Some(asked) = self.registry.tls_request(subject) else {
                continue;
            };
            let summary = self.tls_summary(&asked, now);
            if !summary.is_due() {
                continue;
            }
            let key = &asked.record.key;
            let (certificate, expires) = authority.certify(&summary.names, key, end, now)?;
            bodies.push(TlsCertificate {
                subject: *subject,
                request: asked.serial,
                authority: hash,
                expires,
                certificate: stored(&certificate)?,
            });
        }
        self.change(now, |draft| {
            for body in &bodies {
                let slot = Slot::tls_certificate(body.subject);
                draft.add(&owner, &slot, body, "publish a certificate")?;
            }
            Ok(())
        })?;
        let signed = bodies.iter().map(|body| body.subject);
        let signed = signed.filter_map(|subject| self.registry.tls_request(&subject));
        Ok(signed.map(|asked| self.tls_summary(&asked, now)).collect())
    }

    /// Signs the authority's record anew if the owner who had signed it left, with what it had
    /// certified: the authority itself is the same, and so is who trusts it.
    fn uphold_authority(&mut self, secrets: &Secrets, now: UnixTime) -> Result<()> {
        if self.registry.tls_authority().is_some() {
            return Ok(());
        }
        let authority = self.authority(secrets)?;
        let owner = self.owner(secrets)?;
        // Not what the leaver may have put in its place.
        let ours = self.aside(|body: &TlsAuthority| authority.made(&body.certificate));
        let Some((_, body)) = ours.first() else {
            return Ok(());
        };
        let hash = body.hash();
        let certified = self.aside(|body: &TlsCertificate| body.authority == hash);
        let ours = ours.into_iter().map(|(bytes, _)| bytes);
        let certified = certified.into_iter().map(|(bytes, _)| bytes);
        let again: Vec<Vec<u8>> = ours.chain(certified).collect();
        self.change(now, |draft| {
            again
                .iter()
                .try_for_each(|bytes| draft.again(&owner, bytes))
        })
    }

    /// Records that stand aside since their signer left, with their bodies.
    fn aside<T: Body + DeserializeOwned>(
        &self,
        is_meant: impl Fn(&T) -> bool,
    ) -> Vec<(Vec<u8>, T)> {
        let aside = self.registry.standing_aside();
        let of_kind = aside.filter(|(slot, _)| slot.kind() == T::KIND);
        of_kind
            .filter_map(|(_, bytes)| {
                let envelope = Envelope::parse(bytes).ok()?;
                let body: T = record::decode(envelope.body()).ok()?;
                is_meant(&body).then(|| (bytes.to_vec(), body))
            })
            .collect()
    }

    /// What is to be done about TLS, for `doctor`; nothing to say where nobody uses it.
    pub(super) fn tls_complaint(&self, secrets: Option<&Secrets>, now: UnixTime) -> TlsHealth {
        let authority = self.registry.tls_authority();
        let requests = self.tls_requests(now);
        let named = |which: fn(&TlsSummary) -> bool| {
            let of = requests.iter().filter(|asked| which(asked));
            of.map(|asked| asked.name.clone()).collect::<Vec<_>>()
        };
        TlsHealth {
            is_used: authority.is_some() || !requests.is_empty(),
            has_authority: authority.is_some(),
            is_ending: authority
                .is_some_and(|a| a.expires.saturating_since(now).as_secs() < 2 * RENEW_S),
            is_elsewhere: secrets.is_some_and(|secrets| secrets.authority().is_none()),
            waiting: named(|asked| asked.state == TlsState::Waiting),
            ending: named(|asked| asked.state == TlsState::Ending),
            refused: named(|asked| asked.state == TlsState::Refused),
        }
    }
}

/// What `doctor` looks at.
pub(super) struct TlsHealth {
    pub is_used: bool,
    pub has_authority: bool,
    pub is_ending: bool,
    pub is_elsewhere: bool,
    pub waiting: Vec<String>,
    pub ending: Vec<String>,
    pub refused: Vec<String>,
}

fn is_proven(network: &NetworkId, asked: &TlsAsked<'_>) -> bool {
    let record = asked.record;
    let point = x509::uncompressed(&record.key);
    let hash = tls::key_proof(network, &asked.device, &asked.subject(), &record.key);
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(&hash, record.proof.as_flattened())
        .is_ok()
}

fn stored<const N: usize>(der: &[u8]) -> Result<heapless::Vec<u8, N>> {
    // Its maker has kept to the bound.
    heapless::Vec::from_slice(der)
        .map_err(|_| Error::input("the certificate is too large for a record", "Try again."))
}

#[cfg(test)]
mod tests {
    use altnet_core::records::{SigningSecret, bind_app};
    use altnet_wire::id::Serial;
    use altnet_wire::record::{AppRecord, Membership, Roles, TunnelEpoch};
    use altnet_wire::tls::TlsRequest;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

    use super::*;
    use crate::home::Home;
    use crate::network::{Created, sign};
    use crate::sealed::Passphrase;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
    const APP: u8 = 50;

    fn secret(byte: u8) -> SigningSecret {
        SigningSecret::from_bytes(&[byte; 32])
    }

    struct House {
        made: Created,
        _dir: tempfile::TempDir,
    }

    impl House {
        /// A network with the device alpha and its app notes.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let passphrase = Passphrase::new("pass").unwrap().with_less_work(2);
            let name = "home".parse().unwrap();
            let home = Home::at(dir.path().join("home"));
            let made = Network::create(&home, &name, &passphrase, NOW).unwrap();
            let mut house = Self { made, _dir: dir };
            house.admit(1, "alpha");
            house.host(1, APP, "notes", 1);
            house
        }

        fn take(&mut self, bytes: Vec<u8>) {
            let network = &mut self.made.network;
            let new = network.take_records(&[bytes], 1, 1, NOW).unwrap();
            assert_eq!(new, 1, "a record is refused");
        }

        fn admit(&mut self, device: u8, name: &str) {
            let network = &self.made.network;
            let issuer = self.made.secrets.issuer(&network.settings.issuer).unwrap();
            let membership = Membership {
                member: altnet_wire::id::MemberId([device; 16]),
                name: name.parse().unwrap(),
                person: None,
                device: secret(device).public(),
                roles: Roles::APPS | Roles::GATEWAY,
                site: altnet_wire::id::SiteId::new(device.into()),
                groups: heapless::Vec::new(),
                sponsor: None,
                invite: None,
                issued: NOW,
                expires: NOW.after(std::time::Duration::from_secs(86_400)),
                replaces: None,
            };
            let bytes = sign(&issuer, network.id(), &membership, Serial(1)).unwrap();
            self.take(bytes);
        }

        fn host(&mut self, device: u8, app: u8, name: &str, serial: u64) {
            let network = self.made.network.id();
            let body = AppRecord {
                name: name.parse().unwrap(),
                app: secret(app).public(),
                tunnel: Some(TunnelEpoch {
                    epoch: 1,
                    key: altnet_wire::id::TunnelKey([app ^ device; 32]),
                }),
                binding: bind_app(&network, &secret(app), &secret(device).public()),
            };
            let bytes = sign(&secret(device), network, &body, Serial(serial)).unwrap();
            self.take(bytes);
        }

        /// Asks with a key that it has, or that `proves` no more than that it knows it.
        fn ask(&mut self, device: u8, app: Option<u8>, serial: u64, proves: bool) {
            let network = self.made.network.id();
            let rng = SystemRandom::new();
            let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let made = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &rng).unwrap();
            let point = &pair.public_key().as_ref()[1..];
            let key = [
                point[..32].try_into().unwrap(),
                point[32..].try_into().unwrap(),
            ];
            let device = secret(device);
            let app = app.map(|app| secret(app).public());
            let subject = app.unwrap_or(device.public());
            let shown = if proves { device.public() } else { subject };
            let hash = tls::key_proof(&network, &shown, &subject, &key);
            let signed = pair.sign(&rng, &hash).unwrap();
            let signed = signed.as_ref();
            let body = TlsRequest {
                app,
                key,
                proof: [
                    signed[..32].try_into().unwrap(),
                    signed[32..].try_into().unwrap(),
                ],
            };
            let bytes = sign(&device, network, &body, Serial(serial)).unwrap();
            self.take(bytes);
        }

        fn create(&mut self) {
            let Created {
                network, secrets, ..
            } = &mut self.made;
            network.create_authority(secrets, false, NOW).unwrap();
        }

        /// Signs whatever is asked. Returns the names.
        fn sign(&mut self, now: UnixTime) -> Vec<String> {
            let Created {
                network, secrets, ..
            } = &mut self.made;
            let all: Vec<_> = network
                .tls_requests(now)
                .iter()
                .map(|r| r.subject)
                .collect();
            let signed = network.sign_tls(secrets, &all, now).unwrap();
            signed.into_iter().map(|asked| asked.name).collect()
        }

        #[track_caller]
        fn check(&self, name: &str, device: &str, now: UnixTime, expected: TlsState) {
            let all = self.made.network.tls_requests(now);
            let found = all.iter().find(|r| r.name == name && r.device == device);
            assert_eq!(found.map(|found| found.state), Some(expected));
        }

        fn doctor(&self, now: UnixTime) -> Option<String> {
            let checks = self.made.network.doctor(Some(&self.made.secrets), now);
            let tls = checks.into_iter().find(|check| check.check == "tls");
            tls.map(|check| check.message)
        }
    }

    #[test]
    fn what_is_asked_is_signed_once_and_again_before_it_ends() {
        let mut house = House::new();
        assert_eq!(house.doctor(NOW), None);
        house.ask(1, Some(APP), 1, true);
        house.ask(1, None, 1, true);
        assert!(house.doctor(NOW).unwrap().contains("no authority"));
        house.create();
        house.check("notes", "alpha", NOW, TlsState::Waiting);
        assert!(house.doctor(NOW).unwrap().contains("waits"));
        assert_eq!(house.sign(NOW).len(), 2);
        house.check("notes", "alpha", NOW, TlsState::Signed);
        assert!(house.sign(NOW).is_empty());
        assert!(house.doctor(NOW).unwrap().contains("60 days or more"));
        let later = NOW.after(std::time::Duration::from_secs(340 * 86_400));
        house.check("notes", "alpha", later, TlsState::Ending);
        assert!(house.doctor(later).unwrap().contains("end within 60 days"));
        assert_eq!(house.sign(later).len(), 2);
        house.check("notes", "alpha", later, TlsState::Signed);
        // Another key is another request.
        house.ask(1, Some(APP), 2, true);
        house.check("notes", "alpha", later, TlsState::Waiting);
        let asked = house
            .made
            .network
            .registry
            .tls_request(&secret(APP).public());
        let key = asked.unwrap().record.key;
        assert_eq!(house.sign(later), ["notes"]);
        let registry = &house.made.network.registry;
        let asked = registry.tls_request(&secret(APP).public()).unwrap();
        let der = &registry.tls_certificate(&asked).unwrap().certificate;
        assert!(der.windows(64).any(|window| window == key.as_flattened()));
    }

    #[test]
    fn a_key_that_nobody_shows_to_have_is_not_certified() {
        let mut house = House::new();
        house.create();
        house.ask(1, Some(APP), 1, false);
        house.check("notes", "alpha", NOW, TlsState::Refused);
        assert!(house.sign(NOW).is_empty());
        assert!(house.doctor(NOW).unwrap().contains("can't have it: notes"));
    }

    #[test]
    fn names_that_would_deceive_are_not_certified() {
        let mut house = House::new();
        house.create();
        house.admit(2, "beta");
        // Who came first keeps the name; the other app is no less its device's own.
        house.host(2, 51, "notes", 1);
        house.host(2, 52, "login", 1);
        house.host(2, 53, "alpha", 1);
        for app in [51, 52, 53] {
            house.ask(2, Some(app), 1, true);
        }
        house.ask(1, Some(APP), 1, true);
        for name in ["login", "alpha"] {
            house.check(name, "beta", NOW, TlsState::Refused);
        }
        let refused: Vec<_> = house.made.network.tls_requests(NOW);
        let notes = refused.iter().filter(|r| r.name == "notes");
        assert_eq!(notes.filter(|r| r.state == TlsState::Refused).count(), 1);
        assert_eq!(house.sign(NOW), ["notes"]);
    }

    #[test]
    fn an_app_that_moved_has_to_ask_anew() {
        let mut house = House::new();
        house.create();
        house.ask(1, Some(APP), 1, true);
        house.sign(NOW);
        house.admit(2, "beta");
        house.host(2, APP, "notes", 2);
        assert!(house.made.network.tls_requests(NOW).is_empty());
        house.ask(2, Some(APP), 2, true);
        house.check("notes", "beta", NOW, TlsState::Waiting);
    }

    #[test]
    fn another_owner_goes_on_with_the_same_authority() {
        let mut house = House::new();
        house.create();
        house.ask(1, Some(APP), 1, true);
        house.sign(NOW);
        let before = house.made.network.authority_summary(None).unwrap();
        let lost = house.made.network.registry.owners().to_vec();
        let Created {
            network,
            secrets,
            recovery,
        } = &mut house.made;
        network.recover(secrets, recovery, &lost, NOW).unwrap();
        assert!(network.authority_summary(None).is_err());
        assert!(house.doctor(NOW).unwrap().contains("no authority in force"));
        assert!(house.sign(NOW).is_empty());
        let after = house.made.network.authority_summary(None).unwrap();
        assert_eq!(before.fingerprint, after.fingerprint);
        house.check("notes", "alpha", NOW, TlsState::Signed);
    }

    #[test]
    fn the_key_of_another_authority_signs_nothing() {
        let mut house = House::new();
        house.create();
        house.ask(1, Some(APP), 1, true);
        let other = Authority::generate(house.made.network.tls_names()).unwrap();
        house.made.secrets.set_authority(&other.key());
        let Created {
            network, secrets, ..
        } = &mut house.made;
        let error = network.sign_tls(secrets, &[secret(APP).public()], NOW);
        assert!(matches!(error, Err(Error::NotAllowed { .. })));
    }
}
