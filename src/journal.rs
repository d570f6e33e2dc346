//! Records on their way to the database: durable, never lost, never doubled.
//!
//! A call's record is appended to the [`spool`], files outside the process's
//! memory, before its client is dialled and again whenever something is
//! decided that must not be lost: answered, ended. An append is one write to
//! the page cache, so no call waits for a disk, and `kill -9` loses nothing;
//! the files are synced in groups, so a power cut loses no more than the last
//! interval. The [`writer`] moves final records into the database in batches,
//! and tries for as long as it takes. Inserting a record twice is harmless:
//! the database knows it by its call id.
//!
//! Nothing here holds a call up. Where the disk takes nothing, records stay in
//! memory, final ones go to the database all the same, and everything is
//! appended as soon as there is room. Files and memory are bounded: what waits
//! for the database is read from the files when it is its turn.
//!
//! At start, what is still in the spool comes back to the caller of
//! [`Journal::open`]: records that were never finished, since it knows what
//! became of their calls, and final ones, to be handed on to the database.

mod folder;
mod frame;
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
pub use spool::Figures;
use spool::{Found, Limits, Spool};
use writer::Writer;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalSettings {
    /// The folder that holds the spool.
    pub directory: PathBuf,
    /// The most that a power cut may lose, in milliseconds.
    pub sync_interval_ms: u64,
    /// The most that may wait there, in MiB.
    pub most_mb: u64,
}

/// Where final records are kept for good.
#[async_trait::async_trait]
pub trait Archive: Send + Sync + 'static {
    /// Takes all of these, or none. One that it has already stays as it is.
    async fn insert(&self, batch: &[Arc<CallRecord>]) -> anyhow::Result<()>;

    /// Whether it would take anything now.
    async fn is_there(&self) -> bool;
}

/// Takes records from calls. Cheap to share.
pub struct Journal {
    spool: Arc<Spool>,
    finished: mpsc::UnboundedSender<CallId>,
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
    /// Calls whose final records the database may not have yet: for
    /// [`Journal::read`] and [`Journal::hand_on`].
    pub finished: Vec<CallId>,
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
        let limits = Limits::most_mb(settings.most_mb);
        let (spool, found) = Spool::open(&settings.directory, limits)
            .map_err(|source| OpenError { directory: settings.directory.clone(), source })?;
        metrics.journal_damaged(found.damaged_files);
        let spool = Arc::new(spool);
        let cancel = CancellationToken::new();
        // Unbounded on purpose: a call is never refused because the database is slow,
        // and what waits here is an id.
        let (finished, queue) = mpsc::unbounded_channel();
        let writer = Writer { archive, spool: spool.clone(), written, metrics };
        let writer = tokio::spawn(writer::run(writer, queue));
        let sync = tokio::spawn(sync_in_groups(
            spool.clone(),
            Duration::from_millis(settings.sync_interval_ms),
            cancel.clone(),
        ));
        let journal = Self { spool, finished };
        let Found { unfinished, finished, last_alive, .. } = found;
        Ok((
            journal,
            JournalTasks { sync, writer, cancel },
            Left { unfinished, finished, last_alive },
        ))
    }

    /// The newest records of these calls, as far as the database doesn't have them yet.
    pub fn read(&self, calls: &[CallId]) -> impl Iterator<Item = Arc<CallRecord>> {
        calls.iter().filter_map(|call| self.spool.read(*call))
    }

    /// Lets records that an earlier run left go on to the database.
    pub fn hand_on(&self, finished: Vec<CallId>) {
        for call in finished {
            self.finish(call);
        }
    }

    /// Makes the record survive a crash of the process. A final one goes on to the database.
    pub fn save(&self, record: CallRecord) {
        let (call, is_final) = (record.call, record.end.is_some());
        self.spool.append(&Arc::new(record));
        if is_final {
            self.finish(call);
        }
    }

    pub fn figures(&self) -> Figures {
        self.spool.figures()
    }

    /// Whether the record of one more call would have a place: always, unless the
    /// disk and the database have taken nothing for tens of thousands of calls.
    pub fn has_room(&self) -> bool {
        self.spool.has_room()
    }

    fn finish(&self, call: CallId) {
        if self.finished.send(call).is_err() {
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
        if spool.has_work() {
            let spool = spool.clone();
            // What goes wrong is told once, by the spool.
            if let Err(cause) = tokio::task::spawn_blocking(move || spool.sync()).await {
                error!(error = %cause, "the journal's sync was cut off");
            }
        }
        if stopping {
            return;
        }
    }
}
