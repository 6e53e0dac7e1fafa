//! Programs that run for the router: started, asked to end, ended, and told of when they end by themselves.
//!
//! When one is started again is for [`crate::machine`]. A child has no terminal and no input; what it says
//! goes to the log, a line at a time, behind its name. It goes with `altnet-routerd`, also when that is killed.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// The longest line of a child that is logged whole, in bytes.
const MAX_LINE_BYTES: usize = 512;

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

/// What runs.
#[derive(Debug)]
pub struct Children {
    running: BTreeMap<String, Running>,
    started: u64,
    ended: mpsc::UnboundedSender<Ended>,
}

#[derive(Debug)]
struct Running {
    pid: Pid,
    number: u64,
}

impl Children {
    /// None yet. Each that ends is told of at the other end of the channel, which holds no more than
    /// there are children.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Ended>) {
        let (ended, told) = mpsc::unbounded_channel();
        let children = Self {
            running: BTreeMap::new(),
            started: 0,
            ended,
        };
        (children, told)
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
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        let pid = pid.and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        self.started += 1;
        let number = self.started;
        self.running.insert(name.into(), Running { pid, number });
        if let Some(said) = child.stdout.take() {
            tokio::task::spawn_local(log_lines(name.to_owned(), said));
        }
        if let Some(said) = child.stderr.take() {
            tokio::task::spawn_local(log_lines(name.to_owned(), said));
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
        }
        is_it
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
    // SAFETY: between fork and exec only prctl(2) is called, which allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
            Ok(())
        });
    }
    command.spawn()
}

fn described(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Logs what a child says.
async fn log_lines(name: String, mut from: impl AsyncRead + Unpin) {
    let mut chunk = [0; 1024];
    let mut lines = Lines::default();
    while let Ok(len) = from.read(&mut chunk).await {
        let said = chunk.get(..len).unwrap_or(&[]);
        if said.is_empty() {
            break;
        }
        lines.push(said, |line| altnet_service::info!("{name}: {line}"));
    }
    lines.end(|line| altnet_service::info!("{name}: {line}"));
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
    fn a_child_that_ends_is_told_of_with_its_reason() {
        run(async {
            let (mut children, mut told) = Children::new();
            let shell = shell("exit 3");
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
        });
    }

    #[test]
    fn a_child_ends_with_all_that_it_started() {
        run(async {
            let (mut children, mut told) = Children::new();
            let home = tempfile::tempdir().unwrap();
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
                stat.is_ok_and(|stat| !stat.contains(") Z ")) == false
            };
            while !is_gone() {
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn an_older_one_that_ends_late_is_not_the_one_that_runs() {
        let (mut children, _told) = Children::new();
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
