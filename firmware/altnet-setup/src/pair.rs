//! A connection to the port at which the box is claimed.
//!
//! What is decided is in [`altnet_claim`] and in [`crate::offer`]; here are the stream, the deadlines, and the order of things: hello, a try written
//! down, the proof, files, and what becomes of them until the box is a member or the other side is gone.

use std::rc::Rc;
use std::time::Duration;

use altnet_claim::frame;
use altnet_claim::hello::State;
use altnet_claim::pairing::{Answering, Channel, Seed};
use altnet_claim::words::{File, Inbox, MAX_FILES_BYTES, ToBox, ToComputer, parcel};
use altnet_service::{info, warning};
use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use crate::offer::Stage;
use crate::pipe::{Answer, Wish};
use crate::serve::Desk;

/// How long who connected may take to prove that it has the code, beside what the box itself waits.
const PROOF: Duration = Duration::from_secs(20);
/// How long a message may take once it has: a bundle is made meanwhile, which takes a person's passphrase.
const PATIENCE: Duration = Duration::from_secs(180);
/// The slowest that files may come.
const BYTES_PER_S: u64 = 4096;

/// Serves one connection to its end.
///
/// # Errors
/// Why it ended early.
pub async fn serve(desk: &Rc<Desk>, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    let hello = desk.offer(|offer, now| offer.hello(now));
    let said = hello.encode();
    timeout(PROOF, send(&mut stream, &said)).await??;
    if hello.state != State::Open {
        return Ok(());
    }
    let asked = timeout(PROOF, receive(&mut stream)).await??;
    // As things are now: somebody else may have been quicker, and time goes on.
    if desk.offer(|offer, now| offer.state(now)) != State::Open {
        return Ok(());
    }
    let mut stay = Stay::begin(desk);
    let channel = prove(desk, &mut stream, &said, &asked).await?;
    info!("somebody has the code, and may give the box its files");
    let mut line = Line { stream, channel };
    let files = line.files().await?;
    stay.stage = hand_over(desk, &mut line, &files).await?;
    Ok(())
}

/// Keeps others out while it lives; then the box is as far as it came.
struct Stay {
    desk: Rc<Desk>,
    stage: Stage,
}

impl Stay {
    fn begin(desk: &Rc<Desk>) -> Self {
        desk.set(Stage::Pairs);
        Self {
            desk: desk.clone(),
            stage: Stage::Waits,
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.desk.set(self.stage);
    }
}

async fn prove(
    desk: &Rc<Desk>,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    hello: &[u8],
    asked: &[u8],
) -> Result<Channel> {
    let mut seed = Seed::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).context("the system gives no chance")?;
    let answering = Answering {
        code: &desk.code,
        secret: &desk.secret,
        hello,
    };
    let counting = answering.take(asked, seed)?;
    let wait = desk.offer(|offer, _| offer.tries.wait());
    // From here on it is a try, whatever becomes of the connection.
    desk.count().await?;
    sleep(wait).await;
    let (waiting, answer) = counting.answer();
    timeout(PROOF, send(stream, &answer)).await??;
    let proof = timeout(PROOF, receive(stream)).await??;
    let (channel, answer) = match waiting.finish(&proof) {
        Ok(done) => done,
        Err(error) => {
            warning!(
                "a wrong code was tried; {} left",
                desk.offer(|offer, _| offer.tries.left())
            );
            return Err(error.into());
        }
    };
    desk.give_back().await?;
    timeout(PROOF, send(stream, &answer)).await??;
    Ok(channel)
}

/// Has the files taken, and says what becomes of them as long as somebody listens. How far the box has come then.
async fn hand_over<S: AsyncRead + AsyncWrite + Unpin>(
    desk: &Rc<Desk>,
    line: &mut Line<S>,
    files: &[File],
) -> Result<Stage> {
    let mut hands = desk.hands.lock().await;
    for said in parcel(files) {
        hands.wish(&Wish::Bring(said)).await?;
    }
    let mut stage = Stage::Waits;
    let mut is_heard = true;
    loop {
        let bytes = hands.answer().await?;
        let said = match crate::pipe::decode(&bytes)? {
            Answer::Said(said) => said,
            // Nothing tries any more, unless it is done.
            Answer::Ended if stage == Stage::Joined => return Ok(stage),
            Answer::Ended => return Ok(Stage::Waits),
            Answer::Ready { .. } | Answer::Counted(_) => {
                bail!("the other process answers another question")
            }
        };
        match said {
            ToComputer::AllTaken => {
                stage = Stage::Joins;
                desk.set(stage);
            }
            ToComputer::Joined { .. } => stage = Stage::Joined,
            _ => {}
        }
        // Who claimed the box may close the lid: it joins all the same.
        is_heard = is_heard
            && timeout(PATIENCE, line.say(&said))
                .await
                .is_ok_and(|sent| sent.is_ok());
    }
}

/// The stream, sealed.
struct Line<S> {
    stream: S,
    channel: Channel,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    /// Receives files until all are there.
    async fn files(&mut self) -> Result<Vec<File>> {
        let mut inbox = Inbox::default();
        let first = timeout(PATIENCE, self.heard(&mut inbox)).await??;
        if let Some(files) = first {
            return Ok(files);
        }
        let rest = Duration::from_secs(MAX_FILES_BYTES as u64 / BYTES_PER_S);
        timeout(rest, async {
            loop {
                if let Some(files) = self.heard(&mut inbox).await? {
                    return Ok(files);
                }
            }
        })
        .await?
    }

    async fn heard(&mut self, inbox: &mut Inbox) -> Result<Option<Vec<File>>> {
        let sealed = receive(&mut self.stream).await?;
        let plain = self.channel.open(&sealed)?;
        Ok(inbox.handle(ToBox::decode(&plain)?)?)
    }

    async fn say(&mut self, said: &ToComputer) -> Result<()> {
        let sealed = self.channel.seal(&said.encode())?;
        send(&mut self.stream, &sealed).await
    }
}

/// Writes a message with its length.
pub(crate) async fn send(out: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> Result<()> {
    out.write_all(&frame::encode(message)?).await?;
    out.flush().await?;
    Ok(())
}

/// Reads a message.
pub(crate) async fn receive(from: &mut (impl AsyncRead + Unpin)) -> Result<Zeroizing<Vec<u8>>> {
    let mut length = [0; 2];
    from.read_exact(&mut length).await?;
    let mut message = Zeroizing::new(vec![0; frame::length(length)?]);
    from.read_exact(&mut message).await?;
    Ok(message)
}
