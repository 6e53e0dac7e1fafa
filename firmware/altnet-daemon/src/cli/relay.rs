//! `altnet relay`: the relays that forward for this node, and what it forwards as one.

use std::io::Write;

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
    table::facts(&[
        (
            "clients",
            format!("{} of {}", relaying.clients, relaying.most_clients),
        ),
        ("tls", tls),
        (
            "forwarded",
            format!(
                "{} datagrams, {} bytes",
                relaying.forwarded, relaying.forwarded_bytes
            ),
        ),
        ("refused", relaying.refused.to_string()),
        ("for nobody here", relaying.no_such_node.to_string()),
    ])
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
            relay.address.clone().unwrap_or_default(),
            relay.observed.clone().unwrap_or_default(),
        ]
    };
    table::columns(
        &["RELAY", "", "BY", "RTT", "AT", "SEES US AT"],
        &relays.iter().map(row).collect::<Vec<_>>(),
    )
}

fn rotated(Rotation { home }: &Rotation) -> String {
    format!("{home} is this node's home relay for an hour\n")
}
