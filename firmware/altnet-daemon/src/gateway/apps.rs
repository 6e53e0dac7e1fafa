//! The apps of this node: what is noted of each, their packets to and fro, and who calls them.

use altnet_core::node::{Command, CommandError};
use altnet_wire::frame::Frame;
use altnet_wire::time::Instant;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::calls::{bad, json_of, name_of};
use super::{BATCH, Gateway};
use crate::api::{ApiError, Code, types};
use crate::apps::{AppConfig, Apps, Caller, Kind, Packet, Target, WhoIs};
use crate::{clock, log};

/// Where browsers look for TLS (RFC 9110 section 4.2.2).
const TLS_PORT: u16 = 443;

/// What the node keeps with an app's keys.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// The server it stands for.
    to: String,
    /// Whether it speaks HTTP, and is told who calls.
    http: bool,
    /// The ports that callers use.
    ports: Vec<u16>,
    /// The one of them at which they speak TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls: Option<u16>,
}

impl Gateway {
    /// Runs the apps that the node has keys for, and no others.
    pub(super) fn host_apps(&mut self) {
        let mut wanted = Vec::new();
        for (address, name, note) in self.node.hosted_apps() {
            let config = serde_json::from_slice::<Note>(note)
                .map_err(anyhow::Error::from)
                .and_then(|note| {
                    let kind = if note.http { Kind::Http } else { Kind::Tcp };
                    let to: Target = note.to.parse()?;
                    let mut config = AppConfig::new(name.as_str(), address, to, kind);
                    config.ports = note.ports;
                    config.tls_port = note.tls;
                    config.mtu_bytes = self.config.tun.mtu_bytes;
                    Ok(config)
                });
            match config {
                Ok(config) => wanted.push(config),
                Err(e) => {
                    crate::error!("the app {name} can't run: {e:#}; remove it and add it anew")
                }
            }
        }
        for e in self.apps.reconfigure(wanted) {
            crate::error!("{}", log::chain(&e));
        }
        self.tend_tls();
    }

    /// Packets that apps send, up to a batch.
    pub(super) fn take_apps(&mut self, first: Packet, frame: &mut Frame<'_>) {
        self.take_app(&first, frame);
        for _ in 1..BATCH {
            let Ok(packet) = self.inboxes.app_packets.try_recv() else {
                return;
            };
            self.take_app(&packet, frame);
        }
    }

    fn take_app(&mut self, packet: &[u8], frame: &mut Frame<'_>) {
        let Some(app) = Apps::sender(packet).filter(|_| frame.set(packet).is_ok()) else {
            return;
        };
        // What is refused was counted by the node.
        if let Ok(verdict) = self.node.handle_app(app, frame, clock::now()) {
            self.carry_out(verdict, frame);
        }
    }

    /// Tells an app who calls it.
    pub(super) fn tell_who(&self, WhoIs { source, answer }: WhoIs) {
        let caller = self.node.caller(source).map(|caller| Caller {
            name: caller.name.unwrap_or_default(),
            member: caller.member_name,
            person: caller.person,
            groups: caller.groups,
            site: caller.site.map(|site| site.to_string()),
        });
        // The connection may be gone.
        let _ = answer.send(caller);
    }

    pub(super) fn add_app(
        &mut self,
        given: types::NewApp,
        now: Instant,
    ) -> Result<Value, ApiError> {
        let name = name_of(&given.name)?;
        let to: Target = given.to.parse().map_err(bad)?;
        let kind = if given.http { Kind::Http } else { Kind::Tcp };
        let mut ports = given.ports;
        if ports.is_empty() {
            let usual = AppConfig::new(&given.name, std::net::Ipv6Addr::UNSPECIFIED, to, kind);
            ports = usual.ports;
        }
        let tls = given.tls.then_some(TLS_PORT);
        if given.tls && !given.http {
            return Err(bad("TLS is for apps that speak HTTP; give --http too"));
        }
        if given.tls && given.name == altnet_wire::tls::LOGIN {
            return Err(CommandError::NoTlsForName.into());
        }
        if let Some(port) = tls.filter(|port| !ports.contains(port)) {
            ports.push(port);
        }
        if ports.contains(&0) {
            return Err(bad("a port is a number from 1 to 65535"));
        }
        let note = Note {
            to: given.to,
            http: given.http,
            ports,
            tls,
        };
        let note = serde_json::to_vec(&note).map_err(bad)?.into();
        self.command(
            Command::AddApp {
                name: name.clone(),
                note,
            },
            now,
        )?;
        self.host_apps();
        let found = self
            .app_list()
            .into_iter()
            .find(|app| app.name == given.name);
        found.map_or_else(
            || {
                Err(ApiError::new(
                    Code::Failed,
                    "the app was made but doesn't run",
                    "altnetd's log says why; `altnet app remove` takes it away",
                ))
            },
            json_of,
        )
    }

    pub(super) fn remove_app(
        &mut self,
        given: types::HostName,
        now: Instant,
    ) -> Result<Value, ApiError> {
        let name = name_of(&given.name)?;
        self.command(Command::RemoveApp { name }, now)?;
        self.host_apps();
        json_of(&given)
    }

    pub(super) fn apps(&self) -> Result<Value, ApiError> {
        json_of(json!({ "apps": self.app_list() }))
    }

    fn app_list(&self) -> Vec<types::App> {
        let petname = self.node.status(clock::now()).network;
        let petname = petname.map(|network| network.petname).unwrap_or_default();
        let apps = self.apps.iter().map(|app| {
            let (config, stats) = (app.config(), app.stats());
            types::App {
                name: config.name.clone(),
                fqdn: format!("{}.{petname}.alt", config.name),
                address: config.address.to_string(),
                to: config.to.to_string(),
                http: config.kind == Kind::Http,
                ports: config.ports.clone(),
                tls: config.tls_port.map(|_| self.tls_state(&config.name)),
                connections: stats.connections,
                accepted: stats.accepted,
            }
        });
        apps.collect()
    }
}
