//! `altnet login`: who is logged in from machines without software.

use std::io::Write;

use clap::Subcommand;
use serde_json::{Value, json};

use super::Session;
use crate::api::Method;
use crate::api::logins as types;

#[derive(Debug, Subcommand)]
pub(super) enum LoginCommand {
    /// Who is logged in, here and as other gateways say, and which machines are in groups by where they are.
    List,
    /// Count a machine on a LAN of this gateway's as somebody's for a time.
    Add {
        /// An address of the machine.
        address: std::net::Ipv6Addr,
        /// Who.
        #[arg(long, value_name = "NAME", required_unless_present = "groups")]
        person: Option<String>,
        /// A group of the policy that they are in.
        #[arg(long = "group", value_name = "NAME")]
        groups: Vec<String>,
        /// For how many hours.
        #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=168))]
        hours: u32,
    },
    /// Count a machine as nobody's again.
    End {
        /// Its MAC address, or an address of its.
        device: String,
    },
}

pub(super) async fn ask<W: Write>(
    session: &mut Session<'_, W>,
    command: &LoginCommand,
) -> anyhow::Result<()> {
    match command {
        LoginCommand::List => session.show(Method::Logins, json!({}), list).await,
        LoginCommand::Add {
            address,
            person,
            groups,
            hours,
        } => {
            let login = types::NewLogin {
                address: address.to_string(),
                person: person.clone(),
                groups: groups.clone(),
                seconds: hours * 3600,
                how: "altnet login add".into(),
            };
            session.show(Method::Login, login, added).await
        }
        LoginCommand::End { device } => {
            let text = format!("nobody is logged in from {device} any more\n");
            let device = types::Device {
                device: device.clone(),
            };
            session.show(Method::Logout, device, |_: &Value| text).await
        }
    }
}

fn added(login: &types::LoggedIn) -> String {
    let mut text = format!(
        "{} is logged in for {} h",
        login.device,
        login.seconds / 3600
    );
    if !login.not_counted.is_empty() {
        text.push_str(&format!(
            "; the policy lets this gateway say nothing of: {}",
            login.not_counted.join(", ")
        ));
    }
    text + "\n"
}

fn list(logins: &types::Logins) -> String {
    let mut text = String::new();
    let minutes = |seconds: u64| format!("{}:{:02}", seconds / 3600, seconds / 60 % 60);
    let at = |address: &String| {
        let counted = logins.counted.iter().find(|one| one.address == *address);
        let not = counted.map(|one| one.not_counted.join(", "));
        let note = match not.as_deref() {
            Some("") => String::new(),
            Some(not) => format!("  (not counted: {not})"),
            None => "  (not counted)".into(),
        };
        format!("    {address}{note}\n")
    };
    for entry in &logins.logins {
        text.push_str(&format!(
            "{}  {}  {}  {}  {}\n",
            entry.device,
            entry.person.as_deref().unwrap_or("-"),
            entry.groups.join(","),
            minutes(entry.seconds),
            entry.how
        ));
        text.extend(entry.addresses.iter().map(at));
    }
    for entry in &logins.placed {
        let vlan = entry.vlan.map(|id| format!(" VLAN {id}"));
        text.push_str(&format!(
            "{}  at {}{}  {}\n",
            entry.device,
            entry.port.as_deref().unwrap_or("-"),
            vlan.unwrap_or_default(),
            entry.groups.join(",")
        ));
        text.extend(entry.addresses.iter().map(at));
    }
    let own: Vec<&String> = (logins.logins.iter().flat_map(|one| &one.addresses))
        .chain(logins.placed.iter().flat_map(|one| &one.addresses))
        .collect();
    for said in &logins.counted {
        if own.contains(&&said.address) {
            continue;
        }
        text.push_str(&format!(
            "{}  {}  {}  {}  says {}\n",
            said.address,
            said.person.as_deref().unwrap_or("-"),
            said.groups.join(","),
            minutes(said.seconds),
            said.gateway
        ));
    }
    if text.is_empty() {
        text.push_str("nobody is logged in\n");
    }
    text
}
