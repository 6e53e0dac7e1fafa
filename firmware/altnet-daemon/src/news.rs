//! What tasks tell the gateway's loop: a bounded queue.
//!
//! A task that waits for room loses nothing; one that doesn't loses what there is no room for, as a
//! network does.

use tokio::sync::mpsc;

/// What was told and not heard yet.
#[derive(Debug)]
pub struct News<T> {
    outbox: mpsc::Sender<T>,
    inbox: mpsc::Receiver<T>,
}

impl<T> News<T> {
    /// None yet, with room for so many.
    pub fn new(waiting: usize) -> Self {
        let (outbox, inbox) = mpsc::channel(waiting);
        Self { outbox, inbox }
    }

    /// Where a task tells.
    pub fn outbox(&self) -> mpsc::Sender<T> {
        self.outbox.clone()
    }

    /// Waits for something to come.
    pub async fn came(&mut self) -> T {
        match self.inbox.recv().await {
            Some(came) => came,
            // This side holds a sender too.
            None => std::future::pending().await,
        }
    }

    /// What came besides, without waiting.
    pub fn try_came(&mut self) -> Option<T> {
        self.inbox.try_recv().ok()
    }
}
