//! Distinguished names as text (RFC 4514), written one way so that a config can name them.

/// `dn` with its attribute types in lower case and without spaces around commas, plus and equal
/// signs; values are left as they are. `None` if the text isn't a DN.
pub fn normalized(dn: &str) -> Option<String> {
    let mut out = String::with_capacity(dn.len());
    let mut rest = dn.trim();
    loop {
        let (kind, tail) = rest.split_once('=')?;
        let kind = kind.trim();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        if kind.is_empty() || !kind.bytes().all(fits) {
            return None;
        }
        out.push_str(&kind.to_ascii_lowercase());
        out.push('=');
        let (value, end) = value(tail)?;
        out.push_str(value);
        let Some(end) = end else { return Some(out) };
        out.push(if tail.as_bytes()[end] == b'+' {
            '+'
        } else {
            ','
        });
        rest = &tail[end + 1..];
    }
}

/// The value that `text` begins with, and where the separator behind it stands.
fn value(text: &str) -> Option<(&str, Option<usize>)> {
    let mut escaped = false;
    let mut end = None;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            // RFC 4514 writes no semicolon, RFC 1779 did.
            b',' | b'+' | b';' => {
                end = Some(at);
                break;
            }
            b'"' | b'<' | b'>' => return None,
            _ => {}
        }
    }
    if escaped {
        return None;
    }
    let value = text[..end.unwrap_or(text.len())].trim_start_matches(' ');
    let trimmed = value.trim_end_matches(' ');
    // The space of `\ ` belongs to the value.
    let backslashes = trimmed
        .bytes()
        .rev()
        .take_while(|byte| *byte == b'\\')
        .count();
    let keep = usize::from(backslashes % 2 == 1);
    Some((&value[..trimmed.len() + keep], end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_name_is_written_one_way() {
        for (text, expected) in [
            ("CN=Ops, OU=Groups ,DC=a", Some("cn=Ops,ou=Groups,dc=a")),
            ("cn = Ops", Some("cn=Ops")),
            ("cn=a\\,b,dc=c", Some("cn=a\\,b,dc=c")),
            ("cn=a\\ , dc=c", Some("cn=a\\ ,dc=c")),
            ("cn=a\\\\ , dc=c", Some("cn=a\\\\,dc=c")),
            ("cn=a + UID=b,dc=c", Some("cn=a+uid=b,dc=c")),
            ("CN=é,DC=x", Some("cn=é,dc=x")),
            ("ops", None),
            ("", None),
            ("cn=a,,dc=b", None),
            ("cn=a\\", None),
            ("c n=a", None),
        ] {
            assert_eq!(normalized(text).as_deref(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn once_is_enough_and_nothing_panics(text in "[a-cA-C=,+; \\\\é\"]{0,24}") {
            if let Some(dn) = normalized(&text) {
                prop_assert_eq!(normalized(&dn), Some(dn.clone()));
            }
        }
    }
}
