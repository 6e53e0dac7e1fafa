//! `altnet relay`: the relays that forward for this node, and what it forwards as one.

use std::io::{IsTerminal, Write};

use altnet_core::node::{RelayClientView, RelayLinkView};
use altnet_core::relay::bench::{MOST_BYTES, USUAL_BYTES};
use clap::Subcommand;
use serde_json::json;

use super::{Session, table};
use crate::api::Method;
use crate::api::bench::{Bench, Benched};
use crate::api::types::{Relaying, Relays, Rotation};

#[derive(Debug, Subcommand)]
pub(super) enum RelayCommand {
    /// What this node forwards for others, if it is a relay.
    Status,
    /// The relays that forward for this node, its home marked.
    List,
    /// Make another relay this node's home, for an hour.
    Rotate,
    /// How quick the relays are, measured by what this node sends itself through each.
    Bench {
        /// The relay, by name or address; without one all that answer, in turn.
        relay: Option<String>,
        /// The most bytes to send through each; they come back too.
        #[arg(long, value_name = "N", default_value_t = USUAL_BYTES, value_parser = clap::value_parser!(u32).range(..=i64::from(MOST_BYTES)))]
        bytes: u32,
        /// Yes, on a line that is paid by the byte too.
        #[arg(long)]
        yes: bool,
    },
}

pub(super) async fn ask<W: Write>(
    session: &mut Session<'_, W>,
    command: &RelayCommand,
) -> anyhow::Result<()> {
    match command {
        RelayCommand::Status => session.show(Method::RelayStatus, json!({}), status).await,
        RelayCommand::List => session.show(Method::Relays, json!({}), list).await,
        RelayCommand::Rotate => session.show(Method::RelayRotate, json!({}), rotated).await,
        RelayCommand::Bench { relay, bytes, yes } => {
            bench(session, relay.as_deref(), *bytes, *yes).await
        }
    }
}

fn status(relaying: &Relaying) -> String {
    if !relaying.is_relay {
        return "this node is no relay; an owner makes one with the role: altnet-provision invite create --role relay\n".into();
    }
    let tls = match &relaying.tls {
        Some(address) => format!("{address}, {} connections", relaying.streams),
        None => "not served; [relay] listen in altnet.toml says where".into(),
    };
    let mut text = table::facts(&[
        (
            "clients",
            format!("{} of {}", relaying.clients, relaying.most_clients),
        ),
        ("load", format!("{} %", relaying.load)),
        ("limits", limits(relaying)),
        ("tls", tls),
        (
            "forwarded",
            format!(
                "{} datagrams, {} bytes",
                relaying.forwarded, relaying.forwarded_bytes
            ),
        ),
        ("refused", relaying.refused.to_string()),
        ("over their limits", relaying.over.to_string()),
        ("for nobody here", relaying.no_such_node.to_string()),
    ]);
    if !relaying.links.is_empty() {
        text += "\n";
        text += &links(&relaying.links);
    }
    if !relaying.members.is_empty() {
        text += "\n";
        text += &members(&relaying.members);
    }
    text
}

/// What bounds what is forwarded.
fn limits(relaying: &Relaying) -> String {
    let bounds = [
        (relaying.rate_mbit, "Mbit/s for each member"),
        (relaying.monthly_gb, "GB a month for each member"),
        (relaying.uplink_mbit, "Mbit/s that all share"),
    ];
    let set = bounds.iter().filter(|(bound, _)| *bound > 0);
    let set: Vec<String> = set.map(|(bound, of)| format!("{bound} {of}")).collect();
    match set.is_empty() {
        true => "none; [relay] in altnet.toml sets them".into(),
        false => set.join(", "),
    }
}

fn links(links: &[RelayLinkView]) -> String {
    let row = |link: &RelayLinkView| {
        let state = match (link.up, &link.by) {
            (_, Some(by)) => format!("by {by}"),
            (true, None) => "up".into(),
            (false, None) => "down".into(),
        };
        vec![
            link.name.clone(),
            state,
            link.rtt_us.map(table::milliseconds).unwrap_or_default(),
            format!(
                "{}.{} %",
                link.lost_per_mille / 10,
                link.lost_per_mille % 10
            ),
            link.clients.to_string(),
            link.sent.to_string(),
            link.came.to_string(),
        ]
    };
    table::columns(
        &["TO RELAY", "", "RTT", "LOST", "CLIENTS", "SENT", "CAME"],
        &links.iter().map(row).collect::<Vec<_>>(),
    )
}

fn members(members: &[RelayClientView]) -> String {
    let row = |member: &RelayClientView| {
        vec![
            member.name.clone(),
            member.carrier.clone(),
            member.bytes.to_string(),
            member.over.to_string(),
        ]
    };
    table::columns(
        &["MEMBER", "BY", "BYTES", "OVER ITS LIMITS"],
        &members.iter().map(row).collect::<Vec<_>>(),
    )
}

fn list(Relays { relays }: &Relays) -> String {
    let row = |relay: &altnet_core::node::RelayView| {
        vec![
            relay.name.clone(),
            if relay.home { "home" } else { "" }.into(),
            if relay.up {
                relay.carrier.clone()
            } else {
                "no answer".into()
            },
            relay.rtt_us.map(table::milliseconds).unwrap_or_default(),
            match relay.refused_s {
                0 => format!("{} %", relay.load),
                _ => "over our limit".into(),
            },
            relay.address.clone().unwrap_or_default(),
            relay.observed.clone().unwrap_or_default(),
        ]
    };
    table::columns(
        &["RELAY", "", "BY", "RTT", "LOAD", "AT", "SEES US AT"],
        &relays.iter().map(row).collect::<Vec<_>>(),
    )
}

fn rotated(Rotation { home }: &Rotation) -> String {
    format!("{home} is this node's home relay for an hour\n")
}

/// Measures one relay, or all that answer, one after the other.
async fn bench<W: Write>(
    session: &mut Session<'_, W>,
    relay: Option<&str>,
    bytes: u32,
    yes: bool,
) -> anyhow::Result<()> {
    let wanted: Vec<String> = match relay {
        Some(relay) => vec![relay.to_owned()],
        None => {
            let all: Relays = session.client.call(Method::Relays, &json!({})).await?;
            let up = all.relays.into_iter().filter(|relay| relay.up);
            up.map(|relay| relay.node).collect()
        }
    };
    anyhow::ensure!(
        !wanted.is_empty(),
        "no relay forwards for this node now; `altnet relay list` shows them"
    );
    // Whoever looks on sees that something happens; a file gets the table alone.
    let is_watched = !session.json && std::io::stderr().is_terminal();
    let (mut found, mut failed) = (Vec::new(), Ok(()));
    for (place, relay) in wanted.iter().enumerate() {
        if is_watched {
            eprint!("\rmeasuring relay {} of {} ...", place + 1, wanted.len());
        }
        let params = Bench {
            relay: relay.clone(),
            bytes: Some(bytes),
            even_if_metered: yes,
        };
        let benched = session.client.call(Method::RelayBench, &params).await;
        if is_watched {
            eprint!("\r{:40}\r", "");
        }
        match benched {
            Ok(benched) => found.push(benched),
            // What the others said is shown all the same.
            Err(e) => failed = Err(e.into()),
        }
    }
    if session.json {
        let found = json!({ "relays": found });
        writeln!(session.out, "{}", serde_json::to_string_pretty(&found)?)?;
    } else {
        write!(session.out, "{}", measured(&found))?;
    }
    failed
}

fn measured(relays: &[Benched]) -> String {
    let share = |sent: u32, came: u32| {
        let lost = sent.saturating_sub(came);
        match sent {
            0 => String::new(),
            sent => format!("{:.1} %", f64::from(lost) * 100.0 / f64::from(sent)),
        }
    };
    let row = |relay: &Benched| {
        let rate = relay.rate_bytes_per_s.map(|rate| {
            let more = if relay.at_least { "at least " } else { "" };
            // Bytes a second of any relay there is are far below where this loses one.
            format!("{more}{:.1} Mbit/s", rate as f64 * 8.0 / 1e6)
        });
        vec![
            relay.relay.clone(),
            relay.carrier.clone(),
            relay
                .rtt_median_us
                .map(table::milliseconds)
                .unwrap_or_else(|| "no answer".into()),
            relay
                .rtt_least_us
                .map(table::milliseconds)
                .unwrap_or_default(),
            share(relay.pings.into(), relay.answered.into()),
            rate.unwrap_or_default(),
            share(relay.datagrams, relay.came_back),
        ]
    };
    table::columns(
        &[
            "RELAY",
            "BY",
            "RTT",
            "LEAST",
            "LOST",
            "BOTH WAYS",
            "LOST THERE",
        ],
        &relays.iter().map(row).collect::<Vec<_>>(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relays_links_members_and_limits_are_shown() {
        let link = RelayLinkView {
            name: "relay-2".into(),
            rtt_us: Some(12_345),
            lost_per_mille: 15,
            by: Some("relay-3".into()),
            clients: 4,
            ..RelayLinkView::default()
        };
        let member = RelayClientView {
            name: "house-a".into(),
            carrier: "udp".into(),
            bytes: 77,
            over: 9,
            ..RelayClientView::default()
        };
        let mut relaying = Relaying {
            is_relay: true,
            load: 42,
            uplink_mbit: 10,
            links: vec![link],
            members: vec![member],
            ..Relaying::default()
        };
        let text = status(&relaying);
        for shown in [
            "42 %",
            "10 Mbit/s that all share",
            "by relay-3",
            "1.5 %",
            "house-a",
        ] {
            assert!(text.contains(shown), "{shown}: {text}");
        }
        relaying.uplink_mbit = 0;
        assert!(status(&relaying).contains("none; [relay]"));
        relaying.is_relay = false;
        assert!(status(&relaying).contains("is no relay"));
    }

    #[test]
    fn a_table_says_what_was_found_and_what_was_not() {
        let found = Benched {
            relay: "relay1".into(),
            carrier: "udp".into(),
            pings: 10,
            answered: 9,
            rtt_least_us: Some(19_900),
            rtt_median_us: Some(20_500),
            datagrams: 1000,
            came_back: 950,
            rate_bytes_per_s: Some(1_250_000),
            ..Benched::default()
        };
        let silent = Benched {
            relay: "relay2".into(),
            pings: 10,
            ..Benched::default()
        };
        let table = measured(&[found, silent]);
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[1].join(" "),
            "relay1 udp 20.5 ms 19.9 ms 10.0 % 10.0 Mbit/s 5.0 %"
        );
        assert_eq!(lines[2].join(" "), "relay2 no answer 100.0 %");
    }
}
