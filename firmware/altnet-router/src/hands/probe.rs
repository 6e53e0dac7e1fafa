//! Whether an uplink leads anywhere: one echo at a time to a place beyond it, out of its own interface.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::echo::Echo;

/// How long an answer is waited for. One that comes later is as good as none to who waits for a page.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Asks `target` for an echo, out of `interface`. Returns whether an answer came in time.
///
/// # Errors
/// What the kernel says: without a route, or an interface, nobody can be asked.
pub async fn echo(interface: &str, target: IpAddr, sequence: u16) -> io::Result<bool> {
    let socket = open(interface, target)?;
    let echo = Echo {
        id: u16::from_be_bytes(random()?),
        sequence,
        cookie: u64::from_be_bytes(random()?),
    };
    socket.send(&echo.request(target))?;
    let waited = tokio::time::timeout(PATIENCE, answer(socket, target, echo)).await;
    match waited {
        Ok(answered) => answered.map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Waits for the answer, however many others come before it.
async fn answer(socket: Socket, target: IpAddr, echo: Echo) -> io::Result<()> {
    let socket = super::registered(socket)?;
    let mut packet = [0; 2048];
    loop {
        let mut ready = socket.readable().await?;
        let received = ready.try_io(|socket| socket.get_ref().read(&mut packet));
        let Ok(received) = received else {
            continue; // it was not ready after all
        };
        let packet = packet.get(..received?).unwrap_or(&[]);
        let found = match target {
            IpAddr::V4(_) => Echo::reply_v4(packet),
            IpAddr::V6(_) => Echo::reply_v6(packet),
        };
        if found == Some(echo) {
            return Ok(());
        }
    }
}

fn open(interface: &str, target: IpAddr) -> io::Result<Socket> {
    let (domain, protocol) = match target {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW.cloexec().nonblocking(), Some(protocol))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    // The kernel shows what comes from there alone.
    socket.connect(&SocketAddr::new(target, 0).into())?;
    Ok(socket)
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
