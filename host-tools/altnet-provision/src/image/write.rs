//! An image, written with what becomes different on its disk, and all of it read back.
//!
//! In: a looked-at image, a plan, and a disk or a new file. Out: the bytes there, in one pass from the
//! beginning to the end, on the medium itself rather than in the system's memory, compared by SHA-256.
//! It doesn't choose what is written to, and asks nobody.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use ring::digest::{Context, Digest, SHA256, digest};
use zeroize::Zeroize;

use super::{CHUNK_BYTES, Image, Plan, fill};
use crate::error::{Error, Result};

/// What reading past the system's memory wants buffers to begin at.
const ALIGNMENT: usize = 4096;

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Whether it reads back what it wrote.
    pub is_verifying: bool,
    /// Bytes of this step that are done.
    pub done: u64,
    /// Bytes of this step.
    pub total: u64,
}

/// What is written to.
pub trait Target: Read + Write + Seek {
    /// Has what was written reach the medium; what is read after this comes from there.
    ///
    /// # Errors
    /// What the operating system says.
    fn settle(&mut self) -> io::Result<()>;

    /// Whether what isn't written is zero, as in a new file.
    fn is_blank(&self) -> bool;
}

/// A disk, or a new file that is as long as one.
#[derive(Debug)]
pub struct Medium {
    file: File,
    is_blank: bool,
}

impl Medium {
    /// A disk, with whatever is on it.
    pub const fn disk(file: File) -> Self {
        Self {
            file,
            is_blank: false,
        }
    }

    /// An empty file, which becomes `bytes` long.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn blank(file: File, bytes: u64) -> io::Result<Self> {
        file.set_len(bytes)?;
        Ok(Self {
            file,
            is_blank: true,
        })
    }
}

impl Read for Medium {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Write for Medium {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Medium {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Target for Medium {
    fn settle(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{Advice, OFlags, fadvise, fcntl_getfl, fcntl_setfl};
            // What is on the medium by now can be forgotten here, and a disk is read past the memory besides.
            fadvise(&self.file, 0, None, Advice::DontNeed)?;
            if !self.is_blank {
                let flags = fcntl_getfl(&self.file)?;
                fcntl_setfl(&self.file, flags | OFlags::DIRECT)?;
            }
        }
        Ok(())
    }

    fn is_blank(&self) -> bool {
        self.is_blank
    }
}

/// Writes an image and what `plan` says besides to `target`, which is called `name`, and reads it back.
///
/// # Errors
/// [`Error::Io`]; [`Error::Damaged`] if the image is another than the one that was looked at, or if
/// something else is read back than was written. Then `target` holds nothing that can be relied on.
pub fn write(
    image: &Image,
    plan: &Plan,
    target: &mut impl Target,
    name: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let mut run = Run {
        image,
        plan,
        name,
        total: image.bytes()
            + behind(image, plan)
                .map(|(_, b)| b.len() as u64)
                .sum::<u64>(),
        sums: Vec::new(),
        buffer: Buffer::new(),
        zeros: vec![0; CHUNK_BYTES],
    };
    run.write(target, progress)?;
    target.settle().map_err(Error::io("write", name))?;
    run.verify(target, progress)
}

struct Run<'a> {
    image: &'a Image,
    plan: &'a Plan,
    name: &'a Path,
    total: u64,
    /// Of each chunk that was written.
    sums: Vec<Digest>,
    buffer: Buffer,
    zeros: Vec<u8>,
}

impl Run<'_> {
    fn write(
        &mut self,
        target: &mut impl Target,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let path = self.image.path();
        let mut reader = self.image.reader().map_err(Error::io("read", path))?;
        let mut whole = Context::new(&SHA256);
        let mut at = 0;
        let io = |error| Error::io("write", self.name)(error);
        target.seek(SeekFrom::Start(0)).map_err(io)?;
        while at < self.image.bytes() {
            let chunk = self.buffer.chunk();
            let length = fill(&mut reader, chunk).map_err(Error::io("read", path))?;
            if length == 0 {
                break;
            }
            let chunk = &mut chunk[..length];
            whole.update(chunk);
            lay_over(self.plan, at, chunk);
            self.sums.push(digest(&SHA256, chunk));
            match target.is_blank() && *chunk == self.zeros[..length] {
                true => {
                    target.seek(SeekFrom::Current(length as i64)).map_err(io)?;
                }
                false => target.write_all(chunk).map_err(io)?,
            }
            at += length as u64;
            self.told(at, false, progress);
        }
        if at != self.image.bytes() || whole.finish().as_ref() != self.image.sum().0 {
            return Err(Error::damaged(path, "it was changed while it was written")
                .unopened("leave the image alone and write it again."));
        }
        for (place, bytes) in behind(self.image, self.plan) {
            target.seek(SeekFrom::Start(place)).map_err(io)?;
            target.write_all(bytes).map_err(io)?;
            at += bytes.len() as u64;
            self.told(at, false, progress);
        }
        target.flush().map_err(io)
    }

    fn verify(
        &mut self,
        target: &mut impl Target,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let io = |error| Error::io("read", self.name)(error);
        target.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut at = 0;
        for sum in &self.sums {
            let length = (self.image.bytes() - at).min(CHUNK_BYTES as u64) as usize;
            let chunk = &mut self.buffer.chunk()[..length];
            target.read_exact(chunk).map_err(io)?;
            if digest(&SHA256, chunk).as_ref() != sum.as_ref() {
                return Err(self.other(at));
            }
            at += length as u64;
            self.told(at, true, progress);
        }
        for (place, bytes) in behind(self.image, self.plan) {
            target.seek(SeekFrom::Start(place)).map_err(io)?;
            for part in bytes.chunks(CHUNK_BYTES) {
                let chunk = &mut self.buffer.chunk()[..part.len()];
                target.read_exact(chunk).map_err(io)?;
                if chunk != part {
                    return Err(self.other(place));
                }
            }
            at += bytes.len() as u64;
            self.told(at, true, progress);
        }
        Ok(())
    }

    fn told(&self, done: u64, is_verifying: bool, progress: &mut dyn FnMut(Progress)) {
        progress(Progress {
            is_verifying,
            done,
            total: self.total,
        });
    }

    fn other(&self, at: u64) -> Error {
        let why = format!(
            "MiB {} reads back otherwise than it was written",
            at / CHUNK_BYTES as u64
        );
        Error::damaged(self.name, why).unopened(
            "take another card or disk: this one is failing, or has less room than it says.",
        )
    }
}

/// Puts what the plan says in the place of bytes of the image that begin at `at`.
fn lay_over(plan: &Plan, at: u64, chunk: &mut [u8]) {
    let end = at + chunk.len() as u64;
    for edit in &plan.edits {
        let range = edit.range();
        let (first, last) = (range.start.max(at), range.end.min(end));
        if first < last {
            let there = (first - at) as usize..(last - at) as usize;
            let from = (first - range.start) as usize..(last - range.start) as usize;
            chunk[there].copy_from_slice(&edit.bytes[from]);
        }
    }
}

/// What the plan has behind the image's end: where, and which bytes.
fn behind<'a>(image: &Image, plan: &'a Plan) -> impl Iterator<Item = (u64, &'a [u8])> {
    let end = image.bytes();
    plan.edits.iter().filter_map(move |edit| {
        let first = edit.at.max(end);
        let bytes = edit.bytes.get((first - edit.at) as usize..)?;
        (!bytes.is_empty()).then_some((first, bytes))
    })
}

/// A chunk that begins where reading past the system's memory wants it to. Wiped: keys pass through it.
struct Buffer {
    bytes: Vec<u8>,
    begins: usize,
}

impl Buffer {
    fn new() -> Self {
        let bytes = vec![0; CHUNK_BYTES + ALIGNMENT];
        let begins = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { bytes, begins }
    }

    fn chunk(&mut self) -> &mut [u8] {
        &mut self.bytes[self.begins..self.begins + CHUNK_BYTES]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}
