//! What goes over the API about invites that members make, and who brought whom in.

use altnet_core::node::{InviteView, MemberView};
use serde::{Deserialize, Serialize};

/// Parameters of `invite-create`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewInvite {
    /// The device's name; without one the device chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many devices may come in.
    pub uses: u16,
    /// For how many days it is open, at most 30.
    pub days: u16,
}

/// Result of `invite-create`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InviteMade {
    /// What lets a device in. Whoever reads it can come in; it is kept nowhere.
    pub link: String,
    /// The invite's key, by which it is listed and taken back.
    pub invite: String,
    /// The groups that those are in who come in by it.
    pub groups: Vec<String>,
    /// When it ends (RFC 3339).
    pub expires: String,
}

/// Result of `invites`; `invite-revoke` takes as `name` the key of one, the beginning of it, or the
/// name it was made for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invites {
    /// Those that this node made.
    pub invites: Vec<InviteView>,
}

/// Result of `members`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Every one.
    pub members: Vec<MemberView>,
}
