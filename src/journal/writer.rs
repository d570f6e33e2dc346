//! Moves final records into the database, in batches, for as long as it takes.
//!
//! What waits here are the ids of calls: their records are in the spool, and are
//! read when it is their turn. While the database takes nothing, everything waits,
//! and it is tried again and again. What it refuses while it is there, and what can't
//! be read from the spool, is tried again later, and holds no other up.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::error::Elapsed;
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
/// How long a record that was refused, or can't be read, waits for its next try.
const HELD_BACK_FOR: Duration = Duration::from_secs(5);
/// If so many are refused together and none is taken, it isn't for what is in them.
const TELLING: usize = 10;
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
    Taken { refused: Vec<(CallId, anyhow::Error)>, unread: Vec<CallId> },
    /// None of it was taken.
    NotTaken,
}

/// Ids that wait, and until when.
struct Queue {
    waiting: VecDeque<CallId>,
    next_try: Instant,
    backoff: Duration,
    held_back: Vec<CallId>,
    held_back_until: Instant,
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
            () = sleep_until(queue.held_back_until), if !queue.held_back.is_empty() => {
                news.append(&mut queue.held_back);
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
            held_back: Vec::new(),
            held_back_until: now,
            told: HashSet::new(),
            is_away: false,
        }
    }

    fn note(&mut self, batch: Vec<CallId>, fate: Fate) {
        match fate {
            Fate::Taken { refused, unread } => {
                self.backoff = BACKOFF_FIRST;
                let is_any_taken = refused.len() + unread.len() < batch.len();
                if is_any_taken && std::mem::take(&mut self.is_away) {
                    info!("records reach the database again");
                }
                if self.held_back.is_empty() {
                    self.told.retain(|call| refused.iter().any(|(again, _)| again == call));
                    self.held_back_until = Instant::now() + HELD_BACK_FOR;
                }
                // The spool tells of these.
                self.held_back.extend(unread);
                for (call, cause) in refused {
                    if self.told.insert(call) {
                        call_span(call).in_scope(|| {
                            error!(
                                error = format!("{cause:#}"),
                                "the database refuses a record; it is tried again and again"
                            );
                        });
                    }
                    self.held_back.push(call);
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
        let (batch, unread) = self.read(calls);
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
        if !batch.is_empty() && refused.len() == batch.len() && self.is_no_fault_of(&refused) {
            return Fate::NotTaken;
        }
        Fate::Taken { refused, unread }
    }

    /// The records of these calls, and those of them that can't be read now.
    fn read(&self, calls: &[CallId]) -> (Vec<Arc<CallRecord>>, Vec<CallId>) {
        let (mut records, mut unread) = (Vec::new(), Vec::new());
        for call in calls {
            match self.spool.read(*call) {
                Ok(record) => records.extend(record),
                Err(_) => unread.push(*call),
            }
        }
        (records, unread)
    }

    /// Whether the database takes none of these because it takes nothing, though it is there.
    fn is_no_fault_of(&self, refused: &[(CallId, anyhow::Error)]) -> bool {
        let means_away =
            |cause: &anyhow::Error| cause.is::<Elapsed>() || self.archive.means_away(cause);
        refused.len() >= TELLING || refused.iter().all(|(_, cause)| means_away(cause))
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
    use parking_lot::Mutex;
    use sea_orm::EntityTrait;
    use tempfile::TempDir;
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

    /// A database that refuses what is dialled `poison`, and is full if it `is_full`.
    #[derive(Default)]
    struct Picky {
        taken: Mutex<Vec<CallId>>,
        is_full: bool,
    }

    #[async_trait::async_trait]
    impl Archive for Picky {
        async fn insert(&self, batch: &[Arc<CallRecord>]) -> anyhow::Result<()> {
            anyhow::ensure!(!self.is_full, "it is full");
            anyhow::ensure!(batch.iter().all(|record| record.dialled != "poison"), "no");
            self.taken.lock().extend(batch.iter().map(|record| record.call));
            Ok(())
        }

        async fn is_there(&self) -> bool {
            true
        }

        fn means_away(&self, cause: &anyhow::Error) -> bool {
            cause.to_string() == "it is full"
        }

        async fn recorded(&self, _: &[CallId]) -> anyhow::Result<HashSet<CallId>> {
            Ok(self.taken.lock().iter().copied().collect())
        }
    }

    /// A writer, whose spool holds these in files alone.
    fn writer(folder: &TempDir, archive: &Arc<Picky>, records: &[CallRecord]) -> Writer {
        let limits = Limits { kept_records: 0, ..Limits::most_mb(64) };
        let (spool, _) = Spool::open(folder.path(), limits).unwrap();
        records.iter().for_each(|record| spool.append(&Arc::new(record.clone())));
        Writer {
            archive: archive.clone(),
            spool: Arc::new(spool),
            written: Box::new(|_| {}),
            metrics: Arc::default(),
        }
    }

    fn poison() -> CallRecord {
        CallRecord { dialled: "poison".to_owned(), ..final_record() }
    }

    fn calls(records: &[CallRecord]) -> Vec<CallId> {
        records.iter().map(|record| record.call).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_is_refused_alone_holds_no_other_up_either() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Arc::default();
        let records = [poison(), final_record()];
        let writer = writer(&folder, &archive, &records);
        let spool = writer.spool.clone();
        let (queue_in, queue) = mpsc::unbounded_channel();
        tokio::spawn(run(writer, queue));
        queue_in.send(records[0].call).unwrap();
        // Time goes on when nothing is left to be done but to wait.
        tokio::time::sleep(Duration::from_millis(1)).await;
        queue_in.send(records[1].call).unwrap();
        let taken = async {
            while archive.taken.lock().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(BACKOFF_FIRST / 2, taken).await.expect("it is held up by none");
        assert!(spool.read(records[0].call).unwrap().is_some(), "it stays in the spool");
    }

    #[tokio::test]
    async fn a_few_records_that_are_refused_are_told_from_a_database_that_takes_nothing() {
        for (is_full, count, is_their_fault) in
            [(false, 1, true), (false, TELLING, false), (true, 1, false), (true, TELLING, false)]
        {
            let folder = tempfile::tempdir().unwrap();
            let archive = Arc::new(Picky { is_full, ..Picky::default() });
            let records: Vec<_> = (0..count).map(|_| poison()).collect();
            let fate = writer(&folder, &archive, &records).write(&calls(&records)).await;
            match fate {
                Fate::Taken { refused, .. } => assert!(is_their_fault && refused.len() == count),
                Fate::NotTaken => assert!(!is_their_fault, "{count}, {is_full}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_cannot_be_read_is_tried_again_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Arc::default();
        let records = [final_record(), final_record()];
        let writer = writer(&folder, &archive, &records);
        let file = folder.path().join("calls-000000000001.journal");
        let elsewhere = folder.path().join("elsewhere");
        std::fs::rename(&file, &elsewhere).unwrap();
        let (queue_in, queue) = mpsc::unbounded_channel();
        calls(&records).into_iter().for_each(|call| queue_in.send(call).unwrap());
        drop(queue_in);
        let mut writer = tokio::spawn(run(writer, queue));
        let early = timeout(10 * HELD_BACK_FOR, &mut writer).await;
        assert!(early.is_err(), "it tries for as long as it takes");
        assert!(archive.taken.lock().is_empty());
        std::fs::rename(&elsewhere, &file).unwrap();
        timeout(2 * HELD_BACK_FOR, writer).await.unwrap().unwrap();
        assert_eq!(*archive.taken.lock(), calls(&records));
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
        assert!(spool.read(poison.call).unwrap().is_some(), "it stays in the spool");

        let allow = "DROP TRIGGER refuse";
        sea_orm::ConnectionTrait::execute_unprepared(&db, allow).await.unwrap();
        drop(queue_in);
        tokio::time::timeout(Duration::from_secs(10), writer).await.unwrap().unwrap();
        assert_eq!(call_log::Entity::find().all(&db).await.unwrap().len(), 3);
    }
}
