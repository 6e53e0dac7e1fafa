//! `Noise_NKpsk0_25519_ChaChaPoly_BLAKE2s` by snow: the box's key is known from its hello, the PSK comes of the code.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState, TransportState};
use zeroize::Zeroizing;

use super::chance::Chance;
use super::{LABEL, PairingError, Secrets};
use crate::frame;
use crate::key::{BoxKey, BoxSecret};

const NAME: &str = "Noise_NKpsk0_25519_ChaChaPoly_BLAKE2s";
const TAG_BYTES: usize = 16;
/// Each of the two messages is an ephemeral key and a tag.
const MESSAGE_BYTES: usize = 32 + TAG_BYTES;

/// The most that one sealed message carries.
pub const MAX_PLAIN: usize = frame::MAX_BYTES - TAG_BYTES;

impl From<Error> for PairingError {
    /// What fails while two sides shake hands is that they don't have the same.
    fn from(_: Error) -> Self {
        Self::WrongCode
    }
}

/// A handshake under way.
pub(super) struct Handshake(HandshakeState);

impl Handshake {
    pub(super) fn computer(
        secrets: &Secrets,
        remote: &BoxKey,
        seed: &[u8; 32],
    ) -> Result<Self, PairingError> {
        let prologue = [LABEL, &secrets.transcript].concat();
        let builder = builder(seed)?
            .prologue(&prologue)?
            .psk(0, &secrets.psk)?
            .remote_public_key(&remote.0)?;
        Ok(Self(builder.build_initiator()?))
    }

    pub(super) fn appliance(
        secrets: &Secrets,
        secret: &BoxSecret,
        seed: &[u8; 32],
    ) -> Result<Self, PairingError> {
        let prologue = [LABEL, &secrets.transcript].concat();
        let builder = builder(seed)?
            .prologue(&prologue)?
            .psk(0, &secrets.psk)?
            .local_private_key(secret.as_bytes())?;
        Ok(Self(builder.build_responder()?))
    }

    pub(super) fn write(&mut self) -> Result<Vec<u8>, PairingError> {
        let mut message = vec![0; MESSAGE_BYTES];
        let used = self.0.write_message(&[], &mut message)?;
        message.truncate(used);
        Ok(message)
    }

    pub(super) fn read(&mut self, message: &[u8]) -> Result<(), PairingError> {
        if message.len() != MESSAGE_BYTES {
            return Err(PairingError::Form);
        }
        self.0.read_message(message, &mut [])?;
        Ok(())
    }

    pub(super) fn complete(self) -> Result<Channel, PairingError> {
        Ok(Channel(self.0.into_transport_mode()?))
    }
}

/// Messages that nobody else reads, alters, leaves out or repeats.
pub struct Channel(TransportState);

impl Channel {
    /// Seals a message of [`MAX_PLAIN`] bytes at most.
    ///
    /// # Errors
    /// [`PairingError::Form`] if it is longer.
    pub fn seal(&mut self, plain: &[u8]) -> Result<Vec<u8>, PairingError> {
        if plain.len() > MAX_PLAIN {
            return Err(PairingError::Form);
        }
        let mut sealed = vec![0; plain.len() + TAG_BYTES];
        let used = self.0.write_message(plain, &mut sealed);
        let used = used.map_err(|_| PairingError::Seal)?;
        sealed.truncate(used);
        Ok(sealed)
    }

    /// Opens the next message.
    ///
    /// # Errors
    /// [`PairingError::Seal`]; nothing that comes after it is opened either.
    pub fn open(&mut self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, PairingError> {
        let mut plain = Zeroizing::new(vec![0; sealed.len()]);
        let used = self.0.read_message(sealed, &mut plain);
        let used = used.map_err(|_| PairingError::Seal)?;
        plain.truncate(used);
        Ok(plain)
    }
}

fn builder<'b>(seed: &[u8; 32]) -> Result<Builder<'b>, PairingError> {
    let ephemeral = Once(Some(Chance::new(seed, b"noise").key()));
    let primitives = Box::new(Primitives(ephemeral));
    Ok(Builder::with_resolver(NAME.parse()?, primitives))
}

/// snow's own primitives, with chance that comes from outside. That a Diffie-Hellman result may be zero costs nothing here: the PSK is in
/// every key.
struct Primitives(Once);

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(self.0.clone()))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// Gives its 32 bytes once: a handshake makes one ephemeral key.
#[derive(Clone)]
struct Once(Option<Zeroizing<[u8; 32]>>);

impl Random for Once {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Error> {
        let bytes = self.0.take().ok_or(Error::Rng)?;
        if out.len() != bytes.len() {
            return Err(Error::Rng);
        }
        out.copy_from_slice(bytes.as_slice());
        Ok(())
    }
}
