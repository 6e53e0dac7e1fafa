//! A box in rescue: what it says is wrong, and bringing it a release.
//!
//! The box serves one page over plain HTTP, since nothing on it could prove who it is; what it installs it judges by its signatures. So
//! what is said here to a person is what somebody on the LAN claims, and what is sent is nothing secret.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, release};

/// Where a box in rescue is, on each of its LAN's ports.
pub const ADDRESS: &str = "192.168.1.1";
const PORT: u16 = 80;
/// How long it may take to be reached, and to take some bytes.
const REACHED: Duration = Duration::from_secs(10);
const TAKEN: Duration = Duration::from_secs(120);
/// How long a card may take to read a slot back.
const ANSWERED: Duration = Duration::from_secs(600);
/// The most bytes of an answer.
const MAX_ANSWER_BYTES: u64 = 256 * 1024;
/// A bundle is sent so many bytes at a time.
const PIECE_BYTES: usize = 64 * 1024;
const BAD_REQUEST: u16 = 400;
const CONNECT: &str = "Plug a cable from this computer into a LAN port of the box, let the computer get an address there (it is in 192.168.1.0/24), and try again. A box that boots isn't in rescue.";

/// What a box says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `rescue`, or `serving` if it serves its house.
    pub state: String,
    /// Its board.
    pub board: String,
    /// The release that is in the slot it came from.
    pub version: String,
    /// That slot.
    pub slot: String,
    /// Why it is in rescue, for people.
    pub why: String,
    /// The kernel's last lines.
    #[serde(default)]
    pub log: Vec<String>,
}

/// Asks a box how it is.
///
/// # Errors
/// [`Error::Directory`] if nobody answers there, or not as a box does.
pub fn status(address: &str) -> Result<Status> {
    let mut stream = connect(address)?;
    let request = format!("GET /status HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let answered = stream
        .write_all(request.as_bytes())
        .and_then(|()| answer(stream));
    let (_, body) = answered.map_err(|e| broke_off(address, &e))?;
    serde_json::from_slice(&body).map_err(|_| no_box(address))
}

/// Sends a box a bundle, and waits until it has it in a slot. `tell` hears of bytes sent, and of how many.
///
/// # Errors
/// [`Error::NotAllowed`] with the box's reason if it refuses; others if the bundle isn't one for it, or it isn't reached.
pub fn install(address: &str, bundle: &Path, tell: &mut dyn FnMut(u64, u64)) -> Result<String> {
    let summary = release::show(bundle)?;
    let status = status(address)?;
    if status.state != "rescue" {
        return Err(Error::NotAllowed {
            what: format!("the box at {address} serves its house, and takes no release from here"),
            next: "Run `altnet update install FILE` on the box.".into(),
        });
    }
    if summary.board != status.board {
        return Err(Error::Input {
            what: format!(
                "{} is for {}, and the box is a {}",
                bundle.display(),
                summary.board,
                status.board
            ),
            next: "Bring the bundle for its board.".into(),
        });
    }
    let read = |source| Error::Io {
        doing: "read",
        path: bundle.into(),
        source,
    };
    let mut file = File::open(bundle).map_err(read)?;
    let total = file.metadata().map_err(read)?.len();
    let mut stream = connect(address)?;
    let head = format!(
        "PUT /bundle HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/octet-stream\r\nContent-Length: {total}\r\nConnection: close\r\n\r\n"
    );
    let mut sent = stream.write_all(head.as_bytes());
    let (mut piece, mut done) = (vec![0; PIECE_BYTES], 0);
    // A box that has refused it may hear no more; its answer says why.
    while sent.is_ok() {
        let len = file.read(&mut piece).map_err(read)?;
        if len == 0 {
            break;
        }
        sent = stream.write_all(&piece[..len]);
        done += len as u64;
        tell(done.min(total), total);
    }
    let (code, body) =
        answer(stream).map_err(|e| broke_off(address, sent.as_ref().err().unwrap_or(&e)))?;
    #[derive(Deserialize)]
    struct Answer {
        installed: Option<String>,
        error: Option<Refused>,
    }
    #[derive(Deserialize)]
    struct Refused {
        message: String,
        hint: String,
    }
    match serde_json::from_slice(&body) {
        Ok(Answer {
            installed: Some(said),
            ..
        }) if code < BAD_REQUEST => Ok(said),
        Ok(Answer {
            error: Some(refused),
            ..
        }) => Err(Error::NotAllowed {
            what: refused.message,
            next: refused.hint,
        }),
        _ => Err(no_box(address)),
    }
}

fn connect(address: &str) -> Result<TcpStream> {
    let unreached = |why: String| Error::Directory {
        what: format!("no box answers at {address}: {why}"),
        next: CONNECT.into(),
    };
    let resolved = match address.to_socket_addrs() {
        Ok(found) => Ok(found),
        Err(_) => (address.trim_matches(['[', ']']), PORT).to_socket_addrs(),
    };
    let mut why = "there is no such address".to_owned();
    for at in resolved.map_err(|e| unreached(e.to_string()))? {
        let stream = TcpStream::connect_timeout(&at, REACHED);
        let set = stream.and_then(|stream| {
            stream.set_read_timeout(Some(ANSWERED))?;
            stream.set_write_timeout(Some(TAKEN))?;
            Ok(stream)
        });
        match set {
            Ok(stream) => return Ok(stream),
            Err(e) => why = e.to_string(),
        }
    }
    Err(unreached(why))
}

/// Reads an answer that ends with its connection: its status and its body.
fn answer(stream: TcpStream) -> io::Result<(u16, Vec<u8>)> {
    let mut bytes = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes)?;
    parsed(&bytes)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is no answer of a box's"))
}

/// An answer's status (RFC 9112 section 4) and its body.
fn parsed(bytes: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = bytes.windows(4).position(|found| found == b"\r\n\r\n")?;
    let (head, body) = (std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 4..]);
    let code = head
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()?;
    Some((code, body.to_vec()))
}

fn broke_off(address: &str, source: &io::Error) -> Error {
    Error::Directory {
        what: format!("the box at {address} broke off: {source}"),
        next: "Run the same command again: what was half installed is begun anew.".into(),
    }
}

fn no_box(address: &str) -> Error {
    Error::Directory {
        what: format!("what answers at {address} is no box in rescue"),
        next: CONNECT.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_what_comes_behind_its_head() {
        let found = parsed(b"HTTP/1.1 422 Unprocessable Content\r\nA: b\r\n\r\n{}\r\n\r\n");
        assert_eq!(found, Some((422, b"{}\r\n\r\n".to_vec())));
        for bad in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1\r\n\r\n",
            "HTTP/1.1 99999 x\r\n\r\n",
        ] {
            assert_eq!(parsed(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn nobody_there_is_told_with_what_to_do() {
        // A port that was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let said = status(&address).unwrap_err();
        assert!(
            said.to_string().contains("no box answers at 127.0.0.1:"),
            "{said}"
        );
        assert!(
            said.next_step().contains("LAN port"),
            "{}",
            said.next_step()
        );
    }

    #[test]
    fn somebody_else_who_answers_is_no_box() {
        for said in ["HTTP/1.0 200 OK\r\n\r\n<html>", "220 mail\r\n", ""] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let served = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(said.as_bytes());
            });
            assert!(
                matches!(status(&address), Err(Error::Directory { .. })),
                "{said}"
            );
            served.join().unwrap();
        }
    }
}
