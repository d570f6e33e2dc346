//! A disk is full under real calls: they go on, an alarm is raised, and nothing is lost.

use std::collections::HashSet;
use std::sync::Arc;

use capconduit::call::CallRecord;
use capconduit::ids::CallId;
use capconduit::journal::{Archive, Journal, JournalSettings};
use capconduit::telemetry::Metrics;
use serde_json::{Value, json};

use crate::support::clients::{Manner, Phones};
use crate::support::disk::{SmallDisk, fill, make_room};
use crate::support::phone::Phone;
use crate::support::service::Service;
use crate::support::wait::{eventually, seconds};

const NUMBER: &str = "+15550102101";

/// A service with a client behind the number.
async fn start(disk: SmallDisk) -> (Service, Phones) {
    let mut service = Service::prepare_with_small_disk(disk);
    service.start_first().await;
    let client = Phones::start(&service, Manner::answers_after(50)).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    campaign.link(service.client(&client.contact()).await, json!({})).await;
    (service, client)
}

async fn one_call(service: &Service) {
    let mut caller = Phone::call(service, NUMBER).await;
    assert_eq!(caller.answer().await, 200);
    caller.hang_up().await;
}

/// Waits until this metric has this value.
async fn metric_is(service: &Service, name: &str, value: f64) {
    eventually(&format!("{name} is {value}"), seconds(15), async || {
        (service.metrics().await.known(name) == value).then_some(())
    })
    .await;
}

fn lines_of_log(service: &Service, words: &str) -> usize {
    let log = std::fs::read_to_string(service.data().join("log/capconduit.log")).unwrap();
    log.lines().filter(|line| line.contains(words)).count()
}

/// Takes nothing.
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

/// The calls that a start on a copy of the journal would take up, and how many files were damaged.
async fn left_in_journal(service: &Service) -> (HashSet<CallId>, f64) {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(service.small_disk().join("journal")).unwrap() {
        let entry = entry.unwrap();
        // A file that is done with may be deleted in this moment.
        if entry.file_name() != "lock" {
            drop(std::fs::copy(entry.path(), copy.path().join(entry.file_name())));
        }
    }
    let settings =
        JournalSettings { directory: copy.path().to_owned(), sync_interval_ms: 50, most_mb: 64 };
    let metrics = Arc::new(Metrics::default());
    let (_journal, _tasks, left) =
        Journal::open(&settings, Arc::new(Nowhere), Box::new(|_| {}), metrics.clone()).unwrap();
    let text = metrics.text(&capconduit::telemetry::Moment::default());
    let damaged = crate::support::metrics::Metrics::parse(&text)
        .known("capconduit_journal_damaged_files_total");
    (left.unfinished.iter().map(|record| record.call).collect(), damaged)
}

#[tokio::test]
async fn calls_go_on_while_the_journals_disk_is_full_and_one_alarm_says_so() {
    if !SmallDisk::is_tried() {
        return;
    }
    let (service, _client) = start(SmallDisk::Journal).await;
    let mut before = Phone::call(&service, NUMBER).await;
    assert_eq!(before.answer().await, 200);

    let disk = service.small_disk();
    fill(&disk);
    let mut during = Phone::call(&service, NUMBER).await;
    assert_eq!(during.answer().await, 200);
    // The last page of a file may have room for a record or two.
    let mut calls = 0;
    eventually("the alarm is raised", seconds(30), async || {
        one_call(&service).await;
        calls += 1;
        let metrics = service.metrics().await;
        (metrics.known("capconduit_journal_failing") == 1.0).then_some(())
    })
    .await;
    for _ in 0..10 {
        one_call(&service).await;
    }
    calls += 10;
    // The database has room: what is over gets there all the same.
    service.logs(calls).await;
    metric_is(&service, "capconduit_journal_failing", 1.0).await;
    assert_eq!(lines_of_log(&service, "the journal can't be written"), 1, "once, not per call");

    make_room(&disk);
    metric_is(&service, "capconduit_journal_failing", 0.0).await;
    assert_eq!(lines_of_log(&service, "the journal is written again"), 1);
    let (left, damaged) = left_in_journal(&service).await;
    assert_eq!((left.len(), damaged), (2, 0.0), "both calls that are up, and no damage");
    before.hang_up().await;
    during.hang_up().await;
    let logs = service.logs(calls + 2).await;
    assert!(logs.iter().all(|log| log["callStatus"] == "ANSWERED"), "{logs:#?}");
    service.assert_clean().await;
}

#[tokio::test]
async fn records_wait_while_the_disk_of_journal_and_database_is_full() {
    if !SmallDisk::is_tried() {
        return;
    }
    let (service, _client) = start(SmallDisk::JournalAndDatabase).await;
    let disk = service.small_disk();

    fill(&disk);
    let mut calls = 0;
    eventually("the database is full", seconds(60), async || {
        one_call(&service).await;
        calls += 1;
        let metrics = service.metrics().await;
        (metrics.known("capconduit_journal_write_failures_total") > 0.0).then_some(())
    })
    .await;
    for _ in 0..5 {
        one_call(&service).await;
    }
    calls += 5;
    assert!(service.logs_so_far().await.len() < calls, "records wait");
    let new = json!({"username": "late", "email": "late@example.com", "password": "a password of the late", "role": "user"});
    let refused = service.admin().refused("/api/admin/users", new).await;
    assert_eq!((refused.0, &refused.1["status"]), (503, &Value::from(503)), "{refused:?}");

    make_room(&disk);
    let logs = service.logs(calls).await;
    assert!(logs.iter().all(|log| log["callStatus"] == "ANSWERED"), "{logs:#?}");
    metric_is(&service, "capconduit_journal_failing", 0.0).await;
    metric_is(&service, "capconduit_journal_depth", 0.0).await;
    let (code, told) = service.verify_caps();
    assert!(code == 0, "{told}");
    service.assert_clean().await;
}
