//! Nothing is allocated for a packet or a timer once two nodes know each other.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;

use altnet_core::node::{Output, Verdict};
use altnet_core::turn::{Credentials, TurnClient, TurnConfig, TurnOutput};
use altnet_sim::chaos::relay_v4;
use altnet_sim::homes::{Homes, seconds};
use altnet_sim::meshes::Meshes;
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::mesh::FORWARD;
use altnet_wire::relay::{RECEIVE, SEND};
use altnet_wire::stun::attribute::{LIFETIME, XOR_MAPPED_ADDRESS, XOR_RELAYED_ADDRESS};
use altnet_wire::stun::write::Writer;
use altnet_wire::stun::{Class, Message};
use altnet_wire::time::{Duration, Instant};

thread_local! {
    static COUNTS: Cell<bool> = const { Cell::new(false) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, which counts what a thread asks for while it wants to know.
struct Counting;

fn count() {
    // A thread that ends has no more to count.
    let _ = COUNTS.try_with(|counts| {
        if counts.get() {
            let _ = ALLOCATIONS.try_with(|all| all.set(all.get() + 1));
        }
    });
}

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `act` gives, and how often it allocated.
fn counted<T>(act: impl FnOnce() -> T) -> (T, u64) {
    let before = ALLOCATIONS.with(Cell::get);
    COUNTS.with(|counts| counts.set(true));
    let result = act();
    COUNTS.with(|counts| counts.set(false));
    (result, ALLOCATIONS.with(Cell::get) - before)
}

#[test]
fn a_packet_allocates_nothing_on_its_way() {
    for (seed, nat) in [(901, Kind::SYMMETRIC), (902, Kind::PORT_RESTRICTED)] {
        let mut homes = Homes::new(seed, nat, nat);
        let path = if nat == Kind::SYMMETRIC {
            "relay"
        } else {
            "direct"
        };
        assert!(homes.path_becomes(path), "{:?}", homes.path());
        homes.world.run(seconds(5));
        assert!(homes.reaches("the flow is known"));
        let (from, to) = (homes.lan(1, 0x11), homes.lan(2, 0x80));
        let packet = packet::udp((from, 4000), (to, 80), &[7; 900]);
        let seen = homes.world.node(homes.a).status(homes.world.now());
        let source = seen.relays[0].observed.clone().expect("registered");
        for _ in 0..200 {
            let mut buffer = [0; 2048];
            let mut frame = Frame::new(&mut buffer);
            frame.set(&packet).unwrap();
            let (verdict, out) = homes.world.with(homes.a, |node, now| {
                counted(|| node.handle_lan(&mut frame, now))
            });
            assert!(matches!(verdict, Ok(Verdict::Send { .. })), "{verdict:?}");
            let mut hop = 0;
            if path == "relay" {
                let from = source.parse().unwrap();
                let (verdict, relayed) = homes.world.with(homes.relay, |node, now| {
                    counted(|| node.handle_wan(from, &mut frame, now))
                });
                assert!(matches!(verdict, Ok(Verdict::Send { .. })), "{verdict:?}");
                hop = relayed;
            }
            let from = match path {
                "relay" => altnet_sim::homes::entry(),
                _ => source.parse().unwrap(),
            };
            let (verdict, inward) = homes.world.with(homes.b, |node, now| {
                counted(|| node.handle_wan(from, &mut frame, now))
            });
            assert_eq!(verdict, Ok(Verdict::Deliver));
            assert_eq!(frame.packet(), packet);
            assert_eq!((out, hop, inward), (0, 0, 0), "{path}");
        }
    }
}

#[test]
fn a_frame_between_relays_allocates_nothing() {
    let mut meshes = Meshes::new(905, 2, [&[0], &[1]]);
    assert!(meshes.ask(10).is_some(), "{}", meshes.story());
    meshes.world.capture = true;
    assert!(meshes.ask(10).is_some(), "{}", meshes.story());
    let captured = core::mem::take(&mut meshes.world.captured);
    // From a client to another relay's, and from a relay to a client.
    for (first, then) in [(SEND, FORWARD), (FORWARD, RECEIVE)] {
        let mut all = captured.iter().filter(|c| c.bytes[0] == first);
        let datagram = all.next().expect("one was captured");
        let is_at = |n: &u8| relay_v4(*n) == datagram.to.ip().to_string();
        let relay = (0..2).find(is_at).expect("a relay's address");
        for _ in 0..200 {
            let mut buffer = [0; 2048];
            let mut frame = Frame::new(&mut buffer);
            frame.set(&datagram.bytes).unwrap();
            let host = meshes.relays[usize::from(relay)];
            let (verdict, allocated) = meshes.world.with(host, |node, now| {
                counted(|| node.handle_wan(datagram.from, &mut frame, now))
            });
            assert!(matches!(verdict, Ok(Verdict::Send { .. })), "{verdict:?}");
            assert_eq!((frame.packet()[0], allocated), (then, 0));
        }
    }
}

#[test]
fn a_packet_in_pieces_allocates_nothing_on_its_way() {
    let mut homes = Homes::new(904, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    assert!(homes.path_becomes("direct"), "{:?}", homes.path());
    assert!(homes.reaches("the flow is known"));
    homes.world.narrow(homes.a, Some(1000));
    let (from, to) = (homes.lan(1, 0x11), homes.lan(2, 0x80));
    let packet = packet::udp((from, 4000), (to, 80), &[7; 1232]);
    for _ in 0..200 {
        homes.world.send(homes.a, &packet).unwrap();
        homes.world.run(Duration::from_millis(20));
    }
    let seen = homes.world.node(homes.a).status(homes.world.now());
    let source = seen.relays[0].observed.clone().expect("registered");
    let source = source.parse().unwrap();
    for _ in 0..50 {
        let mut sent = [([0; FRAME_BYTES], 0); 4];
        let (count, out) = homes.world.with(homes.a, |node, now| {
            let mut buffer = [0; FRAME_BYTES];
            let mut frame = Frame::new(&mut buffer);
            frame.set(&packet).unwrap();
            counted(|| {
                assert!(matches!(
                    node.handle_lan(&mut frame, now),
                    Ok(Verdict::Send { .. })
                ));
                let mut count = 0;
                loop {
                    let (place, length) = &mut sent[count];
                    *length = frame.len();
                    place[..*length].copy_from_slice(frame.packet());
                    count += 1;
                    if !node.has_pieces() {
                        return count;
                    }
                    let output = node.poll_output(&mut frame, now);
                    assert!(matches!(output, Output::Send { .. }));
                }
            })
        });
        assert_eq!((count, out), (2, 0));
        let (verdict, inward) = homes.world.with(homes.b, |node, now| {
            let mut buffer = [0; FRAME_BYTES];
            let mut frame = Frame::new(&mut buffer);
            counted(|| {
                let mut last = Ok(Verdict::Consumed);
                for (piece, length) in &sent[..count] {
                    assert_eq!(last, Ok(Verdict::Consumed));
                    frame.set(&piece[..*length]).unwrap();
                    last = node.handle_wan(source, &mut frame, now);
                }
                last
            })
        });
        assert_eq!((verdict, inward), (Ok(Verdict::Deliver), 0));
    }
}

#[test]
fn a_timer_at_which_nothing_is_said_allocates_nothing() {
    let mut homes = Homes::new(903, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    assert!(homes.path_becomes("direct"));
    homes.world.run(seconds(20));
    let mut quiet = 0;
    // What is sent is lost, so that sessions end after a while: not looked at.
    for _ in 0..14 {
        // Everybody's timers fall due here, not in the world's own rounds.
        homes.world.sleep(Duration::from_millis(700));
        for host in [homes.relay, homes.a, homes.b] {
            let (said, allocated) = homes.world.with(host, |node, now| {
                let mut buffer = [0; 2048];
                let mut frame = Frame::new(&mut buffer);
                counted(|| {
                    node.handle_timeout(now);
                    let mut said = 0;
                    while !matches!(node.poll_output(&mut frame, now), Output::Wait(_)) {
                        said += 1;
                    }
                    said
                })
            });
            if said == 0 {
                assert_eq!(allocated, 0);
                quiet += 1;
            }
        }
    }
    assert!(quiet > 20, "{quiet} of 42 rounds had nothing to say");
}

/// Grants a TURN client whatever it asks for now; returns how many requests that were.
fn grant_all(client: &mut TurnClient, server: SocketAddr, now: Instant) -> usize {
    let mut granted = 0;
    let (mut buffer, mut out) = ([0; FRAME_BYTES], [0; 256]);
    client.handle_timeout(now);
    loop {
        let mut frame = Frame::new(&mut buffer);
        match client.poll_output(&mut frame, now) {
            TurnOutput::Wait(_) => return granted,
            TurnOutput::Tell(_) => continue,
            TurnOutput::Send { .. } => {}
        }
        let request = Message::parse(frame.packet()).unwrap();
        if request.class() == Class::Request {
            granted += 1;
            let (method, id) = (request.method(), request.transaction());
            let mut writer = Writer::new(&mut out, Class::Success, method, id).unwrap();
            for kind in [XOR_RELAYED_ADDRESS, XOR_MAPPED_ADDRESS] {
                writer.put_xor_address(kind, server).unwrap();
            }
            writer.put_number(LIFETIME, 600).unwrap();
            frame.set(writer.bytes()).unwrap();
            client.receive(server, &mut frame, now);
        }
    }
}

#[test]
fn a_turn_client_allocates_nothing_once_its_peers_are_named() {
    let server = SocketAddr::from(([203, 0, 113, 5], 3478));
    let credentials = Credentials::new("somebody", "sesame").unwrap();
    let mut now = Instant::from_micros(1);
    let mut client = TurnClient::new(TurnConfig::new(server), credentials, [7; 32], now);
    let peers = [1, 2, 3].map(|n| SocketAddr::from(([192, 0, 2, n], 9)));
    for peer in peers {
        client.permit(peer, now).unwrap();
    }
    let ((granted, carried), allocated) = counted(|| {
        let (mut granted, mut carried) = (0, 0);
        let mut buffer = [0; FRAME_BYTES];
        for _ in 0..900 {
            granted += grant_all(&mut client, server, now);
            for peer in peers {
                let mut frame = Frame::new(&mut buffer);
                frame.set(&[7; 900]).unwrap();
                client.send(peer, &mut frame, now).unwrap();
                // A server says the same back: the channel stands for the peer both ways.
                assert_eq!(client.receive(server, &mut frame, now), Some(peer));
                assert_eq!(frame.packet(), [7; 900]);
                carried += 1;
            }
            now = now.after(Duration::from_secs(1));
        }
        (granted, carried)
    });
    assert_eq!(allocated, 0);
    assert_eq!(carried, 2700);
    // An allocation and its renewal, and for each peer a permission, a channel, and three renewals.
    assert_eq!(granted, 2 + 3 * 5);
}
