//! An edit is in force for the next call when its request is answered.

use serde_json::{Value, json};

use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::service::Service;

const NUMBER: &str = "+15550101201";

/// One answered call; its log in full.
async fn one_call(service: &Service, calls_before: usize) -> Value {
    let mut caller = Phone::call(service, NUMBER).await;
    assert_eq!(caller.answer().await, 200);
    caller.hang_up().await;
    let logs = service.logs(calls_before + 1).await;
    let newest = logs.iter().max_by_key(|log| log["id"].as_i64()).unwrap();
    service.log_in_full(newest).await
}

#[tokio::test]
async fn a_paused_link_is_passed_over_by_the_very_next_call() {
    let service = Service::start().await;
    let first = Phones::start(&service, Manner::answers_after(50)).await;
    let second = Phones::start(&service, Manner::answers_after(50)).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    let paused = campaign.link(service.client(&first.contact()).await, json!({})).await;
    let other = json!({"forwardingPriority": 2});
    let other = campaign.link(service.client(&second.contact()).await, other).await;
    let log = one_call(&service, 0).await;
    assert_eq!(log["attempts"][0]["campaignClientSettingId"], paused);

    campaign.change_link(paused, json!({"status": "inactive"})).await;

    let log = one_call(&service, 1).await;
    assert_eq!(log["attempts"][0]["campaignClientSettingId"], other);
    let links = log["trace"]["links"].as_array().unwrap();
    let passed_over = links.iter().find(|link| link["linkId"] == paused).unwrap();
    assert_eq!(passed_over["verdict"], "link_inactive");

    campaign.change_link(paused, json!({"status": "active"})).await;

    let log = one_call(&service, 2).await;
    assert_eq!(log["attempts"][0]["campaignClientSettingId"], paused);
    service.assert_clean().await;
}
