//! Real calls, replayed: by the configuration that they were led by, they come out as they did.

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::service::{Service, instant};
use crate::support::wait::{eventually, seconds};

const NUMBER: &str = "+15550102101";

async fn replay(service: &Service, patch: Value) -> Value {
    let logs = service.logs_so_far().await;
    let from = instant(&logs[0]["timestampStart"]);
    let to = instant(&logs[logs.len() - 1]["timestampStart"]) + TimeDelta::milliseconds(1);
    let asked = json!({"from": from, "to": to, "patch": patch});
    service.admin().post("/api/admin/routing/replay", asked).await
}

#[tokio::test]
async fn by_the_same_configuration_they_come_out_as_they_did() {
    let service = Service::start().await;
    let busy = Phones::refusing(&service, 486).await;
    let taking = Phones::start(&service, Manner::answers_after(10)).await;
    let idle = Phones::start(&service, Manner::rings_forever()).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "round_robin", 1).await;
    let mut links = Vec::new();
    for (contact, concurrency) in
        [(taking.contact(), 1), (busy.contact(), 9), (taking.contact(), 1), (idle.contact(), 9)]
    {
        let client = service.client(&contact).await;
        links.push(campaign.link(client, json!({"maxConcurrency": concurrency})).await);
    }
    // Each step is over before the next begins: what came first is no matter of milliseconds.
    let mut first = Phone::call(&service, NUMBER).await;
    assert_eq!(first.answer().await, 200);
    let mut second = Phone::call(&service, NUMBER).await;
    assert_eq!(second.answer().await, 200);
    // Nobody is left but the one who doesn't answer, and the one who is busy.
    let mut third = Phone::call(&service, NUMBER).await;
    assert_eq!(third.answer().await, 480);
    first.hang_up().await;
    eventually("the first call is recorded", seconds(10), async || {
        (service.logs_total().await == 2).then_some(())
    })
    .await;
    let mut fourth = Phone::call(&service, NUMBER).await;
    assert_eq!(fourth.answer().await, 200);
    for phone in [&mut second, &mut fourth] {
        phone.hang_up().await;
    }
    service.logs(4).await;

    let same = replay(&service, json!({})).await;
    assert_eq!((&same["calls"], &same["asRecorded"]), (&json!(4), &json!(4)), "{same:#}");
    assert_eq!(same["changed"], 0);
    assert_eq!(same["totals"]["recorded"], same["totals"]["current"]);
    for client in same["clients"].as_array().unwrap() {
        assert_eq!(client["recorded"], client["current"], "{client:#}");
    }

    // With room for all at the first, nobody else is needed.
    let patch = json!({
        "campaigns": [{"id": campaign.id, "routingStrategy": "priority"}],
        "links": [{"id": links[0], "maxConcurrency": 9, "forwardingPriority": 0}],
    });
    let changed = replay(&service, patch).await;
    assert_eq!(changed["totals"]["patched"]["delivered"], 4, "{changed:#}");
    assert_eq!(changed["totals"]["recorded"]["delivered"], 3);
    assert_eq!(changed["totals"]["recorded"]["lost"], 1);
    assert_eq!(changed["clients"][0]["patched"]["delivered"], 4);
    service.assert_clean().await;
}
