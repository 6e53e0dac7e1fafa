//! `altnet-provision rescue`.

use std::io::{IsTerminal as _, Write as _};

use altnet_provision::{Result, rescue, text};
use serde_json::json;

use super::Session;
use crate::cli::RescueArgs;
use crate::say::Report;

/// How many of the kernel's lines a person is shown.
const LINES: usize = 15;

pub fn act(session: &Session<'_>, args: &RescueArgs) -> Result<Report> {
    let Some(bundle) = &args.bundle else {
        let status = rescue::status(&args.address)?;
        let mut said = format!(
            "A {} with release {}, slot {}: {}",
            printable(&status.board),
            printable(&status.version),
            printable(&status.slot),
            printable(&status.why)
        );
        for line in status.log.iter().rev().take(LINES).rev() {
            said.push_str(&format!("\n  {}", printable(line)));
        }
        let report = Report::new(said, &status);
        return Ok(match status.state == "rescue" {
            true => report.note("--bundle FILE brings it a release."),
            false => report,
        });
    };
    let is_shown = !session.global.json && std::io::stderr().is_terminal();
    let mut told = 0;
    let mut tell = |done: u64, total: u64| {
        let percent = 100 * done / total.max(1);
        if is_shown && percent != told {
            told = percent;
            // Without a place to say it, nothing is lost.
            let _ = write!(
                std::io::stderr(),
                "\rsent: {} of {}\x1b[K",
                text::bytes(done),
                text::bytes(total)
            );
        }
    };
    let done = rescue::install(&args.address, bundle, &mut tell);
    if told > 0 {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let said = done?;
    let report = Report::new(
        printable(&said),
        &json!({ "installed": said, "address": args.address }),
    );
    Ok(report.note("The box boots it now, and keeps it once it ran for a minute."))
}

/// What somebody on the LAN says, without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect()
}
