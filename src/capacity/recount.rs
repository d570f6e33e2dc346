//! Fills a ledger from what is known elsewhere, and finds where the two differ.
//!
//! The truth for volume is the records; the ledger adds the calls that the
//! records don't tell of yet. So what ought to be used of a scope is: the
//! answered calls in the records, and the settled holds whose calls aren't among
//! them. Both go on changing while they are compared. A call that is settled
//! meanwhile may be seen on the one side only; how many those are is known, and
//! what they explain is no difference.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::keeper::{Keeper, TOLD_AFTER_RECORD};
use super::{Book, COUNTED_BACK, Correction, HoldId, Holder, Scope, Slot, Status};
use crate::clock::{self, Timestamp};
use crate::ids::{CallId, CampaignId, LinkId};

/// What the records say, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub answered: Vec<Book>,
    /// Those of the calls asked about that the records tell of, and who answered.
    pub recorded: HashMap<CallId, Option<LinkId>>,
}

impl Known {
    /// Whether the records tell of the call of this hold.
    pub fn has(&self, holder: &Holder) -> bool {
        self.recorded.contains_key(&holder.hold.call)
    }

    /// Whether the records say that it was this hold's client who answered.
    pub fn counts(&self, holder: &Holder) -> bool {
        let link = self.recorded.get(&holder.hold.call).copied().flatten();
        link.is_some_and(|link| holder.scopes.contains(&Scope::link(link)))
    }
}

/// Where the truth is read.
#[async_trait::async_trait]
pub trait Truth: Send + Sync + 'static {
    /// The answered calls of every scope, and which of `calls` are among the records.
    async fn known(&self, calls: &[CallId]) -> anyhow::Result<Known>;

    /// The link that each campaign offered a call last.
    async fn cursors(&self) -> anyhow::Result<Vec<(CampaignId, LinkId)>>;
}

/// A scope of which more or less is used than the ledger believes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    pub scope: Scope,
    /// What has to be added to the ledger, below zero to be taken off.
    pub calls: i64,
}

/// What a look at the ledger found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    pub differences: Vec<Difference>,
    /// Holds of this instance that no call of it stands for.
    pub holds_without_call: usize,
    pub scopes: usize,
    pub holds: usize,
    pub repaired: bool,
}

/// Compares, fills and mends.
pub struct Recount {
    keeper: Arc<Keeper>,
    truth: Arc<dyn Truth>,
    settings: RecountSettings,
}

#[derive(Clone, Copy, Debug)]
pub struct RecountSettings {
    /// How long other instances get to say what they hold before a ledger is filled.
    pub grace: Duration,
    /// How often the ledger is compared with the records.
    pub interval: Duration,
}

impl Default for RecountSettings {
    fn default() -> Self {
        Self { grace: GRACE, interval: Duration::from_secs(15 * 60) }
    }
}

/// The other instances look at the ledger four times as often.
pub const GRACE: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_millis(300);
/// How often it is looked who holds something while the records are read: none comes and
/// goes in between.
const LOOK_INTERVAL: Duration = Duration::from_millis(2_500);
const _: () = assert!(LOOK_INTERVAL.as_millis() * 3 < TOLD_AFTER_RECORD.as_millis());

// === impl Recount ===

impl Recount {
    pub fn new(keeper: Arc<Keeper>, truth: Arc<dyn Truth>, settings: RecountSettings) -> Self {
        Self { keeper, truth, settings }
    }

    /// Fills the ledger whenever it has to be, and looks for differences now and then.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut status = self.keeper.ledger().status();
        let mut due = interval(self.settings.interval);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        due.reset();
        let mut has_reclaimed = false;
        loop {
            let now = status.borrow_and_update().clone();
            if !has_reclaimed && matches!(now, Status::Open(_)) {
                match self.reclaim().await {
                    Ok(_) => has_reclaimed = true,
                    Err(error) => {
                        warn!(error = %format!("{error:#}"), "holds of the last run could not be looked for")
                    }
                }
            }
            if let Status::Filling(epoch) = now {
                if cancel.run_until_cancelled(self.fill_epoch(&epoch)).await.is_none() {
                    return;
                }
                continue;
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                changed = status.changed() => if changed.is_err() { return },
                _ = due.tick(), if now != Status::Away => {
                    if let Err(error) = self.verify(true).await {
                        warn!(error = %format!("{error:#}"), "the ledger could not be compared with the records");
                    }
                }
            }
        }
    }

    /// Fills an epoch, unless another instance does, until it isn't to be filled any more.
    async fn fill_epoch(&self, epoch: &Arc<str>) {
        let mut status = self.keeper.ledger().status();
        sleep(self.settings.grace).await;
        let filling = Status::Filling(epoch.clone());
        let mut told = false;
        while *status.borrow_and_update() == filling {
            let result = self.try_fill().await;
            if let Err(error) = result {
                if !told {
                    error!(error = %format!("{error:#}"), "the ledger can't be filled; no call can be held until it is");
                }
                told = true;
            }
            // Woken when it is open, or to try again.
            let _ = tokio::time::timeout(RETRY_AFTER, status.changed()).await;
        }
    }

    async fn try_fill(&self) -> anyhow::Result<()> {
        if self.keeper.ledger().may_fill().await? {
            self.fill().await?;
        }
        Ok(())
    }

    /// Tells the ledger what is used and where rotations stand, and opens it.
    ///
    /// # Errors
    /// When the ledger or the records can't be reached.
    pub async fn fill(&self) -> anyhow::Result<()> {
        let ledger = self.keeper.ledger();
        anyhow::ensure!(self.keeper.tell_untold().await, "the ledger doesn't listen");
        let findings = self.verify(true).await?;
        for (campaign, link) in self.truth.cursors().await? {
            ledger.set_cursor(campaign, link).await?;
        }
        ledger.open().await?;
        info!(scopes = findings.scopes, holds = findings.holds, "the ledger is filled and open");
        Ok(())
    }

    /// Gives back what an earlier run of this instance held and nobody stands for.
    ///
    /// # Errors
    /// When the ledger or the records can't be reached.
    pub async fn reclaim(&self) -> anyhow::Result<usize> {
        let holders = self.keeper.strangers(self.keeper.ledger().holders().await?);
        if holders.is_empty() {
            return Ok(0);
        }
        let calls: Vec<_> = holders.iter().map(|holder| holder.hold.call).collect();
        let known = self.truth.known(&calls).await?;
        self.keeper.give_back(&holders, &known).await?;
        Ok(holders.len())
    }

    /// What the records say, and who held something while they were read: there may be
    /// millions, and calls come, are recorded and leave the ledger meanwhile.
    async fn known_meanwhile(
        &self,
        calls: &[CallId],
    ) -> anyhow::Result<(Known, BTreeMap<HoldId, Holder>)> {
        let mut seen = BTreeMap::new();
        let mut known = self.truth.known(calls);
        loop {
            match timeout(LOOK_INTERVAL, &mut known).await {
                Ok(known) => return Ok((known?, seen)),
                Err(_) => note(&mut seen, self.keeper.ledger().holders().await?),
            }
        }
    }

    /// Compares the ledger with the records and with this instance's calls.
    ///
    /// # Errors
    /// When the ledger or the records can't be reached.
    pub async fn verify(&self, repair: bool) -> anyhow::Result<Findings> {
        let ledger = self.keeper.ledger();
        let holds_without_call = if repair { self.reclaim().await? } else { 0 };
        let before = ledger.holders().await?;
        let calls: Vec<_> = before.iter().map(|holder| holder.hold.call).collect();
        let (known, mut seen) = self.known_meanwhile(&calls).await?;
        let books = ledger.books().await?;
        let after = ledger.holders().await?;
        let holds = after.len();
        note(&mut seen, after);
        let after: Vec<_> = seen.into_values().collect();
        let corrections = compare(&known, &books, &before, &after, clock::now());
        let filling = matches!(*ledger.status().borrow(), Status::Filling(_));
        let differences: Vec<_> = corrections.iter().filter_map(Difference::of).collect();
        if !filling {
            for Difference { scope, calls } in &differences {
                warn!(?scope, calls, repair, "the ledger and the records differ");
            }
        }
        if repair {
            ledger.correct(&corrections).await?;
        }
        Ok(Findings {
            scopes: books.len(),
            holds,
            holds_without_call,
            repaired: repair && !corrections.is_empty(),
            differences,
        })
    }
}

/// Takes note of holds; one that was settled once stays so.
fn note(seen: &mut BTreeMap<HoldId, Holder>, holders: Vec<Holder>) {
    for holder in holders {
        if holder.settled || !seen.contains_key(&holder.hold) {
            seen.insert(holder.hold, holder);
        }
    }
}

impl Difference {
    fn of(correction: &Correction) -> Option<Self> {
        let slots = || correction.slots.iter().map(|(_, calls)| *calls);
        // A call in a wrong window counts as well, though the total is right.
        let calls = if correction.total == 0 {
            slots().find(|calls| *calls != 0)?
        } else {
            correction.total
        };
        Some(Self { scope: correction.scope, calls })
    }
}

/// How many calls there are of one slot, at least and at most; none = of all time.
type Counts = BTreeMap<Option<Slot>, (i64, i64)>;

/// What has to be corrected, for the ledger to agree with what is known.
pub fn compare(
    known: &Known,
    books: &[Book],
    before: &[Holder],
    after: &[Holder],
    now: Timestamp,
) -> Vec<Correction> {
    // Older ones are in no window any more, and the records weren't asked for them.
    let oldest = Slot::of(now - COUNTED_BACK + TimeDelta::days(1));
    let mut expected: HashMap<Scope, Counts> = HashMap::new();
    let mut expect = |scope: Scope, slot: Option<Slot>, least: i64, most: i64| {
        if slot.is_none_or(|slot| slot >= oldest) {
            let count = expected.entry(scope).or_default().entry(slot).or_default();
            count.0 += least;
            count.1 += most;
        }
    };
    for answered in &known.answered {
        let total = i64::from(answered.total);
        expect(answered.scope, None, total, total);
        for &(slot, calls) in &answered.slots {
            expect(answered.scope, Some(slot), i64::from(calls), i64::from(calls));
        }
    }
    let settled_before: HashSet<HoldId> =
        before.iter().filter(|holder| holder.settled).map(|holder| holder.hold).collect();
    for holder in before.iter().filter(|holder| holder.settled) {
        if !known.has(holder) {
            for scope in &holder.scopes {
                expect(*scope, None, 1, 1);
                expect(*scope, Some(Slot::of(holder.held_at)), 1, 1);
            }
        }
    }
    // Its call was recorded before the ledger heard of the answer: it is about to.
    for holder in before.iter().filter(|holder| !holder.settled && known.counts(holder)) {
        for scope in &holder.scopes {
            expect(*scope, None, -1, 0);
            expect(*scope, Some(Slot::of(holder.held_at)), -1, 0);
        }
    }
    for holder in after.iter().filter(|holder| holder.settled) {
        if !settled_before.contains(&holder.hold) {
            for scope in &holder.scopes {
                expect(*scope, None, 0, 1);
                expect(*scope, Some(Slot::of(holder.held_at)), 0, 1);
            }
        }
    }
    let mut corrections = Vec::new();
    for book in books {
        let counts = expected.remove(&book.scope).unwrap_or_default();
        corrections.extend(correction(book, counts, oldest));
    }
    for (scope, counts) in expected {
        let book = Book { scope, total: 0, slots: Vec::new() };
        corrections.extend(correction(&book, counts, oldest));
    }
    corrections
}

fn correction(book: &Book, mut expected: Counts, oldest: Slot) -> Option<Correction> {
    let missing = |believed: u32, (least, most): (i64, i64)| {
        let believed = i64::from(believed);
        believed.clamp(least, most) - believed
    };
    let total = missing(book.total, expected.remove(&None).unwrap_or_default());
    let mut slots = Vec::new();
    for (slot, believed) in book.slots.iter().filter(|(slot, _)| *slot >= oldest) {
        let calls = missing(*believed, expected.remove(&Some(*slot)).unwrap_or_default());
        if calls != 0 {
            slots.push((*slot, calls));
        }
    }
    for (slot, counts) in expected {
        let calls = missing(0, counts);
        if let Some(slot) = slot
            && calls != 0
        {
            slots.push((slot, calls));
        }
    }
    (total != 0 || !slots.is_empty()).then_some(Correction { scope: book.scope, total, slots })
}
