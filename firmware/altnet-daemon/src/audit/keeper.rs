//! The thread that appends, and reads when asked.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

use altnet_wire::id::SigningKey;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::{Files, read};
use crate::api::{ApiError, Code, types};
use crate::log;

/// Jobs that may wait: one append, what it pushes out, and a question of each API client.
const QUEUE: usize = 128;
const STACK_BYTES: usize = 256 * 1024;

/// Where the answer to a question goes.
pub type Reply = oneshot::Sender<Result<Value, ApiError>>;

/// Something about what is on disk.
#[derive(Debug)]
pub enum Question {
    /// Entries.
    Read(types::AuditRead),
    /// Whether all is as it was written; heads that are known, and what device keys are called.
    Verify(Vec<read::Known>, BTreeMap<SigningKey, String>),
}

enum Job {
    Append(u64, u32, Vec<u8>),
    Remove(u64),
    Answer(Question, Reply),
}

/// The caller's end. Dropping it waits until everything is written.
#[derive(Debug)]
pub struct Keeper {
    jobs: Option<SyncSender<Job>>,
    done: UnboundedReceiver<io::Result<()>>,
    thread: Option<JoinHandle<Files>>,
}

impl Keeper {
    /// Starts the thread, which has the privileges that the caller has now.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(files: Files) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::sync_channel(QUEUE);
        let (reports, done) = unbounded_channel();
        let thread = thread::Builder::new()
            .name("audit".into())
            .stack_size(STACK_BYTES)
            .spawn(move || work(files, &inbox, &reports))?;
        Ok(Self {
            jobs: Some(jobs),
            done,
            thread: Some(thread),
        })
    }

    /// Has bytes appended; [`Keeper::done`] says what became of it.
    pub fn append(&self, segment: u64, offset: u32, bytes: Vec<u8>) {
        self.send(Job::Append(segment, offset, bytes));
    }

    /// Has a segment removed.
    pub fn remove(&self, segment: u64) {
        self.send(Job::Remove(segment));
    }

    /// Has a question answered.
    pub fn ask(&self, question: Question, reply: Reply) {
        self.send(Job::Answer(question, reply));
    }

    /// Whether an append is synced, in the order they were asked for. Nothing is lost if this is
    /// dropped before it is ready.
    pub async fn done(&mut self) -> Option<io::Result<()>> {
        self.done.recv().await
    }

    /// Waits until everything is written; gives the files back, and what became of the last.
    pub fn finish(mut self) -> Option<(Files, Vec<io::Result<()>>)> {
        let files = self.end()?;
        let rest = std::iter::from_fn(|| self.done.try_recv().ok()).collect();
        Some((files, rest))
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // The thread ends only with this end of the channel.
            let _ = jobs.send(job);
        }
    }

    fn end(&mut self) -> Option<Files> {
        self.jobs = None;
        self.thread.take()?.join().ok()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end();
    }
}

fn work(files: Files, jobs: &Receiver<Job>, reports: &UnboundedSender<io::Result<()>>) -> Files {
    for job in jobs {
        match job {
            Job::Append(segment, offset, bytes) => {
                // At the end nobody listens any more, and what is left is written all the same.
                let _ = reports.send(files.append(segment, offset, &bytes));
            }
            Job::Remove(segment) => {
                if let Err(e) = files.remove(segment) {
                    crate::warning!("an old segment of the audit log stays: {e}");
                }
            }
            Job::Answer(question, reply) => {
                // Whoever asked may be gone.
                let _ = reply.send(answer(&files, question));
            }
        }
    }
    files
}

fn answer(files: &Files, question: Question) -> Result<Value, ApiError> {
    let failed = |e: io::Error| {
        let message = format!("the audit log can't be read: {}", log::chain(&e));
        ApiError::new(Code::Failed, message, "see altnetd's log")
    };
    let value = match question {
        Question::Read(wanted) => serde_json::to_value(read::page(files, &wanted).map_err(failed)?),
        Question::Verify(known, names) => {
            let found = read::verify(files, &known, &names).map_err(failed)?;
            serde_json::to_value(found)
        }
    };
    value.map_err(|e| failed(e.into()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::written;
    use super::*;

    #[tokio::test]
    async fn questions_are_answered_behind_what_was_appended_before() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::make(home.path()).unwrap();
        written(&files, 3);
        let bytes = files.read(1).unwrap();
        let mut keeper = Keeper::start(files).unwrap();
        keeper.append(1, 0, bytes);
        let (reply, answer) = oneshot::channel();
        let wanted = types::AuditRead::default();
        keeper.ask(Question::Read(wanted), reply);
        assert!(keeper.done().await.unwrap().is_ok());
        let page = answer.await.unwrap().unwrap();
        assert_eq!(page["entries"].as_array().unwrap().len(), 3);
        let (files, rest) = keeper.finish().unwrap();
        assert!(rest.is_empty());
        assert_eq!(files.segments().unwrap().len(), 1);
    }
}
