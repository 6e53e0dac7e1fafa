//! What an idle gateway costs its line: `ci/bench idle` runs it and says what the figures mean.
//!
//! Prints a table, or with `--json` one object. A day of virtual time takes some seconds.

use std::process::ExitCode;

use altnet_core::node::Config;
use altnet_sim::founder::FOUNDED;
use altnet_sim::homes::seconds;
use altnet_sim::idle::{Idle, PEERS};
use altnet_sim::nat::Kind;

const SEED: u64 = 12_001;
const HOURS: usize = 24;
/// The most bytes a day may take behind a NAT that keeps mappings for two minutes.
const AIM_BYTES: u64 = 500_000;
const AIM_MS: u128 = 1000;

fn main() -> ExitCode {
    let is_json = std::env::args().any(|argument| argument == "--json");
    let mut days = Vec::new();
    for (lasts_s, metered) in [(120, false), (30, false), (120, true)] {
        let kind = Kind::PORT_RESTRICTED.lasting(seconds(lasts_s));
        let config = Config {
            metered,
            ..Config::router(FOUNDED)
        };
        let mut idle = Idle::new(SEED, kind, config);
        let longest = idle.hours(HOURS);
        days.push((
            (lasts_s, metered),
            idle.traffic.bytes(),
            longest.as_millis(),
        ));
        if is_json {
            continue;
        }
        let line = if metered { ", a metered line" } else { "" };
        println!("NAT timeout {lasts_s} s, {PEERS} peers, {HOURS} hours{line}:");
        for (kind, (datagrams, bytes)) in &idle.traffic.kinds {
            println!("  {kind:20} {datagrams:8} datagrams {bytes:10} bytes");
        }
        let (total, ms) = (idle.traffic.bytes(), longest.as_millis());
        println!("  {:20} {total:29} bytes", "all");
        println!("  the slowest call was answered after {ms} ms");
    }
    let answered_ms = days.iter().map(|(_, _, ms)| *ms).max().unwrap_or_default();
    let bytes = |wanted| {
        let mut found = days.iter().filter(|(day, ..)| *day == wanted);
        found.next().map_or(u64::MAX, |(_, bytes, _)| *bytes)
    };
    if is_json {
        println!(
            r#"{{"bytes_per_day_sim": {}, "bytes_per_day_sim_nat30": {}, "bytes_per_day_sim_metered": {}, "answered_ms_max": {answered_ms}}}"#,
            bytes((120, false)),
            bytes((30, false)),
            bytes((120, true))
        );
    }
    let holds = bytes((120, false)) <= AIM_BYTES && answered_ms <= AIM_MS;
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
