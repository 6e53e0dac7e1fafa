//! A directory that forgets, for tests: what was not synced may be lost or torn when the
//! power goes, names and contents each on their own, as on a real medium.

use std::collections::BTreeMap;
use std::io;

use super::Vfs;

type Inode = usize;

#[derive(Debug, Clone)]
enum NameChange {
    Link(String, Inode),
    Rename(String, String, Inode),
    Unlink(String),
}

#[derive(Debug, Default)]
struct File {
    now: Vec<u8>,
    synced: Option<Vec<u8>>,
}

/// The directory.
#[derive(Debug, Default)]
pub struct Pretend {
    files: Vec<File>,
    names: BTreeMap<String, Inode>,
    synced_names: BTreeMap<String, Inode>,
    unsynced: Vec<NameChange>,
    operations_left: Option<usize>,
}

impl Pretend {
    /// Lets `operations` more operations happen; then the power goes.
    pub fn cut_at(&mut self, operations: usize) {
        self.operations_left = Some(operations);
    }

    /// Whether the power went.
    pub fn has_no_power(&self) -> bool {
        self.operations_left == Some(0)
    }

    /// What the medium holds when the power is back. `seed` draws what luck saved.
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let mut luck = Luck(seed);
        let mut names = self.synced_names.clone();
        for change in &self.unsynced {
            if luck.draw(2) == 0 {
                change.apply(&mut names);
            }
        }
        let files = self
            .files
            .iter()
            .map(|file| {
                let now = file
                    .synced
                    .clone()
                    .unwrap_or_else(|| tear(&file.now, &mut luck));
                File {
                    synced: Some(now.clone()),
                    now,
                }
            })
            .collect();
        Self {
            files,
            names: names.clone(),
            synced_names: names,
            unsynced: Vec::new(),
            operations_left: None,
        }
    }

    fn spend(&mut self) -> io::Result<()> {
        match &mut self.operations_left {
            Some(0) => return Err(io::Error::other("no power")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    fn inode(&self, name: &str) -> io::Result<Inode> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced.push(change);
    }
}

impl Vfs for Pretend {
    fn read(&self, name: &str, limit: usize) -> io::Result<Vec<u8>> {
        let file = &self.files[self.inode(name)?];
        Ok(file.now.iter().copied().take(limit).collect())
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // The last operation happens in part: the file is there, its bytes may not be.
        let last = self.operations_left == Some(1);
        self.spend()?;
        self.files.push(File {
            now: bytes.to_vec(),
            synced: None,
        });
        self.change(NameChange::Link(name.into(), self.files.len() - 1));
        if last { self.spend() } else { Ok(()) }
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.spend()?;
        let inode = self.inode(name)?;
        let file = &mut self.files[inode];
        file.synced = Some(file.now.clone());
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.spend()?;
        let inode = self.inode(from)?;
        self.change(NameChange::Rename(from.into(), to.into(), inode));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.spend()?;
        self.inode(name)?;
        self.change(NameChange::Unlink(name.into()));
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.spend()?;
        self.synced_names = self.names.clone();
        self.unsynced.clear();
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names.keys().cloned().collect())
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, Inode>) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
        }
    }
}

/// All of it, a beginning, a beginning with zeros behind it, or noise.
fn tear(bytes: &[u8], luck: &mut Luck) -> Vec<u8> {
    let kept = luck.draw(bytes.len() as u64 + 1) as usize;
    match luck.draw(4) {
        0 => bytes.to_vec(),
        1 => bytes[..kept].to_vec(),
        2 => {
            let mut torn = bytes.to_vec();
            torn[kept..].fill(0);
            torn
        }
        _ => bytes.iter().map(|_| luck.draw(256) as u8).collect(),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Luck(u64);

impl Luck {
    fn draw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}
