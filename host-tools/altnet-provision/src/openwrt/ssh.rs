//! A shell on another machine, by this computer's own `ssh`: its keys, its known hosts, its questions.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use tempfile::TempDir;

use crate::{Error, Result};

/// How many bytes of a machine's answer are read.
const MOST_ANSWER: u64 = 64 << 10;
/// A router that doesn't answer is told so after this, in seconds.
const CONNECT_SECONDS: u32 = 15;
/// How ssh ends when it isn't the machine's program that failed (ssh(1), exit status).
const SSH_FAILED: i32 = 255;

/// One machine, reached again and again by one connection, so that a password is asked for once.
pub struct Ssh {
    command: Vec<String>,
    host: String,
    /// The socket of that connection.
    shared: TempDir,
}

impl Ssh {
    /// `host` is `[USER@]HOST`, where the user is else root; `command` is `ssh` with options, split at spaces.
    pub fn new(host: &str, command: &str) -> Result<Self> {
        let is_host = !host.is_empty()
            && !host.starts_with('-')
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "@.:-_[]%".contains(c));
        if !is_host {
            return Err(Error::input(
                "that is not the name or address of a router",
                "Give it as in root@192.168.1.1.",
            ));
        }
        let command: Vec<String> = command.split_whitespace().map(Into::into).collect();
        if command.is_empty() {
            return Err(Error::input(
                "--ssh names no program",
                "Give it as in --ssh 'ssh -p 2222'.",
            ));
        }
        let shared = tempfile::Builder::new().prefix("altnet-").tempdir();
        Ok(Self {
            command,
            host: match host.contains('@') {
                true => host.into(),
                false => format!("root@{host}"),
            },
            shared: shared.map_err(Error::io("make", &std::env::temp_dir()))?,
        })
    }

    /// Whom it reaches.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Runs a line of the machine's shell with these bytes as its input; returns what it prints.
    pub fn run(&self, line: &str, input: &[u8]) -> Result<String> {
        let socket = format!("ControlPath={}/s", self.shared.path().display());
        let keeps = [
            "-o",
            "ControlMaster=auto",
            "-o",
            &socket,
            "-o",
            "ControlPersist=600",
        ];
        self.go(&keeps, line, input)
    }

    /// The same by a connection of its own, which shows that the machine still lets one in.
    pub fn run_anew(&self, line: &str) -> Result<String> {
        self.go(
            &["-o", "ControlMaster=no", "-o", "ControlPath=none"],
            line,
            &[],
        )
    }

    /// What the machine says is wrong.
    pub(super) fn fault(&self, what: &str) -> Error {
        Error::Remote {
            what: format!("{}: {what}", self.host),
            next: "Mend that and run the same command again; the router is as it was.".into(),
        }
    }

    /// It was not reached, or no longer: what it did meanwhile isn't known.
    fn unreached(&self, what: &str) -> Error {
        Error::Remote {
            what: format!("{} can't be reached: {what}", self.host),
            next: format!(
                "See whether `ssh {}` works. What the router began it undoes by itself.",
                self.host
            ),
        }
    }

    fn go(&self, options: &[&str], line: &str, input: &[u8]) -> Result<String> {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).args(options);
        command.args(["-o", &format!("ConnectTimeout={CONNECT_SECONDS}")]);
        command.args([
            "-o",
            "ServerAliveInterval=5",
            "-o",
            "ServerAliveCountMax=4",
            "--",
        ]);
        command.args([&self.host, line]);
        // A password is asked for at the terminal, whatever standard input is.
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            self.unreached(&format!("{} can't be started: {error}", self.command[0]))
        })?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (said, fault) = thread::scope(|scope| {
            scope.spawn(move || {
                // Who hangs up before it has read everything says why by its exit code.
                if let Some(mut pipe) = stdin {
                    let _ = pipe.write_all(input);
                }
            });
            let fault = scope.spawn(move || drained(stderr));
            (drained(stdout), fault.join().unwrap_or_default())
        });
        let status = child.wait();
        match status {
            Ok(status) if status.success() => Ok(said),
            _ => {
                let last = fault.lines().rev().find(|line| !line.trim().is_empty());
                let last: String = last
                    .unwrap_or("it said nothing")
                    .chars()
                    .filter(|c| !c.is_control())
                    .collect();
                // Whatever is wrong before the machine's shell has the line.
                Err(
                    match status.is_ok_and(|status| status.code() == Some(SSH_FAILED)) {
                        true => self.unreached(&last),
                        false => self.fault(&last),
                    },
                )
            }
        }
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let socket = format!("ControlPath={}/s", self.shared.path().display());
        // It ends by itself too, after a while.
        let _ = Command::new(&self.command[0])
            .args(&self.command[1..])
            .args(["-o", &socket, "-O", "exit", "--", &self.host])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// All that comes, of which the beginning is kept.
fn drained(pipe: Option<impl Read>) -> String {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        // What breaks off is judged by the exit code.
        let _ = pipe.by_ref().take(MOST_ANSWER).read_to_end(&mut kept);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    }
    String::from_utf8_lossy(&kept).into_owned()
}
