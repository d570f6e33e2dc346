//! The figures say what happened.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::json;

use crate::support::callers::call;
use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::service::Service;
use crate::support::wait::{eventually, seconds};

const NUMBER: &str = "+15550101001";
const BUSY: &str = "+15550101002";
const NOBODY: &str = "+15550101003";

#[tokio::test]
async fn the_figures_say_what_became_of_real_calls() {
    let service = Service::start().await;
    let answers = Phones::start(&service, Manner::answers_after(300)).await;
    let refuses = Phones::refusing(&service, 486).await;
    let seller = service.seller().await;
    let campaign = seller.campaign(&service, NUMBER, "priority", 20).await;
    let client = service.client(&answers.contact()).await;
    campaign.link(client, json!({"maxConcurrency": 1})).await;
    let busy = seller.campaign(&service, BUSY, "priority", 20).await;
    busy.link(service.client(&refuses.contact()).await, json!({})).await;

    let idle = service.metrics().await;
    assert_eq!(idle.sum("capconduit_calls_total"), 0.0);
    for state in ["routing", "ringing", "talking", "ending"] {
        assert_eq!(idle.known(&format!("capconduit_live_calls{{state=\"{state}\"}}")), 0.0);
    }
    assert_eq!(idle.known("capconduit_ari_connected"), 1.0);
    assert_eq!(idle.known("capconduit_ari_connections_total"), 1.0);
    assert_eq!(idle.known("capconduit_drift_total{kind=\"channel_without_call\"}"), 0.0);

    let mut talking = Phone::call(&service, NUMBER).await;
    assert_eq!(talking.answer().await, 200);
    assert_eq!(Phone::call(&service, NUMBER).await.answer().await, 503, "it is full");
    assert_eq!(Phone::call(&service, BUSY).await.answer().await, 486);
    assert_eq!(Phone::call(&service, NOBODY).await.answer().await, 404);
    service.logs(3).await;
    let full = eventually("one call is left", seconds(5), async || {
        let full = service.metrics().await;
        (full.sum("capconduit_live_calls") == 1.0).then_some(full)
    })
    .await;
    assert_eq!(full.known("capconduit_live_calls{state=\"talking\"}"), 1.0);
    assert_eq!(full.known("capconduit_holds"), 1.0);
    assert_eq!(full.known("capconduit_journal_depth"), 1.0);

    talking.hang_up().await;
    service.logs(4).await;
    service.assert_clean().await;
    let found = eventually("everything is written", seconds(5), async || {
        let found = service.metrics().await;
        (found.known("capconduit_journal_depth") == 0.0).then_some(found)
    })
    .await;
    for (status, reason) in [
        ("ANSWERED", "answered"),
        ("REJECTED_CC", "no_eligible_clients_available"),
        ("BUSY", "all_busy"),
        ("REJECTED_DID", "did_not_found"),
    ] {
        let key = format!("capconduit_calls_total{{status=\"{status}\",reason=\"{reason}\"}}");
        assert_eq!(found.known(&key), 1.0);
    }
    assert_eq!(found.sum("capconduit_calls_total"), 4.0);
    assert_eq!(found.known("capconduit_attempts_total{result=\"answered\"}"), 1.0);
    assert_eq!(found.known("capconduit_attempts_total{result=\"busy\"}"), 1.0);
    assert_eq!(found.sum("capconduit_attempts_total"), 2.0);
    assert_eq!(found.known("capconduit_decision_seconds_count"), 4.0);
    assert!(found.known("capconduit_decision_seconds_sum") < 2.0);
    let refusal = "capconduit_cap_refusals_total{scope=\"link\",cap=\"concurrency\"}";
    assert_eq!((found.known(refusal), found.sum("capconduit_cap_refusals_total")), (1.0, 1.0));
    assert!(found.known("capconduit_post_dial_delay_seconds_count") >= 1.0);
    let rang = found.known("capconduit_ring_seconds_sum");
    assert!((0.2..3.0).contains(&rang), "it rang for 300 ms: {rang}");
    // One for each call that had a candidate, and one more after the busy client.
    let reserved = found.known("capconduit_ledger_seconds_count{operation=\"reserve\"}");
    assert!((3.0..=4.0).contains(&reserved), "{reserved}");
    assert_eq!(found.sum("capconduit_ledger_failures_total"), 0.0);
    assert_eq!(found.known("capconduit_holds"), 0.0);
    let asked = found.known("capconduit_ari_command_seconds_count{command=\"create channel\"}");
    assert_eq!(asked, 2.0);
    assert!(found.known("capconduit_ari_event_lag_seconds_count") > 10.0);
    assert!(found.known("capconduit_journal_write_seconds_count") >= 1.0);
    assert_eq!(found.known("capconduit_journal_write_failures_total"), 0.0);
    for operation in ["select", "insert"] {
        let key = format!("capconduit_database_seconds_count{{operation=\"{operation}\"}}");
        assert!(found.known(&key) >= 1.0);
    }
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(found.known(&format!("capconduit_build_info{{version=\"{version}\"}}")), 1.0);
    assert!(found.known("process_resident_memory_bytes") > 1e6);
    assert!(found.known("process_cpu_seconds_total") > 0.0);
    assert!(found.known("process_start_time_seconds") > 1.7e9);

    assert_documented(&found.families);
    // Neither names nor numbers nor ids are among the labels.
    for key in found.keys() {
        let told = ["+1555", "client-", "seller-"].iter().any(|part| key.contains(part));
        assert!(!told, "{key}");
    }
}

/// The page for operators has every metric, and no other.
fn assert_documented(families: &[String]) {
    let page = include_str!("../../../docs/OPERATIONS.md");
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named: BTreeSet<&str> = page
        .split(|c| !is_part(c))
        .filter(|word| word.starts_with("capconduit_") || word.starts_with("process_"))
        .map(|word| {
            ["_total", "_bucket", "_info"].iter().fold(word, |w, end| w.trim_end_matches(end))
        })
        .collect();
    let there: BTreeSet<&str> = families.iter().map(String::as_str).collect();
    let without_a_name: Vec<_> = there.difference(&named).collect();
    assert!(without_a_name.is_empty(), "not in docs/OPERATIONS.md: {without_a_name:?}");
    let gone: Vec<_> = named.difference(&there).filter(|name| !name.ends_with('_')).collect();
    assert!(gone.is_empty(), "no such metrics: {gone:?}");
}

#[tokio::test]
async fn the_figures_are_on_an_address_of_their_own() {
    let mut service = Service::start().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let status = async |port: u16, path: &str| {
        let url = format!("http://127.0.0.1:{port}{path}");
        http.get(url).send().await.unwrap().status().as_u16()
    };
    assert_eq!(status(service.http_port, "/metrics").await, 404);
    assert_eq!(status(service.metrics_port, "/api/auth/status").await, 404);
    assert_eq!(status(service.metrics_port, "/metrics").await, 200);
    let stopped = Instant::now();
    service.stop();
    assert!(stopped.elapsed() < seconds(5));
}

#[tokio::test]
async fn figures_are_read_while_calls_come_and_go() {
    let service = Service::start().await;
    let client = Phones::start(&service, Manner::answers_after(10)).await;
    let seller = service.seller().await;
    let campaign = seller.campaign(&service, NUMBER, "priority", 20).await;
    campaign.link(service.client(&client.contact()).await, json!({})).await;
    let callers = call(NUMBER, 300).start(&service);
    let mut last = 0.0;
    eventually("the call is counted", seconds(10), async || {
        let ended = service.metrics().await.sum("capconduit_calls_total");
        assert!(ended >= last, "a counter never goes back");
        last = ended;
        (ended == 1.0).then_some(())
    })
    .await;
    callers.finish(seconds(20)).await;
    service.assert_clean().await;
}
