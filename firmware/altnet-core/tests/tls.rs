//! Certificates for TLS: who may ask for one and who may give it.

mod common;

use altnet_core::limits::Limits;
use altnet_core::records::SigningSecret;
use altnet_core::registry::{Missing, RecordError, Registry, Slot};
use altnet_wire::envelope::RecordKind;
use altnet_wire::id::Serial;
use altnet_wire::record::{Body as _, RevocationTarget, Roles};
use altnet_wire::tls::TlsRequest;
use common::*;

const DEVICE: u8 = 20;
const APP: u8 = 50;

/// A town whose house alpha has the app chat, and house beta none.
fn houses(limits: Limits) -> (Town, Registry) {
    let town = Town::new();
    let mut registry = town.registry(limits);
    let (alpha, beta) = (secret(DEVICE), secret(21));
    give(&mut registry, &town.certificates());
    give(
        &mut registry,
        &[
            town.sign(&town.issuer, &town.gateway(1, &alpha, "alpha", 3), 1),
            town.sign(&town.issuer, &town.gateway(2, &beta, "beta", 4), 1),
            town.sign(&alpha, &town.app(&secret(APP), &alpha, "chat"), 1),
        ],
    );
    (town, registry)
}

fn give(registry: &mut Registry, records: &[Vec<u8>]) {
    for bytes in records {
        registry.apply(bytes, &mut clock()).unwrap();
    }
}

#[track_caller]
fn refused(registry: &mut Registry, bytes: &[u8]) -> RecordError {
    let before = picture(registry);
    let error = registry.apply(bytes, &mut clock()).unwrap_err();
    assert_eq!(picture(registry), before, "a refusal changes nothing");
    error
}

fn request(town: &Town, by: &SigningSecret, app: Option<&SigningSecret>, serial: u64) -> Vec<u8> {
    town.sign(by, &town.tls_request(app), serial)
}

#[test]
fn a_device_asks_for_its_app_and_an_owner_answers() {
    let (town, mut registry) = houses(Limits::ROUTER);
    let (device, app) = (secret(DEVICE), secret(APP));
    give(&mut registry, &[request(&town, &device, Some(&app), 3)]);
    let asked = registry.tls_request(&app.public()).unwrap();
    assert_eq!((asked.device, asked.serial), (device.public(), Serial(3)));
    assert_eq!(asked.app.unwrap().record.name, name("chat"));
    assert!(registry.tls_certificate(&asked).is_none());

    let authority = town.tls_authority();
    let certificate = town.tls_certificate(&authority, app.public(), 3);
    // A certificate stands on its owner's word alone, and counts by the authority that it names.
    give(&mut registry, &[town.sign(&town.owner, &certificate, 1)]);
    let asked = registry.tls_request(&app.public()).unwrap();
    assert!(registry.tls_certificate(&asked).is_none());
    give(&mut registry, &[town.sign(&town.second, &authority, 1)]);
    let asked = registry.tls_request(&app.public()).unwrap();
    assert_eq!(registry.tls_certificate(&asked), Some(&certificate));

    // Another key is asked for: the old certificate is none for it.
    give(&mut registry, &[request(&town, &device, Some(&app), 4)]);
    let asked = registry.tls_request(&app.public()).unwrap();
    assert!(registry.tls_certificate(&asked).is_none());
}

#[test]
fn nobody_asks_for_what_is_anothers() {
    let (town, mut registry) = houses(Limits::ROUTER);
    let (beta, app) = (secret(21), secret(APP));
    let foreign = request(&town, &beta, Some(&app), 1);
    assert_eq!(refused(&mut registry, &foreign), RecordError::NotAuthorized);
    let unknown = request(&town, &beta, Some(&secret(51)), 1);
    let missing = RecordError::Missing(Missing::App(secret(51).public()));
    assert_eq!(refused(&mut registry, &unknown), missing);
    let stranger = request(&town, &secret(22), None, 1);
    let missing = RecordError::Missing(Missing::Device(secret(22).public()));
    assert_eq!(refused(&mut registry, &stranger), missing);

    // A login page is a gateway's alone.
    let guest = secret(23);
    let mut plain = town.membership(3, &guest, "gamma");
    plain.roles = Roles::APPS;
    give(&mut registry, &[town.sign(&town.issuer, &plain, 1)]);
    let login = request(&town, &guest, None, 1);
    assert_eq!(refused(&mut registry, &login), RecordError::NotAuthorized);
    give(&mut registry, &[request(&town, &beta, None, 1)]);
    let asked = registry.tls_request(&beta.public()).unwrap();
    assert!(asked.app.is_none());
}

#[test]
fn only_owners_certify() {
    let (town, mut registry) = houses(Limits::ROUTER);
    let authority = town.tls_authority();
    let certificate = town.tls_certificate(&authority, secret(APP).public(), 1);
    for other in [&town.issuer, &town.porter, &secret(DEVICE), &town.recovery] {
        for bytes in [
            town.sign(other, &authority, 1),
            town.sign(other, &certificate, 1),
        ] {
            assert_eq!(refused(&mut registry, &bytes), RecordError::NotAuthorized);
        }
    }
    let mut empty = authority.clone();
    empty.certificate.clear();
    let bytes = town.sign(&town.owner, &empty, 1);
    let bad = RecordError::Body(RecordKind::TLS_AUTHORITY);
    assert_eq!(refused(&mut registry, &bytes), bad);
}

#[test]
fn a_request_ends_with_its_app_and_with_its_device() {
    let (town, mut registry) = houses(Limits::ROUTER);
    let (device, app) = (secret(DEVICE), secret(APP));
    give(&mut registry, &[request(&town, &device, Some(&app), 1)]);
    let mut gone = town.app(&app, &device, "chat");
    gone.tunnel = None;
    give(&mut registry, &[town.sign(&device, &gone, 2)]);
    assert!(registry.tls_request(&app.public()).is_none());
    // The app comes back, and so does what was asked for it.
    let back = town.app(&app, &device, "chat");
    give(&mut registry, &[town.sign(&device, &back, 3)]);
    assert!(registry.tls_request(&app.public()).is_some());

    let revocation = town.revocation(RevocationTarget::Device(device.public()), 20);
    give(&mut registry, &[town.sign(&town.owner, &revocation, 1)]);
    assert!(registry.tls_request(&app.public()).is_none());
    let slot = Slot::tls_request(app.public());
    assert!(registry.bytes(&slot).is_none(), "nothing of it is kept");
    let again = request(&town, &device, Some(&app), 2);
    assert_eq!(refused(&mut registry, &again), RecordError::Revoked);
}

#[test]
fn an_app_that_moved_takes_no_request_along() {
    let (town, mut registry) = houses(Limits::ROUTER);
    let (device, beta, app) = (secret(DEVICE), secret(21), secret(APP));
    give(&mut registry, &[request(&town, &device, Some(&app), 7)]);
    let mut moved = town.app(&app, &beta, "chat");
    moved.tunnel.as_mut().unwrap().key = town.node(77).tunnel.key;
    give(&mut registry, &[town.sign(&beta, &moved, 2)]);
    assert!(registry.tls_request(&app.public()).is_none());
    give(&mut registry, &[request(&town, &beta, Some(&app), 1)]);
    let asked = registry.tls_request(&app.public()).unwrap();
    assert_eq!(asked.device, beta.public());
}

#[test]
fn one_device_has_a_share_of_the_requests() {
    let limits = Limits {
        apps: 8,
        ..Limits::ROUTER
    };
    let (town, mut registry) = houses(limits);
    let (device, app) = (secret(DEVICE), secret(APP));
    let other = secret(51);
    give(
        &mut registry,
        &[
            town.sign(&device, &town.app(&other, &device, "wiki"), 1),
            request(&town, &device, Some(&app), 1),
            request(&town, &device, Some(&other), 1),
        ],
    );
    let full = RecordError::Full {
        kind: TlsRequest::KIND,
        limit: 2,
    };
    let third = request(&town, &device, None, 1);
    assert_eq!(refused(&mut registry, &third), full);
    // What it asked already it may ask anew.
    give(&mut registry, &[request(&town, &device, Some(&app), 2)]);
}

#[test]
fn the_order_of_arrival_makes_no_difference() {
    let (town, registry) = houses(Limits::ROUTER);
    let (device, app) = (secret(DEVICE), secret(APP));
    let authority = town.tls_authority();
    let mut records: Vec<Vec<u8>> = registry.iter().map(|(_, b)| b.to_vec()).collect();
    records.extend([
        request(&town, &device, Some(&app), 1),
        town.sign(&town.owner, &authority, 1),
        town.sign(
            &town.owner,
            &town.tls_certificate(&authority, app.public(), 1),
            1,
        ),
    ]);
    let mut pictures = Vec::new();
    for turn in 0..records.len() {
        records.rotate_left(1);
        let mut registry = town.registry(Limits::ROUTER);
        registry.apply_all(records.iter().map(Vec::as_slice), &mut clock());
        let asked = registry.tls_request(&app.public()).expect("it was asked");
        assert!(registry.tls_certificate(&asked).is_some(), "turn {turn}");
        pictures.push(picture(&registry));
    }
    pictures.dedup();
    assert_eq!(pictures.len(), 1);
}
