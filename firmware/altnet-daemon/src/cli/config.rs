//! `altnet config`: the one file, checked whole, and tried on the router before it counts.

use std::io::Write;
use std::path::{Path, PathBuf};

use altnet_router::hands::cli::{Asked, Asking, DEFAULT_RUN};
use anyhow::Context as _;
use clap::Subcommand;

use super::table;
use crate::api::Method;
use crate::api::client::{Client, ClientError};
use crate::api::types::Reloaded;
use crate::config::{Config, DEFAULT_PATH, UCI_PATH};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check a file and print it with every default filled in.
    Check {
        /// The file [default: /etc/altnet/altnet.toml, or with --uci /etc/config/altnet]
        file: Option<PathBuf>,
        /// It is in OpenWrt's format.
        #[arg(long)]
        uci: bool,
    },
    /// Put a whole file on trial on the router that runs here. Unless it is confirmed, the one before is in force again after 90 s.
    Apply {
        /// The file.
        file: PathBuf,
    },
    /// The file on trial is good: it is the one in force from now on.
    Confirm,
    /// The file on trial isn't good: the one before is in force again.
    Revert,
    /// Have altnetd read its file again, as on SIGHUP.
    Reload,
    /// What the router that runs here carries out: links, addresses, routes, firewall, daemons. Always JSON.
    Plan,
}

impl ConfigCommand {
    /// Does it. A file that altnetd would refuse isn't put on trial.
    ///
    /// # Errors
    /// Texts that say what is wrong with the file, or why the router can't be asked.
    pub(super) fn run(
        &self,
        socket: &Path,
        json: bool,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let asked = match self {
            Self::Reload => return reload(socket, json, out),
            Self::Check { file, uci } => return check(file.as_deref(), *uci, json, out),
            Self::Apply { file } => {
                Config::load(file)?;
                Asked::Apply { file: file.clone() }
            }
            Self::Confirm => Asked::Confirm,
            Self::Revert => Asked::Revert,
            Self::Plan => Asked::Plan,
        };
        let is_kept = ask_router(&asked, json, out)?;
        match self {
            Self::Apply { .. } | Self::Confirm if is_kept => told_too(socket, json, out),
            _ => Ok(()),
        }
    }
}

/// Has altnetd read the file in force, which it shares with the router. One that doesn't run reads it when it begins.
fn told_too(socket: &Path, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let told = ask_altnetd(socket);
    match told {
        Ok(reloaded) if !json => write!(out, "{}", table::reloaded(&reloaded))?,
        Ok(_) | Err(ClientError::NotRunning { .. }) => {}
        Err(e) => return Err(e).context("the router has the file, altnetd doesn't"),
    }
    Ok(())
}

fn reload(socket: &Path, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let reloaded = ask_altnetd(socket)?;
    match json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(&reloaded)?)?,
        false => write!(out, "{}", table::reloaded(&reloaded))?,
    }
    Ok(())
}

fn ask_altnetd(socket: &Path) -> Result<Reloaded, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ClientError::Broken)?;
    runtime.block_on(async {
        let mut client = Client::connect(socket).await?;
        client.call(Method::Reload, &serde_json::json!({})).await
    })
}

/// Asks the router that runs here, and prints its answer. Returns whether a file on trial was kept.
///
/// # Errors
/// As [`Asking::ask`].
pub(super) fn ask_router(asked: &Asked, json: bool, out: &mut impl Write) -> anyhow::Result<bool> {
    let asking = Asking {
        run_directory: Path::new(DEFAULT_RUN),
        json,
        confirm: "altnet config confirm",
    };
    asking.ask(asked, out)
}

fn check(file: Option<&Path>, uci: bool, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let file = file.unwrap_or(Path::new(if uci { UCI_PATH } else { DEFAULT_PATH }));
    let config = match uci {
        true => Config::load_uci(file)?,
        false => Config::load(file)?,
    };
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&config)?)?;
    } else {
        writeln!(out, "# {} is good. With every default:", file.display())?;
        write!(out, "{}", toml::to_string(&config)?)?;
    }
    Ok(())
}
