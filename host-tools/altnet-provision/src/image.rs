//! Images of the appliance: looked at, customized, and written to where they boot from.
//!
//! An image is a file `.img`, or `.img.zst` as `ci/image` makes it. [`Image::open`] reads all of it once:
//! how long it is, its SHA-256, and that it is an image of ours. [`Image::plan`] works out what becomes
//! different on a disk of a given size (the partition table, and files of the first boot), in memory, and
//! [`write::write`] writes both in one pass and reads all of it back. So nothing is written before everything
//! that can be refused was looked at. It mounts nothing and needs no rights but those on what it writes.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

pub mod first_boot;
mod packed;
pub mod table;
pub mod write;

use self::first_boot::FirstBoot;
use self::packed::Unpacked;
use self::table::{Edit, HEAD_BYTES, SECTOR, Table, TableFault};
use crate::error::{Error, Result};

/// How much is read and written at once, in bytes.
pub const CHUNK_BYTES: usize = 1 << 20;
/// The most bytes that an image may have unpacked: a stream that never ends isn't read for ever.
pub const MAX_IMAGE_BYTES: u64 = 64 << 30;

/// Where a FAT file system says what it is called, and what slots are called.
const LABEL_AT: usize = 43;
const SLOT_LABEL: &[u8] = b"ALTNET SLOT";
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// What identifies bytes, as `sha256sum` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum(pub [u8; 32]);

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An image that was looked at.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    bytes: u64,
    sum: Sum,
    table: Table,
}

/// What a disk gets besides the image.
pub struct Plan {
    /// How large the disk is, in bytes.
    pub disk_bytes: u64,
    /// How large the data partition is then, in bytes.
    pub data_bytes: u64,
    /// Bytes that are others than the image's, in the order of the disk, apart from each other.
    pub(crate) edits: Vec<Edit<Zeroizing<Vec<u8>>>>,
}

impl Image {
    /// Reads all of an image.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it ends early, its checksum is wrong, or it is no image of altnet's;
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let fault = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => not_ours(path, error),
            _ => Error::io("read", path)(error),
        };
        let mut reader = reader(path).map_err(fault)?;
        let mut sum = Context::new(&SHA256);
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut bytes = 0;
        let mut table = None;
        let mut slots = [false; 2];
        loop {
            let length = fill(&mut reader, &mut chunk).map_err(fault)?;
            let found = &chunk[..length];
            if bytes == 0 {
                let read = Table::read(found.get(..HEAD_BYTES).unwrap_or(found));
                table = Some(read.map_err(|error| not_ours(path, error))?);
            }
            for (known, span) in slots.iter_mut().zip(table.iter().flat_map(Table::slots)) {
                // A slot begins on a sector and chunks are whole sectors, so its label is in one of them.
                let at = (span.first * SECTOR).checked_sub(bytes);
                let at = at.and_then(|at| usize::try_from(at).ok());
                let label = at.and_then(|at| found.get(at..)?.get(LABEL_AT..)?.get(..11));
                *known |= label == Some(SLOT_LABEL);
            }
            sum.update(found);
            bytes += length as u64;
            if bytes > MAX_IMAGE_BYTES {
                return Err(not_ours(
                    path,
                    format!("it has more than {MAX_IMAGE_BYTES} bytes"),
                ));
            }
            if length < chunk.len() {
                break;
            }
        }
        let table = table.ok_or_else(|| not_ours(path, TableFault::Short))?;
        if let Some(number) = slots.iter().position(|known| !known) {
            return Err(not_ours(
                path,
                format!("its partition {} is no slot", number + 2),
            ));
        }
        if bytes % SECTOR != 0 || bytes < table.data().end() * SECTOR {
            return Err(not_ours(path, "it is cut off"));
        }
        let mut found = [0; 32];
        found.copy_from_slice(sum.finish().as_ref());
        Ok(Self {
            path: path.to_path_buf(),
            bytes,
            sum: Sum(found),
            table,
        })
    }

    /// How long it is unpacked, in bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The SHA-256 of it unpacked.
    pub const fn sum(&self) -> Sum {
        self.sum
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How large a disk has to be at least, in bytes.
    pub fn least_bytes(&self) -> u64 {
        self.bytes.max(self.table.least_bytes())
    }

    /// What makes the image fill a disk of `disk_bytes`, with these files for its first boot.
    ///
    /// # Errors
    /// [`Error::Input`] if the disk is too small, or the files are too large.
    pub fn plan(&self, disk_bytes: u64, files: &FirstBoot) -> Result<Plan> {
        let grown = self.table.grown(self.bytes, disk_bytes).map_err(|error| {
            Error::input(
                format!("{} doesn't fit: {error}", self.path.display()),
                "Take a larger disk or card.",
            )
        })?;
        let mut edits: Vec<_> = grown
            .edits
            .into_iter()
            .map(|Edit { at, bytes }| Edit {
                at,
                bytes: Zeroizing::new(bytes),
            })
            .collect();
        edits.push(Edit {
            at: grown.tail.first * SECTOR,
            bytes: files.area()?,
        });
        edits.sort_by_key(|edit| edit.at);
        Ok(Plan {
            disk_bytes: disk_bytes / SECTOR * SECTOR,
            data_bytes: grown.data.bytes(),
            edits,
        })
    }

    /// The image's bytes from the beginning.
    pub(crate) fn reader(&self) -> io::Result<Box<dyn Read>> {
        reader(&self.path)
    }
}

fn reader(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = BufReader::with_capacity(CHUNK_BYTES, File::open(path)?);
    let begins = io::BufRead::fill_buf(&mut file)?;
    // By what it is, not by what it is called.
    Ok(match begins.starts_with(&ZSTD_MAGIC) {
        true => Box::new(Unpacked::new(file)),
        false => Box::new(file),
    })
}

/// Reads until the buffer is full or the file ends; returns how much that was.
pub(crate) fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn not_ours(path: &Path, why: impl ToString) -> Error {
    Error::damaged(
        path,
        format!("it is no whole image of altnet's: {}", why.to_string()),
    )
    .unopened("give the file that `ci/image` made, or fetch it again.")
}
