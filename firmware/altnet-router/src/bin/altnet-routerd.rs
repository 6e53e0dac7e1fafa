//! `altnet-routerd`, the router of a house.

fn main() -> std::process::ExitCode {
    altnet_router::hands::cli::main()
}
