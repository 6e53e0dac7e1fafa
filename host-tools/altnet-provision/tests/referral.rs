//! Members who brought others in, as the owner's computer sees them and puts them out.

mod common;

use std::path::Path;

use altnet_provision::Error;
use altnet_provision::home::Home;
use altnet_provision::network::{Invited, Network, Target};
use altnet_provision::policy::{Plan, compile};
use altnet_provision::secrets::Secrets;
use altnet_wire::record::Roles;
use altnet_wire::time::Duration;
use common::running::{Running, WAIT, by_link, founded, socket};
use common::{NOW, name, wish};

const POLICY: &str = r#"
[groups]
guests = []
[[rules]]
name = "web"
from = ["members"]
to = ["hosts"]
services = ["any"]
[[sponsors]]
who = ["group:family", "group:guests"]
most = 2
depth = 2
groups = ["guests"]
"#;

/// Ann, whom she brought in, and whom that one did.
struct Scene {
    network: Network,
    secrets: Secrets,
    _running: Vec<Running>,
    _dir: tempfile::TempDir,
}

fn home(dir: &Path) -> Home {
    Home::at(dir.join("home"))
}

/// A running member makes an invite, and somebody comes in by it.
fn brings(by: &Running, called: &str, seed: u8) -> Running {
    let called = Some(name(called));
    let link = by.does(move |node, now| {
        let day = Duration::from_secs(86_400);
        node.create_invite(called, 1, day, now).unwrap().to_text()
    });
    Running::start(socket().0, by_link(&link), NOW, seed)
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (made, _, relay) = founded(&home(dir.path()), "home");
        let (mut network, secrets) = (made.network, made.secrets);
        let mut family = wish("ann", Roles::empty(), vec![]);
        family.groups = vec![name("family")];
        let made = network.create_invite(&secrets, &family, NOW).unwrap();
        publish(&mut network, &secrets, POLICY);
        let ann = Running::start(socket().0, by_link(&made.link), NOW, 5);
        let knows = |running: &Running| {
            running.comes_to_believe("the policy", |registry| {
                let members = registry.members();
                let mut allowed = members.filter(|m| registry.allowance(m.membership).is_ok());
                allowed.next().is_some()
            });
        };
        knows(&relay);
        knows(&ann);
        let friend = brings(&ann, "friend", 6);
        knows(&friend);
        let second = brings(&friend, "second", 7);
        network.exchange(Some(&secrets), NOW, WAIT).unwrap();
        Self {
            network,
            secrets,
            _running: vec![relay, ann, friend, second],
            _dir: dir,
        }
    }

    fn tree(&self) -> Vec<String> {
        let tree = self.network.member_tree(NOW).into_iter();
        tree.map(|(depth, m)| format!("{}{}", "-".repeat(depth), m.name))
            .collect()
    }
}

fn publish(network: &mut Network, secrets: &Secrets, text: &str) {
    network.exchange(Some(secrets), NOW, WAIT).unwrap();
    let compiled = compile(text, "p", network.registry(), NOW).unwrap();
    network
        .publish_policy(secrets, text, &compiled, NOW)
        .unwrap();
    let done = network.exchange(Some(secrets), NOW, WAIT).unwrap();
    assert_eq!((done.refused, done.pending), (0, 0));
}

#[test]
fn the_tree_is_shown_and_revoking_asks_about_all_of_it() {
    let mut scene = Scene::new();
    assert_eq!(scene.tree(), ["ann", "-friend", "--second", "relay1"]);
    let members = scene.network.members(NOW);
    let friend = members.iter().find(|m| m.name == "friend").unwrap();
    assert_eq!(friend.sponsor.as_deref(), Some("ann"));
    assert_eq!(friend.groups, ["guests"]);
    let invites = scene.network.invites(NOW);
    let by_ann = invites.iter().find(|i| i.used_by == ["friend"]).unwrap();
    assert_eq!(by_ann.sponsor.as_deref(), Some("ann"));
    let target = Target::Member("ann".into());
    let (network, secrets) = (&mut scene.network, &scene.secrets);
    let error = network
        .revoke(secrets, &target, Invited::Ask, "", NOW)
        .unwrap_err();
    assert!(matches!(error, Error::NeedsConsent { .. }), "{error}");
    assert!(error.to_string().contains("friend") && error.to_string().contains("second"));
    let done = network
        .revoke(secrets, &target, Invited::Revoke, "", NOW)
        .unwrap();
    assert_eq!(done.revoked.len(), 3);
    assert_eq!(scene.tree(), ["relay1"]);
}

#[test]
fn whom_a_revoked_member_brought_in_is_kept_if_that_is_wanted() {
    let mut scene = Scene::new();
    let (network, secrets) = (&mut scene.network, &scene.secrets);
    let target = Target::Member("ann".into());
    let done = network
        .revoke(secrets, &target, Invited::Keep, "", NOW)
        .unwrap();
    assert_eq!(done.revoked, ["ann"]);
    assert_eq!(done.kept.len(), 2);
    let done = network.exchange(Some(secrets), NOW, WAIT).unwrap();
    assert_eq!((done.refused, done.pending), (0, 0));
    assert_eq!(scene.tree(), ["friend", "-second", "relay1"]);
    // They are members to everybody else too.
    let relay = &scene._running[0];
    relay.comes_to_believe("they stay", |registry| {
        let is_in = |called: &str| registry.by_name(&name(called)).is_some();
        is_in("friend") && is_in("second") && !is_in("ann")
    });
}

#[test]
fn a_plan_says_who_leaves_a_group_that_no_line_gives_any_more() {
    let scene = Scene::new();
    let old = scene.network.policy().unwrap().draft;
    let registry = scene.network.registry();
    let (without, _) = POLICY.split_once("[[sponsors]]").unwrap();
    let new = compile(without, "p", registry, NOW).unwrap().draft;
    let plan = Plan::new(Some(&old), &new, registry).unwrap();
    let said = plan.settings.join("\n");
    assert!(
        said.contains("group guests: no longer counts for friend, second, brought in by members"),
        "{said}"
    );
    let back = Plan::new(Some(&new), &old, registry).unwrap();
    let said = back.settings.join("\n");
    assert!(
        said.contains("group guests: counts again for friend, second"),
        "{said}"
    );
}
