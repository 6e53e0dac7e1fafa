//! The policy in force here, and what it says of a flow that somebody asks about.

use alloc::string::{String, ToString};
use core::net::Ipv6Addr;

use altnet_tunnel::aead::Aead;
use altnet_wire::id::Name;
use altnet_wire::policy::Service;
use altnet_wire::time::{Duration, Instant, UnixTime};

use super::facts::View;
use super::view::{CallerView, PolicyView, VerdictView};
use super::{Event, Network, Node};
use crate::clock::Estimate;
use crate::ip::Protocol;
use crate::policy::{FlowInfo, RuleId, Rules, Verdict};
use crate::registry::Subject;

/// Windows open and close on the minute.
const MINUTE_S: u64 = 60;

impl<A: Aead> Node<A> {
    /// Puts the policy in the records in force, if it is another, and looks up anew whom it speaks
    /// of.
    pub(super) fn take_policy(&mut self, now: Instant) {
        let Some(network) = &self.network else {
            self.policy_id = None;
            self.logins.clear();
            self.policy.set_rules(None, core::iter::empty());
            return;
        };
        let held = network.registry.policy();
        let id = held.map(|(_, id, _)| id);
        let mut events = heapless::Vec::<Event, 1>::new();
        if id != self.policy_id {
            let had = core::mem::replace(&mut self.policy_id, id).is_some();
            let limits = &self.config.policy;
            let rules = held.map(|(serial, _, body)| Rules::within(body, serial, limits));
            let event = match &rules {
                Some(Ok(rules)) => Some(Event::PolicyChanged {
                    serial: rules.serial(),
                    rules: rules.len(),
                }),
                Some(Err(why)) => Some(Event::PolicyUnusable { why: *why }),
                None => had.then_some(Event::PolicyGone),
            };
            events.extend(event);
            let rules = rules.and_then(Result::ok);
            self.policy.set_rules(rules, core::iter::empty());
        }
        self.look_up_everybody(now);
        for event in events {
            self.tell(event);
        }
        self.tend_policy(now);
    }

    /// Opens and closes what depends on the time, and sees to it that it is looked at again.
    pub(super) fn tend_policy(&mut self, now: Instant) {
        let Some(network) = &self.network else {
            return;
        };
        let time = match self.clock.estimate(now) {
            Estimate::Running(time) => Some(time),
            Estimate::AtLeast(_) => None,
        };
        let depends = self.policy.handle_time(time, newest_head(network));
        if let Some(time) = time.filter(|_| depends) {
            let left = MINUTE_S - time.as_secs() % MINUTE_S;
            self.timers
                .housekeeping_at(now.after(Duration::from_secs(left)));
        }
    }

    /// The policy at a glance.
    pub fn policy_view(&self, now: Instant) -> PolicyView {
        let rules = self.policy.rules();
        let newest = self.network.as_ref().and_then(newest_head);
        let time = self.clock.estimate(now).time();
        PolicyView {
            serial: rules.map_or(0, |rules| rules.serial().0),
            rules: rules.map_or(0, Rules::len),
            rows: rules.map_or(0, Rules::rows),
            bytes: rules.map_or(0, Rules::bytes) + self.policy.roster_bytes(),
            head_age_s: newest.map(|head| time.saturating_since(head).as_secs()),
        }
    }

    /// What policy says here of a flow between two that people name: hosts, apps, members or
    /// addresses. Without a service (a protocol and the target's port) whether anything is allowed.
    ///
    /// # Errors
    /// The text that names nobody.
    pub fn check_flow<'t>(
        &self,
        source: &'t str,
        target: &'t str,
        service: Option<(Protocol, u16)>,
        now: Instant,
    ) -> Result<VerdictView, &'t str> {
        let network = self.network.as_ref().ok_or(source)?;
        let from = network.address_called(source).ok_or(source)?;
        let to = network.address_called(target).ok_or(target)?;
        let described = |address| match self.person_text(address) {
            Some(person) => alloc::format!("{}, {person}", network.describe(address)),
            None => network.describe(address),
        };
        let (allowed, rule, why) = match service {
            None => {
                let (allowed, text) = self.services_text(from, to, now);
                (allowed, None, text)
            }
            Some((protocol, port)) => {
                let flow = FlowInfo {
                    source: from,
                    destination: to,
                    protocol,
                    port,
                };
                let facts = View::new(network, &self.clock, now);
                let verdict = self.policy.judge_flow(&flow, &facts);
                let rule = self.policy.rule_name(verdict.rule()).to_string();
                (
                    verdict.is_allowed(),
                    Some(rule),
                    self.verdict_text(&verdict),
                )
            }
        };
        Ok(VerdictView {
            source: from.to_string(),
            target: to.to_string(),
            source_is: described(from),
            target_is: described(to),
            allowed,
            rule,
            why,
        })
    }

    /// Whose an address is, if it belongs to a member. What comes with such a source was sealed by
    /// that member.
    pub fn caller(&self, address: Ipv6Addr) -> Option<CallerView> {
        let registry = &self.network.as_ref()?.registry;
        let subject = registry.by_address(address)?;
        let membership = registry.as_counted(subject.member()?.membership);
        let view = CallerView {
            address: address.to_string(),
            member: membership.member.to_string(),
            member_name: membership.name.to_string(),
            ..CallerView::default()
        };
        let (person, groups) = self.person_at(address).unwrap_or_default();
        let view = CallerView {
            person: person.map(Name::to_string),
            groups: groups.into_iter().map(Name::to_string).collect(),
            ..view
        };
        Some(match subject {
            Subject::Node(_) => CallerView {
                name: Some(membership.name.to_string()),
                person: membership.person.as_ref().map(Name::to_string),
                groups: membership.groups.iter().map(Name::to_string).collect(),
                ..view
            },
            Subject::App(app, _) => CallerView {
                name: Some(app.record.name.to_string()),
                ..view
            },
            Subject::Host(host, _) => CallerView {
                name: Some(host.record.name.to_string()),
                site: Some(host.record.site.as_u16()),
                ..view
            },
            Subject::Site(site, _) => CallerView {
                site: Some(site.as_u16()),
                ..view
            },
        })
    }

    /// What an address counts as by its gateway's word, in words; none if that is nothing.
    fn person_text(&self, address: Ipv6Addr) -> Option<String> {
        let (person, groups) = self.person_at(address)?;
        if person.is_none() && groups.is_empty() {
            return None;
        }
        let mut text = String::new();
        if let Some(person) = person {
            text.push_str(&alloc::format!("where {person} is logged in"));
        }
        for (at, group) in groups.iter().enumerate() {
            let before = match (at, person) {
                (0, None) => "in ",
                (0, Some(_)) => ", in ",
                _ => " and ",
            };
            text.push_str(before);
            text.push_str(group.as_str());
        }
        Some(text)
    }

    /// What policy allows between two addresses now, in words, and whether that is anything.
    pub(super) fn services_text(
        &self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        now: Instant,
    ) -> (bool, String) {
        let Some(network) = &self.network else {
            return (false, String::new());
        };
        let facts = View::new(network, &self.clock, now);
        let text_of = |services: &[(RuleId, Service)]| {
            let mut text = String::new();
            for (rule, service) in services {
                let comma = if text.is_empty() { "" } else { ", " };
                let rule = self.policy.rule_name(*rule);
                text.push_str(&alloc::format!("{comma}rule {rule} ({service})"));
            }
            text
        };
        let services = self.policy.services(source, destination, &facts);
        if !services.is_empty() {
            return (true, text_of(&services));
        }
        let ever = self.policy.services_ever(source, destination, &facts);
        if !ever.is_empty() {
            let text = text_of(&ever);
            return (
                false,
                alloc::format!("only at other times, or in step with the network: {text}"),
            );
        }
        let flow = FlowInfo {
            source,
            destination,
            protocol: Protocol::NONE,
            port: 0,
        };
        (
            false,
            self.verdict_text(&self.policy.judge_flow(&flow, &facts)),
        )
    }

    /// A verdict in a sentence.
    pub(super) fn verdict_text(&self, verdict: &Verdict) -> String {
        use crate::policy::DropReason;
        let rule = self.policy.rule_name(verdict.rule());
        match verdict.drop_reason() {
            None => alloc::format!("rule {rule} allows it"),
            Some(DropReason::NotAMember) => {
                "the source belongs to no member whose membership is in force".into()
            }
            Some(DropReason::NoSuchTarget) => {
                "the target belongs to no member whose membership is in force".into()
            }
            Some(DropReason::Closed) if verdict.rule() == RuleId::PROFILE_HOURS => {
                "outside the hours of the source's profile nothing is allowed".into()
            }
            Some(DropReason::Closed) => {
                alloc::format!("{rule} allows it only at other times, or in step with the network")
            }
            Some(_) if self.policy.rules().is_none() => {
                "the network has no policy in force, so nothing is allowed".into()
            }
            Some(_) => "no rule allows it".into(),
        }
    }
}

/// The date of the newest head in force.
fn newest_head(network: &Network) -> Option<UnixTime> {
    network
        .registry
        .heads()
        .map(|(_, _, head)| head.issued)
        .max()
}

impl Network {
    /// The address of what people call `text`: an address, a host's, an app's or a member's name,
    /// with or without what follows it in the DNS.
    pub(super) fn address_called(&self, text: &str) -> Option<Ipv6Addr> {
        if let Ok(address) = text.parse() {
            return Some(address);
        }
        let name = Name::new(text.split('.').next().unwrap_or(text)).ok()?;
        let registry = &self.registry;
        let host = registry.host(&name).and_then(|host| host.record.address);
        host.or_else(|| Some(registry.app_by_name(&name)?.address))
            .or_else(|| Some(registry.by_name(&name)?.id.address()))
    }

    /// What an address is, for people.
    pub(super) fn describe(&self, address: Ipv6Addr) -> String {
        match self.registry.by_address(address) {
            Some(Subject::Host(host, _)) => alloc::format!("host {} in records", host.record.name),
            Some(Subject::App(app, _)) => alloc::format!("app {} in records", app.record.name),
            Some(Subject::Node(member)) => {
                alloc::format!("the node {} itself", member.membership.name)
            }
            Some(Subject::Site(site, _)) => {
                alloc::format!("a machine without a name in site {site}")
            }
            None => "nobody's address in this network".into(),
        }
    }
}
