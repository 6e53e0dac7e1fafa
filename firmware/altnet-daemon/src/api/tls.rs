//! The JSON of TLS: how far an app's is, and the authority that devices are to trust.

use altnet_wire::time::UnixTime;
use data_encoding::BASE64;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// How far an app's TLS is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppTls {
    /// The state.
    pub state: State,
    /// When its certificate ends.
    pub until: Option<String>,
    /// Why it can't be served.
    pub why: Option<String>,
}

/// How far TLS is. New ones may be added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It has no key yet: `altnet-tls` makes one.
    #[default]
    NoKey,
    /// It waits for an owner to sign.
    Waiting,
    /// It is served.
    Certified,
    /// What it got can't be served.
    Unfit,
    /// One that a newer altnetd has.
    #[serde(other)]
    Other,
}

impl AppTls {
    /// In this state.
    pub fn new(state: State) -> Self {
        Self {
            state,
            ..Self::default()
        }
    }

    /// Says why.
    #[must_use]
    pub fn why(mut self, why: String) -> Self {
        self.why = Some(why);
        self
    }

    /// In words.
    pub fn text(&self) -> String {
        match self.state {
            State::NoKey => "no key yet: altnetd's log says why if that lasts".into(),
            State::Waiting => "waiting for an owner to sign".into(),
            State::Certified => format!("until {}", self.until.as_deref().unwrap_or("-")),
            State::Unfit => format!("not served: {}", self.why.as_deref().unwrap_or("-")),
            State::Other => "-".into(),
        }
    }
}

/// Result of `login-tls`: for the login page alone.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Served {
    /// The certificate as DER, base64.
    pub certificate: String,
    /// The secret key as PKCS #8 in DER, base64.
    pub key: String,
}

/// Result of `tls-ca`: the network's authority for TLS, in the forms that devices take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Authority {
    /// The network's own name.
    pub network: String,
    /// SHA-256 of the certificate, as browsers show it.
    pub fingerprint: String,
    /// The names below which it can certify, and no others.
    pub zones: Vec<String>,
    /// When it ends.
    pub until: String,
    /// The certificate as PEM (RFC 7468).
    pub pem: String,
    /// The certificate as DER, base64.
    pub der: String,
    /// A configuration profile for iOS and macOS, which brings the certificate.
    pub mobileconfig: String,
    /// What who trusts it trusts it for, in a sentence or two.
    pub text: String,
}

impl Authority {
    /// The network `name` with this id has this authority, a certificate in DER.
    pub fn of(name: &str, id: &str, certificate: &[u8], until: UnixTime) -> Self {
        let der = BASE64.encode(certificate);
        let hash = digest(&SHA256, certificate);
        let octets: Vec<String> = hash.as_ref().iter().map(|b| format!("{b:02X}")).collect();
        let zones = [name, id].map(|zone| format!("{zone}.alt"));
        let text = format!(
            "Whoever trusts it can open https:// addresses that end in .{} or .{}. It can vouch for no other address: each browser refuses a certificate of its for anything else.",
            zones[0], zones[1]
        );
        Self {
            network: name.into(),
            fingerprint: octets.join(":"),
            pem: pem(&der),
            mobileconfig: profile(name, id, &der, hash.as_ref()),
            zones: zones.into(),
            until: until.to_string(),
            der,
            text,
        }
    }
}

fn pem(der: &str) -> String {
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = der;
    while !rest.is_empty() {
        // Base64 is ASCII.
        let (line, next) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = next;
    }
    pem + "-----END CERTIFICATE-----\n"
}

/// A profile with one payload, `com.apple.security.root` (Apple, Configuration Profile Reference).
/// Names hold no character that XML would take for its own.
fn profile(name: &str, id: &str, der: &str, hash: &[u8]) -> String {
    let (outer, inner) = (uuid(hash, 0), uuid(hash, 1));
    let id = id.get(..12).unwrap_or(id);
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0"><dict>
<key>PayloadContent</key><array><dict>
<key>PayloadContent</key><data>{der}</data>
<key>PayloadDisplayName</key><string>altnet {name}</string>
<key>PayloadIdentifier</key><string>alt.{id}.authority.certificate</string>
<key>PayloadType</key><string>com.apple.security.root</string>
<key>PayloadUUID</key><string>{inner}</string>
<key>PayloadVersion</key><integer>1</integer>
</dict></array>
<key>PayloadDescription</key><string>Trusts the addresses below {name}.alt, and no others.</string>
<key>PayloadDisplayName</key><string>altnet {name}</string>
<key>PayloadIdentifier</key><string>alt.{id}.authority</string>
<key>PayloadType</key><string>Configuration</string>
<key>PayloadUUID</key><string>{outer}</string>
<key>PayloadVersion</key><integer>1</integer>
</dict></plist>
"#
    )
}

/// The same for the same certificate, so that a profile fetched again takes the place of the first
/// (RFC 9562 section 5.8: version 8 is ours to fill).
fn uuid(hash: &[u8], which: u8) -> String {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(hash) {
        *to = *from;
    }
    bytes[15] ^= which;
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02X}")).collect();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
    [
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32),
    ]
    .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_told_in_every_form() {
        let certificate: Vec<u8> = (0..=255).collect();
        let until = UnixTime::from_secs(2_000_000_000);
        let told = Authority::of("home", &"a".repeat(52), &certificate, until);
        // From coreutils: `sha256sum` of the bytes 0 to 255.
        assert!(told.fingerprint.starts_with("40:AF:F2:E9:D2:D8:92:2E"));
        assert_eq!(told.zones[0], "home.alt");
        let lines: Vec<&str> = told.pem.lines().collect();
        assert_eq!(lines.len(), 2 + told.der.len().div_ceil(64));
        assert_eq!(lines[1..lines.len() - 1].concat(), told.der);
        assert!(
            told.mobileconfig
                .contains(&format!("<data>{}</data>", told.der))
        );
        let uuids: Vec<&str> = told
            .mobileconfig
            .lines()
            .filter_map(|line| line.strip_prefix("<key>PayloadUUID</key><string>"))
            .collect();
        assert_eq!(uuids.len(), 2);
        assert_ne!(uuids[0], uuids[1]);
        assert_eq!(uuids[0].len(), 36 + "</string>".len());
    }
}
