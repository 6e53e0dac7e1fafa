//! Relays measured by what a node sends itself through them.

use altnet_core::node::{Command, CommandError, Config, Event};
use altnet_core::relay::bench::{Report, USUAL_BYTES};
use altnet_sim::founder::FOUNDED;
use altnet_sim::homes::{HOUSE_A, Homes, entry, seconds};
use altnet_sim::nat::Kind;
use altnet_wire::echo::ECHO;
use altnet_wire::id::NodeId;
use altnet_wire::relay::{RECEIVE, RECEIVE_HEADER_BYTES};
use altnet_wire::time::Duration;

const KINDS: [Kind; 2] = [Kind::PORT_RESTRICTED; 2];

fn relay(homes: &Homes) -> NodeId {
    let status = homes.world.node(homes.a).status(homes.world.now());
    NodeId(
        status.relays[0]
            .node
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    )
}

fn begin(homes: &mut Homes, bytes: u32, anyway: bool) -> Result<(), CommandError> {
    let command = Command::Bench {
        relay: relay(homes),
        bytes,
        even_if_metered: anyway,
    };
    let a = homes.a;
    homes
        .world
        .with(a, |node, now| node.handle_command(command, now))
}

/// Has house A measure its relay.
fn measure(homes: &mut Homes, bytes: u32) -> Report {
    begin(homes, bytes, false).unwrap();
    let a = homes.a;
    let mut found = None;
    homes.world.run_for(seconds(10), |world| {
        found = world.told(a).into_iter().find_map(|event| match event {
            Event::Benched { report, .. } => Some(report),
            _ => None,
        });
        found.is_some()
    });
    found.expect("a run ends")
}

#[test]
fn a_relay_is_measured_without_anybodys_help_and_no_more_is_sent_than_allowed() {
    let mut homes = Homes::new(15_001, KINDS[0], KINDS[1]);
    homes.world.run(seconds(10));
    homes.world.capture = true;
    let report = measure(&mut homes, 100_000);
    assert_eq!(report.pings, (10, 10));
    // 10 to 14 ms each way, twice.
    let rtt = report.rtt_median.unwrap();
    let within = Duration::from_millis(20)..=Duration::from_millis(28);
    assert!(within.contains(&rtt), "{report:?}");
    assert_eq!(report.datagrams.0, report.datagrams.1);
    assert!(report.rate_bytes_per_s.unwrap() > 0 && report.is_at_least);
    let house: std::net::IpAddr = HOUSE_A.parse().unwrap();
    let large = homes.world.captured.iter();
    let large = large.filter(|c| c.from.ip() == house && c.bytes.len() > 1000);
    let sent: usize = large.map(|c| c.bytes.len()).sum();
    assert!((90_000..=105_000).contains(&sent), "{sent}");
}

#[test]
fn a_relay_that_loses_is_shown_to() {
    let mut homes = Homes::new(15_002, KINDS[0], KINDS[1]);
    homes.world.run(seconds(10));
    homes.world.lose(100);
    let report = measure(&mut homes, USUAL_BYTES);
    let (sent, came) = report.datagrams;
    // A tenth is lost on each of four hops.
    let lost = f64::from(sent - came) / f64::from(sent);
    assert!((0.12..0.3).contains(&lost), "{report:?}");
}

#[test]
fn a_relay_that_only_a_stream_leads_to_is_measured_too() {
    let mut homes = Homes::new(15_003, KINDS[0], KINDS[1]);
    homes.world.serve_streams();
    homes.world.block_udp(homes.a, true);
    homes.world.restart(homes.a);
    assert!(homes.reaches("over a stream"));
    let report = measure(&mut homes, 100_000);
    assert_eq!(
        (report.pings, report.datagrams.0),
        ((10, 10), report.datagrams.1)
    );
    assert!(report.rtt_median.unwrap() >= Duration::from_millis(24));
}

#[test]
fn what_others_send_in_the_place_of_it_counts_for_nothing() {
    let mut homes = Homes::new(15_004, KINDS[0], KINDS[1]);
    homes.world.run(seconds(10));
    homes.world.capture = true;
    // Nothing of the node's own comes back.
    homes.world.lose_kind(|bytes| {
        bytes.first() == Some(&RECEIVE) && bytes.get(RECEIVE_HEADER_BYTES) == Some(&ECHO)
    });
    begin(&mut homes, USUAL_BYTES, false).unwrap();
    homes.world.run(Duration::from_millis(50));
    let returned = homes
        .world
        .captured
        .iter()
        .find(|c| c.from == entry() && c.bytes.first() == Some(&RECEIVE));
    let returned = returned.expect("the relay sends it back").clone();
    homes.world.lose_kind(|_| false);
    // The relay makes up others, or sends the same again as if it were from somebody else.
    for number in 1..10 {
        let mut made_up = returned.bytes.clone();
        made_up[RECEIVE_HEADER_BYTES + 7] = number;
        homes.world.inject(entry(), returned.to, made_up);
        let mut others = returned.bytes.clone();
        others[4] ^= number;
        homes.world.inject(entry(), returned.to, others);
    }
    homes.world.lose_kind(|bytes| bytes.first() == Some(&0x10));
    let a = homes.a;
    let mut found = None;
    homes.world.run_for(seconds(10), |world| {
        found = world.told(a).into_iter().find_map(|event| match event {
            Event::Benched { report, .. } => Some(report),
            _ => None,
        });
        found.is_some()
    });
    assert_eq!(found.map(|report| report.pings), Some((10, 0)));
}

#[test]
fn a_metered_line_is_asked_twice_and_one_run_is_made_at_a_time() {
    let config = Config {
        metered: true,
        ..Config::router(FOUNDED)
    };
    let mut homes = Homes::with(15_005, KINDS, config);
    homes.world.run(seconds(10));
    assert_eq!(begin(&mut homes, 1000, false), Err(CommandError::Metered));
    assert_eq!(begin(&mut homes, 1000, true), Ok(()));
    assert_eq!(begin(&mut homes, 1000, true), Err(CommandError::Measuring));
    homes.world.run(seconds(10));
    assert_eq!(begin(&mut homes, 1000, true), Ok(()));
    // Whoever leaves the network measures nothing any more.
    homes.world.command(homes.a, Command::Leave);
    homes.world.run(seconds(10));
}
