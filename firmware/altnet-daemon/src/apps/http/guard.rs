//! What may pass for HTTP/1.1 (RFC 9112) on its way from a caller to hyper.
//!
//! A proxy and a server that read one stream of bytes differently can be made to see different
//! requests. hyper is lenient where the standard lets it be; this reads the same bytes first,
//! lets through only what can be read in one way, and replaces everything from the first
//! ambiguity on by one request that says so ([`REFUSED`]).
//!
//! In: bytes as they come. Out: the same bytes, whole heads at a time, chunks without extensions.
//! Bounded by [`MAX_HEAD_BYTES`] and its kin; it copies and never looks ahead into a tunnel.

use super::head::{Fault, MAX_TARGET_BYTES, Next, chunk_size, read_fields, read_head};

/// The longest head of a request, and the longest trailers, in bytes.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The longest line that begins a chunk, extensions included.
const MAX_CHUNK_LINE_BYTES: usize = 256;

/// The method of a request that stands for a refused one; its target is `/` and a status. No
/// caller's request has it: methods are letters here.
pub const REFUSED: &str = "!";

/// Reads along with a connection.
#[derive(Debug)]
pub struct Guard {
    state: State,
    line: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes of a body are left.
    Body(u64),
    ChunkLine,
    /// So many bytes of a chunk are left, its final CR LF included.
    Chunk(u64),
    Trailers,
    /// A caller asked to leave HTTP: what follows means nothing before the answer.
    Parting,
    Tunnel,
    Refused,
}

/// What became of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// So many were read, and what may pass of them was written.
    Bytes(usize),
    /// Nothing more passes before [`Guard::part`].
    Nothing,
    /// A request was refused; the one that says so was written.
    Refused,
    /// The rest of a request that began well was refused: it can only be broken off.
    Broken(Fault),
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            state: State::Head,
            line: Vec::new(),
        }
    }
}

impl Guard {
    /// Whether bytes would be read now.
    pub fn is_parting(&self) -> bool {
        self.state == State::Parting
    }

    /// Decides what the bytes behind a request to leave HTTP are: a tunnel's, or a next request.
    pub fn part(&mut self, is_tunnel: bool) {
        if self.is_parting() {
            self.state = if is_tunnel {
                State::Tunnel
            } else {
                State::Head
            };
        }
    }

    /// Reads `input` up to the next end of anything, and writes to `output` what may pass.
    pub fn pass(&mut self, input: &[u8], output: &mut Vec<u8>) -> Passed {
        match self.state {
            State::Head => self.pass_head(input, output),
            State::Body(left) => {
                let len = copy(input, left, output);
                self.state = match left - len as u64 {
                    0 => State::Head,
                    left => State::Body(left),
                };
                Passed::Bytes(len)
            }
            State::ChunkLine => self.pass_chunk_line(input, output),
            State::Chunk(left) => self.pass_chunk(left, input, output),
            State::Trailers => self.pass_trailers(input, output),
            State::Tunnel => {
                output.extend_from_slice(input);
                Passed::Bytes(input.len())
            }
            State::Parting => Passed::Nothing,
            // Swallowed, so that the caller can say all and hears the answer.
            State::Refused => Passed::Bytes(input.len()),
        }
    }

    fn pass_head(&mut self, input: &[u8], output: &mut Vec<u8>) -> Passed {
        let (taken, is_whole) = match self.collect(input, MAX_HEAD_BYTES) {
            Ok(collected) => collected,
            Err(fault) => return self.refuse(fault, output),
        };
        if !is_whole {
            return Passed::Bytes(taken);
        }
        match read_head(&self.line) {
            Ok(Next::Head) => self.state = State::Head,
            Ok(Next::Body(len)) => self.state = State::Body(len),
            Ok(Next::Chunks) => self.state = State::ChunkLine,
            Ok(Next::Parting) => self.state = State::Parting,
            Err(fault) => return self.refuse(fault, output),
        }
        output.append(&mut self.line);
        Passed::Bytes(taken)
    }

    fn refuse(&mut self, fault: Fault, output: &mut Vec<u8>) -> Passed {
        self.state = State::Refused;
        self.line = Vec::new();
        let status = fault.status();
        let request =
            format!("{REFUSED} /{status} HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n");
        output.extend_from_slice(request.as_bytes());
        Passed::Refused
    }

    /// Collects bytes up to an empty line. Returns how many were taken and whether it came.
    fn collect(&mut self, input: &[u8], limit: usize) -> Result<(usize, bool), Fault> {
        for (i, byte) in input.iter().enumerate() {
            // RFC 9112 section 2.2: empty lines before a request line are to be passed over.
            if self.state == State::Head && matches!(self.line.as_slice(), b"\r\n") {
                self.line.clear();
            }
            // CR and LF stand for nothing alone, whatever some servers take them for.
            if (*byte == b'\n') != (self.line.last() == Some(&b'\r')) {
                return Err(Fault::Malformed);
            }
            self.line.push(*byte);
            if self.line.ends_with(b"\r\n\r\n") {
                return Ok((i + 1, true));
            }
            if self.line.len() > limit {
                let target = self.line.split(|b| *b == b' ').nth(1);
                let is_target = target.is_some_and(|target| target.len() > MAX_TARGET_BYTES);
                return Err(if is_target {
                    Fault::TooLong
                } else {
                    Fault::TooLarge
                });
            }
        }
        Ok((input.len(), false))
    }

    fn pass_chunk_line(&mut self, input: &[u8], output: &mut Vec<u8>) -> Passed {
        for (i, byte) in input.iter().enumerate() {
            self.line.push(*byte);
            if self.line.ends_with(b"\r\n") {
                let Some(size) = chunk_size(&self.line[..self.line.len() - 2]) else {
                    return self.break_off(Fault::Malformed);
                };
                output.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                self.line.clear();
                self.state = match size {
                    0 => State::Trailers,
                    // At most 16 hexadecimal digits less one were read.
                    size => State::Chunk(size + 2),
                };
                return Passed::Bytes(i + 1);
            }
            if self.line.len() > MAX_CHUNK_LINE_BYTES {
                return self.break_off(Fault::Malformed);
            }
        }
        Passed::Bytes(input.len())
    }

    fn pass_chunk(&mut self, left: u64, input: &[u8], output: &mut Vec<u8>) -> Passed {
        if left > 2 {
            let len = copy(input, left - 2, output);
            self.state = State::Chunk(left - len as u64);
            return Passed::Bytes(len);
        }
        // The CR LF behind a chunk.
        let expected = if left == 2 { b'\r' } else { b'\n' };
        match input.first() {
            None => return Passed::Bytes(0),
            Some(byte) if *byte == expected => output.push(expected),
            Some(_) => return self.break_off(Fault::Malformed),
        }
        self.state = match left {
            2 => State::Chunk(1),
            _ => State::ChunkLine,
        };
        Passed::Bytes(1)
    }

    fn pass_trailers(&mut self, input: &[u8], output: &mut Vec<u8>) -> Passed {
        if self.line.is_empty() {
            // So that the end of none looks like the end of some.
            self.line.extend_from_slice(b"\r\n");
        }
        let (taken, is_whole) = match self.collect(input, MAX_HEAD_BYTES) {
            Ok(collected) => collected,
            Err(fault) => return self.break_off(fault),
        };
        if is_whole {
            let fields = &self.line[2..];
            let lines = fields.strip_suffix(b"\r\n").unwrap_or_default();
            if let Err(fault) = read_fields(lines) {
                return self.break_off(fault);
            }
            output.extend_from_slice(fields);
            self.line.clear();
            self.state = State::Head;
        }
        Passed::Bytes(taken)
    }

    fn break_off(&mut self, fault: Fault) -> Passed {
        self.state = State::Refused;
        self.line = Vec::new();
        Passed::Broken(fault)
    }
}

fn copy(input: &[u8], left: u64, output: &mut Vec<u8>) -> usize {
    let len = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
    output.extend_from_slice(&input[..len]);
    len
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What passes of `input`, given in pieces of `piece` bytes, and how it ended.
    fn run(input: &[u8], piece: usize) -> (Vec<u8>, Passed) {
        let mut guard = Guard::default();
        let mut output = Vec::new();
        for mut bytes in input.chunks(piece) {
            while !bytes.is_empty() {
                match guard.pass(bytes, &mut output) {
                    Passed::Bytes(len) => bytes = &bytes[len..],
                    ended => return (output, ended),
                }
            }
        }
        (output, Passed::Bytes(0))
    }

    #[track_caller]
    fn check(input: &str, expected: Result<&str, Fault>) {
        for piece in [1, 7, usize::MAX] {
            let (output, ended) = run(input.as_bytes(), piece.min(input.len()));
            let output = String::from_utf8(output).unwrap();
            match expected {
                Ok(text) => assert_eq!((output.as_str(), ended), (text, Passed::Bytes(0))),
                Err(fault) => {
                    let refused = format!("! /{} HTTP/1.1\r\n", fault.status());
                    let is_refused = ended == Passed::Refused && output.contains(&refused);
                    assert!(
                        is_refused || ended == Passed::Broken(fault),
                        "{input:?}: {ended:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn requests_pass_as_they_are() {
        let get = "GET /a?b=c HTTP/1.1\r\nHost: wiki\r\nX: \u{e4}\t\r\n\r\n";
        check(get, Ok(get));
        check(&format!("\r\n{get}\r\n{get}"), Ok(&format!("{get}{get}")));
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /";
        check(&format!("{post}{get}"), Ok(&format!("{post}{get}")));
        let old = "GET / HTTP/1.0\r\n\r\n";
        check(old, Ok(old));
        let all = "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n";
        check(all, Ok(all));
    }

    #[test]
    fn chunks_pass_without_extensions() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(
            &format!("{head}3;a=b\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\nGET / HTTP/1.0\r\n\r\n"),
            Ok(&format!(
                "{head}3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\nGET / HTTP/1.0\r\n\r\n"
            )),
        );
        let trailers = format!("{head}0\r\nA: b\r\nC: d\r\n\r\n");
        check(&trailers, Ok(&trailers));
        for bad in [
            "3\nabc\r\n",
            "3\r\nabcd",
            "3\r\nabc\n",
            "\r\n",
            "-1\r\n",
            "0x3\r\n",
            "3 a\r\n",
            "3;\u{1}\r\n",
            "ffffffffffffffff\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\nA: b\n\r\n\r\n",
            "0\r\n folded\r\n\r\n",
        ] {
            check(&format!("{head}{bad}"), Err(Fault::Malformed));
        }
    }

    #[test]
    fn sizes_are_bounded() {
        let long = "a".repeat(MAX_TARGET_BYTES);
        check(
            &format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
            Err(Fault::TooLong),
        );
        let longer = "a".repeat(MAX_HEAD_BYTES);
        check(&format!("GET /{longer}"), Err(Fault::TooLong));
        check(
            &format!("GET / HTTP/1.1\r\nX: {longer}"),
            Err(Fault::TooLarge),
        );
    }

    #[test]
    fn a_bare_line_feed_ends_no_head() {
        check(
            "GET / HTTP/1.1\nHost: a\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            Err(Fault::Malformed),
        );
    }

    #[test]
    fn nothing_passes_while_a_caller_parts() {
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\n\r\n";
        for (is_tunnel, later) in [
            (true, &b"\x81\x05hello"[..]),
            (false, b"GET / HTTP/1.0\r\n\r\n"),
        ] {
            let mut guard = Guard::default();
            let mut output = Vec::new();
            assert_eq!(
                guard.pass(request, &mut output),
                Passed::Bytes(request.len())
            );
            output.clear();
            assert!(guard.is_parting());
            assert_eq!(guard.pass(later, &mut output), Passed::Nothing);
            guard.part(is_tunnel);
            assert_eq!(guard.pass(later, &mut output), Passed::Bytes(later.len()));
            assert_eq!(output, later);
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "GET / HTTP/1.1\r\n", "POST /a HTTP/1.1\r\n", "Host: a\r\n", "\r\n", "\n", "\r", " ",
                "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n", "0\r\n",
                "abc", "Upgrade: websocket\r\n", ":", "\0", "a: b\r\n",
            ]), 0..16),
            piece in 1usize..9,
        ) {
            let input = parts.concat();
            prop_assert_eq!(run(input.as_bytes(), piece), run(input.as_bytes(), input.len().max(1)));
        }

        #[test]
        fn no_bytes_panic(input in proptest::collection::vec(any::<u8>(), 0..512), piece in 1usize..64) {
            let _ = run(&input, piece);
        }
    }
}
