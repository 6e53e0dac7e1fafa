//! A file as it comes from a server, over as many connections as it takes.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use hyper::header::HeaderValue;

use super::{Answer, Client, FetchError, Url};

/// After how many bytes what broke off before is forgotten.
const FORGIVEN_BYTES: u64 = 1 << 20;

/// A file that is read once, from its first byte to its last.
#[derive(Debug)]
pub struct Stream<'a> {
    client: &'a Client,
    url: Url,
    answer: Option<Answer>,
    tag: Option<HeaderValue>,
    of: Option<u64>,
    chunk: Bytes,
    /// Bytes that came so far.
    at: u64,
    /// How often it broke off, since how many bytes there were.
    broken: (u32, u64),
    pace: Pace,
}

/// How fast it comes, counted while it is waited for.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    bytes: u64,
    waited: Duration,
}

impl<'a> Stream<'a> {
    pub(super) fn open(client: &'a Client, url: &Url) -> Result<Self, FetchError> {
        let asked = client.ask(url, None, None);
        let answer = client.wait(client.patience.silence, asked)??;
        if answer.from != 0 {
            return Err(FetchError::OtherPart);
        }
        Ok(Self {
            client,
            url: url.clone(),
            tag: answer.tag.clone(),
            of: answer.of,
            answer: Some(answer),
            chunk: Bytes::new(),
            at: 0,
            broken: (0, 0),
            pace: Pace::default(),
        })
    }

    /// The next bytes; none at the end.
    fn next(&mut self) -> Result<Bytes, FetchError> {
        loop {
            let trouble = match self.wait() {
                Ok(Some(bytes)) if bytes.is_empty() => continue,
                Ok(Some(bytes)) => return Ok(bytes),
                Ok(None) => match self.of {
                    Some(expected) if self.at < expected => FetchError::CutOff {
                        found: self.at,
                        expected,
                    },
                    _ => return Ok(Bytes::new()),
                },
                Err(e @ FetchError::TooSlow { .. }) => return Err(e),
                Err(e) => e,
            };
            self.go_on(trouble)?;
        }
    }

    fn wait(&mut self) -> Result<Option<Bytes>, FetchError> {
        let Some(answer) = &mut self.answer else {
            return Ok(None);
        };
        let began = Instant::now();
        let frame = self
            .client
            .wait(self.client.patience.silence, answer.body.frame())?;
        self.pace.waited += began.elapsed();
        let bytes = match frame {
            Some(frame) => frame?.into_data().unwrap_or_default(),
            None => return Ok(None),
        };
        self.at += bytes.len() as u64;
        self.pace.bytes += bytes.len() as u64;
        self.keep_pace()?;
        Ok(Some(bytes))
    }

    fn keep_pace(&mut self) -> Result<(), FetchError> {
        let Pace { bytes, waited } = self.pace;
        if bytes >= self.client.patience.pace_bytes {
            self.pace = Pace::default();
        } else if waited > self.client.patience.pace {
            return Err(FetchError::TooSlow {
                bytes,
                within: waited,
            });
        }
        Ok(())
    }

    /// Begins again where it broke off, unless it did too often.
    fn go_on(&mut self, mut trouble: FetchError) -> Result<(), FetchError> {
        self.answer = None;
        if self.at >= self.broken.1 + FORGIVEN_BYTES {
            self.broken = (0, self.at);
        }
        while self.broken.0 < self.client.patience.tries {
            std::thread::sleep(self.client.patience.rest * (1 << self.broken.0));
            self.broken.0 += 1;
            let range = format!("bytes={}-", self.at);
            let asked = self.client.ask(&self.url, Some(range), self.tag.as_ref());
            let asked = self.client.wait(self.client.patience.silence, asked);
            match asked.and_then(|answer| answer) {
                Ok(answer) if answer.from == self.at && answer.of == self.of => {
                    self.answer = Some(answer);
                    return Ok(());
                }
                Ok(_) => return Err(FetchError::CannotGoOn),
                Err(e @ FetchError::Status { .. }) => return Err(e),
                Err(e) => trouble = e,
            }
        }
        Err(trouble)
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() && !out.is_empty() {
            self.chunk = self.next().map_err(io::Error::other)?;
        }
        let count = self.chunk.len().min(out.len());
        out[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}
