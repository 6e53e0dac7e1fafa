//! Giving up what the page doesn't need once its listeners are bound: everything.
//!
//! Nothing can be gained again: no_new_privs is set, and every capability is dropped, also from
//! the bounding set.

use std::fs;
use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// A user to run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's id.
    pub user: u32,
    /// Its primary group.
    pub group: u32,
}

/// Why privileges could not be dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivilegeError {
    /// The user is not in `/etc/passwd`.
    #[error("there is no user {name:?}; add it, or leave --user out")]
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

/// Becomes `user`, if there is one, and drops every capability. Call it while the process has one
/// thread: capabilities belong to threads.
///
/// # Errors
/// [`PrivilegeError::Refused`]; the process should end then.
pub fn drop_to(user: Option<&User>) -> Result<(), PrivilegeError> {
    use rustix::thread as kernel;

    let refused = |step| {
        move |e: rustix::io::Errno| PrivilegeError::Refused {
            step,
            source: e.into(),
        }
    };
    let has = kernel::capabilities(None).map_err(refused("read the capabilities"))?;
    if has.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().iter() {
            // Capabilities newer than the kernel are refused and are not there to drop.
            let _ = kernel::remove_capability_from_bounding_set(capability);
        }
    }
    if let Some(user) = user {
        become_user(user)?;
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    kernel::set_capabilities(None, none).map_err(refused("drop capabilities"))?;
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

fn user_in(passwd: &str, name: &str) -> Option<User> {
    let mut lines = passwd.lines().map(|line| line.split(':'));
    let mut fields = lines.find_map(|mut fields| (fields.next()? == name).then_some(fields))?;
    Some(User {
        user: fields.nth(1)?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
    })
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
    }

    #[test]
    fn no_capability_is_left() {
        // On a thread of its own: capabilities are a thread's, and it ends with the test.
        let left = std::thread::spawn(|| {
            drop_to(None).unwrap();
            rustix::thread::capabilities(None).unwrap()
        });
        let left = left.join().unwrap();
        assert!(left.permitted.is_empty() && left.effective.is_empty());
        assert!(left.inheritable.is_empty());
    }
}
