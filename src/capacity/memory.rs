//! The ledger in process: one mutex over plain maps, held for microseconds.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::account::{Account, Count, Kept, Step, lapse, step};
use super::{
    Book, Candidate, Cap, Correction, HoldId, Holder, LeaseClock, Leases, Ledger, Refusal, Request,
    Scope, Slot, Standing, Status, Turn, Unavailable, Usage, Verdict, WindowKind, Windows,
};
use crate::ids::{CampaignId, LinkId};

/// The ledger of a single instance, rebuilt at every start.
#[derive(Debug)]
pub struct MemoryLedger {
    state: Mutex<State>,
    clock: LeaseClock,
    since: Instant,
    status: watch::Sender<Status>,
}

/// Its only one: a new process begins with a new ledger.
const EPOCH: &str = "memory";

/// What there is to know. No input or output, no clock: it can be tried in any order.
#[derive(Debug, Default)]
pub struct State {
    scopes: HashMap<Scope, Account>,
    holds: HashMap<HoldId, Hold>,
    /// When the ledger stops believing in a hold, in milliseconds.
    leases: BTreeSet<(i64, HoldId)>,
    length: Leases,
    /// The link that a campaign's rotation offered a call last.
    cursors: HashMap<CampaignId, LinkId>,
}

#[derive(Debug)]
struct Hold {
    kept: Kept,
    slot: Slot,
    scopes: Vec<Scope>,
    /// What was answered when it was reserved.
    verdict: Option<Verdict>,
    until: i64,
}

// === impl State ===

impl State {
    pub fn new(length: Leases) -> Self {
        Self { length, ..Self::default() }
    }

    /// As [`Ledger::reserve`], at `now` in milliseconds.
    pub fn reserve(&mut self, request: &Request, now: i64) -> Verdict {
        self.expire(now);
        let (verdict, granted) = self.decide(request);
        if let Some(standing) = granted.and_then(|c| Standing::held(request.hold, c)) {
            self.take(&standing, Some(verdict.clone()), now);
            if let (Turn::Rotate(campaign) | Turn::Advance(campaign), Some(link)) =
                (request.turn, verdict.granted)
            {
                self.cursors.insert(campaign, link);
            }
        } else if let Some(Hold { kept: Kept::Held, .. }) = self.holds.get(&request.hold) {
            self.extend(request.hold, now);
        }
        verdict
    }

    /// What [`State::reserve`] would answer.
    pub fn preview(&mut self, request: &Request, now: i64) -> Verdict {
        self.expire(now);
        self.decide(request).0
    }

    /// As [`Ledger::advance`], for one hold.
    pub fn advance(&mut self, standing: &Standing, now: i64) {
        self.expire(now);
        self.take(standing, None, now);
    }

    /// As [`Ledger::set_cursor`].
    pub fn set_cursor(&mut self, campaign: CampaignId, link: LinkId) {
        self.cursors.insert(campaign, link);
    }

    /// As [`Ledger::correct`], for one scope.
    pub fn correct(&mut self, correction: &Correction) {
        self.scopes.entry(correction.scope).or_default().correct(correction);
    }

    /// The answer to a request, and the candidate that it has to be taken for.
    fn decide<'a>(&self, request: &'a Request) -> (Verdict, Option<&'a Candidate>) {
        match self.holds.get(&request.hold) {
            Some(Hold { kept: Kept::Closed, .. }) => return (Verdict::of(&[]), None),
            Some(hold) => {
                let known = hold.verdict.clone().unwrap_or_else(|| Verdict::of(&hold.scopes));
                return (known, None);
            }
            None => {}
        }
        let (rotated_by, cursor) = self.rotation(request);
        let mut verdict = Verdict { rotated_by, cursor, ..Verdict::of(&[]) };
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
        let link = candidate.link;
        for claim in &candidate.claims {
            for kind in WindowKind::ALL {
                let Some(limit) = claim.volume[kind.index()] else { continue };
                let account = self.scopes.get(&claim.scope);
                let Count { used, held } =
                    account.map(|account| account.count(kind, &claim.windows)).unwrap_or_default();
                if used.saturating_add(held) >= limit {
                    let (scope, cap) = (claim.scope, Cap::Volume(kind));
                    return Some(Refusal { link, scope, cap, used, held, limit });
                }
            }
        }
        for claim in &candidate.claims {
            let Some(limit) = claim.concurrency else { continue };
            let live = self.scopes.get(&claim.scope).map_or(0, |account| account.live);
            if live >= limit {
                let (scope, cap) = (claim.scope, Cap::Concurrency);
                return Some(Refusal { link, scope, cap, used: live, held: 0, limit });
            }
        }
        None
    }

    fn take(&mut self, standing: &Standing, verdict: Option<Verdict>, now: i64) {
        let known = self.holds.get(&standing.hold);
        let (kept, step) = step(known.map(|hold| hold.kept), standing.stage);
        match known {
            None => {
                let slot = Slot::of(standing.moment);
                self.apply(&standing.scopes, slot, step);
                let scopes = standing.scopes.clone();
                self.holds.insert(standing.hold, Hold { kept, slot, scopes, verdict, until: 0 });
            }
            // Nothing is left of it, and so it stays until it is forgotten.
            Some(Hold { kept: Kept::Closed, .. }) => return,
            Some(hold) => {
                let (slot, scopes) = (hold.slot, hold.scopes.clone());
                self.apply(&scopes, slot, step);
            }
        }
        if let Some(hold) = self.holds.get_mut(&standing.hold) {
            hold.kept = kept;
        }
        self.extend(standing.hold, now);
    }

    fn apply(&mut self, scopes: &[Scope], slot: Slot, step: Step) {
        if step == Step::default() {
            return;
        }
        for scope in scopes {
            self.scopes.entry(*scope).or_default().take(slot, step);
        }
    }

    /// Gives a hold another lease.
    fn extend(&mut self, id: HoldId, now: i64) {
        let Some(hold) = self.holds.get_mut(&id) else { return };
        self.leases.remove(&(hold.until, id));
        hold.until = now.saturating_add(millis(self.length.of(hold.kept)));
        self.leases.insert((hold.until, id));
    }

    /// Forgets holds of which nobody has spoken for the time of their lease.
    fn expire(&mut self, now: i64) {
        while let Some(&(until, id)) = self.leases.first()
            && until <= now
        {
            self.leases.pop_first();
            let Some(mut hold) = self.holds.remove(&id) else { continue };
            let (kept, step) = lapse(hold.kept);
            self.apply(&hold.scopes, hold.slot, step);
            if let Some(kept) = kept {
                hold.kept = kept;
                self.holds.insert(id, hold);
                self.extend(id, now);
            }
        }
    }

    /// What is in use of one scope now.
    pub fn usage(&self, scope: Scope, windows: &Windows) -> Usage {
        let Some(account) = self.scopes.get(&scope) else {
            return Usage::default();
        };
        let counts = WindowKind::ALL.map(|kind| account.count(kind, windows));
        Usage {
            live: account.live,
            used: counts.map(|count| count.used),
            held: counts.map(|count| count.held),
        }
    }

    fn holders(&self) -> Vec<Holder> {
        let left = self.holds.iter().filter(|(_, hold)| hold.kept != Kept::Closed);
        left.map(|(id, hold)| Holder {
            hold: *id,
            held_at: hold.slot.start(),
            scopes: hold.scopes.clone(),
            settled: hold.kept != Kept::Held,
            live: matches!(hold.kept, Kept::Held | Kept::Used),
            node: String::new(),
        })
        .collect()
    }
}

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

// === impl MemoryLedger ===

impl Default for MemoryLedger {
    fn default() -> Self {
        Self::new(Leases::default(), LeaseClock::Own)
    }
}

impl MemoryLedger {
    /// A ledger that nothing has to be filled into: calls can be held.
    pub fn new(leases: Leases, clock: LeaseClock) -> Self {
        let (status, _) = watch::channel(Status::Open(EPOCH.into()));
        Self { state: Mutex::new(State::new(leases)), clock, since: Instant::now(), status }
    }

    /// A ledger that is to be filled before it is opened.
    pub fn unfilled(leases: Leases) -> Self {
        let ledger = Self::new(leases, LeaseClock::Own);
        ledger.status.send_replace(Status::Filling(EPOCH.into()));
        ledger
    }

    fn now(&self) -> i64 {
        match &self.clock {
            LeaseClock::Own => millis(self.since.elapsed()),
            LeaseClock::Manual(now) => now.load(Ordering::Acquire),
        }
    }
}

// === impl Ledger ===

#[async_trait::async_trait]
impl Ledger for MemoryLedger {
    async fn reserve(&self, request: &Request) -> Result<Verdict, Unavailable> {
        if matches!(*self.status.borrow(), Status::Filling(_)) {
            return Err(Unavailable { reason: "it is being filled".to_owned() });
        }
        Ok(self.state.lock().reserve(request, self.now()))
    }

    async fn preview(&self, request: &Request) -> Result<Verdict, Unavailable> {
        let mut state = self.state.lock();
        state.expire(self.now());
        Ok(state.decide(request).0)
    }

    async fn advance(&self, standing: &[Standing]) -> Result<(), Unavailable> {
        let now = self.now();
        let mut state = self.state.lock();
        for standing in standing {
            state.advance(standing, now);
        }
        Ok(())
    }

    async fn usages(&self, asked: &[(Scope, Windows)]) -> Result<Vec<Usage>, Unavailable> {
        let mut state = self.state.lock();
        state.expire(self.now());
        Ok(asked.iter().map(|(scope, windows)| state.usage(*scope, windows)).collect())
    }

    async fn set_cursor(&self, campaign: CampaignId, link: LinkId) -> Result<(), Unavailable> {
        self.state.lock().set_cursor(campaign, link);
        Ok(())
    }

    async fn holders(&self) -> Result<Vec<Holder>, Unavailable> {
        Ok(self.state.lock().holders())
    }

    async fn books(&self) -> Result<Vec<Book>, Unavailable> {
        let state = self.state.lock();
        Ok(state.scopes.iter().map(|(scope, account)| account.book(*scope)).collect())
    }

    async fn correct(&self, corrections: &[Correction]) -> Result<(), Unavailable> {
        let mut state = self.state.lock();
        for correction in corrections {
            state.correct(correction);
        }
        Ok(())
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    async fn may_fill(&self) -> Result<bool, Unavailable> {
        Ok(true)
    }

    async fn open(&self) -> Result<(), Unavailable> {
        self.status.send_replace(Status::Open(EPOCH.into()));
        Ok(())
    }
}
