//! Keys in files: hexadecimal, so that they can be compared by eye.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use altnet_core::derp::boxes::SecretKey;
use altnet_wire::derp::PublicKey;
use altnet_wire::derp::info::MeshKey;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use zeroize::{Zeroize, Zeroizing};

/// What Tailscale writes before a client's key.
const NODE_PREFIX: &str = "nodekey:";

/// Reads the relay's key, or makes one.
///
/// # Errors
/// What the file system says, or that the file holds no key.
pub fn identity(path: &Path) -> Result<SecretKey, String> {
    if !path.exists() {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key).map_err(|e| e.to_string())?;
        let text = Zeroizing::new(HEXLOWER.encode(&*key) + "\n");
        // Whoever else makes it at the same moment wins, and it is read below.
        let made = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        made.map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let text = read(path)?;
    let mut bytes = octets(text.trim()).ok_or_else(|| not_a_key(path))?;
    let key = SecretKey::new(bytes);
    bytes.zeroize();
    Ok(key)
}

/// Reads a mesh key.
///
/// # Errors
/// What the file system says, or that the file holds no key.
pub fn mesh(path: &Path) -> Result<MeshKey, String> {
    let text = read(path)?;
    MeshKey::from_hex(text.trim().bytes()).ok_or_else(|| not_a_key(path))
}

/// Reads a list of clients' keys; empty lines and what is behind `#` say nothing.
///
/// # Errors
/// What the file system says, or which line holds no key.
pub fn list(path: &Path) -> Result<Vec<PublicKey>, String> {
    let text = read(path)?;
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or(line).trim());
    lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            let digits = line.strip_prefix(NODE_PREFIX).unwrap_or(line);
            let key = octets(digits).map(PublicKey);
            key.ok_or_else(|| format!("{}: {line} is no key", path.display()))
        })
        .collect()
}

fn octets(digits: &str) -> Option<[u8; 32]> {
    let bytes = Zeroizing::new(HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?);
    bytes.as_slice().try_into().ok()
}

fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(Zeroizing::new(text))
}

fn not_a_key(path: &Path) -> String {
    format!("{} holds no key of 64 hexadecimal digits", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_identity_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id");
        let first = identity(&path).unwrap();
        assert_eq!(first.bytes(), identity(&path).unwrap().bytes());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "no key").unwrap();
        assert!(identity(&path).is_err());
    }

    #[test]
    fn a_list_of_keys_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let text = format!(
            "# members\n{}\n\nnodekey:{} # anna\n",
            "ab".repeat(32),
            "CD".repeat(32)
        );
        fs::write(&path, text).unwrap();
        let expected = vec![PublicKey([0xab; 32]), PublicKey([0xcd; 32])];
        assert_eq!(list(&path), Ok(expected));
        fs::write(&path, "abc\n").unwrap();
        assert!(list(&path).is_err());
    }
}
