//! The handshake: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s with WireGuard's prologue.
//!
//! Written out rather than given to a Noise library, because a chaining key and a
//! pre-shared key that live in somebody else's struct can't be wiped from here, and because
//! a handshake needs no heap. It is checked message by message against an independent Noise
//! and against another WireGuard.
//!
//! In: keys, stamps, messages. Out: messages, and the two keys of a session. Every Diffie
//! and Hellman result that is all zeros is refused; every secret is wiped on drop. Macs,
//! cookies, indexes and time are somebody else's.
//!
//! Source: whitepaper sections 5.4.1 to 5.4.5; Noise Protocol Framework revision 34.

use altnet_wire::id::TunnelKey;
use blake2::{Blake2s256, Digest};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::aead::{Aead, ChaChaPoly, TAG_BYTES};
use crate::key::{PresharedKey, SharedSecret, TunnelSecret, WeakKey};
use crate::message::{Initiation, Response};
use crate::random::Random;
use crate::tai64n::Tai64n;

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
const HASH_BYTES: usize = 32;
const BLOCK_BYTES: usize = 64;

type Hash = [u8; HASH_BYTES];
type SecretHash = Zeroizing<Hash>;

/// Why a handshake message was not believed. Nothing was learnt from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// A field's seal does not verify: another key, another pre-shared key, or damage.
    #[error("a handshake field does not verify")]
    BadSeal,
    /// A Diffie-Hellman result is all zeros.
    #[error("a handshake key has low order")]
    WeakKey,
}

impl From<WeakKey> for HandshakeError {
    fn from(_: WeakKey) -> Self {
        Self::WeakKey
    }
}

/// What a handshake is for.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct TransportKeys {
    /// Seals what this side sends.
    pub(crate) send: [u8; 32],
    /// Opens what the other side sends.
    pub(crate) receive: [u8; 32],
}

/// Chaining key and transcript hash.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Symmetric {
    chain: Hash,
    hash: Hash,
}

impl Symmetric {
    /// The state before the first message to `responder`.
    fn new(responder: &TunnelKey) -> Self {
        let chain = hash(&[CONSTRUCTION]);
        let mut state = Self {
            chain,
            hash: hash(&[&chain, IDENTIFIER]),
        };
        state.mix_hash(responder.as_bytes());
        state
    }

    fn fork(&self) -> Self {
        Self {
            chain: self.chain,
            hash: self.hash,
        }
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    /// `C := KDF1(C, input)`.
    fn mix_chain(&mut self, input: &[u8]) {
        let [chain] = kdf(&self.chain, input);
        self.chain = *chain;
    }

    /// `(C, k) := KDF2(C, input)`.
    fn mix_key(&mut self, input: &[u8]) -> ChaChaPoly {
        let [chain, key] = kdf(&self.chain, input);
        self.chain = *chain;
        ChaChaPoly::new(&key)
    }

    /// `(C, t, k) := KDF3(C, Q)`, `H := HASH(H || t)`.
    fn mix_preshared(&mut self, preshared: &PresharedKey) -> ChaChaPoly {
        let [chain, transcript, key] = kdf(&self.chain, preshared.expose());
        self.chain = *chain;
        self.mix_hash(transcript.as_slice());
        ChaChaPoly::new(&key)
    }

    /// Seals `LEN - 16` bytes under the transcript and mixes the result in.
    fn seal<const LEN: usize>(&mut self, key: &ChaChaPoly, text: &[u8]) -> [u8; LEN] {
        let mut sealed = [0; LEN];
        if let Some((body, tag)) = sealed.split_last_chunk_mut::<TAG_BYTES>() {
            for (to, from) in body.iter_mut().zip(text) {
                *to = *from;
            }
            // At most 32 bytes: the cipher takes them.
            *tag = key.seal_with(0, &self.hash, body).unwrap_or_default();
        }
        self.mix_hash(&sealed);
        sealed
    }

    /// Opens what [`Symmetric::seal`] sealed; the tag stays behind the text.
    fn open<const LEN: usize>(
        &mut self,
        key: &ChaChaPoly,
        sealed: &[u8; LEN],
    ) -> Result<[u8; LEN], HandshakeError> {
        let mut text = *sealed;
        key.open_with(0, &self.hash, &mut text)
            .map_err(|_| HandshakeError::BadSeal)?;
        self.mix_hash(sealed);
        Ok(text)
    }

    /// The two keys: the initiator sends with the first (section 5.4.5).
    fn split(&self) -> [SecretHash; 2] {
        kdf(&self.chain, &[])
    }
}

/// An initiation that waits for its response.
#[derive(ZeroizeOnDrop)]
pub(crate) struct Initiator {
    state: Symmetric,
    ephemeral: TunnelSecret,
}

impl Initiator {
    /// Writes the first message (section 5.4.2). `static_shared` is what `local` and `peer`
    /// agree on, which its owner computes once.
    ///
    /// # Errors
    /// [`WeakKey`] if `peer` has low order.
    pub(crate) fn start(
        local: &TunnelKey,
        peer: &TunnelKey,
        static_shared: &SharedSecret,
        sender: u32,
        stamp: Tai64n,
        random: &mut Random,
    ) -> Result<(Self, Initiation), WeakKey> {
        Self::start_with(
            local,
            peer,
            static_shared,
            sender,
            stamp,
            TunnelSecret::new(*random.secret()),
        )
    }

    fn start_with(
        local: &TunnelKey,
        peer: &TunnelKey,
        static_shared: &SharedSecret,
        sender: u32,
        stamp: Tai64n,
        ephemeral: TunnelSecret,
    ) -> Result<(Self, Initiation), WeakKey> {
        let mut state = Symmetric::new(peer);
        let public = ephemeral.public();
        state.mix_chain(public.as_bytes());
        state.mix_hash(public.as_bytes());
        let key = state.mix_key(ephemeral.agree(peer)?.as_slice());
        let sealed_static = state.seal(&key, local.as_bytes());
        let key = state.mix_key(static_shared.as_slice());
        let sealed_stamp = state.seal(&key, &stamp.to_bytes());
        let message = Initiation {
            sender,
            ephemeral: public.0,
            sealed_static,
            sealed_stamp,
        };
        Ok((Self { state, ephemeral }, message))
    }

    /// Reads the second message (section 5.4.3). A message that isn't believed changes
    /// nothing: the true one may still come.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub(crate) fn finish(
        &self,
        secret: &TunnelSecret,
        preshared: &PresharedKey,
        message: &Response,
    ) -> Result<TransportKeys, HandshakeError> {
        let mut state = self.state.fork();
        let theirs = TunnelKey(message.ephemeral);
        state.mix_chain(&message.ephemeral);
        state.mix_hash(&message.ephemeral);
        state.mix_chain(self.ephemeral.agree(&theirs)?.as_slice());
        state.mix_chain(secret.agree(&theirs)?.as_slice());
        let key = state.mix_preshared(preshared);
        state.open(&key, &message.sealed_nothing)?;
        let [send, receive] = state.split();
        Ok(TransportKeys {
            send: *send,
            receive: *receive,
        })
    }
}

/// An initiation that was opened as far as its sender's name.
pub(crate) struct Named {
    state: Symmetric,
    /// Who says to be the sender; not proved before [`Named::prove`].
    pub(crate) public: TunnelKey,
    ephemeral: TunnelKey,
}

/// An initiation whose sender proved its name.
pub(crate) struct Proved {
    state: Symmetric,
    public: TunnelKey,
    ephemeral: TunnelKey,
    /// The initiation's stamp, to compare with the last one.
    pub(crate) stamp: Tai64n,
}

impl Named {
    /// Reads the first message as far as the sender's static key (section 5.4.2).
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub(crate) fn read(
        secret: &TunnelSecret,
        local: &TunnelKey,
        message: &Initiation,
    ) -> Result<Self, HandshakeError> {
        let mut state = Symmetric::new(local);
        let ephemeral = TunnelKey(message.ephemeral);
        state.mix_chain(&message.ephemeral);
        state.mix_hash(&message.ephemeral);
        let key = state.mix_key(secret.agree(&ephemeral)?.as_slice());
        let text = state.open(&key, &message.sealed_static)?;
        let public = TunnelKey(*text.first_chunk().ok_or(HandshakeError::BadSeal)?);
        Ok(Self {
            state,
            public,
            ephemeral,
        })
    }

    /// Reads the rest, whose seal only the holder of the named key could make.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub(crate) fn prove(
        mut self,
        static_shared: &SharedSecret,
        message: &Initiation,
    ) -> Result<Proved, HandshakeError> {
        let key = self.state.mix_key(static_shared.as_slice());
        let text = self.state.open(&key, &message.sealed_stamp)?;
        let stamp = Tai64n::from_bytes(text.first_chunk().ok_or(HandshakeError::BadSeal)?);
        Ok(Proved {
            state: self.state,
            public: self.public,
            ephemeral: self.ephemeral,
            stamp,
        })
    }
}

impl Proved {
    /// Writes the second message (section 5.4.3).
    ///
    /// # Errors
    /// [`WeakKey`] if one of the initiator's keys has low order.
    pub(crate) fn respond(
        self,
        preshared: &PresharedKey,
        sender: u32,
        receiver: u32,
        random: &mut Random,
    ) -> Result<(TransportKeys, Response), WeakKey> {
        self.respond_with(
            preshared,
            sender,
            receiver,
            TunnelSecret::new(*random.secret()),
        )
    }

    fn respond_with(
        self,
        preshared: &PresharedKey,
        sender: u32,
        receiver: u32,
        ephemeral: TunnelSecret,
    ) -> Result<(TransportKeys, Response), WeakKey> {
        let Self {
            mut state,
            public,
            ephemeral: theirs,
            ..
        } = self;
        let ours = ephemeral.public();
        state.mix_chain(ours.as_bytes());
        state.mix_hash(ours.as_bytes());
        state.mix_chain(ephemeral.agree(&theirs)?.as_slice());
        state.mix_chain(ephemeral.agree(&public)?.as_slice());
        let key = state.mix_preshared(preshared);
        let sealed_nothing = state.seal(&key, &[]);
        let [receive, send] = state.split();
        let message = Response {
            sender,
            receiver,
            ephemeral: ours.0,
            sealed_nothing,
        };
        let keys = TransportKeys {
            send: *send,
            receive: *receive,
        };
        Ok((keys, message))
    }
}

pub(crate) fn hash(parts: &[&[u8]]) -> Hash {
    let mut hasher = Blake2s256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// HMAC-BLAKE2s (RFC 2104) with a key of 32 bytes, less than a block.
fn hmac(key: &Hash, parts: &[&[u8]]) -> SecretHash {
    let mut pad = Zeroizing::new([0x36; BLOCK_BYTES]);
    for (to, from) in pad.iter_mut().zip(key) {
        *to ^= from;
    }
    let mut inner = Blake2s256::new();
    inner.update(pad.as_slice());
    for part in parts {
        inner.update(part);
    }
    for byte in pad.iter_mut() {
        *byte ^= 0x36 ^ 0x5c;
    }
    let inner = Zeroizing::new(Hash::from(inner.finalize()));
    Zeroizing::new(hash(&[pad.as_slice(), inner.as_slice()]))
}

/// `KDFn`: HKDF (RFC 5869) with HMAC-BLAKE2s, up to three outputs (section 5.4).
fn kdf<const N: usize>(chain: &Hash, input: &[u8]) -> [SecretHash; N] {
    let secret = hmac(chain, &[input]);
    let mut previous: Option<SecretHash> = None;
    core::array::from_fn(|i| {
        let last = previous.as_ref().map_or(&[][..], |last| last.as_slice());
        let output = hmac(&secret, &[last, &[i as u8 + 1]]);
        previous = Some(output.clone());
        output
    })
}
