//! Moves final records into the database, in batches, for as long as it takes.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::DatabaseConnection;
use tokio::sync::mpsc::UnboundedReceiver;
use tracing::{error, info};

use super::spool::Spool;
use crate::call::CallRecord;
use crate::store::records;

/// Records per transaction: well below both databases' limits on bound values.
const BATCH: usize = 200;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MOST: Duration = Duration::from_secs(5);

/// Runs until the queue is closed and empty.
pub async fn run(
    db: DatabaseConnection,
    mut queue: UnboundedReceiver<Arc<CallRecord>>,
    spool: Arc<Spool>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        write(&db, &batch).await;
        for record in batch.drain(..) {
            spool.forget(record.call);
        }
    }
}

async fn write(db: &DatabaseConnection, batch: &[Arc<CallRecord>]) {
    let mut backoff = BACKOFF_FIRST;
    let mut failed = false;
    loop {
        match records::insert(db, batch).await {
            Ok(()) if failed => {
                info!(records = batch.len(), "records reach the database again");
                return;
            }
            Ok(()) => return,
            Err(cause) => {
                error!(error = %cause, records = batch.len(), "records wait for the database");
            }
        }
        failed = true;
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MOST);
    }
}
