//! `network.json`: which records hold, what was published, and where the network can be entered.
//!
//! It is the last file that a change writes, so the rename that puts it in place is the moment
//! the change happens: record files that it doesn't name don't count. The file carries a
//! checksum over itself; a person reads it, the program writes it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use altnet_wire::hash;
use altnet_wire::id::{NetworkId, RecordId, SigningKey, base32_fmt};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The format's number.
pub const VERSION: u32 = 1;

/// What is kept beside the keys and the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The format's number, [`VERSION`].
    pub version: u32,
    /// The network.
    #[serde(with = "as_text")]
    pub network: NetworkId,
    /// The issuer key of this computer.
    #[serde(with = "as_text")]
    pub issuer: SigningKey,
    /// What people call each issuer key, by its text.
    pub issuers: BTreeMap<String, String>,
    /// Nodes that were provisioned here to be found from the internet.
    pub entries: Vec<Entry>,
    /// How far the last sync came.
    pub cursor: SyncCursor,
    /// The records that hold here, by id.
    pub records: BTreeMap<String, RecordState>,
    /// Over everything above.
    check: String,
}

/// A place where the network can be entered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The node's name.
    pub name: String,
    /// UDP addresses it is reached at.
    pub endpoints: Vec<SocketAddr>,
    /// Whether it forwards for others.
    pub relay: bool,
    /// Whether it keeps and hands out records.
    pub directory: bool,
    /// The issuer key it countersigns invites with, if it does.
    #[serde(with = "as_optional_text")]
    pub admits: Option<SigningKey>,
}

/// A place in a directory's order of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncCursor {
    /// The order's number.
    pub epoch: u64,
    /// The last change that is here.
    pub revision: u64,
}

/// Whether a record has left this computer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordState {
    /// Only here.
    Pending,
    /// A directory said that it holds it.
    Published,
    /// Kept here alone: the other side learns it otherwise.
    Local,
}

impl Settings {
    /// The settings of a network that has nothing yet.
    pub const fn new(network: NetworkId, issuer: SigningKey) -> Self {
        Self {
            version: VERSION,
            network,
            issuer,
            issuers: BTreeMap::new(),
            entries: Vec::new(),
            cursor: SyncCursor {
                epoch: 0,
                revision: 0,
            },
            records: BTreeMap::new(),
            check: String::new(),
        }
    }

    /// The ids of the records that hold.
    ///
    /// # Errors
    /// Never for settings that were read by [`Settings::decode`]; else the text that is no id.
    pub fn record_ids(&self) -> std::result::Result<Vec<(RecordId, RecordState)>, String> {
        self.records
            .iter()
            .map(|(text, state)| match text.parse() {
                Ok(id) => Ok((id, *state)),
                Err(_) => Err(text.clone()),
            })
            .collect()
    }

    /// How many records wait to be published.
    pub fn pending(&self) -> usize {
        let waits = |state: &&RecordState| **state == RecordState::Pending;
        self.records.values().filter(waits).count()
    }

    /// The entries with an address to send to.
    pub fn reachable(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| !e.endpoints.is_empty())
    }

    /// Writes the file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut sealed = self.clone();
        sealed.check = String::new();
        sealed.check = checksum(&text(&sealed));
        text(&sealed)
    }

    /// Reads the file's bytes; `path` is for the error's sake.
    ///
    /// # Errors
    /// [`Error::Damaged`] unless they are exactly what [`Settings::encode`] writes;
    /// [`Error::Newer`].
    pub fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let damaged = |why: &str| Error::damaged(path, why);
        let Version { version } =
            serde_json::from_slice(bytes).map_err(|_| damaged("it is cut off or altered"))?;
        if version > VERSION {
            return Err(Error::Newer {
                path: path.to_path_buf(),
                found: version,
                known: VERSION,
            });
        }
        let settings: Self =
            serde_json::from_slice(bytes).map_err(|_| damaged("it is cut off or altered"))?;
        if settings.encode() != bytes || settings.record_ids().is_err() {
            return Err(damaged("its checksum does not fit"));
        }
        Ok(settings)
    }
}

fn text(settings: &Settings) -> Vec<u8> {
    // Strings, numbers and maps with string keys: there is nothing that JSON can't say.
    let mut bytes = serde_json::to_vec_pretty(settings).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn checksum(bytes: &[u8]) -> String {
    let hash = hash::labelled("altnet provision settings v1", &[bytes]);
    let mut text = String::new();
    // Writing to a String doesn't fail.
    let _ = base32_fmt(&hash[..15], &mut text);
    text
}

/// Ids in JSON as people see them.
pub(crate) mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr,
        T::Err: Display,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?
            .parse()
            .map_err(Error::custom)
    }
}

/// The same where there may be none.
pub(crate) mod as_optional_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr,
        T::Err: Display,
        D: Deserializer<'de>,
    {
        Option::<String>::deserialize(deserializer)?
            .map(|text| text.parse().map_err(Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings() -> Settings {
        let mut settings = Settings::new(NetworkId([1; 32]), SigningKey([2; 32]));
        settings.entries.push(Entry {
            name: "relay1".into(),
            endpoints: vec!["203.0.113.10:51820".parse().unwrap()],
            relay: true,
            directory: true,
            admits: Some(SigningKey([3; 32])),
        });
        settings
            .records
            .insert(RecordId([4; 32]).to_string(), RecordState::Pending);
        settings
    }

    fn path() -> &'static Path {
        Path::new("network.json")
    }

    #[test]
    fn settings_read_back_what_was_written() {
        let bytes = settings().encode();
        let back = Settings::decode(&bytes, path()).unwrap();
        assert_eq!(back.entries, settings().entries);
        assert_eq!(back.encode(), bytes);
        assert_eq!(back.pending(), 1);
    }

    #[test]
    fn settings_of_a_later_version_say_so() {
        let error = Settings::decode(b"{\"version\": 9, \"new\": 1}", path()).unwrap_err();
        assert!(matches!(error, Error::Newer { found: 9, .. }), "{error}");
    }

    proptest! {
        #[test]
        fn no_altered_byte_is_taken(at: prop::sample::Index, flip in 1u8.., truncate: bool) {
            let bytes = settings().encode();
            let at = at.index(bytes.len());
            let mut bad = bytes.clone();
            if truncate { bad.truncate(at) } else { bad[at] ^= flip }
            prop_assert!(Settings::decode(&bad, path()).is_err());
        }
    }
}
