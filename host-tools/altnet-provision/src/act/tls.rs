//! `altnet-provision tls ...`.

use altnet_provision::network::{AuthoritySummary, TlsState, TlsSummary};
use altnet_provision::{Error, Result, files, text};
use altnet_wire::id::{Name, SigningKey};
use serde_json::json;

use super::Session;
use crate::ask;
use crate::cli::TlsCommand;
use crate::say::{Report, or_dash, table};

/// What nobody can be spared: a computer that trusts nothing new shows a warning.
const TRUST: &str = "Each computer and telephone has to be told once to trust it: `altnet tls trust` on a gateway says how, for each system.";

pub fn act(session: &Session<'_>, command: TlsCommand) -> Result<Report> {
    match command {
        TlsCommand::Create { replace } => create(session, replace),
        TlsCommand::Show { output } => {
            let (network, secrets) = match session.may_ask() {
                true => session.unlock().map(|(n, s)| (n, Some(s)))?,
                false => (session.open()?, None),
            };
            let authority = network.authority_summary(secrets.as_ref())?;
            let Some(output) = output else {
                let text = format!("{}\n{}", shown(&authority), authority.pem);
                return Ok(Report::new(text, &authority));
            };
            files::create(&output, authority.pem.as_bytes())?;
            let text = format!(
                "{}\nIts certificate is in {}.",
                shown(&authority),
                output.display()
            );
            Ok(Report::new(text, &authority).with("file", &output))
        }
        TlsCommand::List => {
            let network = session.open()?;
            let asked = network.tls_requests(session.now);
            let report = Report::new(listed(&asked), &json!({ "requests": asked }));
            Ok(match asked.is_empty() {
                true => report.note(
                    "Nothing is asked for, as far as is known here. On a gateway: `altnet app add NAME --to ADDRESS --http --tls`; then here `altnet-provision sync`.",
                ),
                false => report,
            })
        }
        TlsCommand::Sign { names, yes } => sign(session, &names, yes),
    }
}

fn create(session: &Session<'_>, replace: bool) -> Result<Report> {
    let (mut network, mut secrets) = session.unlock_to_change()?;
    let authority = network.create_authority(&mut secrets, replace, session.now)?;
    let report = Report::new(shown(&authority), &authority);
    let report = session.publish(report, &mut network, &secrets);
    Ok(report
        .note(TRUST)
        .note("Its key is among this computer's keys and in the backups made from now on, and nowhere else."))
}

fn shown(authority: &AuthoritySummary) -> String {
    let here = match authority.here {
        Some(true) => "\n  key          on this computer",
        Some(false) => "\n  key          on another computer",
        None => "",
    };
    format!(
        "The network's authority for TLS:\n  fingerprint  {}\n  may certify  names below {}, nothing else\n  until        {}{here}",
        authority.fingerprint,
        authority.zones.join(" and "),
        authority.until
    )
}

fn listed(asked: &[TlsSummary]) -> String {
    let row = |asked: &TlsSummary| {
        let state = match asked.state {
            TlsState::Waiting => "waits to be signed".to_owned(),
            TlsState::Ending => "ends soon".to_owned(),
            TlsState::Signed => "signed".to_owned(),
            TlsState::Refused => format!("refused: {}", or_dash(asked.why.as_ref())),
        };
        vec![
            asked.name.clone(),
            asked.device.clone(),
            or_dash(asked.site),
            or_dash(asked.until.as_ref()),
            state,
            or_dash(asked.names.first()),
        ]
    };
    let rows: Vec<_> = asked.iter().map(row).collect();
    table(&["NAME", "DEVICE", "SITE", "UNTIL", "STATE", "FOR"], &rows)
}

fn sign(session: &Session<'_>, names: &[Name], yes: bool) -> Result<Report> {
    let (mut network, secrets) = session.unlock_to_change()?;
    let asked = network.tls_requests(session.now);
    if let Some(unknown) = names
        .iter()
        .find(|name| !asked.iter().any(|asked| asked.name == name.as_str()))
    {
        return Err(Error::NotFound {
            what: format!(
                "nothing called {unknown} asks for a certificate, as far as is known here"
            ),
            next: "See `altnet-provision tls list`; `altnet-provision sync` fetches what is new."
                .into(),
        });
    }
    let is_meant =
        |asked: &&TlsSummary| names.is_empty() || names.iter().any(|n| n.as_str() == asked.name);
    let due: Vec<&TlsSummary> = asked
        .iter()
        .filter(is_meant)
        .filter(|asked| asked.is_due())
        .collect();
    let refused: Vec<&TlsSummary> = asked
        .iter()
        .filter(is_meant)
        .filter(|asked| asked.state == TlsState::Refused)
        .collect();
    let mut said = String::new();
    for asked in &due {
        said.push_str(&format!(
            "{} on {}, site {}: {}\n",
            asked.name,
            asked.device,
            or_dash(asked.site),
            asked.names.join(", ")
        ));
    }
    if !due.is_empty() && !yes {
        if !ask::is_attended() {
            return Err(Error::NeedsConsent {
                what: format!(
                    "these would get a certificate: {}",
                    due.iter()
                        .map(|asked| format!("{} on {}", asked.name, asked.device))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
                next: "Run it again with --yes.".into(),
            });
        }
        let question =
            format!("{said}Whoever runs these devices can then answer for these names. Sign?");
        if !ask::consent(&question) {
            return Ok(Report::new("Nothing was signed.", &json!({ "signed": [] })));
        }
    }
    let subjects: Vec<SigningKey> = due.iter().map(|asked| asked.subject).collect();
    let signed = network.sign_tls(&secrets, &subjects, session.now)?;
    let text = match signed.is_empty() {
        true => "Nothing waits to be signed.".to_owned(),
        false => format!(
            "Signed {}:\n{}",
            text::count(signed.len(), "certificate"),
            listed(&signed)
        ),
    };
    let mut report = Report::new(text, &json!({ "signed": signed }));
    for asked in refused {
        report = report.note(format!(
            "{} on {} gets none: {}.",
            asked.name,
            asked.device,
            or_dash(asked.why.as_ref())
        ));
    }
    Ok(session.publish(report, &mut network, &secrets))
}
