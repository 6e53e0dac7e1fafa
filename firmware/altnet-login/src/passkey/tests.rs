//! Against the standard's own vectors, and against an authenticator of ring's signatures.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::Value;

use super::ceremony::{ClientData, Deed, MAX_ID_BYTES, register, verify};
use super::*;

const VECTORS: &str = include_str!("../../tests/recorded/webauthn.json");
/// Where flags are in authenticator data, and what they say.
const FLAGS: usize = 32;
const UP_UV: u8 = 0b101;

fn here() -> Here {
    Here {
        id: "example.org".into(),
        origin: "https://example.org".into(),
    }
}

fn hash(bytes: &[u8]) -> Vec<u8> {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    hash.as_ref().to_vec()
}

mod vectors {
    use super::*;

    struct Vector {
        all: Value,
    }

    impl Vector {
        fn of(name: &str) -> Self {
            let mut all: Value = serde_json::from_str(VECTORS).unwrap();
            Self {
                all: all[name].take(),
            }
        }

        fn bytes(&self, ceremony: &str, name: &str) -> Vec<u8> {
            let hex = self.all[ceremony][name].as_str().unwrap();
            HEXLOWER.decode(hex.as_bytes()).unwrap()
        }

        fn client(&self, ceremony: &str, deed: Deed) -> Result<ClientData, PasskeyError> {
            ClientData::read(&self.bytes(ceremony, "clientDataJSON"), deed, &here())
        }

        /// The attestation object as if its person had been verified, which not all vectors say.
        fn verified(&self) -> Vec<u8> {
            let mut object = self.bytes("registration", "attestationObject");
            let id = hash(b"example.org");
            let at = object.windows(id.len()).position(|w| w == id).unwrap();
            object[at + FLAGS] |= UP_UV;
            object
        }
    }

    fn check(name: &str) {
        let vector = Vector::of(name);
        let client = vector.client("registration", Deed::Create).unwrap();
        assert_eq!(client.challenge, vector.bytes("registration", "challenge"));
        let new = register(&here(), &vector.verified()).unwrap();
        assert_eq!(new.id, vector.bytes("registration", "credential_id"));
        let client = vector.client("authentication", Deed::Get).unwrap();
        assert_eq!(
            client.challenge,
            vector.bytes("authentication", "challenge")
        );
        let data = vector.bytes("authentication", "authenticatorData");
        let signature = vector.bytes("authentication", "signature");
        let json = vector.bytes("authentication", "clientDataJSON");
        let message = [data.clone(), hash(&json)].concat();
        assert!(new.key.has_signed(&message, &signature), "{name}");
        assert!(!new.key.has_signed(&message[1..], &signature));
        let verified = verify(&here(), &new.key, &client, &data, &signature);
        match data[FLAGS] & UP_UV {
            UP_UV => assert_eq!(verified.unwrap(), 0),
            _ => assert!(matches!(verified, Err(PasskeyError::Unverified))),
        }
    }

    #[test]
    fn the_standards_credentials_are_read_and_their_signatures_hold() {
        for name in [
            "none-es256",
            "packed-self-es256",
            "none-es256-long-credential-id",
            "packed-es256",
            "packed-rs256",
            "packed-eddsa",
        ] {
            check(name);
        }
    }

    #[test]
    fn other_algorithms_are_refused() {
        for name in ["packed-es384", "packed-ed448"] {
            let refused = register(&here(), &Vector::of(name).verified());
            assert!(matches!(refused, Err(PasskeyError::Algorithm)), "{name}");
        }
    }

    #[test]
    fn a_page_in_anothers_frame_is_refused() {
        for name in ["none-es256-crossOrigin", "none-es256-topOrigin"] {
            let vector = Vector::of(name);
            for (ceremony, deed) in [
                ("registration", Deed::Create),
                ("authentication", Deed::Get),
            ] {
                let refused = vector.client(ceremony, deed);
                assert!(matches!(refused, Err(PasskeyError::Foreign)), "{name}");
            }
        }
    }

    #[test]
    fn who_was_not_verified_is_refused() {
        let object = Vector::of("none-es256").bytes("registration", "attestationObject");
        let refused = register(&here(), &object);
        assert!(matches!(refused, Err(PasskeyError::Unverified)));
    }

    #[test]
    fn what_is_of_another_ceremony_or_page_is_refused() {
        let vector = Vector::of("none-es256");
        let swapped = vector.client("registration", Deed::Get);
        assert!(matches!(swapped, Err(PasskeyError::Unreadable)));
        for origin in [
            "http://example.org",
            "https://example.org:444",
            "https://example.org/",
            "https://www.example.org",
        ] {
            let mut here = here();
            here.origin = origin.into();
            let json = vector.bytes("registration", "clientDataJSON");
            let refused = ClientData::read(&json, Deed::Create, &here);
            assert!(matches!(refused, Err(PasskeyError::Foreign)), "{origin}");
        }
        let mut here = here();
        here.id = "www.example.org".into();
        let refused = register(&here, &vector.verified());
        assert!(matches!(refused, Err(PasskeyError::Foreign)));
    }

    proptest! {
        /// One changed byte anywhere is refused, or is another credential that reads well.
        #[test]
        fn no_change_panics(name in prop::sample::select(vec!["none-es256", "packed-rs256", "packed-eddsa"]), at: prop::sample::Index, to: u8, cut: prop::sample::Index) {
            let mut object = Vector::of(name).verified();
            let place = at.index(object.len());
            object[place] = to;
            let _ = register(&here(), &object);
            let cut = cut.index(object.len());
            prop_assert!(register(&here(), &object[..cut]).is_err());
            let _ = PublicKey::read(&object[cut..]);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, signature: Vec<u8>) {
            let _ = register(&here(), &bytes);
            let _ = ClientData::read(&bytes, Deed::Get, &here());
            let vector = Vector::of("packed-rs256");
            let key = register(&here(), &vector.verified()).unwrap().key;
            let client = vector.client("authentication", Deed::Get).unwrap();
            prop_assert!(verify(&here(), &key, &client, &bytes, &signature).is_err());
        }
    }
}

/// An authenticator with one ES256 credential.
struct Authenticator {
    pair: EcdsaKeyPair,
    id: Vec<u8>,
}

impl Authenticator {
    fn new(id: &[u8]) -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        let id = id.to_vec();
        Self { pair, id }
    }

    fn data(flags: u8, count: u32) -> Vec<u8> {
        let mut data = hash(b"example.org");
        data.push(flags);
        data.extend(count.to_be_bytes());
        data
    }

    fn object(&self, flags: u8) -> Vec<u8> {
        let mut data = Self::data(flags | 1 << 6, 7);
        data.extend([0; 16]);
        data.extend(u16::try_from(self.id.len()).unwrap().to_be_bytes());
        data.extend(&self.id);
        let point = self.pair.public_key().as_ref();
        data.extend([0xa5, 1, 2, 3, 0x26, 0x20, 1, 0x21, 0x58, 32]);
        data.extend(&point[1..33]);
        data.extend([0x22, 0x58, 32]);
        data.extend(&point[33..]);
        let mut object = vec![0xa3, 0x63, b'f', b'm', b't', 0x64];
        object.extend(b"none");
        object.push(0x67);
        object.extend(b"attStmt");
        object.extend([0xa0, 0x68]);
        object.extend(b"authData");
        object.push(0x59);
        object.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        object.extend(data);
        object
    }

    fn sign(&self, data: &[u8], json: &[u8]) -> Vec<u8> {
        let message = [data.to_vec(), hash(json)].concat();
        let signed = self.pair.sign(&SystemRandom::new(), &message).unwrap();
        signed.as_ref().to_vec()
    }
}

fn json(deed: &str, challenge: &[u8]) -> Vec<u8> {
    let challenge = BASE64URL_NOPAD.encode(challenge);
    let origin = "https://example.org";
    let value =
        serde_json::json!({ "type": deed, "challenge": challenge, "origin": origin, "new": 1 });
    value.to_string().into_bytes()
}

#[test]
fn what_an_authenticator_says_of_itself_must_agree() {
    let one = Authenticator::new(b"one");
    let new = register(&here(), &one.object(UP_UV)).unwrap();
    assert_eq!((new.count, new.is_synced), (7, false));
    assert!(
        register(&here(), &one.object(UP_UV | 1 << 3))
            .unwrap()
            .is_synced
    );
    // Backed up, but not to be; extensions that aren't there; nobody there; nobody verified.
    for flags in [UP_UV | 1 << 4, UP_UV | 1 << 7, 0b100, 0b001] {
        assert!(register(&here(), &one.object(flags)).is_err(), "{flags}");
    }
    for id in [&[][..], &[0; MAX_ID_BYTES + 1]] {
        let refused = register(&here(), &Authenticator::new(id).object(UP_UV));
        assert!(matches!(refused, Err(PasskeyError::Unreadable)));
    }
}

#[test]
fn a_signature_is_for_its_challenge_and_key() {
    let one = Authenticator::new(b"one");
    let key = register(&here(), &one.object(UP_UV)).unwrap().key;
    let (data, text) = (Authenticator::data(UP_UV, 8), json("webauthn.get", &[1]));
    let client = ClientData::read(&text, Deed::Get, &here()).unwrap();
    let signature = one.sign(&data, &text);
    assert_eq!(
        verify(&here(), &key, &client, &data, &signature).unwrap(),
        8
    );
    let other = ClientData::read(&json("webauthn.get", &[2]), Deed::Get, &here()).unwrap();
    let stranger = Authenticator::new(b"two").sign(&data, &text);
    let raised = Authenticator::data(UP_UV, 9);
    for (client, data, signature) in [
        (&other, &data, &signature),
        (&client, &data, &stranger),
        (&client, &raised, &signature),
    ] {
        let refused = verify(&here(), &key, client, data, signature);
        assert!(matches!(refused, Err(PasskeyError::Wrong)));
    }
    // Bytes that nobody asked for.
    let longer = [&data[..], &[0]].concat();
    let signature = one.sign(&longer, &text);
    let refused = verify(&here(), &key, &client, &longer, &signature);
    assert!(matches!(refused, Err(PasskeyError::Unreadable)));
}

mod kept {
    use super::*;

    fn passkeys() -> (tempfile::TempDir, Passkeys) {
        let home = tempfile::tempdir().unwrap();
        let passkeys = Passkeys::new(State::open(home.path()).unwrap());
        (home, passkeys)
    }

    fn holder(subject: &str) -> Holder {
        Holder {
            how: "oidc Work".into(),
            subject: subject.into(),
            device: None,
        }
    }

    fn identity(subject: &str, handle: &str) -> Identity {
        Identity {
            subject: subject.into(),
            name: subject.into(),
            groups: BTreeSet::new(),
            expires: None,
            handle: Zeroizing::new(handle.into()),
        }
    }

    fn new(id: &[u8]) -> Registered {
        Registered {
            id: id.into(),
            key: PublicKey::Ed25519(vec![0; 32]),
            count: 0,
            is_synced: false,
        }
    }

    fn add(passkeys: &Passkeys, subject: &str, id: &[u8]) -> Result<Ticket, PasskeyError> {
        let user = format!("user-of-{subject}");
        let identity = identity(subject, "{\"refresh\":1}");
        passkeys.add(&user, holder(subject), subject, &identity, new(id))
    }

    #[test]
    fn a_passkey_comes_back_and_goes() {
        let (home, passkeys) = passkeys();
        let ticket = add(&passkeys, "ann", b"1").unwrap();
        assert_eq!(
            (ticket.user.as_str(), ticket.passkey),
            ("user-of-ann", None)
        );
        assert!(matches!(
            add(&passkeys, "bob", b"1"),
            Err(PasskeyError::Known)
        ));
        // Another process sees the same.
        let other = Passkeys::new(State::open(home.path()).unwrap());
        let (origin, found) = other.find(b"1").unwrap();
        assert_eq!(origin.holder, holder("ann"));
        assert_eq!(origin.identity().handle.as_str(), "{\"refresh\":1}");
        let refused = other.remove(&found.name, Some(&holder("bob")));
        assert!(matches!(refused, Err(PasskeyError::NoSuchPasskey(_))));
        let ticket = passkeys.count(b"1", 0).unwrap();
        assert!(passkeys.origin(&ticket).unwrap().is_some());
        other.remove(&found.name, Some(&holder("ann"))).unwrap();
        assert!(matches!(passkeys.find(b"1"), Err(PasskeyError::Unknown)));
        assert!(passkeys.origin(&ticket).unwrap().is_none());
        // Who added it is still who they are.
        let added = Ticket {
            user: ticket.user,
            passkey: None,
        };
        assert!(passkeys.origin(&added).unwrap().is_some());
    }

    #[test]
    fn a_counter_only_goes_up() {
        let (_home, passkeys) = passkeys();
        add(&passkeys, "ann", b"1").unwrap();
        for (count, is_good) in [
            (0, true), // it has none
            (0, true),
            (3, true),
            (3, false),
            (2, false),
            (0, false),
            (4, true),
            (u32::MAX, true),
        ] {
            let counted = passkeys.count(b"1", count);
            assert_eq!(counted.is_ok(), is_good, "{count}: {counted:?}");
            assert!(is_good || matches!(counted, Err(PasskeyError::Copied)));
        }
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let (_home, passkeys) = passkeys();
        for n in 0..MAX_OF_ONE {
            add(&passkeys, "ann", &n.to_be_bytes()).unwrap();
        }
        assert!(matches!(
            add(&passkeys, "ann", b"x"),
            Err(PasskeyError::FullOfOne)
        ));
        let origins = (0..MAX_PASSKEYS - MAX_OF_ONE).map(|n| Origin {
            user: n.to_string(),
            holder: holder(&n.to_string()),
            who: "x".into(),
            passkeys: vec![Passkey {
                name: n.to_string(),
                credential: vec![1; 64],
                key: PublicKey::Rs256 {
                    n: vec![1; 256],
                    e: vec![1, 0, 1],
                },
                count: 0,
                is_synced: true,
                made: 0,
                used: 0,
            }],
            expires: None,
            name: String::new(),
            groups: BTreeSet::new(),
            handle: Zeroizing::default(),
            heard: 0,
        });
        let fill = |file: &mut File| {
            file.origins.extend(origins);
            Ok(())
        };
        passkeys.change(fill).unwrap();
        assert!(matches!(
            add(&passkeys, "bob", b"y"),
            Err(PasskeyError::Full)
        ));
        assert_eq!(
            passkeys.list().unwrap().len(),
            1 + MAX_PASSKEYS - MAX_OF_ONE
        );
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let (_home, passkeys) = passkeys();
        add(&passkeys, "ann", b"1").unwrap();
        let long = identity("bob", &"x".repeat(MAX_BYTES));
        let refused = passkeys.add("bob", holder("bob"), "bob", &long, new(b"2"));
        assert!(matches!(refused, Err(PasskeyError::Full)));
        assert_eq!(passkeys.list().unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let (home, passkeys) = passkeys();
        add(&passkeys, "ann", b"1").unwrap();
        let path = home.path().join("passkeys.state");
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(passkeys.find(b"1"), Err(PasskeyError::Unknown)));
        assert!(home.path().join("passkeys.damaged").exists());
        add(&passkeys, "ann", b"1").unwrap();
    }

    #[test]
    fn a_code_that_is_nobodys_has_passkeys_of_each_device() {
        let home = tempfile::tempdir().unwrap();
        let codes = crate::codes::Codes::new(State::open(home.path()).unwrap());
        let config = crate::config::Config::default();
        let source = Source::all(&config, codes).unwrap().remove(0);
        let holder = |name: &str, device: &str| {
            let mut identity = identity("1", "");
            identity.name = name.into();
            Holder::new(&source, &identity, device)
        };
        assert_ne!(holder("", "aa"), holder("", "bb"));
        assert_eq!(holder("ann", "aa"), holder("ann", "bb"));
    }

    #[test]
    fn a_ticket_of_a_session_is_no_origin() {
        let (_home, passkeys) = passkeys();
        let ticket = identity("ann", "passkey:user-of-ann");
        let refused = passkeys.add("user-of-ann", holder("ann"), "ann", &ticket, new(b"1"));
        assert!(matches!(refused, Err(PasskeyError::LoggedOut)));
        add(&passkeys, "ann", b"1").unwrap();
        passkeys
            .add("user-of-ann", holder("ann"), "ann", &ticket, new(b"2"))
            .unwrap();
        let (origin, _) = passkeys.find(b"2").unwrap();
        assert_eq!(origin.identity().handle.as_str(), "{\"refresh\":1}");
    }

    #[test]
    fn what_ended_and_what_nobody_uses_is_forgotten() {
        let (_home, passkeys) = passkeys();
        let mut ends = identity("ann", "");
        ends.expires = Some(UNIX_EPOCH + Duration::from_secs(state::now()));
        passkeys
            .add("ann", holder("ann"), "ann", &ends, new(b"1"))
            .unwrap();
        assert!(matches!(passkeys.find(b"1"), Err(PasskeyError::Unknown)));
        add(&passkeys, "bob", b"2").unwrap();
        let (_, found) = passkeys.find(b"2").unwrap();
        passkeys.remove(&found.name, None).unwrap();
        assert_eq!(passkeys.list().unwrap().len(), 1);
        let age = |file: &mut File| {
            file.origins[0].heard -= IDLE.as_secs();
            Ok(())
        };
        passkeys.change(age).unwrap();
        assert!(passkeys.list().unwrap().is_empty());
    }
}
