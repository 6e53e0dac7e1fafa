//! What a relay remembers of clients by UDP, in memory of this process: a network of so many real
//! members takes more than one machine.

use std::net::{Ipv6Addr, SocketAddr};

use altnet_core::relay::{RelayServer, Way};
use altnet_wire::id::NodeId;
use altnet_wire::relay::Token;
use altnet_wire::time::Instant;
use anyhow::{Context, ensure};

use crate::say;

pub fn run(clients: u16) -> anyhow::Result<()> {
    let before = resident_bytes()?;
    let mut relay = RelayServer::new(clients.into());
    for client in 0..clients {
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        let token = Token(u64::from_be_bytes(*id.first_chunk().context("16 bytes")?));
        let address = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), client);
        relay.register(NodeId(id), Way::Udp(address), token, Instant::ZERO)?;
    }
    let after = resident_bytes()?;
    ensure!(
        relay.len() == usize::from(clients),
        "not all are registered"
    );
    let bytes = after.saturating_sub(before);
    say(&serde_json::json!({"clients": clients, "bytes": bytes}))
}

fn resident_bytes() -> anyhow::Result<u64> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let word = line.and_then(|line| line.split_whitespace().next());
    Ok(word.context("no Rss")?.parse::<u64>()? * 1024)
}
