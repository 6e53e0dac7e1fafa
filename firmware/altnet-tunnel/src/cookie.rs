//! Macs and cookies: who may make a busy node compute.
//!
//! Every handshake message carries mac1, which only shows that its sender knows whom it
//! talks to. A node under load answers with a cookie, sealed to that mac1, and from then on
//! believes only messages whose mac2 is made with it: the sender gets mail at its address.
//!
//! In: messages and where they came from. Out: macs, verdicts, cookie replies, which are
//! always smaller than what they answer. Source: whitepaper sections 5.3, 5.4.4 and 5.4.7.

use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::TunnelKey;
use altnet_wire::time::{Duration, Instant};
use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::aead::TAG_BYTES;
use crate::handshake::hash;
use crate::message::{CookieReply, MAC_BYTES, MACS_BYTES, Mac};
use crate::random::Random;

/// The secret that cookies are made from lives this long (section 5.3).
pub const COOKIE_SECRET_LIFE: Duration = Duration::from_secs(120);

/// A cookie that was received is used a little shorter than its maker would accept it.
const COOKIE_LIFE: Duration = Duration::from_secs(115);

const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";

/// What anybody who knows a public key can compute from it.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct MacKeys {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

impl MacKeys {
    /// The keys of messages sent to the holder of `public`.
    pub fn new(public: &TunnelKey) -> Self {
        Self {
            mac1: hash(&[LABEL_MAC1, public.as_bytes()]),
            cookie: hash(&[LABEL_COOKIE, public.as_bytes()]),
        }
    }

    /// `MAC(HASH(LABEL_MAC1 || S_pub), covered)`: all of a message before its macs.
    pub fn mac1(&self, covered: &[u8]) -> Mac {
        mac(&self.mac1, &[covered])
    }

    /// Whether a handshake message's mac1 was made for this key.
    pub fn is_for_us(&self, message: &[u8]) -> bool {
        split(message).is_some_and(|(covered, mac1, _)| same(&self.mac1(covered), mac1))
    }

    /// Seals `cookie` to the message whose mac1 is given.
    fn seal_cookie(&self, receiver: u32, cookie: &Mac, mac1: &Mac, nonce: [u8; 24]) -> CookieReply {
        let mut sealed_cookie = [0; MAC_BYTES + TAG_BYTES];
        if let Some((text, tag)) = sealed_cookie.split_last_chunk_mut::<TAG_BYTES>() {
            text.copy_from_slice(cookie);
            let cipher = XChaCha20Poly1305::new((&self.cookie).into());
            // Sixteen bytes: the cipher takes them.
            *tag = cipher
                .encrypt_in_place_detached(&XNonce::from(nonce), mac1, text)
                .map_or([0; TAG_BYTES], Into::into);
        }
        CookieReply {
            receiver,
            nonce,
            sealed_cookie,
        }
    }

    /// Opens a cookie that answers the message whose mac1 is given, or nothing if it doesn't.
    fn open_cookie(&self, reply: &CookieReply, mac1: &Mac) -> Option<Zeroizing<Mac>> {
        let (text, tag) = reply.sealed_cookie.split_first_chunk::<MAC_BYTES>()?;
        let mut cookie = Zeroizing::new(*text);
        XChaCha20Poly1305::new((&self.cookie).into())
            .decrypt_in_place_detached(
                &XNonce::from(reply.nonce),
                mac1,
                cookie.as_mut_slice(),
                Tag::from_slice(tag),
            )
            .ok()?;
        Some(cookie)
    }
}

/// Makes cookies and knows them again.
#[derive(ZeroizeOnDrop)]
pub(crate) struct CookieMaker {
    secret: [u8; 32],
    #[zeroize(skip)]
    born: Option<Instant>,
}

impl CookieMaker {
    pub(crate) const fn new() -> Self {
        Self {
            secret: [0; 32],
            born: None,
        }
    }

    /// Whether the message's mac2 was made with a cookie that was sent to `from` and is
    /// still good.
    pub(crate) fn knows(&self, message: &[u8], from: &Endpoint, now: Instant) -> bool {
        let young = |born: Instant| now.saturating_since(born) < COOKIE_SECRET_LIFE;
        self.born.is_some_and(young)
            && split_at_mac2(message).is_some_and(|(covered, mac2)| {
                same(&mac(self.cookie(from).as_slice(), &[covered]), mac2)
            })
    }

    /// The answer to a message from `from` with the index `sender`.
    pub(crate) fn reply(
        &mut self,
        keys: &MacKeys,
        sender: u32,
        message: &[u8],
        from: &Endpoint,
        random: &mut Random,
        now: Instant,
    ) -> Option<CookieReply> {
        let fresh = self
            .born
            .is_some_and(|born| now.saturating_since(born) < COOKIE_SECRET_LIFE);
        if !fresh {
            self.secret = *random.secret();
            self.born = Some(now);
        }
        let (_, mac1, _) = split(message)?;
        let mut nonce = [0; 24];
        random.fill(&mut nonce);
        Some(keys.seal_cookie(sender, &self.cookie(from), mac1, nonce))
    }

    fn cookie(&self, from: &Endpoint) -> Zeroizing<Mac> {
        Zeroizing::new(mac(&self.secret, &[&source_bytes(from)]))
    }
}

/// A peer's cookie for us, and what it takes to get one.
#[derive(Default, ZeroizeOnDrop)]
pub(crate) struct CookieJar {
    cookie: Option<Zeroizing<Mac>>,
    #[zeroize(skip)]
    received: Instant,
    #[zeroize(skip)]
    last_mac1: Option<Mac>,
}

impl CookieJar {
    /// Writes both macs at the end of a handshake message to the peer whose keys are given.
    pub(crate) fn stamp(&mut self, keys: &MacKeys, message: &mut [u8], now: Instant) {
        if now.saturating_since(self.received) >= COOKIE_LIFE {
            self.cookie = None;
        }
        let Some(covered) = message.len().checked_sub(MACS_BYTES) else {
            return;
        };
        let (covered, macs) = message.split_at_mut(covered);
        let mac1 = keys.mac1(covered);
        self.last_mac1 = Some(mac1);
        let mac2 = match &self.cookie {
            Some(cookie) => mac(cookie.as_slice(), &[covered, &mac1]),
            None => [0; MAC_BYTES],
        };
        for (to, from) in macs.iter_mut().zip(mac1.iter().chain(&mac2)) {
            *to = *from;
        }
    }

    /// Takes a cookie in, if it answers the last message. One answer is taken to each.
    pub(crate) fn take(&mut self, keys: &MacKeys, reply: &CookieReply, now: Instant) -> bool {
        let opened = self
            .last_mac1
            .as_ref()
            .and_then(|mac1| keys.open_cookie(reply, mac1));
        let Some(cookie) = opened else { return false };
        self.last_mac1 = None;
        self.cookie = Some(cookie);
        self.received = now;
        true
    }
}

/// What a cookie is bound to, and what sources are counted by: the address and the port, or
/// the relay and the node behind it.
pub(crate) fn source_bytes(from: &Endpoint) -> [u8; 33] {
    let mut bytes = [0; 33];
    let (kind, tail) = bytes.split_at_mut(1);
    let mut put = |k: u8, parts: [&[u8]; 2]| {
        kind.fill(k);
        for (to, from) in tail.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
    };
    match from {
        Endpoint::Direct(address) => {
            let port = address.port().to_be_bytes();
            match address.ip() {
                core::net::IpAddr::V4(ip) => put(4, [&ip.octets(), &port]),
                core::net::IpAddr::V6(ip) => put(6, [&ip.octets(), &port]),
            }
        }
        Endpoint::Relayed { relay, node } => put(1, [&relay.0, &node.0]),
    }
    bytes
}

/// Keyed BLAKE2s with 16 bytes of output: `MAC` of section 5.4, whose keys have 16 or 32 bytes.
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> Mac {
    let Ok(mut mac) = <Blake2sMac<U16> as KeyInit>::new_from_slice(key) else {
        // Keys here are cookies and hashes, both within the 32 bytes that BLAKE2s takes.
        return [0; MAC_BYTES];
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize_fixed().into()
}

fn same(a: &Mac, b: &Mac) -> bool {
    a.ct_eq(b).into()
}

/// A handshake message as what mac1 covers, mac1, mac2.
fn split(message: &[u8]) -> Option<(&[u8], &Mac, &Mac)> {
    let (rest, mac2) = message.split_last_chunk()?;
    let (covered, mac1) = rest.split_last_chunk()?;
    Some((covered, mac1, mac2))
}

/// A handshake message as what mac2 covers (mac1 too) and mac2.
fn split_at_mac2(message: &[u8]) -> Option<(&[u8], &Mac)> {
    message.split_last_chunk()
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_wire::id::NodeId;

    fn hex(bytes: &[u8]) -> std::string::String {
        bytes.iter().map(|b| std::format!("{b:02x}")).collect()
    }

    fn keys() -> MacKeys {
        MacKeys::new(&TunnelKey(core::array::from_fn(|i| i as u8)))
    }

    fn message() -> [u8; 148] {
        core::array::from_fn(|i| if i < 116 { i as u8 } else { 0 })
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO.after(Duration::from_secs(seconds))
    }

    fn source(last: u8) -> Endpoint {
        Endpoint::Direct(([192, 0, 2, last], 9).into())
    }

    /// Computed with Python's `hashlib.blake2s`.
    #[test]
    fn the_macs_are_the_papers() {
        let mut bytes = message();
        let mut jar = CookieJar {
            cookie: Some(Zeroizing::new([0xc0; 16])),
            ..CookieJar::default()
        };
        jar.stamp(&keys(), &mut bytes, Instant::ZERO);
        assert_eq!(hex(&bytes[116..132]), "3a7d1b865f062f4af4677f1d88d7ea74");
        assert_eq!(hex(&bytes[132..]), "57467545bfdfe55f7e4afb00cc33c4bf");
        assert!(keys().is_for_us(&bytes));
        bytes[5] ^= 1;
        assert!(!keys().is_for_us(&bytes));
        assert_eq!(
            hex(&keys().cookie),
            "3dd5869c5202e45146936d1644f76ff697061661c181f3fd450eae43932eacec"
        );
        assert!(!keys().is_for_us(&[0; 31]));
    }

    #[test]
    fn a_cookie_is_believed_from_its_address_until_it_is_old() {
        let (from, other) = (source(1), source(2));
        let mut maker = CookieMaker::new();
        let mut random = Random::new([0; 32]);
        let mut jar = CookieJar::default();
        let mut bytes = message();
        jar.stamp(&keys(), &mut bytes, at(0));
        assert!(!maker.knows(&bytes, &from, at(0)), "no cookie was made yet");
        let reply = maker.reply(&keys(), 7, &bytes, &from, &mut random, at(0));
        let reply = reply.unwrap();
        assert!(reply.encode().len() < crate::message::RESPONSE_BYTES);
        assert_eq!(reply.receiver, 7);
        assert!(jar.take(&keys(), &reply, at(0)));
        assert!(!jar.take(&keys(), &reply, at(0)), "one answer to each");

        jar.stamp(&keys(), &mut bytes, at(1));
        assert!(maker.knows(&bytes, &from, at(1)));
        assert!(!maker.knows(&bytes, &other, at(1)));
        assert!(!maker.knows(&bytes, &from, at(120)));
        jar.stamp(&keys(), &mut bytes, at(116));
        assert_eq!(bytes[132..], [0; 16], "an old cookie is not used");
    }

    #[test]
    fn a_cookie_for_another_message_is_not_taken() {
        let mut maker = CookieMaker::new();
        let mut random = Random::new([0; 32]);
        let mut jar = CookieJar::default();
        let mut bytes = message();
        jar.stamp(&keys(), &mut bytes, at(0));
        let mut reply = maker
            .reply(&keys(), 7, &bytes, &source(1), &mut random, at(0))
            .unwrap();
        bytes[9] ^= 1;
        jar.stamp(&keys(), &mut bytes, at(0));
        assert!(!jar.take(&keys(), &reply, at(0)));
        reply.sealed_cookie[0] ^= 1;
        assert!(!jar.take(&keys(), &reply, at(0)));
    }

    #[test]
    fn no_two_sources_read_the_same() {
        let (a, b) = (NodeId([1; 16]), NodeId([2; 16]));
        let sources = [
            source(1),
            source(2),
            Endpoint::Direct(([192, 0, 2, 1], 10).into()),
            Endpoint::Direct((core::net::Ipv6Addr::LOCALHOST, 9).into()),
            Endpoint::Relayed { relay: a, node: b },
            Endpoint::Relayed { relay: b, node: a },
        ];
        let bytes: std::collections::BTreeSet<_> = sources.iter().map(source_bytes).collect();
        assert_eq!(bytes.len(), sources.len());
    }
}
