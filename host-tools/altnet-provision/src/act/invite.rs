//! `altnet-provision invite ...` and `altnet-provision bundle`.

use std::net::SocketAddr;

use altnet_provision::network::{BundleWish, InviteStatus, InviteWish};
use altnet_provision::{Result, files, qr, text};
use serde_json::json;

use super::Session;
use crate::cli::{BundleArgs, InviteArgs, InviteCommand};
use crate::say::{Report, list, or_dash, table};

pub fn act(session: &Session<'_>, command: InviteCommand) -> Result<Report> {
    match command {
        InviteCommand::Create(args) => create(session, *args),
        InviteCommand::List => {
            let invites = session.open()?.invites(session.now);
            let rows: Vec<_> = invites
                .iter()
                .map(|i| {
                    let status = match i.status {
                        InviteStatus::Open => "open",
                        InviteStatus::Used => "used",
                        InviteStatus::Expired => "expired",
                        InviteStatus::Revoked => "revoked",
                    };
                    let uses = format!("{}/{}", i.used_by.len(), i.uses);
                    let until = or_dash(i.expires.as_ref());
                    let key = i.invite.to_string();
                    let name = or_dash(i.name.as_ref());
                    vec![
                        name,
                        list(&i.roles),
                        or_dash(i.site),
                        uses,
                        status.into(),
                        until,
                        key,
                    ]
                })
                .collect();
            let head = ["NAME", "ROLES", "SITE", "USED", "STATUS", "UNTIL", "INVITE"];
            Ok(Report::new(
                table(&head, &rows),
                &json!({ "invites": invites }),
            ))
        }
        InviteCommand::Revoke { invite } => {
            let (mut network, secrets) = session.unlock_to_change()?;
            let revoked = network.revoke_invite(&secrets, &invite, session.now)?;
            let text = format!("Nobody comes in by {} any more.", revoked.invite);
            let report = Report::new(text, &revoked);
            let report = match revoked.used_by.is_empty() {
                true => report,
                false => report.note(format!(
                    "Those who came in by it stay: {}.",
                    revoked.used_by.join(", ")
                )),
            };
            Ok(session.publish(report, &mut network, &secrets))
        }
    }
}

fn create(session: &Session<'_>, args: InviteArgs) -> Result<Report> {
    let (mut network, secrets) = session.unlock_to_change()?;
    let wish = InviteWish {
        name: args.name,
        person: args.person,
        groups: args.groups,
        roles: args.roles.into_iter().collect(),
        site: args.site,
        sponsor: args.sponsor,
        uses: args.uses,
        lasts: args.expires,
        endpoints: args.endpoints,
    };
    let made = network.create_invite(&secrets, &wish, session.now)?;
    let mut report = Report::new(made.link.clone(), &made);
    if !args.no_qr && !session.global.json {
        // Upper case takes 5.5 bits a letter in a QR code, lower case 8.
        report = match qr::draw(&made.link.to_ascii_uppercase()) {
            Some(picture) => report.note(picture),
            None => report.note("The link is too long for a QR code."),
        };
    }
    if !args.no_qr {
        let site = made.site.map(|site| format!(" in site {site}"));
        let devices = match wish.uses {
            1 => "one device".to_owned(),
            uses => format!("{uses} devices"),
        };
        report = report.note(format!(
            "Good until {} for {devices}{}. Whoever has the link can come in by it.",
            made.expires,
            site.unwrap_or_default()
        ));
    }
    let report = session.publish(report, &mut network, &secrets);
    Ok(Session::advise(report, &network))
}

pub fn bundle(session: &Session<'_>, args: BundleArgs) -> Result<Report> {
    let (mut network, secrets) = session.unlock_to_change()?;
    let was_reachable = !network.entry_endpoints().is_empty();
    let wish = BundleWish {
        invite: InviteWish {
            name: Some(args.name.clone()),
            person: args.person,
            groups: args.groups,
            roles: args.roles.into_iter().collect(),
            site: args.site,
            sponsor: None,
            uses: 1,
            lasts: args.expires,
            endpoints: args.endpoints,
        },
        admit: args.admit,
    };
    let mut written = false;
    let made = network.bundle(&secrets, &wish, session.now, |text| {
        files::create(&args.output, text.as_bytes())?;
        written = true;
        Ok(())
    });
    let made = match made {
        Err(error) => {
            if written {
                // The change it belongs to was not made, so it would lead nowhere.
                let _ = std::fs::remove_file(&args.output);
            }
            return Err(error);
        }
        Ok(made) => made,
    };
    let said = format!(
        "The first-boot file of {} is {}. It holds keys: delete it when the device has joined.",
        args.name,
        args.output.display()
    );
    let mut report = Report::new(said, &made).with("file", &args.output);
    let is_private = |endpoint: &SocketAddr| text::is_private(endpoint.ip());
    if !made.endpoints.is_empty() && made.endpoints.iter().all(is_private) {
        report = report.note(format!(
            "{0} is a private address: only devices in the same place reach {1} there. If its router forwards the port, make the file anew with the router's public address, after `altnet-provision invite revoke {1}`.",
            made.endpoints[0], args.name
        ));
    }
    let report = match was_reachable {
        true => session.publish(report, &mut network, &secrets),
        // The only place to publish at is the one that this file starts.
        false => report
            .with("publish", &json!({ "directory": null, "pending": network.settings().pending(), "why": "no directory has joined yet" }))
            .note("Once it has joined, `altnet-provision publish` hands it what was signed here."),
    };
    Ok(Session::advise(report, &network))
}
