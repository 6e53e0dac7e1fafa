//! Which channels an access point may use where.
//!
//! Source: the kernel's own rules, wireless-regdb of May 2026, of which hostapd and the kernel go by whichever is
//! installed. A channel that this table lets through and the kernel doesn't is refused by hostapd.

use crate::config::{Band, Width};

/// Countries with the same law.
struct Law {
    /// Their codes (ISO 3166-1).
    countries: &'static str,
    /// The last channel at 2.4 GHz; the first is 1.
    two: u8,
    /// Channels at 5 GHz, from and to, in steps of 4.
    five: &'static [(u8, u8)],
    /// Channels at 6 GHz, from and to, in steps of 4.
    six: &'static [(u8, u8)],
}

/// The first channels of what 40 and 80 MHz take at 5 GHz, by 80 MHz: 36 to 48, 52 to 64 and so on.
const BLOCKS_AT_FIVE: [u8; 8] = [36, 52, 100, 116, 132, 149, 165, 181];

/// Whether a country is known by this code.
pub(super) fn is_country(code: &str) -> bool {
    law(code).is_some()
}

/// The channels that a country lets an access point use at this width, in order; of a wide one any that it covers.
pub(super) fn channels(country: &str, band: Band, width: Width) -> Vec<u8> {
    let Some(law) = law(country) else {
        return Vec::new();
    };
    let step = |ranges: &[(u8, u8)]| -> Vec<u8> {
        ranges
            .iter()
            .flat_map(|(first, last)| (*first..=*last).step_by(4))
            .collect()
    };
    let allowed = match band {
        Band::Two => (1..=law.two).collect(),
        Band::Five => step(law.five),
        Band::Six => step(law.six),
    };
    let covers = |channel: &u8| {
        covered(*channel, band, width)
            .is_some_and(|all| all.iter().all(|one| allowed.contains(one)))
    };
    allowed.iter().copied().filter(covers).collect()
}

/// The channels of 20 MHz that one of a width takes.
pub(crate) fn covered(channel: u8, band: Band, width: Width) -> Option<Vec<u8>> {
    let many: u8 = match width {
        Width::Twenty => return Some(vec![channel]),
        Width::Forty => 2,
        Width::Eighty => 4,
    };
    let first = match band {
        Band::Two if width == Width::Eighty => return None,
        // The second is above where there is room, else below (IEEE 802.11 annex E, 20 MHz are 4 channels apart).
        Band::Two => {
            return Some(if channel <= 7 {
                vec![channel, channel + 4]
            } else {
                vec![channel - 4, channel]
            });
        }
        Band::Five => {
            let block = *BLOCKS_AT_FIVE
                .iter()
                .rev()
                .find(|first| **first <= channel)?;
            block + (channel - block) / (4 * many) * (4 * many)
        }
        Band::Six => (channel - 1) / (4 * many) * (4 * many) + 1,
    };
    Some((0..many).map(|n| first + 4 * n).collect())
}

fn law(country: &str) -> Option<&'static Law> {
    let is_code = country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase());
    let has = |law: &&Law| law.countries.split(' ').any(|code| code == country);
    LAWS.iter().find(has).filter(|_| is_code)
}

const LAWS: &[Law] = &[
    Law {
        countries: "AD AL AT BA BE BG BH CH CY CZ DE DK EE ES FI FR GR HR HU IE IL IN IS IT JO KE LI LT LU LV MC MD ME MK MT NA NL NO PL PT QA RO SE SI SK",
        two: 13,
        five: &[(36, 64), (100, 140), (149, 173)],
        six: &[(1, 93)],
    },
    Law {
        countries: "AE GB HK MN MO MU MX PY SG TG TH TW",
        two: 13,
        five: &[(36, 64), (100, 144), (149, 165)],
        six: &[(1, 93)],
    },
    Law {
        countries: "AF AI AN AW BL BT BY ET GF GL GP KH LS MF MQ MR MW PF PM RE SR TD VC WF WS YT ZW",
        two: 13,
        five: &[(36, 64), (100, 140)],
        six: &[],
    },
    Law {
        countries: "AM",
        two: 13,
        five: &[(36, 64), (100, 144), (149, 173)],
        six: &[],
    },
    Law {
        countries: "AR CO PE",
        two: 13,
        five: &[(36, 64), (100, 144), (149, 165)],
        six: &[(1, 233)],
    },
    Law {
        countries: "AS BM FM GD GU HT MH MP NI PR PW US VI",
        two: 11,
        five: &[(36, 64), (100, 144), (149, 165)],
        six: &[],
    },
    Law {
        countries: "AU",
        two: 13,
        five: &[(36, 64), (100, 116), (132, 144), (149, 165), (173, 173)],
        six: &[(1, 125)],
    },
    Law {
        countries: "AZ EG GE MA TN",
        two: 13,
        five: &[(36, 64)],
        six: &[(1, 93)],
    },
    Law {
        countries: "BB CN MV NP UY VE",
        two: 13,
        five: &[(36, 64), (149, 165)],
        six: &[],
    },
    Law {
        countries: "BD BZ CU",
        two: 13,
        five: &[(149, 165)],
        six: &[],
    },
    Law {
        countries: "BF BN BS CF CI CX GH GY HN JM LB PG RW SN TC TT UG VU",
        two: 13,
        five: &[(36, 64), (100, 144), (149, 165)],
        six: &[],
    },
    Law {
        countries: "BO NG",
        two: 13,
        five: &[(52, 64), (149, 165)],
        six: &[],
    },
    Law {
        countries: "BR KR",
        two: 13,
        five: &[(36, 64), (100, 140), (149, 165)],
        six: &[(1, 233)],
    },
    Law {
        countries: "BW EC PA",
        two: 13,
        five: &[(36, 64), (100, 140), (149, 165)],
        six: &[],
    },
    Law {
        countries: "CA CR",
        two: 13,
        five: &[(36, 64), (100, 144), (149, 165), (173, 177)],
        six: &[(1, 233)],
    },
    Law {
        countries: "CL",
        two: 13,
        five: &[(36, 64), (149, 165)],
        six: &[(1, 93)],
    },
    Law {
        countries: "DM",
        two: 11,
        five: &[(36, 64), (149, 165)],
        six: &[],
    },
    Law {
        countries: "DO",
        two: 11,
        five: &[(36, 64), (149, 165)],
        six: &[(1, 233)],
    },
    Law {
        countries: "DZ",
        two: 13,
        five: &[(36, 64), (100, 132)],
        six: &[],
    },
    Law {
        countries: "FO GI IM OM SM TR VA ZA",
        two: 13,
        five: &[(36, 64), (100, 140)],
        six: &[(1, 93)],
    },
    Law {
        countries: "GT",
        two: 13,
        five: &[(36, 64), (100, 140), (149, 165)],
        six: &[(1, 181), (189, 233)],
    },
    Law {
        countries: "ID",
        two: 13,
        five: &[(36, 64), (149, 161)],
        six: &[(1, 93)],
    },
    Law {
        countries: "IR UZ",
        two: 13,
        five: &[(36, 64)],
        six: &[],
    },
    Law {
        countries: "JP",
        two: 13,
        five: &[(36, 64), (100, 144)],
        six: &[(1, 93)],
    },
    Law {
        countries: "KN LC",
        two: 13,
        five: &[(36, 64), (100, 140), (149, 161)],
        six: &[],
    },
    Law {
        countries: "KP",
        two: 13,
        five: &[(36, 64), (100, 124), (149, 161)],
        six: &[],
    },
    Law {
        countries: "KW",
        two: 13,
        five: &[(36, 64), (100, 144), (149, 161)],
        six: &[(1, 93)],
    },
    Law {
        countries: "KY NZ",
        two: 13,
        five: &[(36, 64), (100, 144), (149, 173)],
        six: &[(1, 93)],
    },
    Law {
        countries: "KZ PH TZ UA VN",
        two: 13,
        five: &[(36, 64), (100, 140), (149, 165)],
        six: &[(1, 93)],
    },
    Law {
        countries: "LK SX",
        two: 13,
        five: &[(36, 64), (100, 140), (149, 173)],
        six: &[],
    },
    Law {
        countries: "MY",
        two: 13,
        five: &[(36, 64), (100, 128), (149, 173)],
        six: &[(1, 93)],
    },
    Law {
        countries: "PK",
        two: 13,
        five: &[(149, 173)],
        six: &[(1, 93)],
    },
    Law {
        countries: "RS",
        two: 13,
        five: &[(36, 64), (100, 140), (149, 165), (173, 173)],
        six: &[(1, 93)],
    },
    Law {
        countries: "RU",
        two: 13,
        five: &[(36, 64), (132, 144), (149, 165)],
        six: &[(1, 93)],
    },
    Law {
        countries: "SA",
        two: 13,
        five: &[(36, 64), (100, 140)],
        six: &[(1, 233)],
    },
    Law {
        countries: "SV",
        two: 13,
        five: &[(36, 64), (149, 165)],
        six: &[(1, 233)],
    },
    Law {
        countries: "SY",
        two: 13,
        five: &[(36, 64), (100, 140), (149, 165), (173, 173)],
        six: &[],
    },
    Law {
        countries: "YE",
        two: 13,
        five: &[],
        six: &[],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_country_has_its_channels() {
        let first_and_last = |country, band, width| {
            let all = channels(country, band, width);
            (all.first().copied(), all.last().copied())
        };
        for (country, band, width, first, last) in [
            ("US", Band::Two, Width::Twenty, 1, 11),
            ("CH", Band::Two, Width::Forty, 1, 13),
            ("CH", Band::Five, Width::Twenty, 36, 173),
            ("JP", Band::Five, Width::Eighty, 36, 144),
            ("CH", Band::Six, Width::Eighty, 1, 93),
        ] {
            assert_eq!(
                first_and_last(country, band, width),
                (Some(first), Some(last)),
                "{country} {band:?} {width:?}"
            );
        }
        assert!(channels("US", Band::Six, Width::Twenty).is_empty());
        for code in ["", "XX", "ch", "AT BE", " ", "A"] {
            assert!(!is_country(code), "{code:?}");
        }
    }

    #[test]
    fn a_wide_channel_covers_its_block() {
        for (channel, band, width, expected) in [
            (44, Band::Five, Width::Eighty, vec![36, 40, 44, 48]),
            (44, Band::Five, Width::Forty, vec![44, 48]),
            (157, Band::Five, Width::Forty, vec![157, 161]),
            (144, Band::Five, Width::Eighty, vec![132, 136, 140, 144]),
            (37, Band::Six, Width::Eighty, vec![33, 37, 41, 45]),
            (6, Band::Two, Width::Forty, vec![6, 10]),
            (11, Band::Two, Width::Forty, vec![7, 11]),
        ] {
            assert_eq!(covered(channel, band, width), Some(expected), "{channel}");
        }
        assert_eq!(covered(6, Band::Two, Width::Eighty), None);
    }
}
