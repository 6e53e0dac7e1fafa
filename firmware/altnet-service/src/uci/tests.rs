use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use serde::Deserialize;

use super::File;

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    port: u16,
    user: Option<String>,
    level: Level,
    password: Option<String>,
    addresses: Vec<std::net::IpAddr>,
    dns: Dns,
    lan: Vec<Lan>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Level {
    #[default]
    Low,
    VeryHigh,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Dns {
    serve: bool,
    forward: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lan {
    interface: String,
    #[serde(default)]
    site: Option<u16>,
}

fn read(text: &str) -> Result<Config, String> {
    let path = Path::new("altnet");
    let file = File::parse(path, text).map_err(|e| e.to_string())?;
    file.read("main").map_err(|e| e.to_string())
}

/// The first line of what is said is `expected`.
fn check_wrong(text: &str, expected: &str) {
    let said = read(text).unwrap_err();
    assert_eq!(said.lines().next(), Some(expected), "{text}");
}

#[test]
fn a_file_says_what_its_type_wants() {
    let found = read("package altnet\n\n# a comment\nconfig main 'main'\n\toption port '4500'\n\toption level very-high # another\n\tlist addresses 192.0.2.1\n\tlist addresses '2001:db8::1'\n\toption user ''\n\nconfig lan\n\toption interface \"br-lan\"\nconfig dns\n\toption serve on\n\tlist forward 'a b'\nconfig lan guest\n\toption site 7\n\toption interface gue\\\nst\n").unwrap();
    let expected = Config {
        port: 4500,
        level: Level::VeryHigh,
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        dns: Dns {
            serve: true,
            forward: vec!["a b".into()],
        },
        lan: vec![
            Lan {
                interface: "br-lan".into(),
                site: None,
            },
            Lan {
                interface: "guest".into(),
                site: Some(7),
            },
        ],
        ..Config::default()
    };
    assert_eq!(found, expected);
    assert_eq!(read("").unwrap(), Config::default());
}

#[test]
fn a_mistake_is_shown_at_its_option() {
    let main = |line: &str| format!("config main\n\t{line}\n");
    check_wrong(
        &main("option prt 1"),
        "altnet:2:9: nothing here is called prt; there are port, user, level, password, addresses, dns, lan",
    );
    check_wrong(
        &main("option port 70000"),
        "altnet:2:9: port: a number is expected here, 0 to 65535",
    );
    check_wrong(
        &main("option port +5"),
        "altnet:2:9: port: a number is expected here, 0 to 65535",
    );
    check_wrong(
        &main("list port 5"),
        "altnet:2:7: port: this is one value: write option, not list",
    );
    check_wrong(
        &main("option addresses 192.0.2.1"),
        "altnet:2:9: addresses: there may be several: write list, not option, a line each",
    );
    check_wrong(
        &main("option dns 1"),
        "altnet:2:9: dns: this is a section of its own: write it as `config`, with its options below",
    );
    check_wrong(
        &main("list addresses 192.0.2.1.1"),
        "altnet:2:7: addresses: invalid IP address syntax",
    );
    check_wrong(
        "config port\n",
        "altnet:1:8: port: this is an option, not a section: write `option`, in the section it is of",
    );
    check_wrong(
        &main("option level high"),
        "altnet:2:9: level: unknown variant `high`, expected `low` or `very-high`",
    );
    check_wrong(
        "config dns\n\toption serve maybe\n",
        "altnet:2:9: serve: write '1' or '0' here",
    );
    check_wrong(
        "config lan\n\toption site 1\n",
        "altnet:1:8: missing field `interface`",
    );
    check_wrong(
        "config dns\nconfig dns\n",
        "altnet:2:8: there is a section `config dns` already; write this there",
    );
    check_wrong(
        "config lann\n",
        "altnet:1:8: nothing here is called lann; there are port, user, level, password, addresses, dns, lan",
    );
}

#[test]
fn what_uci_would_guess_is_refused() {
    for (text, expected) in [
        ("option port 1", "an option needs a `config` line before it"),
        ("config main\noption port", "write option NAME 'VALUE'"),
        ("config", "write config KIND, or config KIND 'NAME'"),
        ("config main a b", "there is a word too many"),
        ("config main\noption port 1 2", "there is a word too many"),
        (
            "config main\noption port 1\noption port 2",
            "port is there already; remove one",
        ),
        (
            "config main\nlist port 1\noption port 2",
            "port is there already; remove one",
        ),
        (
            "config main a\nconfig lan a",
            "a section of this name is there already",
        ),
        (
            "c main",
            "a line begins with `config`, `option`, `list` or `#`",
        ),
        (
            "config main\noption a-b 1",
            "a name has letters, digits and `_`",
        ),
        (
            "config main\noption user a;b",
            "put a value with ; in quotes",
        ),
        (
            "config main\noption user a#b",
            "put a value with # in quotes",
        ),
        ("config main\noption user 'a", "a ' is missing at the end"),
        ("config main\noption user \"a", "a \" is missing at the end"),
        (
            "config main\noption user a\\",
            "a character is missing behind the \\",
        ),
        (
            "config main\nlist addresses ''",
            "an entry of a list is not empty",
        ),
    ] {
        let said = read(text).unwrap_err();
        assert!(said.contains(expected), "{text}: {said}");
    }
    let many = "config lan\n".repeat(super::MAX_SECTIONS + 1);
    assert!(read(&many).unwrap_err().contains("there are at most 512"));
}

#[test]
fn a_password_is_not_shown() {
    for text in [
        "config main\noption password sesame more",
        "config main\noption password sesame\noption password 'sesame'",
        "config main\n\toption  passwort\t'sesame'",
        "config main\n\tlist password 'sesame'",
        "config main\noption password \"sesame\nopen",
        "config main\noption password \"\nsesame\" more",
        "config main\noption password 'sesame';",
    ] {
        let said = read(text).unwrap_err();
        assert!(
            said.contains("altnet:") && !said.contains("sesame"),
            "{said}"
        );
    }
    let path = Path::new("altnet");
    let file = File::parse(path, "config main\noption password sesame").unwrap();
    assert!(!format!("{file:?}").contains("sesame"));
}

#[test]
fn sections_can_be_taken_out() {
    let text = "config main\noption port 1\nconfig other\noption x 1\n";
    let mut file = File::parse(Path::new("altnet"), text).unwrap();
    let others: BTreeMap<String, String> = file.take("other").read("other").unwrap();
    assert_eq!(others["x"], "1");
    assert_eq!(file.read::<Config>("main").unwrap().port, 1);
}

/// As `uci export` writes values (uci_print_value() of libuci's file.c).
fn written(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

proptest! {
    #[test]
    fn what_uci_writes_is_read_back(values in proptest::collection::btree_map("[a-z_0-9]{1,8}", "(?s).{1,20}", 0..6), lists in proptest::collection::vec("(?s).{1,20}", 1..4)) {
        let mut text = String::from("config main 'main'\n");
        for (name, value) in &values {
            text += &format!("\toption {name} {}\n", written(value));
        }
        for value in &lists {
            text += &format!("\tlist UPPER {}\n", written(value));
        }
        let file = File::parse(Path::new("altnet"), &text).unwrap();
        let mut found: BTreeMap<String, toml::Value> = file.read("main").unwrap();
        let upper = found.remove("UPPER").unwrap();
        let upper: Vec<&str> = upper.as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
        prop_assert_eq!(upper, lists);
        let found: BTreeMap<String, String> = found.into_iter().map(|(k, v)| (k, v.as_str().unwrap().to_owned())).collect();
        prop_assert_eq!(found, values);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text: String) {
        let _ = read(&text);
    }

    #[test]
    fn no_lines_make_the_reader_panic(lines in proptest::collection::vec("(config|option|list|package)? ?(main|port|lan|dns|serve|user)? ?('|\"|\\\\|[a-z0-9#;]){0,4}", 0..8)) {
        let _ = read(&lines.join("\n"));
    }
}
