//! Updates: a bundle from wherever, what a power cut left of a box's state, and a new slot's story.

use altnet_update::bundle::Opened;
use altnet_update::choice::{Choice, Slot};
use altnet_update::confirm::{Facts, Finding, Limits, Machine, Output};
use altnet_update::keys::{self, KeySet, ReleaseKey, Trust};
use altnet_update::make;
use altnet_update::manifest::{Frame, MAX_FRAMES, Manifest, PIECE_BYTES};
use altnet_update::state::{Pending, Phase, Release, State, Working};
use altnet_update::verdict::{Approval, Here, Refusal};
use altnet_wire::time::{Duration, Instant, UnixTime};

use crate::bytes::Bytes;
use crate::fixtures::FOUNDED;

/// Stories longer than this many steps are cut off.
const STEPS: usize = 200;

/// Reads a bundle to its end, and as a manifest alone.
pub fn update_bundle(data: &[u8]) {
    if let Ok(manifest) = Manifest::decode(data) {
        assert_eq!(manifest.encode().expect("it was read"), data);
        assert!(manifest.slot_bytes <= MAX_FRAMES as u64 * u64::from(PIECE_BYTES));
    }
    let Ok(opened) = Opened::read(data) else {
        return;
    };
    let head = make::head(opened.manifest_bytes(), opened.signatures().to_vec());
    assert!(data.starts_with(&head.expect("it was read")));
    // Nobody's keys have signed it.
    let trust = Trust {
        release: KeySet::new(1, 1, vec![ReleaseKey([7; 32])]).ok(),
        owner: None,
    };
    let manifest = opened.manifest().clone();
    let here = Here {
        product: &manifest.product,
        board: &manifest.board,
        floor: 0,
        now: None,
        validity_floor: UnixTime::EPOCH,
        trust: &trust,
    };
    let refusal = Opened::read(data).expect("as before").approve(&here).err();
    assert!(matches!(refusal, Some(Refusal::Signatures { .. })));
    let mut pieces = opened.pieces();
    let mut piece = Vec::new();
    let mut all = 0;
    loop {
        match pieces.next_piece(&mut piece) {
            Ok(Some(_)) => all += piece.len() as u64,
            Ok(None) => return assert_eq!(all, manifest.slot_bytes),
            Err(_) => return,
        }
    }
}

/// Reads the bytes as the state that a box keeps: what is read is written as it was.
pub fn update_state(data: &[u8]) {
    if let Ok(state) = State::decode(data) {
        assert_eq!(state.encode(), data);
    }
}

/// What is found in a new slot, step by step: the machine asks to be called later, not before, and
/// never leaves a box without a slot to boot.
pub fn update_story(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut now = Instant::from_micros(1);
    let mut state = pending();
    let mut choice = Choice::new(Slot::B, 3, 3);
    let mut machine: Option<Machine> = None;
    for _ in 0..STEPS {
        if bytes.is_empty() {
            return;
        }
        let step = bytes.octet();
        let mut running = machine.take().unwrap_or_else(|| {
            let (slot, counted) = choice.begun();
            choice = counted;
            now = Instant::from_micros(1);
            Machine::new(state.clone(), slot, choice, Limits::HOUSE, now)
        });
        let is_kept = step & 0x80 == 0;
        let mut reboots = false;
        loop {
            match running.poll_output() {
                Output::Save(kept) => {
                    if is_kept {
                        state = *kept;
                    }
                    running.handle_saved(is_kept);
                }
                Output::Choose(chosen) => choice = chosen,
                Output::Reboot => reboots = true,
                Output::Tell(_) => {}
                Output::Wait(deadline) => {
                    assert!(deadline > now);
                    break;
                }
            }
        }
        let (first, other) = (choice.first, choice.first.other());
        assert!(choice.tries(first) > 0 || choice.tries(other) > 0 || !reboots);
        // A power cut, or what was asked for.
        if reboots || step & 0x0f == 0 {
            continue;
        }
        now = now.after(Duration::from_secs(bytes.octet().into()));
        match step & 0x0f {
            1..4 => running.handle_timeout(now),
            _ => running.handle_facts(facts(bytes.octet()), now),
        }
        machine = Some(running);
    }
}

fn facts(octet: u8) -> Facts {
    let finding = |shift: u8| match octet >> shift & 3 {
        0 => Finding::Here,
        1 => Finding::Outside,
        _ => Finding::Works,
    };
    Facts {
        wan: finding(0),
        dns: finding(2),
        private: finding(4),
        lan: finding(6),
    }
}

fn manifest() -> Manifest {
    let label = |text: &str| text.parse().expect("a label");
    Manifest {
        product: label("altnet"),
        board: label("rpi"),
        version: label("0.2.0"),
        counter: 9,
        floor: 8,
        made: FOUNDED,
        not_after: FOUNDED.after(Duration::from_secs(90 * 86_400)),
        keys: KeySet::new(2, 1, vec![ReleaseKey([7; 32]), ReleaseKey([8; 32])]).ok(),
        slot_bytes: 5,
        frames: vec![Frame {
            packed_bytes: 9,
            packed: [1; 32],
            plain: [2; 32],
        }],
    }
}

fn pending() -> State {
    let approval = Approval {
        by_release: true,
        by_owner: false,
    };
    State {
        pending: Some(Pending {
            target: Slot::B,
            release: Release::of(&manifest(), approval),
            before: Working {
                wan: true,
                dns: true,
                private: true,
                lan: true,
            },
            charged_s: 0,
            rounds: 0,
            phase: Phase::Trying,
        }),
        ..State::default()
    }
}

/// Valid inputs.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "update_bundle" => {
            let slot = [&[0; 3000][..], b"and something else"].concat();
            let mut packed = Vec::new();
            let made = make::pack(&slot[..], &mut packed).expect("it packs");
            let (frames, slot_bytes) = made;
            let whole = Manifest {
                frames,
                slot_bytes,
                ..manifest()
            };
            let bytes = whole.encode().expect("a manifest");
            let signed = |key| keys::Signed {
                key: ReleaseKey([key; 32]),
                signature: [5; 64],
            };
            let mut bundle = make::head(&bytes, vec![signed(7), signed(8)]).expect("a head");
            bundle.extend_from_slice(&packed);
            vec![bundle, bytes]
        }
        "update_state" => vec![pending().encode(), State::default().encode()],
        "update_story" => {
            // Facts every ten seconds: all works; the provider is out, for an hour and more.
            let good = [6, 10, 0xff].repeat(12);
            let out = [6, 250, 0xc1].repeat(40);
            let cut = [&[6, 30, 0xff][..], &[0]].concat().repeat(12);
            vec![
                good.clone(),
                [out, good].concat(),
                cut,
                vec![6, 9, 0xff, 2, 9],
            ]
        }
        _ => Vec::new(),
    }
}
