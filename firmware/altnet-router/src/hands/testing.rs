//! Help for tests of what is done to a kernel.

use std::process::Command;

/// Runs `test` on a thread of its own, in a fresh network namespace that goes with the thread. Says why and skips
/// when it may not.
pub fn in_namespace(name: &str, test: impl FnOnce() + Send + 'static) {
    let name = name.to_owned();
    let thread = std::thread::spawn(move || {
        #[allow(unsafe_code, reason = "no safe word for it")]
        // SAFETY: unshare(2) takes no pointers; it changes only this thread, which ends with the test.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            let reason = std::io::Error::last_os_error();
            eprintln!("skipped: {name} needs CAP_SYS_ADMIN for a network namespace ({reason})");
            return;
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these words and returns what it says.
pub fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split(' ')).output();
    let output = output.unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {words}: {error}");
    String::from_utf8(output.stdout).unwrap()
}
