//! Change underneath while two homes send each other a packet every 20 ms: for how long nothing
//! arrives.
//!
//! Each test runs with 2 % loss per datagram and hop, at 100 ms there and back per hop,
//! with one seed; with as many as `ALTNET_SIM_SEEDS` says, and without loss and with 5 % too. It prints its gaps.

use altnet_core::node::Event;
use altnet_sim::chaos::{Chaos, Gaps, Uplink, relay_v4};
use altnet_sim::homes::seconds;
use altnet_sim::nat::Kind;
use altnet_wire::time::Duration;

/// There and back, from host to host.
const ROUND_TRIP: Duration = Duration::from_millis(100);
/// Losses, in a thousand datagrams.
const LOSSES: [u64; 3] = [0, 20, 50];
/// The same where nobody asked for more.
const FEW_LOSSES: [u64; 1] = [20];
/// More seeds than these take hours.
const MOST_SEEDS: u64 = 10;

/// How many seeds a scenario gets: `ALTNET_SIM_SEEDS`, ten at most, or one.
fn seeds() -> u64 {
    let given = std::env::var("ALTNET_SIM_SEEDS");
    given
        .map_or(1, |text| text.parse().expect("a number of seeds"))
        .min(MOST_SEEDS)
}

/// How long packets flow before something happens, and after.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(6);

/// The longest gap that is allowed, where up to 2 % of all datagrams are lost.
#[derive(Clone, Copy)]
struct Most(Duration);

/// How long WireGuard waits before it begins a handshake again (whitepaper section 6.1), and some
/// jitter.
const SHAKES: Duration = Duration::from_millis(5400);
/// Of what nobody told.
const UNTOLD: Most = Most(Duration::from_secs(2));
/// Of an address that the node was told of.
const TOLD: Most = Most(Duration::from_secs(1));

impl Most {
    fn at(self, loss: u64) -> Duration {
        match loss {
            // A handshake for a tunnel may be lost in spite of all that is repeated.
            1..=50 if self.0 >= AWAKE.0 => self.0 + SHAKES,
            0..=20 => self.0,
            21..=50 => self.0.max(Duration::from_secs(2)) + ROUND_TRIP * 4,
            _ => self.0,
        }
    }
}

/// What is there before something happens.
#[derive(Clone, Copy)]
struct Scene {
    relays: u8,
    uplinks: [Uplink; 2],
    kind: Kind,
}

/// Homes that only relays lead to.
const RELAYED: Scene = Scene {
    relays: 2,
    uplinks: [Uplink::V4; 2],
    kind: Kind::SYMMETRIC_RANDOM,
};

/// Homes that meet directly.
const DIRECT: Scene = Scene {
    kind: Kind::PORT_RESTRICTED,
    ..RELAYED
};

/// Where homes are seen at first.
const NATS: [&str; 2] = ["198.51.100.1", "198.51.100.2"];

/// Every loss with every seed.
fn runs() -> impl Iterator<Item = (u64, u64)> {
    let losses = match std::env::var_os("ALTNET_SIM_SEEDS") {
        Some(_) => &LOSSES[..],
        None => &FEW_LOSSES[..],
    };
    let seeds = (0..seeds()).map(|seed| 900 + seed);
    losses
        .iter()
        .flat_map(move |loss| seeds.clone().map(move |seed| (*loss, seed)))
}

/// Lets something happen at every loss, and holds the gaps around it to `most`.
fn hold(name: &str, scene: Scene, most: Most, mut happen: impl FnMut(&mut Chaos)) {
    let mut faults = Vec::new();
    for (loss, seed) in runs() {
        let mut chaos = begin(seed, scene, loss);
        happen(&mut chaos);
        let gaps = chaos.flow(AFTER);
        judge(&mut faults, &mut chaos, name, (loss, seed), gaps, most);
    }
    report(&faults);
}

fn begin(seed: u64, scene: Scene, loss: u64) -> Chaos {
    let mut chaos = Chaos::new(seed, scene.relays, scene.uplinks, scene.kind);
    chaos.world.delay(ROUND_TRIP / 2);
    let is_direct = scene.kind == Kind::PORT_RESTRICTED;
    chaos.flow(BEFORE);
    let mut flowed = BEFORE;
    while flowed < seconds(30) && (0..2).any(|side| chaos.path(side).is_ok() != is_direct) {
        chaos.flow(BEFORE);
        flowed += BEFORE;
    }
    for side in 0..2 {
        let story = chaos.story();
        assert_eq!(chaos.path(side).is_ok(), is_direct, "{side}: {story}");
        assert_eq!(chaos.registered(side), usize::from(scene.relays), "{story}");
    }
    chaos.world.lose(loss);
    chaos.flow(BEFORE);
    chaos
}

fn judge(
    faults: &mut Vec<String>,
    chaos: &mut Chaos,
    name: &str,
    (loss, seed): (u64, u64),
    gaps: Gaps,
    most: Most,
) {
    let (there, back) = (gaps.there.as_millis(), gaps.back.as_millis());
    let percent = loss / 10;
    let run = format!("{name}, {percent} % lost, seed {seed}: {there} ms there, {back} ms back");
    println!("gap: {run}");
    let most = most.at(loss);
    if gaps.longest() > most {
        let story = chaos.story();
        faults.push(format!("{run}, at most {} ms{story}", most.as_millis()));
    }
}

fn report(faults: &[String]) {
    let count = faults.len();
    assert!(count == 0, "{count} gaps:\n{}", faults.join("\n"));
}

/// The relay that home A sends by.
fn used(chaos: &Chaos) -> u8 {
    chaos.path(0).expect_err("they are relayed")
}

/// Keeps homes that only relays lead to from each other: given minutes, some guess each other's ports.
fn apart(chaos: &mut Chaos) {
    chaos.world.block(NATS[0], NATS[1], true);
}

#[test]
fn a_relay_that_dies_is_left_for_another() {
    hold("relay killed", RELAYED, UNTOLD, |chaos| {
        let relay = chaos.relays[usize::from(used(chaos))];
        chaos.world.power_off(relay);
    });
}

#[test]
fn a_relay_that_restarts_is_left_for_another_and_is_registered_with_again() {
    hold("relay restarted", RELAYED, UNTOLD, |chaos| {
        let relay = chaos.relays[usize::from(used(chaos))];
        chaos.world.restart(relay);
    });
}

#[test]
fn a_relay_that_one_side_is_cut_off_from_is_left_by_both() {
    for side in 0..2 {
        let name = format!("relay cut off from {}", ["A", "B"][side]);
        hold(&name, RELAYED, UNTOLD, |chaos| {
            let relay = used(chaos);
            chaos.cut(relay, side, true);
        });
    }
}

/// Homes with five relays.
const FIVE: Scene = Scene {
    relays: 5,
    ..RELAYED
};

#[test]
fn each_relay_of_five_dies_in_turn_and_comes_back() {
    let mut faults = Vec::new();
    for (loss, seed) in runs() {
        let mut chaos = begin(seed, FIVE, loss);
        for relay in 0..5 {
            let host = chaos.relays[relay];
            chaos.world.power_off(host);
            let dead = chaos.flow(AFTER);
            chaos.world.power_on(host);
            let back = chaos.flow(AFTER);
            let gaps = dead.or_longer(back);
            let run = format!("relay {relay} of five killed and started again");
            judge(&mut faults, &mut chaos, &run, (loss, seed), gaps, UNTOLD);
        }
    }
    report(&faults);
}

#[test]
fn the_relay_in_use_dies_until_one_of_five_is_left() {
    let mut faults = Vec::new();
    for (loss, seed) in runs() {
        let mut chaos = begin(seed, FIVE, loss);
        for left in (1..5).rev() {
            let host = chaos.relays[usize::from(used(&chaos))];
            chaos.world.power_off(host);
            let gaps = chaos.flow(AFTER);
            let run = format!("relay in use killed, {left} left");
            judge(&mut faults, &mut chaos, &run, (loss, seed), gaps, UNTOLD);
            // Both sides notice, and tell each other by which they are reached now.
            chaos.flow(seconds(15));
        }
    }
    report(&faults);
}

#[test]
fn a_relay_that_was_away_is_a_good_spare_soon_after() {
    let mut faults = Vec::new();
    for away in [1, 3, 7, 20] {
        for (loss, seed) in runs() {
            let mut chaos = begin(seed, RELAYED, loss);
            // What keeps a spare is rare by then.
            apart(&mut chaos);
            chaos.flow(seconds(200));
            let first = chaos.relays[usize::from(used(&chaos))];
            chaos.world.power_off(first);
            chaos.flow(seconds(away));
            chaos.world.power_on(first);
            chaos.flow(seconds(5));
            let second = chaos.relays[usize::from(used(&chaos))];
            assert_ne!(first, second);
            chaos.world.power_off(second);
            let gaps = chaos.flow(AFTER);
            let run = format!("other relay killed after one was away for {away} s");
            judge(&mut faults, &mut chaos, &run, (loss, seed), gaps, UNTOLD);
        }
    }
    report(&faults);
}

#[test]
fn a_relay_that_no_other_leads_to_is_called_where_it_always_was() {
    for (_, seed) in runs().filter(|(loss, _)| *loss == 20) {
        let mut chaos = begin(seed, RELAYED, 0);
        chaos.world.block(&relay_v4(0), &relay_v4(1), true);
        chaos.flow(seconds(60));
        let first = chaos.relays[usize::from(used(&chaos))];
        chaos.world.power_off(first);
        // Until it is taken for silent, and only the other one is left.
        chaos.flow(seconds(4));
        chaos.world.power_on(first);
        chaos.flow(seconds(3));
        let registered = [0, 1].map(|side| chaos.registered(side));
        assert_eq!(registered, [2; 2], "seed {seed}: {}", chaos.story());
    }
}

#[test]
fn a_relay_that_was_away_for_longer_is_called_as_soon_as_another_one_sees_it() {
    // Whenever that is between two calls, which are seconds apart by then.
    for away in [17, 23, 26] {
        for (loss, seed) in runs().filter(|(loss, _)| *loss < 50) {
            let mut chaos = begin(seed, RELAYED, loss);
            chaos.flow(seconds(60));
            let first = chaos.relays[usize::from(used(&chaos))];
            chaos.world.power_off(first);
            chaos.flow(seconds(away));
            chaos.world.power_on(first);
            chaos.flow(seconds(4));
            let registered = [0, 1].map(|side| chaos.registered(side));
            let run = format!("away for {away} s, {loss} in 1000 lost, seed {seed}");
            assert_eq!(registered, [2; 2], "{run}: {}", chaos.story());
        }
    }
}

/// Two faults, of which nobody was told the first: the spare is registered with anew once it is needed.
const FORGOTTEN: Most = Most(Duration::from_secs(3));

#[test]
fn a_spare_that_restarted_unnoticed_is_of_use() {
    hold(
        "relay killed after its spare restarted",
        RELAYED,
        FORGOTTEN,
        |chaos| {
            apart(chaos);
            chaos.flow(seconds(200));
            let used = usize::from(used(chaos));
            let [used, spare] = [used, 1 - used].map(|relay| chaos.relays[relay]);
            chaos.world.restart(spare);
            chaos.flow(seconds(5));
            chaos.world.power_off(used);
        },
    );
}

#[test]
fn a_direct_path_that_is_cut_is_left_for_a_relay() {
    hold("direct path cut", DIRECT, UNTOLD, |chaos| {
        chaos.world.block(NATS[0], NATS[1], true);
    });
}

#[test]
fn a_nat_that_reboots_with_a_new_address_is_followed() {
    for (what, scene) in [("direct", DIRECT), ("relayed", RELAYED)] {
        for side in 0..2 {
            let name = format!("NAT of {} rebooted, {what}", ["A", "B"][side]);
            hold(&name, scene, UNTOLD, |chaos| chaos.reboot_nat(side));
        }
    }
}

/// From each kind of uplink to each, itself included: nine switches.
const SWITCHES: [Uplink; 10] = {
    use Uplink::{Dual, V4, V6};
    [V4, V4, V6, V6, Dual, Dual, V4, Dual, V6, V4]
};

/// Switches one home's uplink in each of nine ways, one after the other; the other home has both
/// families.
fn switch(side: usize) {
    let mut uplinks = [Uplink::Dual; 2];
    uplinks[side] = SWITCHES[0];
    let scene = Scene { uplinks, ..DIRECT };
    let name = ["A", "B"][side];
    let mut faults = Vec::new();
    for (loss, seed) in runs() {
        let mut chaos = begin(seed, scene, loss);
        for pair in SWITCHES.windows(2) {
            chaos.switch(side, pair[1]);
            let gaps = chaos.flow(AFTER);
            let run = format!("uplink of {name} from {:?} to {:?}", pair[0], pair[1]);
            judge(&mut faults, &mut chaos, &run, (loss, seed), gaps, TOLD);
            // Nobody moves every few seconds: what was spent on knocking comes back.
            chaos.world.run(seconds(60));
            chaos.flow(BEFORE);
        }
    }
    report(&faults);
}

#[test]
fn the_uplink_of_one_home_is_switched_in_nine_ways() {
    switch(0);
}

#[test]
fn the_uplink_of_the_other_home_is_switched_in_nine_ways() {
    switch(1);
}

/// Of a gateway that wakes: it calls a relay, registers anew, and shakes hands for a tunnel.
const AWAKE: Most = Most(Duration::from_secs(5));

#[test]
fn a_gateway_that_slept_is_back_at_once() {
    for (what, scene) in [("direct", DIRECT), ("relayed", RELAYED)] {
        for side in 0..2 {
            let name = format!("{} slept, {what}", ["A", "B"][side]);
            hold(&name, scene, AWAKE, |chaos| {
                let host = chaos.homes[side];
                chaos.world.suspend(host);
                chaos.world.run(seconds(3600));
                chaos.world.resume(host);
            });
        }
    }
}

/// How long a home may take from its first line on until packets pass, both ways: it calls a relay,
/// is registered, is called by the other home, which tries every few seconds, and shakes hands for a tunnel.
const LINE_UP: Most = Most(Duration::from_secs(5));

#[test]
fn a_line_that_comes_up_after_the_gateway_is_used_at_once() {
    let mut faults = Vec::new();
    for (loss, seed) in runs() {
        for side in 0..2 {
            let mut chaos = begin(seed, DIRECT, loss);
            let host = chaos.homes[side];
            chaos.world.power_off(host);
            chaos.world.run(seconds(100));
            chaos.unplug(side);
            chaos.world.power_on(host);
            chaos.flow(seconds(100));
            chaos.switch(side, Uplink::Dual);
            let gaps = chaos.flow(seconds(16));
            let run = format!("first line of {}", ["A", "B"][side]);
            judge(&mut faults, &mut chaos, &run, (loss, seed), gaps, LINE_UP);
        }
    }
    report(&faults);
}

/// More than an engineer calls a line: a TCP connection lives through it, as it resends for minutes.
#[test]
fn where_much_is_lost_bytes_still_move() {
    let mut faults = Vec::new();
    for loss in [100, 200] {
        for seed in 0..seeds() {
            let mut chaos = begin(900 + seed, RELAYED, loss);
            let host = chaos.relays[usize::from(used(&chaos))];
            chaos.world.power_off(host);
            let gaps = chaos.flow(seconds(30));
            let most = Most(seconds(10));
            judge(
                &mut faults,
                &mut chaos,
                "relay killed",
                (loss, seed),
                gaps,
                most,
            );
        }
    }
    report(&faults);
}

#[test]
fn a_relay_that_carries_is_there_however_much_is_lost() {
    for seed in 0..1 + seeds() {
        let mut chaos = begin(920 + seed, RELAYED, 200);
        let used = used(&chaos);
        let name = match used {
            0 => "relay1".to_owned(),
            n => format!("relay-{n}"),
        };
        for host in chaos.homes {
            chaos.world.told(host);
        }
        chaos.flow(seconds(60));
        for host in chaos.homes {
            let status = chaos.world.node(host).status(chaos.world.now());
            let mut relays = status.relays.iter();
            let relay = relays.find(|relay| relay.name == name);
            let node = relay.map(|relay| relay.node.clone()).unwrap_or_default();
            let told = chaos.world.told(host);
            let is_lost = |told: &Event| matches!(told, Event::RelayDown { relay } if relay.to_string() == node);
            assert!(!told.iter().any(is_lost), "seed {seed}: {told:?}");
        }
    }
}

#[test]
fn a_peer_that_is_off_is_looked_for_in_silence_and_found_when_it_is_back() {
    let mut chaos = Chaos::new(9_301, 2, [Uplink::V4; 2], Kind::SYMMETRIC_RANDOM);
    chaos.flow(seconds(5));
    let other = chaos.homes[1];
    chaos.world.power_off(other);
    // Longer than a registration lasts that was kept.
    chaos.flow_to_nobody(seconds(360));
    chaos.world.told(chaos.homes[0]);
    chaos.flow_to_nobody(seconds(120));
    let told = chaos.world.told(chaos.homes[0]);
    let changes = told.iter();
    let changes = changes.filter(|told| matches!(told, Event::PathChanged { .. }));
    assert_eq!(changes.count(), 0, "{told:?}");
    chaos.world.power_on(other);
    chaos.flow(seconds(15));
    let gaps = chaos.flow(seconds(5));
    assert!(gaps.longest() <= seconds(1), "{gaps:?}");
}
