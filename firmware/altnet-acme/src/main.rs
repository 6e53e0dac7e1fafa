//! `altnet-acme`, which gets and renews a relay's certificate.

fn main() -> std::process::ExitCode {
    altnet_acme::cli::main()
}
