//! Becoming a member: calling an issuer with an invite, or being the first node of a network.
//!
//! Nothing is kept until the issuer has said yes; then records first, and last of all the
//! slot that says which network this is. Cut off anywhere, the device is outside as before,
//! and redeeming again with the same device key gives the same membership.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::hash::{self, Hash};
use altnet_wire::id::{Name, NetworkId};
use altnet_wire::message::{Hello, Packed, Redeem, Refusal, Reply, Request, SignatureHalves};
use altnet_wire::record::{MAX_FIXED_ENDPOINTS, redemption_proof, redemption_session};
use altnet_wire::time::{Duration, Instant};

use super::sessions::Asked;
use super::{Deferred, Event, JoinError, Node, Slot};
use crate::control::{CloseReason, SessionId};
use crate::invite::{Bundle, BundleError, Link};
use crate::issuer::Issuer;
use crate::records::{SigningSecret, redeem_proof};
use crate::registry::Registry;

/// How long an entry has for each step after it answered.
const PATIENCE: Duration = Duration::from_secs(20);

/// An attempt to become a member.
pub(super) struct Joining {
    pub(super) session: Option<SessionId>,
    pub(super) network: NetworkId,
    /// The records of the network, once somebody showed them.
    pub(super) registry: Option<Registry>,
    link: Link,
    name: Option<Name>,
    petname: Option<Name>,
    fixed_endpoints: heapless::Vec<SocketAddr, MAX_FIXED_ENDPOINTS>,
    issuer: Option<SigningSecret>,
    next_entry: usize,
    gives_up: Instant,
    is_saving: bool,
}

impl<A: Aead> Node<A> {
    /// Begins to join with an invite's link. Ends in [`Event::Joined`] or
    /// [`Event::JoinFailed`].
    ///
    /// # Errors
    /// [`JoinError`], and nothing was begun.
    pub fn join(&mut self, link: Link, name: Option<Name>, now: Instant) -> Result<(), JoinError> {
        let bundle = Bundle {
            link: Some(link),
            ..Bundle::default()
        };
        self.join_bundle(bundle, name, now)
    }

    /// Begins to join with a first-boot bundle. The first node of a network finds the issuer
    /// key in it and needs nobody else.
    ///
    /// # Errors
    /// [`JoinError`], and nothing was begun.
    pub fn join_bundle(
        &mut self,
        bundle: Bundle,
        name: Option<Name>,
        now: Instant,
    ) -> Result<(), JoinError> {
        if self.network.is_some() {
            return Err(JoinError::AlreadyMember);
        }
        if self.joining.is_some() {
            return Err(JoinError::UnderWay);
        }
        let link = bundle.link.ok_or(JoinError::BadInvite)?;
        self.joining = Some(Joining {
            session: None,
            network: link.network(),
            registry: None,
            link,
            name,
            petname: bundle.petname,
            fixed_endpoints: bundle.fixed_endpoints,
            issuer: bundle.issuer,
            next_entry: 0,
            gives_up: Instant::NEVER,
            is_saving: false,
        });
        let result = if self.joining.as_ref().is_some_and(|j| j.issuer.is_some()) {
            self.admit_self(&bundle.records, now)
        } else {
            // Keys first: an invite spent on keys that a power cut takes is lost.
            self.after_save(Deferred::Call, now);
            Ok(())
        };
        if result.is_err() {
            self.joining = None;
        }
        result
    }

    /// The first node redeems its invite with the issuer key it carries.
    fn admit_self(&mut self, records: &[Vec<u8>], now: Instant) -> Result<(), JoinError> {
        let genesis = self.joining.as_ref().and_then(|joining| {
            records
                .iter()
                .find(|bytes| altnet_wire::id::network_id(bytes) == joining.network)
        });
        let genesis = genesis.ok_or(JoinError::BadInvite)?;
        let mut registry =
            Registry::new(genesis, self.config.limits).map_err(|_| JoinError::BadInvite)?;
        registry.apply_all(records.iter().map(Vec::as_slice), &mut self.clock);
        // No session: bound to the device's own key instead of a handshake.
        let handshake = hash::labelled(
            "altnet own admission v1",
            &[&self.identity.device.public().0],
        );
        let joining = self.joining.as_ref().ok_or(JoinError::BadInvite)?;
        let secret = joining.issuer.clone().ok_or(JoinError::BadInvite)?;
        let mut issuer = Issuer::new(secret, None, &registry).map_err(|_| JoinError::BadInvite)?;
        let invite = Vec::from(joining.link.invite());
        let request = self
            .redemption(&invite, &handshake)
            .ok_or(JoinError::BadInvite)?;
        issuer
            .redeem(
                &mut registry,
                &mut self.clock,
                &request,
                &handshake,
                now,
                &mut self.rng,
            )
            .map_err(|refusal| JoinError::Refused(refusal.to_wire()))?;
        let _ = issuer.head(&mut registry, &mut self.clock, now);
        self.issuer = Some(issuer);
        self.saves.changed(Slot::Issuer);
        self.save_membership(registry, now);
        Ok(())
    }

    fn redemption<'a>(&self, invite: &'a [u8], handshake: &Hash) -> Option<Redeem<'a>> {
        let joining = self.joining.as_ref()?;
        let device = self.identity.device.public();
        let control = self.identity.control.public();
        let session = redemption_session(handshake, &control);
        let mut device_proof: SignatureHalves = [[0; 32]; 2];
        device_proof.as_flattened_mut().copy_from_slice(
            &self
                .identity
                .device
                .sign(&redemption_proof(&session, &device)),
        );
        Some(Redeem {
            invite,
            device,
            control,
            name: joining.name.clone(),
            invite_proof: redeem_proof(&joining.link.key(), session, &device).proof,
            device_proof,
        })
    }

    /// Calls the first of the invite's addresses.
    pub(super) fn begin_call(&mut self, now: Instant) {
        let is_new = |joining: &Joining| joining.session.is_none() && joining.next_entry == 0;
        if self.joining.as_ref().is_some_and(is_new)
            && let Err(why) = self.call_next_entry(now)
        {
            self.join_failed(why, now);
        }
    }

    /// Calls the next of the invite's addresses.
    fn call_next_entry(&mut self, now: Instant) -> Result<(), JoinError> {
        let joining = self.joining.as_mut().ok_or(JoinError::NoAnswer)?;
        let entry = joining.link.entries().get(joining.next_entry).copied();
        let entry = entry.ok_or(JoinError::NoAnswer)?;
        joining.next_entry += 1;
        joining.gives_up = now.after(PATIENCE * 2);
        joining.registry = None;
        let place = joining.next_entry - 1;
        joining.session = Some(
            self.control
                .connect(None, Endpoint::Direct(entry), now)
                .map_err(|_| JoinError::UnderWay)?,
        );
        self.door_called(place, now);
        Ok(())
    }

    pub(super) const fn is_joining(&self) -> bool {
        self.joining.is_some()
    }

    /// The entry at this place, if it is called and hasn't answered yet.
    pub(super) fn entry_without_answer(&self, place: usize) -> Option<SocketAddr> {
        let joining = self.joining.as_ref()?;
        let session = joining.session.filter(|s| !self.sessions.contains_key(s));
        let is_called = session.is_some() && joining.next_entry.checked_sub(1) == Some(place);
        let entry = joining.link.entries().get(place).copied();
        entry.filter(|_| is_called)
    }

    /// Calls the entry that is called by UDP in another way instead.
    pub(super) fn call_entry_over(&mut self, endpoint: Endpoint, now: Instant) {
        let Some(joining) = &mut self.joining else {
            return;
        };
        let Ok(session) = self.control.connect(None, endpoint, now) else {
            return;
        };
        joining.gives_up = now.after(PATIENCE * 2);
        if let Some(former) = joining.session.replace(session) {
            self.control.close(former, CloseReason::Done, now);
        }
    }

    /// Who answered shows who it is. Returns whether the Hello was for this attempt.
    pub(super) fn join_hello(
        &mut self,
        session: SessionId,
        hello: &Hello<'_>,
        now: Instant,
    ) -> bool {
        let Some(joining) = self.joining.as_mut().filter(|j| j.session == Some(session)) else {
            return false;
        };
        if joining.registry.is_some() || joining.is_saving {
            return true;
        }
        let remote = self
            .sessions
            .get(&session)
            .map(|state| (state.remote, state.handshake));
        let genesis =
            Packed(hello.chain).find(|bytes| altnet_wire::id::network_id(bytes) == joining.network);
        let registry = genesis.and_then(|genesis| {
            let mut registry = Registry::new(genesis, self.config.limits).ok()?;
            // Only looked at: the clock's floor rises when the membership is kept.
            let mut clock = self.clock.clone();
            registry.apply_all(Packed(hello.chain), &mut clock);
            Some(registry)
        });
        let (Some(registry), Some((remote, handshake))) = (registry, remote) else {
            self.entry_failed(JoinError::OtherNetwork, now);
            return true;
        };
        if registry.member_by_control(&remote).is_none() {
            self.entry_failed(JoinError::OtherNetwork, now);
            return true;
        }
        joining.registry = Some(registry);
        joining.gives_up = now.after(PATIENCE);
        let invite = Vec::from(joining.link.invite());
        if let Some(redeem) = self.redemption(&invite, &handshake) {
            self.ask(session, &Request::Redeem(redeem), Asked::Redeem, now);
        }
        self.timers.housekeeping_at(now.after(PATIENCE));
        true
    }

    /// The issuer's answer.
    pub(super) fn join_reply(&mut self, session: SessionId, reply: &Reply<'_>, now: Instant) {
        let Some(joining) = self.joining.as_mut().filter(|j| j.session == Some(session)) else {
            return;
        };
        match reply {
            Reply::Redeemed { records } => {
                let Some(mut registry) = joining.registry.take() else {
                    return;
                };
                registry.apply_all(Packed(records), &mut self.clock);
                let device = self.identity.device.public();
                if registry.by_device(&device).is_none() {
                    self.join_failed(JoinError::BadAnswer, now);
                    return;
                }
                self.save_membership(registry, now);
            }
            // Another of the invite's addresses may be the issuer's.
            Reply::Refused(Refusal::OtherIssuer) => {
                self.entry_failed(JoinError::Refused(Refusal::OtherIssuer), now);
            }
            Reply::Refused(refusal) => self.join_failed(JoinError::Refused(*refusal), now),
            _ => self.join_failed(JoinError::BadAnswer, now),
        }
    }

    fn save_membership(&mut self, registry: Registry, now: Instant) {
        let Some(joining) = &mut self.joining else {
            return;
        };
        joining.registry = Some(registry);
        joining.is_saving = true;
        joining.gives_up = Instant::NEVER;
        self.save_records();
        self.after_save(Deferred::Commit, now);
    }

    /// Every record is on disk: from now on this node is a member.
    pub(super) fn commit_membership(&mut self, now: Instant) {
        let Some(joining) = self.joining.take() else {
            return;
        };
        self.door_leaves(now);
        let Some(registry) = joining.registry else {
            return;
        };
        let network = registry.network();
        let petname = self
            .config
            .petname
            .clone()
            .or(joining.petname)
            .unwrap_or_else(|| registry.genesis().name.clone());
        let name = registry
            .by_device(&self.identity.device.public())
            .map(|member| member.membership.name.clone());
        self.fixed_endpoints = joining.fixed_endpoints;
        if !self.enter(registry, petname, now) {
            self.tell(Event::JoinFailed {
                why: JoinError::BadAnswer,
            });
            return;
        }
        self.saves.changed(Slot::Network);
        if let Some(session) = joining.session {
            // Who let us in learns our keys in the same session, so that the next one can be
            // one between members.
            self.introduce_own(session, now);
        }
        if let Some(name) = name {
            self.after_save(Deferred::Tell(Event::Joined { network, name }), now);
        }
    }

    /// A session of the attempt ended.
    pub(super) fn join_session_ended(&mut self, session: SessionId, now: Instant) {
        let ours = self
            .joining
            .as_ref()
            .is_some_and(|j| j.session == Some(session) && !j.is_saving);
        if ours {
            self.entry_failed(JoinError::NoAnswer, now);
        }
    }

    /// Who answered knows nothing of the invite's network.
    pub(super) fn join_not_allowed(&mut self, session: SessionId, now: Instant) {
        let asking = |j: &Joining| j.session == Some(session) && !j.is_saving;
        if self.joining.as_ref().is_some_and(asking) {
            self.entry_failed(JoinError::OtherNetwork, now);
        }
    }

    /// This entry is of no use: the next one is called, or the attempt ends.
    fn entry_failed(&mut self, why: JoinError, now: Instant) {
        if let Some(session) = self.joining.as_mut().and_then(|j| j.session.take()) {
            self.control.close(session, CloseReason::Done, now);
            self.sessions.remove(&session);
        }
        if self.call_next_entry(now).is_err() {
            self.join_failed(why, now);
        }
    }

    fn join_failed(&mut self, why: JoinError, now: Instant) {
        self.door_leaves(now);
        if let Some(session) = self.joining.take().and_then(|joining| joining.session) {
            self.control.close(session, CloseReason::Done, now);
            self.sessions.remove(&session);
        }
        self.tell(Event::JoinFailed { why });
    }

    /// Gives up on an entry that stopped answering.
    pub(super) fn tend_join(&mut self, now: Instant) {
        let Some(gives_up) = self.joining.as_ref().map(|joining| joining.gives_up) else {
            return;
        };
        if gives_up <= now {
            self.entry_failed(JoinError::NoAnswer, now);
        } else {
            self.timers.housekeeping_at(gives_up);
        }
    }
}

/// Reads what a person gives to join with: a link, or a bundle's text.
///
/// # Errors
/// One clear sentence.
pub fn read_invitation(text: &str) -> Result<Bundle, String> {
    use alloc::string::ToString;
    if text
        .trim_start()
        .to_ascii_lowercase()
        .starts_with("altnet://")
    {
        let link = Link::parse(text).map_err(|error| error.to_string())?;
        return Ok(Bundle {
            link: Some(link),
            ..Bundle::default()
        });
    }
    Bundle::parse(text).map_err(|error| match error {
        BundleError::NotABundle => {
            "this is neither an invite link, which begins with altnet://join/, nor a bundle".into()
        }
        error => error.to_string(),
    })
}
