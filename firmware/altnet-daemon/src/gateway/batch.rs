//! Datagrams by the batch, between the kernel and one at a time.
//!
//! In: datagrams to be sent, and a socket. Out: datagrams that came. What is said to the kernel in one
//! breath costs it little more than a single datagram: up to sixteen of them by one `recvmmsg` or
//! `sendmmsg`, and as trains where both sides can, that is datagrams of one length between the same two
//! addresses that pass the kernel's layers as one (UDP GRO and GSO). What it can't do by trains
//! it is told one by one.
//!
//! Datagrams to one address leave in the order they were put in. Nothing is kept for later: whoever
//! fills an [`Outbox`] sends it before sleeping. Neither allocates once it was made.
//!
//! Deliberately absent: what datagrams mean, and waiting.

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::SockAddr;

/// Datagrams or trains at a time.
const SLOTS: usize = 16;
/// Room for each: what the length of a UDP datagram can say.
const SLOT_BYTES: usize = 1 << 16;
/// The longest train in bytes; an IPv4 header and a UDP header fit before it.
const TRAIN_BYTES: usize = 65_000;
/// The most datagrams of a train (`UDP_MAX_SEGMENTS` of Linux 4.18).
const TRAIN_DATAGRAMS: usize = 64;
/// Room for one control message, aligned as its header is.
const CONTROL_WORDS: usize = 8;

type Control = [u64; CONTROL_WORDS];

/// What came and wasn't looked at yet.
#[derive(Debug)]
pub struct Inbox {
    // Pages of it that no datagram reached were never touched, and so take no memory.
    bytes: Vec<u8>,
    trains: [Came; SLOTS],
    /// How many of them there are.
    count: usize,
    /// The one that is looked at, and how far.
    at: usize,
    offset: usize,
}

/// A train, or a datagram.
#[derive(Clone, Copy, Debug)]
struct Came {
    from: SocketAddr,
    len: usize,
    /// How long each of its datagrams is; the last may be shorter.
    each: usize,
}

impl Default for Inbox {
    fn default() -> Self {
        let nothing = Came {
            from: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            len: 0,
            each: 0,
        };
        Self {
            bytes: vec![0; SLOTS * SLOT_BYTES],
            trains: [nothing; SLOTS],
            count: 0,
            at: 0,
            offset: 0,
        }
    }
}

impl Inbox {
    /// Whether everything was looked at.
    pub fn is_empty(&self) -> bool {
        self.at >= self.count
    }

    /// The next datagram, and where it came from.
    pub fn pop(&mut self) -> Option<(&[u8], SocketAddr)> {
        let came = *self.trains[..self.count].get(self.at)?;
        let start = self.offset;
        let end = came.len.min(start + came.each);
        let slot = self.at * SLOT_BYTES;
        if end < came.len {
            self.offset = end;
        } else {
            self.at += 1;
            self.offset = 0;
        }
        Some((&self.bytes[slot + start..slot + end], came.from))
    }

    /// Reads what is there, as far as there is room. To be called when the inbox is empty.
    ///
    /// # Errors
    /// What the kernel says; [`io::ErrorKind::WouldBlock`] if nothing is there.
    pub fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        (self.count, self.at, self.offset) = (0, 0, 0);
        let mut names = [const { MaybeUninit::<libc::sockaddr_storage>::uninit() }; SLOTS];
        let mut controls = [Control::default(); SLOTS];
        // SAFETY: these are C structures for which all zeros is a value.
        let mut pieces: [libc::iovec; SLOTS] = unsafe { zeroed() };
        // SAFETY: likewise.
        let mut messages: [libc::mmsghdr; SLOTS] = unsafe { zeroed() };
        for (index, slot) in self.bytes.chunks_exact_mut(SLOT_BYTES).enumerate() {
            pieces[index].iov_base = slot.as_mut_ptr().cast();
            pieces[index].iov_len = slot.len();
            let header = &mut messages[index].msg_hdr;
            header.msg_name = names[index].as_mut_ptr().cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as _;
            header.msg_iov = &raw mut pieces[index];
            header.msg_iovlen = 1;
            header.msg_control = controls[index].as_mut_ptr().cast();
            header.msg_controllen = size_of::<Control>() as _;
        }
        // SAFETY: each of the `SLOTS` headers points to room of the length it says, which lives until
        // the call returns and which nothing else refers to.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                SLOTS as _,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (index, message) in messages.iter().enumerate().take(count) {
            let header = &message.msg_hdr;
            let len = (message.msg_len as usize).min(SLOT_BYTES);
            // SAFETY: the kernel filled the header in, and what it points to is still there.
            let (from, each) = unsafe { (address_of(header), train_of(header)) };
            // A datagram of no bytes is one too, but means nothing to anybody here.
            if let Some(from) = from.filter(|_| len > 0) {
                let each = each.filter(|each| *each > 0).unwrap_or(len);
                self.trains[self.count] = Came { from, len, each };
                // The slots are where the kernel filled them: a gap moves what comes after it.
                if self.count != index {
                    let start = index * SLOT_BYTES;
                    let to = self.count * SLOT_BYTES;
                    self.bytes.copy_within(start..start + len, to);
                }
                self.count += 1;
            }
        }
        Ok(())
    }
}

/// Who sent a message.
///
/// # Safety
/// `header` was filled in by the kernel, and the name it points to is still there.
unsafe fn address_of(header: &libc::msghdr) -> Option<SocketAddr> {
    let len = header.msg_namelen as usize;
    if len < size_of::<libc::sockaddr_in>() {
        return None;
    }
    // SAFETY: at least a `sockaddr_in` is there, whose first field is the family. The room is a
    // `sockaddr_storage`, aligned for each of these types.
    let family = unsafe { (*header.msg_name.cast::<libc::sockaddr_in>()).sin_family };
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: as above.
            let v4 = unsafe { *header.msg_name.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some((ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 if len >= size_of::<libc::sockaddr_in6>() => {
            // SAFETY: its length was checked.
            let v6 = unsafe { *header.msg_name.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            let (flow, scope) = (v6.sin6_flowinfo, v6.sin6_scope_id);
            Some(std::net::SocketAddrV6::new(ip, port, flow, scope).into())
        }
        _ => None,
    }
}

/// How long each datagram of a train is, if it is one.
///
/// # Safety
/// `header` was filled in by the kernel, and the control messages it points to are still there.
unsafe fn train_of(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the macros walk within `msg_controllen`, which the kernel set; each message they
    // return has the length it says.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(head) = message.as_ref() {
            if head.cmsg_level == libc::SOL_UDP && head.cmsg_type == libc::UDP_GRO {
                let each = libc::CMSG_DATA(message).cast::<libc::c_int>();
                return usize::try_from(each.read_unaligned()).ok();
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    None
}

/// What is to be sent.
#[derive(Debug)]
pub struct Outbox {
    bytes: Vec<u8>,
    trains: [Option<Train>; SLOTS],
    count: usize,
    can_segment: bool,
}

/// Datagrams of one length to one address; the last may be shorter, and then it is the last.
#[derive(Clone, Debug)]
struct Train {
    to: SocketAddr,
    name: SockAddr,
    each: usize,
    len: usize,
}

/// What became of an [`Outbox`].
#[derive(Debug, Default)]
pub struct Sent {
    /// Datagrams that were lost.
    pub lost: u64,
    /// Why, and where the last of them was to go.
    pub why: Option<(SocketAddr, io::Error)>,
    /// Where the last was to go that was too large for our own link, and how many bytes it had.
    pub too_large: Option<(SocketAddr, usize)>,
}

impl Sent {
    /// One datagram that was lost.
    pub fn lost(to: SocketAddr, bytes: usize, e: io::Error) -> Self {
        let mut sent = Self::default();
        sent.note(to, bytes, e);
        sent
    }

    /// What became of another beside.
    pub fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.too_large = other.too_large.or(self.too_large);
        self.why = other.why.or(self.why.take());
    }

    fn note(&mut self, to: SocketAddr, bytes: usize, e: io::Error) {
        self.lost += 1;
        if e.raw_os_error() == Some(libc::EMSGSIZE) {
            self.too_large = Some((to, bytes));
        }
        self.why = Some((to, e));
    }
}

impl Outbox {
    /// An empty one for a socket; `can_segment` as [`enable_trains`] said.
    pub fn new(can_segment: bool) -> Self {
        Self {
            bytes: vec![0; SLOTS * SLOT_BYTES],
            trains: [const { None }; SLOTS],
            count: 0,
            can_segment,
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Puts a datagram in; whether there was room. One of no bytes, or of more than UDP carries, is
    /// never sent.
    pub fn push(&mut self, datagram: &[u8], to: SocketAddr) -> bool {
        if datagram.is_empty() || datagram.len() > TRAIN_BYTES {
            return true;
        }
        let to_it = |train: &Option<Train>| train.as_ref().is_some_and(|train| train.to == to);
        // Only the newest train to an address grows, so that nothing overtakes.
        if self.can_segment
            && let Some(index) = self.trains[..self.count].iter().rposition(to_it)
            && let Some(train) = &mut self.trains[index]
            && train.has_room_for(datagram.len())
        {
            let start = index * SLOT_BYTES + train.len;
            self.bytes[start..start + datagram.len()].copy_from_slice(datagram);
            train.len += datagram.len();
            return true;
        }
        let Some(place) = self.trains.get_mut(self.count) else {
            return false;
        };
        let start = self.count * SLOT_BYTES;
        self.bytes[start..start + datagram.len()].copy_from_slice(datagram);
        *place = Some(Train {
            to,
            name: to.into(),
            each: datagram.len(),
            len: datagram.len(),
        });
        self.count += 1;
        true
    }

    /// Sends everything; what can't be sent now is lost.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> Sent {
        let mut sent = Sent::default();
        let mut next = 0;
        while next < self.count {
            match self.send_from(next, socket) {
                Ok(count) => next += count.max(1),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // It is about the first of them.
                Err(e) => {
                    self.send_singly(next, e, socket, &mut sent);
                    next += 1;
                }
            }
        }
        self.count = 0;
        sent
    }

    /// Sends trains from the one numbered `first` on; how many went.
    fn send_from(&mut self, first: usize, socket: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: these are C structures for which all zeros is a value.
        let mut pieces: [libc::iovec; SLOTS] = unsafe { zeroed() };
        // SAFETY: likewise.
        let mut messages: [libc::mmsghdr; SLOTS] = unsafe { zeroed() };
        let mut controls = [Control::default(); SLOTS];
        let trains = self.trains[first..self.count].iter().flatten();
        let mut count = 0;
        for (index, train) in trains.enumerate() {
            let start = (first + index) * SLOT_BYTES;
            let bytes = &mut self.bytes[start..start + train.len];
            pieces[index].iov_base = bytes.as_mut_ptr().cast();
            pieces[index].iov_len = bytes.len();
            let header = &mut messages[index].msg_hdr;
            header.msg_name = train.name.as_ptr().cast_mut().cast();
            header.msg_namelen = train.name.len();
            header.msg_iov = &raw mut pieces[index];
            header.msg_iovlen = 1;
            if train.len > train.each {
                header.msg_control = controls[index].as_mut_ptr().cast();
                // SAFETY: `Control` is aligned as a control message's header, and longer than one with
                // the two bytes that are put behind it.
                unsafe { put_segment_size(header, train.each) };
            }
            count += 1;
        }
        // SAFETY: each of the first `count` headers points to bytes, a name and perhaps a control
        // message of the lengths it says, which live until the call returns.
        let went = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT as _,
            )
        };
        usize::try_from(went).map_err(|_| io::Error::last_os_error())
    }

    /// Sends a train that the kernel refused with `e` one datagram at a time: some may pass.
    fn send_singly(&mut self, index: usize, e: io::Error, socket: BorrowedFd<'_>, sent: &mut Sent) {
        let Some(train) = &self.trains[index] else {
            return;
        };
        let start = index * SLOT_BYTES;
        let datagrams = self.bytes[start..start + train.len].chunks(train.each);
        let is_train = train.len > train.each;
        if !is_train {
            sent.note(train.to, train.len, e);
            return;
        }
        if e.kind() == io::ErrorKind::WouldBlock {
            sent.lost += datagrams.len() as u64;
            sent.why = Some((train.to, e));
            return;
        }
        if matches!(e.raw_os_error(), Some(libc::EIO | libc::ENOPROTOOPT)) {
            // The device can't fill checksums in: no train will ever pass there.
            self.can_segment = false;
        }
        let socket = socket2::SockRef::from(&socket);
        for datagram in datagrams {
            if let Err(e) = socket.send_to(datagram, &train.name) {
                sent.note(train.to, datagram.len(), e);
            }
        }
    }
}

impl Train {
    fn has_room_for(&self, len: usize) -> bool {
        // A shorter one may only be the last.
        let is_open = self.len.is_multiple_of(self.each);
        is_open
            && len <= self.each
            && self.len / self.each < TRAIN_DATAGRAMS
            && self.len + len <= TRAIN_BYTES
    }
}

/// Says how long the datagrams of a train are.
///
/// # Safety
/// `header.msg_control` points to a [`Control`] that lives as long as `header` is used.
unsafe fn put_segment_size(header: &mut libc::msghdr, each: usize) {
    let each = each as u16;
    let size = size_of::<u16>() as libc::c_uint;
    // SAFETY: the caller's word; CMSG_SPACE(2) is 24 bytes at most, and a `Control` has 64.
    unsafe {
        header.msg_controllen = libc::CMSG_SPACE(size) as _;
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = libc::SOL_UDP;
        (*message).cmsg_type = libc::UDP_SEGMENT;
        (*message).cmsg_len = libc::CMSG_LEN(size) as _;
        libc::CMSG_DATA(message).cast::<u16>().write_unaligned(each);
    }
}

/// Has the kernel hand trains over as they are, and says whether it takes them (since Linux 4.18).
pub fn enable_trains(socket: BorrowedFd<'_>) -> bool {
    let (on, mut value): (libc::c_int, libc::c_int) = (1, 0);
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both options are an `int`, and both pointers are to one that outlives the call.
    unsafe {
        // A kernel without it hands over datagrams one by one (until Linux 5.0).
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_GRO,
            (&raw const on).cast(),
            len,
        );
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw mut value).cast(),
            &raw mut len,
        ) == 0
    }
}

#[cfg(test)]
mod tests;
