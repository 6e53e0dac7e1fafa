//! What altnetd asks the kernel for, and takes back: addresses, routes, rules, forwarding.
//!
//! In: a [`Plan`]. Out: a kernel that matches it. [`Links::apply`] may be called at any time,
//! again after an interface came back, and after an altnetd that was killed: what such a one
//! left is found by its protocol number and by the notes beside the API socket, and removed
//! unless the plan wants it. [`Links::undo`] leaves the kernel as it was found.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use altnet_wire::address::Prefix;

use crate::netlink::{Act, Address, Netlink, Route, Rule, Via};

/// The metric of the network's route into the TUN device.
const NETWORK_METRIC: u32 = 256;
/// The metric of routes that only count when there is no other: the last but one.
const LAST_METRIC: u32 = u32::MAX - 1;
/// The priority of the first of our rules: before the main table's, 32766, and before those
/// that send a part of the traffic elsewhere by the priorities that tools commonly draw.
const RULE_PRIORITY: u32 = 5097;
const SYSCTL_ROOT: &str = "/proc/sys/net/ipv6/conf";

/// A LAN interface and the gateway's address on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanAddress {
    /// The interface's name.
    pub interface: String,
    /// The gateway's own address there; its /64 is on the link.
    pub address: Ipv6Addr,
}

/// How the kernel should be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The TUN device's index.
    pub tun: u32,
    /// Its MTU in bytes.
    pub mtu_bytes: u16,
    /// The network's /48, which goes into the TUN device.
    pub network: Prefix,
    /// The node's own address, on the TUN device.
    pub node: Ipv6Addr,
    /// The LANs. Without any, this machine does not forward.
    pub lans: Vec<LanAddress>,
    /// Whether some LAN takes this machine for its IPv6 router, so that what has no route
    /// must be refused at once rather than dropped.
    pub is_default_router: bool,
}

/// A change the kernel refused. The others were made all the same.
#[derive(Debug, thiserror::Error)]
#[error("can't {what}")]
pub struct LinkError {
    /// What was tried.
    pub what: String,
    /// The kernel's reason.
    #[source]
    pub source: io::Error,
}

/// The kernel's network settings, as far as altnetd changed them.
#[derive(Debug)]
pub struct Links {
    netlink: Netlink,
    notes: PathBuf,
    sysctls: Sysctls,
    addresses: Vec<Address>,
    routes: Vec<Route>,
    rules: Vec<Rule>,
}

impl Links {
    /// Opens netlink and reads the notes at `notes` that a killed altnetd may have left. The
    /// file should be on a filesystem that a reboot empties, as it empties the settings.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(notes: &Path) -> io::Result<Self> {
        let netlink = Netlink::open()?;
        let sysctls = Sysctls::parse(&fs::read_to_string(notes).unwrap_or_default());
        Ok(Self {
            netlink,
            notes: notes.into(),
            sysctls,
            addresses: Vec::new(),
            routes: Vec::new(),
            rules: Vec::new(),
        })
    }

    /// Makes the kernel match `plan`. Goes on after a refusal; an interface that isn't there
    /// yet is one.
    pub fn apply(&mut self, plan: &Plan) -> Vec<LinkError> {
        let mut errors = Vec::new();
        let mut check = |what: String, result: io::Result<()>| match result {
            Ok(()) => true,
            Err(source) => {
                errors.push(LinkError { what, source });
                false
            }
        };
        let up = self.netlink.bring_up(plan.tun, Some(plan.mtu_bytes.into()));
        check("bring the TUN device up".into(), up);

        let mut addresses = vec![Address {
            interface: plan.tun,
            address: plan.node,
            prefix_bits: 128,
        }];
        for lan in &plan.lans {
            match index_of(&lan.interface) {
                Ok(interface) => {
                    let up = self.netlink.bring_up(interface, None);
                    check(format!("bring {} up", lan.interface), up);
                    addresses.push(Address {
                        interface,
                        address: lan.address,
                        prefix_bits: 64,
                    });
                }
                Err(e) => {
                    check(format!("find the LAN interface {}", lan.interface), Err(e));
                }
            }
        }
        let (routes, rules) = (plan.routes(), plan.rules());
        let there = self.remove_strays(&addresses, &routes, &rules);
        // Adding one again would be announced as a change, to us among others.
        for address in addresses.iter().filter(|address| !there.contains(address)) {
            let result = self.netlink.add_address(*address);
            check(format!("add the address {}", address.address), result);
        }
        for route in &routes {
            let result = self.netlink.add_route(*route);
            check(format!("add the route to {}", route.destination), result);
        }
        // In place before anything is forwarded.
        for rule in &rules {
            let result = self.netlink.add_rule(*rule);
            check(format!("keep packets from {} at home", rule.source), result);
        }
        self.addresses = addresses;
        self.routes = routes;
        self.rules = rules;
        if !plan.lans.is_empty() {
            let result = self.forward();
            check("turn IPv6 forwarding on".into(), result);
        }
        errors
    }

    /// Takes back every change.
    pub fn undo(&mut self) -> Vec<LinkError> {
        let mut errors = Vec::new();
        let mut check = |what: String, result: io::Result<()>| {
            if let Err(source) = result {
                errors.push(LinkError { what, source });
            }
        };
        // What a killed altnetd left, if this one had nothing to set up.
        self.remove_strays(&[], &[], &[]);
        for route in std::mem::take(&mut self.routes) {
            let result = self.netlink.remove_route(route);
            check(format!("remove the route to {}", route.destination), result);
        }
        for rule in std::mem::take(&mut self.rules) {
            let result = self.netlink.remove_rule(rule);
            check(
                format!("remove the rule for packets from {}", rule.source),
                result,
            );
        }
        for address in std::mem::take(&mut self.addresses) {
            let result = self.netlink.remove_address(address);
            check(format!("remove the address {}", address.address), result);
        }
        for (name, value) in std::mem::take(&mut self.sysctls.0) {
            let result = write_sysctl(&name, &value);
            check(format!("set {name} back to {value}"), result);
        }
        let _ = fs::remove_file(&self.notes);
        errors
    }

    /// Removes what an altnetd added and the plan doesn't want; returns the addresses that
    /// stay.
    fn remove_strays(
        &mut self,
        addresses: &[Address],
        routes: &[Route],
        rules: &[Rule],
    ) -> Vec<Address> {
        // A kernel that can't list leaves strays where they are; adding still replaces.
        for route in self.netlink.own_routes().unwrap_or_default() {
            if !routes.contains(&route) {
                let _ = self.netlink.remove_route(route);
            }
        }
        for rule in self.netlink.own_rules().unwrap_or_default() {
            if !rules.contains(&rule) {
                let _ = self.netlink.remove_rule(rule);
            }
        }
        let mut stay = Vec::new();
        for (address, is_own) in self.netlink.addresses().unwrap_or_default() {
            let was_added = is_own || self.addresses.contains(&address);
            if was_added && !addresses.contains(&address) {
                let _ = self.netlink.remove_address(address);
            } else {
                stay.push(address);
            }
        }
        stay
    }

    /// Turns forwarding on. A forwarding interface stops taking router advertisements unless
    /// `accept_ra` is 2, and an uplink that lived by them would lose its address: so every
    /// interface that took them goes on taking them.
    fn forward(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(SYSCTL_ROOT)? {
            let interface = entry?.file_name();
            let Some(interface) = interface.to_str() else {
                continue;
            };
            // `all` is not inherited by interfaces for accept_ra; `default` is for new ones.
            let name = format!("{interface}/accept_ra");
            let takes = read_sysctl(&name).is_ok_and(|value| value == "1");
            let forwards = read_sysctl(&format!("{interface}/forwarding"));
            let is_shared = ["all", "lo"].contains(&interface);
            if takes && !is_shared && forwards.is_ok_and(|value| value == "0") {
                self.set(&name, "2")?;
            }
        }
        self.set("all/forwarding", "1")
    }

    fn set(&mut self, name: &str, value: &str) -> io::Result<()> {
        let before = read_sysctl(name)?;
        if before == value {
            return Ok(());
        }
        self.sysctls.0.entry(name.into()).or_insert(before);
        // Noted before it is changed, so that a kill in between loses nothing.
        self.note()?;
        write_sysctl(name, value)
    }

    /// Replaces the notes; a file that another user left could not be written.
    fn note(&self) -> io::Result<()> {
        let new = self.notes.with_extension("new");
        let _ = fs::remove_file(&new);
        fs::write(&new, self.sysctls.text())?;
        fs::rename(&new, &self.notes)
    }
}

impl Plan {
    fn routes(&self) -> Vec<Route> {
        let unreachable = |destination| Route {
            destination,
            via: Via::Unreachable,
            metric: LAST_METRIC,
        };
        let mut routes = vec![
            Route {
                destination: self.network,
                via: Via::Interface(self.tun),
                metric: NETWORK_METRIC,
            },
            // Never let the network's packets out by another way when the device is down.
            unreachable(self.network),
        ];
        if self.is_default_router {
            routes.push(unreachable(Prefix::new(Ipv6Addr::UNSPECIFIED, 0)));
        }
        routes
    }

    /// Packets from the network's addresses go where a route of their own leads, never out by
    /// somebody's default route: beyond the network nobody could answer them, and a provider
    /// should not see them (RFC 4193 section 4.3). They are refused at once instead, so that a
    /// machine on the LAN tries IPv4 without waiting.
    fn rules(&self) -> Vec<Rule> {
        if self.lans.is_empty() {
            return Vec::new();
        }
        let acts = [Act::SpecificRoutes, Act::Unreachable];
        let rule = |(priority, act)| Rule {
            source: self.network,
            act,
            priority,
        };
        (RULE_PRIORITY..).zip(acts).map(rule).collect()
    }
}

/// The settings that were changed, with the values they had: one `name=value` a line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sysctls(BTreeMap<String, String>);

impl Sysctls {
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let good = |name: &str| !name.contains("..") && !name.starts_with('/');
        Self(
            lines
                .filter(|(name, _)| good(name))
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    fn text(&self) -> String {
        let line = |(name, value): (&String, &String)| format!("{name}={value}\n");
        self.0.iter().map(line).collect()
    }
}

fn read_sysctl(name: &str) -> io::Result<String> {
    let text = fs::read_to_string(Path::new(SYSCTL_ROOT).join(name))?;
    Ok(text.trim().into())
}

fn write_sysctl(name: &str, value: &str) -> io::Result<()> {
    match fs::write(Path::new(SYSCTL_ROOT).join(name), value) {
        // The interface is gone, and its setting with it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Asks the kernel to make no link-local address for the interface `name`: nothing speaks on a
/// link where nobody else is. A kernel that can't makes one, which does no harm.
pub fn without_link_local(name: &str) {
    // IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
    let _ = write_sysctl(&format!("{name}/addr_gen_mode"), "1");
}

/// The kernel's number for the interface `name`.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] if there is no such interface.
pub fn index_of(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "there is no such interface",
        )),
        index => Ok(index),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::testing::{in_namespace, ip};
    use crate::tun::Tun;

    fn plan(tun: u32, lans: &[(&str, &str)]) -> Plan {
        Plan {
            tun,
            mtu_bytes: 1280,
            network: Prefix::new("fd12:3456:789a::".parse().unwrap(), 48),
            node: "fd12:3456:789a:8000::5".parse().unwrap(),
            lans: lans
                .iter()
                .map(|(interface, address)| LanAddress {
                    interface: (*interface).into(),
                    address: address.parse().unwrap(),
                })
                .collect(),
            is_default_router: true,
        }
    }

    fn everything() -> String {
        let forwarding = read_sysctl("all/forwarding").unwrap();
        let accept_ra = read_sysctl("default/accept_ra").unwrap();
        let routes = ip("-6 route show table main");
        let addresses = ip("-o -6 address show scope global");
        let rules = ip("-6 rule show");
        format!("{forwarding} {accept_ra}\n{routes}\n{rules}\n{addresses}")
    }

    /// The device of before is there as long as a program that another test starts has its descriptor, which is until that
    /// one is executed.
    fn open_tun() -> Tun {
        let ends = Instant::now() + Duration::from_secs(20);
        loop {
            match Tun::open("altnet0") {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    assert!(Instant::now() < ends, "{error}");
                    std::thread::yield_now();
                }
                opened => return opened.unwrap(),
            }
        }
    }

    #[test]
    fn the_kernel_is_left_as_it_was_found() {
        in_namespace("the_kernel_is_left_as_it_was_found", async {
            ip("link set lo up");
            ip("link add lan0 type bridge");
            ip("link set lan0 up");
            let notes = tempfile::tempdir().unwrap();
            let tun = open_tun();
            let before = everything();
            let mut links = Links::open(&notes.path().join("notes")).unwrap();
            let plan = plan(tun.index(), &[("lan0", "fd12:3456:789a:1::1")]);
            for _ in 0..2 {
                let errors = links.apply(&plan);
                assert!(errors.is_empty(), "{errors:?}");
            }
            let during = everything();
            assert!(during.starts_with("1 2\n"), "{during}");
            assert!(
                during.contains("fd12:3456:789a::/48 dev altnet0"),
                "{during}"
            );
            assert!(during.contains("fd12:3456:789a:1::1/64"), "{during}");
            assert!(during.contains("unreachable default"), "{during}");
            let [specific, nothing] = [
                "5097:\tfrom fd12:3456:789a::/48 lookup main suppress_prefixlength 0",
                "5098:\tfrom fd12:3456:789a::/48 unreachable",
            ];
            for rule in [specific, nothing] {
                assert_eq!(during.matches(rule).count(), 1, "{rule} of {during}");
            }
            let errors = links.undo();
            assert!(errors.is_empty(), "{errors:?}");
            assert_eq!(everything(), before);
        });
    }

    #[test]
    fn what_a_killed_daemon_left_is_taken_back() {
        in_namespace("what_a_killed_daemon_left_is_taken_back", async {
            ip("link add lan0 type bridge");
            ip("link add lan1 type bridge");
            let notes = tempfile::tempdir().unwrap();
            let notes = notes.path().join("notes");
            let tun = open_tun();
            let mut links = Links::open(&notes).unwrap();
            links.apply(&plan(tun.index(), &[("lan0", "fd12:3456:789a:1::1")]));
            drop((links, tun));
            let tun = open_tun();
            let mut links = Links::open(&notes).unwrap();
            let errors = links.apply(&plan(tun.index(), &[("lan1", "fd12:3456:789a:1::1")]));
            assert!(errors.is_empty(), "{errors:?}");
            let during = everything();
            assert!(
                during.contains("lan1    inet6 fd12:3456:789a:1::1/64"),
                "{during}"
            );
            // A kernel before 5.18 doesn't say whose address it is.
            if ip("-o -6 address show dev lan1").contains("proto") {
                assert!(!during.contains("lan0"), "{during}");
            }
            links.undo();
            assert!(everything().starts_with("0 1\n"));
            assert!(!notes.exists());
        });
    }

    #[test]
    fn what_a_killed_daemon_left_is_taken_back_by_one_that_is_no_member() {
        let name = "what_a_killed_daemon_left_is_taken_back_by_one_that_is_no_member";
        in_namespace(name, async {
            ip("link add lan0 type bridge");
            let notes = tempfile::tempdir().unwrap();
            let notes = notes.path().join("notes");
            let before = everything();
            let tun = open_tun();
            let mut links = Links::open(&notes).unwrap();
            links.apply(&plan(tun.index(), &[("lan0", "fd12:3456:789a:1::1")]));
            drop((links, tun));
            assert_ne!(everything(), before);
            // A kernel before 5.18 doesn't say whose address it is.
            if ip("-o -6 address show dev lan0").contains("proto") {
                Links::open(&notes).unwrap().undo();
                assert_eq!(everything(), before);
            }
        });
    }

    #[test]
    fn a_missing_interface_is_said_and_the_rest_is_done() {
        in_namespace("a_missing_interface_is_said_and_the_rest_is_done", async {
            let notes = tempfile::tempdir().unwrap();
            let tun = open_tun();
            let mut links = Links::open(&notes.path().join("notes")).unwrap();
            let errors = links.apply(&plan(tun.index(), &[("none0", "fd12:3456:789a:1::1")]));
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].to_string().contains("none0"));
            assert!(everything().contains("fd12:3456:789a:8000::5/128"));
        });
    }

    #[test]
    fn notes_read_back_and_stay_inside_their_directory() {
        let notes = Sysctls::parse("all/forwarding=0\n../x=1\n/etc/x=1\nnoise\n");
        assert_eq!(notes.text(), "all/forwarding=0\n");
        assert_eq!(Sysctls::parse(&notes.text()), notes);
    }
}
