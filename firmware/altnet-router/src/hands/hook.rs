//! The hook: what a child's script says, sent as one datagram, and received.
//!
//! The socket is its owner's alone (0600): who may write to it may have the router believe anything of its lines.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net;
use std::path::{Path, PathBuf};

use tokio::net::UnixDatagram;

use super::files;
use crate::machine::told::{MAX_BYTES, Told, ToldError, read};

/// The socket's name in the directory of the run.
pub const SOCKET: &str = "hook";

/// The receiving end; its file goes when it is dropped.
#[derive(Debug)]
pub struct Hook {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Hook {
    /// Listens in `directory`, in the place of a router that is gone.
    ///
    /// # Errors
    /// What the file system says.
    pub fn bind(directory: &Path) -> io::Result<Self> {
        let path = directory.join(SOCKET);
        files::remove(&path)?;
        let socket = UnixDatagram::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(files::PRIVATE))?;
        Ok(Self { socket, path })
    }

    /// Waits for the next thing that a child tells.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn next(&self) -> io::Result<Result<Option<Told>, ToldError>> {
        // One more than fits, so that one that is too long is seen to be.
        let mut datagram = vec![0; MAX_BYTES + 1];
        let len = self.socket.recv(&mut datagram).await?;
        Ok(read(datagram.get(..len).unwrap_or(&[])))
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Tells the router in `directory` what the program `by` has called its script with: these words, and this
/// process's environment.
///
/// # Errors
/// What the kernel says: nobody listens, or it is too much to tell.
pub fn tell(directory: &Path, by: &str, words: &[String]) -> io::Result<()> {
    let mut datagram = format!(".by={by}\0");
    for word in words {
        datagram.push_str(&format!(".word={word}\0"));
    }
    let mut datagram = datagram.into_bytes();
    for (name, value) in std::env::vars_os() {
        let len = name.len() + value.len() + 2;
        // What is of the shell's is of no concern and may be long.
        if name == "PATH" || datagram.len() + len > MAX_BYTES {
            continue;
        }
        datagram.extend_from_slice(name.as_bytes());
        datagram.push(b'=');
        datagram.extend_from_slice(value.as_bytes());
        datagram.push(0);
    }
    let socket = net::UnixDatagram::unbound()?;
    socket.send_to(&datagram, directory.join(SOCKET))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::told::News;

    #[test]
    fn what_is_told_arrives_and_only_its_owner_may_tell() {
        let home = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let hook = Hook::bind(home.path()).unwrap();
            let mode = fs::metadata(home.path().join(SOCKET))
                .unwrap()
                .permissions();
            assert_eq!(mode.mode() & 0o777, 0o600);
            let words = ["ip-down", "ppp-wan", "/dev/pts/1"].map(str::to_owned);
            tell(home.path(), "pppd", &words).unwrap();
            let told = hook.next().await.unwrap().unwrap().unwrap();
            assert_eq!(told.interface, "ppp-wan");
            assert_eq!(told.news, News::Session4(None));
        });
        assert!(tell(home.path(), "pppd", &[]).is_err());
    }
}
