//! What others on the box may see of an installation that is under way.

use std::fs::{self, File};
use std::path::PathBuf;

/// A file that is there while something goes on.
#[derive(Debug)]
pub(super) struct Shown(PathBuf);

impl Shown {
    /// From now on, until this is dropped. That it can't be shown is no reason not to do it.
    pub(super) fn begin(path: PathBuf) -> Self {
        let _ = File::create(&path);
        Self(path)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
