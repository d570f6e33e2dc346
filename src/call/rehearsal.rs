//! What would become of a call, without a call.
//!
//! The machine that leads real calls is led through its first decision, and whoever
//! calls ask for room only looks. So a rehearsal can't say anything else than what a
//! call would do at that moment.

use std::sync::Arc;

use super::machine::{Effect, Input, Machine};
use super::outcome::Outcome;
use super::record::{Attempt, CallRecord};
use crate::capacity::{HoldId, Keeper, Request, Turn, Unavailable};
use crate::clock::{self, Timestamp};
use crate::ids::LinkId;
use crate::routing::{Link, Offer, Plan, Trace};

/// A call that might arrive.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub dialled: String,
    pub caller_number: Option<String>,
    pub at: Timestamp,
}

/// What would become of it.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// The first attempt; none = nobody would be dialled.
    pub first: Option<Attempt>,
    /// How the call would end, if nobody would be dialled.
    pub outcome: Option<Outcome>,
    /// Links in the order in which they would be tried, as long as none answers.
    pub order: Vec<LinkId>,
    pub trace: Trace,
}

/// Leads a call as far as its first attempt, or to its end where there is none. Nothing is taken.
///
/// # Errors
/// When nobody can be asked for room.
pub async fn rehearse(
    arrival: Arrival,
    plan: Plan,
    keeper: &Keeper,
) -> Result<Rehearsal, Unavailable> {
    let at = arrival.at;
    let mut machine = Machine::new(record(arrival, &plan), plan.decision);
    let effects = machine.handle(at, Input::Started);
    if let Some(request) = asked(effects) {
        let verdict = keeper.preview(&request).await?;
        machine
            .handle(at, Input::Verdict { attempt: request.hold.attempt, verdict: Some(verdict) });
    }
    let first = machine.record().attempts.first().cloned();
    if first.is_none() {
        // The caller was released, so the call is over.
        machine.handle(at, Input::CallerGone);
    }
    let CallRecord { trace, end, .. } = machine.record();
    Ok(Rehearsal {
        first,
        outcome: end.map(|end| end.outcome),
        order: trace.order().collect(),
        trace: trace.clone(),
    })
}

/// The links of an offer that have room now, in the order in which they would be tried.
///
/// # Errors
/// When nobody can be asked for room.
pub async fn with_room(
    offer: &Offer,
    at: Timestamp,
    keeper: &Keeper,
) -> Result<Vec<Arc<Link>>, Unavailable> {
    let hold = HoldId { call: clock::new_call_id(), attempt: 1 };
    let candidates = offer.links.iter().map(|link| link.candidate(at)).collect();
    let request = Request { hold, candidates, turn: offer.first_turn() };
    let rotated_by = keeper.preview(&request).await?.rotated_by;
    let mut ready = Vec::new();
    let (before, after) = offer.links.split_at(rotated_by);
    for link in after.iter().chain(before) {
        let request = Request { hold, candidates: vec![link.candidate(at)], turn: Turn::None };
        if keeper.preview(&request).await?.granted.is_some() {
            ready.push(link.clone());
        }
    }
    Ok(ready)
}

/// What the machine asks the ledger, if it does.
pub(crate) fn asked(effects: Vec<Effect>) -> Option<Request> {
    effects.into_iter().find_map(|effect| match effect {
        Effect::Reserve(request) => Some(request),
        _ => None,
    })
}

/// The record of a call that has just arrived, or might.
pub(crate) fn record(arrival: Arrival, plan: &Plan) -> CallRecord {
    CallRecord {
        call: clock::new_call_id(),
        channel: String::new(),
        linked_channel: None,
        dialled: arrival.dialled,
        caller_number: arrival.caller_number,
        caller_name: None,
        seller: plan.did.as_ref().map(|did| did.seller),
        did: plan.did.as_ref().map(|did| did.id),
        campaign: plan.trace.campaign_id.zip(plan.trace.campaign_name.clone()),
        started_at: arrival.at,
        answered_at: None,
        attempts: Vec::new(),
        trace: plan.trace.clone(),
        unseen_since: None,
        ending: None,
        hung_up: None,
        end: None,
    }
}
