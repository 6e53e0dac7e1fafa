//! The socket's serving end. It reads lines, finds out who asks and whether they may, and hands
//! what they ask to the gateway one at a time.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

use super::{
    ApiError, Code, MAX_CLIENTS, MAX_LINE_BYTES, Method, Outcome, Request, Response, Role, VERSION,
};

/// A request on its way to the gateway.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub method: Method,
    /// By which user (`SO_PEERCRED`).
    pub user: u32,
    /// Whether who asks may. If not, it is only noted and answered so.
    pub is_allowed: bool,
    /// With what.
    pub params: Value,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Value, ApiError>>,
}

/// Who may do what.
#[derive(Clone, Debug)]
pub struct Access {
    /// altnetd's own user, who owns it as root does.
    pub own_user: u32,
    /// The group that operates it.
    pub operators: Option<u32>,
    /// The group that may log machines on the LANs in and out.
    pub logins: Option<u32>,
    /// The role of everybody else.
    pub others: Option<Role>,
    /// altnetd's own process, which asks for nothing: an app that leads to the socket would give
    /// its callers what altnetd may.
    pub own_process: Option<i32>,
}

impl Access {
    fn role(&self, user: u32, groups: &[u32]) -> Option<Role> {
        if user == 0 || user == self.own_user {
            return Some(Role::Own);
        }
        let operates = self.operators.is_some_and(|group| groups.contains(&group));
        if operates {
            Some(Role::Operate)
        } else {
            self.others
        }
    }
}

/// The listening socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: std::path::PathBuf,
}

impl Listener {
    /// Listens at `path`, replacing the socket of an altnetd that is gone. Everybody may
    /// connect; what they may ask is for [`Access`].
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if a living one listens there; what the filesystem says.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        Ok(Self {
            listener,
            path: path.into(),
        })
    }

    /// Serves until it is dropped. Runs on a [`tokio::task::LocalSet`].
    pub async fn serve(
        self,
        access: Access,
        calls: mpsc::Sender<Call>,
        events: broadcast::Sender<Arc<str>>,
    ) {
        let access = Rc::new(access);
        let room = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of descriptors, most likely: wait for some to come back.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                crate::debug!("an API client was turned away: {MAX_CLIENTS} are connected");
                continue;
            };
            let client = Client {
                access: Rc::clone(&access),
                calls: calls.clone(),
                events: events.clone(),
            };
            tokio::task::spawn_local(async move {
                if let Err(e) = client.serve(stream).await {
                    crate::debug!("an API client left: {e}");
                }
                drop(place);
            });
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Who asks.
#[derive(Clone, Copy)]
struct Who {
    user: u32,
    role: Option<Role>,
    /// Whether it is the login page.
    logs_in: bool,
}

struct Client {
    access: Rc<Access>,
    calls: mpsc::Sender<Call>,
    events: broadcast::Sender<Arc<str>>,
}

impl Client {
    async fn serve(&self, stream: UnixStream) -> io::Result<()> {
        let peer = stream.peer_cred()?;
        if self
            .access
            .own_process
            .is_some_and(|own| peer.pid() == Some(own))
        {
            crate::warning!("an app leads to altnetd's own socket; it is turned away");
            return Ok(());
        }
        let mut groups = peer_groups(&stream).unwrap_or_default();
        groups.push(peer.gid());
        let who = Who {
            user: peer.uid(),
            role: self.access.role(peer.uid(), &groups),
            logs_in: (self.access.logins).is_some_and(|group| groups.contains(&group)),
        };
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while read_line(&mut reader, &mut line).await? {
            let (id, outcome) = match serde_json::from_slice::<Request>(&line) {
                Ok(request) => (request.id, self.answer(request, who).await),
                Err(e) => (
                    0,
                    Err(bad_request(format!("the line is not a request: {e}"))),
                ),
            };
            let (outcome, stream_events) = match outcome {
                Ok(Answer::Value(value)) => (Outcome::Result(value), None),
                Ok(Answer::Events(events)) => (Outcome::Result(Value::Null), Some(events)),
                Err(e) => (Outcome::Error(e), None),
            };
            let response = Response {
                v: VERSION,
                id,
                outcome,
            };
            let mut answer = serde_json::to_vec(&response)?;
            answer.push(b'\n');
            writer.write_all(&answer).await?;
            if let Some(mut events) = stream_events {
                return stream_events_to(&mut events, &mut reader, &mut writer).await;
            }
        }
        Ok(())
    }

    async fn answer(&self, request: Request, who: Who) -> Result<Answer, ApiError> {
        if request.v != VERSION {
            return Err(bad_request(format!(
                "version {} is not spoken here, only {VERSION}",
                request.v
            )));
        }
        let Some((method, needed)) = Method::find(&request.method) else {
            return Err(ApiError::new(
                Code::UnknownMethod,
                format!("there is no method {:?}", request.method),
                "update altnet and altnetd to the same version",
            ));
        };
        let is_allowed =
            who.role.is_some_and(|role| role >= needed) || (who.logs_in && method.is_for_logins());
        if is_allowed && method == Method::Events {
            return Ok(Answer::Events(self.events.subscribe()));
        }
        let gone = || {
            ApiError::new(
                Code::Failed,
                "altnetd is shutting down",
                "start it and try again",
            )
        };
        let (reply, answer) = oneshot::channel();
        let call = Call {
            method,
            user: who.user,
            is_allowed,
            params: request.params,
            reply,
        };
        self.calls.send(call).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?.map(Answer::Value)
    }
}

/// What somebody is told who may not.
pub(crate) fn forbidden(method: Method) -> ApiError {
    ApiError::new(
        Code::Forbidden,
        format!("you may not use {}", method.name()),
        "use sudo, or join the operators' group (altnet.toml, [api] operators)",
    )
}

enum Answer {
    Value(Value),
    Events(broadcast::Receiver<Arc<str>>),
}

fn bad_request(message: String) -> ApiError {
    ApiError::new(
        Code::BadRequest,
        message,
        r#"send one line like {"v":1,"id":1,"method":"status","params":{}}"#,
    )
}

/// Writes events until the client is gone or too slow to keep up.
async fn stream_events_to(
    events: &mut broadcast::Receiver<Arc<str>>,
    reader: &mut (impl AsyncBufRead + Unpin),
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
) -> io::Result<()> {
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) => {
                    writer.write_all(event.as_bytes()).await?;
                    writer.write_all(b"\n").await?;
                }
                // The gap shows in the ids.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            heard = reader.fill_buf() => {
                let len = heard?.len();
                if len == 0 {
                    return Ok(());
                }
                reader.consume(len);
            }
        }
    }
}

/// Reads one line of at most [`MAX_LINE_BYTES`] into `line`, without its end. Returns whether
/// there was one.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if it is longer.
pub(super) async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> io::Result<bool> {
    line.clear();
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(false);
        }
        let end = chunk.iter().position(|b| *b == b'\n');
        let taken = end.unwrap_or(chunk.len());
        if line.len() + taken > MAX_LINE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line is too long",
            ));
        }
        line.extend_from_slice(&chunk[..taken]);
        reader.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// The groups of who is at the other end (`SO_PEERGROUPS`, since Linux 4.13).
fn peer_groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 256];
    let mut len = size_of_val(groups.as_slice()) as libc::socklen_t;
    // SAFETY: `groups` has room for `len` bytes, which the kernel may fill, and it writes
    // back how many it did; the descriptor is open while `stream` is borrowed.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(len as usize / size_of::<u32>());
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::super::client::{Client, ClientError};
    use super::*;
    use tokio::task::LocalSet;

    fn access() -> Access {
        Access {
            own_user: 900,
            logins: None,
            operators: Some(902),
            others: None,
            own_process: None,
        }
    }

    #[test]
    fn a_role_follows_from_user_and_groups() {
        let mut access = access();
        assert_eq!(access.role(0, &[]), Some(Role::Own));
        assert_eq!(access.role(900, &[]), Some(Role::Own));
        assert_eq!(access.role(1000, &[1000, 902]), Some(Role::Operate));
        assert_eq!(access.role(1000, &[1000]), None);
        access.others = Some(Role::Read);
        assert_eq!(access.role(1000, &[1000]), Some(Role::Read));
    }

    /// Runs `test` against a server whose gateway answers each call with its parameters.
    fn with_server(
        access: Access,
        test: impl AsyncFnOnce(std::path::PathBuf, broadcast::Sender<Arc<str>>),
    ) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run/altnet.sock");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(LocalSet::new().run_until(async {
            let listener = Listener::bind(&path).unwrap();
            let (calls, mut inbox) = mpsc::channel::<Call>(4);
            let (events, _) = broadcast::channel(4);
            tokio::task::spawn_local(listener.serve(access, calls, events.clone()));
            tokio::task::spawn_local(async move {
                while let Some(call) = inbox.recv().await {
                    let answer = match call.is_allowed {
                        true => Ok(call.params),
                        false => Err(forbidden(call.method)),
                    };
                    let _ = call.reply.send(answer);
                }
            });
            test(path.clone(), events).await;
        }));
        assert!(!path.exists());
    }

    fn everybody(role: Option<Role>) -> Access {
        Access {
            own_user: if role == Some(Role::Own) {
                rustix::process::getuid().as_raw()
            } else {
                1
            },
            logins: None,
            operators: None,
            others: role,
            own_process: None,
        }
    }

    #[test]
    fn a_call_is_answered_and_the_connection_stays() {
        with_server(everybody(Some(Role::Own)), async |path, _| {
            let mut client = Client::connect(&path).await.unwrap();
            for n in 0..3 {
                let params = serde_json::json!({ "n": n });
                let answer: Value = client.call(Method::Status, &params).await.unwrap();
                assert_eq!(answer, params);
            }
        });
    }

    #[test]
    fn an_app_is_no_way_to_the_api() {
        let own_process = i32::try_from(std::process::id()).ok();
        let access = Access {
            own_process,
            ..everybody(Some(Role::Own))
        };
        with_server(access, async |path, _| {
            let mut client = Client::connect(&path).await.unwrap();
            let none = serde_json::json!({});
            let answer = client.call::<Value>(Method::Status, &none).await;
            assert!(matches!(answer, Err(ClientError::Broken(_))), "{answer:?}");
        });
    }

    #[test]
    fn events_are_streamed_in_order() {
        with_server(everybody(Some(Role::Own)), async |path, events| {
            let mut client = Client::connect(&path).await.unwrap();
            let _: Value = client.call(Method::Events, &Value::Null).await.unwrap();
            events.send(r#"{"event":"a","id":1}"#.into()).unwrap();
            events.send(r#"{"event":"b","id":2}"#.into()).unwrap();
            assert_eq!(
                client.next_line().await.unwrap().unwrap(),
                r#"{"event":"a","id":1}"#
            );
            assert_eq!(
                client.next_line().await.unwrap().unwrap(),
                r#"{"event":"b","id":2}"#
            );
        });
    }

    #[test]
    fn nonsense_is_answered_and_a_flood_is_cut_off() {
        with_server(everybody(Some(Role::Own)), async |path, _| {
            let mut raw = BufReader::new(UnixStream::connect(&path).await.unwrap());
            let mut line = Vec::new();
            for (sent, code) in [
                ("nonsense\n", "bad-request"),
                ("{\"v\":9,\"id\":1,\"method\":\"status\"}\n", "bad-request"),
                ("{\"v\":1,\"id\":1,\"method\":\"fly\"}\n", "unknown-method"),
            ] {
                raw.write_all(sent.as_bytes()).await.unwrap();
                assert!(read_line(&mut raw, &mut line).await.unwrap());
                let answer = String::from_utf8(line.clone()).unwrap();
                assert!(answer.contains(code), "{answer}");
            }
            // The server hangs up in the middle, so the write may fail too.
            let _ = raw.write_all(&vec![b'x'; MAX_LINE_BYTES + 1]).await;
            assert!(!matches!(read_line(&mut raw, &mut line).await, Ok(true)));
        });
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("altnet.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _guard = runtime.enter();
        let first = Listener::bind(&path).unwrap();
        let second = Listener::bind(&path).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop(first);
    }

    #[test]
    fn the_error_says_when_nobody_listens() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let error = runtime.block_on(Client::connect(Path::new("/nonexistent/altnet.sock")));
        assert!(matches!(error, Err(ClientError::NotRunning { .. })));
    }
}
