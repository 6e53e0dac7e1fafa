//! `altnet-box`: altnetd, altnet and altnet-tls in one file, for devices with little flash. What it is called
//! says which of them it is, so it is installed with a link for each.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(OsStr::to_str) {
        Some("altnetd") => altnet_daemon::daemon::main(),
        Some("altnet") => altnet_daemon::cli::main(),
        Some("altnet-tls") => altnet_tls::main(),
        _ => {
            eprintln!(
                "altnet-box: call it as altnetd, altnet or altnet-tls: make a link of that name to it"
            );
            ExitCode::FAILURE
        }
    }
}
