use super::*;
use std::fs::{self, Permissions};

fn settings(lines: &str) -> Settings {
    let text = format!(
        "base = 'dc=a'\nbind_dn = 'cn=gateway'\nbind_password_file = '/nonexistent'\n{lines}"
    );
    toml::from_str(&text).unwrap()
}

#[test]
fn an_unknown_setting_is_refused() {
    let text = "url = 'ldaps://a'\nbase = 'b'\nbind_dn = 'c'\nbind_password_file = 'd'\nport = 1";
    assert!(toml::from_str::<Settings>(text).is_err());
}

#[test]
fn a_password_never_goes_in_plain_text() {
    for url in [
        "ldap://directory.example",
        "ldap://192.0.2.1:389",
        "ldap://[2001:db8::1]",
        "ldap://localhost",
    ] {
        let plain = server(&settings(&format!("url = '{url}'")));
        assert!(matches!(plain, Err(SettingsError::Plain(_))), "{url}");
        let tls = server(&settings(&format!("url = '{url}'\nstart_tls = true"))).unwrap();
        assert!(matches!(tls.security, Security::StartTls(..)), "{url}");
    }
    for url in ["ldap://127.0.0.1:3389", "ldap://[::1]/"] {
        let here = server(&settings(&format!("url = '{url}'"))).unwrap();
        assert!(matches!(here.security, Security::Plain), "{url}");
    }
}

#[test]
fn a_url_says_host_and_port() {
    for (url, expected) in [
        ("ldaps://a.example", Some(("a.example", 636))),
        ("ldaps://a.example:1636/", Some(("a.example", 1636))),
        ("ldaps://[2001:db8::1]:3", Some(("2001:db8::1", 3))),
        ("http://a.example", None),
        ("ldaps://", None),
        ("ldaps://a:b", None),
        ("ldaps://a/dc=x", None),
        ("ldaps://[::1", None),
    ] {
        let found = server(&settings(&format!("url = '{url}'"))).ok();
        let found = found
            .as_ref()
            .map(|server| (server.host.as_str(), server.port));
        assert_eq!(found, expected, "{url}");
    }
}

#[test]
fn a_password_that_others_may_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    fs::write(&path, "hush\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert!(secret(&path).unwrap_err().to_string().contains("chmod 600"));
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(secret(&path).unwrap().as_str(), "hush");
    fs::write(&path, "\n").unwrap();
    assert!(secret(&path).is_err());
    fs::write(&path, "x".repeat(2000)).unwrap();
    assert!(secret(&path).is_err());
}

fn outcome(code: u32, diagnostic: &str, policy: Option<PolicyError>) -> Outcome {
    Outcome {
        code,
        diagnostic: diagnostic.to_owned(),
        policy,
    }
}

#[test]
fn a_bind_is_judged_by_code_policy_and_active_directorys_word() {
    let ad = |data| format!("80090308: LdapErr: DSID-0C09, comment: x, data {data}, v4563");
    for (outcome, expected) in [
        (outcome(0, "", None), Ok(())),
        (outcome(49, "", None), Err(SignInError::Wrong)),
        (outcome(49, &ad("52e"), None), Err(SignInError::Wrong)),
        (outcome(49, &ad("533"), None), Err(SignInError::Revoked)),
        (outcome(49, &ad("701"), None), Err(SignInError::Expired)),
        (
            outcome(49, "", Some(PolicyError::AccountLocked)),
            Err(SignInError::Revoked),
        ),
        (
            outcome(49, "", Some(PolicyError::PasswordExpired)),
            Err(SignInError::Expired),
        ),
        (
            outcome(0, "", Some(PolicyError::ChangeAfterReset)),
            Err(SignInError::Expired),
        ),
        (outcome(0, "", Some(PolicyError::Other)), Ok(())),
    ] {
        let text = format!("{outcome:?}");
        assert_eq!(judged(outcome).unwrap(), expected, "{text}");
    }
    // A referral, a busy server.
    assert!(judged(outcome(10, "", None)).is_err());
    assert!(judged(outcome(51, "", None)).is_err());
}
