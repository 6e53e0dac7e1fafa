//! Uses a relay with Tailscale's crate `ts_derp`: `ts-derp-peer NAME IPV4 PORT`.
//!
//! Two clients exchange packets both ways, one of them is pinged and one pings, and one learns that the
//! other has left. Exits 0 if all of that was so; says what was not otherwise.

use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use ts_derp::{Client, DefaultClient, IpUsage, ServerConnInfo, TlsValidationConfig, frame};
use ts_http_util::Client as _;
use ts_keys::NodeKeyPair;
use url::Url;

type Fault = Box<dyn std::error::Error>;

const PATIENCE: Duration = Duration::from_secs(10);
/// `PeerGone`: of 33 bytes, with the reason "disconnected" at the end.
const PEER_GONE: [u8; 5] = [0x08, 0, 0, 0, 33];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Fault> {
    let mut words = std::env::args().skip(1);
    let mut word = || words.next().ok_or("usage: ts-derp-peer NAME IPV4 PORT");
    let (name, address, port) = (word()?, word()?.parse()?, word()?.parse()?);
    let relay = relay(&name, address, port);

    // One as its users connect, one whose bytes can be looked at.
    let (a_keys, b_keys) = (NodeKeyPair::random(), NodeKeyPair::random());
    let a = timeout(PATIENCE, DefaultClient::connect([&relay], &a_keys)).await??;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let conn = timeout(PATIENCE, watched(&relay, Arc::clone(&heard))).await??;
    let b = timeout(PATIENCE, Client::handshake(conn, &b_keys)).await??;

    for length in [1_usize, 1400, 20_000, 65_000] {
        let there: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let back: Vec<u8> = there.iter().rev().copied().collect();
        a.send_one(b_keys.public, &there).await?;
        let (from, packet) = timeout(PATIENCE, b.recv_one()).await??;
        let is_same = from == a_keys.public && packet.as_ref() == there;
        check(is_same, &format!("{length} bytes came from the other side"))?;
        b.send_one(a_keys.public, &back).await?;
        let (from, packet) = timeout(PATIENCE, a.recv_one()).await??;
        let is_same = from == b_keys.public && packet.as_ref() == back;
        check(is_same, &format!("{length} bytes came back"))?;
    }

    // The crate takes a pong for a fault, and says so.
    b.send_frame(&frame::Ping { payload: *b"whoisit?" }).await?;
    let pong = timeout(PATIENCE, b.recv_one()).await?;
    let is_pong = matches!(pong, Err(ts_derp::Error::UnexpectedRecvFrameType(frame::FrameType::Pong)));
    check(is_pong, "a ping was answered")?;
    let pong = [&[0x13, 0, 0, 0, 8][..], b"whoisit?"].concat();
    check(holds(&heard, &pong), "the answer was what was asked")?;

    drop(a);
    // It is told of in passing, while a packet is waited for.
    let _ = timeout(Duration::from_secs(2), b.recv_one()).await;
    let gone = [&PEER_GONE[..], &key_bytes(&a_keys), &[0]].concat();
    check(holds(&heard, &gone), "who left was named")?;
    println!("two clients of ts_derp exchanged packets, were answered, and knew who left");
    Ok(())
}

fn relay(name: &str, address: Ipv4Addr, port: u16) -> ServerConnInfo {
    ServerConnInfo {
        hostname: name.to_owned(),
        ipv4: IpUsage::FixedAddr(address),
        ipv6: IpUsage::Disable,
        // The crate knows no pins yet.
        tls_validation_config: TlsValidationConfig::InsecureForTests,
        https_port: port,
        stun_port: None,
        stun_only: false,
        supports_port_80: false,
    }
}

/// What the crate's own `connect` does, with a look at what comes.
async fn watched(
    relay: &ServerConnInfo,
    heard: Arc<Mutex<Vec<u8>>>,
) -> Result<Watched<ts_http_util::Upgraded>, Fault> {
    let dialled = ts_derp::dial::dial_region_tls([relay]).await?;
    let (conn, _, address) = dialled.ok_or("nobody answers")?;
    let client = ts_http_util::http1::connect(conn).await?;
    let url = Url::parse(&format!("https://{address}/derp"))?;
    let request = ts_http_util::make_upgrade_req(&url, "DERP", None)?;
    let inner = ts_http_util::do_upgrade(client.send(request).await?).await?;
    Ok(Watched { inner, heard })
}

fn key_bytes(keys: &NodeKeyPair) -> [u8; 32] {
    *keys.public.to_x25519_dalek().as_bytes()
}

fn holds(heard: &Mutex<Vec<u8>>, wanted: &[u8]) -> bool {
    let heard = heard.lock().expect("nobody panicked");
    heard.windows(wanted.len()).any(|window| window == wanted)
}

fn check(is_so: bool, claim: &str) -> Result<(), Fault> {
    if is_so {
        Ok(())
    } else {
        Err(format!("not so: {claim}").into())
    }
}

/// A connection that remembers what was read.
struct Watched<Io> {
    inner: Io,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl<Io: AsyncRead + Unpin> AsyncRead for Watched<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let mut heard = self.heard.lock().expect("nobody panicked");
        heard.extend_from_slice(&buf.filled()[before..]);
        polled
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Watched<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
