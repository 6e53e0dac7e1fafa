//! Connections to DERP servers that are wanted, whoever runs those: each a task, which is begun again
//! ever later after it ended.
//!
//! In: which are wanted now, and what tasks said. Out: tasks, and deadlines. Deliberately absent: what
//! is carried.

use std::collections::BTreeMap;
use std::future::Future;

use altnet_core::derp::boxes::SecretKey;
use altnet_relay::client::{Connection, ConnectionError, Sender, Target};
use altnet_wire::derp::info::ClientInfo;
use altnet_wire::derp::{PublicKey, VERSION};
use altnet_wire::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// The first pause before a server is tried again; each next is twice as long.
const RETRY: Duration = Duration::from_secs(2);

/// Connections by what they are known by.
#[derive(Debug)]
pub struct Lines<K: Ord> {
    lines: BTreeMap<K, Line>,
    /// The longest pause.
    retry_most: Duration,
}

/// A connection that is wanted.
#[derive(Debug)]
struct Line {
    task: Option<JoinHandle<()>>,
    sender: Option<Sender>,
    again: Instant,
    pause: Duration,
}

impl<K: Copy + Ord> Lines<K> {
    /// None yet. A server is tried again after `retry_most` at the latest.
    pub const fn new(retry_most: Duration) -> Self {
        Self {
            lines: BTreeMap::new(),
            retry_most,
        }
    }

    /// How many were begun and are wanted.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Begins those of `wanted` whose time has come, and ends the others; `ended` is told of those.
    /// What carries one is `begin`'s; it gives none where that can't be yet. Returns when to look
    /// again. Needs a tokio runtime.
    pub fn tend<W, F>(
        &mut self,
        wanted: &[W],
        key: impl Fn(&W) -> K,
        begin: impl Fn(&W) -> Option<F>,
        mut ended: impl FnMut(K),
        now: Instant,
    ) -> Instant
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.lines.retain(|line_key, line| {
            let is_wanted = wanted.iter().any(|want| key(want) == *line_key);
            if !is_wanted {
                line.end();
                ended(*line_key);
            }
            is_wanted
        });
        for want in wanted {
            let line = self.lines.get(&key(want));
            let is_due = line.is_none_or(|line| line.task.is_none() && line.again <= now);
            if is_due && let Some(carry) = begin(want) {
                let line = self.lines.entry(key(want)).or_insert(Line {
                    task: None,
                    sender: None,
                    again: now,
                    pause: RETRY,
                });
                line.task = Some(tokio::spawn(carry));
            }
        }
        let idle = self.lines.values().filter(|line| line.task.is_none());
        idle.map(|line| line.again).min().unwrap_or(Instant::NEVER)
    }

    /// Notes that a connection stands; whether it is still wanted.
    pub fn up(&mut self, key: K, sender: Sender) -> bool {
        let line = self.lines.get_mut(&key);
        line.is_some_and(|line| {
            line.sender = Some(sender);
            line.pause = RETRY;
            true
        })
    }

    /// Notes that it doesn't.
    pub fn down(&mut self, key: K, now: Instant) {
        if let Some(line) = self.lines.get_mut(&key) {
            line.task = None;
            line.sender = None;
            line.again = now.after(line.pause);
            line.pause = (line.pause * 2).min(self.retry_most);
        }
    }

    /// Sends a datagram over one, to the client with this key.
    pub fn send(&self, key: K, to: &PublicKey, datagram: &[u8]) {
        let line = self.lines.get(&key);
        if let Some(sender) = line.and_then(|line| line.sender.as_ref()) {
            // What can't be sent is lost, as on any network.
            let _ = sender.send(to, datagram);
        }
    }
}

impl Line {
    fn end(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl<K: Ord> Drop for Lines<K> {
    fn drop(&mut self) {
        self.lines.values_mut().for_each(Line::end);
    }
}

/// Connects to a DERP server, as any client of one does.
///
/// # Errors
/// [`ConnectionError`].
pub async fn connect(target: &Target, secret: SecretKey) -> Result<Connection, ConnectionError> {
    let info = ClientInfo {
        version: VERSION,
        can_ack_pings: true,
        ..ClientInfo::default()
    };
    Connection::connect(target, secret, info).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_micros(1_000_000);
    const MOST: Duration = Duration::from_secs(5);

    /// Tends to lines that are begun and never stand; returns which were begun, which ended, and when
    /// to look again.
    fn tend(lines: &mut Lines<u8>, wanted: &[u8], now: Instant) -> (Vec<u8>, Vec<u8>, Instant) {
        let (begun, mut ended) = (std::cell::RefCell::new(Vec::new()), Vec::new());
        let begin = |key: &u8| {
            begun.borrow_mut().push(*key);
            Some(std::future::pending())
        };
        let again = lines.tend(wanted, |key| *key, begin, |key| ended.push(key), now);
        (begun.into_inner(), ended, again)
    }

    #[tokio::test]
    async fn a_server_that_ends_is_tried_again_ever_later() {
        let mut lines = Lines::new(MOST);
        let mut now = START;
        assert_eq!(
            tend(&mut lines, &[7, 8], now),
            (vec![7, 8], vec![], Instant::NEVER)
        );
        for pause_s in [2, 4, 5, 5] {
            lines.down(7, now);
            let again = now.after(Duration::from_secs(pause_s));
            assert_eq!(tend(&mut lines, &[7, 8], now), (vec![], vec![], again));
            now = again;
            assert_eq!(
                tend(&mut lines, &[7, 8], now),
                (vec![7], vec![], Instant::NEVER)
            );
        }
    }

    #[tokio::test]
    async fn one_that_is_not_wanted_any_more_is_ended_and_forgotten() {
        let mut lines = Lines::new(MOST);
        tend(&mut lines, &[7, 8], START);
        lines.down(7, START);
        assert_eq!(
            tend(&mut lines, &[8], START),
            (vec![], vec![7], Instant::NEVER)
        );
        // So it begins at once when it is wanted again, and what a task says late changes nothing.
        lines.down(7, START);
        assert_eq!(
            tend(&mut lines, &[7], START),
            (vec![7], vec![8], Instant::NEVER)
        );
    }

    #[tokio::test]
    async fn one_that_cannot_begin_yet_is_no_deadline() {
        let mut lines: Lines<u8> = Lines::new(MOST);
        let begin = |_: &u8| None::<std::future::Pending<()>>;
        let again = lines.tend(&[7], |key| *key, begin, |_| (), START);
        assert_eq!((again, lines.is_empty()), (Instant::NEVER, true));
        assert_eq!(tend(&mut lines, &[7], START).0, [7]);
    }
}
