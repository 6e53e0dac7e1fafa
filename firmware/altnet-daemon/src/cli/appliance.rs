//! What `altnet status` adds on an appliance: whether its data can be written, and what fell over.

use std::fs;
use std::path::Path;

/// Lines for people; none on a box that has nothing to say, or isn't one of ours.
pub(super) fn told(root: &Path) -> String {
    let mut said = String::new();
    let data = fs::read_to_string(root.join("run/altnet/data")).unwrap_or_default();
    match data.trim() {
        "read-only" => said.push_str(
            "The data partition is damaged and can only be read: nothing new is kept. Switch the box off and on, so that it is checked; if this stays, replace its card, or wipe it with `altnet reset`.\n",
        ),
        "absent" => said.push_str(
            "The data partition can't be read: the box serves as a new one would, and keeps nothing. Replace its card, or make it anew with `altnet reset`.\n",
        ),
        _ => {}
    }
    let crashes = fs::read_dir(root.join("data/crash")).into_iter().flatten();
    let count = crashes
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with(|first: char| first.is_ascii_digit())
        })
        .count();
    if count > 0 {
        let ended = if count == 1 {
            "A program or the kernel ended unasked"
        } else {
            "Programs or the kernel ended unasked"
        };
        said.push_str(&format!(
            "{ended}; {count} kept: `altnet-crash list`, `altnet-crash show`, and `altnet-crash forget` once they are read.\n"
        ));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_that_lost_something_says_so() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(told(root.path()), "");
        fs::create_dir_all(root.path().join("run/altnet")).unwrap();
        fs::create_dir_all(root.path().join("data/crash")).unwrap();
        for (data, expected) in [
            ("writable\n", ""),
            ("read-only\n", "only be read"),
            ("absent\n", "as a new one"),
        ] {
            fs::write(root.path().join("run/altnet/data"), data).unwrap();
            let said = told(root.path());
            assert!(
                said.contains(expected) && said.is_empty() == expected.is_empty(),
                "{said}"
            );
        }
        fs::write(root.path().join("run/altnet/data"), "writable\n").unwrap();
        for name in [".new", "000000001-altnetd", "000000002-kernel"] {
            fs::write(root.path().join("data/crash").join(name), "").unwrap();
        }
        assert!(told(root.path()).contains("2 kept: `altnet-crash list`"));
    }
}
