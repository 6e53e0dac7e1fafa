//! Reading what a browser sends: forms, cookies, and where a request comes from.

use hyper::header::{COOKIE, HOST, HeaderMap, HeaderName, ORIGIN};
use zeroize::Zeroizing;

/// The most fields of a form.
const MAX_FIELDS: usize = 16;
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The fields of a form or a query.
#[derive(Debug, Default)]
pub struct Form(Vec<(String, Zeroizing<String>)>);

impl Form {
    /// Reads `application/x-www-form-urlencoded`; nothing if it isn't, is not UTF-8 or has too many
    /// fields.
    ///
    /// Source: the URL Standard, section 5.1.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Vec::new();
        for pair in bytes.split(|b| *b == b'&').filter(|pair| !pair.is_empty()) {
            if fields.len() == MAX_FIELDS {
                return None;
            }
            let at = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
            let value = pair.get(at + 1..).unwrap_or_default();
            let name = String::clone(&*decode(&pair[..at])?);
            fields.push((name, decode(value)?));
        }
        Some(Self(fields))
    }

    /// The field `name`; nothing if it isn't there, or twice.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(known, _)| known == name);
        let value = found.next()?.1.as_str();
        found.next().is_none().then_some(value)
    }
}

fn decode(text: &[u8]) -> Option<Zeroizing<String>> {
    let digit = |b: &u8| {
        char::from(*b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let mut out = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, tail @ ..]) => {
                out.push(digit(high)? << 4 | digit(low)?);
                rest = tail;
            }
            (b'%', _) => return None,
            (other, _) => out.push(*other),
        }
    }
    let text = std::str::from_utf8(&out).ok()?;
    Some(Zeroizing::new(text.to_owned()))
}

/// The cookie `name` (RFC 6265 section 4.2).
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let values = headers.get_all(COOKIE).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let mut pairs = texts.flat_map(|text| text.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// The host and port that were asked for.
pub fn host(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next()?.to_str().ok()?;
    let is_sane = |b: u8| b.is_ascii_alphanumeric() || b"-.:[]_".contains(&b);
    (hosts.next().is_none() && !host.is_empty() && host.bytes().all(is_sane)).then_some(host)
}

/// Whether no other site made the browser send this. Programs that are no browsers say neither.
pub fn is_from_here(headers: &HeaderMap, is_tls: bool) -> bool {
    // Fetch Metadata Request Headers; "none" is somebody at the address bar.
    if let Some(site) = headers.get(FETCH_SITE) {
        return matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    let scheme = if is_tls { "https" } else { "http" };
    host(headers).is_some_and(|host| {
        let own = format!("{scheme}://{host}");
        own.eq_ignore_ascii_case(origin.to_str().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn forms_are_read() {
        let form = Form::parse(b"a=b+c%26&e=%C3%A9&empty=&twice=1&twice=2").unwrap();
        assert_eq!(form.field("a"), Some("b c&"));
        assert_eq!(form.field("e"), Some("\u{e9}"));
        assert_eq!(form.field("empty"), Some(""));
        assert_eq!(form.field("twice"), None);
        assert_eq!(form.field("none"), None);
        for bad in [&b"a=%"[..], b"a=%4", b"a=%zz", b"a=%ff", &b"a&".repeat(17)] {
            assert!(Form::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let headers = headers(&[("cookie", "xaltnet=1; altnet=2; altnet2=3")]);
        assert_eq!(cookie(&headers, "altnet"), Some("2"));
        assert_eq!(cookie(&headers, "net"), None);
    }

    #[test]
    fn other_sites_are_refused() {
        let check = |pairs: &[(&'static str, &'static str)], good: bool| {
            assert_eq!(is_from_here(&headers(pairs), false), good, "{pairs:?}");
        };
        check(&[("host", "gw")], true);
        check(&[("host", "gw"), ("sec-fetch-site", "same-origin")], true);
        check(&[("host", "gw"), ("sec-fetch-site", "same-site")], false);
        check(
            &[
                ("host", "gw"),
                ("sec-fetch-site", "cross-site"),
                ("origin", "http://gw"),
            ],
            false,
        );
        check(&[("host", "gw"), ("origin", "http://gw")], true);
        check(&[("host", "gw"), ("origin", "https://gw")], false);
        check(&[("host", "gw"), ("origin", "http://gw:8080")], false);
        check(&[("host", "gw"), ("origin", "null")], false);
        check(&[("origin", "http://gw")], false);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Form::parse(&bytes);
            let mut headers = HeaderMap::new();
            if let Ok(value) = hyper::header::HeaderValue::from_bytes(&bytes) {
                for name in [COOKIE, HOST, ORIGIN] {
                    headers.insert(name, value.clone());
                }
            }
            let _ = cookie(&headers, "altnet");
            let _ = is_from_here(&headers, true);
        }

        #[test]
        fn what_is_written_is_read(text: String) {
            let form = crate::http::form(&[("a", &text)]);
            let form = Form::parse(form.as_bytes()).unwrap();
            prop_assert_eq!(form.field("a"), Some(&*text));
        }
    }
}
