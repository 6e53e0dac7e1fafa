//! pppd, one a WAN that is PPP over Ethernet.
//!
//! Source: pppd(8) of ppp 2.4.9.

use super::{Lines, hook, path};
use crate::config::{Ipv6, Pppoe, Secret};
use crate::house::Wan;
use crate::plan::{Child, Places, session_mtu};

/// The name of a WAN's pppd.
pub(crate) fn name(wan: &Wan) -> String {
    format!("pppd-{}", wan.name)
}

/// Why there is no session, where a line that pppd said tells that. What the other end says itself stands behind `Remote
/// message: ` and begins no line.
pub(crate) fn why_no_session(line: &str) -> Option<&'static str> {
    const LINES: [(&str, &str); 7] = [
        ("PAP authentication failed", REFUSED),
        ("CHAP authentication failed", REFUSED),
        ("MS-CHAP authentication failed", REFUSED),
        ("No response to PAP", UNHEARD),
        ("Timeout waiting for PAD", NOBODY),
        ("Unable to complete PPPoE Discovery", NOBODY),
        ("LCP: timeout sending Config-Requests", UNHEARD),
    ];
    let told = LINES.iter().find(|(begins, _)| line.starts_with(begins));
    told.map(|(_, why)| *why)
}

const REFUSED: &str = "the provider refused the user name or the password";
const NOBODY: &str = "nobody answers to PPPoE on its line";
const UNHEARD: &str = "the provider began a session and then said nothing";

pub(super) fn child(wan: &Wan, login: &Pppoe, password: &Secret, places: &Places) -> Child {
    let name = name(wan);
    let options = path(places, &format!("{name}.options"));
    let mtu = session_mtu(wan);
    let mut lines = Lines::default();
    lines.add("plugin pppoe.so");
    lines.add(format!("nic-{}", wan.line));
    if let Some(service) = &login.service {
        lines.add(format!("rp_pppoe_service {}", quoted(service)));
    }
    if let Some(concentrator) = &login.concentrator {
        lines.add(format!("rp_pppoe_ac {}", quoted(concentrator)));
    }
    lines.add(format!("ifname {}", wan.interface));
    lines.add(format!("user {}", quoted(&login.username)));
    lines.add(format!("password {}", quoted(password.expose())));
    lines.add(format!("mtu {mtu}"));
    lines.add(format!("mru {mtu}"));
    for line in [
        "nodetach",
        "hide-password",
        "noauth",
        "noipdefault",
        "nodefaultroute",
        "noproxyarp",
        "usepeerdns",
        "noaccomp",
        "nopcomp",
        "noccp",
    ] {
        lines.add(line);
    }
    // A minute of silence is the end of a session, and another is tried after that for ever.
    for line in [
        "lcp-echo-interval 15",
        "lcp-echo-failure 4",
        "persist",
        "maxfail 0",
        "holdoff 5",
    ] {
        lines.add(line);
    }
    lines.add(if wan.ipv6 == Ipv6::Off {
        "noipv6"
    } else {
        "+ipv6"
    });
    // A script of its own for each: what they are given doesn't say what happened.
    let mut files = Vec::new();
    // Of IPv6 none: pppd 2.4.9 takes no script for it but its own, and who advertises the way out tells what it would.
    for event in ["ip-up", "ip-down"] {
        let script = format!("{name}.{event}");
        lines.add(format!("{event}-script {}", quoted(&path(places, &script))));
        files.push(hook(places, &script, &format!("pppd {event}")));
    }
    files.push(lines.file(places, &format!("{name}.options")));
    super::child(
        name,
        "pppd",
        &["file", &options],
        files,
        vec![wan.line.clone()],
    )
}

/// As pppd reads a word: in quotes, with a backslash before what would end them.
fn quoted(text: &str) -> String {
    let mut word = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            word.push('\\');
        }
        word.push(c);
    }
    word.push('"');
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_refused_login_and_a_dead_line_are_told_apart() {
        // As ppp 2.4.9 says it.
        for (line, expected) in [
            ("PAP authentication failed", Some(REFUSED)),
            ("CHAP authentication failed", Some(REFUSED)),
            ("CHAP authentication failed: Access denied", Some(REFUSED)),
            ("MS-CHAP authentication failed: E=691", Some(REFUSED)),
            ("Unable to complete PPPoE Discovery", Some(NOBODY)),
            ("LCP: timeout sending Config-Requests", Some(UNHEARD)),
            ("Remote message: PAP authentication failed", None),
            ("CHAP authentication succeeded", None),
        ] {
            assert_eq!(why_no_session(line), expected, "{line}");
        }
    }

    /// Reads a word as pppd's `getword` does; what is left behind it too.
    fn read(text: &str) -> (String, &str) {
        let mut word = String::new();
        let mut chars = text.char_indices();
        let mut is_quoted = false;
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => is_quoted = !is_quoted,
                '\\' => word.extend(chars.next().map(|(_, c)| c)),
                ' ' | '#' if !is_quoted => return (word, &text[at..]),
                _ => word.push(c),
            }
        }
        (word, "")
    }

    proptest! {
        #[test]
        fn pppd_reads_what_was_written(text in "[^\\p{Cc}]{0,40}") {
            let line = format!("{} rest", quoted(&text));
            prop_assert_eq!(read(&line), (text, " rest"));
        }
    }
}
