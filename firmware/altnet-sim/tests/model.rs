//! Who may reach whom, against a model that knows nothing of sessions, paths or records.
//!
//! `ALTNET_SIM_CASES` says how many sequences are tried; eight unless set.

use std::collections::BTreeSet;

use altnet_core::node::Command;
use altnet_core::registry::Slot;
use altnet_sim::homes::{Homes, entry, invited, is_member, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::world::HostId;
use altnet_wire::envelope::Envelope;
use altnet_wire::id::{Name, SiteId};
use altnet_wire::record::Roles;
use proptest::prelude::*;

/// Gateways that may come and go; site 1 to 4.
const SITES: u16 = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    Join(u16),
    Revoke(u16),
    AddHost(u16),
    RemoveHost(u16),
    Cut(u16, bool),
    Restart(u16),
    RestartRelay,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let site = 1..=SITES;
    prop_oneof![
        3 => site.clone().prop_map(Step::Join),
        1 => site.clone().prop_map(Step::Revoke),
        3 => site.clone().prop_map(Step::AddHost),
        1 => site.clone().prop_map(Step::RemoveHost),
        1 => (site.clone(), any::<bool>()).prop_map(|(site, on)| Step::Cut(site, on)),
        1 => site.prop_map(Step::Restart),
        1 => Just(Step::RestartRelay),
        1 => (1..60u64).prop_map(Step::Wait),
    ]
}

/// What a child would say: who is in, what machines have a name, who is cut off.
#[derive(Debug, Default)]
struct Model {
    members: BTreeSet<u16>,
    hosts: BTreeSet<u16>,
    /// Where the gateway itself said so, and not the owner.
    named: BTreeSet<u16>,
    cut_off: BTreeSet<u16>,
}

impl Model {
    /// Whether a machine in one site reaches the named machine of another.
    fn reaches(&self, from: u16, to: u16) -> bool {
        let in_reach = |site| self.members.contains(site) && !self.cut_off.contains(site);
        from != to && in_reach(&from) && in_reach(&to) && self.hosts.contains(&to)
    }
}

struct Town {
    homes: Homes,
    gateways: Vec<HostId>,
    joined: u32,
    model: Model,
}

impl Town {
    fn new(seed: u64) -> Self {
        let mut homes = Homes::new(seed, Kind::PORT_RESTRICTED, Kind::SYMMETRIC);
        let mut gateways = vec![homes.a, homes.b];
        for site in 3..=SITES {
            gateways.push(homes.world.host(&format!("203.0.113.{}", 50 + site), None));
        }
        let model = Model {
            members: [1, 2].into(),
            hosts: [2].into(),
            ..Model::default()
        };
        Self {
            homes,
            gateways,
            joined: 0,
            model,
        }
    }

    fn gateway(&self, site: u16) -> HostId {
        self.gateways[usize::from(site - 1)]
    }

    fn public(site: u16) -> String {
        match site {
            1 => "198.51.100.1".into(),
            2 => "198.51.100.2".into(),
            other => format!("203.0.113.{}", 50 + other),
        }
    }

    fn act(&mut self, step: Step) {
        match step {
            Step::Join(site) => self.join(site),
            Step::Revoke(site) => {
                if self.model.members.remove(&site) {
                    let gateway = self.gateway(site);
                    let registry = self.homes.world.node(gateway).registry();
                    let own = registry.and_then(|r| {
                        let device = self.homes.world.node(gateway).identity().device.public();
                        Some(r.by_device(&device)?.membership.member)
                    });
                    let member = own.expect("a member knows itself");
                    let record = self.homes.founder.revoke(member);
                    self.homes.publish(&record);
                    // What a revoked gateway said of its machines goes with it; what the owner
                    // said stays, and the next gateway of the site speaks for them.
                    if self.model.named.remove(&site) {
                        self.model.hosts.remove(&site);
                    }
                }
            }
            Step::AddHost(site) => self.set_host(site, true),
            Step::RemoveHost(site) => self.set_host(site, false),
            Step::Cut(site, on) => self.cut(site, on),
            Step::Restart(site) => self.homes.world.restart(self.gateway(site)),
            Step::RestartRelay => self.homes.world.restart(self.homes.relay),
            Step::Wait(s) => self.homes.world.run(seconds(s)),
        }
    }

    /// A gateway of this site comes, or comes again with a new invite.
    fn join(&mut self, site: u16) {
        let gateway = self.gateway(site);
        if self.model.members.contains(&site) || self.model.cut_off.contains(&site) {
            return;
        }
        // A revoked one hears of it first, and leaves: after its pause, if its relay forgot it meanwhile (ADR 0015).
        let relay = self.homes.relay;
        let left = self.homes.world.run_for(seconds(300), |world| {
            world.node(gateway).status(world.now()).state == "outside" && is_member(world, relay)
        });
        assert!(
            left,
            "site {site} goes on after it was revoked{}",
            self.homes.story()
        );
        self.joined += 1;
        let name = format!("gate-{site}-{}", self.joined);
        let founder = &mut self.homes.founder;
        let link = founder.invite(&name, Roles::GATEWAY, Some(site), entry());
        let joined = (0..3).any(|_| {
            let bundle = Box::new(invited(link.clone()));
            let join = Command::Join { bundle, name: None };
            let world = &mut self.homes.world;
            let _ = world.with(gateway, |node, now| node.handle_command(join, now));
            world.run_for(seconds(60), |world| is_member(world, gateway))
        });
        assert!(joined, "site {site} was not let in{}", self.homes.story());
        self.model.members.insert(site);
    }

    fn set_host(&mut self, site: u16, there: bool) {
        let gateway = self.gateway(site);
        if !self.model.members.contains(&site) || self.model.cut_off.contains(&site) {
            return;
        }
        let name = Name::new(&format!("host-{site}")).unwrap();
        let address = there.then(|| self.homes.lan(site, 0x80));
        // House B's machine has been called wiki from the start.
        let name = if site == 2 {
            Name::new("wiki").unwrap()
        } else {
            name
        };
        let set = Command::SetHost {
            name: name.clone(),
            address,
        };
        if self
            .homes
            .world
            .with(gateway, |node, now| node.handle_command(set, now))
            .is_err()
        {
            return;
        }
        // What the directory never heard of is lost with the gateway that said it.
        let relay = self.homes.relay;
        let known = self.homes.world.run_for(seconds(60), |world| {
            let registry = world.node(relay).registry().expect("a member");
            let slot = Slot::host(SiteId::new(site).expect("a site id"), &name);
            let held = registry.bytes(&slot).and_then(|b| Envelope::parse(b).ok());
            let device = world.node(gateway).identity().device.public();
            held.is_some_and(|held| held.header().signer == device)
                && registry.host(&name).and_then(|host| host.record.address) == address
        });
        assert!(known, "site {site} did not announce{}", self.homes.story());
        self.model.named.insert(site);
        if there {
            self.model.hosts.insert(site);
        } else {
            self.model.hosts.remove(&site);
        }
    }

    fn cut(&mut self, site: u16, on: bool) {
        let here = Self::public(site);
        for other in 1..=SITES {
            if other != site {
                let both = on || self.model.cut_off.contains(&other);
                self.homes.world.block(&here, &Self::public(other), both);
                self.homes.world.block(&Self::public(other), &here, both);
            }
        }
        self.homes.world.block(&here, altnet_sim::homes::RELAY, on);
        if on {
            self.model.cut_off.insert(site);
        } else {
            self.model.cut_off.remove(&site);
        }
    }

    /// Lets everything come to rest and compares.
    fn check(&mut self, steps: &[Step]) {
        self.homes.world.run(seconds(150));
        for from in 1..=SITES {
            for to in 1..=SITES {
                let expected = self.model.reaches(from, to);
                let (sender, receiver) = (self.gateway(from), self.gateway(to));
                let mut reaches = |n| {
                    let text = format!("{from} to {to}, {n}");
                    let ways = ((from, 0x11), (to, 0x80));
                    self.homes
                        .reaches_from(sender, ways.0, receiver, ways.1, &text)
                };
                let tries = if expected { 6 } else { 1 };
                let came = (0..tries).any(&mut reaches);
                let story = if came == expected {
                    String::new()
                } else {
                    self.homes.story()
                };
                assert_eq!(
                    came, expected,
                    "{from} to {to} after {steps:?} {:?}{story}",
                    self.model
                );
            }
        }
    }
}

fn cases() -> u32 {
    let cases = std::env::var("ALTNET_SIM_CASES").ok();
    cases.and_then(|text| text.parse().ok()).unwrap_or(8)
}

#[test]
fn what_a_gateway_says_before_it_is_in_step_holds() {
    // A machine's name that was given by another before, with the same serial: which of the two
    // records has the smaller id differs from seed to seed.
    for seed in 707_780..707_800 {
        let mut town = Town::new(seed);
        let steps = [Step::Revoke(2), Step::Join(2), Step::RemoveHost(2)];
        for step in steps {
            town.act(step);
        }
        town.check(&steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn at_rest_everybody_reaches_whom_the_model_says(
        seed in 1u64..1_000_000,
        steps in prop::collection::vec(step(), 1..14),
    ) {
        let mut town = Town::new(seed);
        for step in &steps {
            town.act(*step);
        }
        town.check(&steps);
    }
}
