//! The kernel's side of a plan: what is there is compared with what has to be, and the difference is changed.
//!
//! What is a plan's is known by marks that outlive this process: made interfaces and used ports by their alias,
//! addresses and routes by their protocol number, rules by that and their range of priorities. What has no mark is let be.
//!
//! The ruleset comes before anything that could carry a packet. If it is refused, nothing else is changed: what was
//! filtered before goes on being so, and what wasn't there isn't reached.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;

use super::netlink::Netlink;
use crate::machine::{Applied, LinkFact};
use crate::plan::{LinkKind, Plan};

mod addresses;
mod links;
mod queues;
mod routes;

/// Changes made to the kernel, and what it says.
#[derive(Debug)]
pub struct Kernel {
    netlink: Netlink,
    /// The ruleset that the kernel has of us, as far as we know.
    ruleset: Option<String>,
}

impl Kernel {
    /// Opens it. Changes need CAP_NET_ADMIN.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            netlink: Netlink::open()?,
            ruleset: None,
        })
    }

    /// The interfaces that are there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn links(&mut self) -> io::Result<Vec<LinkFact>> {
        let found = links::read(&mut self.netlink)?;
        Ok(found.iter().map(links::Found::fact).collect())
    }

    /// Has the kernel match a plan, as far as that goes; says what didn't.
    pub fn apply(&mut self, plan: &Plan, now: Duration) -> Applied {
        let mut troubles = Vec::new();
        links::make(&mut self.netlink, &plan.links, &mut troubles);
        if self.ruleset.as_ref() != Some(&plan.ruleset) {
            // A refusal may come after somebody else flushed everything: then it is tried again.
            self.ruleset = None;
            if let Err(e) = nft(&["-f", "-"], &plan.ruleset) {
                return Applied {
                    refused: Some(e.to_string()),
                    troubles,
                };
            }
            self.ruleset = Some(plan.ruleset.clone());
        }
        for (path, text) in &plan.sysctls {
            if let Err(e) = set(path, text) {
                troubles.push(format!("can't set {path} to {text}: {e}"));
            }
        }
        links::settle(&mut self.netlink, &plan.links, &mut troubles);
        let indexes = match links::read(&mut self.netlink) {
            Ok(found) => Indexes::new(&found, plan),
            Err(e) => {
                troubles.push(format!("can't list interfaces: {e}"));
                return Applied {
                    refused: None,
                    troubles,
                };
            }
        };
        addresses::apply(
            &mut self.netlink,
            &plan.addresses,
            &indexes,
            now,
            &mut troubles,
        );
        routes::apply(&mut self.netlink, plan, &indexes, &mut troubles);
        queues::apply(&mut self.netlink, &plan.queues, &indexes, &mut troubles);
        Applied {
            refused: None,
            troubles,
        }
    }

    /// The ruleset may be another than the one that was loaded: somebody changed what it stands on.
    pub fn doubt_ruleset(&mut self) {
        self.ruleset = None;
    }
}

/// Whether an announcement says that something went that a plan had put there: an address, a route, or a rule of the
/// routing policy.
pub fn is_taken(announced: &RouteNetlinkMessage) -> bool {
    match announced {
        RouteNetlinkMessage::DelAddress(address) => addresses::is_ours(address),
        RouteNetlinkMessage::DelRoute(route) => routes::is_ours(route),
        RouteNetlinkMessage::DelRule(rule) => routes::is_our_rule(rule),
        _ => false,
    }
}

/// The numbers of interfaces.
#[derive(Debug, Default)]
struct Indexes {
    numbers: BTreeMap<String, u32>,
    /// Those that a child makes when it likes: that one isn't there is no trouble.
    childs: Vec<String>,
}

impl Indexes {
    fn new(found: &[links::Found], plan: &Plan) -> Self {
        let numbers = found.iter().map(|link| (link.name.clone(), link.index));
        let childs = plan
            .links
            .iter()
            .filter(|link| link.kind == LinkKind::Childs);
        Self {
            numbers: numbers.collect(),
            childs: childs.map(|link| link.name.clone()).collect(),
        }
    }

    /// The number of an interface; a missing one is a trouble unless a child makes it.
    fn find(&self, name: &str, what: &str, troubles: &mut Vec<String>) -> Option<u32> {
        let found = self.numbers.get(name).copied();
        if found.is_none() && !self.childs.iter().any(|child| child == name) {
            troubles.push(format!("{what}: there is no interface {name}"));
        }
        found
    }
}

/// Has `nft` look whether the kernel would take a ruleset, and changes nothing.
///
/// # Errors
/// What `nft` says.
pub fn check_ruleset(ruleset: &str) -> io::Result<()> {
    nft(&["-c", "-f", "-"], ruleset)
}

/// Whether the kernel has flow tables.
pub fn has_flow_tables() -> bool {
    // The loopback is always there, and nothing is made of this.
    const PROBE: &str = "table inet altnet_probe { flowtable f { hook ingress priority filter; devices = { lo }; }; }";
    check_ruleset(PROBE).is_ok()
}

fn nft(arguments: &[&str], script: &str) -> io::Result<()> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("nft can't be run: {e}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // That it didn't read to the end is said better by its exit.
        let _ = stdin.write_all(script.as_bytes());
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or("it said nothing");
    Err(io::Error::other(format!("nft: {first}")))
}

/// Writes a setting unless it is so. One that belongs to an interface that isn't there is none yet.
fn set(path: &str, text: &str) -> io::Result<()> {
    let full = Path::new("/proc/sys").join(path);
    match fs::read_to_string(&full) {
        Ok(found) if found.trim_end() == text => return Ok(()),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound && may_be_missing(path) => return Ok(()),
        Err(e) => return Err(e),
    }
    fs::write(full, text)
}

/// Whether a setting is one of a single interface (`net/ipv4/conf/NAME/..`, `net/ipv6/neigh/NAME/..`), or of a part of
/// the kernel that not every one has.
fn may_be_missing(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["net", "bridge", _] => true,
        ["net", "ipv4" | "ipv6", "conf" | "neigh", name, _] => *name != "all" && *name != "default",
        _ => false,
    }
}

#[cfg(test)]
mod tests;
