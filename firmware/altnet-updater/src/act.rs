//! What is done for each word.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use altnet_router::hands::control::{self, AskError, Question};
use altnet_router::hands::look::Look;
use altnet_service::mistake::Mistake;
use altnet_update::appliance::{self, Appliance, Calendar, Places};
use altnet_update::bundle::MAX_HEAD_BYTES;
use altnet_update::state::{Release, Working};
use altnet_wire::time::UnixTime;

use crate::config::Update as Config;
use crate::fetch::{Client, FetchError, NoUrl, Patience, Url};
use crate::report::{self, Installed, Offered, Progressing, Status};
use crate::words::{Then, Update};

/// The largest altnet.toml that is read, in bytes; as altnetd's.
const MAX_CONFIG_BYTES: u64 = 256 * 1024;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The box, the bundle or the slot.
    #[error(transparent)]
    Appliance(#[from] appliance::Error),
    /// What should have been fetched.
    #[error("{url} can't be fetched: {source}")]
    Fetch {
        /// From where.
        url: Url,
        /// Why not.
        source: FetchError,
    },
    /// Nothing can be fetched at all.
    #[error(transparent)]
    Client(#[from] FetchError),
    /// Not an address.
    #[error("{text}: {source}")]
    Url {
        /// What was given.
        text: String,
        /// What it isn't.
        source: NoUrl,
    },
    /// Nobody said where releases come from.
    #[error("[update] of altnet.toml doesn't say where releases come from")]
    Nowhere,
    /// altnet.toml can't be read.
    #[error("can't read {}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error(transparent)]
    Mistake(#[from] Mistake),
    /// The box doesn't boot again.
    #[error("the box can't be told to boot again by {}: {why}", program.display())]
    Reboot {
        /// What should have done it.
        program: PathBuf,
        /// What became of that.
        why: String,
    },
    /// Nobody reads what is said.
    #[error("what there is to say can't be written: {0}")]
    Said(#[from] io::Error),
}

impl Failure {
    /// What a person does about it.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Appliance(appliance::Error::Read { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                "Run it as root."
            }
            Self::Appliance(e) => e.next_step(),
            Self::Fetch { source, .. } | Self::Client(source) => source.next_step(),
            Self::Url { .. } => "Give an address, or the path of a file.",
            Self::Nowhere => {
                "Write from = \"https://...\" below [update], or name a bundle: `altnet update install FILE`."
            }
            Self::Config { .. } | Self::Mistake(_) => {
                "Mend the file, or name a bundle: `altnet update install FILE`."
            }
            Self::Reboot { .. } => "Boot it again by hand: all else is done.",
            Self::Said(_) => "All else is done.",
        }
    }
}

/// Where a bundle is.
enum Source {
    File(PathBuf),
    /// Standard input.
    Input,
    Url(Config, Url),
}

/// A box, and how people are told what happens.
#[derive(Debug)]
pub struct Act {
    places: Places,
    appliance: Appliance,
    json: bool,
}

impl Act {
    /// Finds out what box this is.
    ///
    /// # Errors
    /// [`Failure::Appliance`].
    pub fn new(places: Places, json: bool) -> Result<Self, Failure> {
        let appliance = Appliance::open(places.clone())?;
        Ok(Self {
            places,
            appliance,
            json,
        })
    }

    /// Does it, and writes what there is to say to `out`.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run(&self, update: &Update, out: &mut impl Write) -> Result<(), Failure> {
        match update {
            Update::Status => {
                let status = self.appliance.status()?;
                let is_pending = status.state.pending.is_some();
                let look = if is_pending { self.look().ok() } else { None };
                self.say(&Status::new(&status, look), out)
            }
            Update::Check => self.check(out),
            Update::Install { bundle, then } => self.install(bundle.as_deref(), *then, out),
            Update::Rollback { then } => {
                let slot = self.appliance.rollback()?;
                self.say(&report::Chosen { slot: slot.into() }, out)?;
                self.boot(*then, out)
            }
            Update::Confirm => {
                let outcome = self.appliance.confirm()?;
                self.say(&report::Outcome::from(&outcome), out)
            }
        }
    }

    fn check(&self, out: &mut impl Write) -> Result<(), Failure> {
        let (config, url) = self.offered()?;
        let calendar = calendar(self.look().ok().as_ref());
        let client = self.client(&config, calendar)?;
        let failed = |source| Failure::Fetch {
            url: url.clone(),
            source,
        };
        let head = client.beginning(&url, MAX_HEAD_BYTES).map_err(failed)?;
        let name = PathBuf::from(url.to_string());
        let offer = self.appliance.check(&name, &head[..], calendar)?;
        let state = self.appliance.status()?.state;
        self.say(&Offered::new(&url, &offer, state.pending.as_ref()), out)
    }

    fn install(
        &self,
        bundle: Option<&OsStr>,
        then: Then,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        let source = self.source(bundle)?;
        let look = self.look();
        let calendar = calendar(look.as_ref().ok());
        let before = match &look {
            Ok(look) => look.facts().working(),
            Err(e) => {
                let why = match e {
                    AskError::NotRunning { .. } => "altnet-routerd doesn't run".to_owned(),
                    e => e.to_string(),
                };
                eprintln!(
                    "altnet-update: what works now is not known: {why}. So the new release is the good one once it ran for a minute."
                );
                Working::default()
            }
        };
        let release = self.write(source, calendar, before)?;
        let slot = self.appliance.running().other();
        self.say(&Installed::new(&release, slot, before), out)?;
        self.boot(then, out)
    }

    fn source(&self, bundle: Option<&OsStr>) -> Result<Source, Failure> {
        let Some(bundle) = bundle else {
            let (config, url) = self.offered()?;
            return Ok(Source::Url(config, url));
        };
        match bundle.to_str() {
            Some("-") => Ok(Source::Input),
            Some(text) if text.contains("://") => {
                let url = text.parse().map_err(|source| Failure::Url {
                    text: text.to_owned(),
                    source,
                })?;
                Ok(Source::Url(self.config()?, url))
            }
            _ => Ok(Source::File(bundle.into())),
        }
    }

    fn write(
        &self,
        source: Source,
        calendar: Calendar,
        before: Working,
    ) -> Result<Release, Failure> {
        let mut progressing = Progressing::default();
        let mut progress = |progress| progressing.show(progress);
        let release = match source {
            Source::File(file) => self
                .appliance
                .install(&file, calendar, before, &mut progress),
            Source::Input => {
                let (name, input) = (Path::new("standard input"), io::stdin().lock());
                self.appliance
                    .install_stream(name, None, input, calendar, before, &mut progress)
            }
            Source::Url(config, url) => {
                let client = self.client(&config, calendar)?;
                let name = PathBuf::from(url.to_string());
                let stream = client.whole(&url);
                let stream = stream.map_err(|source| Failure::Fetch { url, source })?;
                self.appliance
                    .install_stream(&name, None, stream, calendar, before, &mut progress)
            }
        };
        Ok(release?)
    }

    /// Boots the slot that was chosen, or says how to.
    fn boot(&self, then: Then, out: &mut impl Write) -> Result<(), Failure> {
        let is_asked = !then.no_reboot && !self.json && io::stdin().is_terminal();
        let boots = then.reboot || (is_asked && asks("Boot it now? Type yes to: ", out)?);
        if !boots {
            if !self.json {
                writeln!(out, "It is booted by: reboot")?;
            }
            return Ok(());
        }
        let program = self.places.root().join("sbin/reboot");
        let failed = |why: String| Failure::Reboot {
            program: program.clone(),
            why,
        };
        let status = Command::new(&program).status();
        match status.map_err(|e| failed(e.to_string()))? {
            status if ExitStatus::success(&status) => Ok(()),
            status => Err(failed(status.to_string())),
        }
    }

    fn say(&self, said: &impl report::Report, out: &mut impl Write) -> Result<(), Failure> {
        match self.json {
            true => writeln!(out, "{:#}", said.json())?,
            false => write!(out, "{}", said.text())?,
        }
        Ok(out.flush()?)
    }

    fn config(&self) -> Result<Config, Failure> {
        let path = self.places.root().join("etc/altnet/altnet.toml");
        let mut text = String::new();
        let read = fs::File::open(&path)
            .and_then(|file| file.take(MAX_CONFIG_BYTES).read_to_string(&mut text));
        match read {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Config::default()),
            Err(source) => return Err(Failure::Config { path, source }),
            Ok(_) => {}
        }
        Ok(Config::parse(&path, &text)?)
    }

    /// Where this box's bundle is, by altnet.toml.
    fn offered(&self) -> Result<(Config, Url), Failure> {
        let config = self.config()?;
        let url = config.bundle(&self.appliance.image().board);
        Ok((config, url.ok_or(Failure::Nowhere)?))
    }

    fn client(&self, config: &Config, calendar: Calendar) -> Result<Client, Failure> {
        let least = calendar.floor.max(self.appliance.image().built);
        Ok(Client::new(config.ca.as_deref(), least, Patience::HOUSE)?)
    }

    /// What works now, by the router.
    fn look(&self) -> Result<Look, AskError> {
        let directory = self.places.root().join("run/altnet-router");
        let asked = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(AskError::Broken)
            .and_then(|runtime| runtime.block_on(control::ask(&directory, Question::Look {})))?;
        serde_json::from_value(asked).map_err(|e| AskError::Broken(e.into()))
    }
}

/// The calendar: the system's clock, and what altnetd knows where that isn't set.
fn calendar(look: Option<&Look>) -> Calendar {
    let said = look.and_then(|look| look.calendar.as_ref());
    let unknown = said.filter(|said| !said.is_known);
    let floor = unknown.and_then(|said| report::moment(&said.time));
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Calendar {
        now: clock.ok().map(|since| UnixTime::from_secs(since.as_secs())),
        floor: floor.unwrap_or(UnixTime::EPOCH),
    }
}

fn asks(question: &str, out: &mut impl Write) -> io::Result<bool> {
    write!(out, "{question}")?;
    out.flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().eq_ignore_ascii_case("yes"))
}
