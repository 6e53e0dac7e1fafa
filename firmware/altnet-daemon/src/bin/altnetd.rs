//! `altnetd`, the gateway daemon.

fn main() -> std::process::ExitCode {
    altnet_daemon::daemon::main()
}
