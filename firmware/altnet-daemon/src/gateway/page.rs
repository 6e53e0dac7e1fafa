//! The page of metrics.

use altnet_core::node::DropReason;

use super::Gateway;
use crate::clock;
use crate::metrics::{Kind, Page};

impl Gateway {
    /// Everything that is counted, in the Prometheus text format.
    pub(super) fn metrics_page(&self) -> String {
        let now = clock::now();
        let counters = self.node.counters();
        let mut page = Page::default();
        let version = env!("CARGO_PKG_VERSION");
        page.metric("altnet_info", Kind::Gauge, "The program.")
            .sample("altnet_info", &[("version", version)], 1);
        for (name, help, value) in [
            (
                "altnet_sealed_packets_total",
                "Packets from our side, sealed.",
                counters.sealed,
            ),
            (
                "altnet_sealed_bytes_total",
                "Their bytes, inner.",
                counters.sealed_bytes,
            ),
            (
                "altnet_delivered_packets_total",
                "Packets opened and delivered.",
                counters.delivered,
            ),
            (
                "altnet_delivered_bytes_total",
                "Their bytes, inner.",
                counters.delivered_bytes,
            ),
            (
                "altnet_relayed_datagrams_total",
                "Datagrams sent by way of a relay.",
                counters.relayed,
            ),
            (
                "altnet_lost_total",
                "Packets and datagrams the kernel did not take.",
                self.state.lost,
            ),
            ("altnet_events_total", "Events told.", self.state.event_id),
        ] {
            page.metric(name, Kind::Counter, help)
                .sample(name, &[], value);
        }
        let name = "altnet_dropped_total";
        page.metric(
            name,
            Kind::Counter,
            "Packets and datagrams refused, by reason.",
        );
        for reason in DropReason::ALL {
            page.sample(name, &[("reason", reason.id())], counters.dropped(reason));
        }
        let peers = self.node.peer_views(now);
        let name = "altnet_peers";
        page.metric(name, Kind::Gauge, "Peers by path.");
        for path in ["direct", "relay", "none"] {
            let count = peers.iter().filter(|peer| peer.path == path).count();
            page.sample(name, &[("path", path)], count);
        }
        let name = "altnet_peer_bytes_total";
        page.metric(name, Kind::Counter, "Bytes in a peer's tunnel.");
        for peer in &peers {
            let labels = |way| [("peer", peer.name.as_str()), ("way", way)];
            page.sample(name, &labels("sent"), peer.tx_bytes);
            page.sample(name, &labels("received"), peer.rx_bytes);
        }
        let name = "altnet_unsaved_slots";
        page.metric(
            name,
            Kind::Gauge,
            "Pieces of state that could not be saved yet.",
        )
        .sample(name, &[], self.state.unsaved.len());
        page.finish()
    }
}
