//! `altnet-tls`: started by altnetd, not by hand.

fn main() -> std::process::ExitCode {
    altnet_tls::main()
}
