//! The ledger in process: one mutex over plain maps, held for microseconds.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};

use parking_lot::Mutex;

use super::{
    Candidate, Cap, Claim, Counted, HoldId, Ledger, Refusal, Request, Scope, Standing, Turn,
    Unavailable, Usage, Verdict, WindowKind, Windows,
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
    volume: [BTreeMap<Timestamp, Count>; WindowKind::COUNT],
}

#[derive(Clone, Copy, Default)]
struct Count {
    used: u32,
    held: u32,
}

/// Windows of one kind that an account remembers: the newest, the one before
/// (a call held before midnight may be answered after), and one for a clock
/// that was set back.
const WINDOWS_KEPT: usize = 3;

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
            for kind in WindowKind::ALL {
                account.count_mut(kind, claim.windows.start(kind)).held += 1;
            }
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
            for kind in WindowKind::ALL {
                let count = account.count_mut(kind, claim.windows.start(kind));
                count.held -= 1;
                count.used += 1;
            }
        }
    }

    fn release(&mut self, id: HoldId) {
        let Some(hold) = self.holds.remove(&id) else {
            return;
        };
        for claim in &hold.claims {
            let account = self.scopes.entry(claim.scope).or_default();
            account.live.remove(&id);
            if hold.settled {
                continue;
            }
            for kind in WindowKind::ALL {
                account.count_mut(kind, claim.windows.start(kind)).held -= 1;
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
            .and_then(|account| account.volume[kind.index()].get(&windows.start(kind)))
            .copied()
            .unwrap_or_default()
    }

    fn recount(&mut self, counted: &[Counted]) {
        let counts = self.scopes.values_mut().flat_map(|account| &mut account.volume);
        for count in counts.flat_map(BTreeMap::values_mut) {
            count.used = 0;
        }
        for known in counted {
            let account = self.scopes.entry(known.scope).or_default();
            account.count_mut(known.kind, known.start).used = known.used;
        }
    }
}

// === impl Account ===

impl Account {
    fn count_mut(&mut self, kind: WindowKind, start: Timestamp) -> &mut Count {
        let windows = &mut self.volume[kind.index()];
        if windows.len() >= WINDOWS_KEPT && !windows.contains_key(&start) {
            let idle = windows.iter().find(|(_, count)| count.held == 0).map(|(start, _)| *start);
            if let Some(oldest) = idle {
                windows.remove(&oldest);
            }
        }
        windows.entry(start).or_default()
    }
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

    async fn usage(&self, scope: Scope, windows: &Windows) -> Result<Usage, Unavailable> {
        let state = self.state.lock();
        let counts = WindowKind::ALL.map(|kind| state.count(scope, kind, windows));
        Ok(Usage {
            live: state.live(scope),
            used: counts.map(|count| count.used),
            held: counts.map(|count| count.held),
        })
    }

    async fn count(&self, scope: Scope, windows: &Windows) -> Result<(), Unavailable> {
        let mut state = self.state.lock();
        let account = state.scopes.entry(scope).or_default();
        for kind in WindowKind::ALL {
            account.count_mut(kind, windows.start(kind)).used += 1;
        }
        Ok(())
    }

    async fn recount(&self, counted: &[Counted]) -> Result<(), Unavailable> {
        self.state.lock().recount(counted);
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
