//! The task of one connection.

use std::sync::Arc;
use std::time::Duration;

use altnet_core::derp::server::CloseReason;
use altnet_wire::derp::Frame;
use rustls::server::UnbufferedServerConnection;

use super::Notice;
use super::arrival::{Admitted, Visitor};
use super::outbox::{Closing, Outbox};
use super::shared::Shared;
use crate::clock;
use crate::line::{Line, LineError};
use crate::tls::ROOM_BYTES;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Line(#[from] LineError),
    #[error(transparent)]
    Closing(#[from] Closing),
}

impl From<CloseReason> for End {
    fn from(reason: CloseReason) -> Self {
        Self::Closing(reason.into())
    }
}

/// Serves a visitor until its connection ends.
pub(super) async fn run(shared: Arc<Shared>, visitor: Visitor) {
    let address = visitor.address;
    // On the heap, so that the task of a client that is idle doesn't keep room for its handshake.
    let admitted = Box::pin(visitor.admit(&shared)).await;
    let admitted = match admitted {
        Ok(Some(admitted)) => admitted,
        Ok(None) => return,
        Err(refusal) => {
            shared.tell(|| Notice::Refused {
                address,
                why: refusal.to_string(),
            });
            return;
        }
    };
    let key = admitted.key;
    shared.tell(|| Notice::Came { key, address });
    let mut connection = Connection {
        shared: &shared,
        patience: if admitted.is_mesh_peer {
            shared.options.mesh_patience
        } else {
            shared.options.patience
        },
        admitted,
    };
    if let Some(local) = shared.options.local.as_ref()
        && connection.admitted.inbound.is_guest
    {
        (local.opened)(connection.admitted.outbox.id).await;
    }
    let end = connection.relay().await;
    let Admitted { line, outbox, .. } = &mut *connection.admitted;
    shared.lock().disconnect(outbox.id);
    if let Some(local) = &shared.options.local {
        (local.closed)(outbox.id);
    }
    if let End::Closing(_) = end {
        line.finish();
    }
    shared.tell(|| Notice::Went {
        key,
        address,
        why: end.to_string(),
    });
}

struct Connection<'s> {
    shared: &'s Shared,
    patience: Duration,
    admitted: Box<Admitted>,
}

impl Connection<'_> {
    /// Moves bytes until the connection ends.
    async fn relay(&mut self) -> End {
        loop {
            match self.turn() {
                // Whoever was sent something writes it before more is read.
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => {
                    if let Err(end) = self.wait().await {
                        return end;
                    }
                }
                Err(end) => return end,
            }
        }
    }

    /// Writes and reads what can be; whether something was read.
    fn turn(&mut self) -> Result<bool, End> {
        self.write()?;
        let id = self.admitted.outbox.id;
        let Admitted { line, inbound, .. } = &mut *self.admitted;
        if inbound.paced.is_some() {
            inbound.resume(self.shared, id)?;
            return Ok(inbound.paced.is_none());
        }
        let mut taken = Ok(());
        let has_read = line.try_read(&mut |bytes| {
            if taken.is_ok() {
                taken = inbound.take(self.shared, id, bytes);
            }
        })?;
        taken?;
        Ok(has_read)
    }

    /// Writes what was left for this connection, as long as the kernel takes it.
    fn write(&mut self) -> Result<(), End> {
        let Admitted { line, outbox, .. } = &mut *self.admitted;
        while line.try_flush()? {
            let mut inner = outbox.lock();
            let mut sealed = Ok(false);
            inner.queue.take(ROOM_BYTES, |frames| {
                if sealed.is_ok() {
                    sealed = line.seal(frames).map(|()| true);
                }
            });
            if sealed? {
                continue;
            }
            if let Some(frame) = inner.queue.take_long(ROOM_BYTES) {
                drop(inner);
                line.seal(&frame)?;
            } else if std::mem::take(&mut inner.watches) {
                drop(inner);
                write_changes(self.shared, line, outbox)?;
            } else {
                return inner.closing.map_or(Ok(()), |closing| Err(closing.into()));
            }
        }
        // The kernel takes no more for now.
        if let Some(closing) = outbox.lock().closing {
            return Err(closing.into());
        }
        let is_stuck = |since: tokio::time::Instant| since.elapsed() >= self.patience;
        if line.stuck_since().is_some_and(is_stuck) {
            return Err(LineError::TooSlow.into());
        }
        Ok(())
    }

    /// Waits for something to do.
    async fn wait(&mut self) -> Result<(), End> {
        let Admitted {
            line,
            inbound,
            outbox,
            ..
        } = &mut *self.admitted;
        let paced = inbound.paced.map(clock::at);
        let stuck = line.stuck_since().map(|since| since + self.patience);
        let deadline = [paced, stuck].into_iter().flatten().min();
        let timeout = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = line.ready(paced.is_none()) => ready.map_err(LineError::from)?,
            () = outbox.woken() => {}
            () = timeout => {}
        }
        Ok(())
    }
}

/// Writes what a watcher is to be told, a buffer of it.
fn write_changes(
    shared: &Shared,
    line: &mut Line<UnbufferedServerConnection>,
    outbox: &Outbox,
) -> Result<(), LineError> {
    let mut frames = Vec::with_capacity(ROOM_BYTES);
    let mut has_more = false;
    shared.lock().fetch(outbox.id, |frame: &Frame<'_>| {
        let at = frames.len();
        frames.resize(at + frame.encoded_len(), 0);
        // There is room.
        let _ = frame.encode(frames.get_mut(at..).unwrap_or(&mut []));
        has_more = frames.len() + 64 > ROOM_BYTES;
        !has_more
    });
    if has_more {
        outbox.leave(|inner| inner.watches = true);
    }
    if frames.is_empty() {
        return Ok(());
    }
    line.seal(&frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_bytes<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_an_idle_client_is_small() {
        // A change that keeps what a handshake needs shows here first.
        let task = future_bytes(run) + size_of::<Admitted>() + size_of::<Outbox>();
        assert!(task <= 2560, "{task} bytes, and what TLS keeps");
    }
}
