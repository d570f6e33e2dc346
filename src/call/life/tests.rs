//! Drivers that can't bear what they are told.

use std::collections::HashSet;
use std::time::Duration;

use capconduit_entity::AttemptResult;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ari::{AriError, Bridge, Channel, Done, LegId, Switch};
use crate::call::machine::Input;
use crate::call::outcome::{Outcome, cause};
use crate::call::record::Attempt;
use crate::call::record::tests::record;
use crate::call::setup::InSetup;
use crate::capacity::{Keeper, Leases, MemoryLedger};
use crate::clock::simulated;
use crate::ids::{CallId, ClientId, LinkId};
use crate::journal::{Archive, Journal, JournalSettings, JournalTasks};
use crate::live::Live;
use crate::routing::Snapshot;
use crate::telemetry::Metrics;

/// Has these channels, all of them answered, until they are hung up.
#[derive(Default)]
struct Answered {
    channels: Mutex<Vec<String>>,
    hung_up: Mutex<Vec<(String, i32)>>,
}

#[async_trait::async_trait]
impl Switch for Answered {
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
        self.channels.lock().retain(|known| known != channel);
        self.hung_up.lock().push((channel.to_owned(), cause));
        Ok(())
    }

    async fn channel(&self, channel: &str) -> Result<Option<Channel>, AriError> {
        let is_there = self.channels.lock().iter().any(|known| known == channel);
        Ok(is_there.then(|| answered(channel)))
    }

    async fn channels(&self) -> Result<Vec<Channel>, AriError> {
        Ok(self.channels.lock().iter().map(|channel| answered(channel)).collect())
    }

    async fn bridges(&self) -> Result<Vec<Bridge>, AriError> {
        Ok(Vec::new())
    }
}

fn answered(channel: &str) -> Channel {
    serde_json::from_value(serde_json::json!({"id": channel, "state": "Up"})).unwrap()
}

/// A database that is away: the journal keeps everything.
struct Nowhere;

#[async_trait::async_trait]
impl Archive for Nowhere {
    async fn insert(&self, _: &[Arc<CallRecord>]) -> anyhow::Result<()> {
        anyhow::bail!("it is away")
    }

    async fn recorded(&self, _: &[CallId]) -> anyhow::Result<HashSet<CallId>> {
        anyhow::bail!("it is away")
    }

    async fn is_there(&self) -> bool {
        false
    }
}

/// The record of a call whose client was dialled.
fn dialled() -> CallRecord {
    let mut dialled = record();
    let at = dialled.started_at;
    dialled.attempts.push(Attempt {
        position: 1,
        link: LinkId(1),
        client: ClientId(1),
        client_name: "Acme".to_owned(),
        client_identifier: "acme".to_owned(),
        held_at: at,
        dialled_at: Some(at),
        ringing_at: None,
        answered_at: None,
        ended_at: None,
        result: None,
        cause: None,
        sip: None,
    });
    dialled
}

/// The same when its client has answered.
fn talk() -> CallRecord {
    let mut talk = dialled();
    let at = talk.started_at;
    talk.answered_at = Some(at);
    talk.attempts[0].answered_at = Some(at);
    talk.attempts[0].result = Some(AttemptResult::Answered);
    talk
}

/// A call that is led.
struct Scene {
    switch: Arc<Answered>,
    parts: Arc<Parts>,
    mailbox: mpsc::Sender<Stamped>,
    call: CallId,
    led: JoinHandle<()>,
    _journal: (TempDir, JournalTasks),
}

impl Scene {
    /// Its driver meets with a defect when it is first told something, and with another one,
    /// if so, so many inputs later.
    fn set(record: CallRecord, again_after: Option<u32>) -> Self {
        simulated::plan_defect(Some(1), again_after);
        let folder = tempfile::tempdir().unwrap();
        let settings = JournalSettings {
            directory: folder.path().into(),
            sync_interval_ms: 60_000,
            most_mb: 16,
        };
        let metrics = Arc::<Metrics>::default();
        let (journal, tasks, _) =
            Journal::open(&settings, Arc::new(Nowhere), Box::new(|_| {}), metrics.clone()).unwrap();
        journal.save(record.clone());
        let (call, caller) = (record.call, record.channel.clone());
        let switch = Arc::<Answered>::default();
        *switch.channels.lock() = vec![caller, LegId { call, attempt: 1 }.to_string()];
        let ledger = Arc::new(MemoryLedger::default());
        let keeper = Keeper::new(ledger, "", &Leases::default());
        keeper.adopt(adopt::standing(&record));
        let parts = Arc::new(Parts {
            switch: switch.clone(),
            keeper: Arc::new(keeper),
            journal: Arc::new(journal),
            live: Arc::new(Live::new(1)),
            metrics,
            in_setup: InSetup::default(),
            opened: CancellationToken::new(),
        });
        let life = Life {
            parts: parts.clone(),
            routing: Arc::default(),
            connected: Arc::new(AtomicBool::new(true)),
        };
        let machine = adopt::machine(record, &Snapshot::default(), clock::now()).hearing();
        let (mailbox, inputs) = mpsc::channel(8);
        let led = tokio::spawn(life.lead(machine, inputs, None));
        Self { switch, parts, mailbox, call, led, _journal: (folder, tasks) }
    }

    fn record(&self) -> Arc<CallRecord> {
        self.parts.journal.read(&[self.call]).next().unwrap()
    }

    /// Waits until both legs were found after the defect.
    async fn found_again(&self) {
        let found = async {
            while simulated::defects().is_empty() {
                tokio::task::yield_now().await;
            }
            while self.record().unseen_since.is_some() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), found).await.unwrap();
    }

    /// Its end, with what was hung up until then, and why.
    async fn over(&mut self) -> (Outcome, Vec<i32>) {
        tokio::time::timeout(Duration::from_secs(10), &mut self.led).await.unwrap().unwrap();
        let causes = self.switch.hung_up.lock().iter().map(|(_, cause)| *cause).collect();
        assert!(self.parts.keeper.live_calls().is_empty(), "nothing is held any more");
        (self.record().end.unwrap().outcome, causes)
    }
}

#[tokio::test]
async fn a_talk_outlives_a_defect_of_its_driver_with_what_it_holds() {
    let mut scene = Scene::set(talk(), None);
    scene.found_again().await;
    assert_eq!(*scene.switch.hung_up.lock(), []);
    assert!(scene.parts.keeper.live_calls().contains(&scene.call));
    assert!(scene.parts.live.get(scene.call).is_some());
    let gone = Input::LegGone { attempt: 1, cause: Some(cause::NORMAL), sip: None };
    for input in [Input::CallerGone, gone] {
        scene.mailbox.send((clock::now(), input)).await.unwrap();
    }
    let (outcome, causes) = scene.over().await;
    assert_eq!(outcome, Outcome::ANSWERED);
    assert!(!causes.contains(&cause::FAILURE), "{causes:?}");
}

#[tokio::test]
async fn a_talk_does_not_outlive_a_second_defect() {
    let mut scene = Scene::set(talk(), Some(0));
    let over = scene.over().await;
    assert_eq!(over, (Outcome::INTERRUPTED_TALK, vec![cause::FAILURE; 2]));
}

#[tokio::test]
async fn a_call_that_nobody_has_answered_does_not_outlive_a_defect() {
    let mut scene = Scene::set(dialled(), None);
    let over = scene.over().await;
    assert_eq!(over, (Outcome::SYSTEM_ERROR, vec![cause::FAILURE; 2]));
}
