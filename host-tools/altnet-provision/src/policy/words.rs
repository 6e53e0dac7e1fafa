//! The words of a policy's text: references, services and hours, read and written.

use altnet_wire::id::{Name, SiteId};
use altnet_wire::policy::{DAY_MINUTES, MAX_SPANS, Pattern, Service, Span, Window};

/// Whom or what a text names, before anybody looked who that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    Members,
    Hosts,
    Apps,
    Anything,
    Person(Name),
    Group(Name),
    /// A name, or the id of a member.
    Device(Name),
    /// A name from `[sites]`, or a number.
    Site(Name),
    /// With the site, if it was said.
    Host(Name, Option<Name>),
    /// With the device, if it was said.
    App(Name, Option<Name>),
    Domain(Name),
    Named(Pattern),
    /// Without a word before it.
    Bare(Name),
}

/// What may stand before a colon.
pub(super) const KINDS: [&str; 8] = [
    "person", "group", "device", "site", "host", "app", "domain", "named",
];
/// What stands alone.
pub(super) const ALONE: [&str; 4] = ["members", "hosts", "apps", "anything"];

/// What is wrong, and what to do about it.
pub(super) type Wrong = (String, String);

fn wrong<T>(what: impl Into<String>, next: impl Into<String>) -> Result<T, Wrong> {
    Err((what.into(), next.into()))
}

pub(super) fn name(text: &str) -> Result<Name, Wrong> {
    Name::new(text).or_else(|_| {
        wrong(
            format!("`{text}` is not a name"),
            "Names are 1 to 63 of a-z, 0-9 and - (not at the ends).",
        )
    })
}

pub(super) fn pattern(text: &str) -> Result<Pattern, Wrong> {
    Pattern::new(text).map_or_else(
        || {
            wrong(
                format!("`{text}` is no name under .alt"),
                "Write a name of a machine or an app, without .alt; one * in it stands for any letters, as in media-*.",
            )
        },
        Ok,
    )
}

/// Reads `members`, `person:ann`, `host:wiki@home` or `wiki`.
pub(super) fn reference(text: &str) -> Result<Reference, Wrong> {
    match text {
        "members" => return Ok(Reference::Members),
        "hosts" => return Ok(Reference::Hosts),
        "apps" => return Ok(Reference::Apps),
        "anything" => return Ok(Reference::Anything),
        _ => {}
    }
    let Some((kind, rest)) = text.split_once(':') else {
        return name(text).map(Reference::Bare).map_err(|(what, _)| {
            (
                what,
                "Write members, hosts, apps, anything, or a name after person:, group:, device:, site:, host:, app:, domain: or named:.".into(),
            )
        });
    };
    let at = |rest: &str| -> Result<(Name, Option<Name>), Wrong> {
        match rest.split_once('@') {
            Some((own, of)) => Ok((name(own)?, Some(name(of)?))),
            None => Ok((name(rest)?, None)),
        }
    };
    match kind {
        "person" => Ok(Reference::Person(name(rest)?)),
        "group" => Ok(Reference::Group(name(rest)?)),
        "device" => Ok(Reference::Device(name(rest)?)),
        "site" => Ok(Reference::Site(name(rest)?)),
        "host" => at(rest).map(|(host, site)| Reference::Host(host, site)),
        "app" => at(rest).map(|(app, device)| Reference::App(app, device)),
        "domain" => Ok(Reference::Domain(name(rest)?)),
        "named" => Ok(Reference::Named(pattern(rest)?)),
        _ => wrong(
            format!("`{kind}` is nothing that a policy speaks of"),
            format!(
                "{}Write one of {} before the colon.",
                super::fault::did_you_mean(kind, KINDS),
                KINDS.join(", ")
            ),
        ),
    }
}

/// A site's number.
pub(super) fn site_number(text: &str) -> Option<SiteId> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number
        .then(|| text.parse().ok().and_then(SiteId::new))
        .flatten()
}

/// Reads `tcp/80`, `udp/5000-5100`, `tcp`, `ping`, `protocol/47` or `any`.
pub(super) fn service(text: &str) -> Result<Service, Wrong> {
    const NEXT: &str = "Write tcp/80, udp/5000-5100, tcp, udp, ping, protocol/47 or any.";
    let (word, ports) = match text.split_once('/') {
        Some((word, ports)) => (word, Some(ports)),
        None => (text, None),
    };
    let protocol = match word {
        "any" if ports.is_none() => return Ok(Service::ANY),
        "ping" if ports.is_none() => return Ok(Service::all_of(Some(Service::ICMPV6))),
        "any" | "ping" => return wrong(format!("`{word}` has no ports"), NEXT),
        "tcp" => Service::TCP,
        "udp" => Service::UDP,
        "protocol" => {
            let number = ports.and_then(|ports| ports.parse().ok());
            return match number {
                Some(number) => Ok(Service::all_of(Some(number))),
                None => wrong(
                    format!("`{text}` names no protocol"),
                    "Write its number from 0 to 255 (IANA, Protocol Numbers), as in protocol/47.",
                ),
            };
        }
        _ => {
            let known = ["tcp", "udp", "ping", "any", "protocol"];
            let hint = well_known(word).map_or_else(
                || super::fault::did_you_mean(word, known),
                |service| format!("Its service is {service}. "),
            );
            return wrong(format!("`{text}` is no service"), format!("{hint}{NEXT}"));
        }
    };
    let Some(ports) = ports else {
        return Ok(Service::all_of(Some(protocol)));
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(Service {
            protocol: Some(protocol),
            first_port: first,
            last_port: last,
        }),
        (Some(_), Some(_)) => wrong(
            format!("`{text}` has its ports the wrong way round"),
            format!("Write {word}/{last}-{first}."),
        ),
        _ => wrong(
            format!("`{text}` has no ports from 0 to 65535"),
            "Write one port or the first and the last, as in tcp/80 or udp/5000-5100.",
        ),
    }
}

fn port(text: &str) -> Option<u16> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// What people write for a service by its usual name.
fn well_known(word: &str) -> Option<&'static str> {
    // IANA, Service Name and Transport Protocol Port Number Registry.
    match word {
        "http" => Some("tcp/80"),
        "https" => Some("tcp/443"),
        "ssh" => Some("tcp/22"),
        "dns" => Some("udp/53"),
        "smb" | "samba" => Some("tcp/445"),
        "rdp" => Some("tcp/3389"),
        "icmp" | "icmpv6" => Some("ping"),
        "all" | "anything" | "*" => Some("any"),
        _ => None,
    }
}

/// Writes a service as [`service`] reads it.
pub(super) fn service_text(service: &Service) -> String {
    let word = match service.protocol {
        None => return "any".into(),
        Some(Service::ICMPV6) => return "ping".into(),
        Some(Service::TCP) => "tcp",
        Some(Service::UDP) => "udp",
        Some(number) => return format!("protocol/{number}"),
    };
    match (service.first_port, service.last_port) {
        (0, u16::MAX) => word.into(),
        (first, last) if first == last => format!("{word}/{first}"),
        (first, last) => format!("{word}/{first}-{last}"),
    }
}

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const ALL_DAYS: u8 = 0x7f;
/// A list of hours that hold never.
const NEVER: &str = "never";

/// Reads hours, each like `Mon-Fri 14:00-19:30`, `Sat,Sun`, or `08:00-20:00`.
pub(super) fn span(text: &str) -> Result<Option<Span>, Wrong> {
    const NEXT: &str = "Write days and times, as in Mon-Fri 14:00-19:30, Sat,Sun or 22:00-06:00.";
    let mut words = text.split_whitespace();
    let (first, second) = (words.next(), words.next());
    if words.next().is_some() {
        return wrong(format!("`{text}` has more than days and times"), NEXT);
    }
    let (days, times) = match (first, second) {
        (Some(NEVER), None) => return Ok(None),
        (Some(days), Some(times)) => (Some(days), Some(times)),
        (Some(one), None) if one.starts_with(|c: char| c.is_ascii_digit()) => (None, Some(one)),
        (Some(one), None) => (Some(one), None),
        (None, _) => return wrong("there are no days and no times", NEXT),
    };
    let days = match days {
        None => ALL_DAYS,
        Some(days) => match self::days(days) {
            Ok(days) => days,
            Err(bad) => {
                return wrong(
                    format!("`{bad}` is no day"),
                    format!(
                        "Days are {}; several as in Mon-Fri or Sat,Sun.",
                        DAYS.join(", ")
                    ),
                );
            }
        },
    };
    let Some(times) = times else {
        return Ok(Some(Span {
            days,
            opens_min: 0,
            closes_min: DAY_MINUTES,
        }));
    };
    let ends = times.split_once('-');
    match ends.map(|(opens, closes)| (minute(opens), minute(closes))) {
        Some((Some(opens_min), Some(closes_min))) if opens_min < DAY_MINUTES => Ok(Some(Span {
            days,
            opens_min,
            // Midnight is the end of the day there, for no window closes before it opens.
            closes_min: if closes_min == 0 {
                DAY_MINUTES
            } else {
                closes_min
            },
        })),
        _ => wrong(
            format!("`{times}` is no time from and until"),
            "Write hours from 00:00 to 24:00, as in 14:00-19:30; 22:00-06:00 ends on the next day.",
        ),
    }
}

fn days(text: &str) -> Result<u8, &str> {
    let day = |text: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(text));
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Some(mut at), Some(last)) = (day(first), day(last)) else {
            return Err(part);
        };
        days |= 1 << at;
        while at != last {
            at = (at + 1) % DAYS.len();
            days |= 1 << at;
        }
    }
    Ok(days)
}

fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |text: &str, most: usize| {
        !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !digits(hours, 2) || !digits(minutes, 2) || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= DAY_MINUTES).then_some(minute)
}

/// Puts spans together to a window.
pub(super) fn window(
    spans: impl IntoIterator<Item = Option<Span>>,
    open_without_clock: bool,
) -> Result<Window, Wrong> {
    let mut window = Window {
        spans: heapless::Vec::new(),
        open_without_clock,
    };
    for span in spans.into_iter().flatten() {
        if window.spans.push(span).is_err() {
            return wrong(
                format!("there are more than {MAX_SPANS} hours"),
                "Put days with the same times together, as in Mon,Wed,Fri 08:00-12:00, or write a second rule.",
            );
        }
    }
    Ok(window)
}

/// Writes hours as [`span`] reads them.
pub(super) fn window_texts(window: &Window) -> Vec<String> {
    if window.spans.is_empty() {
        return vec![NEVER.into()];
    }
    window.spans.iter().map(span_text).collect()
}

fn span_text(span: &Span) -> String {
    let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
    let times = format!("{}-{}", clock(span.opens_min), clock(span.closes_min));
    let whole_day = span.opens_min == 0 && span.closes_min == DAY_MINUTES;
    match (span.days == ALL_DAYS, whole_day) {
        (true, _) => times,
        (false, true) => days_text(span.days),
        (false, false) => format!("{} {times}", days_text(span.days)),
    }
}

fn days_text(days: u8) -> String {
    let mut runs = Vec::new();
    let mut at = 0;
    while at < DAYS.len() {
        let has = |at: usize| days >> at & 1 == 1;
        if !has(at) {
            at += 1;
            continue;
        }
        let first = at;
        while at < DAYS.len() && has(at) {
            at += 1;
        }
        match at - first {
            1 => runs.push(DAYS[first].to_owned()),
            2 => runs.push(format!("{},{}", DAYS[first], DAYS[at - 1])),
            _ => runs.push(format!("{}-{}", DAYS[first], DAYS[at - 1])),
        }
    }
    runs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn services_read_as_they_are_written() {
        for text in [
            "tcp/80",
            "udp/5000-5100",
            "tcp",
            "udp",
            "ping",
            "protocol/47",
            "any",
        ] {
            assert_eq!(service_text(&service(text).unwrap()), text);
        }
        let check = |text: &str, said: &str| {
            let (what, next) = service(text).unwrap_err();
            assert!(format!("{what}. {next}").contains(said), "{what}. {next}");
        };
        check("http", "Its service is tcp/80");
        check("tpc/80", "Did you mean `tcp`?");
        check("tcp/90-80", "Write tcp/80-90");
        check("tcp/65536", "no ports from 0 to 65535");
        check("ping/1", "has no ports");
        check("protocol/256", "names no protocol");
    }

    #[test]
    fn hours_read_as_they_are_written() {
        for text in [
            "Mon-Fri 14:00-19:30",
            "Sat,Sun 08:00-20:00",
            "22:00-06:00",
            "Mon,Wed,Fri-Sun",
            "Sun 00:00-00:01",
        ] {
            let window = window([span(text).unwrap()], false).unwrap();
            assert_eq!(window_texts(&window), [text]);
        }
        let around = span("Sat-Mon 22:00-00:00").unwrap().unwrap();
        assert_eq!((around.days, around.closes_min), (0b110_0001, 1440));
        for bad in [
            "",
            "Mo 08:00-09:00",
            "08:00",
            "25:00-26:00",
            "Mon 24:00-01:00",
            "Mon 8-9",
            "Mon x y",
        ] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = (reference(&text), service(&text), span(&text), pattern(&text));
        }

        #[test]
        fn every_span_reads_back(days in 1u8..0x80, opens_min in 0u16..1440, closes_min in 1u16..=1440) {
            let one = Span { days, opens_min, closes_min };
            prop_assert_eq!(span(&span_text(&one)).unwrap(), Some(one));
        }
    }
}
