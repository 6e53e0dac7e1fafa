//! Against Pebble, the server that Let's Encrypt tests clients with: `ci/install acme` fetches it.

use altnet_relay::client::{Connection, Event};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use authority::{Authority, Home, NAME, PATIENCE, serve, wait_for};

mod authority;

const DAY_S: u64 = 24 * 3600;

/// Runs a client; what it is sent comes out.
fn listen(client: Connection) -> UnboundedReceiver<Vec<u8>> {
    let (tell, heard) = unbounded_channel();
    tokio::spawn(client.run(move |event| {
        if let Event::Packet { packet, .. } = event {
            let _ = tell.send(packet.to_vec());
        }
    }));
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Pebble: ci/install acme"]
async fn a_relay_gets_a_certificate_and_renews_it_while_a_stream_stands() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("acme");
    let relay = serve(home.path(), Some(&folder)).await;
    let authority = Authority::start(home.path(), relay.address.port(), 90 * DAY_S);
    let trust = authority.trust().await;
    let home = Home::new(home.path(), &authority);
    assert!(relay.connect(2, &trust).await.is_err(), "it has none yet");

    let keeper = home.keep();
    let first = home.another(None);
    let client = relay.connect(2, &trust).await.unwrap();
    let (sender, mut heard) = (client.sender(), listen(client));
    assert_eq!(home.answers(), 0);
    let status = home.status();
    assert_eq!(status["certificate"]["names"][0], NAME);
    assert!(
        status["is_good"].as_bool().unwrap() && status["failures"] == 0,
        "{status}"
    );
    // Pebble says when it wants to see it again (RFC 9773), and not what two thirds would be.
    let (from_s, to_s) = (
        status["certificate"]["not_before_s"].as_u64().unwrap(),
        status["certificate"]["not_after_s"].as_u64().unwrap(),
    );
    let two_thirds_s = from_s + (to_s - from_s) / 3 * 2;
    let renews_s = wait_for("a window", || {
        let renews_s = home.status()["renews_s"].as_u64().unwrap();
        (renews_s != two_thirds_s).then_some(renews_s)
    });
    assert!(renews_s > from_s && renews_s < to_s);
    assert!(keeper.end());

    // It is to be renewed at once: that is found out and done, without anybody's saying so here.
    authority
        .say_window(
            &home.certificate(),
            "2020-01-01T00:00:00Z",
            "2020-01-02T00:00:00Z",
        )
        .await;
    let account = std::fs::read(folder.join("account.state")).unwrap();
    std::fs::remove_file(folder.join("plan.state")).unwrap();
    let keeper = home.keep();
    let second = home.another(Some(&first));
    let other = relay.connect(3, &trust).await.unwrap();
    let key = other.sender().public();
    let mut others = listen(other);
    // By the stream of before the renewal, to one of after it, and back to one of before.
    sender.send(&key, b"still there").unwrap();
    let packet = tokio::time::timeout(PATIENCE, others.recv()).await.unwrap();
    assert_eq!(packet.unwrap(), b"still there");

    // And once more by hand, beside the process that runs.
    let said = home.run(&["renew", "--json"]);
    assert!(said.status.success(), "{said:?}");
    let third = home.another(Some(&second));
    assert!(third != first);
    let last = relay.connect(4, &trust).await.unwrap();
    last.sender().send(&sender.public(), b"and here").unwrap();
    tokio::spawn(last.run(|_| ()));
    let packet = tokio::time::timeout(PATIENCE, heard.recv()).await.unwrap();
    assert_eq!(packet.unwrap(), b"and here");
    assert!(keeper.end());
    // All by one account, and what was replaced was known by its name (RFC 9773 section 5).
    let said = |words: &str| authority.log().matches(words).count();
    assert_eq!(said("Added order"), 3, "{}", authority.log());
    assert_eq!(said("has been marked as replaced"), 2);
    assert_eq!(
        std::fs::read(folder.join("account.state")).unwrap(),
        account
    );
    let text = String::from_utf8(home.run(&["status"]).stdout).unwrap();
    assert!(
        text.contains(NAME) && text.contains("is good from"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Pebble: ci/install acme"]
async fn a_relay_that_does_not_answer_is_asked_for_ever_more_rarely_and_what_to_do_is_said() {
    let home = tempfile::tempdir().unwrap();
    // It shows a certificate of its own, and looks in no folder.
    let relay = serve(home.path(), None).await;
    let authority = Authority::start(home.path(), relay.address.port(), 90 * DAY_S);
    let home = Home::new(home.path(), &authority);
    let orders = || authority.log().matches("Added order").count();
    let keeper = home.keep();
    let failed = |times: u64| {
        wait_for("a failure", || {
            let status = home.folder.exists().then(|| home.status())?;
            let is_told = status["why"] != "it was cut short";
            (is_told && status["failures"] == times).then_some(status)
        })
    };
    let status = failed(1);
    let why = status["why"].as_str().unwrap();
    assert!(why.contains(NAME) && why.contains("[relay] acme"), "{why}");
    assert!(status["not_asked_before_s"].as_u64().is_some());
    assert_eq!(home.answers(), 0);
    assert!(keeper.end());
    assert_eq!(orders(), 1, "{}", authority.log());

    // A restart asks nobody, and takes away what one left that was killed; a person may ask, and then
    // the next pause is longer.
    std::fs::write(home.folder.join(format!("{NAME}.challenge")), "left").unwrap();
    let keeper = home.keep();
    wait_for("what is left to go", || (home.answers() == 0).then_some(()));
    let said = home.run(&["renew"]);
    assert!(!said.status.success());
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(text.contains("[relay] acme"), "{text}");
    let again = failed(2);
    let pause = |status: &serde_json::Value| status["not_asked_before_s"].as_u64().unwrap();
    assert!(pause(&again) > pause(&status) + 5 * 60);
    keeper.kill();
    assert_eq!(orders(), 2, "{}", authority.log());
    assert!(!home.folder.join("certificate.pem").exists());
}
