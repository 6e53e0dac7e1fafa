//! The loop: one input for the node, what it says done, then sleep.
//!
//! In: packets of the TUN device, datagrams of the UDP port, names asked for, machines looking
//! for a router, calls of people, what was written, signals, time. Out: whatever [`Node::poll_output`] says.
//! Nothing here decides about bytes, peers or rules.
//!
//! Packets are read in batches of [`BATCH`] before anything else gets its turn, and the node is
//! drained whenever one of them was not simply passed on. What a turn of the loop sends leaves
//! together before it sleeps.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use altnet_core::audit::{Fact, Kind};
use altnet_core::lan::HOP_LIMIT;
use altnet_core::names::{Answer, Carrier};
use altnet_core::node::{Event, Node, Output, Slot, Verdict};
use altnet_wire::endpoint::PortId;
use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::time::Instant;
use serde_json::Value;
use socket2::Socket;
use tokio::io::unix::AsyncFd;
use tokio::sync::{broadcast, mpsc, watch};

use crate::aead::RingAead;
use crate::api::server::Call;
use crate::api::{ApiError, Code, Method, types};
use crate::apps::tls::{KeyMade, Tls};
use crate::apps::{Apps, Packet, WhoIs};
use crate::clock::Alarm;
use crate::config::{Config, ConfigError};
use crate::derpers::{self as derped, Derpers};
use crate::dns::{self, Decision, Inquiry, Service};
use crate::link::{LinkError, Links};
use crate::metrics::Wish;
use crate::netlink::Netlink;
use crate::portmap::{PortMappings, Way};
use crate::store::directory::Directory;
use crate::store::writer::{Done, Writer};
use crate::streams::{Came, Streams};
use crate::tun::Tun;
use crate::turn::{self as turned, TurnServers};
use crate::{clock, log};

mod apps;
pub mod audit;
pub mod batch;
mod bench;
pub mod birth;
mod calls;
mod derpers;
mod invites;
pub mod lan;
mod logins;
pub mod machines;
mod mapped;
pub mod names;
pub mod nat64;
mod page;
mod places;
pub mod port;
pub mod portal;
pub mod ports;
pub mod saving;
pub mod signals;
mod streams;
mod surroundings;
mod tls;
mod turn;

use audit::Audit;
use batch::Sent;
use calls::Pending;
use lan::{Lans, Solicited};
use machines::Machines;
use nat64::Nat64;
use portal::Portals;
use ports::Ports;
use saving::Origin;
use signals::{Signal, Signals};

/// Packets read from one source before the others get their turn.
pub const BATCH: usize = 64;
/// Events that a slow listener may lag behind before it misses some.
pub const EVENT_BACKLOG: usize = 256;
/// Calls, queries and the like that wait for the loop; more wait where they come from.
pub const INBOX: usize = 64;

/// How often the calendar and the interfaces are looked at when nothing announces a change.
const LOOK: Duration = Duration::from_secs(60);
/// How long after a change of links the interfaces are looked at: changes come in bursts.
const SETTLE: Duration = Duration::from_millis(200);
/// The ends that other tasks send to the loop through.
#[derive(Debug)]
pub struct Inboxes {
    /// People.
    pub calls: mpsc::Receiver<Call>,
    /// Names.
    pub inquiries: mpsc::Receiver<Inquiry>,
    /// Machines looking for a router.
    pub solicited: mpsc::Receiver<Solicited>,
    /// Metrics over HTTP.
    pub wishes: mpsc::Receiver<Wish>,
    /// Packets of apps.
    pub app_packets: mpsc::Receiver<Packet>,
    /// Apps that want to know who calls.
    pub callers: mpsc::Receiver<WhoIs>,
    /// Packets of the portal.
    pub portal_packets: mpsc::Receiver<Packet>,
    /// Keys for TLS.
    pub keys: mpsc::Receiver<KeyMade>,
}

/// Everything the loop works with.
pub struct Gateway {
    /// The node.
    pub node: Node<RingAead>,
    /// Its state, on the way to the disk.
    pub store: Writer<Directory>,
    /// The audit log, likewise.
    pub audit: Audit,
    /// The configuration in force.
    pub config: Config,
    /// The UDP ports.
    pub ports: Ports,
    /// Relaying over TLS.
    pub streams: Streams,
    /// Other people's TURN servers.
    pub turn: TurnServers,
    /// Other people's DERP servers.
    pub derpers: Derpers,
    /// The way to IPv4 without IPv4.
    pub nat64: Nat64,
    /// The TUN device.
    pub tun: Tun,
    /// The kernel's settings.
    pub links: Links,
    /// For questions to the kernel.
    pub netlink: Netlink,
    /// Readable when links or addresses change.
    pub changes: AsyncFd<Socket>,
    /// What asks routers for a port, if that is on.
    pub mappings: Option<PortMappings>,
    /// What became of it.
    pub ways: watch::Receiver<Vec<Way>>,
    /// The machines on the LANs.
    pub machines: Machines,
    /// The way to the login page.
    pub portal: Portals,
    /// The LANs.
    pub lans: Lans,
    /// Name service, if it is on.
    pub names: Option<Arc<Service>>,
    /// The apps of this node.
    pub apps: Apps,
    /// Their TLS.
    pub tls: Tls,
    /// Listeners to what happens.
    pub events: broadcast::Sender<Arc<str>>,
    /// What other tasks send.
    pub inboxes: Inboxes,
    /// Whether the state comes from elsewhere.
    pub origin: Origin,
    /// Where it stands now.
    pub place: [u8; 16],
    /// The rest of the loop's state.
    pub state: State,
}

/// What the loop remembers between turns.
#[derive(Debug)]
pub struct State {
    event_id: u64,
    pending: Vec<Pending>,
    // By slot, the last write that is under way.
    writing: BTreeMap<Slot, u64>,
    unsaved: BTreeSet<Slot>,
    // Why, as the medium said last.
    unsaved_why: Option<String>,
    save_again: Instant,
    leaving: Option<Event>,
    forget_at: Instant,
    look: Instant,
    is_tun_gone: bool,
    send_again: Instant,
    lost: u64,
    complaints: Vec<String>,
    // The apps that a key is being made for.
    keys_wished: BTreeSet<String>,
    // What was last logged of routers.
    router_lines: Vec<String>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            event_id: 0,
            pending: Vec::new(),
            writing: BTreeMap::new(),
            unsaved: BTreeSet::new(),
            unsaved_why: None,
            save_again: Instant::NEVER,
            leaving: None,
            forget_at: Instant::NEVER,
            look: Instant::ZERO,
            is_tun_gone: false,
            send_again: Instant::NEVER,
            lost: 0,
            complaints: Vec::new(),
            keys_wished: BTreeSet::new(),
            router_lines: Vec::new(),
        }
    }
}

/// A fault ended it, and the log says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped by a fault; the log says which")]
pub struct Stopped;

enum Input {
    Lan,
    Wan,
    Inquiry(Inquiry),
    Solicited(Solicited),
    Call(Call),
    Wish(Wish),
    Written(Done),
    App(Packet),
    Portal(Packet),
    Who(WhoIs),
    Key(KeyMade),
    Audited(io::Result<()>),
    Change,
    Prefix(nat64::News),
    Streamed(Came),
    Turned(turned::Came),
    Derped(derped::Came),
    Mapped,
    Machines,
    Signal(Signal),
    Time,
    Fault(&'static str, io::Error),
}

impl Gateway {
    /// Runs until a signal ends it, and leaves the kernel as it was found.
    ///
    /// # Errors
    /// What it can't go on without, and was logged: TUN device, sockets, netlink.
    pub async fn run(
        mut self,
        mut signals: Signals,
        load: impl Fn() -> Result<Config, ConfigError>,
    ) -> Result<(), Stopped> {
        let mut buffer = Box::new([0; FRAME_BYTES]);
        let mut frame = Frame::new(&mut buffer[..]);
        let mut alarm = Alarm::new().map_err(|e| {
            crate::error!("no timer: {e}; stopping");
            Stopped
        })?;
        self.set_clock();
        self.begin_audit();
        self.host_apps();
        self.note_origin(&mut frame);
        let ended = loop {
            let mut deadline = self.settle(&mut frame);
            if self.flush() {
                deadline = self.settle(&mut frame);
                if self.flush() {
                    // What the node says to that comes in the next round, at once.
                    deadline = clock::now();
                }
            }
            if self.state.is_tun_gone {
                crate::error!("the TUN device was taken away; stopping");
                break Err(Stopped);
            }
            match self.next_input(&mut signals, &mut alarm, deadline).await {
                Input::Lan => {
                    if let Err(e) = self.take_lan(&mut frame) {
                        crate::error!("the TUN device failed: {e}; stopping");
                        break Err(Stopped);
                    }
                }
                Input::Wan => self.take_wan(&mut frame),
                Input::Inquiry(inquiry) => self.answer(inquiry),
                Input::Solicited(solicited) => self.hear(&solicited),
                Input::Call(call) if call.is_allowed && call.method == Method::Reload => {
                    let answer = self.reload(load());
                    self.note_act(call.user, call.method, &answer);
                    // Whoever asked may be gone.
                    let _ = call.reply.send(answer);
                }
                Input::Call(call) => self.handle_call(call),
                Input::Wish(wish) => {
                    // Whoever asked may be gone.
                    let _ = wish.send(self.metrics_page());
                }
                Input::Written(done) => self.written(done),
                Input::App(packet) => self.take_apps(packet, &mut frame),
                Input::Portal(packet) => self.take_portal(&packet),
                Input::Who(who) => self.tell_who(who),
                Input::Key(key) => self.take_key(key, clock::now()),
                Input::Audited(outcome) => self.audit.appended(outcome),
                Input::Machines => self.hear_machines(&mut frame),
                Input::Streamed(came) => self.take_streamed(came, &mut frame),
                Input::Turned(came) => self.take_turned(came, &mut frame),
                Input::Derped(came) => self.take_derped(came, &mut frame),
                Input::Prefix(news) => {
                    let prefix = self.nat64.take(news, clock::now());
                    self.node.handle_pref64(prefix, clock::now());
                }
                Input::Change => self.state.look = clock::now().after(SETTLE),
                Input::Mapped => self.tell_mapped(clock::now()),
                Input::Time => self.node.handle_timeout(clock::now()),
                // What came of it is in the log.
                Input::Signal(Signal::Reload) => drop(self.reload(load())),
                Input::Signal(Signal::End) => break Ok(()),
                Input::Fault(what, e) => {
                    crate::error!("{what} failed: {e}; stopping");
                    break Err(Stopped);
                }
            }
        };
        if let Some(mappings) = self.mappings.take() {
            mappings.close().await;
        }
        self.close(&mut frame);
        ended
    }

    /// Drains the node and does what is due beside it; returns when something is next.
    fn settle(&mut self, frame: &mut Frame<'_>) -> Instant {
        let mut deadline = self.drain(frame);
        let now = clock::now();
        if self.state.look.min(self.nat64.deadline()) <= now {
            self.look(now);
            deadline = self.drain(frame);
        }
        if self.state.save_again <= now {
            self.save_again();
            deadline = self.drain(frame);
        }
        if self.state.forget_at <= now {
            self.forget(now);
            deadline = self.drain(frame);
        }
        if self.state.send_again <= now {
            self.state.send_again = self.lans.send_again(now);
        }
        if self.machines.deadline() <= now {
            self.tend_logins(now);
            if self.machines.anew.is_some_and(|at| at <= now) {
                self.place_anew(now);
            }
            self.pass_waiting(now, frame);
            deadline = self.drain(frame);
        }
        let streams = self.tend_streams(now).min(self.tend_derpers(now));
        self.tend_turn();
        deadline = deadline.min(self.drain(frame));
        let pending = self.expire_calls(now).min(self.machines.deadline());
        let audit = loop {
            let (until, is_told) = self.tend_audit(now);
            if !is_told {
                break until;
            }
            deadline = self.drain(frame);
        };
        deadline
            .min(streams)
            .min(self.state.look)
            .min(self.nat64.deadline())
            .min(self.state.save_again)
            .min(self.state.forget_at)
            .min(self.state.send_again)
            .min(pending)
            .min(audit)
    }

    async fn next_input(
        &mut self,
        signals: &mut Signals,
        alarm: &mut Alarm,
        deadline: Instant,
    ) -> Input {
        let (inboxes, store, audit) = (&mut self.inboxes, &mut self.store, &mut self.audit);
        let ways = &mut self.ways;
        let ready = |input, result: io::Result<()>, what| match result {
            Ok(()) => input,
            Err(e) => Input::Fault(what, e),
        };
        tokio::select! {
            result = self.tun.readable() => ready(Input::Lan, result, "the TUN device"),
            result = self.ports.readable() => ready(Input::Wan, result, "the UDP port"),
            Some(done) = store.done() => Input::Written(done),
            Some(outcome) = audit.done() => Input::Audited(outcome),
            Some(inquiry) = inboxes.inquiries.recv() => Input::Inquiry(inquiry),
            Some(solicited) = inboxes.solicited.recv() => Input::Solicited(solicited),
            Some(call) = inboxes.calls.recv() => Input::Call(call),
            Some(packet) = inboxes.app_packets.recv() => Input::App(packet),
            Some(packet) = inboxes.portal_packets.recv() => Input::Portal(packet),
            Some(who) = inboxes.callers.recv() => Input::Who(who),
            Some(key) = inboxes.keys.recv() => Input::Key(key),
            Some(wish) = inboxes.wishes.recv() => Input::Wish(wish),
            result = self.machines.heard() => ready(Input::Machines, result, "netlink"),
            result = changed(&self.changes) => ready(Input::Change, result, "netlink"),
            came = self.streams.news.came() => Input::Streamed(came),
            came = self.turn.news.came() => Input::Turned(came),
            came = self.derpers.news.came() => Input::Derped(came),
            news = self.nat64.news() => Input::Prefix(news),
            Ok(()) = ways.changed() => Input::Mapped,
            signal = signals.next() => Input::Signal(signal),
            result = alarm.wait(deadline) => ready(Input::Time, result, "the clock"),
        }
    }

    /// Packets of our side, up to a batch.
    fn take_lan(&mut self, frame: &mut Frame<'_>) -> io::Result<()> {
        if !self.config.machines.is_empty() {
            self.hear_machines(frame);
        }
        for _ in 0..BATCH {
            if !self.tun.try_read(frame)? {
                break;
            }
            if self.holds_back(frame) {
                continue;
            }
            // What is refused was counted by the node.
            if let Ok(verdict) = self.node.handle_lan(frame, clock::now()) {
                self.carry_out(verdict, frame);
            }
        }
        Ok(())
    }

    /// Datagrams of the world, up to a batch.
    fn take_wan(&mut self, frame: &mut Frame<'_>) {
        // One moment for all of them: asking for it costs as much as finding a client does.
        let now = clock::now();
        for _ in 0..BATCH {
            let (port, from) = match self.ports.try_receive(frame) {
                Ok(Some(came)) => came,
                Ok(None) => return,
                Err(e) => {
                    // An ICMP error about an earlier datagram: the node's timers know better.
                    crate::debug!("the UDP port says: {e}");
                    continue;
                }
            };
            if let Ok(verdict) = self.node.handle_wan_at(port, from, frame, now) {
                self.carry_out(verdict, frame);
            }
        }
    }

    fn carry_out(&mut self, verdict: Verdict, frame: &mut Frame<'_>) {
        match verdict {
            Verdict::Send { to, port } => self.send(frame, to, port),
            Verdict::ToRelay { .. } | Verdict::ToClient { .. } => {
                self.send_streamed(verdict, frame)
            }
            Verdict::ToDerper { server, to } => self.derpers.send(server, &to, frame.packet()),
            Verdict::ToTurn => self.turn.send(frame.packet()),
            Verdict::Deliver => self.deliver(frame.packet()),
            // It was for the node itself, which may want to answer.
            Verdict::App { .. } => {
                // What it has no room for is counted there.
                self.apps.deliver(frame.packet());
            }
            Verdict::LogIn => self.lead_to_login(frame),
            Verdict::Consumed => {
                self.drain(frame);
            }
        }
        if self.node.has_pieces() {
            self.drain(frame);
        }
    }

    fn deliver(&mut self, packet: &[u8]) {
        if let Err(e) = self.tun.write(packet) {
            self.state.lost += 1;
            crate::debug!("a packet was not taken by the TUN device: {e}");
        }
    }

    fn send(&mut self, frame: &Frame<'_>, to: SocketAddr, from: PortId) {
        if let Err(sent) = self.ports.send(frame.packet(), to, from) {
            self.note_lost(sent);
        }
    }

    /// Sends what this turn of the loop has to send; whether the node was told something by that.
    fn flush(&mut self) -> bool {
        match self.ports.flush() {
            Ok(()) => false,
            Err(sent) => self.note_lost(sent),
        }
    }

    fn note_lost(&mut self, sent: Sent) -> bool {
        self.state.lost += sent.lost;
        if let Some((to, e)) = sent.why {
            let count = sent.lost;
            crate::debug!("{count} datagrams, the last to {to}, were not sent: {e}");
        }
        if let Some((to, bytes)) = sent.too_large {
            self.node.handle_too_large(to, bytes, clock::now());
        }
        sent.too_large.is_some()
    }

    /// Does what the node says until it waits; returns until when.
    fn drain(&mut self, frame: &mut Frame<'_>) -> Instant {
        loop {
            match self.node.poll_output(frame, clock::now()) {
                Output::Send { to, port } => self.send(frame, to, port),
                Output::ToRelay { relay, to } => {
                    self.streams.to_relay(relay, to, frame.packet());
                }
                Output::ToClient { stream, from } => {
                    self.streams.to_client(stream, from, frame.packet());
                }
                Output::CloseClient { stream } => self.streams.close_client(stream),
                Output::ToDerper { server, to } => {
                    self.derpers.send(server, &to, frame.packet());
                }
                Output::ToTurn => self.turn.send(frame.packet()),
                Output::ClosePort { port } => self.ports.close(port),
                Output::Deliver => self.carry_out(Verdict::Deliver, frame),
                Output::App { app } => self.carry_out(Verdict::App { app }, frame),
                Output::Save { slot } => self.save(&slot),
                Output::Advertise { link, to } => {
                    self.lans.send(link, frame.packet(), to);
                    self.state.send_again = clock::now();
                }
                // Told once the keys are gone too.
                Output::Tell(event @ Event::Left { revoked: false, .. }) => {
                    self.state.leaving = Some(event);
                    self.state.forget_at = clock::now();
                }
                Output::Tell(event) => self.tell(&event),
                Output::Wait(deadline) => return deadline,
            }
        }
    }

    /// Logs a fact, tells it to listeners, and ends the calls that waited for it.
    fn tell(&mut self, event: &Event) {
        self.note_event(event);
        let text = event.with_names(|node| self.node.name_of(node)).to_string();
        match event {
            Event::Pong { .. } | Event::Benched { .. } => crate::debug!("{text}"),
            Event::PastRewritten { .. } | Event::PastContradicted { .. } => {
                crate::warning!("{text}");
            }
            _ => crate::info!("{text}"),
        }
        self.state.event_id += 1;
        let line = calls::event_line(event, text, self.state.event_id);
        // No listener is no fault.
        let _ = self.events.send(line.into());
        self.end_calls(event);
        if matches!(event, Event::Joined { .. } | Event::Left { .. }) {
            self.host_apps();
        }
        if matches!(event, Event::Certified { .. }) {
            self.tend_tls();
        }
        let place_may_change = matches!(
            event,
            Event::Joined { .. }
                | Event::Left { .. }
                | Event::MemberChanged { .. }
                | Event::Renewed
        );
        if place_may_change {
            self.state.look = clock::now();
        }
    }

    /// Looks at the calendar, the interfaces and this node's place, and acts on what changed.
    fn look(&mut self, now: Instant) {
        self.state.look = now.after(LOOK);
        // Its own error is not always told to who reads from it.
        let index = crate::link::index_of(self.tun.name());
        self.state.is_tun_gone = index.ok() != Some(self.tun.index());
        self.set_clock();
        self.note_refusals();
        self.serve_lans(now);
        self.tend_machines(now);
        self.tend_portal();
        self.tend_tls();
        self.tell_interfaces(now);
        self.tend_mapped();
    }

    fn set_clock(&mut self) {
        self.node.handle_clock(clock::calendar(), clock::now());
    }

    fn serve_lans(&mut self, now: Instant) {
        let setup = self.node.setup();
        match &setup {
            Some(setup) => {
                let plan = self
                    .lans
                    .plan(setup, self.tun.index(), self.config.tun.mtu_bytes);
                self.complain(|links| links.apply(&plan));
            }
            None => self.complain(Links::undo),
        }
        let names = self.names.as_ref();
        let (links, some_are_new) = self.lans.serve(setup.as_ref(), names, &mut self.netlink);
        if some_are_new {
            // So that the node begins anew on a link that came back.
            self.node.handle_links(&[], now);
        }
        self.node.handle_links(&links, now);
    }

    /// A machine on a LAN looks for a router.
    fn hear(&mut self, solicited: &Solicited) {
        let Solicited {
            link,
            source,
            message,
        } = solicited;
        let now = clock::now();
        // The socket passes no other hop limit.
        if let Err(e) = self
            .node
            .handle_link(*link, *source, HOP_LIMIT, message, now)
        {
            crate::debug!("{source} said nonsense on a LAN: {e}");
        }
    }

    /// Changes the kernel's settings, and says what it refused once.
    fn complain(&mut self, change: impl FnOnce(&mut Links) -> Vec<LinkError>) {
        let complaints: Vec<String> = change(&mut self.links)
            .iter()
            .map(|e| log::chain(e))
            .collect();
        for complaint in &complaints {
            if !self.state.complaints.contains(complaint) {
                crate::warning!("{complaint}");
            }
        }
        self.state.complaints = complaints;
    }

    fn answer(&self, inquiry: Inquiry) {
        let carrier = if inquiry.is_tcp {
            Carrier::Tcp
        } else {
            Carrier::Udp
        };
        let mut reply = vec![0; dns::MAX_DATAGRAM_BYTES];
        let decision = match self.node.handle_dns(&inquiry.query, carrier, &mut reply) {
            Answer::Reply(len) => {
                reply.truncate(len);
                Decision::Answer(reply)
            }
            Answer::Forward => Decision::Forward,
            Answer::Ignore => Decision::Drop,
        };
        // Whoever asked may be gone.
        let _ = inquiry.decision.send(decision);
    }

    /// Takes a configuration over that was read again. Returns which of its keys need a restart.
    fn reload(&mut self, config: Result<Config, ConfigError>) -> Result<Value, ApiError> {
        match config {
            Ok(config) => {
                let restart = self.reconfigure(config).into_iter();
                let restart = restart.map(String::from).collect();
                calls::json_of(types::Reloaded { restart })
            }
            Err(e) => {
                let why = log::chain(&e).to_string();
                crate::error!("the configuration in force stays: {why}");
                let hint = "the configuration in force stays";
                Err(ApiError::new(Code::Failed, why, hint))
            }
        }
    }

    /// Takes over what can be changed while running, and says what can't.
    fn reconfigure(&mut self, config: Config) -> Vec<&'static str> {
        let restart = config.restart_needed_since(&self.config);
        for key in &restart {
            crate::warning!("{key} changed in the configuration: restart altnetd for it");
        }
        log::set_level(config.log);
        if config.lan != self.config.lan {
            self.lans.reconfigure(&config);
            self.state.look = clock::now();
        }
        if config.machines != self.config.machines {
            self.take_places(&config.machines, clock::now());
        }
        let changed = config.changed_since(&self.config).join(", ");
        self.note(Fact::new(Kind::CONFIGURED).detail(changed));
        self.config.lan = config.lan;
        self.config.machines = config.machines;
        self.config.log = config.log;
        crate::info!("configuration read again");
        restart
    }

    fn close(mut self, frame: &mut Frame<'_>) {
        // The first of the goodbyes leaves at once; the next would keep us for seconds.
        self.node.close_links(clock::now());
        self.node.keep_heads();
        self.node.close_turn(clock::now());
        self.drain(frame);
        self.flush();
        self.complain(Links::undo);
        self.note_refusals();
        let calendar = self.node.calendar(clock::now());
        audit::close(self.audit, calendar);
        self.store.finish();
        crate::info!("stopped");
    }
}

/// Waits for links or addresses to change, and forgets what exactly did.
async fn changed(changes: &AsyncFd<Socket>) -> io::Result<()> {
    let mut ready = changes.readable().await?;
    let mut heap = [0; 4096];
    // A socket that overflowed says ENOBUFS: also a change.
    while let Ok(result) = ready.try_io(|socket| io::Read::read(&mut socket.get_ref(), &mut heap)) {
        if result.is_err() {
            break;
        }
    }
    Ok(())
}
