//! The ledger in process: one mutex over plain maps, held for microseconds.
//!
//! Volume is kept as the moments at which calls were held, not as a number per
//! window: what is used of a window is how many moments it holds. So a link may
//! change its time zone, and no count has to be carried over.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use chrono::TimeDelta;
use parking_lot::Mutex;

use super::{
    Answered, Candidate, Cap, Claim, HoldId, Ledger, MOMENTS_KEPT, Refusal, Request, Scope,
    Standing, Turn, Unavailable, Usage, Verdict, WindowKind, Windows,
};
use crate::clock::Timestamp;
use crate::ids::{CampaignId, LinkId};

/// The ledger of a single instance, rebuilt at start from the call logs.
#[derive(Default)]
pub struct MemoryLedger {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    scopes: HashMap<Scope, Account>,
    holds: HashMap<HoldId, Hold>,
    /// The link that a campaign's rotation offered a call last.
    cursors: HashMap<CampaignId, LinkId>,
}

struct Hold {
    verdict: Verdict,
    claims: Vec<Claim>,
    settled: bool,
}

/// What is in use of one scope.
#[derive(Default)]
struct Account {
    live: HashSet<HoldId>,
    /// Answered calls of all time.
    total: u32,
    /// When answered calls were held, oldest first, as far back as any window reaches.
    answered: Vec<Timestamp>,
    /// When calls were held of which it isn't known yet, oldest first.
    undecided: Vec<Timestamp>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    used: u32,
    held: u32,
}

// === impl State ===

impl State {
    fn reserve(&mut self, request: &Request) -> Verdict {
        let (verdict, granted) = self.decide(request);
        if let Some(candidate) = granted {
            self.take(request.hold, verdict.clone(), &candidate.claims);
            if let Turn::Rotate(campaign) | Turn::Advance(campaign) = request.turn {
                self.cursors.insert(campaign, candidate.link);
            }
        }
        verdict
    }

    /// The answer to a request, and the candidate that it has to be taken for.
    fn decide<'a>(&self, request: &'a Request) -> (Verdict, Option<&'a Candidate>) {
        if let Some(hold) = self.holds.get(&request.hold) {
            return (hold.verdict.clone(), None);
        }
        let (rotated_by, cursor) = self.rotation(request);
        let mut verdict = Verdict { rotated_by, cursor, refusals: Vec::new(), granted: None };
        let (before, after) = request.candidates.split_at(rotated_by);
        for candidate in after.iter().chain(before) {
            if let Some(refusal) = self.refusal(candidate) {
                verdict.refusals.push(refusal);
                continue;
            }
            verdict.granted = Some(candidate.link);
            return (verdict, Some(candidate));
        }
        (verdict, None)
    }

    /// How many candidates stand at or before the cursor, and the cursor.
    fn rotation(&self, request: &Request) -> (usize, Option<LinkId>) {
        let Turn::Rotate(campaign) = request.turn else {
            return (0, None);
        };
        let Some(&cursor) = self.cursors.get(&campaign) else {
            return (0, None);
        };
        let passed = request.candidates.iter().filter(|c| c.link <= cursor).count();
        (passed % request.candidates.len().max(1), Some(cursor))
    }

    /// The first cap of the candidate that has no room.
    ///
    /// Volume comes before concurrency: a full volume says more, since it lasts longer.
    fn refusal(&self, candidate: &Candidate) -> Option<Refusal> {
        let refuse = |claim: &Claim, cap, used, held, limit| {
            Some(Refusal { link: candidate.link, scope: claim.scope, cap, used, held, limit })
        };
        for claim in &candidate.claims {
            for kind in WindowKind::ALL {
                let Some(limit) = claim.volume[kind.index()] else {
                    continue;
                };
                let Count { used, held } = self.count(claim.scope, kind, &claim.windows);
                if used + held >= limit {
                    return refuse(claim, Cap::Volume(kind), used, held, limit);
                }
            }
        }
        for claim in &candidate.claims {
            let Some(limit) = claim.concurrency else {
                continue;
            };
            let live = self.live(claim.scope);
            if live >= limit {
                return refuse(claim, Cap::Concurrency, live, 0, limit);
            }
        }
        None
    }

    fn take(&mut self, id: HoldId, verdict: Verdict, claims: &[Claim]) {
        for claim in claims {
            let account = self.scopes.entry(claim.scope).or_default();
            account.live.insert(id);
            insert(&mut account.undecided, claim.windows.moment());
        }
        self.holds.insert(id, Hold { verdict, claims: claims.to_vec(), settled: false });
    }

    fn settle(&mut self, id: HoldId) {
        let Some(hold) = self.holds.get_mut(&id).filter(|hold| !hold.settled) else {
            return;
        };
        hold.settled = true;
        for claim in &hold.claims {
            let account = self.scopes.entry(claim.scope).or_default();
            remove(&mut account.undecided, claim.windows.moment());
            account.count_answered(claim.windows.moment());
        }
    }

    fn release(&mut self, id: HoldId) {
        let Some(hold) = self.holds.remove(&id) else {
            return;
        };
        for claim in &hold.claims {
            let account = self.scopes.entry(claim.scope).or_default();
            account.live.remove(&id);
            if !hold.settled {
                remove(&mut account.undecided, claim.windows.moment());
            }
        }
    }

    fn renew(&mut self, standing: &Standing) {
        if !self.holds.contains_key(&standing.hold) {
            let verdict =
                Verdict { rotated_by: 0, cursor: None, refusals: Vec::new(), granted: None };
            self.take(standing.hold, verdict, &standing.claims);
        }
        if standing.settled {
            self.settle(standing.hold);
        }
    }

    fn live(&self, scope: Scope) -> u32 {
        self.scopes.get(&scope).map_or(0, |account| count_of(account.live.len()))
    }

    fn count(&self, scope: Scope, kind: WindowKind, windows: &Windows) -> Count {
        self.scopes
            .get(&scope)
            .map(|account| account.count(kind, windows.start(kind)))
            .unwrap_or_default()
    }

    fn usage(&self, scope: Scope, windows: &Windows) -> Usage {
        let counts = WindowKind::ALL.map(|kind| self.count(scope, kind, windows));
        Usage {
            live: self.live(scope),
            used: counts.map(|count| count.used),
            held: counts.map(|count| count.held),
        }
    }

    fn recount(&mut self, answered: &[Answered]) {
        for account in self.scopes.values_mut() {
            account.total = 0;
            account.answered.clear();
        }
        for known in answered {
            let account = self.scopes.entry(known.scope).or_default();
            account.total = known.total;
            account.answered.clone_from(&known.moments);
        }
    }
}

// === impl Account ===

impl Account {
    fn count(&self, kind: WindowKind, start: Timestamp) -> Count {
        let used = match kind {
            WindowKind::Total => self.total,
            _ => count_since(&self.answered, start),
        };
        Count { used, held: count_since(&self.undecided, start) }
    }

    fn count_answered(&mut self, moment: Timestamp) {
        self.total += 1;
        insert(&mut self.answered, moment);
        let kept_from = moment - MOMENTS_KEPT;
        // Seldom, so that the rest is moved seldom.
        if self.answered.first().is_some_and(|oldest| *oldest < kept_from - PRUNE_SLACK) {
            let gone = self.answered.partition_point(|moment| *moment < kept_from);
            self.answered.drain(..gone);
        }
    }
}

const PRUNE_SLACK: TimeDelta = TimeDelta::days(1);

/// Moments come nearly in order: a new one belongs at or near the end.
fn insert(moments: &mut Vec<Timestamp>, moment: Timestamp) {
    let place = moments.partition_point(|earlier| *earlier <= moment);
    moments.insert(place, moment);
}

fn remove(moments: &mut Vec<Timestamp>, moment: Timestamp) {
    if let Ok(place) = moments.binary_search(&moment) {
        moments.remove(place);
    }
}

fn count_since(moments: &[Timestamp], start: Timestamp) -> u32 {
    count_of(moments.len() - moments.partition_point(|moment| *moment < start))
}

fn count_of(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

// === impl Ledger ===

#[async_trait::async_trait]
impl Ledger for MemoryLedger {
    async fn reserve(&self, request: &Request) -> Result<Verdict, Unavailable> {
        Ok(self.state.lock().reserve(request))
    }

    async fn preview(&self, request: &Request) -> Result<Verdict, Unavailable> {
        Ok(self.state.lock().decide(request).0)
    }

    async fn settle(&self, hold: HoldId) -> Result<(), Unavailable> {
        self.state.lock().settle(hold);
        Ok(())
    }

    async fn release(&self, hold: HoldId) -> Result<(), Unavailable> {
        self.state.lock().release(hold);
        Ok(())
    }

    async fn renew(&self, standing: &[Standing]) -> Result<(), Unavailable> {
        let mut state = self.state.lock();
        for standing in standing {
            state.renew(standing);
        }
        Ok(())
    }

    async fn usages(&self, asked: &[(Scope, Windows)]) -> Result<Vec<Usage>, Unavailable> {
        let state = self.state.lock();
        Ok(asked.iter().map(|(scope, windows)| state.usage(*scope, windows)).collect())
    }

    async fn count(&self, scope: Scope, moment: Timestamp) -> Result<(), Unavailable> {
        self.state.lock().scopes.entry(scope).or_default().count_answered(moment);
        Ok(())
    }

    async fn recount(&self, answered: &[Answered]) -> Result<(), Unavailable> {
        self.state.lock().recount(answered);
        Ok(())
    }

    async fn set_cursor(&self, campaign: CampaignId, link: LinkId) -> Result<(), Unavailable> {
        self.state.lock().cursors.insert(campaign, link);
        Ok(())
    }

    async fn holders(&self) -> Result<Vec<HoldId>, Unavailable> {
        Ok(self.state.lock().holds.keys().copied().collect())
    }
}
