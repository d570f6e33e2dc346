//! What this instance holds, and the ledger's knowledge of it.
//!
//! Calls say here what happens to their holds, and the keeper sees to it that
//! the ledger learns of it: at once, or again and again until it does. It says
//! *where a hold stands*, not what to do, so to repeat it is harmless, and a
//! ledger that has forgotten everything is told everything. Holds are renewed
//! long before their leases end, so the ledger believes in them as long as this
//! instance lives, and lets go of them in the end when it doesn't.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::recount::Known;
use super::{
    Candidate, HoldId, Holder, Leases, Ledger, Request, Share, Stage, Standing, Status, Turn,
    Unavailable, Verdict,
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
}

struct Kept {
    standing: Standing,
    /// What it was granted for; none of one that an earlier run took.
    candidate: Option<Candidate>,
    /// What the ledger is known to have heard.
    told: Option<Stage>,
    /// When the ledger last promised the capacity, by this instance's clock.
    promised: Instant,
    /// It isn't known yet whether the ledger granted it.
    asking: bool,
    /// Since when the records tell of its call.
    recorded: Option<Instant>,
}

const RENEW_INTERVAL: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Whoever compares the ledger with the records looks at the holds several times in that
/// long, and sees each call in the one or the other.
pub const TOLD_AFTER_RECORD: Duration = Duration::from_secs(10);

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
            let asking = Kept {
                standing,
                candidate: None,
                told: None,
                promised: asked,
                asking: true,
                recorded: None,
            };
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
                kept.candidate = Some(candidate.clone());
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
                standing,
                candidate: Some(candidate.clone()),
                told: None,
                promised,
                asking: false,
                recorded: None,
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
            let holds = self.holds.lock();
            match holds.get(&hold) {
                Some(kept) if kept.promised.elapsed() < self.trusted_for => return Ok(true),
                Some(Kept { candidate: Some(candidate), .. }) => candidate.clone(),
                _ => return Ok(false),
            }
        };
        warn!("a hold got old before its client was dialled: asking again");
        let request = Request { hold, candidates: vec![candidate], turn: Turn::None };
        Ok(self.reserve(&request).await?.granted.is_some())
    }

    /// The client answered: the volume becomes used.
    pub async fn settle(&self, hold: HoldId) {
        self.move_on(hold, |_| Stage::Used).await;
    }

    /// The client's leg is gone: concurrency is free, and volume that wasn't used.
    pub async fn release(&self, hold: HoldId) {
        self.move_on(hold, |stage| match stage {
            Stage::Held => Stage::Returned,
            Stage::Used => Stage::Counted,
            over => over,
        })
        .await;
    }

    /// The records tell of these calls now.
    pub fn recorded(&self, calls: &HashSet<CallId>) {
        let now = Instant::now();
        for (hold, kept) in self.holds.lock().iter_mut() {
            if calls.contains(&hold.call) {
                kept.recorded = Some(now);
            }
        }
    }

    /// Takes up holds of an earlier run. The ledger learns of them before anything else.
    pub fn adopt(&self, standing: impl IntoIterator<Item = Standing>) {
        let mut holds = self.holds.lock();
        for standing in standing {
            self.note(&standing);
            let hold = standing.hold;
            let kept = Kept {
                standing,
                candidate: None,
                told: None,
                promised: Instant::now(),
                asking: false,
                recorded: None,
            };
            holds.insert(hold, kept);
        }
        drop(holds);
        self.untold.notify_one();
    }

    /// Nobody leads this call any more: what it holds is given back.
    pub fn abandon(&self, call: CallId) {
        for (_, kept) in self.holds.lock().iter_mut().filter(|(hold, _)| hold.call == call) {
            kept.standing.stage = match kept.standing.stage {
                Stage::Held => Stage::Returned,
                Stage::Used => Stage::Counted,
                over => over,
            };
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
        self.ledger.advance(&back.collect::<Vec<_>>()).await
    }

    /// Keeps the ledger informed, until it is cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut status = self.ledger.status();
        let mut known = status.borrow_and_update().clone();
        self.follow(&known);
        let mut tick = interval(TICK);
        let mut renewed = Instant::now();
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
                    }
                    known = now;
                }
                () = self.untold.notified() => {}
                _ = tick.tick() => {
                    self.close_recorded();
                    if renewed.elapsed() >= RENEW_INTERVAL {
                        renewed = Instant::now();
                        self.renew().await;
                    }
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
        let untold: Vec<_> = {
            let holds = self.holds.lock();
            let all = holds.values().filter(|kept| !kept.asking);
            let untold = all.filter(|kept| kept.told != Some(kept.standing.stage));
            untold.map(|kept| kept.standing.clone()).collect()
        };
        self.tell(&untold).await
    }

    async fn move_on(&self, hold: HoldId, next: impl FnOnce(Stage) -> Stage) {
        let standing = {
            let mut holds = self.holds.lock();
            let Some(kept) = holds.get_mut(&hold) else { return };
            kept.standing.stage = kept.standing.stage.max(next(kept.standing.stage));
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

    async fn renew(&self) {
        let all: Vec<_> = {
            let holds = self.holds.lock();
            holds.values().filter(|kept| !kept.asking).map(|kept| kept.standing.clone()).collect()
        };
        if !self.tell(&all).await {
            warn!(holds = all.len(), "the ledger could not be told what is held");
        }
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
            kept.standing.stage = Stage::Returned;
            kept.told = None;
            kept.asking = false;
            self.note(&kept.standing);
        }
        self.untold.notify_one();
    }
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
