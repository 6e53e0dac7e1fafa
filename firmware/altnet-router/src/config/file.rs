//! What the router reads of `altnet.toml`.

use std::path::{Path, PathBuf};

use altnet_service::mistake;
use serde::Deserialize;

use super::Router;
use crate::board::Ports;
use crate::house::{Altnet, House, Mistakes};

/// The part of `altnet.toml` that a router goes by. The rest of it is altnetd's to check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct File {
    /// The router; without one, somebody else routes.
    pub router: Option<Router>,
    /// The UDP port of altnetd.
    listen_port: Option<u16>,
    tun: Tun,
    api: Api,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Tun {
    name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Api {
    socket: Option<PathBuf>,
}

impl File {
    /// Reads `text`; `path` is named in errors.
    ///
    /// # Errors
    /// The first [`mistake::Mistake`] about what a single value has to be.
    pub fn parse(path: &Path, text: &str) -> Result<Self, mistake::Mistake> {
        mistake::parse(path, text)
    }

    /// altnetd, as far as the router has to know it.
    pub fn altnet(&self) -> Altnet {
        let usual = Altnet::default();
        Altnet {
            listen_port: self.listen_port.unwrap_or(usual.listen_port),
            tun: self.tun.name.clone().unwrap_or(usual.tun),
            socket: self.api.socket.clone().unwrap_or(usual.socket),
        }
    }

    /// Reads and checks `text`, and says what it means on a board with these ports; None where the file has no `[router]`.
    ///
    /// # Errors
    /// All that is wrong, or where the file can't be read, the first.
    pub fn house(path: &Path, text: &str, ports: &Ports) -> Result<Option<House>, Mistakes> {
        let file = Self::parse(path, text)?;
        let altnet = file.altnet();
        let house = file.router.map(|router| router.resolve(ports, &altnet));
        house
            .transpose()
            .map_err(|wrongs| wrongs.in_file(path, text))
    }
}
