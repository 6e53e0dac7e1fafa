//! Writes a corpus of valid inputs for every target: `cargo run -p altnet-fuzz --example
//! seed-corpus`. What is there already stays.

use std::fs;
use std::path::Path;

use altnet_fuzz::{
    TARGETS, appliances, audit, authority, houses, knocks, logins, machines, parsers, policies,
    portmap, relays, routers, sizes, stun, turn, uci, updates, world,
};

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, _) in TARGETS {
        let folder = corpus.join(name);
        fs::create_dir_all(&folder)?;
        let sources = [
            parsers::seeds(name),
            policies::seeds(name),
            portmap::seeds(name),
            machines::seeds(name),
            world::seeds(name),
            audit::seeds(name),
            logins::seeds(name),
            authority::seeds(name),
            turn::seeds(name),
            relays::seeds(name),
            sizes::seeds(name),
            stun::seeds(name),
            knocks::seeds(name),
            routers::seeds(name),
            houses::seeds(name),
            updates::seeds(name),
            appliances::seeds(name),
            uci::seeds(name),
        ];
        for (at, seed) in sources.concat().iter().enumerate() {
            fs::write(folder.join(format!("seed-{at:02}")), seed)?;
        }
    }
    Ok(())
}
