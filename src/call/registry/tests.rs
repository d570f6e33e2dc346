//! Callers of whom no call is made.

use std::io::{self, Write};

use capconduit_entity::{CampaignStatus, E164, Status, Strategy};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ari::{AriError, Bridge, Done, Switch};
use crate::call::record::tests::record;
use crate::call::setup::InSetup;
use crate::capacity::{Keeper, Leases, MemoryLedger};
use crate::ids::{CampaignId, DidId, SellerId};
use crate::journal::{Archive, Journal, JournalSettings, JournalTasks};
use crate::live::Live;
use crate::routing::snapshot::tests::link;
use crate::routing::{Campaign, Did, Snapshot};
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

fn registry(
    switch: Arc<Empty>,
    journal: Journal,
    metrics: Arc<Metrics>,
    snapshot: Snapshot,
    most_in_setup: usize,
) -> Registry {
    let ledger = Arc::new(MemoryLedger::default());
    let parts = Parts {
        switch,
        keeper: Arc::new(Keeper::new(ledger, "", &Leases::default())),
        journal: Arc::new(journal),
        live: Arc::new(Live::new(1)),
        metrics,
        in_setup: InSetup::default(),
        opened: CancellationToken::new(),
    };
    let settings = CallSettings { most_in_setup, audit_seconds: 15 };
    let routing = Arc::new(Current::default());
    routing.set(snapshot);
    let (connected, tracker) = (Arc::new(AtomicBool::new(true)), TaskTracker::new());
    Registry::new(
        Arc::new(parts),
        routing,
        connected,
        tracker,
        settings,
        1,
        Mark::of_instance("one"),
    )
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
    let (journal, _tasks) = journal(&folder, 0, metrics.clone());
    let one = record();
    for number in 0..MOST_UNWRITTEN {
        assert!(journal.has_room());
        let call = CallId(uuid::Uuid::from_u128(number));
        journal.save(CallRecord { call, ..one.clone() });
    }
    let switch = Arc::new(Empty::default());
    let mut registry = registry(switch.clone(), journal, metrics.clone(), Snapshot::default(), 0);
    registry.parts.opened.cancel();
    let tracker = registry.tracker.clone();
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

fn journal(folder: &TempDir, most_mb: u64, metrics: Arc<Metrics>) -> (Journal, JournalTasks) {
    let settings =
        JournalSettings { directory: folder.path().into(), sync_interval_ms: 60_000, most_mb };
    let written = Box::new(|_: &HashSet<CallId>| {});
    let (journal, tasks, _) =
        Journal::open(&settings, Arc::new(Nowhere), written, metrics).unwrap();
    (journal, tasks)
}

fn caller(number: u32) -> Channel {
    let json =
        format!(r#"{{"id": "1795372952.{number}", "dialplan": {{"exten": "+15550100001"}}}}"#);
    serde_json::from_str(&json).unwrap()
}

/// One number, sold to one client without any cap.
fn one_number() -> Snapshot {
    let links = vec![link(1, 1, 1)];
    let campaign = Campaign {
        id: CampaignId(1),
        name: "Solar".to_owned(),
        status: CampaignStatus::Active,
        strategy: Strategy::Priority,
        dial_timeout_seconds: 20,
        links: links.clone(),
    };
    let did = Did {
        id: DidId(1),
        number: E164::parse("+15550100001").unwrap(),
        status: Status::Active,
        seller: SellerId(1),
        seller_active: true,
        campaign: Some(Arc::new(campaign)),
    };
    Snapshot::new(vec![did], links)
}

#[tokio::test]
async fn callers_wait_for_the_ledger_and_are_then_served_no_more_at_once_than_may_be_in_setup() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Arc::<Metrics>::default();
    let (journal, _tasks) = journal(&folder, 16, metrics.clone());
    let mut registry = registry(Arc::default(), journal, metrics.clone(), one_number(), 2);
    for number in 0..5 {
        registry.on_caller(clock::now(), &caller(number));
        registry.on_caller(clock::now(), &caller(number));
    }
    registry.serve_waiting();
    assert_eq!((registry.calls.len(), registry.waiting.len()), (0, 5));
    registry.parts.opened.cancel();
    for left in [3, 1, 0] {
        registry.serve_waiting();
        assert_eq!((registry.calls.len(), registry.waiting.len()), (5 - left, left));
        registry.tell_all(&Input::CallerGone);
        let free = async {
            while registry.parts.in_setup.count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), free).await.unwrap();
    }
    let counted = metrics.text(&Moment::default());
    assert!(counted.contains("\ncapconduit_calls_over_limit_total 0\n"), "{counted}");
}

#[tokio::test]
async fn callers_who_wait_when_asterisk_starts_anew_or_the_service_ends_have_calls_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _tasks) = journal(&folder, 16, Arc::default());
    let mut registry = registry(Arc::default(), journal, Arc::default(), one_number(), 2);
    for number in 0..3 {
        registry.on_caller(clock::now(), &caller(number));
    }
    registry.on_signal(Signal::Restarted);
    assert_eq!((registry.calls.len(), registry.waiting.len()), (3, 0));
    // The new one gives its channels the same names.
    registry.on_caller(clock::now(), &caller(0));
    assert_eq!((registry.calls.len(), registry.waiting.len()), (3, 1));
    registry.on_request(Request::HangUpAll);
    registry.on_caller(clock::now(), &caller(1));
    assert_eq!((registry.calls.len(), registry.waiting.len()), (5, 0));
}
