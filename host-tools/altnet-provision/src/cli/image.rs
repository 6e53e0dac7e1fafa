//! The commands of disk images.

use std::path::PathBuf;

use altnet_provision::text;
use altnet_wire::id::Name;
use clap::{Args, Subcommand};

/// Disk images, as `ci/image` makes them.
#[derive(Subcommand)]
pub enum ImageCommand {
    /// Put what a box needs for its first boot into an image; any program can write that to a card
    Customize {
        /// The image: .img or .img.zst
        image: PathBuf,
        /// What is put in.
        #[command(flatten)]
        files: FirstBootArgs,
        /// Make a code that the box is claimed by over its LAN, rather than bring a bundle; it is shown once
        #[arg(long, conflicts_with = "bundle", help_heading = "For the first boot")]
        claim_code: bool,
        /// How large the disk is that it is for, as in 4G; the data then fill it [default: as the
        /// image is]
        #[arg(long, value_name = "SIZE", value_parser = size)]
        size: Option<u64>,
        /// Where to write the image, unpacked; nothing may be there yet
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

/// What a box gets for its first boot.
#[derive(Args)]
#[command(next_help_heading = "For the first boot")]
pub struct FirstBootArgs {
    /// What `bundle` made: the box joins with it by itself
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// The box's altnet.toml; `altnet config check` has to find it good [default: a router]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The box's name on its networks
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub hostname: Option<Name>,
    /// Release keys of your own, whose updates the box takes
    #[arg(long, value_name = "FILE")]
    pub release_keys: Option<PathBuf>,
}

/// How to write an image.
#[derive(Args)]
pub struct FlashArgs {
    /// The image: .img or .img.zst
    #[arg(required_unless_present = "list")]
    pub image: Option<PathBuf>,
    /// The drive to write to, as in /dev/sdb [default: ask]
    #[arg(long, value_name = "DEVICE")]
    pub to: Option<PathBuf>,
    /// List the drives that can be written to, and why others can't
    #[arg(long, conflicts_with_all = ["image", "to", "yes", "bundle", "config", "hostname", "release_keys", "claim_code"])]
    pub list: bool,
    /// Don't ask before everything on the drive is lost
    #[arg(long, requires = "to")]
    pub yes: bool,
    /// What is put in.
    #[command(flatten)]
    pub files: FirstBootArgs,
    /// Make a code that the box is claimed by over its LAN, rather than bring a bundle; it is shown once
    #[arg(long, conflicts_with = "bundle", help_heading = "For the first boot")]
    pub claim_code: bool,
}

fn name(text: &str) -> Result<Name, String> {
    text.parse::<Name>().map_err(|error| error.to_string())
}

fn size(text: &str) -> Result<u64, String> {
    super::spoken(text::size(text))
}
