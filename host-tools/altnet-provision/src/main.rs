//! `altnet-provision`: the library at a terminal.
//!
//! Results go to standard output, everything else (notes, questions, the QR code) to standard
//! error, so that `altnet-provision invite create ... > link` does what it seems to. A failure is
//! one sentence and what to do next, exit code 1; with `--json` both are one JSON object. What
//! is no command at all ends with exit code 2.
#![forbid(unsafe_code)]

mod act;
mod ask;
mod cli;
mod say;

use std::process::ExitCode;

use clap::Parser;

use cli::Cli;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return say::misused(&error, std::env::args_os().any(|a| a == "--json")),
    };
    let json = cli.global.json;
    match act::act(cli) {
        Ok(report) => report.print(json),
        Err(error) => {
            say::failure(&error, json);
            ExitCode::FAILURE
        }
    }
}
