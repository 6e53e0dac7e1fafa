//! The TUN device: where packets for other homes leave the kernel and arrive in it.
//!
//! The device lives as long as its descriptor, so a killed altnetd leaves none behind, and
//! the kernel takes its addresses and routes down with it.

use std::io;

use altnet_wire::frame::{Frame, MAX_PACKET_BYTES};
use tun_rs::{AsyncDevice, DeviceBuilder, Layer};

use crate::link;

/// The smallest MTU that IPv6 allows (RFC 8200 section 5).
pub const MIN_MTU_BYTES: u16 = 1280;
/// The largest MTU that still leaves room for a tunnel header in a full Ethernet frame.
pub const MAX_MTU_BYTES: u16 = 1420;

/// An open TUN device.
pub struct Tun {
    device: AsyncDevice,
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
            .build_async()?;
        let index = link::index_of(name)?;
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
    /// What the kernel says.
    pub async fn readable(&self) -> io::Result<()> {
        self.device.readable().await
    }

    /// Reads one packet into `frame`, if one is there. Returns whether there was.
    ///
    /// # Errors
    /// What the kernel says; a device that is down reads as [`io::ErrorKind::Other`].
    pub fn try_read(&self, frame: &mut Frame<'_>) -> io::Result<bool> {
        let space = frame.space();
        match self.device.try_recv(space) {
            Ok(len) => {
                frame
                    .set_len(len.min(MAX_PACKET_BYTES))
                    .map_err(io::Error::other)?;
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Gives one packet to the kernel. A full queue drops it, as a full queue does.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if the queue is full; what the kernel says otherwise.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        self.device.try_send(packet).map(|_| ())
    }
}

impl std::fmt::Debug for Tun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tun({} #{})", self.name, self.index)
    }
}
