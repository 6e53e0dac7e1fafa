//! The port on the router before this machine: what is known of it, told to the node and to people.

use std::net::SocketAddr;

use altnet_wire::time::Instant;

use super::Gateway;
use crate::api::types;
use crate::portmap::Way;

impl Gateway {
    /// Tells the node where routers let peers in.
    pub(super) fn tell_mapped(&mut self, now: Instant) {
        let ways = self.ways.borrow_and_update().clone();
        let addresses: Vec<SocketAddr> = ways
            .iter()
            .filter(|way| way.is_public)
            .filter_map(|way| Some(way.mapping?.external))
            .collect();
        self.node.handle_mapped(&addresses, now);
        let lines: Vec<String> = ways.iter().map(line).collect();
        for line in &lines {
            if !self.state.router_lines.contains(line) {
                crate::info!("{line}");
            }
        }
        self.state.router_lines = lines;
    }

    /// Looks for a port while this node is in a network; outside it has no use for one.
    pub(super) fn tend_mapped(&self) {
        if let Some(mappings) = &self.mappings {
            mappings.look(self.node.setup().is_some());
        }
    }

    pub(super) fn mapped_views(&self, now: Instant) -> Vec<types::PortMapping> {
        let ways = self.ways.borrow();
        let view = |way: &Way| types::PortMapping {
            router: way.network.gateway.to_string(),
            internal: way.network.internal.to_string(),
            external: way.mapping.map(|held| held.external.to_string()),
            protocol: way.mapping.map(|held| held.by.id().into()),
            public: way.is_public,
            lifetime_s: way
                .mapping
                .map(|held| held.until.saturating_since(now).as_secs()),
            why: way.why.id().into(),
            why_text: way.why.to_string(),
        };
        ways.iter().map(view).collect()
    }
}

/// What the log says of a router, once.
fn line(way: &Way) -> String {
    let router = way.network.gateway;
    match &way.mapping {
        Some(held) => {
            let (external, by) = (held.external, held.by.id());
            format!("router {router}: {external} by {by}: {}", way.why)
        }
        None => format!("router {router}: {}", way.why),
    }
}
