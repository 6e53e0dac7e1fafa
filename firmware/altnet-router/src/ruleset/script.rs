//! Text for nft, indented as `nft list` does it, and matches in its words.

use std::fmt::Display;

use ipnet::IpNet;

use crate::config::{Addresses, PortRange, Protocol};

/// A script that grows.
#[derive(Default)]
pub(super) struct Script {
    text: String,
    depth: usize,
}

impl Script {
    pub(super) fn line(&mut self, text: impl Display) {
        for _ in 0..self.depth {
            self.text.push('\t');
        }
        self.text.push_str(&text.to_string());
        self.text.push('\n');
    }

    pub(super) fn open(&mut self, head: impl Display) {
        self.line(format_args!("{head} {{"));
        self.depth += 1;
    }

    pub(super) fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.line('}');
    }

    /// A chain that packets come to by themselves.
    pub(super) fn hook(
        &mut self,
        name: &str,
        kind: &str,
        hook: &str,
        priority: &str,
        policy: &str,
    ) {
        self.open(format_args!("chain {name}"));
        self.line(format_args!(
            "type {kind} hook {hook} priority {priority}; policy {policy};"
        ));
    }

    pub(super) fn text(self) -> String {
        self.text
    }
}

/// `{ a, b }`
pub(super) fn elements<T: Display>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    format!("{{ {} }}", items.join(", "))
}

/// One alone, or a set of several.
fn one_of<T: Display>(items: &[T]) -> String {
    match items {
        [one] => one.to_string(),
        _ => elements(items.iter()),
    }
}

/// Words that are put together to a rule.
#[derive(Clone, Default)]
pub(super) struct Rule(Vec<String>);

impl Rule {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn and(mut self, words: impl Display) -> Self {
        let words = words.to_string();
        if !words.is_empty() {
            self.0.push(words);
        }
        self
    }

    /// On one of these interfaces.
    pub(super) fn through(self, key: &str, interfaces: &[&str]) -> Self {
        let names: Vec<String> = interfaces
            .iter()
            .map(|name| format!("\"{name}\""))
            .collect();
        self.and(format_args!("{key} {}", one_of(&names)))
    }

    /// From or to one of these addresses, where there are any: `key` is `saddr` or `daddr`.
    pub(super) fn addresses(self, key: &str, nets: &[IpNet]) -> Self {
        let Some(first) = nets.first() else {
            return self;
        };
        let family = if first.addr().is_ipv4() { "ip" } else { "ip6" };
        let nets: Vec<Addresses> = nets.iter().map(|net| Addresses(*net)).collect();
        self.and(format_args!("{family} {key} {}", one_of(&nets)))
    }

    /// Of a protocol, and to one of these ports where there are any.
    pub(super) fn at_ports(self, protocol: Protocol, ports: &[PortRange]) -> Self {
        let words = match (protocol, ports) {
            (Protocol::Any, _) => "",
            (Protocol::Icmp, _) => "meta l4proto { icmp, ipv6-icmp }",
            (Protocol::Esp, _) => "meta l4proto esp",
            (Protocol::Tcp, []) => "meta l4proto tcp",
            (Protocol::Udp, []) => "meta l4proto udp",
            (Protocol::TcpUdp, []) => "meta l4proto { tcp, udp }",
            (Protocol::Tcp, ports) => return self.and(format_args!("tcp dport {}", one_of(ports))),
            (Protocol::Udp, ports) => return self.and(format_args!("udp dport {}", one_of(ports))),
            (Protocol::TcpUdp, ports) => {
                return self.and(format_args!(
                    "meta l4proto {{ tcp, udp }} th dport {}",
                    one_of(ports)
                ));
            }
        };
        self.and(words)
    }

    pub(super) fn text(&self) -> String {
        self.0.join(" ")
    }
}
