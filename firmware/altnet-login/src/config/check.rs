//! What a value must be beyond its type, and what to write instead.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::{MAX_DIRECTORIES, is_policy_name};
use crate::http::Endpoint;

const MAX_LISTENERS: usize = 16;
const MAX_SHOWN_CHARS: usize = 64;
/// Thirty days.
const MAX_SESSION_MINUTES: u32 = 30 * 24 * 60;
const MAX_GRACE_MINUTES: u32 = 24 * 60;
/// More would break that whoever was removed is out within a minute.
const MAX_LOOK_AGAIN_SECONDS: u32 = 30;

fn ranged<'de, D: Deserializer<'de>>(
    deserializer: D,
    what: &str,
    range: std::ops::RangeInclusive<u32>,
) -> Result<u32, D::Error> {
    let value = u32::deserialize(deserializer)?;
    if range.contains(&value) {
        return Ok(value);
    }
    let (least, most) = range.into_inner();
    Err(D::Error::custom(format_args!(
        "{what} is {least} to {most}"
    )))
}

pub(super) fn session_minutes<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    ranged(d, "session_minutes", 1..=MAX_SESSION_MINUTES)
}

pub(super) fn some_session_minutes<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<u32>, D::Error> {
    session_minutes(d).map(Some)
}

pub(super) fn grace_minutes<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    ranged(d, "grace_minutes", 0..=MAX_GRACE_MINUTES)
}

pub(super) fn look_again_seconds<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    ranged(d, "look_again_seconds", 1..=MAX_LOOK_AGAIN_SECONDS)
}

pub(super) fn listen<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<SocketAddr>, D::Error> {
    let addresses = Vec::<SocketAddr>::deserialize(d)?;
    if addresses.is_empty() || addresses.len() > MAX_LISTENERS {
        return Err(D::Error::custom(format_args!(
            "give at least one address and at most {MAX_LISTENERS}, like [\"[::]:80\"]"
        )));
    }
    Ok(addresses)
}

pub(super) fn directories<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    d: D,
) -> Result<Vec<T>, D::Error> {
    let directories = Vec::<T>::deserialize(d)?;
    if directories.len() > MAX_DIRECTORIES {
        return Err(D::Error::custom(format_args!(
            "at most {MAX_DIRECTORIES} directories of a kind; remove some sections"
        )));
    }
    Ok(directories)
}

pub(super) fn name<'de, D: Deserializer<'de>>(d: D) -> Result<Spanned<String>, D::Error> {
    let name = Spanned::<String>::deserialize(d)?;
    let text = name.get_ref();
    let count = text.chars().count();
    if !(1..=MAX_SHOWN_CHARS).contains(&count) || text.chars().any(char::is_control) {
        return Err(D::Error::custom(format_args!(
            "a name on the page has 1 to {MAX_SHOWN_CHARS} characters on one line"
        )));
    }
    Ok(name)
}

pub(super) fn policy_names<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let table = BTreeMap::<String, String>::deserialize(d)?;
    if let Some((from, to)) = table.iter().find(|(_, to)| !is_policy_name(to)) {
        return Err(D::Error::custom(format_args!(
            "{from:?} becomes {to:?}, which is no name of policy's: those have 1 to 63 of a-z, 0-9 and inner '-'"
        )));
    }
    Ok(table)
}

pub(super) fn url<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(d)?;
    let origin = text.strip_suffix('/').unwrap_or(&text);
    let authority = ["https://", "http://"]
        .iter()
        .find_map(|scheme| origin.strip_prefix(scheme));
    let good = authority.is_some_and(|authority| {
        let parsed = authority.parse::<hyper::http::uri::Authority>();
        parsed.is_ok_and(|parsed| !parsed.host().is_empty() && !authority.contains('@'))
    });
    if !good {
        return Err(D::Error::custom(
            "write the page's address without a path, like \"https://login.home.example\"",
        ));
    }
    Ok(Some(origin.into()))
}

pub(super) fn endpoint<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let text = String::deserialize(d)?;
    match Endpoint::parse(&text) {
        Ok(_) => Ok(text),
        Err(e) => Err(D::Error::custom(e)),
    }
}

pub(super) fn some_endpoint<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    endpoint(d).map(Some)
}

pub(super) fn emulator<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SocketAddr>, D::Error> {
    let address = SocketAddr::deserialize(d)?;
    if !address.ip().is_loopback() {
        return Err(D::Error::custom(
            "an emulator believes everybody, so it must be on this machine: write \"127.0.0.1:9099\"",
        ));
    }
    Ok(Some(address))
}
