//! `[update]` of `altnet.toml`: where releases come from.

use std::path::{Path, PathBuf};

use altnet_service::mistake::{self, Mistake};
use altnet_update::manifest::Label;
use serde::{Deserialize, Serialize};

use crate::fetch::Url;

/// `[update]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Update {
    /// A folder with a bundle for each board, `BOARD.bundle`, as `https://` or `http://`. Bundles are signed, so that a
    /// server of the house's own needs no certificate.
    pub from: Option<Url>,
    /// The authorities that are believed there, a PEM file, instead of those that browsers know.
    pub ca: Option<PathBuf>,
}

/// The part of `altnet.toml` that is about updates. The rest of it is altnetd's to check.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    update: Update,
}

impl Update {
    /// Reads `text`; `path` is named in errors.
    ///
    /// # Errors
    /// The first [`Mistake`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, Mistake> {
        mistake::parse::<File>(path, text).map(|file| file.update)
    }

    /// Where the bundle of a board is.
    pub fn bundle(&self, board: &Label) -> Option<Url> {
        let from = self.from.as_ref()?;
        Some(from.below(&format!("{board}.bundle")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Update, Mistake> {
        Update::parse(Path::new("altnet.toml"), text)
    }

    #[test]
    fn each_board_has_its_bundle_in_the_folder() {
        let board: Label = "virt-arm64".parse().unwrap();
        for from in ["http://box.lan:8080/altnet", "http://box.lan:8080/altnet/"] {
            let update = parse(&format!("[router]\nx = 1\n[update]\nfrom = \"{from}\"\n")).unwrap();
            let bundle = update.bundle(&board).unwrap();
            assert_eq!(
                bundle.to_string(),
                "http://box.lan:8080/altnet/virt-arm64.bundle"
            );
        }
        assert_eq!(parse("").unwrap().bundle(&board), None);
    }

    #[test]
    fn a_slip_is_told_with_its_line() {
        for (text, why) in [
            ("[update]\nfrom = \"ftp://x/\"\n", "altnet.toml:2:8"),
            ("[update]\nfrom = \"https://a@b/\"\n", "altnet.toml:2:8"),
            ("[update]\nform = \"https://x/\"\n", "unknown field"),
        ] {
            let said = parse(text).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
    }
}
