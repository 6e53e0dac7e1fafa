//! Speaking with the network's directory: handing it what was signed here, and fetching what the
//! network has come to.
//!
//! This computer is no member. It calls a node as a stranger (Noise XX on the node's UDP port) and
//! believes it only once the chain in its Hello leads from our genesis to a member in force with
//! the directory role that holds the session's key. What it then announces proves itself; to
//! read, it shows that it holds an owner's or issuer's key.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant as Monotonic};

use altnet_core::clock::Clock;
use altnet_core::control::{
    CloseReason, ClosedWhy, Control, ControlEvent, ControlLimits, ControlSecret, SessionId,
};
use altnet_core::records::SigningSecret;
use altnet_core::registry::Registry;
use altnet_wire::control::MAX_DATAGRAM_BYTES;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::hash::Hash;
use altnet_wire::id::{self, ControlKey, Name, NetworkId, SigningKey};
use altnet_wire::message::{
    self, Cursor, Hello, MAX_MESSAGE_BYTES, Message, Packed, Refusal, Reply, Request,
    SignatureHalves, operator_proof,
};
use altnet_wire::record::{self, Roles};
use altnet_wire::time::{Instant, UnixTime};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::home::Home;
use crate::network::{self, Network};
use crate::recovery::RecoveryKey;
use crate::sealed::Passphrase;
use crate::secrets::Secrets;

/// How long a directory is waited for unless said otherwise.
pub const WAIT: Duration = Duration::from_secs(5);

/// Records that are announced at once, in bytes; well below a message's bound.
const BATCH_BYTES: usize = MAX_MESSAGE_BYTES - 1024;
/// The most pages that are read in one sync: far more than a full registry has.
const MAX_PAGES: usize = 4096;
const AGAIN: &str = "Check that altnetd runs there and that its UDP port is let through. Everything signed here is kept: try again with `altnet-provision publish`.";

/// What came of speaking with a directory. The field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct Exchange {
    /// Where the directory was reached.
    pub directory: SocketAddr,
    /// Records that it holds now and had not been told of before.
    pub published: usize,
    /// Records that it refused: usually because it knows newer ones.
    pub refused: usize,
    /// Records that still wait.
    pub pending: usize,
    /// Records that are new here; none if nothing was asked for.
    pub fetched: Option<usize>,
}

impl Network {
    /// Hands what was signed here to the first directory that answers within `wait`, and then,
    /// with `secrets`, fetches what is new. What the directory acknowledged is on its disk.
    ///
    /// # Errors
    /// [`Error::NotFound`] if no address is known; [`Error::Directory`] if none answers as this
    /// network's directory.
    pub fn exchange(
        &mut self,
        secrets: Option<&Secrets>,
        now: UnixTime,
        wait: Duration,
    ) -> Result<Exchange> {
        let endpoints = self.entry_endpoints();
        if endpoints.is_empty() {
            return Err(Error::not_found(
                "no address of the network's directory is known here",
                crate::network::MAKE_RELAY,
            ));
        }
        let mut last = None;
        for endpoint in endpoints {
            match self.exchange_with(endpoint, secrets, now, wait) {
                Err(error @ Error::Directory { .. }) => last = Some(error),
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| trouble("no directory answers")))
    }

    fn exchange_with(
        &mut self,
        endpoint: SocketAddr,
        secrets: Option<&Secrets>,
        now: UnixTime,
        wait: Duration,
    ) -> Result<Exchange> {
        let mut talk = Talk::begin(endpoint, wait)?;
        talk.hello(self.id())?;
        let chain = talk.their_chain()?;
        check_directory(self.registry(), &chain, &talk.remote, endpoint)?;
        let (published, refused) = self.announce(&mut talk, now)?;
        let mut exchange = Exchange {
            directory: endpoint,
            published,
            refused,
            pending: self.settings().pending(),
            fetched: None,
        };
        if let Some(secrets) = secrets {
            let key = self.proving_key(secrets)?;
            talk.prove(&key)?;
            exchange.fetched = Some(self.fetch(&mut talk, now)?);
            exchange.pending = self.settings().pending();
        }
        talk.end();
        Ok(exchange)
    }

    /// Announces what is pending. Returns how many records are held there now and how many were
    /// refused.
    fn announce(&mut self, talk: &mut Talk, now: UnixTime) -> Result<(usize, usize)> {
        let pending = self.pending_records();
        let (mut held, mut refused) = (Vec::new(), 0);
        for batch in batches(&pending) {
            if talk.announce(batch)? == 0 {
                held.extend(batch.iter().map(|bytes| id::record_id(bytes)));
                continue;
            }
            // Some were refused: one by one it is known which.
            for bytes in batch {
                if talk.announce(std::slice::from_ref(bytes))? == 0 {
                    held.push(id::record_id(bytes));
                } else {
                    refused += 1;
                }
            }
        }
        self.mark_published(&held, now)?;
        Ok((held.len(), refused))
    }

    fn fetch(&mut self, talk: &mut Talk, now: UnixTime) -> Result<usize> {
        let cursor = self.settings().cursor;
        let mut cursor = Cursor {
            epoch: cursor.epoch,
            revision: cursor.revision,
        };
        let mut records = Vec::new();
        for _ in 0..MAX_PAGES {
            let (page, next, more) = talk.page(cursor)?;
            let is_stuck = next == cursor;
            records.extend(page);
            cursor = next;
            if !more || is_stuck {
                break;
            }
        }
        self.take_records(&records, cursor.epoch, cursor.revision, now)
    }

    /// A key that a directory takes as proof: this computer's issuer, or an owner.
    fn proving_key(&self, secrets: &Secrets) -> Result<SigningSecret> {
        let issuer = self.settings().issuer;
        let owners = self.registry().owners().iter();
        self.registry()
            .issuer(&issuer)
            .and_then(|_| secrets.issuer(&issuer))
            .or_else(|| owners.into_iter().find_map(|key| secrets.owner(key)))
            .ok_or_else(|| {
                Error::not_allowed(
                    "no key on this computer lets it read the network's records",
                    "Recover with `altnet-provision network owner recover`.",
                )
            })
    }
}

/// On a new computer, with nothing but the recovery key: asks whoever is at `endpoint` how the
/// network began, which the recovery key proves, becomes an owner, fetches everything, and then
/// takes the lost owners' place. Publish and sync afterwards.
///
/// Two changes of owners rather than one: what only a lost key vouched for stands aside as soon
/// as it is no owner's, and nodes hand out nothing that stands aside, so that it could no longer
/// be fetched and signed anew.
///
/// # Errors
/// [`Error::Directory`] if nobody answers there, or not any more: it says whether this computer
/// is an owner by then; as [`Network::recover`].
#[expect(
    clippy::too_many_arguments,
    reason = "each is another thing that a person says"
)]
pub fn recover_from(
    home: &Home,
    name: Option<&Name>,
    endpoint: SocketAddr,
    recovery: &RecoveryKey,
    lost: &[SigningKey],
    passphrase: &Passphrase,
    now: UnixTime,
    wait: Duration,
) -> Result<(Network, Secrets)> {
    let records = how_it_began(endpoint, recovery, wait).map_err(|error| match error {
        Error::Directory { what, .. } => Error::Directory {
            what,
            next: "Check that the network's relay is at this address, that altnetd runs there and its UDP port is let through, and that the paper is this network's; nothing was made here.".into(),
        },
        other => other,
    })?;
    let lost = network::lost_owners(&records, lost)?;
    let (mut network, mut secrets) = Network::recover_anew(
        home, name, &records, endpoint, recovery, &lost, passphrase, now,
    )?;
    network
        .exchange(Some(&secrets), now, wait)
        .map_err(|error| half_recovered(&error, &lost))?;
    network.recover(&mut secrets, recovery, &lost, now)?;
    Ok((network, secrets))
}

fn half_recovered(error: &Error, lost: &[SigningKey]) -> Error {
    let lost: Vec<String> = lost.iter().map(|key| format!(" --lost {key}")).collect();
    Error::Directory {
        what: format!(
            "the network is on this computer now, but not in the lost one's place yet: {error}"
        ),
        next: format!(
            "When the directory can be reached, run `altnet-provision network owner recover{}`.",
            lost.concat()
        ),
    }
}

fn how_it_began(
    endpoint: SocketAddr,
    recovery: &RecoveryKey,
    wait: Duration,
) -> Result<Vec<Vec<u8>>> {
    let mut talk = Talk::begin(endpoint, wait)?;
    let key = SigningSecret::from_bytes(recovery.seed()).public();
    talk.hello(record::recovery_hint(&key))?;
    let records = talk.their_chain()?;
    talk.end();
    Ok(records)
}

/// Whether the holder of `remote` is a directory of our network, by its chain and by what is
/// known here.
fn check_directory(
    registry: &Registry,
    chain: &[Vec<u8>],
    remote: &ControlKey,
    endpoint: SocketAddr,
) -> Result<()> {
    // On a copy, so that a stranger's records are only looked at.
    let mut registry = registry.clone();
    let mut clock = Clock::new(UnixTime::EPOCH);
    registry.apply_all(chain.iter().map(Vec::as_slice), &mut clock);
    let member = registry.by_control(remote).ok_or_else(|| {
        trouble(format!(
            "whoever answers at {endpoint} is not a member of this network"
        ))
    })?;
    if !member.membership.roles.contains(Roles::DIRECTORY) {
        return Err(trouble(format!(
            "{} answers at {endpoint}, but it is not a directory",
            member.membership.name
        )));
    }
    Ok(())
}

/// Splits records into runs that fit into one message each.
fn batches(records: &[Vec<u8>]) -> Vec<&[Vec<u8>]> {
    let mut runs = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, record) in records.iter().enumerate() {
        let takes = message::packed_len(record.len());
        if bytes + takes > BATCH_BYTES && at > start {
            runs.push(&records[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += takes;
    }
    if start < records.len() {
        runs.push(&records[start..]);
    }
    runs
}

fn trouble(what: impl Into<String>) -> Error {
    Error::Directory {
        what: what.into(),
        next: AGAIN.into(),
    }
}

/// A control session with one node, driven by this thread.
struct Talk {
    socket: UdpSocket,
    endpoint: SocketAddr,
    control: Control,
    session: SessionId,
    handshake: Hash,
    remote: ControlKey,
    inbox: VecDeque<Vec<u8>>,
    began: Monotonic,
    until: Duration,
    patience: Duration,
    refusals: u32,
    next_id: u32,
    is_over: Option<&'static str>,
}

impl Talk {
    /// Calls whoever is at `endpoint`. Each answer is waited for at most `wait`.
    fn begin(endpoint: SocketAddr, wait: Duration) -> Result<Self> {
        let any: SocketAddr = match endpoint {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let unreachable = |error| trouble(format!("{endpoint} cannot be reached: {error}"));
        let socket = UdpSocket::bind(any).map_err(unreachable)?;
        socket.connect(endpoint).map_err(unreachable)?;
        let secret = ControlSecret::from_bytes(&*crate::chance::secret()?);
        let mut control = Control::new(ControlLimits::ROUTER, secret, crate::chance::bytes()?);
        let session = control
            .connect(None, Endpoint::Direct(endpoint), Instant::ZERO)
            .map_err(|error| trouble(error.to_string()))?;
        let mut talk = Self {
            socket,
            endpoint,
            control,
            session,
            handshake: [0; 32],
            remote: ControlKey([0; 32]),
            inbox: VecDeque::new(),
            began: Monotonic::now(),
            until: wait,
            patience: wait,
            refusals: 0,
            next_id: 1,
            is_over: None,
        };
        while talk.handshake == [0; 32] {
            talk.step()?;
        }
        Ok(talk)
    }

    fn now(&self) -> Instant {
        Instant::ZERO.after(self.began.elapsed())
    }

    /// Sends what is due, then waits for one datagram, a timer, or the end of patience.
    fn step(&mut self) -> Result<()> {
        self.transmit()?;
        let elapsed = self.began.elapsed();
        let Some(left) = self
            .until
            .checked_sub(elapsed)
            .filter(|left| !left.is_zero())
        else {
            return Err(trouble(format!("nobody answers at {}", self.endpoint)));
        };
        let due = self.control.deadline().saturating_since(self.now());
        let pause = due.min(left).max(Duration::from_millis(1));
        self.socket
            .set_read_timeout(Some(pause))
            .map_err(|error| trouble(error.to_string()))?;
        let mut datagram = [0; MAX_DATAGRAM_BYTES + 1];
        match self.socket.recv(&mut datagram) {
            Ok(len) => {
                let from = Endpoint::Direct(self.endpoint);
                let now = self.now();
                // What is no answer of theirs comes to nothing.
                let _ = self
                    .control
                    .handle_datagram(from, &datagram[..len], &mut |_| false, now);
            }
            Err(error) => self.not_received(&error)?,
        }
        self.control.handle_timeout(self.now());
        self.take_events()
    }

    fn not_received(&mut self, error: &std::io::Error) -> Result<()> {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(()),
            ErrorKind::ConnectionRefused if self.refusals == 0 => {
                self.refusals += 1;
                Ok(())
            }
            ErrorKind::ConnectionRefused => {
                Err(trouble(format!("no altnetd listens at {}", self.endpoint)))
            }
            _ => Err(trouble(format!(
                "{} cannot be reached: {error}",
                self.endpoint
            ))),
        }
    }

    fn transmit(&mut self) -> Result<()> {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        while self.control.poll_transmit(&mut frame, self.now()).is_some() {
            if let Err(error) = self.socket.send(frame.packet()) {
                self.not_received(&error)?;
            }
        }
        Ok(())
    }

    fn take_events(&mut self) -> Result<()> {
        while let Some(event) = self.control.poll_event() {
            match event {
                ControlEvent::Established {
                    remote, handshake, ..
                } => {
                    self.remote = remote;
                    self.handshake = handshake;
                    self.is_patient_again();
                }
                ControlEvent::Message { bytes, .. } => {
                    self.inbox.push_back(bytes);
                    self.is_patient_again();
                }
                ControlEvent::Failed { .. } => {
                    return Err(trouble(format!("nobody answers at {}", self.endpoint)));
                }
                ControlEvent::Closed {
                    why: ClosedWhy::Remote(CloseReason::NotAllowed),
                    ..
                } => self.is_over = Some("belongs to another network"),
                ControlEvent::Closed { .. } => self.is_over = Some("ended the conversation"),
                ControlEvent::Delivered { .. }
                | ControlEvent::PathAnswered { .. }
                | ControlEvent::Heard { .. } => {}
            }
        }
        if let (Some(why), true) = (self.is_over, self.inbox.is_empty()) {
            return Err(trouble(format!("the node at {} {why}", self.endpoint)));
        }
        Ok(())
    }

    fn is_patient_again(&mut self) {
        self.until = self.began.elapsed() + self.patience;
    }

    fn say(&mut self, message: &Message<'_>) -> Result<()> {
        let mut out = vec![0; MAX_MESSAGE_BYTES];
        let bytes = message::encode(message, &mut out)
            .ok_or_else(|| trouble("a message would be too large"))?;
        let now = self.now();
        self.control
            .send(self.session, bytes, now)
            .map(drop)
            .map_err(|error| trouble(error.to_string()))
    }

    /// Says which network is meant.
    fn hello(&mut self, network: NetworkId) -> Result<()> {
        self.say(&Message::Hello(Hello {
            network,
            chain: &[],
            heads: heapless::Vec::new(),
        }))
    }

    /// The next message.
    fn next(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(bytes) = self.inbox.pop_front() {
                return Ok(bytes);
            }
            self.step()?;
        }
    }

    /// The records with which the other side shows who it is.
    fn their_chain(&mut self) -> Result<Vec<Vec<u8>>> {
        loop {
            let bytes = self.next()?;
            if let Ok(Message::Hello(hello)) = message::decode(&bytes) {
                return Ok(Packed(hello.chain).map(<[u8]>::to_vec).collect());
            }
        }
    }

    /// Asks, and gives the answer to `read`.
    fn ask<T>(
        &mut self,
        request: Request<'_>,
        read: impl Fn(&Reply<'_>) -> Option<T>,
    ) -> Result<T> {
        let id = self.next_id;
        self.next_id += 1;
        self.say(&Message::Request { id, request })?;
        loop {
            let bytes = self.next()?;
            let Ok(Message::Reply { id: to, reply }) = message::decode(&bytes) else {
                continue;
            };
            if to != id {
                continue;
            }
            if let Reply::Refused(why) = reply {
                return Err(said_no(self.endpoint, why));
            }
            return read(&reply).ok_or_else(|| {
                trouble(format!(
                    "the node at {} answers something else",
                    self.endpoint
                ))
            });
        }
    }

    /// Announces records; returns how many were refused.
    fn announce(&mut self, records: &[Vec<u8>]) -> Result<usize> {
        let mut packed = vec![0; MAX_MESSAGE_BYTES];
        let mut used = 0;
        for record in records {
            used += message::pack(record, &mut packed[used..])
                .ok_or_else(|| trouble("a message would be too large"))?;
        }
        let records = &packed[..used];
        self.ask(Request::Announce { records }, |reply| match reply {
            Reply::Announced { refused, .. } => Some(usize::from(*refused)),
            _ => None,
        })
    }

    /// Shows that an owner's or issuer's key is here.
    fn prove(&mut self, key: &SigningSecret) -> Result<()> {
        let public = key.public();
        let signature = key.sign(&operator_proof(&self.handshake, &public));
        let mut proof: SignatureHalves = [[0; 32]; 2];
        proof.as_flattened_mut().copy_from_slice(&signature);
        let request = Request::Prove { key: public, proof };
        self.ask(request, |reply| matches!(reply, Reply::Done).then_some(()))
    }

    /// The records after `cursor`, where they bring us to, and whether there are more.
    fn page(&mut self, cursor: Cursor) -> Result<(Vec<Vec<u8>>, Cursor, bool)> {
        self.ask(Request::Subscribe { cursor }, |reply| match reply {
            Reply::Records {
                records,
                cursor,
                more,
            } => Some((
                Packed(records).map(<[u8]>::to_vec).collect(),
                *cursor,
                *more,
            )),
            _ => None,
        })
    }

    /// Ends the session, so that the other side need not wait.
    fn end(mut self) {
        use altnet_core::control::CloseReason;
        let now = self.now();
        self.control.close(self.session, CloseReason::Done, now);
        // A farewell that is lost costs the other side some seconds of memory.
        let _ = self.transmit();
    }
}

fn said_no(endpoint: SocketAddr, why: Refusal) -> Error {
    Error::Directory {
        what: format!("the node at {endpoint} refuses: {why}"),
        next: "Another owner may have removed this computer's or revoked its key: ask them. With the recovery key `altnet-provision network owner recover` makes this computer an owner.".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_announced_in_runs_that_fit_a_message() {
        let records: Vec<Vec<u8>> = (0..100).map(|i| vec![i; 900]).collect();
        let runs = batches(&records);
        assert!(runs.len() > 4);
        assert_eq!(runs.concat(), records);
        for run in runs {
            let bytes: usize = run.iter().map(|r| message::packed_len(r.len())).sum();
            assert!(bytes <= BATCH_BYTES);
        }
        assert!(batches(&[]).is_empty());
    }

    #[test]
    fn where_nobody_listens_there_is_no_answer_and_no_long_wait() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let endpoint = taken.local_addr().unwrap();
        let wait = Duration::from_millis(50);
        let error = Talk::begin(endpoint, wait).err().unwrap();
        assert!(error.to_string().contains("nobody answers"), "{error}");
        drop(taken);
        let error = Talk::begin(endpoint, Duration::from_secs(10))
            .err()
            .unwrap();
        assert!(error.to_string().contains("listens"), "{error}");
    }
}
