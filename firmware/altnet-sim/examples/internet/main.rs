//! An internet for real binaries: TUN devices of network namespaces, the NATs of the simulator
//! before them, and delay between.
//!
//! It is told on standard input what there is, a line each, and says `ready` after `go`:
//!
//! ```text
//! nat NAME KIND PUBLIC [behind NAME]
//! host NAME FD server|home        FD is an open TUN device (IFF_TUN, IFF_NO_PI)
//! line HOST ADDRESS [nat NAME] [nat64 NAME]
//! go
//! ```
//! and then, at any time: any of these, `unplug HOST` from all its lines, `udp HOST on|off`, `cut HOST on|off`,
//! `loss PER_MILLE`, `renumber NAT ADDRESS`. It ends with its input. A datagram takes 10 ms between a home and a
//! server, 20 ms between two homes. `altnet-sim SEED` as argument decides every random port.
//!
//! Passes whole UDP and TCP packets of either family, nothing else.

mod packet;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{FromRawFd, RawFd};
use std::sync::mpsc;
use std::time::{Duration as StdDuration, Instant as StdInstant};

use altnet_sim::nat::Kind;
use altnet_sim::net::{Line, NatId, Net, Passing};
use altnet_wire::time::{Duration, Instant};
use packet::{Packet, Transport};

/// One way between a home and a server, and between two homes.
const TO_SERVER: StdDuration = StdDuration::from_millis(10);
const TO_HOME: StdDuration = StdDuration::from_millis(20);
/// How long a NAT keeps an idle TCP connection (RFC 5382 REQ-5).
const TCP_LASTS: Duration = Duration::from_secs(7440);
/// The largest packet.
const MTU: usize = 1500;

/// What comes in.
enum Input {
    /// A packet from a host.
    Packet(usize, Vec<u8>),
    /// A line of standard input; none at its end.
    Told(Option<String>),
}

struct Host {
    device: File,
    is_server: bool,
    has_udp: bool,
    is_cut: bool,
}

/// A packet under way.
struct InFlight {
    passing: Passing,
    packet: Packet,
}

#[derive(Default)]
struct Internet {
    /// Of UDP, and of TCP.
    nets: [Net; 2],
    nats: BTreeMap<String, NatId>,
    names: BTreeMap<String, usize>,
    hosts: Vec<Host>,
    due: BinaryHeap<Reverse<(StdInstant, u64)>>,
    in_flight: BTreeMap<u64, InFlight>,
    sequence: u64,
    chance: u64,
    loss: u64,
}

fn main() {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok());
    let mut internet = Internet {
        chance: seed.unwrap_or(1_u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        ..Internet::default()
    };
    let (inputs, incoming) = mpsc::sync_channel(1024);
    let told = inputs.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = told.send(Input::Told(Some(line)));
        }
        let _ = told.send(Input::Told(None));
    });
    let began = StdInstant::now();
    loop {
        let wait = internet
            .next_due()
            .map_or(StdDuration::from_secs(3600), |due| {
                due.saturating_duration_since(StdInstant::now())
            });
        let now = || Instant::from_micros(began.elapsed().as_micros() as u64 + 1);
        match incoming.recv_timeout(wait) {
            Ok(Input::Packet(host, bytes)) => internet.depart(host, &bytes, now()),
            Ok(Input::Told(Some(line))) => {
                if let Err(why) = internet.told(&line, &inputs) {
                    eprintln!("{line}: {why}");
                    std::process::exit(2);
                }
            }
            Ok(Input::Told(None)) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        internet.arrive(now());
    }
}

impl Internet {
    fn random(&mut self) -> u64 {
        // xorshift64* (Vigna 2016).
        self.chance ^= self.chance >> 12;
        self.chance ^= self.chance << 25;
        self.chance ^= self.chance >> 27;
        self.chance.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn next_due(&self) -> Option<StdInstant> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// Does what a line of standard input says.
    fn told(&mut self, line: &str, inputs: &mpsc::SyncSender<Input>) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match *words.as_slice() {
            ["nat", name, kind, public] => self.nat(name, kind, public, None),
            ["nat", name, kind, public, "behind", parent] => {
                self.nat(name, kind, public, Some(parent))
            }
            ["host", name, fd, role] => self.host(name, fd, role, inputs),
            ["line", host, address, ref rest @ ..] => self.line(host, address, rest),
            ["go"] => {
                println!("ready");
                std::io::stdout().flush().map_err(|e| e.to_string())
            }
            ["udp", host, on] => {
                self.host_mut(host)?.has_udp = on == "on";
                Ok(())
            }
            ["cut", host, on] => {
                self.host_mut(host)?.is_cut = on == "on";
                Ok(())
            }
            ["unplug", host] => {
                let host = *self.names.get(host).ok_or("no such host")?;
                for net in &mut self.nets {
                    net.unplug_all(host);
                }
                Ok(())
            }
            ["loss", per_mille] => {
                self.loss = per_mille.parse().map_err(|_| "no number")?;
                Ok(())
            }
            ["renumber", nat, public] => {
                let nat = *self.nats.get(nat).ok_or("no such NAT")?;
                let public = public.parse().map_err(|_| "no address")?;
                for net in &mut self.nets {
                    net.nat_mut(nat).renumber(public);
                }
                Ok(())
            }
            _ => Err("not understood".into()),
        }
    }

    fn nat(
        &mut self,
        name: &str,
        kind: &str,
        public: &str,
        parent: Option<&str>,
    ) -> Result<(), String> {
        let kind = match kind {
            "full-cone" => Kind::FULL_CONE,
            "address-restricted" => Kind::ADDRESS_RESTRICTED,
            "port-restricted" => Kind::PORT_RESTRICTED,
            "port-restricted-30s" => Kind::PORT_RESTRICTED.lasting(Duration::from_secs(30)),
            "port-restricted-120s" => Kind::PORT_RESTRICTED.lasting(Duration::from_secs(120)),
            "symmetric-sequential" => Kind::SYMMETRIC_SEQUENTIAL,
            "symmetric-random" => Kind::SYMMETRIC_RANDOM,
            "hairpin" => Kind {
                hairpins: true,
                ..Kind::PORT_RESTRICTED
            },
            "firewall" => Kind::FIREWALL,
            _ => return Err("no such kind".into()),
        };
        let public: IpAddr = public.parse().map_err(|_| "no address")?;
        let parent = match parent {
            Some(parent) => Some(*self.nats.get(parent).ok_or("no such NAT")?),
            None => None,
        };
        let seed = self.random();
        let id = self.nets[0].nat(kind, public, parent, seed);
        self.nets[1].nat(kind.lasting(TCP_LASTS), public, parent, seed);
        self.nats.insert(name.into(), id);
        Ok(())
    }

    fn host(
        &mut self,
        name: &str,
        fd: &str,
        role: &str,
        inputs: &mpsc::SyncSender<Input>,
    ) -> Result<(), String> {
        let fd: RawFd = fd.parse().map_err(|_| "no file descriptor")?;
        // SAFETY: whoever started this program handed the descriptor over, and names it once.
        let device = unsafe { File::from_raw_fd(fd) };
        let mut reader = device.try_clone().map_err(|e| e.to_string())?;
        let host = self.hosts.len();
        let inputs = inputs.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while let Ok(len) = reader.read(&mut buffer) {
                if inputs
                    .send(Input::Packet(host, buffer[..len].to_vec()))
                    .is_err()
                {
                    return;
                }
            }
        });
        self.names.insert(name.into(), host);
        self.hosts.push(Host {
            device,
            is_server: role == "server",
            has_udp: true,
            is_cut: false,
        });
        Ok(())
    }

    fn host_mut(&mut self, name: &str) -> Result<&mut Host, String> {
        let at = *self.names.get(name).ok_or("no such host")?;
        Ok(&mut self.hosts[at])
    }

    fn line(&mut self, host: &str, address: &str, rest: &[&str]) -> Result<(), String> {
        let mut line = Line {
            host: *self.names.get(host).ok_or("no such host")?,
            address: address.parse().map_err(|_| "no address")?,
            nat: None,
            nat64: None,
        };
        for pair in rest.chunks(2) {
            let &[what, name] = pair else {
                return Err("a NAT without a name".into());
            };
            let nat = Some(*self.nats.get(name).ok_or("no such NAT")?);
            match what {
                "nat" => line.nat = nat,
                "nat64" => line.nat64 = nat,
                _ => return Err("neither nat nor nat64".into()),
            }
        }
        for net in &mut self.nets {
            net.plug_in(line);
        }
        Ok(())
    }

    /// A host sends.
    fn depart(&mut self, host: usize, bytes: &[u8], now: Instant) {
        let Some((packet, from, to)) = Packet::parse(bytes) else {
            return;
        };
        let is_udp = packet.transport == Transport::Udp;
        let sender = &self.hosts[host];
        if sender.is_cut || (is_udp && !sender.has_udp) || self.random() % 1000 < self.loss {
            return;
        }
        let net = &mut self.nets[usize::from(!is_udp)];
        // Only what comes from an address of its own leaves a host.
        if !net.lines(host).any(|line| line.address == from.ip()) {
            return;
        }
        let Some(passing) = net.depart(host, from.port(), to, now) else {
            return;
        };
        let is_to_server = net
            .lines_at(passing.to.ip())
            .any(|line| self.hosts[line.host].is_server);
        let delay = if is_to_server || self.hosts[host].is_server {
            TO_SERVER
        } else {
            TO_HOME
        };
        self.sequence += 1;
        self.due
            .push(Reverse((StdInstant::now() + delay, self.sequence)));
        self.in_flight
            .insert(self.sequence, InFlight { passing, packet });
    }

    /// Hands over what is due.
    fn arrive(&mut self, now: Instant) {
        while self.next_due().is_some_and(|due| due <= StdInstant::now()) {
            let Some(Reverse((_, sequence))) = self.due.pop() else {
                return;
            };
            let Some(InFlight { passing, packet }) = self.in_flight.remove(&sequence) else {
                continue;
            };
            let is_udp = packet.transport == Transport::Udp;
            let net = &mut self.nets[usize::from(!is_udp)];
            let Some((line, port, from)) = net.arrive(passing, now) else {
                continue;
            };
            let host = &mut self.hosts[line.host];
            if host.is_cut || (is_udp && !host.has_udp) {
                continue;
            }
            let bytes = packet.build(from, SocketAddr::new(line.address, port));
            if bytes.len() <= MTU {
                // A full device loses it, as a full queue does.
                let _ = host.device.write(&bytes);
            }
        }
    }
}
