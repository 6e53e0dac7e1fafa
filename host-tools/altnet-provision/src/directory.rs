//! Speaking with the network's directory: handing it what was signed here, and fetching what the
//! network has come to.
//!
//! This computer is no member. It calls a node as a stranger (Noise XX on the node's UDP port) and
//! believes it only once the chain in its Hello leads from our genesis to a member in force with
//! the directory role that holds the session's key. What it then announces proves itself; to
//! read, it shows that it holds an owner's or issuer's key.

mod talk;

use std::net::SocketAddr;
use std::time::Duration;

use altnet_core::clock::Clock;
use altnet_core::records::SigningSecret;
use altnet_core::registry::Registry;
use altnet_wire::id::{self, ControlKey, Name, SigningKey};
use altnet_wire::message::{self, Cursor, MAX_MESSAGE_BYTES};
use altnet_wire::record::{self, Roles};
use altnet_wire::time::UnixTime;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::home::Home;
use crate::network::{self, Network};
use crate::recovery::RecoveryKey;
use crate::sealed::Passphrase;
use crate::secrets::Secrets;

use talk::Talk;

/// How long a directory is waited for unless said otherwise.
pub const WAIT: Duration = Duration::from_secs(5);

/// Records that are announced at once, in bytes; well below a message's bound.
const BATCH_BYTES: usize = MAX_MESSAGE_BYTES - 1024;
/// The most pages that are read in one sync: far more than a full registry has.
const MAX_PAGES: usize = 4096;
const AGAIN: &str = "Check that altnetd runs there and that its UDP port is let through. Everything signed here is kept: try again with `altnet-provision publish`.";

/// What came of speaking with a directory. The field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct Exchange {
    /// Where the directory was reached.
    pub directory: SocketAddr,
    /// Records that it holds now and had not been told of before.
    pub published: usize,
    /// Records that it refused: usually because it knows newer ones.
    pub refused: usize,
    /// Records that still wait.
    pub pending: usize,
    /// Records that are new here; none if nothing was asked for.
    pub fetched: Option<usize>,
}

impl Network {
    /// Hands what was signed here to the first directory that answers within `wait`, and then,
    /// with `secrets`, fetches what is new. What the directory acknowledged is on its disk.
    ///
    /// # Errors
    /// [`Error::NotFound`] if no address is known; [`Error::Directory`] if none answers as this
    /// network's directory.
    pub fn exchange(
        &mut self,
        secrets: Option<&Secrets>,
        now: UnixTime,
        wait: Duration,
    ) -> Result<Exchange> {
        let endpoints = self.entry_endpoints();
        if endpoints.is_empty() {
            return Err(Error::not_found(
                "no address of the network's directory is known here",
                crate::network::MAKE_RELAY,
            ));
        }
        let mut last = None;
        for endpoint in endpoints {
            match self.exchange_with(endpoint, secrets, now, wait) {
                Err(error @ Error::Directory { .. }) => last = Some(error),
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| trouble("no directory answers")))
    }

    fn exchange_with(
        &mut self,
        endpoint: SocketAddr,
        secrets: Option<&Secrets>,
        now: UnixTime,
        wait: Duration,
    ) -> Result<Exchange> {
        let mut talk = Talk::begin(endpoint, wait)?;
        talk.hello(self.id())?;
        let chain = talk.their_chain()?;
        check_directory(self.registry(), &chain, &talk.remote, endpoint)?;
        let (published, refused) = self.announce(&mut talk, now)?;
        let mut exchange = Exchange {
            directory: endpoint,
            published,
            refused,
            pending: self.settings().pending(),
            fetched: None,
        };
        if let Some(secrets) = secrets {
            let key = self.proving_key(secrets)?;
            talk.prove(&key)?;
            exchange.fetched = Some(self.fetch(&mut talk, now)?);
            exchange.pending = self.settings().pending();
        }
        talk.end();
        Ok(exchange)
    }

    /// Announces what is pending. Returns how many records are held there now and how many were
    /// refused.
    fn announce(&mut self, talk: &mut Talk, now: UnixTime) -> Result<(usize, usize)> {
        let pending = self.pending_records();
        let (mut held, mut refused) = (Vec::new(), 0);
        for batch in batches(&pending) {
            if talk.announce(batch)? == 0 {
                held.extend(batch.iter().map(|bytes| id::record_id(bytes)));
                continue;
            }
            // Some were refused: one by one it is known which.
            for bytes in batch {
                if talk.announce(std::slice::from_ref(bytes))? == 0 {
                    held.push(id::record_id(bytes));
                } else {
                    refused += 1;
                }
            }
        }
        self.mark_published(&held, now)?;
        Ok((held.len(), refused))
    }

    fn fetch(&mut self, talk: &mut Talk, now: UnixTime) -> Result<usize> {
        let cursor = self.settings().cursor;
        let mut cursor = Cursor {
            epoch: cursor.epoch,
            revision: cursor.revision,
        };
        let mut records = Vec::new();
        for _ in 0..MAX_PAGES {
            let (page, next, more) = talk.page(cursor)?;
            let is_stuck = next == cursor;
            records.extend(page);
            cursor = next;
            if !more || is_stuck {
                break;
            }
        }
        self.take_records(&records, cursor.epoch, cursor.revision, now)
    }

    /// A key that a directory takes as proof: this computer's issuer, or an owner.
    fn proving_key(&self, secrets: &Secrets) -> Result<SigningSecret> {
        let issuer = self.settings().issuer;
        let owners = self.registry().owners().iter();
        self.registry()
            .issuer(&issuer)
            .and_then(|_| secrets.issuer(&issuer))
            .or_else(|| owners.into_iter().find_map(|key| secrets.owner(key)))
            .ok_or_else(|| {
                Error::not_allowed(
                    "no key on this computer lets it read the network's records",
                    "Recover with `altnet-provision network owner recover`.",
                )
            })
    }
}

/// On a new computer, with nothing but the recovery key: asks whoever is at `endpoint` how the
/// network began, which the recovery key proves, becomes an owner, fetches everything, and then
/// takes the lost owners' place. Publish and sync afterwards.
///
/// Two changes of owners rather than one: what only a lost key vouched for stands aside as soon
/// as it is no owner's, and nodes hand out nothing that stands aside, so that it could no longer
/// be fetched and signed anew.
///
/// # Errors
/// [`Error::Directory`] if nobody answers there, or not any more: it says whether this computer
/// is an owner by then; as [`Network::recover`].
#[expect(
    clippy::too_many_arguments,
    reason = "each is another thing that a person says"
)]
pub fn recover_from(
    home: &Home,
    name: Option<&Name>,
    endpoint: SocketAddr,
    recovery: &RecoveryKey,
    lost: &[SigningKey],
    passphrase: &Passphrase,
    now: UnixTime,
    wait: Duration,
) -> Result<(Network, Secrets)> {
    let records = how_it_began(endpoint, recovery, wait).map_err(|error| match error {
        Error::Directory { what, .. } => Error::Directory {
            what,
            next: "Check that the network's relay is at this address, that altnetd runs there and its UDP port is let through, and that the paper is this network's; nothing was made here.".into(),
        },
        other => other,
    })?;
    let lost = network::lost_owners(&records, lost)?;
    let (mut network, mut secrets) = Network::recover_anew(
        home, name, &records, endpoint, recovery, &lost, passphrase, now,
    )?;
    network
        .exchange(Some(&secrets), now, wait)
        .map_err(|error| half_recovered(&error, &lost))?;
    network.recover(&mut secrets, recovery, &lost, now)?;
    Ok((network, secrets))
}

fn half_recovered(error: &Error, lost: &[SigningKey]) -> Error {
    let lost: Vec<String> = lost.iter().map(|key| format!(" --lost {key}")).collect();
    Error::Directory {
        what: format!(
            "the network is on this computer now, but not in the lost one's place yet: {error}"
        ),
        next: format!(
            "When the directory can be reached, run `altnet-provision network owner recover{}`.",
            lost.concat()
        ),
    }
}

fn how_it_began(
    endpoint: SocketAddr,
    recovery: &RecoveryKey,
    wait: Duration,
) -> Result<Vec<Vec<u8>>> {
    let mut talk = Talk::begin(endpoint, wait)?;
    let key = SigningSecret::from_bytes(recovery.seed()).public();
    talk.hello(record::recovery_hint(&key))?;
    let records = talk.their_chain()?;
    talk.end();
    Ok(records)
}

/// Whether the holder of `remote` is a directory of our network, by its chain and by what is
/// known here.
fn check_directory(
    registry: &Registry,
    chain: &[Vec<u8>],
    remote: &ControlKey,
    endpoint: SocketAddr,
) -> Result<()> {
    // On a copy, so that a stranger's records are only looked at.
    let mut registry = registry.clone();
    let mut clock = Clock::new(UnixTime::EPOCH);
    registry.apply_all(chain.iter().map(Vec::as_slice), &mut clock);
    let member = registry.by_control(remote).ok_or_else(|| {
        trouble(format!(
            "whoever answers at {endpoint} is not a member of this network"
        ))
    })?;
    if !member.membership.roles.contains(Roles::DIRECTORY) {
        return Err(trouble(format!(
            "{} answers at {endpoint}, but it is not a directory",
            member.membership.name
        )));
    }
    Ok(())
}

/// Splits records into runs that fit into one message each.
fn batches(records: &[Vec<u8>]) -> Vec<&[Vec<u8>]> {
    let mut runs = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, record) in records.iter().enumerate() {
        let takes = message::packed_len(record.len());
        if bytes + takes > BATCH_BYTES && at > start {
            runs.push(&records[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += takes;
    }
    if start < records.len() {
        runs.push(&records[start..]);
    }
    runs
}

fn trouble(what: impl Into<String>) -> Error {
    Error::Directory {
        what: what.into(),
        next: AGAIN.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_announced_in_runs_that_fit_a_message() {
        let records: Vec<Vec<u8>> = (0..100).map(|i| vec![i; 900]).collect();
        let runs = batches(&records);
        assert!(runs.len() > 4);
        assert_eq!(runs.concat(), records);
        for run in runs {
            let bytes: usize = run.iter().map(|r| message::packed_len(r.len())).sum();
            assert!(bytes <= BATCH_BYTES);
        }
        assert!(batches(&[]).is_empty());
    }
}
