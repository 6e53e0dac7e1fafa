//! UPnP asks, one at a time, beside the loop.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use altnet_core::portmap::{Ask, Said};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use crate::igd::client::Client;

/// How long one may take; the machine waits a little longer.
const PATIENCE: Duration = Duration::from_secs(35);

/// What is asked now, and what became of it.
pub(super) struct Upnp {
    /// Answers, by the asks' ids.
    pub(super) done: mpsc::Receiver<(u32, Said)>,
    answers: mpsc::Sender<(u32, Said)>,
    client: Arc<Mutex<Client>>,
    running: Option<JoinHandle<()>>,
}

impl Upnp {
    pub(super) fn new() -> Self {
        let (answers, done) = mpsc::channel(4);
        Self {
            done,
            answers,
            client: Arc::default(),
            running: None,
        }
    }

    /// Begins to ask, from our address `own`, in place of what is asked now.
    pub(super) fn begin(&mut self, ask: Ask, own: Ipv4Addr) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
        let (answers, client) = (self.answers.clone(), Arc::clone(&self.client));
        self.running = Some(tokio::spawn(async move {
            let mut chance = [0; 8];
            // Without it another port is drawn that anybody can guess, which is no harm.
            let _ = getrandom::fill(&mut chance);
            let mut client = client.lock().await;
            let asked = client.carry_out(&ask, own, u64::from_ne_bytes(chance));
            let said = tokio::time::timeout(PATIENCE, asked).await;
            let said = said.unwrap_or(Said::Absent);
            // The loop may have ended.
            let _ = answers.send((ask.id, said)).await;
        }));
    }
}
