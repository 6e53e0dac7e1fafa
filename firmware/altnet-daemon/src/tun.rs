//! The TUN device: where packets for other homes leave the kernel and arrive in it.
//!
//! The device lives as long as its descriptor, so a killed altnetd leaves none behind, and
//! the kernel takes its addresses and routes down with it.

use std::io;

use altnet_wire::frame::Frame;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::link;

/// The smallest MTU that IPv6 allows (RFC 8200 section 5).
pub const MIN_MTU_BYTES: u16 = 1280;
/// The largest MTU that still leaves room for a tunnel header in a full Ethernet frame.
pub const MAX_MTU_BYTES: u16 = 1420;

/// An open TUN device.
pub struct Tun {
    device: AsyncFd<SyncDevice>,
    name: String,
    index: u32,
}

impl Tun {
    /// Makes the device `name`, down and without addresses. Needs CAP_NET_ADMIN and a tokio
    /// runtime with I/O.
    ///
    /// # Errors
    /// What the kernel says; [`io::ErrorKind::ResourceBusy`] if another process holds the name.
    pub fn open(name: &str) -> io::Result<Self> {
        let device = DeviceBuilder::new()
            .name(name)
            .layer(Layer::L3)
            .packet_information(false)
            .enable(false)
            .build_sync()?;
        device.set_nonblocking(true)?;
        let index = link::index_of(name)?;
        link::without_link_local(name);
        // SAFETY: the device is owned by the `AsyncFd` from here on; nothing closes or replaces
        // its descriptor before it is dropped.
        let device = unsafe { AsyncFd::register(device)? };
        Ok(Self {
            device,
            name: name.into(),
            index,
        })
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kernel's number for the device.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Waits until a packet can be read.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`] once somebody deleted the device.
    pub async fn readable(&self) -> io::Result<()> {
        let ready = self.device.ready(Interest::READABLE | Interest::ERROR);
        let ready = ready.await?.ready();
        // The kernel says so, and nothing else, when the device is gone (tun_chr_poll).
        if ready.is_error() {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "somebody deleted the device",
            ));
        }
        Ok(())
    }

    /// Reads one packet into `frame`, if one is there. Returns whether there was.
    ///
    /// # Errors
    /// What the kernel says, which is that somebody deleted the device.
    pub fn try_read(&self, frame: &mut Frame<'_>) -> io::Result<bool> {
        let space = frame.space();
        let read = |device: &SyncDevice| device.recv(space);
        match self.device.try_io(Interest::READABLE, read) {
            Ok(len) => {
                frame.set_len(len).map_err(io::Error::other)?;
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Gives one packet to the kernel. A full queue drops it, as a full queue does.
    ///
    /// # Errors
    /// What the kernel says, such as that the device is down.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        self.device.get_ref().send(packet).map(|_| ())
    }
}

impl std::fmt::Debug for Tun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tun({} #{})", self.name, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Address, Netlink};
    use crate::testing::in_namespace;
    use altnet_wire::frame::FRAME_BYTES;

    #[test]
    fn packets_pass_in_both_directions() {
        in_namespace("packets_pass_in_both_directions", async {
            let tun = Tun::open("altnet0").unwrap();
            let mut netlink = Netlink::open().unwrap();
            netlink.bring_up(tun.index(), Some(1280)).unwrap();
            let own = Address {
                interface: tun.index(),
                address: "fd00::1".parse().unwrap(),
                prefix_bits: 64,
            };
            netlink.add_address(own).unwrap();
            let socket = tokio::net::UdpSocket::bind("[fd00::1]:1000").await.unwrap();
            socket.send_to(b"out", "[fd00::2]:2000").await.unwrap();

            let mut buffer = [0; FRAME_BYTES];
            let mut frame = Frame::new(&mut buffer);
            loop {
                tun.readable().await.unwrap();
                // The kernel has things of its own to say on a new link.
                if tun.try_read(&mut frame).unwrap() && frame.packet().ends_with(b"out") {
                    break;
                }
            }
            // Back as it came: addresses and ports change places, which keeps the checksum.
            let packet = frame.packet_mut();
            let (source, destination) = packet[8..40].split_at_mut(16);
            source.swap_with_slice(destination);
            let (source, destination) = packet[40..44].split_at_mut(2);
            source.swap_with_slice(destination);
            let mut answer = [0; 8];
            let (len, from) = loop {
                tun.write(packet).unwrap();
                // The kernel takes a new address for its own a moment after it says so, and
                // until then drops what is for it.
                let received = socket.recv_from(&mut answer);
                let moment = std::time::Duration::from_millis(50);
                if let Ok(received) = tokio::time::timeout(moment, received).await {
                    break received.unwrap();
                }
            };
            assert_eq!(&answer[..len], b"out");
            assert_eq!(from, "[fd00::2]:2000".parse().unwrap());
        });
    }
}
