//! Who follows live calls hears what real calls do.

use std::time::Instant;

use serde_json::json;

use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::service::Service;
use crate::support::wait::seconds;

const NUMBER: &str = "+15550100901";
const ADMIN: &str = "/api/admin/live/events";
const SELLER: &str = "/api/seller/live/events";

#[tokio::test]
async fn a_call_is_heard_to_come_ring_talk_and_end_by_those_whom_it_concerns() {
    let mut service = Service::start().await;
    let client = Phones::start(&service, Manner::answers_after(300)).await;
    let (seller, other) = (service.seller().await, service.seller().await);
    let campaign = seller.campaign(&service, NUMBER, "priority", 20).await;
    let client_id = service.client(&client.contact()).await;
    let link = campaign.link(client_id, json!({})).await;

    let mut admins = service.admin().follow(ADMIN, "").await;
    let mut owners = seller.web.follow(SELLER, "").await;
    let mut foreign = other.web.follow(SELLER, "").await;
    for stream in [&mut admins, &mut owners, &mut foreign] {
        assert_eq!(stream.news().await.calls().len(), 0);
    }

    let mut caller = Phone::call(&service, NUMBER).await;
    assert_eq!(caller.answer().await, 200);
    let mut told = Vec::new();
    let mut last = String::new();
    while told.last().is_none_or(|told| told != "call talking") {
        let event = owners.news().await;
        assert_eq!(event, admins.news().await, "both hear the same");
        told.push(event.told());
        last = event.id.clone();
        if event.data["call"]["state"] == "talking" {
            let call = &event.data["call"];
            assert_eq!(call["incomingDidNumber"], NUMBER);
            assert_eq!(call["userId"], seller.id);
            assert_eq!(call["campaign"]["id"], campaign.id);
            assert_eq!(call["client"]["id"], client_id);
            assert_eq!(call["client"]["campaignClientSettingId"], link);
        }
    }
    told.dedup();
    assert_eq!(told, ["call routing", "call ringing", "call talking"]);

    // The owner's connection is lost, and the call ends meanwhile.
    drop(owners);
    caller.hang_up().await;
    service.assert_clean().await;
    let mut owners = seller.web.follow(SELLER, &last).await;
    let mut told = Vec::new();
    while told.last().is_none_or(|told| told != "gone") {
        let event = owners.news().await;
        assert_eq!(event, admins.news().await, "nothing is lost and nothing is doubled");
        told.push(event.told());
    }
    told.dedup();
    assert_eq!(told, ["call ending", "gone"]);
    let late = foreign.next().await.expect("a heartbeat");
    assert_eq!(late.name, "heartbeat", "somebody else's call is never heard of");

    let stopped = Instant::now();
    service.stop();
    assert!(stopped.elapsed() < seconds(5), "who follows doesn't hold up a stop");
    for stream in [&mut admins, &mut owners, &mut foreign] {
        stream.end().await;
    }
}
