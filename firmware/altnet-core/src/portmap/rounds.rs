//! Which protocol is asked when, and how often.

use core::net::{IpAddr, SocketAddr};

use altnet_wire::time::{Duration, Instant};

use super::{Ask, IgdAsk, Mapping, Protocol, Why};
use super::{Due, LIFETIME, PortMapper, REST, State, is_public, seconds};

/// The least pause between renewals (RFC 6887 section 11.2.1).
const MIN_RENEWAL: Duration = Duration::from_secs(4);
/// UPnP has no epoch that tells of a router's restart: its mappings are asked for again sooner.
const IGD_RENEWAL: Duration = Duration::from_secs(900);
/// How long an ask over HTTP may take: a search, a description, some calls.
const IGD_PATIENCE: Duration = Duration::from_secs(40);
/// IRT of RFC 6887 section 8.1.1.
const PCP_PAUSE: Duration = Duration::from_secs(3);
/// Requests before PCP counts as not spoken. RFC 6887 would go on for ever; there are others.
const PCP_TRIES: u8 = 2;
/// RFC 6886 section 3.1; it doubles.
const NAT_PMP_PAUSE: Duration = Duration::from_millis(250);
/// Requests before NAT-PMP counts as not spoken, of the nine of RFC 6886 section 3.1.
const NAT_PMP_TRIES: u8 = 4;
/// MRT of RFC 6887 section 8.1.1.
const MAX_REST: Duration = Duration::from_secs(1024);
/// What a refusal's lifetime is believed within (RFC 6887 section 7.4: 30 s and 30 min).
const REFUSAL_S: core::ops::RangeInclusive<u32> = 30..=1800;
/// Hosts that all heard one router start anew don't all ask at one moment.
const SPREAD: Duration = Duration::from_secs(2);
const CLOSE_TRIES: u8 = 3;
/// How long taking a mapping back over HTTP may take.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

impl PortMapper {
    /// Begins a round of asking, with `by`.
    pub(super) fn begin(&mut self, by: Protocol, delay: Duration, now: Instant) {
        self.first = by;
        self.refused = None;
        self.set_asking(by, delay, now);
    }

    pub(super) fn set_asking(&mut self, by: Protocol, delay: Duration, now: Instant) {
        self.given = None;
        self.address = None;
        self.state = State::Asking {
            by,
            sent: 0,
            pause: match by {
                Protocol::Pcp => PCP_PAUSE,
                Protocol::NatPmp => NAT_PMP_PAUSE,
                Protocol::Igd => IGD_PATIENCE,
            },
            again: now.after(delay),
        };
        self.handle_timeout(now);
    }

    /// The next request of a round, or the next protocol.
    pub(super) fn ask_on(&mut self, by: Protocol, sent: u8, pause: Duration, now: Instant) {
        let tries = match by {
            Protocol::Pcp => PCP_TRIES,
            Protocol::NatPmp => NAT_PMP_TRIES,
            Protocol::Igd => 1,
        };
        if sent >= tries {
            self.next_protocol(now);
            return;
        }
        self.request(by);
        let again = match by {
            Protocol::Pcp => now.after(self.spread(pause)),
            Protocol::NatPmp | Protocol::Igd => now.after(pause),
        };
        self.state = State::Asking {
            by,
            sent: sent.saturating_add(1),
            pause: pause.saturating_mul(2),
            again,
        };
    }

    /// Goes on to the protocol after the present one; after the last, rests.
    pub(super) fn next_protocol(&mut self, now: Instant) {
        let State::Asking { by, .. } = self.state else {
            return;
        };
        let is_translated = self.is_translated();
        let next = match by {
            Protocol::Pcp if is_translated => Protocol::NatPmp,
            Protocol::NatPmp => Protocol::Igd,
            Protocol::Pcp | Protocol::Igd => Protocol::Pcp,
        };
        if next != self.first {
            self.set_asking(next, Duration::ZERO, now);
            return;
        }
        self.held = None;
        let mut rest = self.rest;
        self.why = if is_translated {
            Why::Silent
        } else {
            Why::NoPcp
        };
        if let Some((why, lifetime_s)) = self.refused {
            self.why = why;
            let believed = lifetime_s.clamp(*REFUSAL_S.start(), *REFUSAL_S.end());
            rest = rest.max(Duration::from_secs(believed.into()));
        }
        self.rest = self.rest.saturating_mul(2).min(MAX_REST);
        self.state = State::Resting {
            until: now.after(self.spread(rest)),
        };
    }

    /// Whether the gateway can't but translate. Where it need not, only PCP can open a firewall,
    /// and a search for devices would go to strangers: a data centre's neighbours.
    fn is_translated(&self) -> bool {
        let internal = self.network.map(|network| network.internal.ip());
        internal.is_some_and(|ip| ip.is_ipv4() && !is_public(ip))
    }

    pub(super) fn request(&mut self, by: Protocol) {
        match by {
            Protocol::Pcp => self.due.pcp = true,
            Protocol::NatPmp => {
                self.due.address = true;
                self.due.map = true;
            }
            Protocol::Igd => {
                let Some(SocketAddr::V4(internal)) = self.network.map(|n| n.internal) else {
                    return;
                };
                self.put_ask(IgdAsk::Map {
                    internal,
                    external_port: self.port,
                    lifetime_s: seconds(LIFETIME),
                });
            }
        }
    }

    fn put_ask(&mut self, what: IgdAsk) {
        let Some(IpAddr::V4(gateway)) = self.network.map(|n| n.gateway) else {
            return;
        };
        self.ask_id = self.ask_id.wrapping_add(1);
        let id = self.ask_id;
        self.ask = Some(Ask { id, gateway, what });
    }

    /// Takes what the gateway gave.
    pub(super) fn hold(
        &mut self,
        external: SocketAddr,
        by: Protocol,
        lifetime: Duration,
        now: Instant,
    ) {
        let Some(network) = self.network else {
            return;
        };
        let lifetime = lifetime.min(LIFETIME);
        let held = Mapping {
            external,
            internal: network.internal,
            by,
            until: now.after(lifetime),
        };
        self.port = external.port();
        self.held = Some(held);
        self.rest = REST;
        self.due = Due::default();
        self.why = Why::of(&held);
        let again = self.renewal(&held, now);
        self.state = State::Holding { again };
    }

    /// When to renew: from half of what is left on (RFC 6887 section 11.2.1; its later tries at
    /// three quarters and seven eighths are halves of what is left then).
    fn renewal(&mut self, held: &Mapping, now: Instant) -> Instant {
        let left = held.until.saturating_since(now);
        let share = self.rng.below(micros(left / 8).saturating_add(1));
        let mut pause = (left / 2).saturating_add(Duration::from_micros(share.into()));
        if held.by == Protocol::Igd {
            pause = pause.min(IGD_RENEWAL);
        }
        now.after(pause.max(MIN_RENEWAL))
    }

    pub(super) fn renew(&mut self, now: Instant) {
        let Some(held) = self.held else {
            self.begin(Protocol::Pcp, Duration::ZERO, now);
            return;
        };
        self.request(held.by);
        let again = self.renewal(&held, now);
        self.state = State::Holding { again };
    }

    /// The gateway may have forgotten the port: it is asked for again, by the same protocol first.
    pub(super) fn ask_again(&mut self, now: Instant) {
        let delay = Duration::from_micros(self.rng.below(micros(SPREAD)).into());
        match (self.state, self.held) {
            (State::Holding { .. }, Some(held)) => self.begin(held.by, delay, now),
            (State::Resting { .. }, _) => self.begin(Protocol::Pcp, delay, now),
            _ => {}
        }
    }

    pub(super) fn close_on(&mut self, given: Mapping, sent: u8, pause: Duration, now: Instant) {
        let tries = if given.by == Protocol::Igd {
            1
        } else {
            CLOSE_TRIES
        };
        if sent >= tries {
            self.state = State::Silent;
            return;
        }
        let wait = match given.by {
            Protocol::Pcp => {
                self.due.pcp = true;
                pause
            }
            Protocol::NatPmp => {
                self.due.map = true;
                pause
            }
            Protocol::Igd => {
                let external_port = given.external.port();
                self.put_ask(IgdAsk::Unmap { external_port });
                CLOSE_PATIENCE
            }
        };
        self.state = State::Closing {
            given,
            sent: sent.saturating_add(1),
            pause: pause.saturating_mul(2),
            again: now.after(wait),
        };
    }

    /// A tenth more or less (RAND of RFC 6887 section 8.1.1).
    fn spread(&mut self, pause: Duration) -> Duration {
        let tenth = pause / 10;
        let share = self
            .rng
            .below(micros(tenth.saturating_mul(2)).saturating_add(1));
        pause
            .saturating_sub(tenth)
            .saturating_add(Duration::from_micros(share.into()))
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
