//! Moves final records into the database, in batches, for as long as it takes.
//!
//! Records that can't be written now wait and are tried again, while those that
//! come after them go their way: neither a database that is away nor a record
//! that it refuses holds anything else up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tracing::{error, info};

use super::spool::Spool;
use super::{Archive, Written};
use crate::call::CallRecord;
use crate::telemetry::Metrics;

/// Records per transaction: well below both databases' limits on bound values.
const BATCH: usize = 200;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MOST: Duration = Duration::from_secs(5);

/// What a writer works with.
pub struct Writer {
    pub archive: Arc<dyn Archive>,
    pub spool: Arc<Spool>,
    pub written: Written,
    pub metrics: Arc<Metrics>,
}

/// Runs until the queue is closed and everything is written.
pub async fn run(writer: Writer, mut queue: UnboundedReceiver<Arc<CallRecord>>) {
    let mut waiting: Vec<Arc<CallRecord>> = Vec::new();
    let mut backoff = BACKOFF_FIRST;
    let mut open = true;
    while open || !waiting.is_empty() {
        let mut batch = Vec::with_capacity(BATCH);
        tokio::select! {
            biased;
            received = queue.recv_many(&mut batch, BATCH), if open => open = received > 0,
            () = tokio::time::sleep(backoff), if !waiting.is_empty() => {
                batch.extend(waiting.drain(..waiting.len().min(BATCH)));
                backoff = (backoff * 2).min(BACKOFF_MOST);
            }
        }
        let had_to_wait = !waiting.is_empty();
        waiting.extend(writer.write(batch).await);
        if waiting.is_empty() {
            backoff = BACKOFF_FIRST;
            if had_to_wait {
                info!("every record has reached the database again");
            }
        }
    }
}

impl Writer {
    /// Writes what can be written now; what can't comes back.
    async fn write(&self, batch: Vec<Arc<CallRecord>>) -> Vec<Arc<CallRecord>> {
        let Err(cause) = self.insert(&batch).await else { return Vec::new() };
        error!(error = %cause, records = batch.len(), "records wait for the database");
        if batch.len() == 1 || !self.archive.is_there().await {
            return batch;
        }
        // The database is there: it may be a single one that it won't take.
        let mut refused = Vec::new();
        for record in batch {
            if let Err(cause) = self.insert(std::slice::from_ref(&record)).await {
                error!(call.id = %record.call, error = %cause, "the database refuses a record");
                refused.push(record);
            }
        }
        refused
    }

    /// Writes all of these, or none.
    async fn insert(&self, batch: &[Arc<CallRecord>]) -> anyhow::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let inserted = self.archive.insert(batch).await;
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
        let (spool, _) = Spool::open(folder.path()).unwrap();
        let spool = Arc::new(spool);
        let (queue_in, queue) = mpsc::unbounded_channel();
        let mut poison = final_record();
        poison.dialled = "poison".to_owned();
        for record in [poison.clone(), final_record(), final_record()] {
            let record = Arc::new(record);
            spool.append(&record).unwrap();
            queue_in.send(record).unwrap();
        }
        let writer = Writer {
            archive: Arc::new(Records(db.clone())),
            spool: spool.clone(),
            written: Box::new(|_| {}),
            metrics: Arc::default(),
        };
        let writer = tokio::spawn(run(writer, queue));
        let written = async {
            while spool.depth() > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), written).await.unwrap();
        assert_eq!(call_log::Entity::find().all(&db).await.unwrap().len(), 2);
        assert_eq!(spool.unwritten()[0].call, poison.call, "it stays in the spool");

        let allow = "DROP TRIGGER refuse";
        sea_orm::ConnectionTrait::execute_unprepared(&db, allow).await.unwrap();
        drop(queue_in);
        tokio::time::timeout(Duration::from_secs(10), writer).await.unwrap().unwrap();
        assert_eq!(call_log::Entity::find().all(&db).await.unwrap().len(), 3);
    }
}
