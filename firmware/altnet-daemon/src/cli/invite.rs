//! `altnet invite` and `altnet members`: bringing others in, and who brought whom.

use std::io::Write;

use clap::Subcommand;
use serde_json::json;

use super::{Session, table};
use crate::api::Method;
use crate::api::invites as types;
use crate::api::types::HostName;

#[derive(Debug, Subcommand)]
pub(super) enum InviteCommand {
    /// Make an invite's link. Policy says whether you may, and what it gives.
    Create {
        /// What the device is to be called; without it the device chooses.
        #[arg(long)]
        name: Option<String>,
        /// How many devices may come in.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
        uses: u16,
        /// For how many days.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=30))]
        days: u16,
    },
    /// The invites that were made here.
    List,
    /// Take an invite back. Who came in by it stays.
    Revoke {
        /// Its key or the beginning of it, or the name it was made for.
        invite: String,
    },
}

pub(super) async fn ask<W: Write>(
    session: &mut Session<'_, W>,
    command: &InviteCommand,
) -> anyhow::Result<()> {
    match command {
        InviteCommand::Create { name, uses, days } => {
            let new = types::NewInvite {
                name: name.clone(),
                uses: *uses,
                days: *days,
            };
            session.show(Method::InviteCreate, new, made).await
        }
        InviteCommand::List => session.show(Method::Invites, json!({}), list).await,
        InviteCommand::Revoke { invite } => {
            let text = "nobody comes in by it any more; who did stays\n".to_owned();
            let which = HostName {
                name: invite.clone(),
            };
            let print = |_: &serde_json::Value| text;
            session.show(Method::InviteRevoke, which, print).await
        }
    }
}

fn made(made: &types::InviteMade) -> String {
    let groups = match made.groups.is_empty() {
        true => "in no group".to_owned(),
        false => format!("in {}", made.groups.join(", ")),
    };
    format!(
        "{}\nWhoever has the link can come in by it until {}, {groups}. It is shown this once.\n",
        made.link, made.expires
    )
}

fn list(types::Invites { invites }: &types::Invites) -> String {
    let row = |invite: &altnet_core::node::InviteView| {
        vec![
            invite.name.clone().unwrap_or_else(|| "-".into()),
            format!("{}/{}", invite.used_by.len(), invite.uses),
            invite.status.clone(),
            invite.expires.clone(),
            invite.used_by.join(","),
            invite.invite.clone(),
        ]
    };
    let head = ["NAME", "USED", "STATUS", "UNTIL", "BY", "INVITE"];
    let mut newest: Vec<_> = invites.iter().collect();
    newest.sort_by(|a, b| b.expires.cmp(&a.expires).then(a.invite.cmp(&b.invite)));
    let rows: Vec<_> = newest.into_iter().map(row).collect();
    table::columns(&head, &rows)
}

/// Each member below who brought it in.
pub(super) fn tree(types::Members { members }: &types::Members) -> String {
    let is_known = |name: &str| members.iter().any(|member| member.name == name);
    let below = |sponsor: Option<&str>| {
        let its = members.iter().filter(move |member| match sponsor {
            Some(sponsor) => member.sponsor.as_deref() == Some(sponsor),
            None => member.sponsor.as_deref().is_none_or(|name| !is_known(name)),
        });
        let mut its: Vec<_> = its.collect();
        its.sort_by(|a, b| a.name.cmp(&b.name));
        its
    };
    let row = |depth: usize, member: &altnet_core::node::MemberView| {
        vec![
            format!("{}{}", "  ".repeat(depth), member.name),
            member.person.clone().unwrap_or_else(|| "-".into()),
            member.groups.join(","),
            member.sponsor.clone().unwrap_or_else(|| "-".into()),
        ]
    };
    let mut rows = Vec::new();
    let mut shown: Vec<&str> = Vec::new();
    let mut waiting: Vec<(usize, _)> = below(None).into_iter().rev().map(|m| (0, m)).collect();
    while let Some((depth, member)) = waiting.pop() {
        rows.push(row(depth, member));
        shown.push(&member.name);
        let its = below(Some(&member.name)).into_iter().rev();
        waiting.extend(its.map(|member| (depth + 1, member)));
    }
    // Two that name each other, as an issuer may sign it, are below nobody.
    let rest = members
        .iter()
        .filter(|member| !shown.contains(&member.name.as_str()));
    rows.extend(rest.map(|member| row(0, member)));
    table::columns(&["NAME", "PERSON", "GROUPS", "BROUGHT IN BY"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_core::node::MemberView;

    #[test]
    fn each_stands_below_who_brought_it_in() {
        let member = |name: &str, sponsor: Option<&str>| MemberView {
            name: name.into(),
            sponsor: sponsor.map(Into::into),
            ..MemberView::default()
        };
        let members = vec![
            member("ann", None),
            member("bob", Some("cyd")),
            member("cyd", Some("ann")),
            member("dan", Some("somebody-gone")),
            member("eve", Some("ann")),
            member("fay", Some("gus")),
            member("gus", Some("fay")),
        ];
        let text = tree(&types::Members { members });
        let names: Vec<&str> = text
            .lines()
            .skip(1)
            .map(|line| line.split_at(8).0.trim_end())
            .collect();
        assert_eq!(
            names,
            ["ann", "  cyd", "    bob", "  eve", "dan", "fay", "gus"]
        );
    }
}
