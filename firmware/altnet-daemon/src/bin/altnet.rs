//! `altnet`, the command line of the local altnetd.

fn main() -> std::process::ExitCode {
    altnet_daemon::cli::main()
}
