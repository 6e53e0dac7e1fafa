//! The page that a box has on its LAN until it is a member: what it is and what to do.
//!
//! In: the beginning of a request. Out: a whole response. It takes nothing from anybody and never shows the code; there is no
//! script, and it loads nothing.

use core::fmt::Write as _;
use core::time::Duration;

use altnet_claim::hello::State;

use crate::offer::{Offer, Stage};

/// The most of a request that is read.
pub const MAX_REQUEST: usize = 2048;

const STYLE: &str = "body{font:1rem/1.5 sans-serif;max-width:34rem;margin:2rem auto;padding:0 1rem}\
code{font-family:monospace;background:#eee;padding:.1em .3em;overflow-wrap:anywhere}\
dt{color:#555}dd{margin:0 0 .6rem}\
@media(prefers-color-scheme:dark){body{background:#111;color:#eee}code{background:#333}dt{color:#aaa}}";

/// Whether the head of a request is there.
pub fn is_whole(request: &[u8]) -> bool {
    request.windows(4).any(|four| four == b"\r\n\r\n")
}

/// The response to a request; None if it is no request of HTTP.
pub fn respond(request: &[u8], offer: &Offer, now: Duration) -> Option<String> {
    let line = request.split(|byte| *byte == b'\r').next()?;
    let line = core::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    let (method, path, version) = (words.next()?, words.next()?, words.next()?);
    if !version.starts_with("HTTP/1.") || words.next().is_some() {
        return None;
    }
    let (status, body) = match (method, path) {
        ("GET" | "HEAD", "/") => ("200 OK", page(offer, now)),
        // Telephones ask for pages of their makers to see whether they are online: this is none of those.
        ("GET" | "HEAD", _) => (
            "404 Not Found",
            text("There is nothing here but <a href=\"/\">the page of this box</a>."),
        ),
        _ => (
            "405 Method Not Allowed",
            text("This page can only be read."),
        ),
    };
    let mut response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'\r\n\
         X-Content-Type-Options: nosniff\r\nAllow: GET, HEAD\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if method != "HEAD" {
        response.push_str(&body);
    }
    Some(response)
}

fn page(offer: &Offer, now: Duration) -> String {
    let mut inside = String::with_capacity(2048);
    // Writing to a String doesn't fail.
    let _ = write!(
        inside,
        "<h1>{}</h1>\n{}\n<dl>\n<dt>Fingerprint of its key</dt><dd><code>{}</code></dd>\n",
        headline(offer, now),
        advice(offer, now),
        offer.key.fingerprint()
    );
    if offer.state(now) == State::Open {
        let left = offer.left(now).as_secs();
        let _ = writeln!(
            inside,
            "<dt>Time left</dt><dd>{} min {:02} s</dd>",
            left / 60,
            left % 60
        );
        let _ = writeln!(
            inside,
            "<dt>Wrong codes that may still be tried</dt><dd>{}</dd>",
            offer.tries.left()
        );
    }
    let _ = writeln!(
        inside,
        "<dt>Board</dt><dd>{}</dd>\n<dt>Version</dt><dd>{}</dd>\n</dl>",
        escaped(&offer.board),
        escaped(&offer.version)
    );
    text(&inside)
}

fn headline(offer: &Offer, now: Duration) -> &'static str {
    match (offer.stage, offer.state(now)) {
        (Stage::Joined, _) => "This altnet box is a member",
        (Stage::Joins, _) => "This altnet box joins its network",
        (_, State::Open) => "This altnet box waits for its owner",
        (_, State::Busy) => "This altnet box talks with its owner",
        (_, State::TimeOver | State::TriesUsed) => "This altnet box is closed",
    }
}

fn advice(offer: &Offer, now: Duration) -> &'static str {
    match (offer.stage, offer.state(now)) {
        (Stage::Joined, _) => "<p>It is in its network. This page is gone at once.</p>",
        (Stage::Joins, _) => {
            "<p>It has what it needs, and tries again until it is a member. <code>altnet-provision sync</code> and <code>altnet-provision members</code> on the computer of its owner say when.</p>"
        }
        (_, State::Open) => {
            "<p>It is in no network yet. On a computer on this LAN, where your network's keys are, run</p>\n<p><code>altnet-provision claim --name NAME --role gateway</code></p>\n<p>and type the code: <code>altnet-provision flash --claim-code</code> showed it, or the console of this box does (HDMI or serial). The fingerprint that is shown there has to be this one.</p>"
        }
        (_, State::Busy) => {
            "<p>Somebody who is asked for its code talks with it. If that isn't you, and the code is nobody else's, wait a moment.</p>"
        }
        (_, State::TimeOver) => {
            "<p>It can be claimed for ten minutes after it was switched on, and they are over. Switch it off and on, and run <code>altnet-provision claim</code>.</p>"
        }
        (_, State::TriesUsed) => {
            "<p>As many codes were tried as may be: somebody typed a wrong one again and again, or somebody on this LAN guesses. Switch it off and on, and run <code>altnet-provision claim</code>.</p>"
        }
    }
}

fn text(inside: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"20\"><title>altnet box</title><style>{STYLE}</style></head>\n<body>\n{inside}\n</body></html>\n"
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offer::tests::offer;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(160);

    fn get(path: &str, offer: &Offer, now: Duration) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: 192.168.1.1\r\n\r\n");
        assert!(is_whole(request.as_bytes()));
        respond(request.as_bytes(), offer, now).unwrap()
    }

    #[test]
    fn an_open_box_says_what_to_do_and_how_long() {
        let mut offer = offer();
        offer.version = "<b>&".into();
        let page = get("/", &offer, NOW);
        let fingerprint = offer.key.fingerprint().to_string();
        for word in [
            "200 OK",
            "altnet-provision claim",
            "9 min 00 s",
            "<dd>5</dd>",
            "<dd>rpi</dd>",
            "&lt;b&gt;&amp;",
            &fingerprint,
        ] {
            assert!(page.contains(word), "{word} isn't in {page}");
        }
        assert!(!page.contains("<script") && !page.contains("<form"));
    }

    #[test]
    fn a_closed_box_says_why_and_to_switch_it_off_and_on() {
        let mut offer = offer();
        let later = Duration::from_secs(5000);
        let over = get("/", &offer, later);
        assert!(over.contains("ten minutes") && over.contains("Switch it off and on"));
        assert!(!over.contains("Time left"));
        offer.tries.now = 5;
        let used = get("/", &offer, NOW);
        assert!(used.contains("As many codes were tried") && used.contains("Switch it off and on"));
        offer.stage = Stage::Joins;
        assert!(get("/", &offer, later).contains("joins its network"));
    }

    #[test]
    fn nothing_but_reading_is_possible() {
        let offer = offer();
        assert!(get("/generate_204", &offer, NOW).starts_with("HTTP/1.1 404 "));
        let post = respond(b"POST / HTTP/1.1\r\n\r\n", &offer, NOW).unwrap();
        assert!(post.starts_with("HTTP/1.1 405 "));
        let head = respond(b"HEAD / HTTP/1.0\r\n\r\n", &offer, NOW).unwrap();
        assert!(head.ends_with("\r\n\r\n"));
        for bad in [
            &b""[..],
            b"GET /\r\n",
            b"GET / HTTP/2\r\n",
            b"\x16\x03\x01\x00",
            b"GET / HTTP/1.1 x\r\n",
        ] {
            assert_eq!(respond(bad, &offer, NOW), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = respond(&bytes, &offer(), NOW);
            let _ = is_whole(&bytes);
        }
    }
}
