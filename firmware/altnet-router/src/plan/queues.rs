//! Queues by cake, where the line is kept from filling up somewhere else.
//!
//! Source: tc-cake(8), of which the overheads are.

use super::Queue;
use crate::config::{LinkLayer, Sqm};
use crate::house::{House, Wan, Way};

/// What a line adds to each IP packet.
struct Line {
    overhead_bytes: i16,
    smallest_bytes: u16,
    atm: bool,
}

pub(super) fn queues(house: &House) -> Vec<Queue> {
    house.wans.iter().flat_map(of_wan).collect()
}

fn of_wan(wan: &Wan) -> Vec<Queue> {
    let Some(sqm) = &wan.sqm else {
        return Vec::new();
    };
    let line = line(sqm, wan);
    let queue = |link: &str, ingress_of: Option<&str>, rate_kbit| Queue {
        link: link.into(),
        ingress_of: ingress_of.map(str::to_owned),
        rate_kbit,
        overhead_bytes: sqm.overhead_bytes.unwrap_or(line.overhead_bytes),
        smallest_bytes: line.smallest_bytes,
        atm: line.atm,
        nat: true,
    };
    let up = (sqm.upload_kbit > 0).then(|| queue(&wan.interface, None, sqm.upload_kbit));
    let down = wan
        .ingress()
        .map(|ifb| queue(&ifb, Some(&wan.interface), sqm.download_kbit));
    up.into_iter().chain(down).collect()
}

fn line(sqm: &Sqm, wan: &Wan) -> Line {
    let is_pppoe = matches!(wan.way, Way::Pppoe(_));
    let line = |overhead_bytes, smallest_bytes, atm| Line {
        overhead_bytes,
        smallest_bytes,
        atm,
    };
    // What PPPoE takes itself.
    let session = if is_pppoe { 8 } else { 0 };
    match sqm.line {
        // Preamble, header, checksum, gap.
        LinkLayer::Ethernet => line(38 + session, 84, false),
        LinkLayer::Docsis => line(18 + session, 64, false),
        // `bridged-ptm`, `pppoe-ptm`.
        LinkLayer::Vdsl => line(22 + session, 0, false),
        // `bridged-llcsnap`, `pppoe-llcsnap`.
        LinkLayer::Adsl => line(32 + session, 0, true),
    }
}
