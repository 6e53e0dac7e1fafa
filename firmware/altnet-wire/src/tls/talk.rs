//! What altnetd and `altnet-tls`, the process in which its apps' TLS ends, tell each other.
//!
//! One message a packet of a UNIX socket that keeps packets apart (`SOCK_SEQPACKET`), in
//! postcard. Both are of one build and of one machine: another version is no conversation, so
//! [`ToTls::Begin`] comes first.

use serde::{Deserialize, Serialize};

use crate::canonical::{self, NotCanonical};
use crate::id::{NetworkId, SigningKey};

/// The version of the conversation.
pub const VERSION: u8 = 1;
/// The largest message in bytes.
pub const MAX_TALK_BYTES: usize = 2048;
/// Descriptors that go with [`ToTls::Connection`]: the side of the caller, the side of the app.
pub const CONNECTION_DESCRIPTORS: usize = 2;

/// What altnetd says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToTls<'a> {
    /// The first message.
    Begin {
        /// [`VERSION`].
        version: u8,
    },
    /// Make a key and sign for it ([`super::key_proof`]). Answered by [`FromTls::Made`].
    Make {
        /// The network.
        network: NetworkId,
        /// The device.
        device: SigningKey,
        /// What the key is for.
        subject: SigningKey,
    },
    /// Serve `name` with these from now on. Answered only if that can't be done.
    Serve {
        /// What it is called.
        name: &'a str,
        /// Its secret key, PKCS #8 in DER.
        #[serde(borrow)]
        key: &'a [u8],
        /// Its certificate in DER.
        #[serde(borrow)]
        certificate: &'a [u8],
    },
    /// Serve `name` no more. Connections go on.
    Forget {
        /// What it was called.
        name: &'a str,
    },
    /// End TLS for one connection; two stream sockets come with it.
    Connection {
        /// Whom the caller called.
        name: &'a str,
    },
}

/// What `altnet-tls` says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromTls<'a> {
    /// A key, in the order in which they were wished for.
    Made {
        /// The secret half, PKCS #8 in DER.
        #[serde(borrow)]
        secret: &'a [u8],
        /// The public half: x and y.
        key: [[u8; 32]; 2],
        /// Its word: r and s.
        proof: [[u8; 32]; 2],
    },
    /// `name` can't be served with what was given.
    Unfit {
        /// What it is called.
        name: &'a str,
        /// Why, for people.
        why: &'a str,
    },
}

/// Writes a message into `out`; none if it has no room.
pub fn encode<'o>(message: &impl Serialize, out: &'o mut [u8]) -> Option<&'o [u8]> {
    postcard::to_slice(message, out).ok().map(|bytes| &*bytes)
}

/// Reads a message that takes up all of `bytes`.
///
/// # Errors
/// [`NotCanonical`].
pub fn decode<'a, T: Serialize + Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, NotCanonical> {
    canonical::decode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NAME_BYTES;
    use crate::tls::MAX_CERTIFICATE_BYTES;
    use proptest::prelude::*;

    #[test]
    fn the_largest_message_fits_and_reads_back() {
        let message = ToTls::Serve {
            name: &"x".repeat(NAME_BYTES),
            key: &[1; 256],
            certificate: &[2; MAX_CERTIFICATE_BYTES],
        };
        let mut out = [0; MAX_TALK_BYTES];
        let bytes = encode(&message, &mut out).unwrap();
        assert!(decode::<ToTls<'_>>(bytes) == Ok(message));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode::<ToTls<'_>>(&bytes);
            let _ = decode::<FromTls<'_>>(&bytes);
        }
    }
}
