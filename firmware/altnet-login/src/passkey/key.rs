//! A passkey's public key: the three kinds that this page asks for.

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use super::cbor::{Item, Reader};

/// COSE's numbers of what this page asks for, best first (RFC 9053, RFC 8812).
pub const ALGORITHMS: [i64; 3] = [ES256, EDDSA, RS256];
const ES256: i64 = -7;
const EDDSA: i64 = -8;
const RS256: i64 = -257;

/// Labels in a COSE key, and what they may be (RFC 9052 section 7, RFC 9053 section 7, RFC 8230).
const KTY: i64 = 1;
const ALG: i64 = 3;
const KTY_OKP: i64 = 1;
const KTY_EC2: i64 = 2;
const KTY_RSA: i64 = 3;
const CRV_P256: i64 = 1;
const CRV_ED25519: i64 = 6;
/// The most labels of a key.
const MAX_LABELS: u64 = 8;
const COORDINATE_BYTES: usize = 32;
/// What ring verifies: 2048 to 8192 bits. Its exponent has at most 33 bits.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
const MAX_EXPONENT_BYTES: usize = 5;
const UNCOMPRESSED: u8 = 4;

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublicKey {
    /// ES256: an uncompressed point of P-256 (SEC 1 section 2.3.3).
    Es256(#[serde(with = "base64url")] Vec<u8>),
    /// EdDSA with Ed25519.
    Ed25519(#[serde(with = "base64url")] Vec<u8>),
    /// RS256.
    Rs256 {
        /// The modulus, big-endian.
        #[serde(with = "base64url")]
        n: Vec<u8>,
        /// The exponent.
        #[serde(with = "base64url")]
        e: Vec<u8>,
    },
}

impl PublicKey {
    /// Reads a COSE key from the start of `bytes`; returns what follows it too. Nothing if it is
    /// none of the three.
    ///
    /// Source: Web Authentication Level 3 section 5.8.5.
    pub fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let mut reader = Reader::new(bytes);
        let Some(Item::Map(count @ 1..=MAX_LABELS)) = reader.item() else {
            return None;
        };
        let mut fields = Vec::new();
        for _ in 0..count {
            let Item::Integer(label) = reader.item()? else {
                return None;
            };
            if fields.iter().any(|(known, _)| *known == label) {
                return None;
            }
            fields.push((label, reader.item()?));
        }
        let field = |label: i64| fields.iter().find(|(known, _)| *known == label);
        let number = |label: i64| match field(label) {
            Some((_, Item::Integer(number))) => Some(*number),
            _ => None,
        };
        let bytes = |label: i64| match field(label) {
            Some((_, Item::Bytes(bytes))) => Some(*bytes),
            _ => None,
        };
        let key = match (number(KTY)?, number(ALG)?) {
            (KTY_EC2, ES256) if number(-1) == Some(CRV_P256) => {
                let (x, y) = (bytes(-2)?, bytes(-3)?);
                let fits = x.len() == COORDINATE_BYTES && y.len() == COORDINATE_BYTES;
                fits.then(|| Self::Es256([&[UNCOMPRESSED], x, y].concat()))?
            }
            (KTY_OKP, EDDSA) if number(-1) == Some(CRV_ED25519) => {
                let x = bytes(-2)?;
                (x.len() == COORDINATE_BYTES).then(|| Self::Ed25519(x.into()))?
            }
            (KTY_RSA, RS256) => {
                let (n, e) = (bytes(-1)?, bytes(-2)?);
                let fits = MODULUS_BYTES.contains(&n.len()) && e.len() <= MAX_EXPONENT_BYTES;
                fits.then(|| Self::Rs256 {
                    n: n.into(),
                    e: e.into(),
                })?
            }
            _ => return None,
        };
        Some((key, reader.rest()))
    }

    /// Whether `signature` is this key's over `message`.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self {
            Self::Es256(point) => UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, point)
                .verify(message, signature),
            Self::Ed25519(key) => {
                UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature)
            }
            Self::Rs256 { n, e } => RsaPublicKeyComponents { n, e }.verify(
                &signature::RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            ),
        };
        verified.is_ok()
    }
}

/// Bytes as base64url without padding, in JSON.
pub(super) mod base64url {
    use super::BASE64URL_NOPAD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64URL_NOPAD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes());
        bytes.map_err(D::Error::custom)
    }
}
