//! The handshakes: snow with our own primitives behind it.
//!
//! In: this node's secret, 32 fresh bytes for the ephemeral key, the other side's Noise
//! messages. Out: ours, then [`Keys`]. The same inputs give the same messages. Secrets held
//! by the primitives here are wiped when dropped, and a shared secret of zeros is refused
//! (RFC 7748 section 6.1), which snow leaves to us. snow's own chaining key is on the heap
//! of a handshake that lives for seconds and isn't wiped.

use alloc::boxed::Box;
use alloc::vec::Vec;

use altnet_tunnel::aead::TAG_BYTES;
use altnet_wire::control::{PROLOGUE, Pattern};
use altnet_wire::hash::Hash;
use altnet_wire::id::ControlKey;
use blake2::{Blake2s256, Digest};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, Tag};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash as NoiseHash, Random};
use snow::{Builder, Error, HandshakeState, StatelessTransportState};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::ControlSecret;

/// What makes an ephemeral key, unguessable and never used twice.
pub(super) type Ephemeral = Zeroizing<[u8; 32]>;

/// The handshake failed: a wrong key, altered bytes, or a key of low order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadHandshake;

impl From<Error> for BadHandshake {
    fn from(_: Error) -> Self {
        Self
    }
}

/// A handshake under way, on either side.
pub(super) struct Handshake {
    state: HandshakeState,
    pattern: Pattern,
}

impl Handshake {
    /// Begins a call to `remote`, or to anybody. Returns the first message too.
    pub(super) fn call(
        local: &ControlSecret,
        remote: Option<ControlKey>,
        sender: u32,
        ephemeral: Ephemeral,
    ) -> Result<(Self, Vec<u8>), BadHandshake> {
        let pattern = remote.map_or(Pattern::Xx, |_| Pattern::Ik);
        let prologue = prologue(sender);
        let mut builder = builder(pattern, ephemeral)?
            .prologue(&prologue)?
            .local_private_key(local.as_bytes())?;
        if let Some(remote) = &remote {
            builder = builder.remote_public_key(&remote.0)?;
        }
        let state = builder.build_initiator()?;
        let mut call = Self { state, pattern };
        let message = call.write(pattern.init_bytes())?;
        Ok((call, message))
    }

    /// Reads the first message of a call. With IK, [`Handshake::remote`] is known and
    /// authentic afterwards, but the message may be a replayed one.
    pub(super) fn answer(
        pattern: Pattern,
        local: &ControlSecret,
        sender: u32,
        ephemeral: Ephemeral,
        message: &[u8],
    ) -> Result<Self, BadHandshake> {
        let prologue = prologue(sender);
        let state = builder(pattern, ephemeral)?
            .prologue(&prologue)?
            .local_private_key(local.as_bytes())?
            .build_responder()?;
        let mut answer = Self { state, pattern };
        answer.read(message)?;
        Ok(answer)
    }

    /// Which pattern it follows.
    pub(super) fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// The other side's key, as far as it is known.
    pub(super) fn remote(&self) -> Option<ControlKey> {
        self.state
            .get_remote_static()
            .and_then(|key| key.try_into().ok())
            .map(ControlKey)
    }

    /// Writes the next message, of `len` bytes with its empty payload.
    pub(super) fn write(&mut self, len: usize) -> Result<Vec<u8>, BadHandshake> {
        let mut message = alloc::vec![0; len + TAG_BYTES];
        let used = self.state.write_message(&[], &mut message)?;
        message.truncate(used);
        if used == len {
            Ok(message)
        } else {
            Err(BadHandshake)
        }
    }

    /// Reads the next message. On an error a later, right one is still taken while the
    /// message to read is the second; a responder starts again from the first.
    pub(super) fn read(&mut self, message: &[u8]) -> Result<(), BadHandshake> {
        self.state.read_message(message, &mut [])?;
        Ok(())
    }

    /// Ends a handshake whose messages are all written and read.
    pub(super) fn complete(self) -> Result<Keys, BadHandshake> {
        let remote = self.remote().ok_or(BadHandshake)?;
        let hash = self.state.get_handshake_hash();
        let hash = hash.try_into().map_err(|_| BadHandshake)?;
        Ok(Keys {
            transport: self.state.into_stateless_transport_mode()?,
            remote,
            hash,
        })
    }
}

/// The keys of a session, wiped when they are dropped.
pub(super) struct Keys {
    transport: StatelessTransportState,
    /// The other side's key.
    pub(super) remote: ControlKey,
    /// The handshake's hash.
    pub(super) hash: Hash,
}

impl Keys {
    /// Seals `plain` under a counter that is used once; `out` has room for the tag too.
    pub(super) fn seal(&self, counter: u64, plain: &[u8], out: &mut [u8]) -> Option<usize> {
        self.transport.write_message(counter, plain, out).ok()
    }

    /// Opens `sealed`, ciphertext and tag, into `out`. Returns the plaintext's length.
    pub(super) fn open(&self, counter: u64, sealed: &[u8], out: &mut [u8]) -> Option<usize> {
        let plain = sealed.len().checked_sub(TAG_BYTES)?;
        if plain > out.len() {
            return None;
        }
        self.transport.read_message(counter, sealed, out).ok()
    }
}

/// The prologue holds the Init's sender, so that a captured Init under another index is
/// an altered one.
fn prologue(sender: u32) -> [u8; PROLOGUE.len() + 4] {
    let mut prologue = [0; PROLOGUE.len() + 4];
    let parts = PROLOGUE.iter().copied().chain(sender.to_le_bytes());
    for (to, from) in prologue.iter_mut().zip(parts) {
        *to = from;
    }
    prologue
}

fn builder<'b>(pattern: Pattern, ephemeral: Ephemeral) -> Result<Builder<'b>, BadHandshake> {
    let params = pattern.name().parse()?;
    Ok(Builder::with_resolver(
        params,
        Box::new(Primitives { ephemeral }),
    ))
}

/// Hands snow its primitives.
struct Primitives {
    ephemeral: Ephemeral,
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::<X25519>::default() as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn NoiseHash>> {
        matches!(choice, HashChoice::Blake2s)
            .then(|| Box::<Blake2s>::default() as Box<dyn NoiseHash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly)
            .then(|| Box::<ChaChaPoly>::default() as Box<dyn Cipher>)
    }
}

/// Gives its 32 bytes once: a handshake makes one ephemeral key.
struct Once(Option<Ephemeral>);

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

/// X25519 (RFC 7748) that refuses a result of zeros.
#[derive(Default)]
struct X25519 {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl X25519 {
    fn secret(&self) -> StaticSecret {
        StaticSecret::from(*self.secret)
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        if let Ok(secret) = <&[u8; 32]>::try_from(secret) {
            self.secret.copy_from_slice(secret);
            self.public = PublicKey::from(&self.secret()).to_bytes();
        }
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), Error> {
        let mut secret = Zeroizing::new([0; 32]);
        random.try_fill_bytes(secret.as_mut_slice())?;
        self.set(secret.as_slice());
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_slice()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let public: &[u8; 32] = public.first_chunk().ok_or(Error::Dh)?;
        let shared = self.secret().diffie_hellman(&PublicKey::from(*public));
        if !shared.was_contributory() {
            return Err(Error::Dh);
        }
        let out = out.first_chunk_mut().ok_or(Error::Dh)?;
        *out = *shared.as_bytes();
        Ok(())
    }
}

/// BLAKE2s-256 (RFC 7693).
#[derive(Default)]
struct Blake2s(Blake2s256);

impl NoiseHash for Blake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Blake2s256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = core::mem::take(&mut self.0).finalize();
        for (to, from) in out.iter_mut().zip(hash) {
            *to = from;
        }
    }
}

/// ChaCha20-Poly1305 with Noise's nonce: four zero bytes, then the counter in
/// little-endian (Noise section 12.3). The cipher wipes its key.
#[derive(Default)]
struct ChaChaPoly(Option<ChaCha20Poly1305>);

impl ChaChaPoly {
    fn nonce(counter: u64) -> Nonce {
        let mut nonce = Nonce::default();
        if let Some(tail) = nonce.last_chunk_mut() {
            *tail = counter.to_le_bytes();
        }
        nonce
    }
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = Some(ChaCha20Poly1305::new(key.into()));
    }

    fn encrypt(&self, counter: u64, associated: &[u8], plain: &[u8], out: &mut [u8]) -> usize {
        let Some((text, rest)) = out.split_at_mut_checked(plain.len()) else {
            return 0;
        };
        text.copy_from_slice(plain);
        let (Some(cipher), Some(tag_place)) = (&self.0, rest.first_chunk_mut::<TAG_BYTES>()) else {
            text.fill(0);
            return 0;
        };
        let nonce = Self::nonce(counter);
        match cipher.encrypt_in_place_detached(&nonce, associated, text) {
            Ok(tag) => {
                *tag_place = tag.into();
                plain.len() + TAG_BYTES
            }
            Err(_) => {
                text.fill(0);
                0
            }
        }
    }

    fn decrypt(
        &self,
        counter: u64,
        associated: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let (text, tag) = sealed
            .split_last_chunk::<TAG_BYTES>()
            .ok_or(Error::Decrypt)?;
        let out = out.get_mut(..text.len()).ok_or(Error::Decrypt)?;
        out.copy_from_slice(text);
        let cipher = self.0.as_ref().ok_or(Error::Decrypt)?;
        cipher
            .decrypt_in_place_detached(&Self::nonce(counter), associated, out, Tag::from_slice(tag))
            .map_err(|_| Error::Decrypt)?;
        Ok(text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> ControlSecret {
        ControlSecret::from_bytes(&[byte; 32])
    }

    fn ephemeral(byte: u8) -> Ephemeral {
        Zeroizing::new([byte; 32])
    }

    fn agree(remote: Option<ControlKey>) -> (Keys, Keys) {
        let (mut a, init) = Handshake::call(&secret(1), remote, 7, ephemeral(3)).unwrap();
        let pattern = a.pattern();
        let mut b = Handshake::answer(pattern, &secret(2), 7, ephemeral(4), &init).unwrap();
        let response = b.write(pattern.response_bytes()).unwrap();
        a.read(&response).unwrap();
        if pattern == Pattern::Xx {
            let finish = a.write(pattern.finish_bytes()).unwrap();
            b.read(&finish).unwrap();
        }
        (a.complete().unwrap(), b.complete().unwrap())
    }

    #[test]
    fn both_sides_agree_on_keys_hash_and_names() {
        for remote in [None, Some(secret(2).public())] {
            let (a, b) = agree(remote);
            assert_eq!(a.hash, b.hash);
            assert_eq!(a.remote, secret(2).public());
            assert_eq!(b.remote, secret(1).public());
            let (mut sealed, mut open) = ([0; 21], [0; 5]);
            assert_eq!(a.seal(9, b"hello", &mut sealed), Some(21));
            assert_eq!(b.open(9, &sealed, &mut open), Some(5));
            assert_eq!(&open, b"hello");
            assert_eq!(b.open(8, &sealed, &mut open), None);
            assert_eq!(a.open(9, &sealed, &mut open), None, "reflected");
        }
    }

    #[test]
    fn the_primitives_are_those_of_snow() {
        // The same handshake with snow's own resolver on one side.
        use snow::resolvers::DefaultResolver;
        struct Mixed;
        impl CryptoResolver for Mixed {
            fn resolve_rng(&self) -> Option<Box<dyn Random>> {
                Some(Box::new(Once(Some(Zeroizing::new([4; 32])))))
            }
            fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
                DefaultResolver.resolve_dh(choice)
            }
            fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn NoiseHash>> {
                DefaultResolver.resolve_hash(choice)
            }
            fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
                DefaultResolver.resolve_cipher(choice)
            }
        }
        let remote = secret(2).public();
        let (mut ours, init) = Handshake::call(&secret(1), Some(remote), 7, ephemeral(3)).unwrap();
        let mut theirs =
            Builder::with_resolver(Pattern::Ik.name().parse().unwrap(), Box::new(Mixed))
                .prologue(&prologue(7))
                .unwrap()
                .local_private_key(&[2; 32])
                .unwrap()
                .build_responder()
                .unwrap();
        theirs.read_message(&init, &mut []).unwrap();
        let mut response = [0; 64];
        let used = theirs.write_message(&[], &mut response).unwrap();
        ours.read(&response[..used]).unwrap();
        assert_eq!(theirs.get_handshake_hash(), ours.complete().unwrap().hash);
    }

    #[test]
    fn a_key_of_low_order_is_refused() {
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        let mut one = [0; 32];
        one[0] = 1;
        for weak in [[0; 32], one, minus_one] {
            let call = Handshake::call(&secret(1), Some(ControlKey(weak)), 7, ephemeral(3));
            assert!(call.is_err());
            // As an ephemeral key, in either first message.
            for pattern in [Pattern::Xx, Pattern::Ik] {
                let mut init = alloc::vec![0; pattern.init_bytes()];
                init[..32].copy_from_slice(&weak);
                let answer = Handshake::answer(pattern, &secret(2), 7, ephemeral(4), &init);
                let answered = answer.and_then(|mut b| b.write(pattern.response_bytes()));
                assert!(answered.is_err());
            }
        }
    }

    #[test]
    fn another_index_or_key_makes_another_handshake() {
        let remote = secret(2).public();
        let (_, init) = Handshake::call(&secret(1), Some(remote), 7, ephemeral(3)).unwrap();
        let answer = |by, sender| {
            Handshake::answer(Pattern::Ik, &secret(by), sender, ephemeral(4), &init).is_ok()
        };
        assert!(answer(2, 7));
        assert!(!answer(2, 8));
        assert!(!answer(5, 7));
    }

    #[test]
    fn an_initiator_survives_a_forged_response() {
        for remote in [None, Some(secret(2).public())] {
            let (mut a, init) = Handshake::call(&secret(1), remote, 7, ephemeral(3)).unwrap();
            let pattern = a.pattern();
            let mut b = Handshake::answer(pattern, &secret(2), 7, ephemeral(4), &init).unwrap();
            let response = b.write(pattern.response_bytes()).unwrap();
            for at in 0..response.len() {
                let mut forged = response.clone();
                forged[at] ^= 1;
                assert!(a.read(&forged).is_err());
            }
            assert_eq!(a.read(&response), Ok(()));
        }
    }
}
