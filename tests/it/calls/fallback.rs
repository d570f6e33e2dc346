//! 2. Clients who don't take a call: the next one is tried.

use serde_json::{Value, json};

use crate::support::callers::call;
use crate::support::clients::{Manner, Phones};
use crate::support::service::{Service, instant};
use crate::support::wait::seconds;

const NUMBER: &str = "+15550100201";

/// Links clients to a campaign, in the order in which they are to be tried.
async fn link_clients(service: &Service, ring_seconds: u32, contacts: &[String]) {
    let seller = service.seller().await;
    let campaign = seller.campaign(service, NUMBER, "priority", ring_seconds).await;
    for (priority, contact) in contacts.iter().enumerate() {
        let client = service.client(contact).await;
        campaign.link(client, json!({"forwardingPriority": priority})).await;
    }
}

#[tokio::test]
async fn the_first_is_busy_the_second_rings_out_the_third_answers() {
    let service = Service::start().await;
    let busy = Phones::refusing(&service, 486).await;
    let idle = Phones::start(&service, Manner::rings_forever()).await;
    let third = Phones::start(&service, Manner::answers_after(100)).await;
    link_clients(&service, 2, &[busy.contact(), idle.contact(), third.contact()]).await;

    let caller = call(NUMBER, 300).start(&service).finish(seconds(20)).await;

    assert_eq!(caller.count(|message| message.is_answer(200, "INVITE")), 1);
    let log = service.only_log().await;
    assert_eq!(log["callStatus"], "ANSWERED");
    let [first, second, third] = &log["attempts"].as_array().unwrap()[..] else {
        panic!("three attempts: {log:#}")
    };
    assert_eq!(log["client"], third["client"]);
    assert_eq!(
        [&first["result"], &second["result"], &third["result"]],
        ["busy", "no_answer", "answered"]
    );
    assert_eq!((&first["sipCode"], &first["ringingAt"]), (&json!(486), &Value::Null));
    assert!(instant(&second["startedAt"]) <= instant(&second["ringingAt"]));
    let rang = instant(&second["endedAt"]) - instant(&second["ringingAt"]);
    assert!((1_900..2_700).contains(&rang.num_milliseconds()), "rang for {rang}");
    assert!(instant(&second["endedAt"]) <= instant(&third["startedAt"]));
    assert!(instant(&third["startedAt"]) <= instant(&third["answeredAt"]));
    // The one who rang out was told.
    assert!(idle.trace().find(|message| message.is_request("CANCEL")).is_some());
    service.assert_clean().await;
}

#[tokio::test]
async fn every_refusal_goes_on_to_the_next_and_is_named() {
    let service = Service::start().await;
    let refusals = [
        (486, "busy"),
        (600, "busy"),
        (403, "rejected"),
        (603, "rejected"),
        (404, "unreachable"),
        (480, "no_answer"),
        (500, "congestion"),
        (503, "congestion"),
        (302, "rejected"),
    ];
    let mut clients = Vec::new();
    for (code, _) in refusals {
        clients.push(Phones::refusing(&service, code).await);
    }
    clients.push(Phones::start(&service, Manner::answers_after(1)).await);
    let contacts: Vec<String> = clients.iter().map(Phones::contact).collect();
    link_clients(&service, 20, &contacts).await;

    let caller = call(NUMBER, 100).start(&service).finish(seconds(20)).await;

    assert_eq!(caller.answered_with(200), 1);
    let log = service.only_log().await;
    let attempts = log["attempts"].as_array().unwrap();
    for (attempt, (code, result)) in attempts.iter().zip(refusals) {
        assert_eq!((&attempt["sipCode"], &attempt["result"]), (&json!(code), &json!(result)));
    }
    assert_eq!(attempts.len(), 10);
    assert_eq!(attempts[9]["result"], "answered");
    service.assert_clean().await;
}
