//! Results as people read them: aligned columns, no colours, no borders.

use crate::api::types::{
    App, Apps, AuditCover, AuditEntry, AuditHead, AuditHeads, AuditVerdict, Host, Hosts, Joined,
    Left, Peer, Peers, Policy, Pong, Record, Records, Reloaded, Rotated, Status, Step, Verdict,
    Why,
};

/// Rows under a heading, each column as wide as its widest cell.
pub(super) fn columns(heading: &[&str], rows: &[Vec<String>]) -> String {
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
pub(super) fn facts(facts: &[(&str, String)]) -> String {
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
    match &status.node.network {
        Some(network) => {
            lines.push((
                "network",
                format!("{}.alt ({})", network.petname, network.id),
            ));
            lines.push(("prefix", network.prefix.clone()));
            lines.push(("this node", format!("{} {}", network.name, network.address)));
            if let (Some(site), Some(prefix)) = (network.site, &network.site_prefix) {
                lines.push(("site", format!("{site} ({prefix})")));
            }
            if !network.roles.is_empty() {
                lines.push(("roles", network.roles.join(", ")));
            }
            let ended = if network.expired {
                ", which is past"
            } else {
                ""
            };
            lines.push(("member until", format!("{}{ended}", network.expires)));
            lines.push(("tunnel key", format!("epoch {}", network.tunnel_epoch)));
            let known = format!("{} members, {} hosts", network.members, network.hosts);
            lines.push(("known", known));
        }
        None if status.node.state == "joining" => lines.push(("network", "joining".into())),
        None if status.node.state == "set-aside" => {
            lines.push((
                "network",
                "set aside: whoever let this node in may no longer vouch for it".into(),
            ));
        }
        None => lines.push(("network", "none yet; `altnet join <invite>`".into())),
    }
    let sure = if status.node.time_known {
        ""
    } else {
        " (not known for sure)"
    };
    lines.push(("time", format!("{}{sure}", status.node.time)));
    lines.push(("port", format!("{}/udp", status.listen_port)));
    for lan in &status.lans {
        let address = lan.address.as_deref().unwrap_or("no address yet");
        let mut text = format!("{} {address} ({})", lan.interface, lan.advertise);
        if let Some(fault) = &lan.fault {
            text.push_str(", ");
            text.push_str(fault);
        }
        lines.push(("lan", text));
    }
    for mapping in &status.port_mappings {
        let text = match (&mapping.external, &mapping.protocol) {
            (Some(external), Some(protocol)) => {
                format!("{external} by {protocol}: {}", mapping.why_text)
            }
            _ => mapping.why_text.clone(),
        };
        lines.push(("router", format!("{}, {text}", mapping.router)));
    }
    let nat = &status.node.nat;
    if [&nat.mapping, &nat.filtering]
        .iter()
        .any(|kind| !matches!(kind.as_str(), "" | "unknown"))
    {
        let text = format!("mapping {}, filtering {}", nat.mapping, nat.filtering);
        lines.push(("nat", text));
    }
    lines.push(("peers", status.node.peers.to_string()));
    for relay in &status.node.relays {
        let text = match (&relay.observed, relay.up) {
            (Some(observed), true) => format!("{} forwards, and sees us at {observed}", relay.name),
            (None, true) => format!("{} forwards", relay.name),
            (_, false) => format!("{} does not answer", relay.name),
        };
        lines.push(("relay", text));
    }
    for turn in &status.node.turn {
        let text = match (&turn.relayed, &turn.why) {
            (Some(at), _) => {
                let members = if turn.reaches == 1 {
                    "member"
                } else {
                    "members"
                };
                format!(
                    "{} relays for us at {at}, and leads to {} {members}",
                    turn.server, turn.reaches
                )
            }
            (None, Some(why)) => format!("{} does not: {why}", turn.server),
            _ if turn.state == "idle" => format!("{}, not needed now", turn.server),
            _ => format!("{} is asked", turn.server),
        };
        lines.push(("turn server", text));
    }
    if let Some(key) = &status.node.derp_key {
        lines.push(("DERP key", key.clone()));
    }
    for derper in &status.node.derpers {
        let text = match (derper.state.as_str(), &derper.why) {
            ("up", _) => format!("{} relays for us", derper.server),
            ("failed", Some(why)) => format!("{} does not: {why}", derper.server),
            ("idle", _) => format!("{}, not needed now", derper.server),
            _ => format!("{} is asked", derper.server),
        };
        lines.push(("DERP server", text));
    }
    for directory in &status.node.directories {
        let state = if directory.synced {
            "in step"
        } else {
            "not in step"
        };
        lines.push(("directory", format!("{}, {state}", directory.name)));
    }
    if let Some(why) = &status.unsaved {
        lines.push(("not kept", format!("{why}; tried again")));
    }
    for wait in &status.node.waits_for {
        lines.push(("waits for", wait.clone()));
    }
    facts(&lines)
}

pub fn app_added(app: &App) -> String {
    let ports: Vec<String> = app.ports.iter().map(u16::to_string).collect();
    let tls = match &app.tls {
        Some(tls) => format!(
            "TLS: {}; on an owner's computer: altnet-provision tls sign\n",
            tls.text()
        ),
        None => String::new(),
    };
    format!(
        "{} ({}) leads to {} at port {}\n{tls}A policy says who may reach it; in one it is called app:{}\n",
        app.fqdn,
        app.address,
        app.to,
        ports.join(", "),
        app.name
    )
}

pub fn apps(Apps { apps }: &Apps) -> String {
    if apps.is_empty() {
        return "no apps; `altnet app add NAME --to HOST:PORT` makes one\n".into();
    }
    let row = |app: &App| {
        let ports: Vec<String> = app.ports.iter().map(u16::to_string).collect();
        let kind = if app.http { "http" } else { "tcp" };
        vec![
            app.fqdn.clone(),
            format!("{kind} {}", ports.join(", ")),
            app.to.clone(),
            format!("{} now, {} in all", app.connections, app.accepted),
            match &app.tls {
                Some(tls) => format!("tls: {}", tls.text()),
                None => "-".into(),
            },
            app.address.clone(),
        ]
    };
    let rows: Vec<_> = apps.iter().map(row).collect();
    columns(
        &["NAME", "PORTS", "LEADS TO", "CONNECTIONS", "TLS", "ADDRESS"],
        &rows,
    )
}

pub fn policy(policy: &Policy) -> String {
    if policy.serial == 0 {
        return "no policy is in force, so nothing is allowed; an owner publishes one with `altnet-provision policy publish`\n".into();
    }
    let head = policy
        .head_age_s
        .map_or_else(|| "-".into(), |age_s| format!("{age_s} s old"));
    facts(&[
        ("policy", format!("number {}", policy.serial)),
        ("rules", policy.rules.to_string()),
        (
            "compiled",
            format!("{} rows, {} bytes", policy.rows, policy.bytes),
        ),
        ("issuers' newest word", head),
    ])
}

pub fn verdict(verdict: &Verdict) -> String {
    let mut lines = vec![
        (
            "from",
            format!("{} ({})", verdict.source, verdict.source_is),
        ),
        ("to", format!("{} ({})", verdict.target, verdict.target_is)),
    ];
    let word = if verdict.allowed { "yes" } else { "no" };
    lines.push(("allowed", format!("{word}: {}", verdict.why)));
    facts(&lines)
}

pub fn peers(Peers { peers }: &Peers) -> String {
    if peers.is_empty() {
        return "no peers yet; they appear once packets go to them\n".into();
    }
    let row = |peer: &Peer| {
        vec![
            peer.name.clone(),
            peer.node.clone(),
            or_dash(peer.site.map(|site| site.to_string())),
            peer.path.clone(),
            or_dash(peer.endpoint.as_deref().map(|text| way(text, peers))),
            or_dash(peer.rtt_us.map(milliseconds)),
            or_dash(peer.last_handshake_s.map(|age| format!("{age} s ago"))),
            peer.why_text.clone(),
        ]
    };
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
        &peers.iter().map(row).collect::<Vec<_>>(),
    )
}

/// An endpoint, with a relay by its name: `via relay1`.
fn way(endpoint: &str, peers: &[Peer]) -> String {
    let Some((_, relay)) = endpoint.split_once(" via relay ") else {
        return endpoint.into();
    };
    let named = peers.iter().find(|peer| peer.node == relay);
    format!("via {}", named.map_or(relay, |peer| &peer.name))
}

pub(super) fn milliseconds(us: u64) -> String {
    format!("{}.{} ms", us / 1000, us % 1000 / 100)
}

pub fn pong(n: u32, pong: &Pong) -> String {
    let time = milliseconds(pong.rtt_us);
    format!("{n}: {} answered in {time}, {}\n", pong.node, pong.path)
}

pub fn why(Why { steps }: &Why) -> String {
    let row = |step: &Step| {
        let mark = if step.ok { "yes" } else { "NO" };
        vec![step.question.clone(), mark.into(), step.answer.clone()]
    };
    columns(
        &["STEP", "OK", "BECAUSE"],
        &steps.iter().map(row).collect::<Vec<_>>(),
    )
}

pub fn records(Records { records }: &Records) -> String {
    let row = |record: &Record| {
        vec![
            record.kind.clone(),
            record.serial.to_string(),
            record.bytes.to_string(),
            record.text.clone(),
        ]
    };
    columns(
        &["KIND", "SERIAL", "BYTES", "SAYS"],
        &records.iter().map(row).collect::<Vec<_>>(),
    )
}

pub fn joined(joined: &Joined) -> String {
    format!(
        "joined the network {}\nthis node is {}\n",
        joined.network, joined.name
    )
}

pub fn left(left: &Left) -> String {
    format!(
        "left the network {}; this node's keys are gone\nthe others list it until somebody revokes it with altnet-provision\n",
        left.network
    )
}

pub fn rotated(rotated: &Rotated) -> String {
    format!(
        "tunnel keys are new (epoch {}); the old ones are accepted a while longer\n",
        rotated.epoch
    )
}

pub fn reloaded(Reloaded { restart }: &Reloaded) -> String {
    match restart.as_slice() {
        [] => "altnetd has read the file\n".into(),
        keys => format!(
            "altnetd has read the file; restart it for {}\n",
            keys.join(", ")
        ),
    }
}

pub fn host_added(host: &Host) -> String {
    format!("{} is {}\n", host.name, host.address)
}

pub fn hosts(Hosts { hosts }: &Hosts) -> String {
    let rows: Vec<Vec<String>> = hosts
        .iter()
        .map(|host| vec![host.name.clone(), host.address.clone()])
        .collect();
    columns(&["NAME", "ADDRESS"], &rows)
}

/// One entry, on one line.
pub fn audit_entry(entry: &AuditEntry) -> String {
    let time = match entry.time_known {
        true => entry.time.clone(),
        false => format!("{} or later", entry.time),
    };
    let mut line = format!("{:>6}  {time}  {:<15}", entry.sequence, entry.kind);
    for text in [&entry.subject, &entry.detail] {
        if !text.is_empty() {
            line.push_str("  ");
            line.push_str(text);
        }
    }
    if entry.count > 1 {
        line.push_str(&format!("  ({} times)", entry.count));
    }
    line.trim_end().into()
}

pub fn audit_verdict(found: &AuditVerdict) -> String {
    let mut text = format!(
        "every entry is as it was written: {} to {}, {} in {} files\nlast hash: {}\n",
        found.first, found.last, found.entries, found.segments, found.hash
    );
    let (known, others): (Vec<&AuditCover>, Vec<_>) =
        found.covers.iter().partition(|cover| cover.name.is_some());
    if let Some(through) = known.iter().map(|cover| cover.through).max() {
        text.push_str(&format!("countersigned by members up to entry {through}\n"));
    } else {
        text.push_str("no member countersigned it\n");
    }
    if !others.is_empty() {
        text.push_str("keys that are not known here to be members' vouch for nothing\n");
    }
    let row = |cover: &AuditCover| {
        vec![
            cover.name.clone().unwrap_or_else(|| cover.witness.clone()),
            cover.through.to_string(),
            cover.since.to_string(),
            or_dash(cover.at.clone()),
            cover.testimonies.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = known.into_iter().chain(others).map(row).collect();
    if !rows.is_empty() {
        text.push_str(&columns(
            &["WITNESS", "UP TO", "SHOWN SINCE", "SAID AT", "TIMES"],
            &rows,
        ));
    }
    text
}

pub fn audit_heads(AuditHeads { heads }: &AuditHeads) -> String {
    if heads.is_empty() {
        return "this node vouched for no other member's audit log yet\n".into();
    }
    let row = |head: &AuditHead| {
        vec![
            head.name.clone(),
            format!("{}:{}", head.sequence, head.hash),
            head.since.to_string(),
            head.time.clone(),
        ]
    };
    columns(
        &["MEMBER", "HEAD", "SHOWN SINCE", "TIME"],
        &heads.iter().map(row).collect::<Vec<_>>(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::PortMapping;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let given = vec![
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
            hosts(&Hosts { hosts: given }),
            "NAME         ADDRESS\nwiki         fd00::10\na-long-name  fd00::2\n"
        );
    }

    #[test]
    fn a_router_is_shown_with_what_it_gave() {
        let asked = PortMapping {
            router: "192.168.1.1".into(),
            why_text: "the router keeps a port open".into(),
            ..PortMapping::default()
        };
        let given = PortMapping {
            external: Some("203.0.113.7:51820".into()),
            protocol: Some("pcp".into()),
            ..asked.clone()
        };
        let shown = |mapping: PortMapping| {
            let text = status(&Status {
                port_mappings: vec![mapping],
                ..Status::default()
            });
            let line = text.lines().find(|line| line.starts_with("router:"));
            line.unwrap().split_once("  ").unwrap().1.trim().to_owned()
        };
        assert_eq!(shown(asked), "192.168.1.1, the router keeps a port open");
        assert_eq!(
            shown(given),
            "192.168.1.1, 203.0.113.7:51820 by pcp: the router keeps a port open"
        );
    }

    #[test]
    fn a_nat_is_shown_once_something_is_known_of_it() {
        let shown = |mapping: &str, filtering: &str| {
            let mut all = Status::default();
            all.node.nat.mapping = mapping.into();
            all.node.nat.filtering = filtering.into();
            let text = status(&all);
            let line = text.lines().find(|line| line.starts_with("nat:"));
            line.map(|line| line.split_once("  ").unwrap().1.trim().to_owned())
        };
        // An older altnetd says nothing of it.
        assert_eq!(shown("", ""), None);
        assert_eq!(shown("unknown", "unknown"), None);
        let known = shown("unknown", "address-and-port-dependent");
        let text = "mapping unknown, filtering address-and-port-dependent";
        assert_eq!(known.as_deref(), Some(text));
    }

    #[test]
    fn a_relay_is_shown_by_its_name() {
        let relay = Peer {
            name: "relay1".into(),
            node: "fd00::1".into(),
            ..Peer::default()
        };
        let peers = [relay];
        assert_eq!(way("fd00::2 via relay fd00::1", &peers), "via relay1");
        assert_eq!(way("fd00::2 via relay fd00::9", &peers), "via fd00::9");
        assert_eq!(way("192.0.2.1:51820", &peers), "192.0.2.1:51820");
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
