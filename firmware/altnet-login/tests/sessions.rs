//! Logins over time: restarts, and what is kept.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::{Browser, House};

#[test]
fn a_restart_logs_nobody_out() {
    let house = House::new();
    house.configure("", "");
    let (code, _) = house.code(&["--person", "ann"]);
    let page = house.serve();
    let mut browser = Browser::new("127.0.0.2");
    browser.submit(&page, "/code", &[("code", &code)]);
    let kept = house.path("state").join("sessions.state");
    assert_eq!(
        fs::metadata(&kept).unwrap().permissions().mode() & 0o777,
        0o600
    );
    drop(page);
    // An altnetd that restarted as well knows nobody.
    house.altnetd.with(|told| told.logins.clear());
    let page = house.serve();
    house.altnetd.wait(|told| !told.logins.is_empty());
    assert_eq!(house.altnetd.login()["person"], "ann");
    assert!(browser.front(&page).body.contains("ann"));
}

#[test]
fn who_was_revoked_meanwhile_is_not_logged_in_again() {
    let house = House::new();
    house.configure("", "");
    let (code, id) = house.code(&["--person", "ann"]);
    let page = house.serve();
    Browser::new("127.0.0.2").submit(&page, "/code", &[("code", &code)]);
    drop(page);
    assert!(house.run(&["code", "revoke", &id]).status.success());
    let before = house.altnetd.with(|told| told.calls.len());
    let _page = house.serve();
    house.altnetd.wait_for_logout();
    house.altnetd.with(|told| {
        let since = &told.calls[before..];
        assert!(
            since.iter().all(|(method, _)| method == "logout"),
            "{since:?}"
        );
    });
}

#[test]
fn what_nothing_vouches_for_is_taken_back_but_not_what_others_logged_in() {
    let house = House::new();
    house.configure("", "");
    let ours = serde_json::json!({ "how": "oidc Work" });
    let others = serde_json::json!({ "how": "altnet login add" });
    house.altnetd.with(|told| {
        told.logins.insert("02:00:00:00:00:07".into(), ours);
        told.logins.insert("02:00:00:00:00:08".into(), others);
    });
    let _page = house.serve();
    house.altnetd.wait(|told| told.logins.len() < 2);
    assert_eq!(house.altnetd.login()["how"], "altnet login add");
}

#[test]
fn what_an_administrator_ended_is_over_here_too() {
    let house = House::new();
    house.configure("", "");
    let (code, _) = house.code(&["--person", "ann"]);
    let page = house.serve();
    let mut browser = Browser::new("127.0.0.2");
    browser.submit(&page, "/code", &[("code", &code)]);
    house.altnetd.with(|told| told.logins.clear());
    house
        .altnetd
        .wait(|told| told.calls.iter().any(|(method, _)| method == "logout"));
    page.stop();
    let page = house.serve();
    assert!(browser.front(&page).body.contains("Nobody is logged in"));
    assert!(house.altnetd.with(|told| told.logins.is_empty()));
}

#[test]
fn a_login_ends_when_its_time_is_over() {
    let house = House::new();
    house.configure("", "");
    let (code, _) = house.code(&["--person", "ann"]);
    let page = house.serve();
    Browser::new("127.0.0.2").submit(&page, "/code", &[("code", &code)]);
    drop(page);
    // As if hours had gone by: what is on the medium ends now.
    let kept = house.path("state").join("sessions.state");
    let text = fs::read_to_string(&kept).unwrap();
    let (_, body) = text.split_once('\n').unwrap();
    let mut file: serde_json::Value = serde_json::from_str(body).unwrap();
    file["sessions"][0]["ends"] = 1.into();
    let state = altnet_login::state::State::open(&house.path("state")).unwrap();
    state.save("sessions", &file).unwrap();
    let _page = house.serve();
    house.altnetd.wait_for_logout();
}
