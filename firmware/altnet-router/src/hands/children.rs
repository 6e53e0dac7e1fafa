//! Programs that run for the router: started, asked to end, ended, and told of when they end by themselves.
//!
//! When one is started again is for [`crate::machine`]. A child has no terminal and no input; what it says
//! goes to the log, a line at a time, behind its name.
//!
//! Children outlive an `altnet-routerd` that is killed, so that the house is served meanwhile. Which they are is noted
//! beside its sockets, and the next one ends them before it starts its own ([`end_leftovers`]).

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::files::{self, Kept};

/// The longest line of a child that is logged whole, in bytes.
const MAX_LINE_BYTES: usize = 512;
/// Where it is noted which run: a line each, the process's number and when it began.
const NOTES: &str = "children";
const MAX_NOTES_BYTES: u64 = 16 * 1024;
/// How many lines of children wait to be heard; more are logged alone.
const MAX_UNHEARD: usize = 64;
/// How long leftovers have to end by themselves.
const LEFTOVERS_PATIENCE: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A child that ended.
#[derive(Debug)]
pub struct Ended {
    /// Its name.
    pub name: String,
    /// Which of that name, as [`Children::start`] counted.
    pub number: u64,
    /// How, for people.
    pub how: String,
}

/// A line of a child's.
#[derive(Debug)]
pub struct Said {
    /// Its name.
    pub name: String,
    /// The line.
    pub line: String,
}

/// What runs.
#[derive(Debug)]
pub struct Children {
    running: BTreeMap<String, Running>,
    notes: PathBuf,
    started: u64,
    ended: mpsc::UnboundedSender<Ended>,
    said: mpsc::Sender<Said>,
}

#[derive(Debug)]
struct Running {
    pid: Pid,
    number: u64,
}

impl Children {
    /// None yet; which run is noted in `directory`. Each that ends is told of at the other end of the first channel, which
    /// holds no more than there are children, and what they say at the other end of the second.
    pub fn new(directory: &Path) -> (Self, mpsc::UnboundedReceiver<Ended>, mpsc::Receiver<Said>) {
        let (ended, told) = mpsc::unbounded_channel();
        let (said, heard) = mpsc::channel(MAX_UNHEARD);
        let children = Self {
            running: BTreeMap::new(),
            notes: directory.join(NOTES),
            started: 0,
            ended,
            said,
        };
        (children, told, heard)
    }

    /// Starts a child called `name`, in `directory`. Must be within a [`tokio::task::LocalSet`].
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::AlreadyExists`] if one of that name runs.
    pub fn start(
        &mut self,
        name: &str,
        program: &Path,
        arguments: &[String],
        directory: &Path,
    ) -> io::Result<()> {
        if self.running.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut child = spawn(program, arguments, directory)?;
        let id = child.id();
        if let Some(Err(e)) = id.map(altnet_service::memory::give_way) {
            altnet_service::debug!("{name} may outlive the router when memory is used up: {e}");
        }
        let pid = id.and_then(|id| i32::try_from(id).ok());
        let pid = pid.and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        self.started += 1;
        let number = self.started;
        self.running.insert(name.into(), Running { pid, number });
        self.note();
        if let Some(said) = child.stdout.take() {
            tokio::task::spawn_local(log_lines(name.to_owned(), said, self.said.clone()));
        }
        if let Some(said) = child.stderr.take() {
            tokio::task::spawn_local(log_lines(name.to_owned(), said, self.said.clone()));
        }
        let (name, ended) = (name.to_owned(), self.ended.clone());
        tokio::task::spawn_local(async move {
            let how = match child.wait().await {
                Ok(status) => described(status),
                Err(e) => e.to_string(),
            };
            let _ = ended.send(Ended { name, number, how });
        });
        Ok(())
    }

    /// Sends a child a signal; to one that doesn't run it does nothing.
    pub fn signal(&self, name: &str, signal: Signal) {
        if let Some(running) = self.running.get(name) {
            // Its group: whatever it started ends with it. One that ended isn't waited for yet, so the
            // number is still its own.
            let sent = rustix::process::kill_process_group(running.pid, signal);
            if let Err(e) = sent {
                altnet_service::debug!("{name} could not be told to end: {e}");
            }
        }
    }

    /// Forgets a child that ended. Returns whether it was the one that runs.
    pub fn forget(&mut self, ended: &Ended) -> bool {
        let is_it = self
            .running
            .get(&ended.name)
            .is_some_and(|running| running.number == ended.number);
        if is_it {
            self.running.remove(&ended.name);
            self.note();
        }
        is_it
    }

    /// Notes which run, for a router that comes after one that was killed.
    fn note(&self) {
        let running = self.running.values();
        let lines = running.filter_map(|running| {
            let born = born(running.pid)?;
            Some(format!("{} {born}\n", running.pid.as_raw_nonzero()))
        });
        let text: String = lines.collect();
        let written = files::replace(&self.notes, files::PRIVATE, text.as_bytes(), Kept::InMemory);
        if let Err(e) = written {
            altnet_service::warning!("{} can't be written: {e}", self.notes.display());
        }
    }

    /// The process ids by name.
    pub fn pids(&self) -> impl Iterator<Item = (&str, i32)> {
        let running = self.running.iter();
        running.map(|(name, running)| (name.as_str(), running.pid.as_raw_nonzero().get()))
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}

/// Ends what a router left that was killed, and waits for it to be gone.
///
/// # Errors
/// What the file system says of the notes.
pub fn end_leftovers(directory: &Path) -> io::Result<()> {
    let notes = directory.join(NOTES);
    let text = files::read(&notes, MAX_NOTES_BYTES)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let noted = text.lines().filter_map(|line| {
        let (pid, born) = line.split_once(' ')?;
        Some((Pid::from_raw(pid.parse().ok()?)?, born.parse().ok()?))
    });
    // A number that somebody else has by now was born later.
    let mut left: Vec<(Pid, u64)> = noted
        .filter(|(pid, then)| born(*pid) == Some(*then))
        .collect();
    let ends = Instant::now() + LEFTOVERS_PATIENCE;
    for signal in [Signal::TERM, Signal::KILL] {
        for (pid, _) in &left {
            let _ = rustix::process::kill_process_group(*pid, signal);
        }
        while !left.is_empty() && (signal == Signal::KILL || Instant::now() < ends) {
            std::thread::sleep(LOOK_AGAIN);
            left.retain(|(pid, then)| born(*pid) == Some(*then));
        }
    }
    files::remove(&notes)
}

/// When a process began, in clock ticks since boot (proc(5), field 22 of stat); nothing if it is gone.
fn born(pid: Pid) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // Behind the name, which may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let is_gone = matches!(fields.next()?, "Z" | "X");
    fields.nth(18)?.parse().ok().filter(|_| !is_gone)
}

fn spawn(program: &Path, arguments: &[String], directory: &Path) -> io::Result<Child> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    #[allow(
        unsafe_code,
        reason = "nothing else runs in a child before its program does"
    )]
    command.spawn()
}

fn described(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Logs what a child says, and passes it on as far as there is room.
async fn log_lines(name: String, mut from: impl AsyncRead + Unpin, to: mpsc::Sender<Said>) {
    let mut chunk = [0; 1024];
    let mut lines = Lines::default();
    let hear = |line: &str| {
        altnet_service::info!("{name}: {line}");
        let (name, line) = (name.clone(), line.to_owned());
        let _ = to.try_send(Said { name, line });
    };
    while let Ok(len) = from.read(&mut chunk).await {
        let said = chunk.get(..len).unwrap_or(&[]);
        if said.is_empty() {
            break;
        }
        lines.push(said, hear);
    }
    lines.end(hear);
}

/// Bytes cut into lines of at most [`MAX_LINE_BYTES`]; what is behind that is left out.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for byte in bytes {
            match byte {
                b'\n' => self.end(&mut line),
                _ if self.0.len() < MAX_LINE_BYTES => self.0.push(*byte),
                _ => {}
            }
        }
    }

    fn end(&mut self, mut line: impl FnMut(&str)) {
        if !self.0.is_empty() {
            line(String::from_utf8_lossy(&self.0).trim_end());
            self.0.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::LocalSet;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(LocalSet::new().run_until(test));
    }

    fn shell(script: &str) -> [String; 2] {
        ["-c".into(), script.into()]
    }

    #[test]
    fn lines_are_cut_and_bounded() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        let long = "x".repeat(10 * MAX_LINE_BYTES);
        for bytes in ["a", "b\n\nc\n", &long, "\nd"] {
            lines.push(bytes.as_bytes(), |line| seen.push(line.to_owned()));
        }
        lines.end(|line| seen.push(line.to_owned()));
        assert_eq!(seen, ["ab", "c", &long[..MAX_LINE_BYTES], "d"]);
    }

    #[test]
    fn a_child_goes_before_the_router_when_memory_is_used_up() {
        run(async {
            let home = tempfile::tempdir().unwrap();
            let (mut children, mut told, _said) = Children::new(home.path());
            let root = Path::new("/");
            children
                .start("one", Path::new("/bin/sleep"), &["60".into()], root)
                .unwrap();
            let (_, pid) = children.pids().next().unwrap();
            let score = |pid: &str| {
                let text = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
                text.trim().parse::<i32>().unwrap()
            };
            assert!(score(&pid.to_string()) > score("self"));
            children.signal("one", Signal::KILL);
            children.forget(&told.recv().await.unwrap());
        });
    }

    #[test]
    fn a_child_that_ends_is_told_of_with_its_reason() {
        run(async {
            let home = tempfile::tempdir().unwrap();
            let (mut children, mut told, mut heard) = Children::new(home.path());
            let shell = shell("echo it is said; exit 3");
            let root = Path::new("/");
            children
                .start("one", Path::new("/bin/sh"), &shell, root)
                .unwrap();
            let ended = told.recv().await.unwrap();
            assert_eq!(
                (ended.name.as_str(), ended.how.as_str()),
                ("one", "exit code 3")
            );
            assert!(children.forget(&ended) && children.is_empty());
            let said = heard.recv().await.unwrap();
            assert_eq!(
                (said.name.as_str(), said.line.as_str()),
                ("one", "it is said")
            );
        });
    }

    #[test]
    fn a_child_ends_with_all_that_it_started() {
        run(async {
            let home = tempfile::tempdir().unwrap();
            let (mut children, mut told, _) = Children::new(home.path());
            let shell =
                shell("sleep 600 & echo $! >grandchild.new; mv grandchild.new grandchild; wait");
            let start = |children: &mut Children| {
                children.start("one", Path::new("/bin/sh"), &shell, home.path())
            };
            start(&mut children).unwrap();
            assert_eq!(
                start(&mut children).unwrap_err().kind(),
                io::ErrorKind::AlreadyExists
            );
            let noted = home.path().join("grandchild");
            while !noted.exists() {
                tokio::task::yield_now().await;
            }
            let grandchild = std::fs::read_to_string(noted).unwrap();
            children.signal("one", Signal::TERM);
            let ended = told.recv().await.unwrap();
            assert_eq!(ended.how, "signal 15");
            let state = format!("/proc/{}/stat", grandchild.trim());
            let is_gone = || {
                let stat = std::fs::read_to_string(&state);
                stat.map_or(true, |stat| stat.contains(") Z "))
            };
            while !is_gone() {
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn what_a_killed_router_left_is_ended_and_a_stranger_with_its_number_is_not() {
        run(async {
            let home = tempfile::tempdir().unwrap();
            let (mut children, mut told, _) = Children::new(home.path());
            let sleep = ["600".to_owned()];
            for name in ["one", "other"] {
                let program = Path::new("sleep");
                children.start(name, program, &sleep, home.path()).unwrap();
            }
            // As if the number of one had gone to somebody who began later.
            let notes = home.path().join(NOTES);
            let text = std::fs::read_to_string(&notes).unwrap();
            let (first, rest) = text.split_once('\n').unwrap();
            std::fs::write(&notes, format!("{first}0\n{rest}nonsense\n")).unwrap();
            end_leftovers(home.path()).unwrap();
            let ended = told.recv().await.unwrap();
            assert_eq!(
                (ended.name.as_str(), ended.how.as_str()),
                ("other", "signal 15")
            );
            assert!(children.forget(&ended));
            let strangers: Vec<&str> = children.pids().map(|(name, _)| name).collect();
            assert_eq!(strangers, ["one"]);
            children.signal("one", Signal::KILL);
            assert_eq!(told.recv().await.unwrap().how, "signal 9");
        });
    }

    #[test]
    fn an_older_one_that_ends_late_is_not_the_one_that_runs() {
        let home = tempfile::tempdir().unwrap();
        let (mut children, ..) = Children::new(home.path());
        let pid = Pid::from_raw(1).unwrap();
        children
            .running
            .insert("one".into(), Running { pid, number: 2 });
        let ended = |number| Ended {
            name: "one".into(),
            number,
            how: String::new(),
        };
        assert!(!children.forget(&ended(1)));
        assert!(children.forget(&ended(2)));
    }
}
