//! Giving up what a process doesn't need once it runs. Nothing can be gained again: no_new_privs is
//! set, and the bounding set is emptied of what isn't kept.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

pub use rustix::thread::CapabilitySet;
use rustix::thread::CapabilitySets;

/// A user to run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's id.
    pub user: u32,
    /// Its primary group.
    pub group: u32,
}

impl User {
    /// The user this process runs as.
    pub fn own() -> Self {
        Self {
            user: rustix::process::geteuid().as_raw(),
            group: rustix::process::getegid().as_raw(),
        }
    }

    /// Whether a file is this user's and its group's.
    pub fn owns(&self, file: &fs::Metadata) -> bool {
        (file.uid(), file.gid()) == (self.user, self.group)
    }
}

/// Why privileges could not be dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivilegeError {
    /// The configured user is not in `/etc/passwd`.
    #[error("there is no user {name:?}; add it, or name another")]
    NoUser {
        /// The name.
        name: String,
    },
    /// The kernel refused a step.
    #[error("can't {step}")]
    Refused {
        /// The step.
        step: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

/// Looks a user up in `/etc/passwd`.
///
/// # Errors
/// [`PrivilegeError::NoUser`].
pub fn find_user(name: &str) -> Result<User, PrivilegeError> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    user_in(&passwd, name).ok_or_else(|| PrivilegeError::NoUser { name: name.into() })
}

/// Looks a group up in `/etc/group`.
pub fn find_group(name: &str) -> Option<u32> {
    group_in(&fs::read_to_string("/etc/group").unwrap_or_default(), name)
}

/// Becomes `user`, if there is one, and keeps of the capabilities only those in `keep`. Call it
/// while the process has one thread: capabilities belong to threads.
///
/// # Errors
/// [`PrivilegeError::Refused`]; the process should end then.
pub fn drop_to(user: Option<&User>, keep: CapabilitySet) -> Result<(), PrivilegeError> {
    use rustix::thread as kernel;

    let refused = |step| {
        move |e: rustix::io::Errno| PrivilegeError::Refused {
            step,
            source: e.into(),
        }
    };
    let has = kernel::capabilities(None).map_err(refused("read the capabilities"))?;
    if has.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().difference(keep).iter() {
            // Capabilities newer than the kernel are refused and are not there to drop.
            let _ = kernel::remove_capability_from_bounding_set(capability);
        }
    }
    if let Some(user) = user {
        kernel::set_keep_capabilities(true).map_err(refused("keep capabilities"))?;
        become_user(user)?;
        kernel::set_keep_capabilities(false).map_err(refused("keep capabilities"))?;
    }
    let kept = has.permitted & keep;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    kernel::set_capabilities(None, sets).map_err(refused("drop capabilities"))?;
    kernel::set_no_new_privs(true).map_err(refused("set no_new_privs"))
}

fn become_user(user: &User) -> Result<(), PrivilegeError> {
    let check = |step, result: i32| match result {
        0 => Ok(()),
        _ => Err(PrivilegeError::Refused {
            step,
            source: io::Error::last_os_error(),
        }),
    };
    // SAFETY: setgroups reads no list when its length is 0; the others take plain numbers.
    // libc applies each of them to every thread of the process.
    unsafe {
        check("leave all groups", libc::setgroups(0, std::ptr::null()))?;
        check(
            "change the group",
            libc::setresgid(user.group, user.group, user.group),
        )?;
        check(
            "change the user",
            libc::setresuid(user.user, user.user, user.user),
        )
    }
}

fn fields<'a>(file: &'a str, name: &str) -> Option<Vec<&'a str>> {
    file.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name))
}

fn user_in(passwd: &str, name: &str) -> Option<User> {
    let fields = fields(passwd, name)?;
    Some(User {
        user: fields.get(2)?.parse().ok()?,
        group: fields.get(3)?.parse().ok()?,
    })
}

fn group_in(groups: &str, name: &str) -> Option<u32> {
    fields(groups, name)?.get(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\naltnet:x:901:902::/:/bin/false\nbad\n";
        let altnet = User {
            user: 901,
            group: 902,
        };
        assert_eq!(user_in(passwd, "altnet"), Some(altnet));
        assert_eq!(user_in(passwd, "alt"), None);
        assert_eq!(user_in(passwd, "bad"), None);
        assert_eq!(
            group_in("wheel:x:10:a,b\naltnet:x:902:\n", "altnet"),
            Some(902)
        );
    }

    #[test]
    fn only_what_is_kept_is_left() {
        let keep = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW);
        // On a thread of its own: capabilities are a thread's, and it ends with the test.
        let left = std::thread::spawn(move || {
            drop_to(None, keep).unwrap();
            rustix::thread::capabilities(None).unwrap()
        });
        let left = left.join().unwrap();
        assert!(keep.contains(left.permitted) && keep.contains(left.effective));
        assert!(left.inheritable.is_empty());
    }
}
