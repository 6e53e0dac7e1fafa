//! The sockets of a conversation with the gateway's UPnP device.
//!
//! In: an [`Ask`]. Out: what became of it. Everything leaves from our own address towards the
//! gateway, and has its time. What is said to whom is decided elsewhere ([`dialogue`](super::dialogue)).

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use altnet_core::portmap::{Ask, IgdAsk, Said};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

use super::description::{self, Service};
use super::dialogue::{Dialogue, Step};
use super::http::{self, Response};
use super::location::Location;
use super::{soap, ssdp};

/// How long one request may take, with its connection.
const REQUEST: Duration = Duration::from_secs(5);
/// How long answers to a search are waited for; devices answer within one second.
const SEARCH: Duration = Duration::from_secs(3);
/// When the search is said again: a datagram may be lost.
const SEARCH_AGAIN: Duration = Duration::from_secs(1);
/// How long others are waited for once one answered.
const OTHERS: Duration = Duration::from_millis(200);
/// The most descriptions that are read.
const MAX_LOCATIONS: usize = 4;

/// Speaks with the device of one gateway after another.
#[derive(Debug, Default)]
pub struct Client {
    // Where the last mapping was made: it is deleted there without a search.
    used: Option<(Ipv4Addr, Vec<Service>)>,
}

impl Client {
    /// Does what `ask` says, from our address `own`. `chance` draws ports.
    pub async fn carry_out(&mut self, ask: &Ask, own: Ipv4Addr, chance: u64) -> Said {
        if let (IgdAsk::Unmap { .. }, Some((gateway, services))) = (ask.what, self.used.take())
            && gateway == ask.gateway
        {
            return converse(Dialogue::new(services, ask.what, chance), own).await;
        }
        let locations = match search(ask.gateway, own).await {
            Ok(locations) => locations,
            Err(e) => {
                crate::debug!("can't search for UPnP devices: {e}");
                return Said::Absent;
            }
        };
        let mut said = Said::Absent;
        for location in locations {
            let Some(services) = describe(&location, own).await else {
                continue;
            };
            let dialogue = Dialogue::new(services.clone(), ask.what, chance);
            match converse(dialogue, own).await {
                Said::Absent => {}
                Said::Refused(why) => said = Said::Refused(why),
                done => {
                    self.used = Some((ask.gateway, services));
                    return done;
                }
            }
        }
        said
    }
}

async fn converse(mut dialogue: Dialogue, own: Ipv4Addr) -> Said {
    loop {
        let (address, request) = match dialogue.next_step() {
            Step::End(said) => return said,
            Step::Call(service, action) => (service.control.address, http::post(service, &action)),
        };
        match exchange(address, own, &request).await {
            Ok(response) => dialogue.outcome(soap::parse(response.status, &response.body)),
            Err(e) => {
                crate::debug!("the UPnP device at {address} did not answer: {e}");
                dialogue.outcome(Err(soap::CallError::Status(0)));
            }
        }
    }
}

async fn describe(location: &Location, own: Ipv4Addr) -> Option<Vec<Service>> {
    let response = match exchange(location.address, own, &http::get(location)).await {
        Ok(response) if response.status == 200 => response,
        Ok(response) => {
            let status = response.status;
            crate::debug!("the UPnP device at {} says {status}", location.address);
            return None;
        }
        Err(e) => {
            crate::debug!("the UPnP device at {} is silent: {e}", location.address);
            return None;
        }
    };
    description::parse(&response.body, location).ok()
}

/// Searches for devices at the gateway; returns where their descriptions are.
async fn search(gateway: Ipv4Addr, own: Ipv4Addr) -> io::Result<Vec<Location>> {
    let socket = UdpSocket::bind((own, 0)).await?;
    SockRef::from(&socket).set_multicast_if_v4(&own)?;
    // No farther than the link (UPnP Device Architecture 1.1 section 1.3.3 allows 2).
    socket.set_multicast_ttl_v4(1)?;
    let mut found = Vec::new();
    let end = Instant::now() + SEARCH;
    let mut again = Instant::now();
    let mut until = end;
    let mut datagram = [0; ssdp::MAX_DATAGRAM_BYTES];
    while Instant::now() < until && found.len() < MAX_LOCATIONS {
        if again <= Instant::now() && found.is_empty() {
            send_searches(&socket, gateway).await?;
            again += SEARCH_AGAIN;
        }
        let wait = if found.is_empty() {
            until.min(again)
        } else {
            until
        };
        let Ok(received) = timeout_at(wait, socket.recv_from(&mut datagram)).await else {
            continue;
        };
        // An ICMP error about one of the searches is no end of the others.
        let Ok((length, from)) = received else {
            continue;
        };
        if from.ip() != gateway {
            continue;
        }
        let answer = datagram.get(..length).unwrap_or(&[]);
        if let Some(location) = ssdp::parse_answer(answer, gateway)
            && !found.contains(&location)
        {
            found.push(location);
            until = until.min(Instant::now() + OTHERS);
        }
    }
    Ok(found)
}

/// To the gateway itself and to all, as devices may listen to one alone.
async fn send_searches(socket: &UdpSocket, gateway: Ipv4Addr) -> io::Result<()> {
    for target in ssdp::TARGETS {
        let request = ssdp::search(target);
        let to_all = socket
            .send_to(request.as_bytes(), (ssdp::GROUP, ssdp::PORT))
            .await;
        let to_it = socket
            .send_to(request.as_bytes(), (gateway, ssdp::PORT))
            .await;
        to_it.or(to_all)?;
    }
    Ok(())
}

async fn exchange(address: SocketAddrV4, own: Ipv4Addr, request: &str) -> io::Result<Response> {
    let exchanged = timeout(REQUEST, exchange_patiently(address, own, request)).await;
    exchanged.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn exchange_patiently(
    address: SocketAddrV4,
    own: Ipv4Addr,
    request: &str,
) -> io::Result<Response> {
    let socket = TcpSocket::new_v4()?;
    // Devices map ports only to whoever asks.
    socket.bind(SocketAddrV4::new(own, 0).into())?;
    let mut stream = socket.connect(SocketAddr::V4(address)).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    loop {
        let length = stream.read_buf(&mut bytes).await?;
        if let Some(response) = http::parse(&bytes, length == 0).map_err(io::Error::other)? {
            return Ok(response);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_namespace, ip};
    use tokio::net::TcpListener;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const DESCRIPTION: &str = "<root><device><serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/ctl</controlURL></service></serviceList></device></root>";

    /// A device that answers one connection after another by what is asked for.
    async fn be_device(listener: TcpListener) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                stream.read_buf(&mut request).await.unwrap();
            }
            let request = String::from_utf8(request).unwrap();
            let envelope =
                |inner: &str| format!("<s:Envelope><s:Body>{inner}</s:Body></s:Envelope>");
            let body = if request.starts_with("GET /root.xml ") {
                DESCRIPTION.to_owned()
            } else if request.contains("#GetExternalIPAddress") {
                envelope("<u:R><NewExternalIPAddress>198.51.100.7</NewExternalIPAddress></u:R>")
            } else {
                envelope("<u:R/>")
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).await.unwrap();
        }
    }

    async fn answer_searches(socket: UdpSocket, answers: Vec<String>) {
        let mut datagram = [0; 2048];
        loop {
            let (length, from) = socket.recv_from(&mut datagram).await.unwrap();
            assert!(datagram[..length].starts_with(b"M-SEARCH * HTTP/1.1\r\n"));
            for answer in &answers {
                let answer = format!("HTTP/1.1 200 OK\r\nLOCATION: {answer}\r\n\r\n");
                socket.send_to(answer.as_bytes(), from).await.unwrap();
            }
        }
    }

    fn set_up() {
        for words in [
            "link set lo up",
            "address add 192.0.2.1/32 dev lo",
            "address add 192.0.2.2/32 dev lo",
        ] {
            ip(words);
        }
    }

    fn ask(what: IgdAsk) -> Ask {
        Ask {
            id: 1,
            gateway: GATEWAY,
            what,
        }
    }

    #[test]
    fn a_device_at_the_gateway_maps_a_port_and_no_other_is_asked() {
        in_namespace(
            "a_device_at_the_gateway_maps_a_port_and_no_other_is_asked",
            async {
                set_up();
                let own = Ipv4Addr::new(192, 0, 2, 2);
                let device = TcpListener::bind((GATEWAY, 5000)).await.unwrap();
                let elsewhere = TcpListener::bind((own, 5000)).await.unwrap();
                tokio::spawn(be_device(device));
                let socket = UdpSocket::bind((GATEWAY, ssdp::PORT)).await.unwrap();
                let answers = [
                    "http://192.0.2.2:5000/root.xml",
                    "http://192.0.2.1:5000/root.xml",
                ];
                tokio::spawn(answer_searches(socket, answers.map(str::to_owned).to_vec()));

                let mut client = Client::default();
                let map = IgdAsk::Map {
                    internal: "192.0.2.2:51820".parse().unwrap(),
                    external_port: 4660,
                    lifetime_s: 60,
                };
                let said = client.carry_out(&ask(map), own, 7).await;
                let external = "198.51.100.7:4660".parse().unwrap();
                let lifetime_s = 60;
                assert_eq!(
                    said,
                    Said::Mapped {
                        external,
                        lifetime_s
                    }
                );
                let unmap = IgdAsk::Unmap {
                    external_port: 4660,
                };
                let said = client.carry_out(&ask(unmap), own, 7).await;
                assert_eq!(said, Said::Unmapped);
                let asked = timeout(Duration::from_millis(50), elsewhere.accept()).await;
                assert!(asked.is_err(), "what is not the gateway was asked");
            },
        );
    }

    #[test]
    fn a_gateway_that_is_no_device_is_given_up() {
        in_namespace("a_gateway_that_is_no_device_is_given_up", async {
            set_up();
            let own = Ipv4Addr::new(192, 0, 2, 2);
            let unmap = IgdAsk::Unmap {
                external_port: 4660,
            };
            let said = Client::default().carry_out(&ask(unmap), own, 7).await;
            assert_eq!(said, Said::Absent);
        });
    }
}
