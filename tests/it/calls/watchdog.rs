//! What can't be is found on a real switch, counted and mended.

use capconduit::clock;
use capconduit::ids::Mark;
use serde_json::json;

use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::service::{Service, items};
use crate::support::wait::{eventually, seconds};

const NUMBER: &str = "+15550101701";

/// One whose audits come every second.
async fn watchful() -> Service {
    let mut service = Service::prepare();
    service.settings.push(("CAPCONDUIT__CALLS__AUDIT_SECONDS", "1".to_owned()));
    service.start_first().await;
    service
}

async fn drift(service: &Service, kind: &str) -> f64 {
    service.metrics().await.known(&format!("capconduit_drift_total{{kind=\"{kind}\"}}"))
}

#[tokio::test]
async fn caller_and_client_who_were_torn_apart_are_put_together_again() {
    let service = watchful().await;
    let client = Phones::start(&service, Manner::answers_after(50)).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    campaign.link(service.client(&client.contact()).await, json!({})).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    assert_eq!(caller.answer().await, 200);
    assert_eq!(drift(&service, "call_apart").await, 0.0);
    let bridge = service.ari("bridges").await[0].clone();
    let (bridge, leg) =
        (bridge["id"].as_str().unwrap(), format!("{}-b1", bridge["id"].as_str().unwrap()));

    service.tell_ari(&format!("bridges/{bridge}/removeChannel?channel={leg}")).await;

    eventually("they talk again", seconds(10), async || {
        let bridges = service.ari("bridges").await;
        let inside = bridges[0]["channels"].as_array()?;
        (inside.len() == 2 && drift(&service, "call_apart").await == 1.0).then_some(())
    })
    .await;
    caller.hang_up().await;
    assert_eq!(service.only_log().await["callStatus"], "ANSWERED");
    service.assert_clean().await;
}

#[tokio::test]
async fn a_bridge_that_belongs_to_no_call_is_taken_down() {
    let service = watchful().await;
    let instance = std::fs::read_to_string(service.data().join("journal/instance")).unwrap();
    let ours = Mark::of_instance(instance.trim());
    let nobodys = clock::new_call_id().led_by(ours).to_string();
    let anothers = clock::new_call_id().led_by(Mark::of_instance("another")).to_string();
    for bridge in [&nobodys, &anothers, "somebody-elses"] {
        service.tell_ari(&format!("bridges/{bridge}?type=mixing")).await;
    }

    let left = eventually("it is gone", seconds(10), async || {
        let bridges = service.ari("bridges").await;
        (items(&bridges).len() == 2 && drift(&service, "bridge_without_call").await == 1.0)
            .then_some(bridges)
    })
    .await;
    let left = left.as_array().unwrap();
    assert!(left.iter().all(|bridge| bridge["id"] != *nobodys), "{left:?}");
}
