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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use snow::params::{CipherChoice, DHChoice, HashChoice};
    use snow::resolvers::{CryptoResolver, DefaultResolver};
    use std::boxed::Box;

    const PSK: [u8; 32] = [0x77; 32];

    /// Compiles only if it is so.
    #[test]
    fn the_state_of_a_handshake_is_wiped() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<Symmetric>();
        wiped::<SharedSecret>();
        wiped::<SecretHash>();
    }

    fn secret(byte: u8) -> TunnelSecret {
        TunnelSecret::new([byte; 32])
    }

    fn preshared() -> PresharedKey {
        PresharedKey::new(PSK)
    }

    /// The other Noise, which writes with an ephemeral key that the test chose.
    struct Resolver;
    struct NoRandom;

    impl snow::types::Random for NoRandom {
        fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), snow::Error> {
            Err(snow::Error::Rng)
        }
    }

    impl CryptoResolver for Resolver {
        fn resolve_rng(&self) -> Option<Box<dyn snow::types::Random>> {
            Some(Box::new(NoRandom))
        }
        fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn snow::types::Dh>> {
            DefaultResolver.resolve_dh(choice)
        }
        fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn snow::types::Hash>> {
            DefaultResolver.resolve_hash(choice)
        }
        fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn snow::types::Cipher>> {
            DefaultResolver.resolve_cipher(choice)
        }
    }

    fn snow<'a>(own: &'a TunnelSecret, ephemeral: &'a TunnelSecret) -> snow::Builder<'a> {
        let params = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s".parse().unwrap();
        snow::Builder::with_resolver(params, Box::new(Resolver))
            .prologue(IDENTIFIER)
            .unwrap()
            .local_private_key(own.expose())
            .unwrap()
            .fixed_ephemeral_key_for_testing_only(ephemeral.expose())
            .psk(2, &PSK)
            .unwrap()
    }

    #[test]
    fn our_messages_are_another_noises_messages_byte_for_byte() {
        let (ours, theirs) = (secret(1), secret(2));
        let (e1, e2) = (secret(3), secret(4));
        let stamp = Tai64n::from_unix(1_800_000_000, 7);
        let mut initiator = snow(&ours, &e1)
            .remote_public_key(theirs.public().as_bytes())
            .unwrap()
            .build_initiator()
            .unwrap();
        let mut responder = snow(&theirs, &e2).build_responder().unwrap();

        let shared = ours.agree(&theirs.public()).unwrap();
        let (mine, first) = Initiator::start_with(
            &ours.public(),
            &theirs.public(),
            &shared,
            0x0102_0304,
            stamp,
            secret(3),
        )
        .unwrap();
        let mut noise = [0; 108];
        initiator
            .write_message(&stamp.to_bytes(), &mut noise)
            .unwrap();
        assert_eq!(first.encode()[8..116], noise);

        let named = Named::read(&theirs, &theirs.public(), &first).unwrap();
        assert_eq!(named.public, ours.public());
        let proved = named.prove(&shared, &first).unwrap();
        assert_eq!(proved.stamp, stamp);
        let (their_keys, second) = proved
            .respond_with(&preshared(), 9, 0x0102_0304, secret(4))
            .unwrap();
        responder.read_message(&noise, &mut [0; 12]).unwrap();
        let mut noise = [0; 48];
        responder.write_message(&[], &mut noise).unwrap();
        assert_eq!(second.encode()[12..60], noise);

        let our_keys = mine.finish(&ours, &preshared(), &second).unwrap();
        initiator.read_message(&noise, &mut []).unwrap();
        assert_eq!(our_keys.send, their_keys.receive);
        assert_eq!(our_keys.receive, their_keys.send);
        // And the keys are the ones that the other Noise split into.
        let transport = initiator.into_stateless_transport_mode().unwrap();
        let mut sealed = [0; 16];
        transport.write_message(5, &[], &mut sealed).unwrap();
        let tag = ChaChaPoly::new(&our_keys.send).seal(5, &mut []);
        assert_eq!(tag, Ok(sealed));
    }

    fn handshake() -> (Initiator, Initiation, SharedSecret) {
        let shared = secret(1).agree(&secret(2).public()).unwrap();
        let (initiator, first) = Initiator::start(
            &secret(1).public(),
            &secret(2).public(),
            &shared,
            1,
            Tai64n::ZERO,
            &mut Random::new([0; 32]),
        )
        .unwrap();
        (initiator, first, shared)
    }

    fn respond(first: &Initiation, shared: &SharedSecret, preshared: &PresharedKey) -> Response {
        let two = secret(2);
        Named::read(&two, &two.public(), first)
            .and_then(|named| named.prove(shared, first))
            .map(|proved| proved.respond(preshared, 2, 1, &mut Random::new([1; 32])))
            .unwrap()
            .unwrap()
            .1
    }

    #[test]
    fn any_bit_of_a_field_that_is_bent_is_noticed() {
        let (initiator, first, shared) = handshake();
        let two = secret(2);
        let read = |message: &Initiation| {
            Named::read(&two, &two.public(), message)
                .and_then(|named| named.prove(&shared, message))
        };
        assert!(read(&first).is_ok());
        let mut bent = first.clone();
        bent.ephemeral[0] ^= 1;
        assert_eq!(read(&bent).err(), Some(HandshakeError::BadSeal));
        let mut bent = first.clone();
        bent.sealed_static[0] ^= 1;
        assert_eq!(read(&bent).err(), Some(HandshakeError::BadSeal));
        let mut bent = first.clone();
        bent.sealed_stamp[27] ^= 1;
        assert_eq!(read(&bent).err(), Some(HandshakeError::BadSeal));

        let second = respond(&first, &shared, &preshared());
        let mut bent = second.clone();
        bent.sealed_nothing[0] ^= 1;
        let finish = |message| initiator.finish(&secret(1), &preshared(), message).err();
        assert_eq!(finish(&bent), Some(HandshakeError::BadSeal));
        assert_eq!(
            finish(&second),
            None,
            "a bad answer does not spoil the true one"
        );
    }

    #[test]
    fn another_preshared_key_is_noticed() {
        let (initiator, first, shared) = handshake();
        let second = respond(&first, &shared, &preshared());
        let finished = initiator.finish(&secret(1), &PresharedKey::NONE, &second);
        assert_eq!(finished.err(), Some(HandshakeError::BadSeal));
    }

    #[test]
    fn an_ephemeral_key_of_low_order_is_refused_in_both_roles() {
        let (initiator, first, shared) = handshake();
        let mut weak = first.clone();
        weak.ephemeral = [0; 32];
        let read = Named::read(&secret(2), &secret(2).public(), &weak);
        assert_eq!(read.err(), Some(HandshakeError::WeakKey));
        let mut weak = respond(&first, &shared, &preshared());
        weak.ephemeral = [0; 32];
        let finished = initiator.finish(&secret(1), &preshared(), &weak);
        assert_eq!(finished.err(), Some(HandshakeError::WeakKey));
    }
}
