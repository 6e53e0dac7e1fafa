//! Fuzz targets as plain functions of bytes.
//!
//! A target takes any bytes and must return: it panics only where altnet is wrong. The same
//! functions run in three ways: `cargo test -p altnet-fuzz` replays the corpora and mutations
//! of them on stable Rust, `ci/fuzz/run` explores with libFuzzer on nightly, and a failing
//! input is one call away in a debugger.
//!
//! Decoders are also held to their law: what was read and is written again is the same bytes.
#![forbid(unsafe_code)]

pub mod appliances;
pub mod audit;
pub mod authority;
pub mod bytes;
pub mod claims;
pub mod fixtures;
pub mod houses;
pub mod knocks;
pub mod logins;
pub mod machines;
pub mod mutate;
pub mod parsers;
pub mod policies;
pub mod portmap;
pub mod relays;
pub mod routers;
pub mod sizes;
pub mod stun;
pub mod turn;
pub mod uci;
pub mod updates;
pub mod world;

/// A target.
pub type Target = fn(&[u8]);

/// Every target with its name, which is also its corpus's folder.
pub const TARGETS: &[(&str, Target)] = &[
    ("envelope", parsers::envelope),
    ("message", parsers::message),
    ("control_packet", parsers::control_packet),
    ("relay_header", parsers::relay_header),
    ("echo", parsers::echo),
    ("knock", knocks::knock),
    ("wireguard_message", parsers::wireguard_message),
    ("stun", parsers::stun),
    ("stun_server", stun::stun_server),
    ("ip_and_policy", policies::ip_and_policy),
    ("policy", policies::policy),
    ("dns", parsers::dns),
    ("solicitation", parsers::solicitation),
    ("router_advertisement", routers::router_advertisement),
    ("portmap", portmap::portmap),
    ("port_mapper", portmap::port_mapper),
    ("link", parsers::link),
    ("bundle", parsers::bundle),
    ("identity", parsers::identity),
    ("audit", audit::audit),
    ("registry", machines::registry),
    ("control", machines::control),
    ("engine", machines::engine),
    ("turn_client", turn::turn_client),
    ("stored", world::stored),
    ("node", world::node),
    ("ldap_answer", logins::ldap_answer),
    ("certificate_status", logins::certificate_status),
    ("id_token", logins::id_token),
    ("login_form", logins::login_form),
    ("passkey", logins::passkey),
    ("authority", authority::authority),
    ("derp", relays::derp),
    ("derp_server", relays::derp_server),
    ("pieces", sizes::pieces),
    ("clamped_syn", sizes::clamped_syn),
    ("path_mtu", sizes::path_mtu),
    ("hook", houses::hook),
    ("probe_reply", houses::probe_reply),
    ("update_bundle", updates::update_bundle),
    ("update_state", updates::update_state),
    ("update_story", updates::update_story),
    ("update_answer", appliances::update_answer),
    ("release_keys", appliances::release_keys),
    ("slot_choice", appliances::slot_choice),
    ("partition_table", appliances::partition_table),
    ("uci", uci::uci),
    ("claim", claims::claim),
    ("claim_words", claims::claim_words),
    ("setup", claims::setup),
];
