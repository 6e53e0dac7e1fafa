//! What to call next, after all that devices do differently.
//!
//! In: the services of a device, what is wanted, the outcome of each call. Out: the next call, or
//! the end. No sockets: a test plays the device.
//!
//! - A second WANIPConnection finds a free port itself (AddAnyPortMapping); devices that only claim
//!   to be one are called like a first.
//! - A port that is another's (718) is tried for again with other ports.
//! - Devices that know only mappings without end (725), some of which say so with 402, get one;
//!   whoever asked ends it.
//! - Devices that want equal ports outside and inside (724) get them.
//! - A device may have several lines, and only one that is up.

use std::net::Ipv4Addr;

use altnet_core::portmap::{IgdAsk, Said, Why};

use super::description::{Kind, Service};
use super::soap::{Action, Answer, CallError, Mapping};

/// How many other ports are tried for.
const MAX_PORTS: u8 = 4;
/// The most calls in all; no device needs as many.
const MAX_CALLS: u8 = 24;
/// The ports that are drawn from: no well-known ones, which devices refuse.
const PORTS: std::ops::RangeInclusive<u16> = 1024..=65535;

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Call this.
    Call(&'a Service, Action),
    /// It is over.
    End(Said),
}

/// One conversation with a device.
#[derive(Clone, Debug)]
pub struct Dialogue {
    services: Vec<Service>,
    at: usize,
    wish: Wish,
    calls: u8,
    chance: u64,
    refused: Option<Why>,
    end: Option<Said>,
}

#[derive(Clone, Copy, Debug)]
enum Wish {
    Address {
        mapping: Mapping,
    },
    Port {
        external: Ipv4Addr,
        mapping: Mapping,
        is_any: bool,
        ports_left: u8,
    },
    Delete {
        external_port: u16,
    },
}

impl Dialogue {
    /// Begins to ask for `what`. `chance` draws other ports when one is taken.
    pub fn new(services: Vec<Service>, what: IgdAsk, chance: u64) -> Self {
        let wish = match what {
            IgdAsk::Map {
                internal,
                external_port,
                lifetime_s,
            } => Wish::Address {
                mapping: Mapping {
                    external_port,
                    internal,
                    lease_s: lifetime_s,
                },
            },
            IgdAsk::Unmap { external_port } => Wish::Delete { external_port },
        };
        Self {
            services,
            at: 0,
            wish,
            calls: 0,
            // xorshift never leaves zero.
            chance: chance | 1,
            refused: None,
            end: None,
        }
    }

    /// What to do next.
    pub fn next_step(&self) -> Step<'_> {
        if let Some(end) = self.end {
            return Step::End(end);
        }
        let Some(service) = self
            .services
            .get(self.at)
            .filter(|_| self.calls < MAX_CALLS)
        else {
            return Step::End(self.refused.map_or(Said::Absent, Said::Refused));
        };
        let action = match self.wish {
            Wish::Address { .. } => Action::GetExternalIpAddress,
            Wish::Port {
                mapping,
                is_any: true,
                ..
            } => Action::AddAnyPortMapping(mapping),
            Wish::Port { mapping, .. } => Action::AddPortMapping(mapping),
            Wish::Delete { external_port } => Action::DeletePortMapping { external_port },
        };
        Step::Call(service, action)
    }

    /// The outcome of the call that [`Dialogue::next_step`] gave.
    pub fn outcome(&mut self, outcome: Result<Answer, CallError>) {
        self.calls = self.calls.saturating_add(1);
        match (self.wish, outcome) {
            (Wish::Address { mapping }, Ok(answer)) => match answer.external {
                Some(external) if !external.is_unspecified() && !external.is_loopback() => {
                    let is_any = self.kind() == Some(Kind::WanIp2);
                    self.wish = Wish::Port {
                        external,
                        mapping,
                        is_any,
                        ports_left: MAX_PORTS,
                    };
                }
                _ => self.give_up(Why::NoAddress, mapping),
            },
            (Wish::Address { mapping }, Err(e)) => self.give_up(why(e), mapping),
            (
                Wish::Port {
                    external, mapping, ..
                },
                Ok(answer),
            ) => {
                let port = answer.reserved_port.unwrap_or(mapping.external_port);
                self.end = Some(Said::Mapped {
                    external: std::net::SocketAddrV4::new(external, port),
                    lifetime_s: mapping.lease_s,
                });
            }
            (Wish::Port { .. }, Err(e)) => self.try_otherwise(e),
            // 714: it is gone already.
            (Wish::Delete { .. }, Ok(_) | Err(CallError::Fault(714))) => {
                self.end = Some(Said::Unmapped);
            }
            (Wish::Delete { .. }, Err(e)) => {
                self.refused.get_or_insert(why(e));
                self.at = self.at.saturating_add(1);
            }
        }
    }

    fn kind(&self) -> Option<Kind> {
        self.services.get(self.at).map(|service| service.kind)
    }

    /// Changes what is asked for so that the device may like it, or goes on to the next line.
    fn try_otherwise(&mut self, error: CallError) {
        let another = self.draw_port();
        let Wish::Port {
            mapping,
            is_any,
            ports_left,
            ..
        } = &mut self.wish
        else {
            return;
        };
        let code = match error {
            CallError::Fault(code) => code,
            CallError::Status(_) | CallError::Unreadable(_) => 0,
        };
        match code {
            402 | 725 if mapping.lease_s != 0 => mapping.lease_s = 0,
            724 if mapping.external_port != mapping.internal.port() => {
                *is_any = false;
                mapping.external_port = mapping.internal.port();
            }
            718 | 729 if !*is_any && *ports_left > 0 => {
                *ports_left -= 1;
                mapping.external_port = another;
            }
            // It calls itself a second one, and isn't.
            _ if *is_any => *is_any = false,
            _ => {
                let mapping = *mapping;
                self.give_up(why(error), mapping);
            }
        }
    }

    /// Goes on with the device's next line.
    fn give_up(&mut self, why: Why, mapping: Mapping) {
        self.refused.get_or_insert(why);
        self.at = self.at.saturating_add(1);
        self.wish = Wish::Address { mapping };
    }

    fn draw_port(&mut self) -> u16 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        let count = u64::from(PORTS.end() - PORTS.start()) + 1;
        let drawn = u16::try_from(self.chance % count).unwrap_or(0);
        PORTS.start().saturating_add(drawn)
    }
}

const fn why(error: CallError) -> Why {
    match error {
        CallError::Fault(606) => Why::NotAuthorized,
        CallError::Fault(718 | 728 | 729) => Why::NoResources,
        _ => Why::Unsupported,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::igd::location::Location;
    use proptest::prelude::*;
    use std::net::SocketAddrV4;

    const LEASE_S: u32 = 7200;

    fn service(kind: Kind) -> Service {
        let url = format!("http://192.168.1.1/{kind:?}");
        let control = Location::parse(&url, Ipv4Addr::new(192, 168, 1, 1)).unwrap();
        Service { kind, control }
    }

    fn begin(kinds: &[Kind]) -> Dialogue {
        let services = kinds.iter().map(|kind| service(*kind)).collect();
        let what = IgdAsk::Map {
            internal: "192.168.1.2:51820".parse().unwrap(),
            external_port: 4660,
            lifetime_s: LEASE_S,
        };
        Dialogue::new(services, what, 7)
    }

    /// Plays a device until the end; returns the calls, shortened, and what was said.
    fn play(
        mut dialogue: Dialogue,
        mut device: impl FnMut(Kind, &Action) -> Result<Answer, CallError>,
    ) -> (Vec<String>, Said) {
        let mut calls = Vec::new();
        loop {
            let (kind, action) = match dialogue.next_step() {
                Step::Call(service, action) => (service.kind, action),
                Step::End(said) => return (calls, said),
            };
            calls.push(match action {
                Action::GetExternalIpAddress => "address".to_owned(),
                Action::AddPortMapping(m) => format!("add {} {}", m.external_port, m.lease_s),
                Action::AddAnyPortMapping(m) => format!("any {} {}", m.external_port, m.lease_s),
                Action::DeletePortMapping { external_port } => format!("delete {external_port}"),
            });
            assert!(calls.len() <= usize::from(MAX_CALLS));
            let outcome = device(kind, &action);
            dialogue.outcome(outcome);
        }
    }

    fn address() -> Result<Answer, CallError> {
        Ok(Answer {
            external: Some(Ipv4Addr::new(198, 51, 100, 7)),
            reserved_port: None,
        })
    }

    fn mapped(port: u16, lifetime_s: u32) -> Said {
        let external = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), port);
        Said::Mapped {
            external,
            lifetime_s,
        }
    }

    #[test]
    fn a_first_igd_gives_the_port_that_is_asked_for() {
        let (calls, said) = play(begin(&[Kind::WanIp1]), |_, action| match action {
            Action::GetExternalIpAddress => address(),
            _ => Ok(Answer::default()),
        });
        assert_eq!(calls, ["address", "add 4660 7200"]);
        assert_eq!(said, mapped(4660, LEASE_S));
    }

    #[test]
    fn a_second_igd_may_give_another_port() {
        let (calls, said) = play(begin(&[Kind::WanIp2]), |_, action| match action {
            Action::GetExternalIpAddress => address(),
            _ => Ok(Answer {
                external: None,
                reserved_port: Some(4661),
            }),
        });
        assert_eq!(calls, ["address", "any 4660 7200"]);
        assert_eq!(said, mapped(4661, LEASE_S));
    }

    #[test]
    fn one_that_only_claims_to_be_a_second_is_called_like_a_first() {
        for code in [401, 602, 501] {
            let (calls, said) = play(begin(&[Kind::WanIp2]), |_, action| match action {
                Action::GetExternalIpAddress => address(),
                Action::AddAnyPortMapping(_) => Err(CallError::Fault(code)),
                _ => Ok(Answer::default()),
            });
            assert_eq!(calls, ["address", "any 4660 7200", "add 4660 7200"]);
            assert_eq!(said, mapped(4660, LEASE_S));
        }
    }

    #[test]
    fn one_that_knows_only_mappings_without_end_gets_one() {
        for code in [402, 725] {
            let (calls, said) = play(begin(&[Kind::WanIp1]), |_, action| match action {
                Action::GetExternalIpAddress => address(),
                Action::AddPortMapping(m) if m.lease_s != 0 => Err(CallError::Fault(code)),
                _ => Ok(Answer::default()),
            });
            assert_eq!(calls, ["address", "add 4660 7200", "add 4660 0"]);
            assert_eq!(said, mapped(4660, 0));
        }
    }

    #[test]
    fn a_port_that_is_anothers_is_left_to_it() {
        let mut ports = Vec::new();
        let (_, said) = play(begin(&[Kind::WanIp1]), |_, action| match action {
            Action::GetExternalIpAddress => address(),
            Action::AddPortMapping(m) => {
                ports.push(m.external_port);
                if ports.len() < 3 {
                    Err(CallError::Fault(718))
                } else {
                    Ok(Answer::default())
                }
            }
            _ => panic!("{action:?}"),
        });
        assert_eq!(said, mapped(ports[2], LEASE_S));
        assert!(ports[0] == 4660 && ports[1] != 4660 && ports[2] != ports[1]);
        assert!(ports.iter().all(|port| *port >= 1024));

        let (calls, said) = play(begin(&[Kind::WanIp1]), |_, action| match action {
            Action::GetExternalIpAddress => address(),
            _ => Err(CallError::Fault(718)),
        });
        assert_eq!(calls.len(), 2 + usize::from(MAX_PORTS));
        assert_eq!(said, Said::Refused(Why::NoResources));
    }

    #[test]
    fn equal_ports_are_asked_for_where_the_device_wants_them() {
        let (calls, said) = play(begin(&[Kind::WanIp1]), |_, action| match action {
            Action::GetExternalIpAddress => address(),
            Action::AddPortMapping(m) if m.external_port != 51820 => Err(CallError::Fault(724)),
            _ => Ok(Answer::default()),
        });
        assert_eq!(calls, ["address", "add 4660 7200", "add 51820 7200"]);
        assert_eq!(said, mapped(51820, LEASE_S));
    }

    #[test]
    fn a_line_that_is_down_is_passed_over() {
        let kinds = [Kind::WanIp1, Kind::WanPpp1];
        let (calls, said) = play(begin(&kinds), |kind, action| match (kind, action) {
            (Kind::WanIp1, Action::GetExternalIpAddress) => Ok(Answer {
                external: Some(Ipv4Addr::UNSPECIFIED),
                reserved_port: None,
            }),
            (_, Action::GetExternalIpAddress) => address(),
            _ => Ok(Answer::default()),
        });
        assert_eq!(calls, ["address", "address", "add 4660 7200"]);
        assert_eq!(said, mapped(4660, LEASE_S));
    }

    #[test]
    fn a_refusal_says_why() {
        let (_, said) = play(begin(&[Kind::WanIp1]), |_, action| match action {
            Action::GetExternalIpAddress => address(),
            _ => Err(CallError::Fault(606)),
        });
        assert_eq!(said, Said::Refused(Why::NotAuthorized));
        let (_, said) = play(begin(&[Kind::WanIp1]), |_, _| Ok(Answer::default()));
        assert_eq!(said, Said::Refused(Why::NoAddress));
        let (_, said) = play(begin(&[]), |_, _| Ok(Answer::default()));
        assert_eq!(said, Said::Absent);
    }

    #[test]
    fn a_mapping_is_deleted_wherever_it_is() {
        let services = vec![service(Kind::WanIp1), service(Kind::WanPpp1)];
        let what = IgdAsk::Unmap { external_port: 9 };
        let (calls, said) = play(
            Dialogue::new(services.clone(), what, 7),
            |kind, _| match kind {
                Kind::WanIp1 => Err(CallError::Fault(501)),
                _ => Err(CallError::Fault(714)),
            },
        );
        assert_eq!((calls.len(), said), (2, Said::Unmapped));
        let (_, said) = play(Dialogue::new(services, what, 7), |_, _| {
            Ok(Answer::default())
        });
        assert_eq!(said, Said::Unmapped);
    }

    proptest! {
        #[test]
        fn every_device_comes_to_an_end(
            kinds in proptest::collection::vec(0u8..3, 0..5), codes in proptest::collection::vec(0usize..12, 30), chance: u64,
        ) {
            let kinds: Vec<Kind> = kinds.iter().map(|k| [Kind::WanIp2, Kind::WanIp1, Kind::WanPpp1][usize::from(*k)]).collect();
            let mut dialogue = begin(&kinds);
            dialogue.chance = chance | 1;
            let mut codes = codes.into_iter();
            play(dialogue, |_, action| match (action, codes.next().unwrap_or(0)) {
                (Action::GetExternalIpAddress, 0..9) => address(),
                (_, code) => Err(CallError::Fault([501, 402, 718, 724, 725, 728, 729, 606, 401, 714, 718, 718][code])),
            });
        }
    }
}
