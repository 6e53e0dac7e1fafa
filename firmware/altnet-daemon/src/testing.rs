//! Help for this crate's own tests.

use std::future::Future;

/// Runs `test` on a thread of its own, in a fresh network namespace that goes with the
/// thread. Says why and skips when it may not.
pub fn in_namespace(name: &str, test: impl Future<Output = ()> + Send + 'static) {
    let name = name.to_owned();
    let thread = std::thread::spawn(move || {
        // SAFETY: unshare(2) takes no pointers; it changes only this thread, which ends with
        // the test.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            let reason = std::io::Error::last_os_error();
            eprintln!("skipped: {name} needs CAP_SYS_ADMIN for a network namespace ({reason})");
            return;
        }
        if !std::path::Path::new("/dev/net/tun").exists() {
            eprintln!("skipped: {name} needs /dev/net/tun");
            return;
        }
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
