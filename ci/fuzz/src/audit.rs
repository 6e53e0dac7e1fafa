//! Audit logs: any files are gone on with, and judged.

use altnet_core::audit::proof::{Rewrite, Witnessed};
use altnet_core::audit::verify::{Fault, verify};
use altnet_core::audit::{Entry, Fact, Kind, Limits, Log, Output, entry, segment};
use altnet_core::clock::Estimate;
use altnet_core::records::SigningSecret;
use altnet_wire::audit::{AuditHead, Testimony};
use altnet_wire::id::{NetworkId, SigningKey};
use altnet_wire::time::{Instant, UnixTime};

use crate::bytes::Bytes;
use crate::fixtures::FOUNDED;

const CLOCK: Estimate = Estimate::Running(FOUNDED);

/// Reads the bytes as an entry and its proof, as the last file of a log, and as a row of files,
/// each with its length in front.
pub fn audit(data: &[u8]) {
    if let Ok(read) = Entry::decode(data) {
        let mut out = [0; entry::MAX_ENTRY_BYTES];
        assert_eq!(read.encode(&mut out), data);
    }
    for bytes in [data, data.get(1..).unwrap_or_default()] {
        let _ = Witnessed::decode(bytes).map(|read| read.verify());
        let _ = Rewrite::decode(bytes).map(|read| read.verify());
    }
    goes_on(data);
    let mut bytes = Bytes(data);
    let mut files = Vec::new();
    while !bytes.is_empty() {
        files.push(bytes.run());
    }
    if let Ok(found) = verify(files.iter().copied()) {
        let entries = files.iter().map(|file| segment::entries(file).count());
        assert_eq!(found.entries, entries.sum::<usize>() as u64);
    }
}

/// A log that goes on from this file verifies, unless more was amiss than its end.
fn goes_on(file: &[u8]) {
    let mut links = 0;
    let tail = segment::resume(file, &mut |_| links += 1);
    let Some(tail) = tail.filter(|tail| tail.stray.is_none()) else {
        return;
    };
    let mut file = file.to_vec();
    let first = segment::Header::parse(&file).map_or(1, |h| h.previous.sequence.saturating_add(1));
    let limits = Limits {
        segment_bytes: u32::MAX,
        max_bytes: u32::MAX,
        rows: 4,
    };
    let size = file.len() as u32;
    let mut log = Log::new(limits, [(first, size)], Some(tail), CLOCK, Instant::ZERO);
    log.record(Fact::new(Kind::STARTED), CLOCK, Instant::ZERO);
    loop {
        match log.poll_output(Instant::ZERO) {
            Output::Append {
                segment,
                offset,
                bytes,
            } => {
                assert_eq!(segment, first);
                file.truncate(offset as usize);
                file.extend_from_slice(&bytes);
                log.handle_appended(true, Instant::ZERO);
            }
            Output::Remove { .. } => panic!("there is room"),
            Output::Synced(_) => {}
            Output::Wait(_) => break,
        }
    }
    let added = if tail.torn_bytes > 0 { 2 } else { 1 };
    match verify([&file[..]]) {
        Ok(found) => assert_eq!((found.entries, found.last), (links + added, log.end())),
        Err(Fault::Testimony { .. } | Fault::Rewritten { .. }) => {}
        // The last number there is was used up.
        Err(fault) => assert!(tail.end.sequence > u64::MAX - 3, "{fault}"),
    }
}

/// Valid inputs.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    if target != "audit" {
        return Vec::new();
    }
    let mut files: Vec<Vec<u8>> = Vec::new();
    let limits = Limits {
        segment_bytes: 600,
        ..Limits::ROUTER
    };
    let mut log = Log::new(limits, [], None, CLOCK, Instant::ZERO);
    let witness = SigningSecret::from_bytes(&[3; 32]);
    for number in 0..8 {
        let fact = match number {
            4 => testimony(&log, &witness),
            n => Fact::new(Kind(n))
                .about("house-b")
                .detail(n)
                .times(u64::from(n)),
        };
        log.record(fact, CLOCK, Instant::ZERO);
        log.flush();
        loop {
            match log.poll_output(Instant::ZERO) {
                Output::Append { offset, bytes, .. } => {
                    if offset == 0 {
                        files.push(Vec::new());
                    }
                    if let Some(file) = files.last_mut() {
                        file.extend_from_slice(&bytes);
                    }
                    log.handle_appended(true, Instant::ZERO);
                }
                Output::Remove { .. } | Output::Synced(_) => {}
                Output::Wait(_) => break,
            }
        }
    }
    let first = segment::entries(&files[0]).next();
    let entry = first.map(|(framed, ..)| framed.bytes.to_vec());
    let mut row = Vec::new();
    for file in &files {
        row.extend_from_slice(&(file.len() as u16).to_be_bytes());
        row.extend_from_slice(file);
    }
    let torn = files[0][..files[0].len() - 9].to_vec();
    let mut seeds = vec![row, torn];
    seeds.extend(entry);
    seeds.append(&mut files);
    seeds
}

fn testimony(log: &Log, witness: &SigningSecret) -> Fact {
    let (network, device) = (NetworkId([1; 32]), SigningKey([2; 32]));
    let head = AuditHead {
        sequence: log.end().sequence,
        hash: log.end().hash,
        time: FOUNDED,
    };
    let (since, at, key) = (1, UnixTime::EPOCH, witness.public());
    let proof = Testimony::proof(&network, &device, &head, since, at, &key);
    let mut signature = [[0; 32]; 2];
    signature
        .as_flattened_mut()
        .copy_from_slice(&witness.sign(&proof));
    let testimony = Testimony {
        since,
        at,
        signature,
    };
    Fact::new(Kind::WITNESSED)
        .about("house-b")
        .proof(&Witnessed {
            network,
            device,
            head,
            witness: key,
            testimony,
        })
}
