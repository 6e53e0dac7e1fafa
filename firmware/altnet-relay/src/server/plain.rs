//! What is answered without TLS: whatever isn't DERP.
//!
//! Tailscale's clients ask `/generate_204` over plain HTTP, with a challenge, to see whether a captive
//! portal answers instead.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::ACCEPT_PAUSE;
use crate::http::{self, Asked};

/// How long a request and its response may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many are answered at once.
const AT_ONCE: usize = 64;

/// Answers over plain HTTP until the future is dropped.
pub async fn serve_plain(listener: TcpListener) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    // Closed never.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        tokio::spawn(async move {
            // Who asks and goes is nobody's concern.
            let _ = tokio::time::timeout(PATIENCE, answer(&stream)).await;
            drop(place);
        });
    }
}

async fn answer(stream: &TcpStream) -> io::Result<()> {
    let mut head = vec![0; http::MAX_HEAD_BYTES];
    let mut length = 0;
    let whole = loop {
        stream.readable().await?;
        match stream.try_read(head.get_mut(length..).unwrap_or(&mut [])) {
            // It ended, or its head is too long.
            Ok(0) => return Ok(()),
            Ok(read) => length += read,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e),
        }
        let arrived = head.get(..length).unwrap_or(&[]);
        if let Some(whole) = http::head_length(arrived) {
            break whole;
        }
    };
    let response = match http::asked(head.get(..whole).unwrap_or(&[])) {
        Asked::Other(response) => response,
        Asked::Derp { .. } => http::needs_tls(),
    };
    let mut rest = response.as_slice();
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or(&[]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
