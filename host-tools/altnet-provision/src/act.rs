//! What each command does: asks for what it needs, calls the library, says what came of it.

mod claim;
mod image;
mod invite;
mod network;
mod openwrt;
mod policy;
mod release;
mod rescue;
mod revoke;
mod tls;

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use altnet_provision::directory::WAIT;
use altnet_provision::home::Home;
use altnet_provision::network::{
    Grade, HostPlace, IssuerWish, MAKE_RELAY, NEEDS_RELAY, Network, restore,
};
use altnet_provision::sealed::Passphrase;
use altnet_provision::secrets::Secrets;
use altnet_provision::{Error, Result, files, text};
use altnet_wire::record::{Rights, Roles};
use altnet_wire::time::UnixTime;
use clap::CommandFactory;
use serde_json::json;

use self::revoke::{Before, told_policy};
use crate::ask::{self, Source};
use crate::cli::{Cli, Command, Global, HostCommand, IssuerCommand};
use crate::say::{Report, list, or_dash, table};

/// Does what was asked.
pub fn act(cli: Cli) -> Result<Report> {
    let Cli { global, command } = cli;
    let session = Session::new(&global)?;
    match command {
        Command::Network(command) => network::act(&session, command),
        Command::Issuer(command) => issuer(&session, command),
        Command::Invite(command) => invite::act(&session, command),
        Command::Members { tree } => members(&session, tree),
        Command::Host(command) => host(&session, command),
        Command::Policy(command) => policy::act(&session, command),
        Command::Tls(command) => tls::act(&session, command),
        Command::Release(command) => release::act(&session, command),
        Command::Image(command) => image::act(&session, command),
        Command::Flash(args) => image::flash(&session, &args),
        Command::Openwrt(command) => openwrt::act(&session, command),
        Command::Claim(args) => claim::act(&session, *args),
        Command::Rescue(args) => rescue::act(&session, &args),
        Command::Revoke(args) => revoke::act(&session, &args),
        Command::Bundle(args) => invite::bundle(&session, *args),
        Command::Backup { output } => backup(&session, &output),
        Command::Restore { file, name } => {
            let passphrase = session.passphrase()?;
            let network = restore(&session.home, &file, name.as_ref(), &passphrase)?;
            let text = format!(
                "Network {} is back in {}.",
                network.name(),
                network.dir().display()
            );
            let report = Report::new(text, &network.summary());
            Ok(report.note("It is as it was when the backup was made: run `altnet-provision sync` to learn what came since."))
        }
        Command::Publish => exchange(&session, false),
        Command::Sync => exchange(&session, true),
        Command::Doctor => doctor(&session),
        Command::Passphrase {
            new_passphrase_file,
        } => passphrase(&session, new_passphrase_file),
        Command::Completion { shell } => Ok(completion(shell)),
    }
}

/// What the options of every command come to.
pub struct Session<'a> {
    global: &'a Global,
    home: Home,
    now: UnixTime,
    /// Why no directory was reached before the change: then it isn't waited for again after.
    unreached: RefCell<Option<String>>,
}

/// The beginning of 2024: a clock that says less was never set.
const EARLIEST: UnixTime = UnixTime::from_secs(1_704_067_200);

impl<'a> Session<'a> {
    fn new(global: &'a Global) -> Result<Self> {
        let home = match &global.home {
            Some(path) => Home::at(path),
            None => Home::of_user()?,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Self {
            global,
            home,
            now: UnixTime::from_secs(now.map_or(0, |since| since.as_secs())),
            unreached: RefCell::new(None),
        })
    }

    fn source(&self) -> Source<'_> {
        Source {
            file: self.global.passphrase_file.as_deref(),
            variable: "ALTNET_PASSPHRASE",
            option: "--passphrase-file",
            prompt: "Passphrase of the network's keys: ",
        }
    }

    /// Whether the passphrase can be had: it was given, or somebody is there to type it.
    fn may_ask(&self) -> bool {
        ask::is_given(&self.source()) || ask::is_attended()
    }

    fn passphrase(&self) -> Result<Passphrase> {
        ask::passphrase(&self.source())
    }

    fn new_passphrase(&self) -> Result<Passphrase> {
        ask::new_passphrase(&self.source())
    }

    fn open(&self) -> Result<Network> {
        Network::open(&self.home.pick(self.global.network.as_ref())?)
    }

    /// Opens the network and its keys. The passphrase is asked for before the network is held,
    /// so that nothing else waits for a person.
    fn unlock(&self) -> Result<(Network, Secrets)> {
        let dir = self.home.pick(self.global.network.as_ref())?;
        let passphrase = self.passphrase()?;
        let network = Network::open(&dir)?;
        let secrets = network.unlock(&passphrase)?;
        Ok((network, secrets))
    }

    /// Opens the network and its keys for a change, and first fetches what was changed elsewhere
    /// if its directory can be reached, so that the change is made on the newest records.
    fn unlock_to_change(&self) -> Result<(Network, Secrets)> {
        self.check_clock()?;
        let (mut network, secrets) = self.unlock()?;
        self.catch_up(&mut network, &secrets);
        Ok((network, secrets))
    }

    /// What is signed carries the time.
    fn check_clock(&self) -> Result<()> {
        if self.now < EARLIEST {
            return Err(Error::Input {
                what: format!("this computer's clock says {}", self.now),
                next: "Set the clock: what is signed carries the time.".into(),
            });
        }
        Ok(())
    }

    /// After a change: hands it to the directory if one is known, and says what stays pending.
    fn publish(&self, report: Report, network: &mut Network, secrets: &Secrets) -> Report {
        let pending = |report: Report, network: &Network, why: &str| {
            let count = network.settings().pending();
            let records = text::count(count, "record");
            let note = format!(
                "Signed here, waiting to be published: {records}, because {why}. `altnet-provision publish` tries again."
            );
            let publish = json!({ "directory": null, "pending": count, "why": why });
            report.with("publish", &publish).note(note)
        };
        if network.entry_endpoints().is_empty() {
            return pending(
                report,
                network,
                "no address of the network's directory is known yet",
            );
        }
        if self.global.offline {
            return pending(report, network, "of --offline");
        }
        if let Some(why) = &*self.unreached.borrow() {
            return pending(report, network, why);
        }
        match network.exchange(Some(secrets), self.now, WAIT) {
            Ok(done) => {
                let report = match done.refused {
                    0 => report,
                    refused => report.note(format!(
                        "The directory refused {}: it may know newer ones, which `altnet-provision sync` fetches.",
                        text::count(refused, "record")
                    )),
                };
                report.with("publish", &done)
            }
            Err(error) => pending(report, network, &error.to_string()),
        }
    }

    fn catch_up(&self, network: &mut Network, secrets: &Secrets) {
        if self.global.offline || network.entry_endpoints().is_empty() {
            return;
        }
        // Not reached is no obstacle: the change is then made on what is known here.
        if let Err(error) = network.exchange(Some(secrets), self.now, WAIT) {
            *self.unreached.borrow_mut() = Some(error.to_string());
        }
    }

    /// What [`Session::unlock_to_change`] gives, for a change after which records that this
    /// computer doesn't know could not be had any more: those that rested on what it ends.
    fn unlock_in_step(&self) -> Result<(Network, Secrets)> {
        let unlocked = self.unlock_to_change()?;
        match &*self.unreached.borrow() {
            None => Ok(unlocked),
            Some(why) => Err(Error::Directory {
                what: format!(
                    "this change needs to know what others signed since, and the directory was not reached: {why}"
                ),
                next: "Try again when it answers. With --offline the change is made on what is known here; what is not known here is lost to it.".into(),
            }),
        }
    }

    /// Says that the network needs a relay, as long as none is known, and a policy.
    fn advise(report: Report, network: &Network) -> Report {
        let report = report.with("has_relay", &network.has_relay());
        let report = Self::advise_policy(report, network);
        if network.has_relay() {
            return report;
        }
        report.note(NEEDS_RELAY).note(MAKE_RELAY)
    }

    /// Says that nothing is allowed, as long as there is no policy.
    fn advise_policy(report: Report, network: &Network) -> Report {
        match network.policy() {
            Some(_) => report,
            None => report.note("No policy is in force here, so nothing is allowed: `altnet-provision doctor` says why and what to do."),
        }
    }
}

fn issuer(session: &Session<'_>, command: IssuerCommand) -> Result<Report> {
    match command {
        IssuerCommand::Add {
            name,
            key,
            rights,
            roles,
            site,
            expires,
        } => {
            let (mut network, secrets) = session.unlock_to_change()?;
            let roles = match roles.is_empty() {
                true => Roles::all(),
                false => roles.into_iter().collect(),
            };
            let wish = IssuerWish {
                name,
                key,
                rights: rights.into_iter().collect::<Rights>(),
                roles,
                site,
                lasts: expires,
            };
            let before = Before::of(&network);
            let issuer = network.add_issuer(&secrets, &wish, session.now)?;
            let text = format!(
                "{} may now sign: {}.",
                or_dash(issuer.name.as_ref()),
                list(&issuer.rights)
            );
            let report = told_policy(Report::new(text, &issuer), &network, &before);
            Ok(session.publish(report, &mut network, &secrets))
        }
        IssuerCommand::List => {
            let issuers = session.open()?.issuers();
            let rows: Vec<_> = issuers
                .iter()
                .map(|i| {
                    let name = or_dash(i.name.as_ref());
                    vec![
                        name,
                        list(&i.rights),
                        or_dash(i.expires.as_ref()),
                        i.key.to_string(),
                    ]
                })
                .collect();
            let text = table(&["NAME", "RIGHTS", "UNTIL", "KEY"], &rows);
            Ok(Report::new(text, &json!({ "issuers": issuers })))
        }
    }
}

fn members(session: &Session<'_>, as_tree: bool) -> Result<Report> {
    let network = session.open()?;
    let members: Vec<_> = match as_tree {
        true => network.member_tree(session.now),
        false => {
            let members = network.members(session.now);
            members.into_iter().map(|member| (0, member)).collect()
        }
    };
    let rows: Vec<_> = members
        .iter()
        .map(|(depth, m)| {
            let until = match m.expired {
                true => "ended".into(),
                false => or_dash(m.expires.as_ref()),
            };
            let person = or_dash(m.person.as_ref());
            let address = m.address.to_string();
            vec![
                format!("{}{}", "  ".repeat(*depth), m.name),
                list(&m.roles),
                or_dash(m.site),
                person,
                until,
                address,
            ]
        })
        .collect();
    let text = table(
        &["NAME", "ROLES", "SITE", "PERSON", "UNTIL", "ADDRESS"],
        &rows,
    );
    let members: Vec<_> = members.into_iter().map(|(_, member)| member).collect();
    let report = Report::new(text, &json!({ "members": members }));
    let report = Session::advise_policy(report, &network);
    Ok(match members.is_empty() {
        true => report.note(
            "No member is known here yet; `altnet-provision sync` fetches those that joined.",
        ),
        false => report,
    })
}

fn host(session: &Session<'_>, command: HostCommand) -> Result<Report> {
    match command {
        HostCommand::Add {
            name,
            site,
            address,
            mac,
        } => {
            let place = match (address, mac) {
                (Some(address), _) => HostPlace::Address(address),
                (None, Some(mac)) => HostPlace::Mac(mac),
                (None, None) => {
                    return Err(Error::Input {
                        what: "it was not said where the machine is".into(),
                        next: "Give --address or --mac.".into(),
                    });
                }
            };
            let (mut network, secrets) = session.unlock_to_change()?;
            let added = network.add_host(&secrets, &name, site, place, session.now)?;
            let text = format!("{} is {}.", added.host.fqdn, added.host.address);
            let report = Report::new(text, &added);
            let mut report = session.publish(report, &mut network, &secrets);
            if network.registry().gateway(site).is_none() {
                report = report.note(format!(
                    "No gateway of site {site} is known here; the name works once there is one."
                ));
            }
            Ok(report)
        }
        HostCommand::List => {
            let hosts = session.open()?.hosts();
            let rows: Vec<_> = hosts
                .iter()
                .map(|h| vec![h.fqdn.clone(), h.site.to_string(), h.address.to_string()])
                .collect();
            let text = table(&["NAME", "SITE", "ADDRESS"], &rows);
            Ok(Report::new(text, &json!({ "hosts": hosts })))
        }
        HostCommand::Remove { name, site } => {
            let (mut network, secrets) = session.unlock_to_change()?;
            let gone = network.remove_host(&secrets, &name, site, session.now)?;
            let text = format!("{} leads nowhere now.", gone.fqdn);
            let report = Report::new(text, &gone);
            Ok(session.publish(report, &mut network, &secrets))
        }
    }
}

fn backup(session: &Session<'_>, output: &std::path::Path) -> Result<Report> {
    let (network, secrets) = session.unlock()?;
    let bytes = network.backup(&secrets, session.now)?;
    files::create(output, &bytes)?;
    let text = format!(
        "Everything about {} is in {}, under the passphrase of its keys.",
        network.name(),
        output.display()
    );
    let value = json!({ "file": output, "bytes": bytes.len(), "network": network.name().as_str() });
    Ok(Report::new(text, &value).note("Keep it on another disk."))
}

fn exchange(session: &Session<'_>, fetch: bool) -> Result<Report> {
    if session.global.offline {
        return Err(Error::Input {
            what: "--offline says not to speak with the directory, which is all that this does"
                .into(),
            next: "Leave --offline out.".into(),
        });
    }
    let (mut network, secrets) = match fetch {
        true => session
            .unlock()
            .map(|(network, secrets)| (network, Some(secrets)))?,
        false => (session.open()?, None),
    };
    let done = network.exchange(secrets.as_ref(), session.now, WAIT)?;
    let mut said = format!(
        "The directory at {} took {}; {} wait.",
        done.directory,
        text::count(done.published, "record"),
        done.pending
    );
    if let Some(fetched) = done.fetched {
        said.push_str(&format!(" {fetched} are new here."));
    }
    let report = Report::new(said, &done);
    Ok(match done.refused {
        0 => report,
        refused => report.note(format!(
            "It refused {refused}: it may know newer ones, which `altnet-provision sync` fetches."
        )),
    })
}

fn doctor(session: &Session<'_>) -> Result<Report> {
    let dir = session.home.pick(session.global.network.as_ref())?;
    let passphrase = match session.may_ask() {
        true => Some(session.passphrase()?),
        false => None,
    };
    let network = Network::open(&dir)?;
    let secrets = match &passphrase {
        Some(passphrase) => Some(network.unlock(passphrase)?),
        None => None,
    };
    let checks = network.doctor(secrets.as_ref(), session.now);
    let mut text = String::new();
    for check in &checks {
        let mark = match check.grade {
            Grade::Ok => "ok      ",
            Grade::Warning => "warning ",
            Grade::Problem => "PROBLEM ",
        };
        text.push_str(&format!("{mark} {}: {}\n", check.check, check.message));
        if let Some(next) = &check.next {
            text.push_str(&format!("         {next}\n"));
        }
    }
    let healthy = checks.iter().all(|check| check.grade != Grade::Problem);
    let value = json!({ "network": network.name().as_str(), "healthy": healthy, "checks": checks });
    let report = Report::new(text, &value);
    Ok(if healthy { report } else { report.failing() })
}

fn passphrase(session: &Session<'_>, file: Option<PathBuf>) -> Result<Report> {
    let (network, mut secrets) = session.unlock()?;
    let new = ask::new_passphrase(&Source {
        file: file.as_deref(),
        variable: "ALTNET_NEW_PASSPHRASE",
        option: "--new-passphrase-file",
        prompt: "New passphrase: ",
    })?;
    network.change_passphrase(&mut secrets, new)?;
    let value = json!({ "network": network.name().as_str(), "changed": true });
    Ok(Report::new("The keys have a new passphrase.", &value)
        .note("Backups made before keep the old one."))
}

fn completion(shell: clap_complete::Shell) -> Report {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "altnet-provision", &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if shell == clap_complete::Shell::Bash {
        // clap_complete 4.6 writes a hyphen of the program's name in two ways, so that nothing
        // after the first word would complete.
        script = script.replace("altnet__subcmd__provision", "altnet__provision");
    }
    let value = json!({ "shell": shell.to_string(), "script": script });
    Report::new(script, &value)
}
