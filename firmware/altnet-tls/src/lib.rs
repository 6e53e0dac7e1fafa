//! `altnet-tls`: the process beside altnetd in which the TLS of its apps ends.
//!
//! altnetd starts it with one end of a socket pair as standard input and talks in the words of
//! [`altnet_wire::tls::talk`]. It makes keys when it is asked to, holds keys and certificates in
//! memory alone, and for each connection gets two stream sockets: on one it speaks TLS with the
//! caller, to the other it carries what the caller says. Who calls is altnetd's to know; bytes for
//! an app never mix, because each connection has sockets of its own.
//!
//! A fault here costs TLS, and no key of the network: it has no files, opens no sockets, starts no
//! programs ([`confine`]), and ends when altnetd does.
//!
//! Promises: [`MAX_CONNECTIONS`] at a time, [`HANDSHAKE`] to say hello; nothing a caller sends
//! panics.

pub mod confine;
pub mod keys;
pub mod serve;
pub mod socket;

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

/// Connections at a time; more are turned away.
pub const MAX_CONNECTIONS: usize = 256;
/// How long a caller may take for its handshake.
pub const HANDSHAKE: Duration = Duration::from_secs(20);

/// Serves altnetd, which holds the other end of standard input, until it goes. Says on standard error what went
/// wrong, and returns 1 then.
pub fn main() -> ExitCode {
    match serve::run(std::io::stdin().as_fd()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("altnet-tls: {e}");
            ExitCode::FAILURE
        }
    }
}
