//! Counters for people with graphs: the Prometheus text format, and a small responder for it.
//!
//! Source: prometheus.io/docs/instrumenting/exposition_formats (text format 0.0.4).

use std::fmt::{Display, Write as _};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

const MAX_CONNECTIONS: usize = 8;
const MAX_REQUEST_BYTES: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether a number only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It grows until a restart.
    Counter,
    /// It is what it is now.
    Gauge,
}

/// A page of metrics under construction.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// Begins the metric `name`, whose samples follow. `help` is one line.
    pub fn metric(&mut self, name: &str, kind: Kind, help: &str) -> &mut Self {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self
    }

    /// Adds a sample of the metric `name`.
    pub fn sample(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        value: impl Display,
    ) -> &mut Self {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            self.0.push(if i == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
        self
    }

    /// The page's text.
    pub fn finish(self) -> String {
        self.0
    }
}

/// A wish for a page, on its way to the gateway.
pub type Wish = oneshot::Sender<String>;

/// Answers `GET /metrics` over HTTP/1.0 until it is dropped; each page is asked of the gateway
/// through `wishes`.
pub async fn serve(listener: TcpListener, wishes: mpsc::Sender<Wish>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            continue;
        };
        let wishes = wishes.clone();
        tokio::spawn(async move {
            // A scraper that stalls or leaves is its own affair.
            let _ = timeout(PATIENCE, answer(stream, wishes)).await;
            drop(place);
        });
    }
}

async fn answer(mut stream: TcpStream, wishes: mpsc::Sender<Wish>) -> io::Result<()> {
    let request = read_head(&mut stream).await?;
    let mut words = request.split_ascii_whitespace();
    let (status, body) = match (words.next(), words.next()) {
        (Some("GET"), Some("/metrics")) => match page(&wishes).await {
            Some(page) => ("200 OK", page),
            None => (
                "503 Service Unavailable",
                "altnetd is shutting down\n".into(),
            ),
        },
        (Some("GET"), Some(_)) => ("404 Not Found", "try /metrics\n".into()),
        _ => ("400 Bad Request", "only GET is answered\n".into()),
    };
    let head = format!(
        "HTTP/1.0 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

async fn page(wishes: &mpsc::Sender<Wish>) -> Option<String> {
    let (wish, page) = oneshot::channel();
    wishes.send(wish).await.ok()?;
    page.await.ok()
}

/// Reads up to the empty line that ends a request's head.
async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut chunk = [0; 512];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let len = stream.read(&mut chunk).await?;
        if len == 0 || head.len() + len > MAX_REQUEST_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.extend_from_slice(&chunk[..len]);
    }
    String::from_utf8(head).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_follows_the_text_format() {
        let mut page = Page::default();
        page.metric("altnet_peers", Kind::Gauge, "Peers by path.")
            .sample(
                "altnet_peers",
                &[("path", "direct"), ("why", "a\"b\\c\nd")],
                2,
            )
            .metric("altnet_up", Kind::Counter, "Up.")
            .sample("altnet_up", &[], 1.5);
        assert_eq!(
            page.finish(),
            "# HELP altnet_peers Peers by path.\n# TYPE altnet_peers gauge\n\
             altnet_peers{path=\"direct\",why=\"a\\\"b\\\\c\\nd\"} 2\n\
             # HELP altnet_up Up.\n# TYPE altnet_up counter\naltnet_up 1.5\n"
        );
    }

    async fn get(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (wishes, mut inbox) = mpsc::channel::<Wish>(1);
        tokio::spawn(serve(listener, wishes));
        tokio::spawn(async move {
            while let Some(wish) = inbox.recv().await {
                let _ = wish.send("altnet_up 1\n".into());
            }
        });
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_are_served_over_http() {
        let answer = get("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
        assert!(
            answer.ends_with("Content-Length: 12\r\nConnection: close\r\n\r\naltnet_up 1\n"),
            "{answer}"
        );
        assert!(
            get("GET / HTTP/1.0\r\n\r\n")
                .await
                .starts_with("HTTP/1.0 404")
        );
        assert!(
            get("PUT /metrics HTTP/1.0\r\n\r\n")
                .await
                .starts_with("HTTP/1.0 400")
        );
    }
}
