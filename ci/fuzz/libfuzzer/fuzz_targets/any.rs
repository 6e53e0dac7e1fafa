//! One binary for every target: `ALTNET_FUZZ_TARGET` names it.
#![no_main]

use std::sync::OnceLock;

use altnet_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

fn target() -> Target {
    let name = std::env::var("ALTNET_FUZZ_TARGET").expect("ALTNET_FUZZ_TARGET names a target");
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.expect("a target of that name").1
}

fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<Target> = OnceLock::new();
    TARGET.get_or_init(target)(data);
});
