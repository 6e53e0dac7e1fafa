//! Where the local API is, when nobody says where.

use std::path::{Path, PathBuf};

/// The usual place, and OpenWrt's, which has no `/run` or one on flash.
const PLACES: [&str; 2] = ["/run", "/var/run"];

/// Where the local API listens unless the file says otherwise: in `/run`, or in `/var/run` where only that is in
/// memory. What altnetd notes beside its socket must not outlive a reboot.
pub fn default_socket() -> PathBuf {
    Path::new(chosen(is_in_memory)).join("altnet/altnet.sock")
}

fn chosen(is_in_memory: impl Fn(&str) -> bool) -> &'static str {
    let found = PLACES.into_iter().find(|place| is_in_memory(place));
    found.unwrap_or(PLACES[0])
}

fn is_in_memory(place: &str) -> bool {
    // The magic numbers of tmpfs and ramfs (linux/magic.h).
    const KINDS: [u64; 2] = [0x0102_1994, 0x8584_58f6];
    // The field's type differs from processor to processor.
    let kind = rustix::fs::statfs(place).map(|about| about.f_type as u64 & 0xffff_ffff);
    kind.is_ok_and(|kind| KINDS.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_in_memory_if_there_is_some() {
        let check = |places: &[&str], expected: &str| {
            assert_eq!(chosen(|place| places.contains(&place)), expected);
        };
        check(&["/run", "/var/run"], "/run");
        check(&["/run"], "/run");
        check(&["/var/run"], "/var/run");
        check(&[], "/run");
        assert!(!is_in_memory("/proc") && !is_in_memory("/nonexistent"));
    }
}
