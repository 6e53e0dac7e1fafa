//! Who logged in from machines that can't prove it themselves (ADR 0008).
//!
//! A login is said by the gateway that the machine is behind, to itself by its driver
//! ([`Command::Login`]) and to others in [`Notice::Logins`], as far as policy lets the person reach
//! them. Nothing of it is kept on disk. It counts for addresses of the gateway's own site, and as
//! far as policy lets it vouch ([`crate::policy::Rules::counted`]).
//!
//! A change is looked up before the next packet is judged, at most every [`LEAST`]: so that who
//! says much costs little.
//!
//! [`Command::Login`]: super::Command::Login

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::Ipv6Addr;

use altnet_tunnel::aead::Aead;
use altnet_wire::address;
use altnet_wire::frame::Frame;
use altnet_wire::id::{Name, NodeId};
use altnet_wire::message::{Login, Message, Notice};
use altnet_wire::policy::Run;
use altnet_wire::record::MAX_GROUPS;
use altnet_wire::time::{Duration, Instant};

use super::sessions::Standing;
use super::view::LoginView;
use super::{CommandError, Network, Node};
use crate::control::SessionId;
use crate::ip::{PacketInfo, Transport};
use crate::policy::{self, Enrolled, What};

/// The least time between two rounds of looking up whom rules speak of.
const LEAST: Duration = Duration::from_millis(20);
/// Most bytes of logins in a notice: what is left of a message is for what goes around it.
const NOTICE_BYTES: usize = 16 * 1024;
/// The longest that a login lasts: a week.
const MOST_S: u32 = 7 * 86_400;
/// The port of plain HTTP (RFC 9110 section 4.2.1). By TLS nobody can be sent elsewhere.
const HTTP: u16 = 80;

/// Somebody logged in.
#[derive(Debug)]
struct Entry {
    /// The gateway that says so.
    by: NodeId,
    /// In which session it did; none if it is this node.
    session: Option<SessionId>,
    person: Option<Name>,
    groups: heapless::Vec<Name, MAX_GROUPS>,
    until: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Logins {
    all: BTreeMap<Ipv6Addr, Entry>,
    /// Whether something changed since it was looked up.
    pub(super) is_stale: bool,
    looked_up: Instant,
    /// What each session was told of.
    told: BTreeMap<SessionId, BTreeSet<Ipv6Addr>>,
}

impl Logins {
    /// Them as policy speaks of them.
    pub(super) fn enrolled<'a>(
        &'a self,
        network: &'a Network,
    ) -> impl Iterator<Item = Enrolled<'a>> {
        let of = |(address, entry): (&'a Ipv6Addr, &'a Entry)| {
            let login = entry.login(network, *address)?;
            Some(Enrolled {
                at: address::Prefix::host(*address),
                expires: login.by.expires,
                what: What::Login(login),
            })
        };
        self.all.iter().filter_map(of)
    }

    /// Puts one in, in the place of what was said of the address. Returns whether there was room.
    fn enter(&mut self, address: Ipv6Addr, entry: Entry, most: usize) -> bool {
        let its = |by: NodeId| self.all.values().filter(|other| other.by == by).count();
        let is_new = !self.all.contains_key(&address);
        // One gateway leaves room for others.
        if is_new && (self.all.len() >= most || its(entry.by) >= most.div_ceil(2)) {
            return false;
        }
        self.all.insert(address, entry);
        self.is_stale = true;
        true
    }

    fn take_back(&mut self, address: Ipv6Addr, by: NodeId) -> bool {
        let is_its = self.all.get(&address).is_some_and(|entry| entry.by == by);
        if is_its {
            self.all.remove(&address);
            self.is_stale = true;
        }
        is_its
    }

    /// Forgets everything: the network is another, or none.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// A session is gone. What was said in it holds until its gateway greets in another.
    pub(super) fn session_ended(&mut self, session: SessionId) {
        self.told.remove(&session);
    }
}

impl Entry {
    /// The login, if the address is one of the gateway's site.
    fn login<'a>(&'a self, network: &'a Network, at: Ipv6Addr) -> Option<policy::Login<'a>> {
        let member = network.registry.by_node(&self.by)?;
        let site = member.membership.site?;
        let is_its = network.registry.gateway(site)?.id == self.by;
        let lan = address::site_prefix(&network.registry.network(), site);
        (is_its && lan.contains(at)).then_some(policy::Login {
            by: member.membership,
            site,
            person: self.person.as_ref(),
            groups: &self.groups,
        })
    }
}

impl<A: Aead> Node<A> {
    /// Somebody logged in from a machine behind this gateway, or what they may is another.
    pub(super) fn log_in(&mut self, login: Login, now: Instant) -> Result<(), CommandError> {
        let network = self.network.as_ref().ok_or(CommandError::NotMember)?;
        let prefix = self.site_prefix().ok_or(CommandError::NotGateway)?;
        if !prefix.contains(login.address) {
            return Err(CommandError::ForeignAddress);
        }
        let entry = Entry {
            by: network.own.node,
            session: None,
            person: login.person,
            groups: login.groups,
            until: now.after(Duration::from_secs(login.seconds.min(MOST_S).into())),
        };
        let most = self.config.limits.logins.into();
        if !self.logins.enter(login.address, entry, most) {
            return Err(CommandError::NoRoomForLogin);
        }
        self.untell(login.address);
        self.timers.housekeeping_at(now);
        Ok(())
    }

    /// Nobody is logged in from a machine behind this gateway any more.
    pub(super) fn log_out(&mut self, address: Ipv6Addr, now: Instant) -> Result<(), CommandError> {
        let network = self.network.as_ref().ok_or(CommandError::NotMember)?;
        if !self.logins.take_back(address, network.own.node) {
            return Err(CommandError::NoSuchLogin);
        }
        self.timers.housekeeping_at(now);
        Ok(())
    }

    /// Everybody who is logged in, here and as others say.
    pub fn logins(&self, now: Instant) -> Vec<LoginView> {
        let Some(network) = &self.network else {
            return Vec::new();
        };
        let views = self.logins.all.iter().filter_map(|(address, entry)| {
            let login = entry.login(network, *address)?;
            let counted = self.policy.rules().map(|rules| rules.counted(&login));
            let (person, groups) = counted.unwrap_or_default();
            let mut not_counted = Vec::new();
            not_counted.extend(entry.person.iter().filter(|_| person.is_none()));
            not_counted.extend(entry.groups.iter().filter(|group| !groups.contains(group)));
            Some(LoginView {
                address: alloc::format!("{address}"),
                gateway: alloc::format!("{}", login.by.name),
                person: person.map(|name| alloc::format!("{name}")),
                groups: groups.iter().map(|name| alloc::format!("{name}")).collect(),
                not_counted: not_counted.iter().map(|n| alloc::format!("{n}")).collect(),
                seconds: entry.until.saturating_since(now).as_secs(),
            })
        });
        views.collect()
    }

    /// Who is logged in at an address, as far as it counts.
    pub(super) fn person_at(&self, address: Ipv6Addr) -> Option<(Option<&Name>, Vec<&Name>)> {
        let network = self.network.as_ref()?;
        let login = self.logins.all.get(&address)?.login(network, address)?;
        Some(self.policy.rules()?.counted(&login))
    }

    /// Whether a refused packet of our side is plain HTTP from a machine on the LAN where nobody is
    /// logged in.
    pub(super) fn is_for_login_page(&self, frame: &Frame<'_>) -> bool {
        let page = self.network.as_ref().and_then(Network::login_page);
        let Some(page) = page.filter(|_| self.config.has_login_page) else {
            return false;
        };
        let (Ok(packet), Some(lan)) = (PacketInfo::parse(frame.packet()), self.site_prefix())
        else {
            return false;
        };
        let is_http = matches!(
            packet.transport,
            Transport::Tcp {
                destination_port: HTTP,
                ..
            }
        );
        let entry = self.logins.all.get(&packet.source);
        is_http
            && lan.contains(packet.source)
            // The gateway itself is no browser.
            && packet.source != page
            && entry.is_none_or(|entry| entry.person.is_none())
    }

    /// A member says who logged in behind it.
    pub(super) fn handle_logins(
        &mut self,
        session: SessionId,
        node: NodeId,
        logins: Run<'_, Login>,
        now: Instant,
    ) {
        let most = self.config.limits.logins.into();
        let Some(own) = self.network.as_ref().map(|network| network.own.node) else {
            return;
        };
        if node == own {
            return;
        }
        for login in logins.values() {
            let Some(network) = &self.network else { return };
            if login.seconds == 0 {
                self.logins.take_back(login.address, node);
                continue;
            }
            let entry = Entry {
                by: node,
                session: Some(session),
                person: login.person,
                groups: login.groups,
                until: now.after(Duration::from_secs(login.seconds.min(MOST_S).into())),
            };
            if entry.login(network, login.address).is_some() {
                self.logins.enter(login.address, entry, most);
            }
        }
        self.timers.housekeeping_at(now);
    }

    /// A member greeted in a session: what it said in others that are gone and not in this one no
    /// longer holds.
    pub(super) fn logins_greeted(&mut self, node: NodeId, now: Instant) {
        let sessions = &self.sessions;
        let before = self.logins.all.len();
        self.logins.all.retain(|_, entry| {
            let stands = entry
                .session
                .is_none_or(|said| sessions.contains_key(&said));
            entry.by != node || stands
        });
        if self.logins.all.len() != before {
            self.logins.is_stale = true;
            self.timers.housekeeping_at(now);
        }
    }

    /// Looks up anew whom the rules speak of, if who is logged in has changed.
    pub(super) fn freshen_logins(&mut self, now: Instant) {
        if !self.logins.is_stale || now.saturating_since(self.logins.looked_up) < LEAST {
            return;
        }
        self.look_up_everybody(now);
    }

    /// Looks up in the rules everybody whom they speak of.
    pub(super) fn look_up_everybody(&mut self, now: Instant) {
        let Some(network) = &self.network else {
            return;
        };
        let everybody = network.registry.enrolled();
        let everybody = everybody.chain(self.logins.enrolled(network));
        self.policy.set_roster(everybody);
        self.logins.is_stale = false;
        self.logins.looked_up = now;
        self.tell_logins(now);
    }

    /// Ends logins whose time is over. Returns when the next one's is.
    pub(super) fn tend_logins(&mut self, now: Instant) -> Instant {
        let before = self.logins.all.len();
        self.logins.all.retain(|_, entry| entry.until > now);
        self.logins.is_stale |= self.logins.all.len() != before;
        self.freshen_logins(now);
        let ends = self.logins.all.values().map(|entry| entry.until).min();
        let ends = ends.unwrap_or(Instant::NEVER);
        match self.logins.is_stale {
            true => ends.min(self.logins.looked_up.after(LEAST)),
            false => ends,
        }
    }

    /// Has everybody told again of a login that has changed.
    fn untell(&mut self, address: Ipv6Addr) {
        for told in self.logins.told.values_mut() {
            told.remove(&address);
        }
    }

    /// Tells every member that greeted what it doesn't know yet.
    fn tell_logins(&mut self, now: Instant) {
        let sessions: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, state)| state.greeted)
            .map(|(session, _)| *session)
            .collect();
        for session in sessions {
            self.tell_logins_to(session, now);
        }
    }

    /// Tells the member at the other end of a session which logins are new to it, and which it was
    /// told of are over.
    pub(super) fn tell_logins_to(&mut self, session: SessionId, now: Instant) {
        let Standing::Member(node) = self.standing(session) else {
            return;
        };
        let Some(network) = &self.network else {
            return;
        };
        let told = self.logins.told.get(&session);
        let is_told = |address: &Ipv6Addr| told.is_some_and(|told| told.contains(address));
        let own = |address: &Ipv6Addr| {
            let entry = self.logins.all.get(address)?;
            (entry.session.is_none() && entry.by == network.own.node).then_some(entry)
        };
        let over = told.into_iter().flatten().filter(|at| own(at).is_none());
        let mut news: Vec<Login> = over.map(|at| taken_back(*at)).collect();
        let owned = self.logins.all.iter();
        let owned = owned.filter(|(at, _)| own(at).is_some() && !is_told(at));
        let mut owned = owned.peekable();
        // Whom a rule may lead there, of what that member has.
        let mut theirs = Vec::new();
        if owned.peek().is_some() {
            let all = network
                .registry
                .enrolled()
                .map(|enrolled| enrolled.at.address());
            theirs.extend(all.filter(|at| network.registry.owner_of(*at) == Some(node)));
        }
        for (address, entry) in owned {
            if theirs.iter().any(|to| self.policy.may_begin(*address, *to)) {
                news.push(Login {
                    address: *address,
                    person: entry.person.clone(),
                    groups: entry.groups.clone(),
                    seconds: entry.until.saturating_since(now).as_secs().max(1) as u32,
                });
            }
        }
        if news.is_empty() {
            return;
        }
        let told = self.logins.told.entry(session).or_default();
        for login in &news {
            match login.seconds {
                0 => told.remove(&login.address),
                _ => told.insert(login.address),
            };
        }
        let mut page = Vec::new();
        for login in &news {
            let at = page.len();
            if append(login, &mut page) && page.len() > NOTICE_BYTES {
                let next = page.split_off(at);
                self.say_logins(session, &page, now);
                page = next;
            }
        }
        self.say_logins(session, &page, now);
    }

    fn say_logins(&mut self, session: SessionId, logins: &[u8], now: Instant) {
        let logins = Run::new(logins);
        let said = self.say(session, &Message::Notice(Notice::Logins { logins }), now);
        if said.is_none() {
            // The session is full or about to end: told again when it stands or anew.
            self.logins.told.remove(&session);
        }
    }
}

/// Writes a login at the end of a page. Returns whether it could.
fn append(login: &Login, page: &mut Vec<u8>) -> bool {
    let bytes = postcard::to_allocvec(login);
    if let Ok(bytes) = &bytes {
        page.extend_from_slice(bytes);
    }
    bytes.is_ok()
}

fn taken_back(address: Ipv6Addr) -> Login {
    Login {
        address,
        person: None,
        groups: heapless::Vec::new(),
        seconds: 0,
    }
}
