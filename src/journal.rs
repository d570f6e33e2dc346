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
//! Of the first, those that the database has are over
//! ([`Journal::leave_out_recorded`]).

mod folder;
mod frame;
mod spool;
mod writer;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::call::CallRecord;
use crate::clock::Timestamp;
use crate::ids::CallId;
use crate::telemetry::Metrics;
use crate::vital::Vital;
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

    /// Whether this is why it takes nothing at the moment, whatever is in a record.
    fn means_away(&self, _cause: &anyhow::Error) -> bool {
        false
    }

    /// Those of these calls whose records it has.
    async fn recorded(&self, calls: &[CallId]) -> anyhow::Result<HashSet<CallId>>;
}

/// Takes records from calls. Cheap to share.
pub struct Journal {
    spool: Arc<Spool>,
    finished: mpsc::UnboundedSender<CallId>,
    /// How long a record may be on its way to the disk before that is an alarm.
    sync_patience: Duration,
}

/// The tasks behind a journal.
pub struct JournalTasks {
    /// Whether both of them are sound.
    pub vital: Vital,
    sync: JoinHandle<()>,
    writer: JoinHandle<()>,
    cancel: CancellationToken,
}

/// Hears which calls the database tells of now.
pub type Written = Box<dyn Fn(&HashSet<CallId>) + Send + Sync>;

/// What an earlier run left in the spool.
pub struct Left {
    /// Calls that it didn't bring to their end, as far as the spool knows.
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
        let vital = Vital::default();
        let writer = tokio::spawn(vital.part("the record writer", writer::run(writer, queue)));
        let interval = Duration::from_millis(settings.sync_interval_ms);
        let sync = sync_in_groups(spool.clone(), interval, cancel.clone());
        let sync = tokio::spawn(vital.part("the journal's sync", sync));
        let journal = Self { spool, finished, sync_patience: interval + SYNC_PATIENCE };
        let Found { unfinished, finished, last_alive, .. } = found;
        Ok((
            journal,
            JournalTasks { vital, sync, writer, cancel },
            Left { unfinished, finished, last_alive },
        ))
    }

    /// Leaves out calls that the database has: they are over, and to take them up would
    /// give back what they used. Where it can't be asked, none is left out.
    pub async fn leave_out_recorded(&self, left: &mut Left, archive: &dyn Archive) {
        if left.unfinished.is_empty() {
            return;
        }
        let calls: Vec<_> = left.unfinished.iter().map(|record| record.call).collect();
        let asked = timeout(RECORDED_PATIENCE, archive.recorded(&calls)).await;
        match asked.context("no answer in time").flatten() {
            Ok(recorded) => {
                left.unfinished.retain(|record| !recorded.contains(&record.call));
                recorded.iter().for_each(|call| self.spool.forget(*call));
                if !recorded.is_empty() {
                    info!(
                        calls = recorded.len(),
                        "calls that the database has are over, though the journal doesn't know their ends"
                    );
                }
            }
            Err(cause) => {
                warn!(
                    error = format!("{cause:#}"),
                    "the database doesn't say which calls it has; all without an end are taken up"
                );
            }
        }
    }

    /// The newest records of these calls, as far as the database doesn't have them yet
    /// and they can be read.
    pub fn read(&self, calls: &[CallId]) -> impl Iterator<Item = Arc<CallRecord>> {
        // The spool tells of one that can't.
        calls.iter().filter_map(|call| self.spool.read(*call).ok().flatten())
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
        let mut figures = self.spool.figures();
        figures.is_failing |= self.spool.unsynced_for() > self.sync_patience;
        figures
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
        if timeout(patience, self.writer).await.is_err() {
            warn!("records are left in the journal for the next start");
        }
        self.cancel.cancel();
        if !matches!(timeout(SYNC_PATIENCE, self.sync).await, Ok(Ok(()))) {
            warn!("the journal's last sync failed");
        }
    }
}

/// How exactly the end of a run that was killed is known.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// A disk that takes longer than that for a sync doesn't answer.
const SYNC_PATIENCE: Duration = Duration::from_secs(5);
/// Calls that are up wait for that at the start.
const RECORDED_PATIENCE: Duration = Duration::from_secs(5);

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
            sync(spool.clone()).await;
        }
        if stopping {
            return;
        }
    }
}

/// Syncs, however long that takes, and says so where the disk doesn't answer.
async fn sync(spool: Arc<Spool>) {
    // What goes wrong is told once, by the spool.
    let mut syncing = tokio::task::spawn_blocking(move || spool.sync());
    let synced = match timeout(SYNC_PATIENCE, &mut syncing).await {
        Ok(synced) => synced,
        Err(_) => {
            error!(
                "the journal's disk doesn't answer; a power cut would take more than the last interval"
            );
            let synced = syncing.await;
            info!("the journal's disk answers again");
            synced
        }
    };
    if let Err(cause) = synced {
        error!(error = %cause, "the journal's sync was cut off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::record::tests::record;

    /// A database that has these calls, if it is there.
    struct Has(Option<HashSet<CallId>>);

    #[async_trait::async_trait]
    impl Archive for Has {
        async fn insert(&self, _: &[Arc<CallRecord>]) -> anyhow::Result<()> {
            anyhow::bail!("it is away")
        }

        async fn is_there(&self) -> bool {
            false
        }

        async fn recorded(&self, calls: &[CallId]) -> anyhow::Result<HashSet<CallId>> {
            let has = self.0.as_ref().context("it is away")?;
            Ok(calls.iter().filter(|call| has.contains(*call)).copied().collect())
        }
    }

    fn open(folder: &tempfile::TempDir, sync_interval_ms: u64) -> (Journal, JournalTasks, Left) {
        let directory = folder.path().to_owned();
        let settings = JournalSettings { directory, sync_interval_ms, most_mb: 64 };
        Journal::open(&settings, Arc::new(Has(None)), Box::new(|_| {}), Arc::default()).unwrap()
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let held = async {
            while !holds() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), held).await.expect(what);
    }

    /// The calls that a start takes up which finds `left` in its journal.
    async fn taken_up(left: &[CallRecord], archive: Has) -> (Vec<CallRecord>, usize) {
        let folder = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(folder.path(), Limits::most_mb(64)).unwrap();
        left.iter().for_each(|record| spool.append(&Arc::new(record.clone())));
        drop(spool);
        let (journal, _tasks, mut left) = open(&folder, 60_000);
        journal.leave_out_recorded(&mut left, &archive).await;
        (left.unfinished, journal.figures().records)
    }

    #[tokio::test]
    async fn a_call_that_the_database_has_is_over_though_the_journal_does_not_know_its_end() {
        let (over, up) = (record(), record());
        let archive = Has(Some(HashSet::from([over.call])));
        assert_eq!(taken_up(&[over, up.clone()], archive).await, (vec![up], 1));
    }

    #[tokio::test]
    async fn every_call_without_an_end_is_taken_up_while_the_database_is_away() {
        let calls = [record(), record()];
        assert_eq!(taken_up(&calls, Has(None)).await, (calls.to_vec(), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_saved_is_on_the_disk_within_the_interval() {
        const TICK: Duration = Duration::from_millis(10);
        let folder = tempfile::tempdir().unwrap();
        let (journal, _tasks, _) = open(&folder, 500);
        tokio::time::sleep(Duration::from_secs(3)).await;
        for _ in 0..3 {
            journal.save(record());
            assert!(journal.spool.has_work());
            let saved = Instant::now();
            while journal.spool.has_work() {
                assert!(saved.elapsed() <= Duration::from_millis(500) + TICK);
                tokio::time::sleep(TICK).await;
            }
            assert_eq!(journal.spool.unsynced_for(), Duration::ZERO);
        }
    }

    #[tokio::test]
    async fn a_disk_that_does_not_answer_raises_the_alarm_until_it_does() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _tasks, _) = open(&folder, 10);
        journal.sync_patience = Duration::from_millis(100);
        assert!(!journal.figures().is_failing);
        journal.spool.faults().hang(true);
        journal.save(record());
        until("the alarm is raised", || journal.figures().is_failing).await;
        assert!(!journal.spool.figures().is_failing, "nothing failed");
        journal.spool.faults().hang(false);
        until("the alarm is over", || !journal.figures().is_failing).await;
    }
}
