//! Policies for tests, a rule a line.

use altnet_core::policy::{Draft, DraftRule};
use altnet_wire::id::Name;
use altnet_wire::policy::{Atom, Service};

use crate::founder::FOUNDED;

/// A policy of these rules.
pub fn policy(rules: impl IntoIterator<Item = DraftRule>) -> Draft {
    Draft {
        rules: rules.into_iter().collect(),
        ..Draft::members_to_hosts(FOUNDED)
    }
}

/// A rule that always holds.
///
/// # Panics
/// If it can't be called so.
pub fn rule(name: &str, from: &[Atom], to: &[Atom], services: &[Service]) -> DraftRule {
    DraftRule {
        name: Name::new(name).expect("a test's name is a DNS label"),
        from: from.iter().cloned().collect(),
        to: to.iter().cloned().collect(),
        services: services.iter().copied().collect(),
        window: None,
        needs_fresh_head: false,
    }
}

/// One port of UDP.
pub const fn udp(port: u16) -> Service {
    one_port(Service::UDP, port)
}

/// One port of TCP.
pub const fn tcp(port: u16) -> Service {
    one_port(Service::TCP, port)
}

const fn one_port(protocol: u8, port: u16) -> Service {
    Service {
        protocol: Some(protocol),
        first_port: port,
        last_port: port,
    }
}
