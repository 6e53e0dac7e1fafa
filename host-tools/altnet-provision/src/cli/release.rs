//! The commands of releases.

use std::path::PathBuf;

use clap::Subcommand;

/// Releases, and the keys that sign them.
#[derive(Subcommand)]
pub enum ReleaseCommand {
    /// Make and show keys that sign releases
    #[command(subcommand)]
    Key(ReleaseKeyCommand),
    /// Make a bundle of a slot's image, signed by one key
    Sign {
        /// What it is, in TOML: board, version, counter, floor, lasts
        description: PathBuf,
        /// The slot's image
        #[arg(long, value_name = "FILE")]
        slot: PathBuf,
        /// The file of the key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Where to write the bundle; nothing may be there yet
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Add another key's signature to a bundle
    Cosign {
        /// The bundle
        bundle: PathBuf,
        /// What must be in it, as you built it yourself
        #[arg(long, value_name = "FILE")]
        slot: Option<PathBuf>,
        /// The file of the key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Where to write the bundle with both; nothing may be there yet
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Say what a bundle is and whose signatures it has
    Show {
        /// The bundle
        bundle: PathBuf,
    },
    /// Judge a bundle as a box would, and look at all of it
    Verify {
        /// The bundle
        bundle: PathBuf,
        /// The release keys, as images pin them
        #[arg(long, value_name = "FILE")]
        keys: PathBuf,
        /// What must be in it
        #[arg(long, value_name = "FILE")]
        slot: Option<PathBuf>,
    },
}

/// Keys that sign releases. They belong to no network.
#[derive(Subcommand)]
pub enum ReleaseKeyCommand {
    /// Make a key, encrypted with a passphrase, and print its public half
    Create {
        /// Where to keep it; nothing may be there yet
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Print the public half of a key
    Show {
        /// The file of the key
        file: PathBuf,
    },
}
