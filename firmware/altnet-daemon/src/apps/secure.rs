//! A caller's connection whose TLS ends in `altnet-tls`.
//!
//! What the caller's machine sends goes to that process as it is; what it means comes back on a
//! stream of its own and is served as HTTP, for the caller that this connection is from. So who
//! calls never leaves altnetd.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, copy, split};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::serve::Shared;
use super::stats::Refusal;
use super::stream::Stream;
use super::tls::Tls;
use super::words::Words;
use super::{AppConfig, WhoIs, http};

/// Serves one connection of a caller.
pub(super) async fn serve(
    mut stream: Stream,
    shared: Arc<Shared>,
    config: Arc<AppConfig>,
    questions: mpsc::Sender<WhoIs>,
    tls: &Tls,
) {
    let (outside, inside) = match tls.connect(&config.name) {
        Ok(streams) => streams,
        Err(e) => {
            shared.refuse(Refusal::NoTls);
            crate::debug!("the app {} turns a caller away: {e}", config.name);
            stream.break_off();
            return;
        }
    };
    let linger = config.patience.linger;
    let caller = http::From {
        address: stream.caller(),
        is_secure: true,
    };
    let name = config.name.clone();
    let served = http::serve(Words::Secure(inside), caller, shared, config, questions);
    let (carried, ()) = tokio::join!(carry(&mut stream, outside, linger), served);
    if let Err(e) = carried {
        crate::debug!("a connection to the app {name} broke: {e}");
        stream.break_off();
    }
}

/// Carries what two machines say in TLS until both have said all, or the app's side has and the
/// caller's has not for `linger` more.
async fn carry(stream: &mut Stream, outside: UnixStream, linger: Duration) -> io::Result<()> {
    let (mut from_caller, mut to_caller) = split(stream);
    let (mut from_tls, mut to_tls) = outside.into_split();
    let caller_ended = Notify::new();
    let inward = async {
        copy(&mut from_caller, &mut to_tls).await?;
        to_tls.shutdown().await?;
        caller_ended.notify_one();
        // The other way says when it is over.
        std::future::pending().await
    };
    let outward = async {
        copy(&mut from_tls, &mut to_caller).await?;
        to_caller.shutdown().await?;
        let _ = timeout(linger, caller_ended.notified()).await;
        Ok(())
    };
    tokio::select! {
        ended = inward => ended,
        ended = outward => ended,
    }
}
