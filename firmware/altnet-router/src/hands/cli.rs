//! The command line of `altnet-routerd`.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use altnet_service::log::{self, Level};
use altnet_service::privileges;
use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::control::{self, Question};
use super::trial::MAX_BYTES;
use super::{hook, run};
use crate::board::Ports;

/// Where the router's sockets are unless somebody says otherwise.
pub const DEFAULT_RUN: &str = "/run/altnet-router";

/// The router of a house: addresses, firewall, and other people's daemons, by [router] of altnet.toml.
#[derive(Debug, Parser)]
#[command(name = "altnet-routerd", version)]
struct Arguments {
    /// The directory of the router's sockets.
    #[arg(long, global = true, value_name = "DIR", default_value = DEFAULT_RUN)]
    run_directory: PathBuf,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the router until it is told to end.
    Run(Run),
    #[command(flatten)]
    Asked(Asked),
    /// Tell the router what a daemon called its script for. For dhcpcd's and pppd's scripts.
    #[command(disable_help_flag = true)]
    Hook {
        /// Whose script it is: dhcpcd or pppd.
        by: String,
        /// What the script was given; of pppd, the script's name first.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// A completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What is asked of the router that runs.
#[derive(Debug, Subcommand)]
pub enum Asked {
    /// The router at a glance.
    Status,
    /// What works now of what a house needs: the internet, names, the private network, the house's side. Always JSON.
    Look,
    /// What there is to carry out now: links, addresses, routes, the ruleset, daemons. Always JSON.
    Plan,
    /// Whether a whole file is a good one for the router that runs. Changes nothing.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Put a whole file on trial. Unless it is confirmed, the one before is in force again after 90 s.
    Apply {
        /// The file.
        file: PathBuf,
    },
    /// The file on trial is good: it is the one in force from now on.
    Confirm,
    /// The file on trial isn't good: the one before is in force again.
    Revert,
}

#[derive(Debug, Args)]
struct Run {
    /// The file whose [router] is in force.
    #[arg(long, value_name = "FILE", default_value = "/etc/altnet/altnet.toml")]
    config: PathBuf,
    /// The board's ports, as `{"wan":"eth0","lan":["eth1","eth2"]}`.
    #[arg(long, value_name = "JSON", conflicts_with = "board")]
    ports: Option<String>,
    /// A board.toml, whose [ports] are the board's.
    #[arg(long, value_name = "FILE")]
    board: Option<PathBuf>,
    /// The directory of what is kept over a reboot.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/altnet-router")]
    state_directory: PathBuf,
    /// The group that may use the router as root may.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// The hardware's watchdog to feed, as /dev/watchdog. Without one none is.
    #[arg(long, value_name = "DEVICE")]
    watchdog: Option<PathBuf>,
    /// Where the files of a box with slots are, if not below /.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// How much is logged.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: Level,
}

/// What the router reads of a board.toml.
#[derive(Debug, Deserialize)]
struct Board {
    ports: Ports,
}

/// Runs a command. Says on standard error why it failed, and returns 1 then.
pub fn main() -> ExitCode {
    match act(&Arguments::parse(), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("altnet-routerd: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<()> {
    match &arguments.command {
        Command::Run(run) => begin(run, &arguments.run_directory),
        Command::Hook { by, words } => {
            let words = words.iter().map(|word| word.to_string_lossy().into_owned());
            let words: Vec<String> = words.collect();
            let directory = arguments.run_directory.display();
            hook::tell(&arguments.run_directory, by, &words)
                .with_context(|| format!("the router in {directory} can't be told"))
        }
        Command::Completion { shell } => {
            clap_complete::generate(*shell, &mut Arguments::command(), "altnet-routerd", out);
            Ok(())
        }
        Command::Asked(asked) => Asking {
            run_directory: &arguments.run_directory,
            json: arguments.json,
            confirm: "altnet-routerd confirm",
        }
        .ask(asked, out)
        .map(drop),
    }
}

/// How the router that runs is asked.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The directory of its sockets.
    pub run_directory: &'a Path,
    /// Whether JSON is printed.
    pub json: bool,
    /// The command by which a file on trial is confirmed.
    pub confirm: &'a str,
}

impl Asking<'_> {
    /// Asks, and prints the answer. Returns whether a file on trial was kept.
    ///
    /// # Errors
    /// Texts that say what happened and what to do next.
    pub fn ask(self, asked: &Asked, out: &mut impl Write) -> anyhow::Result<bool> {
        let question = match asked {
            Asked::Status => Question::Status {},
            Asked::Look => Question::Look {},
            Asked::Plan => Question::Plan {},
            Asked::Check { file } => Question::Check { text: read(file)? },
            Asked::Apply { file } => Question::Apply { text: read(file)? },
            Asked::Confirm => Question::Confirm {},
            Asked::Revert => Question::Revert {},
        };
        let answer = self.put(question)?;
        match asked {
            Asked::Look | Asked::Plan => writeln!(out, "{answer:#}")?,
            _ if self.json => writeln!(out, "{answer}")?,
            Asked::Status => status(&answer, out)?,
            Asked::Check { .. } => writeln!(out, "The file is a good one.")?,
            Asked::Apply { .. } => return self.confirm_by_hand(&answer, out),
            Asked::Confirm => writeln!(out, "The file is in force.")?,
            Asked::Revert => writeln!(out, "The file before is in force again.")?,
        }
        Ok(matches!(asked, Asked::Confirm))
    }

    fn put(self, question: Question) -> anyhow::Result<Value> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(runtime.block_on(control::ask(self.run_directory, question))?)
    }

    /// Asks on a terminal whether the file on trial is good; elsewhere says how to.
    fn confirm_by_hand(self, answer: &Value, out: &mut impl Write) -> anyhow::Result<bool> {
        let within_s = answer["confirm_within_s"].as_u64().unwrap_or(0);
        for trouble in list(&answer["troubles"]) {
            writeln!(out, "{}", text(trouble))?;
        }
        writeln!(
            out,
            "The file is on trial. Unless it is confirmed within {within_s} s, the one before is in force again."
        )?;
        if !io::stdin().is_terminal() {
            writeln!(out, "Confirm it with: {}", self.confirm)?;
            return Ok(false);
        }
        write!(
            out,
            "Does everything work, and do you still reach this box? Type yes to keep it: "
        )?;
        out.flush()?;
        match line_within(Duration::from_secs(within_s)) {
            Some(line) if line.trim().eq_ignore_ascii_case("yes") => {
                self.put(Question::Confirm {})?;
                writeln!(out, "The file is in force.")?;
                return Ok(true);
            }
            Some(_) => {
                self.put(Question::Revert {})?;
                writeln!(out, "The file before is in force again.")?;
            }
            None => writeln!(out, "\nNobody answered: the file before is in force again.")?,
        }
        Ok(false)
    }
}

fn begin(run: &Run, directory: &Path) -> anyhow::Result<()> {
    log::set_level(run.log);
    let ports = match (&run.ports, &run.board) {
        (Some(json), _) => serde_json::from_str(json).context(
            "--ports is not what it has to be; write it as {\"wan\":\"eth0\",\"lan\":[\"eth1\"]}",
        )?,
        (None, Some(file)) => board(file)?,
        (None, None) => Ports::default(),
    };
    let group = run.group.as_deref().map(|name| {
        privileges::find_group(name)
            .with_context(|| format!("there is no group {name:?}; add it, or leave --group out"))
    });
    run::run(run::Options {
        config: run.config.clone(),
        ports,
        run_directory: directory.to_owned(),
        state_directory: run.state_directory.clone(),
        group: group.transpose()?,
        watchdog: run.watchdog.clone(),
        root: run.root.clone(),
    })
}

fn board(file: &Path) -> anyhow::Result<Ports> {
    let text = fs::read_to_string(file);
    let text = text.with_context(|| format!("can't read {}; name a board.toml", file.display()))?;
    let board: Board = altnet_service::mistake::parse(file, &text)?;
    Ok(board.ports)
}

fn read(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let bytes = super::files::read(file, MAX_BYTES)
        .and_then(|bytes| bytes.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .with_context(|| format!("can't read {}", file.display()))?;
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| anyhow::anyhow!("{} isn't UTF-8 text", file.display()))?;
    Ok(Zeroizing::new(text))
}

/// What somebody types, unless it takes longer. Who reads is left behind, and goes with the process.
fn line_within(patience: Duration) -> Option<String> {
    let (typed, line) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line).is_ok() {
            let _ = typed.send(line);
        }
    });
    line.recv_timeout(patience).ok()
}

fn status(answer: &Value, out: &mut impl Write) -> io::Result<()> {
    if let Some(left_s) = answer["trial_left_s"].as_u64() {
        writeln!(
            out,
            "A file is on trial: {left_s} s are left to confirm it."
        )?;
    }
    for wan in list(&answer["wans"]) {
        let state = match (wan["works"].as_bool(), wan["is_up"].as_bool()) {
            (Some(true), _) => "works",
            (_, Some(true)) => "doesn't work",
            _ => "down",
        };
        let addresses: Vec<&str> = list(&wan["addresses"])
            .map(|one| text(&one["net"]))
            .collect();
        let prefixes: Vec<&str> = list(&wan["prefixes"])
            .map(|one| text(&one["net"]))
            .collect();
        let (name, interface) = (text(&wan["name"]), text(&wan["interface"]));
        writeln!(
            out,
            "{name:<12} {state:<12} {interface}  {}",
            addresses.join(" ")
        )?;
        if !prefixes.is_empty() {
            writeln!(out, "{:<25} prefix {}", "", prefixes.join(" "))?;
        }
    }
    for network in list(&answer["networks"]) {
        let addresses: Vec<&str> = list(&network["addresses"]).map(text).collect();
        let (name, bridge) = (text(&network["name"]), text(&network["bridge"]));
        writeln!(
            out,
            "{name:<12} {:<12} {bridge}  {}",
            "",
            addresses.join(" ")
        )?;
    }
    for child in list(&answer["children"]) {
        let failures = child["failures"].as_u64().unwrap_or(0);
        let often = match failures {
            0 => String::new(),
            times => format!("ended {times} times, last by {}", text(&child["last"])),
        };
        writeln!(
            out,
            "{:<25} {:<6} {often}",
            text(&child["name"]),
            text(&child["state"])
        )?;
    }
    for trouble in list(&answer["troubles"]) {
        writeln!(out, "{}", text(trouble))?;
    }
    Ok(())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_what_they_are_called() {
        Arguments::command().debug_assert();
        let words = [
            "altnet-routerd",
            "hook",
            "pppd",
            "ip-up",
            "ppp-wan",
            "-",
            "0",
        ];
        let parsed = Arguments::try_parse_from(words).unwrap();
        let Command::Hook { by, words } = parsed.command else {
            panic!("it is no hook");
        };
        assert_eq!((by.as_str(), words.len()), ("pppd", 4));
    }

    #[test]
    fn a_board_has_ports_beside_what_else_it_has() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("board.toml");
        fs::write(
            &file,
            "title = \"x\"\n[ports]\nwan = \"eth0\"\nlan = [\"eth1\"]\n[boot]\na = 1\n",
        )
        .unwrap();
        assert_eq!(board(&file).unwrap().wan.as_deref(), Some("eth0"));
    }

    #[test]
    fn a_status_names_what_there_is() {
        let answer = serde_json::json!({
            "trial_left_s": 42,
            "wans": [{"name": "wan", "interface": "eth0", "works": true, "is_up": true,
                "addresses": [{"net": "198.51.100.51/24"}], "prefixes": [{"net": "2001:db8:a00::/56"}]}],
            "networks": [{"name": "lan", "bridge": "br-lan", "addresses": ["192.168.77.1/24"]}],
            "children": [{"name": "dnsmasq", "state": "rests", "failures": 2, "last": "exit code 2"}],
            "troubles": ["can't make the interface eth7: it is not there"],
        });
        let mut said = Vec::new();
        status(&answer, &mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        for expected in [
            "42 s",
            "works",
            "2001:db8:a00::/56",
            "br-lan",
            "2 times",
            "eth7",
        ] {
            assert!(said.contains(expected), "{expected} is not in:\n{said}");
        }
    }
}
