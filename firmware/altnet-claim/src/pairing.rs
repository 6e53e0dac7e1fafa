//! Proving on both sides that the other one has the code, and the channel that comes of it.
//!
//! The computer: [`Asking::begin`], send; [`Asking::prove`] with what the box answers, send; [`Proving::finish`]. The box: [`Answering::take`] with
//! the computer's first message, **write down a try**, [`Counting::answer`], send; [`Waiting::finish`], send. Each step consumes the one before: a pairing goes on or is over. Both get a
//! [`Channel`] at the end, and who had another code, or read other bytes, gets [`PairingError`].
//!
//! SPAKE2's key never leaves this module. The confirmations and the channel's PSK are derived from it and from a hash of
//! all that was said (after RFC 9382 section 4); the computer confirms first, so that a box is told nothing about its code by asking.

use alloc::vec::Vec;

use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use zeroize::Zeroizing;

use crate::code::Code;
use crate::hello::{Hello, HelloError};
use crate::key::BoxSecret;

mod chance;
mod channel;

use chance::Chance;
use channel::Handshake;
pub use channel::{Channel, MAX_PLAIN};

/// The name of the protocol and its version, in all that is hashed.
const LABEL: &[u8] = b"altnet claim 1";
/// What the computer is called in SPAKE2.
const COMPUTER: &[u8] = b"altnet claim 1 computer";
/// What a box is called there, with its key after it.
const BOX: &[u8] = b"altnet claim 1 box";
/// The length of SPAKE2's messages: whose it is, and a point.
pub const SPAKE2_BYTES: usize = 33;
/// The length of a confirmation.
const CONFIRMATION_BYTES: usize = 32;

/// 32 bytes that nobody else knows, for one pairing.
pub type Seed = Zeroizing<[u8; 32]>;

/// Why a pairing is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PairingError {
    /// The bytes are no hello of this version.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// The other side sent what the protocol doesn't have there.
    #[error("the other side sent something that is no message of a pairing")]
    Form,
    /// The other side doesn't have the same code, or somebody in between changed what was said.
    #[error("the code is another one there")]
    WrongCode,
    /// A sealed message was altered, left out or repeated.
    #[error("what came can't be opened: somebody in between changed it")]
    Seal,
}

/// The computer has sent its first message.
pub struct Asking {
    spake2: Spake2<Ed25519Group>,
    hello: Vec<u8>,
    message: Vec<u8>,
    seed: Seed,
}

impl Asking {
    /// Begins with a box that said `hello`. Returns the message to send.
    ///
    /// # Errors
    /// [`PairingError::Hello`].
    pub fn begin(hello: &[u8], code: &Code, seed: Seed) -> Result<(Self, Vec<u8>), PairingError> {
        let key = Hello::decode(hello)?.key;
        let (spake2, message) = Spake2::start_a_with_rng(
            &Password::new(*code.plain()),
            &Identity::new(COMPUTER),
            &Identity::new(&[BOX, &key.0].concat()),
            Chance::new(&seed, b"spake2"),
        );
        let asking = Self {
            spake2,
            hello: hello.into(),
            message: message.clone(),
            seed,
        };
        Ok((asking, message))
    }

    /// Takes the box's message. Returns the confirmation to send.
    ///
    /// # Errors
    /// [`PairingError::Form`].
    pub fn prove(self, answer: &[u8]) -> Result<(Proving, Vec<u8>), PairingError> {
        let key = finished(self.spake2, answer)?;
        let secrets = Secrets::new(&key, &self.hello, &self.message, answer);
        let remote = Hello::decode(&self.hello)?.key;
        let mut handshake = Handshake::computer(&secrets, &remote, &self.seed)?;
        let mut message = mac(&secrets.computer, &secrets.transcript)
            .finalize()
            .into_bytes()
            .to_vec();
        message.extend(handshake.write()?);
        Ok((Proving { secrets, handshake }, message))
    }
}

/// The computer has shown that it has the code.
pub struct Proving {
    secrets: Secrets,
    handshake: Handshake,
}

impl Proving {
    /// Takes the box's confirmation.
    ///
    /// # Errors
    /// [`PairingError::WrongCode`] or [`PairingError::Form`].
    pub fn finish(mut self, answer: &[u8]) -> Result<Channel, PairingError> {
        let rest = confirmed(&self.secrets.appliance, &self.secrets.transcript, answer)?;
        self.handshake.read(rest)?;
        self.handshake.complete()
    }
}

/// What a box pairs with.
pub struct Answering<'a> {
    /// The code.
    pub code: &'a Code,
    /// The box's key.
    pub secret: &'a BoxSecret,
    /// What it said.
    pub hello: &'a [u8],
}

impl Answering<'_> {
    /// Takes the computer's first message. What comes of it is a try.
    ///
    /// # Errors
    /// [`PairingError::Form`] if it is no message at all; that tries nothing.
    pub fn take(&self, message: &[u8], seed: Seed) -> Result<Counting, PairingError> {
        let (spake2, answer) = Spake2::start_b_with_rng(
            &Password::new(*self.code.plain()),
            &Identity::new(COMPUTER),
            &Identity::new(&[BOX, &self.secret.public().0].concat()),
            Chance::new(&seed, b"spake2"),
        );
        let key = finished(spake2, message)?;
        let secrets = Secrets::new(&key, self.hello, message, &answer);
        let handshake = Handshake::appliance(&secrets, self.secret, &seed)?;
        Ok(Counting {
            waiting: Waiting { secrets, handshake },
            answer,
        })
    }
}

/// The box could answer, and has to write down first that a code is tried.
pub struct Counting {
    waiting: Waiting,
    answer: Vec<u8>,
}

impl Counting {
    /// The try is written down. Returns the message to send.
    pub fn answer(self) -> (Waiting, Vec<u8>) {
        (self.waiting, self.answer)
    }
}

/// The box waits for the computer to show that it has the code.
pub struct Waiting {
    secrets: Secrets,
    handshake: Handshake,
}

impl Waiting {
    /// Takes the computer's confirmation. Returns the message to send.
    ///
    /// # Errors
    /// [`PairingError::WrongCode`] or [`PairingError::Form`].
    pub fn finish(mut self, message: &[u8]) -> Result<(Channel, Vec<u8>), PairingError> {
        let secrets = &self.secrets;
        let rest = confirmed(&secrets.computer, &secrets.transcript, message)?;
        let mut answer = mac(&secrets.appliance, &secrets.transcript)
            .finalize()
            .into_bytes()
            .to_vec();
        self.handshake.read(rest)?;
        answer.extend(self.handshake.write()?);
        Ok((self.handshake.complete()?, answer))
    }
}

/// What both sides have when both had the code. Wiped when dropped.
struct Secrets {
    /// SHA-256 of all that was said so far.
    transcript: [u8; 32],
    computer: Zeroizing<[u8; 32]>,
    appliance: Zeroizing<[u8; 32]>,
    psk: Zeroizing<[u8; 32]>,
}

impl Secrets {
    fn new(key: &[u8], hello: &[u8], from_computer: &[u8], from_box: &[u8]) -> Self {
        // The messages after hello have a fixed length, and hello says its own.
        let transcript = [LABEL, hello, from_computer, from_box]
            .iter()
            .fold(Sha256::new(), |hash, part| hash.chain_update(part))
            .finalize();
        let mut keys = Zeroizing::new([0; 96]);
        Hkdf::<Sha256>::new(Some(&transcript), key)
            .expand(b"altnet claim 1 keys", keys.as_mut_slice())
            .expect("HKDF gives up to 8160 bytes, and 96 are asked for");
        let part = |at: usize| {
            let mut part = Zeroizing::new([0; 32]);
            part.copy_from_slice(&keys[32 * at..32 * (at + 1)]);
            part
        };
        Self {
            transcript: transcript.into(),
            computer: part(0),
            appliance: part(1),
            psk: part(2),
        }
    }
}

fn finished(
    spake2: Spake2<Ed25519Group>,
    message: &[u8],
) -> Result<Zeroizing<Vec<u8>>, PairingError> {
    let key = spake2.finish(message).map_err(|_| PairingError::Form)?;
    Ok(Zeroizing::new(key))
}

fn mac(key: &[u8; 32], transcript: &[u8]) -> Hmac<Sha256> {
    let mac = <Hmac<Sha256> as Mac>::new_from_slice(key);
    mac.expect("HMAC takes keys of any length")
        .chain_update(transcript)
}

/// Compares, in constant time, and returns what follows.
fn confirmed<'m>(
    key: &[u8; 32],
    transcript: &[u8],
    message: &'m [u8],
) -> Result<&'m [u8], PairingError> {
    let (found, rest) = message
        .split_at_checked(CONFIRMATION_BYTES)
        .ok_or(PairingError::Form)?;
    mac(key, transcript)
        .verify_slice(found)
        .map_err(|_| PairingError::WrongCode)?;
    Ok(rest)
}
