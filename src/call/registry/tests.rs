//! Callers of whom no call is made, and what is found that belongs to no call.

use std::io::{self, Write};
use std::sync::atomic::AtomicUsize;

use capconduit_entity::{CampaignStatus, E164, Status, Strategy};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ari::{AriError, Bridge, Done, Switch};
use crate::call::outcome::Outcome;
use crate::call::record::tests::record;
use crate::call::setup::InSetup;
use crate::call::watchdog::Found;
use crate::capacity::{HoldId, Keeper, Leases, MemoryLedger, Stage, Standing};
use crate::ids::{CampaignId, DidId, SellerId};
use crate::journal::{Archive, Journal, JournalSettings, JournalTasks};
use crate::live::Live;
use crate::routing::snapshot::tests::link;
use crate::routing::{Campaign, Did, Snapshot};
use crate::telemetry::{Metrics, Moment};

/// Has no channels, and notes who is hung up, and how often its channels are listed.
#[derive(Default)]
struct Empty(Mutex<Vec<(String, i32)>>, AtomicUsize);

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
        self.1.fetch_add(1, Ordering::Relaxed);
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

    async fn recorded(&self, _: &[CallId]) -> anyhow::Result<HashSet<CallId>> {
        anyhow::bail!("it is away")
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

/// What is logged meanwhile.
fn logged(act: impl FnOnce()) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    tracing::subscriber::with_default(log.finish(), act);
    String::from_utf8(lines.0.lock().clone()).unwrap()
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
    let told = logged(|| registry.on_caller(clock::now(), &channel, Arrival::New));
    tracker.close();
    tokio::time::timeout(Duration::from_secs(10), tracker.wait()).await.unwrap();

    assert_eq!(*switch.0.lock(), [(channel.id.0, cause::CONGESTION)]);
    let counted = metrics.text(&Moment::default());
    assert!(counted.contains("\ncapconduit_calls_without_record_total 1\n"), "{counted}");
    // It was no matter of how many calls were in setup.
    assert!(counted.contains("\ncapconduit_calls_over_limit_total 0\n"), "{counted}");
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
        registry.on_caller(clock::now(), &caller(number), Arrival::New);
        registry.on_caller(clock::now(), &caller(number), Arrival::New);
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
        registry.on_caller(clock::now(), &caller(number), Arrival::New);
    }
    registry.on_signal(Signal::Restarted);
    assert_eq!((registry.calls.len(), registry.waiting.len()), (3, 0));
    // The new one gives its channels the same names.
    registry.on_caller(clock::now(), &caller(0), Arrival::New);
    assert_eq!((registry.calls.len(), registry.waiting.len()), (3, 1));
    registry.on_request(Request::HangUpAll);
    registry.on_caller(clock::now(), &caller(1), Arrival::New);
    assert_eq!((registry.calls.len(), registry.waiting.len()), (5, 0));
}

#[tokio::test]
async fn callers_who_wait_when_the_service_is_asked_to_end_go_back_and_so_does_who_comes_later() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _tasks) = journal(&folder, 16, Arc::default());
    let switch = Arc::new(Empty::default());
    let mut registry = registry(switch.clone(), journal, Arc::default(), one_number(), 2);
    for number in 0..3 {
        registry.on_caller(clock::now(), &caller(number), Arrival::New);
    }
    registry.on_request(Request::SendBack);
    registry.on_caller(clock::now(), &caller(3), Arrival::New);
    assert_eq!((registry.calls.len(), registry.waiting.len()), (0, 0));
    registry.tracker.close();
    tokio::time::timeout(Duration::from_secs(10), registry.tracker.wait()).await.unwrap();
    let mut back: Vec<_> = switch.0.lock().iter().map(|(channel, _)| channel.clone()).collect();
    back.sort();
    assert_eq!(back, [0, 1, 2, 3].map(|number| caller(number).id.0));
}

/// A call has found its client, or has none.
async fn all_set_up(registry: &Registry) {
    registry.tell_all(&Input::CallerGone);
    let free = async {
        while registry.parts.in_setup.count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), free).await.unwrap();
}

#[tokio::test]
async fn callers_who_waited_in_the_dialplan_are_served_one_after_the_other_and_others_refused() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Arc::<Metrics>::default();
    let (journal, _tasks) = journal(&folder, 16, metrics.clone());
    let mut registry = registry(Arc::default(), journal, metrics.clone(), one_number(), 2);
    registry.parts.opened.cancel();
    for number in 0..5 {
        registry.on_caller(clock::now(), &caller(number), Arrival::Waited);
    }
    assert_eq!((registry.calls.len(), registry.waiting.len()), (2, 3));
    registry.serve_waiting();
    assert_eq!(registry.waiting.len(), 3, "there is no place");
    all_set_up(&registry).await;
    registry.serve_waiting();
    assert_eq!((registry.calls.len(), registry.waiting.len()), (4, 1));
    let counted = metrics.text(&Moment::default());
    assert!(counted.contains("\ncapconduit_calls_over_limit_total 0\n"), "{counted}");
    registry.on_caller(clock::now(), &caller(5), Arrival::New);
    assert_eq!((registry.calls.len(), registry.waiting.len()), (5, 1));
    let counted = metrics.text(&Moment::default());
    assert!(counted.contains("\ncapconduit_calls_over_limit_total 1\n"), "{counted}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_has_waited_for_long_is_refused_rather_than_let_wait_on() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Arc::<Metrics>::default();
    let (journal, _tasks) = journal(&folder, 16, metrics.clone());
    let mut registry = registry(Arc::default(), journal, metrics.clone(), one_number(), 0);
    registry.parts.opened.cancel();
    registry.on_caller(clock::now(), &caller(1), Arrival::Waited);
    tokio::time::advance(MOST_WAIT).await;
    registry.serve_waiting();
    assert_eq!((registry.calls.len(), registry.waiting.len()), (0, 1));
    tokio::time::advance(SERVE_INTERVAL).await;
    registry.serve_waiting();
    assert_eq!((registry.calls.len(), registry.waiting.len()), (1, 0));
    let counted = metrics.text(&Moment::default());
    assert!(counted.contains("\ncapconduit_calls_over_limit_total 1\n"), "{counted}");
}

#[tokio::test]
async fn a_defect_in_routing_is_one_calls_alone_and_it_has_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _tasks) = journal(&folder, 16, Arc::default());
    let switch = Arc::new(Empty::default());
    let mut registry = registry(switch.clone(), journal, Arc::default(), one_number(), 2);
    registry.parts.opened.cancel();
    // As a panic, but without its words on standard error.
    registry.route = |_, _, _| std::panic::resume_unwind(Box::new("a defect"));
    registry.on_caller(clock::now(), &caller(1), Arrival::New);
    let call = registry.callers[&caller(1).id];
    registry.tell_all(&Input::CallerGone);
    assert_eq!(registry.closed.1.recv().await, Some(call));
    let record = registry.parts.journal.read(&[call]).next().unwrap();
    assert_eq!(record.end.unwrap().outcome, Outcome::SYSTEM_ERROR);
    assert_eq!(*switch.0.lock(), [(caller(1).id.0, cause::FAILURE)], "the caller gets a 500");
}

#[tokio::test]
async fn an_asterisk_that_says_it_ends_takes_every_call_with_it_at_that_moment() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _tasks) = journal(&folder, 16, Arc::default());
    let mut registry = registry(Arc::default(), journal, Arc::default(), one_number(), 2);
    registry.parts.opened.cancel();
    let (first, second) = (caller(1), caller(2));
    for channel in [&first, &second] {
        registry.on_caller(clock::now(), channel, Arrival::New);
    }
    let at = clock::now();
    // The same for each channel; the first says it for all.
    for _ in 0..2 {
        let (channel, cause) = (first.clone(), Some(SHUTDOWN));
        let kind = EventKind::ChannelHangupRequest { channel, cause, soft: true, tech_cause: None };
        registry.on_event(Event { at, kind });
    }
    for _ in [&first, &second] {
        let call = registry.closed.1.recv().await.unwrap();
        let record = registry.parts.journal.read(&[call]).next().unwrap();
        let end = record.end.unwrap();
        assert_eq!((end.outcome.reason, end.at), (CallReason::Interrupted, at));
    }
}

#[tokio::test]
async fn the_end_of_a_channel_that_is_up_says_first_that_it_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _tasks) = journal(&folder, 16, Arc::default());
    let mut registry = registry(Arc::default(), journal, Arc::default(), one_number(), 2);
    let (mailbox_in, mut mailbox) = mpsc::channel(MAILBOX);
    let call = clock::new_call_id();
    registry.calls.insert(call, mailbox_in);
    registry.callers.insert(caller(0).id, call);
    let leg = LegId { call, attempt: 1 }.to_string();
    for state in [ChannelState::Ringing, ChannelState::Up] {
        let leg = Channel { id: ChannelId(leg.clone()), state, ..caller(1) };
        let caller = Channel { state, ..caller(0) };
        let (cause, tech_cause) = (cause::NORMAL, None);
        registry.on_event(Event {
            at: clock::now(),
            kind: EventKind::ChannelDestroyed { channel: leg, cause, tech_cause },
        });
        registry
            .on_event(Event { at: clock::now(), kind: EventKind::StasisEnd { channel: caller } });
    }
    let mut told = Vec::new();
    while let Ok((_, input)) = mailbox.try_recv() {
        told.push(input);
    }
    let expected = matches!(
        told[..],
        [
            Input::LegGone { .. },
            Input::CallerGone,
            Input::LegAnswered { attempt: 1 },
            Input::LegGone { .. },
            Input::CallerAnswered,
            Input::CallerGone,
        ]
    );
    assert!(expected, "{told:?}");
}

/// A call that nobody leads, and that still holds what it held.
fn hold_without_call(registry: &Registry) -> CallId {
    let call = clock::new_call_id().led_by(registry.mark);
    let hold = HoldId { call, attempt: 1 };
    let moment = clock::now();
    let standing = Standing { hold, stage: Stage::Held, moment, scopes: Vec::new() };
    registry.parts.keeper.adopt([standing]);
    call
}

/// What a switch without channels shows, so long after the beginning.
fn nothing(registry: &Registry, begun: Instant) -> Listing {
    let found = Found { channels: Vec::new(), bridges: Vec::new() };
    Listing { connection: registry.watchdog.connection(), begun, ended: begun, found }
}

#[tokio::test]
async fn a_hold_without_a_call_is_given_back_counted_and_told_when_it_is_found_twice() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Arc::<Metrics>::default();
    let (journal, _tasks) = journal(&folder, 16, metrics.clone());
    let mut registry = registry(Arc::default(), journal, metrics.clone(), Snapshot::default(), 2);
    let call = hold_without_call(&registry);
    let drift = || metrics.text(&Moment::default());
    let (first, second) = (Instant::now(), Instant::now() + Duration::from_secs(1));

    let told = logged(|| {
        assert!(registry.on_listing(&nothing(&registry, first)));
        assert!(!registry.on_listing(&nothing(&registry, first)), "the same moment once more");
        let held = registry.parts.keeper.live_calls();
        assert_eq!(held, HashSet::from([call]), "it may be just coming or going");
        assert!(drift().contains("\ncapconduit_drift_total{kind=\"hold_without_call\"} 0\n"));
        assert!(registry.on_listing(&nothing(&registry, second)));
    });

    assert_eq!(registry.parts.keeper.live_calls(), HashSet::new());
    let counted = drift();
    assert!(
        counted.contains("\ncapconduit_drift_total{kind=\"hold_without_call\"} 1\n"),
        "{counted}"
    );
    let told: Vec<_> = told.lines().filter(|line| line.contains("a hold without a call")).collect();
    assert!(told.len() == 1 && told[0].contains(&call.to_string()), "{told:?}");
}

#[tokio::test]
async fn what_was_listed_before_the_connection_broke_confirms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _tasks) = journal(&folder, 16, Arc::default());
    let mut registry = registry(Arc::default(), journal, Arc::default(), Snapshot::default(), 2);
    let call = hold_without_call(&registry);
    let second = Duration::from_secs(1);
    let begun = Instant::now();
    assert!(registry.on_listing(&nothing(&registry, begun)));
    let late = nothing(&registry, begun + second);
    registry.on_signal(Signal::Down { heard: clock::now() });
    assert!(!registry.on_listing(&nothing(&registry, begun + second)), "nobody is connected");
    registry.on_signal(Signal::Up);
    assert!(!registry.on_listing(&late));
    assert!(registry.on_listing(&nothing(&registry, begun + second)));
    assert_eq!(registry.parts.keeper.live_calls(), HashSet::from([call]), "seen once since");
    assert!(registry.on_listing(&nothing(&registry, begun + 2 * second)));
    assert_eq!(registry.parts.keeper.live_calls(), HashSet::new());
}

#[tokio::test]
async fn a_leg_of_ours_that_enters_without_a_call_is_taken_down_counted_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Arc::<Metrics>::default();
    let (journal, _tasks) = journal(&folder, 16, metrics.clone());
    let switch = Arc::new(Empty::default());
    let mut registry = registry(switch.clone(), journal, metrics.clone(), Snapshot::default(), 2);
    let [ours, anothers] = ["one", "two"].map(|instance| {
        let call = clock::new_call_id().led_by(Mark::of_instance(instance));
        LegId { call, attempt: 1 }.to_string()
    });
    let tracker = registry.tracker.clone();
    let told = logged(|| {
        for leg in [&ours, &anothers] {
            let channel = serde_json::from_value(serde_json::json!({"id": leg})).unwrap();
            let kind = EventKind::StasisStart { channel, args: Vec::new() };
            registry.on_event(Event { at: clock::now(), kind });
        }
    });
    tracker.close();
    tokio::time::timeout(Duration::from_secs(10), tracker.wait()).await.unwrap();

    assert_eq!(*switch.0.lock(), [(ours.clone(), cause::TEMPORARY_FAILURE)]);
    let counted = metrics.text(&Moment::default());
    assert!(
        counted.contains("\ncapconduit_drift_total{kind=\"channel_without_call\"} 1\n"),
        "{counted}"
    );
    let told: Vec<_> =
        told.lines().filter(|line| line.contains("a channel without a call")).collect();
    assert!(told.len() == 1 && told[0].contains(&ours), "{told:?}");
}

/// A machine that slept has much to catch up with, and no audit to make up for.
#[tokio::test(start_paused = true)]
async fn audits_that_were_missed_are_not_made_one_after_another() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _tasks) = journal(&folder, 16, Arc::default());
    let switch = Arc::new(Empty::default());
    let registry = registry(switch.clone(), journal, Arc::default(), Snapshot::default(), 2);
    let (_signals, signals) = mpsc::channel(1);
    let (_requests, requests) = mpsc::channel(1);
    let life = tokio::spawn(registry.run(signals, requests));
    let audits = async || {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        switch.1.load(Ordering::Relaxed)
    };
    assert_eq!(audits().await, 1);
    tokio::time::advance(Duration::from_secs(150)).await;
    assert_eq!(audits().await, 2);
    life.abort();
}
