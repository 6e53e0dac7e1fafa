//! OpenWrt's files, which people and other programs write.

use std::collections::BTreeMap;
use std::path::Path;

use altnet_service::uci::File;

type Section = BTreeMap<String, String>;

/// Any text as a file, read as several types. What reads as sections reads the same when it is written again.
pub fn uci(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let path = Path::new("altnet");
    let file = match File::parse(path, &text) {
        Ok(file) => file,
        Err(e) => {
            let _ = e.to_string();
            return;
        }
    };
    let _ = file.read::<BTreeMap<String, u16>>("altnet");
    let _ = file.read::<BTreeMap<String, Vec<bool>>>("altnet");
    let _ = file.read::<BTreeMap<String, Vec<Section>>>("altnet");
    let Ok(sections) = file.read::<BTreeMap<String, Section>>("") else {
        return;
    };
    let mut written = String::new();
    for (kind, options) in &sections {
        written += &format!("config {kind}\n");
        for (name, value) in options {
            written += &format!("\toption {name} '{}'\n", value.replace('\'', "'\\''"));
        }
    }
    let file = File::parse(path, &written).expect("what was read can be written");
    let again = file.read::<BTreeMap<String, Section>>("");
    assert_eq!(again.ok(), Some(sections));
}

/// Valid inputs.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "uci" => vec![
            include_bytes!("../../../linux-image/openwrt/files/etc/config/altnet").to_vec(),
            b"package altnet\nconfig a 'b'\n\toption c \"d \\\" e\"\n\toption f 'g'\\''h'\nconfig i\n\toption j k\\\nl\n"
                .to_vec(),
            b"config altnet\n\toption a 1\n\toption b 65535\n\tlist c on # d\n\tlist c '0'\n".to_vec(),
        ],
        _ => Vec::new(),
    }
}
