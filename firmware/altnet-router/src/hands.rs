//! Hands on Linux: what a machine wishes for is done, and what happens is told to it.
//!
//! Everything here does I/O and nothing here decides: an `if` about leases, trials or children belongs in
//! [`crate::machine`].

use std::io;

use socket2::Socket;
use tokio::io::unix::AsyncFd;

mod announced;
mod begin;
pub mod children;
pub mod cli;
pub mod control;
pub mod echo;
pub mod files;
pub mod hook;
pub mod kernel;
pub mod look;
pub mod netlink;
pub mod probe;
pub mod run;
pub mod slot;
#[cfg(test)]
mod testing;
pub mod trial;
pub mod watchdog;

/// Takes a socket into the event loop.
fn registered(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket is owned by the `AsyncFd` from here on; nothing closes or replaces its
    // descriptor before it is dropped.
    #[allow(unsafe_code, reason = "what the event loop has its user promise")]
    let registered = unsafe { AsyncFd::register(socket) };
    Ok(registered?)
}
