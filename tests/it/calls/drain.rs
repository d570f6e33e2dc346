//! The service is asked to end while calls are up: it leaves them to the next start, or
//! waits for their end.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;

use crate::support::apart::Apart;
use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::service::Service;
use crate::support::wait::{eventually, ms, seconds};

const NUMBER: &str = "+15550101501";
const WAIT: [(&str, &str); 1] = [("CAPCONDUIT__SHUTDOWN__CALLS", "wait")];
const WAIT_BRIEFLY: [(&str, &str); 2] =
    [("CAPCONDUIT__SHUTDOWN__CALLS", "wait"), ("CAPCONDUIT__SHUTDOWN__WAIT_SECONDS", "2")];

/// A call that talks, and the phones of its client.
async fn talking(settings: &[(&str, &str)]) -> (Apart, Phones, Phone) {
    let mut service = Service::prepare();
    service.patience = seconds(20);
    let apart = Apart::start(service, settings).await;
    let service = &apart.service;
    let client = Phones::start(service, Manner::answers_after(30)).await;
    let campaign = service.seller().await.campaign(service, NUMBER, "priority", 20).await;
    campaign.link(service.client(&client.contact()).await, json!({})).await;
    let mut caller = Phone::call(service, NUMBER).await;
    assert_eq!(caller.answer().await, 200);
    eventually("it talks", seconds(5), async || {
        (service.live_in("talking").await == 1).then_some(())
    })
    .await;
    (apart, client, caller)
}

/// The next start has the call, and it ends as any other.
async fn assert_taken_up(mut apart: Apart, mut caller: Phone) {
    apart.serve(&[]).await;
    assert_eq!(apart.service.live_in("talking").await, 1);
    assert!(!caller.was_hung_up);
    caller.hang_up().await;
    let log = apart.service.only_log().await;
    assert_eq!((&log["callStatus"], &log["reason"]), (&json!("ANSWERED"), &json!("answered")));
    apart.service.assert_clean().await;
}

#[tokio::test]
async fn asked_to_end_it_leaves_its_calls_to_the_next_start() {
    let (mut apart, _client, caller) = talking(&[]).await;
    let asked = Instant::now();
    apart.service.stop();
    assert!(asked.elapsed() < seconds(5), "it waits for nobody: {:?}", asked.elapsed());
    assert_taken_up(apart, caller).await;
}

#[tokio::test]
async fn asked_to_wait_it_ends_after_its_last_call_and_who_came_meanwhile_is_served_next() {
    let (mut apart, _client, mut caller) = talking(&WAIT).await;
    assert!(apart.service.process().signal(Signal::TERM));
    eventually("it waits", seconds(5), async || {
        apart.service.process().output().contains("waiting for calls to end").then_some(())
    })
    .await;

    let mut newcomer = Phone::call(&apart.service, NUMBER).await;
    newcomer.ringing().await;
    let early = newcomer.try_wait_for(seconds(2), |message| message.final_status().is_some()).await;
    assert!(early.is_none(), "{early:?}");
    assert!(apart.service.process().exited().is_none(), "a call is still up");
    assert!(!caller.was_hung_up);
    assert_eq!(apart.service.live_calls().await, 1, "the newcomer is none of its calls");

    caller.hang_up().await;
    let status = apart.service.process().finished("it ends", seconds(10)).await;
    assert!(status.success(), "{status}");
    apart.serve(&[]).await;
    assert_eq!(newcomer.answer().await, 200);
    newcomer.hang_up().await;
    for log in apart.service.logs(2).await {
        assert_eq!((&log["callStatus"], &log["reason"]), (&json!("ANSWERED"), &json!("answered")));
    }
    apart.service.assert_clean().await;
}

#[tokio::test]
async fn it_waits_no_longer_than_it_may() {
    let (mut apart, _client, caller) = talking(&WAIT_BRIEFLY).await;
    let asked = Instant::now();
    apart.service.stop();
    let waited = asked.elapsed();
    assert!((seconds(2)..seconds(7)).contains(&waited), "{waited:?}");
    assert_taken_up(apart, caller).await;
}

#[tokio::test]
async fn a_second_signal_ends_the_wait_at_once() {
    let (mut apart, _client, caller) = talking(&WAIT).await;
    assert!(apart.service.process().signal(Signal::TERM));
    eventually("it waits", seconds(5), async || {
        apart.service.process().output().contains("waiting for calls to end").then_some(())
    })
    .await;
    let asked = Instant::now();
    let status = apart.service.process().end().expect("it ends as asked");
    assert_eq!(status.code(), Some(130));
    assert!(asked.elapsed() < ms(1_000), "{:?}", asked.elapsed());
    assert_taken_up(apart, caller).await;
}
