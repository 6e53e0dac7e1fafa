//! The LDAP messages (RFC 4511 section 4) that a login needs: bind, search, StartTLS.

use zeroize::Zeroizing;

use super::ber::{
    self, BOOLEAN, ENUMERATED, INTEGER, Malformed, OCTETS, Reader, SEQUENCE, SET, tlv,
};
use super::filter::Filter;

/// Result codes (RFC 4511 appendix A).
pub mod code {
    pub const SUCCESS: u32 = 0;
    pub const SIZE_LIMIT_EXCEEDED: u32 = 4;
    pub const NO_SUCH_OBJECT: u32 = 32;
    pub const INVALID_CREDENTIALS: u32 = 49;
}

/// StartTLS (RFC 4511 section 4.14).
const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";
/// Password policy, in requests and responses (draft-behera-ldap-password-policy-11 section 6).
const PASSWORD_POLICY: &[u8] = b"1.3.6.1.4.1.42.2.27.8.5.1";

const BIND: u8 = 0x60;
const BIND_DONE: u8 = 0x61;
const SEARCH: u8 = 0x63;
const ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const REFERENCE: u8 = 0x73;
const EXTENDED: u8 = 0x77;
const EXTENDED_DONE: u8 = 0x78;

/// How many values of an attribute are kept; an entry with more is refused.
const MAX_VALUES: usize = 4096;

/// Where a search looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The base itself.
    Base,
    /// The base and all below it.
    Subtree,
}

/// A search.
pub struct Search<'a> {
    pub base: &'a str,
    pub scope: Scope,
    /// How many entries the server may send.
    pub limit: u32,
    pub time_limit_s: u32,
    pub filter: &'a Filter,
    /// What stands in the filter's gaps.
    pub name: &'a str,
    pub attributes: &'a [&'a str],
}

/// A simple bind with the control that asks for the password policy's word.
pub fn bind(id: u32, dn: &str, password: &str) -> Zeroizing<Vec<u8>> {
    let request = tlv(
        BIND,
        &[
            &ber::number(INTEGER, 3),
            &tlv(OCTETS, &[dn.as_bytes()]),
            &tlv(0x80, &[password.as_bytes()]),
        ],
    );
    let control = tlv(SEQUENCE, &[&tlv(OCTETS, &[PASSWORD_POLICY])]);
    tlv(
        SEQUENCE,
        &[&ber::number(INTEGER, id), &request, &tlv(0xa0, &[&control])],
    )
}

/// A search that follows no alias.
pub fn search(id: u32, search: &Search<'_>) -> Zeroizing<Vec<u8>> {
    let scope = match search.scope {
        Scope::Base => 0,
        Scope::Subtree => 2,
    };
    let attributes: Vec<_> = search
        .attributes
        .iter()
        .map(|attribute| tlv(OCTETS, &[attribute.as_bytes()]))
        .collect();
    let attributes: Vec<&[u8]> = attributes.iter().map(|one| one.as_slice()).collect();
    let request = tlv(
        SEARCH,
        &[
            &tlv(OCTETS, &[search.base.as_bytes()]),
            &ber::number(ENUMERATED, scope),
            &ber::number(ENUMERATED, 0),
            &ber::number(INTEGER, search.limit),
            &ber::number(INTEGER, search.time_limit_s),
            &tlv(BOOLEAN, &[&[0]]),
            &search.filter.encode(search.name),
            &tlv(SEQUENCE, &attributes),
        ],
    );
    tlv(SEQUENCE, &[&ber::number(INTEGER, id), &request])
}

/// The request after which the connection speaks TLS.
pub fn start_tls(id: u32) -> Zeroizing<Vec<u8>> {
    let request = tlv(EXTENDED, &[&tlv(0x80, &[START_TLS])]);
    tlv(SEQUENCE, &[&ber::number(INTEGER, id), &request])
}

/// A message of the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    pub id: u32,
    pub response: Response,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Response {
    Bind(Outcome),
    Entry(Entry),
    /// Where else to look. Never followed.
    Reference,
    Search(Outcome),
    Extended(Outcome),
}

/// How an operation ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub code: u32,
    pub diagnostic: String,
    /// What the password policy says against it.
    pub policy: Option<PolicyError>,
}

/// Errors of the password policy (draft-behera-ldap-password-policy-11 section 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyError {
    PasswordExpired,
    AccountLocked,
    ChangeAfterReset,
    Other,
}

/// An entry that a search found.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub dn: String,
    attributes: Vec<(String, Vec<String>)>,
}

impl Entry {
    /// The text values of `attribute`, whose name counts in any case and with any option.
    pub fn values<'a>(&'a self, attribute: &'a str) -> impl Iterator<Item = &'a str> {
        self.attributes
            .iter()
            .filter(move |(name, _)| {
                let name = name.split(';').next().unwrap_or_default();
                name.eq_ignore_ascii_case(attribute)
            })
            .flat_map(|(_, values)| values.iter().map(String::as_str))
    }
}

/// Reads one whole message.
///
/// # Errors
/// [`Malformed`] for anything that is no answer to what this module asks.
pub fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
    let mut outer = Reader(bytes);
    let mut message = Reader(outer.expect(SEQUENCE)?);
    let id = message.number(INTEGER)?;
    let (tag, contents) = message.next()?;
    let policy = match message.is_empty() {
        true => None,
        false => policy(message.expect(0xa0)?)?,
    };
    if !outer.is_empty() || !message.is_empty() {
        return Err(Malformed);
    }
    let response = match tag {
        BIND_DONE => Response::Bind(outcome(contents, policy)?),
        ENTRY => Response::Entry(entry(contents)?),
        REFERENCE => Response::Reference,
        SEARCH_DONE => Response::Search(outcome(contents, policy)?),
        EXTENDED_DONE => Response::Extended(outcome(contents, policy)?),
        _ => return Err(Malformed),
    };
    Ok(Message { id, response })
}

/// What follows the three fields (referrals, credentials, names) isn't used.
fn outcome(contents: &[u8], policy: Option<PolicyError>) -> Result<Outcome, Malformed> {
    let mut reader = Reader(contents);
    let code = reader.number(ENUMERATED)?;
    reader.expect(OCTETS)?;
    let diagnostic = reader.expect(OCTETS)?;
    let diagnostic = String::from_utf8_lossy(&diagnostic[..diagnostic.len().min(512)]);
    Ok(Outcome {
        code,
        diagnostic: diagnostic.into_owned(),
        policy,
    })
}

fn entry(contents: &[u8]) -> Result<Entry, Malformed> {
    let mut reader = Reader(contents);
    let dn = reader.text(OCTETS)?.to_owned();
    let mut list = Reader(reader.expect(SEQUENCE)?);
    let mut attributes = Vec::new();
    let mut count = 0;
    while !list.is_empty() {
        let mut attribute = Reader(list.expect(SEQUENCE)?);
        let name = attribute.text(OCTETS)?.to_owned();
        let mut set = Reader(attribute.expect(SET)?);
        let mut values = Vec::new();
        while !set.is_empty() {
            count += 1;
            if count > MAX_VALUES {
                return Err(Malformed);
            }
            // A value that isn't text names nobody.
            if let Ok(value) = std::str::from_utf8(set.expect(OCTETS)?) {
                values.push(value.to_owned());
            }
        }
        attributes.push((name, values));
        if attributes.len() > MAX_VALUES {
            return Err(Malformed);
        }
    }
    Ok(Entry { dn, attributes })
}

/// The password policy's error, if one of the controls has one.
fn policy(controls: &[u8]) -> Result<Option<PolicyError>, Malformed> {
    let mut controls = Reader(controls);
    let mut found = None;
    while !controls.is_empty() {
        let mut control = Reader(controls.expect(SEQUENCE)?);
        let kind = control.expect(OCTETS)?;
        if control.peek() == Some(BOOLEAN) {
            control.next()?;
        }
        if kind == PASSWORD_POLICY && !control.is_empty() {
            let mut value = Reader(control.expect(OCTETS)?);
            let mut fields = Reader(value.expect(SEQUENCE)?);
            while !fields.is_empty() {
                if let (0x81, error) = fields.next()? {
                    found = Some(match ber::unsigned(error)? {
                        0 => PolicyError::PasswordExpired,
                        1 => PolicyError::AccountLocked,
                        2 => PolicyError::ChangeAfterReset,
                        _ => PolicyError::Other,
                    });
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(tag: u8, contents: &[&[u8]], controls: &[u8]) -> Vec<u8> {
        let response = tlv(tag, contents);
        tlv(SEQUENCE, &[&ber::number(INTEGER, 2), &response, controls]).to_vec()
    }

    fn refusal(error: u8) -> Vec<u8> {
        let value = tlv(SEQUENCE, &[&tlv(0x81, &[&[error]])]);
        let control = tlv(
            SEQUENCE,
            &[&tlv(OCTETS, &[PASSWORD_POLICY]), &tlv(OCTETS, &[&value])],
        );
        answer(
            BIND_DONE,
            &[
                &ber::number(ENUMERATED, 49),
                &tlv(OCTETS, &[]),
                &tlv(OCTETS, &[b"no"]),
            ],
            &tlv(0xa0, &[&control]),
        )
    }

    fn person() -> Vec<u8> {
        let attribute = tlv(
            SEQUENCE,
            &[
                &tlv(OCTETS, &[b"memberOf;x"]),
                &tlv(SET, &[&tlv(OCTETS, &[b"cn=a"]), &tlv(OCTETS, &[&[0xff]])]),
            ],
        );
        answer(
            ENTRY,
            &[&tlv(OCTETS, &[b"uid=a"]), &tlv(SEQUENCE, &[&attribute])],
            &[],
        )
    }

    #[test]
    fn a_bind_has_the_bytes_that_ldap_gives_it() {
        let bytes = bind(1, "cn=a", "pw");
        let expected = [
            &[0x30, 0x34, 2, 1, 1, 0x60, 13, 2, 1, 3, 4, 4][..],
            b"cn=a",
            &[0x80, 2],
            b"pw",
        ]
        .concat();
        assert_eq!(&bytes[2..expected.len()], &expected[2..]);
        assert!(bytes.ends_with(PASSWORD_POLICY));
    }

    #[test]
    fn the_policy_says_why() {
        for (error, expected) in [
            (0, PolicyError::PasswordExpired),
            (1, PolicyError::AccountLocked),
            (2, PolicyError::ChangeAfterReset),
            (7, PolicyError::Other),
        ] {
            let Response::Bind(outcome) = decode(&refusal(error)).unwrap().response else {
                panic!("a bind was answered");
            };
            assert_eq!(outcome.code, code::INVALID_CREDENTIALS);
            assert_eq!(outcome.policy, Some(expected));
            assert_eq!(outcome.diagnostic, "no");
        }
    }

    #[test]
    fn an_entry_has_its_text_values() {
        let Response::Entry(entry) = decode(&person()).unwrap().response else {
            panic!("an entry was sent");
        };
        assert_eq!(entry.dn, "uid=a");
        assert_eq!(entry.values("MEMBEROF").collect::<Vec<_>>(), ["cn=a"]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn no_mutation_panics(at in 0usize..200, to: u8, cut in 0usize..200) {
            for mut bytes in [person(), refusal(1)] {
                let length = bytes.len();
                bytes[at % length] = to;
                let _ = decode(&bytes);
                let _ = decode(&bytes[..cut % length]);
            }
        }
    }
}
