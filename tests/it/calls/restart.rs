//! The service is killed under calls, and started again.

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::clients::{Manner, Phones};
use crate::support::desk::{Desk, audio};
use crate::support::phone::Phone;
use crate::support::seller::Campaign;
use crate::support::service::{Service, items};
use crate::support::wait::{eventually, ms, seconds};

const NUMBER: &str = "+15550101101";

async fn state_is(service: &Service, state: &str) {
    eventually("the live call's state", seconds(5), async || {
        let live = service.admin().get("/api/admin/live").await;
        items(&live).first().is_some_and(|call| call["state"] == state).then_some(())
    })
    .await;
}

/// Since when the only call is in its state.
async fn since(service: &Service) -> Value {
    items(&service.admin().get("/api/admin/live").await)[0]["since"].clone()
}

/// A client and a caller who talk.
async fn conversation(service: &Service) -> (Phones, Campaign, Phone) {
    let client = Phones::start(service, Manner::answers_after(50)).await;
    let campaign = service.seller().await.campaign(service, NUMBER, "priority", 20).await;
    campaign.link(service.client(&client.contact()).await, json!({})).await;
    let mut caller = Phone::call(service, NUMBER).await;
    assert_eq!(caller.answer().await, 200);
    state_is(service, "talking").await;
    (client, campaign, caller)
}

#[tokio::test]
async fn a_conversation_outlives_the_service_and_is_billed_whole() {
    let mut service = Service::start().await;
    let client = Phones::start(&service, Manner::answers_after(50)).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    let one_call = json!({"maxConcurrency": 1, "totalCallsAllowed": 9});
    campaign.link(service.client(&client.contact()).await, one_call).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    assert_eq!(caller.answer().await, 200);
    state_is(&service, "talking").await;
    let talks_since = since(&service).await;

    service.kill();
    service.start_again().await;

    state_is(&service, "talking").await;
    assert_eq!(since(&service).await, talks_since, "it has talked since the answer");
    let link = &campaign.links().await[0];
    assert_eq!((link.live(), link.total()), (1, 1), "it keeps its slot and its unit");
    let mut second = Phone::call(&service, NUMBER).await;
    assert_eq!(second.answer().await, 503, "and new calls wait for it");
    caller.hang_up().await;
    eventually("the client is told", seconds(2), async || {
        client.trace().find(|message| !message.sent && message.is_request("BYE")).map(drop)
    })
    .await;
    let logs = service.logs(2).await;
    let answered: Vec<&Value> = logs.iter().filter(|log| log["callStatus"] == "ANSWERED").collect();
    let [log] = answered[..] else { panic!("{logs:#?}") };
    assert_eq!(log["reason"], "answered");
    assert_eq!(campaign.links().await[0].total(), 1);
    service.assert_clean().await;
}

/// Nothing of a call that is up needs the ledger, but for its next client.
#[tokio::test]
async fn a_conversation_is_led_again_before_capacity_can_be_held() {
    let mut service = Service::start_production().await;
    let (client, _, mut caller) = conversation(&service).await;
    service.kill();
    let production = service.production();
    production.redis.hang();
    caller.hang_up().await;
    let client_is_told = async {
        eventually("the client is told", seconds(20), async || {
            client.trace().find(|message| !message.sent && message.is_request("BYE")).map(drop)
        })
        .await;
        production.redis.resume();
    };
    tokio::join!(service.start_again(), client_is_told);
    assert!(!service.said().contains("the capacity ledger isn't there yet"), "it was waited for");
    let log = service.only_log().await;
    assert_eq!((&log["callStatus"], &log["reason"]), (&json!("ANSWERED"), &json!("interrupted")));
    service.assert_clean().await;
}

#[tokio::test]
async fn a_call_that_rang_when_the_service_died_goes_on_to_its_next_client() {
    let mut service = Service::start().await;
    let silent = Phones::start(&service, Manner::rings_forever()).await;
    let ready = Phones::start(&service, Manner::answers_after(50)).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 3).await;
    campaign.link(service.client(&silent.contact()).await, json!({})).await;
    let second = json!({"forwardingPriority": 2});
    campaign.link(service.client(&ready.contact()).await, second).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    caller.ringing().await;

    service.kill();
    service.start_again().await;

    assert_eq!(caller.answer().await, 200);
    caller.hang_up().await;
    let log = service.only_log().await;
    let results: Vec<&Value> =
        log["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["result"]).collect();
    assert_eq!(results, ["no_answer", "answered"]);
    service.assert_clean().await;
}

/// Waits until the next start would know that a client was dialled.
async fn dial_is_noted(service: &Service) {
    let is_noted = |file: fs::DirEntry| {
        let bytes = fs::read(file.path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(r#""dialled_at":""#)
    };
    eventually("the journal tells of the dial", seconds(5), async || {
        let mut files = fs::read_dir(service.data().join("journal")).unwrap();
        files.any(|file| is_noted(file.unwrap())).then_some(())
    })
    .await;
}

/// Asterisk shows its leg as if it had not been dialled yet.
#[tokio::test]
async fn a_client_that_sends_early_media_when_the_service_dies_is_rung_on_and_not_called_again() {
    let mut service = Service::start().await;
    let mut desk = Desk::start().await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    campaign.link(service.client(&desk.contact()).await, json!({})).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    desk.invited().await;
    let sdp = audio(service.ports.single(), "ulaw", "sendrecv");
    desk.answer("183 Session Progress", "", &sdp).await;
    caller.wait_for("183", |message| message.is_answer(183, "INVITE")).await;
    dial_is_noted(&service).await;

    service.kill();
    service.start_again().await;

    // What is waited for is that nothing happens.
    let early = caller.try_wait_for(seconds(2), |message| message.final_status().is_some()).await;
    assert!(early.is_none(), "{early:?}");
    desk.answer("200 OK", "", &sdp).await;
    assert_eq!(caller.answer().await, 200);
    desk.wait_for("an ACK", |message| message.is_request("ACK")).await;
    state_is(&service, "talking").await;
    caller.hang_up().await;
    desk.wait_for("a BYE", |message| message.is_request("BYE")).await;
    let invites = desk.heard.0.iter().filter(|message| message.is_request("INVITE"));
    let calls: BTreeSet<_> = invites.map(|invite| invite.header("Call-ID")).collect();
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert_eq!(desk.heard.count(|message| message.is_request("CANCEL")), 0);
    let log = service.only_log().await;
    assert_eq!((&log["callStatus"], &log["reason"]), (&json!("ANSWERED"), &json!("answered")));
    assert_eq!(log["attempts"].as_array().unwrap().len(), 1, "{log:#}");
    service.assert_clean().await;
}

#[tokio::test]
async fn the_ring_time_goes_on_with_what_was_left_of_it() {
    let mut service = Service::start().await;
    let silent = Phones::start(&service, Manner::rings_forever()).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 6).await;
    campaign.link(service.client(&silent.contact()).await, json!({})).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    caller.ringing().await;
    let rings_since = Instant::now();
    // Half of it is over: what is waited for is that nothing happens.
    let early = caller.try_wait_for(seconds(3), |message| message.final_status().is_some()).await;
    assert!(early.is_none(), "{early:?}");

    service.kill();
    service.start_again().await;

    assert_eq!(caller.answer().await, 480);
    let rang = rings_since.elapsed();
    assert!((ms(5_500)..ms(8_000)).contains(&rang), "it was to ring for 6 s: {rang:?}");
    let log = service.only_log().await;
    assert_eq!((&log["callStatus"], &log["reason"]), (&json!("NOANSWER"), &json!("all_no_answer")));
    assert_eq!(log["attempts"].as_array().unwrap().len(), 1);
    service.assert_clean().await;
}

#[tokio::test]
async fn a_call_that_ended_while_nobody_watched_is_recorded_as_interrupted() {
    let mut service = Service::start().await;
    let (client, campaign, mut caller) = conversation(&service).await;

    service.kill();
    caller.hang_up().await;
    service.start_again().await;

    eventually("the client, left alone, is told", seconds(3), async || {
        client.trace().find(|message| !message.sent && message.is_request("BYE")).map(drop)
    })
    .await;
    let log = service.only_log().await;
    assert_eq!((&log["callStatus"], &log["reason"]), (&json!("ANSWERED"), &json!("interrupted")));
    assert!(log["billsecSeconds"].as_i64().unwrap() <= 2, "{log:#}");
    assert_eq!(campaign.links().await[0].total(), 1);
    service.assert_clean().await;
}
