//! The command that claims a box.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use altnet_claim::key::Fingerprint;
use altnet_provision::claim::find;
use altnet_wire::id::{Name, SiteId};
use altnet_wire::record::Roles;
use clap::Args;

use super::FirstBootArgs;
use super::{duration, endpoint, name, role, site, spoken};

/// Which box, and what it gets.
#[derive(Args)]
#[command(group(clap::ArgGroup::new("who").required(true).args(["name", "bundle", "list"])))]
pub struct ClaimArgs {
    /// Where the box is, as in 192.168.1.1 or fe80::1%eth0 [default: look for it on every LAN of this computer]
    #[arg(value_parser = address)]
    pub address: Option<SocketAddr>,
    /// List the boxes that are found, and claim none
    #[arg(long, conflicts_with = "address")]
    pub list: bool,
    /// The fingerprint of the box's key, as its console shows it: no other box is claimed
    #[arg(long, value_name = "FINGERPRINT", value_parser = fingerprint)]
    pub fingerprint: Option<Fingerprint>,
    /// Read the box's code from this file [default: $ALTNET_CLAIM_CODE, else ask]
    #[arg(long, value_name = "FILE")]
    pub code_file: Option<PathBuf>,
    /// How long to wait until it is a member
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub wait: Duration,
    /// Its name in the network; a bundle is made for it
    #[arg(long, value_name = "NAME", value_parser = name, conflicts_with = "bundle", help_heading = "Who it becomes")]
    pub name: Option<Name>,
    /// A role of the box; repeat for several
    #[arg(long = "role", value_name = "ROLE", value_parser = role(), requires = "name", help_heading = "Who it becomes")]
    pub roles: Vec<Roles>,
    /// Its site, 0 to 32767 [default: for a gateway the next that is free]
    #[arg(long, value_name = "N", value_parser = site, requires = "name", help_heading = "Who it becomes")]
    pub site: Option<SiteId>,
    /// Whose it is
    #[arg(long, value_name = "NAME", value_parser = name, requires = "name", help_heading = "Who it becomes")]
    pub person: Option<Name>,
    /// A group that it is in; repeat for several
    #[arg(long = "group", value_name = "NAME", value_parser = name, requires = "name", help_heading = "Who it becomes")]
    pub groups: Vec<Name>,
    /// Let it countersign invites, so that devices can join while this computer is off
    #[arg(long, requires = "name", help_heading = "Who it becomes")]
    pub admit: bool,
    /// Where the internet reaches it over UDP; repeat for several
    #[arg(long = "endpoint", value_name = "IP:PORT", value_parser = endpoint, requires = "name", help_heading = "Who it becomes")]
    pub endpoints: Vec<SocketAddr>,
    /// What it is given besides.
    #[command(flatten)]
    pub files: FirstBootArgs,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    spoken(find::address(text))
}

fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    Fingerprint::parse(text)
        .ok_or_else(|| "a fingerprint is five groups of four digits and letters from a to f".into())
}
