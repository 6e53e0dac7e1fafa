//! Programs that a test puts on a search path.

use std::path::Path;
use std::process::Command;

/// Writes a program, by another one: a file that this process had open for writing can't be run while a child that was begun meanwhile
/// still has it.
pub fn put_program(path: &Path, text: &str) {
    let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$2\" && chmod 755 \"$2\"";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", write, "sh", text]).arg(path);
    assert!(command.status().unwrap().success());
}
