//! The command line of `altnet-rescue`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, ExitCode};
use std::time::Duration;

use altnet_service::privileges::{self, CapabilitySet, PrivilegeError};
use altnet_update::appliance::{Appliance, Error, Places};
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::button::{self, Inputs};
use crate::page::Facts;
use crate::serve::{End, Server};

/// Where input devices are.
const INPUTS: &str = "/dev/input";
/// The program that has the next boot wipe the box.
const RESET: &str = "altnet-reset";
/// Of exit codes: the box is wiped at the next boot.
const EXIT_RESET: u8 = 3;
/// A button that is held at power-on is seen this soon, and then has to stay so.
const FIRST: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(1);

/// Help for a box that can't boot, over the LAN and by its button.
#[derive(Debug, Parser)]
#[command(name = "altnet-rescue", version, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the page of a box that routes nothing, and take a release. Ends with 0 once one is installed, with 3 if the box is to be wiped.
    Serve {
        /// Why the box is here, for people.
        #[arg(long)]
        why: String,
        /// A person asked for it, so the slot is as good as it was: it has its tries back.
        #[arg(long)]
        asked_for: bool,
        /// Where the page is.
        #[arg(long, value_name = "ADDRESS", default_value = "[::]:80")]
        listen: SocketAddr,
        /// The code of the key that is the board's button.
        #[arg(long, value_name = "CODE")]
        key: Option<u16>,
        /// Where the box's files are, if not below /; its disks may be files there.
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
    },
    /// Serve a page that says what a box has lost that serves its house all the same.
    Notice {
        /// What it has lost, for people.
        #[arg(long)]
        why: String,
        /// Where the page is.
        #[arg(long, value_name = "ADDRESS", default_value = "[::]:80")]
        listen: SocketAddr,
        /// Who to be once the page is served.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// Where the box's files are, if not below /.
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
    },
    /// Whether the button is held right now, as when a box is switched on: ends with 0 if it is.
    Held {
        /// The code of the key that is the board's button.
        #[arg(long, value_name = "CODE")]
        key: u16,
    },
    /// Wait until the button was held for ten seconds; then have the next boot wipe the box, and end with 3.
    Button {
        /// The code of the key that is the board's button.
        #[arg(long, value_name = "CODE")]
        key: u16,
    },
    /// A completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The box.
    #[error("{0}. {hint}", hint = .0.next_step())]
    Appliance(#[from] Error),
    /// The page can't be served.
    #[error("no page can be served at {at}: {source}. Is something else there?")]
    Listen {
        /// Where.
        at: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The reset can't be asked for.
    #[error("the box can't be told to wipe itself: {0}. Write its card anew.")]
    Reset(String),
    /// It can't become another user.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// Something that no person can do anything about.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("altnet-rescue: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve {
            why,
            asked_for,
            listen,
            key,
            root,
        } => {
            let appliance = Appliance::open(Places::under(root))?.in_rescue();
            if asked_for {
                // A disk that can't be written is no reason not to serve.
                if let Err(e) = appliance.came_up() {
                    eprintln!("altnet-rescue: the slot's tries can't be given back: {e}");
                }
            }
            let facts = facts(&appliance, why, true, key.is_some());
            let server = Server::new(facts, Some(appliance));
            let end = server.serve(bound(listen)?, |end| match key {
                None => Ok(()),
                Some(key) => std::thread::Builder::new()
                    .spawn(move || {
                        if let Err(e) = reset_when_held(key) {
                            eprintln!("altnet-rescue: {e}");
                        } else {
                            let _ = end.send(End::Reset);
                        }
                    })
                    .map(drop),
            })?;
            Ok(match end {
                End::Installed => ExitCode::SUCCESS,
                End::Reset => EXIT_RESET.into(),
            })
        }
        Command::Notice {
            why,
            listen,
            user,
            root,
        } => {
            let appliance = Appliance::open(Places::under(root))?;
            let facts = facts(&appliance, why, false, false);
            let listener = bound(listen)?;
            if let Some(user) = user {
                let user = privileges::find_user(&user)?;
                privileges::drop_to(Some(&user), CapabilitySet::empty())?;
            }
            Server::new(facts, None).serve(listener, |_| Ok(()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Held { key } => {
            let mut inputs = Inputs::new(Path::new(INPUTS));
            Ok(match button::is_held(&mut inputs, key, FIRST, LONG) {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            })
        }
        Command::Button { key } => {
            reset_when_held(key)?;
            Ok(EXIT_RESET.into())
        }
        Command::Completion { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "altnet-rescue", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn facts(appliance: &Appliance, why: String, is_rescue: bool, has_button: bool) -> Facts {
    let image = appliance.image();
    Facts {
        board: image.board.to_string(),
        version: image.version.to_string(),
        slot: appliance.running().to_string(),
        why,
        is_rescue,
        has_button,
    }
}

fn bound(at: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(at).map_err(|source| Failure::Listen { at, source })
}

/// Waits for the button, and has the next boot wipe the box.
fn reset_when_held(key: u16) -> Result<(), Failure> {
    let mut told = 0;
    button::until_held(&mut Inputs::new(Path::new(INPUTS)), key, |held| {
        let seconds = held.map_or(0, |held| held.as_secs());
        // Said to who looks at the console: letting go ends it.
        if seconds >= 3 && seconds != told {
            let left = button::RESET.as_secs().saturating_sub(seconds);
            eprintln!(
                "altnet-rescue: the button is held; in {left} s everything on this box is wiped"
            );
        }
        told = seconds;
    });
    let said = Process::new(RESET)
        .arg("mark")
        .output()
        .map_err(|e| Failure::Reset(format!("{RESET}: {e}")))?;
    match said.status.success() {
        true => Ok(()),
        false => Err(Failure::Reset(
            String::from_utf8_lossy(&said.stderr).trim().to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_consistent() {
        Arguments::command().debug_assert();
    }
}
