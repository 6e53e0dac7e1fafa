//! The command for a box in rescue.

use std::path::PathBuf;

use altnet_provision::rescue::ADDRESS;
use clap::Args;

/// What is asked of a box in rescue.
#[derive(Args)]
pub struct RescueArgs {
    /// Where it is, if not where a box in rescue is on its LAN's ports; a link-local address works too: fe80::1%eth0
    #[arg(default_value = ADDRESS)]
    pub address: String,
    /// The release to install: a bundle for its board that is signed by keys it takes. Without one the box is only asked how it is
    #[arg(short, long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
}
