//! Other people's daemons: which there have to be, their command lines and their files.
//!
//! What a person or a provider wrote is either of a kind that needs no quotes, or is quoted here as the daemon reads
//! it; a line break was refused where it was written.

use std::net::IpAddr;

use crate::config::Secret;
use crate::house::{House, Wan, Way, is_line};
use crate::plan::{Child, ChildFile, Places, World};

mod chrony;
mod dhcpcd;
mod dnsmasq;
mod hostapd;
mod miniupnpd;
mod pppd;

pub use miniupnpd::PORT as UPNP_PORT;
pub(crate) use pppd::{name as dialer, why_no_session};

/// The longest password, in bytes (RFC 1334 section 2.2.1).
const MAX_PASSWORD_BYTES: usize = 255;
/// The most resolvers that `resolv.conf` can name (resolv.conf(5)).
const MAX_RESOLVERS: usize = 3;

/// Every child, in the order to start them. What can't be had is told in `troubles`.
pub(crate) fn children(
    house: &House,
    world: &World,
    places: &Places,
    working: &[String],
    troubles: &mut Vec<String>,
) -> Vec<Child> {
    let mut children = Vec::new();
    for wan in &house.wans {
        if let Way::Pppoe(login) = &wan.way {
            match password(
                login.password.as_ref(),
                login.password_file.as_deref(),
                world,
            ) {
                Ok(password) => children.push(pppd::child(wan, login, &password, places)),
                Err(why) => troubles.push(format!("the WAN {} can't log in: {why}", wan.name)),
            }
        }
        children.extend(dhcpcd::child(wan, places));
    }
    children.push(dnsmasq::child(house, world, places));
    for radio in &house.radios {
        match hostapd::child(radio, world, places) {
            Ok(child) => children.push(child),
            Err(why) => troubles.push(format!("the radio {} stays off: {why}", radio.interface)),
        }
    }
    children.extend(chrony::child(house, places));
    children.extend(miniupnpd::child(house, working, places));
    children
}

/// What the box asks: what the file says, or else the providers, the preferred one first.
pub(crate) fn resolvers(house: &House, world: &World, working: &[String]) -> Vec<IpAddr> {
    let named = |name: &String| house.wans.iter().find(|wan| wan.name.as_str() == name);
    let of_wan = |wan: &Wan| match world.wans.get(&wan.name) {
        Some(state) if wan.resolvers.is_empty() => state.resolvers.clone(),
        _ => wan.resolvers.clone(),
    };
    let mut all: Vec<IpAddr> = Vec::new();
    for address in working.iter().filter_map(named).flat_map(of_wan) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all.truncate(MAX_RESOLVERS);
    all
}

/// The password that is written, or that in its file.
fn password(
    written: Option<&Secret>,
    file: Option<&std::path::Path>,
    world: &World,
) -> Result<Secret, String> {
    match (written, file) {
        (Some(password), _) => Ok(password.clone()),
        (None, Some(path)) => {
            let found = world
                .passwords
                .get(path)
                .ok_or_else(|| format!("there is no password in {}", path.display()))?;
            if !is_line(found.expose(), MAX_PASSWORD_BYTES) {
                return Err(format!(
                    "the password in {} has 1 to {MAX_PASSWORD_BYTES} bytes, on one line",
                    path.display()
                ));
            }
            Ok(found.clone())
        }
        (None, None) => Err("it has no password".into()),
    }
}

/// Lines of a file of a daemon's.
#[derive(Default)]
struct Lines(zeroize::Zeroizing<String>);

impl Lines {
    fn add(&mut self, line: impl AsRef<str>) {
        let line = line.as_ref();
        // Whatever would break a line was refused before. If something ever isn't, it says nothing of its own here.
        self.0.extend(line.chars().filter(|c| !c.is_control()));
        self.0.push('\n');
    }

    /// A file that root alone reads.
    fn file(self, places: &Places, name: &str) -> ChildFile {
        ChildFile {
            path: places.run.join(name),
            mode: 0o600,
            content: Secret::new(self.0.to_string()),
        }
    }
}

/// A script that a daemon calls, which calls us: with whose script it is, and more words before those it was given.
fn hook(places: &Places, name: &str, words: &str) -> ChildFile {
    let program = shell_quoted(&places.program.to_string_lossy());
    let run = shell_quoted(&places.run.to_string_lossy());
    let script = format!("#!/bin/sh\nexec {program} --run-directory {run} hook {words} \"$@\"\n");
    ChildFile {
        path: places.run.join(name),
        mode: 0o700,
        content: Secret::new(script),
    }
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn path(places: &Places, name: &str) -> String {
    places.run.join(name).display().to_string()
}

fn child(
    name: String,
    program: &str,
    arguments: &[&str],
    files: Vec<ChildFile>,
    needs: Vec<String>,
) -> Child {
    Child {
        name,
        program: program.into(),
        arguments: arguments
            .iter()
            .map(|&argument| argument.to_owned())
            .collect(),
        files,
        needs,
    }
}
