//! The words of `altnet update` and of `altnet-update`, which are the same.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use clap::{Args, Subcommand};

/// The program that does it, beside `altnet`.
pub const PROGRAM: &str = "altnet-update";

/// What is to be done about this box's releases.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Update {
    /// The release that runs, what waits to be confirmed and why, and what comes next.
    Status,
    /// What the folder that altnet.toml names has for this box. Fetches no more than its beginning.
    Check,
    /// Write a release into the slot that doesn't run, and choose it for the next boot.
    Install {
        /// A bundle: a file, an http:// or https:// address, or - for standard input [default: the one in the folder that
        /// altnet.toml names]
        bundle: Option<OsString>,
        /// What is done then.
        #[command(flatten)]
        then: Then,
    },
    /// Choose the other slot for good.
    Rollback {
        /// What is done then.
        #[command(flatten)]
        then: Then,
    },
    /// Say that the release that runs is good, though not all works in it that worked before.
    Confirm,
}

/// What is done when the next boot is into another slot. Without either, it is asked on a terminal, and elsewhere said how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct Then {
    /// Boot it now.
    #[arg(long, conflicts_with = "no_reboot")]
    pub reboot: bool,
    /// Leave it to the next boot.
    #[arg(long)]
    pub no_reboot: bool,
}

impl Then {
    fn words(self) -> Option<OsString> {
        match (self.reboot, self.no_reboot) {
            (true, _) => Some("--reboot".into()),
            (false, true) => Some("--no-reboot".into()),
            (false, false) => None,
        }
    }
}

impl Update {
    /// The same as words of a command line.
    pub fn words(&self) -> Vec<OsString> {
        let words = |word: &str, then: Then| {
            let mut words: Vec<OsString> = vec![word.into()];
            words.extend(then.words());
            words
        };
        let none = Then::default();
        match self {
            Self::Status => words("status", none),
            Self::Check => words("check", none),
            Self::Install { bundle, then } => {
                let mut words = words("install", *then);
                if let Some(bundle) = bundle {
                    words.extend(["--".into(), bundle.clone()]);
                }
                words
            }
            Self::Rollback { then } => words("rollback", *then),
            Self::Confirm => words("confirm", none),
        }
    }

    /// Becomes `altnet-update`, which lies beside `program`. Returns only if that can't be.
    pub fn hand_over(&self, program: &Path, json: bool) -> anyhow::Error {
        let beside = program.with_file_name(PROGRAM);
        let mut command = Command::new(&beside);
        command.args(json.then_some("--json")).args(self.words());
        let error = command.exec();
        let beside = beside.display();
        match error.kind() {
            io::ErrorKind::NotFound => anyhow::anyhow!(
                "this is not an altnet image: there is no {beside}. Update altnet as it was installed: by packages on OpenWrt, by hand elsewhere."
            ),
            _ => anyhow::Error::new(error).context(format!("can't run {beside}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use proptest::prelude::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        update: Update,
    }

    fn then() -> impl Strategy<Value = Then> {
        prop_oneof![
            Just(Then::default()),
            Just(Then {
                reboot: true,
                no_reboot: false
            }),
            Just(Then {
                reboot: false,
                no_reboot: true
            }),
        ]
    }

    fn update() -> impl Strategy<Value = Update> {
        let bundle = prop::option::of("[ -~]+").prop_map(|text| text.map(OsString::from));
        prop_oneof![
            Just(Update::Status),
            Just(Update::Check),
            Just(Update::Confirm),
            then().prop_map(|then| Update::Rollback { then }),
            (bundle, then()).prop_map(|(bundle, then)| Update::Install { bundle, then }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_handed_over_is_what_was_said(update in update()) {
            let words = std::iter::once(OsString::from("update")).chain(update.words());
            prop_assert_eq!(Line::try_parse_from(words).unwrap().update, update);
        }
    }

    #[test]
    fn a_machine_that_is_no_image_is_told_what_to_do() {
        let home = tempfile::tempdir().unwrap();
        let error = Update::Status.hand_over(&home.path().join("altnet"), false);
        assert!(
            error.to_string().contains("by packages on OpenWrt"),
            "{error}"
        );
    }
}
