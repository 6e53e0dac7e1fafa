//! People's calls: each to one question or command of the node, some answered by an event.

use std::time::Duration;

use altnet_core::ip::Protocol;
use altnet_core::node::{Command, CommandError, Event, JoinError, read_invitation};
use altnet_wire::id::{Name, NodeId};
use altnet_wire::time::Instant;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Gateway, bench};
use crate::api::server::{Call, forbidden};
use crate::api::{ApiError, Code, Method, VERSION, types};
use crate::clock;

/// How long a ping is waited for.
const PING_PATIENCE: Duration = Duration::from_secs(5);
/// How long joining is waited for: several entries, each with its retransmissions.
const JOIN_PATIENCE: Duration = Duration::from_secs(120);
/// How long the disk is waited for.
const SAVE_PATIENCE: Duration = Duration::from_secs(30);
/// Calls that may wait for events at a time.
const MAX_PENDING: usize = 32;

type Reply = oneshot::Sender<Result<Value, ApiError>>;

/// A call that an event will answer.
#[derive(Debug)]
pub struct Pending {
    what: What,
    user: u32,
    until: Instant,
    reply: Reply,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Join,
    Leave,
    Rotate,
    Ping(NodeId),
    Bench(NodeId),
}

impl What {
    const fn method(self) -> Method {
        match self {
            Self::Join => Method::Join,
            Self::Leave => Method::Leave,
            Self::Rotate => Method::Rotate,
            Self::Ping(_) => Method::Ping,
            Self::Bench(_) => Method::RelayBench,
        }
    }
}

impl Gateway {
    /// Answers a call, or keeps it until an event does.
    pub(super) fn handle_call(&mut self, call: Call) {
        let now = clock::now();
        if !call.is_allowed {
            self.note_forbidden(call.user, call.method);
            // Whoever asked may be gone.
            let _ = call.reply.send(Err(forbidden(call.method)));
            return;
        }
        let begun = match call.method {
            Method::Join => self.join(call.params, now),
            Method::Leave => self.begin_leaving(now),
            Method::Rotate => self.begin(Command::Rotate, What::Rotate, now),
            Method::Ping => self.ping(call.params, now),
            Method::RelayBench => self.begin_bench(call.params, now),
            Method::AuditRead | Method::AuditVerify => {
                self.ask_audit(call.method, call.params, call.reply, now);
                return;
            }
            method => {
                let answer = self.answer_now(method, call.params, now);
                self.note_act(call.user, method, &answer);
                let _ = call.reply.send(answer);
                return;
            }
        };
        match begun {
            Ok((what, patience)) => self.state.pending.push(Pending {
                what,
                user: call.user,
                until: now.after(patience),
                reply: call.reply,
            }),
            Err(e) => {
                let answer = Err(e);
                self.note_act(call.user, call.method, &answer);
                let _ = call.reply.send(answer);
            }
        }
    }

    fn answer_now(
        &mut self,
        method: Method,
        given: Value,
        now: Instant,
    ) -> Result<Value, ApiError> {
        match method {
            Method::Status => json_of(self.status(now)),
            Method::Peers => json_of(json!({ "peers": self.node.peer_views(now) })),
            Method::Records => json_of(json!({ "records": self.node.record_views() })),
            Method::Why => {
                let types::Target { target } = params(given)?;
                json_of(json!({ "steps": self.node.why(&target, now) }))
            }
            Method::Hosts => json_of(json!({ "hosts": self.hosts() })),
            Method::HostAdd => {
                let host: types::Host = params(given)?;
                let address = host
                    .address
                    .parse()
                    .map_err(|_| bad(format!("{:?} is not an IPv6 address", host.address)))?;
                let name = name_of(&host.name)?;
                let address = Some(address);
                self.command(Command::SetHost { name, address }, now)?;
                json_of(&host)
            }
            Method::HostRemove => {
                let host: types::HostName = params(given)?;
                let name = name_of(&host.name)?;
                if !self.hosts().iter().any(|known| known.name == host.name) {
                    return Err(ApiError::new(
                        Code::NotFound,
                        format!("this gateway gave no machine the name {}", host.name),
                        "`altnet host list` shows those it gave",
                    ));
                }
                self.command(
                    Command::SetHost {
                        name,
                        address: None,
                    },
                    now,
                )?;
                json_of(&host)
            }
            Method::Apps => self.apps(),
            Method::AppAdd => self.add_app(params(given)?, now),
            Method::AppRemove => self.remove_app(params(given)?, now),
            Method::Members => self.members(),
            Method::Invites => self.invites(now),
            Method::InviteCreate => self.create_invite(&params(given)?, now),
            Method::InviteRevoke => self.revoke_invite(&params(given)?, now),
            Method::Login => self.login(params(given)?, now),
            Method::Logout => self.logout(&params(given)?, now),
            Method::Logins => self.login_list(now),
            Method::Relays => json_of(json!({ "relays": self.node.status(now).relays })),
            Method::RelayStatus => json_of(self.relaying(now)),
            Method::RelayRotate => self.rotate_relay(now),
            Method::Whose => self.whose(&params(given)?),
            Method::LoginTls => self.login_tls(),
            Method::Policy => json_of(self.node.policy_view(now)),
            Method::PolicyCheck => self.check_flow(params(given)?, now),
            Method::Metrics => json_of(json!({ "text": self.metrics_page() })),
            Method::TlsCa => self.tls_authority(),
            Method::AuditHeads => Ok(self.audit_heads()),
            Method::Join
            | Method::Leave
            | Method::Rotate
            | Method::Ping
            | Method::RelayBench
            | Method::Events
            | Method::Reload
            | Method::AuditRead
            | Method::AuditVerify => {
                Err(bad(format!("{} has no answer of its own", method.name())))
            }
        }
    }

    fn status(&self, now: Instant) -> types::Status<&'static str> {
        types::Status {
            version: env!("CARGO_PKG_VERSION").into(),
            listen_port: self.ports.number().unwrap_or(self.config.listen_port),
            lans: self.lans.views(),
            port_mappings: self.mapped_views(now),
            unsaved: self.state.unsaved_why.clone(),
            node: self.node.status(now),
        }
    }

    fn hosts(&self) -> Vec<types::Host> {
        let Some((registry, site)) = self.node.registry().zip(self.node.site_prefix()) else {
            return Vec::new();
        };
        let hosts = registry.hosts().filter_map(|host| {
            let address = host
                .record
                .address
                .filter(|address| site.contains(*address))?;
            Some(types::Host {
                name: host.record.name.to_string(),
                address: address.to_string(),
            })
        });
        hosts.collect()
    }

    fn check_flow(&self, flow: types::Flow, now: Instant) -> Result<Value, ApiError> {
        if self.node.registry().is_none() {
            return Err(CommandError::NotMember.into());
        }
        let service = flow.service.as_deref().map(service_of).transpose()?;
        let verdict = self
            .node
            .check_flow(&flow.source, &flow.target, service, now)
            .map_err(nobody)?;
        json_of(verdict)
    }

    fn join(&mut self, given: Value, now: Instant) -> Result<(What, Duration), ApiError> {
        let join: types::Join = params(given)?;
        let bundle = Box::new(read_invitation(&join.invite).map_err(bad)?);
        let name = join.name.as_deref().map(name_of).transpose()?;
        self.begin(Command::Join { bundle, name }, What::Join, now)
    }

    fn ping(&mut self, given: Value, now: Instant) -> Result<(What, Duration), ApiError> {
        let types::Target { target } = params(given)?;
        if self.node.registry().is_none() {
            return Err(CommandError::NotMember.into());
        }
        let node = self.node.node_called(&target);
        let node = node.ok_or_else(|| nobody(&target))?;
        self.begin(Command::Ping { node }, What::Ping(node), now)
    }

    /// Has the node leave, noted on disk before anything of it is gone.
    fn begin_leaving(&mut self, now: Instant) -> Result<(What, Duration), ApiError> {
        self.note_leaving();
        let begun = self.begin(Command::Leave, What::Leave, now);
        if begun.is_err() && self.state.leaving.is_none() {
            self.note_staying();
        }
        begun
    }

    /// Gives the node a command that an event will answer.
    pub(super) fn begin(
        &mut self,
        command: Command,
        what: What,
        now: Instant,
    ) -> Result<(What, Duration), ApiError> {
        if self.state.pending.len() >= MAX_PENDING {
            return Err(ApiError::new(
                Code::Busy,
                "too many calls are waiting for an answer",
                "try again in a moment",
            ));
        }
        self.command(command, now)?;
        Ok(match what {
            What::Join => (what, JOIN_PATIENCE),
            What::Ping(_) => (what, PING_PATIENCE),
            What::Bench(_) => (what, bench::PATIENCE),
            What::Leave | What::Rotate => (what, SAVE_PATIENCE),
        })
    }

    pub(super) fn command(&mut self, command: Command, now: Instant) -> Result<(), ApiError> {
        Ok(self.node.handle_command(command, now)?)
    }

    /// Ends the calls that waited for `event`.
    pub(super) fn end_calls(&mut self, event: &Event) {
        let mut waiting = Vec::with_capacity(self.state.pending.len());
        for pending in std::mem::take(&mut self.state.pending) {
            let answer = match (pending.what, event) {
                (What::Bench(wanted), Event::Benched { relay, report }) if wanted == *relay => {
                    Some(self.found(wanted, report, clock::now()))
                }
                (what, event) => answer(what, event),
            };
            match answer {
                Some(answer) => {
                    self.note_act(pending.user, pending.what.method(), &answer);
                    let _ = pending.reply.send(answer);
                }
                None => waiting.push(pending),
            }
        }
        self.state.pending = waiting;
    }

    /// Ends the calls whose patience is over; returns when the next one's is.
    pub(super) fn expire_calls(&mut self, now: Instant) -> Instant {
        let mut waiting = Vec::with_capacity(self.state.pending.len());
        for pending in std::mem::take(&mut self.state.pending) {
            if pending.until <= now {
                let answer = Err(too_late(pending.what, self.state.unsaved_why.as_deref()));
                self.note_act(pending.user, pending.what.method(), &answer);
                let _ = pending.reply.send(answer);
            } else if !pending.reply.is_closed() {
                waiting.push(pending);
            }
        }
        self.state.pending = waiting;
        let untils = self.state.pending.iter().map(|pending| pending.until);
        untils.min().unwrap_or(Instant::NEVER)
    }
}

/// What `event` means to a call that waits for `what`.
fn answer(what: What, event: &Event) -> Option<Result<Value, ApiError>> {
    Some(match (what, event) {
        (What::Join, Event::Joined { network, name }) => {
            json_of(json!({ "network": network.to_string(), "name": name.to_string() }))
        }
        (What::Join, Event::JoinFailed { why }) => Err((*why).into()),
        (What::Leave, Event::Left { network, .. }) => {
            json_of(json!({ "network": network.to_string() }))
        }
        (What::Rotate, Event::Rotated { epoch }) => json_of(json!({ "epoch": epoch })),
        (
            What::Ping(wanted),
            Event::Pong {
                node,
                rtt_us,
                relayed,
            },
        ) if wanted == *node => json_of(json!({
            "node": node.to_string(),
            "path": if *relayed { "relay" } else { "direct" },
            "rtt_us": rtt_us,
        })),
        _ => return None,
    })
}

fn too_late(what: What, unsaved: Option<&str>) -> ApiError {
    if let (What::Leave | What::Rotate, Some(why)) = (&what, unsaved) {
        let hint = "make room on that disk, or look into why it can't be written; it is tried again by itself";
        return ApiError::new(Code::Timeout, format!("it isn't kept yet: {why}"), hint);
    }
    let (message, hint) = match what {
        What::Join => (
            "joining is not done yet",
            "it goes on; `altnet status` says what it waits for",
        ),
        What::Ping(_) => (
            "there was no answer",
            "`altnet why` walks through the reasons",
        ),
        What::Bench(_) => (
            "the run did not end",
            "`altnet relay list` shows whether the relay answers",
        ),
        What::Leave | What::Rotate => (
            "the state directory could not be written in time",
            "see altnetd's log",
        ),
    };
    ApiError::new(Code::Timeout, message, hint)
}

/// An event as a line of the API.
pub(super) fn event_line(event: &Event, text: String, id: u64) -> String {
    let line = types::Event {
        v: VERSION,
        event: event.id().into(),
        id,
        at: clock::calendar().to_string(),
        text,
        data: particulars(event),
    };
    // A struct of plain text and numbers always has a JSON form.
    serde_json::to_string(&line).unwrap_or_default()
}

fn particulars(event: &Event) -> Value {
    match event {
        Event::Joined { network, name } => {
            json!({ "network": network.to_string(), "name": name.to_string() })
        }
        Event::Left { network, revoked } => {
            json!({ "network": network.to_string(), "revoked": revoked })
        }
        Event::MemberChanged { member, name } => {
            json!({ "member": member.to_string(), "name": name.to_string() })
        }
        Event::MemberGone { member } => json!({ "member": member.to_string() }),
        Event::PathChanged { node, change } => json!({
            "node": node.to_string(),
            "to": change.to.map(|to| to.to_string()),
            "why": change.why.id(),
        }),
        Event::TunnelUp { node } | Event::HeadBehind { node } => {
            json!({ "node": node.to_string() })
        }
        Event::RelayUp { relay, observed } => {
            json!({ "relay": relay.to_string(), "observed": observed.to_string() })
        }
        Event::RelayDown { relay } => json!({ "relay": relay.to_string() }),
        Event::DirectorySynced { directory } | Event::DirectoryLost { directory } => {
            json!({ "directory": directory.to_string() })
        }
        Event::Pong {
            node,
            rtt_us,
            relayed,
        } => json!({ "node": node.to_string(), "rtt_us": rtt_us, "relayed": relayed }),
        Event::Benched { relay, .. } => json!({ "relay": relay.to_string() }),
        Event::Rotated { epoch } => json!({ "epoch": epoch }),
        Event::Admitted { name, sponsor } => json!({
            "name": name.to_string(),
            "sponsor": sponsor.as_ref().map(Name::to_string),
        }),
        Event::Certified { name, until } => {
            json!({ "name": name, "until": until.to_string() })
        }
        _ => json!({}),
    }
}

pub(super) fn json_of(value: impl serde::Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(|e| {
        ApiError::new(
            Code::Failed,
            format!("the answer has no JSON form: {e}"),
            "",
        )
    })
}

pub(super) fn params<T: DeserializeOwned>(given: Value) -> Result<T, ApiError> {
    serde_json::from_value(given).map_err(|e| bad(format!("the parameters are wrong: {e}")))
}

pub(super) fn bad(message: impl ToString) -> ApiError {
    ApiError::new(Code::BadRequest, message.to_string(), "")
}

pub(super) fn nobody(text: &str) -> ApiError {
    ApiError::new(
        Code::NotFound,
        format!("no member, host or app is called {text}"),
        "`altnet peers` and `altnet records` show who there is",
    )
}

/// `tcp/80`, `udp/53`, `ping`, or `80` for TCP.
fn service_of(text: &str) -> Result<(Protocol, u16), ApiError> {
    if text == "ping" {
        return Ok((Protocol::ICMPV6, 0));
    }
    let (protocol, port) = text.split_once('/').unwrap_or(("tcp", text));
    let protocol = match protocol {
        "tcp" => Some(Protocol::TCP),
        "udp" => Some(Protocol::UDP),
        _ => None,
    };
    let service = protocol.zip(port.parse().ok());
    service.ok_or_else(|| {
        bad(format!(
            "{text:?} is no service; write a port like 80 or udp/53, or ping"
        ))
    })
}

pub(super) fn name_of(text: &str) -> Result<Name, ApiError> {
    Name::new(text).map_err(|e| bad(format!("{text:?} can't be a name: {e}")))
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        let code = match error {
            CommandError::NotMember => Code::NotAMember,
            CommandError::Join(why) => return why.into(),
            CommandError::NoSuchNode | CommandError::NoSuchInvite | CommandError::NoSuchRelay => {
                Code::NotFound
            }
            CommandError::Measuring => Code::Busy,
            CommandError::NoPath => Code::Timeout,
            CommandError::ForeignAddress | CommandError::NameForMany => Code::BadRequest,
            _ => Code::Refused,
        };
        Self::new(code, error.to_string(), "")
    }
}

impl From<JoinError> for ApiError {
    fn from(error: JoinError) -> Self {
        let code = match error {
            JoinError::AlreadyMember => Code::AlreadyAMember,
            JoinError::UnderWay => Code::Busy,
            JoinError::NoAnswer => Code::Timeout,
            JoinError::BadInvite => Code::BadRequest,
            _ => Code::Refused,
        };
        Self::new(code, error.to_string(), "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_wire::id::NetworkId;

    #[test]
    fn a_call_is_answered_by_its_own_event_alone() {
        let node = NodeId([1; 16]);
        let pong = |node| Event::Pong {
            node,
            rtt_us: 1500,
            relayed: true,
        };
        assert!(answer(What::Ping(node), &pong(NodeId([2; 16]))).is_none());
        assert!(answer(What::Join, &pong(node)).is_none());
        let value = answer(What::Ping(node), &pong(node)).unwrap().unwrap();
        let pong: types::Pong = serde_json::from_value(value).unwrap();
        assert_eq!((pong.path.as_str(), pong.rtt_us), ("relay", 1500));
    }

    #[test]
    fn a_refused_invite_is_one_sentence() {
        let event = Event::JoinFailed {
            why: JoinError::BadAnswer,
        };
        let error = answer(What::Join, &event).unwrap().unwrap_err();
        assert_eq!(error.code, Code::Refused);
        assert_eq!(error.to_string(), JoinError::BadAnswer.to_string());
    }

    #[test]
    fn an_event_line_reads_back() {
        let event = Event::Left {
            network: NetworkId([0; 32]),
            revoked: true,
        };
        let line: types::Event =
            serde_json::from_str(&event_line(&event, event.to_string(), 7)).unwrap();
        assert_eq!((line.event.as_str(), line.id), ("left", 7));
        assert_eq!(line.data["revoked"], true);
    }
}
