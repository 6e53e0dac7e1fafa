//! Why a path is what it is, in words a person can act on.

use core::fmt;

use altnet_wire::message::CandidateKind;

/// Why the path is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// A challenge was answered at this kind of address.
    DirectAnswered(CandidateKind),
    /// A handshake went there and back; no challenge was answered there of late.
    DirectHeard,
    /// An address of the peer is tried; it has not answered yet.
    Untested,
    /// The peer has not told any address to try.
    RelayNoCandidates,
    /// Direct addresses are being tried.
    RelayTrying,
    /// No direct address answered.
    RelayNoAnswer,
    /// The direct path went silent.
    RelayDirectLost,
    /// No direct address answers, and no relay of ours carries.
    Turn,
    /// The same, and no TURN server either.
    Derp,
    /// There is neither a direct address nor a relay in common.
    NoWay,
}

impl Why {
    /// A stable word for programs.
    pub const fn id(self) -> &'static str {
        match self {
            Self::DirectAnswered(_) => "direct-answered",
            Self::DirectHeard => "direct-heard",
            Self::Untested => "direct-untested",
            Self::RelayNoCandidates => "relay-no-candidates",
            Self::RelayTrying => "relay-trying",
            Self::RelayNoAnswer => "relay-no-answer",
            Self::RelayDirectLost => "relay-direct-lost",
            Self::Turn => "turn",
            Self::Derp => "derp",
            Self::NoWay => "no-way",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DirectAnswered(CandidateKind::Host) => "direct: its own address answers",
            Self::DirectAnswered(CandidateKind::Reflexive) => {
                "direct: the address its relay sees answers"
            }
            Self::DirectAnswered(CandidateKind::Mapped) => {
                "direct: the port that its router keeps open answers"
            }
            Self::DirectAnswered(_) => "direct: its fixed address answers",
            Self::DirectHeard => "direct: it was heard from there",
            Self::Untested => "an address of it is tried, no answer yet",
            Self::RelayNoCandidates => "by relay: it has told no address to try yet",
            Self::RelayTrying => "by relay while its direct addresses are tried",
            Self::RelayNoAnswer => {
                "by relay: no direct address answers (both NATs may change ports, or UDP is blocked)"
            }
            Self::RelayDirectLost => "by relay: the direct path went silent",
            Self::Turn => {
                "by somebody else's TURN server: no direct address answers, and no relay of this network carries"
            }
            Self::Derp => {
                "by somebody else's DERP server: no direct address answers, and no relay of this network carries"
            }
            Self::NoWay => {
                "no way: no address of it answers and no relay serves both; a network needs one reachable relay"
            }
        })
    }
}
