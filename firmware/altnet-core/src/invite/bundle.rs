//! The file that a first boot reads: a network's first records, an invite, a role.
//!
//! ```text
//! -----BEGIN ALTNET BUNDLE-----
//! base64 (RFC 4648) of: "ALTN" | version u8 | fields in postcard | checksum, 8 bytes
//! -----END ALTNET BUNDLE-----
//! ```
//! The checksum is the beginning of a labelled hash over everything before it: it finds damage,
//! not malice; what matters inside is signed. A bundle may hold secrets and is kept like a key.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use altnet_wire::canonical;
use altnet_wire::hash;
use altnet_wire::id::Name;
use altnet_wire::record::{MAX_FIXED_ENDPOINTS, Roles};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{Link, LinkError};
use crate::records::SigningSecret;

const BEGIN: &str = "-----BEGIN ALTNET BUNDLE-----";
const END: &str = "-----END ALTNET BUNDLE-----";
const MAGIC: &[u8; 4] = b"ALTN";
const VERSION: u8 = 1;
const CHECK_BYTES: usize = 8;
const LINE_SYMBOLS: usize = 64;

/// The largest bundle in bytes of text.
pub(super) const MAX_BUNDLE_BYTES: usize = 128 * 1024;

/// What a device is given before its first boot.
#[derive(Clone, Default)]
pub struct Bundle {
    /// Record envelopes, the genesis first: owner changes, certificates and the like.
    pub records: Vec<Vec<u8>>,
    /// The invite to redeem.
    pub link: Option<Link>,
    /// The key of an issuer that runs on this device.
    pub issuer: Option<SigningSecret>,
    /// What the device is meant to be.
    pub roles: Roles,
    /// Endpoints of its own that don't change.
    pub fixed_endpoints: heapless::Vec<SocketAddr, MAX_FIXED_ENDPOINTS>,
    /// How this home calls the network.
    pub petname: Option<Name>,
    /// Text for `altnet.toml`.
    pub settings: String,
}

/// Text that is not a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// No first line.
    #[error("this is not a bundle: the line '-----BEGIN ALTNET BUNDLE-----' is missing")]
    NotABundle,
    /// No last line.
    #[error("the bundle is cut off: the line '-----END ALTNET BUNDLE-----' is missing")]
    CutOff,
    /// Something inside isn't what was written.
    #[error("the bundle is damaged")]
    Damaged,
    /// A later form.
    #[error("the bundle needs a newer altnet (its version is {0})")]
    Version(u8),
    /// More than a bundle may have.
    #[error("the bundle is larger than 128 KiB")]
    TooLarge,
    /// The invite inside isn't one.
    #[error(transparent)]
    Link(#[from] LinkError),
}

#[derive(Serialize, Deserialize)]
struct Fields {
    records: Vec<Vec<u8>>,
    link: Option<String>,
    issuer: Option<[u8; 32]>,
    roles: Roles,
    fixed_endpoints: heapless::Vec<SocketAddr, MAX_FIXED_ENDPOINTS>,
    petname: Option<Name>,
    settings: String,
}

impl Drop for Fields {
    fn drop(&mut self) {
        self.link.zeroize();
        self.issuer.zeroize();
    }
}

impl Bundle {
    /// The bundle's text. It may hold secrets.
    ///
    /// # Errors
    /// [`BundleError::TooLarge`].
    pub fn to_text(&self) -> Result<Zeroizing<String>, BundleError> {
        let fields = Fields {
            records: self.records.clone(),
            link: self.link.as_ref().map(Link::to_text),
            issuer: self.issuer.as_ref().map(|issuer| *issuer.to_bytes()),
            roles: self.roles,
            fixed_endpoints: self.fixed_endpoints.clone(),
            petname: self.petname.clone(),
            settings: self.settings.clone(),
        };
        let mut bytes = Zeroizing::new(Vec::from(MAGIC));
        bytes.push(VERSION);
        let body =
            Zeroizing::new(postcard::to_allocvec(&fields).map_err(|_| BundleError::TooLarge)?);
        bytes.extend_from_slice(&body);
        let check = checksum(&bytes);
        bytes.extend_from_slice(&check);
        let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 3 / 2 + 64));
        text.push_str(BEGIN);
        text.push('\n');
        base64_write(&bytes, &mut text);
        text.push_str(END);
        text.push('\n');
        if text.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge);
        }
        Ok(text)
    }

    /// Reads a bundle; what stands before its first and after its last line is passed over.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn parse(text: &str) -> Result<Self, BundleError> {
        if text.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge);
        }
        let (_, rest) = text.split_once(BEGIN).ok_or(BundleError::NotABundle)?;
        let (armoured, _) = rest.split_once(END).ok_or(BundleError::CutOff)?;
        let bytes = Zeroizing::new(base64_read(armoured).ok_or(BundleError::Damaged)?);
        let rest = bytes.strip_prefix(MAGIC).ok_or(BundleError::Damaged)?;
        match rest.first() {
            Some(&VERSION) => {}
            Some(other) => return Err(BundleError::Version(*other)),
            None => return Err(BundleError::Damaged),
        }
        let (before, check) = bytes
            .split_last_chunk::<CHECK_BYTES>()
            .ok_or(BundleError::Damaged)?;
        if *check != checksum(before) {
            return Err(BundleError::Damaged);
        }
        let body = before.get(MAGIC.len() + 1..).ok_or(BundleError::Damaged)?;
        let mut fields: Fields = canonical::decode(body).map_err(|_| BundleError::Damaged)?;
        Ok(Self {
            records: core::mem::take(&mut fields.records),
            link: fields.link.as_deref().map(Link::parse).transpose()?,
            issuer: fields.issuer.as_ref().map(SigningSecret::from_bytes),
            roles: fields.roles,
            fixed_endpoints: core::mem::take(&mut fields.fixed_endpoints),
            petname: fields.petname.take(),
            settings: core::mem::take(&mut fields.settings),
        })
    }
}

impl core::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Bundle")
            .field("records", &self.records.len())
            .field("link", &self.link)
            .field("roles", &self.roles)
            .field("petname", &self.petname)
            .finish_non_exhaustive()
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = hash::labelled("altnet bundle check v1", &[bytes]);
    let mut check = [0; CHECK_BYTES];
    for (to, from) in check.iter_mut().zip(hash) {
        *to = from;
    }
    check
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Writes padded base64 (RFC 4648 section 4) in lines.
fn base64_write(bytes: &[u8], text: &mut String) {
    for line in bytes.chunks(LINE_SYMBOLS / 4 * 3) {
        for group in line.chunks(3) {
            let at = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
            let bits = at(0) << 16 | at(1) << 8 | at(2);
            for i in 0..4 {
                let symbol = BASE64[(bits >> (18 - 6 * i)) as usize & 63];
                text.push(if i <= group.len() {
                    char::from(symbol)
                } else {
                    '='
                });
            }
        }
        text.push('\n');
    }
}

/// Reads what [`base64_write`] writes; white space is passed over.
fn base64_read(text: &str) -> Option<Vec<u8>> {
    let symbols: Zeroizing<Vec<u8>> =
        Zeroizing::new(text.bytes().filter(|b| !b.is_ascii_whitespace()).collect());
    let mut bytes = Vec::with_capacity(symbols.len() / 4 * 3);
    if !symbols.len().is_multiple_of(4) {
        return None;
    }
    let groups = symbols.len() / 4;
    for (index, group) in symbols.chunks_exact(4).enumerate() {
        let padding = group.iter().rev().take_while(|b| **b == b'=').count();
        if padding > 2 || (padding > 0 && index + 1 != groups) {
            return None;
        }
        let mut bits = 0u32;
        for symbol in group.iter().take(4 - padding) {
            let value = BASE64.iter().position(|b| b == symbol)?;
            bits = bits << 6 | value as u32;
        }
        bits <<= 6 * padding;
        let [_, all @ ..] = bits.to_be_bytes();
        let (kept, dropped) = all.split_at(3 - padding);
        if dropped.iter().any(|b| *b != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bundle() -> Bundle {
        Bundle {
            records: alloc::vec![alloc::vec![1; 200], alloc::vec![2; 100]],
            link: Some(super::super::tests::link()),
            issuer: Some(SigningSecret::from_bytes(&[5; 32])),
            roles: Roles::RELAY | Roles::DIRECTORY,
            fixed_endpoints: ["203.0.113.7:7377".parse().unwrap()].into_iter().collect(),
            petname: Some(Name::new("home").unwrap()),
            settings: String::from("listen_port = 7377\n"),
        }
    }

    #[test]
    fn a_bundle_reads_back() {
        let text = bundle().to_text().unwrap();
        let back = Bundle::parse(&std::format!("a note\r\n{}\nmore", &*text)).unwrap();
        assert_eq!(*back.to_text().unwrap(), *text);
        assert_eq!(back.records, bundle().records);
        assert_eq!(back.settings, bundle().settings);
    }

    #[test]
    fn a_bundle_cut_off_or_changed_anywhere_is_refused() {
        let text = bundle().to_text().unwrap();
        let body = BEGIN.len()..text.len() - END.len() - 1;
        for at in body.clone().filter(|at| text.as_bytes()[*at] != b'\n') {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(Bundle::parse(core::str::from_utf8(&changed).unwrap()).is_err());
        }
        assert_eq!(Bundle::parse("").unwrap_err(), BundleError::NotABundle);
        for end in body {
            assert_eq!(
                Bundle::parse(&text[..end]).unwrap_err(),
                BundleError::CutOff
            );
        }
    }

    #[test]
    fn base64_follows_rfc_4648() {
        for (bytes, expected) in [
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            let mut text = String::new();
            base64_write(bytes.as_bytes(), &mut text);
            assert_eq!(text.trim_end(), expected);
            assert_eq!(base64_read(&text).unwrap(), bytes.as_bytes());
        }
        for bad in ["Zg", "Zh==", "Z===", "Zg==Zg==", "Z\u{e4}=="] {
            assert_eq!(base64_read(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,200}", bytes: Vec<u8>) {
            let _ = Bundle::parse(&text);
            let mut inside = String::new();
            base64_write(&[&b"ALTN\x01"[..], &bytes].concat(), &mut inside);
            let _ = Bundle::parse(&std::format!("{BEGIN}{inside}{END}"));
        }
    }
}
