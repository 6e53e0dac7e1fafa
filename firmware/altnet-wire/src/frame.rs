//! A packet in a buffer with room before and behind it.
//!
//! Headers are put before a packet and tags behind it without moving its bytes: a frame
//! that enters at the TUN device leaves at the socket from the same place in memory.

/// Room kept before a packet: a relay header (28) and a WireGuard header (16), rounded up.
pub const HEADROOM: usize = 64;

/// Room kept behind a packet: padding to 16 (15) and an AEAD tag (16), rounded up.
pub const TAILROOM: usize = 32;

/// The largest datagram or packet a frame is made for, in bytes: an Ethernet MTU.
pub const MAX_PACKET_BYTES: usize = 1500;

/// The size of a buffer that holds any frame.
pub const FRAME_BYTES: usize = HEADROOM + MAX_PACKET_BYTES + TAILROOM;

/// A view of one packet inside a larger buffer.
#[derive(Debug)]
pub struct Frame<'a> {
    buffer: &'a mut [u8],
    start: usize,
    end: usize,
}

/// The buffer has no room for what was to be added. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame has no room for {needed} more bytes")]
pub struct NoRoom {
    /// The bytes that were asked for.
    pub needed: usize,
}

impl<'a> Frame<'a> {
    /// Makes an empty frame whose packet will begin after [`HEADROOM`] bytes (or at the
    /// buffer's end if it is shorter than that).
    pub fn new(buffer: &'a mut [u8]) -> Self {
        let start = HEADROOM.min(buffer.len());
        Self {
            buffer,
            start,
            end: start,
        }
    }

    /// The packet.
    pub fn packet(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or(&[])
    }

    /// The packet, to change in place.
    pub fn packet_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.start..self.end).unwrap_or(&mut [])
    }

    /// The packet's length in bytes.
    pub fn len(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// Whether there is no packet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the packet; the next one will begin after [`HEADROOM`] bytes.
    pub fn clear(&mut self) {
        self.start = HEADROOM.min(self.buffer.len());
        self.end = self.start;
    }

    /// The free space from the packet's beginning to the buffer's end less [`TAILROOM`]:
    /// where a driver reads the next packet into, before it calls [`Frame::set_len`].
    /// Any packet in the frame is forgotten.
    pub fn space(&mut self) -> &mut [u8] {
        self.clear();
        let end = self.buffer.len().saturating_sub(TAILROOM).max(self.start);
        self.buffer.get_mut(self.start..end).unwrap_or(&mut [])
    }

    /// Makes the packet `len` bytes long, keeping its beginning. What is new holds
    /// whatever the buffer held.
    ///
    /// # Errors
    /// [`NoRoom`] if the buffer ends sooner.
    pub fn set_len(&mut self, len: usize) -> Result<(), NoRoom> {
        let end = self.start.checked_add(len).ok_or(NoRoom { needed: len })?;
        if end > self.buffer.len() {
            return Err(NoRoom { needed: len });
        }
        self.end = end;
        Ok(())
    }

    /// Replaces the packet with a copy of `bytes`.
    ///
    /// # Errors
    /// [`NoRoom`] if they don't fit behind [`HEADROOM`].
    pub fn set(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.clear();
        self.set_len(bytes.len())?;
        self.packet_mut().copy_from_slice(bytes);
        Ok(())
    }

    /// Grows the packet by `len` bytes at its front and returns them.
    ///
    /// # Errors
    /// [`NoRoom`] if there is less room before the packet.
    pub fn push_front(&mut self, len: usize) -> Result<&mut [u8], NoRoom> {
        let needed = NoRoom { needed: len };
        let start = self.start.checked_sub(len).ok_or(needed)?;
        self.start = start;
        self.buffer.get_mut(start..start + len).ok_or(needed)
    }

    /// Grows the packet by `len` zero bytes at its end and returns them.
    ///
    /// # Errors
    /// [`NoRoom`] if there is less room behind the packet.
    pub fn push_back(&mut self, len: usize) -> Result<&mut [u8], NoRoom> {
        let needed = NoRoom { needed: len };
        let end = self.end.checked_add(len).ok_or(needed)?;
        let new = self.buffer.get_mut(self.end..end).ok_or(needed)?;
        new.fill(0);
        self.end = end;
        Ok(new)
    }

    /// Drops up to `len` bytes from the packet's front.
    pub fn pop_front(&mut self, len: usize) {
        self.start = self.start.saturating_add(len).min(self.end);
    }

    /// Shortens the packet to `len` bytes, if it is longer.
    pub fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start.saturating_add(len));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_grows_at_both_ends_without_moving_its_bytes() {
        let mut buffer = [0u8; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(b"packet").unwrap();
        let at = frame.packet().as_ptr();
        frame.push_front(4).unwrap().copy_from_slice(b"head");
        frame.push_back(4).unwrap().copy_from_slice(b"tail");
        assert_eq!(frame.packet(), b"headpackettail");
        frame.pop_front(4);
        frame.truncate(6);
        assert_eq!(frame.packet(), b"packet");
        assert_eq!(frame.packet().as_ptr(), at);
    }

    #[test]
    fn a_frame_refuses_what_it_has_no_room_for() {
        let mut buffer = [0u8; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        assert!(frame.push_front(HEADROOM + 1).is_err());
        assert!(frame.set(&[0; FRAME_BYTES]).is_err());
        assert!(frame.set(&[7; MAX_PACKET_BYTES]).is_ok());
        assert!(frame.push_back(TAILROOM).is_ok());
        assert!(frame.push_back(1).is_err());
        let mut none = [0u8; 0];
        let mut frame = Frame::new(&mut none);
        assert!(frame.space().is_empty());
        assert!(frame.set_len(1).is_err());
        frame.pop_front(9);
        assert!(frame.is_empty());
    }
}
