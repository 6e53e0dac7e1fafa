//! Whether this build works on this machine: what a processor, a compiler or a damaged file could
//! spoil, tried on answers that are known beforehand.
//!
//! In: nothing. Out: a verdict on each check. It uses the same code as the node does; it needs no
//! keys and touches none. It finds a build that is broken, not one that was made to lie.

use alloc::vec::Vec;
use core::net::Ipv6Addr;

use altnet_wire::address::{self, Prefix};
use altnet_wire::envelope::{Envelope, MAX_RECORD_BYTES};
use altnet_wire::id::{Name, NetworkId, Serial, SiteId};
use altnet_wire::record::{Genesis, HostRecord, IssuerCertificate, Rights, Roles};
use altnet_wire::time::{Duration, Instant, UnixTime};
use blake2::{Blake2s256, Digest};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Tag};
use ed25519_dalek::{Signature, Signer, VerifyingKey};
use sha2::Sha256;

use crate::clock::Clock;
use crate::limits::Limits;
use crate::names::{Answer, Carrier, MAX_UDP_BYTES, ZoneIndex, ZoneView, answer};
use crate::records::{SigningSecret, sign_record, verify};
use crate::registry::{Registry, Slot, Subject};
use crate::rng::Rng;

/// Something isn't as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub &'static str);

/// One check.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// What it is about, for people.
    pub name: &'static str,
    /// Does it.
    pub run: fn() -> Result<(), Fault>,
}

/// Every check.
pub const CHECKS: [Check; 7] = [
    Check {
        name: "BLAKE2s",
        run: || same(&blake2s(b"abc"), BLAKE2S_ABC),
    },
    Check {
        name: "SHA-256",
        run: || same(&sha256(b"abc"), SHA256_ABC),
    },
    Check {
        name: "X25519",
        run: || x25519(ALICE, BOB),
    },
    Check {
        name: "ChaCha20-Poly1305",
        run: || chacha20poly1305(SEALED),
    },
    Check {
        name: "Ed25519",
        run: || ed25519(SIGNATURE),
    },
    Check {
        name: "records",
        run: records,
    },
    Check {
        name: "names",
        run: names,
    },
];

/// RFC 7693 appendix B.
const BLAKE2S_ABC: &str = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982";
/// RFC 6234 section 8.5, test 1.
const SHA256_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
/// RFC 7748 section 6.1.
const ALICE: &str = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
const BOB: &str = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";
const BOBS_PUBLIC: &str = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
const SHARED: &str = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
/// RFC 8439 section 2.8.2: the ciphertext, then the tag.
const TEXT: &[u8] = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
const SEALED: &str = "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691";
/// RFC 8032 section 7.1, test 2.
const SECRET: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
const PUBLIC: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
const SIGNATURE: &str = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

const WRONG: Fault = Fault("the result is not the one that is published");

fn hex<const N: usize>(text: &str) -> [u8; N] {
    let digits = text.as_bytes().chunks(2);
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits) {
        let pair = core::str::from_utf8(pair).unwrap_or_default();
        *byte = u8::from_str_radix(pair, 16).unwrap_or_default();
    }
    bytes
}

fn same<const N: usize>(found: &[u8; N], expected: &str) -> Result<(), Fault> {
    let is_same = expected.len() == 2 * N && *found == hex::<N>(expected);
    is_same.then_some(()).ok_or(WRONG)
}

fn blake2s(text: &[u8]) -> [u8; 32] {
    Blake2s256::digest(text).into()
}

fn sha256(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

fn x25519(ours: &str, theirs: &str) -> Result<(), Fault> {
    use x25519_dalek::{PublicKey, StaticSecret};

    let (ours, theirs) = (
        StaticSecret::from(hex(ours)),
        StaticSecret::from(hex(theirs)),
    );
    let public = PublicKey::from(&theirs);
    same(public.as_bytes(), BOBS_PUBLIC)?;
    same(ours.diffie_hellman(&public).as_bytes(), SHARED)
}

fn chacha20poly1305(sealed: &str) -> Result<(), Fault> {
    const SEALED_BYTES: usize = TEXT.len() + 16;

    let mut key = [0; 32];
    for (byte, value) in key.iter_mut().zip(0x80..) {
        *byte = value;
    }
    let cipher = ChaCha20Poly1305::new(&key.into());
    let nonce = hex::<12>("070000004041424344454647").into();
    let associated = hex::<12>("50515253c0c1c2c3c4c5c6c7");
    let mut bytes = [0; SEALED_BYTES];
    let (text, tag) = bytes.split_at_mut(TEXT.len());
    text.copy_from_slice(TEXT);
    let made = cipher.encrypt_in_place_detached(&nonce, &associated, text);
    tag.copy_from_slice(&made.map_err(|_| WRONG)?);
    same(&bytes, sealed)?;
    let open = |bytes: &mut [u8; SEALED_BYTES]| {
        let (text, tag) = bytes.split_at_mut(TEXT.len());
        cipher.decrypt_in_place_detached(&nonce, &associated, text, Tag::from_slice(tag))
    };
    let mut bent = bytes;
    bent[0] ^= 1;
    if open(&mut bent).is_ok() {
        return Err(Fault("what was changed opens"));
    }
    open(&mut bytes).map_err(|_| Fault("what was sealed does not open"))?;
    match bytes.starts_with(TEXT) {
        true => Ok(()),
        false => Err(Fault("what was sealed opens to something else")),
    }
}

fn ed25519(signature: &str) -> Result<(), Fault> {
    const MESSAGE: &[u8] = &[0x72];

    let secret = ed25519_dalek::SigningKey::from_bytes(&hex(SECRET));
    same(secret.verifying_key().as_bytes(), PUBLIC)?;
    same(&secret.sign(MESSAGE).to_bytes(), signature)?;
    let public = VerifyingKey::from_bytes(&hex(PUBLIC)).map_err(|_| WRONG)?;
    let signature = Signature::from_bytes(&hex(signature));
    public
        .verify_strict(MESSAGE, &signature)
        .map_err(|_| Fault("a good signature is refused"))?;
    match public.verify_strict(b"s", &signature) {
        Ok(()) => Err(Fault("a signature of something else is accepted")),
        Err(_) => Ok(()),
    }
}

/// The moment at which the pretend network is made: any will do.
const FOUNDED: UnixTime = UnixTime::from_secs(1_795_000_000);

/// A network of nobody's, with one machine.
struct Pretend {
    petname: Name,
    registry: Registry,
    host: HostRecord,
    record: Vec<u8>,
    clock: Clock,
}

impl Pretend {
    fn new() -> Result<Self, Fault> {
        let made = Fault("a record can't be made");
        let mut rng = Rng::new([1; 32]);
        let owner = SigningSecret::generate(&mut rng);
        let issuer = SigningSecret::generate(&mut rng);
        let site = SiteId::new(1).ok_or(made)?;
        let petname = Name::new("selftest").map_err(|_| made)?;
        let genesis = Genesis {
            name: petname.clone(),
            owners: [owner.public()].into_iter().collect(),
            recovery: issuer.public(),
            issued: FOUNDED,
            nonce: rng.array(),
        };
        let mut out = [0; MAX_RECORD_BYTES];
        let bytes = sign_record(&owner, NetworkId([0; 32]), &genesis, Serial(0), &mut out);
        let refused = Fault("a record that is signed well is refused");
        let mut registry =
            Registry::new(bytes.map_err(|_| made)?, Limits::ROUTER).map_err(|_| refused)?;
        let mut clock = Clock::new(FOUNDED);
        clock.set_running(FOUNDED, Instant::ZERO);
        let network = registry.network();
        let certificate = IssuerCertificate {
            issuer: issuer.public(),
            rights: Rights::HOSTS,
            roles: Roles::empty(),
            first_site: site,
            last_site: site,
            issued: FOUNDED,
            expires: FOUNDED.after(Duration::from_secs(86_400)),
        };
        let bytes = sign_record(&owner, network, &certificate, Serial(1), &mut out);
        registry
            .apply(bytes.map_err(|_| made)?, &mut clock)
            .map_err(|_| refused)?;
        let prefix = address::site_prefix(&network, site);
        let host = HostRecord {
            name: Name::new("wiki").map_err(|_| made)?,
            site,
            address: Some((u128::from(prefix.address()) | 5).into()),
        };
        let serial = registry.next_serial(&Slot::host(site, &host.name));
        let record = sign_record(&issuer, network, &host, serial, &mut out);
        let record = record.map_err(|_| made)?.to_vec();
        Ok(Self {
            petname,
            registry,
            host,
            record,
            clock,
        })
    }
}

/// A record is signed, and stands only as it was signed.
fn records() -> Result<(), Fault> {
    let mut network = Pretend::new()?;
    let envelope = Envelope::parse(&network.record).map_err(|_| Fault("a record does not read"))?;
    verify(&envelope).map_err(|_| Fault("a good signature is refused"))?;
    let mut bent = network.record.clone();
    if let Some(last) = bent.last_mut() {
        *last ^= 1;
    }
    if network.registry.apply(&bent, &mut network.clock).is_ok() {
        return Err(Fault("a record with another signature is accepted"));
    }
    let good = network.registry.apply(&network.record, &mut network.clock);
    good.map_err(|_| Fault("a record that is signed well is refused"))?;
    Ok(())
}

/// The machine has its name, and its name its address.
fn names() -> Result<(), Fault> {
    // RFC 1035 section 4.1: id 7, a query that wants recursion, one question: AAAA, class IN.
    const HEADER: [u8; 12] = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    const TYPE_AND_CLASS: [u8; 4] = [0, 28, 0, 1];

    let mut network = Pretend::new()?;
    let good = network.registry.apply(&network.record, &mut network.clock);
    good.map_err(|_| Fault("a record that is signed well is refused"))?;
    let query = |name: &[u8]| [&HEADER, name, &TYPE_AND_CLASS].concat();
    let mut reply = [0; MAX_UDP_BYTES];
    let zone = Zone(&network);
    let asked = query(b"\x04wiki\x08selftest\x03alt\0");
    let Answer::Reply(len) = answer(&asked, &zone, Carrier::Udp, &mut reply) else {
        return Err(Fault("a name is not answered"));
    };
    let expected = network.host.address.unwrap_or(Ipv6Addr::UNSPECIFIED);
    // No error (RCODE 0), one answer, which ends the message but for what EDNS adds.
    let says_so = reply.get(6..8) == Some(&[0, 1]) && reply[3] & 15 == 0;
    let octets = expected.octets();
    if !says_so || !reply[..len].windows(16).any(|part| part == octets) {
        return Err(Fault("a name has another address than its record says"));
    }
    let asked = query(b"\x07nowhere\x08selftest\x03alt\0");
    match answer(&asked, &zone, Carrier::Udp, &mut reply) {
        Answer::Reply(_) if reply.get(6..8) == Some(&[0, 1]) => {
            Err(Fault("a name that nobody has is answered"))
        }
        _ => Ok(()),
    }
}

/// The one zone of that network.
struct Zone<'a>(&'a Pretend);

impl ZoneView for Zone<'_> {
    fn by_petname(&self, petname: &Name) -> Option<ZoneIndex> {
        (*petname == self.0.petname).then_some(ZoneIndex(0))
    }

    fn by_id(&self, id: &NetworkId) -> Option<ZoneIndex> {
        (self.0.registry.network() == *id).then_some(ZoneIndex(0))
    }

    fn by_address(&self, address: Ipv6Addr) -> Option<ZoneIndex> {
        let prefix = address::network_prefix(&self.0.registry.network());
        prefix.contains(address).then_some(ZoneIndex(0))
    }

    fn petname(&self, _: ZoneIndex) -> Name {
        self.0.petname.clone()
    }

    fn serial(&self, _: ZoneIndex) -> u32 {
        self.0.registry.revision() as u32
    }

    fn addresses(&self, _: ZoneIndex, name: &Name, found: &mut dyn FnMut(Ipv6Addr)) {
        let host = self
            .0
            .registry
            .host(name)
            .and_then(|host| host.record.address);
        host.into_iter().for_each(found);
    }

    fn gateways(&self, _: ZoneIndex, _: &mut dyn FnMut(Ipv6Addr)) {}

    fn name_at(&self, _: ZoneIndex, address: Ipv6Addr) -> Option<Name> {
        match self.0.registry.by_address(address)? {
            Subject::Host(host, _) => Some(host.record.name.clone()),
            _ => None,
        }
    }

    fn has_below(&self, prefix: Prefix) -> bool {
        let mut all = self
            .0
            .registry
            .hosts()
            .filter_map(|host| host.record.address);
        all.any(|address| prefix.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_passes() {
        for check in CHECKS {
            assert_eq!((check.run)(), Ok(()), "{}", check.name);
        }
    }

    #[test]
    fn another_result_than_the_published_one_is_noticed() {
        let bent = |text: &str| text.replace("a", "b");
        assert_eq!(same(&blake2s(b"abd"), BLAKE2S_ABC), Err(WRONG));
        assert_eq!(same(&sha256(b"abd"), SHA256_ABC), Err(WRONG));
        assert_eq!(same(&[0; 32], ""), Err(WRONG));
        assert_eq!(x25519(BOB, ALICE), Err(WRONG));
        assert_eq!(x25519(BOB, BOB), Err(WRONG));
        assert_eq!(chacha20poly1305(&bent(SEALED)), Err(WRONG));
        assert_eq!(ed25519(&bent(SIGNATURE)), Err(WRONG));
    }

    #[test]
    fn a_name_of_another_network_has_no_zone() {
        let network = Pretend::new().unwrap();
        let zone = Zone(&network);
        assert_eq!(zone.by_petname(&Name::new("home").unwrap()), None);
        // Its record was not applied yet.
        let mut found = Vec::new();
        zone.addresses(ZoneIndex(0), &network.host.name, &mut |a| found.push(a));
        assert!(found.is_empty() && !zone.has_below(Prefix::new(Ipv6Addr::UNSPECIFIED, 0)));
    }
}
