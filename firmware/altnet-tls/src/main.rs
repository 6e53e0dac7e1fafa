//! `altnet-tls`: started by altnetd, not by hand.

use std::os::fd::AsFd;
use std::process::ExitCode;

use altnet_tls::serve;

fn main() -> ExitCode {
    match serve::run(std::io::stdin().as_fd()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("altnet-tls: {e}");
            ExitCode::FAILURE
        }
    }
}
