//! `altnet reset`: this box as it was when it was new. The next boot does it (`linux-image/root/usr/sbin/altnet-reset`);
//! here it is only asked for.

use std::io::{self, BufRead, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

const GOES: &str = "\
This box will be as it was when it was new. What goes:
  - its identity: keys, membership of its network, apps and their keys, names, logins, the audit log
  - altnet.toml, the box's name, the owner's release keys, what the router kept, kept crashes
  - which releases are refused as too old, beyond what the release that runs refuses itself
  - files for its first boot that it hasn't taken
What stays: the releases in both slots, which of them is booted, and everything on the card's first partition.
It is wiped at the next boot. What a card keeps behind what it shows can't be overwritten: if the box goes to others, also
run `altnet-provision revoke` for it on your computer.
";

/// The words of `altnet reset`.
#[derive(Debug, Args)]
pub(super) struct Reset {
    /// Don't ask.
    #[arg(long)]
    yes: bool,
    /// Leave it to the next boot, rather than boot now.
    #[arg(long)]
    no_reboot: bool,
    /// Take back what was asked for and isn't done yet.
    #[arg(long, conflicts_with_all = ["yes", "no_reboot"])]
    cancel: bool,
}

/// Programs of the box's.
pub(super) struct Programs {
    reset: PathBuf,
    reboot: PathBuf,
}

impl Programs {
    /// As they are on an image.
    pub(super) fn real() -> Self {
        Self {
            reset: "/usr/sbin/altnet-reset".into(),
            reboot: "/sbin/reboot".into(),
        }
    }
}

impl Reset {
    /// Asks, and has the next boot do it.
    ///
    /// # Errors
    /// Texts that say why nothing was asked for, or that a person has to boot the box.
    pub(super) fn run(
        &self,
        programs: &Programs,
        json: bool,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let stdin = io::stdin();
        let answers = stdin.is_terminal().then(|| stdin.lock());
        self.answered(programs, answers, json, out)
    }

    /// The same, with what a person types, if there is one.
    fn answered(
        &self,
        programs: &Programs,
        answers: Option<impl BufRead>,
        json: bool,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        anyhow::ensure!(
            programs.reset.exists(),
            "this is not an altnet image: there is no {}. Elsewhere `altnet leave --yes` forgets this node's keys",
            programs.reset.display()
        );
        if self.cancel {
            asked(&programs.reset, "unmark")?;
            return say(json, out, json!({ "reset": "none" }), "nothing is wiped\n");
        }
        if !json {
            write!(out, "{GOES}")?;
        }
        if !self.yes {
            let mut answers = answers
                .context("nobody is there to be asked; run `altnet reset --yes` if it is meant")?;
            write!(out, "Type yes to wipe it: ")?;
            out.flush()?;
            let mut line = String::new();
            answers.read_line(&mut line)?;
            anyhow::ensure!(line.trim() == "yes", "nothing is wiped");
        }
        asked(&programs.reset, "mark")?;
        let said = json!({ "reset": "next-boot", "boots_now": !self.no_reboot });
        match self.no_reboot {
            true => say(
                json,
                out,
                said,
                "It is wiped at the next boot; `altnet reset --cancel` takes that back.\n",
            ),
            false => {
                say(json, out, said, "It boots now.\n")?;
                done(Command::new(&programs.reboot), &programs.reboot)
                    .context("the box has to be booted by hand; it is wiped then")
            }
        }
    }
}

fn say(
    json: bool,
    out: &mut impl Write,
    value: serde_json::Value,
    text: &str,
) -> anyhow::Result<()> {
    match json {
        true => writeln!(out, "{value:#}")?,
        false => write!(out, "{text}")?,
    }
    Ok(out.flush()?)
}

fn asked(program: &Path, word: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "only root can do this; run it as root"
    );
    let mut command = Command::new(program);
    command.arg(word);
    done(command, program)
}

/// Runs it to its end; what it says on standard error is why it failed.
fn done(mut command: Command, program: &Path) -> anyhow::Result<()> {
    let output = command
        .output()
        .with_context(|| format!("can't run {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "{}: {}",
        program.display(),
        said.lines().next().unwrap_or("it failed without a word")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Programs that write down that they were called.
    fn programs(home: &Path, code: u8) -> Programs {
        let program = |name: &str, code: u8| {
            let path = home.join(name);
            let calls = home.join("calls").display().to_string();
            let text = format!("echo {name} $* >>{calls}\necho no room >&2\nexit {code}");
            // By another process: what this one had open for writing can't be run while a child that was begun meanwhile has it.
            let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$2\" && chmod 755 \"$2\"";
            let mut command = Command::new("/bin/sh");
            command.args(["-c", write, "sh", &text]).arg(&path);
            assert!(command.status().unwrap().success());
            path
        };
        Programs {
            reset: program("altnet-reset", code),
            reboot: program("reboot", 0),
        }
    }

    fn run(
        reset: &Reset,
        programs: &Programs,
        typed: Option<&str>,
    ) -> (Result<(), String>, String) {
        let mut out = Vec::new();
        let answered = reset.answered(programs, typed.map(str::as_bytes), false, &mut out);
        let answered = answered.map_err(|e| format!("{e:#}"));
        (answered, String::from_utf8(out).unwrap())
    }

    const ASKED: Reset = Reset {
        yes: false,
        no_reboot: false,
        cancel: false,
    };

    #[test]
    fn a_reset_is_asked_for_only_by_yes() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root may ask for a reset");
            return;
        }
        let home = tempfile::tempdir().unwrap();
        let programs = programs(home.path(), 0);
        let calls = || fs::read_to_string(home.path().join("calls")).unwrap_or_default();
        for typed in [Some("y\n"), Some(""), Some("no\n"), None] {
            let (answered, said) = run(&ASKED, &programs, typed);
            assert!(answered.is_err() && said.contains("its identity"), "{said}");
            assert_eq!(calls(), "", "{typed:?}");
        }
        run(&ASKED, &programs, Some("yes\n")).0.unwrap();
        assert_eq!(calls(), "altnet-reset mark\nreboot\n");
        let later = Reset {
            yes: true,
            no_reboot: true,
            cancel: false,
        };
        run(&later, &programs, None).0.unwrap();
        let cancel = Reset {
            cancel: true,
            ..ASKED
        };
        run(&cancel, &programs, None).0.unwrap();
        assert!(calls().ends_with("reboot\naltnet-reset mark\naltnet-reset unmark\n"));
    }

    #[test]
    fn what_fails_is_told_and_the_box_is_not_booted() {
        let home = tempfile::tempdir().unwrap();
        let failing = programs(home.path(), 1);
        let (answered, _) = run(&ASKED, &failing, Some("yes\n"));
        let said = answered.unwrap_err();
        let is_root = rustix::process::geteuid().is_root();
        assert!(
            said.contains(if is_root { "no room" } else { "root" }),
            "{said}"
        );
        let calls = fs::read_to_string(home.path().join("calls")).unwrap_or_default();
        assert!(!calls.contains("reboot"));
        fs::remove_file(&failing.reset).unwrap();
        let (answered, _) = run(&ASKED, &failing, Some("yes\n"));
        assert!(answered.unwrap_err().contains("not an altnet image"));
    }
}
