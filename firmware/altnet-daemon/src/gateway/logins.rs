//! Who is logged in from which machine on the LANs (ADR 0008): what the login page says of the
//! machines, and nothing of it is kept here.

use std::time::Duration;

use altnet_core::audit::{Fact, Kind};
use altnet_wire::id::Name;
use altnet_wire::record::MAX_GROUPS;
use altnet_wire::time::Instant;
use serde_json::{Value, json};

use super::Gateway;
use super::calls::{bad, json_of, name_of};
use super::machines::{Groups, Machine};
use crate::api::{ApiError, Code, logins as types};
use crate::netlink::neighbour::{Neighbour, mac_of, mac_text};

/// Somebody is logged in.
#[derive(Debug)]
pub(super) struct LoggedIn {
    pub(super) person: Option<Name>,
    pub(super) groups: Groups,
    pub(super) until: Instant,
    how: String,
}

impl Gateway {
    /// How many machines somebody is logged in from.
    pub(super) fn login_count(&self) -> usize {
        let entries = self.machines.entries.values();
        entries.filter(|entry| entry.login.is_some()).count()
    }

    /// Ends the logins whose time is over.
    pub(super) fn tend_logins(&mut self, now: Instant) {
        let over = self.machines.entries.iter().filter(|(_, entry)| {
            let login = entry.login.as_ref();
            login.is_some_and(|login| login.until <= now)
        });
        let over: Vec<Machine> = over.map(|(machine, _)| *machine).collect();
        for machine in over {
            self.end_login(machine, "its time was over", now);
        }
    }

    /// Ends all: this is no site's gateway any more.
    pub(super) fn end_all_logins(&mut self, now: Instant) {
        let all: Vec<Machine> = self.machines.entries.keys().copied().collect();
        for machine in all {
            self.end_login(machine, "this is no gateway any more", now);
        }
    }

    fn end_login(&mut self, machine: Machine, why: &str, now: Instant) {
        let entry = self.machines.entries.get_mut(&machine);
        let Some(login) = entry.and_then(|entry| entry.login.take()) else {
            return;
        };
        self.tell_all(machine, now);
        let person = login.person.as_ref().map_or("somebody", Name::as_str);
        let device = mac_text(&machine.mac);
        crate::info!("{person} is logged out from {device}: {why}");
        let fact = Fact::new(Kind::LOGGED_OUT).about(person);
        self.note(fact.detail(format_args!("{device}, {why}")));
    }

    fn neighbour_called(&mut self, address: &str) -> Result<Neighbour, ApiError> {
        let parsed = address.parse();
        let address = parsed.map_err(|_| bad(format!("{address:?} is not an IPv6 address")))?;
        self.machines.lan = self.node.setup().and_then(|setup| setup.site);
        let is_lan = self.machines.is_lan(address);
        let found = self.neighbour(address).filter(|_| is_lan);
        found.ok_or_else(|| {
            ApiError::new(
                Code::NotFound,
                format!("no machine on this gateway's LANs is at {address}"),
                "open the page from a machine behind this gateway, by its name under .alt",
            )
        })
    }

    pub(super) fn whose(&mut self, given: &types::At) -> Result<Value, ApiError> {
        let found = self.neighbour_called(&given.address)?;
        Ok(json!({ "device": mac_text(&found.mac) }))
    }

    pub(super) fn login(
        &mut self,
        given: types::NewLogin,
        now: Instant,
    ) -> Result<Value, ApiError> {
        let person = given.person.as_deref().map(name_of).transpose()?;
        let mut groups = Groups::new();
        for group in &given.groups {
            let too_many = |_| bad(format!("somebody is in at most {MAX_GROUPS} groups"));
            groups.push(name_of(group)?).map_err(too_many)?;
        }
        if given.seconds == 0 || (person.is_none() && groups.is_empty()) {
            return Err(bad(
                "a login is of a person or of groups, and for some time",
            ));
        }
        let found = self.neighbour_called(&given.address)?;
        let machine = Machine::from(found);
        if !self.config.machines.is_empty() {
            let place = self.place_of(machine);
            if !self.put(machine, place, now) {
                return Err(ApiError::new(
                    Code::Failed,
                    format!(
                        "nobody can tell where {} is plugged in",
                        mac_text(&machine.mac)
                    ),
                    "try again in a moment; the [[machines]] of altnet.toml want to know",
                ));
            }
        }
        let login = LoggedIn {
            person,
            groups,
            until: now.after(Duration::from_secs(given.seconds.into())),
            how: given.how.clone(),
        };
        let said: Vec<String> = (login.person.iter().chain(&login.groups))
            .map(Name::to_string)
            .collect();
        let entry = self.machines.entries.entry(machine).or_default();
        let is_new = (entry.login.as_ref())
            .is_none_or(|former| former.person != login.person || former.how != login.how);
        entry.login = Some(login);
        self.tell_all(machine, now);
        let neighbours = self
            .netlink
            .neighbours(machine.interface)
            .unwrap_or_default();
        let its = neighbours
            .into_iter()
            .filter(|one| one.mac == machine.mac && self.machines.is_lan(one.address));
        let its: Vec<Neighbour> = its.chain([found]).collect();
        for neighbour in its {
            self.meet(neighbour, now);
        }
        let views = self.node.logins(now);
        let view = views
            .iter()
            .find(|view| view.address == found.address.to_string());
        let counted = |name: &String| {
            view.is_some_and(|view| {
                view.person.as_ref() == Some(name) || view.groups.contains(name)
            })
        };
        let (person, device) = (given.person.as_deref(), mac_text(&machine.mac));
        let who = person.unwrap_or("somebody");
        if !said.iter().any(counted) {
            self.end_login(machine, "it did not count", now);
            return Err(ApiError::new(
                Code::Refused,
                format!(
                    "the network's policy lets this gateway say nothing of {who} and these groups"
                ),
                "an owner writes [[logins]] in the policy, for this gateway and for whom it may say so",
            ));
        }
        if is_new {
            crate::info!("{who} is logged in from {device}, {}", given.how);
            let fact = Fact::new(Kind::LOGGED_IN).about(who);
            self.note(fact.detail(format_args!("{device}, {}", given.how)));
        }
        let entry = self.machines.entries.get(&machine);
        let addresses =
            entry.map(|entry| entry.addresses.iter().map(ToString::to_string).collect());
        json_of(types::LoggedIn {
            device,
            addresses: addresses.unwrap_or_default(),
            seconds: given.seconds,
            not_counted: said.into_iter().filter(|name| !counted(name)).collect(),
        })
    }

    pub(super) fn logout(
        &mut self,
        given: &types::Device,
        now: Instant,
    ) -> Result<Value, ApiError> {
        let mac = mac_of(&given.device);
        let address = given.device.parse().ok();
        let found = self.machines.entries.iter().find(|(machine, entry)| {
            let is_meant = mac == Some(machine.mac)
                || address.is_some_and(|address| entry.addresses.contains(&address));
            is_meant && entry.login.is_some()
        });
        let Some(machine) = found.map(|(machine, _)| *machine) else {
            return Err(ApiError::new(
                Code::NotFound,
                format!("nobody is logged in from {}", given.device),
                "`altnet login list` shows who is, and from where",
            ));
        };
        self.end_login(machine, "as was asked", now);
        Ok(json!({}))
    }

    pub(super) fn login_list(&self, now: Instant) -> Result<Value, ApiError> {
        let texts = |names: &[Name]| names.iter().map(Name::to_string).collect();
        let (mut logins, mut placed) = (Vec::new(), Vec::new());
        for (machine, entry) in &self.machines.entries {
            let device = mac_text(&machine.mac);
            let addresses: Vec<String> = entry.addresses.iter().map(ToString::to_string).collect();
            if !entry.placed.is_empty() {
                placed.push(types::Placed {
                    device: device.clone(),
                    addresses: addresses.clone(),
                    port: entry.place.as_ref().map(|place| place.port.clone()),
                    vlan: entry.place.as_ref().and_then(|place| place.vlan),
                    groups: texts(&entry.placed),
                });
            }
            if let Some(login) = &entry.login {
                logins.push(types::Entry {
                    device,
                    addresses,
                    person: login.person.as_ref().map(Name::to_string),
                    groups: texts(&login.groups),
                    seconds: login.until.saturating_since(now).as_secs(),
                    how: login.how.clone(),
                });
            }
        }
        json_of(types::Logins {
            logins,
            placed,
            counted: self.node.logins(now),
        })
    }
}
