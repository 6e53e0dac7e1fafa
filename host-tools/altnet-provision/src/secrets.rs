//! `keys.age`: the secret keys of one network on this computer.
//!
//! Keys are only ever added before a change takes effect and never needed afterwards for it to
//! hold, so a power cut between the two leaves at most a key that nothing refers to.

use std::path::Path;

use altnet_core::records::SigningSecret;
use altnet_wire::canonical;
use altnet_wire::id::{NetworkId, SigningKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::{Error, Result};
use crate::files;
use crate::sealed::{self, Passphrase};

/// The file's name in a network's directory.
pub const FILE: &str = "keys.age";

/// Version 1 had no room for the key of an authority for TLS, and is written where there is none.
const VERSION: u8 = 2;

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Zeroize)]
enum Purpose {
    Owner,
    Issuer,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Kept {
    purpose: Purpose,
    seed: [u8; 32],
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct AuthorityKey(Vec<u8>);

#[derive(Serialize, Deserialize)]
struct File {
    version: u8,
    network: NetworkId,
    keys: Vec<Kept>,
    /// The key of the network's authority for TLS, in PKCS #8; empty if it isn't here.
    authority: AuthorityKey,
}

/// As version 1 was.
#[derive(Serialize, Deserialize)]
struct FirstFile {
    version: u8,
    network: NetworkId,
    keys: Vec<Kept>,
}

/// The secret keys of a network, in memory. Wiped when dropped.
pub struct Secrets {
    file: File,
    passphrase: Passphrase,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Secrets(of {}, {})",
            self.file.network,
            self.file.keys.len()
        )
    }
}

impl Secrets {
    /// No keys yet; to be kept under `passphrase`.
    pub(crate) const fn new(network: NetworkId, passphrase: Passphrase) -> Self {
        Self {
            file: File {
                version: VERSION,
                network,
                keys: Vec::new(),
                authority: AuthorityKey(Vec::new()),
            },
            passphrase,
        }
    }

    /// Reads and decrypts the keys in the network's directory `dir`.
    ///
    /// # Errors
    /// [`Error::Exposed`], [`Error::Passphrase`], [`Error::Damaged`] (also if they are another
    /// network's), [`Error::Newer`] or [`Error::Io`].
    pub(crate) fn read(dir: &Path, network: NetworkId, passphrase: &Passphrase) -> Result<Self> {
        let path = dir.join(FILE);
        let bytes = files::read_private(&path).map_err(|error| error.gone(&path))?;
        let plain = sealed::open(&bytes, passphrase, &path)?;
        let secrets = Self::decode(&plain, passphrase, &path)?;
        if secrets.file.network != network {
            let why = "it holds the keys of another network";
            return Err(Error::damaged(&path, why));
        }
        Ok(secrets)
    }

    /// Reads the decrypted bytes.
    pub(crate) fn decode(plain: &[u8], passphrase: &Passphrase, path: &Path) -> Result<Self> {
        match plain.first() {
            Some(&version) if version > VERSION => {
                return Err(Error::Newer {
                    path: path.to_path_buf(),
                    found: version.into(),
                    known: VERSION.into(),
                });
            }
            _ => {}
        }
        let read = match plain.first() {
            Some(1) => canonical::decode::<FirstFile>(plain).map(File::from),
            _ => canonical::decode(plain),
        };
        Ok(Self {
            file: read.map_err(|_| Error::damaged(path, "its keys do not read"))?,
            passphrase: passphrase.clone(),
        })
    }

    /// The bytes before encryption.
    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Reserved at once, so that growing leaves no copies behind: a key takes 33 bytes.
        let room = 64 + 40 * self.file.keys.len() + self.file.authority.0.len();
        let mut bytes = Zeroizing::new(vec![0; room]);
        // There is room, and these types have no value that postcard can't write.
        let used = postcard::to_slice(&self.file, &mut bytes).map_or(0, |b| b.len());
        if self.file.authority.0.is_empty() {
            // What version 1 can say, a tool of that version reads: it ends before the last field,
            // which is the one byte of an empty list.
            bytes[0] = 1;
            bytes.truncate(used.saturating_sub(1));
            return bytes;
        }
        bytes.truncate(used);
        bytes
    }

    /// Encrypts and writes the keys to the network's directory `dir`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let sealed = sealed::seal(&self.encode(), &self.passphrase)?;
        files::write(&dir.join(FILE), &sealed)
    }

    /// The passphrase that guards them.
    pub(crate) const fn passphrase(&self) -> &Passphrase {
        &self.passphrase
    }

    pub(crate) const fn set_passphrase(&mut self, passphrase: Passphrase) -> Passphrase {
        std::mem::replace(&mut self.passphrase, passphrase)
    }

    /// The network whose keys they are.
    pub const fn network(&self) -> NetworkId {
        self.file.network
    }

    /// The owner keys here, whether in force or not.
    pub fn owners(&self) -> Vec<SigningSecret> {
        self.signing(Purpose::Owner)
    }

    /// The owner key with this public half.
    pub fn owner(&self, key: &SigningKey) -> Option<SigningSecret> {
        self.owners().into_iter().find(|s| s.public() == *key)
    }

    /// The issuer key with this public half.
    pub fn issuer(&self, key: &SigningKey) -> Option<SigningSecret> {
        let mut issuers = self.signing(Purpose::Issuer).into_iter();
        issuers.find(|s| s.public() == *key)
    }

    pub(crate) fn add_owner(&mut self, secret: &SigningSecret) {
        self.add(Purpose::Owner, &secret.to_bytes());
    }

    pub(crate) fn add_issuer(&mut self, secret: &SigningSecret) {
        self.add(Purpose::Issuer, &secret.to_bytes());
    }

    /// The key of the network's authority for TLS, in PKCS #8, if it is here.
    pub fn authority(&self) -> Option<&[u8]> {
        Some(self.file.authority.0.as_slice()).filter(|key| !key.is_empty())
    }

    pub(crate) fn set_authority(&mut self, key: &[u8]) {
        self.file.authority = AuthorityKey(key.to_vec());
    }

    fn add(&mut self, purpose: Purpose, seed: &[u8; 32]) {
        self.file.keys.push(Kept {
            purpose,
            seed: *seed,
        });
    }

    fn signing(&self, purpose: Purpose) -> Vec<SigningSecret> {
        let keys = self.file.keys.iter().filter(|k| k.purpose == purpose);
        keys.map(|k| SigningSecret::from_bytes(&k.seed)).collect()
    }
}

impl From<FirstFile> for File {
    fn from(first: FirstFile) -> Self {
        Self {
            version: VERSION,
            network: first.network,
            keys: first.keys,
            authority: AuthorityKey(Vec::new()),
        }
    }
}

/// A new signing key from the operating system's chance.
pub(crate) fn generate() -> Result<SigningSecret> {
    let seed = crate::chance::secret()?;
    Ok(SigningSecret::from_bytes(&seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase() -> Passphrase {
        Passphrase::new("pass").unwrap().with_less_work(2)
    }

    #[test]
    fn keys_come_back_from_the_disk_and_are_not_printed() {
        let dir = tempfile::tempdir().unwrap();
        let (owner, issuer) = (generate().unwrap(), generate().unwrap());
        let mut secrets = Secrets::new(NetworkId([1; 32]), passphrase());
        secrets.add_owner(&owner);
        secrets.add_issuer(&issuer);
        secrets.write(dir.path()).unwrap();
        let back = Secrets::read(dir.path(), NetworkId([1; 32]), &passphrase()).unwrap();
        assert!(back.owner(&owner.public()).is_some());
        assert!(back.issuer(&issuer.public()).is_some());
        assert!(back.owner(&issuer.public()).is_none());
        assert!(!format!("{back:?}").contains(&format!("{:?}", owner.to_bytes())));
    }

    #[test]
    fn an_older_tool_reads_keys_without_an_authority() {
        let mut secrets = Secrets::new(NetworkId([1; 32]), passphrase());
        secrets.add_owner(&generate().unwrap());
        let plain = secrets.encode();
        let first: FirstFile = canonical::decode(&plain).unwrap();
        assert_eq!((first.version, first.keys.len()), (1, 1));
        let read = |plain: &[u8]| Secrets::decode(plain, &passphrase(), Path::new("keys"));
        let mut back = read(&plain).unwrap();
        assert_eq!((back.owners().len(), back.authority()), (1, None));
        back.set_authority(&[7; 138]);
        let plain = back.encode();
        assert_eq!(plain[0], VERSION);
        assert_eq!(read(&plain).unwrap().authority(), Some(&[7; 138][..]));
    }

    #[test]
    fn the_keys_of_another_network_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(NetworkId([1; 32]), passphrase());
        secrets.write(dir.path()).unwrap();
        let error = Secrets::read(dir.path(), NetworkId([2; 32]), &passphrase()).unwrap_err();
        assert!(error.to_string().contains("another network"), "{error}");
    }
}
