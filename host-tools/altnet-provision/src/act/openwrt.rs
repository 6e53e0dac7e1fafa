//! `altnet-provision openwrt ...`.

use std::io::{IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use altnet_provision::openwrt::{Facts, Outcome, Package, Router, Space, Ssh, choose};
use altnet_provision::{Error, Result, text};
use serde_json::json;

use super::Session;
use crate::ask;
use crate::cli::{OpenwrtCommand, OpenwrtInstallArgs};
use crate::say::Report;

/// How often the router is asked how far it is.
const STEP: Duration = Duration::from_secs(2);
/// How long a package may take: its kernel module comes over the router's own line.
const PATIENCE: Duration = Duration::from_secs(600);

pub fn act(session: &Session<'_>, command: OpenwrtCommand) -> Result<Report> {
    let OpenwrtCommand::Install(args) = command;
    install(session, &args)
}

fn install(session: &Session<'_>, args: &OpenwrtInstallArgs) -> Result<Report> {
    let packages = args.packages.iter().map(|path| Package::named(path));
    let packages = packages.collect::<Result<Vec<_>>>()?;
    let teller = Teller {
        is_shown: !session.global.json && std::io::stderr().is_terminal(),
    };
    let ssh = Ssh::new(&args.host, &args.ssh)?;
    let host = ssh.host().to_owned();
    let (router, facts) = Router::connect(ssh)?;
    if facts.is_pending {
        return Err(Error::Exists {
            what: format!("an installation on {host} still waits to be confirmed"),
            next: "Wait until the router has undone it, a few minutes, and try again.".into(),
        });
    }
    let package = choose(&packages, &facts)?;
    teller.tell("The package's program is tried in the router's memory ...");
    let program_kib = router.prepare(package, &facts)?;
    let length = std::fs::metadata(package.path()).map_or(0, |data| data.len());
    let space = facts.space(length, program_kib)?;
    let what = described(&host, &facts, package, space);
    let report = |said: String, outcome: &str| {
        Report::new(
            said,
            &json!({ "router": facts, "version": package.version(), "space": space, "outcome": outcome }),
        )
    };
    if args.check {
        return Ok(report(
            format!("{what}\nIt could be installed; nothing was changed."),
            "checked",
        ));
    }
    if !args.yes && !ask::consent(&format!("{what}\nInstall it?")) {
        return Err(Error::NeedsConsent {
            what: "nobody said yes, so nothing was installed".into(),
            next: "Run the same command again and answer y, or give --yes.".into(),
        });
    }
    router.install(package, args.patience)?;
    teller.tell("The router installs it ...");
    installed(&router, &host)?;
    teller.tell("Whether it works is asked by a new connection ...");
    if let Err(fault) = worked(&router, args.patience) {
        // If the router can't be told, it undoes it by itself.
        let told = router.undo(&fault.to_string());
        return Err(Error::Remote {
            what: fault.to_string(),
            next: match told {
                Ok(()) => "The router is as it was before.".into(),
                Err(_) => format!(
                    "The router undoes it by itself within {} s, and at a restart.",
                    args.patience.as_secs()
                ),
            },
        });
    }
    router.confirm().map_err(|fault| Error::Remote {
        what: fault.to_string(),
        next:
            "The router is as it was before, or will be within minutes. --patience gives it longer."
                .into(),
    })?;
    let said = format!(
        "altnet {} is installed on {host}, and works.",
        package.version()
    );
    let report = report(said, "confirmed");
    Ok(match facts.installed {
        Some(_) => report,
        None => report.note(format!("It is no member yet: `ssh {host} altnet join LINK`, with a link that `altnet-provision invite create` prints.")),
    })
}

fn described(host: &str, facts: &Facts, package: &Package, space: Space) -> String {
    let before = match &facts.installed {
        Some(version) => format!("altnet {version}"),
        None => "nothing of altnet's".into(),
    };
    let mut said = format!(
        "{host} is {}, OpenWrt {}\n  there now   {before}\n  to install  altnet {} for {}; its program works there\n  flash       {} free, {} needed",
        match facts.model.is_empty() {
            true => "a router without a name",
            false => &facts.model,
        },
        facts.release,
        package.version(),
        package.arch(),
        text::bytes(facts.flash_kib.saturating_mul(1024)),
        text::bytes(space.needed_kib.saturating_mul(1024)),
    );
    if !facts.has_tun {
        said.push_str("\n  beside it   kmod-tun, which the router fetches from OpenWrt");
    }
    if facts.installed.is_some() && !space.keeps_on_flash {
        said.push_str("\n  careful     the older one is kept in memory alone until the new one is confirmed: a power cut before that may leave the router without altnet");
    }
    said
}

/// Waits until it is installed.
fn installed(router: &Router, host: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        // A connection that breaks off meanwhile says nothing of the router: its network may have been reloaded.
        let outcome = router.outcome().unwrap_or(Outcome::Busy);
        let why = match outcome {
            Outcome::Waiting => return Ok(()),
            Outcome::Undone(why) => why,
            Outcome::Busy if began.elapsed() < PATIENCE => {
                thread::sleep(STEP);
                continue;
            }
            Outcome::Busy => "it took too long".into(),
            Outcome::Confirmed | Outcome::Nothing => {
                "the router knows nothing of it any more".into()
            }
        };
        return Err(Error::Remote {
            what: format!("{host} did not keep it: {why}"),
            next: "The router is as it was before, or will be after a restart.".into(),
        });
    }
}

/// Asks until the router does what it did before, for half of the time that it waits.
fn worked(router: &Router, patience: Duration) -> Result<()> {
    let began = Instant::now();
    loop {
        match router.check() {
            Ok(()) => return Ok(()),
            Err(fault) if began.elapsed() >= patience / 2 => return Err(fault),
            Err(_) => thread::sleep(STEP),
        }
    }
}

/// Says what is done meanwhile, if somebody looks.
struct Teller {
    is_shown: bool,
}

impl Teller {
    fn tell(&self, what: &str) {
        if self.is_shown {
            // Without a place to say it, nothing is lost.
            let _ = writeln!(std::io::stderr(), "{what}");
        }
    }
}
