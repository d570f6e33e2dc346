//! One past call, decided anew by another configuration.

use capconduit_entity::{AttemptResult, CallReason};
use serde::Serialize;

use super::in_use::{InUse, millis, put_over};
use super::seed_of;
use crate::call::CallRecord;
use crate::call::machine::{Effect, Input, Machine};
use crate::call::outcome::{Outcome, cause};
use crate::call::record::Attempt;
use crate::call::rehearsal::{Arrival, asked, record as arrived};
use crate::clock::Timestamp;
use crate::ids::LinkId;
use crate::routing::{self, Snapshot, Trace};

/// What a configuration makes of a past call.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Again {
    /// How many attempts are the same as they were.
    pub agreed: usize,
    /// Where it goes another way; none = it is decided the same.
    pub parting: Option<Parting>,
    /// What is decided now, as far as the ways are the same, and one step on.
    pub trace: Trace,
}

/// Where two configurations part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parting {
    pub then: Choice,
    pub now: Choice,
}

/// What becomes of a call next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Choice {
    /// This client is dialled.
    #[serde(rename_all = "camelCase")]
    Dialled { link_id: LinkId, client_identifier: String, client_name: String },
    /// Nobody is.
    #[serde(rename_all = "camelCase")]
    Nobody { call_status: String, reason: String },
}

/// The attempts that were decided: one that was made anew after a restart counts once.
fn decided(record: &CallRecord) -> Vec<&Attempt> {
    let mut attempts: Vec<&Attempt> = Vec::new();
    for attempt in &record.attempts {
        if attempts.last().is_some_and(|last| last.link == attempt.link) {
            attempts.pop();
        }
        attempts.push(attempt);
    }
    attempts
}

/// The moments at which the ledger was asked, or would have been once more.
pub fn moments(record: &CallRecord) -> Vec<Timestamp> {
    let attempts = decided(record);
    let first = attempts.first().map_or(record.started_at, |first| first.held_at);
    let later = attempts.iter().enumerate().map(|(place, attempt)| {
        let next = attempts.get(place + 1).map(|next| next.held_at);
        next.or(attempt.ended_at).unwrap_or(attempt.held_at)
    });
    std::iter::once(first).chain(later).collect()
}

/// Decides a call anew, for as long as the same clients are dialled: what another one would
/// have done isn't known. `in_use` is what was in use at each of its [`moments`].
pub fn decide_again(record: &CallRecord, today: &Snapshot, in_use: &[InUse]) -> Again {
    let seed = record.trace.seed.unwrap_or_else(|| seed_of(record.call));
    let plan = routing::plan(today, &record.dialled, seed);
    let arrival = Arrival {
        dialled: record.dialled.clone(),
        caller_number: record.caller_number.clone(),
        at: record.started_at,
    };
    let new = CallRecord { call: record.call, ..arrived(arrival, &plan) };
    let mut machine = Machine::new(new, plan.decision);
    let mut effects = machine.handle(record.started_at, Input::Started);
    let attempts = decided(record);
    let mut agreed = 0;
    for (at, in_use) in moments(record).into_iter().zip(in_use) {
        if let Some(request) = asked(effects) {
            let attempt = request.hold.attempt;
            let mut ledger = in_use.ledger(at);
            put_over(&mut ledger, &record.trace, attempt, &request.candidates, at);
            let verdict = Some(ledger.reserve(&request, millis(at)));
            machine.handle(at, Input::Verdict { attempt, verdict });
        }
        let now = machine.record().attempts.get(agreed);
        let then = attempts.get(agreed).copied();
        let parting = match (then, now) {
            (Some(then), Some(now)) if then.link == now.link => {
                agreed += 1;
                let has_more = agreed < attempts.len();
                if !has_more && (record.answered_at.is_some() || !is_by_choice(record)) {
                    return done(agreed, None, &machine);
                }
                effects = not_taken(&mut machine, then);
                continue;
            }
            (None, None) => parted_outcomes(record, &mut machine),
            // It wasn't the configuration that ended it.
            (None, Some(_)) if !is_by_choice(record) => None,
            (then, now) => {
                let then = then.map_or_else(|| Choice::nobody(ending(record)), Choice::from);
                let now = now.map(Choice::from);
                let now = now.unwrap_or_else(|| Choice::nobody(over(&mut machine)));
                Some(Parting { then, now })
            }
        };
        return done(agreed, parting, &machine);
    }
    done(agreed, None, &machine)
}

fn done(agreed: usize, parting: Option<Parting>, machine: &Machine) -> Again {
    Again { agreed, parting, trace: machine.record().trace.clone() }
}

/// Nobody is dialled, neither then nor now: is it for the same reason?
fn parted_outcomes(record: &CallRecord, machine: &mut Machine) -> Option<Parting> {
    let (then, now) = (ending(record), over(machine));
    let is_same = !is_by_choice(record) || then == now;
    (!is_same).then(|| Parting { then: Choice::nobody(then), now: Choice::nobody(now) })
}

/// Whether a decision ended it: not its caller, an operator, or something that broke.
fn is_by_choice(record: &CallRecord) -> bool {
    use CallReason::{Answered, CallerAbandoned, CapacityUnavailable, Interrupted, SystemError};
    let reason = ending(record).reason;
    !matches!(reason, Answered | CallerAbandoned | CapacityUnavailable | Interrupted | SystemError)
}

fn ending(record: &CallRecord) -> Outcome {
    record.end.map_or(Outcome::SYSTEM_ERROR, |end| end.outcome)
}

/// How a call ends whose caller has been released.
fn over(machine: &mut Machine) -> Outcome {
    let at = machine.record().started_at;
    machine.handle(at, Input::CallerGone);
    ending(machine.record())
}

/// The client doesn't take the call, as it didn't then: what comes next.
fn not_taken(machine: &mut Machine, then: &Attempt) -> Vec<Effect> {
    let at = then.ended_at.unwrap_or(then.held_at);
    let attempt = u32::try_from(machine.record().attempts.len()).unwrap_or(u32::MAX);
    machine.handle(then.held_at, Input::LegEntered { attempt });
    let (cause, sip) = how_it_ends(then.result.unwrap_or(AttemptResult::NoAnswer));
    machine.handle(at, Input::LegGone { attempt, cause: Some(cause), sip })
}

/// A cause and a SIP status that make this result.
pub(super) const fn how_it_ends(result: AttemptResult) -> (i32, Option<i32>) {
    match result {
        AttemptResult::Answered | AttemptResult::Canceled => (cause::NORMAL, None),
        AttemptResult::NoAnswer => (cause::NO_ANSWER, None),
        AttemptResult::Busy => (cause::BUSY, Some(486)),
        AttemptResult::Rejected => (cause::REJECTED, Some(603)),
        AttemptResult::Unreachable => (cause::SUBSCRIBER_ABSENT, None),
        AttemptResult::Congestion => (cause::CONGESTION, Some(503)),
    }
}

// === impl Choice ===

impl Choice {
    fn nobody(outcome: Outcome) -> Self {
        Self::Nobody { call_status: outcome.status.to_string(), reason: outcome.reason.to_string() }
    }
}

impl From<&Attempt> for Choice {
    fn from(attempt: &Attempt) -> Self {
        Self::Dialled {
            link_id: attempt.link,
            client_identifier: attempt.client_identifier.clone(),
            client_name: attempt.client_name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use capconduit_entity::{CampaignStatus, E164, Status, Strategy};

    use super::super::in_use::Open;
    use super::*;
    use crate::capacity::{Caps, Correction, HoldId, Scope, Slot, Stage, Standing, WindowKind};
    use crate::clock;
    use crate::ids::{CampaignId, DidId, SellerId};
    use crate::routing::snapshot::tests::link;
    use crate::routing::{Campaign, Did, Link};

    const NUMBER: &str = "+442071838750";

    fn snapshot(strategy: Strategy, links: Vec<Arc<Link>>) -> Snapshot {
        let campaign = Campaign {
            id: CampaignId(1),
            name: "Solar".to_owned(),
            status: CampaignStatus::Active,
            strategy,
            dial_timeout_seconds: 20,
            links: links.clone(),
        };
        let did = Did {
            id: DidId(1),
            number: E164::parse(NUMBER).unwrap(),
            status: Status::Active,
            seller: SellerId(1),
            seller_active: true,
            campaign: Some(Arc::new(campaign)),
        };
        Snapshot::new(vec![did], links)
    }

    fn three(weights: [u32; 3]) -> Vec<Arc<Link>> {
        (1..).zip(weights).map(|(id, weight)| link(id, 1, weight)).collect()
    }

    /// A call that the first client took, as a live call is decided.
    fn taken(snapshot: &Snapshot, seed: u32, in_use: &InUse) -> CallRecord {
        let at = clock::now();
        let plan = routing::plan(snapshot, NUMBER, seed);
        let arrival = Arrival { dialled: NUMBER.to_owned(), caller_number: None, at };
        let mut machine = Machine::new(arrived(arrival, &plan), plan.decision);
        let request = asked(machine.handle(at, Input::Started)).unwrap();
        let verdict = Some(in_use.ledger(at).reserve(&request, millis(at)));
        machine.handle(at, Input::Verdict { attempt: 1, verdict });
        machine.handle(at, Input::LegEntered { attempt: 1 });
        machine.handle(at, Input::LegAnswered { attempt: 1 });
        machine.handle(at, Input::CallerAnswered);
        machine.handle(at, Input::CallerGone);
        machine.handle(at, Input::LegGone { attempt: 1, cause: Some(16), sip: None });
        assert!(machine.is_closed());
        machine.record().clone()
    }

    fn offered(cursor: i64) -> InUse {
        let cursors = vec![(CampaignId(1), LinkId(cursor))];
        InUse { cursors, ..InUse::default() }
    }

    #[test]
    fn a_rotation_is_taken_up_where_the_trace_says_that_it_stood() {
        let then = snapshot(Strategy::RoundRobin, three([1, 1, 1]));
        let record = taken(&then, 0, &offered(1));
        assert_eq!(record.attempts[0].link, LinkId(2));
        let again = decide_again(&record, &then, &[offered(1)]);
        assert_eq!((again.agreed, again.parting), (1, None));
        assert_eq!(again.trace, record.trace);

        let mut links = three([1, 1, 1]);
        links[1] = Arc::new(Link { status: Status::Inactive, ..(*links[1]).clone() });
        let today = snapshot(Strategy::RoundRobin, links);
        let parting = decide_again(&record, &today, &[offered(1)]).parting.unwrap();
        assert!(matches!(parting.now, Choice::Dialled { link_id: LinkId(3), .. }), "{parting:?}");
    }

    #[test]
    fn an_order_is_drawn_again_from_the_seed_of_the_trace() {
        let then = snapshot(Strategy::Weighted, three([5, 5, 5]));
        let nothing = [InUse::default()];
        let mut partings = 0;
        for seed in 0..60 {
            let record = taken(&then, seed, &nothing[0]);
            let again = decide_again(&record, &then, &nothing);
            assert_eq!((again.parting, &again.trace), (None, &record.trace));
            let heavier = snapshot(Strategy::Weighted, three([5, 5, 500]));
            partings += u32::from(decide_again(&record, &heavier, &nothing).parting.is_some());
        }
        // Two of three went elsewhere, and nearly all would go to the third today.
        assert!((25..=55).contains(&partings), "{partings}");
    }

    fn capped(caps: Caps) -> Snapshot {
        let first = Arc::new(Link { caps, ..(*link(1, 1, 1)).clone() });
        snapshot(Strategy::Priority, vec![first, link(2, 2, 1)])
    }

    #[test]
    fn what_the_trace_says_of_a_cap_holds_whatever_the_logs_say() {
        let scope = Scope::link(LinkId(1));
        let per_day = |limit| {
            let mut caps = Caps::NONE;
            caps.volume[WindowKind::Day.index()] = Some(limit);
            capped(caps)
        };
        let slots = vec![(Slot::of(clock::now()), 3)];
        let used = vec![Correction { scope, total: 3, slots }];
        let record = taken(&per_day(3), 1, &InUse { used, ..InUse::default() });
        assert_eq!(record.trace.links[0].verdict, "daily_cap");
        assert_eq!(decide_again(&record, &per_day(3), &[InUse::default()]).parting, None);
        assert!(decide_again(&record, &per_day(4), &[InUse::default()]).parting.is_some());

        let at_once = |limit| capped(Caps { concurrency: Some(limit), ..Caps::NONE });
        let open = (0..2).map(|_| Open {
            standing: Standing {
                hold: HoldId { call: clock::new_call_id(), attempt: 1 },
                stage: Stage::Used,
                moment: clock::now(),
                scopes: vec![scope],
            },
            ended_at: clock::now(),
            answered_at: None,
        });
        let in_use = InUse { open: open.collect(), ..InUse::default() };
        let record = taken(&at_once(2), 1, &in_use);
        assert_eq!(record.trace.links[0].verdict, "concurrency_cap");
        assert_eq!(decide_again(&record, &at_once(2), &[InUse::default()]).parting, None);
        assert!(decide_again(&record, &at_once(3), &[InUse::default()]).parting.is_some());
    }

    #[test]
    fn what_another_client_would_have_done_is_not_made_up() {
        let then = snapshot(Strategy::Priority, vec![link(1, 1, 1), link(2, 2, 1)]);
        let record = taken(&then, 3, &InUse::default());
        let today = snapshot(Strategy::Priority, vec![link(1, 3, 1), link(2, 2, 1)]);
        let again = decide_again(&record, &today, &[InUse::default(), InUse::default()]);
        assert_eq!(again.agreed, 0);
        let dialled = again.trace.links.iter().filter(|link| link.attempt.is_some()).count();
        assert_eq!(dialled, 1, "{:?}", again.trace);
    }
}
