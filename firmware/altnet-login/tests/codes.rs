//! Codes: made on the command line, used on the page.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use common::{Browser, House};
use serde_json::Value;

#[test]
fn a_code_is_made_listed_used_and_revoked() {
    let house = House::new();
    house.configure("", "");
    let page = house.serve();
    let (code, id) = house.code(&["--person", "ann", "--group", "guests", "--hours", "24"]);
    let mut browser = Browser::new("127.0.0.2");
    assert_eq!(
        browser.submit(&page, "/code", &[("code", &code)]).status,
        303
    );
    let login = house.altnetd.login();
    assert_eq!(
        (&login["person"], &login["groups"][0], &login["how"]),
        (&"ann".into(), &"guests".into(), &"code".into())
    );
    let list = house.run(&["code", "list", "--json"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(
        (&list["codes"][0]["id"], &list["codes"][0]["used"]),
        (&id.as_str().into(), &1.into())
    );
    // Again on the same device, not on another.
    assert_eq!(
        browser.submit(&page, "/code", &[("code", &code)]).status,
        303
    );
    let other = Browser::new("127.0.0.3").submit(&page, "/code", &[("code", &code)]);
    assert_eq!(other.status, 403);
    assert!(house.run(&["code", "revoke", &id]).status.success());
    house.altnetd.wait_for_logout();
}

#[test]
fn a_damaged_file_is_set_aside_and_the_page_goes_on() {
    let house = House::new();
    house.configure("", "");
    let (code, _) = house.code(&["--group", "guests"]);
    let file = house.path("state").join("codes.state");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    let page = house.serve();
    let mut browser = Browser::new("127.0.0.2");
    assert_eq!(
        browser.submit(&page, "/code", &[("code", &code)]).status,
        403
    );
    assert!(file.with_extension("damaged").exists());
    let (code, _) = house.code(&["--group", "guests"]);
    assert_eq!(
        browser.submit(&page, "/code", &[("code", &code)]).status,
        303
    );
}

#[test]
fn what_can_not_be_a_name_is_refused() {
    let house = House::new();
    house.configure("", "");
    for arguments in [
        &["--group", "Two Words"][..],
        &[],
        &["--group", "a", "--uses", "0"],
    ] {
        let made = house.run(&[&["code", "create"], arguments].concat());
        assert!(!made.status.success(), "{arguments:?}");
    }
    assert!(!house.run(&["code", "revoke", "00000000"]).status.success());
}

#[test]
#[ignore = "needs root; run by ci/test --only directories"]
fn root_makes_codes_for_a_page_that_is_another_user() {
    let house = House::new();
    fs::set_permissions(house.home.path(), PermissionsExt::from_mode(0o711)).unwrap();
    house.configure("", "");
    let page = house.serve_as("nobody");
    let (code, _) = house.code(&["--person", "ann"]);
    let kept = fs::metadata(house.path("state").join("codes.state")).unwrap();
    assert_eq!(kept.uid(), fs::metadata(house.path("state")).unwrap().uid());
    assert_ne!(kept.uid(), 0);
    let status = fs::read_to_string(format!("/proc/{}/status", page.child.id())).unwrap();
    let uid = format!("Uid:\t{0}\t{0}\t{0}\t{0}", kept.uid());
    for line in [
        &*uid,
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.contains(line), "{line} {status}");
    }
    let mut browser = Browser::new("127.0.0.2");
    assert_eq!(
        browser.submit(&page, "/code", &[("code", &code)]).status,
        303
    );
}
