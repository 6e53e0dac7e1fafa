//! The device's secret keys, made on the device.
//!
//! Stored as one slot: a new tunnel key and the one it replaces change together or not at
//! all. Nothing here is ever printed.

use altnet_tunnel::key::TunnelSecret;
use altnet_wire::hash;
use altnet_wire::record::TunnelEpoch;
use altnet_wire::time::UnixTime;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::control::ControlSecret;
use crate::records::SigningSecret;
use crate::rng::Rng;

/// The largest encoded identity in bytes.
pub const IDENTITY_BYTES: usize = 192;

/// Stored secrets that can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file with this device's keys is damaged; restore it, or remove it and join again")]
pub struct BadIdentity;

/// A tunnel key's secret half with its epoch.
pub struct Tunnel {
    /// Counts up at each rotation.
    pub epoch: u32,
    /// The secret half.
    pub secret: TunnelSecret,
}

impl Tunnel {
    /// What a node record says of it.
    pub fn public(&self) -> TunnelEpoch {
        TunnelEpoch {
            epoch: self.epoch,
            key: self.secret.public(),
        }
    }
}

/// The keys of one device.
pub struct Identity {
    /// Signs node, host and app records.
    pub device: SigningSecret,
    /// Ends Noise control sessions.
    pub control: ControlSecret,
    /// Ends tunnels.
    pub tunnel: Tunnel,
    /// The tunnel key before, accepted until peers have the new one.
    pub previous: Option<Tunnel>,
    /// When the tunnel key was made; [`UnixTime::EPOCH`] if the time wasn't known.
    pub rotated: UnixTime,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Stored {
    version: u8,
    device: [u8; 32],
    control: [u8; 32],
    tunnel: (u32, [u8; 32]),
    previous: Option<(u32, [u8; 32])>,
    rotated: u64,
    check: [u8; 8],
}

impl Identity {
    /// Makes new keys, at `now` if the time is known.
    pub fn generate(rng: &mut Rng, now: Option<UnixTime>) -> Self {
        Self {
            device: SigningSecret::generate(rng),
            control: ControlSecret::generate(rng),
            tunnel: Tunnel {
                epoch: 1,
                secret: TunnelSecret::new(rng.array()),
            },
            previous: None,
            rotated: now.unwrap_or(UnixTime::EPOCH),
        }
    }

    /// Replaces the tunnel key with `secret`, of the next epoch; the present one becomes
    /// the one before.
    pub fn rotate(&mut self, secret: TunnelSecret, now: Option<UnixTime>) {
        let next = Tunnel {
            epoch: self.tunnel.epoch.saturating_add(1),
            secret,
        };
        self.previous = Some(core::mem::replace(&mut self.tunnel, next));
        self.rotated = now.unwrap_or(UnixTime::EPOCH);
    }

    /// A secret for the nonces of port mappings ([`crate::portmap`]), the same over restarts. It
    /// tells nothing of the keys.
    pub fn port_secret(&self) -> [u8; 32] {
        let device = self.device.to_bytes();
        hash::labelled("altnet port mapping v1", &[&device[..]])
    }

    /// Writes the keys for storage into `out`; returns how many bytes that took.
    pub fn encode(&self, out: &mut Zeroizing<[u8; IDENTITY_BYTES]>) -> usize {
        let mut stored = Stored {
            version: 1,
            device: *self.device.to_bytes(),
            control: *self.control.as_bytes(),
            tunnel: (self.tunnel.epoch, *self.tunnel.secret.expose()),
            previous: self
                .previous
                .as_ref()
                .map(|previous| (previous.epoch, *previous.secret.expose())),
            rotated: self.rotated.as_secs(),
            check: [0; 8],
        };
        stored.check = check(&stored);
        postcard::to_slice(&stored, &mut out[..]).map_or(0, |bytes| bytes.len())
    }

    /// Reads what [`Identity::encode`] wrote.
    ///
    /// # Errors
    /// [`BadIdentity`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BadIdentity> {
        let (stored, rest): (Stored, _) =
            postcard::take_from_bytes(bytes).map_err(|_| BadIdentity)?;
        if stored.version != 1 || !rest.is_empty() || check(&stored) != stored.check {
            return Err(BadIdentity);
        }
        let tunnel = |(epoch, secret)| Tunnel {
            epoch,
            secret: TunnelSecret::new(secret),
        };
        Ok(Self {
            device: SigningSecret::from_bytes(&stored.device),
            control: ControlSecret::from_bytes(&stored.control),
            tunnel: tunnel(stored.tunnel),
            previous: stored.previous.map(tunnel),
            rotated: UnixTime::from_secs(stored.rotated),
        })
    }
}

fn check(stored: &Stored) -> [u8; 8] {
    let (previous_epoch, previous) = stored.previous.unwrap_or_default();
    let hash = hash::labelled(
        "altnet identity check v1",
        &[
            &stored.device,
            &stored.control,
            &stored.tunnel.0.to_be_bytes(),
            &stored.tunnel.1,
            &previous_epoch.to_be_bytes(),
            &previous,
            &stored.rotated.to_be_bytes(),
        ],
    );
    let mut check = [0; 8];
    check.copy_from_slice(&hash[..8]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_comes_back_as_it_was_saved_or_not_at_all() {
        let mut rng = Rng::new([7; 32]);
        let mut identity = Identity::generate(&mut rng, Some(UnixTime::from_secs(5)));
        identity.rotate(TunnelSecret::new(rng.array()), Some(UnixTime::from_secs(6)));
        let mut out = Zeroizing::new([0; IDENTITY_BYTES]);
        let used = identity.encode(&mut out);
        assert!(used > 0);
        let back = Identity::decode(&out[..used]).unwrap();
        assert_eq!(back.device.public(), identity.device.public());
        assert_eq!(back.tunnel.public(), identity.tunnel.public());
        assert_eq!(back.tunnel.epoch, 2);
        assert_eq!(back.previous.unwrap().epoch, 1);
        for at in 0..used {
            let mut damaged = out.clone();
            damaged[at] ^= 1;
            assert!(Identity::decode(&damaged[..used]).is_err(), "byte {at}");
        }
        assert!(Identity::decode(&out[..used - 1]).is_err());
    }
}
