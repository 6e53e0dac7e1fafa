//! Streams where no UDP passes, and what a relay does with those that nobody uses.

use altnet_core::relay::StreamId;
use altnet_core::relay::guests::MAX_GUESTS;
use altnet_sim::homes::{Homes, seconds};
use altnet_sim::nat::Kind;

#[test]
fn a_stream_over_which_nobody_registers_is_closed_and_a_members_is_not() {
    let mut homes = Homes::new(13_001, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    homes.world.serve_streams();
    homes.world.block_udp(homes.a, true);
    homes.world.restart(homes.a);
    assert!(homes.reaches("over a stream"), "{}", homes.story());
    // Somebody connects and says nothing at all.
    let silent = StreamId(9000);
    let relay = homes.relay;
    homes
        .world
        .with(relay, |node, now| node.handle_stream_opened(silent, now))
        .unwrap();
    homes.world.run(seconds(19));
    assert_eq!(homes.world.closed_streams(), []);
    homes.world.run(seconds(2));
    assert_eq!(homes.world.closed_streams(), [silent]);
    homes.world.run(seconds(60));
    assert_eq!(homes.world.closed_streams(), []);
    assert_eq!(homes.world.streams(), 1);
    assert!(homes.reaches("still over it"));
}

#[test]
fn regression_a_relay_sends_over_the_stream_to_one_that_was_registered_by_udp() {
    // A registration that was kept lasts for more than five minutes.
    for (seed, restarts) in [(13_011, true), (13_012, false)] {
        let mut homes = Homes::new(seed, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
        homes.world.serve_streams();
        homes.world.run(seconds(600));
        homes.world.block_udp(homes.a, true);
        if restarts {
            homes.world.restart(homes.a);
        } else {
            // Its kernel says that something is another than it was.
            let address = "192.168.1.3:51820".parse().unwrap();
            homes
                .world
                .with(homes.a, |node, now| node.handle_interfaces(&[address], now));
        }
        homes.world.run(seconds(45));
        assert!(homes.reaches("over a stream"), "{seed}: {}", homes.story());
    }
}

#[test]
fn strangers_who_say_nothing_keep_nobody_out_for_longer_than_their_time() {
    let mut homes = Homes::new(13_002, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    let relay = homes.relay;
    let come = |homes: &mut Homes, number: u32| {
        let stream = StreamId(9000 + number);
        homes
            .world
            .with(relay, |node, now| node.handle_stream_opened(stream, now))
    };
    for number in (0..).take(MAX_GUESTS) {
        assert!(come(&mut homes, number).is_ok());
    }
    assert!(come(&mut homes, 5000).is_err());
    homes.world.run(seconds(21));
    assert_eq!(homes.world.closed_streams().len(), MAX_GUESTS);
    assert!(come(&mut homes, 5000).is_ok());
}
