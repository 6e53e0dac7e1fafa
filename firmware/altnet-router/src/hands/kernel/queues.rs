//! Queues at the provider's line: cake on what goes out, and by way of another interface on what comes in.
//!
//! What comes in can't be queued where it does: a filter sends all of it to the queue's own interface, from which it
//! comes in once more.
//!
//! Source: tc-cake(8), tc-matchall(8), tc-mirred(8), linux/pkt_sched.h.

use std::io;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionGeneric, TcActionMirrorOption, TcActionOption,
    TcActionType, TcAttribute, TcFilterMatchAllOption, TcHandle, TcMessage, TcMirror,
    TcMirrorActionType, TcOption,
};

use super::super::netlink::Netlink;
use super::Indexes;
use crate::plan::Queue;

/// The handle of queues, and the priority of filters, that are a plan's.
const OWN: u16 = 0xa177;
/// All of it (linux/if_ether.h, ETH_P_ALL).
const EVERY_PROTOCOL: u16 = 3;
const BITS_PER_BYTE: u64 = 8;
const KILO: u64 = 1000;
/// Of linux/pkt_sched.h.
const TCA_CAKE_BASE_RATE64: u16 = 2;
const TCA_CAKE_ATM: u16 = 4;
const TCA_CAKE_OVERHEAD: u16 = 6;
const TCA_CAKE_NAT: u16 = 11;
const TCA_CAKE_MPU: u16 = 14;
const TCA_CAKE_INGRESS: u16 = 15;

pub(super) fn apply(
    netlink: &mut Netlink,
    queues: &[Queue],
    indexes: &Indexes,
    troubles: &mut Vec<String>,
) {
    let mut wanted = Vec::new();
    for queue in queues {
        let what = "a queue";
        let Some(at) = indexes.find(&queue.link, what, troubles) else {
            continue;
        };
        let ingress = queue.ingress_of.as_ref();
        let ingress = ingress.map(|link| indexes.find(link, what, troubles));
        if ingress != Some(None) {
            wanted.push((queue, at, ingress.flatten()));
        }
    }
    let found = match netlink.list(&RouteNetlinkMessage::GetQueueDiscipline(
        TcMessage::default(),
    )) {
        Ok(found) => found,
        Err(e) => return troubles.push(format!("can't list queues: {e}")),
    };
    for answer in found {
        if let RouteNetlinkMessage::NewQueueDiscipline(old) = answer
            && let Err(e) = remove_unwanted(netlink, &old, &wanted)
        {
            troubles.push(format!("can't remove a queue: {e}"));
        }
    }
    for (queue, at, ingress) in wanted {
        let made = netlink.change(
            RouteNetlinkMessage::NewQueueDiscipline(cake(queue, at)),
            NLM_F_CREATE | NLM_F_REPLACE,
        );
        let made = made.and_then(|()| match ingress {
            Some(from) => lead(netlink, from, at),
            None => Ok(()),
        });
        if let Err(e) = made {
            troubles.push(format!("can't make the queue at {}: {e}", queue.link));
        }
    }
}

type Wanted<'a> = (&'a Queue, u32, Option<u32>);

fn remove_unwanted(
    netlink: &mut Netlink,
    old: &TcMessage,
    wanted: &[Wanted<'_>],
) -> io::Result<()> {
    let index = u32::try_from(old.header.index).unwrap_or(0);
    let is_cake = old.header.handle.major == OWN;
    let is_ingress = old.header.parent == TcHandle::INGRESS;
    let goes = if is_cake {
        !wanted.iter().any(|(_, at, _)| *at == index)
    } else {
        let stays = wanted.iter().any(|(_, _, from)| *from == Some(index));
        is_ingress && !stays && leads(netlink, index)?.is_some()
    };
    if !goes {
        return Ok(());
    }
    let mut message = about(index);
    message.header.handle = old.header.handle;
    message.header.parent = old.header.parent;
    match netlink.change(RouteNetlinkMessage::DelQueueDiscipline(message), 0) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => Ok(()),
        other => other,
    }
}

/// Where a filter of a plan's leads what comes in at an interface: that one's number.
fn leads(netlink: &mut Netlink, index: u32) -> io::Result<Option<u32>> {
    let mut message = about(index);
    message.header.parent = INGRESS;
    let filters = netlink.list(&RouteNetlinkMessage::GetTrafficFilter(message))?;
    let ours = filters.iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewTrafficFilter(filter)
            if filter.header.info >> 16 == u32::from(OWN)
                && filter.header.handle != TcHandle::UNSPEC =>
        {
            Some(filter)
        }
        _ => None,
    });
    Ok(ours.map(|filter| target(filter).unwrap_or(0)))
}

fn target(filter: &TcMessage) -> Option<u32> {
    let options = filter
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        });
    let actions = options?.iter().find_map(|option| match option {
        TcOption::MatchAll(TcFilterMatchAllOption::Action(actions)) => Some(actions),
        _ => None,
    });
    let attributes = actions?.iter().flat_map(|action| &action.attributes);
    let options = attributes.filter_map(|attribute| match attribute {
        TcActionAttribute::Options(options) => Some(options),
        _ => None,
    });
    options.flatten().find_map(|option| match option {
        TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror)) => Some(mirror.ifindex),
        _ => None,
    })
}

/// The handle of the queue that holds filters on what comes in.
const INGRESS: TcHandle = TcHandle {
    major: 0xffff,
    minor: 0,
};

fn cake(queue: &Queue, at: u32) -> TcMessage {
    let rate = u64::from(queue.rate_kbit) * KILO / BITS_PER_BYTE;
    let word = |kind, word: u32| TcOption::Other(DefaultNla::new(kind, word.to_ne_bytes().into()));
    let overhead = i32::from(queue.overhead_bytes).to_ne_bytes();
    let rate = DefaultNla::new(TCA_CAKE_BASE_RATE64, rate.to_ne_bytes().into());
    let mut options = vec![
        TcOption::Other(rate),
        TcOption::Other(DefaultNla::new(TCA_CAKE_OVERHEAD, overhead.into())),
        word(TCA_CAKE_ATM, queue.atm.into()),
        word(TCA_CAKE_NAT, queue.nat.into()),
        word(TCA_CAKE_INGRESS, queue.ingress_of.is_some().into()),
    ];
    if queue.smallest_bytes > 0 {
        options.push(word(TCA_CAKE_MPU, queue.smallest_bytes.into()));
    }
    let mut message = about(at);
    message.header.parent = TcHandle::ROOT;
    message.header.handle = TcHandle {
        major: OWN,
        minor: 0,
    };
    message.attributes = vec![
        TcAttribute::Kind("cake".into()),
        TcAttribute::Options(options),
    ];
    message
}

/// Has all that comes in at an interface go to another one.
fn lead(netlink: &mut Netlink, from: u32, to: u32) -> io::Result<()> {
    let mut ingress = about(from);
    ingress.header.parent = TcHandle::INGRESS;
    ingress.header.handle = INGRESS;
    ingress.attributes = vec![TcAttribute::Kind("ingress".into())];
    let made = netlink.change(
        RouteNetlinkMessage::NewQueueDiscipline(ingress),
        NLM_F_CREATE | NLM_F_EXCL,
    );
    match made {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
        other => other?,
    }
    match leads(netlink, from)? {
        Some(there) if there == to => return Ok(()),
        // This kind of filter can't be changed.
        Some(_) => netlink.change(RouteNetlinkMessage::DelTrafficFilter(filter(from)), 0)?,
        None => {}
    }
    let mut generic = TcActionGeneric::default();
    generic.action = TcActionType::Stolen;
    let mut mirror = TcMirror::default();
    mirror.generic = generic;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = to;
    let options = vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))];
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind("mirred".into()),
        TcActionAttribute::Options(options),
    ];
    // The first of a list of actions.
    action.tab = 1;
    let mut message = filter(from);
    message
        .attributes
        .push(TcAttribute::Options(vec![TcOption::MatchAll(
            TcFilterMatchAllOption::Action(vec![action]),
        )]));
    netlink.change(
        RouteNetlinkMessage::NewTrafficFilter(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// The filter of a plan's at an interface.
fn filter(at: u32) -> TcMessage {
    let mut message = about(at);
    message.header.parent = INGRESS;
    message.header.handle = TcHandle { major: 0, minor: 1 };
    message.header.info = u32::from(OWN) << 16 | u32::from(EVERY_PROTOCOL.to_be());
    message.attributes = vec![TcAttribute::Kind("matchall".into())];
    message
}

fn about(index: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = i32::try_from(index).unwrap_or(0);
    message
}
