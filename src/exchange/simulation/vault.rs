//! A database that is sometimes away, and sometimes forgets to say that it wrote.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use capconduit_entity::{AttemptResult, CallStatus};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::call::CallRecord;
use crate::capacity::Book;
use crate::capacity::recount::{Known, Truth};
use crate::clock::{self, Timestamp};
use crate::ids::{CallId, CampaignId, LinkId};
use crate::journal::Archive;

pub struct Vault(Mutex<Inner>);

struct Inner {
    luck: SmallRng,
    /// When it is away, from and until.
    away: (Timestamp, Timestamp),
    records: BTreeMap<CallId, Arc<CallRecord>>,
    broken: Option<String>,
}

impl Vault {
    pub fn new(seed: u64, began: Timestamp, luck: &mut SmallRng) -> Self {
        let from = began + Duration::from_millis(luck.random_range(0..60_000));
        // Mostly not at all.
        let lasts = Duration::from_millis(luck.random_range(0..80_000_u64).saturating_sub(50_000));
        Self(Mutex::new(Inner {
            luck: SmallRng::seed_from_u64(seed),
            away: (from, from + lasts),
            records: BTreeMap::new(),
            broken: None,
        }))
    }

    pub fn records(&self) -> Vec<Arc<CallRecord>> {
        self.0.lock().unwrap().records.values().cloned().collect()
    }

    /// What was asked of it that mustn't be.
    pub fn broken(&self) -> Option<String> {
        self.0.lock().unwrap().broken.clone()
    }
}

impl Inner {
    fn is_away(&self) -> bool {
        (self.away.0..self.away.1).contains(&clock::now())
    }
}

#[async_trait::async_trait]
impl Archive for Vault {
    async fn insert(&self, batch: &[Arc<CallRecord>]) -> anyhow::Result<()> {
        let mut inner = self.0.lock().unwrap();
        anyhow::ensure!(!inner.is_away(), "the database is away");
        let luck = inner.luck.random_range(0..20);
        anyhow::ensure!(luck != 0, "the transaction was rolled back");
        for record in batch {
            let before = inner.records.entry(record.call).or_insert_with(|| record.clone());
            if before != record {
                let changed =
                    format!("a record was written twice, and differs: {before:?} {record:?}");
                inner.broken.get_or_insert(changed);
            }
        }
        anyhow::ensure!(luck != 1, "it was written, and its answer was lost");
        Ok(())
    }

    async fn is_there(&self) -> bool {
        !self.0.lock().unwrap().is_away()
    }

    async fn recorded(&self, calls: &[CallId]) -> anyhow::Result<HashSet<CallId>> {
        let inner = self.0.lock().unwrap();
        anyhow::ensure!(!inner.is_away(), "the database is away");
        Ok(calls.iter().filter(|call| inner.records.contains_key(*call)).copied().collect())
    }
}

#[async_trait::async_trait]
impl Truth for Vault {
    async fn known(&self, calls: &[CallId]) -> anyhow::Result<Known> {
        let inner = self.0.lock().unwrap();
        anyhow::ensure!(!inner.is_away(), "the database is away");
        let mut answered = Vec::new();
        let mut recorded = HashMap::new();
        for record in inner.records.values() {
            let attempt = record.answered_attempt().filter(|_| is_answered(record));
            if calls.contains(&record.call) {
                recorded.insert(record.call, attempt.map(|attempt| attempt.link));
            }
            let Some(attempt) = attempt else { continue };
            answered.extend(record.scopes(attempt).into_iter().map(|s| (s, attempt.held_at)));
        }
        Ok(Known { answered: Book::of(answered), recorded })
    }

    async fn cursors(&self) -> anyhow::Result<Vec<(CampaignId, LinkId)>> {
        anyhow::ensure!(!self.0.lock().unwrap().is_away(), "the database is away");
        Ok(Vec::new())
    }
}

pub fn is_answered(record: &CallRecord) -> bool {
    record.end.is_some_and(|end| end.outcome.status == CallStatus::Answered)
        && record.attempts.iter().any(|attempt| attempt.result == Some(AttemptResult::Answered))
}
