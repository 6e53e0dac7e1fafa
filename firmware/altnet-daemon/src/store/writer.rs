//! A thread that writes slots, so that packets don't wait for the medium: a memory card may take
//! seconds to sync.
//!
//! In: saves and removals. Out: one report of each once it is synced, in the same order. Nothing
//! is merged and nothing overtakes, so the medium holds a beginning of what was asked for, as if
//! the caller had written it itself. [`QUEUE`] of them may wait; a caller that is further ahead
//! waits too.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use zeroize::Zeroizing;

use super::{Store, StoreError, Vfs};

/// Jobs that may wait for the one in work.
pub const QUEUE: usize = 64;
/// Paths, headers and a hash; slots are on the heap.
const STACK_BYTES: usize = 128 * 1024;

type Outcome = Result<(), StoreError>;

enum Job {
    Save(u64, String, Zeroizing<Vec<u8>>),
    Remove(u64, String),
    Clear(String, SyncSender<Outcome>),
}

/// What became of a job.
#[derive(Debug)]
pub struct Done {
    /// The number that [`Writer::save`] or [`Writer::remove`] gave.
    pub number: u64,
    /// As [`Store::save`] and [`Store::remove`] say.
    pub outcome: Outcome,
}

/// The caller's end. Dropping it waits until everything is written.
#[derive(Debug)]
pub struct Writer<V> {
    jobs: Option<SyncSender<Job>>,
    done: UnboundedReceiver<Done>,
    thread: Option<JoinHandle<Store<V>>>,
    last: u64,
}

impl<V: Vfs + Send + 'static> Writer<V> {
    /// Starts the thread, which has the privileges that the caller has now.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(store: Store<V>) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::sync_channel(QUEUE);
        let (reports, done) = unbounded_channel();
        let thread = thread::Builder::new()
            .name("writer".into())
            .stack_size(STACK_BYTES)
            .spawn(move || work(store, &inbox, &reports))?;
        Ok(Self {
            jobs: Some(jobs),
            done,
            thread: Some(thread),
            last: 0,
        })
    }
}

impl<V> Writer<V> {
    /// Has `bytes` written into `slot`; returns the number of the report to come.
    pub fn save(&mut self, slot: String, bytes: Zeroizing<Vec<u8>>) -> u64 {
        self.last += 1;
        self.send(Job::Save(self.last, slot, bytes));
        self.last
    }

    /// Has `slot` emptied; returns the number of the report to come.
    pub fn remove(&mut self, slot: String) -> u64 {
        self.last += 1;
        self.send(Job::Remove(self.last, slot));
        self.last
    }

    /// Empties every slot, `last` as the last, after all that was asked for before; waits for it.
    ///
    /// # Errors
    /// As [`Store::remove`]; what was emptied until then stays so.
    pub fn clear(&mut self, last: &str) -> Outcome {
        let (reply, outcome) = mpsc::sync_channel(1);
        self.send(Job::Clear(last.into(), reply));
        outcome.recv().unwrap_or_else(|_| {
            Err(StoreError::Io {
                action: "clear",
                slot: "all".into(),
                source: io::ErrorKind::BrokenPipe.into(),
            })
        })
    }

    /// The next report. Nothing is lost if this is dropped before it is ready.
    pub async fn done(&mut self) -> Option<Done> {
        self.done.recv().await
    }

    /// Waits until everything is written; what failed is not tried again.
    pub fn finish(mut self) -> Option<Store<V>> {
        self.end()
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // The thread ends only with this end of the channel.
            let _ = jobs.send(job);
        }
    }

    fn end(&mut self) -> Option<Store<V>> {
        self.jobs = None;
        self.thread.take()?.join().ok()
    }
}

impl<V> Drop for Writer<V> {
    fn drop(&mut self) {
        self.end();
    }
}

fn work<V: Vfs>(
    mut store: Store<V>,
    jobs: &Receiver<Job>,
    reports: &UnboundedSender<Done>,
) -> Store<V> {
    for job in jobs {
        let (number, outcome) = match job {
            Job::Save(number, slot, bytes) => (number, store.save(&slot, &bytes)),
            Job::Remove(number, slot) => (number, store.remove(&slot)),
            Job::Clear(last, reply) => {
                // Whoever asked waits for it.
                let _ = reply.send(store.clear(&last));
                continue;
            }
        };
        // At the end nobody listens any more, and what is left is written all the same.
        let _ = reports.send(Done { number, outcome });
    }
    store
}

#[cfg(test)]
mod tests {
    use super::super::pretend::Pretend;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    fn bytes(text: &[u8]) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(text.to_vec())
    }

    fn read(store: &Store<Pretend>, slot: &str) -> Option<Vec<u8>> {
        store.load(slot).unwrap().map(|bytes| bytes.to_vec())
    }

    #[tokio::test]
    async fn reports_come_in_the_order_of_the_jobs() {
        let store = Store::open(Pretend::default()).unwrap();
        let mut writer = Writer::start(store).unwrap();
        let jobs = [
            writer.save("a".into(), bytes(b"one")),
            writer.save("../b".into(), bytes(b"")),
            writer.save("a".into(), bytes(b"two")),
            writer.remove("c".into()),
        ];
        for (job, is_good) in jobs.into_iter().zip([true, false, true, true]) {
            let done = writer.done().await.unwrap();
            assert_eq!((done.number, done.outcome.is_ok()), (job, is_good));
        }
        let store = writer.finish().unwrap();
        assert_eq!(read(&store, "a"), Some(b"two".to_vec()));
    }

    #[test]
    fn the_end_waits_for_what_is_under_way() {
        let store = Store::open(Pretend::default()).unwrap();
        let mut writer = Writer::start(store).unwrap();
        for number in 0..=u8::MAX {
            writer.save("a".into(), bytes(&[number]));
        }
        let store = writer.finish().unwrap();
        assert_eq!(read(&store, "a"), Some(vec![u8::MAX]));
    }

    #[test]
    fn clearing_comes_after_what_was_asked_before() {
        let store = Store::open(Pretend::default()).unwrap();
        let mut writer = Writer::start(store).unwrap();
        for slot in ["identity", "network", "record-1"] {
            writer.save(slot.into(), bytes(b"x"));
        }
        writer.clear("identity").unwrap();
        writer.save("identity".into(), bytes(b"new"));
        let store = writer.finish().unwrap();
        assert_eq!(store.slots().unwrap(), ["identity"]);
    }

    /// A directory that syncs nothing while its lock is held.
    struct Stuck(Pretend, Arc<Mutex<()>>);

    impl Vfs for Stuck {
        fn read(&self, name: &str, limit: usize) -> io::Result<Vec<u8>> {
            self.0.read(name, limit)
        }
        fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
            self.0.write(name, bytes)
        }
        fn sync(&mut self, name: &str) -> io::Result<()> {
            let _held = self.1.lock().unwrap();
            self.0.sync(name)
        }
        fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn remove(&mut self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }
        fn sync_names(&mut self) -> io::Result<()> {
            self.0.sync_names()
        }
        fn list(&self) -> io::Result<Vec<String>> {
            self.0.list()
        }
    }

    #[tokio::test]
    async fn a_medium_that_is_stuck_holds_nobody_up_and_acknowledges_nothing() {
        let lock = Arc::new(Mutex::new(()));
        let store = Store::open(Stuck(Pretend::default(), Arc::clone(&lock))).unwrap();
        let mut writer = Writer::start(store).unwrap();
        let held = lock.lock().unwrap();
        // As many as may wait: this returns.
        for _ in 0..QUEUE {
            writer.save("a".into(), bytes(b"x"));
        }
        assert!(writer.done.try_recv().is_err());
        drop(held);
        for number in 1..=QUEUE as u64 {
            assert_eq!(writer.done().await.unwrap().number, number);
        }
    }

    proptest! {
        /// What was reported stays, and of what was not only the next may be there.
        #[test]
        fn a_power_cut_leaves_a_beginning(
            steps in proptest::collection::vec((0usize..3, any::<Option<Vec<u8>>>()), 1..8),
            cut in 0usize..48,
            seed: u64,
        ) {
            const SLOTS: [&str; 3] = ["identity", "network", "record-1"];
            let mut vfs = Pretend::default();
            vfs.cut_at(cut);
            let mut writer = Writer::start(Store::open(vfs).unwrap()).unwrap();
            for (slot, content) in &steps {
                match content {
                    Some(content) => writer.save(SLOTS[*slot].into(), bytes(content)),
                    None => writer.remove(SLOTS[*slot].into()),
                };
            }
            writer.jobs = None;
            let mut sure = BTreeMap::new();
            let mut maybe = None;
            for (slot, content) in &steps {
                let done = writer.done.blocking_recv().unwrap();
                if done.outcome.is_err() {
                    maybe = Some((*slot, content.clone()));
                    break;
                }
                sure.insert(*slot, content.clone());
            }
            let store = writer.finish().unwrap();
            let store = Store::open(store.vfs.after_power_cut(seed)).unwrap();
            for (at, slot) in SLOTS.iter().enumerate() {
                let found = read(&store, slot);
                let old = sure.get(&at).cloned().flatten();
                let next = maybe.as_ref().filter(|(slot, _)| *slot == at);
                prop_assert!(found == old || next.is_some_and(|(_, next)| found == *next));
            }
        }
    }
}
