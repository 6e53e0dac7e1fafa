//! A port on the ISP's router: asks the default gateway for one, keeps it, gives it back.
//!
//! In: where the gateway and our own port are ([`Network`]), datagrams of the gateway's port
//! 5351, what became of an [`Ask`] over HTTP, time, entropy. Out of [`PortMapper::poll_output`]:
//! datagrams for the gateway, asks, facts about the port, and until when to wait. One machine for
//! one gateway of one address family; for IPv6 the mapping is a hole in the router's firewall, and
//! so it is for an IPv4 address that is public already: there only PCP is spoken.
//!
//! PCP comes first, then NAT-PMP, then UPnP-IGD; a router that answers, if only to refuse the
//! version, or whose port is closed, ends the wait at once. A mapping is renewed from half its
//! life on, asked for again when the gateway says that it started anew, and held for two hours at
//! most however long it was given for. Only the gateway is believed, and of PCP only answers with
//! the mapping's nonce.
//!
//! A router that is itself behind a NAT gives out a port that nobody outside reaches: that is told
//! as [`Fact::DoubleNat`], never as [`Fact::Mapped`].
//!
//! Deliberately absent: sockets, HTTP and XML, how to find the gateway, what the port is good for.
//!
//! Source: RFC 6887 (PCP), RFC 6886 (NAT-PMP), UPnP Forum WANIPConnection:1 and :2.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use altnet_wire::hash;
use altnet_wire::portmap::nat_pmp::{self, Transport};
use altnet_wire::portmap::{SERVER_PORT, pcp};
use altnet_wire::time::{Duration, Instant};

use crate::rng::Rng;

mod answers;
mod epoch;
mod facts;
mod reach;
mod rounds;
mod why;

use epoch::Epoch;
pub use facts::{Ask, Fact, IgdAsk, Mapping, Network, Output, Protocol, Said};
pub use reach::is_public;
pub use why::Why;

/// For how long a mapping is asked for (RFC 6886 section 3.3), and held at most.
pub const LIFETIME: Duration = Duration::from_secs(7200);
/// How long nothing is asked once nobody answered; it doubles.
const REST: Duration = Duration::from_secs(60);
/// The first pause between requests to end a mapping.
const CLOSE_PAUSE: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug)]
enum State {
    /// No gateway, or closed.
    Silent,
    /// A port is asked for.
    Asking {
        by: Protocol,
        sent: u8,
        pause: Duration,
        again: Instant,
    },
    /// There is one; it is renewed at `again`.
    Holding { again: Instant },
    /// Nobody gives one; asked again then.
    Resting { until: Instant },
    /// It is being given back.
    Closing {
        given: Mapping,
        sent: u8,
        pause: Duration,
        again: Instant,
    },
}

/// Datagrams that are due.
#[derive(Clone, Copy, Debug, Default)]
struct Due {
    pcp: bool,
    address: bool,
    map: bool,
}

/// Asks one gateway for one port.
pub struct PortMapper {
    rng: Rng,
    secret: [u8; 32],
    network: Option<Network>,
    nonce: pcp::Nonce,
    state: State,
    // The protocol that this round of asking began with; it ends before coming to it again.
    first: Protocol,
    held: Option<Mapping>,
    told: Option<Mapping>,
    // The port to suggest.
    port: u16,
    // The gateway's address, as NAT-PMP says.
    address: Option<Ipv4Addr>,
    // What NAT-PMP gave while the address was not known.
    given: Option<nat_pmp::Map>,
    // The gateway's clocks, by PCP and by NAT-PMP.
    clock: Option<Epoch>,
    old_clock: Option<Epoch>,
    rest: Duration,
    refused: Option<(Why, u32)>,
    why: Why,
    due: Due,
    ask: Option<Ask>,
    ask_id: u32,
    restarted: bool,
}

impl PortMapper {
    /// A machine that knows no gateway yet.
    ///
    /// `secret` stays the same over restarts of this device: the nonce of a mapping follows from
    /// it, so that a mapping from before can be renewed, which a router refuses to any other
    /// nonce. `seed` is entropy for what only has to differ between hosts.
    pub const fn new(secret: [u8; 32], seed: [u8; 32]) -> Self {
        Self {
            rng: Rng::new(seed),
            secret,
            network: None,
            nonce: pcp::Nonce([0; 12]),
            state: State::Silent,
            first: Protocol::Pcp,
            held: None,
            told: None,
            port: 0,
            address: None,
            given: None,
            clock: None,
            old_clock: None,
            rest: REST,
            refused: None,
            why: Why::NoGateway,
            due: Due {
                pcp: false,
                address: false,
                map: false,
            },
            ask: None,
            ask_id: 0,
            restarted: false,
        }
    }

    /// The gateway and our own end, as they are now; none while there is no gateway. Begins anew
    /// if that is a change.
    pub fn handle_network(&mut self, network: Option<Network>, now: Instant) {
        if self.network == network {
            return;
        }
        self.why = match self.held.take() {
            Some(_) => Why::Moved,
            None => Why::Asking,
        };
        self.network = network;
        self.clock = None;
        self.old_clock = None;
        self.address = None;
        self.rest = REST;
        self.due = Due::default();
        self.ask = None;
        let Some(network) = network else {
            self.state = State::Silent;
            self.why = Why::NoGateway;
            return;
        };
        self.port = network.internal.port();
        self.nonce = self.nonce_for(&network);
        self.begin(Protocol::Pcp, Duration::ZERO, now);
    }

    /// The gateway said that nothing listens at its port (an ICMP port unreachable).
    pub fn handle_unreachable(&mut self, now: Instant) {
        match self.state {
            State::Asking { by, sent, .. } if by != Protocol::Igd && sent > 0 => {
                self.next_protocol(now);
            }
            State::Closing { given, .. } if given.by != Protocol::Igd => self.state = State::Silent,
            _ => {}
        }
    }

    /// Gives the port back; [`PortMapper::is_closed`] says when that is done or given up.
    pub fn handle_close(&mut self, now: Instant) {
        self.due = Due::default();
        self.ask = None;
        self.state = match self.held.take() {
            Some(given) => State::Closing {
                given,
                sent: 0,
                pause: CLOSE_PAUSE,
                again: now,
            },
            None => State::Silent,
        };
        self.why = Why::Closed;
        self.handle_timeout(now);
    }

    /// Whether nothing more is to come.
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Silent)
    }

    /// The port, if there is one.
    pub const fn mapping(&self) -> Option<Mapping> {
        self.held
    }

    /// Why it is as it is.
    pub const fn why(&self) -> Why {
        self.why
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.held.is_some_and(|held| held.until <= now) {
            self.held = None;
            self.why = Why::Expired;
            if matches!(self.state, State::Holding { .. }) {
                self.begin(Protocol::Pcp, Duration::ZERO, now);
            }
        }
        match self.state {
            State::Silent => {}
            State::Resting { until } if until <= now => {
                self.begin(Protocol::Pcp, Duration::ZERO, now);
            }
            State::Asking {
                by,
                sent,
                pause,
                again,
            } if again <= now => self.ask_on(by, sent, pause, now),
            State::Holding { again } if again <= now => self.renew(now),
            State::Closing {
                given,
                sent,
                pause,
                again,
            } if again <= now => self.close_on(given, sent, pause, now),
            _ => {}
        }
    }

    /// What to do next; ends with [`Output::Wait`]. `out` takes the datagram, and should have
    /// [`pcp::MAX_REQUEST_BYTES`].
    pub fn poll_output(&mut self, out: &mut [u8]) -> Output {
        if let Some(output) = self.datagram(out) {
            return output;
        }
        if let Some(ask) = self.ask.take() {
            return Output::Ask(ask);
        }
        if core::mem::take(&mut self.restarted) {
            return Output::Tell(Fact::Restarted);
        }
        if self.told != self.held {
            self.told = self.held;
            return Output::Tell(match self.held {
                None => Fact::Lost(self.why),
                Some(held) if is_public(held.external.ip()) => Fact::Mapped(held),
                Some(held) => Fact::DoubleNat(held),
            });
        }
        Output::Wait(self.deadline())
    }

    fn deadline(&self) -> Instant {
        let end = self.held.map_or(Instant::NEVER, |held| held.until);
        let next = match self.state {
            State::Silent => Instant::NEVER,
            State::Asking { again, .. }
            | State::Holding { again }
            | State::Closing { again, .. } => again,
            State::Resting { until } => until,
        };
        next.min(end)
    }

    /// Writes the next datagram that is due.
    fn datagram(&mut self, out: &mut [u8]) -> Option<Output> {
        let network = self.network?;
        let lifetime_s = match self.state {
            State::Closing { .. } => 0,
            _ => seconds(LIFETIME),
        };
        let length = if core::mem::take(&mut self.due.pcp) {
            self.pcp_request(&network, lifetime_s).encode(out)
        } else if core::mem::take(&mut self.due.address) {
            nat_pmp::Request::ExternalAddress.encode(out)
        } else if core::mem::take(&mut self.due.map) {
            let map = nat_pmp::Map {
                transport: Transport::Udp,
                internal_port: network.internal.port(),
                // To end a mapping it has to be zero (RFC 6886 section 3.4).
                external_port: if lifetime_s == 0 { 0 } else { self.port },
                lifetime_s,
            };
            nat_pmp::Request::Map(map).encode(out)
        } else {
            return None;
        };
        let to = match network.gateway {
            IpAddr::V4(gateway) => SocketAddrV4::new(gateway, SERVER_PORT).into(),
            IpAddr::V6(gateway) => {
                SocketAddrV6::new(gateway, SERVER_PORT, 0, network.interface).into()
            }
        };
        length.map(|length| Output::Send { to, length })
    }

    fn pcp_request(&self, network: &Network, lifetime_s: u32) -> pcp::Request {
        let nowhere: IpAddr = match network.internal {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let external = match (self.held, lifetime_s) {
            // RFC 6887 section 15.1: zeros where a mapping ends.
            (_, 0) => SocketAddr::new(nowhere, 0),
            (Some(held), _) => held.external,
            (None, _) => SocketAddr::new(nowhere, self.port),
        };
        pcp::Request {
            lifetime_s,
            client: network.internal.ip(),
            operation: pcp::Operation::Map(pcp::Map {
                nonce: self.nonce,
                protocol: pcp::UDP,
                internal_port: network.internal.port(),
                external,
            }),
            is_exact: false,
        }
    }

    fn nonce_for(&self, network: &Network) -> pcp::Nonce {
        let mut gateway = [0; 16];
        write_ip(&mut gateway, network.gateway);
        let mut internal = [0; 16];
        write_ip(&mut internal, network.internal.ip());
        let port = network.internal.port().to_be_bytes();
        let parts: [&[u8]; 4] = [&self.secret, &gateway, &internal, &port];
        let hash = hash::labelled("altnet port mapping nonce v1", &parts);
        pcp::Nonce(hash.first_chunk().copied().unwrap_or_default())
    }
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn write_ip(out: &mut [u8; 16], ip: IpAddr) {
    *out = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
}

#[cfg(test)]
mod tests;
