//! 8. Calls that nobody can have: what the caller is told, and what is recorded.

use serde_json::{Value, json};

use crate::support::callers::call;
use crate::support::clients::{Manner, Phones};
use crate::support::service::Service;
use crate::support::wait::seconds;

/// Calls, and checks the SIP answer and the call's log, which is returned.
async fn refused(service: &Service, number: &str, code: u16, status: &str, reason: &str) -> Value {
    let known = service.logs_so_far().await.len();
    let caller = call(number, 100).start(service).finish(seconds(20)).await;
    let answer = caller.0.iter().find_map(|message| message.final_status());
    let logs = service.logs(known + 1).await;
    let log = logs.iter().rev().find(|log| log["incomingDidNumber"] == number);
    let log = service.log_in_full(log.expect("a log of this number")).await;
    assert_eq!(
        (answer, &log["callStatus"], &log["reason"]),
        (Some(code), &json!(status), &json!(reason)),
        "{number}: {log:#}"
    );
    assert_eq!((&log["billsecSeconds"], &log["timestampAnswered"]), (&json!(0), &Value::Null));
    log
}

#[tokio::test]
async fn a_number_that_nobody_answers_is_refused_for_the_right_reason() {
    let service = Service::start().await;
    let seller = service.seller().await;
    let client = Phones::start(&service, Manner::answers_after(1)).await;
    let client = service.client(&client.contact()).await;
    let inactive = json!({"status": "inactive"});

    let log = refused(&service, "+15550100800", 404, "REJECTED_DID", "did_not_found").await;
    assert_eq!((&log["did"], &log["campaign"]), (&Value::Null, &Value::Null));

    let did = seller.did("+15550100801").await;
    seller.web.put(&format!("/api/seller/dids/{did}"), inactive.clone()).await;
    let log = refused(&service, "+15550100801", 404, "REJECTED_DID", "did_inactive").await;
    assert_eq!(log["did"]["id"], did);

    seller.did("+15550100802").await;
    refused(&service, "+15550100802", 480, "REJECTED", "no_active_campaign_for_did").await;

    let paused = seller.campaign(&service, "+15550100803", "priority", 20).await;
    paused.link(client, json!({})).await;
    paused.change(json!({"status": "paused"})).await;
    refused(&service, "+15550100803", 480, "REJECTED", "no_active_campaign_for_did").await;

    let empty = seller.campaign(&service, "+15550100804", "priority", 20).await;
    refused(&service, "+15550100804", 480, "REJECTED", "no_active_clients_in_campaign").await;
    empty.link(client, inactive.clone()).await;
    let log =
        refused(&service, "+15550100804", 480, "REJECTED", "no_active_clients_in_campaign").await;
    assert_eq!(log["trace"]["links"][0]["verdict"], "link_inactive");

    let gone = service.seller().await;
    gone.did("+15550100805").await;
    service.admin().put(&format!("/api/admin/users/{}", gone.id), inactive).await;
    refused(&service, "+15550100805", 480, "REJECTED", "owner_inactive").await;
    service.assert_clean().await;
}

#[tokio::test]
async fn a_call_that_no_client_takes_is_refused_for_the_right_reason() {
    let service = Service::start().await;
    let seller = service.seller().await;
    let busy = Phones::refusing(&service, 486).await;
    let idle = Phones::start(&service, Manner::rings_forever()).await;
    let failing = Phones::refusing(&service, 503).await;

    let campaign = seller.campaign(&service, "+15550100811", "round_robin", 20).await;
    campaign.link(service.client(&busy.contact()).await, json!({})).await;
    campaign.link(service.client(&busy.contact()).await, json!({})).await;
    let log = refused(&service, "+15550100811", 486, "BUSY", "all_busy").await;
    assert_eq!(log["attempts"].as_array().unwrap().len(), 2);

    let campaign = seller.campaign(&service, "+15550100812", "weighted", 1).await;
    campaign.link(service.client(&busy.contact()).await, json!({})).await;
    campaign.link(service.client(&idle.contact()).await, json!({})).await;
    let log = refused(&service, "+15550100812", 480, "NOANSWER", "all_no_answer").await;
    assert_eq!(log["attempts"].as_array().unwrap().len(), 2);

    let campaign = seller.campaign(&service, "+15550100813", "priority", 20).await;
    campaign.link(service.client(&failing.contact()).await, json!({})).await;
    refused(&service, "+15550100813", 480, "FAILED", "all_failed").await;

    let campaign = seller.campaign(&service, "+15550100814", "priority", 20).await;
    let none = json!({"totalCallsAllowed": 0});
    campaign.link(service.client(&idle.contact()).await, none).await;
    let reason = "no_eligible_clients_available";
    let log = refused(&service, "+15550100814", 503, "REJECTED_TOTAL", reason).await;
    assert_eq!(log["trace"]["links"][0]["verdict"], "total_cap");
    service.assert_clean().await;
}
