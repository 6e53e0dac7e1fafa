//! Who is ended first when a machine's memory is used up.

use std::fs;
use std::io;
use std::path::PathBuf;

/// What a process that helps another one has: the kernel counts it as if it used a tenth of the machine's memory more, so that it goes before
/// whoever has 0 or less (proc_pid_oom_score_adj(5)).
const HELPER: &str = "100";

/// Has the kernel end a child before this process, from which it would have its place otherwise. Anybody may do that to its children.
///
/// # Errors
/// What the kernel says; that the child is gone.
pub fn give_way(child: u32) -> io::Result<()> {
    fs::write(score(child), HELPER)
}

fn score(process: u32) -> PathBuf {
    format!("/proc/{process}/oom_score_adj").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_child_goes_before_its_parent() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        give_way(child.id()).unwrap();
        let found = fs::read_to_string(score(child.id())).unwrap();
        assert_eq!(found.trim(), HELPER);
        let own = fs::read_to_string(score(std::process::id())).unwrap();
        assert_ne!(own.trim(), HELPER);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(give_way(child.id()).is_err());
    }
}
