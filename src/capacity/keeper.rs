//! What this instance holds, and the ledger's knowledge of it.
//!
//! Calls say here what happens to their holds, and the keeper sees to it that
//! the ledger learns of it: at once, or again and again until it does. It says
//! *where a hold stands*, not what to do, so to repeat it is harmless, and a
//! ledger that has forgotten everything is told everything. Holds are renewed
//! long before their leases end, so the ledger believes in them as long as this
//! instance lives, and lets go of them in the end when it doesn't.
//!
//! While the database is away, there may be hundreds of thousands of holds. To tell
//! the ledger of them is a walk, a few holds at a time; whoever wants room comes in
//! between.

mod kept;

use std::collections::{BTreeMap, HashSet};
use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::kept::{Kept, without_leg};
use super::recount::Known;
use super::{
    HoldId, Holder, Leases, Ledger, Request, Share, Stage, Standing, Status, Turn, Unavailable,
    Verdict,
};
use crate::ids::CallId;
use crate::telemetry::{Drift, Metrics, call_span};

/// Speaks for every hold of this instance.
pub struct Keeper {
    ledger: Arc<dyn Ledger>,
    /// What is asked for room while the ledger is away; none = nothing.
    ///
    /// Its lock is taken within that of the holds.
    share: Option<Share>,
    /// The name under which the ledger knows this instance's holds.
    node: String,
    holds: Mutex<BTreeMap<HoldId, Kept>>,
    /// Rung when the ledger wasn't told something.
    untold: Notify,
    /// Where it is counted what was refused, and how often something had to be mended.
    metrics: Option<Arc<Metrics>>,
    /// A hold that is older than this may have been given to someone else.
    trusted_for: Duration,
    /// After so long, the ledger is told again of a call that is over and not recorded yet.
    counted_for: Duration,
}

/// How far a walk through all holds has come.
#[derive(Clone, Copy, Default)]
struct Walk {
    /// The last one that was looked at; none at the beginning.
    passed: Option<HoldId>,
}

const RENEW_INTERVAL: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Whoever compares the ledger with the records looks at the holds several times in that
/// long, and sees each call in the one or the other.
pub const TOLD_AFTER_RECORD: Duration = Duration::from_secs(10);
/// Holds that are looked at, and told, at once: whoever wants room waits for no more of them.
pub const AT_ONCE: usize = 500;

// === impl Keeper ===

impl Keeper {
    pub fn new(ledger: Arc<dyn Ledger>, node: &str, leases: &Leases) -> Self {
        Self {
            ledger,
            share: None,
            node: node.to_owned(),
            holds: Mutex::default(),
            untold: Notify::new(),
            metrics: None,
            trusted_for: leases.held / 2,
            counted_for: leases.used / 4,
        }
    }

    /// The same, and what is refused, and what has to be mended, is counted there.
    pub fn counted_in(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// The same, with a share of its own to hold calls against while the ledger is away.
    pub fn with_share(mut self, share: Share) -> Self {
        self.share = Some(share);
        self
    }

    pub fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.ledger
    }

    /// As [`Ledger::reserve`], or within this instance's share while the ledger is away.
    ///
    /// # Errors
    /// When nobody can be asked: nothing may be dialled then.
    pub async fn reserve(&self, request: &Request) -> Result<Verdict, Unavailable> {
        let verdict = match self.standing_alone().await {
            Some(share) => self.reserve_alone(share, request)?,
            None => self.reserve_in_ledger(request).await?,
        };
        if let Some(metrics) = &self.metrics {
            verdict.refusals.iter().for_each(|refusal| metrics.refused(refusal));
        }
        Ok(verdict)
    }

    /// What [`Keeper::reserve`] would answer now. Nothing is taken, no turn is used up.
    ///
    /// # Errors
    /// When nobody can be asked.
    pub async fn preview(&self, request: &Request) -> Result<Verdict, Unavailable> {
        match self.standing_alone().await {
            Some(share) => share.preview(request),
            None => self.ledger.preview(request).await,
        }
    }

    /// The share, while it is what is asked for room; none where the ledger is. Where that
    /// has just come back, this waits until it may be asked.
    async fn standing_alone(&self) -> Option<&Share> {
        let share = self.share.as_ref()?;
        match share.shared_from() {
            // What the ledger was never asked, it can't answer late.
            None => return Some(share),
            Some(from) if from > Instant::now() => sleep_until(from).await,
            Some(_) => {}
        }
        None
    }

    /// Holds a call in the ledger. Where it isn't known what the ledger answered, it
    /// is told that nothing is wanted any more.
    async fn reserve_in_ledger(&self, request: &Request) -> Result<Verdict, Unavailable> {
        let asked = Instant::now();
        if let Some(candidate) = request.candidates.first()
            && let Some(standing) = Standing::held(request.hold, candidate)
        {
            let asking = Kept { asking: true, ..Kept::untold(standing) };
            self.holds.lock().entry(request.hold).or_insert(asking);
        }
        // Whoever asks may stop waiting: then too the ledger has to be told.
        let mut asking = Asking { keeper: self, hold: request.hold, is_answered: false };
        let answer = self.ledger.reserve(request).await;
        asking.is_answered = true;
        let granted = match &answer {
            Ok(verdict) => verdict.granted,
            Err(_) => {
                self.give_up(request.hold);
                return answer;
            }
        };
        let mut holds = self.holds.lock();
        let candidate = request.candidates.iter().find(|c| Some(c.link) == granted);
        match (candidate, holds.get_mut(&request.hold)) {
            (Some(candidate), Some(kept)) => {
                if let Some(standing) = Standing::held(request.hold, candidate) {
                    kept.standing = standing;
                }
                kept.candidate = Some(Box::new(candidate.clone()));
                kept.told = Some(Stage::Held);
                kept.promised = asked;
                kept.asking = false;
                self.note(&kept.standing);
            }
            _ => {
                holds.remove(&request.hold);
            }
        }
        answer
    }

    /// Holds a call against this instance's share. The ledger is told when it is back.
    fn reserve_alone(&self, share: &Share, request: &Request) -> Result<Verdict, Unavailable> {
        let mut holds = self.holds.lock();
        let verdict = share.reserve(request)?;
        let candidate = request.candidates.iter().find(|c| Some(c.link) == verdict.granted);
        if let Some(candidate) = candidate
            && let Some(standing) = Standing::held(request.hold, candidate)
        {
            let promised = Instant::now();
            let kept = holds.entry(request.hold).or_insert_with(|| Kept {
                candidate: Some(Box::new(candidate.clone())),
                ..Kept::untold(standing)
            });
            kept.promised = promised;
        }
        Ok(verdict)
    }

    /// Whether the capacity is still this call's, before it dials. One that slept
    /// for so long that its lease may have ended has to ask again.
    ///
    /// # Errors
    /// When the ledger can't be asked.
    pub async fn reaffirm(&self, hold: HoldId) -> Result<bool, Unavailable> {
        let candidate = {
            let mut holds = self.holds.lock();
            match holds.get_mut(&hold) {
                Some(kept) if kept.promised.elapsed() < self.trusted_for => {
                    kept.dialled = true;
                    return Ok(true);
                }
                Some(Kept { candidate: Some(candidate), .. }) => candidate.clone(),
                _ => return Ok(false),
            }
        };
        warn!("a hold got old before its client was dialled: asking again");
        let request = Request { hold, candidates: vec![*candidate], turn: Turn::None };
        let stands = self.reserve(&request).await?.granted.is_some();
        if let Some(kept) = self.holds.lock().get_mut(&hold) {
            kept.dialled = stands;
        }
        Ok(stands)
    }

    /// The client answered: the volume becomes used.
    pub async fn settle(&self, hold: HoldId) {
        self.move_on(hold, |_| Stage::Used).await;
    }

    /// The client's leg is gone: concurrency is free, and volume that wasn't used.
    pub async fn release(&self, hold: HoldId) {
        self.move_on(hold, without_leg).await;
    }

    /// The records tell of these calls now.
    pub fn recorded(&self, calls: &HashSet<CallId>) {
        let now = Instant::now();
        let mut holds = self.holds.lock();
        for call in calls {
            for (_, kept) in holds.range_mut(attempts(*call)) {
                kept.recorded = Some(now);
            }
        }
    }

    /// Takes up holds of an earlier run. The ledger learns of them before anything else.
    pub fn adopt(&self, standing: impl IntoIterator<Item = Standing>) {
        let mut holds = self.holds.lock();
        for standing in standing {
            self.note(&standing);
            holds.insert(standing.hold, Kept { dialled: true, ..Kept::untold(standing) });
        }
        drop(holds);
        self.untold.notify_one();
    }

    /// Nobody leads this call any more: what it holds is given back. Where its client
    /// answered, that was sold, and counts.
    pub fn abandon(&self, call: CallId) {
        for (_, kept) in self.holds.lock().range_mut(attempts(call)) {
            kept.go_on_to(without_leg(kept.standing.stage));
            kept.asking = false;
            self.note(&kept.standing);
        }
        self.untold.notify_one();
    }

    /// Calls that have a client's leg up, or are about to.
    pub fn live_calls(&self) -> HashSet<CallId> {
        let holds = self.holds.lock();
        let live = holds.iter().filter(|(_, kept)| kept.standing.stage <= Stage::Used);
        live.map(|(hold, _)| hold.call).collect()
    }

    /// Holds of this instance that the ledger knows and nobody here does: a run
    /// that was cut off took them.
    pub fn strangers(&self, holders: Vec<Holder>) -> Vec<Holder> {
        let holds = self.holds.lock();
        let is_strange =
            |holder: &Holder| holder.node == self.node && !holds.contains_key(&holder.hold);
        holders.into_iter().filter(is_strange).collect()
    }

    /// Gives back what nobody stands for. What the records tell of is used.
    ///
    /// # Errors
    /// When the ledger can't be reached.
    pub async fn give_back(&self, holders: &[Holder], known: &Known) -> Result<(), Unavailable> {
        let back = holders.iter().map(|holder| Standing {
            hold: holder.hold,
            stage: match (known.has(holder), holder.settled || known.counts(holder)) {
                (true, true) => Stage::Recorded,
                (false, true) => Stage::Counted,
                (_, false) => Stage::Returned,
            },
            moment: holder.held_at,
            scopes: holder.scopes.clone(),
        });
        for holder in holders.iter().filter(|holder| holder.live) {
            call_span(holder.hold.call).in_scope(|| warn!("a hold without a call is given back"));
            if let Some(metrics) = &self.metrics {
                metrics.drifted(Drift::HoldWithoutCall);
            }
        }
        for few in back.collect::<Vec<_>>().chunks(AT_ONCE) {
            self.ledger.advance(few).await?;
            yield_now().await;
        }
        Ok(())
    }

    /// Keeps the ledger informed, until it is cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut status = self.ledger.status();
        let mut known = status.borrow_and_update().clone();
        self.follow(&known);
        let mut tick = interval(TICK);
        let (mut renewed, mut renewal) = (Instant::now(), None::<Walk>);
        loop {
            if let Some(share) = self.share.as_ref().filter(|share| share.is_unknown()) {
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => {}
                    // Seen again below.
                    _ = status.changed() => status.mark_changed(),
                    () = self.open_share(share) => {}
                }
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    self.tell_untold().await;
                    return;
                }
                Ok(()) = status.changed() => {
                    let now = status.borrow_and_update().clone();
                    self.follow(&now);
                    if is_other(&known, &now) {
                        self.forget_what_was_told();
                        // All is told anew.
                        renewal = None;
                    }
                    known = now;
                }
                () = self.untold.notified() => {}
                _ = tick.tick() => {
                    self.close_recorded();
                    if renewal.is_none() && renewed.elapsed() >= RENEW_INTERVAL {
                        renewed = Instant::now();
                        renewal = Some(Walk::default());
                    }
                }
                // All that is said above comes first.
                Some(walk) = after_others(renewal), if renewal.is_some() => {
                    renewal = self.renew_few(walk).await;
                    continue;
                }
            }
            if known != Status::Away && !self.tell_untold().await {
                sleep(RETRY_AFTER).await;
                self.untold.notify_one();
            }
        }
    }

    /// The share counts while the ledger is away.
    fn follow(&self, status: &Status) {
        match (&self.share, status) {
            (None, _) => {}
            (Some(share), Status::Away) => share.begin(),
            (Some(share), Status::Filling(_) | Status::Open(_)) => share.end(),
        }
    }

    /// Finds out what is used, again and again until it is known, and lets calls be
    /// held against the share.
    async fn open_share(&self, share: &Share) {
        let mut told = false;
        loop {
            let own = own(&self.holds.lock());
            match share.read(&own).await {
                Ok(said) => {
                    // What is held can't change until the share takes note of it.
                    let holds = self.holds.lock();
                    return share.open(&said, &self::own(&holds));
                }
                Err(error) if !told => {
                    told = true;
                    warn!(error = %format!("{error:#}"), "the records can't be read; no call can be held until they or the ledger are back");
                }
                Err(_) => {}
            }
            sleep(RETRY_AFTER).await;
        }
    }

    fn note(&self, standing: &Standing) {
        if let Some(share) = &self.share {
            share.note(standing);
        }
    }

    /// Tells the ledger all that it doesn't know yet. Whether it knows now.
    pub async fn tell_untold(&self) -> bool {
        let status = self.ledger.status();
        let mut walk = Walk::default();
        loop {
            let (untold, next) = self.next_few(walk, |kept| kept.is_untold(self.trusted_for));
            if !self.tell(&untold).await {
                return false;
            }
            let Some(next) = next else { return true };
            walk = next;
            yield_now().await;
            // Another ledger doesn't know what this one was told.
            if status.has_changed().unwrap_or(true) {
                return false;
            }
        }
    }

    /// Those of the walk's next few holds that are wanted, and where it goes on; none = it
    /// is at its end.
    fn next_few(
        &self,
        walk: Walk,
        is_wanted: impl Fn(&Kept) -> bool,
    ) -> (Vec<Standing>, Option<Walk>) {
        let holds = self.holds.lock();
        let from = walk.passed.map_or(Bound::Unbounded, Bound::Excluded);
        let few = || holds.range((from, Bound::Unbounded)).take(AT_ONCE);
        let wanted = few().filter(|(_, kept)| is_wanted(kept));
        let standing = wanted.map(|(_, kept)| kept.standing.clone()).collect();
        let last = few().nth(AT_ONCE - 1);
        (standing, last.map(|(hold, _)| Walk { passed: Some(*hold) }))
    }

    async fn move_on(&self, hold: HoldId, next: impl FnOnce(Stage) -> Stage) {
        let standing = {
            let mut holds = self.holds.lock();
            let Some(kept) = holds.get_mut(&hold) else { return };
            kept.go_on_to(next(kept.standing.stage));
            self.note(&kept.standing);
            kept.standing.clone()
        };
        if !self.tell(&[standing]).await {
            self.untold.notify_one();
        }
    }

    async fn tell(&self, standing: &[Standing]) -> bool {
        if standing.is_empty() {
            return true;
        }
        let asked = Instant::now();
        if let Err(error) = self.ledger.advance(standing).await {
            debug!(%error, holds = standing.len(), "the ledger was not told");
            return false;
        }
        let mut holds = self.holds.lock();
        for one in standing {
            let Some(kept) = holds.get_mut(&one.hold) else { continue };
            kept.told = kept.told.max(Some(one.stage));
            kept.promised = kept.promised.max(asked);
            if one.stage >= Stage::Returned {
                holds.remove(&one.hold);
            }
        }
        true
    }

    /// Tells the ledger of the walk's next few holds that they still are. Where it goes on.
    async fn renew_few(&self, walk: Walk) -> Option<Walk> {
        let (trusted_for, counted_for) = (self.trusted_for, self.counted_for);
        let is_due = |kept: &Kept| kept.is_to_be_renewed(trusted_for, counted_for);
        let (few, next) = self.next_few(walk, is_due);
        if self.tell(&few).await {
            return next;
        }
        warn!(holds = few.len(), "the ledger could not be told what is held");
        None
    }

    /// What the records tell of, the ledger needn't any more.
    fn close_recorded(&self) {
        let mut closed = false;
        for kept in self.holds.lock().values_mut() {
            let known = kept.told == Some(Stage::Counted);
            if known && kept.recorded.is_some_and(|at| at.elapsed() >= TOLD_AFTER_RECORD) {
                kept.standing.stage = Stage::Recorded;
                closed = true;
            }
        }
        if closed {
            self.untold.notify_one();
        }
    }

    fn forget_what_was_told(&self) {
        for kept in self.holds.lock().values_mut() {
            kept.told = None;
        }
    }

    /// It isn't known whether the hold was taken: it isn't wanted.
    fn give_up(&self, hold: HoldId) {
        if let Some(kept) = self.holds.lock().get_mut(&hold) {
            kept.go_on_to(Stage::Returned);
            kept.told = None;
            kept.asking = false;
            self.note(&kept.standing);
        }
        self.untold.notify_one();
    }
}

/// The same, once everybody else had a turn.
async fn after_others(walk: Option<Walk>) -> Option<Walk> {
    yield_now().await;
    walk
}

/// All attempts of a call.
const fn attempts(call: CallId) -> RangeInclusive<HoldId> {
    HoldId { call, attempt: 0 }..=HoldId { call, attempt: u32::MAX }
}

/// What is held for certain.
fn own(holds: &BTreeMap<HoldId, Kept>) -> Vec<Standing> {
    let certain = holds.values().filter(|kept| !kept.asking);
    certain.map(|kept| kept.standing.clone()).collect()
}

/// Whether what one ledger was told is unknown to the other.
fn is_other(before: &Status, after: &Status) -> bool {
    match (before, after) {
        (
            Status::Filling(before) | Status::Open(before),
            Status::Filling(after) | Status::Open(after),
        ) => before != after,
        // It was away, and may have missed anything.
        _ => true,
    }
}

/// A question to the ledger that is under way.
struct Asking<'a> {
    keeper: &'a Keeper,
    hold: HoldId,
    is_answered: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.keeper.give_up(self.hold);
        }
    }
}
