//! Datagrams inside Send and Data indications (RFC 8656 section 11), put in and taken out where
//! they lie.

use core::net::SocketAddr;

use super::attribute::{ATTRIBUTE_HEADER_BYTES, DATA, V6_BYTES, XOR_PEER_ADDRESS, masked_value};
use super::write::header_bytes;
use super::{COOKIE, Class, HEADER_BYTES, Message, Method, TransactionId};
use crate::frame::{Frame, NoRoom};

/// The most bytes an indication puts before a datagram: header, peer, and the datagram's length.
/// A frame has room for them before a sealed packet.
pub const SEND_HEADER_BYTES: usize = HEADER_BYTES + 2 * ATTRIBUTE_HEADER_BYTES + V6_BYTES;

/// Makes the frame's datagram a Send indication for `peer`.
///
/// # Errors
/// [`NoRoom`] if the frame has none. It may have grown by up to three bytes at its end then, and
/// is not to be sent.
pub fn push_send(
    peer: SocketAddr,
    transaction: TransactionId,
    frame: &mut Frame<'_>,
) -> Result<(), NoRoom> {
    let length = frame.len();
    let (value, address_bytes) = masked_value(peer, COOKIE, &transaction);
    let front = HEADER_BYTES + 2 * ATTRIBUTE_HEADER_BYTES + address_bytes;
    let needed = NoRoom { needed: front };
    let padded = length.next_multiple_of(4);
    frame.push_back(padded - length)?;
    let out = frame.push_front(front)?;
    let total = front + padded - HEADER_BYTES;
    let total = u16::try_from(total).map_err(|_| needed)?;
    let header = header_bytes(Class::Indication, Method::SEND, total, &transaction);
    let attribute = |kind: u16, length: usize| {
        let [k0, k1] = kind.to_be_bytes();
        let [l0, l1] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        [k0, k1, l0, l1]
    };
    let bytes = header
        .into_iter()
        .chain(attribute(XOR_PEER_ADDRESS, address_bytes))
        .chain(value.into_iter().take(address_bytes))
        .chain(attribute(DATA, length));
    for (out, byte) in out.iter_mut().zip(bytes) {
        *out = byte;
    }
    Ok(())
}

/// Takes the datagram out of the Data indication that the frame holds, and says which peer sent
/// it; `None` and the frame as it was if it holds none.
pub fn pop_data(frame: &mut Frame<'_>) -> Option<SocketAddr> {
    let (peer, at, length) = {
        let message = Message::parse(frame.packet()).ok()?;
        if (message.class(), message.method()) != (Class::Indication, Method::DATA) {
            return None;
        }
        let data = message.find(DATA)?;
        let peer = message.xor_address(XOR_PEER_ADDRESS)?;
        (peer, data.value_at(), data.value.len())
    };
    frame.pop_front(at);
    frame.truncate(length);
    Some(peer)
}
