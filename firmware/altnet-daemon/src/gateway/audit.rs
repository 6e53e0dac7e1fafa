//! The audit log's place in the loop: facts go to it, what it says is done.

use std::collections::BTreeMap;
use std::io;

use altnet_core::audit::{End, Fact, Kind, Link, Log, Output};
use altnet_core::node::Event;
use altnet_wire::id::SigningKey;
use altnet_wire::time::{Duration, Instant};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::Gateway;
use crate::api::{ApiError, Code, Method, types};
use crate::audit::keeper::{Keeper, Question, Reply};
use crate::audit::read::{self, Known};
use crate::{clock, log};

/// How long a question waits for what came before it to be on disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// The log, and what it waits for.
#[derive(Debug)]
pub struct Audit {
    log: Log,
    keeper: Keeper,
    /// What was on disk at start and the node is to hear of.
    links: Vec<Link>,
    on_disk: End,
    asked: Vec<(Question, Reply, Instant)>,
    is_failing: bool,
}

impl Audit {
    /// Of a log that was opened, what its newest entries add to the chain, and the thread that
    /// writes it.
    pub fn new(log: Log, links: Vec<Link>, keeper: Keeper) -> Self {
        Self {
            on_disk: links
                .last()
                .map_or_else(End::default, |link| (*link).into()),
            log,
            keeper,
            links,
            asked: Vec::new(),
            is_failing: false,
        }
    }

    /// Whether an append is synced, once one is.
    pub(super) async fn done(&mut self) -> Option<io::Result<()>> {
        self.keeper.done().await
    }

    /// An append was synced, or could not be.
    pub(super) fn appended(&mut self, outcome: io::Result<()>) {
        if let Err(e) = &outcome
            && !self.is_failing
        {
            crate::error!(
                "the audit log can't be written: {}; trying again",
                log::chain(e)
            );
        }
        self.is_failing = outcome.is_err();
        self.log.handle_appended(outcome.is_ok(), clock::now());
    }
}

impl Gateway {
    /// Notes something that the node does not know of.
    pub(super) fn note(&mut self, fact: Fact) {
        let now = clock::now();
        self.audit.log.record(fact, self.node.calendar(now), now);
    }

    /// Notes what the node tells, if it is worth it.
    pub(super) fn note_event(&mut self, event: &Event) {
        if let Some(fact) = Fact::of_event(event, |node| self.node.name_of(node)) {
            self.note(fact);
        }
    }

    /// Notes what was refused since the last look.
    pub(super) fn note_refusals(&mut self) {
        let mut refused = Vec::new();
        self.node.take_refusals(&mut |row| refused.push(row));
        for row in refused {
            if let Some(fact) = Fact::of_refusal(&row, |node| self.node.name_of(node)) {
                self.note(fact);
            }
        }
    }

    /// Notes who changed something over the API, and how it ended.
    pub(super) fn note_act(&mut self, user: u32, method: Method, ended: &Result<Value, ApiError>) {
        if !method.is_act() {
            return;
        }
        let how = match ended {
            Ok(_) => "done".into(),
            Err(e) => format!("failed, {}", e.message),
        };
        let fact = Fact::new(Kind::ACT).about(format_args!("user {user}"));
        self.note(fact.detail(format_args!("{}: {how}", method.name())));
    }

    /// Notes who asked for what they may not.
    pub(super) fn note_forbidden(&mut self, user: u32, method: Method) {
        let fact = Fact::new(Kind::ACT_REFUSED).about(format_args!("user {user}"));
        self.note(fact.detail(method.name()));
    }

    /// Notes that the loop begins, and tells the node how far the log has come.
    pub(super) fn begin_audit(&mut self) {
        let now = clock::now();
        for link in std::mem::take(&mut self.audit.links) {
            self.node.handle_audit(&link, now);
        }
        self.note(Fact::new(Kind::STARTED).detail(env!("CARGO_PKG_VERSION")));
    }

    /// Does what the log says until it waits. Returns until when, and whether the node was told
    /// something.
    pub(super) fn tend_audit(&mut self, now: Instant) -> (Instant, bool) {
        let calendar = self.node.calendar(now);
        let audit = &mut self.audit;
        audit.log.handle_timeout(calendar, now);
        let mut is_told = false;
        let until = loop {
            match audit.log.poll_output(now) {
                Output::Append {
                    segment,
                    offset,
                    bytes,
                } => audit.keeper.append(segment, offset, bytes),
                Output::Remove { segment } => audit.keeper.remove(segment),
                Output::Synced(link) => {
                    audit.on_disk = link.into();
                    self.node.handle_audit(&link, now);
                    is_told = true;
                }
                Output::Wait(until) => break until,
            }
        };
        let is_ready = !audit.log.is_pending() || audit.is_failing;
        let ready = |(.., patience): &mut (Question, Reply, Instant)| is_ready || *patience <= now;
        let on_disk = (audit.on_disk.sequence, audit.on_disk.hash);
        for (mut question, reply, _) in audit.asked.extract_if(.., ready) {
            if let Question::Verify(known, _) = &mut question {
                // Whatever is cut off from here on is missed.
                known.push(on_disk);
            }
            audit.keeper.ask(question, reply);
        }
        let patience = audit.asked.iter().map(|(.., patience)| *patience);
        (until.min(patience.min().unwrap_or(Instant::NEVER)), is_told)
    }

    /// Has a question about the log answered once everything noted so far is on disk.
    pub(super) fn ask_audit(&mut self, method: Method, given: Value, reply: Reply, now: Instant) {
        let question = match method {
            Method::AuditVerify => super::calls::params(given)
                .and_then(|known: types::AuditKnown| known_head(&known))
                .map(|known| Question::Verify(known.into_iter().collect(), self.device_names())),
            _ => super::calls::params(given).map(Question::Read),
        };
        match question {
            Ok(question) => {
                self.note_refusals();
                self.audit.log.flush();
                self.audit
                    .asked
                    .push((question, reply, now.after(PATIENCE)));
            }
            Err(e) => {
                // Whoever asked may be gone.
                let _ = reply.send(Err(e));
            }
        }
    }

    /// What the members' devices are called.
    fn device_names(&self) -> BTreeMap<SigningKey, String> {
        let members = self.node.registry().into_iter().flat_map(|r| r.members());
        members
            .map(|m| (m.membership.device, m.membership.name.to_string()))
            .collect()
    }

    /// How far others' logs had come when this node vouched for them.
    pub(super) fn audit_heads(&self) -> Value {
        let names = self.device_names();
        let heads: Vec<types::AuditHead> = self
            .node
            .witnessed_heads()
            .map(|(device, head, since)| types::AuditHead {
                name: names.get(&device).cloned().unwrap_or(device.to_string()),
                sequence: head.sequence,
                hash: HEXLOWER.encode(&head.hash),
                since,
                time: head.time.to_string(),
            })
            .collect();
        json!({ "heads": heads })
    }
}

/// Writes what is left, the end of the daemon last.
pub(super) fn close(mut audit: Audit, calendar: altnet_core::clock::Estimate) {
    let now = clock::now();
    let fact = Fact::new(Kind::STOPPED);
    audit.log.record(fact, calendar, now);
    audit.log.flush();
    let Some((files, rest)) = audit.keeper.finish() else {
        return;
    };
    for outcome in rest {
        audit.log.handle_appended(outcome.is_ok(), now);
    }
    loop {
        match audit.log.poll_output(now) {
            Output::Append {
                segment,
                offset,
                bytes,
            } => {
                let outcome = files.append(segment, offset, &bytes);
                if let Err(e) = &outcome {
                    crate::error!("the audit log lacks its end: {}", log::chain(e));
                }
                audit.log.handle_appended(outcome.is_ok(), now);
            }
            Output::Remove { segment } => {
                // Too much by one segment until the next start.
                let _ = files.remove(segment);
            }
            Output::Synced(_) => {}
            Output::Wait(_) => return,
        }
    }
}

fn known_head(known: &types::AuditKnown) -> Result<Option<Known>, ApiError> {
    let bad = |message| ApiError::new(Code::BadRequest, message, "");
    match (known.sequence, &known.hash) {
        (Some(sequence), Some(hash)) => read::hash_of(hash)
            .map(|hash| Some((sequence, hash)))
            .ok_or_else(|| bad("the hash is 64 hexadecimal digits")),
        (None, None) => Ok(None),
        _ => Err(bad("a head is a sequence and a hash")),
    }
}
