//! `altnet-provision image ...` and `altnet-provision flash`.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use altnet_claim::code::Code;
use altnet_provision::drives::{Drive, Places, Survey};
use altnet_provision::image::first_boot::{FirstBoot, checker};
use altnet_provision::image::write::{Medium, Progress, write};
use altnet_provision::image::{Image, Plan};
use altnet_provision::{Error, Result, claim, files, text};
use serde_json::json;

use super::Session;
use crate::ask;
use crate::cli::{FirstBootArgs, FlashArgs, ImageCommand};
use crate::say::{Report, table};

const LIST: &str = "`altnet-provision flash --list` shows what can be written to.";
/// How often it is said how far it has come.
const STEP: Duration = Duration::from_millis(250);

pub fn act(session: &Session<'_>, command: ImageCommand) -> Result<Report> {
    let ImageCommand::Customize {
        image,
        files: wish,
        claim_code,
        size,
        output,
    } = command;
    let (mut boot, notes) = first_boot(session, &wish)?;
    let code = made_code(claim_code, &mut boot)?;
    let image = Image::open(&image)?;
    let bytes = size.unwrap_or_else(|| image.least_bytes());
    let plan = image.plan(bytes, &boot)?;
    let mut meter = Meter::new(session.global.json);
    files::create_by(&output, |file| {
        let blank = Medium::blank(file, plan.disk_bytes);
        let mut medium = blank.map_err(|source| Error::Io {
            doing: "write",
            path: output.clone(),
            source,
        })?;
        write(&image, &plan, &mut medium, &output, &mut |at| {
            meter.show(at)
        })
    })?;
    meter.end();
    let said = format!(
        "{} is a disk of {}, with {}.",
        output.display(),
        text::bytes(plan.disk_bytes),
        brought(&boot)
    );
    let report = Report::new(said, &json!({ "file": output })).with("bytes", &plan.disk_bytes);
    let report = shown_once(
        noted(about(report, &image, &plan, &boot), notes),
        code.as_ref(),
    );
    Ok(match boot.is_empty() {
        true => report,
        false => report.note("It may hold keys: delete it when it is written."),
    })
}

pub fn flash(session: &Session<'_>, args: &FlashArgs) -> Result<Report> {
    let places = Places::default();
    let survey = Survey::take(&places)?;
    let Some(path) = args.image.as_ref().filter(|_| !args.list) else {
        return Ok(listed(&survey));
    };
    let given = match &args.to {
        Some(called) => Some(survey.find(&places, called)?),
        None => None,
    };
    // All that can be refused is, before anybody is asked.
    let (mut boot, notes) = first_boot(session, &args.files)?;
    let code = made_code(args.claim_code, &mut boot)?;
    let image = Image::open(path)?;
    if let Some(drive) = given {
        image.plan(drive.bytes, &boot)?;
    }
    let drive = match given {
        Some(drive) if args.yes => drive,
        _ => chosen(&survey, given, &image)?,
    };
    let plan = image.plan(drive.bytes, &boot)?;
    let mut medium = Medium::disk(drive.open()?);
    let began = Instant::now();
    let mut meter = Meter::new(session.global.json);
    write(&image, &plan, &mut medium, &drive.device, &mut |at| {
        meter.show(at)
    })?;
    meter.end();
    drop(medium);
    let is_read_anew = drive.reread();
    let said = format!(
        "{} is written and was read back: {}, with {}.",
        drive.device.display(),
        text::bytes(plan.disk_bytes),
        brought(&boot)
    );
    let report =
        Report::new(said, &json!({ "drive": drive })).with("seconds", &began.elapsed().as_secs());
    let report = shown_once(
        noted(about(report, &image, &plan, &boot), notes),
        code.as_ref(),
    );
    let report = report.note(match is_read_anew {
        true => "Take it out and put it into the box.",
        false => "Take it out and put it into the box; this computer sees its new partitions when it is plugged in again.",
    });
    Ok(report)
}

/// What programs are told of what was written.
fn about(report: Report, image: &Image, plan: &Plan, boot: &FirstBoot) -> Report {
    report
        .with("image_bytes", &image.bytes())
        .with("image_sha256", &image.sum().to_string())
        .with("data_bytes", &plan.data_bytes)
        .with("first_boot", &boot.names())
}

fn noted(report: Report, notes: Vec<String>) -> Report {
    notes.into_iter().fold(report, Report::note)
}

fn brought(boot: &FirstBoot) -> String {
    match boot.is_empty() {
        true => "nothing for its first boot".into(),
        false => format!("{} for its first boot", boot.names().join(", ")),
    }
}

/// Makes the code that the box is claimed by, if one is wanted.
fn made_code(is_wanted: bool, boot: &mut FirstBoot) -> Result<Option<Code>> {
    if !is_wanted {
        return Ok(None);
    }
    let code = claim::new_code()?;
    boot.claim_code(&code);
    Ok(Some(code))
}

fn shown_once(report: Report, code: Option<&Code>) -> Report {
    let Some(code) = code else {
        return report;
    };
    let text = code.to_text();
    report.with("claim_code", &text.as_str()).note(format!(
        "The code that it is claimed by is {}. It is shown this once: write it down. `altnet-provision claim` asks for it within ten minutes of the box's power-on.",
        *text
    ))
}

/// Checks the files; returns what is to be said about them, too.
pub(super) fn first_boot(
    session: &Session<'_>,
    args: &FirstBootArgs,
) -> Result<(FirstBoot, Vec<String>)> {
    let mut boot = FirstBoot::default();
    let mut notes = Vec::new();
    if let Some(path) = &args.release_keys {
        boot.release_keys(path)?;
    }
    if let Some(name) = &args.hostname {
        boot.hostname(name);
    }
    if let Some(path) = &args.config {
        let own = std::env::current_exe().ok();
        let checker = checker(own.as_deref(), std::env::var_os("PATH"));
        boot.config(path, checker.as_deref())?;
        if checker.is_none() {
            notes.push(format!(
                "{} was checked as TOML alone, because no `altnet` is beside this program or on the search path. The box checks it whole, and stays with what it has if it is wrong.",
                path.display()
            ));
        }
    }
    if let Some(path) = &args.bundle {
        session.check_clock()?;
        boot.bundle(path, session.now)?;
    }
    Ok((boot, notes))
}

/// Has a person type the name of the drive.
fn chosen<'a>(survey: &'a Survey, given: Option<&'a Drive>, image: &Image) -> Result<&'a Drive> {
    let fits = |drive: &&Drive| drive.bytes >= image.least_bytes();
    let drives: Vec<&Drive> = match given {
        Some(drive) => vec![drive],
        None => survey.drives.iter().filter(fits).collect(),
    };
    if drives.is_empty() {
        return Err(Error::NotFound {
            what: "there is no card or drive that is large enough and not in use".into(),
            next: format!("Plug one in and unmount it. {LIST}"),
        });
    }
    let mut question = String::new();
    for drive in &drives {
        question.push_str(&format!("{}\n", named(drive)));
    }
    let names: Vec<&str> = drives.iter().map(|drive| drive.name.as_str()).collect();
    question.push_str(&format!(
        "Everything on it will be lost. Type its name to go on ({}): ",
        names.join(" or ")
    ));
    let typed = ask::answer(&question).ok_or_else(|| Error::NeedsConsent {
        what: "there is no terminal to ask at which drive to erase".into(),
        next: format!("Say it with --to DEVICE --yes. {LIST}"),
    })?;
    let typed = typed.strip_prefix("/dev/").unwrap_or(&typed);
    let drive = drives.into_iter().find(|drive| drive.name == typed);
    drive.ok_or_else(|| Error::NeedsConsent {
        what: "that is not its name, so nothing was written".into(),
        next: "Run the same command again, and type the name as it is shown.".into(),
    })
}

fn named(drive: &Drive) -> String {
    let model = match drive.model.is_empty() {
        true => "no name of its own",
        false => &drive.model,
    };
    let (bus, bytes) = (drive.bus.as_str(), text::bytes(drive.bytes));
    format!("{}: {model}, {bus}, {bytes}", drive.name)
}

fn listed(survey: &Survey) -> Report {
    let drives = survey.drives.iter().map(|drive| {
        let device = drive.device.display().to_string();
        let (bus, bytes) = (drive.bus.as_str(), text::bytes(drive.bytes));
        vec![device, bytes, bus.into(), drive.model.clone()]
    });
    let rows: Vec<_> = drives.collect();
    let report = Report::new(table(&["DEVICE", "SIZE", "BUS", "MODEL"], &rows), survey);
    let report = survey.others.iter().fold(report, |report, other| {
        report.note(format!("{} is not written to: {}.", other.name, other.why))
    });
    match survey.drives.is_empty() {
        true => report
            .note("Plug in a card or a drive on USB; one that is mounted has to be unmounted."),
        false => report,
    }
}

/// Tells a person how far it has come.
struct Meter {
    is_shown: bool,
    is_verifying: bool,
    began: Instant,
    told: Option<Instant>,
}

impl Meter {
    fn new(is_json: bool) -> Self {
        Self {
            is_shown: !is_json && std::io::stderr().is_terminal(),
            is_verifying: false,
            began: Instant::now(),
            told: None,
        }
    }

    fn show(&mut self, at: Progress) {
        if at.is_verifying != self.is_verifying {
            self.is_verifying = at.is_verifying;
            self.began = Instant::now();
        }
        let is_due = self.told.is_none_or(|told| told.elapsed() >= STEP);
        if self.is_shown && (is_due || at.done == at.total) {
            self.told = Some(Instant::now());
            let line = progress(at, self.began.elapsed());
            // Without a place to say it, nothing is lost.
            let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
        }
    }

    fn end(&self) {
        if self.is_shown && self.told.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn progress(at: Progress, since: Duration) -> String {
    let verb = match at.is_verifying {
        true => "reading back",
        false => "writing",
    };
    let done = format!(
        "{verb}: {} of {}",
        text::bytes(at.done),
        text::bytes(at.total)
    );
    let seconds = since.as_secs_f64();
    if seconds < 1.0 || at.done == 0 {
        return done;
    }
    let rate = at.done as f64 / seconds;
    let left = (at.total.saturating_sub(at.done)) as f64 / rate;
    format!("{done}, {}/s, {left:.0} s left", text::bytes(rate as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_bytes_rate_and_what_remains() {
        let at = Progress {
            is_verifying: false,
            done: 50_000_000,
            total: 200_000_000,
        };
        let said = progress(at, Duration::from_secs(5));
        assert_eq!(said, "writing: 50.0 MB of 200.0 MB, 10.0 MB/s, 15 s left");
        let at = Progress {
            is_verifying: true,
            done: 0,
            ..at
        };
        let said = progress(at, Duration::from_secs(5));
        assert_eq!(said, "reading back: 0 bytes of 200.0 MB");
    }
}
