//! Our UDP ports: the one everything comes to, and those that a search for a way through NATs
//! opens and closes. What the first carries goes by the batch ([`super::batch`]), as it may be much;
//! what the others carry is a few datagrams of a search.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;

use altnet_wire::endpoint::PortId;
use altnet_wire::frame::Frame;

use super::batch::{Inbox, Outbox, Sent};
use super::port::Port;

/// The ports.
#[derive(Debug)]
pub struct Ports {
    main: Port,
    inbox: Inbox,
    outbox: Outbox,
    /// What IP may cut, once there was something.
    fragments: Option<Outbox>,
    /// The others, of any number, in the order they were opened in.
    further: Vec<(PortId, Port)>,
    /// The one that is read from next.
    turn: usize,
}

impl From<Port> for Ports {
    fn from(main: Port) -> Self {
        let (inbox, outbox) = main.batches();
        Self {
            main,
            inbox,
            outbox,
            fragments: None,
            further: Vec::new(),
            turn: 0,
        }
    }
}

impl Ports {
    /// The number of the port everything comes to.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn number(&self) -> io::Result<u16> {
        self.main.number()
    }

    /// Waits until a datagram can be read from one of them.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn readable(&self) -> io::Result<()> {
        if !self.inbox.is_empty() {
            // Counts as a turn, so that other sockets are looked at in time however much comes here.
            tokio::task::coop::consume_budget().await;
            return Ok(());
        }
        if self.further.is_empty() {
            return self.main.readable().await;
        }
        poll_fn(|context| {
            let all = self.further.iter().map(|(_, port)| port);
            for port in std::iter::once(&self.main).chain(all) {
                if let Poll::Ready(ready) = port.poll_readable(context) {
                    return Poll::Ready(ready);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Reads one datagram into `frame`, and says at which port and from where it came; nothing if
    /// none is there. The ports take turns.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn try_receive(
        &mut self,
        frame: &mut Frame<'_>,
    ) -> io::Result<Option<(PortId, SocketAddr)>> {
        for _ in 0..=self.further.len() {
            let further = self.turn.checked_sub(1).and_then(|at| self.further.get(at));
            let id = further.map_or(PortId::MAIN, |(id, _)| *id);
            let came = match further {
                Some((_, port)) => port.try_receive(frame)?,
                None => take(&self.main, &mut self.inbox, frame)?,
            };
            self.turn = if self.turn >= self.further.len() {
                0
            } else {
                self.turn + 1
            };
            if let Some(from) = came {
                return Ok(Some((id, from)));
            }
        }
        Ok(None)
    }

    /// Sends a datagram from a port, which is opened if it isn't. From the one everything comes to it
    /// leaves with [`Ports::flush`]; if there were too many for that, some leave now.
    ///
    /// # Errors
    /// What the kernel says: that there is no route, or no further port.
    pub fn send(&mut self, datagram: &[u8], to: SocketAddr, from: PortId) -> Result<(), Sent> {
        if from == PortId::MAIN || from == PortId::FRAGMENTS {
            if self.put(datagram, to, from) {
                return Ok(());
            }
            let sent = self.flush();
            // There is room now.
            self.put(datagram, to, from);
            return sent;
        }
        let sent = self.send_further(datagram, to, from);
        sent.map_err(|e| Sent::lost(to, datagram.len(), e))
    }

    /// Sends what waits; to be called before sleeping.
    ///
    /// # Errors
    /// How many were lost, and why.
    pub fn flush(&mut self) -> Result<(), Sent> {
        let mut all = Sent::default();
        if let Some(fragments) = self.fragments.as_mut().filter(|out| !out.is_empty()) {
            all = self.main.send_fragments(fragments);
        }
        if !self.outbox.is_empty() {
            all.add(self.main.send_batch(&mut self.outbox));
        }
        if all.lost == 0 { Ok(()) } else { Err(all) }
    }

    fn put(&mut self, datagram: &[u8], to: SocketAddr, from: PortId) -> bool {
        let outbox = match from {
            PortId::FRAGMENTS => {
                // What IP cuts goes one by one.
                self.fragments.get_or_insert_with(|| Outbox::new(false))
            }
            _ => &mut self.outbox,
        };
        self.main.put(datagram, to, outbox)
    }

    fn send_further(&mut self, datagram: &[u8], to: SocketAddr, from: PortId) -> io::Result<()> {
        let is_it = |(id, _): &(PortId, Port)| *id == from;
        let at = match self.further.iter().position(is_it) {
            Some(at) => at,
            None => {
                self.further.push((from, Port::open(0)?));
                self.further.len() - 1
            }
        };
        self.further[at].1.send(datagram, to)
    }

    /// Closes a further port.
    pub fn close(&mut self, port: PortId) {
        self.further.retain(|(id, _)| *id != port);
        self.turn = 0;
    }
}

/// The next datagram of a port that is read by the batch. One that is longer than a frame is cut
/// off, and so opens nowhere.
fn take(port: &Port, inbox: &mut Inbox, frame: &mut Frame<'_>) -> io::Result<Option<SocketAddr>> {
    if inbox.is_empty() && !port.receive_batch(inbox)? {
        return Ok(None);
    }
    let Some((datagram, from)) = inbox.pop() else {
        return Ok(None);
    };
    let room = frame.space().len();
    let datagram = datagram.get(..room).unwrap_or(datagram);
    frame.set(datagram).map_err(io::Error::other)?;
    Ok(Some(from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_wire::frame::FRAME_BYTES;
    use tokio::net::UdpSocket;

    #[tokio::test]
    async fn each_port_sends_from_its_own_number_and_hears_what_comes_there() {
        let mut ports = Ports::from(Port::open(0).unwrap());
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = peer.local_addr().unwrap();
        let mut seen = Vec::new();
        for id in [PortId::MAIN, PortId(7), PortId(9), PortId(7)] {
            ports.send(b"ping", to, id).unwrap();
            ports.flush().unwrap();
            let (_, from) = peer.recv_from(&mut [0; 8]).await.unwrap();
            seen.push(from);
        }
        assert_eq!(seen[1], seen[3]);
        assert!(seen[0] != seen[1] && seen[1] != seen[2] && seen[0] != seen[2]);
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        for (at, id) in [(0, PortId::MAIN), (1, PortId(7)), (2, PortId(9))] {
            peer.send_to(b"pong", seen[at]).await.unwrap();
            let (came, from) = loop {
                ports.readable().await.unwrap();
                if let Some(came) = ports.try_receive(&mut frame).unwrap() {
                    break came;
                }
            };
            assert_eq!((came, from.port()), (id, to.port()));
        }
        ports.close(PortId(7));
        ports.send(b"ping", to, PortId(7)).unwrap();
        let (_, from) = peer.recv_from(&mut [0; 8]).await.unwrap();
        assert_ne!(from, seen[1]);
    }

    #[tokio::test]
    async fn what_waits_to_be_looked_at_keeps_no_other_task_from_running() {
        let mut ports = Ports::from(Port::open(0).unwrap());
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = (std::net::Ipv4Addr::LOCALHOST, ports.number().unwrap());
        for _ in 0..2 {
            peer.send_to(b"ping", to).await.unwrap();
        }
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        while ports.inbox.is_empty() {
            ports.readable().await.unwrap();
            ports.try_receive(&mut frame).unwrap();
        }
        let other = tokio::spawn(async {});
        for _ in 0..10_000 {
            ports.readable().await.unwrap();
        }
        assert!(other.is_finished() && !ports.inbox.is_empty());
    }
}
