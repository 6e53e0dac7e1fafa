//! What is asked at the terminal: passphrases, the recovery key, yes or no.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

use altnet_claim::code::Code;
use altnet_provision::files;
use altnet_provision::recovery::RecoveryKey;
use altnet_provision::sealed::Passphrase;
use altnet_provision::{Error, Result};
use zeroize::Zeroizing;

/// Spends less work on guarding keys, for tests alone.
const WORK_VARIABLE: &str = "ALTNET_TEST_SCRYPT_LOG_N";

/// Where a passphrase may come from before it is asked for.
pub struct Source<'a> {
    /// A file.
    pub file: Option<&'a Path>,
    /// An environment variable.
    pub variable: &'static str,
    /// The option that names a file.
    pub option: &'static str,
    /// What to ask for.
    pub prompt: &'static str,
}

/// The passphrase of keys that exist.
pub fn passphrase(source: &Source<'_>) -> Result<Passphrase> {
    match given(source)? {
        Some(passphrase) => Ok(passphrase),
        None => typed(source),
    }
}

/// The passphrase for keys to be made: typed twice.
pub fn new_passphrase(source: &Source<'_>) -> Result<Passphrase> {
    if let Some(passphrase) = given(source)? {
        return Ok(passphrase);
    }
    let first = prompt(source.prompt, || unasked(source))?;
    let second = prompt("The same again: ", || unasked(source))?;
    if *first != *second {
        return Err(input(
            "the two passphrases differ",
            "Try again; nothing was made.",
        ));
    }
    work(Passphrase::new(&first)?)
}

/// Whether a passphrase can be had without anybody at a terminal.
pub fn is_given(source: &Source<'_>) -> bool {
    source.file.is_some() || std::env::var_os(source.variable).is_some_and(|v| !v.is_empty())
}

/// Whether somebody is there to be asked.
pub fn is_attended() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// The recovery key from a file, from the terminal, or from standard input.
pub fn recovery_key(file: Option<&Path>) -> Result<RecoveryKey> {
    let text = match file {
        Some(path) => secret_in(path)?,
        None if is_attended() => {
            prompt("Recovery key (fourteen groups of four): ", no_recovery_key)?
        }
        None => {
            let mut line = Zeroizing::new(String::new());
            let read = std::io::stdin().lock().read_line(&mut line);
            if !read.is_ok_and(|bytes| bytes > 0) {
                return Err(no_recovery_key());
            }
            line
        }
    };
    RecoveryKey::from_text(&text)
}

/// The code of a box: from a file, from the environment, or typed.
pub fn code(source: &Source<'_>) -> Result<Code> {
    let text = match source.file {
        Some(path) => secret_in(path)?,
        None => match std::env::var(source.variable) {
            Ok(text) if !text.is_empty() => Zeroizing::new(text),
            _ => prompt(source.prompt, || unasked(source))?,
        },
    };
    Code::parse(&text).map_err(|error| {
        input(
            error.to_string(),
            "Look at where it is written, and type it again. The box wasn't asked, so that cost no try.",
        )
    })
}

/// Whether the person says yes; without a person, no.
pub fn consent(question: &str) -> bool {
    let said = answer(&format!("{question} [y/N] "));
    said.is_some_and(|said| matches!(said.to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// What the person types in answer to a question; without a person, nothing.
pub fn answer(question: &str) -> Option<String> {
    if !is_attended() {
        return None;
    }
    let mut answer = String::new();
    let _ = write!(std::io::stderr(), "{question}");
    std::io::stdin().lock().read_line(&mut answer).ok()?;
    Some(answer.trim().to_owned())
}

/// A file of text.
pub fn text_of(path: &Path) -> Result<String> {
    String::from_utf8(files::read(path)?).map_err(|_| {
        input(
            format!("{} is not text", path.display()),
            "Give the file as it was written.",
        )
    })
}

fn given(source: &Source<'_>) -> Result<Option<Passphrase>> {
    if let Some(path) = source.file {
        let text = secret_in(path)?;
        return Passphrase::new(&text).and_then(work).map(Some);
    }
    match std::env::var(source.variable) {
        Ok(text) if !text.is_empty() => Passphrase::new(&text).and_then(work).map(Some),
        Err(std::env::VarError::NotUnicode(_)) => Err(input(
            format!("{} is not text", source.variable),
            "Set it to the passphrase.",
        )),
        _ => Ok(None),
    }
}

fn typed(source: &Source<'_>) -> Result<Passphrase> {
    work(Passphrase::new(&prompt(source.prompt, || {
        unasked(source)
    })?)?)
}

fn prompt(text: &str, otherwise: impl Fn() -> Error) -> Result<Zeroizing<String>> {
    rpassword::prompt_password(text)
        .map(Zeroizing::new)
        .map_err(|_| otherwise())
}

fn unasked(source: &Source<'_>) -> Error {
    let what = source.prompt.trim_end_matches([':', ' ']);
    input(
        format!("there is no terminal to ask at: {what}"),
        format!(
            "Set {}, or give a file with {}.",
            source.variable, source.option
        ),
    )
}

fn no_recovery_key() -> Error {
    input(
        "there is no recovery key on standard input",
        "Type it at a terminal, or give a file with --recovery-key-file.",
    )
}

/// A file of text with a secret in it: others may not read it, unless it is no file on a disk
/// but a pipe.
fn secret_in(path: &Path) -> Result<Zeroizing<String>> {
    if path.is_file() {
        files::check_private(path)?;
    }
    text_of(path).map(Zeroizing::new)
}

fn work(passphrase: Passphrase) -> Result<Passphrase> {
    let log_n = std::env::var(WORK_VARIABLE)
        .ok()
        .and_then(|text| text.parse().ok());
    Ok(match log_n {
        Some(log_n) => passphrase.with_less_work(log_n),
        None => passphrase,
    })
}

fn input(what: impl Into<String>, next: impl Into<String>) -> Error {
    Error::Input {
        what: what.into(),
        next: next.into(),
    }
}
