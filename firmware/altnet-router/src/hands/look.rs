//! What works in the house: what the router knows, and what others say whom it asks.
//!
//! The house's resolver is asked for the name servers of the root, which every resolver of the internet knows and which
//! tells nobody anything. altnetd is asked over its socket. Nobody there, or no answer, is the box's own fault; a resolver
//! that says that nobody answers it, and a network in which nobody is reached, may be somebody else's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use altnet_update::confirm::{Facts, Finding};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UdpSocket, UnixStream};
use tokio::time::timeout;

use crate::machine::Known;

/// How long an answer is waited for. altnetd waits for two seconds for each resolver that it asks itself.
const PATIENCE: Duration = Duration::from_secs(6);
/// When a question by UDP is asked again.
const AGAIN: Duration = Duration::from_secs(2);
/// The most of a line of altnetd's, in bytes; as its own bound.
const MAX_LINE_BYTES: u64 = 256 * 1024;
/// The version of altnetd's API that is spoken.
const API_VERSION: u8 = 1;

/// What works, for who asks the router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The way to the internet.
    pub wan: Found,
    /// Names of the internet.
    pub dns: Found,
    /// The private network.
    pub private: Found,
    /// The house's side.
    pub lan: Found,
    /// What altnetd knows of the calendar, if it answers.
    pub calendar: Option<Calendar>,
}

/// A [`Finding`], in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// It works.
    Works,
    /// It doesn't, and that may be somebody else's fault.
    Outside,
    /// It doesn't.
    Here,
}

/// What altnetd knows of the calendar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calendar {
    /// Whether it is known. If not, it is no earlier than `time`, by what was signed.
    #[serde(rename = "time_known")]
    pub is_known: bool,
    /// The time (RFC 3339).
    pub time: String,
}

impl From<Finding> for Found {
    fn from(finding: Finding) -> Self {
        match finding {
            Finding::Works => Self::Works,
            Finding::Outside => Self::Outside,
            Finding::Here => Self::Here,
        }
    }
}

impl From<Found> for Finding {
    fn from(found: Found) -> Self {
        match found {
            Found::Works => Self::Works,
            Found::Outside => Self::Outside,
            Found::Here => Self::Here,
        }
    }
}

impl Look {
    /// The facts by which a slot is judged.
    pub fn facts(&self) -> Facts {
        Facts {
            wan: self.wan.into(),
            dns: self.dns.into(),
            private: self.private.into(),
            lan: self.lan.into(),
        }
    }
}

/// Looks around: takes at most some seconds.
pub async fn around(known: Known, altnetd: &Path) -> Look {
    let names = async {
        match known.resolver {
            Some(resolver) => names(resolver).await,
            None => Finding::Here,
        }
    };
    let (dns, (private, calendar)) = tokio::join!(names, network(altnetd));
    Look {
        wan: known.wan.into(),
        dns: dns.into(),
        private: private.into(),
        lan: known.lan.into(),
        calendar,
    }
}

/// Whether `resolver` resolves names of the internet.
async fn names(resolver: SocketAddr) -> Finding {
    match timeout(PATIENCE, ask(resolver)).await {
        Ok(Ok(code)) => judge(code),
        Ok(Err(e)) => {
            altnet_service::debug!("{resolver} can't be asked for names: {e}");
            Finding::Here
        }
        Err(_) => Finding::Here,
    }
}

/// What a response code (RFC 1035 section 4.1.1) says: the resolver itself is there in any case.
const fn judge(code: u8) -> Finding {
    const NO_ERROR: u8 = 0;
    const NO_SUCH_NAME: u8 = 3;
    match code {
        NO_ERROR | NO_SUCH_NAME => Finding::Works,
        _ => Finding::Outside,
    }
}

/// The response code of an answer about the root's name servers.
async fn ask(resolver: SocketAddr) -> io::Result<u8> {
    let any = match resolver.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let question = root_servers(id);
    let mut answer = [0; 512];
    loop {
        socket.send(&question).await?;
        let heard = async {
            loop {
                let len = socket.recv(&mut answer).await?;
                if let Some(code) = response_code(&question, answer.get(..len).unwrap_or(&[])) {
                    return Ok(code);
                }
            }
        };
        if let Ok(heard) = timeout(AGAIN, heard).await {
            return heard;
        }
    }
}

/// A question for the name servers of the root, recursion desired (RFC 1035 section 4.1).
const fn root_servers(id: [u8; 2]) -> [u8; 17] {
    [id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1]
}

/// The response code of an answer to this question; None of what isn't one.
fn response_code(question: &[u8; 17], answer: &[u8]) -> Option<u8> {
    let (header, rest) = answer.split_first_chunk::<12>()?;
    let is_answer = header[..2] == question[..2] && header[2] & 0x80 != 0;
    let is_ours = header[4..6] == [0, 1] && rest.starts_with(&question[12..]);
    // A resolver that can't read the question needn't repeat it.
    let is_refused = header[4..6] == [0, 0] && header[3] & 15 != 0;
    (is_answer && (is_ours || is_refused)).then_some(header[3] & 15)
}

/// What is read of altnetd's `status`.
#[derive(Debug, Deserialize)]
struct Status {
    state: String,
    #[serde(default)]
    relays: Vec<Relay>,
    #[serde(flatten)]
    calendar: Option<Calendar>,
}

#[derive(Debug, Deserialize)]
struct Relay {
    up: bool,
}

/// And of its `peers`.
#[derive(Debug, Deserialize)]
struct Peers {
    peers: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
struct Peer {
    path: String,
}

/// Whether anybody of the private network is reached, and what altnetd knows of the calendar.
async fn network(altnetd: &Path) -> (Finding, Option<Calendar>) {
    let asked = async {
        let mut stream = BufReader::new(UnixStream::connect(altnetd).await?);
        let status: Status = call(&mut stream, "status").await?;
        let peers: Peers = match status.state.as_str() {
            "member" => call(&mut stream, "peers").await?,
            _ => return Ok((Finding::Here, status.calendar)),
        };
        let is_reached = status.relays.iter().any(|relay| relay.up)
            || peers.peers.iter().any(|peer| peer.path != "none");
        let finding = match is_reached {
            true => Finding::Works,
            false => Finding::Outside,
        };
        Ok((finding, status.calendar))
    };
    let asked: io::Result<_> = match timeout(PATIENCE, asked).await {
        Ok(asked) => asked,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    asked.unwrap_or_else(|e| {
        altnet_service::debug!("altnetd doesn't answer at {}: {e}", altnetd.display());
        (Finding::Here, None)
    })
}

async fn call<T: DeserializeOwned>(
    stream: &mut BufReader<UnixStream>,
    method: &str,
) -> io::Result<T> {
    #[derive(Deserialize)]
    struct Answer<T> {
        result: T,
    }
    let request = json!({ "v": API_VERSION, "id": 1, "method": method, "params": {} });
    stream.write_all(format!("{request}\n").as_bytes()).await?;
    let mut line = Vec::new();
    let mut bounded = stream.take(MAX_LINE_BYTES);
    bounded.read_until(b'\n', &mut line).await?;
    Ok(serde_json::from_slice::<Answer<T>>(&line)?.result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::net::UnixListener;

    const QUESTION: [u8; 17] = root_servers([7, 9]);

    fn answer(code: u8) -> Vec<u8> {
        let mut answer = QUESTION.to_vec();
        answer[2..4].copy_from_slice(&[0x81, 0x80 | code]);
        answer
    }

    #[test]
    fn the_question_is_the_one_of_the_standard() {
        // As `dig . NS` sends it, without EDNS.
        let sent = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
        assert_eq!(root_servers([0, 7]), sent);
    }

    #[test]
    fn only_an_answer_to_the_question_counts() {
        assert_eq!(response_code(&QUESTION, &answer(0)), Some(0));
        assert_eq!(response_code(&QUESTION, &QUESTION), None);
        let mut other = answer(2);
        other[0] ^= 1;
        assert_eq!(response_code(&QUESTION, &other), None);
        let mut other = answer(2);
        other[14] = 1;
        assert_eq!(response_code(&QUESTION, &other), None);
        let unread = [7, 9, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(response_code(&QUESTION, &unread), Some(1));
        let judged: Vec<Finding> = [0, 2, 3, 5].map(judge).into();
        use Finding::{Outside, Works};
        assert_eq!(judged, [Works, Outside, Works, Outside]);
    }

    #[tokio::test]
    async fn a_resolver_that_is_not_there_or_says_nothing_is_the_boxs_fault() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = silent.local_addr().unwrap();
        let (found, asked) = tokio::join!(names(at), async {
            let mut buffer = [0; 64];
            let first = silent.recv_from(&mut buffer).await.unwrap();
            let second = silent.recv_from(&mut buffer).await.unwrap();
            (first, second)
        });
        assert_eq!(found, Finding::Here);
        assert_eq!(asked.0, asked.1, "it is asked again");
        drop(silent);
        assert_eq!(names(at).await, Finding::Here);
    }

    #[tokio::test]
    async fn an_answer_is_waited_for_past_what_is_none() {
        let resolver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = resolver.local_addr().unwrap();
        let (found, ()) = tokio::join!(names(at), async {
            let mut buffer = [0; 64];
            let (len, from) = resolver.recv_from(&mut buffer).await.unwrap();
            let mut answer = buffer[..len].to_vec();
            resolver.send_to(&answer, from).await.unwrap();
            answer[2..4].copy_from_slice(&[0x81, 0x82]);
            resolver.send_to(&answer, from).await.unwrap();
        });
        assert_eq!(found, Finding::Outside);
    }

    /// What is found of an altnetd that answers `status` and `peers` so.
    async fn found(status: &str, peers: &str) -> (Finding, Option<Calendar>) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("altnet.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let served = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            for said in [status, peers] {
                let mut line = String::new();
                if stream.read_line(&mut line).await.unwrap() == 0 {
                    break;
                }
                // Who reads may have read enough.
                let _ = stream.write_all(said.as_bytes()).await;
            }
        };
        tokio::join!(network(&path), served).0
    }

    #[tokio::test]
    async fn the_private_network_works_if_somebody_of_it_is_reached() {
        let status = |state: &str, up: bool| {
            format!(
                "{{\"v\":1,\"id\":1,\"result\":{{\"version\":\"9\",\"state\":\"{state}\",\"relays\":[{{\"name\":\"r\",\"up\":{up}}}],\"time_known\":false,\"time\":\"2026-12-01T00:00:00Z\"}}}}\n"
            )
        };
        let peers = |path: &str| {
            format!("{{\"v\":1,\"id\":1,\"result\":{{\"peers\":[{{\"path\":\"{path}\"}}]}}}}\n")
        };
        let (none, direct) = (peers("none"), peers("direct"));
        let calendar = Calendar {
            is_known: false,
            time: "2026-12-01T00:00:00Z".into(),
        };
        for (status, peers, expected) in [
            (status("member", true), &none, Finding::Works),
            (status("member", false), &direct, Finding::Works),
            (status("member", false), &none, Finding::Outside),
            (status("outside", true), &direct, Finding::Here),
        ] {
            let (finding, said) = found(&status, peers).await;
            assert_eq!(
                (finding, said.as_ref()),
                (expected, Some(&calendar)),
                "{status}"
            );
        }
        let refused =
            "{\"v\":1,\"id\":1,\"error\":{\"code\":\"busy\",\"message\":\"\",\"hint\":\"\"}}\n";
        for bad in [refused, "what\n", ""] {
            assert_eq!(found(bad, bad).await, (Finding::Here, None), "{bad}");
        }
        assert_eq!(
            network(Path::new("/nonexistent/altnet.sock")).await,
            (Finding::Here, None)
        );
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_not_read_for_ever() {
        let long = "x".repeat(MAX_LINE_BYTES as usize + 1000);
        assert_eq!(found(&long, "").await, (Finding::Here, None));
    }

    proptest! {
        #[test]
        fn no_bytes_are_an_answer_by_mistake(bytes: Vec<u8>) {
            let is_ours = bytes.starts_with(&QUESTION[..2]);
            prop_assert!(response_code(&QUESTION, &bytes).is_none() || is_ours);
        }
    }
}
