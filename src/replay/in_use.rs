//! What was in use at a moment of the past, as a ledger that can be asked.
//!
//! It is counted from the records: calls that had been answered, and attempts that
//! were under way. What a call's own trace says of that moment is truer than that
//! and is put over it.

use std::time::Duration;

use capconduit_entity::AttemptResult;

use crate::call::CallRecord;
use crate::call::record::Attempt;
use crate::capacity::memory::State;
use crate::capacity::{
    Candidate, Correction, HoldId, Leases, Scope, ScopeKind, Slot, Stage, Standing, WindowKind,
};
use crate::clock::Timestamp;
use crate::ids::{CallId, CampaignId, LinkId};
use crate::routing::Trace;
use crate::routing::trace::LinkTrace;

/// What was in use.
#[derive(Clone, Debug, Default)]
pub struct InUse {
    /// Answered calls, but for those that are in `open`.
    pub used: Vec<Correction>,
    pub open: Vec<Open>,
    /// The link that a campaign's rotation had offered a call last.
    pub cursors: Vec<(CampaignId, LinkId)>,
}

/// An attempt that was under way.
#[derive(Clone, Debug)]
pub struct Open {
    pub standing: Standing,
    pub ended_at: Timestamp,
    /// When the client answered, or was to answer, if it did.
    pub answered_at: Option<Timestamp>,
}

/// A record is the whole truth: nobody has to say again that a hold is still there.
pub const FOR_GOOD: Leases = {
    const LONG: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
    Leases { held: LONG, used: LONG, closed: Duration::from_secs(60) }
};

/// A moment as a ledger that is led by hand counts it.
pub const fn millis(at: Timestamp) -> i64 {
    at.timestamp_millis()
}

// === impl Open ===

impl Open {
    /// An attempt as it stood at a moment that it spans.
    pub fn of(record: &CallRecord, attempt: &Attempt, at: Timestamp) -> Option<Self> {
        let ended_at = attempt.ended_at?;
        let answered_at =
            attempt.answered_at.filter(|_| attempt.result == Some(AttemptResult::Answered));
        let stage = match answered_at {
            Some(answered) if answered <= at => Stage::Used,
            _ => Stage::Held,
        };
        let standing = Standing {
            hold: attempt.hold(record.call),
            stage,
            moment: attempt.held_at,
            scopes: record.scopes(attempt),
        };
        Some(Self { standing, ended_at, answered_at })
    }
}

// === impl InUse ===

impl InUse {
    /// A ledger in which this is in use.
    pub fn ledger(&self, at: Timestamp) -> State {
        let mut ledger = State::new(FOR_GOOD);
        for used in &self.used {
            ledger.correct(used);
        }
        for open in &self.open {
            ledger.advance(&open.standing, millis(at));
        }
        for (campaign, link) in &self.cursors {
            ledger.set_cursor(*campaign, *link);
        }
        ledger
    }
}

/// Makes the ledger count what a call's trace says was counted when its attempt was decided.
pub fn put_over(
    ledger: &mut State,
    trace: &Trace,
    attempt: u32,
    candidates: &[Candidate],
    at: Timestamp,
) {
    // What one instance counted alone is less than what was in use.
    let of_all = trace.refusals_before(attempt).filter(|(link, _)| !link.within_share);
    for (link, refused_by) in of_all {
        let claims = candidates.iter().flat_map(|candidate| &candidate.claims);
        let scope = scope_of(trace, link, refused_by.scope);
        let Some(claim) = claims.into_iter().find(|claim| Some(claim.scope) == scope) else {
            continue;
        };
        let known = ledger.usage(claim.scope, &claim.windows);
        let slot = Slot::of(at);
        let said = i64::from(refused_by.used) + i64::from(refused_by.held);
        match refused_by.window {
            Some(kind) => {
                let known = known.used[kind.index()] + known.held[kind.index()];
                let calls = said - i64::from(known);
                let slots = if kind == WindowKind::Total { vec![] } else { vec![(slot, calls)] };
                ledger.correct(&Correction { scope: claim.scope, total: calls, slots });
            }
            None => {
                for number in i64::from(known.live)..said {
                    add_live(ledger, claim.scope, number, at);
                }
            }
        }
    }
}

/// Adds one live call that counts in no volume. Of a scope, each has another number.
fn add_live(ledger: &mut State, scope: Scope, number: i64, at: Timestamp) {
    let call = CallId::of_channel(&format!("{} {} {number}", scope.kind.as_str(), scope.id));
    let hold = HoldId { call, attempt: 1 };
    let standing = Standing { hold, stage: Stage::Used, moment: at, scopes: vec![scope] };
    ledger.advance(&standing, millis(at));
    let slots = vec![(Slot::of(at), -1)];
    ledger.correct(&Correction { scope, total: -1, slots });
}

fn scope_of(trace: &Trace, link: &LinkTrace, kind: ScopeKind) -> Option<Scope> {
    Some(match kind {
        ScopeKind::Link => Scope::link(link.link_id),
        ScopeKind::Client => Scope::client(link.client_id),
        ScopeKind::Campaign => Scope::campaign(trace.campaign_id?),
        ScopeKind::Seller => Scope::seller(trace.seller_id?),
    })
}
