//! The socket to altnetd: packets, some with descriptors.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use altnet_wire::tls::talk::{CONNECTION_DESCRIPTORS, MAX_TALK_BYTES};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zeroize::Zeroizing;

/// A packet: its bytes, and the descriptors that came with it.
pub struct Packet {
    /// The bytes. They may hold a key.
    pub bytes: Zeroizing<Vec<u8>>,
    /// The descriptors.
    pub descriptors: Vec<OwnedFd>,
}

/// One end of the conversation.
#[derive(Debug)]
pub struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    /// Takes a connected `SOCK_SEQPACKET` socket. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// If it is no socket.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        // SAFETY: the descriptor is owned by the `AsyncFd` from here on; nothing closes or replaces
        // it before that is dropped.
        Ok(Self(unsafe { AsyncFd::register(socket) }?))
    }

    /// Waits for a packet; none if the other end is gone.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn receive(&self) -> io::Result<Option<Packet>> {
        let received = self.0.async_io(Interest::READABLE, |socket| {
            receive(socket).map_err(io::Error::from)
        });
        let packet = received.await?;
        // A packet without bytes is what the end of the conversation looks like.
        Ok(packet.filter(|packet| !packet.bytes.is_empty()))
    }

    /// Sends a packet, once there is room for it.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = self.0.async_io(Interest::WRITABLE, |socket| {
            Ok(send(socket, bytes, SendFlags::NOSIGNAL)?)
        });
        sent.await.map(drop)
    }
}

fn receive(socket: impl AsFd) -> rustix::io::Result<Option<Packet>> {
    let mut bytes = Zeroizing::new(vec![0; MAX_TALK_BYTES]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CONNECTION_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [io::IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(rustix::io::Errno::MSGSIZE);
    }
    bytes.truncate(received.bytes);
    Ok(Some(Packet { bytes, descriptors }))
}
