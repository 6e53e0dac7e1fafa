//! Wi-Fi, checked.

use super::air::{channels, covered, is_country};
use super::networks::find;
use super::ports::Plugged;
use super::wrong::{Key, Wrongs};
use super::{Network, Radio};
use crate::config::{Band, Port, Security, Ssid, Wifi};

/// The most radios.
pub const MAX_RADIOS: usize = 4;
/// The most names of a radio; many chips can't do more.
pub const MAX_SSIDS: usize = 4;
/// The longest name of a Wi-Fi, in bytes (IEEE 802.11 section 9.4.2.2).
const MAX_SSID_BYTES: usize = 32;

pub(super) fn resolve(
    written: &[Wifi],
    networks: &[Network],
    plugged: &mut Plugged,
    wrongs: &mut Wrongs,
) -> Vec<Radio> {
    let all = Key::router().at("wifi");
    wrongs.bound(all.clone(), written.len(), MAX_RADIOS, "radios");
    let mut radios = Vec::new();
    for (i, wifi) in written.iter().enumerate().take(MAX_RADIOS) {
        radios.extend(radio(i, wifi, networks, &all.nth(i), plugged, wrongs));
    }
    radios
}

fn radio(
    place: usize,
    wifi: &Wifi,
    networks: &[Network],
    key: &Key,
    plugged: &mut Plugged,
    wrongs: &mut Wrongs,
) -> Option<Radio> {
    let channel = channel(wifi, key, wrongs);
    let ssids = key.at("ssid");
    wrongs.bound(
        ssids.clone(),
        wifi.ssid.len(),
        MAX_SSIDS,
        "names of a radio",
    );
    if wifi.ssid.is_empty() {
        wrongs.say(
            ssids.clone(),
            "a radio needs a name; write [[router.wifi.ssid]] with name and password",
        );
    }
    let mut bridges = Vec::new();
    for (i, ssid) in wifi.ssid.iter().enumerate() {
        let key = ssids.nth(i);
        check_ssid(ssid, wifi.band, &key, wrongs);
        if wifi
            .ssid
            .iter()
            .take(i)
            .any(|other| other.name == ssid.name)
        {
            wrongs.say(key.at("name"), "a radio has each name once; write another");
        }
        let network = match &ssid.network {
            Some(name) => find(networks, name, &key.at("network"), wrongs),
            None => networks.first(),
        };
        bridges.extend(
            network.map(|network| (network.bridge.clone(), ssid.isolated || network.isolated)),
        );
    }
    let usual = Port::Radio(u8::try_from(place + 1).unwrap_or(u8::MAX));
    let key = key.at("radio");
    let interface = plugged.one(wifi.radio.as_ref().unwrap_or(&usual), &key, wrongs)?;
    plugged.take(&interface, "a radio", &key, wrongs);
    Some(Radio {
        interface,
        channel: channel?,
        wifi: wifi.clone(),
        bridges,
    })
}

fn channel(wifi: &Wifi, key: &Key, wrongs: &mut Wrongs) -> Option<u8> {
    let Wifi {
        country,
        band,
        width,
        ..
    } = wifi;
    if !is_country(country) {
        wrongs.say(
            key.at("country"),
            format_args!("{country:?} is no country; write two capitals, as \"CH\" or \"US\""),
        );
        return None;
    }
    let channel = wifi.channel.unwrap_or(match band {
        Band::Two => 6,
        Band::Five => 36,
        Band::Six => 37,
    });
    if *band == Band::Two && covered(channel, *band, *width).is_none() {
        wrongs.say(
            key.at("width"),
            "at 2.4 GHz a channel is \"20\" or \"40\" wide; write one of these",
        );
        return None;
    }
    let allowed = channels(country, *band, *width);
    if allowed.contains(&channel) {
        return Some(channel);
    }
    let names: Vec<String> = allowed.iter().map(u8::to_string).collect();
    if names.is_empty() {
        wrongs.say(
            key.at("band"),
            format_args!(
                "{country} lets no access point use this band so wide; write another band or width"
            ),
        );
    } else {
        wrongs.say(key.at("channel"), format_args!("in {country} channel {channel} is not for an access point of this band and width; write one of {}", names.join(", ")));
    }
    None
}

fn check_ssid(ssid: &Ssid, band: Band, key: &Key, wrongs: &mut Wrongs) {
    let name = &ssid.name;
    if !(1..=MAX_SSID_BYTES).contains(&name.len()) || name.chars().any(char::is_control) {
        wrongs.say(
            key.at("name"),
            format_args!("a Wi-Fi's name has 1 to {MAX_SSID_BYTES} bytes on one line"),
        );
    }
    let is_kept = !matches!(ssid.security, Security::Owe | Security::Open);
    if band == Band::Six && !matches!(ssid.security, Security::Wpa3 | Security::Owe) {
        wrongs.say(
            key.at("security"),
            "at 6 GHz there is \"wpa3\" and \"owe\" alone; write one of these",
        );
    }
    match (&ssid.password, &ssid.password_file) {
        (Some(password), None) if is_kept => {
            if !is_passphrase(password.expose()) {
                wrongs.say(key.at("password"), "a Wi-Fi's password has 8 to 63 letters, digits, spaces and signs of ASCII");
            }
        }
        (None, Some(path)) if is_kept => {
            if !path.is_absolute() {
                wrongs.say(key.at("password_file"), "write the whole path of the file, from /");
            }
        }
        (None, None) if !is_kept => {}
        _ if is_kept => wrongs.say(key.at("password"), "this Wi-Fi needs either a password or a password_file; for one without write security = \"owe\""),
        _ => wrongs.say(key.at("security"), "this Wi-Fi takes no password; remove it, or write security = \"wpa2-wpa3\""),
    }
}

/// What WPA takes (IEEE 802.11 annex J.4.1).
pub(crate) fn is_passphrase(text: &str) -> bool {
    (8..=63).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b))
}
