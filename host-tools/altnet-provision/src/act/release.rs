//! `altnet-provision release ...`.

use altnet_provision::release::{self, Described, ReleaseSecret, Summary};
use altnet_provision::{Result, text};
use serde_json::json;

use super::Session;
use crate::ask::{self, Source};
use crate::cli::{ReleaseCommand, ReleaseKeyCommand};
use crate::say::Report;

/// What the line of a key looks like in the file that images pin.
const PIN: &str = "Images pin keys in a file with the lines `generation 1`, `threshold 2` and `key KEY WHOSE` for each.";

pub fn act(session: &Session<'_>, command: ReleaseCommand) -> Result<Report> {
    let source = Source {
        prompt: "Passphrase of the release key: ",
        ..session.source()
    };
    match command {
        ReleaseCommand::Key(ReleaseKeyCommand::Create { output }) => {
            let passphrase = ask::new_passphrase(&source)?;
            let key = ReleaseSecret::create(&output, &passphrase)?.public();
            let value = json!({ "key": key.to_string(), "file": output });
            let report = Report::new(key.to_string(), &value);
            let kept = format!("The secret half is in {}, encrypted.", output.display());
            Ok(report.note(kept).note(PIN))
        }
        ReleaseCommand::Key(ReleaseKeyCommand::Show { file }) => {
            let key = ReleaseSecret::read(&file, &ask::passphrase(&source)?)?.public();
            let value = json!({ "key": key.to_string(), "file": file });
            Ok(Report::new(key.to_string(), &value))
        }
        ReleaseCommand::Sign {
            description,
            slot,
            key,
            output,
        } => {
            session.check_clock()?;
            let described = Described::read(&description)?;
            let secret = ReleaseSecret::read(&key, &ask::passphrase(&source)?)?;
            let made = release::sign(&described, &slot, &secret, &output, session.now)?;
            let report = Report::new(shown(&made), &made).with("file", &output);
            Ok(report.note("Boxes that pin several keys want more of them: `altnet-provision release cosign` adds one."))
        }
        ReleaseCommand::Cosign {
            bundle,
            slot,
            key,
            output,
        } => {
            let secret = ReleaseSecret::read(&key, &ask::passphrase(&source)?)?;
            let made = release::cosign(&bundle, slot.as_deref(), &secret, &output)?;
            let report = Report::new(shown(&made), &made).with("file", &output);
            Ok(match slot {
                Some(_) => report,
                None => report
                    .note("What is in it was not compared with a slot of yours; --slot does that."),
            })
        }
        ReleaseCommand::Show { bundle } => {
            let summary = release::show(&bundle)?;
            Ok(Report::new(shown(&summary), &summary))
        }
        ReleaseCommand::Verify { bundle, keys, slot } => {
            let summary = release::verify(&bundle, &keys, slot.as_deref(), session.now)?;
            let said = format!("{}\nA box that pins these keys takes it.", shown(&summary));
            Ok(Report::new(said, &summary).with("verified", &true))
        }
    }
}

fn shown(summary: &Summary) -> String {
    let mut said = format!(
        "{} {} for {}\n  counter     {}, and those below {} are refused once it is confirmed\n  made        {}\n  until       {}\n  slot        {} bytes, {} in the bundle",
        summary.product,
        summary.version,
        summary.board,
        summary.counter,
        summary.floor,
        summary.made,
        summary.not_after,
        summary.slot_bytes,
        summary.packed_bytes
    );
    if let Some(keys) = &summary.keys {
        said.push_str(&format!(
            "\n  new keys    generation {}, {} of {}",
            keys.generation,
            keys.threshold,
            text::count(keys.keys.len(), "key")
        ));
        for key in &keys.keys {
            said.push_str(&format!("\n              {key}"));
        }
    }
    for signature in &summary.signatures {
        let mark = match signature.valid {
            true => "signed by  ",
            false => "DAMAGED: by",
        };
        said.push_str(&format!("\n  {mark} {}", signature.key));
    }
    said
}
