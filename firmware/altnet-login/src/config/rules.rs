//! Who of a directory is who in policy. What isn't said counts for nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::directory::Identity;

/// The longest name, in bytes: a DNS label (RFC 1035 section 2.3.4), as in policy.
pub const MAX_NAME_BYTES: usize = 63;
/// The most groups that are told of one person: policy's own bound. Who is in more counts in the
/// first of them by name.
pub const MAX_GROUPS: usize = 8;

/// Who is who that isn't in `people`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Person {
    /// Nobody.
    #[default]
    Mapped,
    /// The directory's name, in lower case, if it can be one of policy's.
    Name,
}

/// Who counts as whom.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// From the directory's groups to those of policy.
    pub groups: BTreeMap<String, String>,
    /// From the directory's subject or name to a person of policy.
    pub people: BTreeMap<String, String>,
    /// Everybody else.
    pub person: Person,
}

/// Somebody as policy knows them. One of the two isn't empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The person, if it is one.
    pub person: Option<String>,
    /// The groups, at most [`MAX_GROUPS`].
    pub groups: Vec<String>,
}

impl Rules {
    /// Whom `identity` counts as; nothing if as nobody and in no group.
    pub fn count(&self, identity: &Identity) -> Option<Counted> {
        let mapped = self.people.get(&identity.subject);
        let mapped = mapped.or_else(|| self.people.get(&identity.name));
        let person = match (mapped, self.person) {
            (Some(person), _) => Some(person.clone()),
            (None, Person::Mapped) => None,
            (None, Person::Name) => {
                Some(identity.name.to_lowercase()).filter(|name| is_policy_name(name))
            }
        };
        let groups: BTreeSet<&String> = identity
            .groups
            .iter()
            .filter_map(|group| self.groups.get(group))
            .collect();
        let groups: Vec<String> = groups.into_iter().take(MAX_GROUPS).cloned().collect();
        (person.is_some() || !groups.is_empty()).then_some(Counted { person, groups })
    }
}

/// Whether policy can have the name: 1 to 63 of `a-z`, `0-9` and inner `-` (RFC 1123 section 2.1).
pub fn is_policy_name(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.bytes().all(ok)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn table(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn check(
        person: Person,
        name: &str,
        groups: &[&str],
        expected: Option<(Option<&str>, &[&str])>,
    ) {
        let rules = Rules {
            groups: table(&[("Staff", "team"), ("Admins", "team"), ("Kids", "kids")]),
            people: table(&[("subject-1", "ann"), ("bob@example", "bob")]),
            person,
        };
        let (subject, name) = name.split_once('/').unwrap();
        let identity = Identity {
            subject: subject.into(),
            name: name.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            expires: None,
            handle: Zeroizing::default(),
        };
        let expected = expected.map(|(person, groups)| Counted {
            person: person.map(String::from),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        });
        assert_eq!(rules.count(&identity), expected);
    }

    #[test]
    fn only_what_is_mapped_counts() {
        check(Person::Mapped, "subject-1/x", &[], Some((Some("ann"), &[])));
        check(
            Person::Mapped,
            "2/bob@example",
            &["Kids", "x"],
            Some((Some("bob"), &["kids"])),
        );
        check(Person::Mapped, "3/eve", &["team", "kids"], None);
        check(
            Person::Mapped,
            "3/eve",
            &["Staff", "Admins"],
            Some((None, &["team"])),
        );
    }

    #[test]
    fn a_name_counts_where_it_may_and_can() {
        check(Person::Name, "3/Eve", &[], Some((Some("eve"), &[])));
        check(Person::Name, "subject-1/eve", &[], Some((Some("ann"), &[])));
        for name in ["3/", "3/-eve", "3/eve-", "3/eve@x", "3/e e", "3/\u{e9}ve"] {
            check(Person::Name, name, &[], None);
        }
        check(Person::Name, &format!("3/{}", "a".repeat(64)), &[], None);
    }
}
