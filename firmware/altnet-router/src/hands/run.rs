//! `altnet-routerd run`: facts to the machine, wishes from it, and nothing decided between them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use altnet_update::confirm::Limits;
use anyhow::Context as _;
use rustix::process::Signal;
use rustix::time::ClockId;
use serde_json::{Value, json};
use socket2::Socket;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::announced::announced;
use super::begin::{read_kept, read_setting, setting};
use super::children::{self, Children, Ended, Said};
use super::control::{Call, Listener, Question, Refusal};
use super::files::{self, Kept as Where};
use super::hook::Hook;
use super::kernel::{self, Kernel};
use super::look::{self, Look};
use super::slot::Keeper;
use super::trial::{self, Files};
use super::watchdog::Watchdog;
use super::{netlink, probe};
use crate::board::Ports;
use crate::machine::kept::Kept;
use crate::machine::{self, Event, Machine, Setting, Surroundings, Wish};
use crate::plan::{Child, Places, Plan};

/// How long changes of links are let go on before they are looked at.
const SETTLE: Duration = Duration::from_millis(50);
/// After which time what went of a plan's is put back. Who means it has a second to say so in the file's way; and two
/// that each want it their way disagree no more often.
const MEND: Duration = Duration::from_secs(1);
/// How long children have to end when the router does.
const LAST_PATIENCE: Duration = Duration::from_secs(4);
const STATE_FILE: &str = "router.json";
const RESOLV_CONF: &str = "resolv.conf";

/// Where things are.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file in force.
    pub config: PathBuf,
    /// The board's ports.
    pub ports: Ports,
    /// Sockets, and children's files.
    pub run_directory: PathBuf,
    /// What is kept over a reboot.
    pub state_directory: PathBuf,
    /// The group that may use the control socket.
    pub group: Option<u32>,
    /// The hardware's watchdog.
    pub watchdog: Option<PathBuf>,
    /// Where the files of a box with slots are: `/`.
    pub root: PathBuf,
}

/// Runs until a signal ends it.
///
/// # Errors
/// Why it can't begin: the file, the directories, or what the kernel says.
pub fn run(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the event loop")?;
    let tasks = LocalSet::new();
    runtime.block_on(tasks.run_until(async {
        let (mut router, inputs) = Router::open(options)?;
        router.serve(inputs).await
    }))
}

/// Seconds since boot, sleep included; as the plan's times.
fn now() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// What comes in.
struct Inputs {
    hook: Hook,
    calls: mpsc::Receiver<Call>,
    ended: mpsc::UnboundedReceiver<Ended>,
    said: mpsc::Receiver<Said>,
    answers: mpsc::UnboundedReceiver<(machine::Question, bool)>,
    looks: mpsc::UnboundedReceiver<Look>,
    changes: AsyncFd<Socket>,
    hangup: tokio::signal::unix::Signal,
    end: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

struct Router {
    options: Options,
    files: Files,
    machine: Machine,
    kernel: Kernel,
    children: Children,
    answered: mpsc::UnboundedSender<(machine::Question, bool)>,
    keeper: Keeper,
    looked: mpsc::UnboundedSender<Look>,
    /// Whether links have to be looked at.
    look_at: Option<Instant>,
    /// Whether something of the plan's went.
    mend_at: Option<Instant>,
    watchdog: Option<Watchdog>,
}

impl Router {
    fn open(options: Options) -> anyhow::Result<(Self, Inputs)> {
        let inside = "run it as root, with CAP_NET_ADMIN";
        files::make_directory(&options.run_directory, 0o755)?;
        files::make_directory(&options.state_directory, 0o700)?;
        let listener =
            Listener::bind(&options.run_directory, options.group).with_context(|| {
                let directory = options.run_directory.display();
                format!("can't listen in {directory}; is another altnet-routerd running?")
            })?;
        children::end_leftovers(&options.run_directory)
            .context("can't read which children a router left that was killed")?;
        let files = Files::new(&options.config);
        if files
            .drop_trial()
            .context("can't remove the file of a trial")?
        {
            altnet_service::warning!(
                "the file that was on trial was never confirmed; the one before is in force"
            );
        }
        let setting = read_setting(&files, &options.ports)?;
        let places = Places {
            run: options.run_directory.clone(),
            program: std::env::current_exe().context("can't find out my own path")?,
        };
        let kept = read_kept(&options.state_directory.join(STATE_FILE));
        let mut kernel = Kernel::open().with_context(|| format!("can't open netlink; {inside}"))?;
        let changes = netlink::watch().context("can't watch netlink")?;
        let hook = Hook::bind(&options.run_directory).context("can't listen to children")?;
        let (children, ended, said) = Children::new(&options.run_directory);
        let (answered, answers) = mpsc::unbounded_channel();
        let (looked, looks) = mpsc::unbounded_channel();
        let (calls_to, calls) = mpsc::channel(8);
        tokio::task::spawn_local(listener.serve(calls_to));
        let links = kernel.links().context("can't list interfaces")?;
        let surroundings = Surroundings {
            places,
            has_flow_tables: kernel::has_flow_tables(),
        };
        let mut machine = Machine::new(setting, kept, surroundings, now());
        machine.handle_links(links, now());
        let inputs = Inputs {
            hook,
            calls,
            ended,
            said,
            answers,
            looks,
            changes: super::registered(changes)?,
            hangup: signal(SignalKind::hangup())?,
            end: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        // Last: from now on only going round keeps the box up.
        let watchdog = options.watchdog.as_deref().map(|path| {
            let path_shown = path.display();
            Watchdog::open(path).with_context(|| format!("can't open the watchdog {path_shown}"))
        });
        let keeper = Keeper::new(&options.root, Limits::HOUSE, now());
        let router = Self {
            watchdog: watchdog.transpose()?,
            options,
            files,
            machine,
            kernel,
            children,
            answered,
            keeper,
            looked,
            look_at: None,
            mend_at: None,
        };
        Ok((router, inputs))
    }

    async fn serve(&mut self, mut inputs: Inputs) -> anyhow::Result<()> {
        altnet_service::info!("altnet-routerd {} runs", env!("CARGO_PKG_VERSION"));
        loop {
            self.do_wishes();
            if let Some(watchdog) = &mut self.watchdog {
                watchdog.feed();
            }
            if self.keeper.handle_timeout(now()) {
                let looked = self.looked.clone();
                self.look_around(move |look| {
                    let _ = looked.send(look);
                });
            }
            let deadline = [self.machine.deadline(), self.keeper.deadline()];
            let deadline = deadline
                .into_iter()
                .flatten()
                .min()
                .map(|at| Instant::now() + at.saturating_sub(now()));
            let fed = self.watchdog.as_ref().map(Watchdog::due);
            let asked = self.look_at.into_iter().chain(self.mend_at).chain(fed);
            let wake = deadline.into_iter().chain(asked).min();
            let asleep = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                told = inputs.hook.next() => match told.context("can't listen to children")? {
                    Ok(Some(told)) => self.machine.handle_told(told, now()),
                    Ok(None) => {}
                    Err(e) => altnet_service::warning!("what a child told is not taken: {e}"),
                },
                Some(call) = inputs.calls.recv() => self.take(call),
                Some(look) = inputs.looks.recv() => self.keeper.handle_facts(look.facts(), now()),
                Some(ended) = inputs.ended.recv() => {
                    if self.children.forget(&ended) {
                        self.machine.handle_ended(&ended.name, &ended.how, now());
                    }
                }
                Some(said) = inputs.said.recv() => self.machine.handle_said(&said.name, &said.line),
                Some((question, answered)) = inputs.answers.recv() => {
                    self.machine.handle_answered(&question, answered, now());
                }
                ready = inputs.changes.readable() => {
                    let is_taken = announced(&mut ready.context("can't watch netlink")?);
                    self.look_at.get_or_insert(Instant::now() + SETTLE);
                    if is_taken {
                        self.mend_at.get_or_insert(Instant::now() + MEND);
                    }
                }
                _ = inputs.hangup.recv() => self.reload(),
                _ = inputs.end.recv() => break,
                _ = inputs.interrupt.recv() => break,
                () = asleep => self.machine.handle_timeout(now()),
            }
            let is_due = |at: &mut Instant| *at <= Instant::now();
            if self.look_at.take_if(is_due).is_some() {
                self.look();
            }
            if self.mend_at.take_if(is_due).is_some() {
                self.machine.handle_taken(now());
            }
        }
        self.end(inputs).await;
        Ok(())
    }

    fn look(&mut self) {
        match self.kernel.links() {
            Ok(links) => self.machine.handle_links(links, now()),
            Err(e) => altnet_service::warning!("interfaces can't be listed: {e}"),
        }
    }

    fn do_wishes(&mut self) {
        while let Some(wish) = self.machine.poll_wish() {
            match wish {
                Wish::Apply(plan) => self.apply(&plan),
                Wish::Start(child) => {
                    if let Err(e) = self.start(&child) {
                        let how = format!("it can't be started: {e}");
                        self.machine.handle_ended(&child.name, &how, now());
                    }
                }
                Wish::End(name) => self.children.signal(&name, Signal::TERM),
                Wish::Kill(name) => self.children.signal(&name, Signal::KILL),
                Wish::Ask(question) => self.ask(question),
                Wish::Keep(kept) => self.keep(&kept),
                Wish::DropTrial => {
                    if let Err(e) = self.files.drop_trial() {
                        altnet_service::warning!("the file of the trial can't be removed: {e}");
                    }
                }
                Wish::Tell(event) => tell(&event),
            }
        }
    }

    fn apply(&mut self, plan: &Plan) {
        let mut outcome = self.kernel.apply(plan, now());
        let lines = plan.resolvers.iter().map(|ip| format!("nameserver {ip}\n"));
        let text: String = lines.collect();
        let path = self.options.run_directory.join(RESOLV_CONF);
        if let Err(e) = files::replace(&path, 0o644, text.as_bytes(), Where::InMemory) {
            outcome
                .troubles
                .push(format!("can't write {}: {e}", path.display()));
        }
        self.machine.handle_applied(outcome, now());
        self.look();
    }

    fn start(&mut self, child: &Child) -> io::Result<()> {
        for file in &child.files {
            if let Some(directory) = file.path.parent() {
                fs::create_dir_all(directory)?;
            }
            let content = file.content.expose().as_bytes();
            files::replace(&file.path, file.mode, content, Where::InMemory)?;
        }
        let directory = &self.options.run_directory;
        let program = Path::new(&child.program);
        self.children
            .start(&child.name, program, &child.arguments, directory)
    }

    fn ask(&self, question: machine::Question) {
        let answered = self.answered.clone();
        tokio::task::spawn_local(async move {
            let mut asked = JoinSet::new();
            for target in question.targets.clone() {
                let interface = question.interface.clone();
                let sequence = question.sequence;
                asked.spawn_local(async move { probe::echo(&interface, target, sequence).await });
            }
            let mut has_answer = false;
            while let Some(one) = asked.join_next().await {
                match one {
                    Ok(Ok(true)) => {
                        has_answer = true;
                        break;
                    }
                    Ok(Ok(false)) | Err(_) => {}
                    Ok(Err(e)) => {
                        altnet_service::debug!("{}: nobody can be asked: {e}", question.interface)
                    }
                }
            }
            let _ = answered.send((question, has_answer));
        });
    }

    /// Finds out what works, and has it told.
    fn look_around(&self, tell: impl FnOnce(Look) + 'static) {
        let known = self.machine.known();
        let altnetd = self.machine.setting().house.altnet.socket.clone();
        tokio::task::spawn_local(async move { tell(look::around(known, &altnetd).await) });
    }

    fn keep(&self, kept: &Kept) {
        let path = self.options.state_directory.join(STATE_FILE);
        if let Err(e) = files::replace(&path, files::PRIVATE, &kept.write(), Where::OnDisk) {
            altnet_service::warning!("{} can't be written: {e}", path.display());
        }
    }

    fn reload(&mut self) {
        let reloaded = read_setting(&self.files, &self.options.ports).and_then(|setting| {
            self.machine.handle_setting(setting, now())?;
            Ok(())
        });
        // Who asks for that may have changed what is in the kernel by hand.
        self.kernel.doubt_ruleset();
        match reloaded {
            Ok(()) => altnet_service::info!("the file was read again"),
            Err(e) => altnet_service::error!("the file in force stays: {e:#}"),
        }
    }

    fn take(&mut self, Call { question, reply }: Call) {
        let answer = match question {
            Question::Look {} => {
                return self.look_around(move |look| {
                    let _ = reply.send(as_json(&look));
                });
            }
            Question::Status {} => as_json(&self.machine.status(now())),
            Question::Plan {} => as_json(self.machine.plan()),
            Question::Check { text } => self
                .checked(&text)
                .and_then(|setting| as_json(&self.machine.preview(&setting))),
            Question::Apply { text } => self.begin_trial(&text),
            Question::Confirm {} => self.confirm(),
            Question::Revert {} => {
                let reverted = self.machine.handle_revert(now());
                reverted
                    .map(|()| json!({}))
                    .map_err(|e| Refusal::new(e.to_string(), ""))
            }
        };
        let _ = reply.send(answer);
    }

    /// What a file means here, if it is a good one and the kernel would take its ruleset.
    fn checked(&self, text: &str) -> Result<Setting, Refusal> {
        let refused = |message: String| Refusal::new(message, "");
        if text.len() as u64 > trial::MAX_BYTES {
            let most = trial::MAX_BYTES;
            return Err(refused(format!(
                "the file is larger than {most} bytes: that is no altnet.toml"
            )));
        }
        let name = self.options.config.file_name().unwrap_or_default();
        let setting = setting(Path::new(name), text, &self.options.ports);
        let setting = setting.map_err(|e| refused(format!("{e:#}")))?;
        let plan = self.machine.preview(&setting);
        kernel::check_ruleset(&plan.ruleset)
            .map_err(|e| refused(format!("the kernel would not take its ruleset: {e}")))?;
        Ok(setting)
    }

    fn begin_trial(&mut self, text: &str) -> Result<Value, Refusal> {
        let setting = self.checked(text)?;
        if let Some(left) = self.machine.trial_left(now()) {
            let error = machine::TrialError::UnderWay {
                left_s: left.as_secs(),
            };
            return Err(Refusal::new(error.to_string(), ""));
        }
        self.files.begin_trial(text).map_err(|e| {
            let hint = "make room on the disk and try again";
            Refusal::new(format!("the file can't be written: {e}"), hint)
        })?;
        let lasts = self.machine.handle_trial(setting, now());
        let lasts = lasts.map_err(|e| Refusal::new(e.to_string(), ""))?;
        self.do_wishes();
        let status = self.machine.status(now());
        if status.trial_left_s.is_none() {
            let message = "the file was taken back at once: the kernel refused its ruleset";
            return Err(Refusal::new(message, "the log says more"));
        }
        Ok(json!({ "confirm_within_s": lasts.as_secs(), "troubles": status.troubles }))
    }

    fn confirm(&mut self) -> Result<Value, Refusal> {
        if self.machine.trial_left(now()).is_none() {
            return Err(Refusal::new(machine::TrialError::None.to_string(), ""));
        }
        let holds_password = self.machine.setting().holds_password;
        self.files.confirm(holds_password).map_err(|e| {
            let message = format!("the file can't be put in its place, and is still on trial: {e}");
            Refusal::new(message, "make room on the disk and confirm again")
        })?;
        let confirmed = self.machine.handle_confirmed(now());
        confirmed.map_err(|e| Refusal::new(e.to_string(), ""))?;
        Ok(json!({}))
    }

    /// Ends the children. What the kernel was told stays: a house is served on by it until the next one comes.
    async fn end(&mut self, mut inputs: Inputs) {
        let _ = self.files.drop_trial();
        let names: Vec<String> = self
            .children
            .pids()
            .map(|(name, _)| name.to_owned())
            .collect();
        let until = Instant::now() + LAST_PATIENCE;
        for last in [Signal::TERM, Signal::KILL] {
            for name in &names {
                self.children.signal(name, last);
            }
            while !self.children.is_empty() {
                match timeout_at(until, inputs.ended.recv()).await {
                    Ok(Some(ended)) => self.children.forget(&ended),
                    Ok(None) | Err(_) => break,
                };
            }
        }
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.stop();
        }
        altnet_service::info!("altnet-routerd ends");
    }
}

fn as_json(value: &impl serde::Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(value).map_err(|e| Refusal::new(e.to_string(), ""))
}

fn tell(event: &Event) {
    match event {
        Event::Trouble { .. } | Event::ChildEnded { .. } | Event::TakenBack { .. } => {
            altnet_service::warning!("{event}");
        }
        _ => altnet_service::info!("{event}"),
    }
}
