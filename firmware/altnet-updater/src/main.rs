//! `altnet-update`, called by `altnet update` or by hand.

fn main() -> std::process::ExitCode {
    altnet_updater::cli::main()
}
