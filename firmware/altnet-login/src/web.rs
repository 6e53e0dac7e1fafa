//! The page's HTTP server: HTTP/1.1, one request a connection, everything bounded.
//!
//! The device is whoever is at the other end of the TCP connection; no header changes that.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

pub use routes::Site;

mod browser;
pub mod limits;
mod onward;
pub mod pages;
mod reply;
pub mod request;
mod routes;
pub mod tls;

/// The most connections at a time, and of one address.
const MAX_CONNECTIONS: usize = 64;
const MAX_OF_ONE: usize = 8;
/// The longest head and the longest body of a request, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long a browser may take for its TLS handshake and for a request's head.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may last: a directory that is slow, and a browser that is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A socket that listens, and what is spoken on it.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// TLS, or plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whether browsers are asked for a certificate.
    pub asks: bool,
}

/// Who sent a request, and how.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The device's address.
    pub address: IpAddr,
    /// Whether it came over TLS.
    pub is_tls: bool,
    /// Whether it was asked for a certificate.
    pub was_asked: bool,
    /// The certificate it has, and those above it.
    pub chain: Vec<CertificateDer<'static>>,
}

type Response = hyper::Response<Full<Bytes>>;

/// Connections by address.
#[derive(Debug, Default)]
struct Crowd(Mutex<BTreeMap<IpAddr, usize>>);

/// A connection's place among those of its address.
struct Seat {
    crowd: Arc<Crowd>,
    address: IpAddr,
}

impl Crowd {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        // Nothing that holds it can leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sit(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if *count >= MAX_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Seat {
            crowd: Arc::clone(self),
            address,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Serves `site` on all `listeners`, for ever.
///
/// # Errors
/// The event loop doesn't take a socket.
pub async fn serve(site: Arc<Site>, listeners: Vec<Listener>) -> std::io::Result<()> {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let crowd = Arc::new(Crowd::default());
    let mut tasks = tokio::task::JoinSet::new();
    for listener in listeners {
        listener.socket.set_nonblocking(true)?;
        let socket = tokio::net::TcpListener::from_std(listener.socket)?;
        let (site, permits, crowd) = (Arc::clone(&site), Arc::clone(&permits), Arc::clone(&crowd));
        let (tls, asks) = (listener.tls.map(TlsAcceptor::from), listener.asks);
        tasks.spawn(async move {
            loop {
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                    return;
                };
                let (stream, from) = match socket.accept().await {
                    Ok(accepted) => accepted,
                    Err(e) => {
                        // The process has no descriptors left, say: time is what helps.
                        crate::warning!("a connection can't be taken: {e}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let address = from.ip().to_canonical();
                let Some(seat) = crowd.sit(address) else {
                    continue;
                };
                let (site, tls) = (Arc::clone(&site), tls.clone());
                tokio::spawn(async move {
                    let _held = (permit, seat);
                    let served = talk(site, stream, address, tls, asks);
                    let _ = timeout(PATIENCE, served).await;
                });
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn talk(
    site: Arc<Site>,
    stream: TcpStream,
    address: IpAddr,
    tls: Option<TlsAcceptor>,
    asks: bool,
) {
    let mut peer = Peer {
        address,
        is_tls: tls.is_some(),
        was_asked: asks,
        chain: Vec::new(),
    };
    let Some(tls) = tls else {
        return answer(site, stream, peer).await;
    };
    match timeout(HEAD_PATIENCE, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            peer.chain = chain.iter().map(|c| c.clone().into_owned()).collect();
            answer(site, stream, peer).await;
        }
        Ok(Err(e)) => crate::debug!("{address} doesn't speak TLS as it should: {e}"),
        Err(_) => {}
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(site: Arc<Site>, stream: S, peer: Peer) {
    let address = peer.address;
    let service = service_fn(move |request| {
        let (site, peer) = (Arc::clone(&site), peer.clone());
        async move { Ok::<_, Infallible>(site.answer(&peer, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(false)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(e) = served {
        crate::debug!("a request of {address} ended: {}", crate::log::chain(&e));
    }
}
