//! What a browser brings from an authenticator, read and judged. No clock, no file, no network.
//!
//! Source: Web Authentication Level 3 (W3C), sections 7.1 "Registering a New Credential" and 7.2
//! "Verifying an Authentication Assertion"; step numbers are theirs.

use data_encoding::BASE64URL_NOPAD;
use ring::digest;
use serde::Deserialize;

use super::cbor::{Item, Reader};
use super::key::PublicKey;
use super::{Here, PasskeyError};

/// Section 6.1: the flags of authenticator data.
const USER_PRESENT: u8 = 1;
const USER_VERIFIED: u8 = 1 << 2;
const BACKUP_ELIGIBLE: u8 = 1 << 3;
const BACKED_UP: u8 = 1 << 4;
const HAS_CREDENTIAL: u8 = 1 << 6;
const HAS_EXTENSIONS: u8 = 1 << 7;
/// Section 6.1: an RP id's hash, flags and a counter.
const HEAD_BYTES: usize = 37;
const HASH_BYTES: usize = 32;
/// Section 6.5.1: an AAGUID and a length are before the credential id.
const AAGUID_BYTES: usize = 16;
/// Section 5.8.3: the longest credential id.
pub const MAX_ID_BYTES: usize = 1023;
/// The most keys in an attestation object.
const MAX_KEYS: u64 = 8;

/// What the browser did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It made a credential.
    Create,
    /// It used one.
    Get,
}

/// What the browser says of a ceremony, bound to what the authenticator signs by its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientData {
    /// The challenge that it was given.
    pub challenge: Vec<u8>,
    hash: [u8; HASH_BYTES],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Collected {
    r#type: String,
    challenge: String,
    origin: String,
    #[serde(default)]
    cross_origin: bool,
    top_origin: Option<serde::de::IgnoredAny>,
}

impl ClientData {
    /// Reads `json` (section 5.8.1), which must be of `deed` and of this very page.
    ///
    /// # Errors
    /// [`PasskeyError::Unreadable`], [`PasskeyError::Foreign`].
    pub fn read(json: &[u8], deed: Deed, here: &Here) -> Result<Self, PasskeyError> {
        let unreadable = |_| PasskeyError::Unreadable;
        let collected: Collected = serde_json::from_slice(json).map_err(unreadable)?;
        // 7.1 step 7, 7.2 step 11.
        let expected = match deed {
            Deed::Create => "webauthn.create",
            Deed::Get => "webauthn.get",
        };
        if collected.r#type != expected {
            return Err(PasskeyError::Unreadable);
        }
        // 7.1 steps 9 to 11, 7.2 steps 13 to 15: this page is in nobody's frame.
        let is_framed = collected.cross_origin || collected.top_origin.is_some();
        if collected.origin != here.origin || is_framed {
            return Err(PasskeyError::Foreign);
        }
        let challenge = BASE64URL_NOPAD.decode(collected.challenge.as_bytes());
        Ok(Self {
            challenge: challenge.map_err(|_| PasskeyError::Unreadable)?,
            hash: sha256(json),
        })
    }
}

/// A new credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its id, which its authenticator chose.
    pub id: Vec<u8>,
    /// Its key.
    pub key: PublicKey,
    /// Where its counter begins; 0 if it has none.
    pub count: u32,
    /// Whether it may be on more than one of its person's devices.
    pub is_synced: bool,
}

/// Judges a new credential. Who made the authenticator isn't asked for, so the attestation
/// statement isn't looked at.
///
/// # Errors
/// [`PasskeyError::Unreadable`], [`PasskeyError::Foreign`], [`PasskeyError::Unverified`],
/// [`PasskeyError::Algorithm`].
pub fn register(here: &Here, attestation_object: &[u8]) -> Result<Registered, PasskeyError> {
    let bytes = authenticator_data(attestation_object).ok_or(PasskeyError::Unreadable)?;
    let data = AuthenticatorData::read(bytes, here)?;
    if data.flags & HAS_CREDENTIAL == 0 {
        return Err(PasskeyError::Unreadable);
    }
    let (id, rest) = credential_id(data.rest).ok_or(PasskeyError::Unreadable)?;
    // 7.1 step 20.
    let (key, rest) = PublicKey::read(rest).ok_or(PasskeyError::Algorithm)?;
    data.end(rest)?;
    Ok(Registered {
        id: id.into(),
        key,
        count: data.count,
        is_synced: data.flags & BACKUP_ELIGIBLE != 0,
    })
}

/// Judges the use of a credential with `key`; returns its counter.
///
/// # Errors
/// [`PasskeyError::Unreadable`], [`PasskeyError::Foreign`], [`PasskeyError::Unverified`],
/// [`PasskeyError::Wrong`].
pub fn verify(
    here: &Here,
    key: &PublicKey,
    client: &ClientData,
    authenticator: &[u8],
    signature: &[u8],
) -> Result<u32, PasskeyError> {
    let data = AuthenticatorData::read(authenticator, here)?;
    if data.flags & HAS_CREDENTIAL == 0 {
        data.end(data.rest)?;
    }
    // 7.2 step 21.
    let message = [authenticator, &client.hash].concat();
    if !key.has_signed(&message, signature) {
        return Err(PasskeyError::Wrong);
    }
    Ok(data.count)
}

/// Section 6.5.4: the authenticator data in an attestation object.
fn authenticator_data(object: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(object);
    let Some(Item::Map(count @ 1..=MAX_KEYS)) = reader.item() else {
        return None;
    };
    let mut found = None;
    for _ in 0..count {
        let Item::Text(name) = reader.item()? else {
            return None;
        };
        match (name, found) {
            ("authData", None) => match reader.item()? {
                Item::Bytes(bytes) => found = Some(bytes),
                _ => return None,
            },
            ("authData", Some(_)) => return None,
            _ => reader.skip()?,
        }
    }
    reader.rest().is_empty().then_some(found?)
}

/// Section 6.5.1: the credential id, and what follows it.
fn credential_id(attested: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_aaguid, rest) = attested.split_at_checked(AAGUID_BYTES)?;
    let ([high, low], rest) = rest.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if !(1..=MAX_ID_BYTES).contains(&length) {
        return None;
    }
    rest.split_at_checked(length)
}

/// Section 6.1.
struct AuthenticatorData<'a> {
    flags: u8,
    count: u32,
    rest: &'a [u8],
}

impl<'a> AuthenticatorData<'a> {
    /// Reads it, and refuses what 7.1 steps 14 to 18 and 7.2 steps 16 to 20 do.
    fn read(bytes: &'a [u8], here: &Here) -> Result<Self, PasskeyError> {
        let (head, rest) = bytes
            .split_first_chunk::<HEAD_BYTES>()
            .ok_or(PasskeyError::Unreadable)?;
        let [hash @ .., flags, a, b, c, d] = *head;
        if hash != sha256(here.id.as_bytes()) {
            return Err(PasskeyError::Foreign);
        }
        let required = USER_PRESENT | USER_VERIFIED;
        if flags & required != required {
            return Err(PasskeyError::Unverified);
        }
        if flags & BACKED_UP != 0 && flags & BACKUP_ELIGIBLE == 0 {
            return Err(PasskeyError::Unreadable);
        }
        let count = u32::from_be_bytes([a, b, c, d]);
        Ok(Self { flags, count, rest })
    }

    /// What follows must be the extensions that the flags tell of, and nothing else.
    fn end(&self, rest: &[u8]) -> Result<(), PasskeyError> {
        let mut reader = Reader::new(rest);
        if self.flags & HAS_EXTENSIONS != 0 {
            reader.skip().ok_or(PasskeyError::Unreadable)?;
        }
        match reader.rest() {
            [] => Ok(()),
            _ => Err(PasskeyError::Unreadable),
        }
    }
}

fn sha256(bytes: &[u8]) -> [u8; HASH_BYTES] {
    let mut out = [0; HASH_BYTES];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}
