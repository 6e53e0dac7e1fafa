//! Invites that this node's member makes (ADR 0009).

use std::time::Duration;

use altnet_wire::id::Name;
use altnet_wire::time::Instant;
use serde_json::{Value, json};

use super::Gateway;
use super::calls::{json_of, name_of};
use crate::api::{ApiError, invites as types, types::HostName};

const DAY: Duration = Duration::from_secs(86_400);

impl Gateway {
    pub(super) fn create_invite(
        &mut self,
        new: &types::NewInvite,
        now: Instant,
    ) -> Result<Value, ApiError> {
        let name = new.name.as_deref().map(name_of).transpose()?;
        let lasts = DAY * u32::from(new.days);
        let link = self.node.create_invite(name, new.uses, lasts, now)?;
        let body = link.body();
        let groups = body.iter().flat_map(|body| &body.groups);
        json_of(types::InviteMade {
            link: link.to_text(),
            invite: link.key().public().to_string(),
            groups: groups.map(Name::to_string).collect(),
            expires: body
                .as_ref()
                .map(|body| body.expires.to_string())
                .unwrap_or_default(),
        })
    }

    pub(super) fn revoke_invite(
        &mut self,
        which: &HostName,
        now: Instant,
    ) -> Result<Value, ApiError> {
        json_of(self.node.close_invite(&which.name, now)?)
    }

    pub(super) fn invites(&self, now: Instant) -> Result<Value, ApiError> {
        json_of(json!({ "invites": self.node.invite_views(now) }))
    }

    pub(super) fn members(&self) -> Result<Value, ApiError> {
        json_of(json!({ "members": self.node.member_views() }))
    }
}
