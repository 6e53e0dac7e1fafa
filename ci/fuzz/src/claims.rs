//! What comes from a LAN to a box that waits to be claimed, and back to who claims it.

use altnet_claim::code::Code;
use altnet_claim::hello::Hello;
use altnet_claim::key::BoxSecret;
use altnet_claim::pairing::{Answering, Asking, Seed};
use altnet_claim::words::{Inbox, MAX_FILES_BYTES, ToBox, ToComputer};
use altnet_setup::mdns::{Addresses, Names};
use altnet_setup::offer::{Offer, Stage};
use altnet_setup::page;
use core::time::Duration;

/// A hello, then whatever comes in the place of each message; nobody without the code gets a channel.
pub fn claim(data: &[u8]) {
    if let Ok(hello) = Hello::decode(data) {
        assert_eq!(hello.encode(), data, "another form of the same hello");
    }
    if let Ok(text) = core::str::from_utf8(data)
        && let Ok(code) = Code::parse(text)
    {
        assert_eq!(Code::parse(&code.to_text()), Ok(code));
    }
    let secret = BoxSecret::new(Seed::new([9; 32]));
    let hello = offer().hello(Duration::ZERO).encode();
    let answering = Answering {
        code: &Code::new(&[7; 9]),
        secret: &secret,
        hello: &hello,
    };
    let (first, rest) = data.split_at(data.len().min(33));
    if let Ok(counting) = answering.take(first, Seed::new([2; 32])) {
        let (waiting, _) = counting.answer();
        assert!(waiting.finish(rest).is_err(), "paired without the code");
    }
    if let Ok((asking, _)) = Asking::begin(&hello, &Code::new(&[7; 9]), Seed::new([1; 32]))
        && let Ok((proving, _)) = asking.prove(first)
    {
        assert!(proving.finish(rest).is_err(), "paired without the code");
    }
}

/// What is said in the channel, by who has the code but means no good.
pub fn claim_words(data: &[u8]) {
    let mut inbox = Inbox::default();
    let mut rest = data;
    while let Some((&length, after)) = rest.split_first() {
        let (message, after) = after.split_at(after.len().min(usize::from(length)));
        rest = after;
        if let Ok(said) = ToBox::decode(message) {
            match inbox.handle(said) {
                Ok(Some(files)) => {
                    let total: usize = files.iter().map(|file| file.bytes.len()).sum();
                    assert!(total <= MAX_FILES_BYTES && !files.is_empty());
                }
                Ok(None) => {}
                Err(_) => return,
            }
        }
        if let Ok(said) = ToComputer::decode(message) {
            assert_eq!(ToComputer::decode(&said.encode()), Ok(said));
        }
    }
}

/// A query by multicast DNS, and a request for the page.
pub fn setup(data: &[u8]) {
    let names = Names {
        label: "altnet-ab12cd".into(),
        port: 51821,
        text: vec!["v=1".into()],
    };
    for is_legacy in [false, true] {
        if let Some(reply) = names.answer(data, Addresses::default(), is_legacy) {
            assert_eq!(
                names.answer(&reply.bytes, Addresses::default(), is_legacy),
                None,
                "an answer is answered"
            );
        }
    }
    let now = Duration::from_secs(9);
    if page::is_whole(data)
        && let Some(said) = page::respond(data, &offer(), now)
    {
        assert!(said.starts_with("HTTP/1.1 "));
    }
}

fn offer() -> Offer {
    Offer {
        key: BoxSecret::new(Seed::new([9; 32])).public(),
        board: "rpi".into(),
        version: "v1".into(),
        tries: altnet_claim::tries::Tries::default(),
        stage: Stage::Waits,
        began: Duration::ZERO,
    }
}
