//! What the kernel announces of its interfaces, addresses, routes and rules.

use std::io::Read as _;

use socket2::Socket;
use tokio::io::unix::AsyncFdReadyGuard;

use super::kernel;
use super::netlink;

/// Reads all that was announced; returns whether something of a plan's went.
pub(super) fn announced(ready: &mut AsyncFdReadyGuard<'_, Socket>) -> bool {
    let (mut buffer, mut is_taken) = ([0; 8192], false);
    loop {
        match ready.try_io(|socket| socket.get_ref().read(&mut buffer)) {
            Ok(Ok(len)) => {
                let mut read = netlink::messages(buffer.get(..len).unwrap_or(&[]));
                is_taken |= read.any(|one| kernel::is_taken(&one));
            }
            // What didn't fit the kernel's queue (ENOBUFS) may be anything.
            Ok(Err(_)) => return true,
            Err(_) => return is_taken,
        }
    }
}
