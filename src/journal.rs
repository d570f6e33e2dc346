//! Records on their way to the database: durable, in order, never doubled.
//!
//! A call's record is appended to the [`spool`], a file outside the process's
//! memory, before its client is dialled and again whenever something is
//! decided that must not be lost: answered, ended. An append is one write to
//! the page cache, so no call waits for a disk, and `kill -9` loses nothing;
//! the file is synced in groups, so a power cut loses no more than the last
//! interval. The [`writer`] moves final records into the database in batches,
//! and tries for as long as it takes. Inserting a record twice is harmless:
//! the database knows it by its call id.
//!
//! At start, what is still in the spool comes back to the caller of
//! [`Journal::open`]: records that were never finished, since it knows what
//! became of their calls, and final ones, to be handed on to the database.

mod spool;
mod writer;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::call::CallRecord;
use crate::clock::Timestamp;
use crate::ids::CallId;
use crate::telemetry::Metrics;
use spool::Spool;
use writer::Writer;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalSettings {
    /// The folder that holds the spool.
    pub directory: PathBuf,
    /// The most that a power cut may lose, in milliseconds.
    pub sync_interval_ms: u64,
}

/// Where final records are kept for good.
#[async_trait::async_trait]
pub trait Archive: Send + Sync + 'static {
    /// Takes all of these, or none. One that it has already stays as it is.
    async fn insert(&self, batch: &[Arc<CallRecord>]) -> anyhow::Result<()>;

    /// Whether it answers at all.
    async fn is_there(&self) -> bool;
}

/// Takes records from calls. Cheap to share.
pub struct Journal {
    spool: Arc<Spool>,
    finished: mpsc::UnboundedSender<Arc<CallRecord>>,
}

/// The tasks behind a journal.
pub struct JournalTasks {
    sync: JoinHandle<()>,
    writer: JoinHandle<()>,
    cancel: CancellationToken,
}

/// Hears which calls the database tells of now.
pub type Written = Box<dyn Fn(&HashSet<CallId>) + Send + Sync>;

/// What an earlier run left in the spool.
pub struct Left {
    /// Calls that it didn't bring to their end.
    pub unfinished: Vec<CallRecord>,
    /// Records that the database doesn't have yet: for [`Journal::hand_on`].
    pub finished: Vec<Arc<CallRecord>>,
    /// When that run last noted that it runs: within about a second of its end.
    pub last_alive: Option<Timestamp>,
}

/// The spool's folder can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the journal in {directory} can't be opened")]
pub struct OpenError {
    directory: PathBuf,
    #[source]
    source: std::io::Error,
}

impl Journal {
    /// Opens the spool, and returns what an earlier run left in it.
    ///
    /// # Errors
    /// When the folder can't be made, read or written to.
    pub fn open(
        settings: &JournalSettings,
        archive: Arc<dyn Archive>,
        written: Written,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, JournalTasks, Left), OpenError> {
        let (spool, found) = Spool::open(&settings.directory)
            .map_err(|source| OpenError { directory: settings.directory.clone(), source })?;
        let spool = Arc::new(spool);
        let cancel = CancellationToken::new();
        // Unbounded on purpose: what waits here is what the spool holds too,
        // and a call is never refused because the database is slow.
        let (finished, queue) = mpsc::unbounded_channel();
        let writer = Writer { archive, spool: spool.clone(), written, metrics };
        let writer = tokio::spawn(writer::run(writer, queue));
        let sync = tokio::spawn(sync_in_groups(
            spool.clone(),
            Duration::from_millis(settings.sync_interval_ms),
            cancel.clone(),
        ));
        let journal = Self { spool, finished };
        let (finished, unfinished): (Vec<_>, Vec<_>) =
            found.records.into_iter().partition(|record| record.end.is_some());
        let finished = finished.into_iter().map(Arc::new).collect();
        let left = Left { unfinished, finished, last_alive: found.last_alive };
        Ok((journal, JournalTasks { sync, writer, cancel }, left))
    }

    /// Lets records that an earlier run left go on to the database.
    pub fn hand_on(&self, finished: Vec<Arc<CallRecord>>) {
        for record in finished {
            self.finish(record);
        }
    }

    /// Makes the record survive a crash of the process. A final one goes on to the database.
    pub fn save(&self, record: CallRecord) {
        let record = Arc::new(record);
        if let Err(cause) = self.spool.append(&record) {
            // Calls go on: the record is still in memory and goes to the database.
            error!(call.id = %record.call, error = %cause, "a record could not be spooled");
        }
        if record.end.is_some() {
            self.finish(record);
        }
    }

    /// Records that the database doesn't have yet, those of live calls among them.
    pub fn depth(&self) -> usize {
        self.spool.depth()
    }

    /// Final records that the database doesn't have yet.
    pub fn unwritten(&self) -> Vec<Arc<CallRecord>> {
        self.spool.unwritten()
    }

    fn finish(&self, record: Arc<CallRecord>) {
        if self.finished.send(record).is_err() {
            warn!(
                "the record writer has stopped; the record waits in the spool for the next start"
            );
        }
    }
}

impl JournalTasks {
    /// Waits until everything handed in so far is in the database, but no
    /// longer than `patience`: what is left waits in the spool.
    pub async fn close(self, journal: Journal, patience: Duration) {
        drop(journal.finished);
        if tokio::time::timeout(patience, self.writer).await.is_err() {
            warn!("records are left in the journal for the next start");
        }
        self.cancel.cancel();
        if self.sync.await.is_err() {
            warn!("the journal's last sync failed");
        }
    }
}

/// How exactly the end of a run that was killed is known.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

async fn sync_in_groups(spool: Arc<Spool>, interval: Duration, cancel: CancellationToken) {
    let mut noted = Instant::now();
    loop {
        let stopping = tokio::select! {
            biased;
            () = tokio::time::sleep(interval) => false,
            () = cancel.cancelled() => true,
        };
        if noted.elapsed() >= ALIVE_INTERVAL {
            noted = Instant::now();
            if let Err(cause) = spool.note_alive() {
                warn!(error = %cause, "the journal's time could not be noted");
            }
        }
        if spool.has_news() {
            let spool = spool.clone();
            match tokio::task::spawn_blocking(move || spool.sync()).await {
                Ok(Ok(())) => {}
                Ok(Err(cause)) => error!(error = %cause, "the journal could not be synced to disk"),
                Err(cause) => error!(error = %cause, "the journal's sync was cut off"),
            }
        }
        if stopping {
            return;
        }
    }
}
