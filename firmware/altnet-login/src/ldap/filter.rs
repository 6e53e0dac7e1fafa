//! A filter of the config file (RFC 4515), with `{}` where a name goes.
//!
//! The text is parsed once, when the config is read. A name that somebody types is put into the
//! parsed filter as the bytes of a value: it is never parsed, so none can change the filter.

use super::ber::{self, OCTETS, SEQUENCE};
use zeroize::Zeroizing;

/// How deep a filter may nest, and how long its text may be.
const MAX_DEPTH: usize = 16;
const MAX_TEXT: usize = 2048;

const AND: u8 = 0xa0;
const OR: u8 = 0xa1;
const NOT: u8 = 0xa2;
const EQUAL: u8 = 0xa3;
const SUBSTRINGS: u8 = 0xa4;
const GREATER: u8 = 0xa5;
const LESS: u8 = 0xa6;
const PRESENT: u8 = 0x87;
const APPROXIMATE: u8 = 0xa8;
const EXTENSIBLE: u8 = 0xa9;

/// Why a filter of the config isn't one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} isn't an LDAP filter: {reason}; RFC 4515 has the form, (uid={{}}) for example")]
pub struct FilterError {
    text: String,
    reason: &'static str,
}

/// A parsed filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Node);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    /// AND, OR or NOT of others.
    Of(u8, Vec<Node>),
    /// EQUAL, GREATER, LESS or APPROXIMATE: an attribute and a value.
    Compare(u8, String, Value),
    Present(String),
    /// An attribute and pieces, each with the tag that says where it stands.
    Substrings(String, Vec<(u8, Vec<u8>)>),
    Extensible {
        rule: Option<String>,
        attribute: Option<String>,
        value: Value,
        with_dn: bool,
    },
}

/// Bytes with gaps for the name: between each two pieces stands the name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Value(Vec<Vec<u8>>);

impl Value {
    fn filled(&self, name: &str) -> Vec<u8> {
        self.0.join(name.as_bytes())
    }
}

impl Filter {
    /// Parses `text`; `takes_name` says whether `{}` must be in it or must not.
    ///
    /// # Errors
    /// [`FilterError`] with the reason.
    pub fn parse(text: &str, takes_name: bool) -> Result<Filter, FilterError> {
        let failed = |reason| FilterError {
            text: text.chars().take(80).collect(),
            reason,
        };
        if text.len() > MAX_TEXT {
            return Err(failed("it is too long"));
        }
        let mut parser = Parser {
            rest: text.trim(),
            names: 0,
        };
        let node = parser.filter(0).map_err(failed)?;
        if !parser.rest.is_empty() {
            return Err(failed("something follows its last parenthesis"));
        }
        match (takes_name, parser.names) {
            (true, 0) => Err(failed("it has no {} where the name goes")),
            (false, 1..) => Err(failed("{} has no meaning in it")),
            _ => Ok(Filter(node)),
        }
    }

    /// Every entry there is, for a search of one by its DN.
    pub fn any() -> Filter {
        Filter(Node::Present("objectClass".to_owned()))
    }

    /// The filter as LDAP has it (RFC 4511 section 4.5.1), with `name` in each gap.
    pub fn encode(&self, name: &str) -> Zeroizing<Vec<u8>> {
        self.0.encode(name)
    }
}

impl Node {
    fn encode(&self, name: &str) -> Zeroizing<Vec<u8>> {
        match self {
            Node::Of(tag, nodes) => {
                let nodes: Vec<_> = nodes.iter().map(|node| node.encode(name)).collect();
                let nodes: Vec<&[u8]> = nodes.iter().map(|node| node.as_slice()).collect();
                ber::tlv(*tag, &nodes)
            }
            Node::Compare(tag, attribute, value) => ber::tlv(
                *tag,
                &[
                    &ber::tlv(OCTETS, &[attribute.as_bytes()]),
                    &ber::tlv(OCTETS, &[&value.filled(name)]),
                ],
            ),
            Node::Present(attribute) => ber::tlv(PRESENT, &[attribute.as_bytes()]),
            Node::Substrings(attribute, pieces) => {
                let pieces: Vec<_> = pieces
                    .iter()
                    .map(|(tag, piece)| ber::tlv(*tag, &[piece]))
                    .collect();
                let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_slice()).collect();
                ber::tlv(
                    SUBSTRINGS,
                    &[
                        &ber::tlv(OCTETS, &[attribute.as_bytes()]),
                        &ber::tlv(SEQUENCE, &pieces),
                    ],
                )
            }
            Node::Extensible {
                rule,
                attribute,
                value,
                with_dn,
            } => {
                let optional = |tag, text: &Option<String>| {
                    text.as_ref()
                        .map(|text| ber::tlv(tag, &[text.as_bytes()]))
                        .unwrap_or_default()
                };
                let with_dn = match with_dn {
                    true => ber::tlv(0x84, &[&[0xff]]),
                    false => Zeroizing::default(),
                };
                ber::tlv(
                    EXTENSIBLE,
                    &[
                        &optional(0x81, rule),
                        &optional(0x82, attribute),
                        &ber::tlv(0x83, &[&value.filled(name)]),
                        &with_dn,
                    ],
                )
            }
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    names: usize,
}

impl<'a> Parser<'a> {
    fn take(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn filter(&mut self, depth: usize) -> Result<Node, &'static str> {
        if depth == MAX_DEPTH {
            return Err("it nests too deep");
        }
        if !self.take("(") {
            return Err("a parenthesis should open here");
        }
        let node = if self.take("&") {
            Node::Of(AND, self.list(depth)?)
        } else if self.take("|") {
            Node::Of(OR, self.list(depth)?)
        } else if self.take("!") {
            Node::Of(NOT, vec![self.filter(depth + 1)?])
        } else {
            self.item()?
        };
        if !self.take(")") {
            return Err("a parenthesis isn't closed");
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, &'static str> {
        let mut nodes = Vec::new();
        while self.rest.starts_with('(') {
            nodes.push(self.filter(depth + 1)?);
        }
        match nodes.is_empty() {
            true => Err("& and | want a filter behind them"),
            false => Ok(nodes),
        }
    }

    fn item(&mut self) -> Result<Node, &'static str> {
        let (left, right) = self.rest.split_once('=').ok_or("an = is missing")?;
        let end = right.find(['(', ')']).ok_or("a parenthesis isn't closed")?;
        let (value, _) = right.split_at(end);
        self.rest = &right[end..];
        if let Some(left) = left.strip_suffix(':') {
            return self.extensible(left, value);
        }
        let (tag, attribute) = match left.char_indices().next_back() {
            Some((at, '>')) => (GREATER, &left[..at]),
            Some((at, '<')) => (LESS, &left[..at]),
            Some((at, '~')) => (APPROXIMATE, &left[..at]),
            _ => (EQUAL, left),
        };
        let attribute = described(attribute)?;
        if tag != EQUAL || !value.contains('*') {
            return Ok(Node::Compare(tag, attribute, self.value(value)?));
        }
        if value == "*" {
            return Ok(Node::Present(attribute));
        }
        let pieces: Vec<&str> = value.split('*').collect();
        let last = pieces.len() - 1;
        let mut tagged = Vec::new();
        for (at, piece) in pieces.into_iter().enumerate() {
            if piece.contains("{}") {
                return Err("a name can't stand beside a *: half of one would do");
            }
            // Initial, any, final (RFC 4511 section 4.5.1).
            let tag = match at {
                0 => 0x80,
                at if at == last => 0x82,
                _ => 0x81,
            };
            if !piece.is_empty() {
                tagged.push((tag, unescaped(piece)?));
            }
        }
        if tagged.is_empty() {
            return Err("nothing stands beside its *");
        }
        Ok(Node::Substrings(attribute, tagged))
    }

    /// `attribute[:dn][:rule]`, of which the attribute or the rule may be absent.
    fn extensible(&mut self, left: &str, value: &str) -> Result<Node, &'static str> {
        let mut parts = left.split(':');
        let attribute = match parts.next() {
            Some("") | None => None,
            Some(attribute) => Some(described(attribute)?),
        };
        let mut parts = parts.peekable();
        let with_dn = parts.next_if(|part| *part == "dn").is_some();
        let rule = parts.next().map(described).transpose()?;
        if parts.next().is_some() || (attribute.is_none() && rule.is_none()) {
            return Err("a matching rule goes like (attribute:rule:=value)");
        }
        Ok(Node::Extensible {
            rule,
            attribute,
            value: self.value(value)?,
            with_dn,
        })
    }

    fn value(&mut self, text: &str) -> Result<Value, &'static str> {
        let pieces = text
            .split("{}")
            .map(unescaped)
            .collect::<Result<Vec<_>, _>>()?;
        self.names += pieces.len() - 1;
        Ok(Value(pieces))
    }
}

/// An attribute description or a rule's name (RFC 4512 section 2.5).
pub(super) fn described(text: &str) -> Result<String, &'static str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-.;_".contains(&byte);
    match !text.is_empty() && text.bytes().all(fits) {
        true => Ok(text.to_owned()),
        false => Err("an attribute's name has letters, digits, dots and hyphens only"),
    }
}

/// A value without its escapes: a backslash and two hex digits each (RFC 4515 section 3).
fn unescaped(text: &str) -> Result<Vec<u8>, &'static str> {
    const REASON: &str = "a backslash wants two hex digits behind it";
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    let digit = |byte: Option<u8>| {
        byte.and_then(|byte| char::from(byte).to_digit(16))
            .ok_or(REASON)
    };
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => out.push((digit(bytes.next())? * 16 + digit(bytes.next())?) as u8),
            b'*' => return Err("a * in a value is written \\2a"),
            0 => return Err("a zero byte is written \\00"),
            byte => out.push(byte),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Filter {
        Filter::parse(text, text.contains("{}")).unwrap()
    }

    #[test]
    fn a_filter_has_the_bytes_that_ldap_gives_it() {
        let bytes = parsed("(&(uid={})(!(x=a\\2a))(m=*)(c=a*b*d))").encode("al");
        let expected = [
            &[0xa0, 0x2c][..],
            &[0xa3, 9, 4, 3, b'u', b'i', b'd', 4, 2, b'a', b'l'],
            &[0xa2, 9, 0xa3, 7, 4, 1, b'x', 4, 2, b'a', b'*'],
            &[0x87, 1, b'm'],
            &[0xa4, 14, 4, 1, b'c', 0x30, 9],
            &[0x80, 1, b'a', 0x81, 1, b'b', 0x82, 1, b'd'],
        ]
        .concat();
        assert_eq!(bytes.len() - 2, expected.len() - 2);
        assert_eq!(&bytes[2..], &expected[2..]);
    }

    #[test]
    fn the_filters_of_real_directories_are_taken() {
        for text in [
            "(userAccountControl:1.2.840.113556.1.4.803:=2)",
            "(memberOf:1.2.840.113556.1.4.1941:=cn=a,dc=b)",
            "(nsAccountLock=TRUE)",
            "(&(objectClass=person)(|(uid={})(mail={}@example.org)))",
            "(pwdAccountLockedTime=*)",
            "(cn:dn:caseIgnoreMatch:=x)",
            "(:caseIgnoreMatch:=x)",
            "(age>=18)",
        ] {
            parsed(text);
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in [
            "",
            "uid={}",
            "(uid={}",
            "(uid={}))",
            "(uid={}*)",
            "(&)",
            "(=x{})",
            "(a b={})",
            "(uid={}\\2)",
            "(uid=**)",
            "(:=x{})",
        ] {
            assert!(Filter::parse(text, true).is_err(), "{text}");
        }
        assert!(Filter::parse("(uid=a)", true).is_err());
        assert!(Filter::parse("(uid={})", false).is_err());
        let deep = format!("{}(a={{}}){}", "(!".repeat(40), ")".repeat(40));
        assert!(Filter::parse(&deep, true).is_err());
    }

    proptest! {
        #[test]
        fn no_name_changes_the_filter(name in ".{0,40}") {
            let bytes = parsed("(uid={})").encode(&name);
            let mut outer = ber::Reader(&bytes);
            let mut inner = ber::Reader(outer.expect(EQUAL).unwrap());
            prop_assert_eq!(inner.expect(OCTETS).unwrap(), b"uid");
            prop_assert_eq!(inner.expect(OCTETS).unwrap(), name.as_bytes());
            prop_assert!(inner.is_empty() && outer.is_empty());
        }

        #[test]
        fn no_text_panics(text in "[()&|!=*:{}\\\\a-c~<>é]{0,40}") {
            let _ = Filter::parse(&text, true);
        }
    }
}
