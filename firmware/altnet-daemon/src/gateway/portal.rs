//! The portal in the loop: it runs where there is a login page, and leads there by its name.

use altnet_wire::frame::Frame;
use tokio::sync::mpsc;

use super::{BATCH, Gateway};
use crate::apps::Packet;
use crate::apps::portal::{OUTBOX, Portal};
use crate::log;

/// The portal, if there is one.
#[derive(Debug)]
pub struct Portals {
    running: Option<Portal>,
    outbox: mpsc::Sender<Packet>,
}

impl Portals {
    /// There is none yet. Returns the end that the loop reads: packets for the LAN.
    pub fn new() -> (Self, mpsc::Receiver<Packet>) {
        let (outbox, packets) = mpsc::channel(OUTBOX);
        let running = None;
        (Self { running, outbox }, packets)
    }
}

impl Gateway {
    /// Starts and stops the portal as the login page comes, goes and changes its name.
    pub(super) fn tend_portal(&mut self) {
        let scheme = if self.config.login.tls {
            "https"
        } else {
            "http"
        };
        let url = self.node.login_page();
        let url = url.map(|name| format!("{scheme}://{name}/"));
        if self.portal.running.as_ref().map(Portal::url) == url.as_deref() {
            return;
        }
        let mtu_bytes = self.config.tun.mtu_bytes;
        let outbox = &self.portal.outbox;
        let started = url.map(|url| Portal::start(url, mtu_bytes, outbox.clone()));
        self.portal.running = started.and_then(|started| {
            let failed = |e| crate::error!("nobody is led to the login page: {}", log::chain(&e));
            started.map_err(failed).ok()
        });
    }

    /// A packet was refused, and the portal answers it.
    pub(super) fn lead_to_login(&self, frame: &Frame<'_>) {
        if let Some(portal) = &self.portal.running {
            // What it has no room for is counted there.
            let _ = portal.deliver(frame.packet());
        }
    }

    /// Packets that the portal sends, up to a batch.
    pub(super) fn take_portal(&mut self, first: &[u8]) {
        self.deliver(first);
        for _ in 1..BATCH {
            let Ok(packet) = self.inboxes.portal_packets.try_recv() else {
                return;
            };
            self.deliver(&packet);
        }
    }

    /// How many have been led to the login page.
    pub(super) fn led_to_login(&self) -> u64 {
        let portal = self.portal.running.as_ref();
        portal.map_or(0, |portal| portal.stats().accepted)
    }
}
