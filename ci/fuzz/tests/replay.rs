//! Replays every corpus and mutations of it. `ALTNET_FUZZ_MUTATIONS` says how many of each
//! input; without it as many as take some seconds in all.

use std::fs;
use std::path::PathBuf;

use altnet_fuzz::{TARGETS, Target, mutate};

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// Says which input it was when a target panics.
struct Trying<'a>(&'a str, &'a [u8]);

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.1.iter().map(|octet| format!("{octet:02x}")).collect();
            eprintln!("{} panics on {hex}", self.0);
        }
    }
}

fn replay(name: &str, mutations: u64) {
    let target: Target = TARGETS.iter().find(|(n, _)| *n == name).unwrap().1;
    let set = std::env::var("ALTNET_FUZZ_MUTATIONS").ok();
    let mutations = set.and_then(|text| text.parse().ok()).unwrap_or(mutations);
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "a target without a corpus");
    target(&[]);
    for (at, (path, input)) in corpus.iter().enumerate() {
        let label = path.display().to_string();
        {
            let _trying = Trying(&label, input);
            target(input);
        }
        let other = &corpus[(at + 1) % corpus.len()].1;
        for n in 0..mutations {
            let mutated = mutate::mutated(input, other, n);
            let _trying = Trying(&label, &mutated);
            target(&mutated);
        }
    }
}

macro_rules! targets {
    ($($name:ident: $mutations:expr),* $(,)?) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name), $mutations);
        })*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            let all: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(replayed[..], all[..]);
        }
    };
}

targets! {
    envelope: 2000,
    message: 2000,
    control_packet: 5000,
    relay_header: 5000,
    echo: 5000,
    knock: 5000,
    wireguard_message: 5000,
    stun: 5000,
    stun_server: 3000,
    ip_and_policy: 5000,
    policy: 3000,
    dns: 3000,
    solicitation: 5000,
    router_advertisement: 5000,
    portmap: 5000,
    port_mapper: 5000,
    link: 5000,
    bundle: 1500,
    identity: 2000,
    audit: 3000,
    registry: 600,
    control: 800,
    engine: 800,
    turn_client: 2000,
    stored: 500,
    node: 300,
    ldap_answer: 5000,
    certificate_status: 1000,
    id_token: 3000,
    login_form: 3000,
    passkey: 1000,
    authority: 3000,
    derp: 2000,
    derp_server: 500,
    pieces: 3000,
    clamped_syn: 5000,
    path_mtu: 5000,
    hook: 300,
    probe_reply: 5000,
    update_bundle: 3000,
    update_state: 3000,
    update_story: 3000,
    update_answer: 5000,
    release_keys: 5000,
    slot_choice: 2000,
    partition_table: 500,
    uci: 5000,
    claim: 300,
    claim_words: 3000,
    setup: 3000,
}
