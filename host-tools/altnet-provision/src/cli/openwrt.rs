//! The commands of OpenWrt routers.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// OpenWrt routers, over SSH.
#[derive(Subcommand)]
pub enum OpenwrtCommand {
    /// Install altnet's package on a router, or a newer one; the router undoes it by itself unless it works
    Install(OpenwrtInstallArgs),
}

/// What to install where.
#[derive(Args)]
pub struct OpenwrtInstallArgs {
    /// The router, as in 192.168.1.1 or root@router
    pub host: String,
    /// Packages that `linux-image/openwrt/build` made; the one for the router is taken
    #[arg(required = true)]
    pub packages: Vec<PathBuf>,
    /// Say whether it could be installed, and stop there
    #[arg(long)]
    pub check: bool,
    /// Don't ask before it is installed
    #[arg(long)]
    pub yes: bool,
    /// How long the router waits, once it is installed, before it undoes what nobody confirmed
    #[arg(long, value_name = "DURATION", default_value = "3m", value_parser = super::duration)]
    pub patience: std::time::Duration,
    /// How to run ssh, as in 'ssh -p 2222'
    #[arg(long, value_name = "COMMAND", default_value = "ssh")]
    pub ssh: String,
}
