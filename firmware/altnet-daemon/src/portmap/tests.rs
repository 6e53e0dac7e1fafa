//! The task against a pretend router in a namespace of its own.

use std::net::UdpSocket;
use std::sync::mpsc as channel;
use std::thread;

use altnet_core::portmap::Protocol;
use altnet_wire::portmap::pcp::{self, Operation, Response, ResultCode};
use altnet_wire::portmap::{CLIENT_PORT, MAX_BYTES, SERVER_PORT};

use super::*;
use crate::testing::{in_namespace, ip};

const OUTSIDE: &str = "198.51.100.7:4660";

fn response(request: &pcp::Request, epoch_s: u32) -> Response {
    let mut operation = request.operation;
    if let Operation::Map(map) = &mut operation {
        map.external = OUTSIDE.parse().unwrap();
    }
    Response {
        result: ResultCode::Success,
        lifetime_s: request.lifetime_s,
        epoch_s,
        operation,
    }
}

/// A router on a thread with a network namespace of its own, at the other end of a cable.
struct Router {
    /// The lifetimes that it was asked for.
    asked: channel::Receiver<u32>,
    /// Has it announce that it started anew.
    restart: channel::Sender<()>,
}

impl Router {
    /// Only from a thread whose namespace is its own.
    fn start() -> Self {
        let (threads, thread) = channel::channel();
        let (plug, plugged) = channel::channel();
        let (asks, asked) = channel::channel();
        let (restart, restarts) = channel::channel();
        thread::spawn(move || {
            // SAFETY: unshare(2) takes no pointers; it changes only this thread.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            threads.send(rustix::thread::gettid()).unwrap();
            plugged.recv().unwrap();
            ip("link set line up");
            ip("address add 192.0.2.1/24 dev line");
            serve(&asks, &restarts);
        });
        let thread = thread.recv().unwrap().as_raw_nonzero();
        ip(&format!(
            "link add wan type veth peer name line netns {thread}"
        ));
        ip("link set wan up");
        ip("address add 192.0.2.2/24 dev wan");
        ip("route add default via 192.0.2.1");
        plug.send(()).unwrap();
        Self { asked, restart }
    }
}

fn serve(asks: &channel::Sender<u32>, restarts: &channel::Receiver<()>) {
    let socket = UdpSocket::bind(("192.0.2.1", SERVER_PORT)).unwrap();
    let pause = Some(Duration::from_millis(20));
    socket.set_read_timeout(pause).unwrap();
    let (mut datagram, mut out) = ([0; MAX_BYTES], [0; MAX_BYTES]);
    let mut epoch_s = 1000;
    loop {
        if restarts.try_recv().is_ok() {
            epoch_s = 0;
            let announcement = Response {
                result: ResultCode::Success,
                lifetime_s: 0,
                epoch_s,
                operation: Operation::Announce,
            };
            let length = announcement.encode(&mut out).unwrap();
            let to = ("224.0.0.1", CLIENT_PORT);
            socket.send_to(&out[..length], to).unwrap();
        }
        let Ok((length, from)) = socket.recv_from(&mut datagram) else {
            continue;
        };
        let request = pcp::Request::parse(&datagram[..length]).unwrap();
        assert_eq!(request.client, from.ip());
        let length = response(&request, epoch_s).encode(&mut out).unwrap();
        socket.send_to(&out[..length], from).unwrap();
        if asks.send(request.lifetime_s).is_err() {
            return;
        }
    }
}

async fn until(ways: &mut watch::Receiver<Vec<Way>>, is_so: impl Fn(&[Way]) -> bool) -> Vec<Way> {
    let found = ways.wait_for(|ways| is_so(ways));
    let found = tokio::time::timeout(Duration::from_secs(10), found).await;
    found.expect("it becomes so").unwrap().clone()
}

#[test]
fn a_port_is_asked_for_kept_and_given_back() {
    in_namespace("a_port_is_asked_for_kept_and_given_back", async {
        let router = Router::start();
        let (mappings, mut ways) = PortMappings::start(51820, [7; 32]).unwrap();
        mappings.look(false);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(router.asked.try_recv().is_err(), "nobody wanted a port");

        mappings.look(true);
        let found = until(&mut ways, |ways| {
            ways.iter().any(|way| way.mapping.is_some())
        })
        .await;
        let [way] = found[..] else {
            panic!("{found:?}");
        };
        let held = way.mapping.unwrap();
        assert_eq!(
            (held.external, held.by),
            (OUTSIDE.parse().unwrap(), Protocol::Pcp)
        );
        assert_eq!(held.internal, "192.0.2.2:51820".parse().unwrap());
        assert!(way.is_public && router.asked.recv().unwrap() > 0);

        router.restart.send(()).unwrap();
        let again = tokio::task::spawn_blocking(move || {
            let again = router.asked.recv_timeout(Duration::from_secs(10));
            (again, router)
        });
        let (again, router) = again.await.unwrap();
        assert!(again.unwrap() > 0, "asked again after the restart");

        mappings.close().await;
        assert_eq!(router.asked.try_recv(), Ok(0), "given back");
        assert!(ways.borrow().is_empty());
    });
}

#[test]
fn a_port_is_lost_with_the_way_to_its_router() {
    in_namespace("a_port_is_lost_with_the_way_to_its_router", async {
        let _router = Router::start();
        let (mappings, mut ways) = PortMappings::start(51820, [7; 32]).unwrap();
        mappings.look(true);
        until(&mut ways, |ways| {
            ways.iter().any(|way| way.mapping.is_some())
        })
        .await;
        ip("route delete default");
        mappings.look(true);
        until(&mut ways, <[Way]>::is_empty).await;
        ip("route add default via 192.0.2.1");
        mappings.look(true);
        until(&mut ways, |ways| {
            ways.iter().any(|way| way.mapping.is_some())
        })
        .await;
    });
}
