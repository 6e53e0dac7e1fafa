//! Requests: who asks, and what isn't passed on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use altnet_daemon::apps::tls::Tls;
use altnet_daemon::apps::{AppConfig, Caller, Kind, Refusal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::net::{Call, Net, Wire, caller, config, known};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A server that keeps what it was sent, and answers each request as `answer` says.
#[derive(Clone, Default)]
pub struct Server {
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
}

impl Server {
    pub async fn start(
        answer: impl Fn(&str) -> String + Clone + Send + 'static,
    ) -> (Self, AppConfig) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = config(Kind::Http, &listener.local_addr().unwrap().to_string());
        let server = Self::default();
        let own = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *own.connections.lock().unwrap() += 1;
                tokio::spawn(own.clone().serve(stream, answer.clone()));
            }
        });
        (server, config)
    }

    async fn serve(self, mut stream: TcpStream, answer: impl Fn(&str) -> String) {
        while let Some(request) = read_message(&mut stream).await {
            let answer = answer(&request);
            self.requests.lock().unwrap().push(request);
            stream.write_all(answer.as_bytes()).await.unwrap();
            if answer.to_ascii_lowercase().contains("connection: close") {
                return;
            }
        }
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Reads a head and the body that it announces.
pub async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut message = Vec::new();
    let mut end = b"\r\n\r\n".to_vec();
    let mut left = None;
    loop {
        if left.is_none() && message.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&message).to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1);
            let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
            let is_chunked = head.contains("transfer-encoding: chunked");
            left = Some(length.unwrap_or(0usize));
            if is_chunked {
                left = Some(usize::MAX);
                end = b"\r\n\r\n".to_vec();
                let byte = stream.read_u8().await.ok()?;
                message.push(byte);
                continue;
            }
        }
        match left {
            Some(0) => break,
            Some(usize::MAX) if message.ends_with(&end) && has_last_chunk(&message) => break,
            Some(usize::MAX) | None => {}
            Some(n) => {
                let mut body = vec![0; n];
                stream.read_exact(&mut body).await.ok()?;
                message.extend(body);
                break;
            }
        }
        message.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(message).unwrap())
}

fn has_last_chunk(message: &[u8]) -> bool {
    message.windows(5).any(|window| window == b"\r\n0\r\n")
}

/// Sends `request` and reads as many answers as `answers`.
async fn ask(call: &mut Call, request: &str, answers: usize) -> Vec<String> {
    call.write_all(request.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    for _ in 0..answers {
        heard.push(read_message(call).await.expect("an answer"));
    }
    heard
}

pub fn field<'a>(message: &'a str, name: &str) -> Vec<&'a str> {
    let head = message.split("\r\n\r\n").next().unwrap_or_default();
    head.split("\r\n")
        .filter_map(|line| line.split_once(": "))
        .filter(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect()
}

/// Asserts that `request` introduces the caller 2 of site 1, and nobody else.
#[track_caller]
fn assert_introduced(request: &str) {
    for (name, value) in [
        ("Altnet-Caller-Address", "fd00:1:2:1::2"),
        ("Altnet-Caller-Name", "host-2"),
        ("Altnet-Caller-Member", "member-1"),
        ("Altnet-Caller-Person", "ada"),
        ("Altnet-Caller-Groups", "family,admins"),
        ("Altnet-Caller-Site", "1"),
        ("Altnet-App", "wiki"),
        ("X-Forwarded-For", "fd00:1:2:1::2"),
        ("Forwarded", "for=\"[fd00:1:2:1::2]\";proto=http"),
    ] {
        assert_eq!(field(request, name), [value], "{name} in {request}");
    }
    assert!(!request.contains("mallory"), "{request}");
}

#[tokio::test(start_paused = true)]
async fn every_request_says_who_asks() {
    let (server, config) = Server::start(|_| OK.into()).await;
    let net = Net::start(config, Wire::default());
    let mut call = net.call(caller(1, 2), 80);
    // One by one, then three at once.
    for _ in 0..2 {
        let heard = ask(
            &mut call,
            "GET /a HTTP/1.1\r\nHost: wiki.home.alt\r\n\r\n",
            1,
        )
        .await;
        assert!(heard[0].starts_with("HTTP/1.1 200 OK\r\n") && heard[0].ends_with("ok"));
    }
    let one =
        "GET /b?c=d%20e HTTP/1.1\r\nHost: wiki.home.alt\r\naltnet_caller_person: mallory\r\n\r\n";
    let body = "GET / HTTP/1.1\r\nAltnet-Caller-Person: eve\r\n\r\n";
    let length = body.len();
    let two = format!(
        "POST /b HTTP/1.1\r\nHost: wiki.home.alt\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    ask(&mut call, &[one, &two, one].concat(), 3).await;
    let requests = server.requests();
    assert_eq!(requests.len(), 5);
    for request in &requests {
        assert_introduced(request);
        assert_eq!(field(request, "Host"), ["wiki.home.alt"]);
    }
    assert!(requests[2].starts_with("GET /b?c=d%20e HTTP/1.1\r\n"));
    assert!(requests[3].ends_with(&format!("\r\n\r\n{body}")));
    // One connection of a caller is one of the target.
    assert_eq!(*server.connections.lock().unwrap(), 1);
    assert_eq!(net.app.stats().requests, 5);
}

#[tokio::test(start_paused = true)]
async fn forged_identities_are_gone_in_every_spelling() {
    let (server, config) = Server::start(|_| OK.into()).await;
    let net = Net::start(config, Wire::default());
    let mut call = net.call(caller(1, 2), 80);
    let names = [
        "Altnet-Caller-Address",
        "Altnet-Caller-Name",
        "Altnet-Caller-Member",
        "Altnet-Caller-Person",
        "Altnet-Caller-Groups",
        "Altnet-Caller-Site",
        "Altnet-App",
        "Altnet-Caller-Later",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Real-IP",
        "Forwarded",
    ];
    let spell: [fn(&str) -> String; 5] = [
        str::to_owned,
        str::to_ascii_lowercase,
        str::to_ascii_uppercase,
        |name| name.replace('-', "_"),
        |name| name.replace('-', "."),
    ];
    let mut request = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned();
    for (i, name) in names.iter().enumerate() {
        for spell in [spell[i % 5], spell[(i + 3) % 5], spell[(i + 4) % 5]] {
            request += &format!("{}: mallory\r\n", spell(name));
        }
    }
    request += "Connection: Altnet-Caller-Person, Forwarded, keep-alive\r\n\r\n";
    ask(&mut call, &request, 1).await;
    let sent = server.requests().remove(0);
    assert_introduced(&sent);
    assert_eq!(field(&sent, "Connection"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn chunks_and_honest_trailers_pass() {
    let (server, config) = Server::start(|_| OK.into()).await;
    let net = Net::start(config, Wire::default());
    let mut call = net.call(caller(1, 2), 80);
    for method in ["POST", "GET"] {
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
             Trailer: Checksum, altnet_caller_person\r\n\r\n\
             5;x=y\r\nhello\r\n0\r\nChecksum: 1\r\naltnet_caller_person: mallory\r\n\
             Altnet-Caller-Groups: mallory\r\n\r\n"
        );
        ask(&mut call, &request, 1).await;
    }
    for sent in server.requests() {
        assert_introduced(&sent);
        assert_eq!(field(&sent, "Transfer-Encoding"), ["chunked"]);
        let body = sent.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(
            body.to_ascii_lowercase(),
            "5\r\nhello\r\n0\r\nchecksum: 1\r\n\r\n"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_mebibyte_is_fetched_and_sent() {
    let page: String = (0..1024 * 1024)
        .map(|i| char::from(b'a' + (i % 23) as u8))
        .collect();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{page}",
        page.len()
    );
    let (server, config) = Server::start(move |_| answer.clone()).await;
    let wire = Wire {
        lost: 10,
        overtaken: 20,
    };
    let net = Net::start(config, wire);
    let call = net.call(caller(1, 2), 80);
    let (mut reader, mut writer) = tokio::io::split(call);
    let request = format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{page}",
        page.len()
    );
    let (heard, ()) = tokio::join!(read_message(&mut reader), async {
        writer.write_all(request.as_bytes()).await.unwrap();
    });
    assert!(heard.unwrap().ends_with(&format!("\r\n\r\n{page}")));
    assert!(server.requests()[0].ends_with(&format!("\r\n\r\n{page}")));
}

/// What a caller hears until the end of the connection.
async fn hear_all(net: &Net, request: &str) -> String {
    let mut call = net.call(caller(1, 2), 80);
    call.write_all(request.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    call.read_to_end(&mut heard).await.unwrap();
    String::from_utf8(heard).unwrap()
}

#[tokio::test(start_paused = true)]
async fn smuggling_is_refused_and_ends_the_connection() {
    let (server, config) = Server::start(|_| OK.into()).await;
    let net = Net::start(config, Wire::default());
    let shapes = [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nX",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nXX",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        "! /200 HTTP/1.1\r\nHost: a\r\n\r\n",
        "\x16\x03\x01\x02\x00 a TLS hello\n",
    ];
    for shape in shapes {
        let heard = hear_all(&net, shape).await;
        assert!(
            heard.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{shape:?}: {heard}"
        );
        assert_eq!(field(&heard, "connection"), ["close"]);
    }
    assert_eq!(server.requests(), [""; 0]);
    assert_eq!(
        net.app.stats().refused(Refusal::BadRequest),
        shapes.len() as u64
    );

    // What came before it in the same breath is answered.
    let heard = hear_all(
        &net,
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    )
    .await;
    assert!(
        heard.starts_with("HTTP/1.1 200 OK\r\n") && heard.contains("HTTP/1.1 400 "),
        "{heard}"
    );
    let long = "a".repeat(9000);
    let heard = hear_all(&net, &format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    assert!(heard.starts_with("HTTP/1.1 414 "), "{heard}");
    let heard = hear_all(
        &net,
        &format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}{long}\r\n\r\n"),
    )
    .await;
    assert!(heard.starts_with("HTTP/1.1 431 "), "{heard}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_its_framing_is_refused() {
    let (server, config) = Server::start(|_| OK.into()).await;
    let net = Net::start(config, Wire::default());
    let heard = hear_all(
        &net,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    )
    .await;
    assert!(heard.starts_with("HTTP/1.1 400 "), "{heard}");
    assert_eq!(server.requests(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn http_1_0_is_served() {
    let (server, config) = Server::start(|_| OK.into()).await;
    let net = Net::start(config, Wire::default());
    let heard = hear_all(&net, "GET / HTTP/1.0\r\n\r\n").await;
    assert!(heard.ends_with("\r\n\r\nok"), "{heard}");
    assert_introduced(&server.requests()[0]);
    assert_eq!(field(&server.requests()[0], "host"), ["[fd00:1:2:8000::1]"]);
}

#[tokio::test(start_paused = true)]
async fn websocket_is_tunnelled() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config(Kind::Http, &listener.local_addr().unwrap().to_string());
    let net = Net::start(config, Wire::default());
    let mut call = net.call(caller(1, 2), 80);
    let request = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: x\r\nAltnet-Caller-Person: mallory\r\n\r\n\x01early";
    call.write_all(request.as_bytes()).await.unwrap();
    let (mut target, _) = listener.accept().await.unwrap();
    let sent = read_message(&mut target).await.unwrap();
    assert_introduced(&sent);
    assert_eq!(
        (field(&sent, "upgrade"), field(&sent, "connection")),
        (vec!["websocket"], vec!["upgrade"])
    );
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: y\r\n\r\nfirst";
    target.write_all(answer.as_bytes()).await.unwrap();
    let heard = read_message(&mut call).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 101 "), "{heard}");
    assert_eq!(field(&heard, "sec-websocket-accept"), ["y"]);

    assert_eq!(read_text(&mut call, 5).await, "first");
    assert_eq!(read_text(&mut target, 6).await, "\x01early");
    for text in ["GET / HTTP/1.1\nnot HTTP any more", "\r\n\r\n\0\n"] {
        call.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(read_text(&mut target, text.len()).await, text);
        target.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(read_text(&mut call, text.len()).await, text);
    }
    drop(target);
    assert_eq!(call.read(&mut [0; 8]).await.unwrap(), 0);
}

async fn read_text(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), len: usize) -> String {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_websocket_refused_stays_http() {
    let (server, config) = Server::start(|_| OK.into()).await;
    let net = Net::start(config, Wire::default());
    let mut call = net.call(caller(1, 2), 80);
    let wants = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let next = "GET /next HTTP/1.1\r\nHost: a\r\nAltnet-App: mallory\r\n\r\n";
    let heard = ask(&mut call, &[wants, next, wants, next].concat(), 4).await;
    assert!(
        heard
            .iter()
            .all(|answer| answer.starts_with("HTTP/1.1 200 "))
    );
    for request in server.requests() {
        assert_introduced(&request);
    }
    // Any other protocol is not offered on.
    ask(
        &mut call,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        1,
    )
    .await;
    assert_eq!(field(&server.requests()[4], "upgrade"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_fails_is_explained() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config(Kind::Http, &listener.local_addr().unwrap().to_string());
    let net = Net::start(config, Wire::default());
    let mut call = net.call(caller(1, 2), 80);
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    // It accepts and says nothing.
    let heard = ask(&mut call, get, 1).await;
    assert!(
        heard[0].starts_with("HTTP/1.1 504 Gateway Timeout\r\n"),
        "{heard:?}"
    );
    assert!(
        heard[0].ends_with("\r\n\r\nThe server of wiki takes too long.\n"),
        "{heard:?}"
    );
    // It is gone. The caller's connection stays.
    drop(listener);
    let heard = ask(&mut call, get, 1).await;
    assert!(
        heard[0].starts_with("HTTP/1.1 502 Bad Gateway\r\n"),
        "{heard:?}"
    );
    let stats = net.app.stats();
    assert_eq!(
        (
            stats.refused(Refusal::TargetSilent),
            stats.refused(Refusal::TargetRefused)
        ),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_target_that_answers_nonsense_or_hangs_up_is_a_bad_gateway() {
    for nonsense in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "connection: close",
    ] {
        let (_server, config) = Server::start(move |_| nonsense.into()).await;
        let net = Net::start(config, Wire::default());
        let mut call = net.call(caller(1, 2), 80);
        let heard = ask(&mut call, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1).await;
        assert!(
            heard[0].starts_with("HTTP/1.1 502 "),
            "{nonsense}: {heard:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_hung_up_meanwhile_is_asked_again() {
    let (server, config) = Server::start(|_| {
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok".into()
    })
    .await;
    let net = Net::start(config, Wire::default());
    let mut call = net.call(caller(1, 2), 80);
    for _ in 0..3 {
        let heard = ask(
            &mut call,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
            1,
        )
        .await;
        assert!(heard[0].starts_with("HTTP/1.1 200 "), "{heard:?}");
        assert_eq!(field(&heard[0], "connection"), [""; 0]);
    }
    assert_eq!(
        (server.requests().len(), *server.connections.lock().unwrap()),
        (3, 3)
    );
}

#[tokio::test(start_paused = true)]
async fn groups_are_asked_for_anew_and_strangers_are_refused() {
    let (server, config) = Server::start(|_| OK.into()).await;
    let asked = Mutex::new(0);
    let net = Net::start_with(config, Wire::default(), Tls::new(None).0, move |address| {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        match *asked {
            1 => Some(known(address)),
            2 => Some(Caller {
                groups: Vec::new(),
                ..known(address)
            }),
            _ => None,
        }
    });
    let mut call = net.call(caller(1, 2), 80);
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    ask(&mut call, get, 1).await;
    ask(&mut call, get, 1).await;
    let groups: Vec<_> = server
        .requests()
        .iter()
        .map(|r| field(&format!("{r} "), "altnet-caller-groups").join("|"))
        .collect();
    assert_eq!(groups, ["family,admins", ""]);
    let heard = ask(&mut call, get, 1).await;
    assert!(
        heard[0].starts_with("HTTP/1.1 403 Forbidden\r\n"),
        "{heard:?}"
    );
    assert_eq!(server.requests().len(), 2);
    assert_eq!(net.app.stats().refused(Refusal::Stranger), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_waits_to_go_on_is_told_to() {
    let (server, config) = Server::start(|_| OK.into()).await;
    let net = Net::start(config, Wire::default());
    let mut call = net.call(caller(1, 2), 80);
    let head = "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let heard = ask(&mut call, head, 1).await;
    assert!(heard[0].starts_with("HTTP/1.1 100 "), "{heard:?}");
    let heard = ask(&mut call, "body", 1).await;
    assert!(heard[0].starts_with("HTTP/1.1 200 "), "{heard:?}");
    assert!(server.requests()[0].ends_with("\r\n\r\nbody"));
    assert_eq!(field(&server.requests()[0], "expect"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_waits_for_a_slow_caller() {
    const MIB: usize = 1024 * 1024;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let config = config(Kind::Http, &format!("unix:{}", path.display()));
    let net = Net::start(config, Wire::default());
    let mut call = net.call(caller(1, 2), 80);
    call.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let (mut target, _) = listener.accept().await.unwrap();
    read_message(&mut target).await.unwrap();
    let written = Arc::new(Mutex::new(0));
    let writing = Arc::clone(&written);
    tokio::spawn(async move {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 8 * MIB);
        target.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..8 * 1024 {
            target.write_all(&[b'x'; 1024]).await.unwrap();
            *writing.lock().unwrap() += 1024;
        }
    });
    tokio::time::sleep(Duration::from_secs(600)).await;
    let sent = *written.lock().unwrap();
    assert!(sent < MIB, "{sent} bytes went somewhere");
    let heard = read_message(&mut call).await.unwrap();
    assert_eq!(heard.split_once("\r\n\r\n").unwrap().1.len(), 8 * MIB);
}

#[tokio::test(start_paused = true)]
async fn a_slow_upload_is_not_a_silent_target() {
    let (server, config) = Server::start(|_| OK.into()).await;
    let net = Net::start(config, Wire::default());
    let mut call = net.call(caller(1, 2), 80);
    let head = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    call.write_all(head.as_bytes()).await.unwrap();
    for byte in b"slow!" {
        tokio::time::sleep(Duration::from_secs(100)).await;
        call.write_u8(*byte).await.unwrap();
    }
    let heard = read_message(&mut call).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 200 "), "{heard}");
    assert!(server.requests()[0].ends_with("\r\n\r\nslow!"));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_let_go() {
    let (_server, config) = Server::start(|_| OK.into()).await;
    let net = Net::start(config, Wire::default());
    let mut call = net.call(caller(1, 2), 80);
    call.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
    let mut heard = Vec::new();
    call.read_to_end(&mut heard).await.unwrap();
    drop(call);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(net.app.stats().connections, 0);
}
