//! The command line of `altnet-setup`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use altnet_service::log::{self, Level};
use altnet_service::privileges::{self, CapabilitySet};
use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};

use crate::hands::{self, Tools};
use crate::kept::Places;
use crate::offer::{Offer, Stage};
use crate::serve::{self, Setting, Sockets};

/// Offers a box that is in no network on its LAN, for ten minutes after power-on, to who has its code.
#[derive(Debug, Parser)]
#[command(
    name = "altnet-setup",
    version,
    disable_help_subcommand = true,
    max_term_width = 100
)]
struct Arguments {
    /// How much is logged.
    #[arg(long, global = true, value_name = "LEVEL", default_value = "info")]
    log: Level,
    #[command(subcommand)]
    command: Word,
}

#[derive(Debug, Subcommand)]
enum Word {
    /// Offer the box until it is a member. Ends with 0 then.
    Run(Run),
    /// Keep the key and take files, for the process that `run` becomes.
    #[command(hide = true)]
    Hands(Hands),
}

#[derive(Debug, Args)]
struct Run {
    /// An interface of the LAN, on which the box is offered and on no other; repeat for several.
    #[arg(long, value_name = "INTERFACE", required = true)]
    lan: Vec<String>,
    /// The user without privileges that offers it.
    #[arg(long, value_name = "NAME", default_value = "altnet-setup")]
    user: String,
    /// The box's description of its image; `board` and `version` of it are shown.
    #[arg(long, value_name = "FILE", default_value = "/etc/altnet/release")]
    release: PathBuf,
    /// When the ten minutes began, in seconds since the kernel did.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    began: u64,
    #[command(flatten)]
    hands: Hands,
}

#[derive(Debug, Args)]
struct Hands {
    /// Where the box's key, its code and the number of tries are kept until it is a member.
    #[arg(long, value_name = "DIR", default_value = "/data/etc")]
    etc: PathBuf,
    /// A directory that is empty when the power comes on.
    #[arg(long, value_name = "DIR", default_value = "/run/altnet-setup")]
    run_directory: PathBuf,
    /// The program that takes the files of a first boot.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/usr/sbin/altnet-first-boot"
    )]
    first_boot: PathBuf,
    /// Where to show how the box is claimed, and its code if it made one; repeat for several.
    #[arg(long = "console", value_name = "FILE")]
    consoles: Vec<PathBuf>,
}

/// Runs the command line of this process. Says what went wrong on standard error and returns 1 if something did.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log::set_level(arguments.log);
    let done = match &arguments.command {
        Word::Run(run) => offer(run, arguments.log),
        Word::Hands(hands) => hands::work(
            &tools(hands),
            &mut io::stdin().lock(),
            &mut io::stdout().lock(),
        ),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("altnet-setup: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn tools(hands: &Hands) -> Tools {
    Tools {
        places: Places {
            etc: hands.etc.clone(),
            run: hands.run_directory.clone(),
        },
        first_boot: hands.first_boot.clone(),
        consoles: hands.consoles.clone(),
    }
}

fn offer(run: &Run, level: Level) -> Result<()> {
    let user = privileges::find_user(&run.user)?;
    let (board, version) = described(&run.release);
    // All that takes privileges comes first.
    let sockets: Result<Vec<Sockets>> = run.lan.iter().map(|lan| Sockets::open(lan)).collect();
    let sockets = sockets?;
    let mut child = helper(run, level)?;
    let (to, from) = (child.stdin.take(), child.stdout.take());
    let (to, mut from) = to.zip(from).context("the other process has no pipes")?;
    privileges::drop_to(Some(&user), CapabilitySet::empty())?;
    let (secret, code, tries) = serve::ready(&mut from)?;
    let offer = Offer {
        key: secret.public(),
        board,
        version,
        tries: crate::pipe::heard(tries),
        stage: Stage::Waits,
        began: Duration::from_secs(run.began),
    };
    serve::run(
        Setting {
            secret,
            code,
            offer,
            pipes: (to, from),
        },
        sockets,
    )
}

/// Starts the process that stays root.
fn helper(run: &Run, level: Level) -> Result<Child> {
    let own = std::env::current_exe().context("can't find this program")?;
    let mut command = Command::new(own);
    let level = format!("{level:?}").to_lowercase();
    command.args(["--log", &level, "hands"]);
    for (option, value) in [
        ("--etc", &run.hands.etc),
        ("--run-directory", &run.hands.run_directory),
        ("--first-boot", &run.hands.first_boot),
    ] {
        command.arg(option).arg(value);
    }
    for console in &run.hands.consoles {
        command.arg("--console").arg(console);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().context("can't start the other process")
}

/// Board and version, as far as they are written there. The image's builder writes a line for each; a parser of TOML would be an eighth of this program.
fn described(release: &Path) -> (String, String) {
    let text = std::fs::read_to_string(release).unwrap_or_default();
    let said = |key: &str| {
        let value = |line: &str| {
            let value = line.strip_prefix(key)?.strip_prefix(" = \"")?;
            value.strip_suffix('"').map(str::to_owned)
        };
        text.lines().find_map(value)
    };
    let known = |said: Option<String>| said.unwrap_or_else(|| "unknown".into());
    (known(said("board")), known(said("version")))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_words_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_box_says_what_its_image_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("release");
        std::fs::write(
            &file,
            "product = \"altnet\"\nboard = \"rpi\"\nversion = \"v1\"\n",
        )
        .unwrap();
        assert_eq!(described(&file), ("rpi".into(), "v1".into()));
        assert_eq!(described(&folder.path().join("absent")).0, "unknown");
    }
}
