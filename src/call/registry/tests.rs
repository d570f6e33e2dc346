//! Callers of whom no call is made.

use std::io::{self, Write};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ari::{AriError, Bridge, Done, Switch};
use crate::call::record::tests::record;
use crate::call::setup::InSetup;
use crate::capacity::{Keeper, Leases, MemoryLedger};
use crate::journal::{Archive, Journal, JournalSettings};
use crate::live::Live;
use crate::telemetry::{Metrics, Moment};

/// Has no channels, and notes who is hung up.
#[derive(Default)]
struct Empty(Mutex<Vec<(String, i32)>>);

#[async_trait::async_trait]
impl Switch for Empty {
    fn application(&self) -> &'static str {
        "capconduit"
    }

    async fn create_bridge(&self, _: &str) -> Done {
        Ok(())
    }

    async fn add_to_bridge(&self, _: &str, _: &str) -> Done {
        Ok(())
    }

    async fn remove_from_bridge(&self, _: &str, _: &str) -> Done {
        Ok(())
    }

    async fn destroy_bridge(&self, _: &str) -> Done {
        Ok(())
    }

    async fn create_channel(&self, _: &str, _: &str, _: &str) -> Done {
        Ok(())
    }

    async fn dial(&self, _: &str, _: &str, _: u32) -> Done {
        Ok(())
    }

    async fn answer(&self, _: &str) -> Done {
        Ok(())
    }

    async fn hang_up(&self, channel: &str, cause: i32) -> Done {
        self.0.lock().push((channel.to_owned(), cause));
        Ok(())
    }

    async fn channel(&self, _: &str) -> Result<Option<Channel>, AriError> {
        Ok(None)
    }

    async fn channels(&self) -> Result<Vec<Channel>, AriError> {
        Ok(Vec::new())
    }

    async fn bridges(&self) -> Result<Vec<Bridge>, AriError> {
        Ok(Vec::new())
    }
}

/// A database that is away.
struct Nowhere;

#[async_trait::async_trait]
impl Archive for Nowhere {
    async fn insert(&self, _: &[Arc<CallRecord>]) -> anyhow::Result<()> {
        anyhow::bail!("it is away")
    }

    async fn is_there(&self) -> bool {
        false
    }
}

/// So many records may be in memory alone.
const MOST_UNWRITTEN: u128 = 50_000;

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_caller_of_whom_no_record_could_be_kept_is_sent_away_counted_and_told_by_the_calls_id() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Arc::<Metrics>::default();
    // No byte may be written there.
    let settings =
        JournalSettings { directory: folder.path().into(), sync_interval_ms: 60_000, most_mb: 0 };
    let written = Box::new(|_: &HashSet<CallId>| {});
    let (journal, _tasks, _) =
        Journal::open(&settings, Arc::new(Nowhere), written, metrics.clone()).unwrap();
    let one = record();
    for number in 0..MOST_UNWRITTEN {
        assert!(journal.has_room());
        let call = CallId(uuid::Uuid::from_u128(number));
        journal.save(CallRecord { call, ..one.clone() });
    }
    let (switch, tracker) = (Arc::new(Empty::default()), TaskTracker::new());
    let ledger = Arc::new(MemoryLedger::default());
    let parts = Parts {
        switch: switch.clone(),
        keeper: Arc::new(Keeper::new(ledger, "", &Leases::default())),
        journal: Arc::new(journal),
        live: Arc::new(Live::new(1)),
        metrics: metrics.clone(),
        in_setup: InSetup::default(),
        opened: CancellationToken::new(),
    };
    let settings = CallSettings { most_in_setup: 0, audit_seconds: 15 };
    let connected = Arc::new(AtomicBool::new(true));
    let mark = Mark::of_instance("one");
    let routing = Arc::new(Current::default());
    let mut registry =
        Registry::new(Arc::new(parts), routing, connected, tracker.clone(), settings, 1, mark);
    let channel: Channel = serde_json::from_str(r#"{"id": "1795372952.7"}"#).unwrap();
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    tracing::subscriber::with_default(log.finish(), || {
        registry.on_caller(clock::now(), &channel);
    });
    tracker.close();
    tokio::time::timeout(Duration::from_secs(10), tracker.wait()).await.unwrap();

    assert_eq!(*switch.0.lock(), [(channel.id.0, cause::CONGESTION)]);
    let counted = metrics.text(&Moment::default());
    assert!(counted.contains("\ncapconduit_calls_without_record_total 1\n"), "{counted}");
    // It was no matter of how many calls were in setup.
    assert!(counted.contains("\ncapconduit_calls_over_limit_total 0\n"), "{counted}");
    let told = String::from_utf8(lines.0.lock().clone()).unwrap();
    let told: Vec<_> = told.lines().filter(|line| line.contains("no record")).collect();
    assert!(told.len() == 1 && told[0].contains("call{id="), "{told:?}");
}
