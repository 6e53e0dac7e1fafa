//! What can be typed: the commands and their options.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use altnet_provision::text;
use altnet_wire::id::{Name, SigningKey, SiteId};
use altnet_wire::record::{Rights, Roles};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

mod claim;
mod image;
mod openwrt;
mod release;
mod rescue;

pub use claim::ClaimArgs;
pub use image::{FirstBootArgs, FlashArgs, ImageCommand};
pub use openwrt::{OpenwrtCommand, OpenwrtInstallArgs};
pub use release::{ReleaseCommand, ReleaseKeyCommand};
pub use rescue::RescueArgs;

/// Networks, identities, invites, first-boot bundles and backups.
///
/// A network needs one reachable relay and directory: a box with a public address, or behind a
/// router with a forwarded UDP port.
#[derive(Parser)]
#[command(name = "altnet-provision", version, max_term_width = 100)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Where networks are kept [default: $ALTNET_HOME, else ~/.config/altnet]
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Which network; needed only if there are several here
    #[arg(long, global = true, value_name = "NAME", value_parser = name)]
    pub network: Option<Name>,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Don't speak with the network's directory; changes stay pending until `publish`
    #[arg(long, global = true)]
    pub offline: bool,
    /// Read the passphrase from this file [default: $ALTNET_PASSPHRASE, else ask]
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Make, show and rename networks, and change their owners
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Lend a part of an owner's power to another key
    #[command(subcommand)]
    Issuer(IssuerCommand),
    /// Let devices in
    #[command(subcommand)]
    Invite(InviteCommand),
    /// List the members
    Members {
        /// Each below who brought it in
        #[arg(long)]
        tree: bool,
    },
    /// Name machines on a site's LAN
    #[command(subcommand)]
    Host(HostCommand),
    /// Say who may reach what
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Give apps certificates that browsers trust
    #[command(subcommand)]
    Tls(TlsCommand),
    /// Make and sign the releases that boxes install
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// Prepare disk images for boxes
    #[command(subcommand)]
    Image(ImageCommand),
    /// Write an image to a card or drive, with what its box needs for the first boot
    Flash(Box<FlashArgs>),
    /// Install altnet on OpenWrt routers
    #[command(subcommand)]
    Openwrt(OpenwrtCommand),
    /// Give a box on this LAN, which has no bundle, what it needs: it is found by itself, and asks for its code
    Claim(Box<ClaimArgs>),
    /// Ask a box that can't boot what is wrong with it, and bring it a release
    Rescue(RescueArgs),
    /// End a membership, a device key or an issuer
    Revoke(RevokeArgs),
    /// Make the first-boot file of a device
    Bundle(Box<BundleArgs>),
    /// Write everything about the network, keys too, to one encrypted file
    Backup {
        /// Where to write it; nothing may be there yet
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Bring a network back from a backup
    Restore {
        /// The backup
        file: PathBuf,
        /// Call the network otherwise than it was called
        #[arg(long, value_name = "NAME", value_parser = name)]
        name: Option<Name>,
    },
    /// Hand pending changes to the network's directory
    Publish,
    /// Fetch what the network has come to from its directory
    Sync,
    /// Check files and keys, and say what the network lacks
    Doctor,
    /// Change the passphrase of the keys
    Passphrase {
        /// Read the new passphrase from this file [default: $ALTNET_NEW_PASSPHRASE, else ask]
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
    },
    /// Print a shell's completion script
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Networks.
#[derive(Subcommand)]
pub enum NetworkCommand {
    /// Make a network; its recovery key is shown once
    Create {
        /// What to call it: machines are then NAME-OF-MACHINE.NAME.alt
        #[arg(value_parser = name)]
        name: Name,
    },
    /// List the networks on this computer
    List,
    /// Show a network
    Show,
    /// Call a network otherwise on this computer; its id and addresses stay
    Rename {
        /// The new name
        #[arg(value_parser = name)]
        name: Name,
    },
    /// Change who owns the network
    #[command(subcommand)]
    Owner(OwnerCommand),
    /// Write what another owner's computer needs to join in: records, no keys
    Share {
        /// Where to write it; nothing may be there yet
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

/// Owners.
#[derive(Subcommand)]
pub enum OwnerCommand {
    /// List the owners; with the passphrase also which of them is this computer
    List,
    /// Make an owner key on this computer for a network that another owner will add it to
    Key,
    /// Add an owner by the key that `owner key` printed on the other computer
    Add {
        /// The other owner's key
        key: SigningKey,
    },
    /// Join in on this computer after another owner added its key
    Adopt {
        /// What `network share` wrote on the other computer
        file: PathBuf,
        /// What to call the network here
        #[arg(long, value_name = "NAME", value_parser = name)]
        name: Option<Name>,
    },
    /// Remove an owner
    Remove {
        /// The owner's key
        key: SigningKey,
    },
    /// Put a new owner key of this computer in the place of a lost one, with the recovery key
    Recover(RecoverArgs),
}

/// How to recover.
#[derive(Args)]
pub struct RecoverArgs {
    /// The owner key that was lost, for instance of a stolen computer; needed only if there are
    /// several owners
    #[arg(long, value_name = "KEY")]
    pub lost: Vec<SigningKey>,
    /// Read the recovery key from this file [default: ask]
    #[arg(long, value_name = "FILE")]
    pub recovery_key_file: Option<PathBuf>,
    /// On a new computer: where the network can be entered
    #[arg(long, value_name = "IP:PORT", value_parser = endpoint)]
    pub endpoint: Option<SocketAddr>,
}

/// Issuers.
#[derive(Subcommand)]
pub enum IssuerCommand {
    /// Certify an issuer key
    Add {
        /// What to call it
        #[arg(value_parser = name)]
        name: Name,
        /// The key, made where it will be used
        #[arg(long, value_name = "KEY")]
        key: SigningKey,
        /// What it may sign; repeat for several
        #[arg(long = "right", value_name = "RIGHT", value_parser = right(), default_value = "admit")]
        rights: Vec<Rights>,
        /// Roles it may give; repeat for several [default: all]
        #[arg(long = "role", value_name = "ROLE", value_parser = role())]
        roles: Vec<Roles>,
        /// The only site it may give or name hosts in [default: all]
        #[arg(long, value_name = "N", value_parser = site)]
        site: Option<SiteId>,
        /// When the certificate ends
        #[arg(long, value_name = "DURATION", default_value = "520w", value_parser = duration)]
        expires: std::time::Duration,
    },
    /// List the issuers
    List,
}

/// Invites.
#[derive(Subcommand)]
pub enum InviteCommand {
    /// Print a link that lets a device in, and draw it as a QR code
    Create(Box<InviteArgs>),
    /// List the invites
    List,
    /// End an invite
    Revoke {
        /// Its key, the beginning of its key, or the name it was made for
        invite: String,
    },
}

/// What an invite gives.
#[derive(Args)]
pub struct InviteArgs {
    /// The device's name [default: the device chooses]
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub name: Option<Name>,
    /// Whose the device is
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub person: Option<Name>,
    /// A group that the device is in; repeat for several
    #[arg(long = "group", value_name = "NAME", value_parser = name)]
    pub groups: Vec<Name>,
    /// The member that invites: revoking it asks about those it invited
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub sponsor: Option<Name>,
    /// A role of the device; repeat for several
    #[arg(long = "role", value_name = "ROLE", value_parser = role())]
    pub roles: Vec<Roles>,
    /// The device's site, 0 to 32767 [default: for a gateway the next that is free]
    #[arg(long, value_name = "N", value_parser = site)]
    pub site: Option<SiteId>,
    /// How many devices may use it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub uses: u16,
    /// How long it is good for, as in 12h or 7d
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = duration)]
    pub expires: std::time::Duration,
    /// Another place where the network can be entered, if none is known here
    #[arg(long = "endpoint", value_name = "IP:PORT", value_parser = endpoint)]
    pub endpoints: Vec<SocketAddr>,
    /// Print the link alone
    #[arg(long)]
    pub no_qr: bool,
}

/// Hosts.
#[derive(Subcommand)]
pub enum HostCommand {
    /// Name a machine, by its address or its MAC address
    #[command(group(clap::ArgGroup::new("place").required(true).args(["address", "mac"])))]
    Add {
        /// Its name
        #[arg(value_parser = name)]
        name: Name,
        /// The site whose LAN it is on
        #[arg(long, value_name = "N", value_parser = site)]
        site: SiteId,
        /// Its address in the site's /64
        #[arg(long, value_name = "ADDRESS")]
        address: Option<Ipv6Addr>,
        /// Its MAC address, if it makes its address from that (RFC 4291 appendix A)
        #[arg(long, value_name = "MAC", value_parser = mac)]
        mac: Option<[u8; 6]>,
    },
    /// List the named machines
    List,
    /// Give up a name
    Remove {
        /// The name
        #[arg(value_parser = name)]
        name: Name,
        /// The site; needed only if the name is used in several
        #[arg(long, value_name = "N", value_parser = site)]
        site: Option<SiteId>,
    },
}

/// Policies. What no rule allows is refused.
#[derive(Subcommand)]
pub enum PolicyCommand {
    /// Print the policy in force as text
    Show {
        /// One that was in force before, by its serial
        serial: Option<u64>,
    },
    /// Edit the policy with $VISUAL or $EDITOR, and put it in force
    Edit {
        /// Don't ask before it is signed
        #[arg(long)]
        yes: bool,
    },
    /// Check a policy's text; every fault is told with its line
    Check {
        /// The text, - for standard input [default: policy.toml in the network's directory]
        file: Option<PathBuf>,
    },
    /// Show who would gain and lose what
    Plan {
        /// The text, - for standard input [default: policy.toml in the network's directory]
        file: Option<PathBuf>,
    },
    /// Sign a policy and put it in force
    Publish {
        /// The text, - for standard input [default: policy.toml in the network's directory]
        file: Option<PathBuf>,
        /// Don't ask before it is signed
        #[arg(long)]
        yes: bool,
    },
    /// List the policies that were in force
    History,
    /// Put a policy in force again that was before
    Revert {
        /// Its serial, as `policy history` lists it
        serial: u64,
        /// Don't ask before it is signed
        #[arg(long)]
        yes: bool,
    },
}

/// Certificates for TLS, by an authority of the network's own.
#[derive(Subcommand)]
pub enum TlsCommand {
    /// Make the network's authority; it can certify names of this network alone
    Create {
        /// Make another in the place of the one there is; devices must be told to trust it
        #[arg(long)]
        replace: bool,
    },
    /// Show the authority: its fingerprint, and the certificate that devices are to trust
    Show {
        /// Write the certificate to this file; nothing may be there yet
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// List what devices ask certificates for
    List,
    /// Sign what devices ask for, and what ends within 60 days
    Sign {
        /// Only these; as `tls list` names them [default: all]
        #[arg(value_name = "NAME", value_parser = name)]
        names: Vec<Name>,
        /// Don't ask before it is signed
        #[arg(long)]
        yes: bool,
    },
}

/// What ends.
#[derive(Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["member", "device", "issuer"])))]
pub struct RevokeArgs {
    /// The member's name or id
    pub member: Option<String>,
    /// A device key, rather than a member with all its devices
    #[arg(long, value_name = "KEY")]
    pub device: Option<SigningKey>,
    /// An issuer key
    #[arg(long, value_name = "KEY")]
    pub issuer: Option<SigningKey>,
    /// Why, for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// Revoke what it invited as well
    #[arg(long)]
    pub with_invited: bool,
    /// Don't ask; what it invited stays unless --with-invited is given
    #[arg(long)]
    pub yes: bool,
}

/// What a bundle brings.
#[derive(Args)]
pub struct BundleArgs {
    /// The device's name
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub name: Name,
    /// A role of the device; repeat for several
    #[arg(long = "role", value_name = "ROLE", value_parser = role())]
    pub roles: Vec<Roles>,
    /// The device's site, 0 to 32767 [default: for a gateway the next that is free]
    #[arg(long, value_name = "N", value_parser = site)]
    pub site: Option<SiteId>,
    /// Whose the device is
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub person: Option<Name>,
    /// A group that the device is in; repeat for several
    #[arg(long = "group", value_name = "NAME", value_parser = name)]
    pub groups: Vec<Name>,
    /// Let it countersign invites, so that devices can join while this computer is off
    #[arg(long)]
    pub admit: bool,
    /// Where the internet reaches the device over UDP; repeat for several
    #[arg(long = "endpoint", value_name = "IP:PORT", value_parser = endpoint)]
    pub endpoints: Vec<SocketAddr>,
    /// How long the device may take to be booted first
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = duration)]
    pub expires: std::time::Duration,
    /// Where to write the file; nothing may be there yet
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

fn name(text: &str) -> Result<Name, String> {
    text.parse::<Name>().map_err(|error| error.to_string())
}

fn site(text: &str) -> Result<SiteId, String> {
    text.parse()
        .ok()
        .and_then(SiteId::new)
        .ok_or_else(|| "a site is a number from 0 to 32767".into())
}

fn spoken<T>(result: altnet_provision::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{error}. {}", error.next_step()))
}

fn endpoint(text: &str) -> Result<SocketAddr, String> {
    spoken(text::endpoint(text))
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    spoken(text::duration(text))
}

// A shell completes possible values; the library's own sentences name them too.
fn role() -> impl TypedValueParser<Value = Roles> {
    let names = text::ROLES.map(|(name, _)| name);
    PossibleValuesParser::new(names).try_map(|text| text::role(&text))
}

fn right() -> impl TypedValueParser<Value = Rights> {
    let names = text::RIGHTS.map(|(name, _)| name);
    PossibleValuesParser::new(names).try_map(|text| text::right(&text))
}

fn mac(text: &str) -> Result<[u8; 6], String> {
    spoken(text::mac(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }
}
