//! `altnet-rescue`, called by the initial RAM disk and by the running system's init.

fn main() -> std::process::ExitCode {
    altnet_rescue::cli::main()
}
