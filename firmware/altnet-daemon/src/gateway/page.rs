//! The page of metrics.

use altnet_core::node::DropReason;

use super::Gateway;
use crate::apps::{Refusal, Stats};
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
                "altnet_stun_answers_total",
                "STUN requests answered, as relays do.",
                counters.stun_answers,
            ),
            (
                "altnet_cut_datagrams_total",
                "Datagrams sent in pieces.",
                counters.cut,
            ),
            (
                "altnet_joined_datagrams_total",
                "Datagrams that came in pieces.",
                counters.joined,
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
        self.page_of_apps(&mut page);
        let name = "altnet_logins";
        page.metric(
            name,
            Kind::Gauge,
            "Machines on the LANs that somebody is logged in from.",
        )
        .sample(name, &[], self.login_count());
        let name = "altnet_unplaced_packets_total";
        page.metric(
            name,
            Kind::Counter,
            "Packets of our side dropped because nobody could tell whose machine they come from.",
        )
        .sample(name, &[], self.machines.unplaced);
        let name = "altnet_portal_connections_total";
        page.metric(
            name,
            Kind::Counter,
            "Connections that were led to the login page.",
        )
        .sample(name, &[], self.led_to_login());
        let name = "altnet_unsaved_slots";
        page.metric(
            name,
            Kind::Gauge,
            "Pieces of state that could not be saved yet.",
        )
        .sample(name, &[], self.state.unsaved.len());
        page.finish()
    }

    fn page_of_apps(&self, page: &mut Page) {
        let apps: Vec<_> = self
            .apps
            .iter()
            .map(|app| (app.config().name.as_str(), app.stats()))
            .collect();
        let mut each = |name: &str, kind, help, of: fn(&Stats) -> u64| {
            page.metric(name, kind, help);
            for (app, stats) in &apps {
                page.sample(name, &[("app", app)], of(stats));
            }
        };
        let (counter, gauge) = (Kind::Counter, Kind::Gauge);
        each(
            "altnet_app_connections",
            gauge,
            "An app's connections.",
            |stats| stats.connections.into(),
        );
        each(
            "altnet_app_accepted_total",
            counter,
            "Connections that an app took.",
            |stats| stats.accepted,
        );
        each(
            "altnet_app_requests_total",
            counter,
            "Requests that reached an HTTP app.",
            |stats| stats.requests,
        );
        each(
            "altnet_app_received_bytes_total",
            counter,
            "Bytes from an app's callers.",
            |stats| stats.received_bytes,
        );
        each(
            "altnet_app_sent_bytes_total",
            counter,
            "Bytes to an app's callers.",
            |stats| stats.sent_bytes,
        );
        let name = "altnet_app_refused_total";
        page.metric(name, counter, "What an app refused, by reason.");
        for (app, stats) in &apps {
            for why in Refusal::ALL {
                let labels = [("app", *app), ("reason", why.id())];
                page.sample(name, &labels, stats.refused(why));
            }
        }
    }
}
