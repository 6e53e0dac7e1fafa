//! What the process with the sockets and the one with the privileges say to each other: postcard, each message with its length before it.

use std::io::{self, Read, Write};

use altnet_claim::frame;
use altnet_claim::tries::Tries;
use altnet_claim::words::{ToBox, ToComputer};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// What the one with the sockets asks for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Wish<'a> {
    /// Write down that a code is tried.
    Count,
    /// The last one was right.
    GiveBack,
    /// Files, and to take them.
    Bring(#[serde(borrow)] ToBox<'a>),
}

/// What the other one answers.
#[derive(Serialize, Deserialize)]
pub enum Answer {
    /// The first thing: what a pairing needs.
    Ready {
        /// The box's key.
        key: Zeroizing<[u8; 32]>,
        /// The code.
        code: Zeroizing<String>,
        /// Tries of this power-on, and in all.
        tries: (u8, u32),
    },
    /// It is written down; None if no more may be tried.
    Counted(Option<(u8, u32)>),
    /// What became of the files.
    Said(ToComputer),
    /// That is the end of it.
    Ended,
}

/// Tries as they are said here.
pub const fn spoken(tries: Tries) -> (u8, u32) {
    (tries.now, tries.total)
}

/// Tries as they were said.
pub const fn heard((now, total): (u8, u32)) -> Tries {
    Tries { now, total }
}

/// A message with its length.
///
/// # Errors
/// It is too long, which none of these is.
pub fn encode(message: &impl Serialize) -> io::Result<Zeroizing<Vec<u8>>> {
    let bytes = Zeroizing::new(postcard::to_allocvec(message).map_err(io::Error::other)?);
    frame::encode(&bytes)
        .map(Zeroizing::new)
        .map_err(io::Error::other)
}

/// Writes a message.
///
/// # Errors
/// The other process is gone.
pub fn write(out: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    out.write_all(&encode(message)?)?;
    out.flush()
}

/// Reads the bytes of a message; None at the end.
///
/// # Errors
/// The other process is gone in the midst of a message, or says something else.
pub fn read(from: &mut impl Read) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut length = [0; 2];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = frame::length(length).map_err(io::Error::other)?;
    let mut bytes = Zeroizing::new(vec![0; length]);
    from.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

/// Reads what is in them.
///
/// # Errors
/// The other process says something else.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(io::Error::other)
}
