//! What other tasks leave for a connection's own.

use std::sync::{Mutex, MutexGuard, PoisonError};

use altnet_core::derp::server::{CloseReason, ConnectionId, QueueLimits};
use tokio::sync::Notify;

use crate::queue::Queue;

/// Where frames for a connection are left.
pub(super) struct Outbox {
    pub(super) id: ConnectionId,
    inner: Mutex<Inner>,
    wake: Notify,
}

/// What is in it.
pub(super) struct Inner {
    pub(super) queue: Queue,
    /// Whether the machine has something to tell that has to be fetched.
    pub(super) watches: bool,
    /// Why the connection is to end.
    pub(super) closing: Option<Closing>,
}

/// Why a connection ends that didn't itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Closing {
    /// The machine said so.
    #[error(transparent)]
    Machine(#[from] CloseReason),
    /// The relay stops.
    #[error("the relay stops")]
    Stopped,
}

impl Outbox {
    pub(super) fn new(id: ConnectionId, limits: QueueLimits) -> Self {
        Self {
            id,
            inner: Mutex::new(Inner {
                queue: Queue::new(limits),
                watches: false,
                closing: None,
            }),
            wake: Notify::new(),
        }
    }

    /// What is in it, for as long as that takes. Whoever holds it takes no other lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves something and wakes the connection's task.
    pub(super) fn leave<T>(&self, what: impl FnOnce(&mut Inner) -> T) -> T {
        let left = what(&mut self.lock());
        self.wake.notify_one();
        left
    }

    /// Waits until something was left.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
}
