//! `altnet-provision network ...`.

use altnet_provision::directory::{WAIT, recover_from};
use altnet_provision::network::{Network, NetworkSummary, adopt, new_owner_key};
use altnet_provision::{Error, Result, files, recovery};
use altnet_wire::id::SigningKey;
use serde_json::json;

use super::Session;
use super::revoke::{Before, told_anew};
use crate::ask;
use crate::cli::{NetworkCommand, OwnerCommand, RecoverArgs};
use crate::say::{Report, table};

pub fn act(session: &Session<'_>, command: NetworkCommand) -> Result<Report> {
    match command {
        NetworkCommand::Create { name } => create(session, &name),
        NetworkCommand::List => list(session),
        NetworkCommand::Show => {
            let network = session.open()?;
            let summary = network.summary();
            let report = Report::new(shown(&summary), &summary);
            Ok(Session::advise(report, &network))
        }
        NetworkCommand::Rename { name } => {
            let mut network = session.open()?;
            let old = network.name().clone();
            network.rename(&session.home, &name)?;
            let text = format!("{old} is called {name} on this computer now.");
            let report = Report::new(text, &network.summary());
            Ok(report.note("Each home has a name of its own for the network: on a gateway it is set in altnet.toml."))
        }
        NetworkCommand::Owner(command) => owner(session, command),
        NetworkCommand::Share { output } => {
            let network = session.open()?;
            files::create(&output, network.share()?.as_bytes())?;
            let text = format!(
                "On the other owner's computer run `altnet-provision network owner adopt {}`.",
                output.display()
            );
            Ok(Report::new(text, &json!({ "file": output })))
        }
    }
}

fn create(session: &Session<'_>, name: &altnet_wire::id::Name) -> Result<Report> {
    if session.home.network(name).exists() {
        // Before anybody thinks of a passphrase.
        return Err(Error::Exists {
            what: format!("there is a network called {name} already"),
            next: "Choose another name, or see it with `altnet-provision network show`.".into(),
        });
    }
    session.check_clock()?;
    let passphrase = session.new_passphrase()?;
    let made = Network::create(&session.home, name, &passphrase, session.now)?;
    let key = made.recovery.to_text();
    let text = format!(
        "Network {name} is made: {}\nIts machines will be called <machine>.{name}.alt, in {}.\n\n\
         Recovery key, shown this once and stored nowhere. Write it on paper:\n\n{}\n\
         It replaces your owner key if you lose it. Whoever has it can take over the network.\n\n\
         Its policy has one rule, members-to-hosts: every member may reach every machine that has a \
         name, and nothing else. Change it with `altnet-provision policy edit`.",
        made.network.id(),
        made.network.summary().prefix,
        *recovery::in_lines(&key),
    );
    let report = Report::new(text, &made.network.summary()).with("recovery_key", &*key);
    Ok(Session::advise(report, &made.network))
}

fn list(session: &Session<'_>) -> Result<Report> {
    let names = session.home.networks()?;
    let mut networks = Vec::new();
    let mut broken = Vec::new();
    for name in names {
        match Network::open(&session.home.network(&name)) {
            Ok(network) => networks.push(network.summary()),
            Err(error) => broken.push(json!({ "name": name.as_str(), "error": error.to_string() })),
        }
    }
    let mut rows: Vec<_> = networks
        .iter()
        .map(|n| vec![n.name.clone(), n.members.to_string(), n.id.to_string()])
        .collect();
    let named = |value: &serde_json::Value, field| value[field].as_str().unwrap_or("-").to_owned();
    rows.extend(
        broken
            .iter()
            .map(|b| vec![named(b, "name"), "-".into(), named(b, "error")]),
    );
    let text = table(&["NAME", "MEMBERS", "ID"], &rows);
    Ok(Report::new(
        text,
        &json!({ "networks": networks, "broken": broken }),
    ))
}

fn shown(summary: &NetworkSummary) -> String {
    let mut text = format!(
        "{}\n  id        {}\n  prefix    {}\n  made      {}\n",
        summary.name, summary.id, summary.prefix, summary.created
    );
    for owner in &summary.owners {
        text.push_str(&format!("  owner     {owner}\n"));
    }
    text.push_str(&format!(
        "  issuer    {} (this computer)\n  members   {}\n  hosts     {}\n  pending   {}\n",
        summary.issuer, summary.members, summary.hosts, summary.pending
    ));
    for entry in &summary.entries {
        let places: Vec<String> = entry.endpoints.iter().map(ToString::to_string).collect();
        let joined = if entry.joined {
            ""
        } else {
            ", not known to have joined"
        };
        text.push_str(&format!(
            "  entry     {} at {}{joined}\n",
            entry.name,
            places.join(", ")
        ));
    }
    text
}

fn owner(session: &Session<'_>, command: OwnerCommand) -> Result<Report> {
    match command {
        OwnerCommand::List => {
            // The keys say which owner this computer is; without the passphrase it stays open.
            let owners = match session.may_ask() {
                true => {
                    let (network, secrets) = session.unlock()?;
                    network.owners(Some(&secrets))
                }
                false => session.open()?.owners(None),
            };
            let rows: Vec<_> = owners
                .iter()
                .map(|owner| {
                    let place = match owner.here {
                        Some(true) => "this computer",
                        Some(false) => "elsewhere",
                        None => "-",
                    };
                    vec![owner.key.to_string(), place.into()]
                })
                .collect();
            Ok(Report::new(
                table(&["KEY", "WHERE"], &rows),
                &json!({ "owners": owners }),
            ))
        }
        OwnerCommand::Key => {
            let key = new_owner_key(&session.home, &session.new_passphrase()?)?;
            let report = Report::new(key.to_string(), &json!({ "key": key.to_string() }));
            Ok(report.note(format!(
                "On a present owner's computer run `altnet-provision network owner add {key}`, then `network share -o FILE`; bring the file here for `network owner adopt FILE`."
            )))
        }
        OwnerCommand::Add { key } => change(session, key, true),
        OwnerCommand::Remove { key } => change(session, key, false),
        OwnerCommand::Adopt { file, name } => {
            let text = ask::text_of(&file)?;
            let passphrase = session.passphrase()?;
            let mut network = adopt(
                &session.home,
                &text,
                name.as_ref(),
                &passphrase,
                session.now,
            )?;
            let said = format!("Network {} is kept here too.", network.name());
            let secrets = network.unlock(&passphrase)?;
            let report = Report::new(said, &network.summary());
            Ok(session.publish(report, &mut network, &secrets))
        }
        OwnerCommand::Recover(args) => recover(session, &args),
    }
}

fn change(session: &Session<'_>, key: SigningKey, add: bool) -> Result<Report> {
    let (mut network, secrets) = match add {
        true => session.unlock_to_change()?,
        false => session.unlock_in_step()?,
    };
    let before = Before::of(&network);
    let text = if add {
        network.add_owner(&secrets, key, session.now)?;
        format!("{key} is an owner now.")
    } else {
        network.remove_owner(&secrets, key, session.now)?;
        format!("{key} is no owner any more, and what it had certified was signed anew.")
    };
    let owners = network.owners(Some(&secrets));
    let report = Report::new(text, &json!({ "owners": owners }));
    let report = told_anew(report, &network, &before);
    Ok(session.publish(report, &mut network, &secrets))
}

fn recover(session: &Session<'_>, args: &RecoverArgs) -> Result<Report> {
    let here = session.home.pick(session.global.network.as_ref());
    let mut before = None;
    let (mut network, secrets) = match (here, args.endpoint) {
        (Ok(_), _) => {
            let recovery = ask::recovery_key(args.recovery_key_file.as_deref())?;
            let (mut network, mut secrets) = session.unlock_in_step()?;
            before = Some(Before::of(&network));
            network.recover(&mut secrets, &recovery, &args.lost, session.now)?;
            (network, secrets)
        }
        (Err(_), Some(endpoint)) => {
            let recovery = ask::recovery_key(args.recovery_key_file.as_deref())?;
            let passphrase = session.new_passphrase()?;
            let name = session.global.network.as_ref();
            recover_from(
                &session.home,
                name,
                endpoint,
                &recovery,
                &args.lost,
                &passphrase,
                session.now,
                WAIT,
            )?
        }
        (Err(error), None) if !session.home.networks()?.is_empty() => return Err(error),
        (Err(_), None) => {
            return Err(Error::NotFound {
                what: "there is no network on this computer".into(),
                next: "Say where it can be entered with --endpoint IP:PORT, or bring a backup back first with `altnet-provision restore FILE`.".into(),
            });
        }
    };
    let owners = network.owners(Some(&secrets));
    let text = format!("This computer is an owner of {} now.", network.name());
    let report = Report::new(
        text,
        &json!({ "owners": owners, "network": network.summary() }),
    );
    let report = match &before {
        Some(before) => told_anew(report, &network, before),
        None => report,
    };
    Ok(session.publish(report, &mut network, &secrets))
}
