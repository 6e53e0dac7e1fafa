//! What a server answers, and what follows from it (RFC 8656 sections 7.3, 7.4, 8.3, 10.3, 12.3;
//! RFC 8489 section 9.2.5).

use core::net::SocketAddr;

use altnet_wire::stun::attribute::{
    ALTERNATE_SERVER, LIFETIME, STALE_NONCE, UNAUTHENTICATED, XOR_MAPPED_ADDRESS,
    XOR_RELAYED_ADDRESS,
};
use altnet_wire::stun::{Class, Message, TransactionId};
use altnet_wire::time::{Duration, Instant};

use super::login::{BadChallenge, Login};
use super::{Exchange, RENEW_BEFORE, State, Transport, TurnClient, TurnEvent, TurnFailure};

/// Ask another server.
const TRY_ALTERNATE: u16 = 300;
/// There is no such allocation, or one already.
const ALLOCATION_MISMATCH: u16 = 437;

/// One request may find its nonce too old so often. Each takes a round trip, so a server that
/// gives nonces which are too old at once is noticed.
const MOST_STALE: u8 = 3;

/// What an answer says, as far as anything follows from it.
enum Answer<'a> {
    Success(&'a Message<'a>),
    /// The server wants to know who asks.
    Challenge(&'a Message<'a>),
    /// It wants the request with another nonce.
    Stale(&'a Message<'a>),
    Error(u16, &'a Message<'a>),
}

/// Whose request it answers.
enum Asked {
    Allocation,
    Peer,
}

impl TurnClient {
    /// Takes what came from the server and isn't a peer's.
    pub(super) fn handle_answer(&mut self, datagram: &[u8], now: Instant) {
        let Ok(message) = Message::parse(datagram) else {
            return;
        };
        let Some((asked, stale)) = self.asked(&message) else {
            return;
        };
        let Some(answer) = self.judge(&message) else {
            return;
        };
        self.quiet_until = now;
        match answer {
            Answer::Challenge(challenge) => self.challenged(challenge, now),
            Answer::Stale(challenge) if stale < MOST_STALE => self.stale(challenge, now),
            Answer::Stale(_) => self.fail(TurnFailure::Refused { code: STALE_NONCE }),
            answer => match asked {
                Asked::Allocation => self.about_allocation(&answer, now),
                Asked::Peer => self.about_peer(&answer, &message, now),
            },
        }
        // What was granted may lead to the next request.
        self.handle_timeout(now);
    }

    /// Which request the message answers, and how often that one's nonce was too old.
    fn asked(&mut self, message: &Message<'_>) -> Option<(Asked, u8)> {
        if matches!(message.class(), Class::Request | Class::Indication) {
            return None;
        }
        let transaction = message.transaction();
        let own = self.own_exchange();
        if let Some(exchange) = own.filter(|own| own.transaction == transaction) {
            return Some((Asked::Allocation, exchange.stale));
        }
        let peer = self.peers.asked(transaction)?;
        let stale = peer.exchange.as_ref().map_or(0, |exchange| exchange.stale);
        Some((Asked::Peer, stale))
    }

    fn own_exchange(&mut self) -> Option<&mut Exchange> {
        match &mut self.state {
            State::Idle => None,
            State::Allocating { exchange, .. }
            | State::Clearing { exchange }
            | State::Closing { exchange } => Some(exchange),
            State::Up { renewal, .. } => renewal.as_mut(),
        }
    }

    /// Whether the answer is to be believed, and what it says. Once the server has asked who this
    /// is, only challenges come unsigned.
    fn judge<'a>(&mut self, message: &'a Message<'a>) -> Option<Answer<'a>> {
        let code = match message.class() {
            Class::Error => message.error()?.code,
            _ => 0,
        };
        match code {
            UNAUTHENTICATED => return Some(Answer::Challenge(message)),
            STALE_NONCE if self.login.is_some() => return Some(Answer::Stale(message)),
            _ => {}
        }
        let login = self.login.as_ref();
        if login.is_some_and(|login| !login.has_signed(message)) {
            self.saw_forged = true;
            // A datagram may be anybody's, and the right answer still on its way. What comes by a
            // stream is all there is (section 9.2.5).
            if self.config.transport == Transport::Stream {
                self.fail(TurnFailure::Forged);
            }
            return None;
        }
        match code {
            0 => Some(Answer::Success(message)),
            code => Some(Answer::Error(code, message)),
        }
    }

    /// The server wants to know who asks; or, if it was told, doesn't let that one in.
    fn challenged(&mut self, challenge: &Message<'_>, now: Instant) {
        if self.login.is_some() {
            return self.fail(TurnFailure::Unauthorized);
        }
        match Login::new(&self.credentials, challenge) {
            Ok(login) => {
                self.login = Some(login);
                self.ask_again(now);
            }
            Err(BadChallenge) => self.fail(TurnFailure::Unusable),
        }
    }

    fn stale(&mut self, challenge: &Message<'_>, now: Instant) {
        let renewed = self.login.as_mut().map(|login| login.renew(challenge));
        match renewed {
            Some(Ok(())) => self.ask_again(now),
            _ => self.fail(TurnFailure::Unusable),
        }
    }

    /// Everything that is asked now is asked anew: a request that is only repeated must not
    /// change, and would have the old nonce.
    fn ask_again(&mut self, now: Instant) {
        let fresh = self.transaction();
        if let Some(exchange) = self.own_exchange() {
            exchange.again(fresh, now);
        }
        for peer in self.peers.iter_mut() {
            if let Some(exchange) = &mut peer.exchange {
                let fresh = TransactionId(self.rng.array());
                exchange.again(fresh, now);
            }
        }
    }

    fn about_allocation(&mut self, answer: &Answer<'_>, now: Instant) {
        match (&self.state, answer) {
            (State::Allocating { .. }, Answer::Success(message)) => self.allocated(message, now),
            (State::Allocating { cleared: false, .. }, Answer::Error(ALLOCATION_MISMATCH, _))
                if self.login.is_some() =>
            {
                // A restart forgot an allocation from this port; it is in the way until it ends.
                let exchange = self.exchange(now);
                self.state = State::Clearing { exchange };
            }
            (State::Clearing { .. }, _) => self.allocate(true, now),
            (State::Up { relayed, .. }, Answer::Success(message)) => {
                self.renewed(*relayed, message, now);
            }
            (State::Up { .. }, Answer::Error(ALLOCATION_MISMATCH, _)) => {
                self.fail(TurnFailure::Lost);
            }
            (State::Closing { .. }, _) => self.closed(),
            (_, Answer::Error(TRY_ALTERNATE, message)) => {
                self.fail(match message.address(ALTERNATE_SERVER) {
                    Some(server) => TurnFailure::Elsewhere { server },
                    None => TurnFailure::Unusable,
                });
            }
            (_, Answer::Error(code, _)) => self.fail(TurnFailure::Refused { code: *code }),
            _ => {}
        }
    }

    fn allocated(&mut self, message: &Message<'_>, now: Instant) {
        let relayed = message.xor_address(XOR_RELAYED_ADDRESS);
        let mapped = message.xor_address(XOR_MAPPED_ADDRESS);
        let lifetime_s = message.number(LIFETIME).filter(|seconds| *seconds > 0);
        let (Some(relayed), Some(mapped), Some(lifetime_s)) = (relayed, mapped, lifetime_s) else {
            return self.fail(TurnFailure::Unusable);
        };
        let lifetime = Duration::from_secs(lifetime_s.into());
        self.state = up(relayed, lifetime, now);
        self.peers.forget_grants();
        self.tell(TurnEvent::Allocated {
            relayed,
            mapped,
            lifetime,
        });
    }

    fn renewed(&mut self, relayed: SocketAddr, message: &Message<'_>, now: Instant) {
        match message.number(LIFETIME) {
            Some(0) => self.fail(TurnFailure::Lost),
            Some(seconds) => {
                self.state = up(relayed, Duration::from_secs(seconds.into()), now);
            }
            None => self.fail(TurnFailure::Unusable),
        }
    }

    fn about_peer(&mut self, answer: &Answer<'_>, message: &Message<'_>, now: Instant) {
        let Some(peer) = self.peers.asked(message.transaction()) else {
            return;
        };
        match answer {
            Answer::Success(_) => peer.granted(now),
            Answer::Error(ALLOCATION_MISMATCH, _) => self.fail(TurnFailure::Lost),
            Answer::Error(code, _) => {
                let address = peer.address;
                if peer.refused(now) {
                    self.tell(TurnEvent::PeerRefused {
                        peer: address,
                        code: *code,
                    });
                }
            }
            _ => {}
        }
    }
}

/// An allocation that lasts so long from now.
fn up(relayed: SocketAddr, lifetime: Duration, now: Instant) -> State {
    // A short one is renewed after three quarters of it.
    let renew = (lifetime * 3 / 4).max(lifetime.saturating_sub(RENEW_BEFORE));
    State::Up {
        relayed,
        ends: now.after(lifetime),
        renew: now.after(renew),
        renewal: None,
    }
}
