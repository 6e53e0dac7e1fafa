//! What the two sides of a DERP connection say of themselves: JSON, inside the boxes of
//! [`ClientInfo`](super::Frame::ClientInfo) and [`ServerInfo`](super::Frame::ServerInfo).
//!
//! Names and types are those of Tailscale's Go structs; names are compared without regard to
//! capitals, `null` leaves a field as it is, and fields that aren't known are passed over, as Go's
//! decoder does. A name that a client gives its program is passed over too.

use super::json::{self, BadJson, Value, hex_digit};
use super::{NoRoom, VERSION};

/// The longest JSON that [`ClientInfo::encode`] and [`ServerInfo::encode`] write, in bytes.
pub const MAX_ENCODED_BYTES: usize = 160;

/// What is not such information.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the JSON of a DERP handshake")]
pub struct BadInfo;

impl From<BadJson> for BadInfo {
    fn from(_: BadJson) -> Self {
        Self
    }
}

/// The secret that relays of one region share, and by which they trust each other.
#[derive(Clone, Copy)]
pub struct MeshKey(pub [u8; 32]);

impl core::fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("MeshKey(..)")
    }
}

impl MeshKey {
    /// Reads 64 hexadecimal digits; `None` of anything else, and of the key that is all zeros, by which
    /// Tailscale means none.
    pub fn from_hex(mut digits: impl Iterator<Item = u8>) -> Option<Self> {
        let mut key = [0; 32];
        for octet in &mut key {
            let high = hex_digit(digits.next()?)?;
            let low = hex_digit(digits.next()?)?;
            *octet = u8::try_from(high * 16 + low).ok()?;
        }
        (digits.next().is_none() && key != [0; 32]).then_some(Self(key))
    }
}

/// What a client says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientInfo {
    /// Shows that it is a relay of the same region.
    pub mesh_key: Option<MeshKey>,
    /// The version of the protocol that it speaks; 0 if it didn't say.
    pub version: u32,
    /// Whether it answers pings.
    pub can_ack_pings: bool,
    /// Whether it only measures.
    pub is_prober: bool,
}

impl ClientInfo {
    /// Reads it.
    ///
    /// # Errors
    /// [`BadInfo`] if it isn't JSON, or a field is of the wrong type. A mesh key that is none is no
    /// error here: who has none isn't trusted.
    pub fn decode(json: &[u8]) -> Result<Self, BadInfo> {
        let mut info = Self::default();
        json::object(json, |name, value| {
            if name.is("meshKey") {
                info.mesh_key = match value {
                    Value::Text(text) => MeshKey::from_hex(text.octets()),
                    _ => None,
                };
            } else if name.is("version") {
                set(&mut info.version, integer(value)?);
            } else if name.is("CanAckPings") {
                set(&mut info.can_ack_pings, boolean(value)?);
            } else if name.is("IsProber") {
                set(&mut info.is_prober, boolean(value)?);
            }
            Ok(())
        })?;
        Ok(info)
    }

    /// Writes it as Go would, and returns its length.
    ///
    /// # Errors
    /// [`NoRoom`]; [`MAX_ENCODED_BYTES`] are enough.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        let mut writer = Writer { out, at: 0 };
        writer.put(b"{");
        if let Some(MeshKey(key)) = &self.mesh_key {
            writer.put(b"\"meshKey\":\"");
            for octet in key {
                writer.put(&[digit(octet >> 4), digit(octet & 15)]);
            }
            writer.put(b"\",");
        }
        writer.put(b"\"version\":");
        writer.number(self.version);
        writer.put(b",\"CanAckPings\":");
        writer.put(if self.can_ack_pings {
            b"true"
        } else {
            b"false"
        });
        if self.is_prober {
            writer.put(b",\"IsProber\":true");
        }
        writer.put(b"}");
        writer.finish()
    }
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// The version of the protocol that it speaks; 0 if it didn't say.
    pub version: u32,
    /// What it accepts of a client, in bytes a second, framing counted; 0 if it didn't say.
    pub rate_bytes_per_s: u32,
    /// What it accepts at once above that, in bytes.
    pub burst_bytes: u32,
}

impl ServerInfo {
    /// What a server without limits says.
    pub const PLAIN: Self = Self {
        version: VERSION,
        rate_bytes_per_s: 0,
        burst_bytes: 0,
    };

    /// Reads it.
    ///
    /// # Errors
    /// [`BadInfo`] if it isn't JSON, or a field is of the wrong type.
    pub fn decode(json: &[u8]) -> Result<Self, BadInfo> {
        let mut info = Self::default();
        json::object(json, |name, value| {
            if name.is("version") {
                set(&mut info.version, integer(value)?);
            } else if name.is("TokenBucketBytesPerSecond") {
                set(&mut info.rate_bytes_per_s, integer(value)?);
            } else if name.is("TokenBucketBytesBurst") {
                set(&mut info.burst_bytes, integer(value)?);
            }
            Ok(())
        })?;
        Ok(info)
    }

    /// Writes it as Go would, and returns its length.
    ///
    /// # Errors
    /// [`NoRoom`]; [`MAX_ENCODED_BYTES`] are enough.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        let mut writer = Writer { out, at: 0 };
        writer.put(b"{\"version\":");
        writer.number(self.version);
        for (name, value) in [
            (
                &b",\"TokenBucketBytesPerSecond\":"[..],
                self.rate_bytes_per_s,
            ),
            (b",\"TokenBucketBytesBurst\":", self.burst_bytes),
        ] {
            if value != 0 {
                writer.put(name);
                writer.number(value);
            }
        }
        writer.put(b"}");
        writer.finish()
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn boolean(value: Value<'_>) -> Result<Option<bool>, BadJson> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(value) => Ok(Some(value)),
        _ => Err(BadJson),
    }
}

/// An integer of Go's, held to what fits here.
fn integer(value: Value<'_>) -> Result<Option<u32>, BadJson> {
    match value {
        Value::Null => Ok(None),
        Value::Number(digits) => {
            let text = core::str::from_utf8(digits).map_err(|_| BadJson)?;
            let number: i64 = text.parse().map_err(|_| BadJson)?;
            let most = i64::from(u32::MAX);
            Ok(u32::try_from(number.clamp(0, most)).ok())
        }
        _ => Err(BadJson),
    }
}

struct Writer<'o> {
    out: &'o mut [u8],
    /// Where the next byte goes; past the end once there was no room.
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.at.saturating_add(bytes.len());
        if let Some(room) = self.out.get_mut(self.at..end) {
            room.copy_from_slice(bytes);
        }
        self.at = end;
    }

    fn number(&mut self, number: u32) {
        let mut divisor = 1_000_000_000;
        while divisor > 1 && number < divisor {
            divisor /= 10;
        }
        while divisor > 0 {
            let value = number / divisor % 10;
            self.put(&[digit(u8::try_from(value).unwrap_or(0))]);
            divisor /= 10;
        }
    }

    fn finish(self) -> Result<usize, NoRoom> {
        if self.at <= self.out.len() {
            Ok(self.at)
        } else {
            Err(NoRoom { needed: self.at })
        }
    }
}

/// The hexadecimal digit of a value below 16.
fn digit(value: u8) -> u8 {
    match value {
        0..10 => b'0' + value,
        _ => b'a' - 10 + (value & 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::String;

    const MESH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn client(info: &ClientInfo) -> String {
        let mut out = [0; MAX_ENCODED_BYTES];
        let length = info.encode(&mut out).unwrap();
        String::from_utf8(out[..length].to_vec()).unwrap()
    }

    fn server(info: &ServerInfo) -> String {
        let mut out = [0; MAX_ENCODED_BYTES];
        let length = info.encode(&mut out).unwrap();
        String::from_utf8(out[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_client_is_written_as_go_writes_it() {
        let mut info = ClientInfo {
            version: 2,
            can_ack_pings: true,
            ..ClientInfo::default()
        };
        assert_eq!(client(&info), r#"{"version":2,"CanAckPings":true}"#);
        info.is_prober = true;
        info.version = u32::MAX;
        info.can_ack_pings = false;
        info.mesh_key = MeshKey::from_hex(MESH.bytes());
        let longest = std::format!(
            r#"{{"meshKey":"{MESH}","version":4294967295,"CanAckPings":false,"IsProber":true}}"#
        );
        assert_eq!(client(&info), longest);
        let needed = longest.len();
        assert_eq!(info.encode(&mut [0; 20]), Err(NoRoom { needed }));
    }

    #[test]
    fn what_clients_write_is_read() {
        let go = std::format!(
            r#"{{"meshKey":"{MESH}","version":2,"CanAckPings":true,"IsProber":true,"AppName":"a\"b"}}"#
        );
        let info = ClientInfo::decode(go.as_bytes()).unwrap();
        assert_eq!(info.mesh_key.unwrap().0[..3], [0, 0x11, 0x22]);
        assert!(info.version == 2 && info.can_ack_pings && info.is_prober);
        // Tailscale's crate in Rust names its fields otherwise, and so says its version alone.
        let rust = br#"{"can_ack_pings":true,"is_prober":false,"mesh_key":"none","version":2}"#;
        let info = ClientInfo::decode(rust).unwrap();
        assert!(info.version == 2 && !info.can_ack_pings && info.mesh_key.is_none());
        let info = ClientInfo::decode(br#"{"Version":null,"canackpings":true}"#).unwrap();
        assert!(info.version == 0 && info.can_ack_pings);
    }

    #[test]
    fn a_mesh_key_that_is_none_admits_nobody() {
        let zeros = "0".repeat(64);
        for text in ["", "none", &MESH[1..], &zeros, &std::format!("{MESH}0")] {
            assert!(MeshKey::from_hex(text.bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn fields_of_the_wrong_type_are_refused() {
        for text in [
            r#"{"version":"2"}"#,
            r#"{"version":2.5}"#,
            r#"{"CanAckPings":1}"#,
            r#"{"IsProber":"true"}"#,
        ] {
            assert!(ClientInfo::decode(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_server_is_written_and_read_as_go_does() {
        assert_eq!(server(&ServerInfo::PLAIN), r#"{"version":2}"#);
        let limited = ServerInfo {
            version: 2,
            rate_bytes_per_s: 1000,
            burst_bytes: 70_000,
        };
        let text = server(&limited);
        assert_eq!(
            text,
            r#"{"version":2,"TokenBucketBytesPerSecond":1000,"TokenBucketBytesBurst":70000}"#
        );
        assert_eq!(ServerInfo::decode(text.as_bytes()), Ok(limited));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(version: u32, can_ack_pings: bool, is_prober: bool, key: Option<[u8; 32]>) {
            let mesh_key = key.filter(|key| *key != [0; 32]).map(MeshKey);
            let info = ClientInfo { mesh_key, version, can_ack_pings, is_prober };
            let read = ClientInfo::decode(client(&info).as_bytes()).unwrap();
            prop_assert_eq!(read.mesh_key.map(|key| key.0), mesh_key.map(|key| key.0));
            prop_assert_eq!((read.version, read.can_ack_pings, read.is_prober), (version, can_ack_pings, is_prober));
            let info = ServerInfo { version, rate_bytes_per_s: version / 3, burst_bytes: version / 2 };
            prop_assert_eq!(ServerInfo::decode(server(&info).as_bytes()), Ok(info));
        }
    }
}
