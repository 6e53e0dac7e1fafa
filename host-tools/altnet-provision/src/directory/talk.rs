//! A conversation with one node over the control protocol, as a stranger to it.
//!
//! In: where it is, and how long each answer is waited for. Out: the records it shows and hands
//! out, and how it took ours. It believes nothing: that is for the caller.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant as Monotonic};

use altnet_core::control::{
    CloseReason, ClosedWhy, Control, ControlEvent, ControlLimits, ControlSecret, SessionId,
};
use altnet_core::records::SigningSecret;
use altnet_wire::control::MAX_DATAGRAM_BYTES;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::hash::Hash;
use altnet_wire::id::{ControlKey, NetworkId};
use altnet_wire::message::{
    self, Cursor, Hello, MAX_MESSAGE_BYTES, Message, Packed, Refusal, Reply, Request,
    SignatureHalves, operator_proof,
};
use altnet_wire::time::Instant;

use super::trouble;
use crate::error::{Error, Result};

/// A control session with one node, driven by this thread.
pub(super) struct Talk {
    socket: UdpSocket,
    endpoint: SocketAddr,
    control: Control,
    session: SessionId,
    handshake: Hash,
    /// Who answers, once [`Talk::begin`] returned.
    pub(super) remote: ControlKey,
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
    pub(super) fn begin(endpoint: SocketAddr, wait: Duration) -> Result<Self> {
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
                | ControlEvent::Probed { .. }
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
    pub(super) fn hello(&mut self, network: NetworkId) -> Result<()> {
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
    pub(super) fn their_chain(&mut self) -> Result<Vec<Vec<u8>>> {
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
    pub(super) fn announce(&mut self, records: &[Vec<u8>]) -> Result<usize> {
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
    pub(super) fn prove(&mut self, key: &SigningSecret) -> Result<()> {
        let public = key.public();
        let signature = key.sign(&operator_proof(&self.handshake, &public));
        let mut proof: SignatureHalves = [[0; 32]; 2];
        proof.as_flattened_mut().copy_from_slice(&signature);
        let request = Request::Prove { key: public, proof };
        self.ask(request, |reply| matches!(reply, Reply::Done).then_some(()))
    }

    /// The records after `cursor`, where they bring us to, and whether there are more.
    pub(super) fn page(&mut self, cursor: Cursor) -> Result<(Vec<Vec<u8>>, Cursor, bool)> {
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
    pub(super) fn end(mut self) {
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
