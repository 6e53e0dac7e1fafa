//! An app's tasks: one that drives its stack, and one for each connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smoltcp::time::Instant as Moment;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::stack::Stack;
use super::stats::Refusal;
use super::stream::Stream;
use super::target::ConnectError;
use super::{AppConfig, Kind, Packet, WhoIs, http};

/// Packets taken in before those that answer them are sent.
const BATCH: usize = 32;
/// Bytes that are read at a time from either side and written to the other before more are.
pub(super) const CARRIED_BYTES: usize = 8 * 1024;

/// What an app's tasks share. They run on one thread; the lock is never waited for, and is there
/// because hyper hands a connection only to another task if it could go to another thread.
#[derive(Debug)]
pub(super) struct Shared {
    stack: Mutex<Stack>,
    changed: Notify,
    began: Instant,
}

impl Shared {
    pub fn new(stack: Stack) -> Self {
        Self {
            stack: Mutex::new(stack),
            changed: Notify::new(),
            began: Instant::now(),
        }
    }

    pub fn stack(&self) -> MutexGuard<'_, Stack> {
        // Nothing that holds it can leave it half changed.
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the stack driven: a socket was read, written or let go.
    pub fn changed(&self) {
        self.changed.notify_one();
    }

    /// The stack's time.
    pub fn now(&self) -> Moment {
        let elapsed = self.began.elapsed().as_micros();
        Moment::from_micros(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }

    pub fn refuse(&self, why: Refusal) {
        self.stack().stats.refuse(why);
    }

    /// When `moment` is; none if it is too far away to be waited for.
    fn instant(&self, moment: Moment) -> Option<Instant> {
        let since = Duration::from_micros(u64::try_from(moment.total_micros()).ok()?);
        self.began.checked_add(since)
    }
}

/// Runs an app until `packets` ends.
pub(super) async fn run(
    shared: Arc<Shared>,
    config: AppConfig,
    mut packets: mpsc::Receiver<Packet>,
    outbox: mpsc::Sender<Packet>,
    questions: mpsc::Sender<WhoIs>,
) {
    let config = Arc::new(config);
    // Its connections end with it.
    let mut connections = JoinSet::new();
    loop {
        let deadline = settle(&shared);
        while let Some(accepted) = { shared.stack().accept() } {
            let stream = Stream::new(Arc::clone(&shared), accepted);
            let (shared, config) = (Arc::clone(&shared), Arc::clone(&config));
            let questions = questions.clone();
            connections.spawn(async move {
                match config.kind {
                    Kind::Tcp => carry(stream, &shared, &config).await,
                    Kind::Http => http::serve(stream, shared, config, questions).await,
                }
            });
        }
        if !shared.stack().has_room() {
            // Only the node can go on, by taking packets.
            if outbox.reserve().await.is_err() {
                return;
            }
            continue;
        }
        tokio::select! {
            packet = packets.recv() => match packet {
                Some(packet) => take_in(&shared, packet, &mut packets),
                None => break,
            },
            () = shared.changed.notified() => {}
            () = sleep(deadline) => {}
            Some(_) = connections.join_next() => {}
        }
    }
    shared.stack().close(shared.now());
}

/// Drives the stack. Returns when to do so again.
fn settle(shared: &Shared) -> Option<Instant> {
    let now = shared.now();
    let next = shared.stack().settle(now)?;
    shared.instant(next)
}

async fn sleep(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn take_in(shared: &Shared, first: Packet, packets: &mut mpsc::Receiver<Packet>) {
    let now = shared.now();
    let mut stack = shared.stack();
    stack.handle_packet(first, now);
    for _ in 1..BATCH {
        if !stack.has_room() {
            return;
        }
        let Ok(packet) = packets.try_recv() else {
            return;
        };
        stack.handle_packet(packet, now);
    }
}

/// Carries bytes between a caller and the target, each way until its end.
async fn carry(mut stream: Stream, shared: &Shared, config: &AppConfig) {
    let connected = config.to.connect(config.patience.connect).await;
    let mut target = match connected {
        Ok(target) => target,
        Err(e) => {
            shared.refuse(reason(&e));
            crate::debug!(
                "the app {} turns a caller away: {}",
                config.name,
                crate::log::chain(&e)
            );
            stream.break_off();
            return;
        }
    };
    let carried =
        copy_bidirectional_with_sizes(&mut stream, &mut target, CARRIED_BYTES, CARRIED_BYTES);
    if let Err(e) = carried.await {
        crate::debug!("a connection to the app {} broke: {e}", config.name);
        stream.break_off();
    }
}

/// What a failure to connect is counted as.
pub(super) fn reason(error: &ConnectError) -> Refusal {
    match error {
        ConnectError::Refused { .. } => Refusal::TargetRefused,
        ConnectError::Silent { .. } => Refusal::TargetSilent,
    }
}
