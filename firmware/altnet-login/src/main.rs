//! `altnet-login`, the gateway's login page.

fn main() -> std::process::ExitCode {
    altnet_login::cli::main()
}
