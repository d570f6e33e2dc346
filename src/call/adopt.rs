//! Calls that an earlier run of the service left behind: what is needed to lead them on.

use std::sync::Arc;

use capconduit_entity::{CampaignStatus, Strategy};

use super::machine::Machine;
use super::record::CallRecord;
use crate::capacity::{Stage, Standing};
use crate::clock::Timestamp;
use crate::ids::CampaignId;
use crate::routing::{Campaign, Link, Offer, Snapshot};

/// A machine that goes on where the record stopped.
pub fn machine(record: CallRecord, snapshot: &Snapshot, last_alive: Timestamp) -> Machine {
    let offer = offer_left(&record, snapshot);
    let last = record.attempts.last().and_then(|attempt| snapshot.link(attempt.link));
    let last = last.filter(|link| link.obstacle().is_none());
    Machine::adopt(record, offer, last, last_alive)
}

/// The capacity that the call holds as long as nobody knows better; of a call
/// that is over, what the records don't tell of yet.
pub fn standing(record: &CallRecord) -> Option<Standing> {
    let (attempt, stage) = match (&record.end, record.answered_attempt()) {
        (None, None) => (record.attempts.last().filter(|a| a.ended_at.is_none())?, Stage::Held),
        (None, Some(attempt)) if attempt.ended_at.is_none() => (attempt, Stage::Used),
        (None, Some(attempt)) => (attempt, Stage::Counted),
        (Some(_), answered) => (answered?, Stage::Counted),
    };
    Some(Standing {
        hold: attempt.hold(record.call),
        stage,
        moment: attempt.held_at,
        scopes: record.scopes(attempt),
    })
}

/// The links that were still to be tried, in the order that was frozen for the
/// call, as far as they are still there.
fn offer_left(record: &CallRecord, snapshot: &Snapshot) -> Offer {
    let trace = &record.trace;
    let last = record.attempts.last().map(|attempt| attempt.link);
    let after_last = trace.links.iter().skip_while(|link| Some(link.link_id) != last).skip(1);
    let links: Vec<Arc<Link>> = after_last
        .filter(|link| link.is_not_reached())
        .filter_map(|link| snapshot.link(link.link_id))
        .filter(|link| link.obstacle().is_none())
        .collect();
    let (id, name) = record.campaign.clone().unwrap_or((CampaignId(0), String::new()));
    let campaign = Campaign {
        id,
        name,
        status: CampaignStatus::Active,
        strategy: trace.strategy.unwrap_or(Strategy::Priority),
        dial_timeout_seconds: trace.dial_timeout_seconds.unwrap_or(1),
        links: links.clone(),
    };
    Offer { campaign: Arc::new(campaign), links }
}
