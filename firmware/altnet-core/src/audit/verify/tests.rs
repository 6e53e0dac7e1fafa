use super::super::entry::{Fact, MAX_ENTRY_BYTES};
use super::super::segment::{self, entries};
use super::super::writing::testing::{CLOCK, Disk, fact, testify, written};
use super::super::writing::{Limits, Log};
use super::*;
use crate::records::SigningSecret;
use altnet_wire::time::Instant;
use proptest::prelude::*;
use std::vec;

type Files = vec::Vec<vec::Vec<u8>>;

fn files(entries: u64) -> Files {
    let written = written(entries, 2048);
    written.into_iter().map(|(_, bytes)| bytes).collect()
}

fn judge(files: &Files) -> Result<Verified, Fault> {
    verify(files.iter().map(vec::Vec::as_slice))
}

/// A file taken apart: its header, and its frames.
fn apart(file: &[u8]) -> (vec::Vec<u8>, Files) {
    let mut rest = &file[HEADER_BYTES..];
    let mut frames = vec![];
    while let Some((_, left)) = take(rest) {
        frames.push(rest[..rest.len() - left.len()].to_vec());
        rest = left;
    }
    (file[..HEADER_BYTES].to_vec(), frames)
}

/// The file of a segment after something was done to its frames.
fn with(files: &Files, which: usize, change: impl FnOnce(&mut Files)) -> Files {
    let mut files = files.clone();
    let (header, mut frames) = apart(&files[which]);
    change(&mut frames);
    files[which] = [header, frames.concat()].concat();
    files
}

#[test]
fn a_fault_is_named_with_its_place() {
    let files = files(200);
    assert!(files.len() > 4);
    assert_eq!(judge(&files).unwrap().entries, 200);
    let first = entries(&files[2]).next().unwrap().0.entry.sequence;
    let check = |change: &dyn Fn(&mut Files), expected| {
        assert_eq!(judge(&with(&files, 2, change)), Err(expected));
    };
    let missing = Fault::Missing {
        sequence: first + 3,
        found: first + 4,
    };
    check(&|frames| drop(frames.remove(3)), missing);
    let moved = Fault::OutOfPlace {
        sequence: first + 3,
        found: first + 4,
    };
    check(&|frames| frames.swap(3, 4), moved);
    let changed = Fault::Changed {
        sequence: first + 3,
    };
    check(&|frames| *frames[3].last_mut().unwrap() ^= 1, changed);
    check(&|frames| frames[3][10] ^= 1, changed);
    let again = Fault::OutOfPlace {
        sequence: first + 4,
        found: first + 3,
    };
    check(&|frames| frames.insert(3, frames[3].clone()), again);
    // A whole segment that is gone, one that is cut, and two that changed places.
    let mut less = files.clone();
    less.remove(2);
    let found = entries(&files[3]).next().unwrap().0.entry.sequence;
    assert_eq!(
        judge(&less),
        Err(Fault::Missing {
            sequence: first,
            found
        })
    );
    let mut torn = files.clone();
    let length = torn.last().unwrap().len();
    torn.last_mut().unwrap().truncate(length - 5);
    assert!(matches!(
        judge(&torn),
        Err(Fault::CutOff { after: 199, .. })
    ));
    let mut swapped = files.clone();
    swapped.swap(2, 3);
    assert!(matches!(judge(&swapped), Err(Fault::Missing { .. })));
}

#[test]
fn an_end_that_was_cut_off_is_found_by_whoever_holds_a_head() {
    let whole = files(50);
    let last = judge(&whole).unwrap().last;
    let shorter = with(&whole, whole.len() - 1, |frames| drop(frames.pop()));
    assert!(judge(&shorter).is_ok());
    let mut verifier = Verifier::new();
    verifier.expect(last.sequence, last.hash);
    for file in &shorter {
        verifier.segment(file).unwrap();
    }
    let early = Fault::EndsEarly {
        last: 49,
        expected: 50,
    };
    assert_eq!(verifier.finish(), Err(early));
    let mut verifier = Verifier::new();
    verifier.expect(20, [1; 32]);
    let fault = whole.iter().find_map(|file| verifier.segment(file).err());
    assert_eq!(fault, Some(Fault::OtherPast { sequence: 20 }));
}

fn countersigned(forge: impl Fn(&Log, &SigningSecret) -> Fact) -> Files {
    let mut disk = Disk::default();
    let mut log = disk.open(Limits::ROUTER, Instant::ZERO);
    let witness = SigningSecret::from_bytes(&[3; 32]);
    for number in 0..20 {
        log.record(fact(number), CLOCK, Instant::ZERO);
        if number == 9 {
            let fact = forge(&log, &witness);
            log.record(fact, CLOCK, Instant::ZERO);
        }
    }
    log.flush();
    disk.drain(&mut log, Instant::ZERO);
    disk.files.into_values().collect()
}

#[test]
fn a_countersignature_says_who_vouches_for_what() {
    let files = countersigned(|log, witness| testify(log, witness, log.end().hash));
    let found = judge(&files).unwrap();
    let cover = found.covers[0];
    assert_eq!((cover.through, cover.testimonies, cover.since), (10, 1, 1));
    assert_eq!(found.entries, 21);
}

#[test]
fn a_log_that_a_member_knows_otherwise_says_so() {
    let files = countersigned(|_, _| Fact::new(Kind::CONTRADICTED).about("house-b"));
    assert_eq!(judge(&files).unwrap().contradicted, Some(11));
}

#[test]
fn a_log_rewritten_around_a_countersignature_is_found() {
    // Every check is made anew, as somebody would who has the device: the signature is not.
    let files = countersigned(|log, witness| testify(log, witness, [7; 32]));
    let rewritten = Fault::Rewritten {
        sequence: 11,
        head: 10,
    };
    assert_eq!(judge(&files), Err(rewritten));
    let files = countersigned(|log, witness| {
        let mut fact = testify(log, witness, log.end().hash);
        *fact.proof.last_mut().unwrap() ^= 1;
        fact
    });
    assert_eq!(judge(&files), Err(Fault::Testimony { sequence: 11 }));
}

proptest! {
    /// The law of the log: whatever one entry in one file becomes, it is found, at or before it.
    #[test]
    fn whatever_is_done_to_an_entry_is_found(which: usize, at: usize, other: usize, how in 0u8..5, byte: usize, flip in 1u8..) {
        let files = files(150);
        let which = which % files.len();
        let (_, frames) = apart(&files[which]);
        let (at, other) = (at % frames.len(), other % frames.len());
        let is_end = which + 1 == files.len();
        let changed = with(&files, which, |frames| match how {
            0 => drop(frames.remove(at)),
            1 => frames.swap(at, other),
            2 => {
                let byte = byte % frames[at].len();
                frames[at][byte] ^= flip;
            }
            3 => {
                let copy = frames[other].clone();
                frames.insert(at, copy);
            }
            _ => {
                let copy = frames[other].clone();
                frames[at] = copy;
            }
        });
        let is_last = is_end && at + 1 == frames.len();
        if changed == files {
            prop_assert!(judge(&changed).is_ok());
        } else if how == 0 && is_last {
            // Only a head that somebody holds shows that.
            prop_assert_eq!(judge(&changed).unwrap().entries, 149);
        } else {
            prop_assert!(judge(&changed).is_err());
        }
    }

    #[test]
    fn whatever_is_done_to_an_entry_and_its_check_is_found(at in 0usize..10, text in "[a-z]{1,20}") {
        // The check is made anew too; what follows was written behind the true one.
        let files = files(150);
        let (_, frames) = apart(&files[1]);
        let changed = with(&files, 1, |frames| {
            let end = entries(&files[1]).nth(at).unwrap().1;
            let mut entry = take(&frames[at]).unwrap().0.entry;
            entry.detail = Fact::new(entry.kind).detail(&text).detail;
            let mut room = [0; MAX_ENTRY_BYTES];
            let bytes = entry.encode(&mut room);
            let mut frame = vec![];
            segment::put(bytes, &end.then(bytes, false), &mut frame);
            frames[at] = frame;
        });
        prop_assert!(frames.len() > at);
        prop_assert!(judge(&changed).is_err());
    }

    #[test]
    fn no_files_make_the_verifier_panic(files: vec::Vec<vec::Vec<u8>>, cut: usize, noise: vec::Vec<u8>) {
        let _ = judge(&files);
        let mut good = written(30, 2048).remove(0).1;
        good.truncate(cut % (good.len() + 1));
        good.extend(noise);
        let _ = judge(&vec![good]);
    }
}
