//! What a house's router is told by its children, who have it from the provider, and what comes back to its probes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use altnet_router::board::Ports;
use altnet_router::config::File;
use altnet_router::hands::echo::Echo;
use altnet_router::machine::kept::Kept;
use altnet_router::machine::told::{self, News};
use altnet_router::machine::{LinkFact, Machine, Setting, Surroundings};

use crate::bytes::Bytes;

/// Scenarios longer than this many steps are cut off.
const STEPS: usize = 32;

/// Reads the bytes as a datagram of a hook, then as how several come to a router that runs.
pub fn hook(data: &[u8]) {
    if let Ok(Some(told)) = told::read(data) {
        assert!((1..=15).contains(&told.interface.len()));
        if let News::Ipv6(Some(lease)) = told.news {
            let prefixes = lease.prefixes.iter();
            assert!(
                prefixes.clone().count() <= 8 && prefixes.clone().all(|one| one.valid_s != Some(0))
            );
            assert!(lease.prefixes.iter().all(|one| one.net == one.net.trunc()));
        }
    }
    let mut bytes = Bytes(data);
    let mut now = Duration::from_secs(1000);
    let mut router = router(now);
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        now += Duration::from_secs(bytes.pair().into());
        if let Ok(Some(told)) = told::read(bytes.run()) {
            router.handle_told(told, now);
        } else {
            router.handle_timeout(now);
        }
        while router.poll_wish().is_some() {}
        assert!(router.deadline().is_none_or(|at| at > now));
    }
}

/// A router of a house of which nothing is written.
fn router(now: Duration) -> Machine {
    let ports = Ports {
        wan: Some("wan".into()),
        lan: vec!["lan1".into()],
        radios: Vec::new(),
    };
    let house = File::house(Path::new("altnet.toml"), "[router]\n", &ports);
    let setting = Setting {
        house: house.expect("a good file").expect("there is a [router]"),
        passwords: BTreeMap::new(),
        holds_password: false,
    };
    let mut router = Machine::new(setting, Kept::default(), Surroundings::default(), now);
    let links = ["wan", "br-lan"].map(|name| LinkFact {
        name: name.into(),
        is_up: true,
        has_carrier: true,
        bridge: 0,
    });
    router.handle_links(links.into(), now);
    router
}

/// Reads the bytes as what raw sockets receive.
pub fn probe_reply(data: &[u8]) {
    if let Some(echo) = Echo::reply_v6(data) {
        let mut again = echo.request([0; 16].into());
        again[0] = 129;
        again[2..4].copy_from_slice(&data[2..4]);
        assert_eq!(again, data);
    }
    if let Some(echo) = Echo::reply_v4(data) {
        let again = echo.request([0; 4].into());
        assert!(data.ends_with(&again[4..]));
    }
}

/// Valid inputs.
pub fn seeds(name: &str) -> Vec<Vec<u8>> {
    let bound = ".by=dhcpcd\0reason=BOUND\0interface=wan\0new_ip_address=198.51.100.51\0new_subnet_cidr=24\0\
        new_routers=198.51.100.1\0new_domain_name_servers=198.51.100.53\0new_dhcp_lease_time=300\0";
    let bound6 = ".by=dhcpcd\0reason=BOUND6\0interface=wan\0new_dhcp6_ia_pd1_prefix1=2001:db8:a00::\0\
        new_dhcp6_ia_pd1_prefix1_length=56\0new_dhcp6_ia_pd1_prefix1_vltime=600\0new_dhcp6_ia_pd1_prefix1_pltime=300\0";
    let advertised = ".by=dhcpcd\0reason=ROUTERADVERT\0interface=wan\0nd1_from=fe80::2\0nd1_addr1=2001:db8:1::5/64\0\
        nd1_rdnss1_servers=2001:db8::53\0nd1_lifetime=1800\0";
    let session = ".by=pppd\0.word=ip-up\0.word=wan\0.word=/dev/pts/1\0.word=0\0.word=203.0.113.7\0.word=203.0.113.1\0DNS1=192.0.2.1\0";
    match name {
        "hook" => {
            // As several come: seconds, a length, and as many bytes.
            let short = ".by=dhcpcd\0reason=EXPIRE6\0interface=wan\0";
            let length = u8::try_from(short.len()).expect("a short one");
            let story = [
                &[0, 9, 0, length][..],
                short.as_bytes(),
                &[1, 0, 0, length],
                short.as_bytes(),
            ]
            .concat();
            let datagrams =
                [bound, bound6, advertised, session].map(|text| text.as_bytes().to_vec());
            datagrams.into_iter().chain([story]).collect()
        }
        "probe_reply" => {
            let echo = Echo {
                id: 7,
                sequence: 9,
                cookie: 0x0102_0304_0506_0708,
            };
            let mut v6 = echo.request([0; 16].into()).to_vec();
            v6[0] = 129;
            let mut v4 = echo.request([0; 4].into()).to_vec();
            // A reply is a request whose type is 8 less, and its checksum 0x0800 more (RFC 1624).
            v4[0] = 0;
            v4[2] = v4[2].wrapping_add(8);
            let packet = [&[0x45][..], &[0; 19], &v4].concat();
            vec![v6, packet]
        }
        _ => Vec::new(),
    }
}
