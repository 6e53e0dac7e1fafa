//! What is asked of a server, written (RFC 8656 sections 7.1, 8.1, 10.1 and 12.1).

use core::net::SocketAddr;

use altnet_wire::frame::{Frame, NoRoom};
use altnet_wire::stun::attribute::{
    CHANNEL_NUMBER, FAMILY_V6, LIFETIME, REQUESTED_ADDRESS_FAMILY, REQUESTED_TRANSPORT,
    TRANSPORT_UDP, XOR_PEER_ADDRESS,
};
use altnet_wire::stun::channel::Channel;
use altnet_wire::stun::write::Writer;
use altnet_wire::stun::{Class, Method, TransactionId};

use super::peers::{Ask, Peer};
use super::{Family, TurnClient, TurnFailure};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request {
    Allocate,
    Refresh {
        lifetime_s: u32,
    },
    Permission {
        peer: SocketAddr,
    },
    Bind {
        channel: Channel,
        peer: SocketAddr,
    },
    /// Nothing: a NAT on the way sees that somebody is there. It gets no answer.
    Keepalive,
}

impl Request {
    /// What is asked for `peer`.
    pub(super) const fn of_peer(peer: &Peer) -> Self {
        match peer.ask {
            Ask::Permission => Self::Permission { peer: peer.address },
            Ask::Channel => Self::Bind {
                channel: peer.channel,
                peer: peer.address,
            },
        }
    }

    const fn method(&self) -> Method {
        match self {
            Self::Allocate => Method::ALLOCATE,
            Self::Refresh { .. } => Method::REFRESH,
            Self::Permission { .. } => Method::CREATE_PERMISSION,
            Self::Bind { .. } => Method::CHANNEL_BIND,
            Self::Keepalive => Method::BINDING,
        }
    }

    const fn class(&self) -> Class {
        match self {
            Self::Keepalive => Class::Indication,
            _ => Class::Request,
        }
    }
}

impl TurnClient {
    /// Writes a request into the frame; says whether it is there.
    pub(super) fn write(
        &mut self,
        request: &Request,
        transaction: TransactionId,
        frame: &mut Frame<'_>,
    ) -> bool {
        let written = self.write_into(request, transaction, frame.space());
        let is_written = written.and_then(|length| frame.set_len(length)).is_ok();
        if !is_written {
            // A realm or nonce so long that nothing can be asked with it.
            frame.clear();
            self.fail(TurnFailure::Unusable);
        }
        is_written
    }

    fn write_into(
        &self,
        request: &Request,
        transaction: TransactionId,
        out: &mut [u8],
    ) -> Result<usize, NoRoom> {
        let mut writer = Writer::new(out, request.class(), request.method(), transaction)?;
        match request {
            Request::Allocate => {
                writer.put(REQUESTED_TRANSPORT, &[TRANSPORT_UDP, 0, 0, 0])?;
                writer.put_number(LIFETIME, self.config.lifetime_s)?;
                if self.config.family == Family::V6 {
                    writer.put(REQUESTED_ADDRESS_FAMILY, &[FAMILY_V6, 0, 0, 0])?;
                }
            }
            Request::Refresh { lifetime_s } => {
                writer.put_number(LIFETIME, *lifetime_s)?;
            }
            Request::Permission { peer } => {
                writer.put_xor_address(XOR_PEER_ADDRESS, *peer)?;
            }
            Request::Bind { channel, peer } => {
                writer.put(CHANNEL_NUMBER, &channel.value())?;
                writer.put_xor_address(XOR_PEER_ADDRESS, *peer)?;
            }
            Request::Keepalive => return Ok(writer.len()),
        }
        if let Some(login) = &self.login {
            login.sign(&self.credentials, &mut writer)?;
        }
        Ok(writer.len())
    }
}
