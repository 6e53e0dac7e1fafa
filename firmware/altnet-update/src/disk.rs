//! Disks and partitions: bytes at places, and a promise about when they are there to stay.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A disk, or a partition of one.
pub trait Disk {
    /// How many bytes it has.
    ///
    /// # Errors
    /// What the disk says.
    fn bytes(&mut self) -> io::Result<u64>;

    /// Fills `out` from `at` on.
    ///
    /// # Errors
    /// What the disk says; [`io::ErrorKind::UnexpectedEof`] past its end.
    fn read_at(&mut self, at: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes `bytes` from `at` on. After a power cut they may be there, in part or not.
    ///
    /// # Errors
    /// What the disk says.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns once all that was written stays through a power cut; and what is read from then on
    /// comes from the disk, not from a cache that would hide a fault.
    ///
    /// # Errors
    /// What the disk says; then nothing is certain of what was written since the last time.
    fn sync(&mut self) -> io::Result<()>;
}

/// A block device, or a file in its place.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
}

impl FileDisk {
    /// Opens it to be read and written.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self { file })
    }

    /// Opens it to be read.
    ///
    /// # Errors
    /// What the system says.
    pub fn open_to_read(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self { file })
    }
}

impl Disk for FileDisk {
    fn bytes(&mut self) -> io::Result<u64> {
        // A block device's metadata has no length; its end has.
        self.file.seek(SeekFrom::End(0))
    }

    fn read_at(&mut self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, at)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        // Clean pages are dropped, so that the next read goes to the device.
        rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, [0; 5000]).unwrap();
        let mut disk = FileDisk::open(&path).unwrap();
        assert_eq!(disk.bytes().unwrap(), 5000);
        disk.write_at(4000, b"here").unwrap();
        disk.sync().unwrap();
        let mut found = [0; 4];
        disk.read_at(4000, &mut found).unwrap();
        assert_eq!(&found, b"here");
        let past = disk.read_at(4998, &mut found).unwrap_err();
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
        assert!(
            FileDisk::open_to_read(&path)
                .unwrap()
                .write_at(0, b"x")
                .is_err()
        );
    }
}
