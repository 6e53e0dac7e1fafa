//! What a board's lights show, by the script that the image has (`linux-image/root/usr/sbin/altnet-led`), on lights that are files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use programs::put_program;
use tempfile::TempDir;

#[path = "common/programs.rs"]
mod programs;

const TRIGGERS: &str = "none timer heartbeat [default-on]\n";

struct House(TempDir);

impl House {
    fn new() -> Self {
        let house = Self(tempfile::tempdir().unwrap());
        for folder in ["bin", "run", "leds"] {
            fs::create_dir(house.path(folder)).unwrap();
        }
        fs::write(house.path("uptime"), "100.00 1.00\n").unwrap();
        house.program("modprobe", "");
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        put_program(&self.path("bin").join(name), text);
    }

    fn light(&self, name: &str, triggers: &str) {
        let light = self.path("leds").join(name);
        fs::create_dir(&light).unwrap();
        for (file, text) in [
            ("trigger", triggers),
            ("brightness", "0\n"),
            ("max_brightness", "255\n"),
            ("delay_on", ""),
            ("delay_off", ""),
        ] {
            fs::write(light.join(file), text).unwrap();
        }
    }

    fn run(&self, lights: &[(&str, &str)], words: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../linux-image/root/usr/sbin/altnet-led");
        let bin = self.path("bin").display().to_string();
        Command::new("timeout")
            .arg("2")
            .arg("sh")
            .arg(script)
            .args(words)
            .env("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap()))
            .env("BOARD", "a board")
            .env("LEDS", self.path("leds"))
            .env("RUN", self.path("run"))
            .env("UPTIME", self.path("uptime"))
            .env("EVERY_S", "0.2")
            .envs(lights.iter().copied())
            .output()
            .unwrap()
    }

    /// What a light was told: its trigger, and how it blinks or how bright it is.
    fn shown(&self, name: &str) -> String {
        let read = |file: &str| {
            let text = fs::read_to_string(self.path("leds").join(name).join(file)).unwrap();
            text.trim().to_owned()
        };
        match read("trigger").as_str() {
            "timer" => format!("timer {} {}", read("delay_on"), read("delay_off")),
            "none" => format!("steady {}", read("brightness")),
            other => other.to_owned(),
        }
    }
}

#[test]
fn each_state_has_its_own_sign_on_one_light() {
    let states = [
        ("booting", "timer 500 500"),
        ("installing", "timer 100 100"),
        ("rescue", "heartbeat"),
        ("no-internet", "timer 100 1400"),
        ("no-network", "timer 1400 100"),
        ("well", "steady 255"),
        ("identify", "timer 40 60"),
    ];
    for (state, expected) in states {
        let house = House::new();
        house.light("ACT", TRIGGERS);
        let done = house.run(&[("LED_STATUS", "ACT")], &[state]);
        assert!(
            done.status.success() && done.stderr.is_empty(),
            "{state}: {done:?}"
        );
        assert_eq!(house.shown("ACT"), expected, "{state}");
    }
}

#[test]
fn a_kernel_without_a_timer_for_lights_shows_them_steady() {
    let house = House::new();
    house.light("ACT", "[none] mmc0\n");
    for state in ["booting", "rescue", "identify"] {
        assert!(
            house
                .run(&[("LED_STATUS", "ACT")], &[state])
                .status
                .success()
        );
        assert_eq!(house.shown("ACT"), "steady 255", "{state}");
        fs::write(house.path("leds/ACT/trigger"), "[none] mmc0\n").unwrap();
    }
}

#[test]
fn a_board_without_lights_or_with_wrong_names_is_no_error() {
    let house = House::new();
    for lights in [
        &[][..],
        &[("LED_STATUS", "nobody"), ("LED_INTERNET", "neither")],
    ] {
        for state in ["booting", "well", "rescue", "no-internet"] {
            let done = house.run(lights, &[state]);
            assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
        }
    }
    assert_eq!(house.run(&[], &["purple"]).status.code(), Some(2));
}

#[test]
fn what_the_router_and_altnetd_say_is_what_is_shown() {
    let wan = |works: bool| format!("echo '{{ \"wans\": [ {{ \"works\": {works} }} ] }}'");
    let altnet = |state: &str, up: bool, path: &str| {
        format!(
            r#"case $* in
*status) echo '{{ "state": "{state}", "relays": [ {{ "up": {up} }} ] }}' ;;
*peers) echo '{{ "peers": [ {{ "path": "{path}" }} ] }}' ;;
esac"#
        )
    };
    for (router, altnet, expected) in [
        (wan(true), altnet("member", true, "none"), "steady 255"),
        (wan(true), altnet("member", false, "direct"), "steady 255"),
        (wan(true), altnet("member", false, "none"), "timer 1400 100"),
        (wan(true), altnet("outside", false, "none"), "steady 255"),
        (wan(true), "exit 1".into(), "steady 255"),
        (
            wan(false),
            altnet("member", true, "direct"),
            "timer 100 1400",
        ),
        (
            "exit 1".into(),
            altnet("member", true, "direct"),
            "timer 100 1400",
        ),
    ] {
        let house = House::new();
        house.light("ACT", TRIGGERS);
        house.program("altnet-routerd", &router);
        house.program("altnet", &altnet);
        // It is ended by the time that it has.
        house.run(&[("LED_STATUS", "ACT")], &["watch"]);
        assert_eq!(house.shown("ACT"), expected, "{router} {altnet}");
    }
}

#[test]
fn an_installation_and_a_search_come_before_the_rest() {
    let house = House::new();
    house.light("ACT", TRIGGERS);
    house.program("altnet-routerd", "exit 1");
    fs::write(house.path("run/installing"), "").unwrap();
    house.run(&[("LED_STATUS", "ACT")], &["watch"]);
    assert_eq!(house.shown("ACT"), "timer 100 100");
    house.run(&[("LED_STATUS", "ACT")], &["identify"]);
    fs::write(house.path("leds/ACT/trigger"), TRIGGERS).unwrap();
    house.run(&[("LED_STATUS", "ACT")], &["watch"]);
    assert_eq!(house.shown("ACT"), "timer 40 60");
    // A minute later it is over.
    fs::write(house.path("uptime"), "161.00 1.00\n").unwrap();
    fs::write(house.path("leds/ACT/trigger"), TRIGGERS).unwrap();
    house.run(&[("LED_STATUS", "ACT")], &["watch"]);
    assert_eq!(house.shown("ACT"), "timer 100 100");
}
