//! What routers advertise of a NAT64: any bytes as an advertisement, and any advertisements one after the other.

use std::net::Ipv6Addr;

use altnet_core::lan::pref64::{self, Advertised, MAX_PREFIXES, Router};
use altnet_wire::time::{Duration, Instant};

use crate::bytes::Bytes;

/// Scenarios longer than this many steps are cut off.
const STEPS: usize = 64;

/// Reads the bytes as an advertisement, then as how several come.
pub fn router_advertisement(data: &[u8]) {
    let address: Ipv6Addr = "fe80::1".parse().expect("an address");
    let read = |message: &[u8]| pref64::parse(message, address, 255).unwrap_or_default();
    for found in &read(data) {
        let low = u128::MAX >> found.bits;
        assert_eq!(found.prefix.to_bits() & low, 0);
        assert!(found.lifetime_s % 8 == 0 && found.lifetime_s <= 65_528);
    }
    let mut bytes = Bytes(data);
    let mut advertised = Advertised::default();
    let mut now = Instant::ZERO;
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        now = now.after(Duration::from_secs(bytes.pair().into()));
        let interface = u32::from(bytes.octet() % 4);
        let message = bytes.run();
        let found = read(message);
        assert!(found.len() <= MAX_PREFIXES);
        advertised.handle(Router { interface, address }, &found, now);
        assert!(advertised.deadline() > now);
        // What holds is there until its deadline, and then no longer.
        let is_none = advertised.deadline() == Instant::NEVER;
        assert_eq!(advertised.prefix(now).is_none(), is_none);
        if bytes.octet() & 1 == 1 {
            advertised.keep(|kept| kept != interface);
        }
    }
}

/// Valid inputs.
pub fn seeds(name: &str) -> Vec<Vec<u8>> {
    if name != "router_advertisement" {
        return Vec::new();
    }
    let header = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let link_address = [1, 1, 2, 0, 0, 0, 0, 9];
    let option = |a, b, last| [38, 2, a, b, 0x20, 1, 0x0d, 0xb8, 0, last, 0, 0, 0, 0, 0, 0];
    let whole = [&header[..], &link_address, &option(7, 8, 0x64)].concat();
    let back = [&header[..], &option(0, 0, 0x64), &option(255, 251, 0x65)].concat();
    let length = |message: &[u8]| u8::try_from(message.len()).expect("a short one");
    let story = [
        &[0, 9, 2, length(&whole)][..],
        &whole,
        &[0, 1, 0, 2, length(&back)],
        &back,
        &[1],
    ]
    .concat();
    vec![whole, back, story]
}
