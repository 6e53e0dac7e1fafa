//! The process `altnet-tls`: started, talked with, and started again.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use altnet_core::node::{NewTlsKey, TlsKey};
use altnet_wire::tls::talk::{self, CONNECTION_DESCRIPTORS, FromTls, MAX_TALK_BYTES, ToTls};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{Certified, Ends, KeyMade, Shared, Wish};

/// How long after its end it is started again, the first time; twice as long each time after.
const FIRST_REST: Duration = Duration::from_millis(500);
/// At most so long.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// Who ran for so long failed for another reason than the last time.
const STEADY: Duration = Duration::from_secs(60);

/// Has the process run until the last who could wish for something is gone.
pub(super) async fn run(shared: Arc<Shared>, Ends { mut wishes, made }: Ends) {
    let mut rest = FIRST_REST;
    loop {
        let began = Instant::now();
        match Process::start(&shared.command) {
            Ok(process) => {
                let mut talk = Talk {
                    shared: &shared,
                    socket: &process.socket,
                    told: BTreeMap::new(),
                    making: VecDeque::new(),
                };
                let ended = talk.go_on(&mut wishes, &made).await;
                let making = std::mem::take(&mut talk.making);
                shared.inside().is_up = false;
                for name in making {
                    let _ = made.try_send(KeyMade { name, key: None });
                }
                match ended {
                    Ok(()) => return,
                    Err(e) => crate::error!("altnet-tls ended: {e}; it is started again"),
                }
            }
            Err(e) => crate::error!(
                "can't start {}: {e}; install it beside altnetd, or say where it is as `command` of [tls] in altnet.toml",
                shared.command.display()
            ),
        }
        if began.elapsed() >= STEADY {
            rest = FIRST_REST;
        }
        if !turn_away(&mut wishes, &made, rest).await {
            return;
        }
        rest = (rest * 2).min(LONGEST_REST);
    }
}

/// Waits, and lets nobody wait meanwhile. Returns whether anybody is left to wish.
async fn turn_away(
    wishes: &mut mpsc::Receiver<Wish>,
    made: &mpsc::Sender<KeyMade>,
    rest: Duration,
) -> bool {
    let until = Instant::now() + rest;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(until) => return true,
            wish = wishes.recv() => match wish {
                Some(Wish::Make(name, _)) => {
                    let _ = made.try_send(KeyMade { name, key: None });
                }
                // A connection ends as its sockets are dropped.
                Some(Wish::Look | Wish::Connection { .. }) => {}
                None => return false,
            },
        }
    }
}

/// A running process. It is ended when this is dropped, if it didn't by itself.
struct Process {
    child: Child,
    socket: AsyncFd<OwnedFd>,
}

impl Process {
    fn start(command: &Path) -> io::Result<Self> {
        let (near, far) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        // SAFETY: the descriptor is owned by the `AsyncFd` from here on; nothing closes or replaces
        // it before that is dropped.
        let socket = unsafe { AsyncFd::register(near) }?;
        let child = Command::new(command)
            .stdin(Stdio::from(far))
            .stdout(Stdio::null())
            .env_clear()
            .spawn()?;
        // Apps without https are better than none; and who may not say so has nothing to lose by it.
        let _ = altnet_service::memory::give_way(child.id());
        Ok(Self { child, socket })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; and a killed process is waited for only a moment.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Talk<'a> {
    shared: &'a Shared,
    socket: &'a AsyncFd<OwnedFd>,
    /// What the process serves.
    told: BTreeMap<String, Certified>,
    /// What keys were wished for, in order.
    making: VecDeque<String>,
}

impl Talk<'_> {
    /// Talks until nobody is left to wish.
    async fn go_on(
        &mut self,
        wishes: &mut mpsc::Receiver<Wish>,
        made: &mpsc::Sender<KeyMade>,
    ) -> io::Result<()> {
        let version = talk::VERSION;
        self.say(&ToTls::Begin { version }, &[]).await?;
        self.look().await?;
        self.shared.inside().is_up = true;
        loop {
            tokio::select! {
                wish = wishes.recv() => match wish {
                    Some(wish) => self.pass_on(wish).await?,
                    None => return Ok(()),
                },
                heard = receive(self.socket) => match heard? {
                    Some(bytes) => self.hear(&bytes, made)?,
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                },
            }
        }
    }

    async fn pass_on(&mut self, wish: Wish) -> io::Result<()> {
        self.look().await?;
        match wish {
            Wish::Look => Ok(()),
            Wish::Make(name, subject) => {
                self.making.push_back(name);
                let message = ToTls::Make {
                    network: subject.network,
                    device: subject.device,
                    subject: subject.subject,
                };
                self.say(&message, &[]).await
            }
            Wish::Connection { name, caller, app } => {
                let message = ToTls::Connection { name: &name };
                let descriptors: [BorrowedFd<'_>; CONNECTION_DESCRIPTORS] =
                    [caller.as_fd(), app.as_fd()];
                self.say(&message, &descriptors).await
            }
        }
    }

    /// Tells what is served, as far as it changed.
    async fn look(&mut self) -> io::Result<()> {
        let wanted = {
            let inside = self.shared.inside();
            if inside.served == self.told {
                return Ok(());
            }
            inside.served.clone()
        };
        for name in self.told.keys().filter(|name| !wanted.contains_key(*name)) {
            self.say(&ToTls::Forget { name }, &[]).await?;
        }
        for (name, certified) in &wanted {
            if self.told.get(name) == Some(certified) {
                continue;
            }
            let message = ToTls::Serve {
                name,
                key: certified.key.expose(),
                certificate: &certified.certificate,
            };
            self.say(&message, &[]).await?;
        }
        self.told = wanted;
        Ok(())
    }

    fn hear(&mut self, bytes: &[u8], made: &mpsc::Sender<KeyMade>) -> io::Result<()> {
        match talk::decode(bytes).map_err(io::Error::other)? {
            FromTls::Made { secret, key, proof } => {
                let name = self.making.pop_front().ok_or(io::ErrorKind::InvalidData)?;
                let key = NewTlsKey {
                    secret: TlsKey::new(secret),
                    key,
                    proof,
                };
                // As many as that may wait were wished for; what has no room is wished for again.
                let _ = made.try_send(KeyMade {
                    name,
                    key: Some(Box::new(key)),
                });
            }
            FromTls::Unfit { name, why } => {
                crate::error!("{name} can't be served by TLS: {why}");
                let mut inside = self.shared.inside();
                if inside.served.contains_key(name) {
                    inside.unfit.insert(name.into(), why.into());
                }
            }
        }
        Ok(())
    }

    async fn say(&self, message: &ToTls<'_>, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        // It may hold a key.
        let mut out = Zeroizing::new([0; MAX_TALK_BYTES]);
        let bytes = talk::encode(message, &mut *out).ok_or(io::ErrorKind::InvalidInput)?;
        let sent = self.socket.async_io(Interest::WRITABLE, |socket| {
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CONNECTION_DESCRIPTORS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                // There is room for as many as a connection has.
                control.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            let bytes = &[IoSlice::new(bytes)];
            Ok(sendmsg(socket, bytes, &mut control, SendFlags::NOSIGNAL)?)
        });
        sent.await.map(drop)
    }
}

/// Waits for what the process says; none if it is gone.
async fn receive(socket: &AsyncFd<OwnedFd>) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let received = socket.async_io(Interest::READABLE, |socket| {
        let mut bytes = Zeroizing::new(vec![0; MAX_TALK_BYTES]);
        // No descriptors are taken.
        let mut control = RecvAncillaryBuffer::default();
        let into = &mut [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(socket, into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        bytes.truncate(received.bytes);
        Ok(bytes)
    });
    Ok(Some(received.await?).filter(|bytes| !bytes.is_empty()))
}
