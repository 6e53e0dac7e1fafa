//! The command line of `altnet-update`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use altnet_update::appliance;
use clap::{CommandFactory as _, Parser, Subcommand};
use serde_json::json;

use crate::act::{Act, Failure};
use crate::words::Update;

/// Releases of the box that this runs on: what runs, what there is, and going there and back.
#[derive(Debug, Parser)]
#[command(name = "altnet-update", version, disable_help_subcommand = true)]
pub struct Arguments {
    /// Where the box's files are, if not below /; its disks may be files there.
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Update(Update),
    /// A completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the command line of this process. Says what went wrong on standard error and returns 1 if something did.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads us has read enough.
        Err(Failure::Said(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            let (message, hint) = (e.to_string(), e.next_step());
            if arguments.json {
                let error = json!({ "code": "failed", "message": message, "hint": hint });
                println!("{}", json!({ "error": error }));
            }
            eprintln!("altnet-update: {message}. {hint}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, out: &mut impl Write) -> Result<(), Failure> {
    match &arguments.command {
        Command::Completion { shell } => {
            clap_complete::generate(*shell, &mut Arguments::command(), "altnet-update", out);
            Ok(())
        }
        Command::Update(update) => {
            let places = appliance::Places::under(&arguments.root);
            Act::new(places, arguments.json)?.run(update, out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn completion_knows_the_words() {
        let arguments = Arguments::try_parse_from(["altnet-update", "completion", "bash"]);
        let mut said = Vec::new();
        run(&arguments.unwrap(), &mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("rollback") && said.contains("--no-reboot"));
    }
}
