//! `altnet-provision claim`.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use altnet_claim::key::Fingerprint;
use altnet_claim::words::{File, FileName, ToComputer};
use altnet_provision::claim::{BoxSummary, Claim, Visit, find};
use altnet_provision::network::{BundleWish, InviteWish};
use altnet_provision::{Error, Result};
use serde_json::json;
use zeroize::Zeroizing;

use super::{Session, image};
use crate::ask::{self, Source};
use crate::cli::ClaimArgs;
use crate::say::{Report, table};

/// How long a bundle that is made on the way is good: it is used at once, or when the box reaches the network.
const BUNDLE_LASTS: Duration = Duration::from_secs(7 * 24 * 3600);

pub fn act(session: &Session<'_>, args: ClaimArgs) -> Result<Report> {
    if args.list {
        return Ok(listed(&find::find()?));
    }
    // All that can be refused is, before anybody types anything, and what takes long is done before the box waits.
    let (boot, notes) = image::first_boot(session, &args.files)?;
    let mut files = boot.into_files();
    let unlocked = match &args.name {
        Some(_) => Some(session.unlock_to_change()?),
        None => None,
    };
    let address = match args.address {
        Some(address) => address,
        None => chosen(&find::find()?, args.fingerprint)?,
    };
    let visit = Visit::call(address)?;
    visit.check_open()?;
    expected(visit.fingerprint(), args.fingerprint)?;
    let summary = visit.summary();
    let found = format!(
        "Found a box, {} with {}, at {}. Its fingerprint is {}; its page and its console show the same.",
        summary.board, summary.version, summary.address, summary.fingerprint
    );
    tell(session, &found);
    // It would hang up while a person types.
    drop(visit);
    let code = ask::code(&Source {
        file: args.code_file.as_deref(),
        variable: "ALTNET_CLAIM_CODE",
        option: "--code-file",
        prompt: "Code of the box (two groups of five): ",
    })?;
    let visit = Visit::call(address)?;
    if visit.fingerprint().to_string() != summary.fingerprint {
        return Err(Error::Claim {
            what: format!("another box answers at {address} now"),
            next: "Somebody on the LAN may pose as the box. Connect it and this computer by a cable, and try again.".into(),
        });
    }
    let mut claim = visit.pair(&code)?;
    let mut report = Report::new("", &json!({ "box": summary }));
    match unlocked {
        None => claim.hand_over(&files)?,
        Some((mut network, secrets)) => {
            let made = network.bundle(&secrets, &wish(&args), session.now, |text| {
                files.push(File {
                    name: FileName::Bundle,
                    bytes: Zeroizing::new(text.as_bytes().to_vec()),
                });
                claim.hand_over(&files)
            })?;
            report = report.with("bundle", &made);
            report = session.publish(report, &mut network, &secrets);
            report = Session::advise(report, &network);
        }
    }
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    tell(session, &format!("The box has taken {}.", names.join(", ")));
    let report = notes
        .into_iter()
        .fold(report.with("files", &names), Report::note);
    Ok(ended(session, &mut claim, args.wait, report))
}

/// Waits until the box is a member, and tells what it says meanwhile.
fn ended(session: &Session<'_>, claim: &mut Claim, wait: Duration, report: Report) -> Report {
    const LATER: &str =
        "`altnet-provision sync` and `altnet-provision members` say when it is a member.";
    let until = Instant::now() + wait;
    let mut waits_for = None;
    let mut restarts = false;
    loop {
        match claim.hear(until) {
            Ok(Some(ToComputer::Joined { name })) => {
                let text = match name.is_empty() {
                    true => "The box is a member already.".into(),
                    false => format!("{name} is a member now."),
                };
                return report.with("joined", &name).text(text);
            }
            Ok(Some(ToComputer::Failed { why })) => {
                let text = format!("The box can't join: {why}.");
                let report = report
                    .with("joined", &None::<String>)
                    .with("why", &why)
                    .text(text);
                return report
                    .note("It can be claimed again until its ten minutes are over.")
                    .failing();
            }
            Ok(Some(ToComputer::Waits { why })) => {
                tell(
                    session,
                    &format!("It hasn't joined yet, and tries again: {why}."),
                );
                waits_for = Some(why);
            }
            Ok(Some(ToComputer::Restarts)) => {
                restarts = true;
                tell(session, "Its services begin again, by its new altnet.toml.");
            }
            Ok(Some(_)) => {}
            // A new altnet.toml may have given its LAN another address.
            Err(_) if restarts => {
                let report = report.with("joined", &None::<String>);
                return report.text("The box has what it needs; it began again by its new altnet.toml, at another address.").note(LATER);
            }
            Ok(None) | Err(_) => {
                let report = report
                    .with("joined", &None::<String>)
                    .with("why", &waits_for);
                let report = report.text("The box has what it needs, and hasn't joined yet.");
                return report
                    .note("It goes on trying by itself.")
                    .note(LATER)
                    .failing();
            }
        }
    }
}

fn wish(args: &ClaimArgs) -> BundleWish {
    BundleWish {
        invite: InviteWish {
            name: args.name.clone(),
            person: args.person.clone(),
            groups: args.groups.clone(),
            roles: args.roles.iter().copied().collect(),
            site: args.site,
            sponsor: None,
            uses: 1,
            lasts: BUNDLE_LASTS,
            endpoints: args.endpoints.clone(),
        },
        admit: args.admit,
    }
}

fn expected(found: Fingerprint, wanted: Option<Fingerprint>) -> Result<()> {
    match wanted {
        Some(wanted) if wanted != found => Err(Error::Claim {
            what: format!("the box that answers has the fingerprint {found}, not {wanted}"),
            next: "Look at the console of the box. Another one may be on the LAN, or somebody who poses as it.".into(),
        }),
        _ => Ok(()),
    }
}

/// Which of the boxes that were found is meant.
fn chosen(found: &[BoxSummary], wanted: Option<Fingerprint>) -> Result<SocketAddr> {
    let of_it = |summary: &&BoxSummary| {
        wanted.is_none_or(|wanted| summary.fingerprint == wanted.to_string())
    };
    let fitting: Vec<&BoxSummary> = found.iter().filter(of_it).collect();
    match fitting[..] {
        [] => Err(Error::NotFound {
            what: match found.len() {
                0 => "no box was found on the LANs of this computer".into(),
                _ => "no box with this fingerprint was found".into(),
            },
            next: "A box that is in no network is found from some seconds after it was switched on, on its LAN ports. Connect this computer to one, or give the box's address: it is the router there.".into(),
        }),
        [only] => Ok(only.address),
        _ => {
            let mut question = String::from("There are several boxes:\n");
            for (number, one) in fitting.iter().enumerate() {
                question.push_str(&format!("{}: {}, {}, {}\n", number + 1, one.fingerprint, one.board, one.address));
            }
            question.push_str("Type the number of the one to claim: ");
            let typed = ask::answer(&question).and_then(|typed| typed.parse::<usize>().ok());
            let one = typed.and_then(|number| fitting.get(number.checked_sub(1)?));
            one.map(|one| one.address).ok_or_else(|| Error::NeedsConsent {
                what: "there are several boxes on the LAN, and it wasn't said which is meant".into(),
                next: "`altnet-provision claim --list` shows them; say which with --fingerprint.".into(),
            })
        }
    }
}

fn listed(found: &[BoxSummary]) -> Report {
    let rows: Vec<_> = found
        .iter()
        .map(|one| {
            vec![
                one.fingerprint.clone(),
                one.address.to_string(),
                one.board.clone(),
                one.version.clone(),
            ]
        })
        .collect();
    let report = Report::new(
        table(&["FINGERPRINT", "ADDRESS", "BOARD", "VERSION"], &rows),
        &json!({ "boxes": found }),
    );
    match found.is_empty() {
        true => report.note("A box that is in no network is found from some seconds after it was switched on, on its LAN ports."),
        false => report,
    }
}

/// Says to a person what goes on.
fn tell(session: &Session<'_>, text: &str) {
    if !session.global.json {
        // Without a place to say it, nothing is lost.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}
