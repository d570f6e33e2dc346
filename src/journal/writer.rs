//! Moves final records into the database, in batches, for as long as it takes.
//!
//! What waits here are the ids of calls: their records are in the spool, and are
//! read when it is their turn. While the database takes nothing, everything waits,
//! and it is tried again and again. What it refuses while it takes others is tried
//! again later, and holds no other up.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, error, info};

use super::spool::Spool;
use super::{Archive, Written};
use crate::call::CallRecord;
use crate::ids::CallId;
use crate::telemetry::{Metrics, call_span};

/// Records per transaction: well below both databases' limits on bound values.
const BATCH: usize = 200;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MOST: Duration = Duration::from_secs(5);
/// How long a refused record waits for its next try.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// A database that hasn't answered by then may have done it or not: it is asked again.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a writer works with.
pub struct Writer {
    pub archive: Arc<dyn Archive>,
    pub spool: Arc<Spool>,
    pub written: Written,
    pub metrics: Arc<Metrics>,
}

/// What became of a batch.
enum Fate {
    /// Taken, but for these.
    Taken { refused: Vec<(CallId, anyhow::Error)> },
    /// None of it was taken.
    NotTaken,
}

/// Ids that wait, and until when.
struct Queue {
    waiting: VecDeque<CallId>,
    next_try: Instant,
    backoff: Duration,
    refused: Vec<CallId>,
    refused_until: Instant,
    /// Refused ones that the log tells of already.
    told: HashSet<CallId>,
    is_away: bool,
}

/// Runs until the queue is closed and everything is written.
pub async fn run(writer: Writer, mut finished: UnboundedReceiver<CallId>) {
    let mut queue = Queue::new();
    let mut is_open = true;
    loop {
        let mut news = Vec::new();
        tokio::select! {
            biased;
            received = finished.recv_many(&mut news, BATCH), if is_open => is_open = received > 0,
            () = sleep_until(queue.next_try), if !queue.waiting.is_empty() => {}
            () = sleep_until(queue.refused_until), if !queue.refused.is_empty() => {
                news.append(&mut queue.refused);
            }
            else => return,
        }
        queue.waiting.extend(news);
        if queue.waiting.is_empty() || Instant::now() < queue.next_try {
            continue;
        }
        let batch: Vec<_> = queue.waiting.drain(..queue.waiting.len().min(BATCH)).collect();
        let fate = writer.write(&batch).await;
        queue.note(batch, fate);
    }
}

// === impl Queue ===

impl Queue {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            waiting: VecDeque::new(),
            next_try: now,
            backoff: BACKOFF_FIRST,
            refused: Vec::new(),
            refused_until: now,
            told: HashSet::new(),
            is_away: false,
        }
    }

    fn note(&mut self, batch: Vec<CallId>, fate: Fate) {
        match fate {
            Fate::Taken { refused } => {
                self.backoff = BACKOFF_FIRST;
                if std::mem::take(&mut self.is_away) {
                    info!("records reach the database again");
                }
                if self.refused.is_empty() {
                    self.told.retain(|call| refused.iter().any(|(again, _)| again == call));
                    self.refused_until = Instant::now() + REFUSED_FOR;
                }
                for (call, cause) in refused {
                    if self.told.insert(call) {
                        call_span(call).in_scope(|| {
                            error!(
                                error = format!("{cause:#}"),
                                "the database refuses a record; it is tried again and again"
                            );
                        });
                    }
                    self.refused.push(call);
                }
            }
            Fate::NotTaken => {
                if !self.is_away {
                    error!("the database takes no records; they wait in the journal");
                }
                self.is_away = true;
                self.next_try = Instant::now() + self.backoff;
                self.backoff = (self.backoff * 2).min(BACKOFF_MOST);
                // Behind the others: it may be these that it won't take.
                self.waiting.extend(batch);
            }
        }
    }
}

// === impl Writer ===

impl Writer {
    async fn write(&self, calls: &[CallId]) -> Fate {
        let batch: Vec<_> = calls.iter().filter_map(|call| self.spool.read(*call)).collect();
        let mut parts = vec![&batch[..]];
        let mut refused = Vec::new();
        while let Some(part) = parts.pop() {
            let Err(cause) = self.insert(part).await else { continue };
            debug!(error = format!("{cause:#}"), records = part.len(), "records were not taken");
            if !timeout(PATIENCE, self.archive.is_there()).await.unwrap_or(false) {
                return Fate::NotTaken;
            }
            // It may be a single one that it won't take.
            match part {
                [record] => refused.push((record.call, cause)),
                _ => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        if !batch.is_empty() && refused.len() == batch.len() {
            return Fate::NotTaken;
        }
        Fate::Taken { refused }
    }

    /// Writes all of these, or none.
    async fn insert(&self, batch: &[Arc<CallRecord>]) -> anyhow::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let inserted = timeout(PATIENCE, self.archive.insert(batch)).await;
        let inserted = inserted.context("no answer in time").flatten();
        self.metrics.journal_wrote(began.elapsed(), inserted.is_ok());
        inserted?;
        for record in batch {
            self.spool.forget(record.call);
        }
        (self.written)(&batch.iter().map(|record| record.call).collect());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use capconduit_entity::call_log;
    use sea_orm::EntityTrait;
    use tokio::sync::mpsc;

    use super::super::spool::Limits;
    use super::*;
    use crate::call::outcome::Outcome;
    use crate::call::record::{End, tests::record};
    use crate::clock::Timestamp;
    use crate::store::truth::Records;

    fn final_record() -> CallRecord {
        let mut record = record();
        let at: Timestamp = record.started_at;
        record.end = Some(End { at, outcome: Outcome::ABANDONED, cause: 16 });
        record
    }

    #[tokio::test]
    async fn a_record_that_the_database_refuses_holds_no_other_up() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        let db = crate::db::connect(&url).await.unwrap();
        crate::db::migrate(&db).await.unwrap();
        let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON call_logs
            WHEN NEW.incoming_did_number = 'poison' BEGIN SELECT RAISE(ABORT, 'no'); END";
        sea_orm::ConnectionTrait::execute_unprepared(&db, refuse).await.unwrap();
        let (spool, _) = Spool::open(folder.path(), Limits::most_mb(64)).unwrap();
        let spool = Arc::new(spool);
        let (queue_in, queue) = mpsc::unbounded_channel();
        let mut poison = final_record();
        poison.dialled = "poison".to_owned();
        for record in [poison.clone(), final_record(), final_record()] {
            queue_in.send(record.call).unwrap();
            spool.append(&Arc::new(record));
        }
        let writer = Writer {
            archive: Arc::new(Records(db.clone())),
            spool: spool.clone(),
            written: Box::new(|_| {}),
            metrics: Arc::default(),
        };
        let writer = tokio::spawn(run(writer, queue));
        let written = async {
            while spool.figures().records > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), written).await.unwrap();
        assert_eq!(call_log::Entity::find().all(&db).await.unwrap().len(), 2);
        assert!(spool.read(poison.call).is_some(), "it stays in the spool");

        let allow = "DROP TRIGGER refuse";
        sea_orm::ConnectionTrait::execute_unprepared(&db, allow).await.unwrap();
        drop(queue_in);
        tokio::time::timeout(Duration::from_secs(10), writer).await.unwrap().unwrap();
        assert_eq!(call_log::Entity::find().all(&db).await.unwrap().len(), 3);
    }
}
