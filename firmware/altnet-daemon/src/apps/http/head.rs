//! One request's head, read in the strictest way that RFC 9112 allows.
//!
//! In: a head, whole. Out: what follows it, or why it isn't passed on. It knows nothing of streams.

/// The longest request target. RFC 9110 section 4.1 asks for 8000 at least.
pub const MAX_TARGET_BYTES: usize = 8000;
/// The most fields in a head.
pub const MAX_FIELDS: usize = 96;

/// Why nothing more passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It can't be read in one way only, or isn't served here.
    #[error("the request is malformed")]
    Malformed,
    /// A head or its fields are more than is taken.
    #[error("the request's head is too large")]
    TooLarge,
    /// The target is longer than is taken.
    #[error("the request's target is too long")]
    TooLong,
}

impl Fault {
    /// The status that says so.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::TooLarge => 431,
            Self::TooLong => 414,
        }
    }
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next head.
    Head,
    /// A body of so many bytes.
    Body(u64),
    /// Chunks.
    Chunks,
    /// Whatever is agreed on: the caller asks to leave HTTP.
    Parting,
}

/// Reads a head, up to and with its empty line. Returns what follows it.
///
/// # Errors
/// [`Fault`], if it can be read in two ways or is more than is taken.
pub fn read_head(head: &[u8]) -> Result<Next, Fault> {
    let head = head.strip_suffix(b"\r\n").ok_or(Fault::Malformed)?;
    let end = head.windows(2).position(|two| two == b"\r\n");
    let (line, lines) = head.split_at(end.ok_or(Fault::Malformed)?);
    let (method, is_1_1) = read_request_line(line)?;
    let fields = read_fields(&lines[2..])?;
    if fields.hosts > 1 || (is_1_1 && fields.hosts == 0) {
        return Err(Fault::Malformed);
    }
    // RFC 9112 section 6.1: a length beside a transfer coding is how requests are smuggled, and
    // HTTP/1.0 knows no transfer codings.
    match (fields.length, fields.codings) {
        (_, 1..) if fields.lengths > 0 || !is_1_1 || !fields.is_chunked || fields.codings > 1 => {
            Err(Fault::Malformed)
        }
        (_, 1..) => Ok(Next::Chunks),
        (Some(length @ 1..), _) => Ok(Next::Body(length)),
        (None, _) if method == b"GET" && is_1_1 && fields.wants_websocket => Ok(Next::Parting),
        _ => Ok(Next::Head),
    }
}

fn read_request_line(line: &[u8]) -> Result<(&[u8], bool), Fault> {
    let mut words = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Fault::Malformed);
    };
    if target.len() > MAX_TARGET_BYTES {
        return Err(Fault::TooLong);
    }
    let is_method = (1..=32).contains(&method.len())
        && method.iter().all(|b| b.is_ascii_uppercase() || *b == b'-')
        && method != b"CONNECT";
    // The origin form, or what OPTIONS asks of the server itself (RFC 9112 section 3.2).
    let is_target = target.first() == Some(&b'/') || (method == b"OPTIONS" && target == b"*");
    let is_visible = target.iter().all(|b| b.is_ascii_graphic() && *b != b'#');
    if !is_method || !is_target || !is_visible {
        return Err(Fault::Malformed);
    }
    match version {
        b"HTTP/1.1" => Ok((method, true)),
        b"HTTP/1.0" => Ok((method, false)),
        _ => Err(Fault::Malformed),
    }
}

/// What fields say about the framing of their message.
#[derive(Debug, Default)]
pub struct Fields {
    hosts: usize,
    lengths: usize,
    length: Option<u64>,
    codings: usize,
    is_chunked: bool,
    has_upgrade: bool,
    wants_websocket: bool,
}

/// Reads fields, whose lines each end in CR LF.
///
/// # Errors
/// [`Fault`], as for a head.
pub fn read_fields(mut lines: &[u8]) -> Result<Fields, Fault> {
    let mut fields = Fields::default();
    let mut upgrades = 0;
    let mut count = 0;
    while !lines.is_empty() {
        let end = lines.windows(2).position(|two| two == b"\r\n");
        let (line, rest) = lines.split_at(end.ok_or(Fault::Malformed)?);
        lines = &rest[2..];
        count += 1;
        if count > MAX_FIELDS {
            return Err(Fault::TooLarge);
        }
        // A line that begins with space continues the one before, for some (obs-fold); a space
        // before the colon belongs to the name, for some. Both are no tokens.
        let colon = line.iter().position(|b| *b == b':');
        let (name, value) = line.split_at(colon.ok_or(Fault::Malformed)?);
        let is_name = !name.is_empty() && name.iter().all(|b| is_token(*b));
        if !is_name || !value.iter().all(|b| is_text(*b)) {
            return Err(Fault::Malformed);
        }
        let value = value[1..].trim_ascii();
        let is = |known: &str| folds_to(name, known);
        if is("host") {
            fields.hosts += 1;
        } else if is("content-length") {
            fields.lengths += 1;
            fields.length = Some(length(value).ok_or(Fault::Malformed)?);
        } else if is("transfer-encoding") {
            fields.codings += 1;
            fields.is_chunked = value.eq_ignore_ascii_case(b"chunked");
        } else if is("upgrade") {
            upgrades += 1;
            fields.has_upgrade = value.eq_ignore_ascii_case(b"websocket");
        }
        let is_framing = is("host") || is("content-length") || is("transfer-encoding");
        let is_exact = name.iter().all(|b| b.is_ascii_alphabetic() || *b == b'-');
        // `Content_Length` is a length for some.
        if is_framing && !is_exact {
            return Err(Fault::Malformed);
        }
    }
    if fields.lengths > 1 {
        return Err(Fault::Malformed);
    }
    fields.wants_websocket = fields.has_upgrade && upgrades == 1;
    Ok(fields)
}

/// Whether servers that hand fields on as variables (CGI, WSGI) may take `name` for `known`,
/// which is in lower case: they make letters of any case and everything else alike.
pub fn folds_to(name: &[u8], known: &str) -> bool {
    name.len() == known.len() && starts_as(name, known)
}

/// Whether `name` may be taken for one that begins with `prefix`.
pub fn starts_as(name: &[u8], prefix: &str) -> bool {
    let fold = |b: &u8| {
        if b.is_ascii_alphanumeric() {
            b.to_ascii_lowercase()
        } else {
            b'-'
        }
    };
    name.len() >= prefix.len()
        && name
            .iter()
            .map(fold)
            .zip(prefix.bytes())
            .all(|(a, b)| a == b)
}

/// RFC 9110 section 8.6: digits and nothing else.
fn length(value: &[u8]) -> Option<u64> {
    let is_number = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| is_number)?;
    text.parse().ok()
}

/// RFC 9112 section 7.1. Extensions are read over: none is known, and recipients ignore those.
pub fn chunk_size(line: &[u8]) -> Option<u64> {
    let (size, extension) = match line.iter().position(|b| matches!(b, b';' | b' ' | b'\t')) {
        Some(end) => line.split_at(end),
        None => (line, &[][..]),
    };
    let extension = extension.trim_ascii_start();
    let is_extension = extension.is_empty() || extension[0] == b';';
    let is_text = extension.iter().all(|b| is_text(*b));
    let is_size = (1..=15).contains(&size.len()) && size.iter().all(u8::is_ascii_hexdigit);
    if !is_extension || !is_text || !is_size {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()
}

/// A field's value, RFC 9110 section 5.5: neither CR, LF nor other control characters.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, fields: &str, expected: Result<Next, Fault>) {
        let head = format!("{line}\r\n{fields}\r\n");
        assert_eq!(read_head(head.as_bytes()), expected, "{head}");
    }

    #[test]
    fn a_head_says_what_follows_it() {
        let host = "Host: a\r\n";
        check("GET /a?b HTTP/1.1", host, Ok(Next::Head));
        check("GET / HTTP/1.0", "", Ok(Next::Head));
        check("OPTIONS * HTTP/1.1", host, Ok(Next::Head));
        let sized = |len: &str| format!("{host}content-length:  {len}\t\r\n");
        check("POST / HTTP/1.1", &sized("012"), Ok(Next::Body(12)));
        check("POST / HTTP/1.1", &sized("0"), Ok(Next::Head));
        let chunked = format!("{host}TRANSFER-ENCODING:Chunked\r\n");
        check("M-SEARCH / HTTP/1.1", &chunked, Ok(Next::Chunks));
        let parting = format!("{host}Upgrade: websocket\r\n");
        check("GET / HTTP/1.1", &parting, Ok(Next::Parting));
        check("POST / HTTP/1.1", &parting, Ok(Next::Head));
        check("GET / HTTP/1.0", &parting, Ok(Next::Head));
        check(
            "GET / HTTP/1.1",
            &format!("{parting}Content-Length: 0\r\n"),
            Ok(Next::Head),
        );
        check(
            "GET / HTTP/1.1",
            &format!("{parting}Upgrade: h2c\r\n"),
            Ok(Next::Head),
        );
    }

    #[test]
    fn smuggling_shapes_are_refused() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5, 5",
            "Content-Length: +5",
            "Content-Length: 0x5",
            "Content-Length:",
            "Content_Length: 5",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer_Encoding: chunked",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding:\u{b}chunked",
            "X: a\r\n folded",
            "X: a\r\n\tfolded",
            "X: a\nTransfer-Encoding: chunked",
            "X: a\rTransfer-Encoding: chunked",
            "X: a\0b",
            "Host: b",
            "no colon",
            ": no name",
        ] {
            check(
                "POST / HTTP/1.1",
                &format!("Host: a\r\n{fields}\r\n"),
                Err(Fault::Malformed),
            );
        }
        for line in [
            "GET http://a/ HTTP/1.1",
            "GET a HTTP/1.1",
            "GET * HTTP/1.1",
            "CONNECT a:80 HTTP/1.1",
            "CONNECT / HTTP/1.1",
            "! /200 HTTP/1.1",
            "get / HTTP/1.1",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.2",
            "GET / HTTP/2.0",
            "GET /",
            "GET\t/ HTTP/1.1",
            "GET /\u{7f} HTTP/1.1",
            " GET / HTTP/1.1",
            "GET /#a HTTP/1.1",
            "PRI * HTTP/2.0",
        ] {
            check(line, "Host: a\r\n", Err(Fault::Malformed));
        }
        check("GET / HTTP/1.1", "", Err(Fault::Malformed));
        let chunked = "Transfer-Encoding: chunked\r\n";
        check("POST / HTTP/1.0", chunked, Err(Fault::Malformed));
    }

    #[test]
    fn fields_are_counted() {
        let many = "X: y\r\n".repeat(MAX_FIELDS - 1);
        check(
            "GET / HTTP/1.1",
            &format!("Host: a\r\n{many}"),
            Ok(Next::Head),
        );
        check(
            "GET / HTTP/1.1",
            &format!("Host: a\r\n{many}X: y\r\n"),
            Err(Fault::TooLarge),
        );
    }

    #[test]
    fn names_fold_as_servers_fold_them() {
        for name in [
            "Altnet-Caller",
            "altnet_caller",
            "ALTNET.CALLER",
            "altnet-caller",
        ] {
            assert!(folds_to(name.as_bytes(), "altnet-caller"), "{name}");
        }
        assert!(!folds_to(b"altnet-callers", "altnet-caller"));
        assert!(starts_as(b"altnet-callers", "altnet-"));
    }
}
