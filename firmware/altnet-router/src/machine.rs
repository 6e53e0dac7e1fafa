//! The router as a machine: facts go in, wishes come out, and time is one of the facts.
//!
//! In: the checked file, links, what children told ([`told`]), what probes found, how what was wished for went. Out: what
//! to have the kernel match, children to start and to end, probes to send, what to keep on flash, and what to tell. After
//! any input, take [`Machine::poll_wish`] until there is none, and come back at [`Machine::deadline`].
//!
//! A file on trial is one that counts until it is confirmed or [`TRIAL`] is over; then the one before counts again, as it
//! did. Which of the two is on the disk under its name is for hands.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::config::Name;
use crate::house::{House, Wan, Way};
use crate::plan::{Child, Passwords, Places, Plan, WanState, World};
use crate::services::{dialer, why_no_session};

mod children;
mod findings;
pub mod kept;
mod stale;
mod status;
#[cfg(test)]
mod tests;
pub mod told;
mod trial;
mod uplinks;

pub use children::ChildStatus;
pub use findings::Known;
pub use status::{Event, NetworkStatus, Status, WanStatus};
pub use trial::{TRIAL, TrialError};

use children::{Act, Children};
use kept::Kept;
use stale::Addresses;
use told::Told;
use trial::Trial;
use uplinks::Uplink;

/// How long it takes until something is tried again that didn't work, at first.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// And at last.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// A file, and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// What it means.
    pub house: House,
    /// The passwords that are in files of their own.
    pub passwords: Passwords,
    /// Whether the file itself holds one.
    pub holds_password: bool,
}

/// What doesn't change while the router runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Where things are.
    pub places: Places,
    /// Whether the kernel has flow tables.
    pub has_flow_tables: bool,
}

/// An interface that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFact {
    /// Its name.
    pub name: String,
    /// Whether it is set up.
    pub is_up: bool,
    /// Whether there is somebody at the other end.
    pub has_carrier: bool,
    /// The number of the bridge that it is plugged into; 0 for none.
    pub bridge: u32,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Have the kernel match this plan, and say how that went ([`Machine::handle_applied`]).
    Apply(Box<Plan>),
    /// Write this child's files, and start it. When it ends, or couldn't start, say so ([`Machine::handle_ended`]).
    Start(Box<Child>),
    /// Ask this child to end.
    End(String),
    /// End this child.
    Kill(String),
    /// Ask whether anybody answers, and say so ([`Machine::handle_answered`]).
    Ask(Question),
    /// Keep this on flash.
    Keep(Kept),
    /// The file on trial isn't wanted any more.
    DropTrial,
    /// For the log, and whoever listens.
    Tell(Event),
}

/// Whether anybody is there beyond a WAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The WAN.
    pub wan: Name,
    /// Its interface.
    pub interface: String,
    /// Whom to ask: one that answers is enough.
    pub targets: Vec<IpAddr>,
    /// The question's number.
    pub sequence: u16,
}

/// How a plan's application went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Why the kernel didn't take the ruleset, if so.
    pub refused: Option<String>,
    /// What else didn't work. The rest did.
    pub troubles: Vec<String>,
}

/// The router.
#[derive(Debug)]
pub struct Machine {
    surroundings: Surroundings,
    setting: Setting,
    trial: Option<Trial>,
    links: BTreeMap<String, LinkFact>,
    uplinks: BTreeMap<Name, Uplink>,
    addresses: Addresses,
    children: Children,
    plan: Plan,
    /// What was wished for last.
    applied: Option<Plan>,
    retry_at: Option<Duration>,
    retry: Duration,
    troubles: Vec<String>,
    /// Whether the kernel refused the last ruleset.
    is_refused: bool,
    works: BTreeMap<Name, bool>,
    wishes: VecDeque<Wish>,
}

impl Machine {
    /// Begins with the file in force and what an earlier run kept.
    pub fn new(setting: Setting, kept: Kept, surroundings: Surroundings, now: Duration) -> Self {
        let mut machine = Self {
            surroundings,
            setting,
            trial: None,
            links: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            addresses: Addresses::new(kept),
            children: Children::default(),
            plan: Plan::default(),
            applied: None,
            retry_at: None,
            retry: FIRST_RETRY,
            troubles: Vec::new(),
            is_refused: false,
            works: BTreeMap::new(),
            wishes: VecDeque::new(),
        };
        machine.think(now);
        machine
    }

    /// Notes which interfaces there are.
    pub fn handle_links(&mut self, links: Vec<LinkFact>, now: Duration) {
        let links = links.into_iter().map(|link| (link.name.clone(), link));
        let links = links.collect();
        if self.links == links {
            return;
        }
        self.links = links;
        // Somebody may have changed what a plan made, or made what it waits for. Looked at once more, nothing
        // is different, and that is the end of it.
        self.applied = None;
        self.think(now);
    }

    /// Notes that something went that a plan had put into the kernel, by whatever hand.
    pub fn handle_taken(&mut self, now: Duration) {
        self.applied = None;
        self.think(now);
    }

    /// Notes what a child told.
    pub fn handle_told(&mut self, told: Told, now: Duration) {
        let wans = self.setting.house.wans();
        let wan = wans.iter().find(|wan| wan.interface == told.interface);
        let Some(wan) = wan else { return };
        let uplink = self.uplinks.entry(wan.name.clone()).or_default();
        uplink.told(told.news, now);
        self.think(now);
    }

    /// Notes whether anybody answered to a [`Wish::Ask`].
    pub fn handle_answered(&mut self, question: &Question, answered: bool, now: Duration) {
        let wans = self.setting.house.wans();
        let wan = wans.iter().find(|known| known.name == question.wan);
        if let (Some(wan), Some(uplink)) = (wan, self.uplinks.get_mut(&question.wan)) {
            uplink.answered(question.sequence, &wan.probes, answered, now);
        }
        self.think(now);
    }

    /// Notes a line that a child said.
    pub fn handle_said(&mut self, name: &str, line: &str) {
        if let Some(why) = why_no_session(line)
            && let Some(uplink) = self.dialed_by(name)
        {
            uplink.has_no_session(why);
        }
    }

    /// The WAN whose session a child keeps.
    fn dialed_by(&mut self, child: &str) -> Option<&mut Uplink> {
        let mut wans = self.setting.house.wans().iter();
        let wan = wans.find(|wan| matches!(wan.way, Way::Pppoe(_)) && dialer(wan) == child)?;
        Some(self.uplinks.entry(wan.name.clone()).or_default())
    }

    /// Notes that a child ended, or couldn't start.
    pub fn handle_ended(&mut self, name: &str, how: &str, now: Duration) {
        if let Some(uplink) = self.dialed_by(name) {
            uplink.hung_up();
        }
        if let Some(act) = self.children.ended(name, how, now) {
            self.act(act);
        }
        self.think(now);
    }

    /// Notes how a [`Wish::Apply`] went.
    pub fn handle_applied(&mut self, outcome: Applied, now: Duration) {
        let is_refused = outcome.refused.is_some();
        let mut troubles = outcome.troubles;
        troubles.extend(
            outcome
                .refused
                .map(|why| format!("the ruleset was refused: {why}")),
        );
        if troubles.is_empty() {
            self.retry = FIRST_RETRY;
            self.retry_at = None;
        } else {
            self.retry_at = Some(now + self.retry);
            self.retry = (self.retry * 2).min(LAST_RETRY);
        }
        for trouble in troubles.iter().filter(|one| !self.troubles.contains(one)) {
            let what = trouble.clone();
            self.wishes.push_back(Wish::Tell(Event::Trouble { what }));
        }
        self.troubles = troubles;
        self.is_refused = is_refused;
        if is_refused && self.trial.is_some() {
            self.take_back("the kernel refused its ruleset", now);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self
            .trial
            .as_ref()
            .is_some_and(|trial| trial.deadline <= now)
        {
            self.take_back("nobody confirmed it", now);
        } else {
            self.think(now);
        }
    }

    /// What is to be done next.
    pub fn poll_wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    /// When to come back with [`Self::handle_timeout`] if nothing happens before. Never before the `now` of the input before.
    pub fn deadline(&self) -> Option<Duration> {
        let trial = self.trial.as_ref().map(|trial| trial.deadline);
        let uplinks = self.uplinks.values().filter_map(Uplink::deadline);
        let others = [
            trial,
            self.retry_at,
            self.children.deadline(),
            self.addresses.deadline(),
        ];
        uplinks.chain(others.into_iter().flatten()).min()
    }

    /// What there is to carry out now.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What there would be to carry out with another file.
    pub fn preview(&self, setting: &Setting) -> Plan {
        Plan::new(
            &setting.house,
            &self.world(setting),
            &self.surroundings.places,
        )
    }

    fn tell(&mut self, event: Event) {
        self.wishes.push_back(Wish::Tell(event));
    }

    /// Forgets what is over, plans anew, and wishes for what is different.
    fn think(&mut self, now: Duration) {
        for uplink in self.uplinks.values_mut() {
            uplink.expire(now);
        }
        self.ask(now);
        self.addresses.expire(now);
        let house = &self.setting.house;
        let world = World {
            stale: Vec::new(),
            ..self.world(&self.setting)
        };
        let without_stale = Plan::new(house, &world, &self.surroundings.places);
        self.addresses.notice(house, &without_stale, now);
        self.plan = self.preview(&self.setting);
        if let Some(kept) = self.addresses.take_changed() {
            self.wishes.push_back(Wish::Keep(kept));
        }
        self.tell_of_wans();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.applied = None;
        }
        if self.applied.as_ref() != Some(&self.plan) {
            // Until it is known how this went, nothing is tried again.
            self.retry_at = None;
            self.applied = Some(self.plan.clone());
            self.wish_to_apply();
        }
        self.children.want(&self.plan.children);
        let links = &self.links;
        let is_up = |name: &str| links.get(name).is_some_and(|link| link.is_up);
        for act in self.children.acts(now, is_up) {
            self.act(act);
        }
    }

    /// Wishes for the plan, in the place of one that nobody has begun with.
    fn wish_to_apply(&mut self) {
        let plan = Box::new(self.plan.clone());
        let waiting = self.wishes.iter_mut().find_map(|wish| match wish {
            Wish::Apply(waiting) => Some(waiting),
            _ => None,
        });
        match waiting {
            Some(waiting) => *waiting = plan,
            None => self.wishes.push_back(Wish::Apply(plan)),
        }
    }

    fn act(&mut self, act: Act) {
        self.wishes.push_back(match act {
            Act::Start(child) => Wish::Start(Box::new(child)),
            Act::End(name) => Wish::End(name),
            Act::Kill(name) => Wish::Kill(name),
            Act::Tell { name, how, rest } => Wish::Tell(Event::ChildEnded {
                name,
                how,
                rest_s: rest.as_secs(),
            }),
        });
    }

    fn ask(&mut self, now: Duration) {
        for wan in self.setting.house.wans() {
            let is_up = self.is_up(wan);
            let uplink = self.uplinks.entry(wan.name.clone()).or_default();
            if let Some(sequence) = uplink.ask(&wan.probes, is_up, now) {
                self.wishes.push_back(Wish::Ask(Question {
                    wan: wan.name.clone(),
                    interface: wan.interface.clone(),
                    targets: wan.probes.targets.clone(),
                    sequence,
                }));
            }
        }
    }

    /// Tells of WANs that began to work or ceased to.
    fn tell_of_wans(&mut self) {
        for wan in self.setting.house.wans() {
            let works = self
                .plan
                .working
                .iter()
                .any(|name| name.as_str() == wan.name.as_str());
            let before = self.works.insert(wan.name.clone(), works);
            if before.unwrap_or(false) != works {
                let wan = wan.name.clone();
                self.wishes.push_back(Wish::Tell(Event::Wan { wan, works }));
            }
        }
    }

    fn is_up(&self, wan: &Wan) -> bool {
        let has_carrier = |link: &LinkFact| link.is_up && link.has_carrier;
        let is_up = self.links.get(&wan.interface).is_some_and(has_carrier);
        match wan.way {
            // A session outlives its cable for a while, and carries nothing meanwhile.
            Way::Pppoe(_) => {
                is_up
                    && self.links.get(&wan.line).is_some_and(has_carrier)
                    && self.uplinks.get(&wan.name).is_some_and(Uplink::has_session)
            }
            Way::Dhcp(_) | Way::Static(_) => is_up,
        }
    }

    fn wan_state(&self, wan: &Wan) -> WanState {
        let is_up = self.is_up(wan);
        let uplink = self.uplinks.get(&wan.name);
        uplink.map_or_else(
            || Uplink::default().state(is_up),
            |uplink| uplink.state(is_up),
        )
    }

    fn world(&self, setting: &Setting) -> World {
        let wans = setting.house.wans().iter();
        World {
            wans: wans
                .map(|wan| (wan.name.clone(), self.wan_state(wan)))
                .collect(),
            stale: self.addresses.stale().to_vec(),
            passwords: setting.passwords.clone(),
            present: self.links.keys().cloned().collect(),
            has_flow_tables: self.surroundings.has_flow_tables,
        }
    }
}
