//! Keys for TLS on this device: asked to be certified, kept, and given to the driver with what an
//! owner answered (ADR 0010). Keys and certificates are opaque here; the driver's helper makes the
//! one and reads the other.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use altnet_tunnel::aead::Aead;
use altnet_wire::envelope::MAX_RECORD_BYTES;
use altnet_wire::hash;
use altnet_wire::id::{Name, NetworkId, SigningKey};
use altnet_wire::record::Roles;
use altnet_wire::time::{Instant, UnixTime};
use altnet_wire::tls::{self, TlsRequest};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{CommandError, Deferred, Event, Node, Slot, Stored};
use crate::records::sign_record;
use crate::registry::{RecordError, Slot as RecordSlot};

/// The longest secret key that is kept, in bytes: PKCS #8 of a P-256 key has 138.
pub const MAX_TLS_KEY_BYTES: usize = 256;

/// A secret key for TLS, in whatever form its maker gave it. Zeroized when dropped.
#[derive(Clone)]
pub struct TlsKey(Zeroizing<Box<[u8]>>);

impl TlsKey {
    /// Takes the bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes, to be given to nobody but who serves with them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for TlsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsKey")
    }
}

/// A new key, to be certified.
#[derive(Debug)]
pub struct NewTlsKey {
    /// The secret half.
    pub secret: TlsKey,
    /// The public half, as the request has it.
    pub key: [[u8; 32]; 2],
    /// Its word for this device, as the request has it.
    pub proof: [[u8; 32]; 2],
}

/// What a new key's word is about: see [`tls::key_proof`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsSubject {
    /// The network.
    pub network: NetworkId,
    /// This device.
    pub device: SigningKey,
    /// The app, or this device for its login page.
    pub subject: SigningKey,
}

/// What this device serves by TLS, or will.
#[derive(Clone, Copy, Debug)]
pub struct TlsView<'a> {
    /// The app; none for the login page.
    pub app: Option<&'a Name>,
    /// Its secret key.
    pub key: &'a TlsKey,
    /// Its certificate in DER and when that ends, once an owner answered.
    pub certificate: Option<(&'a [u8], UnixTime)>,
    /// The authority's certificate in DER, if there is one.
    pub authority: Option<&'a [u8]>,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct StoredTls<'a> {
    version: u8,
    network: [u8; 32],
    subject: [u8; 32],
    #[zeroize(skip)]
    #[serde(borrow)]
    key: &'a [u8],
    check: [u8; 8],
}

fn check(network: &[u8; 32], subject: &[u8; 32], key: &[u8]) -> [u8; 8] {
    let hash = hash::labelled("altnet tls check v1", &[network, subject, key]);
    let mut check = [0; 8];
    check.copy_from_slice(&hash[..8]);
    check
}

impl<A: Aead> Node<A> {
    /// Takes up the keys that were kept. One that doesn't read is passed over: it is asked anew.
    pub(super) fn load_tls(&mut self, stored: &Stored) {
        for (_, bytes) in stored.iter().filter(|(name, _)| name.starts_with("tls-")) {
            let Ok(stored) = postcard::from_bytes::<StoredTls<'_>>(bytes) else {
                continue;
            };
            let expected = check(&stored.network, &stored.subject, stored.key);
            if stored.version == 1 && stored.check == expected {
                let key = TlsKey::new(stored.key);
                self.tls_keys.insert(SigningKey(stored.subject), key);
            }
        }
    }

    /// The bytes of a key's slot.
    pub(super) fn tls_bytes(&self, subject: &SigningKey) -> Option<Vec<u8>> {
        let network = self.network.as_ref()?.registry.network();
        let key = self.tls_keys.get(subject)?.expose();
        let stored = StoredTls {
            version: 1,
            network: network.0,
            subject: subject.0,
            key,
            check: check(&network.0, &subject.0, key),
        };
        postcard::to_allocvec(&stored).ok()
    }

    /// What a new key for `app`, or for the login page, has to sign.
    ///
    /// # Errors
    /// [`CommandError`] if this device can't ask for it.
    pub fn tls_subject(&self, app: Option<&Name>) -> Result<TlsSubject, CommandError> {
        let network = self.network.as_ref().ok_or(CommandError::NotMember)?;
        let device = network.own.device;
        let subject = match app {
            Some(app) if app.as_str() == tls::LOGIN => return Err(CommandError::NoTlsForName),
            Some(app) => {
                let address = self.own_app(app).ok_or(CommandError::NoSuchApp)?;
                let app = self.apps.get(&address).ok_or(CommandError::NoSuchApp)?;
                app.key()
            }
            None if self.own_roles().contains(Roles::GATEWAY) => device,
            None => return Err(CommandError::NotGateway),
        };
        Ok(TlsSubject {
            network: network.registry.network(),
            device,
            subject,
        })
    }

    /// Keeps a key and asks an owner to certify it.
    pub(super) fn ask_tls(
        &mut self,
        app: Option<&Name>,
        new: NewTlsKey,
        now: Instant,
    ) -> Result<(), CommandError> {
        let TlsSubject {
            network: id,
            device,
            subject,
        } = self.tls_subject(app)?;
        if new.secret.expose().len() > MAX_TLS_KEY_BYTES {
            return Err(CommandError::NoteTooLong);
        }
        let network = self.network.as_mut().ok_or(CommandError::NotMember)?;
        let before = network.registry.revision();
        let body = TlsRequest {
            app: Some(subject).filter(|subject| *subject != device),
            key: new.key,
            proof: new.proof,
        };
        // A certificate that answered a request that is forgotten must not answer this one.
        let requests = network
            .registry
            .next_serial(&RecordSlot::tls_request(subject));
        let answered = network.registry.tls_answered(&subject);
        let serial = answered.map_or(requests, |answered| requests.max(answered.next()));
        let mut out = [0; MAX_RECORD_BYTES];
        let bytes = sign_record(&self.identity.device, id, &body, serial, &mut out)
            .map_err(RecordError::from)?;
        network.registry.apply(bytes, &mut self.clock)?;
        self.tls_keys.insert(subject, new.secret);
        self.saves.changed(Slot::Tls(subject));
        self.records_changed(before, now);
        // The key is on disk before anybody hears of it.
        self.after_save(Deferred::Announce, now);
        Ok(())
    }

    /// Forgets the keys of whatever is not on this device any more.
    pub(super) fn tend_tls(&mut self) {
        let device = self.network.as_ref().map(|network| network.own.device);
        let apps: Vec<SigningKey> = self.apps.values().map(super::apps::OwnApp::key).collect();
        let saves = &mut self.saves;
        self.tls_keys.retain(|subject, _| {
            let stays = device.is_some() && (device == Some(*subject) || apps.contains(subject));
            if !stays {
                saves.changed(Slot::Tls(*subject));
            }
            stays
        });
    }

    /// What this device serves by TLS, or will, once an owner answers.
    pub fn tls_views(&self) -> impl Iterator<Item = TlsView<'_>> {
        let registry = self.network.as_ref().map(|network| &network.registry);
        self.tls_keys.iter().map(move |(subject, key)| {
            let asked = registry.and_then(|registry| registry.tls_request(subject));
            let answer = registry
                .zip(asked)
                .and_then(|(registry, asked)| registry.tls_certificate(&asked));
            let mut apps = self.apps.values();
            TlsView {
                app: apps.find(|app| app.key() == *subject).map(|app| app.name()),
                key,
                certificate: answer.map(|answer| (&*answer.certificate, answer.expires)),
                authority: registry
                    .and_then(|registry| registry.tls_authority())
                    .map(|authority| &*authority.certificate),
            }
        })
    }

    /// Says so if a record of TLS came that this device serves by.
    pub(super) fn tell_tls(&mut self, changed: &BTreeSet<RecordSlot>) {
        let is_all = changed.contains(&RecordSlot::TLS_AUTHORITY);
        let is_new = |subject: &SigningKey| {
            is_all || changed.contains(&RecordSlot::tls_certificate(*subject))
        };
        let ready: Vec<(String, UnixTime)> = self
            .tls_keys
            .keys()
            .filter(|subject| is_new(subject))
            .filter_map(|subject| {
                let registry = &self.network.as_ref()?.registry;
                let asked = registry.tls_request(subject)?;
                let until = registry.tls_certificate(&asked)?.expires;
                let name = asked.app.map_or(tls::LOGIN, |app| app.record.name.as_str());
                Some((name.into(), until))
            })
            .collect();
        for (name, until) in ready {
            self.tell(Event::Certified { name, until });
        }
    }
}
