use serde_json::{Value, json};

use crate::support::api::{Person, TestApi, campaign, client, id, link};

const PATH: &str = "/api/admin/routing/replay";

/// A seller with two campaigns for one DID, the first of them active; its link.
async fn two_campaigns(api: &TestApi) -> (Vec<i64>, i64) {
    let (admin, seller) = (api.admin().await, api.seller("joe").await);
    let did = json!({"number": "+442071838750"});
    let did = id(&seller.post("/api/seller/dids", did).await);
    let mut campaigns = Vec::new();
    for name in ["Solar", "Wind"] {
        let mut new = campaign(name);
        new["status"] = json!(if name == "Solar" { "active" } else { "paused" });
        let campaign = id(&seller.post("/api/seller/campaigns", new).await);
        let path = format!("/api/seller/campaigns/{campaign}/dids");
        seller.put(&path, json!({"didIds": [did]})).await.expect(200);
        campaigns.push(campaign);
    }
    let client = id(&admin.post("/api/admin/clients", client("acme")).await);
    let path = format!("/api/seller/campaigns/{}/clients", campaigns[0]);
    let link = id(&seller.post(&path, link(client)).await);
    (campaigns, link)
}

fn asked(patch: Value) -> Value {
    json!({"from": "2026-11-20T00:00:00Z", "to": "2026-11-21T00:00:00Z", "patch": patch})
}

async fn refused(person: &Person, body: Value) -> Vec<String> {
    person.post(PATH, body).await.refused_fields(400)
}

#[tokio::test]
async fn a_replay_that_is_wrong_or_too_much_is_refused_by_name() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    let (campaigns, link) = two_campaigns(&api).await;

    let fine = json!({"links": [{"id": link, "dailyCap": null}]});
    let answer = staff.post(PATH, asked(fine)).await.expect(200);
    assert_eq!((&answer["calls"], &answer["changed"]), (&json!(0), &json!(0)));
    assert!(answer["assumptions"].as_array().is_some_and(|list| !list.is_empty()));

    for (patch, field) in [
        (json!({"links": [{"id": 99, "weight": 2}]}), "patch.links[0].id"),
        (json!({"clients": [{"id": 1}, {"id": 98}]}), "patch.clients[1].id"),
        (json!({"campaigns": [{"id": 97}]}), "patch.campaigns[0].id"),
        (json!({"links": [{"id": link, "name": "x"}]}), "patch.links[0].name"),
        (json!({"sellers": []}), "patch.sellers"),
        // Both would be the active one of their DID.
        (json!({"campaigns": [{"id": campaigns[1], "status": "active"}]}), "patch.campaigns"),
    ] {
        assert_eq!(refused(&staff, asked(patch)).await, [field]);
    }
    let swap = json!({"campaigns": [
        {"id": campaigns[0], "status": "paused"}, {"id": campaigns[1], "status": "active"},
    ]});
    staff.post(PATH, asked(swap)).await.expect(200);

    let mut too_long = asked(json!({}));
    too_long["to"] = json!("2026-12-22T00:00:00Z");
    assert_eq!(refused(&staff, too_long).await, ["to"]);
    let mut backwards = asked(json!({}));
    backwards["to"] = json!("2026-11-19T00:00:00Z");
    assert_eq!(refused(&staff, backwards).await, ["to"]);
}

#[tokio::test]
async fn a_replay_while_another_is_running_is_sent_away() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    let running = api.backend.replays.acquire().await.unwrap();
    let busy = staff.post(PATH, asked(json!({}))).await;
    assert_eq!(busy.expect(503)["type"], "urn:capconduit:problem:busy");
    assert!(busy.retry_after.is_some());
    drop(running);
    staff.post(PATH, asked(json!({}))).await.expect(200);
}
