//! Packets and timers allocate nothing, measured by an allocator that counts; and packets are
//! sealed and opened where they are.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use altnet_tunnel::aead::ChaChaPoly;
use altnet_tunnel::engine::{Engine, EngineLimits, Opened, Output, Sealed};
use altnet_tunnel::message::TRANSPORT_HEADER_BYTES;
use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::time::{Duration, Instant};
use common::{Given, World, address, at, ms, packet};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches only a
// thread-local number that needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() -> u64 {
    COUNT.with(Cell::get)
}

/// Drains an engine without noting anything.
fn drain(engine: &mut Engine<ChaChaPoly>, frame: &mut Frame<'_>, now: Instant) {
    while !matches!(engine.poll_output(frame, now), Output::Wait(_)) {}
}

#[test]
fn packets_timers_and_refusals_allocate_nothing() {
    let (mut world, a, b) = World::pair_with(EngineLimits::MICRO);
    let _ = world.give(0, a, &packet(1, 80));
    world.run(at(1));
    assert_eq!(world.give(1, b, &packet(2, 80)), Given::Sent);
    world.run(at(2));

    let text = packet(7, 1200);
    let mut buffer = [0; FRAME_BYTES];
    let mut spare = [0; FRAME_BYTES];
    let mut frame = Frame::new(&mut buffer);
    let mut spare = Frame::new(&mut spare);
    let (ours, theirs) = world.nodes.split_at_mut(1);
    let (ours, theirs) = (&mut ours[0].engine, &mut theirs[0].engine);
    let before = count();
    let mut now = at(2);
    for _ in 0..1000 {
        now = now.after(ms(50));
        frame.set(&text).unwrap();
        let place = frame.packet().as_ptr();
        assert_eq!(
            ours.seal(a, &mut frame, now),
            Ok(Sealed::Transmit { to: address(2) })
        );
        let sealed = frame.packet();
        assert_eq!(sealed[TRANSPORT_HEADER_BYTES..].as_ptr(), place);
        let opened = theirs.handle_datagram(address(1), &mut frame, now);
        assert!(matches!(opened, Ok(Opened::Packet { .. })));
        assert_eq!(frame.packet().as_ptr(), place, "opened where it was sealed");
        assert_eq!(frame.packet(), text);
        // And the same again is refused.
        frame.set(&text).unwrap();
        assert!(theirs.handle_datagram(address(1), &mut frame, now).is_err());
        for engine in [&mut *ours, &mut *theirs] {
            engine.handle_timeout(now);
            drain(engine, &mut spare, now);
        }
    }
    assert_eq!(count(), before);

    // Nobody answers: initiations, queueing and giving up allocate nothing either.
    let late = now.after(Duration::from_secs(200));
    for step in 0..4000u64 {
        let now = late.after(ms(50 * step));
        if step < 100 {
            frame.set(&text).unwrap();
            assert_eq!(ours.seal(a, &mut frame, now), Ok(Sealed::Queued));
        }
        ours.handle_timeout(now);
        drain(ours, &mut spare, now);
    }
    assert_eq!(count(), before);
}

#[test]
fn what_workers_seal_and_open_allocates_nothing() {
    let (mut world, a, b) = World::pair_with(EngineLimits::MICRO);
    let _ = world.give(0, a, &packet(1, 80));
    world.run(at(1));
    let (sender, _) = world.nodes[0].engine.sender(a).unwrap();
    let receiver = world.nodes[1].engine.receivers(b).next().unwrap();
    let engine = &mut world.nodes[1].engine;

    let text = packet(7, 1200);
    let mut buffer = [0; FRAME_BYTES];
    let mut frame = Frame::new(&mut buffer);
    let before = count();
    for _ in 0..10 {
        let mut reserved = sender.reserve(100);
        for _ in 0..100 {
            frame.set(&text).unwrap();
            let place = frame.packet().as_ptr();
            reserved.seal(&mut frame, at(1)).unwrap();
            let opened = receiver.open(&mut frame, at(1)).unwrap();
            let opened = engine.admit(opened, address(1), &mut frame, at(1));
            assert!(matches!(opened, Ok(Opened::Packet { .. })));
            assert_eq!(frame.packet().as_ptr(), place);
            assert_eq!(frame.packet(), text);
        }
    }
    assert_eq!(count(), before);
}

#[test]
fn a_handshake_allocates_one_session() {
    let (mut world, a, _) = World::pair_with(EngineLimits::MICRO);
    let mut buffer = [0; FRAME_BYTES];
    let mut frame = Frame::new(&mut buffer);
    let initiation = world.nodes[0].ask(a, at(1)).remove(0);
    let before = count();
    frame.set(&initiation).unwrap();
    let opened = world.nodes[1]
        .engine
        .handle_datagram(address(1), &mut frame, at(1));
    assert!(matches!(opened, Ok(Opened::Handshake { .. })));
    assert_eq!(count() - before, 3, "two keys and a window");
}
