use super::*;

const A: NodeId = NodeId([1; 16]);
const B: NodeId = NodeId([2; 16]);

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn relay() -> RelayServer {
    let mut relay = RelayServer::new(2);
    relay
        .register(A, Way::Udp(address(1)), Token(11), at(0))
        .unwrap();
    relay
        .register(B, Way::Udp(address(2)), Token(22), at(0))
        .unwrap();
    relay
}

const fn data(bytes: usize) -> Parcel {
    Parcel {
        bytes,
        is_control: false,
    }
}

#[test]
fn a_datagram_goes_to_where_its_destination_registered() {
    let mut relay = relay();
    assert_eq!(relay.sender(address(1), Token(11), at(1)), Ok(A));
    assert_eq!(relay.forward(B, 100, at(1)), Ok(Way::Udp(address(2))));
    assert_eq!(
        relay.forward(NodeId([3; 16]), 1, at(1)),
        Err(RelayDrop::NoSuchNode)
    );
    assert_eq!(relay.counters().forwarded_bytes, 100);
}

#[test]
fn a_token_is_good_from_its_own_address_alone() {
    let mut relay = relay();
    assert_eq!(
        relay.sender(address(9), Token(11), at(1)),
        Err(RelayDrop::BadToken)
    );
    assert_eq!(
        relay.sender(address(1), Token(12), at(1)),
        Err(RelayDrop::BadToken)
    );
    // Registering again from elsewhere doesn't move it; proving the address does.
    assert_eq!(
        relay.register(A, Way::Udp(address(9)), Token(99), at(1)),
        Ok(Token(11))
    );
    assert_eq!(
        relay.sender(address(9), Token(11), at(1)),
        Err(RelayDrop::BadToken)
    );
    relay.moved(A, address(9));
    assert_eq!(relay.sender(address(9), Token(11), at(1)), Ok(A));
    assert_eq!(
        relay.sender(address(1), Token(11), at(1)),
        Err(RelayDrop::BadToken)
    );
}

#[test]
fn a_registration_ends_by_time_and_by_revocation() {
    let mut relay = relay();
    relay.remove(A);
    assert_eq!(
        relay.sender(address(1), Token(11), at(1)),
        Err(RelayDrop::BadToken)
    );
    assert_eq!(relay.forward(A, 1, at(1)), Err(RelayDrop::NoSuchNode));
    let later = at(u64::from(LIFETIME_S));
    assert_eq!(
        relay.sender(address(2), Token(22), later),
        Err(RelayDrop::BadToken)
    );
}

#[test]
fn a_client_that_keeps_is_answered_after_the_silence_and_stays_longer() {
    let mut relay = relay();
    let after_s = 120;
    let lasts_s = u64::from(MOST_SILENCE_S) + u64::from(LIFETIME_S);
    assert_eq!(relay.keep(address(1), Token(11), after_s, at(1)), Ok(A));
    assert_eq!(relay.keep(address(2), Token(22), 0, at(1)), Ok(B));
    assert_eq!(
        relay.keep(address(2), Token(11), 0, at(1)),
        Err(RelayDrop::BadToken)
    );
    let kept = |port, token, after_s| Kept {
        to: address(port),
        token: Token(token),
        after_s,
    };
    assert_eq!(relay.poll_kept(at(1)), Some(kept(2, 22, 0)));
    assert_eq!(relay.poll_kept(at(1)), None);
    assert_eq!(relay.answers_at(), at(121));
    relay.expire(at(lasts_s));
    assert!(relay.serves(A) && relay.serves(B));
    // It is answered where it is by then.
    relay.moved(A, address(9));
    let due = at(121);
    assert_eq!(relay.poll_kept(due), Some(kept(9, 11, after_s)));
    assert_eq!(relay.poll_kept(due), None);
    assert_eq!(relay.answers_at(), Instant::NEVER);
    relay.expire(at(1 + lasts_s));
    assert!(relay.is_empty());
}

#[test]
fn nobody_is_promised_an_answer_later_than_four_minutes() {
    let mut relay = relay();
    assert_eq!(relay.keep(address(1), Token(11), u16::MAX, at(0)), Ok(A));
    assert_eq!(relay.answers_at(), at(u64::from(MOST_SILENCE_S)));
}

#[test]
fn a_client_of_a_stream_is_reached_there_until_it_ends_or_udp_carries_again() {
    let mut relay = relay();
    let stream = Way::Stream(StreamId(7));
    assert_eq!(relay.register(A, stream, Token(99), at(1)), Ok(Token(11)));
    assert_eq!(relay.forward(A, 1, at(1)), Ok(stream));
    assert_eq!(relay.streamer(StreamId(7), at(1)), Some(A));
    assert_eq!(relay.address(A), None);
    // Nobody sends by UDP with the token of one who isn't there.
    assert_eq!(
        relay.sender(address(1), Token(11), at(1)),
        Err(RelayDrop::BadToken)
    );
    let udp = Way::Udp(address(5));
    assert_eq!(relay.register(A, udp, Token(99), at(2)), Ok(Token(11)));
    assert_eq!(relay.forward(A, 1, at(2)), Ok(udp));
    assert_eq!(relay.streamer(StreamId(7), at(2)), None);
    // What it sent before it knew is taken from where it came.
    assert_eq!(relay.sends_over(StreamId(7), at(2)), Some(A));
    relay.stream_closed(StreamId(7));
    assert_eq!(relay.sends_over(StreamId(7), at(2)), None);
    assert!(relay.serves(A));
    relay.register(B, stream, Token(99), at(2)).unwrap();
    relay.stream_closed(StreamId(7));
    assert!(!relay.serves(B));
}

#[test]
fn a_full_relay_says_so_until_somebody_leaves() {
    let mut relay = relay();
    let third = NodeId([3; 16]);
    assert_eq!(
        relay.register(third, Way::Udp(address(3)), Token(33), at(1)),
        Err(RelayFull)
    );
    assert_eq!(
        relay.register(
            third,
            Way::Udp(address(3)),
            Token(33),
            at(LIFETIME_S.into())
        ),
        Ok(Token(33))
    );
}

#[test]
fn one_stream_is_never_two_clients() {
    let mut relay = relay();
    let stream = Way::Stream(StreamId(7));
    relay.register(A, stream, Token(99), at(1)).unwrap();
    relay.register(B, stream, Token(99), at(1)).unwrap();
    assert_eq!(relay.streamer(StreamId(7), at(1)), Some(B));
    // A left it behind: what becomes of the stream is nothing to B's.
    relay.moved(A, address(1));
    assert_eq!(relay.streamer(StreamId(7), at(1)), Some(B));
    assert_eq!(relay.sends_over(StreamId(7), at(1)), Some(B));
    relay.remove(A);
    assert_eq!(relay.streamer(StreamId(7), at(1)), Some(B));
    relay.stream_closed(StreamId(7));
    assert!(relay.is_empty());
}

#[test]
fn a_table_that_clients_come_to_and_leave_stays_as_small_as_it_was() {
    let mut relay = RelayServer::new(3);
    for round in 0..100u8 {
        let seconds = u64::from(round) * 40;
        // Two that renew, one that never does: it ends between others' renewals.
        for node in [A, B, NodeId([100 + round; 16])] {
            let way = Way::Udp(address(node.0[0].into()));
            let token = Token(u64::from(node.0[0]) << 8);
            let _ = relay.register(node, way, token, at(seconds));
            assert_eq!(relay.streams.len(), 0);
        }
        assert!(relay.clients.len() <= 3);
        assert_eq!(relay.len() + relay.free.len(), relay.clients.len());
        assert_eq!(relay.tokens.len(), relay.len());
        assert_eq!(relay.holder(Token(1 << 8)), Some(A));
        assert_eq!(relay.forward(B, 1, at(seconds)), Ok(Way::Udp(address(2))));
    }
}

#[test]
fn what_a_member_sent_this_month_is_not_forgotten_with_its_registration() {
    let mut relay = relay();
    relay.set_quotas(Quotas {
        month_bytes: 1000,
        ..Quotas::default()
    });
    assert_eq!(relay.spend(A, data(900), &|_| false, at(1)), Ok(()));
    relay.remove(A);
    let again = relay.register(A, Way::Udp(address(1)), Token(12), at(2));
    assert_eq!(again, Ok(Token(12)));
    // It is told so once in a while.
    assert_eq!(
        relay.spend(A, data(200), &|_| false, at(3)),
        Err((Over::Quota, true))
    );
    assert_eq!(
        relay.spend(A, data(200), &|_| false, at(4)),
        Err((Over::Quota, false))
    );
    assert_eq!(relay.spend(B, data(200), &|_| false, at(4)), Ok(()));
    assert_eq!(relay.counters().over, 2);
    // Another month begins.
    let month = at(MONTH.as_secs() + 1);
    assert_eq!(relay.spend(A, data(200), &|_| false, month), Ok(()));
}

#[test]
fn a_relay_is_as_busy_as_it_has_clients_or_its_line_is_full() {
    let mut relay = RelayServer::new(4);
    assert_eq!(relay.load(at(0)), 0);
    let way = Way::Udp(address(1));
    relay.register(A, way, Token(11), at(0)).unwrap();
    assert_eq!(relay.load(at(0)), 25);
    relay.set_quotas(Quotas {
        uplink_bytes_per_s: 1000,
        ..Quotas::default()
    });
    for s in 0..20 {
        let _ = relay.spend(A, data(900), &|_| false, at(s));
    }
    assert!(relay.load(at(20)) > 80);
}

#[test]
fn a_relay_is_known_by_the_beginning_of_its_token_and_its_address() {
    let mut relay = RelayServer::new(3);
    // Two that differ in what is left out.
    for (node, port, token) in [(A, 1, 0x1234_5601), (B, 2, 0x1234_5602)] {
        let way = Way::Udp(address(port));
        relay.register(node, way, Token(token), at(0)).unwrap();
    }
    let short = ShortToken::from(Token(0x1234_5600));
    assert_eq!(relay.sending_relay(address(1), short, at(1)), Ok(A));
    assert_eq!(relay.sending_relay(address(2), short, at(1)), Ok(B));
    let elsewhere = relay.sending_relay(address(3), short, at(1));
    assert_eq!(elsewhere, Err(RelayDrop::BadToken));
    assert!(relay.token_like(short).is_some());
    assert_eq!(relay.token_like(Token(0x1234_5700).into()), None);
}

#[test]
fn a_client_that_comes_over_a_stream_is_not_sent_to_by_udp_any_more() {
    let mut relay = relay();
    relay.came_over(A, StreamId(7));
    assert_eq!(relay.forward(A, 1, at(1)), Ok(Way::Stream(StreamId(7))));
    assert_eq!(relay.streamer(StreamId(7), at(1)), Some(A));
    // Who isn't registered isn't by that.
    relay.came_over(NodeId([3; 16]), StreamId(8));
    assert_eq!(relay.streamer(StreamId(8), at(1)), None);
}
