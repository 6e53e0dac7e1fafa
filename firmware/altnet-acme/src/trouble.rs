//! Why there is no certificate, and what to do.
//!
//! In: what went wrong, an authority's words among it. Out: one line that begins with what happened and
//! ends with what to do. An authority's own words are quoted, but not without end.

use std::fmt::Write as _;

use instant_acme::{Error, Problem};

use crate::leaf::Unfit;
use crate::store::StoreError;

/// What an authority's kinds of problem begin with (RFC 8555 section 6.7).
const KIND: &str = "urn:ietf:params:acme:error:";
/// How much of an authority's own words is shown, in characters.
const MOST_SHOWN: usize = 300;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// The authority couldn't be spoken to, or refused.
    #[error("{}", of_error(.0))]
    Authority(Error),
    /// It didn't find the relay behind a name.
    #[error("{}", of_name(.name, .problem))]
    Name {
        /// The name.
        name: String,
        /// What it says.
        problem: Problem,
    },
    /// It proves names by other means alone.
    #[error(
        "the authority doesn't offer tls-alpn-01 for {0}, the only proof that altnet-acme gives; choose another directory"
    )]
    NoChallenge(String),
    /// It has us prove a name that wasn't asked for, or in a state that leads nowhere.
    #[error("the authority's order makes no sense ({0}); altnet-acme tries again later")]
    Order(&'static str),
    /// What it sent is of no use.
    #[error("what the authority sent can't be used: {0}; altnet-acme tries again later")]
    Unfit(Unfit),
    /// It sent a certificate for other names, or one that isn't good now.
    #[error("{0}")]
    Wrong(String),
    /// It answers, but comes to no end.
    #[error("the authority wasn't done in time; altnet-acme tries again later")]
    Late,
    /// The folder can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No key could be made.
    #[error("can't make a key or a request: {0}")]
    NotMade(rcgen::Error),
    /// It isn't asked.
    #[error(
        "the authority wants to be left alone until {0}; it would refuse, and perhaps for longer"
    )]
    Told(String),
}

// What they say is in the text already: none of them is a cause to be named once more.
impl From<Error> for Trouble {
    fn from(e: Error) -> Self {
        Self::Authority(e)
    }
}

impl From<Unfit> for Trouble {
    fn from(e: Unfit) -> Self {
        Self::Unfit(e)
    }
}

impl From<rcgen::Error> for Trouble {
    fn from(e: rcgen::Error) -> Self {
        Self::NotMade(e)
    }
}

impl Trouble {
    /// Whether the authority says that it doesn't know the account any more.
    pub fn is_lost_account(&self) -> bool {
        match self {
            Self::Authority(Error::Api(problem)) => kind(problem) == "accountDoesNotExist",
            Self::Authority(Error::KeyRejected) => true,
            _ => false,
        }
    }
}

/// Whether an authority refuses because it was asked too often (RFC 8555 section 6.6).
pub fn is_limit(problem: &Problem) -> bool {
    problem.status == Some(429) || kind(problem) == "rateLimited"
}

/// An authority's name for the kind of a problem, without what all begin with.
fn kind(problem: &Problem) -> &str {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    kind.strip_prefix(KIND).unwrap_or(kind)
}

/// An authority's own words.
fn words(problem: &Problem) -> String {
    let mut all = problem
        .detail
        .clone()
        .unwrap_or_else(|| kind(problem).into());
    for part in &problem.subproblems {
        let _ = write!(all, "; {part}");
    }
    shown(&all)
}

/// What is shown of a text that came over the network.
fn shown(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(MOST_SHOWN).collect()
}

fn of_error(error: &Error) -> String {
    let said = match error {
        Error::Api(problem) => return of_problem(problem),
        Error::Timeout(_) => {
            return "the authority isn't done after minutes; altnet-acme tries again later".into();
        }
        Error::Json(_) => "what it says isn't what an ACME server says".into(),
        other => shown(&other.to_string()),
    };
    format!(
        "can't speak with the authority: {said}; is `directory` right, does this machine reach it, and is its clock right?"
    )
}

fn of_problem(problem: &Problem) -> String {
    let advice = match kind(problem) {
        "rateLimited" => "there is nothing to do but to wait",
        "rejectedIdentifier" | "unsupportedIdentifier" => {
            "the authority signs nothing for that name; change `names`"
        }
        "caa" => "the domain's CAA record lets other authorities sign; change it, or `directory`",
        "invalidContact" | "unsupportedContact" => "change `contact`",
        "externalAccountRequired" => {
            "this authority wants an account from its site, which altnet-acme can't use; choose another directory"
        }
        "userActionRequired" => {
            "the authority wants you to do something, mostly to agree to new terms"
        }
        "accountDoesNotExist" => "altnet-acme makes another account at its next attempt",
        "unauthorized" => "altnet-acme tries again later; if it stays so, remove account.state",
        "serverInternal" => "the authority has a fault; altnet-acme tries again later",
        _ => "altnet-acme tries again later",
    };
    format!("the authority refuses: {}; {advice}", words(problem))
}

fn of_name(name: &str, problem: &Problem) -> String {
    let advice = match kind(problem) {
        "dns" => "give the name an A or AAAA record with the relay's public address",
        "connection" => {
            "let the name lead to the relay, and TCP port 443 through to it: each router and firewall on the way counts"
        }
        "tls" | "unauthorized" | "incorrectResponse" => {
            "something else answers at port 443 of that name, or the relay doesn't look in this folder: give it `[relay] acme` or `--acme`, and this file `group`"
        }
        "caa" => "the domain's CAA record lets other authorities sign; change it, or `directory`",
        "rateLimited" => "there is nothing to do but to wait",
        _ => "altnet-acme tries again later",
    };
    format!(
        "the authority couldn't validate {name}: {}; {advice}",
        words(problem)
    )
}

/// Takes any bytes in the place of what an authority says is wrong.
pub fn untrusted(bytes: &[u8]) {
    if let Ok(problem) = serde_json::from_slice::<Problem>(bytes) {
        let _ = of_problem(&problem);
        let _ = of_name("a.example", &problem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problem(kind: &str, detail: &str) -> Problem {
        let json =
            serde_json::json!({ "type": format!("{KIND}{kind}"), "detail": detail, "status": 400 });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_is_wrong_with_a_name_comes_with_what_to_do() {
        for (kind, expected) in [
            ("dns", "A or AAAA record"),
            ("connection", "TCP port 443"),
            ("unauthorized", "[relay] acme"),
            ("caa", "CAA record"),
            ("quaint", "tries again later"),
        ] {
            let trouble = Trouble::Name {
                name: "relay.example".into(),
                problem: problem(kind, "its own words"),
            };
            let said = trouble.to_string();
            assert!(said.contains("relay.example: its own words"), "{said}");
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn what_an_authority_refuses_comes_with_what_to_do() {
        for (kind, expected) in [
            ("rateLimited", "wait"),
            ("rejectedIdentifier", "`names`"),
            ("externalAccountRequired", "another directory"),
            ("serverInternal", "has a fault"),
        ] {
            let said = Trouble::from(Error::Api(problem(kind, "too many"))).to_string();
            assert!(
                said.contains("too many") && said.contains(expected),
                "{said}"
            );
        }
        let lost = Trouble::from(Error::Api(problem("accountDoesNotExist", "?")));
        assert!(lost.is_lost_account());
        assert!(!Trouble::from(Error::Timeout(None)).is_lost_account());
    }

    #[test]
    fn words_of_others_are_bounded_and_on_one_line() {
        let long = format!("a\nb\u{1b}[31m{}", "x".repeat(10_000));
        let said = Trouble::from(Error::Api(problem("malformed", &long))).to_string();
        assert!(
            said.chars().count() < 500 && !said.chars().any(char::is_control),
            "{said}"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in ".*") {
            untrusted(&bytes);
            untrusted(serde_json::json!({ "type": text, "detail": text }).to_string().as_bytes());
        }
    }
}
