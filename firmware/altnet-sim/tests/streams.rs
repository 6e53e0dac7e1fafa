//! Streams where no UDP passes, and what a relay does with those that nobody uses.

use altnet_core::relay::StreamId;
use altnet_core::relay::guests::MAX_GUESTS;
use altnet_sim::homes::{Homes, seconds};
use altnet_sim::nat::Kind;

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
