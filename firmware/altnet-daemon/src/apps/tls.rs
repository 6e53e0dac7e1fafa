//! TLS of apps, which ends in a process of its own: `altnet-tls` (ADR 0010).
//!
//! In: what is to be served, callers' connections. Out: for each, a stream for what the caller's
//! machine sends and one for what it means. The process is started when there is something to do
//! for it, and again, ever later, when it ends. What it is told and what it makes goes over one
//! socket ([`altnet_wire::tls::talk`]); nothing in altnetd reads TLS.
//!
//! Bounded: [`WISHES`] wait for the process; while it isn't there, callers are turned away at once.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use altnet_core::node::{NewTlsKey, TlsKey, TlsSubject};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

mod process;

/// What may wait for the process.
pub const WISHES: usize = 64;
/// Keys that may wait for the node.
pub const KEYS: usize = 16;
/// The program, beside altnetd's own.
const PROGRAM: &str = "altnet-tls";

/// A key and its certificate.
#[derive(Clone, Debug)]
pub struct Certified {
    /// The secret key.
    pub key: TlsKey,
    /// The certificate in DER.
    pub certificate: Vec<u8>,
}

impl PartialEq for Certified {
    fn eq(&self, other: &Self) -> bool {
        self.certificate == other.certificate && self.key.expose() == other.key.expose()
    }
}

/// A key that was wished for; none if the process ended before it was made.
#[derive(Debug)]
pub struct KeyMade {
    /// What it is for.
    pub name: String,
    /// The key.
    pub key: Option<Box<NewTlsKey>>,
}

/// One thing for the process to do.
#[derive(Debug)]
enum Wish {
    /// What is served changed.
    Look,
    Make(String, TlsSubject),
    Connection {
        name: String,
        caller: OwnedFd,
        app: OwnedFd,
    },
}

#[derive(Debug, Default)]
struct Inside {
    served: BTreeMap<String, Certified>,
    /// What the process can't serve, and why.
    unfit: BTreeMap<String, String>,
    is_up: bool,
}

#[derive(Debug)]
struct Shared {
    command: PathBuf,
    inside: Mutex<Inside>,
}

impl Shared {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        // Nothing that holds it can leave it half changed.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a caller gets no TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTls {
    /// There is no certificate yet.
    #[error("it has no certificate yet; `altnet app list` says what it waits for")]
    NotCertified,
    /// The process isn't there.
    #[error("altnet-tls does not run; altnetd's log says why")]
    NotRunning,
    /// It has more to do than it can.
    #[error("too many callers at once")]
    Busy,
}

/// The task's ends of what others hold.
#[derive(Debug)]
struct Ends {
    wishes: mpsc::Receiver<Wish>,
    made: mpsc::Sender<KeyMade>,
}

/// TLS for the apps of this device.
#[derive(Clone, Debug)]
pub struct Tls {
    shared: Arc<Shared>,
    wishes: mpsc::Sender<Wish>,
    // Taken by the task, once there is something to do.
    ends: Arc<Mutex<Option<Ends>>>,
}

impl Tls {
    /// Prepares for the program `command`; without one, for the one beside altnetd's own. Returns
    /// the end from which the loop reads keys.
    pub fn new(command: Option<&Path>) -> (Self, mpsc::Receiver<KeyMade>) {
        let beside = || {
            let own = std::env::current_exe().unwrap_or_default();
            own.with_file_name(PROGRAM)
        };
        let (wishes, waiting) = mpsc::channel(WISHES);
        let (made_to, made) = mpsc::channel(KEYS);
        let shared = Shared {
            command: command.map_or_else(beside, Path::to_path_buf),
            inside: Mutex::default(),
        };
        let tls = Self {
            shared: Arc::new(shared),
            wishes,
            ends: Arc::new(Mutex::new(Some(Ends {
                wishes: waiting,
                made: made_to,
            }))),
        };
        (tls, made)
    }

    /// Serves exactly `served` from now on, by the names of apps.
    pub fn serve(&self, served: BTreeMap<String, Certified>) {
        let mut inside = self.shared.inside();
        if inside.served == served {
            return;
        }
        let has_some = !served.is_empty();
        inside.unfit.clear();
        inside.served = served;
        drop(inside);
        if has_some {
            self.begin();
        }
        // If it is full the task will look anyhow, since it looks before each wish.
        let _ = self.wishes.try_send(Wish::Look);
    }

    /// Wishes for a key. Returns whether there was room for the wish; the key, or that there is
    /// none, comes later.
    pub fn make(&self, name: &str, subject: TlsSubject) -> bool {
        self.begin();
        self.wishes
            .try_send(Wish::Make(name.into(), subject))
            .is_ok()
    }

    /// Why `name` can't be served, if the process said so.
    pub fn unfit(&self, name: &str) -> Option<String> {
        self.shared.inside().unfit.get(name).cloned()
    }

    /// Has TLS ended for one caller of `name`. Returns a stream for what the caller's machine
    /// sends and takes, and one for what is meant by it.
    pub(super) fn connect(&self, name: &str) -> Result<(UnixStream, UnixStream), NoTls> {
        {
            let inside = self.shared.inside();
            if !inside.served.contains_key(name) || inside.unfit.contains_key(name) {
                return Err(NoTls::NotCertified);
            }
            if !inside.is_up {
                return Err(NoTls::NotRunning);
            }
        }
        let pair = || -> io::Result<(UnixStream, OwnedFd)> {
            let (near, far) = UnixStream::pair()?;
            Ok((near, far.into_std()?.into()))
        };
        // Without a descriptor to be had there is no connection.
        let (near_caller, caller) = pair().map_err(|_| NoTls::Busy)?;
        let (near_app, app) = pair().map_err(|_| NoTls::Busy)?;
        let wish = Wish::Connection {
            name: name.into(),
            caller,
            app,
        };
        self.wishes.try_send(wish).map_err(|_| NoTls::Busy)?;
        Ok((near_caller, near_app))
    }

    /// Starts the task that has the process run. It ends once the last [`Tls`] is dropped.
    fn begin(&self) {
        let ends = self.ends.lock();
        let ends = ends.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ends) = ends {
            tokio::spawn(process::run(Arc::clone(&self.shared), ends));
        }
    }
}
