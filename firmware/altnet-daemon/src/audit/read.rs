//! Entries as people and programs are shown them, and the verdict on all of them.

use std::collections::BTreeMap;
use std::io;

use altnet_core::audit::segment::{self, End, Framed};
use altnet_core::audit::verify::{Cover, Fault, Verified, Verifier};
use altnet_core::audit::{Entry, Link};
use altnet_wire::hash::Hash;
use altnet_wire::id::SigningKey;
use data_encoding::{BASE64, HEXLOWER};

use super::Files;
use crate::api::types;

/// Entries in one answer: the largest, each twice as long for its escapes, fit a line of the API.
const PAGE: usize = 96;

/// A head that is known from elsewhere.
pub type Known = (u64, Hash);

/// Reads a hash as it is shown.
pub fn hash_of(text: &str) -> Option<Hash> {
    HEXLOWER
        .decode(text.to_ascii_lowercase().as_bytes())
        .ok()?
        .try_into()
        .ok()
}

fn entry(framed: &Framed<'_>, before: &End, link: &Link) -> types::AuditEntry {
    let Entry {
        sequence,
        time,
        is_time_known,
        kind,
        subject,
        detail,
        count,
        ..
    } = &framed.entry;
    types::AuditEntry {
        sequence: *sequence,
        time: time.to_string(),
        time_known: *is_time_known,
        kind: kind.id().into(),
        subject: subject.as_str().into(),
        detail: detail.as_str().into(),
        count: *count,
        previous: HEXLOWER.encode(&before.hash),
        hash: HEXLOWER.encode(&link.hash),
        bytes: BASE64.encode(framed.bytes),
    }
}

/// A page of entries.
///
/// # Errors
/// Whatever the filesystem says.
pub fn page(files: &Files, wanted: &types::AuditRead) -> io::Result<types::AuditPage> {
    let mut page = types::AuditPage::default();
    let segments = files.segments()?;
    let mut after = wanted.after.unwrap_or(0);
    if let (Some(last), Some((segment, _))) = (wanted.last, segments.last()) {
        let mut end = segment.saturating_sub(1);
        for (framed, ..) in segment::entries(&files.read(*segment)?) {
            end = end.max(framed.entry.sequence);
        }
        after = after.max(end.saturating_sub(last));
    }
    // The segment with the first that is wanted, and those behind it.
    let begins = segments.partition_point(|(first, _)| *first <= after.saturating_add(1));
    for (segment, _) in segments.iter().skip(begins.saturating_sub(1)) {
        let bytes = files.read(*segment)?;
        for (framed, before, link) in segment::entries(&bytes) {
            if framed.entry.sequence <= after {
                continue;
            }
            if page.entries.len() >= PAGE {
                page.more = true;
                return Ok(page);
            }
            page.entries.push(entry(&framed, &before, &link));
        }
    }
    Ok(page)
}

/// The verdict on everything that is there, with the members called by their `names`.
///
/// # Errors
/// Whatever the filesystem says. A fault in the log is a verdict.
pub fn verify(
    files: &Files,
    known: &[Known],
    names: &BTreeMap<SigningKey, String>,
) -> io::Result<types::AuditVerdict> {
    let mut verifier = Verifier::new();
    for (sequence, hash) in known {
        verifier.expect(*sequence, *hash);
    }
    for (segment, _) in files.segments()? {
        if let Err(fault) = verifier.segment(&files.read(segment)?) {
            return Ok(faulty(&fault));
        }
    }
    Ok(match verifier.finish() {
        Ok(found) => good(&found, names),
        Err(fault) => faulty(&fault),
    })
}

fn faulty(fault: &Fault) -> types::AuditVerdict {
    types::AuditVerdict {
        fault: Some(fault.to_string()),
        ..types::AuditVerdict::default()
    }
}

fn good(found: &Verified, names: &BTreeMap<SigningKey, String>) -> types::AuditVerdict {
    let cover = |cover: &Cover| types::AuditCover {
        witness: cover.witness.to_string(),
        name: names.get(&cover.witness).cloned(),
        through: cover.through,
        since: cover.since,
        at: (cover.at != altnet_wire::time::UnixTime::EPOCH).then(|| cover.at.to_string()),
        testimonies: cover.testimonies,
    };
    let contradicted = |entry| {
        format!(
            "entry {entry} says that a member holds another past of this log, signed by this device: it was rewritten, or restored from an older copy"
        )
    };
    types::AuditVerdict {
        fault: found.contradicted.map(contradicted),
        first: found.first,
        last: found.last.sequence,
        hash: HEXLOWER.encode(&found.last.hash),
        entries: found.entries,
        segments: found.segments,
        covers: found.covers.iter().map(cover).collect(),
        unchecked: found.unchecked,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{CLOCK, drain, written};
    use super::*;
    use altnet_core::audit::{Fact, Kind, Limits};
    use altnet_wire::audit;
    use altnet_wire::time::Instant;

    fn numbers(page: &types::AuditPage) -> Vec<u64> {
        page.entries.iter().map(|entry| entry.sequence).collect()
    }

    #[test]
    fn pages_follow_each_other_through_all_segments() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::make(home.path()).unwrap();
        written(&files, 1000);
        assert!(files.segments().unwrap().len() > 2);
        let mut all = Vec::new();
        loop {
            let wanted = types::AuditRead {
                after: all.last().copied(),
                last: None,
            };
            let next = page(&files, &wanted).unwrap();
            let line = serde_json::to_string(&next).unwrap();
            assert!(line.len() < crate::api::MAX_LINE_BYTES / 2);
            all.extend(numbers(&next));
            if !next.more {
                break;
            }
        }
        assert!(all.iter().copied().eq(all[0]..=1000));
        let wanted = types::AuditRead {
            after: None,
            last: Some(3),
        };
        assert_eq!(numbers(&page(&files, &wanted).unwrap()), [998, 999, 1000]);
    }

    #[test]
    fn a_third_party_can_follow_the_chain_from_what_is_shown() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::make(home.path()).unwrap();
        let log = written(&files, 20);
        let mut hash = audit::NO_ENTRIES;
        for entry in page(&files, &types::AuditRead::default()).unwrap().entries {
            assert_eq!(hash_of(&entry.previous), Some(hash));
            let bytes = BASE64.decode(entry.bytes.as_bytes()).unwrap();
            hash = audit::next(&hash, &audit::digest(&bytes));
            assert_eq!(hash_of(&entry.hash), Some(hash));
        }
        assert_eq!(hash, log.end().hash);
    }

    #[test]
    fn a_verdict_names_what_is_wrong() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::make(home.path()).unwrap();
        let end = written(&files, 20).end();
        let names = BTreeMap::new();
        let known = [(end.sequence, end.hash)];
        let found = verify(&files, &known, &names).unwrap();
        assert_eq!((found.fault, found.entries), (None, 20));
        let bytes = files.read(1).unwrap();
        let whole = segment::entries(&bytes).count();
        assert_eq!(whole, 20);
        // The last entry goes, cleanly: only who knows the head sees it.
        let shorter = bytes.len() - (bytes.len() - segment::HEADER_BYTES) / 20;
        files
            .append(1, u32::try_from(shorter).unwrap(), b"")
            .unwrap();
        let fault = verify(&files, &known, &names).unwrap().fault.unwrap();
        assert!(
            fault.contains("after entry 19") || fault.contains("cut off"),
            "{fault}"
        );
        let mut changed = bytes.clone();
        changed[segment::HEADER_BYTES + 40] ^= 1;
        files.append(1, 0, &changed).unwrap();
        let fault = verify(&files, &known, &names).unwrap().fault.unwrap();
        assert_eq!(fault, "entry 1 was changed");
        // It fits itself, and somebody knows better.
        files.append(1, 0, &bytes).unwrap();
        let (mut log, _) = files
            .open_log(Limits::of(64 << 10), CLOCK, Instant::ZERO)
            .unwrap();
        log.record(Fact::new(Kind::CONTRADICTED), CLOCK, Instant::ZERO);
        drain(&files, &mut log);
        let found = verify(&files, &known, &names).unwrap();
        assert!(found.fault.unwrap().contains("another past"));
        assert_eq!(found.last, 21);
    }
}
