//! Whichever address of a host answers first (RFC 8305).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::ConnectionError;

/// How long an address has before the next one is tried beside it (RFC 8305 section 8).
const NEXT: Duration = Duration::from_millis(250);
/// How many addresses are tried.
const MAX_ADDRESSES: usize = 8;

/// Connects to a host, at `addresses` if they are known.
pub(super) async fn dial(
    host: &str,
    addresses: &[IpAddr],
    port: u16,
) -> Result<TcpStream, ConnectionError> {
    let unreachable = |source| ConnectionError::Unreachable {
        host: host.to_owned(),
        source,
    };
    let found: Vec<SocketAddr> = if addresses.is_empty() {
        let found = tokio::net::lookup_host((host, port)).await;
        found.map_err(unreachable)?.collect()
    } else {
        addresses
            .iter()
            .map(|ip| SocketAddr::new(*ip, port))
            .collect()
    };
    race(&interleaved(&found)).await.map_err(unreachable)
}

/// IPv6 and IPv4 by turns, IPv6 first (RFC 8305 section 4).
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let (mut six, mut four): (Vec<_>, Vec<_>) =
        addresses.iter().copied().partition(SocketAddr::is_ipv6);
    let mut all = Vec::with_capacity(addresses.len());
    six.reverse();
    four.reverse();
    while !six.is_empty() || !four.is_empty() {
        all.extend(six.pop());
        all.extend(four.pop());
    }
    all.truncate(MAX_ADDRESSES);
    all
}

async fn race(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    let mut rest = addresses.iter();
    let mut error = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    loop {
        match rest.next() {
            Some(address) => {
                attempts.spawn(TcpStream::connect(*address));
            }
            None if attempts.is_empty() => return Err(error),
            None => {}
        }
        let next = async {
            if rest.len() > 0 {
                tokio::time::sleep(NEXT).await;
            } else {
                std::future::pending().await
            }
        };
        tokio::select! {
            Some(done) = attempts.join_next() => match done {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(e)) => error = e,
                Err(e) => error = io::Error::other(e),
            },
            () = next => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_addresses_are_tried_by_turns() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let found = addresses(&[
            "192.0.2.1:1",
            "192.0.2.2:1",
            "[2001:db8::1]:1",
            "192.0.2.3:1",
        ]);
        let expected = addresses(&[
            "[2001:db8::1]:1",
            "192.0.2.1:1",
            "192.0.2.2:1",
            "192.0.2.3:1",
        ]);
        assert_eq!(interleaved(&found), expected);
    }

    #[tokio::test]
    async fn the_address_that_answers_is_taken() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Nobody listens at the first one.
        let addresses = ["127.0.0.2".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        let stream = dial("relay.test", &addresses, port).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().port(), port);
        let nobody = dial("relay.test", &addresses[..1], port).await;
        assert!(matches!(nobody, Err(ConnectionError::Unreachable { .. })));
    }
}
