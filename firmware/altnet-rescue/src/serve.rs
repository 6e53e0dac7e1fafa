//! Serving the page, and taking one release at a time.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use altnet_update::appliance::{Appliance, Calendar, Error};
use altnet_update::install::Progress;
use altnet_update::state::Working;
use altnet_wire::time::UnixTime;
use serde_json::json;

use crate::body::{Body, skip_part_head};
use crate::head::{self, Asked, BadHead, Head, MAX_HEAD_BYTES};
use crate::kernel;
use crate::page::{self, Facts, State};

/// How many are served at the same time; others are told to come back.
const MAX_CONNECTIONS: usize = 8;
/// How long a read or a write may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a head may take in all.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
const KERNEL_LOG: &str = "/dev/kmsg";

/// How serving ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A release is in the other slot, which is booted next.
    Installed,
    /// The button was held: the box is to be wiped.
    Reset,
}

/// A box that serves its page.
#[derive(Debug)]
pub struct Server {
    facts: Facts,
    /// None where no release is taken.
    appliance: Option<Appliance>,
    state: Mutex<State>,
    connections: AtomicUsize,
}

/// Of a connection: counted while it lives.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Server {
    /// A box in rescue, or one that serves its house and says what it lost.
    pub fn new(facts: Facts, appliance: Option<Appliance>) -> Arc<Self> {
        Arc::new(Self {
            facts,
            appliance,
            state: Mutex::default(),
            connections: AtomicUsize::new(0),
        })
    }

    /// Serves until there is a reason to boot. `also` gets the other end's sender, for what else may end it.
    ///
    /// # Errors
    /// What the system says of a thread.
    pub fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        also: impl FnOnce(Sender<End>) -> io::Result<()>,
    ) -> io::Result<End> {
        let (end, ended) = channel();
        also(end.clone())?;
        let server = Arc::clone(self);
        std::thread::Builder::new().spawn(move || server.accept(&listener, &end))?;
        ended.recv().map_err(io::Error::other)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener, end: &Sender<End>) {
        loop {
            let Ok((stream, _)) = listener.accept() else {
                // Out of descriptors, or who asked is gone: either passes.
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            if self.connections.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
                drop(Counted(&self.connections));
                let _ = stream.set_write_timeout(Some(PATIENCE));
                let text = "too many ask at once; try again in a moment\n";
                let _ = answer(&stream, "503 Service Unavailable", "text/plain", text);
                continue;
            }
            let (server, end) = (Arc::clone(self), end.clone());
            let begun = std::thread::Builder::new().spawn(move || {
                let _counted = Counted(&server.connections);
                // Who broke off needs no answer.
                if let Ok(true) = server.talk(stream) {
                    let _ = end.send(End::Installed);
                }
            });
            if begun.is_err() {
                drop(Counted(&self.connections));
            }
        }
    }

    /// Answers one request; whether a release was installed.
    fn talk(&self, stream: TcpStream) -> io::Result<bool> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut input = BufReader::with_capacity(MAX_HEAD_BYTES, &stream);
        let head = match read_head(&mut input)? {
            Ok(head) => head,
            Err(bad) => {
                answer(&stream, bad.status(), "text/plain", &format!("{bad}\n"))?;
                return Ok(false);
            }
        };
        match head.asked {
            Asked::Page => {
                let page = page::html(&self.facts, &self.now());
                answer(&stream, "200 OK", "text/html; charset=utf-8", &page)?;
                Ok(false)
            }
            Asked::Status => {
                let said = page::json(&self.facts, &self.now());
                answer(
                    &stream,
                    "200 OK",
                    "application/json",
                    &format!("{said:#}\n"),
                )?;
                Ok(false)
            }
            Asked::Bundle | Asked::Form => self.take(&stream, input, head),
        }
    }

    fn take(&self, stream: &TcpStream, input: impl Read, head: Head) -> io::Result<bool> {
        if head.waits {
            (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut body = BufReader::new(Body::new(input, head.body_bytes, Instant::now()));
        let file_bytes = match head.asked {
            Asked::Form => skip_part_head(&mut body, head.body_bytes),
            _ => Ok(head.body_bytes),
        };
        let done = match (file_bytes, &self.appliance) {
            (Err(e), _) => Err((e.to_string(), "Choose a file.".to_owned())),
            (Ok(_), None) => Err((
                "no release is taken here: this box serves its house".to_owned(),
                "Use `altnet update install` on the box.".to_owned(),
            )),
            (Ok(len), Some(appliance)) => self.install(appliance, &mut body.by_ref().take(len)),
        };
        // What a form has behind its file, or all that comes after a refusal: who still sends wouldn't read the answer.
        body.into_inner().drain();
        let (status, is_done, text, hint) = match done {
            Ok(text) => ("200 OK", true, text, "It boots now.".to_owned()),
            Err((text, hint)) => ("422 Unprocessable Content", false, text, hint),
        };
        eprintln!("altnet-rescue: {text}");
        self.state().last = Some(format!("{text}. {hint}"));
        match head.asked {
            Asked::Form => {
                let page = page::html(&self.facts, &self.now());
                answer(stream, status, "text/html; charset=utf-8", &page)?;
            }
            _ => {
                let said = match is_done {
                    true => json!({ "installed": text }),
                    false => {
                        json!({ "error": { "code": "refused", "message": text, "hint": hint } })
                    }
                };
                answer(stream, status, "application/json", &format!("{said:#}\n"))?;
            }
        }
        Ok(is_done)
    }

    /// Installs what comes; what to say of it, or what is wrong and what to do.
    fn install(
        &self,
        appliance: &Appliance,
        body: &mut impl Read,
    ) -> Result<String, (String, String)> {
        let failed = |e: &Error| (e.to_string(), e.next_step().to_owned());
        let slot = appliance.running().other();
        let clock = SystemTime::now().duration_since(UNIX_EPOCH);
        let calendar = Calendar {
            now: clock.ok().map(|since| UnixTime::from_secs(since.as_secs())),
            floor: UnixTime::EPOCH,
        };
        let mut progress = |progress: Progress| self.state().progress = Some(progress);
        // Nothing worked here before; so the release is the good one once it ran for a minute.
        let before = Working::default();
        let name = Path::new("the bundle");
        let done = appliance.install_stream(name, None, body, calendar, before, &mut progress);
        if !matches!(done, Err(Error::Busy)) {
            self.state().progress = None;
        }
        match done {
            Ok(release) => Ok(format!("release {} is in slot {slot}", release.version)),
            Err(e) => Err(failed(&e)),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> State {
        let mut state = self.state().clone();
        if self.facts.is_rescue {
            state.lines = kernel::last_lines(Path::new(KERNEL_LOG));
        }
        state
    }
}

/// Reads a head, and leaves what comes behind it.
fn read_head(input: &mut BufReader<&TcpStream>) -> io::Result<Result<Head, BadHead>> {
    let began = Instant::now();
    let mut bytes = Vec::with_capacity(MAX_HEAD_BYTES);
    loop {
        let there = input.fill_buf()?;
        if there.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = bytes.len();
        let room = MAX_HEAD_BYTES - before;
        bytes.extend_from_slice(&there[..there.len().min(room)]);
        match head::parse(&bytes) {
            Ok(None) => {
                input.consume(bytes.len() - before);
                if began.elapsed() > HEAD_PATIENCE {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Ok(Some(head)) => {
                input.consume(head.head_bytes - before);
                return Ok(Ok(head));
            }
            Err(bad) => return Ok(Err(bad)),
        }
    }
}

fn answer(mut stream: &TcpStream, status: &str, kind: &str, text: &str) -> io::Result<()> {
    let len = text.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\nConnection: close\r\nCache-Control: no-store\r\n\
         Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'\r\n\
         X-Content-Type-Options: nosniff\r\n\r\n{text}"
    )?;
    stream.flush()
}
