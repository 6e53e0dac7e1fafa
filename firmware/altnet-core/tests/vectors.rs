//! One record of each kind from fixed keys, byte by byte: a change of format is a red test.
//!
//! `vectors.json` holds the inputs and the bytes; `ci/vectors/records.py` makes the same bytes
//! from the inputs without any of this code. To accept a change of format, run this test with
//! `ALTNET_WRITE_VECTORS=1` and say why in the commit.

mod common;

use std::fmt::Write;

use altnet_core::limits::Limits;
use altnet_core::records::{self, SigningSecret};
use altnet_core::registry::Applied;
use altnet_wire::address;
use altnet_wire::envelope::{Envelope, RecordKind};
use altnet_wire::id::Serial;
use altnet_wire::id::{NodeId, SigningKey, record_id};
use altnet_wire::record::*;
use altnet_wire::tls::TlsRequest;
use common::*;

struct Case {
    label: &'static str,
    seed: u8,
    fields: String,
    bytes: Vec<u8>,
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap();
    }
    text + "\""
}

fn text<T: std::fmt::Display + ?Sized>(value: &T) -> String {
    format!("\"{value}\"")
}

fn list<T>(values: &[T], one: impl Fn(&T) -> String) -> String {
    let all: Vec<String> = values.iter().map(one).collect();
    format!("[{}]", all.join(", "))
}

fn maybe<T>(value: &Option<T>, one: impl Fn(&T) -> String) -> String {
    value.as_ref().map_or("null".into(), one)
}

fn key(key: &SigningKey) -> String {
    hex(&key.0)
}

fn keys_of(keys: &[SigningKey]) -> String {
    list(keys, key)
}

fn proof(halves: &[[u8; 32]; 2]) -> String {
    hex(halves.as_flattened())
}

fn epoch(tunnel: &TunnelEpoch) -> String {
    format!(
        "{{\"epoch\": {}, \"key\": {}}}",
        tunnel.epoch,
        hex(&tunnel.key.0)
    )
}

fn fields(pairs: &[(&str, String)]) -> String {
    let all: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("        \"{name}\": {value}"))
        .collect();
    format!("{{\n{}\n      }}", all.join(",\n"))
}

fn owner_cases(town: &Town) -> Vec<Case> {
    let registry = town.registry(Limits::ROUTER);
    let genesis = registry.genesis();
    let change = town.change(town.genesis_id(), &[&town.owner], 3);
    let certificate = town.certificate(&town.issuer, Rights::all());
    let porter = town.certificate(&town.porter, Rights::ADMIT);
    let certificate_fields = |body: &IssuerCertificate| {
        fields(&[
            ("issuer", key(&body.issuer)),
            ("rights", body.rights.bits().to_string()),
            ("roles", body.roles.bits().to_string()),
            ("first_site", body.first_site.to_string()),
            ("last_site", body.last_site.to_string()),
            ("issued", body.issued.as_secs().to_string()),
            ("expires", body.expires.as_secs().to_string()),
        ])
    };
    vec![
        Case {
            label: "genesis",
            seed: 1,
            fields: fields(&[
                ("name", text(&genesis.name)),
                ("owners", keys_of(&genesis.owners)),
                ("recovery", key(&genesis.recovery)),
                ("issued", genesis.issued.as_secs().to_string()),
                ("nonce", hex(&genesis.nonce)),
            ]),
            bytes: town.genesis.clone(),
        },
        Case {
            label: "owner-change",
            seed: 1,
            fields: fields(&[
                ("previous", hex(&change.previous.0)),
                ("owners", keys_of(&change.owners)),
                ("recovery", key(&change.recovery)),
                ("issued", change.issued.as_secs().to_string()),
            ]),
            bytes: town.sign(&town.owner, &change, 1),
        },
        Case {
            label: "issuer-certificate",
            seed: 1,
            fields: certificate_fields(&certificate),
            bytes: town.sign(&town.owner, &certificate, 1),
        },
        Case {
            label: "issuer-certificate",
            seed: 1,
            fields: certificate_fields(&porter),
            bytes: town.sign(&town.owner, &porter, 1),
        },
    ]
}

fn membership_case(town: &Town, seed: u8, by: &SigningSecret, body: &Membership) -> Case {
    let redemption = |one: &Redemption| {
        format!(
            "{{\"invite\": {}, \"session\": {}, \"proof\": {}}}",
            key(&one.invite),
            hex(&one.session),
            proof(&one.proof)
        )
    };
    Case {
        label: "membership",
        seed,
        fields: fields(&[
            ("member", hex(&body.member.0)),
            ("name", text(&body.name)),
            ("person", maybe(&body.person, text)),
            ("device", key(&body.device)),
            ("roles", body.roles.bits().to_string()),
            ("site", maybe(&body.site, |site| site.to_string())),
            ("groups", list(&body.groups, text)),
            ("sponsor", maybe(&body.sponsor, |member| hex(&member.0))),
            ("invite", maybe(&body.invite, redemption)),
            ("issued", body.issued.as_secs().to_string()),
            ("expires", body.expires.as_secs().to_string()),
            ("replaces", maybe(&body.replaces, key)),
        ]),
        bytes: town.sign(by, body, 300),
    }
}

fn member_cases(town: &Town) -> Vec<Case> {
    let device = secret(20);
    let mut gateway = town.gateway(1, &device, "alpha", 3);
    gateway.person = Some(name("ada"));
    gateway.groups = [name("family"), name("admins")].into_iter().collect();
    gateway.replaces = Some(secret(19).public());
    let mut invited = town.membership(2, &secret(21), "beta");
    let invite_key = SigningSecret::of_invite(&[9; 16]);
    invited.sponsor = Some(member(1));
    invited.invite = Some(records::redeem_proof(
        &invite_key,
        [3; 32],
        &secret(21).public(),
    ));
    let mut invite = town.invite(&[9; 16]);
    invite.sponsor = Some(member(1));
    invite.uses = 200;
    vec![
        membership_case(town, 5, &town.issuer, &gateway),
        Case {
            label: "invite",
            seed: 5,
            fields: fields(&[
                ("invite", key(&invite.invite)),
                ("issuer", key(&invite.issuer)),
                ("name", maybe(&invite.name, text)),
                ("person", maybe(&invite.person, text)),
                ("roles", invite.roles.bits().to_string()),
                ("site", maybe(&invite.site, |site| site.to_string())),
                ("groups", list(&invite.groups, text)),
                ("sponsor", maybe(&invite.sponsor, |member| hex(&member.0))),
                ("uses", invite.uses.to_string()),
                ("issued", invite.issued.as_secs().to_string()),
                ("expires", invite.expires.as_secs().to_string()),
            ]),
            bytes: town.sign(&town.issuer, &invite, 1),
        },
        membership_case(town, 6, &town.porter, &invited),
    ]
}

fn device_cases(town: &Town) -> Vec<Case> {
    let device = secret(20);
    let mut node = town.node(30);
    node.tunnel.epoch = 129;
    node.previous_tunnel = Some(town.node(31).tunnel);
    let relay = NodeId(address::node_address(&town.network, &secret(21).public()).octets());
    node.home_relays = [relay].into_iter().collect();
    node.fixed_endpoints = [
        "192.0.2.1:7377".parse().unwrap(),
        "[2001:db8::1]:443".parse().unwrap(),
    ]
    .into_iter()
    .collect();
    let host = town.host("wiki", 3, 0x1234);
    let app = town.app(&secret(50), &device, "chat");
    vec![
        Case {
            label: "node",
            seed: 20,
            fields: fields(&[
                ("control", hex(&node.control.0)),
                ("tunnel", epoch(&node.tunnel)),
                ("previous_tunnel", maybe(&node.previous_tunnel, epoch)),
                ("home_relays", list(&node.home_relays, text)),
                ("fixed_endpoints", list(&node.fixed_endpoints, text)),
            ]),
            bytes: town.sign(&device, &node, 2),
        },
        Case {
            label: "derp",
            seed: 20,
            fields: fields(&[("key", hex(&[7; 32]))]),
            bytes: town.sign(&device, &DerpRecord { key: [7; 32] }, 1),
        },
        Case {
            label: "host",
            seed: 20,
            fields: fields(&[
                ("name", text(&host.name)),
                ("site", host.site.to_string()),
                ("address", maybe(&host.address, text)),
            ]),
            bytes: town.sign(&device, &host, 2),
        },
        Case {
            label: "app",
            seed: 20,
            fields: fields(&[
                ("name", text(&app.name)),
                ("app", key(&app.app)),
                ("tunnel", maybe(&app.tunnel, epoch)),
                ("binding", proof(&app.binding)),
            ]),
            bytes: town.sign(&device, &app, 2),
        },
    ]
}

fn tls_cases(town: &Town) -> Vec<Case> {
    let (device, app) = (secret(20), secret(50));
    let authority = town.tls_authority();
    let request = town.tls_request(Some(&app));
    let login = town.tls_request(None);
    let certificate = town.tls_certificate(&authority, app.public(), 300);
    let asked = |request: &TlsRequest| {
        fields(&[
            ("app", maybe(&request.app, key)),
            ("key", proof(&request.key)),
            ("proof", proof(&request.proof)),
        ])
    };
    vec![
        Case {
            label: "tls-authority",
            seed: 1,
            fields: fields(&[
                ("issued", authority.issued.as_secs().to_string()),
                ("expires", authority.expires.as_secs().to_string()),
                ("certificate", hex(&authority.certificate)),
            ]),
            bytes: town.sign(&town.owner, &authority, 1),
        },
        Case {
            label: "tls-request",
            seed: 20,
            fields: asked(&request),
            bytes: town.sign(&device, &request, 300),
        },
        Case {
            label: "tls-request",
            seed: 20,
            fields: asked(&login),
            bytes: town.sign(&device, &login, 1),
        },
        Case {
            label: "tls-certificate",
            seed: 1,
            fields: fields(&[
                ("subject", key(&certificate.subject)),
                ("request", certificate.request.to_string()),
                ("authority", hex(&certificate.authority)),
                ("expires", certificate.expires.as_secs().to_string()),
                ("certificate", hex(&certificate.certificate)),
            ]),
            bytes: town.sign(&town.owner, &certificate, 2),
        },
    ]
}

fn issuer_cases(town: &Town) -> Vec<Case> {
    let targets = [
        ("member", RevocationTarget::Member(member(7))),
        ("device", RevocationTarget::Device(secret(22).public())),
        ("issuer", RevocationTarget::Issuer(secret(23).public())),
        ("invite", RevocationTarget::Invite(secret(24).public())),
    ];
    let mut cases: Vec<Case> = targets
        .iter()
        .map(|(label, target)| {
            let body = town.revocation(*target, 20);
            let subject = match target {
                RevocationTarget::Member(id) => hex(&id.0),
                RevocationTarget::Device(id)
                | RevocationTarget::Issuer(id)
                | RevocationTarget::Invite(id) => key(id),
                _ => unreachable!("all targets are listed above"),
            };
            Case {
                label: "revocation",
                seed: 1,
                fields: fields(&[
                    ("target", format!("{{\"{label}\": {subject}}}")),
                    ("issued", body.issued.as_secs().to_string()),
                    ("reason", text(&body.reason)),
                ]),
                bytes: town.sign(&town.owner, &body, 1),
            }
        })
        .collect();
    let head = NetworkHead {
        revocations: [8; 32],
        revocation_count: 4,
        policy: [3; 32],
        policy_serial: Serial(300),
        owner_serial: 1,
        issued: at(60),
    };
    cases.push(Case {
        label: "policy",
        seed: 5,
        fields: FULL_POLICY.into(),
        bytes: town.opaque(&town.issuer, 8, 1, &full_policy_body()),
    });
    let mut out = vec![0; RecordKind::POLICY.max_bytes()];
    let body = full_policy_body_2();
    let kind = RecordKind::POLICY;
    let second = records::sign_body(
        &town.issuer,
        town.network,
        kind,
        2,
        &body,
        Serial(2),
        &mut out,
    );
    let first = FULL_POLICY.strip_suffix('}').unwrap();
    cases.push(Case {
        label: "policy",
        seed: 5,
        fields: format!("{first}, {FULL_POLICY_2}}}"),
        bytes: second.unwrap().to_vec(),
    });
    cases.push(Case {
        label: "network-head",
        seed: 5,
        fields: fields(&[
            ("revocations", hex(&head.revocations)),
            ("revocation_count", head.revocation_count.to_string()),
            ("policy", hex(&head.policy)),
            ("policy_serial", head.policy_serial.to_string()),
            ("owner_serial", head.owner_serial.to_string()),
            ("issued", head.issued.as_secs().to_string()),
        ]),
        bytes: town.sign(&town.issuer, &head, 2),
    });
    cases
}

/// What [`full_policy_body_2`] has besides.
const FULL_POLICY_2: &str = r#""vouchers": [{"at": 3, "who": 0}, {"at": 5, "who": 1}, {"at": 6, "who": 2}], "sponsors": [{"who": 3, "most": 300, "depth": 2, "groups": [2, 4]}, {"who": 0, "most": 1, "depth": 1, "groups": []}]"#;

/// [`full_policy_body`] as it is written: what rules name, by their places.
const FULL_POLICY: &str = r#"{"issued": 1790000080, "zone": {"offset_min": 60, "summer": {"offset_min": 120, "begins": {"month": 3, "week": 5, "weekday": 0, "minute": 120}, "ends": {"month": 10, "week": 5, "weekday": 0, "minute": -60}}}, "stale_after_s": 86400, "atoms": ["members", {"person": "ann"}, {"group": "children"}, {"group": "family"}, {"group": "things"}, {"device": "14141414141414141414141414141414"}, {"site": 3}, {"host": [3, "wiki"]}, {"app": ["14141414141414141414141414141414", "chat"]}, "hosts", "apps", "anything", {"named": "media-*"}], "names": ["cabin", "care", "web"], "sites": [[3, 0]], "windows": [{"spans": [{"days": 31, "opens_min": 1080, "closes_min": 1440}, {"days": 96, "opens_min": 480, "closes_min": 60}], "open_without_clock": false}, {"spans": [{"days": 127, "opens_min": 0, "closes_min": 1440}], "open_without_clock": true}], "groups": [{"atom": 1, "group": 3}, {"atom": 6, "group": 4}, {"atom": 12, "group": 4}], "profiles": [{"group": 2, "exclusive": true, "window": 0}], "rules": [{"name": 2, "from": [0, 1], "to": [7, 8, 9, 10], "services": [{"protocol": 6, "first_port": 80, "last_port": 80}, {"protocol": 17, "first_port": 5000, "last_port": 5100}], "window": null, "needs_fresh_head": false}, {"name": 1, "from": [3, 5], "to": [6, 11], "services": [{"protocol": null, "first_port": 0, "last_port": 65535}, {"protocol": 58, "first_port": 0, "last_port": 65535}], "window": 1, "needs_fresh_head": true}]}"#;

fn cases(town: &Town) -> Vec<Case> {
    let mut all = owner_cases(town);
    all.extend(member_cases(town));
    all.extend(device_cases(town));
    all.extend(tls_cases(town));
    all.extend(issuer_cases(town));
    all
}

fn json(town: &Town) -> String {
    let records: Vec<String> = cases(town)
        .iter()
        .map(|case| {
            let envelope = Envelope::parse(&case.bytes).unwrap();
            let header = envelope.header();
            format!(
                "    {{\n      \"kind\": {},\n      \"version\": {},\n      \"network\": {},\n      \
                 \"seed\": {},\n      \"serial\": {},\n      \"body\": {},\n      \
                 \"bytes\": {},\n      \"id\": {}\n    }}",
                text(case.label),
                header.version,
                hex(&header.network.0),
                hex(&[case.seed; 32]),
                header.serial,
                case.fields,
                hex(&case.bytes),
                hex(&record_id(&case.bytes).0)
            )
        })
        .collect();
    let device = secret(20).public();
    let app = secret(50).public();
    let addresses = fields(&[
        ("prefix", text(&address::network_prefix(&town.network))),
        ("site", site(3).to_string()),
        (
            "site_prefix",
            text(&address::site_prefix(&town.network, site(3))),
        ),
        (
            "site_gateway",
            text(&address::site_gateway(&town.network, site(3))),
        ),
        ("device", key(&device)),
        (
            "node_address",
            text(&address::node_address(&town.network, &device)),
        ),
        ("app", key(&app)),
        (
            "app_address",
            text(&address::app_address(&town.network, &app)),
        ),
    ]);
    let invite = fields(&[
        ("secret", hex(&[9; 16])),
        ("public", key(&SigningSecret::of_invite(&[9; 16]).public())),
    ]);
    let session = fields(&[
        ("handshake", hex(&[7; 32])),
        ("control", hex(&town.node(30).control.0)),
        (
            "session",
            hex(&redemption_session(&[7; 32], &town.node(30).control)),
        ),
    ]);
    format!(
        "{{\n  \"network\": {},\n  \"addresses\": {addresses},\n  \"invite_key\": {invite},\n  \
         \"redemption_session\": {session},\n  \"records\": [\n{}\n  ]\n}}\n",
        hex(&town.network.0),
        records.join(",\n")
    )
}

#[test]
fn every_record_is_written_as_it_always_was() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors.json");
    let now = json(&Town::new());
    if std::env::var_os("ALTNET_WRITE_VECTORS").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let then = std::fs::read_to_string(path).unwrap();
    for (line, (now, then)) in now.lines().zip(then.lines()).enumerate() {
        assert_eq!(now, then, "line {} of vectors.json", line + 1);
    }
    assert_eq!(now.len(), then.len());
}

#[test]
fn every_vector_is_a_record_that_the_registry_takes() {
    let town = Town::new();
    let mut registry = town.registry(Limits::ROUTER);
    for case in cases(&town) {
        let applied = registry.apply(&case.bytes, &mut clock());
        assert!(
            matches!(applied, Ok(Applied::New { .. } | Applied::Same)),
            "{}: {applied:?}",
            case.label
        );
    }
    assert_eq!(registry.members().count(), 2);
}
