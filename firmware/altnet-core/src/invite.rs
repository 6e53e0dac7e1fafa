//! What a newcomer is given: the link of an invite, and the bundle a first boot reads.
//!
//! A link is `altnet://join/<base32>#<base32>`: what the network signed and where to knock
//! before the `#`, the invite's secret half after it, where no web server would see it. All of
//! it may be upper case, which makes a smaller QR code.
//!
//! In: text or bytes from anywhere. Out: checked parts, or one sentence about the damage. Whether
//! the invite's signer may invite is found out later, from the records of the network.

mod bundle;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::net::SocketAddr;

use altnet_wire::canonical;
use altnet_wire::envelope::{Envelope, MAX_RECORD_BYTES, RecordKind};
use altnet_wire::hash;
use altnet_wire::id::{NetworkId, base32_fmt, base32_parse};
use altnet_wire::record::{self, Invite};
use serde::{Deserialize, Serialize};
use zeroize::{ZeroizeOnDrop, Zeroizing};

pub use bundle::{Bundle, BundleError};

use crate::records::{self, SigningSecret};

/// What a link begins with.
pub const LINK_PREFIX: &str = "altnet://join/";

/// Most endpoints in a link.
pub const MAX_ENTRIES: usize = 4;

/// The version of the link's format.
pub const LINK_VERSION: u8 = 1;

/// Bytes of the checksum behind the secret.
const CHECK_BYTES: usize = 2;

/// Base32 symbols of the secret with its checksum: 18 bytes.
const FRAGMENT_SYMBOLS: usize = 29;

/// The longest link in bytes: base32 of the largest invite with four IPv6 endpoints.
pub const MAX_LINK_BYTES: usize = 2048;

/// An invite on its way to a person.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct Link {
    /// The envelope of the invite.
    #[zeroize(skip)]
    invite: Vec<u8>,
    /// Where members can be reached: control over UDP.
    #[zeroize(skip)]
    entries: heapless::Vec<SocketAddr, MAX_ENTRIES>,
    secret: [u8; 16],
}

/// Text that is not a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// It doesn't begin as a link does.
    #[error("this is not an invite link: it should begin with altnet://join/")]
    NotALink,
    /// The end is missing.
    #[error("the invite link is cut off: copy all of it, with the part after the '#'")]
    CutOff,
    /// Something in it isn't what was made.
    #[error("the invite link was altered or mistyped")]
    Altered,
    /// A later form.
    #[error("the invite link needs a newer altnet (its version is {0})")]
    Version(u8),
}

#[derive(Serialize, Deserialize)]
struct Payload<'a> {
    version: u8,
    #[serde(borrow)]
    invite: &'a [u8],
    entries: heapless::Vec<SocketAddr, MAX_ENTRIES>,
}

impl Link {
    /// Puts a link together from the invite's envelope, where to knock, and the secret half.
    ///
    /// # Errors
    /// [`LinkError::Altered`] if the invite isn't one, isn't signed, or has another secret.
    pub fn new(invite: &[u8], entries: &[SocketAddr], secret: [u8; 16]) -> Result<Self, LinkError> {
        let link = Self {
            invite: invite.into(),
            entries: entries.iter().take(MAX_ENTRIES).copied().collect(),
            secret,
        };
        let envelope = Envelope::parse(invite).map_err(|_| LinkError::Altered)?;
        let header = envelope.header();
        if header.kind != RecordKind::INVITE || header.version != 1 {
            return Err(LinkError::Altered);
        }
        let body: Invite = record::decode(envelope.body()).map_err(|_| LinkError::Altered)?;
        records::verify(&envelope).map_err(|_| LinkError::Altered)?;
        if body.invite != link.key().public() {
            return Err(LinkError::Altered);
        }
        Ok(link)
    }

    /// Reads a link, in either case, with spaces around it.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        let text = text.trim();
        let (prefix, rest) = text
            .split_at_checked(LINK_PREFIX.len())
            .ok_or(LinkError::NotALink)?;
        if !prefix.eq_ignore_ascii_case(LINK_PREFIX) {
            return Err(LinkError::NotALink);
        }
        if text.len() > MAX_LINK_BYTES {
            return Err(LinkError::Altered);
        }
        let (payload, fragment) = rest.split_once('#').ok_or(LinkError::CutOff)?;
        let payload = decode_base32(payload)?;
        match payload.first() {
            Some(&LINK_VERSION) => {}
            Some(other) => return Err(LinkError::Version(*other)),
            None => return Err(LinkError::Altered),
        }
        if fragment.len() < FRAGMENT_SYMBOLS {
            return Err(LinkError::CutOff);
        }
        let mut tail = Zeroizing::new([0; 16 + CHECK_BYTES]);
        base32_parse(fragment, &mut *tail).map_err(|_| LinkError::Altered)?;
        let (secret, check) = tail.split_first_chunk::<16>().ok_or(LinkError::Altered)?;
        if *check != checksum(&payload, secret) {
            return Err(LinkError::Altered);
        }
        let parts: Payload<'_> = canonical::decode(&payload).map_err(|_| LinkError::Altered)?;
        Self::new(parts.invite, &parts.entries, *secret)
    }

    /// The network that the invite is for.
    pub fn network(&self) -> NetworkId {
        Envelope::parse(&self.invite).map_or(NetworkId([0; 32]), |e| e.header().network)
    }

    /// The envelope of the invite.
    pub fn invite(&self) -> &[u8] {
        &self.invite
    }

    /// The invite's body.
    pub fn body(&self) -> Option<Invite> {
        let envelope = Envelope::parse(&self.invite).ok()?;
        record::decode(envelope.body()).ok()
    }

    /// Where to knock.
    pub fn entries(&self) -> &[SocketAddr] {
        &self.entries
    }

    /// The key that the secret half makes.
    pub fn key(&self) -> SigningSecret {
        SigningSecret::of_invite(&self.secret)
    }

    /// The link's text. It holds the secret: whoever reads it can come in.
    pub fn to_text(&self) -> String {
        let payload = Payload {
            version: LINK_VERSION,
            invite: &self.invite,
            entries: self.entries.clone(),
        };
        let payload = postcard::to_allocvec(&payload).unwrap_or_default();
        let check = checksum(&payload, &self.secret);
        let mut tail = Zeroizing::new([0; 16 + CHECK_BYTES]);
        for (to, from) in tail.iter_mut().zip(self.secret.iter().chain(&check)) {
            *to = *from;
        }
        let mut text = String::from(LINK_PREFIX);
        // Writing to a string can't fail.
        let _ = base32_fmt(&payload, &mut text);
        let _ = text.write_char('#');
        let _ = base32_fmt(&*tail, &mut text);
        text
    }
}

impl core::fmt::Debug for Link {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Link(to {})", self.network())
    }
}

fn checksum(payload: &[u8], secret: &[u8; 16]) -> [u8; CHECK_BYTES] {
    let hash = hash::labelled("altnet link check v1", &[secret, payload]);
    let mut check = [0; CHECK_BYTES];
    for (to, from) in check.iter_mut().zip(hash) {
        *to = from;
    }
    check
}

fn decode_base32(text: &str) -> Result<Vec<u8>, LinkError> {
    let mut bytes = alloc::vec![0; (text.len() * 5 / 8).min(2 * MAX_RECORD_BYTES)];
    base32_parse(text, &mut bytes).map_err(|_| LinkError::Altered)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_wire::id::Serial;
    use altnet_wire::record::Roles;
    use altnet_wire::time::UnixTime;
    use proptest::prelude::*;

    pub(super) fn link() -> Link {
        let secret = [7; 16];
        let signer = SigningSecret::from_bytes(&[1; 32]);
        let invite = Invite {
            invite: SigningSecret::of_invite(&secret).public(),
            issuer: signer.public(),
            name: None,
            person: None,
            roles: Roles::GATEWAY,
            site: altnet_wire::id::SiteId::new(2),
            groups: heapless::Vec::new(),
            sponsor: None,
            uses: 1,
            issued: UnixTime::from_secs(1_700_000_000),
            expires: UnixTime::from_secs(1_700_600_000),
        };
        let mut out = [0; MAX_RECORD_BYTES];
        let bytes = records::sign_record(&signer, NetworkId([9; 32]), &invite, Serial(1), &mut out)
            .unwrap();
        Link::new(bytes, &["203.0.113.7:7377".parse().unwrap()], secret).unwrap()
    }

    #[test]
    fn a_link_reads_back_in_either_case() {
        let text = link().to_text();
        assert!(text.len() < 450, "{}", text.len());
        assert_eq!(Link::parse(&text), Ok(link()));
        let shouted = std::format!(" {}\n", text.to_uppercase());
        assert_eq!(Link::parse(&shouted), Ok(link()));
    }

    #[test]
    fn a_link_cut_off_anywhere_is_refused() {
        let text = link().to_text();
        for end in 0..text.len() {
            let error = Link::parse(&text[..end]).unwrap_err();
            let expected = if end < LINK_PREFIX.len() {
                LinkError::NotALink
            } else {
                LinkError::CutOff
            };
            assert_eq!(error, expected, "cut at {end}");
        }
    }

    #[test]
    fn a_link_with_one_symbol_changed_is_refused() {
        let text = link().to_text();
        for at in LINK_PREFIX.len()..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'a' { b'b' } else { b'a' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(Link::parse(&changed).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn a_link_of_a_later_version_says_so() {
        let mut text = String::from(LINK_PREFIX);
        base32_fmt(&[2, 1, 1], &mut text).unwrap();
        text.push_str("#aa");
        assert_eq!(Link::parse(&text), Err(LinkError::Version(2)));
    }

    #[test]
    fn a_link_does_not_print_its_secret() {
        assert!(!std::format!("{:?}", link()).contains("7, 7"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,200}") {
            let _ = Link::parse(&text);
            let _ = Link::parse(&std::format!("{LINK_PREFIX}{text}"));
        }
    }
}
