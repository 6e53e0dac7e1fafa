//! The partition table of an appliance's image, and its growth to the disk that it is written to.
//!
//! In: the first sectors of an image, and how large the disk is. Out: where its partitions lie, and
//! the bytes that make the last one, the data, reach to the end of the disk but for [`TAIL_BYTES`].
//! Tables are foreign bytes: whatever they say, reading them ends in a [`Table`] or a
//! [`TableFault`]. It doesn't know other tables than `linux-image` makes: four partitions of an MBR,
//! or a GPT of 128 entries behind the first sector, the data being the fourth and the last on the disk.
//!
//! Source: UEFI specification 2.10, section 5.

use std::ops::Range;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// What is kept free behind the data, in bytes: room for files of the first boot, and for the second
/// GPT at its very end.
pub const TAIL_BYTES: u64 = 1 << 20;
/// How much of an image has to be given to [`Table::read`], in bytes: both kinds end before that.
pub const HEAD_BYTES: usize = (2 + ENTRIES_SECTORS as usize) * 512;

const ENTRIES: usize = 128;
const ENTRY: usize = 128;
const ENTRIES_SECTORS: u64 = 32;
/// The second GPT: its entries, and its header in the disk's last sector.
const BACKUP_SECTORS: u64 = ENTRIES_SECTORS + 1;
const HEADER_BYTES: usize = 92;
const PROTECTIVE: u8 = 0xEE;
const TAIL: u64 = TAIL_BYTES / SECTOR;
const PARTITIONS: usize = 4;
const MBR_AT: usize = 446;
const MBR_ENTRY: usize = 16;

/// Sectors that lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub first: u64,
    /// How many; at least one.
    pub sectors: u64,
}

impl Span {
    /// The sector behind the last.
    pub const fn end(self) -> u64 {
        self.first + self.sectors
    }

    /// How many bytes they hold.
    pub const fn bytes(self) -> u64 {
        self.sectors * SECTOR
    }

    fn checked(first: u64, sectors: u64) -> Option<Self> {
        // What can't be said in bytes, with what comes behind the data, is on no disk.
        let end = first.checked_add(sectors)?.checked_add(TAIL)?;
        (sectors > 0 && end.checked_mul(SECTOR).is_some()).then_some(Self { first, sectors })
    }
}

/// Bytes of a disk that become others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit<T = Vec<u8>> {
    /// Where they begin on the disk, in bytes: a whole number of sectors.
    pub at: u64,
    /// What they become: whole sectors.
    pub bytes: T,
}

/// Why a table can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableFault {
    /// The file is too short for any.
    #[error("it ends within its partition table")]
    Short,
    /// No table is there.
    #[error("it has no partition table")]
    Absent,
    /// A checksum of a GPT doesn't fit.
    #[error("the checksum of its partition table is wrong")]
    Checksum,
    /// A GPT of another shape.
    #[error("its partition table isn't laid out as altnet's images are")]
    Shape,
    /// Partitions are absent, overlap, or the data isn't the last.
    #[error("partition {number} isn't where altnet's images have it")]
    Partition {
        /// Which one, from 1.
        number: usize,
    },
    /// The disk ends before the data does.
    #[error("it wants {needed} bytes, and the disk has {found}")]
    TooLarge {
        /// The least that is needed, in bytes.
        needed: u64,
        /// What the disk has, in bytes.
        found: u64,
    },
}

/// A partition table that was read.
#[derive(Clone, Debug)]
pub struct Table {
    head: Vec<u8>,
    is_gpt: bool,
    partitions: [Span; PARTITIONS],
}

/// What grows with a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grown {
    /// The data partition as it is then.
    pub data: Span,
    /// Where files of the first boot go, right behind it.
    pub tail: Span,
    /// What has to be written, in the order of the disk. They don't overlap each other or `tail`.
    pub edits: Vec<Edit>,
}

impl Table {
    /// Reads the table in the first [`HEAD_BYTES`] of an image.
    ///
    /// # Errors
    /// [`TableFault`].
    pub fn read(head: &[u8]) -> Result<Self, TableFault> {
        let head = head.get(..HEAD_BYTES).ok_or(TableFault::Short)?;
        if head[510..512] != [0x55, 0xAA] {
            return Err(TableFault::Absent);
        }
        let is_gpt = head[MBR_AT + 4] == PROTECTIVE;
        let rows = match is_gpt {
            true => gpt_rows(head)?,
            false => (0..PARTITIONS).map(|n| mbr_row(head, n)).collect(),
        };
        let mut partitions = [Span {
            first: 0,
            sectors: 1,
        }; PARTITIONS];
        for (number, place) in partitions.iter_mut().enumerate() {
            let row = rows.get(number).copied().flatten();
            *place = row.ok_or(TableFault::Partition { number: number + 1 })?;
        }
        let [.., data] = partitions;
        for (number, row) in rows.iter().enumerate() {
            let wrong = TableFault::Partition { number: number + 1 };
            match row {
                // GRUB's file system lies around others' places, so only the data is looked at.
                Some(row) if number + 1 != PARTITIONS && row.end() > data.first => {
                    return Err(wrong);
                }
                Some(row) if row.first * SECTOR < HEAD_BYTES as u64 => return Err(wrong),
                _ => {}
            }
        }
        Ok(Self {
            head: head.to_vec(),
            is_gpt,
            partitions,
        })
    }

    /// The data partition as the image has it.
    pub const fn data(&self) -> Span {
        self.partitions[PARTITIONS - 1]
    }

    /// The slots: A and B.
    pub const fn slots(&self) -> [Span; 2] {
        [self.partitions[1], self.partitions[2]]
    }

    /// How large a disk has to be at least, in bytes.
    pub const fn least_bytes(&self) -> u64 {
        self.data()
            .end()
            .saturating_add(TAIL)
            .saturating_mul(SECTOR)
    }

    /// Works out what makes the data reach to the end of a disk of `disk_bytes`, onto which an image
    /// of `image_bytes` is written. The data never becomes smaller.
    ///
    /// # Errors
    /// [`TableFault::TooLarge`].
    pub fn grown(&self, image_bytes: u64, disk_bytes: u64) -> Result<Grown, TableFault> {
        let needed = self.least_bytes().max(image_bytes);
        if disk_bytes < needed {
            return Err(TableFault::TooLarge {
                needed,
                found: disk_bytes,
            });
        }
        let sectors = disk_bytes / SECTOR;
        let old = self.data();
        // Whole MiB, as everything on the disk.
        let mut end = ((sectors - TAIL) / TAIL * TAIL).max(old.end());
        if !self.is_gpt {
            // An MBR has 32 bits for where a partition begins and for how long it is.
            let most = u64::from(u32::MAX);
            end = end.min(old.first.saturating_add(most)).max(old.end());
        }
        let data = Span {
            first: old.first,
            sectors: end - old.first,
        };
        let tail = Span {
            first: end,
            sectors: TAIL - BACKUP_SECTORS,
        };
        let edits = match self.is_gpt {
            true => self.gpt_edits(data, image_bytes / SECTOR, sectors),
            false => self.mbr_edits(data, sectors),
        };
        Ok(Grown { data, tail, edits })
    }

    fn mbr_edits(&self, data: Span, sectors: u64) -> Vec<Edit> {
        let mut sector = self.head[..512].to_vec();
        let at = MBR_AT + (PARTITIONS - 1) * MBR_ENTRY + 12;
        let length = u32::try_from(data.sectors).unwrap_or(u32::MAX);
        sector[at..at + 4].copy_from_slice(&length.to_le_bytes());
        // What an earlier use of the disk may have left there is a table that somebody could believe.
        let old = Edit {
            at: (sectors - BACKUP_SECTORS) * SECTOR,
            bytes: vec![0; (BACKUP_SECTORS * SECTOR) as usize],
        };
        vec![
            Edit {
                at: 0,
                bytes: sector,
            },
            old,
        ]
    }

    /// Section 5.3.2: each header names its own sector, that of the other, and where its entries are.
    fn gpt_edits(&self, data: Span, image_sectors: u64, sectors: u64) -> Vec<Edit> {
        let last = sectors - 1;
        let mut head = self.head.clone();
        let covers = u32::try_from(last).unwrap_or(u32::MAX);
        head[MBR_AT + 12..MBR_AT + 16].copy_from_slice(&covers.to_le_bytes());
        let at = 1024 + (PARTITIONS - 1) * ENTRY + 40;
        head[at..at + 8].copy_from_slice(&(data.end() - 1).to_le_bytes());
        let entries = head[1024..].to_vec();
        let header = &mut head[512..1024];
        header[32..40].copy_from_slice(&last.to_le_bytes());
        header[48..56].copy_from_slice(&(last - BACKUP_SECTORS).to_le_bytes());
        header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
        sign(header);
        let mut backup = header.to_vec();
        backup[24..32].copy_from_slice(&last.to_le_bytes());
        backup[32..40].copy_from_slice(&1u64.to_le_bytes());
        backup[72..80].copy_from_slice(&(last - ENTRIES_SECTORS).to_le_bytes());
        sign(&mut backup);
        let second = Edit {
            at: (sectors - BACKUP_SECTORS) * SECTOR,
            bytes: [entries, backup].concat(),
        };
        let mut edits = vec![Edit { at: 0, bytes: head }];
        // The image's own second table is then in the middle of the disk, where it says nothing true.
        if let Some(old) = image_sectors.checked_sub(BACKUP_SECTORS)
            && old >= self.data().end()
            && !near(old, data.end(), TAIL - BACKUP_SECTORS)
            && old + BACKUP_SECTORS <= sectors - BACKUP_SECTORS
        {
            edits.push(Edit {
                at: old * SECTOR,
                bytes: vec![0; (BACKUP_SECTORS * SECTOR) as usize],
            });
        }
        edits.push(second);
        edits
    }
}

/// Whether sectors from `at` on could touch `room` sectors from `place` on.
const fn near(at: u64, place: u64, room: u64) -> bool {
    at + BACKUP_SECTORS > place && at < place + room
}

fn mbr_row(head: &[u8], number: usize) -> Option<Span> {
    let row = &head[MBR_AT + number * MBR_ENTRY..][..MBR_ENTRY];
    let kind = row[4];
    let first = u32::from_le_bytes([row[8], row[9], row[10], row[11]]);
    let sectors = u32::from_le_bytes([row[12], row[13], row[14], row[15]]);
    // A protective record further down the table is a hybrid, which isn't ours.
    match kind {
        0 | PROTECTIVE => None,
        _ => Span::checked(first.into(), sectors.into()),
    }
}

fn gpt_rows(head: &[u8]) -> Result<Vec<Option<Span>>, TableFault> {
    let header = &head[512..1024];
    if &header[..8] != b"EFI PART" {
        return Err(TableFault::Absent);
    }
    let is_ours = u32_at(header, 12) as usize == HEADER_BYTES
        && u64_at(header, 24) == 1
        && u64_at(header, 72) == 2
        && u32_at(header, 80) as usize == ENTRIES
        && u32_at(header, 84) as usize == ENTRY;
    if !is_ours {
        return Err(TableFault::Shape);
    }
    let entries = &head[1024..];
    let mut unsigned = header.to_vec();
    sign(&mut unsigned);
    if unsigned != header || u32_at(header, 88) != crc32(entries) {
        return Err(TableFault::Checksum);
    }
    entries
        .chunks(ENTRY)
        .enumerate()
        .map(|(number, entry)| {
            if entry[..16] == [0; 16] {
                return Ok(None);
            }
            let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
            let sectors = last.checked_sub(first).and_then(|n| n.checked_add(1));
            sectors
                .and_then(|sectors| Span::checked(first, sectors))
                .map(Some)
                .ok_or(TableFault::Partition { number: number + 1 })
        })
        .collect()
}

/// Puts the checksum of a header into it, taken with zero in its own place.
fn sign(header: &mut [u8]) {
    header[16..20].fill(0);
    let sum = crc32(&header[..HEADER_BYTES]);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..][..4]
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..][..8]
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// CRC-32 of ISO 3309, as zlib's. Tables are small, so bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            let mask = (sum & 1).wrapping_neg();
            sum = (sum >> 1) ^ (0xEDB8_8320 & mask);
        }
    }
    !sum
}

/// The bytes of an edit on the disk.
impl<T: AsRef<[u8]>> Edit<T> {
    /// Where it begins and ends, in bytes.
    pub fn range(&self) -> Range<u64> {
        self.at..self.at + self.bytes.as_ref().len() as u64
    }
}
