//! `altnet-setup`, started by a box's init while the box is in no network.

fn main() -> std::process::ExitCode {
    altnet_setup::cli::main()
}
