//! The service itself stands still for a while, as on a machine that pauses, or swaps.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::time::sleep;

use super::scene::outcome;
use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::service::Service;
use crate::support::wait::{eventually, seconds};

const NUMBER: &str = "+15550109401";
const CALLS: usize = 5;
/// Longer than a probe of the event socket may take.
const PAUSE: Duration = seconds(4);

async fn connections(service: &Service) -> f64 {
    service.metrics().await.known("capconduit_ari_connections_total")
}

/// What Asterisk told meanwhile waits in the connection, and nobody throws that away.
#[tokio::test]
async fn talks_that_end_while_the_service_pauses_are_recorded_as_they_ended() {
    let mut service = Service::start().await;
    let client = Phones::start(&service, Manner::answers_after(50)).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    campaign.link(service.client(&client.contact()).await, json!({})).await;
    let mut callers = Vec::new();
    for _ in 0..CALLS {
        let mut caller = Phone::call(&service, NUMBER).await;
        assert_eq!(caller.answer().await, 200);
        callers.push(caller);
    }
    eventually("all talk", seconds(5), async || {
        (service.live_in("talking").await == CALLS).then_some(())
    })
    .await;
    let before = connections(&service).await;

    service.signal(Signal::STOP);
    for caller in &mut callers {
        caller.hang_up().await;
    }
    // What is waited for is a pause of this length.
    sleep(PAUSE).await;
    service.signal(Signal::CONT);

    for log in service.logs(CALLS).await {
        let log = service.log_in_full(&log).await;
        assert_eq!(outcome(&log), ("ANSWERED", "answered"), "{log:#}");
        assert!(log["billsecSeconds"].as_i64().unwrap() < 4, "the pause isn't billed: {log:#}");
    }
    service.assert_clean().await;
    assert_eq!(connections(&service).await, before, "on the connection that it had");
}
