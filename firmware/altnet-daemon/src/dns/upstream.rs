//! Which resolvers there are: configured ones, or those of a resolv.conf that others write.

use std::fs;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

/// Where systems keep their resolvers.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The most resolvers that are tried (as `MAXNS` of resolv.conf(5)).
const MAX_UPSTREAMS: usize = 3;
const DNS_PORT: u16 = 53;

/// The resolvers of a home.
#[derive(Debug)]
pub struct Upstreams {
    source: Source,
    // Asking ourselves would go round until the query's timeout.
    own: Vec<SocketAddr>,
}

#[derive(Debug)]
enum Source {
    Fixed(Vec<SocketAddr>),
    File { path: PathBuf, read: Mutex<Read> },
}

#[derive(Debug, Default)]
struct Read {
    changed: Option<SystemTime>,
    upstreams: Vec<SocketAddr>,
}

impl Upstreams {
    /// The resolvers of the configuration.
    pub fn fixed(upstreams: Vec<SocketAddr>) -> Self {
        Self {
            source: Source::Fixed(upstreams),
            own: Vec::new(),
        }
    }

    /// The resolvers that the file at `path` names, read again when it changes.
    pub fn of_file(path: &Path) -> Self {
        Self {
            source: Source::File {
                path: path.into(),
                read: Mutex::default(),
            },
            own: Vec::new(),
        }
    }

    /// The same without `own`, the addresses this service itself listens on.
    #[must_use]
    pub fn except(mut self, own: Vec<SocketAddr>) -> Self {
        self.own = own;
        self
    }

    /// The resolvers to try, in order.
    pub fn now(&self) -> Vec<SocketAddr> {
        let mut upstreams = match &self.source {
            Source::Fixed(upstreams) => upstreams.clone(),
            Source::File { path, read } => {
                // Another thread's panic leaves a list that is still a list.
                let mut read = read
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                read.refresh(path);
                read.upstreams.clone()
            }
        };
        upstreams.retain(|upstream| !self.own.contains(upstream));
        upstreams.truncate(MAX_UPSTREAMS);
        upstreams
    }
}

impl Read {
    /// Reads the file again if it changed. A file that is missing, as while somebody replaces
    /// it, keeps the last list.
    fn refresh(&mut self, path: &Path) {
        let changed = fs::metadata(path).and_then(|meta| meta.modified()).ok();
        if changed.is_none() || changed == self.changed {
            return;
        }
        if let Ok(text) = fs::read_to_string(path) {
            self.upstreams = name_servers(&text);
            self.changed = changed;
        }
    }
}

/// The `nameserver` lines of resolv.conf(5).
fn name_servers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next()? == "nameserver").then_some(())?;
            address(words.next()?)
        })
        .collect()
}

/// An address, with the interface of a link-local one: `fe80::1%eth0`.
fn address(text: &str) -> Option<SocketAddr> {
    let Some((address, interface)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, DNS_PORT));
    };
    let index = interface.parse().ok();
    let index = index.or_else(|| crate::link::index_of(interface).ok())?;
    Some(SocketAddrV6::new(address.parse().ok()?, DNS_PORT, 0, index).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn nameserver_lines_are_read() {
        let text = "# nameserver 1.1.1.1\nsearch lan\nnameserver 192.0.2.1\n nameserver 2001:db8::1 # x\nnameserver fe80::1%1\nnameserver none\n";
        assert_eq!(
            name_servers(text),
            addresses(&["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%1]:53"])
        );
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_missing_one_is_forgiven() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.1\nnameserver 192.0.2.2\n").unwrap();
        let upstreams = Upstreams::of_file(&path).except(addresses(&["192.0.2.2:53"]));
        assert_eq!(upstreams.now(), addresses(&["192.0.2.1:53"]));
        fs::write(&path, "nameserver 192.0.2.3\n").unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        fs::File::open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(upstreams.now(), addresses(&["192.0.2.3:53"]));
        fs::remove_file(&path).unwrap();
        assert_eq!(upstreams.now(), addresses(&["192.0.2.3:53"]));
    }
}
