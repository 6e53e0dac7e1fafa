//! As much of a DNS message as a forwarder must understand: its question, and its end.
//!
//! Source: RFC 1035 sections 4.1 and 4.2.2.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HEADER_BYTES: usize = 12;
const MAX_NAME_BYTES: usize = 255;
pub(super) const SERVER_FAILURE: u8 = 2;

pub(super) async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = vec![0; len.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

pub(super) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = Vec::with_capacity(2 + message.len());
    framed.extend_from_slice(&len.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

/// The bytes of the one question of a message: name, type and class. Nothing if there is not
/// exactly one, or if its name is compressed, which no question needs.
pub(super) fn question(message: &[u8]) -> Option<&[u8]> {
    if message.get(4..6) != Some(&[0, 1]) {
        return None;
    }
    let body = message.get(HEADER_BYTES..)?;
    let mut at = 0;
    loop {
        match usize::from(*body.get(at)?) {
            0 => break,
            len if len < 64 => at += 1 + len,
            _ => return None,
        }
    }
    let end = at + 1;
    if end > MAX_NAME_BYTES {
        return None;
    }
    body.get(..end + 4)
}

/// Whether a question's name is `alt` or under it.
pub(super) fn is_alt(question: &[u8]) -> bool {
    let mut last: &[u8] = &[];
    let mut rest = question;
    while let Some((len, behind)) = rest.split_first() {
        let Some((label, behind)) = behind.split_at_checked((*len).into()) else {
            return true; // not a name; better kept here
        };
        if label.is_empty() {
            break;
        }
        (last, rest) = (label, behind);
    }
    last.eq_ignore_ascii_case(b"alt")
}

/// SERVFAIL to `query`, with its question (RFC 1035 section 4.1.1).
pub(super) fn failure(query: &[u8]) -> Option<Vec<u8>> {
    let question = question(query)?;
    let mut answer = query.get(..HEADER_BYTES)?.to_vec();
    // QR, the query's opcode and RD; RA, and no counts but the question's.
    answer[2] = 0x80 | (answer[2] & 0x79);
    answer[3] = 0x80 | SERVER_FAILURE;
    answer[6..].fill(0);
    answer.extend_from_slice(question);
    Some(answer)
}

/// The beginning of an answer that is too long to be passed on: it says that there is more
/// (TC), so that its reader asks again over TCP (RFC 7766 section 5).
pub(super) fn truncated(answer: &[u8]) -> Option<Vec<u8>> {
    let question = question(answer)?;
    let mut cut = answer.get(..HEADER_BYTES)?.to_vec();
    cut[2] |= 2;
    cut[6..].fill(0);
    cut.extend_from_slice(question);
    Some(cut)
}

#[cfg(test)]
pub(super) mod testing {
    pub(in super::super) fn query(id: u16, name: &str) -> Vec<u8> {
        let mut bytes = id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.').filter(|label| !label.is_empty()) {
            bytes.push(label.len() as u8);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.extend_from_slice(&[0, 0, 28, 0, 1]);
        bytes
    }

    pub(in super::super) fn answer_to(query: &[u8]) -> Vec<u8> {
        let mut answer = query.to_vec();
        answer[2] |= 0x80;
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::testing::query;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_alt_is_alt() {
        let check = |name: &str, expected| {
            assert_eq!(
                is_alt(question(&query(1, name)).unwrap()),
                expected,
                "{name}"
            );
        };
        check("alt", true);
        check("wiki.home.ALT", true);
        check("alt.example", false);
        check("salt", false);
        check("", false);
    }

    proptest! {
        #[test]
        fn no_message_makes_the_reader_panic(message: Vec<u8>) {
            if let Some(question) = question(&message) {
                let _ = is_alt(question);
            }
            let _ = (failure(&message), truncated(&message));
            let _ = is_alt(&message);
        }
    }
}
