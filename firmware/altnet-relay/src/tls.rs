//! TLS without buffers of its own.
//!
//! In: records as they come from a socket, plaintext to be sealed. Out: plaintext, records to be
//! written. Promises: while nothing is on its way it holds nothing but its session; records are opened
//! and sealed in buffers of the pool.

use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{ClientConfig, ServerConfig};

use crate::acme::ACME_TLS;
use crate::pool::{self, BUFFER_BYTES, Buffer};

/// What a record has beside its plaintext: header, type, tag (RFC 8446 section 5.2).
const RECORD_OVERHEAD: usize = 5 + 1 + 16;
/// The most plaintext in a record.
const FRAGMENT_BYTES: usize = 1 << 14;

/// What plaintext may be sealed at once, so that it fits into a buffer.
pub(crate) const ROOM_BYTES: usize = BUFFER_BYTES - 2 * RECORD_OVERHEAD - 512;

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The other side doesn't keep to TLS, or isn't who it should be.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// A record is longer than any may be.
    #[error("a TLS record is too long")]
    TooLong,
    /// Nothing more may be sealed with this session's keys.
    #[error("the TLS session is used up")]
    Exhausted,
}

/// Either side of a session.
pub(crate) trait Side {
    /// What rustls keeps of it.
    type Data;

    /// Looks at records until there is something to do.
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

/// A session.
pub(crate) struct Tls<S> {
    side: S,
    /// What came and isn't opened yet.
    incoming: Span,
    /// What is sealed and isn't written yet.
    outgoing: Span,
    is_established: bool,
    has_ended: bool,
}

impl Tls<UnbufferedServerConnection> {
    /// A server's side.
    pub(crate) fn server(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        Ok(Self::new(UnbufferedServerConnection::new(config)?))
    }

    /// Whether the client came only to see what answers its challenge (RFC 8737).
    pub(crate) fn is_validation(&self) -> bool {
        self.side.alpn_protocol() == Some(ACME_TLS)
    }
}

impl Tls<UnbufferedClientConnection> {
    /// A client's side; it has something to write at once.
    pub(crate) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, TlsError> {
        let mut tls = Self::new(UnbufferedClientConnection::new(config, name)?);
        tls.advance(&mut |_| ())?;
        Ok(tls)
    }

    /// The certificates that the server showed.
    pub(crate) fn certificates(&self) -> &[rustls::pki_types::CertificateDer<'static>] {
        self.side.peer_certificates().unwrap_or(&[])
    }
}

impl<S: Side> Tls<S> {
    const fn new(side: S) -> Self {
        Self {
            side,
            incoming: Span::new(),
            outgoing: Span::new(),
            is_established: false,
            has_ended: false,
        }
    }

    /// Whether the handshake is done: plaintext may be sealed.
    pub(crate) const fn is_established(&self) -> bool {
        self.is_established
    }

    /// Whether the other side said that it writes no more.
    pub(crate) const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Where to read from the socket to; then [`Tls::arrived`].
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.incoming.space()
    }

    /// Opens what came, `length` bytes more, and hands out the plaintext.
    pub(crate) fn arrived(
        &mut self,
        length: usize,
        plaintext: &mut dyn FnMut(&[u8]),
    ) -> Result<(), TlsError> {
        self.incoming.end += length;
        self.advance(plaintext)?;
        if self.incoming.is_full() {
            return Err(TlsError::TooLong);
        }
        Ok(())
    }

    /// Seals plaintext behind what waits to be written.
    pub(crate) fn seal(&mut self, plaintext: &[u8]) -> Result<(), TlsError> {
        let records = plaintext.len().div_ceil(FRAGMENT_BYTES).max(1);
        let mut needed = plaintext.len() + records * RECORD_OVERHEAD;
        loop {
            let status = self.side.process(self.incoming.bytes_mut());
            let discard = status.discard;
            match status.state? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let out = self.outgoing.room(needed);
                    match traffic.encrypt(plaintext, out) {
                        Ok(written) => {
                            self.outgoing.end += written;
                            self.incoming.advance(discard);
                            return Ok(());
                        }
                        // The answer to an update of keys goes first.
                        Err(EncryptError::InsufficientSize(InsufficientSizeError {
                            required_size,
                        })) if required_size > needed => needed = required_size,
                        Err(_) => return Err(TlsError::Exhausted),
                    }
                }
                // Such as the answer to an update of keys.
                ConnectionState::EncodeTlsData(mut encode) => {
                    encode_into(&mut self.outgoing, |out| encode.encode(out))?;
                }
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                _ => return Err(TlsError::Exhausted),
            }
            self.incoming.advance(discard);
        }
    }

    /// Says that nothing more will be written.
    pub(crate) fn finish(&mut self) -> Result<(), TlsError> {
        let status = self.side.process(self.incoming.bytes_mut());
        if let ConnectionState::WriteTraffic(mut traffic) = status.state? {
            let out = self.outgoing.room(64);
            if let Ok(written) = traffic.queue_close_notify(out) {
                self.outgoing.end += written;
            }
        }
        Ok(())
    }

    /// What is to be written to the socket; then [`Tls::written`].
    pub(crate) fn outgoing(&self) -> &[u8] {
        self.outgoing.bytes()
    }

    /// Forgets what was written.
    pub(crate) fn written(&mut self, length: usize) {
        self.outgoing.advance(length);
    }

    /// Gives back what isn't needed while nothing happens.
    pub(crate) fn rest(&mut self) {
        self.incoming.shrink();
    }

    fn advance(&mut self, plaintext: &mut dyn FnMut(&[u8])) -> Result<(), TlsError> {
        loop {
            let status = self.side.process(self.incoming.bytes_mut());
            let mut discard = status.discard;
            match status.state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plaintext(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut encode) => {
                    encode_into(&mut self.outgoing, |out| encode.encode(out))?;
                }
                // It is queued in order, which is all that is asked.
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::WriteTraffic(_) => {
                    self.is_established = true;
                    self.incoming.advance(discard);
                    return Ok(());
                }
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    self.has_ended = true;
                    self.incoming.advance(discard);
                    return Ok(());
                }
                // Early data isn't accepted, so there is none.
                _ => {
                    self.incoming.advance(discard);
                    return Ok(());
                }
            }
            self.incoming.advance(discard);
        }
    }
}

fn encode_into(
    outgoing: &mut Span,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), TlsError> {
    let mut needed = 4096;
    loop {
        match encode(outgoing.room(needed)) {
            Ok(written) => {
                outgoing.end += written;
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                needed = required_size;
            }
            Err(EncodeError::AlreadyEncoded) => return Ok(()),
        }
    }
}

/// Bytes within a buffer that is there only while there are some.
struct Span {
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
}

impl Span {
    const fn new() -> Self {
        Self {
            buffer: None,
            start: 0,
            end: 0,
        }
    }

    fn bytes(&self) -> &[u8] {
        self.buffer
            .as_ref()
            .and_then(|buffer| buffer.get(self.start..self.end))
            .unwrap_or(&[])
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer
            .as_mut()
            .and_then(|buffer| buffer.get_mut(self.start..self.end))
            .unwrap_or(&mut [])
    }

    fn advance(&mut self, length: usize) {
        self.start = self.end.min(self.start + length);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if let Some(buffer) = self.buffer.take() {
                pool::give(buffer);
            }
        }
    }

    /// Whether there is no room behind what is there, even from the buffer's beginning.
    fn is_full(&self) -> bool {
        self.end - self.start >= BUFFER_BYTES
    }

    /// Room behind what is there: at least a record's unless it is full.
    fn space(&mut self) -> &mut [u8] {
        match &mut self.buffer {
            Some(buffer) if buffer.len() < BUFFER_BYTES => self.move_into(pool::take()),
            Some(buffer) if self.end > BUFFER_BYTES / 2 => {
                buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            _ => {}
        }
        let end = self.end;
        let buffer = self.buffer.get_or_insert_with(pool::take);
        buffer.get_mut(end..).unwrap_or(&mut [])
    }

    /// Room for `needed` bytes behind what is there.
    fn room(&mut self, needed: usize) -> &mut [u8] {
        let length = self.end - self.start;
        let have = self.buffer.as_ref().map_or(0, |b| b.len());
        if have < self.end + needed {
            let larger = if length + needed <= BUFFER_BYTES {
                pool::take()
            } else {
                vec![0; length + needed].into_boxed_slice()
            };
            self.move_into(larger);
        }
        let end = self.end;
        let buffer = self.buffer.get_or_insert_with(pool::take);
        buffer.get_mut(end..).unwrap_or(&mut [])
    }

    /// Keeps no more memory than what is there needs.
    fn shrink(&mut self) {
        let length = self.end - self.start;
        if length > 0 && self.buffer.as_ref().is_some_and(|b| b.len() > 2 * length) {
            self.move_into(vec![0; length].into_boxed_slice());
        }
    }

    fn move_into(&mut self, mut buffer: Buffer) {
        let bytes = self.bytes();
        let length = bytes.len();
        if let Some(front) = buffer.get_mut(..length) {
            front.copy_from_slice(bytes);
        }
        if let Some(old) = self.buffer.replace(buffer) {
            pool::give(old);
        }
        (self.start, self.end) = (0, length);
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            pool::give(buffer);
        }
    }
}
