//! From an accepted connection to a client that was admitted: TLS, HTTP, DERP's handshake.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use altnet_core::derp::handshake::{
    Arrival, GREETING_BYTES, HANDSHAKE_S, HandshakeError, MAX_ADMISSION_BYTES,
};
use altnet_core::derp::server::{Full, Origin};
use altnet_wire::derp::info::ServerInfo;
use altnet_wire::derp::split::{Splitter, Writer};
use altnet_wire::derp::{BadFrame, PublicKey};
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::outbox::Outbox;
use super::shared::{Inbound, Shared};
use super::{Admission, Admit};
use crate::http::{self, Asked};
use crate::line::{Line, LineError};
use crate::tls::Tls;

/// How long the question whether a client may come is waited for.
const ADMISSION: Duration = Duration::from_secs(5);

/// Somebody who has connected.
pub(super) struct Visitor {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) tls: Arc<ServerConfig>,
    pub(super) admit: Admit,
    pub(super) permit: OwnedSemaphorePermit,
}

/// A client that was admitted.
pub(super) struct Admitted {
    pub(super) line: Line<UnbufferedServerConnection>,
    pub(super) inbound: Inbound,
    pub(super) outbox: Arc<Outbox>,
    pub(super) key: PublicKey,
    pub(super) is_mesh_peer: bool,
}

/// Why a visitor doesn't become a client.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Line(#[from] LineError),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    BadFrame(#[from] BadFrame),
    #[error(transparent)]
    Full(#[from] Full),
    #[error("it takes too long to say who it is")]
    TooSlow,
    #[error("{0} isn't admitted")]
    NotAdmitted(PublicKey),
    #[error("the kernel gives no random bytes: {0}")]
    NoChance(getrandom::Error),
}

impl Visitor {
    /// Makes a client of a visitor; `None` if it asked for something else, and was answered.
    pub(super) async fn admit(self, shared: &Shared) -> Result<Option<Box<Admitted>>, Refusal> {
        let patience = Duration::from_secs(HANDSHAKE_S.into());
        let Self {
            stream,
            address,
            tls,
            admit,
            permit,
        } = self;
        let mut line = Line::new(stream, Tls::server(tls).map_err(LineError::from)?);
        let handshake = introduce(shared, &mut line);
        let introduced = tokio::time::timeout(patience, handshake).await;
        let Some(introduced) = introduced.map_err(|_| Refusal::TooSlow)?? else {
            line.finish();
            return Ok(None);
        };
        let Introduced {
            arrival,
            splitter,
            is_not_ideal,
        } = introduced;
        let key = arrival.key;
        let mut is_guest = false;
        if !arrival.is_mesh_peer {
            let answer = tokio::time::timeout(ADMISSION, admit(key, Some(address))).await;
            match answer {
                Ok(Admission::Client) => {}
                Ok(Admission::Guest) => is_guest = true,
                Ok(Admission::Refused) | Err(_) => return Err(Refusal::NotAdmitted(key)),
            }
        }
        let origin = Origin {
            address: Some(address),
            is_not_ideal,
        };
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce).map_err(Refusal::NoChance)?;
        let mut admission = [0; MAX_ADMISSION_BYTES];
        // There is room.
        let length = arrival.admission(&ServerInfo::PLAIN, &nonce, &mut admission);
        let admission = admission.get(..length.unwrap_or(0)).unwrap_or(&[]);
        let outbox = shared.connect(&arrival, origin, admission)?;
        drop(permit);
        Ok(Some(Box::new(Admitted {
            inbound: Inbound {
                is_guest,
                splitter,
                held: std::mem::take(&mut line.plain),
                paced: None,
            },
            line,
            outbox,
            key,
            is_mesh_peer: arrival.is_mesh_peer,
        })))
    }
}

struct Introduced {
    arrival: Arrival,
    splitter: Splitter,
    is_not_ideal: bool,
}

/// Lets a visitor say what it wants and who it is; `None` if that was something else than DERP.
async fn introduce(
    shared: &Shared,
    line: &mut Line<UnbufferedServerConnection>,
) -> Result<Option<Introduced>, Refusal> {
    line.handshake().await?;
    // RFC 8737 section 3: once the handshake is done nothing is said, and the connection ends.
    if line.tls().is_validation() {
        return Ok(None);
    }
    let length = loop {
        if let Some(length) = http::head_length(&line.plain) {
            break length;
        }
        if line.plain.len() > http::MAX_HEAD_BYTES {
            return Err(LineError::TooMuch.into());
        }
        line.read_more().await?;
    };
    let head: Vec<u8> = line.plain.drain(..length).collect();
    let (is_fast, is_not_ideal) = match http::asked(&head) {
        Asked::Derp {
            is_fast,
            is_not_ideal,
        } => (is_fast, is_not_ideal),
        Asked::Other(response) => {
            line.seal(&response)?;
            line.flush().await?;
            return Ok(None);
        }
    };
    if !is_fast {
        line.seal(&http::switching(&shared.identity.public()))?;
    }
    let mut greeting = [0; GREETING_BYTES];
    // There is room.
    let _ = shared.identity.greeting().encode(&mut greeting);
    line.seal(&greeting)?;
    line.flush().await?;
    let mut splitter = Splitter::new(Writer::Client);
    loop {
        let mut rest = line.plain.as_slice();
        let raw = splitter.next(&mut rest)?;
        let taken = line.plain.len() - rest.len();
        let arrival = raw.map(|raw| shared.identity.identify(raw)).transpose()?;
        line.plain.drain(..taken);
        if let Some(arrival) = arrival {
            line.plain.shrink_to_fit();
            return Ok(Some(Introduced {
                arrival,
                splitter,
                is_not_ideal,
            }));
        }
        line.read_more().await?;
    }
}
