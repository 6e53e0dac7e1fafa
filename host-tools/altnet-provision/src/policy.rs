//! Who may reach what, as an owner writes it: one readable file, and its way into a signed record
//! and back.
//!
//! In: the text of a policy, the records that say who there is, the time. Out: the body of a
//! policy record ([`compile()`]), the text of one ([`write()`]), what a new one would change
//! ([`Plan`]), or every fault of the text with its line and what to do about it.
//!
//! It promises that what it compiles can be signed and put to work by every node, and that
//! compiling what it wrote gives the same body. It does not sign: that is
//! [`crate::network::Network::publish_policy`].

mod compile;
mod fault;
mod history;
mod named;
mod plan;
mod source;
mod words;
mod write;
mod zone;

pub use compile::{Compiled, compile};
pub use fault::{Fault, Faults};
pub(crate) use history::{History, Kept, is_policy_file};
pub(crate) use named::missing;
pub use plan::{Allowed, Changed, Plan};
pub use source::Source;
pub use write::write;

/// The text of a network's first policy: equal in meaning to
/// [`altnet_core::policy::Draft::members_to_hosts`].
pub const STARTER: &str = r#"# Who may reach what. What no rule allows is refused.
# Change it, see what would come of it with `altnet-provision policy plan`, and put it in force with
# `altnet-provision policy publish`.

[[rules]]
name = "members-to-hosts"
from = ["members"]           # every device of the network, and every machine behind a gateway
to = ["hosts", "apps"]       # every machine with a name, every app
services = ["any"]

# Take the # away to use what follows:
#
# timezone = "Europe/Berlin"             # for hours; stands before the rules, as does:
# stale_after = "7d"                     # after so long without word from an issuer, rules with
#                                        # needs_fresh = true are closed
# [sites]                                # names for the numbers of sites
# home = 1
#
# [groups]
# family = ["person:ann", "site:home"]   # person, device, site, host or app
#
# [domains]                              # names of machines and apps; * stands for any letters
# media = ["jellyfin", "media-*"]
#
# [profiles.guests]                      # what holds for the group guests, whatever rules say:
# only_named = true                      # rules for all members or a site don't count for them
# hours = ["Mon-Fri 14:00-19:30"]        # and nothing is allowed at other times
#
# [[logins]]                             # whose login page counts, and for whom
# at = ["site:home"]                     # gateways: device, site or group
# of = ["person:ann", "group:guests"]    # persons, groups to count them in; members: every person
#
# [[sponsors]]                           # members who may bring others in
# who = ["group:family"]                 # device, person, group or members
# most = 3                               # so many each at a time
# depth = 1                              # and those bring in nobody
# groups = ["guests"]                    # which those are in
#
# [[rules]]
# name = "family-to-media"
# from = ["group:family"]
# to = ["domain:media"]
# services = ["tcp/80", "tcp/443", "udp/5000-5100", "ping"]
# hours = ["Sat,Sun 08:00-20:00"]
"#;
