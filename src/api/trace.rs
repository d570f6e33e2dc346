//! The decision trace as it is sent: of a call, and of one that is only simulated.

use capconduit_entity::Strategy;
use poem_openapi::types::ParseFromParameter;
use poem_openapi::{Enum, Object};
use serde_json::Value;
use tracing::error;

use super::input::Word;
use crate::capacity::{ScopeKind, WindowKind};
use crate::routing::trace::{self, Trace};

/// What routing and capacity decided, step by step.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct DecisionTrace {
    /// How often the configuration had been changed when this was decided by it; `null` in
    /// traces of older versions.
    #[oai(nullable)]
    revision: Option<i64>,
    /// The DID that was called; `null` if there is none of that number.
    #[oai(nullable)]
    did_id: Option<i64>,
    /// The DID's seller.
    #[oai(nullable)]
    seller_id: Option<i64>,
    /// The DID's active campaign.
    #[oai(nullable)]
    campaign_id: Option<i64>,
    #[oai(nullable)]
    campaign_name: Option<String>,
    #[oai(nullable)]
    strategy: Option<Word<Strategy>>,
    /// How long one client was to be rung.
    #[oai(nullable)]
    dial_timeout_seconds: Option<u32>,
    /// What the weighted order was drawn from: the same seed draws the same order.
    #[oai(nullable)]
    seed: Option<u32>,
    /// The id of the link that was offered a call last, where links take turns.
    #[oai(nullable)]
    cursor: Option<i64>,
    /// Every link of the campaign, in the order in which it was considered.
    links: Vec<TracedLink>,
}

/// What was decided about one link. Names are those at the time of the call.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct TracedLink {
    link_id: i64,
    client_id: i64,
    client_identifier: String,
    client_name: String,
    /// Lower comes first.
    priority: i32,
    weight: u32,
    verdict: LinkVerdict,
    /// Which attempt it was, 1 for the first; `null` if the client wasn't dialled.
    #[oai(nullable)]
    attempt: Option<u32>,
    /// The cap that had no room; `null` if there was room, or nobody looked.
    #[oai(nullable)]
    refused_by: Option<RefusedBy>,
    /// Whether the shared ledger was away, and one instance decided alone. Then `limit` is
    /// its part of the cap's limit, and `used` and `held` are its own calls.
    within_share: bool,
}

/// What became of a link: its client was dialled, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum LinkVerdict {
    Dialled,
    /// Its turn didn't come: somebody before it took the call, or the caller left.
    NotReached,
    LinkInactive,
    ClientInactive,
    /// The client has no endpoint that could be dialled.
    NoEndpoint,
    ConcurrencyCap,
    TotalCap,
    HourlyCap,
    DailyCap,
    WeeklyCap,
    MonthlyCap,
    ClientConcurrencyCap,
    CampaignConcurrencyCap,
    SellerConcurrencyCap,
}

/// The numbers that were compared when a cap had no room.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct RefusedBy {
    /// Whose cap it is.
    scope: Word<ScopeKind>,
    /// `null` for a cap on live calls.
    #[oai(nullable)]
    window: Option<CapWindow>,
    /// Answered calls in the window, or live calls.
    used: u32,
    /// Calls of which it wasn't known yet whether they would be answered.
    held: u32,
    limit: u32,
}

/// In which stretch of time calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum CapWindow {
    /// All time.
    Total,
    Hour,
    Day,
    Week,
    Month,
}

impl DecisionTrace {
    /// As a record holds it; none if it can't be read, and then the log says why.
    pub fn stored(stored: &Value) -> Option<Self> {
        let read = serde_json::from_value::<Trace>(stored.clone()).map_err(|err| err.to_string());
        let shown = read.and_then(|trace| Self::try_from(&trace));
        shown.inspect_err(|reason| error!(reason, "a stored trace can't be read")).ok()
    }
}

impl TryFrom<&Trace> for DecisionTrace {
    /// The verdict that isn't one of ours.
    type Error = String;

    fn try_from(trace: &Trace) -> Result<Self, String> {
        Ok(Self {
            revision: trace.revision,
            did_id: trace.did_id.map(|id| id.0),
            seller_id: trace.seller_id.map(|id| id.0),
            campaign_id: trace.campaign_id.map(|id| id.0),
            campaign_name: trace.campaign_name.clone(),
            strategy: trace.strategy.map(Word),
            dial_timeout_seconds: trace.dial_timeout_seconds,
            seed: trace.seed,
            cursor: trace.cursor.map(|id| id.0),
            links: trace.links.iter().map(TracedLink::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<&trace::LinkTrace> for TracedLink {
    type Error = String;

    fn try_from(link: &trace::LinkTrace) -> Result<Self, String> {
        let verdict = LinkVerdict::parse_from_parameter(&link.verdict)
            .map_err(|_| format!("no verdict is called {:?}", link.verdict))?;
        Ok(Self {
            link_id: link.link_id.0,
            client_id: link.client_id.0,
            client_identifier: link.client_identifier.clone(),
            client_name: link.client_name.clone(),
            priority: link.priority,
            weight: link.weight,
            verdict,
            attempt: link.attempt,
            refused_by: link.refused_by.as_ref().map(RefusedBy::from),
            within_share: link.within_share,
        })
    }
}

impl From<&trace::RefusedBy> for RefusedBy {
    fn from(refused: &trace::RefusedBy) -> Self {
        Self {
            scope: Word(refused.scope),
            window: refused.window.map(CapWindow::from),
            used: refused.used,
            held: refused.held,
            limit: refused.limit,
        }
    }
}

impl From<WindowKind> for CapWindow {
    fn from(kind: WindowKind) -> Self {
        match kind {
            WindowKind::Total => Self::Total,
            WindowKind::Hour => Self::Hour,
            WindowKind::Day => Self::Day,
            WindowKind::Week => Self::Week,
            WindowKind::Month => Self::Month,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::{Cap, Refusal, Scope};
    use crate::ids::LinkId;

    fn is_known(verdict: &str) -> bool {
        LinkVerdict::parse_from_parameter(verdict).is_ok()
    }

    #[test]
    fn every_verdict_that_capacity_gives_is_documented() {
        use ScopeKind::{Campaign, Client, Link, Seller};
        let volumes = WindowKind::ALL.map(Cap::Volume);
        for cap in volumes.into_iter().chain([Cap::Concurrency]) {
            for kind in [Link, Client, Campaign, Seller] {
                let scope = Scope { kind, id: 1 };
                let refusal = Refusal { link: LinkId(1), scope, cap, used: 0, held: 0, limit: 0 };
                assert!(is_known(refusal.reason()), "{}", refusal.reason());
            }
        }
        assert!(!is_known("nonsense"));
    }
}
