//! Loads relays: ours by two of its members, another's by TURN, and either kind over TLS. Measures what
//! arrives; what it costs the relay is for whoever runs this to read (`hil-tests/relay.py` does).
//!
//! ```text
//! relay-bench members RELAY NAME=LINK NAME=LINK     real members, that join and register
//! relay-bench turn SERVER USERNAME PASSWORD         two allocations that send to each other
//! relay-bench turn-one SERVER USERNAME PASSWORD     one, and a peer without
//! relay-bench derp ADDRESS PIN CLIENTS              real clients over TLS; two of them send
//! relay-bench table CLIENTS                         memory of a relay's table of UDP clients
//! ```
//!
//! On standard input, a line each: `load BYTES SECONDS TRAINS`, where a datagram's payload has so many
//! bytes and `TRAINS` is 1 if the kernel may take datagrams to one address as one, as the product has
//! it, or 0. On standard output, a line of JSON each: that it is ready, and then what went and came.

use std::io::Write;

use anyhow::{Context, bail};

mod derp;
mod lane;
mod members;
mod table;
mod turn;

/// What is asked for: bytes a datagram, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    bytes: usize,
    seconds: f64,
    has_trains: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moved {
    sent: u64,
    received: u64,
    seconds: f64,
}

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["members", relay, a, b] => members::run(relay.parse()?, [a, b]),
        ["turn", server, username, password] => turn::run(server.parse()?, username, password),
        ["turn-one", server, username, password] => {
            turn::run_one(server.parse()?, username, password)
        }
        ["derp", address, pin, clients] => derp::run(address.parse()?, pin, clients.parse()?),
        ["table", clients] => table::run(clients.parse()?),
        _ => bail!("see the head of its source for what it is to be told"),
    }
}

/// Says that the load may begin, and carries out what is asked for until there is nothing more.
fn serve(mut load: impl FnMut(Load) -> anyhow::Result<Moved>) -> anyhow::Result<()> {
    say(&serde_json::json!({"ready": true}))?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["load", bytes, seconds, trains] = words.as_slice() else {
            bail!("what is {line}?");
        };
        let asked = Load {
            bytes: bytes.parse().context("bytes")?,
            seconds: seconds.parse().context("seconds")?,
            has_trains: *trains == "1",
        };
        let moved = load(asked)?;
        say(&serde_json::json!({
            "sent": moved.sent,
            "received": moved.received,
            "bytes": moved.received * asked.bytes as u64,
            "seconds": moved.seconds,
        }))?;
    }
    Ok(())
}

fn say(what: &serde_json::Value) -> anyhow::Result<()> {
    println!("{what}");
    Ok(std::io::stdout().flush()?)
}

fn seed() -> anyhow::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    Ok(seed)
}
