//! A relay whose certificate another process renews.

use std::fs;
use std::path::Path;

use altnet_relay::acme::{ACME_TLS, Folder};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::pki_types::CertificateDer;
use tokio::io::AsyncReadExt;

use crate::common::{World, member};

const NAME: &str = "relay.test";

/// A certificate and its key, as altnet-acme writes them, and the certificate alone.
fn made() -> (String, CertificateDer<'static>) {
    made_with(Vec::new())
}

fn made_with(extensions: Vec<CustomExtension>) -> (String, CertificateDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
    params.custom_extensions = extensions;
    let certificate = params.self_signed(&key).unwrap();
    let text = key.serialize_pem() + &certificate.pem();
    (text, certificate.der().clone())
}

/// Puts a file there whole.
fn put(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

/// The certificate that the relay shows.
async fn shown(world: &World) -> CertificateDer<'static> {
    let tls = world.shake_hands(NAME, &[b"http/1.1"]).await.unwrap();
    let chain = tls.get_ref().1.peer_certificates().unwrap();
    assert_eq!(chain.len(), 2, "the second one names the DERP key");
    chain[0].clone()
}

#[tokio::test]
async fn who_validates_is_answered_while_the_challenge_is_there_and_no_longer() {
    let home = tempfile::tempdir().unwrap();
    let folder = Folder::new(home.path());
    let (world, _) = World::with_acme(home.path()).await;
    let asks: &[&[u8]] = &[ACME_TLS];
    assert!(world.shake_hands(NAME, asks).await.is_err());

    // Critical, and known to validators alone.
    let proof = CustomExtension::new_acme_identifier(&[7; 32]);
    let (text, certificate) = made_with(vec![proof]);
    let path = folder.challenge(NAME).unwrap();
    put(&path, &text);
    let mut tls = world.shake_hands(NAME, asks).await.unwrap();
    let session = tls.get_ref().1;
    assert_eq!(session.alpn_protocol(), Some(ACME_TLS));
    assert_eq!(session.peer_certificates(), Some(&[certificate][..]));
    // Nothing is said: the relay ends it, in TLS's own way.
    assert_eq!(tls.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    // Neither for another name, nor to who comes for something else.
    assert!(world.shake_hands("other.test", asks).await.is_err());
    let own = shown(&world).await;
    let both = world.shake_hands(NAME, &[ACME_TLS, b"http/1.1"]).await;
    let both = both.unwrap();
    let session = both.get_ref().1;
    assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(session.peer_certificates().unwrap()[0], own);

    fs::write(&path, "half of it").unwrap();
    assert!(world.shake_hands(NAME, asks).await.is_err());
    fs::remove_file(&path).unwrap();
    assert!(world.shake_hands(NAME, asks).await.is_err());
}

#[tokio::test]
async fn a_relay_without_acme_agrees_to_no_challenge() {
    let world = World::new().await;
    assert!(world.shake_hands(NAME, &[ACME_TLS]).await.is_err());
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_at_once_and_streams_stay() {
    let home = tempfile::tempdir().unwrap();
    let folder = Folder::new(home.path());
    let (world, mut told) = World::with_acme(home.path()).await;
    let own = shown(&world).await;
    let (a, mut b) = (member(&world, 2).await, member(&world, 3).await);
    let mut before = own;
    for _ in 0..2 {
        let (text, certificate) = made();
        put(&folder.certificate(), &text);
        assert_eq!(shown(&world).await, certificate);
        assert_ne!(certificate, before);
        assert_eq!(told.recv().await, Some(Ok(())));
        before = certificate;
    }
    // It was told of once for each, however many came.
    shown(&world).await;
    assert!(told.try_recv().is_err());
    a.sender.send(&b.key, b"still there").unwrap();
    assert_eq!(b.packet().await, (a.key, b"still there".to_vec()));
}

#[tokio::test]
async fn a_file_that_is_of_no_use_changes_nothing_and_is_told_once() {
    let home = tempfile::tempdir().unwrap();
    let folder = Folder::new(home.path());
    let (text, certificate) = made();
    let (other, _) = made();
    put(&folder.certificate(), &text);
    let (world, mut told) = World::with_acme(home.path()).await;
    assert_eq!(shown(&world).await, certificate);
    assert_eq!(told.recv().await, Some(Ok(())));

    let (key, chain) = text.split_once("-----BEGIN CERTIFICATE").unwrap();
    let others_key = other.split_once("-----BEGIN CERTIFICATE").unwrap().0;
    let unfit = [
        String::new(),
        key.to_owned(),
        text[..text.len() / 2].to_owned(),
        format!("-----BEGIN CERTIFICATE{chain}"),
        format!("{others_key}-----BEGIN CERTIFICATE{chain}"),
    ];
    for text in unfit {
        put(&folder.certificate(), &text);
        for _ in 0..2 {
            assert_eq!(shown(&world).await, certificate);
        }
        let why = told.recv().await.unwrap().unwrap_err();
        assert!(!why.contains("BEGIN"), "{why}");
        assert!(told.try_recv().is_err(), "{why}");
    }
    // Nor is what is shown gone with its file.
    fs::remove_file(folder.certificate()).unwrap();
    assert_eq!(shown(&world).await, certificate);
    assert!(told.try_recv().is_err());
    // A folder in its place is another thing that can't be read.
    fs::create_dir(folder.certificate()).unwrap();
    assert_eq!(shown(&world).await, certificate);
    assert!(told.recv().await.unwrap().is_err());
}
