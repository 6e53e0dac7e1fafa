//! Results as people read them: aligned columns, no colours, no borders.

use crate::api::types::{Host, Joined, Peer, Pong, Record, Rotated, Status, Why};

/// Rows under a heading, each column as wide as its widest cell.
fn columns(heading: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(heading.get(column).map_or(0, |h| h.chars().count()))
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths);
        let padded = padded.map(|(cell, width)| format!("{cell:<width$}"));
        let line = padded.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    let mut text = line(&mut heading.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// `name: value` lines with the values aligned.
fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let line =
        |(name, value): &(&str, String)| format!("{:<width$}  {value}\n", format!("{name}:"));
    facts.iter().map(line).collect()
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".into())
}

pub fn status(status: &Status) -> String {
    let mut lines = Vec::new();
    match (&status.network, &status.joining) {
        (Some(network), _) => {
            lines.push((
                "network",
                format!("{}.alt ({})", network.petname, network.id),
            ));
            lines.push(("prefix", network.prefix.clone()));
            lines.push(("this node", format!("{} {}", network.name, network.address)));
            if let Some(site) = network.site {
                lines.push(("site", site.to_string()));
            }
            if !network.roles.is_empty() {
                lines.push(("roles", network.roles.join(", ")));
            }
            lines.push(("member until", network.valid_until.clone()));
            lines.push(("network head", network.head.to_string()));
            lines.push(("tunnel key", format!("epoch {}", network.epoch)));
        }
        (None, Some(joining)) => lines.push(("network", format!("joining: {joining}"))),
        (None, None) => lines.push(("network", "none yet; `altnet join <invite>`".into())),
    }
    lines.push(("clock", status.clock.clone()));
    lines.push(("port", format!("{}/udp", status.listen_port)));
    for lan in &status.lans {
        let text = format!("{} {} ({})", lan.interface, lan.address, lan.advertise);
        lines.push(("lan", text));
    }
    let peers = format!(
        "{} direct, {} relayed, {} unreachable",
        status.peers_direct, status.peers_relayed, status.peers_unreachable
    );
    lines.push(("peers", peers));
    if !status.relays.is_empty() {
        lines.push(("relays", status.relays.join(", ")));
    }
    for note in &status.notes {
        lines.push(("note", note.clone()));
    }
    facts(&lines)
}

pub fn peers(peers: &Vec<Peer>) -> String {
    if peers.is_empty() {
        return "no peers yet; they appear once the directory or a peer has been reached\n".into();
    }
    let rows: Vec<Vec<String>> = peers
        .iter()
        .map(|peer| {
            vec![
                peer.name.clone(),
                peer.address.clone(),
                or_dash(peer.site.map(|site| site.to_string())),
                peer.path.clone(),
                or_dash(peer.endpoint.clone()),
                or_dash(peer.rtt_ms.map(|rtt| format!("{rtt:.1} ms"))),
                or_dash(peer.handshake_s.map(|age| format!("{age} s ago"))),
                peer.why.clone(),
            ]
        })
        .collect();
    columns(
        &[
            "NAME",
            "ADDRESS",
            "SITE",
            "PATH",
            "ENDPOINT",
            "RTT",
            "HANDSHAKE",
            "WHY",
        ],
        &rows,
    )
}

pub fn pong(n: u32, pong: &Pong) -> String {
    let Pong {
        address,
        path,
        endpoint,
        rtt_ms,
    } = pong;
    format!("{n}: {address} answered in {rtt_ms:.1} ms, {path} ({endpoint})\n")
}

pub fn why(why: &Why) -> String {
    let mut lines = vec![
        ("node", why.address.clone()),
        ("path", why.path.clone()),
        ("policy", why.policy.clone()),
    ];
    for because in &why.because {
        lines.push(("because", because.clone()));
    }
    if !why.hint.is_empty() {
        lines.push(("do", why.hint.clone()));
    }
    facts(&lines)
}

pub fn records(records: &Vec<Record>) -> String {
    let rows: Vec<Vec<String>> = records
        .iter()
        .map(|record| {
            vec![
                record.kind.clone(),
                record.subject.clone(),
                record.serial.to_string(),
                record.signer.clone(),
                record.valid_until.clone().unwrap_or_else(|| "never".into()),
                record.bytes.to_string(),
            ]
        })
        .collect();
    columns(
        &["KIND", "SUBJECT", "SERIAL", "SIGNER", "ENDS", "BYTES"],
        &rows,
    )
}

pub fn joined(joined: &Joined) -> String {
    format!(
        "joined the network {}\nthis node is {}\n",
        joined.network, joined.address
    )
}

pub fn left(left: &Joined) -> String {
    format!("left the network {}; its keys are gone\n", left.network)
}

pub fn rotated(rotated: &Rotated) -> String {
    format!(
        "tunnel keys are new (epoch {}); the old ones are accepted a while longer\n",
        rotated.epoch
    )
}

pub fn host_added(host: &Host) -> String {
    format!("{} is {}\n", host.name, host.address)
}

pub fn hosts(hosts: &Vec<Host>) -> String {
    let rows: Vec<Vec<String>> = hosts
        .iter()
        .map(|host| vec![host.name.clone(), host.address.clone()])
        .collect();
    columns(&["NAME", "ADDRESS"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let hosts_given = vec![
            Host {
                name: "wiki".into(),
                address: "fd00::10".into(),
            },
            Host {
                name: "a-long-name".into(),
                address: "fd00::2".into(),
            },
        ];
        assert_eq!(
            hosts(&hosts_given),
            "NAME         ADDRESS\nwiki         fd00::10\na-long-name  fd00::2\n"
        );
    }

    #[test]
    fn a_node_without_a_network_is_told_how_to_join() {
        let text = status(&Status::default());
        assert!(
            text.starts_with("network:  none yet; `altnet join <invite>`\n"),
            "{text}"
        );
    }
}
