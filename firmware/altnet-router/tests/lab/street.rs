//! A house with its router, machines and provider, each a network namespace, and a plan that is carried out by `ip`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use altnet_router::plan::{Address, LinkKind, Plan, PolicyRule, Route, RouteTo};

/// How long nobody answers before that counts as silence: what is refused within the call that asks is heard of by TCP
/// only when it asks again, after a second.
const SILENCE: Duration = Duration::from_millis(1800);

/// What came of asking somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Who answered, and by which address the asker was known to it.
    From(&'static str, IpAddr),
    /// Somebody said that it isn't allowed.
    Refused,
    /// Somebody said that there is no way.
    NoRoute,
    /// Somebody said that nobody listens there.
    Closed,
    /// Nobody said anything.
    Silence,
}

/// A program that is ended when this is gone.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // What has ended by itself needs no ending.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Namespaces that are gone when this is.
pub struct Street {
    prefix: String,
    names: Vec<&'static str>,
}

impl Street {
    pub fn new(names: &[&'static str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let street = Self {
            prefix: format!("altnet-{}-{number}-", std::process::id()),
            names: names.to_vec(),
        };
        for name in names {
            run(&["ip", "netns", "add", &street.netns(name)]);
            street.ip(name, "link set lo up");
            // Nobody else is here who might have an address, and nobody waits to find that out. Each question is
            // answered, however many there are at once.
            for setting in [
                "ipv6.conf.all.accept_dad",
                "ipv6.conf.default.accept_dad",
                "ipv4.icmp_ratelimit",
                "ipv6.icmp.ratelimit",
            ] {
                street.run(name, &format!("sysctl -q -w net.{setting}=0"));
            }
        }
        street
    }

    fn netns(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// `ip` with these words in a namespace.
    pub fn ip(&self, name: &str, words: &str) {
        self.run(name, &format!("ip {words}"));
    }

    /// A command in a namespace.
    pub fn run(&self, name: &str, words: &str) {
        let netns = self.netns(name);
        let mut all = vec!["ip", "netns", "exec", &netns];
        all.extend(words.split(' '));
        run(&all);
    }

    /// Whether a command in a namespace succeeds.
    pub fn succeeds(&self, name: &str, words: &str) -> bool {
        let netns = self.netns(name);
        let command = Command::new("ip")
            .args(["netns", "exec", &netns])
            .args(words.split(' '))
            .output();
        command.is_ok_and(|output| output.status.success())
    }

    /// A program that runs in a namespace until what this gives is gone.
    pub fn start(&self, name: &str, program: &str, arguments: &[String]) -> Running {
        let netns = self.netns(name);
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &netns, program])
            .args(arguments);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Running(child.unwrap())
    }

    /// A cable from an interface of one to an interface of another.
    pub fn plug(&self, one: (&str, &str), other: (&str, &str)) {
        let (a, b) = (self.netns(one.0), self.netns(other.0));
        run(&[
            "ip", "link", "add", one.1, "netns", &a, "type", "veth", "peer", "name", other.1,
            "netns", &b,
        ]);
        for (name, interface) in [one, other] {
            self.ip(name, &format!("link set {interface} up"));
        }
    }

    /// Does something in a namespace, on a thread of its own.
    pub fn within<T: Send + 'static>(
        &self,
        name: &str,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let file = File::open(format!("/run/netns/{}", self.netns(name))).unwrap();
        let thread = thread::spawn(move || {
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            act()
        });
        thread.join().unwrap()
    }

    /// Answers at these TCP ports, of both families, for as long as the test runs: with its name, and the address of who asks.
    pub fn serve(&self, name: &'static str, ports: &[u16]) {
        for port in ports {
            let address = SocketAddr::new("::".parse().unwrap(), *port);
            let listener = self.within(name, move || TcpListener::bind(address).unwrap());
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let Ok(mut stream) = stream else { continue };
                    let Ok(peer) = stream.peer_addr() else {
                        continue;
                    };
                    // Who hangs up has heard enough.
                    let _ = write!(stream, "{name} {}", peer.ip().to_canonical());
                }
            });
        }
    }

    /// Sends this many bytes to whoever comes to a TCP port.
    pub fn pour(&self, name: &'static str, port: u16, bytes: usize) {
        let address = SocketAddr::new("::".parse().unwrap(), port);
        let listener = self.within(name, move || TcpListener::bind(address).unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                // Who hangs up has heard enough.
                let _ = stream.and_then(|mut stream| stream.write_all(&vec![0; bytes]));
            }
        });
    }

    /// How many bytes come from there.
    pub fn drink(&self, from: &'static str, to: &str) -> usize {
        let to: SocketAddr = to.parse().unwrap();
        self.within(from, move || {
            let mut bytes = Vec::new();
            TcpStream::connect(to)
                .unwrap()
                .read_to_end(&mut bytes)
                .unwrap()
        })
    }

    /// What a command in a namespace says.
    pub fn says(&self, name: &str, words: &str) -> String {
        let netns = self.netns(name);
        let command = Command::new("ip")
            .args(["netns", "exec", &netns])
            .args(words.split(' '))
            .output();
        String::from_utf8_lossy(&command.unwrap().stdout).into_owned()
    }

    /// Asks somebody over TCP.
    pub fn ask(&self, from: &'static str, to: &str) -> Answer {
        let to: SocketAddr = to.parse().unwrap();
        let names = self.names.clone();
        self.within(from, move || {
            let mut text = String::new();
            let asked = TcpStream::connect_timeout(&to, SILENCE).and_then(|mut stream| {
                stream.set_read_timeout(Some(SILENCE))?;
                stream.read_to_string(&mut text)
            });
            match asked {
                Ok(_) => {
                    let (who, seen) = text.split_once(' ').unwrap();
                    let who = names.iter().find(|name| **name == who).unwrap();
                    Answer::From(who, seen.parse().unwrap())
                }
                Err(e) => answer(&e),
            }
        })
    }

    /// Sends a datagram to a port at which nobody listens.
    pub fn knock(&self, from: &'static str, to: &str) -> Answer {
        let to: SocketAddr = to.parse().unwrap();
        self.within(from, move || {
            let socket = UdpSocket::bind(SocketAddr::new(
                if to.is_ipv4() {
                    [0, 0, 0, 0].into()
                } else {
                    [0_u16; 8].into()
                },
                0,
            ))
            .unwrap();
            socket.connect(to).unwrap();
            socket.set_read_timeout(Some(SILENCE)).unwrap();
            let heard = socket.send(b"?").and_then(|_| socket.recv(&mut [0; 1]));
            heard.map_or_else(|e| answer(&e), |_| panic!("a port that nobody has answers"))
        })
    }

    /// Carries out a plan: what of it a machine without a provider's daemons can.
    pub fn carry_out(&self, name: &str, plan: &Plan) {
        for link in plan
            .links
            .iter()
            .filter(|link| link.kind == LinkKind::Bridge)
        {
            if !self.succeeds(name, &format!("ip link show {}", link.name)) {
                self.ip(name, &format!("link add {} type bridge", link.name));
            }
        }
        for link in &plan.links {
            if let (LinkKind::Device, Some(bridge)) = (&link.kind, &link.bridge) {
                self.ip(name, &format!("link set {} master {bridge}", link.name));
            }
            self.ip(name, &format!("link set {} up", link.name));
        }
        for (key, value) in &plan.sysctls {
            let (key, value) = (format!("/proc/sys/{key}"), value.clone());
            self.within(name, move || match std::fs::write(&key, &value) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                written => written.unwrap_or_else(|e| panic!("{key}: {e}")),
            });
        }
        for Address { link, net, .. } in &plan.addresses {
            let dad = if net.addr().is_ipv6() { " nodad" } else { "" };
            self.ip(name, &format!("address replace {net} dev {link}{dad}"));
        }
        for route in &plan.routes {
            self.ip(name, &format!("route replace {}", words(route)));
        }
        for rule in &plan.rules {
            self.ip(name, &words_of_rule(rule));
        }
        let ruleset = std::env::temp_dir().join(format!("{}ruleset", self.prefix));
        std::fs::write(&ruleset, &plan.ruleset).unwrap();
        self.run(name, &format!("nft -f {}", ruleset.display()));
        std::fs::remove_file(ruleset).unwrap();
    }
}

fn words(route: &Route) -> String {
    let Route {
        destination,
        metric,
        table,
        ..
    } = route;
    let to = match &route.to {
        RouteTo::Via { link, gateway } => format!("{destination} via {gateway} dev {link} onlink"),
        RouteTo::Link(link) => format!("{destination} dev {link}"),
        RouteTo::Unreachable => format!("unreachable {destination}"),
    };
    format!("{to} metric {metric} table {table}")
}

fn words_of_rule(rule: &PolicyRule) -> String {
    let mut words = format!("-{} rule add priority {}", rule.family, rule.priority);
    if let Some(net) = rule.from {
        words += &format!(" from {net}");
    }
    if let Some((mark, mask)) = rule.mark {
        words += &format!(" fwmark {mark:#x}/{mask:#x}");
    }
    words += &format!(" lookup {}", rule.table);
    if let Some(length) = rule.suppress_prefix_length {
        words += &format!(" suppress_prefixlength {length}");
    }
    words
}

/// What the kernel makes of what it was told.
fn answer(error: &io::Error) -> Answer {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Answer::Closed,
        io::ErrorKind::NetworkUnreachable => Answer::NoRoute,
        io::ErrorKind::HostUnreachable | io::ErrorKind::PermissionDenied => Answer::Refused,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Answer::Silence,
        _ => panic!("{error}"),
    }
}

fn run(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(
        output.status.success(),
        "{}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Drop for Street {
    fn drop(&mut self) {
        for name in &self.names {
            // What isn't there needs no taking down.
            let _ = Command::new("ip")
                .args(["netns", "delete", &self.netns(name)])
                .output();
        }
    }
}
