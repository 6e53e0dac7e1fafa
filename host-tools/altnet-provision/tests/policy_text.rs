//! The text of policies: what it compiles to, what is said about slips, and what a plan shows.

mod common;

use altnet_core::policy::{Draft, DraftSponsor};
use altnet_provision::policy::{Allowed, Compiled, Plan, STARTER, compile, write};
use altnet_wire::policy::Atom;
use common::town::{drafts, member, registry, site, with_many};
use common::{NOW, name};
use proptest::prelude::*;

fn compiled(text: &str) -> Compiled {
    match compile(text, "p", &registry(), NOW) {
        Ok(compiled) => compiled,
        Err(faults) => panic!("{faults:?}\n{text}"),
    }
}

/// Expects one fault, told as `said`.
fn fault(text: &str, said: &str) {
    let faults = compile(text, "p", &registry(), NOW).unwrap_err().faults;
    let told: Vec<String> = faults
        .iter()
        .map(|f| {
            format!(
                "{}:{}: `{}` {}. {}",
                f.line, f.column, f.text, f.message, f.next
            )
        })
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(said), "{}", told[0]);
}

fn rule(from: &str, to: &str) -> String {
    format!(
        "[[rules]]\nname = \"r\"\nfrom = [\"{from}\"]\nto = [\"{to}\"]\nservices = [\"tcp/80\"]\n"
    )
}

fn from_of(text: &str) -> Vec<Atom> {
    compiled(text).draft.rules[0].from.iter().cloned().collect()
}

fn to_of(text: &str) -> Vec<Atom> {
    compiled(text).draft.rules[0].to.iter().cloned().collect()
}

#[test]
fn the_starter_is_the_rule_that_networks_began_with() {
    assert_eq!(compiled(STARTER).draft, Draft::members_to_hosts(NOW));
    // What is commented out in it is true as well.
    let (head, examples) = STARTER.split_once("# Take the #").unwrap();
    let (_, examples) = examples.split_once("what follows:\n").unwrap();
    let lines = examples.lines().filter_map(|line| line.strip_prefix('#'));
    let lines = lines.map(|line| line.strip_prefix(' ').unwrap_or(line));
    let lines: Vec<&str> = lines.filter(|line| !line.starts_with(' ')).collect();
    let examples = lines
        .join("\n")
        .replace("Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3");
    let (_, rules) = head.split_once("[[rules]]").unwrap();
    let both = compiled(&format!("{examples}\n[[rules]]{rules}"));
    let names: Vec<_> = both
        .draft
        .rules
        .iter()
        .map(|rule| rule.name.as_str())
        .collect();
    assert_eq!(names, ["family-to-media", "members-to-hosts"]);
    assert_eq!(both.draft.profiles.len(), 1);
    let of = [Atom::Person(name("ann")), Atom::Group(name("guests"))];
    let vouchers = of.map(|who| (Atom::Site(site(1)), who));
    assert_eq!(both.draft.vouchers, vouchers.into());
    assert_eq!(both.draft.sponsors, [family_brings_guests()]);
}

fn family_brings_guests() -> DraftSponsor {
    DraftSponsor {
        who: Atom::Group(name("family")),
        most: 3,
        depth: 1,
        groups: [name("guests")].into(),
    }
}

#[test]
fn the_readmes_policies_compile() {
    let readme = include_str!("../../../README.md");
    let blocks = readme.split("```toml\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split_once("```").map(|(block, _)| block));
    let policies: Vec<&str> = blocks.filter(|block| block.contains("[[rules]]")).collect();
    assert_eq!(policies.len(), 2);
    for policy in policies {
        // Not every computer that runs tests has the time zone database, and the town's devices are
        // called otherwise.
        let policy = policy
            .replace("Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3")
            .replace("@house-b", "@box");
        let rules = policy.matches("[[rules]]").count();
        assert_eq!(compiled(&policy).draft.rules.len(), rules);
    }
}

#[test]
fn a_name_without_a_word_before_it_is_the_only_thing_called_so() {
    assert_eq!(
        to_of(&rule("members", "wiki")),
        [Atom::Host(site(1), name("wiki"))]
    );
    assert_eq!(
        to_of(&rule("members", "chat")),
        [Atom::App(member(1), name("chat"))]
    );
    assert_eq!(
        from_of(&rule("family", "wiki")),
        [Atom::Group(name("family"))]
    );
    assert_eq!(from_of(&rule("ann", "wiki")), [Atom::Person(name("ann"))]);
    assert_eq!(from_of(&rule("box", "wiki")), [Atom::Device(member(4))]);
    let two = format!("[groups]\nann = [\"box\"]\n{}", rule("ann", "wiki"));
    fault(
        &two,
        "5:9: `\"ann\"` ann is the name of several things. Write which is meant: person:ann or group:ann",
    );
    fault(
        &rule("members", "wikki"),
        "4:7: `\"wikki\"` nothing is called wikki. Did you mean `wiki`?",
    );
}

#[test]
fn names_are_looked_up_and_slips_are_refused() {
    assert_eq!(
        from_of(&rule("device:box", "wiki")),
        [Atom::Device(member(4))]
    );
    let by_id = format!("device:{}", member(9));
    assert_eq!(from_of(&rule(&by_id, "wiki")), [Atom::Device(member(9))]);
    assert_eq!(
        to_of(&rule("members", "host:new@2")),
        [Atom::Host(site(2), name("new"))]
    );
    assert_eq!(
        to_of(&rule("members", "app:tv@box")),
        [Atom::App(member(4), name("tv"))]
    );
    let person = format!(
        "[people]\nzoe = {{ devices = [\"box\"] }}\n{}",
        rule("zoe", "wiki")
    );
    assert_eq!(
        from_of(&person),
        [Atom::Person(name("zoe")), Atom::Device(member(4))]
    );
    fault(
        &rule("device:bax", "wiki"),
        "there is no device called bax. Did you mean `box`?",
    );
    fault(
        &rule("person:anne", "wiki"),
        "there is no person called anne. Did you mean `ann`?",
    );
    fault(
        &rule("group:famliy", "wiki"),
        "there is no group called famliy. Did you mean `family`?",
    );
    fault(
        &rule("group:staff", "wiki"),
        "there is no group called staff. If nobody is in it yet, write staff = [] below [groups].",
    );
    fault(
        &rule("members", "host:wikki"),
        "there is no machine called wikki. Did you mean `wiki`?",
    );
    fault(
        &rule("members", "site:hame"),
        "there is no site called hame. Write its number",
    );
    fault(
        &rule("members", "app:chatt"),
        "there is no app called chatt. Did you mean `chat`?",
    );
    fault(
        &rule("members", "domain:media"),
        "there is no domain called media. Write it below [domains].",
    );
    fault(
        &format!(
            "[profiles.gests]\nonly_named = true\n{}",
            rule("members", "wiki")
        ),
        "1:11: `gests` there is no group called gests. Did you mean `guests`?",
    );
    fault(
        "[people]\nzoe = { devices = [\"bax\"] }",
        "2:20: `\"bax\"` there is no device called bax",
    );
}

#[test]
fn slips_in_words_and_in_names_are_told_together() {
    let text = rule("group:famliy", "wiki").replace("tcp/80", "http");
    let text = format!(
        "[sites]\nhome = \"1\"\n{}",
        text.replace("wiki", "host:tv@home")
    );
    let faults = compile(&text, "p", &registry(), NOW).unwrap_err().faults;
    let lines: Vec<usize> = faults.iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [2, 5, 7], "{faults:?}");
}

#[test]
fn what_can_not_stand_somewhere_is_refused() {
    fault(&rule("members", "members"), "members are no target");
    fault(&rule("hosts", "wiki"), "that is only a target");
    fault(&rule("named:media-*", "wiki"), "that is only a target");
    fault(
        "[groups]\na = [\"group:family\"]",
        "that can't be in a group",
    );
    fault("[domains]\nfamily = [\"a\"]", "family is a group already");
    fault(
        "[domains]\nmedia = []",
        "the domain media has no names in it",
    );
    let mixed = format!(
        "[groups]\nmixed = [\"box\", \"named:media-*\"]\n{}",
        rule("group:mixed", "wiki")
    );
    fault(&mixed, "the group mixed has names in it that fit a pattern");
    let domain = format!(
        "[domains]\nmedia = [\"media-*\"]\n{}",
        rule("members", "group:media")
    );
    fault(
        &domain,
        "media is a domain, not a group. Write domain:media",
    );
}

const GUESTS: &str =
    "[[sponsors]]\nwho = [\"family\"]\nmost = 3\ndepth = 1\ngroups = [\"guests\"]\n";

#[test]
fn several_sponsors_in_one_are_one_line_each() {
    assert_eq!(compiled(GUESTS).draft.sponsors, [family_brings_guests()]);
    let zoe = GUESTS.replace("\"family\"", "\"zoe\", \"group:family\"");
    let zoe = format!("[people]\nzoe = {{ devices = [\"box\"] }}\n{zoe}");
    let sponsors = compiled(&zoe).draft.sponsors;
    let who: Vec<Atom> = sponsors.iter().map(|line| line.who.clone()).collect();
    // A person's device that no issuer gave to them is theirs by the text alone.
    let person = Atom::Person(name("zoe"));
    assert_eq!(
        who,
        [person, Atom::Group(name("family")), Atom::Device(member(4))]
    );
}

#[test]
fn who_logs_in_is_a_person_and_not_their_devices() {
    let text =
        "[people]\nzoe = { devices = [\"box\"] }\n[[logins]]\nat = [\"box\"]\nof = [\"zoe\"]\n";
    let expected = (Atom::Device(member(4)), Atom::Person(name("zoe")));
    assert_eq!(compiled(text).draft.vouchers, [expected].into());
}

#[test]
fn slips_about_logins_and_sponsors_are_told_where_they_are() {
    let login = |at: &str, of: &str| format!("[[logins]]\nat = [\"{at}\"]\nof = [\"{of}\"]\n");
    fault(
        &login("person:ann", "members"),
        "2:7: `\"person:ann\"` that is no gateway, so nobody logs in there",
    );
    fault(
        &login("ann", "members"),
        "2:7: `\"ann\"` that is no gateway",
    );
    fault(
        &login("site:1", "device:box"),
        "3:7: `\"device:box\"` nobody can be logged in as that",
    );
    fault(&login("site:1", "hosts"), "nobody can be logged in as that");
    fault(
        &login("site:1", "person:anne"),
        "there is no person called anne. Did you mean `ann`?",
    );
    fault(
        &GUESTS.replace("family", "host:wiki"),
        "2:8: `\"host:wiki\"` that can bring in nobody",
    );
    fault(
        &GUESTS.replace("guests", "gests"),
        "5:11: `\"gests\"` there is no group called gests. Did you mean `guests`?",
    );
    let many: Vec<String> = (0..65).map(|n| format!("\"p{n}\"")).collect();
    let people: String = (0..65).map(|n| format!("p{n} = {{}}\n")).collect();
    fault(
        &format!(
            "[people]\n{people}{}",
            GUESTS.replace("\"family\"", &many.join(", "))
        ),
        "67:1: `` with these there are more than 64 sponsors",
    );
    let many: Vec<String> = (0..9).map(|n| format!("\"g{n}\"")).collect();
    let groups: String = (0..9).map(|n| format!("g{n} = []\n")).collect();
    fault(
        &format!(
            "[groups]\n{groups}{}",
            GUESTS.replace("\"guests\"", &many.join(", "))
        ),
        "11:1: `` with these there are more than 8 groups of a sponsor's",
    );
    let warnings = compiled(&login("site:7", "members")).warnings;
    assert_eq!(warnings, ["site 7 has no gateway"]);
}

#[test]
fn a_plan_says_who_may_vouch_and_who_may_bring_in_others() {
    let login = "[[logins]]\nat = [\"site:1\"]\nof = [\"ann\"]\n";
    let said = |old: &str, new: &str| plan(old, new).settings.join("\n");
    assert_eq!(said("", login), "logins at site:1: person:ann (new)");
    assert_eq!(
        said(login, &login.replace("ann", "members")),
        "logins at site:1: person:ann -> every person there is, on the gateway's word alone"
    );
    assert_eq!(
        said("", GUESTS),
        "brought in by group:family: at most 3 each, in group:guests, who bring in nobody (new)"
    );
    let more = GUESTS.replace("= 3", "= 4").replace("h = 1", "h = 2");
    assert_eq!(
        said(GUESTS, &more),
        "brought in by group:family: at most 3 each, in group:guests, who bring in nobody -> \
         at most 4 each, in group:guests, in lines of at most 2"
    );
    assert_eq!(
        said(GUESTS, "").split_once(" (gone)").map(|(_, rest)| rest),
        Some("")
    );
}

#[test]
fn a_plan_says_what_logging_in_gives() {
    let login = "[[logins]]\nat = [\"site:1\"]\nof = [\"ann\"]\n";
    let old = rule("ann", "wiki");
    let plan = plan(&old, &format!("{old}{login}"));
    assert_eq!(
        lines(&plan.gains),
        ["person:ann logged in at ann-laptop > host:wiki: tcp/80 r "]
    );
    assert!(plan.loses.is_empty(), "{:?}", lines(&plan.loses));
}

#[test]
fn more_than_a_record_holds_is_told_at_the_largest_rule() {
    let many = |count: usize| {
        let names = (0..count).map(|n| format!("\"host:a-machine-with-a-long-name-{n}@1\""));
        names.collect::<Vec<_>>().join(", ")
    };
    let text = |count| {
        format!(
            "{}[[rules]]\nname = \"large\"\nfrom = [\"members\"]\nto = [{}]\nservices = [\"any\"]\n",
            rule("members", "wiki"),
            many(count)
        )
    };
    fault(&text(600), "7:8: `\"large\"` the policy comes to");
    fault(&text(2100), "the policy has more than 2048 atoms");
}

#[test]
fn what_is_named_and_not_there_is_a_warning() {
    let text = format!(
        "[sites]\ncabin = 3\n{}",
        rule("site:cabin", "host:oven@cabin")
    );
    let warnings = compiled(&text).warnings;
    assert_eq!(
        warnings,
        [
            "site cabin (3) has no gateway",
            "no machine called oven is in site cabin (3)"
        ]
    );
    let gone = compiled(&rule(&format!("device:{}", member(9)), "wiki")).warnings;
    assert!(gone[0].contains("is no member"), "{gone:?}");
}

fn plan(old: &str, new: &str) -> Plan {
    let (old, new) = (compiled(old).draft, compiled(new).draft);
    Plan::new(Some(&old), &new, &registry()).unwrap()
}

fn lines(rows: &[Allowed]) -> Vec<String> {
    let line = |row: &Allowed| {
        let when = [&row.was[..], &row.when[..]].concat().join(" -> ");
        let (from, to) = (row.from.join(","), row.to.join(","));
        format!(
            "{from} > {to}: {} {} {when}",
            row.services.join(","),
            row.rules.join(",")
        )
    };
    rows.iter().map(line).collect()
}

#[test]
fn a_plan_says_who_gains_and_who_loses_what() {
    let old = rule("family", "wiki");
    let plan = plan(&old, &rule("ann", "wiki").replace("tcp/80", "tcp/79-81"));
    // Ann could use 80 before, Bob no longer can.
    assert_eq!(
        lines(&plan.gains),
        ["device:ann-laptop > host:wiki: tcp/79,tcp/81 r "]
    );
    assert_eq!(
        lines(&plan.loses),
        ["device:bob-phone > host:wiki: tcp/80 r "]
    );
    assert_eq!(
        plan.changed_rules[0].differences,
        [
            "from: group:family -> person:ann",
            "services: tcp/80 -> tcp/79-81"
        ]
    );
    let text = plan.text();
    assert!(
        text.contains("+ gains       device:ann-laptop -> host:wiki: tcp/79, tcp/81 (rule r)\n"),
        "{text}"
    );
    assert!(text.contains("gain: 1, lose: 1"), "{text}");
}

#[test]
fn a_plan_tells_those_who_are_alike_together() {
    let plan = plan(&rule("ann", "wiki"), STARTER);
    // All members to all names, but for what Ann could reach already.
    assert_eq!(plan.added_rules, ["members-to-hosts"]);
    assert_eq!(plan.removed_rules, ["r"]);
    assert!(plan.gains.len() <= 4, "{:?}", lines(&plan.gains));
    let largest = plan.gains.iter().max_by_key(|row| row.pairs).unwrap();
    assert!(
        largest.pairs > 30 && largest.services == ["any"],
        "{:?}",
        lines(&plan.gains)
    );
    assert!(plan.loses.is_empty(), "{:?}", lines(&plan.loses));
    assert!(plan.text().contains(" more -> "), "{}", plan.text());
}

#[test]
fn a_plan_names_hours_and_tells_when_only_they_change() {
    let always = rule("guests", "wiki");
    let zone = "timezone = \"UTC\"\n";
    let hours = format!("{zone}{always}hours = [\"Mon-Fri 08:00-18:00\"]\n");
    let plan_ = plan(&always, &hours);
    assert!(plan_.gains.is_empty() && plan_.loses.is_empty());
    assert_eq!(
        lines(&plan_.hours),
        ["device:eve-tablet > host:wiki: tcp/80 r always -> Mon-Fri 08:00-18:00"]
    );
    let profile = format!("{zone}[profiles.guests]\nhours = [\"Sat 08:00-18:00\"]\n{always}");
    let plan_ = plan(&always, &profile);
    assert_eq!(
        lines(&plan_.hours),
        ["device:eve-tablet > host:wiki: tcp/80 r always -> guests: Sat 08:00-18:00"]
    );
    assert!(
        plan_
            .settings
            .iter()
            .any(|said| said.contains("profile guests")),
        "{:?}",
        plan_.settings
    );
    // Another rule without hours makes the hours of the first no matter.
    let both = format!("{hours}{}", always.replace("\"r\"", "\"s\""));
    assert!(plan(&always, &both).hours.is_empty());
}

#[test]
fn a_plan_shows_what_an_exclusive_profile_takes() {
    let profile = format!("[profiles.guests]\nonly_named = true\n{STARTER}");
    let plan = plan(STARTER, &profile);
    assert!(plan.gains.is_empty());
    let from: Vec<_> = plan.loses.iter().flat_map(|row| row.from.clone()).collect();
    assert_eq!(from, ["device:eve-tablet"]);
}

#[test]
fn a_plan_for_a_thousand_members_is_a_few_lines() {
    let registry = with_many(1000);
    let draft = |text: &str| compile(text, "p", &registry, NOW).unwrap().draft;
    let (old, new) = (draft(&rule("ann", "wiki")), draft(STARTER));
    let plan = Plan::new(Some(&old), &new, &registry).unwrap();
    let text = plan.text();
    assert!(text.lines().count() < 10, "{text}");
    assert!(plan.gains.iter().any(|row| row.from.len() > 1000));
    let pairs: usize = plan.gains.iter().map(|row| row.pairs).sum();
    // Six names and apps, for each member and machine but themselves.
    assert!((6 * 1000..7 * 1010).contains(&pairs), "{pairs}");
}

#[test]
fn the_same_policy_changes_nothing() {
    let plan = plan(STARTER, &format!("# words\n{STARTER}"));
    assert!(!plan.changes && plan.gains.is_empty() && plan.settings.is_empty());
    assert_eq!(plan.text(), "Nothing changes.\n");
}

proptest! {
    #[test]
    fn a_policy_that_was_written_compiles_to_the_same(draft in drafts()) {
        let text = write(&draft, &registry());
        let found = compile(&text, "p", &registry(), NOW);
        let found = found.unwrap_or_else(|faults| panic!("{faults:?}\n{text}"));
        prop_assert_eq!(&found.body, &draft.encode().unwrap(), "{}", text);
        prop_assert_eq!(&found.draft, &draft);
        prop_assert_eq!(write(&found.draft, &registry()), text);
    }

    #[test]
    fn no_change_of_a_text_panics(draft in drafts(), at: prop::sample::Index, with in "[\\[\\]\"=#:@*a-z0-9{}. \n-]{0,4}", cut in 0usize..4) {
        let text = write(&draft, &registry());
        let at = at.index(text.len());
        let rest = text.get(at + cut..).unwrap_or_default();
        if let Ok(found) = compile(&format!("{}{with}{rest}", &text[..at]), "p", &registry(), NOW) {
            prop_assert_eq!(found.draft.encode().unwrap(), found.body);
        }
    }

    #[test]
    fn a_plan_is_empty_only_for_the_same(old in drafts(), new in drafts()) {
        let plan = Plan::new(Some(&old), &new, &registry()).unwrap();
        prop_assert_eq!(plan.changes, old != new);
        let back = Plan::new(Some(&new), &old, &registry()).unwrap();
        let pairs = |rows: &[Allowed]| rows.iter().map(|row| row.pairs).sum::<usize>();
        prop_assert_eq!(pairs(&plan.gains) == 0, pairs(&back.loses) == 0);
        prop_assert!(plan.text().lines().count() > 0);
    }
}
