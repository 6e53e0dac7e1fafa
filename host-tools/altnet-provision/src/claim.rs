//! Claiming a box over its LAN: finding it, proving to have its code, handing it what it needs.
//!
//! [`find::find`] asks the LAN by multicast DNS; [`Visit`] is a connection to a box that has said what it is and proved nothing;
//! [`Claim`] is one to the box that has the same code. What is said there is `altnet-claim`'s, and why is in
//! `firmware/docs/adr/0028-claiming.md`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use altnet_claim::code::{CHANCE_BYTES, Code};
use altnet_claim::frame;
use altnet_claim::hello::{Hello, HelloError, State};
use altnet_claim::key::{BoxKey, Fingerprint};
use altnet_claim::pairing::{Asking, Channel, PairingError};
use altnet_claim::words::{File, ToComputer, parcel};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::chance;
use crate::error::{Error, Result};

pub mod find;

/// How long a box may take to answer the call.
const CALL: Duration = Duration::from_secs(5);
/// How long it may take with its next message: it waits up to a minute itself where many codes were tried.
const ANSWER: Duration = Duration::from_secs(90);
const AGAIN: &str = "Switch the box off and on, and try again within ten minutes.";

/// A connection to a box that has said what it is. Nobody vouches for that yet.
pub struct Visit {
    stream: TcpStream,
    address: SocketAddr,
    said: Vec<u8>,
    hello: Hello,
}

impl Visit {
    /// Calls a box.
    ///
    /// # Errors
    /// [`Error::Claim`] if nobody answers, or no box that can be claimed now.
    pub fn call(address: SocketAddr) -> Result<Self> {
        let unreached = |source: io::Error| {
            Error::Claim {
            what: format!("no box answers at {address}: {source}"),
            next: "A box that is in no network answers on its LAN ports alone, from some seconds after it was switched on. Look at its page, http://ADDRESS/, or leave the address out to look for it.".into(),
        }
        };
        let mut stream = TcpStream::connect_timeout(&address, CALL).map_err(unreached)?;
        stream.set_nodelay(true).map_err(unreached)?;
        stream.set_write_timeout(Some(ANSWER)).map_err(unreached)?;
        stream.set_read_timeout(Some(CALL)).map_err(unreached)?;
        let said = receive(&mut stream).map_err(unreached)?.to_vec();
        let hello = Hello::decode(&said).map_err(|error| Error::Claim {
            what: format!("what answers at {address} can't be claimed: {error}"),
            next: match error {
                HelloError::Version { .. } => {
                    "Use an altnet-provision of the box's age, or write its disk anew.".into()
                }
                _ => "Look whether that is the box's address.".into(),
            },
        })?;
        Ok(Self {
            stream,
            address,
            said,
            hello,
        })
    }

    /// What the box says of itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Its fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        self.hello.key.fingerprint()
    }

    /// Whether it can be claimed now.
    ///
    /// # Errors
    /// [`Error::Claim`] with why not.
    pub fn check_open(&self) -> Result<()> {
        let (what, next) = match self.hello.state {
            State::Open => return Ok(()),
            State::TimeOver => ("the box's ten minutes are over", AGAIN),
            State::TriesUsed => (
                "as many codes were tried as may be: somebody typed a wrong one again and again, or somebody on the LAN guesses",
                AGAIN,
            ),
            State::Busy => (
                "the box talks with somebody else who claims it, or has been claimed",
                "Wait a minute and try again. If it goes on, and nobody else has its code, switch it off and on.",
            ),
        };
        Err(Error::Claim {
            what: what.into(),
            next: next.into(),
        })
    }

    /// Proves to have the code, and has the box prove it. A wrong code costs one of the box's tries.
    ///
    /// # Errors
    /// [`Error::WrongCode`]; [`Error::Claim`].
    pub fn pair(mut self, code: &Code) -> Result<Claim> {
        self.check_open()?;
        let left = self.hello.tries_left.saturating_sub(1);
        let wrong = || Error::WrongCode { left };
        let broken = |error: io::Error| unheard(&error);
        self.stream.set_read_timeout(Some(ANSWER)).map_err(broken)?;
        let refused = |error: PairingError| match error {
            PairingError::WrongCode => wrong(),
            other => unsaid(other),
        };
        let (asking, message) =
            Asking::begin(&self.said, code, chance::secret()?).map_err(refused)?;
        send(&mut self.stream, &message).map_err(broken)?;
        let answer = receive(&mut self.stream).map_err(broken)?;
        let (proving, message) = asking.prove(&answer).map_err(refused)?;
        send(&mut self.stream, &message).map_err(broken)?;
        // A box that has another code says nothing more.
        let answer = receive(&mut self.stream).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => wrong(),
            _ => unheard(&error),
        })?;
        let channel = proving.finish(&answer).map_err(refused)?;
        let (stream, key) = (self.stream, self.hello.key);
        Ok(Claim {
            stream,
            channel,
            key,
            address: self.address,
        })
    }
}

/// A connection to the box that has the same code.
pub struct Claim {
    stream: TcpStream,
    channel: Channel,
    key: BoxKey,
    address: SocketAddr,
}

impl Claim {
    /// The key that it paired with.
    pub fn key(&self) -> BoxKey {
        self.key
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hands files over, and waits until the box has taken all of them.
    ///
    /// # Errors
    /// [`Error::Refused`] with what is wrong with which, and then it has taken none; [`Error::Claim`].
    pub fn hand_over(&mut self, files: &[File]) -> Result<()> {
        for said in parcel(files) {
            let sealed = self.channel.seal(&said.encode()).map_err(unsaid)?;
            send(&mut self.stream, &sealed).map_err(|error| unheard(&error))?;
        }
        let mut wrong = Vec::new();
        let until = Instant::now() + ANSWER;
        loop {
            match self.hear(until) {
                Ok(Some(ToComputer::AllTaken)) => return Ok(()),
                Ok(Some(ToComputer::NotTaken { name, why })) => wrong.push(format!("{}: {why}", name.as_str())),
                Ok(Some(ToComputer::Failed { why })) => wrong.push(why),
                Ok(Some(_)) => {}
                // It hangs up when it has said what is wrong.
                Ok(None) | Err(_) if !wrong.is_empty() => return Err(Error::Refused { what: wrong.join("; ") }),
                Ok(None) => return Err(Error::Claim {
                    what: "the box doesn't say what became of the files".into(),
                    next: "Look at its page and its console. `altnet-provision claim` begins again as long as it is open.".into(),
                }),
                Err(error) => return Err(error),
            }
        }
    }

    /// What the box says next; None if it says nothing until then.
    ///
    /// # Errors
    /// [`Error::Claim`]: the connection is gone.
    pub fn hear(&mut self, until: Instant) -> Result<Option<ToComputer>> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        self.stream
            .set_read_timeout(Some(left))
            .map_err(|error| unheard(&error))?;
        let sealed = match receive(&mut self.stream) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                return Ok(None);
            }
            other => other.map_err(|error| unheard(&error))?,
        };
        let plain = self.channel.open(&sealed).map_err(unsaid)?;
        let said = ToComputer::decode(&plain).map_err(|error| Error::Claim {
            what: error.to_string(),
            next: "Use an altnet-provision of the box's age.".into(),
        })?;
        Ok(Some(said))
    }
}

/// A box as it is told of. The field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct BoxSummary {
    /// Where it answers.
    pub address: SocketAddr,
    /// Its key's fingerprint.
    pub fingerprint: String,
    /// What board it says it is.
    pub board: String,
    /// What it says runs on it.
    pub version: String,
}

impl Visit {
    /// The box as it is told of.
    pub fn summary(&self) -> BoxSummary {
        BoxSummary {
            address: self.address,
            fingerprint: self.fingerprint().to_string(),
            board: self.hello.board.clone(),
            version: self.hello.version.clone(),
        }
    }
}

/// Makes a code for a box that is yet to be written.
///
/// # Errors
/// [`Error::NotAllowed`] if the system gives no chance.
pub fn new_code() -> Result<Code> {
    let mut bytes = Zeroizing::new([0; CHANCE_BYTES]);
    chance::fill(bytes.as_mut_slice())?;
    Ok(Code::new(&bytes))
}

fn unheard(error: &io::Error) -> Error {
    Error::Claim {
        what: format!("the connection to the box is gone: {error}"),
        next: "Look at the box's page, and try again.".into(),
    }
}

fn unsaid(error: PairingError) -> Error {
    Error::Claim {
        what: error.to_string(),
        next: "Somebody on the LAN may be between this computer and the box. Connect the two by a cable, and try again.".into(),
    }
}

fn send(out: &mut impl Write, message: &[u8]) -> io::Result<()> {
    out.write_all(&frame::encode(message).map_err(io::Error::other)?)?;
    out.flush()
}

fn receive(from: &mut impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut length = [0; 2];
    from.read_exact(&mut length)?;
    let length = frame::length(length).map_err(io::Error::other)?;
    let mut message = Zeroizing::new(vec![0; length]);
    from.read_exact(&mut message)?;
    Ok(message)
}
