//! Why a call went where it went: stored with its log, the same type from a dry run.

use std::sync::Arc;

use capconduit_entity::Strategy;
use serde::{Deserialize, Serialize};

use super::{Campaign, Did, Link};
use crate::capacity::{Refusal, ScopeKind, Verdict, window};
use crate::ids::{CampaignId, ClientId, DidId, LinkId, SellerId};

/// The decision, step by step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// Which state of the configuration it was decided by; none in traces of older versions.
    pub revision: Option<i64>,
    pub did_id: Option<DidId>,
    pub seller_id: Option<SellerId>,
    pub campaign_id: Option<CampaignId>,
    pub campaign_name: Option<String>,
    pub strategy: Option<Strategy>,
    /// Seconds that one client was to be rung.
    pub dial_timeout_seconds: Option<u32>,
    /// What the weighted order was drawn from; the same seed draws the same order.
    pub seed: Option<u32>,
    /// The link that was offered a call last, where the order was rotated.
    pub cursor: Option<LinkId>,
    /// Every link of the campaign, in the order in which it was considered.
    pub links: Vec<LinkTrace>,
}

/// What was decided about one link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkTrace {
    pub link_id: LinkId,
    pub client_id: ClientId,
    pub client_identifier: String,
    pub client_name: String,
    pub priority: i32,
    pub weight: u32,
    /// `dialled`, or the stable string that says why not.
    pub verdict: String,
    /// Which attempt it was, if it was dialled: 1 for the first.
    pub attempt: Option<u32>,
    /// The cap that had no room.
    pub refused_by: Option<RefusedBy>,
    /// The ledger was away: one instance decided alone, and the limit that was compared is
    /// its part of the cap's. Traces of older versions don't say.
    #[serde(default)]
    pub within_share: bool,
}

/// The numbers that were compared when a cap had no room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedBy {
    pub scope: ScopeKind,
    /// The volume window; none for concurrency.
    pub window: Option<window::WindowKind>,
    pub used: u32,
    pub held: u32,
    pub limit: u32,
}

const DIALLED: &str = "dialled";
const NOT_REACHED: &str = "not_reached";

impl Trace {
    pub(super) fn note_did(&mut self, did: &Did) {
        self.did_id = Some(did.id);
        self.seller_id = Some(did.seller);
    }

    pub(super) fn note_campaign(&mut self, campaign: &Campaign) {
        self.campaign_id = Some(campaign.id);
        self.campaign_name = Some(campaign.name.clone());
        self.strategy = Some(campaign.strategy);
        self.dial_timeout_seconds = Some(campaign.dial_timeout_seconds);
    }

    pub(super) fn note_links(&mut self, order: &[Arc<Link>], left_out: &[Arc<Link>]) {
        let candidates = order.iter().map(|link| LinkTrace::new(link, NOT_REACHED));
        let others = left_out
            .iter()
            .map(|link| LinkTrace::new(link, link.obstacle().unwrap_or(NOT_REACHED)));
        self.links = candidates.chain(others).collect();
    }

    /// Notes what the ledger answered to an attempt; `candidates` is how many links take part.
    pub fn note_verdict(&mut self, verdict: &Verdict, candidates: usize, attempt: u32) {
        if verdict.cursor.is_some() {
            self.cursor = verdict.cursor;
        }
        if verdict.rotated_by > 0 {
            self.links[..candidates].rotate_left(verdict.rotated_by);
        }
        for refusal in &verdict.refusals {
            if let Some(link) = self.link_mut(refusal.link) {
                link.verdict = refusal.reason().to_owned();
                link.refused_by = Some(refusal.into());
                link.within_share = verdict.within_share;
            }
        }
        if let Some(link) = verdict.granted.and_then(|id| self.link_mut(id)) {
            link.verdict = DIALLED.to_owned();
            link.attempt = Some(attempt);
            link.within_share = verdict.within_share;
        }
    }

    /// Links that were dialled or would have been next, in order.
    pub fn order(&self) -> impl Iterator<Item = LinkId> {
        let is_tried = |link: &&LinkTrace| matches!(&*link.verdict, DIALLED | NOT_REACHED);
        self.links.iter().filter(is_tried).map(|link| link.link_id)
    }

    /// Whether an instance decided some of it alone, while the ledger was away.
    pub fn is_within_share(&self) -> bool {
        self.links.iter().any(|link| link.within_share)
    }

    /// What the ledger had answered of links before the attempt of this number, and after
    /// the one before it.
    pub fn refusals_before(&self, attempt: u32) -> impl Iterator<Item = (&LinkTrace, &RefusedBy)> {
        let mut dialled = 0;
        self.links.iter().filter_map(move |link| {
            dialled += u32::from(link.attempt.is_some());
            let refused_by = link.refused_by.as_ref()?;
            (dialled + 1 == attempt).then_some((link, refused_by))
        })
    }

    fn link_mut(&mut self, id: LinkId) -> Option<&mut LinkTrace> {
        self.links.iter_mut().find(|link| link.link_id == id)
    }
}

impl LinkTrace {
    /// Whether its turn hasn't come.
    pub fn is_not_reached(&self) -> bool {
        self.verdict == NOT_REACHED
    }

    pub(crate) fn new(link: &Link, verdict: &str) -> Self {
        Self {
            link_id: link.id,
            client_id: link.client.id,
            client_identifier: link.client.identifier.clone(),
            client_name: link.client.name.clone(),
            priority: link.priority,
            weight: link.weight,
            verdict: verdict.to_owned(),
            attempt: None,
            refused_by: None,
            within_share: false,
        }
    }
}

impl From<&Refusal> for RefusedBy {
    fn from(refusal: &Refusal) -> Self {
        let window = match refusal.cap {
            crate::capacity::Cap::Concurrency => None,
            crate::capacity::Cap::Volume(kind) => Some(kind),
        };
        Self {
            scope: refusal.scope.kind,
            window,
            used: refusal.used,
            held: refusal.held,
            limit: refusal.limit,
        }
    }
}
