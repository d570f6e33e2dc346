//! What of the configuration is different from what a call's record says of it.

use std::collections::HashSet;
use std::sync::Arc;

use capconduit_entity::{CallReason, E164, Status};
use serde::Serialize;

use crate::call::CallRecord;
use crate::capacity::{Caps, ScopeKind, WindowKind};
use crate::routing::trace::{LinkTrace, RefusedBy};
use crate::routing::{Campaign, Did, Link, Snapshot};

/// One setting, then and now; none = there was or is no such thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What has the setting.
    pub of: String,
    /// Its name in the API.
    pub setting: &'static str,
    pub then: Option<String>,
    pub now: Option<String>,
}

/// The setting that a thing's being there is listed under.
pub const PRESENCE: &str = "presence";

/// The differences between what the record says and `today`.
///
/// The record holds the limits of those caps alone that had no room.
pub fn differences(record: &CallRecord, today: &Snapshot) -> Vec<Difference> {
    let mut found = Found { record, list: Vec::new() };
    found.look(today);
    found.list
}

struct Found<'a> {
    record: &'a CallRecord,
    list: Vec<Difference>,
}

impl Found<'_> {
    fn look(&mut self, today: &Snapshot) {
        let number = E164::from_dialled(&self.record.dialled);
        let did = number.and_then(|number| today.did(&number));
        let of = format!("DID {}", self.record.dialled);
        match (self.record.trace.did_id, did) {
            (None, None) => {}
            (Some(id), None) => self.note(of, PRESENCE, Some(id.to_string()), None),
            (None, Some(did)) => self.note(of, PRESENCE, None, Some(did.id.to_string())),
            (Some(_), Some(did)) => self.look_at_did(of, &did, today),
        }
    }

    fn look_at_did(&mut self, of: String, did: &Did, today: &Snapshot) {
        let reason = self.record.end.map(|end| end.outcome.reason);
        let was_active = reason != Some(CallReason::DidInactive);
        self.compare(&of, "status", on_or_off(was_active), did.status);
        if let Some(seller) = self.record.trace.seller_id {
            self.compare(&of, "seller", seller, did.seller);
        }
        if !was_active {
            return;
        }
        let seller = format!("seller {}", did.seller);
        let seller_was_active = reason != Some(CallReason::OwnerInactive);
        let is_active = on_or_off(did.seller_active);
        self.compare(&seller, "account", on_or_off(seller_was_active), is_active);
        if !seller_was_active {
            return;
        }
        let name = |name: &str, id| format!("{id} ({name})");
        let trace = &self.record.trace;
        let then = trace
            .campaign_id
            .map(|id| name(trace.campaign_name.as_deref().unwrap_or_default(), id));
        let campaign = did.campaign.as_ref();
        if trace.campaign_id == campaign.map(|campaign| campaign.id) {
            if let Some(campaign) = campaign {
                self.look_at_campaign(campaign, today);
            }
            return;
        }
        let now = campaign.map(|campaign| name(&campaign.name, campaign.id));
        let none = || Some("none".to_owned());
        self.note(of, "active campaign", then.or_else(none), now.or_else(none));
    }

    fn look_at_campaign(&mut self, campaign: &Arc<Campaign>, today: &Snapshot) {
        let trace = &self.record.trace;
        let of = format!("campaign {} ({})", campaign.id, campaign.name);
        if let Some(strategy) = trace.strategy {
            self.compare(&of, "routingStrategy", strategy, campaign.strategy);
        }
        if let Some(seconds) = trace.dial_timeout_seconds {
            self.compare(&of, "dialTimeoutSeconds", seconds, campaign.dial_timeout_seconds);
        }
        for then in &trace.links {
            let of = format!("link {} ({})", then.link_id, then.client_name);
            let now = campaign.links.iter().find(|link| link.id == then.link_id);
            match now {
                Some(link) => self.look_at_link(&of, then, link),
                None => {
                    let was = Some(trace.campaign_name.clone().unwrap_or_default());
                    let elsewhere = today.link(then.link_id).map(|link| link.campaign.to_string());
                    self.note(of, PRESENCE, was, elsewhere);
                }
            }
        }
        let known: HashSet<_> = trace.links.iter().map(|link| link.link_id).collect();
        for link in campaign.links.iter().filter(|link| !known.contains(&link.id)) {
            let of = format!("link {} ({})", link.id, link.client.name);
            self.note(of, PRESENCE, None, Some(campaign.name.clone()));
        }
    }

    fn look_at_link(&mut self, of: &str, then: &LinkTrace, link: &Link) {
        let was_active = then.verdict != "link_inactive";
        self.compare(of, "status", on_or_off(was_active), link.status);
        if was_active {
            let client = format!("client {} ({})", link.client.id, then.client_name);
            let client_was_active = then.verdict != "client_inactive";
            self.compare(&client, "status", on_or_off(client_was_active), link.client.status);
        }
        self.compare(of, "forwardingPriority", then.priority, link.priority);
        self.compare(of, "weight", then.weight, link.weight);
        // An instance's part of a limit says nothing of the limit.
        if let Some(refused_by) = then.refused_by.as_ref().filter(|_| !then.within_share) {
            let (of, caps) = capped(of, refused_by.scope, link);
            let now = limit(caps, refused_by).map_or_else(|| "none".to_owned(), |l| l.to_string());
            self.compare(&of, cap_name(refused_by.window), refused_by.limit.to_string(), now);
        }
    }

    fn compare<V: PartialEq + ToString>(
        &mut self,
        of: &str,
        setting: &'static str,
        then: V,
        now: V,
    ) {
        if then != now {
            self.note(of.to_owned(), setting, Some(then.to_string()), Some(now.to_string()));
        }
    }

    fn note(
        &mut self,
        of: String,
        setting: &'static str,
        then: Option<String>,
        now: Option<String>,
    ) {
        let difference = Difference { of, setting, then, now };
        // A campaign's cap may have refused several of its links.
        if !self.list.contains(&difference) {
            self.list.push(difference);
        }
    }
}

/// A cap's name in the API.
pub const fn cap_name(window: Option<WindowKind>) -> &'static str {
    match window {
        None => "maxConcurrency",
        Some(WindowKind::Total) => "totalCallsAllowed",
        Some(WindowKind::Hour) => "hourlyCap",
        Some(WindowKind::Day) => "dailyCap",
        Some(WindowKind::Week) => "weeklyCap",
        Some(WindowKind::Month) => "monthlyCap",
    }
}

/// Whose cap it is, and what it is today.
fn capped<'a>(of: &str, scope: ScopeKind, link: &'a Link) -> (String, &'a Caps) {
    match scope {
        ScopeKind::Link => (of.to_owned(), &link.caps),
        ScopeKind::Client => {
            (format!("client {} ({})", link.client.id, link.client.name), &link.client.caps)
        }
        ScopeKind::Campaign => (format!("campaign {}", link.campaign), &link.campaign_caps),
        ScopeKind::Seller => (format!("seller {}", link.seller), &link.seller_caps),
    }
}

fn limit(caps: &Caps, refused_by: &RefusedBy) -> Option<u32> {
    match refused_by.window {
        None => caps.concurrency,
        Some(kind) => caps.volume[kind.index()],
    }
}

const fn on_or_off(is_active: bool) -> Status {
    if is_active { Status::Active } else { Status::Inactive }
}

// === impl Difference ===

impl Difference {
    /// As one sentence.
    pub fn told(&self) -> String {
        let Self { of, setting, then, now } = self;
        match (then.as_deref(), now.as_deref()) {
            (_, None) => format!("{of} is no more."),
            (None, Some(_)) if *setting == PRESENCE => format!("{of} is new."),
            (Some(_), Some(now)) if *setting == PRESENCE => {
                format!("{of} is in campaign {now} now.")
            }
            (then, Some(now)) => {
                format!("{of}: {setting} was {}, is {now}.", then.unwrap_or("none"))
            }
        }
    }
}
