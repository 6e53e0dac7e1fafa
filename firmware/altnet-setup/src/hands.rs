//! The process with the privileges: counts tries, keeps the key, and has files taken.
//!
//! It has a pipe to the other process and nothing else that anybody could reach. What comes by it is bounded as what came by
//! the network is; what it can be made to do is what who has the code can do.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use altnet_claim::words::{File, FileName, Inbox, MAX_SAID, ToComputer};
use altnet_service::{error, info};
use anyhow::{Context as _, Result, bail};
use zeroize::Zeroizing;

use crate::kept::{Kept, Places};
use crate::pipe::{self, Answer, Wish};

/// What the hands work with.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Where files are kept.
    pub places: Places,
    /// The program that takes the files of a first boot.
    pub first_boot: PathBuf,
    /// Where the code is shown.
    pub consoles: Vec<PathBuf>,
}

/// Does what the other process asks for, until it is gone or the box is a member.
///
/// # Errors
/// What is kept can't be read or written, or the other process makes no sense.
pub fn work(tools: &Tools, from: &mut impl Read, to: &mut impl Write) -> Result<()> {
    let mut kept = Kept::open(tools.places.clone())?;
    show(&kept, &tools.consoles);
    let ready = Answer::Ready {
        key: Zeroizing::new(*kept.secret.as_bytes()),
        code: kept.code().to_text(),
        tries: pipe::spoken(kept.tries),
    };
    pipe::write(to, &ready)?;
    drop(ready);
    let mut inbox = Inbox::default();
    while let Some(bytes) = pipe::read(from)? {
        match pipe::decode(&bytes)? {
            Wish::Count => {
                // What can't be written down can't be tried.
                let counted = kept.count().unwrap_or_else(|e| {
                    error!("no code may be tried: {e:#}");
                    None
                });
                pipe::write(to, &Answer::Counted(counted.map(pipe::spoken)))?;
            }
            Wish::GiveBack => {
                let tries = kept.give_back()?;
                pipe::write(to, &Answer::Counted(Some(pipe::spoken(tries))))?;
            }
            Wish::Bring(said) => {
                if let Some(files) = inbox.handle(said)? {
                    inbox = Inbox::default();
                    let is_member = take(tools, &files, to)?;
                    // Who asked may be gone.
                    let _ = pipe::write(to, &Answer::Ended);
                    if is_member {
                        return Ok(());
                    }
                }
            }
        }
    }
    Ok(())
}

/// Has the files taken, and says what becomes of them. Whether the box is a member then.
fn take(tools: &Tools, files: &[File], to: &mut impl Write) -> Result<bool> {
    let folder = tools.places.run.join("files");
    match fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("can't empty {}", folder.display()));
        }
        _ => {}
    }
    lay_out(files, &folder).with_context(|| format!("can't write to {}", folder.display()))?;
    let mut child = Command::new(&tools.first_boot)
        .arg("claim")
        .arg(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't run {}", tools.first_boot.display()))?;
    let Some(said) = child.stdout.take() else {
        bail!("{} has no output", tools.first_boot.display());
    };
    let mut is_member = false;
    let mut lines = BufReader::new(said);
    while let Some(line) = line(&mut lines)? {
        info!("{line}");
        let Some(said) = understood(&line) else {
            continue;
        };
        is_member |= matches!(said, ToComputer::Joined { .. });
        // It goes on, whether somebody listens or not.
        let _ = pipe::write(to, &Answer::Said(said));
    }
    let status = child.wait()?;
    if !status.success() {
        info!("{} ended with {status}", tools.first_boot.display());
    }
    Ok(is_member)
}

/// Writes files where nobody else reads them. They are in RAM, and the other program wipes them.
fn lay_out(files: &[File], folder: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)?;
    for file in files {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut out = options.open(folder.join(file.name.as_str()))?;
        out.write_all(&file.bytes)?;
    }
    Ok(())
}

/// The next line, of which the beginning is enough.
fn line(from: &mut impl io::BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let most = MAX_SAID as u64 + 100;
    if from.by_ref().take(most).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    if !bytes.ends_with(b"\n") && bytes.len() as u64 == most {
        from.skip_until(b'\n')?;
    }
    Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned()))
}

/// What a line of `altnet-first-boot` says.
fn understood(line: &str) -> Option<ToComputer> {
    if let Some((name, why)) = line.split_once(" isn't taken: ") {
        let (name, why) = (FileName::parse(name)?, why.into());
        return Some(ToComputer::NotTaken { name, why });
    }
    if let Some(name) = line.strip_suffix(" is taken") {
        let name = FileName::parse(name)?;
        return Some(ToComputer::Taken { name });
    }
    if let Some(why) = line.strip_prefix("hasn't joined yet: ") {
        return Some(ToComputer::Waits { why: why.into() });
    }
    if let Some(why) = line.strip_prefix("can't join: ") {
        return Some(ToComputer::Failed { why: why.into() });
    }
    if let Some(name) = line.strip_prefix("joined as ") {
        return Some(ToComputer::Joined { name: name.into() });
    }
    match line {
        "all has its place" => Some(ToComputer::AllTaken),
        "services begin again" => Some(ToComputer::Restarts),
        _ if line.starts_with("is a member already") => Some(ToComputer::Joined {
            name: String::new(),
        }),
        _ => None,
    }
}

/// Shows on the consoles how to claim the box, and the code if nobody has it yet. That is the only place where it is shown.
fn show(kept: &Kept, consoles: &[PathBuf]) {
    let code = match kept.shown_code() {
        Some(code) => format!("the code {}", *code.to_text()),
        None => "the code that its disk was written with".into(),
    };
    let fingerprint = kept.secret.public().fingerprint();
    let said = Zeroizing::new(format!(
        "altnet: to be claimed with `altnet-provision claim` on its LAN, by {code}; its key is {fingerprint}\n"
    ));
    for console in consoles {
        let written = OpenOptions::new()
            .append(true)
            .open(console)
            .and_then(|mut out| out.write_all(said.as_bytes()));
        if let Err(e) = written {
            info!("nothing can be shown on {}: {e}", console.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use altnet_claim::words::ToBox;

    use super::*;

    #[test]
    fn lines_of_the_script_are_understood() {
        let why = String::from;
        let name = FileName::Config;
        for (line, said) in [
            ("altnet.toml is taken", Some(ToComputer::Taken { name })),
            (
                "altnet.toml isn't taken: it is empty",
                Some(ToComputer::NotTaken {
                    name,
                    why: why("it is empty"),
                }),
            ),
            ("all has its place", Some(ToComputer::AllTaken)),
            ("services begin again", Some(ToComputer::Restarts)),
            (
                "hasn't joined yet: nobody",
                Some(ToComputer::Waits { why: why("nobody") }),
            ),
            (
                "can't join: no",
                Some(ToComputer::Failed { why: why("no") }),
            ),
            (
                "joined as house-a",
                Some(ToComputer::Joined {
                    name: why("house-a"),
                }),
            ),
            ("passwd is taken", None),
            ("what else", None),
        ] {
            assert_eq!(understood(line), said, "{line}");
        }
    }

    #[test]
    fn a_line_without_an_end_costs_no_memory() {
        let text = [vec![b'x'; 1 << 20], b"\nnext\n".to_vec()].concat();
        let mut from = BufReader::new(&text[..]);
        assert_eq!(line(&mut from).unwrap().unwrap().len(), MAX_SAID + 100);
        assert_eq!(line(&mut from).unwrap().as_deref(), Some("next"));
        assert_eq!(line(&mut from).unwrap(), None);
    }

    /// What the hands answer to wishes, with a script in the place of `altnet-first-boot`.
    fn answers(script: &str, wishes: &[Wish<'_>]) -> (tempfile::TempDir, Vec<Answer>) {
        let folder = tempfile::tempdir().unwrap();
        let first_boot = folder.path().join("first-boot");
        fs::write(&first_boot, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&first_boot, fs::Permissions::from_mode(0o755)).unwrap();
        let console = folder.path().join("console");
        fs::write(&console, "").unwrap();
        let tools = Tools {
            places: Places {
                etc: folder.path().into(),
                run: folder.path().join("run"),
            },
            first_boot,
            consoles: vec![folder.path().join("absent"), console],
        };
        let from: Vec<u8> = wishes
            .iter()
            .flat_map(|wish| pipe::encode(wish).unwrap().to_vec())
            .collect();
        let mut to = Vec::new();
        work(&tools, &mut &from[..], &mut to).unwrap();
        let mut said = &to[..];
        let mut answers = Vec::new();
        while let Some(bytes) = pipe::read(&mut said).unwrap() {
            answers.push(pipe::decode(&bytes).unwrap());
        }
        (folder, answers)
    }

    #[test]
    fn files_are_the_script_s_alone_and_its_words_are_passed_on() {
        let files = [
            Wish::Bring(ToBox::File {
                name: FileName::Hostname,
                bytes: 2,
            }),
            Wish::Bring(ToBox::Part(b"a\n")),
            Wish::Bring(ToBox::Take),
        ];
        let script = "[ $1 = claim ] && echo \"$(stat -c %a $2 $2/hostname | tr '\\n' ' ')\" >$(dirname $0)/modes\necho hostname is taken\necho all has its place\necho joined as $(cat $2/hostname)";
        let (folder, said) = answers(script, &files);
        assert_eq!(
            fs::read_to_string(folder.path().join("modes"))
                .unwrap()
                .trim(),
            "700 600"
        );
        let said: Vec<ToComputer> = said
            .into_iter()
            .filter_map(|answer| match answer {
                Answer::Said(said) => Some(said),
                _ => None,
            })
            .collect();
        let name = FileName::Hostname;
        assert_eq!(
            said,
            [
                ToComputer::Taken { name },
                ToComputer::AllTaken,
                ToComputer::Joined { name: "a".into() }
            ]
        );
    }

    #[test]
    fn tries_are_counted_and_the_code_is_on_the_console_alone() {
        let mut wishes: Vec<Wish<'_>> = (0..6).map(|_| Wish::Count).collect();
        wishes.push(Wish::GiveBack);
        let (folder, said) = answers("", &wishes);
        let counted: Vec<_> = said
            .iter()
            .filter_map(|answer| match answer {
                Answer::Counted(tries) => Some(*tries),
                _ => None,
            })
            .collect();
        assert_eq!(counted[4..], [Some((5, 5)), None, Some((4, 4))]);
        let Answer::Ready { code, .. } = &said[0] else {
            panic!("another answer")
        };
        let console = fs::read_to_string(folder.path().join("console")).unwrap();
        assert!(console.contains(code.as_str()), "{console}");
    }
}
