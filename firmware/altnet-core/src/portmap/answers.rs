//! What the gateway says, and what follows.

use core::net::{IpAddr, SocketAddr, SocketAddrV4};

use altnet_wire::portmap::nat_pmp::{self, Answer, Transport};
use altnet_wire::portmap::{Response, SERVER_PORT, pcp};
use altnet_wire::time::{Duration, Instant};

use super::{Epoch, LIFETIME, PortMapper, Protocol, Said, State, Why, seconds};

impl PortMapper {
    /// A datagram from port 5351, to our own port or to all hosts. What is not the gateway's, or
    /// not about our port, is passed over.
    pub fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) {
        let gateway = self.network.map(|network| network.gateway);
        if gateway != Some(from.ip().to_canonical()) || from.port() != SERVER_PORT {
            return;
        }
        match Response::parse(datagram) {
            Ok(Response::Pcp(response)) => self.hear_pcp(&response, now),
            Ok(Response::NatPmp(response)) => self.hear_nat_pmp(&response, now),
            Err(_) => {}
        }
    }

    /// What became of the ask with this id.
    pub fn handle_igd(&mut self, id: u32, said: Said, now: Instant) {
        if id != self.ask_id {
            return;
        }
        let is_asked = self.asks_by(Protocol::Igd);
        match (self.state, said) {
            (State::Closing { given, .. }, _) if given.by == Protocol::Igd => {
                self.state = State::Silent;
            }
            (
                State::Asking { .. } | State::Holding { .. },
                Said::Mapped {
                    external,
                    lifetime_s,
                },
            ) if is_asked => {
                // A permanent mapping is held, renewed and given back like any other.
                let lifetime_s = match lifetime_s {
                    0 => seconds(LIFETIME),
                    given => given,
                };
                self.take(external.into(), Protocol::Igd, lifetime_s, now);
            }
            (State::Asking { .. }, Said::Refused(why)) if is_asked => self.refuse(why, 0, now),
            (State::Asking { .. }, Said::Absent | Said::Unmapped) if is_asked => {
                self.next_protocol(now);
            }
            (State::Holding { .. }, Said::Refused(_) | Said::Absent) if is_asked => {
                // The device may have another name for its service now, or PCP.
                self.begin(Protocol::Pcp, Duration::ZERO, now);
            }
            _ => {}
        }
    }

    /// The gateway announced itself by SSDP, as devices do when they start.
    pub fn handle_igd_restart(&mut self, now: Instant) {
        let is_held = self.held.is_some_and(|held| held.by == Protocol::Igd);
        if is_held || matches!(self.state, State::Resting { .. }) {
            self.restarted = true;
            self.ask_again(now);
        }
    }

    /// The gateway started anew, as the machine of another address family heard.
    pub fn handle_restart(&mut self, now: Instant) {
        self.ask_again(now);
    }

    /// Whether what `by` gives is wanted now.
    fn asks_by(&self, by: Protocol) -> bool {
        match self.state {
            State::Asking { by: asked, .. } => asked == by,
            State::Holding { .. } => self.held.is_some_and(|held| held.by == by),
            State::Silent | State::Resting { .. } | State::Closing { .. } => false,
        }
    }

    fn hear_pcp(&mut self, response: &pcp::Response, now: Instant) {
        match response.operation {
            pcp::Operation::Map(map) if self.is_ours(&map) => {
                // The answer comes from whoever the gateway is now: it needs no repeating.
                self.clock = Some(Epoch::new(response.epoch_s, now));
                self.hear_pcp_map(response, &map, now);
            }
            pcp::Operation::Announce if response.result == pcp::ResultCode::Success => {
                let clock = Epoch::new(response.epoch_s, now);
                let before = self.clock.replace(clock);
                self.hear_start(before.is_none_or(|before| before.is_broken_by(&clock)), now);
            }
            // Of another version nothing but that is read.
            pcp::Operation::Other(_)
                if response.result == pcp::ResultCode::UnsupportedVersion
                    && self.asks_by(Protocol::Pcp) =>
            {
                self.next_protocol(now);
            }
            _ => {}
        }
    }

    fn is_ours(&self, map: &pcp::Map) -> bool {
        let port = self.network.map(|network| network.internal.port());
        map.nonce == self.nonce && map.protocol == pcp::UDP && port == Some(map.internal_port)
    }

    fn hear_pcp_map(&mut self, response: &pcp::Response, map: &pcp::Map, now: Instant) {
        match (self.state, response.result) {
            // A late answer to an earlier request says nothing about the end.
            (State::Closing { given, .. }, result)
                if given.by == Protocol::Pcp
                    && (response.lifetime_s == 0 || result != pcp::ResultCode::Success) =>
            {
                self.state = State::Silent;
            }
            // Also a late one, while something else is asked already.
            (State::Asking { .. }, pcp::ResultCode::Success) => {
                self.take(map.external, Protocol::Pcp, response.lifetime_s, now);
            }
            (State::Holding { .. }, pcp::ResultCode::Success) if self.asks_by(Protocol::Pcp) => {
                self.take(map.external, Protocol::Pcp, response.lifetime_s, now);
            }
            (
                State::Asking {
                    by: Protocol::Pcp, ..
                },
                refusal,
            ) => {
                self.refuse(pcp_why(refusal), response.lifetime_s, now);
            }
            // A renewal that was refused is asked for again until the mapping ends.
            _ => {}
        }
    }

    fn hear_nat_pmp(&mut self, response: &nat_pmp::Response, now: Instant) {
        let is_success = response.result == nat_pmp::ResultCode::Success;
        if let State::Closing { given, .. } = self.state {
            if given.by == Protocol::NatPmp
                && !matches!(response.answer, Answer::ExternalAddress(_))
            {
                self.state = State::Silent;
            }
            return;
        }
        let clock = Epoch::new(response.epoch_s, now);
        if !self.asks_by(Protocol::NatPmp) {
            // A router that has no PCP refuses its version so (RFC 6887 appendix A). What it
            // announces to all hosts is no refusal.
            let is_asking = matches!(self.state, State::Asking { by, .. } if by == Protocol::Pcp);
            let is_announced = is_success && matches!(response.answer, Answer::ExternalAddress(_));
            if is_announced {
                self.hear_old_clock(clock, now);
            } else if is_asking {
                self.next_protocol(now);
            }
            return;
        }
        if !is_success {
            if matches!(self.state, State::Asking { .. }) {
                self.refuse(nat_pmp_why(response.result), 0, now);
            }
            return;
        }
        match response.answer {
            // What was given stands, and may lead somewhere again when the router's line is back.
            Answer::ExternalAddress(address) if address.is_unspecified() => {
                if matches!(self.state, State::Asking { .. }) {
                    self.refuse(Why::NoAddress, 0, now);
                }
            }
            Answer::ExternalAddress(address) => {
                self.address = Some(address);
                self.hear_address(now);
                self.hear_old_clock(clock, now);
            }
            Answer::Map(map) if self.is_our_port(&map) => {
                self.old_clock = Some(clock);
                self.given = Some(map);
                self.join_halves(now);
            }
            Answer::Map(_) | Answer::Refused { .. } => {}
        }
    }

    fn is_our_port(&self, map: &nat_pmp::Map) -> bool {
        let port = self.network.map(|network| network.internal.port());
        map.transport == Transport::Udp && port == Some(map.internal_port)
    }

    /// The address that NAT-PMP says, without which a port leads nowhere.
    fn hear_address(&mut self, now: Instant) {
        let (Some(address), State::Holding { .. }) = (self.address, self.state) else {
            self.join_halves(now);
            return;
        };
        if let Some(held) = &mut self.held {
            held.external.set_ip(IpAddr::V4(address));
            self.why = Why::of(held);
        }
    }

    fn join_halves(&mut self, now: Instant) {
        let (Some(address), Some(map)) = (self.address, self.given) else {
            return;
        };
        self.given = None;
        let external = SocketAddrV4::new(address, map.external_port);
        self.take(external.into(), Protocol::NatPmp, map.lifetime_s, now);
    }

    /// Holds what was given, if it can be somewhere and for a time.
    fn take(&mut self, external: SocketAddr, by: Protocol, lifetime_s: u32, now: Instant) {
        if external.ip().is_unspecified() {
            self.refuse(Why::NoAddress, 0, now);
        } else if external.port() == 0 || lifetime_s == 0 {
            self.refuse(Why::NoResources, 0, now);
        } else {
            self.hold(external, by, Duration::from_secs(lifetime_s.into()), now);
        }
    }

    /// Notes why, and asks by the next protocol.
    fn refuse(&mut self, why: Why, lifetime_s: u32, now: Instant) {
        if why != Why::Unsupported || self.refused.is_none() {
            self.refused = Some((why, lifetime_s));
        }
        self.next_protocol(now);
    }

    fn hear_old_clock(&mut self, clock: Epoch, now: Instant) {
        let before = self.old_clock.replace(clock);
        self.hear_start(
            before.is_none_or(|before| before.is_broken_by_old(&clock)),
            now,
        );
    }

    /// The gateway said what time it is. It is new if that does not go on from the time before,
    /// or is the first by a protocol that the port is not held by: hosts that asked nothing are
    /// told when a router starts.
    fn hear_start(&mut self, is_new: bool, now: Instant) {
        // While nothing is given, any sign of a router is worth asking again.
        if is_new || matches!(self.state, State::Resting { .. }) {
            self.restarted = true;
            self.ask_again(now);
        }
    }
}

const fn pcp_why(result: pcp::ResultCode) -> Why {
    use pcp::ResultCode as Code;
    match result {
        Code::NotAuthorized => Why::NotAuthorized,
        Code::NetworkFailure => Why::NoAddress,
        Code::NoResources | Code::QuotaExceeded | Code::CannotProvideExternal => Why::NoResources,
        Code::AddressMismatch => Why::Mismatch,
        _ => Why::Unsupported,
    }
}

const fn nat_pmp_why(result: nat_pmp::ResultCode) -> Why {
    use nat_pmp::ResultCode as Code;
    match result {
        Code::NotAuthorized => Why::NotAuthorized,
        Code::NetworkFailure => Why::NoAddress,
        Code::OutOfResources => Why::NoResources,
        _ => Why::Unsupported,
    }
}
