//! hostapd, one a radio.
//!
//! Source: hostapd.conf of hostapd 2.10.

use super::{Lines, path};
use crate::config::{Band, Security, Ssid, Width};
use crate::house::{Radio, covered, is_passphrase};
use crate::plan::{Child, Places, World};

pub(super) fn child(radio: &Radio, world: &World, places: &Places) -> Result<Child, String> {
    let name = format!("hostapd-{}", radio.interface);
    let conf = path(places, &format!("{name}.conf"));
    let mut lines = Lines::default();
    lines.add(format!("interface={}", radio.interface));
    add_radio(radio, &mut lines);
    for (i, (ssid, (bridge, isolated))) in radio.wifi.ssid.iter().zip(&radio.bridges).enumerate() {
        if i > 0 {
            lines.add(format!("bss={}", radio.bss(i)));
        }
        lines.add(format!("bridge={bridge}"));
        lines.add(format!("ap_isolate={}", u8::from(*isolated)));
        add_ssid(ssid, radio.wifi.band, world, &mut lines)?;
    }
    let mut needs: Vec<String> = radio
        .bridges
        .iter()
        .map(|(bridge, _)| bridge.clone())
        .collect();
    needs.push(radio.interface.clone());
    needs.sort();
    needs.dedup();
    let files = vec![lines.file(places, &format!("{name}.conf"))];
    Ok(super::child(name, "hostapd", &[&conf], files, needs))
}

fn add_radio(radio: &Radio, lines: &mut Lines) {
    let wifi = &radio.wifi;
    lines.add("driver=nl80211");
    lines.add(format!("country_code={}", wifi.country));
    lines.add("ieee80211d=1");
    lines.add(format!(
        "hw_mode={}",
        if wifi.band == Band::Two { "g" } else { "a" }
    ));
    lines.add(format!("channel={}", radio.channel));
    lines.add("wmm_enabled=1");
    let channels = covered(radio.channel, wifi.band, wifi.width).unwrap_or_default();
    let first = channels.first().copied().unwrap_or(radio.channel);
    // The middle of what it covers, in the numbers of channels.
    let center = u32::from(first) + 2 * (u32::try_from(channels.len()).unwrap_or(1) - 1);
    if wifi.band == Band::Six {
        let class = match wifi.width {
            Width::Twenty => 131,
            Width::Forty => 132,
            Width::Eighty => 133,
        };
        lines.add(format!("op_class={class}"));
        lines.add("ieee80211ax=1");
        lines.add(format!("he_oper_centr_freq_seg0_idx={center}"));
        lines.add(format!(
            "he_oper_chwidth={}",
            u8::from(wifi.width == Width::Eighty)
        ));
        return;
    }
    lines.add("ieee80211n=1");
    if wifi.band == Band::Five {
        // Where radar is listened for, and what it takes to be let on there.
        lines.add("ieee80211h=1");
    }
    if wifi.width > Width::Twenty {
        let second = if wifi.band == Band::Two {
            first == radio.channel
        } else {
            ((radio.channel - first) / 4).is_multiple_of(2)
        };
        lines.add(format!("ht_capab=[HT40{}]", if second { '+' } else { '-' }));
    }
    if wifi.band == Band::Five && wifi.width == Width::Eighty {
        lines.add("ieee80211ac=1");
        lines.add("vht_oper_chwidth=1");
        lines.add(format!("vht_oper_centr_freq_seg0_idx={center}"));
    }
}

fn add_ssid(ssid: &Ssid, band: Band, world: &World, lines: &mut Lines) -> Result<(), String> {
    let hex: String = ssid
        .name
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    // Without quotes it is hexadecimal.
    lines.add(format!("ssid2={hex}"));
    lines.add("utf8_ssid=1");
    lines.add(format!("ignore_broadcast_ssid={}", u8::from(ssid.hidden)));
    lines.add("auth_algs=1");
    // Management frames are protected: always with what is new, where both sides can with what is mixed.
    let (management, protection) = match ssid.security {
        Security::Open => return Ok(()),
        Security::Owe => ("OWE", 2),
        Security::Wpa3 => ("SAE", 2),
        Security::Wpa2Wpa3 => ("WPA-PSK SAE", 1),
        Security::Wpa2 => ("WPA-PSK WPA-PSK-SHA256", 1),
    };
    lines.add("wpa=2");
    lines.add(format!("wpa_key_mgmt={management}"));
    lines.add("rsn_pairwise=CCMP");
    lines.add(format!("ieee80211w={protection}"));
    if ssid.security == Security::Owe {
        return Ok(());
    }
    let password = super::password(ssid.password.as_ref(), ssid.password_file.as_deref(), world)?;
    if !is_passphrase(password.expose()) {
        return Err(
            "a Wi-Fi's password has 8 to 63 letters, digits, spaces and signs of ASCII".into(),
        );
    }
    // For SAE too: in `sae_password` some signs have a meaning.
    lines.add(format!("wpa_passphrase={}", password.expose()));
    if matches!(ssid.security, Security::Wpa3 | Security::Wpa2Wpa3) {
        lines.add("sae_require_mfp=1");
        // Hash to element, alone at 6 GHz (IEEE 802.11 section 12.4.4.2.3).
        lines.add(format!("sae_pwe={}", if band == Band::Six { 1 } else { 2 }));
    }
    Ok(())
}
