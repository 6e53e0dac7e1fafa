//! Long-term credentials: how requests to a server are signed (RFC 8489 section 9.2).
//!
//! In: a username, a password, and the server's challenge. Out: signatures on requests, and
//! whether an answer is signed alike. The password is hashed with the realm once for each
//! challenge; copies of it and of the key are wiped when they go.
//!
//! Names, realms and passwords are taken as they are: whoever enters one that isn't ASCII enters
//! it as OpaqueString has it (RFC 8265).

use altnet_wire::frame::NoRoom;
use altnet_wire::stun::Message;
use altnet_wire::stun::attribute::{
    NONCE, PASSWORD_ALGORITHM, PASSWORD_ALGORITHMS, REALM, USERHASH, USERNAME,
};
use altnet_wire::stun::integrity::Integrity;
use altnet_wire::stun::write::Writer;
use heapless::Vec;
use md5::Md5;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The longest username, password, realm or nonce, in bytes. A server that asks for more than
/// that to be repeated would have requests outgrow a datagram.
pub const MAX_TEXT_BYTES: usize = 256;
/// The longest list of password algorithms: two are known, and neither has parameters.
const MAX_ALGORITHMS_BYTES: usize = 64;

/// What a nonce begins with whose next four characters say what the server can do (section 9.2).
const NONCE_COOKIE: &[u8] = b"obMatJos2";
/// Those characters are 24 bits in base64. The last two bits are these (section 18.1 with erratum
/// 6290, by which bit 0 is the rightmost).
const FEATURE_ALGORITHMS: u8 = 1;
const FEATURE_ANONYMITY: u8 = 2;

/// Who may use a server.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Credentials {
    username: Secret,
    password: Secret,
}

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
struct Secret {
    bytes: [u8; MAX_TEXT_BYTES],
    length: usize,
}

/// A username or password that no server would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a TURN {what} has 1 to {MAX_TEXT_BYTES} bytes")]
pub struct BadCredentials {
    /// Which of them.
    pub what: &'static str,
}

impl Secret {
    fn new(text: &str, what: &'static str) -> Result<Self, BadCredentials> {
        let mut bytes = [0; MAX_TEXT_BYTES];
        let length = text.len();
        match bytes.get_mut(..length) {
            Some(out) if length > 0 => out.copy_from_slice(text.as_bytes()),
            _ => return Err(BadCredentials { what }),
        }
        Ok(Self { bytes, length })
    }

    fn expose(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Credentials {
    /// Takes a username and its password.
    ///
    /// # Errors
    /// [`BadCredentials`] if one is empty or too long.
    pub fn new(username: &str, password: &str) -> Result<Self, BadCredentials> {
        Ok(Self {
            username: Secret::new(username, "username")?,
            password: Secret::new(password, "password")?,
        })
    }
}

impl core::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// By what hash a password becomes a key (section 18.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    const fn number(self) -> u16 {
        match self {
            Self::Md5 => 1,
            Self::Sha256 => 2,
        }
    }

    /// The first of a list that is known.
    fn first_known(mut list: &[u8]) -> Option<Self> {
        // Algorithm u16, parameters' length u16, parameters filled up to a multiple of 4.
        while let Some((&[a0, a1, l0, l1], rest)) = list.split_first_chunk::<4>() {
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            match (u16::from_be_bytes([a0, a1]), length) {
                (1, 0) => return Some(Self::Md5),
                (2, 0) => return Some(Self::Sha256),
                _ => list = rest.get(length.next_multiple_of(4)..)?,
            }
        }
        None
    }
}

/// What the HMAC is keyed with.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Key {
    bytes: [u8; 32],
    length: usize,
}

impl Key {
    /// `username ":" realm ":" password`, hashed (sections 9.2.2 and 18.5.1).
    fn new(credentials: &Credentials, realm: &[u8], algorithm: Algorithm) -> Self {
        let parts: [&[u8]; 5] = [
            credentials.username.expose(),
            b":",
            realm,
            b":",
            credentials.password.expose(),
        ];
        let mut bytes = [0; 32];
        let length = match algorithm {
            Algorithm::Md5 => digest::<Md5>(&parts, &mut bytes),
            Algorithm::Sha256 => digest::<Sha256>(&parts, &mut bytes),
        };
        Self { bytes, length }
    }

    fn expose(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

fn digest<D: Digest>(parts: &[&[u8]], out: &mut [u8; 32]) -> usize {
    let mut hash = D::new();
    for part in parts {
        hash.update(part);
    }
    let sum = hash.finalize();
    for (out, byte) in out.iter_mut().zip(&sum) {
        *out = *byte;
    }
    sum.len()
}

/// A challenge that can't be met: something is missing or too long, it knows no hash that this
/// client knows, or somebody on the way took the better hashes out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadChallenge;

/// How requests to a server are signed since it asked for it.
pub(super) struct Login {
    realm: Vec<u8, MAX_TEXT_BYTES>,
    nonce: Vec<u8, MAX_TEXT_BYTES>,
    /// The server's list, to be repeated; empty if it gave none.
    algorithms: Vec<u8, MAX_ALGORITHMS_BYTES>,
    algorithm: Option<Algorithm>,
    /// Sent in place of the username, if the server can look it up.
    userhash: Option<[u8; 32]>,
    key: Key,
}

impl Login {
    /// Takes up a challenge: the error 401 that answers a request without a signature.
    pub(super) fn new(
        credentials: &Credentials,
        challenge: &Message<'_>,
    ) -> Result<Self, BadChallenge> {
        let realm = challenge.find(REALM).ok_or(BadChallenge)?.value;
        let (nonce, algorithms) = read(challenge)?;
        let algorithm = match algorithms.is_empty() {
            true => None,
            false => Some(Algorithm::first_known(&algorithms).ok_or(BadChallenge)?),
        };
        let mut userhash = [0; 32];
        let parts: [&[u8]; 3] = [credentials.username.expose(), b":", realm];
        digest::<Sha256>(&parts, &mut userhash);
        let is_anonymous = features(&nonce) & FEATURE_ANONYMITY != 0;
        Ok(Self {
            realm: Vec::from_slice(realm).map_err(|_| BadChallenge)?,
            nonce,
            algorithms,
            algorithm,
            userhash: is_anonymous.then_some(userhash),
            key: Key::new(credentials, realm, algorithm.unwrap_or(Algorithm::Md5)),
        })
    }

    /// Takes a new nonce from the error 438. Nothing else changes: who signs by the better hash
    /// goes on doing so.
    pub(super) fn renew(&mut self, challenge: &Message<'_>) -> Result<(), BadChallenge> {
        let (nonce, algorithms) = read(challenge)?;
        self.nonce = nonce;
        // The list goes with the nonce (section 9.2.4).
        if self.algorithm.is_some() && !algorithms.is_empty() {
            self.algorithms = algorithms;
        }
        Ok(())
    }

    /// Adds who asks and signs.
    pub(super) fn sign(
        &self,
        credentials: &Credentials,
        writer: &mut Writer<'_>,
    ) -> Result<(), NoRoom> {
        match &self.userhash {
            Some(hash) => writer.put(USERHASH, hash)?,
            None => writer.put(USERNAME, credentials.username.expose())?,
        };
        writer.put(REALM, &self.realm)?.put(NONCE, &self.nonce)?;
        if let Some(algorithm) = self.algorithm {
            let [a0, a1] = algorithm.number().to_be_bytes();
            writer.put(PASSWORD_ALGORITHMS, &self.algorithms)?;
            writer.put(PASSWORD_ALGORITHM, &[a0, a1, 0, 0])?;
        }
        writer.sign(self.integrity(), self.key.expose())?;
        Ok(())
    }

    /// Whether somebody who knows the password signed this answer.
    pub(super) fn has_signed(&self, answer: &Message<'_>) -> bool {
        answer.is_signed_with(self.integrity(), self.key.expose())
    }

    /// By section 9.2.5 a server that lists algorithms is spoken to with SHA-256 alone.
    const fn integrity(&self) -> Integrity {
        match self.algorithm {
            Some(_) => Integrity::Sha256,
            None => Integrity::Sha1,
        }
    }
}

type Challenge = (Vec<u8, MAX_TEXT_BYTES>, Vec<u8, MAX_ALGORITHMS_BYTES>);

/// The nonce and the list of algorithms in a challenge.
fn read(challenge: &Message<'_>) -> Result<Challenge, BadChallenge> {
    let nonce = challenge.find(NONCE).ok_or(BadChallenge)?.value;
    let list = challenge.find(PASSWORD_ALGORITHMS);
    let list = list.map(|list| list.value).unwrap_or_default();
    // The nonce can't be changed on the way without being noticed; a list that is taken out can.
    if features(nonce) & FEATURE_ALGORITHMS != 0 && list.is_empty() {
        return Err(BadChallenge);
    }
    let nonce = Vec::from_slice(nonce).map_err(|_| BadChallenge)?;
    let list = Vec::from_slice(list).map_err(|_| BadChallenge)?;
    Ok((nonce, list))
}

/// The lowest six bits of what a nonce says that the server can do; 0 if it says nothing.
fn features(nonce: &[u8]) -> u8 {
    let base64 = nonce
        .strip_prefix(NONCE_COOKIE)
        .and_then(|rest| rest.get(3));
    match base64 {
        Some(c @ b'A'..=b'Z') => c - b'A',
        Some(c @ b'a'..=b'z') => c - b'a' + 26,
        Some(c @ b'0'..=b'9') => c - b'0' + 52,
        Some(b'+') => 62,
        Some(b'/') => 63,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_wire::stun::{Class, Method, TransactionId};

    const USER: &str = "\u{30de}\u{30c8}\u{30ea}\u{30c3}\u{30af}\u{30b9}";

    fn challenge(write: impl Fn(&mut Writer<'_>), check: impl Fn(Result<Login, BadChallenge>)) {
        let mut out = [0; 1200];
        let id = TransactionId([0; 12]);
        let mut writer = Writer::new(&mut out, Class::Error, Method::BINDING, id).unwrap();
        write(&mut writer);
        let message = Message::parse(writer.bytes()).unwrap();
        let credentials = Credentials::new(USER, "TheMatrIX").unwrap();
        check(Login::new(&credentials, &message));
    }

    fn signed(login: &Login) -> std::vec::Vec<u8> {
        let mut out = [0; 1200];
        let id = [
            0x78, 0xad, 0x34, 0x33, 0xc6, 0xad, 0x72, 0xc0, 0x29, 0xda, 0x41, 0x2e,
        ];
        let id = TransactionId(id);
        let mut writer = Writer::new(&mut out, Class::Request, Method::BINDING, id).unwrap();
        let credentials = Credentials::new(USER, "TheMatrIX").unwrap();
        login.sign(&credentials, &mut writer).unwrap();
        writer.bytes().to_vec()
    }

    #[test]
    fn a_request_is_signed_as_in_rfc_5769() {
        challenge(
            |writer| {
                writer.put(NONCE, b"f//499k954d6OL34oL9FSTvy64sA").unwrap();
                writer.put(REALM, b"example.org").unwrap();
            },
            |login| {
                let request = signed(&login.unwrap());
                // Section 2.4 has the nonce before the realm, so its signature is another; its
                // key is this one.
                let message = Message::parse(&request).unwrap();
                let key = [
                    0xe8, 0xca, 0x7a, 0xd5, 0x9d, 0x5e, 0xb0, 0x51, 0x8e, 0x31, 0x29, 0x11, 0xd2,
                    0xda, 0xb2, 0xa9,
                ];
                assert!(message.is_signed_with(Integrity::Sha1, &key));
                assert!(message.find(PASSWORD_ALGORITHM).is_none());
            },
        );
    }

    #[test]
    fn a_server_that_knows_sha256_and_hashed_names_is_given_both() {
        challenge(
            |writer| {
                writer
                    .put(NONCE, b"obMatJos2AAADf//499k954d6OL34oL9FSTvy64sA")
                    .unwrap();
                writer.put(REALM, b"example.org").unwrap();
                // One that nobody knows, with parameters, before the two that are known.
                let list = [0, 9, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0];
                writer.put(PASSWORD_ALGORITHMS, &list).unwrap();
            },
            |login| {
                let request = signed(&login.unwrap());
                let message = Message::parse(&request).unwrap();
                // RFC 8489 appendix B.1 prints the hash of the name.
                let hash = message.find(USERHASH).unwrap().value;
                assert_eq!(hash[..4], [0x4a, 0x3c, 0xf3, 0x8f]);
                assert!(message.find(USERNAME).is_none());
                assert_eq!(
                    message.find(PASSWORD_ALGORITHM).unwrap().value,
                    [0, 2, 0, 0]
                );
                assert_eq!(message.find(PASSWORD_ALGORITHMS).unwrap().value.len(), 20);
                assert_eq!(message.signed_by(), Some(Integrity::Sha256));
            },
        );
    }

    #[test]
    fn a_list_of_hashes_that_was_taken_out_on_the_way_is_missed() {
        let nonces = [(&b"obMatJos2AAABx"[..], false), (b"obMatJos2AAACx", true)];
        for (nonce, expected) in nonces {
            challenge(
                |writer| {
                    writer.put(NONCE, nonce).unwrap();
                    writer.put(REALM, b"example.org").unwrap();
                },
                |login| assert_eq!(login.is_ok(), expected),
            );
        }
    }

    #[test]
    fn challenges_that_cannot_be_met_are_refused() {
        let long = [b'x'; MAX_TEXT_BYTES + 1];
        let cases: [(&[u8], &[u8], &[u8]); 5] = [
            (b"", b"realm", b""),
            (b"nonce", b"", b""),
            (b"nonce", &long, b""),
            (&long, b"realm", b""),
            (b"nonce", b"realm", &[0, 9, 0, 0]),
        ];
        for (nonce, realm, list) in cases {
            challenge(
                |writer| {
                    for (kind, value) in
                        [(NONCE, nonce), (REALM, realm), (PASSWORD_ALGORITHMS, list)]
                    {
                        if !value.is_empty() {
                            writer.put(kind, value).unwrap();
                        }
                    }
                },
                |login| assert!(login.is_err()),
            );
        }
    }

    #[test]
    fn names_and_passwords_have_lengths_that_servers_take() {
        let long = "x".repeat(MAX_TEXT_BYTES);
        assert!(Credentials::new(&long, &long).is_ok());
        for (username, password) in [("", "x"), ("x", ""), ("x", &*(long.clone() + "x"))] {
            assert!(Credentials::new(username, password).is_err());
        }
    }
}
