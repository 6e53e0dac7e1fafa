//! The box's button, as the kernel tells of keys: `/dev/input/event*`.
//!
//! A [`Button`] is told what happens and when, and says how long it is held; [`Inputs`] are its hands.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long it is held for a factory reset.
pub const RESET: Duration = Duration::from_secs(10);
/// Bytes of an event: the time in two words of the kernel's, kind, code, value (include/uapi/linux/input.h).
const EVENT_BYTES: usize = 2 * size_of::<usize>() + 8;
/// Events are read so many at a time.
const EVENTS: usize = 16;
const EV_KEY: u16 = 1;
const RELEASED: i32 = 0;
/// The most devices that are listened to.
const MAX_DEVICES: usize = 16;
/// How often it is looked for devices that were plugged in.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Something that happened on an input device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    kind: u16,
    code: u16,
    value: i32,
}

impl Event {
    /// Reads one as this machine's kernel writes it.
    fn parse(bytes: &[u8; EVENT_BYTES]) -> Self {
        let [.., k0, k1, c0, c1, v0, v1, v2, v3] = *bytes;
        Self {
            kind: u16::from_ne_bytes([k0, k1]),
            code: u16::from_ne_bytes([c0, c1]),
            value: i32::from_ne_bytes([v0, v1, v2, v3]),
        }
    }
}

/// One key that is the box's button, whichever device has it.
#[derive(Clone, Debug)]
pub struct Button {
    key: u16,
    since: Option<Instant>,
}

impl Button {
    /// The key of this code (include/uapi/linux/input-event-codes.h), which nobody holds.
    pub const fn new(key: u16) -> Self {
        Self { key, since: None }
    }

    /// Takes what happened.
    pub fn handle(&mut self, event: Event, now: Instant) {
        if event.kind == EV_KEY && event.code == self.key {
            self.since = match event.value {
                RELEASED => None,
                // A key that repeats is held since it was pressed.
                _ => self.since.or(Some(now)),
            };
        }
    }

    /// For how long it has been held; nothing if it isn't.
    pub fn held(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.since?))
    }
}

/// The input devices that there are.
#[derive(Debug)]
pub struct Inputs {
    folder: PathBuf,
    open: BTreeMap<PathBuf, File>,
    looked: Option<Instant>,
}

impl Inputs {
    /// Those in a folder, `/dev/input`; there may be none yet.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.into(),
            open: BTreeMap::new(),
            looked: None,
        }
    }

    /// Waits for events for so long, and tells the button of them.
    pub fn wait(&mut self, button: &mut Button, patience: Duration) {
        let began = Instant::now();
        if self
            .looked
            .is_none_or(|at| began.duration_since(at) >= LOOK_AGAIN)
        {
            self.look();
            self.looked = Some(began);
        }
        let mut fds: Vec<PollFd<'_>> = self
            .open
            .values()
            .map(|file| PollFd::new(file, PollFlags::IN))
            .collect();
        let wait = Timespec::try_from(patience).ok();
        let ready = poll(&mut fds, wait.as_ref());
        let has_something: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready.is_err() || self.open.is_empty() {
            std::thread::sleep(patience.saturating_sub(began.elapsed()));
            return;
        }
        let now = Instant::now();
        let mut ready = has_something.into_iter();
        self.open.retain(|_, file| {
            !ready.next().unwrap_or(false) || read(file, |event| button.handle(event, now))
        });
    }

    fn look(&mut self) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let is_event = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("event"));
            if !is_event || self.open.len() == MAX_DEVICES || self.open.contains_key(&path) {
                continue;
            }
            let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
            let opened = OpenOptions::new()
                .read(true)
                .custom_flags(flags)
                .open(&path);
            if let Ok(file) = opened {
                self.open.insert(path, file);
            }
        }
    }
}

/// Reads what a device has; whether it is still there.
fn read(file: &mut File, mut tell: impl FnMut(Event)) -> bool {
    let mut bytes = [0; EVENT_BYTES * EVENTS];
    match file.read(&mut bytes) {
        Ok(0) => false,
        Ok(len) => {
            let (events, _) = bytes[..len].as_chunks::<EVENT_BYTES>();
            events.iter().for_each(|event| tell(Event::parse(event)));
            true
        }
        Err(e) => e.kind() == std::io::ErrorKind::WouldBlock,
    }
}

/// Whether the button is held when a box is switched on: pressed within `first`, and for `long` from then on.
pub fn is_held(inputs: &mut Inputs, key: u16, first: Duration, long: Duration) -> bool {
    let mut button = Button::new(key);
    let began = Instant::now();
    loop {
        let now = Instant::now();
        match button.held(now) {
            Some(held) if held >= long => return true,
            None if now.duration_since(began) >= first => return false,
            _ => inputs.wait(&mut button, Duration::from_millis(50)),
        }
    }
}

/// Returns once the button was held for [`RESET`]; `tell` hears how long it is held so far, now and then.
pub fn until_held(inputs: &mut Inputs, key: u16, mut tell: impl FnMut(Option<Duration>)) {
    let mut button = Button::new(key);
    loop {
        inputs.wait(&mut button, Duration::from_millis(200));
        let held = button.held(Instant::now());
        tell(held);
        if held.is_some_and(|held| held >= RESET) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    const KEY: u16 = 116;

    fn written(kind: u16, code: u16, value: i32) -> [u8; EVENT_BYTES] {
        let mut bytes = [0; EVENT_BYTES];
        let at = EVENT_BYTES - 8;
        bytes[at..at + 2].copy_from_slice(&kind.to_ne_bytes());
        bytes[at + 2..at + 4].copy_from_slice(&code.to_ne_bytes());
        bytes[at + 4..].copy_from_slice(&value.to_ne_bytes());
        bytes
    }

    fn key(code: u16, value: i32) -> Event {
        Event::parse(&written(EV_KEY, code, value))
    }

    #[test]
    #[cfg(all(target_pointer_width = "64", target_endian = "little"))]
    fn an_event_is_as_the_kernel_writes_it() {
        // A power key that is pressed, 2 microseconds after a second.
        let bytes = [
            0, 0xfc, 0xfd, 0x6a, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 116, 0, 1, 0, 0, 0,
        ];
        let found = Event::parse(&bytes);
        assert_eq!((found.kind, found.code, found.value), (EV_KEY, KEY, 1));
    }

    #[test]
    fn a_button_is_held_from_its_first_press_until_it_is_let_go() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut button = Button::new(KEY);
        button.handle(key(KEY + 1, 1), at(0));
        assert_eq!(button.held(at(1)), None);
        button.handle(key(KEY, 1), at(1));
        button.handle(key(KEY, 2), at(3));
        button.handle(key(KEY + 1, 0), at(4));
        assert_eq!(button.held(at(11)), Some(Duration::from_secs(10)));
        button.handle(key(KEY, 0), at(11));
        assert_eq!(button.held(at(30)), None);
        button.handle(
            Event {
                kind: 4,
                code: KEY,
                value: 1,
            },
            at(30),
        );
        assert_eq!(button.held(at(31)), None, "a scan code is no key");
    }

    /// A device that is a pipe.
    fn device() -> (tempfile::TempDir, File) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("event0");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let device = OpenOptions::new().read(true).write(true).open(&path);
        (folder, device.unwrap())
    }

    #[test]
    fn a_key_that_is_pressed_at_power_on_has_to_stay_so() {
        let (folder, mut device) = device();
        let held = |first, long| {
            let (first, long) = (Duration::from_millis(first), Duration::from_millis(long));
            is_held(&mut Inputs::new(folder.path()), KEY, first, long)
        };
        assert!(!held(100, 100), "nobody presses it");
        device.write_all(&written(EV_KEY, KEY, 1)).unwrap();
        assert!(held(100, 300));
        device.write_all(&written(EV_KEY, KEY, 1)).unwrap();
        device.write_all(&written(EV_KEY, KEY, 0)).unwrap();
        assert!(!held(100, 300), "it was let go");
        assert!(!is_held(
            &mut Inputs::new(Path::new("/nonexistent")),
            KEY,
            Duration::ZERO,
            RESET
        ));
    }

    proptest! {
        #[test]
        fn a_device_may_say_anything(said in proptest::collection::vec(any::<u8>(), 0..1000)) {
            let (folder, mut device) = device();
            device.write_all(&said).unwrap();
            let mut button = Button::new(KEY);
            let mut inputs = Inputs::new(folder.path());
            for _ in 0..4 {
                inputs.wait(&mut button, Duration::from_millis(1));
            }
            prop_assert!(button.held(Instant::now()).unwrap_or_default() < Duration::from_secs(60));
        }
    }
}
