//! `altnet relay`: the relays that forward for this node, and what it forwards as one.

use std::io::Write;

use altnet_core::node::{RelayClientView, RelayLinkView};
use clap::Subcommand;
use serde_json::json;

use super::{Session, table};
use crate::api::Method;
use crate::api::types::{Relaying, Relays, Rotation};

#[derive(Debug, Subcommand)]
pub(super) enum RelayCommand {
    /// What this node forwards for others, if it is a relay.
    Status,
    /// The relays that forward for this node, its home marked.
    List,
    /// Make another relay this node's home, for an hour.
    Rotate,
}

pub(super) async fn ask<W: Write>(
    session: &mut Session<'_, W>,
    command: &RelayCommand,
) -> anyhow::Result<()> {
    match command {
        RelayCommand::Status => session.show(Method::RelayStatus, json!({}), status).await,
        RelayCommand::List => session.show(Method::Relays, json!({}), list).await,
        RelayCommand::Rotate => session.show(Method::RelayRotate, json!({}), rotated).await,
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
}
