//! What two nodes say inside a control session.
//!
//! A message is one postcard value of [`Message`], carried whole by the session. New
//! variants are added at the end only; an unknown one is answered with
//! [`Refusal::Unsupported`] where it was a request and passed over where it was not.

use core::net::{Ipv6Addr, SocketAddr};

use heapless::Vec;
use serde::{Deserialize, Serialize};

use crate::audit::{SignedHead, Testimony};
use crate::hash::Hash;
use crate::id::{ControlKey, MemberId, Name, NetworkId, NodeId, Serial, SigningKey};
use crate::knock::{Key, Proof};
use crate::mesh::MeshNotice;
use crate::policy::Run;
use crate::record::MAX_GROUPS;

/// The largest message in bytes: a policy record and what goes around it.
pub const MAX_MESSAGE_BYTES: usize = 20 * 1024;
/// Most heads in a list.
pub const MAX_HEADS: usize = 8;
/// Most candidates in a presence.
pub const MAX_CANDIDATES: usize = 8;
/// Most relays in a presence.
pub const MAX_PRESENCE_RELAYS: usize = 4;

/// Two halves of an Ed25519 signature (serde knows arrays up to 32).
pub type SignatureHalves = [[u8; 32]; 2];

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message<'a> {
    /// The first message of each side of a session.
    #[serde(borrow)]
    Hello(Hello<'a>),
    /// Wants a [`Message::Reply`] with the same id.
    Request {
        /// Chosen by the asker, new for each request of a session.
        id: u32,
        /// What is asked.
        #[serde(borrow)]
        request: Request<'a>,
    },
    /// Answers a request.
    Reply {
        /// The request's id.
        id: u32,
        /// The answer.
        #[serde(borrow)]
        reply: Reply<'a>,
    },
    /// Said without being asked.
    #[serde(borrow)]
    Notice(Notice<'a>),
}

/// Who is there. In an XX session from a stranger `chain` is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello<'a> {
    /// The network that is meant.
    pub network: NetworkId,
    /// The sender's chain from the genesis to its own node record, as [`Packed`].
    pub chain: &'a [u8],
    /// How far each issuer has come, as far as the sender knows.
    pub heads: Vec<HeadSummary, MAX_HEADS>,
}

/// One issuer's counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadSummary {
    /// The issuer.
    pub issuer: SigningKey,
    /// The serial of its newest known head.
    pub counter: Serial,
}

/// Where a subscriber has come to in one directory's order of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Chosen at random by a directory when its order begins anew; 0 asks for everything.
    pub epoch: u64,
    /// The last change that the subscriber has.
    pub revision: u64,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// To be let in.
    #[serde(borrow)]
    Redeem(Redeem<'a>),
    /// A new membership in place of the asker's own.
    Renew,
    /// To take over records, as [`Packed`].
    Announce {
        /// The records.
        records: &'a [u8],
    },
    /// Records about somebody.
    Find(Find),
    /// Every record after `cursor`, then every change as a [`Notice::Changed`].
    Subscribe {
        /// Where to begin.
        cursor: Cursor,
    },
    /// The revocations, policies and heads that a node with `heads` lacks, the newest first.
    Catch {
        /// What the asker has.
        heads: Vec<HeadSummary, MAX_HEADS>,
        /// The `cursor` of the page before, to go on from there; the default begins.
        cursor: Cursor,
    },
    /// To be forwarded to: answered with [`Reply::Registered`].
    Register,
    /// To pass the asker's presence on to a node that the asked one has a session with.
    Introduce {
        /// To whom.
        to: NodeId,
        /// Where the asker is.
        presence: Presence,
    },
    /// To be served like a member: the asker holds an owner's or issuer's key. How an
    /// owner's computer, which is no member, reads what its network has come to.
    Prove {
        /// The owner's or issuer's key.
        key: SigningKey,
        /// Its signature over [`operator_proof`].
        proof: SignatureHalves,
    },
    /// To countersign how far the asker's audit log has come: [`Reply::Witnessed`] if it goes on
    /// from what the asked one holds of it, [`Reply::Holds`] if not.
    Witness {
        /// The log's head.
        head: SignedHead,
        /// The sequence after which `digests` begin.
        from: u64,
        /// The digests of all entries after `from` up to the head, 32 bytes each, at most
        /// [`crate::audit::MAX_DIGESTS`].
        digests: &'a [u8],
        /// Whether the asker can't show anything older any more.
        is_all: bool,
    },
    /// To be told where `with` is, and it where the asker is, as the asked relay sees both now:
    /// answered with [`Notice::Meeting`] once both asked within [`MEETING_S`].
    Meet {
        /// Another client of the relay, or one of a relay that is in a mesh with it.
        with: NodeId,
    },
    /// To be knocked at from several places, where the asked relay sees a port that the asker is about to show it
    /// ([`crate::knock`]). [`Reply::Done`] says that it may be shown.
    Knock {
        /// What the proofs are made of.
        key: Key,
    },
    /// One relay to another: to knock at a client of the asker's.
    KnockFor {
        /// Which client.
        who: NodeId,
        /// Where the asker sees the port that it shows.
        at: SocketAddr,
        /// What the knock bears.
        proof: Proof,
    },
}

/// What the holder of an owner's or issuer's key signs in [`Request::Prove`]: bound to the
/// Noise session by its handshake hash.
pub fn operator_proof(handshake: &Hash, key: &SigningKey) -> Hash {
    crate::hash::labelled("altnet operator proof v1", &[handshake, &key.0])
}

/// A request to be let in by an invite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redeem<'a> {
    /// The invite's envelope.
    pub invite: &'a [u8],
    /// The new device's key.
    pub device: SigningKey,
    /// Its control key: the one of this session.
    pub control: ControlKey,
    /// The name it would like; the invite's own goes before.
    pub name: Option<Name>,
    /// The invite's secret half over [`crate::record::redemption_proof`].
    pub invite_proof: SignatureHalves,
    /// The device key over the same.
    pub device_proof: SignatureHalves,
}

/// Whose records are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Find {
    /// Who has this address: a node's, a site's, a host's or an app's.
    Address(Ipv6Addr),
    /// The host, app or member with this name.
    Name(Name),
    /// A member.
    Member(MemberId),
    /// The member with this device key.
    Device(SigningKey),
}

/// What can be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply<'a> {
    /// Let in: the records that a new member begins with, its membership among them.
    Redeemed {
        /// As [`Packed`].
        records: &'a [u8],
    },
    /// On disk here: each announced record is either held or was refused.
    Announced {
        /// How many are held.
        held: u16,
        /// How many were refused.
        refused: u16,
    },
    /// Records, as [`Packed`]; `more` says that others follow in [`Notice::Changed`].
    Records {
        /// As [`Packed`].
        records: &'a [u8],
        /// Where this brings a subscriber to.
        cursor: Cursor,
        /// Whether more follow.
        more: bool,
    },
    /// The asker is forwarded to under this token.
    Registered {
        /// Put before everything that is sent to be forwarded.
        token: u64,
        /// Where the relay sees the asker.
        observed: SocketAddr,
        /// After this long without a word the token ends.
        lifetime_s: u32,
    },
    /// Done.
    Done,
    /// Not done.
    Refused(Refusal),
    /// The audit log's head is countersigned.
    Witnessed(Testimony),
    /// Not countersigned: this is what the asked one holds of that log, and what was shown does
    /// not go on from it.
    Holds(SignedHead),
}

/// Why something was not done. One clear sentence each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A request of a later version.
    #[error("the other side doesn't know this request; update it")]
    Unsupported,
    /// Unreadable.
    #[error("the request was damaged")]
    Damaged,
    /// Not for members of another network, or for strangers.
    #[error("the other side doesn't let this node ask that")]
    NotAllowed,
    /// The invite is for another network.
    #[error("the invite is for another network")]
    OtherNetwork,
    /// The invite was altered, or its proof doesn't fit.
    #[error("the invite was altered; ask for a new one")]
    InviteAltered,
    /// The invite has expired.
    #[error("the invite has expired; ask for a new one")]
    InviteExpired,
    /// The invite was used as often as it may be.
    #[error("the invite was used up; ask for a new one")]
    InviteUsedUp,
    /// The invite was revoked.
    #[error("the invite was revoked; ask for a new one")]
    InviteRevoked,
    /// Another issuer counts this invite's uses.
    #[error("this issuer doesn't admit for that invite; ask the one it names")]
    OtherIssuer,
    /// The name is taken.
    #[error("that name is taken in this network; choose another")]
    NameTaken,
    /// The site is taken.
    #[error(
        "that site has another gateway in this network; revoke it first, or choose another site"
    )]
    Conflict,
    /// The member or device was revoked.
    #[error("this device was revoked")]
    Revoked,
    /// Too much at once, or a table is full.
    #[error("the other side is full or busy; try again later")]
    Busy,
    /// Whom it is about isn't known here, or not there now.
    #[error("not known or not reachable here")]
    NotFound,
    /// The device is a member, by another invite.
    #[error(
        "this device is a member of the network already, by another invite; an owner can revoke it, or 'altnet leave' makes it a new device"
    )]
    AlreadyMember,
    /// Whoever made the invite has brought in as many as policy allows.
    #[error(
        "whoever made this invite has brought in as many members as the network's policy allows; an owner can allow more, or revoke one of them"
    )]
    SponsorFull,
    /// Whoever made the invite may not bring anybody in, or not so (any more).
    #[error(
        "the network's policy does not let whoever made this invite bring others in, or not in this way; ask an owner for an invite"
    )]
    NotSponsored,
}

/// What can be said unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice<'a> {
    /// Records new since the last, to a subscriber.
    Changed {
        /// As [`Packed`].
        records: &'a [u8],
        /// Where this brings the subscriber to.
        cursor: Cursor,
    },
    /// Where the sender is now. Only ever sent sealed to a peer that policy lets talk.
    Presence(Presence),
    /// Somebody wants to meet.
    Introduced {
        /// Its chain, as [`Packed`].
        chain: &'a [u8],
        /// Where it is.
        presence: Presence,
    },
    /// Who logged in from machines behind the sender, as far as policy lets the receiver be reached
    /// by it. Said before the Hello and at each change; counts as far as the sender may vouch
    /// ([`crate::policy::Voucher`]) and until the sender says otherwise or its session is another.
    Logins {
        /// Each in the place of what was said of the same address.
        #[serde(borrow)]
        logins: Run<'a, Login>,
    },
    /// How the NAT before the sender maps, as far as it knows. Said with its presence.
    Nat {
        /// On what a mapping depends.
        mapping: Mapping,
    },
    /// A relay to a client that asked to meet somebody who asked for it too.
    Meeting {
        /// Who.
        with: NodeId,
        /// Where that client is, as the relay sees it.
        address: SocketAddr,
    },
    /// Which ports the NAT before the sender is about to give its next mappings, said to a peer
    /// that looks for one of them.
    Ports {
        /// Its last mapping.
        last: SocketAddr,
        /// How far each next port is from the one before; 0 if that can't be told.
        step: i16,
    },
    /// A relay to another, or to a client of its own.
    #[serde(borrow)]
    Mesh(MeshNotice<'a>),
    /// Which of the addresses that the sender tells leads to it through somebody else's TURN server
    /// (RFC 8656), and so is worth less than any other. Said before its presence.
    Turn {
        /// The relayed transport address; none if no server relays for it.
        relayed: Option<SocketAddr>,
    },
    /// A relay to a client that it knocks at: another relay has knocked there too.
    Knocked {
        /// Which.
        by: NodeId,
    },
    /// Whom the NAT before the sender lets in, as far as it knows. Said with its presence.
    Filter {
        /// On what that depends.
        filtering: Filtering,
    },
}

/// Within how many seconds both have to ask a relay to [`Request::Meet`].
pub const MEETING_S: u32 = 10;

/// On what the mapping of a NAT depends (RFC 4787 section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Mapping {
    /// Too few have said how they see this node.
    #[default]
    Unknown,
    /// Not on the destination: one port serves all, or there is no NAT.
    EndpointIndependent,
    /// On the destination: each sees another port.
    EndpointDependent,
}

/// On what it depends whom a NAT or firewall lets in at a port that something was sent from (RFC 4787 section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Filtering {
    /// No relay tried, or what it found could be either of two.
    #[default]
    Unknown,
    /// On nothing: everybody is let in.
    EndpointIndependent,
    /// On whether something was sent to that address, at whichever port.
    AddressDependent,
    /// On whether something was sent to that address and port.
    AddressAndPortDependent,
}

/// That a machine behind the sender is somebody's for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The machine's address, in the /64 of the sender's site.
    pub address: Ipv6Addr,
    /// Who.
    pub person: Option<Name>,
    /// What groups they are in.
    pub groups: Vec<Name, MAX_GROUPS>,
    /// For how many seconds from now; 0 takes it back.
    pub seconds: u32,
}

/// Where a node is now. Lives in memory, never in a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Counts up at each change since the node started; an older one is passed over.
    pub sequence: u64,
    /// Addresses that may reach it directly.
    pub candidates: Vec<Candidate, MAX_CANDIDATES>,
    /// Relays it is registered at.
    pub relays: Vec<NodeId, MAX_PRESENCE_RELAYS>,
}

/// An address that may reach a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The address.
    pub address: SocketAddr,
    /// How it was found.
    pub kind: CandidateKind,
}

/// How a candidate was found (RFC 8445 section 5.1.1 names the first two).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CandidateKind {
    /// An address of one of its own interfaces.
    Host,
    /// As a relay sees it.
    Reflexive,
    /// Set by its owner.
    Fixed,
    /// A port that the router before it keeps open (PCP, NAT-PMP, UPnP-IGD).
    Mapped,
}

impl CandidateKind {
    /// A word for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "its own",
            Self::Reflexive => "as a relay sees it",
            Self::Fixed => "fixed",
            Self::Mapped => "kept open by its router",
        }
    }
}

/// Records one after the other: `length varint(u16), bytes` each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed<'a>(pub &'a [u8]);

impl<'a> Iterator for Packed<'a> {
    type Item = &'a [u8];

    /// The next record; ends at the first that is cut off.
    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = postcard::take_from_bytes::<u16>(self.0).ok()?;
        let (record, rest) = rest.split_at_checked(usize::from(len))?;
        self.0 = rest;
        Some(record)
    }
}

/// Bytes that putting a record of `len` bytes into [`Packed`] takes.
pub const fn packed_len(len: usize) -> usize {
    // A varint of u16 takes one byte below 2^7, two below 2^14, else three.
    len + if len < 0x80 {
        1
    } else if len < 0x4000 {
        2
    } else {
        3
    }
}

/// Writes `record` in the form of [`Packed`] at the beginning of `out`; returns how many
/// bytes that took, or nothing if there is no room.
pub fn pack(record: &[u8], out: &mut [u8]) -> Option<usize> {
    let len = u16::try_from(record.len()).ok()?;
    let used = postcard::to_slice(&len, out).ok()?.len();
    out.get_mut(used..used + record.len())?
        .copy_from_slice(record);
    Some(used + record.len())
}

/// A message that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a control message is damaged or of a later version")]
pub struct BadMessage;

/// Reads a message that takes up all of `bytes`.
///
/// # Errors
/// [`BadMessage`].
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, BadMessage> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err(BadMessage),
    }
}

/// How many bytes [`encode`] takes for a message.
pub fn encoded_len(message: &Message<'_>) -> usize {
    postcard::serialize_with_flavor(message, postcard::ser_flavors::Size::default()).unwrap_or(0)
}

/// Writes a message to the beginning of `out` and returns its bytes, or nothing if there is
/// no room.
pub fn encode<'o>(message: &Message<'_>, out: &'o mut [u8]) -> Option<&'o [u8]> {
    postcard::to_slice(message, out).ok().map(|bytes| &*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(message: &Message<'_>, expected: &[u8]) {
        let mut out = [0; 512];
        let bytes = encode(message, &mut out).unwrap();
        assert_eq!(bytes, expected);
        assert_eq!(encoded_len(message), expected.len());
        assert_eq!(decode(bytes).as_ref(), Ok(message));
    }

    #[test]
    fn every_message_keeps_its_exact_bytes() {
        check(
            &Message::Request {
                id: 300,
                request: Request::Renew,
            },
            &[1, 0xac, 2, 1],
        );
        check(
            &Message::Request {
                id: 1,
                request: Request::Announce {
                    records: &[2, 8, 9],
                },
            },
            &[1, 1, 2, 3, 2, 8, 9],
        );
        check(
            &Message::Reply {
                id: 2,
                reply: Reply::Registered {
                    token: 5,
                    observed: "192.0.2.1:258".parse().unwrap(),
                    lifetime_s: 60,
                },
            },
            &[2, 2, 3, 5, 0, 192, 0, 2, 1, 0x82, 2, 60],
        );
        check(
            &Message::Reply {
                id: 2,
                reply: Reply::Refused(Refusal::InviteUsedUp),
            },
            &[2, 2, 5, 6],
        );
        let head = crate::audit::AuditHead {
            sequence: 300,
            hash: [7; 32],
            time: crate::time::UnixTime::from_secs(5),
        };
        let signature = [[8; 32], [9; 32]];
        let head = SignedHead { head, signature };
        let signed = [&[0xac, 2][..], &[7; 32], &[5], &[8; 32], &[9; 32]].concat();
        check(
            &Message::Request {
                id: 3,
                request: Request::Witness {
                    head,
                    from: 299,
                    digests: &[6; 32],
                    is_all: true,
                },
            },
            &[&[1, 3, 9][..], &signed, &[0xab, 2, 32], &[6; 32], &[1]].concat(),
        );
        check(
            &Message::Reply {
                id: 3,
                reply: Reply::Witnessed(Testimony {
                    since: 1,
                    at: crate::time::UnixTime::EPOCH,
                    signature,
                }),
            },
            &[&[2, 3, 6, 1, 0][..], &[8; 32], &[9; 32]].concat(),
        );
        check(
            &Message::Reply {
                id: 3,
                reply: Reply::Holds(head),
            },
            &[&[2, 3, 7][..], &signed].concat(),
        );
        let mut presence = Presence {
            sequence: 7,
            ..Presence::default()
        };
        presence
            .candidates
            .push(Candidate {
                address: "192.0.2.1:1".parse().unwrap(),
                kind: CandidateKind::Reflexive,
            })
            .unwrap();
        presence
            .candidates
            .push(Candidate {
                address: "192.0.2.1:2".parse().unwrap(),
                kind: CandidateKind::Mapped,
            })
            .unwrap();
        check(
            &Message::Notice(Notice::Presence(presence)),
            &[3, 1, 7, 2, 0, 192, 0, 2, 1, 1, 1, 0, 192, 0, 2, 1, 2, 3, 0],
        );
    }

    #[test]
    fn what_has_to_do_with_knocks_is_said_in_these_bytes() {
        let key = Key([7; 16]);
        check(
            &Message::Request {
                id: 4,
                request: Request::Knock { key },
            },
            &[&[1, 4, 11][..], &[7; 16]].concat(),
        );
        check(
            &Message::Request {
                id: 5,
                request: Request::KnockFor {
                    who: NodeId([8; 16]),
                    at: "192.0.2.5:258".parse().unwrap(),
                    proof: Proof([9; 16]),
                },
            },
            &[
                &[1, 5, 12][..],
                &[8; 16],
                &[0, 192, 0, 2, 5, 0x82, 2],
                &[9; 16],
            ]
            .concat(),
        );
        let by = NodeId([8; 16]);
        check(
            &Message::Notice(Notice::Knocked { by }),
            &[&[3, 9][..], &[8; 16]].concat(),
        );
        let kinds = [
            Filtering::Unknown,
            Filtering::EndpointIndependent,
            Filtering::AddressDependent,
            Filtering::AddressAndPortDependent,
        ];
        for (place, filtering) in (0..).zip(kinds) {
            check(
                &Message::Notice(Notice::Filter { filtering }),
                &[3, 10, place],
            );
        }
    }

    #[test]
    fn what_leads_through_a_turn_server_is_said_in_these_bytes() {
        let relayed = "192.0.2.5:258".parse().ok();
        check(
            &Message::Notice(Notice::Turn { relayed }),
            &[3, 8, 1, 0, 192, 0, 2, 5, 0x82, 2],
        );
        let relayed = None;
        check(&Message::Notice(Notice::Turn { relayed }), &[3, 8, 0]);
    }

    proptest! {
        #[test]
        fn packed_records_come_out_as_they_went_in(records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8)) {
            let mut out = std::vec![0; 4096];
            let mut used = 0;
            for record in &records {
                let took = pack(record, &mut out[used..]).unwrap();
                prop_assert_eq!(took, packed_len(record.len()));
                used += took;
            }
            let back: std::vec::Vec<_> = Packed(&out[..used]).collect();
            prop_assert_eq!(back, records);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
            let _ = Packed(&bytes).count();
        }
    }
}
