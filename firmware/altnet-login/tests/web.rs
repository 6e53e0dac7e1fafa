//! The page itself: who may send what, and what everybody is told.

mod common;

use common::{Browser, House, exchange, wait_for_end};

#[test]
fn a_page_has_strict_headers_and_nothing_from_elsewhere() {
    let house = House::new();
    house.configure("", "");
    let page = house.serve();
    let front = Browser::new("127.0.0.1").front(&page);
    assert_eq!(front.status, 200);
    let policy = front.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-"),
        "{policy}"
    );
    assert!(policy.contains("frame-ancestors 'none'"));
    assert_eq!(front.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(front.header("cache-control"), Some("no-store"));
    assert_eq!(front.header("x-content-type-options"), Some("nosniff"));
    let cookie = front.header("set-cookie").unwrap();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"),
        "{cookie}"
    );
    assert!(!front.body.contains("<script") && !front.body.contains("http"));
}

#[test]
fn the_device_is_who_is_at_the_other_end() {
    let house = House::new();
    house.configure("", "");
    let (code, _) = house.code(&["--group", "guests", "--uses", "5"]);
    let page = house.serve();
    let mut browser = Browser::new("127.0.0.2");
    browser.more = "x-forwarded-for: 127.0.0.9\r\nforwarded: for=127.0.0.9\r\n".into();
    assert_eq!(
        browser.submit(&page, "/code", &[("code", &code)]).status,
        303
    );
    assert_eq!(house.altnetd.login()["address"], "127.0.0.2");
    let front = browser.front(&page);
    assert!(front.body.contains("somebody of guests"), "{}", front.body);
    // What altnetd says of it is escaped.
    assert!(front.body.contains("group &lt;b&gt;"), "{}", front.body);
    let other = Browser::new("127.0.0.3").front(&page);
    assert!(other.body.contains("Nobody is logged in"));
    assert_eq!(browser.submit(&page, "/logout", &[]).status, 303);
    house.altnetd.wait_for_logout();
    assert!(browser.front(&page).body.contains("Nobody is logged in"));
}

#[test]
fn a_form_of_another_site_is_refused() {
    let house = House::new();
    house.configure("", "");
    let (code, _) = house.code(&["--group", "guests"]);
    let page = house.serve();
    let url = format!("http://{}/code", page.addresses[0]);
    let mut browser = Browser::new("127.0.0.2");
    let token = browser.front(&page).token();
    let check = |browser: &mut Browser, token: &str, more: &str| {
        browser.more = more.into();
        let reply = browser.post(&url, &[("token", token), ("code", &code)]);
        assert_eq!(reply.status, 403, "{more} {token}");
    };
    check(&mut browser, "", "");
    check(&mut browser, "AAAA", "");
    check(&mut browser, &token, "sec-fetch-site: cross-site\r\n");
    check(&mut browser, &token, "origin: http://evil.example\r\n");
    // Another device's browser, and one without the cookie.
    let mut stranger = Browser::new("127.0.0.3");
    let foreign = stranger.front(&page).token();
    check(&mut browser, &foreign, "");
    check(&mut Browser::new("127.0.0.2"), &token, "");
    assert!(house.altnetd.with(|told| told.calls.is_empty()));
    browser.more = "sec-fetch-site: same-origin\r\n".into();
    assert_eq!(
        browser
            .post(&url, &[("token", &token), ("code", &code)])
            .status,
        303
    );
}

#[test]
fn who_guesses_waits() {
    let house = House::new();
    house.configure("", "");
    let (code, _) = house.code(&["--group", "guests", "--uses", "2"]);
    let page = house.serve();
    let mut browser = Browser::new("127.0.0.2");
    for _ in 0..5 {
        let reply = browser.submit(&page, "/code", &[("code", "00000-00000-00000")]);
        assert_eq!(reply.status, 403);
        assert!(reply.body.contains("isn&#39;t right"), "{}", reply.body);
    }
    assert_eq!(
        browser.submit(&page, "/code", &[("code", &code)]).status,
        429
    );
    // Nobody else does.
    let mut other = Browser::new("127.0.0.3");
    assert_eq!(other.submit(&page, "/code", &[("code", &code)]).status, 303);
}

#[test]
fn altnetds_reasons_are_shown() {
    let house = House::new();
    house.configure("", "");
    let (code, _) = house.code(&["--person", "ann"]);
    let page = house.serve();
    let stranger = Browser::new("127.0.0.99").front(&page);
    assert!(
        stranger
            .body
            .contains("No device has this address; ask Ann"),
        "{}",
        stranger.body
    );
    house
        .altnetd
        .with(|told| told.refuse = Some("policy does not let this gateway vouch".into()));
    let mut browser = Browser::new("127.0.0.2");
    let refused = browser.submit(&page, "/code", &[("code", &code)]);
    assert_eq!(refused.status, 503);
    assert!(
        refused
            .body
            .contains("Policy does not let this gateway vouch; ask Ann")
    );
}

#[test]
fn phones_are_told_whether_they_are_captive() {
    let house = House::new();
    house.configure("", "");
    let (code, _) = house.code(&["--group", "guests"]);
    let page = house.serve();
    let url = format!("http://{}/.well-known/captive-portal", page.addresses[0]);
    let mut browser = Browser::new("127.0.0.2");
    let state = |browser: &mut Browser| {
        let reply = browser.get(&url);
        assert_eq!(
            reply.header("content-type"),
            Some("application/captive+json")
        );
        serde_json::from_str::<serde_json::Value>(&reply.body).unwrap()
    };
    let before = state(&mut browser);
    assert_eq!(before["captive"], true);
    assert_eq!(
        before["user-portal-url"],
        format!("http://{}/", page.addresses[0])
    );
    browser.submit(&page, "/code", &[("code", &code)]);
    let after = state(&mut browser);
    assert_eq!(after["captive"], false);
    let seconds = after["seconds-remaining"].as_u64().unwrap();
    assert!((43_000..=43_200).contains(&seconds), "{seconds}");
}

#[test]
fn what_is_too_large_or_no_http_is_turned_away() {
    let house = House::new();
    house.configure("", "");
    let page = house.serve();
    let from = "127.0.0.2".parse().unwrap();
    let check = |request: &str, statuses: &[u16]| {
        let status = exchange(from, page.addresses[0], request).status;
        assert!(statuses.contains(&status), "{status}");
    };
    let long = "a".repeat(20_000);
    check(
        &format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n"),
        &[431],
    );
    let body = format!("POST /code HTTP/1.1\r\nhost: a\r\ncontent-length: 20000\r\n\r\n{long}");
    check(&body, &[400]);
    check("\u{0}\u{1}nonsense\r\n\r\n", &[400, 0]);
    check("PUT / HTTP/1.1\r\nhost: a\r\n\r\n", &[405]);
    check("GET /../etc/passwd HTTP/1.1\r\nhost: a\r\n\r\n", &[404]);
    check("GET / HTTP/1.1\r\nhost: a\r\n\r\n", &[200]);
}

#[test]
fn a_foreign_name_is_sent_to_the_pages_own() {
    let house = House::new();
    house.configure("url = \"http://login.example\"", "");
    let page = house.serve();
    let from = "127.0.0.2".parse().unwrap();
    let ask = |host: &str| {
        exchange(
            from,
            page.addresses[0],
            &format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"),
        )
    };
    assert_eq!(ask("login.example").status, 200);
    assert_eq!(
        ask("evil.example").header("location"),
        Some("http://login.example")
    );
}

#[test]
fn the_page_ends_when_altnetd_does() {
    let house = House::new();
    house.configure("", "");
    let mut page = house.serve();
    house.altnetd.hang_up();
    assert!(!wait_for_end(&mut page.child));
}

#[test]
fn an_ldap_directory_has_a_form_and_lets_nobody_in_when_it_is_gone() {
    let house = House::new();
    let password = house.write("password", "hush");
    let port = common::free_port();
    house.configure("", &format!("[[ldap]]\nname = \"Office\"\n[ldap.server]\nurl = \"ldap://127.0.0.1:{port}\"\nbase = \"dc=x\"\nbind_dn = \"cn=gateway\"\nbind_password_file = {password:?}\n"));
    let page = house.serve();
    let mut browser = Browser::new("127.0.0.2");
    assert!(browser.front(&page).body.contains("With Office"));
    let reply = browser.submit(&page, "/ldap/1", &[("name", "ann"), ("password", "x")]);
    assert_eq!(reply.status, 503);
    assert!(reply.body.contains("doesn&#39;t answer"), "{}", reply.body);
    assert_eq!(
        browser
            .submit(&page, "/ldap/2", &[("name", "a"), ("password", "x")])
            .status,
        404
    );
}

#[test]
fn a_configuration_is_checked_with_all_that_it_names() {
    let house = House::new();
    let oidc = "[[oidc]]\nname = \"Work\"\nissuer = \"https://id.example\"\nclient_id = \"a\"\n";
    house.configure("url = \"http://login.example\"", oidc);
    let good = house.run(&["check"]);
    let said = String::from_utf8(good.stdout).unwrap();
    assert!(
        said.contains("http://login.example/oidc/1/callback"),
        "{said}"
    );
    let secret = house.path("secret");
    std::fs::write(&secret, "open to all").unwrap();
    house.configure(
        "url = \"http://login.example\"",
        &format!("{oidc}client_secret_file = {secret:?}\n"),
    );
    let bad = house.run(&["check"]);
    assert!(!bad.status.success());
    let said = String::from_utf8(bad.stderr).unwrap();
    assert!(said.contains("chmod 600"), "{said}");
}
