//! What a session that a passkey opened, or that added one, has instead of a directory's handle.

use zeroize::Zeroizing;

/// No directory's handle begins so: those are JSON, base64, empty, or an LDAP name, in which a
/// colon comes after a `=`.
const PREFIX: &str = "passkey:";

/// Stands for somebody who has, or had, passkeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Their user handle.
    pub user: String,
    /// The passkey that it holds with; a session that added one holds without.
    pub passkey: Option<String>,
}

impl Ticket {
    /// Reads a handle; nothing if it is a directory's.
    pub fn parse(handle: &str) -> Option<Self> {
        let rest = handle.strip_prefix(PREFIX)?;
        let (user, passkey) = match rest.split_once(':') {
            Some((user, passkey)) => (user, Some(passkey.into())),
            None => (rest, None),
        };
        Some(Self {
            user: user.into(),
            passkey,
        })
    }

    /// Writes a handle.
    pub fn to_handle(&self) -> Zeroizing<String> {
        let colon = self.passkey.as_ref().map_or("", |_| ":");
        let passkey = self.passkey.as_deref().unwrap_or_default();
        Zeroizing::new(format!("{PREFIX}{}{colon}{passkey}", self.user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(user in "[A-Za-z0-9_-]{1,22}", passkey in proptest::option::of("[0-9a-f]{8}")) {
            let ticket = Ticket { user, passkey };
            prop_assert_eq!(Ticket::parse(&ticket.to_handle()), Some(ticket));
        }
    }

    #[test]
    fn a_directorys_handle_is_no_ticket() {
        for handle in [
            "",
            "{\"refresh\":\"passkey:a\"}",
            "cn=passkey:a,dc=x",
            "MIIB",
        ] {
            assert_eq!(Ticket::parse(handle), None);
        }
    }
}
