//! Where this person's networks are: one directory each.

use std::fs;
use std::path::{Path, PathBuf};

use altnet_wire::id::Name;

use crate::error::{Error, Result};
use crate::files;

/// The directory that holds one directory per network, named as the person calls it.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

impl Home {
    /// Takes `path` itself.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// `$ALTNET_HOME`, else `$XDG_CONFIG_HOME/altnet`, else `~/.config/altnet`.
    ///
    /// # Errors
    /// [`Error::Input`] if none of these variables is set.
    pub fn of_user() -> Result<Self> {
        let variable = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        variable("ALTNET_HOME")
            .or_else(|| {
                // The XDG Base Directory Specification says to pass over relative paths.
                variable("XDG_CONFIG_HOME")
                    .filter(|path| path.is_absolute())
                    .map(|path| path.join("altnet"))
            })
            .or_else(|| variable("HOME").map(|path| path.join(".config/altnet")))
            .map(Self)
            .ok_or_else(|| {
                Error::input(
                    "there is no home directory to keep networks in",
                    "Say where with --home DIR or ALTNET_HOME.",
                )
            })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the network called `name` is or would be.
    pub fn network(&self, name: &Name) -> PathBuf {
        self.0.join(name.as_str())
    }

    /// The names of all networks here, in order.
    ///
    /// # Errors
    /// [`Error::Io`]; that the directory is not there yet is no error.
    pub fn networks(&self) -> Result<Vec<Name>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", &self.0)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("read", &self.0))?;
            let Some(name) = entry.file_name().to_str().and_then(|n| Name::new(n).ok()) else {
                continue;
            };
            if entry.path().is_dir() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The directory of the network called `name`, or of the only one.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none; [`Error::Input`] if there are several and none was
    /// named.
    pub fn pick(&self, name: Option<&Name>) -> Result<PathBuf> {
        let names = self.networks()?;
        let list = || {
            let names: Vec<&str> = names.iter().map(Name::as_str).collect();
            names.join(", ")
        };
        match (name, names.as_slice()) {
            (None, []) => Err(Error::not_found(
                format!("there is no network in {}", self.0.display()),
                "Make one with `altnet-provision network create NAME`, or bring one back with `altnet-provision restore FILE`.",
            )),
            (None, [only]) => Ok(self.network(only)),
            (None, _) => Err(Error::input(
                "there are several networks here and none was named",
                format!("Say which with --network NAME: {}.", list()),
            )),
            (Some(name), _) if names.contains(name) => Ok(self.network(name)),
            (Some(name), []) => Err(Error::not_found(
                format!("there is no network called {name} in {}", self.0.display()),
                format!("Make it with `altnet-provision network create {name}`."),
            )),
            (Some(name), _) => Err(Error::not_found(
                format!("there is no network called {name} in {}", self.0.display()),
                format!("Choose one that is there: {}.", list()),
            )),
        }
    }

    /// A fresh directory to build a network in before it gets its name.
    pub(crate) fn workshop(&self) -> Result<Workshop> {
        files::make_dir(&self.0)?;
        let mark: [u8; 8] = crate::chance::bytes()?;
        let mark: String = mark.iter().map(|b| format!("{b:02x}")).collect();
        let path = self.0.join(format!(".new-{mark}"));
        files::make_dir(&path)?;
        Ok(Workshop { path })
    }
}

/// A directory that goes away again unless it is given a name.
pub(crate) struct Workshop {
    path: PathBuf,
}

impl Workshop {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the finished directory in its place.
    pub(crate) fn finish(self, to: &Path) -> Result<()> {
        files::rename_dir(&self.path, to)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // Gone already if it was finished; else half-made and of no use to anybody.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn the_only_network_needs_no_name_and_several_do() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("altnet"));
        assert!(matches!(home.pick(None), Err(Error::NotFound { .. })));
        files::make_dir(&home.network(&name("one"))).unwrap();
        drop(home.workshop().unwrap());
        assert_eq!(home.pick(None).unwrap(), home.network(&name("one")));
        files::make_dir(&home.network(&name("two"))).unwrap();
        let error = home.pick(None).unwrap_err();
        assert!(error.next_step().contains("one, two"));
        assert!(home.pick(Some(&name("two"))).is_ok());
        assert!(matches!(
            home.pick(Some(&name("six"))),
            Err(Error::NotFound { .. })
        ));
    }

    #[test]
    fn a_workshop_that_is_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        drop(home.workshop().unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        home.workshop()
            .unwrap()
            .finish(&home.network(&name("one")))
            .unwrap();
        assert_eq!(home.networks().unwrap(), [name("one")]);
        let second = home.workshop().unwrap().finish(&home.network(&name("one")));
        assert!(matches!(second, Err(Error::Exists { .. })));
    }
}
