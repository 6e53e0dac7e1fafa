//! A box's disk and whose word it takes: the choice of slot, partition tables, release keys, what a server answers.

use std::io;

use altnet_provision::image::table::{Edit, HEAD_BYTES, SECTOR, TAIL_BYTES, Table};
use altnet_update::choice::{self, Choice, Copied, Format, MAX_TRIES, PLACES, Slot};
use altnet_update::disk::Disk;
use altnet_update::keys::{self, KeySet, OwnerRule, ReleaseKey, Trust};
use altnet_updater::fetch::{Part, Url};

use crate::bytes::Bytes;

/// A disk that has the two places of a choice and nothing else.
struct Places([Vec<u8>; 2]);

impl Places {
    fn at(&mut self, at: u64, bytes: usize) -> io::Result<&mut [u8]> {
        let number = PLACES.iter().position(|place| *place == at);
        let place = number.and_then(|number| self.0[number].get_mut(..bytes));
        place.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Disk for Places {
    fn bytes(&mut self) -> io::Result<u64> {
        Ok(16 << 20)
    }

    fn read_at(&mut self, at: u64, out: &mut [u8]) -> io::Result<()> {
        out.copy_from_slice(self.at(at, out.len())?);
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.at(at, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the bytes as both copies of a choice, and boots by them again and again: there is always a slot, what is
/// written counts from then on, and the copy that counted stays as it was.
pub fn slot_choice(data: &[u8]) {
    let mut bytes = Bytes(data);
    let format = match bytes.octet() & 1 {
        0 => Format::UBoot,
        _ => Format::Grub,
    };
    let mut disk = Places([(); 2].map(|()| {
        let mut copy = bytes.take(format.bytes()).to_vec();
        copy.resize(format.bytes(), 0);
        copy
    }));
    for _ in 0..8 {
        let standing = choice::read(&mut disk, format).expect("both places are there");
        let (slot, counted) = standing.choice.begun();
        assert!(counted.tries(slot) < MAX_TRIES);
        let before = disk.0.clone();
        choice::write(&mut disk, format, counted).expect("the disk is good");
        let found = choice::read(&mut disk, format).expect("both places are there");
        assert_eq!(found.choice, counted);
        let (target, _) = standing.next(counted);
        assert!(found.good[target]);
        assert!(before[1 - target] == disk.0[1 - target]);
    }
}

/// Reads the bytes as a file of release keys, an image's and an owner's: what is read reads the same when it is written
/// again, and counts as its rule says.
pub fn release_keys(data: &[u8]) {
    let pinned = keys::read_pinned(data).ok();
    let owner = keys::read_owner(data).ok();
    // What has no rule is an image's, what has one an owner's.
    assert!(pinned.is_none() || owner.is_none());
    if let Some(set) = &pinned {
        let again = keys::read_pinned(written(set, "").as_bytes());
        assert_eq!(again.as_ref(), Ok(set));
    }
    if let Some((rule, set)) = &owner {
        let text = match rule {
            OwnerRule::Adds => "rule adds\n",
            OwnerRule::Replaces => "rule replaces\n",
        };
        let again = keys::read_owner(written(set, text).as_bytes());
        assert_eq!(again, Ok((*rule, set.clone())));
    }
    let ours = KeySet::new(1, 1, vec![ReleaseKey([7; 32])]).expect("a set");
    let is_newer = pinned.as_ref().is_some_and(|set| set.generation > 1);
    let is_replaced = matches!(owner, Some((OwnerRule::Replaces, _)));
    let trust = Trust::new(Some(ours.clone()), pinned.clone(), owner.clone());
    let theirs = pinned
        .filter(|_| is_newer)
        .or(owner.map(|(_, set)| set))
        .into_iter();
    for key in theirs.flat_map(|set| set.keys) {
        assert!(trust.knows(&key));
    }
    assert!(is_newer || is_replaced || trust.knows(&ours.keys[0]));
}

fn written(set: &KeySet, rule: &str) -> String {
    assert!((1..=set.keys.len()).contains(&set.threshold.into()));
    let mut text = format!(
        "{rule}generation {}\nthreshold {}\n",
        set.generation, set.threshold
    );
    for key in &set.keys {
        text += &format!("key {key}\n");
    }
    text
}

/// Reads a line as what a server answers: which part of a file it gives, and where else it leads.
pub fn update_answer(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if let Ok(part) = text.parse::<Part>() {
        assert!(part.of().is_none_or(|of| part.first() < of));
        assert_eq!(part.to_string().parse(), Ok(part));
    }
    let from: Url = "https://get.example/releases/rpi.bundle"
        .parse()
        .expect("an address");
    let read = [text.parse::<Url>(), from.follow(text)];
    for url in read.into_iter().flatten() {
        assert_eq!(url.to_string().parse(), Ok(url.clone()));
        assert!(url.path().starts_with('/'));
        // Both go into a request: nothing in them ends a line or a word of it.
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        assert!(is_plain(&url.authority()) && is_plain(url.path()));
    }
}

/// Reads the bytes as a disk's partition table, and grows it to a disk: the data stays where it begins, nothing is written
/// over a slot, and what is written is a table that says so.
///
/// In: how much larger the disk is (2) and by which unit, with how the table was made (1), the four rows of an MBR, a GPT's header, then its entries.
pub fn partition_table(data: &[u8]) {
    let mut bytes = Bytes(data);
    let (more, how) = (bytes.pair(), bytes.octet());
    let more = u64::from(more) << (10 + (how >> 3));
    let mut head = vec![0; HEAD_BYTES];
    put(&mut head, ROWS_AT, bytes.take(64));
    head[510..512].copy_from_slice(&[0x55, 0xAA]);
    put(&mut head, HEADER_AT, bytes.take(HEADER_BYTES));
    put(&mut head, ENTRIES_AT, bytes.take(4096));
    // A checksum is not what is looked for here.
    if how & 1 == 0 {
        sign(&mut head);
    }
    let head = match how & 2 {
        0 => &head[..],
        _ => &head[..usize::from(how) << 6],
    };
    let Ok(table) = Table::read(head) else {
        return;
    };
    let (old, least) = (table.data(), table.least_bytes());
    let image = match how & 4 {
        0 => least,
        _ => old.end() * SECTOR,
    };
    let Some(disk) = least.checked_add(more) else {
        return;
    };
    let Ok(grown) = table.grown(image, disk) else {
        assert!(disk < least.max(image));
        return;
    };
    assert_eq!(grown.data.first, old.first);
    assert!(grown.data.end() >= old.end());
    assert_eq!(grown.tail.first, grown.data.end());
    assert!(grown.tail.bytes() < TAIL_BYTES);
    let mut taken: Vec<_> = grown.edits.iter().map(Edit::range).collect();
    taken.push(grown.tail.first * SECTOR..grown.tail.end() * SECTOR);
    taken.extend(
        table
            .slots()
            .map(|slot| slot.first * SECTOR..slot.end() * SECTOR),
    );
    taken.sort_by_key(|range| range.start);
    let [a, b] = table.slots();
    let is_apart = a.end() <= b.first || b.end() <= a.first;
    for pair in taken.windows(2) {
        // Slots may lie as they like, but apart from all else.
        let both = pair
            .iter()
            .all(|range| [a, b].iter().any(|slot| range.start == slot.first * SECTOR));
        assert!(
            pair[0].end <= pair[1].start || (both && !is_apart),
            "{taken:?}"
        );
    }
    assert!(taken.iter().all(|range| range.end <= disk));
    let mut again = head.to_vec();
    let first = &grown.edits[0];
    assert_eq!(first.at, 0);
    put(&mut again, 0, &first.bytes);
    let again = Table::read(&again).expect("what was written is a table");
    assert_eq!((again.data(), again.slots()), (grown.data, table.slots()));
}

const ROWS_AT: usize = 446;
const HEADER_AT: usize = 512;
const HEADER_BYTES: usize = 92;
const ENTRIES_AT: usize = 1024;

fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    into[at..at + bytes.len()].copy_from_slice(bytes);
}

/// UEFI specification 2.10, section 5.3.2: of the entries, then of the header with zero in its own place.
fn sign(head: &mut [u8]) {
    let sum = crc32(&head[ENTRIES_AT..]).to_le_bytes();
    put(head, HEADER_AT + 88, &sum);
    put(head, HEADER_AT + 16, &[0; 4]);
    let sum = crc32(&head[HEADER_AT..HEADER_AT + HEADER_BYTES]).to_le_bytes();
    put(head, HEADER_AT + 16, &sum);
}

fn crc32(bytes: &[u8]) -> u32 {
    let sum = bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg())
        })
    });
    !sum
}

/// Valid inputs.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "slot_choice" => {
            let copied = |first, serial| Copied {
                choice: Choice::new(first, 3, 1),
                serial,
            };
            let both = |format: Format, octet: u8, second: &Copied| {
                let copies = [format.write(&copied(Slot::B, 9)), format.write(second)];
                [vec![octet], copies.concat()].concat()
            };
            let none = Copied {
                choice: Choice::new(Slot::A, 0, 0),
                serial: 0,
            };
            vec![
                both(Format::UBoot, 0, &copied(Slot::A, 1)),
                both(Format::Grub, 1, &none),
                vec![1],
            ]
        }
        "release_keys" => {
            let text = written(
                &KeySet::new(2, 2, vec![ReleaseKey([7; 32]), ReleaseKey([9; 32])]).expect("a set"),
                "",
            );
            let texts = [
                text.clone(),
                format!("# mine\nrule adds\n{text}"),
                format!("rule replaces\n\n{}", text.replace("generation 2", "")),
            ];
            texts.map(String::into_bytes).to_vec()
        }
        "update_answer" => [
            "bytes 5-9/20",
            "bytes 0-1048575/*",
            "https://get.example:8443/rpi.bundle?of=1",
            "http://[2001:db8::1]:81",
            "//mirror.example/rpi.bundle",
            "../next/rpi.bundle",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec(),
        "partition_table" => {
            let spans: [(u64, u64); 4] = [
                (24576, 106_496),
                (131_072, 98_304),
                (229_376, 98_304),
                (327_680, 131_072),
            ];
            let mut mbr = vec![0x08, 0, 0];
            for (first, sectors) in spans {
                mbr.extend([0, 0xfe, 0xff, 0xff, 0x0c, 0xfe, 0xff, 0xff]);
                mbr.extend(&first.to_le_bytes()[..4]);
                mbr.extend(&sectors.to_le_bytes()[..4]);
            }
            let mut gpt = vec![0x08, 0, 4];
            gpt.extend([
                0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 7, 7, 0,
            ]);
            gpt.resize(3 + 64, 0);
            let mut header = [0; HEADER_BYTES];
            put(&mut header, 0, b"EFI PART\0\0\x01\0\x5c\0\0\0");
            for (at, value) in [
                (24, 1),
                (32, 460_799),
                (40, 34),
                (48, 460_766),
                (72, 2),
                (80, 128),
                (84, 128),
            ] {
                put(&mut header, at, &u32::to_le_bytes(value));
            }
            gpt.extend(header);
            for (first, sectors) in spans {
                gpt.extend([9; 32]);
                gpt.extend(first.to_le_bytes());
                gpt.extend((first + sectors - 1).to_le_bytes());
                gpt.extend([0; 80]);
            }
            vec![mbr, gpt]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_read_as_what_they_are() {
        for seed in seeds("partition_table") {
            let mut head = vec![0; HEAD_BYTES];
            put(&mut head, ROWS_AT, &seed[3..67]);
            put(&mut head, 510, &[0x55, 0xAA]);
            let rest = &seed[67..];
            let (header, entries) = rest.split_at(rest.len().min(HEADER_BYTES));
            put(&mut head, HEADER_AT, header);
            put(&mut head, ENTRIES_AT, entries);
            sign(&mut head);
            assert_eq!(Table::read(&head).unwrap().data().first, 327_680);
        }
        for (at, seed) in seeds("release_keys").iter().enumerate() {
            assert_eq!(keys::read_pinned(seed).is_ok(), at == 0);
            assert_eq!(keys::read_owner(seed).is_ok(), at > 0);
        }
    }
}
