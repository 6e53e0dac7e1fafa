//! Who a client is, before a server keeps anything of it.
//!
//! In: a relay's identity, a client's first frame. Out: the client's key and what it says of itself,
//! proven, and the frame that admits it. Nothing here is shared between connections, so what an
//! exchange of keys costs holds nobody else up.
//!
//! Deliberately absent: whether the client may come (the caller asks its records), and until when it
//! has to have said who it is.

use altnet_wire::derp::info::{self, ClientInfo, MeshKey, ServerInfo};
use altnet_wire::derp::split::RawFrame;
use altnet_wire::derp::{
    Frame, FrameKind, HEADER_BYTES, KEY_BYTES, NONCE_BYTES, NoRoom, PublicKey,
};
use subtle::ConstantTimeEq;

use super::boxes::{SEAL_BYTES, SecretKey, SharedKey};

/// How long a client has to say who it is, in seconds.
pub const HANDSHAKE_S: u32 = 10;
/// Bytes of a greeting.
pub const GREETING_BYTES: usize = HEADER_BYTES + 8 + KEY_BYTES;
/// The longest frame that [`Arrival::admission`] writes, in bytes.
pub const MAX_ADMISSION_BYTES: usize = HEADER_BYTES + SEAL_BYTES + info::MAX_ENCODED_BYTES;
/// The longest frame that [`introduction`] writes, in bytes.
pub const MAX_INTRODUCTION_BYTES: usize = KEY_BYTES + MAX_ADMISSION_BYTES;

/// Why a handshake ends without an admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Another frame came than the one that was due.
    #[error("a frame of kind {found:#04x} came before its time")]
    Unexpected {
        /// Its kind.
        found: u8,
    },
    /// The box doesn't open: the other has not the key that it names, or means another server.
    #[error("the other side didn't show that it has the key {key}")]
    NotProven {
        /// The key.
        key: PublicKey,
    },
    /// What was in the box isn't understood.
    #[error("{key} says of itself what isn't understood")]
    BadInfo {
        /// The key.
        key: PublicKey,
    },
}

/// A relay, as it shows itself.
#[derive(Clone, Debug)]
pub struct ServerIdentity {
    secret: SecretKey,
    public: PublicKey,
    mesh_key: Option<MeshKey>,
}

/// A client that has shown who it is.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its key.
    pub key: PublicKey,
    /// What it says of itself.
    pub info: ClientInfo,
    /// Whether it is a relay of this one's region: it may watch, forward and disconnect, and asks
    /// nobody to be admitted.
    pub is_mesh_peer: bool,
    shared: SharedKey,
}

impl ServerIdentity {
    /// A relay of this identity, in a region whose relays share `mesh_key`.
    pub fn new(secret: SecretKey, mesh_key: Option<MeshKey>) -> Self {
        let public = secret.public();
        Self {
            secret,
            public,
            mesh_key,
        }
    }

    /// What clients know it by.
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// The greeting.
    pub const fn greeting(&self) -> Frame<'static> {
        Frame::ServerKey(self.public)
    }

    /// Reads a client's first frame.
    ///
    /// # Errors
    /// [`HandshakeError`]; the connection is to be closed.
    pub fn identify(&self, raw: RawFrame<'_>) -> Result<Arrival, HandshakeError> {
        let found = raw.kind.0;
        let Ok(Frame::ClientInfo { key, sealed }) = Frame::parse(raw.kind, raw.body) else {
            return Err(HandshakeError::Unexpected { found });
        };
        let not_proven = HandshakeError::NotProven { key };
        let shared = self.secret.shared(&key).ok_or(not_proven)?;
        let json = shared.open(sealed).ok_or(not_proven)?;
        let info = ClientInfo::decode(&json).map_err(|_| HandshakeError::BadInfo { key })?;
        Ok(Arrival {
            key,
            info,
            is_mesh_peer: self.is_mesh_key(&info),
            shared,
        })
    }

    fn is_mesh_key(&self, info: &ClientInfo) -> bool {
        match (&self.mesh_key, &info.mesh_key) {
            (Some(ours), Some(theirs)) => ours.0.ct_eq(&theirs.0).into(),
            _ => false,
        }
    }
}

impl Arrival {
    /// Writes the frame that admits the client, and returns its length.
    ///
    /// # Errors
    /// [`NoRoom`]; [`MAX_ADMISSION_BYTES`] are enough.
    pub fn admission(
        &self,
        info: &ServerInfo,
        nonce: &[u8; NONCE_BYTES],
        out: &mut [u8],
    ) -> Result<usize, NoRoom> {
        let mut sealed = [0; SEAL_BYTES + info::MAX_ENCODED_BYTES];
        let length = seal(&self.shared, nonce, |json| info.encode(json), &mut sealed)?;
        let sealed = sealed.get(..length).unwrap_or(&[]);
        Frame::ServerInfo(sealed).encode(out)
    }
}

/// Writes the frame by which a client shows a server who it is, and returns its length.
///
/// # Errors
/// [`NoRoom`]; [`MAX_INTRODUCTION_BYTES`] are enough.
pub fn introduction(
    key: PublicKey,
    shared: &SharedKey,
    info: &ClientInfo,
    nonce: &[u8; NONCE_BYTES],
    out: &mut [u8],
) -> Result<usize, NoRoom> {
    let mut sealed = [0; SEAL_BYTES + info::MAX_ENCODED_BYTES];
    let length = seal(shared, nonce, |json| info.encode(json), &mut sealed)?;
    let sealed = sealed.get(..length).unwrap_or(&[]);
    Frame::ClientInfo { key, sealed }.encode(out)
}

/// Reads what a server admits a client with.
///
/// # Errors
/// [`HandshakeError`]; the connection is of no use.
pub fn admitted(
    server: PublicKey,
    shared: &SharedKey,
    raw: RawFrame<'_>,
) -> Result<ServerInfo, HandshakeError> {
    if raw.kind != FrameKind::SERVER_INFO {
        let found = raw.kind.0;
        return Err(HandshakeError::Unexpected { found });
    }
    let json = shared
        .open(raw.body)
        .ok_or(HandshakeError::NotProven { key: server })?;
    ServerInfo::decode(&json).map_err(|_| HandshakeError::BadInfo { key: server })
}

fn seal(
    shared: &SharedKey,
    nonce: &[u8; NONCE_BYTES],
    encode: impl FnOnce(&mut [u8]) -> Result<usize, NoRoom>,
    out: &mut [u8],
) -> Result<usize, NoRoom> {
    let mut json = [0; info::MAX_ENCODED_BYTES];
    let length = encode(&mut json)?;
    shared.seal(nonce, json.get(..length).unwrap_or(&[]), out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const MESH: MeshKey = MeshKey([7; 32]);

    fn server(mesh_key: Option<MeshKey>) -> ServerIdentity {
        ServerIdentity::new(SecretKey::new([1; 32]), mesh_key)
    }

    fn client() -> SecretKey {
        SecretKey::new([2; 32])
    }

    fn introduced(to: PublicKey, info: &ClientInfo) -> Vec<u8> {
        let shared = client().shared(&to).unwrap();
        let mut out = [0; MAX_INTRODUCTION_BYTES];
        let length = introduction(client().public(), &shared, info, &[3; 24], &mut out).unwrap();
        out[HEADER_BYTES..length].to_vec()
    }

    fn identify(server: &ServerIdentity, body: &[u8]) -> Result<Arrival, HandshakeError> {
        server.identify(RawFrame {
            kind: FrameKind::CLIENT_INFO,
            body,
        })
    }

    #[test]
    fn a_client_shows_who_it_is_and_is_admitted() {
        let server = server(None);
        let info = ClientInfo {
            version: 2,
            is_prober: true,
            ..ClientInfo::default()
        };
        let arrival = identify(&server, &introduced(server.public(), &info)).unwrap();
        assert_eq!(arrival.key, client().public());
        assert!(arrival.info.is_prober && !arrival.is_mesh_peer);
        let mut out = [0; MAX_ADMISSION_BYTES];
        let length = arrival
            .admission(&ServerInfo::PLAIN, &[4; 24], &mut out)
            .unwrap();
        let raw = RawFrame {
            kind: FrameKind::SERVER_INFO,
            body: &out[HEADER_BYTES..length],
        };
        let shared = client().shared(&server.public()).unwrap();
        assert_eq!(
            admitted(server.public(), &shared, raw),
            Ok(ServerInfo::PLAIN)
        );
    }

    #[test]
    fn only_the_regions_own_mesh_key_makes_a_mesh_peer() {
        let with = |mesh_key| ClientInfo {
            mesh_key,
            ..ClientInfo::default()
        };
        for (ours, theirs, expected) in [
            (Some(MESH), Some(MESH), true),
            (Some(MESH), Some(MeshKey([8; 32])), false),
            (Some(MESH), None, false),
            (None, Some(MESH), false),
        ] {
            let server = server(ours);
            let arrival = identify(&server, &introduced(server.public(), &with(theirs))).unwrap();
            assert_eq!(arrival.is_mesh_peer, expected);
        }
    }

    #[test]
    fn who_shows_nothing_is_refused() {
        let server = server(None);
        let key = client().public();
        // It means another server: what it wrote there can't be used here.
        let elsewhere = introduced(SecretKey::new([5; 32]).public(), &ClientInfo::default());
        let refused = identify(&server, &elsewhere).map(|_| ());
        assert_eq!(refused, Err(HandshakeError::NotProven { key }));
        // It claims another's key.
        let mut claimed = introduced(server.public(), &ClientInfo::default());
        let other = SecretKey::new([6; 32]).public();
        claimed[..32].copy_from_slice(&other.0);
        let refused = identify(&server, &claimed).map(|_| ());
        assert_eq!(refused, Err(HandshakeError::NotProven { key: other }));
        let raw = RawFrame {
            kind: FrameKind::PING,
            body: &[0; 8],
        };
        let refused = server.identify(raw).map(|_| ());
        assert_eq!(refused, Err(HandshakeError::Unexpected { found: 0x12 }));
    }

    #[test]
    fn what_is_not_json_is_refused_after_it_was_opened() {
        let server = server(None);
        let (key, shared) = (
            client().public(),
            client().shared(&server.public()).unwrap(),
        );
        let mut sealed = [0; 64];
        let length = shared.seal(&[3; 24], b"{version:2}", &mut sealed).unwrap();
        let body = [&key.0[..], &sealed[..length]].concat();
        let refused = identify(&server, &body).map(|_| ());
        assert_eq!(refused, Err(HandshakeError::BadInfo { key }));
    }
}
