//! Asking the home's own resolvers, one question at a time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::MAX_DATAGRAM_BYTES;
use super::message::{is_alt, question as question_of, read_message, truncated, write_message};
use super::upstream::Upstreams;

/// The way to other resolvers.
#[derive(Debug)]
pub struct Forwarder {
    upstreams: Upstreams,
    timeout: Duration,
}

/// Why no other resolver gave an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The query is not one question, or its name is under `.alt`.
    #[error("the query must not be forwarded")]
    NotForwarded,
    /// No resolver is known.
    #[error("no resolver is known; add some to [dns] forward in altnet.toml")]
    NoUpstream,
    /// None answered.
    #[error("no resolver answered")]
    NoAnswer(#[source] io::Error),
}

impl Forwarder {
    /// Makes a forwarder that waits `timeout` for each resolver.
    pub fn new(upstreams: Upstreams, timeout: Duration) -> Self {
        Self { upstreams, timeout }
    }

    /// Asks resolvers one after the other until one answers. The answer has the query's id.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn forward(&self, query: &[u8], is_tcp: bool) -> Result<Vec<u8>, ForwardError> {
        let question = question_of(query).ok_or(ForwardError::NotForwarded)?;
        if is_alt(question) {
            return Err(ForwardError::NotForwarded);
        }
        let mut last = None;
        for upstream in self.upstreams.now() {
            let asked = timeout(self.timeout, ask(upstream, query, question, is_tcp)).await;
            match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(answer) => return Ok(answer),
                Err(e) => last = Some(e),
            }
        }
        Err(last.map_or(ForwardError::NoUpstream, ForwardError::NoAnswer))
    }
}

async fn ask(to: SocketAddr, query: &[u8], question: &[u8], is_tcp: bool) -> io::Result<Vec<u8>> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let mut sent = query.to_vec();
    sent[..2].copy_from_slice(&id);
    let matches = |answer: &[u8]| {
        answer.first_chunk() == Some(&id)
            && answer.get(2).is_some_and(|flags| flags & 0x80 != 0)
            && question_of(answer).is_some_and(|echoed| echoed.eq_ignore_ascii_case(question))
    };
    let mut answer = if is_tcp {
        let mut stream = TcpStream::connect(to).await?;
        write_message(&mut stream, &sent).await?;
        let answer = read_message(&mut stream).await?;
        if !matches(&answer) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        answer
    } else {
        // A port of its own for every query, which the kernel draws at random; connected, so
        // that only the resolver's address is heard.
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(to).await?;
        socket.send(&sent).await?;
        // One byte more than is passed on, to see that there are more.
        let mut buffer = vec![0; MAX_DATAGRAM_BYTES + 1];
        loop {
            let len = socket.recv(&mut buffer).await?;
            if !matches(&buffer[..len]) {
                continue;
            }
            buffer.truncate(len);
            if len > MAX_DATAGRAM_BYTES {
                buffer = truncated(&buffer).ok_or(io::ErrorKind::InvalidData)?;
            }
            break buffer;
        }
    };
    answer[..2].copy_from_slice(&query[..2]);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::super::message::testing::{answer_to, query};
    use super::*;

    fn forwarder(upstreams: Vec<SocketAddr>) -> Forwarder {
        Forwarder::new(Upstreams::fixed(upstreams), Duration::from_millis(500))
    }

    #[tokio::test]
    async fn alt_is_never_forwarded() {
        let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let forwarder = forwarder(vec![upstream.local_addr().unwrap()]);
        let result = forwarder.forward(&query(1, "wiki.home.alt"), false).await;
        assert!(matches!(result, Err(ForwardError::NotForwarded)));
        assert!(upstream.try_recv(&mut [0; 1]).is_err());
    }

    #[tokio::test]
    async fn forged_answers_are_waited_past() {
        let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let forwarder = forwarder(vec![upstream.local_addr().unwrap()]);
        let resolver = tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (len, from) = upstream.recv_from(&mut buffer).await.unwrap();
            let sent = &buffer[..len];
            let mut wrong_id = answer_to(sent);
            wrong_id[0] ^= 1;
            let wrong_question = answer_to(&query(
                u16::from_be_bytes([sent[0], sent[1]]),
                "other.example",
            ));
            for answer in [
                wrong_id,
                wrong_question,
                sent.to_vec(),
                vec![],
                answer_to(sent),
            ] {
                upstream.send_to(&answer, from).await.unwrap();
            }
            u16::from_be_bytes([sent[0], sent[1]])
        });
        let asked = query(0x1234, "example.com");
        let answer = forwarder.forward(&asked, false).await.unwrap();
        assert_eq!(answer, answer_to(&asked));
        // Equal once in 65536 runs, and then the answer above was still right.
        let _drawn = resolver.await.unwrap();
    }

    #[tokio::test]
    async fn a_silent_resolver_is_passed_over() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let forwarder = forwarder(vec![
            silent.local_addr().unwrap(),
            upstream.local_addr().unwrap(),
        ]);
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (len, from) = upstream.recv_from(&mut buffer).await.unwrap();
            upstream
                .send_to(&answer_to(&buffer[..len]), from)
                .await
                .unwrap();
        });
        assert!(
            forwarder
                .forward(&query(1, "example.com"), false)
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn an_answer_too_long_for_a_datagram_is_asked_for_by_tcp() {
        let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let forwarder = forwarder(vec![upstream.local_addr().unwrap()]);
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (len, from) = upstream.recv_from(&mut buffer).await.unwrap();
            let mut answer = answer_to(&buffer[..len]);
            answer.resize(MAX_DATAGRAM_BYTES + 100, 7);
            upstream.send_to(&answer, from).await.unwrap();
        });
        let asked = query(9, "example.com");
        let answer = forwarder.forward(&asked, false).await.unwrap();
        assert_eq!(Some(answer.clone()), truncated(&answer_to(&asked)));
        assert_eq!((answer.len(), answer[2] & 2), (asked.len(), 2));
    }
}
