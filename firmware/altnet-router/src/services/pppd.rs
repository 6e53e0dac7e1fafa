//! pppd, one a WAN that is PPP over Ethernet.
//!
//! Source: pppd(8) of ppp 2.4.9.

use super::{Lines, hook, path};
use crate::config::{Ipv6, Pppoe, Secret};
use crate::house::Wan;
use crate::plan::{Child, Places, session_mtu};

pub(super) fn child(wan: &Wan, login: &Pppoe, password: &Secret, places: &Places) -> Child {
    let name = format!("pppd-{}", wan.name);
    let options = path(places, &format!("{name}.options"));
    let script = path(places, &format!("{name}.hook"));
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
    for event in ["ip-up-script", "ip-down-script"] {
        lines.add(format!("{event} {}", quoted(&script)));
    }
    for event in ["ipv6-up-script", "ipv6-down-script"]
        .iter()
        .filter(|_| wan.ipv6 != Ipv6::Off)
    {
        lines.add(format!("{event} {}", quoted(&script)));
    }
    let files = vec![
        lines.file(places, &format!("{name}.options")),
        hook(places, &name),
    ];
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
