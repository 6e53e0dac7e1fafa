//! Names on a LAN: the addresses at which they are answered there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use crate::dns;
use crate::netlink::set_option;

/// `IPV6_FREEBIND` of linux/in6.h: an address may be listened on before it is usable.
const IPV6_FREEBIND: i32 = 78;

/// The listeners on one LAN, each by its interface's index and its address.
#[derive(Debug)]
pub(super) struct Listeners {
    port: u16,
    there: BTreeMap<(u32, IpAddr), Vec<JoinHandle<()>>>,
}

impl Default for Listeners {
    fn default() -> Self {
        Self {
            port: dns::PORT,
            there: BTreeMap::new(),
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.there.values().for_each(|tasks| end(tasks));
    }
}

fn end(tasks: &[JoinHandle<()>]) {
    tasks.iter().for_each(JoinHandle::abort);
}

impl Listeners {
    /// Listens at the `wanted` addresses of an interface and no longer anywhere else.
    ///
    /// # Errors
    /// What the kernel said of one; the others are listened at all the same.
    pub(super) fn settle(
        &mut self,
        names: &Arc<dns::Service>,
        interface: (&str, u32),
        wanted: &BTreeSet<IpAddr>,
    ) -> io::Result<()> {
        let (name, index) = interface;
        self.there.retain(|(there, address), tasks| {
            let stays = *there == index && wanted.contains(address);
            if !stays {
                end(tasks);
            }
            stays
        });
        let mut result = Ok(());
        for address in wanted {
            if self.there.contains_key(&(index, *address)) {
                continue;
            }
            match listen(names, (*address, self.port).into(), Some(name), false) {
                Ok(tasks) => {
                    self.there.insert((index, *address), tasks);
                }
                Err(e) => result = Err(e),
            }
        }
        result
    }
}

/// Answers names at `address`, on one interface or on any. An IPv4 address that this machine hasn't is
/// refused, unless it `comes_later`.
///
/// # Errors
/// What the kernel says.
pub fn listen(
    service: &Arc<dns::Service>,
    address: SocketAddr,
    interface: Option<&str>,
    comes_later: bool,
) -> io::Result<Vec<JoinHandle<()>>> {
    let udp = open(address, Type::DGRAM, interface, comes_later)?;
    let tcp = open(address, Type::STREAM, interface, comes_later)?;
    tcp.listen(16)?;
    let udp = UdpSocket::from_std(udp.into())?;
    let tcp = TcpListener::from_std(tcp.into())?;
    Ok(vec![
        tokio::spawn(Arc::clone(service).serve_udp(udp)),
        tokio::spawn(Arc::clone(service).serve_tcp(tcp)),
    ])
}

fn open(
    address: SocketAddr,
    kind: Type,
    interface: Option<&str>,
    comes_later: bool,
) -> io::Result<Socket> {
    let nonblocking = kind.cloexec().nonblocking();
    let socket = Socket::new(Domain::for_address(address), nonblocking, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        set_option(&socket, libc::IPPROTO_IPV6, IPV6_FREEBIND, &1i32)?;
    } else {
        socket.set_freebind_v4(comes_later)?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    // Nobody on another side of this machine is answered.
    socket.bind_device(interface.map(str::as_bytes))?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::upstream::Upstreams;
    use crate::dns::{Decision, Forwarder, Inquiry};
    use std::time::Duration;
    use tokio::sync::mpsc;

    /// A service whose gateway answers everything by the question itself.
    fn service() -> Arc<dns::Service> {
        let (inquiries, mut inbox) = mpsc::channel::<Inquiry>(8);
        tokio::spawn(async move {
            while let Some(inquiry) = inbox.recv().await {
                let _ = inquiry.decision.send(Decision::Answer(inquiry.query));
            }
        });
        let none = Upstreams::fixed(Vec::new());
        dns::Service::new(inquiries, Forwarder::new(none, Duration::from_secs(1)))
    }

    /// Whether somebody answers there; nobody does if the kernel says that the port is closed.
    async fn is_answered(address: SocketAddr) -> bool {
        let local = match address {
            SocketAddr::V4(_) => "127.0.0.1:0",
            SocketAddr::V6(_) => "[::1]:0",
        };
        let socket = UdpSocket::bind(local).await.unwrap();
        socket.connect(address).await.unwrap();
        socket.send(b"anybody?").await.unwrap();
        socket.recv(&mut [0; 64]).await.is_ok()
    }

    #[tokio::test]
    async fn names_are_answered_where_they_are_wanted_and_nowhere_else() {
        let (v4, v6): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), "::1".parse().unwrap());
        let free = std::net::TcpListener::bind((v6, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut listeners = Listeners::default();
        listeners.port = port;
        let (names, lo) = (service(), ("lo", crate::link::index_of("lo").unwrap()));
        let mut settle = |wanted: &[IpAddr]| {
            let wanted = wanted.iter().copied().collect();
            listeners.settle(&names, lo, &wanted)
        };
        settle(&[v4, v6]).unwrap();
        assert!(is_answered((v4, port).into()).await && is_answered((v6, port).into()).await);
        settle(&[v6]).unwrap();
        // An ended task lets go of its socket when it is next polled.
        while std::net::UdpSocket::bind((v4, port)).is_err() {
            tokio::task::yield_now().await;
        }
        assert!(!is_answered((v4, port).into()).await && is_answered((v6, port).into()).await);
        // What is taken already is said; the other address is served all the same.
        let _taken = std::net::UdpSocket::bind((v4, port)).unwrap();
        assert!(settle(&[v4, v6]).is_err());
        assert!(is_answered((v6, port).into()).await);
    }

    #[tokio::test]
    async fn an_ipv4_address_that_is_not_here_is_refused_unless_it_comes_later() {
        let (service, nobodys) = (service(), "192.0.2.1:0".parse().unwrap());
        let error = listen(&service, nobodys, None, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        let tasks = listen(&service, nobodys, None, true).unwrap();
        end(&tasks);
    }
}
