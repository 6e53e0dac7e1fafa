//! The head of a request (RFC 9112): what is asked for, and how much follows.

/// The most bytes of a head.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;
const MAX_HEADERS: usize = 48;
/// The most bytes of a bundle with what a form puts around it. A slot has 48 MiB, and what doesn't compress is stored.
pub const MAX_BODY_BYTES: u64 = 128 << 20;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The page.
    Page,
    /// The same for programs.
    Status,
    /// A bundle is brought, as it is.
    Bundle,
    /// A bundle is brought by a browser's form (RFC 7578).
    Form,
}

/// A request whose head is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What is asked for.
    pub asked: Asked,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// Who asks waits to be told to send the body (RFC 9110 section 10.1.1).
    pub waits: bool,
    /// Bytes of the head itself.
    pub head_bytes: usize,
}

/// Why a request isn't served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadHead {
    /// Not HTTP.
    #[error("this is no HTTP request")]
    Unreadable,
    /// More than [`MAX_HEAD_BYTES`].
    #[error("the request's head is longer than {MAX_HEAD_BYTES} bytes")]
    TooLong,
    /// There is nothing by that name.
    #[error("there is nothing here by that name; the page is /")]
    NotFound,
    /// It can't be asked for in that way.
    #[error("GET the page, PUT a bundle to /bundle")]
    Method,
    /// A bundle's length isn't said, or is beyond all releases.
    #[error("a bundle's length has to be said, and be at most {MAX_BODY_BYTES} bytes")]
    Length,
    /// Not what a form for files sends.
    #[error("a form has to be multipart/form-data")]
    Form,
}

impl BadHead {
    /// The status (RFC 9110 section 15).
    pub const fn status(self) -> &'static str {
        match self {
            Self::Unreadable | Self::Form => "400 Bad Request",
            Self::TooLong => "431 Request Header Fields Too Large",
            Self::NotFound => "404 Not Found",
            Self::Method => "405 Method Not Allowed",
            Self::Length => "411 Length Required",
        }
    }
}

/// Reads a head; nothing while it isn't whole.
///
/// # Errors
/// [`BadHead`].
pub fn parse(bytes: &[u8]) -> Result<Option<Head>, BadHead> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(BadHead::TooLong);
        }
        Err(_) => return Err(BadHead::Unreadable),
    };
    let path = request.path.unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let asked = match (request.method.unwrap_or_default(), path) {
        ("GET", "/") => Asked::Page,
        ("GET", "/status") => Asked::Status,
        ("PUT", "/bundle") => Asked::Bundle,
        ("POST", "/") => Asked::Form,
        (_, "/" | "/status" | "/bundle") => return Err(BadHead::Method),
        _ => return Err(BadHead::NotFound),
    };
    let header = |name: &str| {
        let mut found = request
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name));
        let value = found.next().map(|header| header.value);
        // Two of them are somebody's trick.
        value.filter(|_| found.next().is_none())
    };
    let mut head = Head {
        asked,
        body_bytes: 0,
        waits: header("expect").is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue")),
        head_bytes,
    };
    if matches!(asked, Asked::Page | Asked::Status) {
        return Ok(Some(head));
    }
    let length = header("content-length")
        .and_then(|value| std::str::from_utf8(value).ok())
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok());
    let coded = header("transfer-encoding").is_some();
    head.body_bytes = length
        .filter(|length| !coded && (1..=MAX_BODY_BYTES).contains(length))
        .ok_or(BadHead::Length)?;
    let is_form = header("content-type")
        .and_then(|value| value.get(..20))
        .is_some_and(|kind| kind.eq_ignore_ascii_case(b"multipart/form-data;"));
    match asked == Asked::Form && !is_form {
        true => Err(BadHead::Form),
        false => Ok(Some(head)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: Result<(Asked, u64), BadHead>) {
        let text = text.replace('\n', "\r\n");
        let found = parse(text.as_bytes());
        let found = found.map(|head| {
            let head = head.expect("a whole head");
            assert_eq!(head.head_bytes, text.find("\r\n\r\n").unwrap() + 4);
            (head.asked, head.body_bytes)
        });
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn what_is_asked_for_is_read_of_the_head() {
        use Asked::{Bundle, Form, Page, Status};
        check("GET / HTTP/1.1\nHost: a\n\n", Ok((Page, 0)));
        check("GET /?a=b HTTP/1.0\n\n", Ok((Page, 0)));
        check("GET /status HTTP/1.1\n\n", Ok((Status, 0)));
        let put = "PUT /bundle HTTP/1.1\ncontent-length: 7\n\nabc";
        check(put, Ok((Bundle, 7)));
        let form =
            "POST / HTTP/1.1\nContent-Type: multipart/form-data; boundary=x\nContent-Length: 9\n\n";
        check(form, Ok((Form, 9)));
    }

    #[test]
    fn what_can_not_be_served_is_refused_with_its_reason() {
        check("GET /etc/passwd HTTP/1.1\n\n", Err(BadHead::NotFound));
        check("DELETE / HTTP/1.1\n\n", Err(BadHead::Method));
        check("POST /bundle HTTP/1.1\n\n", Err(BadHead::Method));
        for length in [
            "",
            "content-length: -1\n",
            "content-length: 0\n",
            "content-length: +7\n",
            "content-length: 134217729\n",
            "content-length: 7\ncontent-length: 8\n",
            "content-length: 7\ntransfer-encoding: chunked\n",
            "transfer-encoding: chunked\n",
        ] {
            let text = format!("PUT /bundle HTTP/1.1\n{length}\n");
            check(&text, Err(BadHead::Length));
        }
        let form = "POST / HTTP/1.1\ncontent-type: text/plain\ncontent-length: 9\n\n";
        check(form, Err(BadHead::Form));
        assert_eq!(parse(b"\x16\x03\x01\x02\x00"), Err(BadHead::Unreadable));
        let mut long = b"GET / HTTP/1.1\r\na: ".to_vec();
        long.resize(MAX_HEAD_BYTES - 1, b'x');
        assert_eq!(parse(&long), Ok(None));
        long.push(b'x');
        assert_eq!(parse(&long), Err(BadHead::TooLong));
    }

    #[test]
    fn who_waits_to_be_told_is_known() {
        let put = b"PUT /bundle HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
        assert!(parse(put).unwrap().unwrap().waits);
        assert!(!parse(b"GET / HTTP/1.1\r\n\r\n").unwrap().unwrap().waits);
    }

    proptest! {
        #[test]
        fn no_bytes_are_more_than_a_bounded_request(bytes: Vec<u8>) {
            if let Ok(Some(head)) = parse(&bytes) {
                prop_assert!(head.head_bytes <= bytes.len() && head.body_bytes <= MAX_BODY_BYTES);
            }
        }
    }
}
