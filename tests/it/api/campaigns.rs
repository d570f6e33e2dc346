use capconduit::routing::{Decision, plan};
use capconduit_entity::CallReason;
use serde_json::{Value, json};

use crate::support::api::{Person, TestApi, campaign, client, id, link};

const NUMBER: &str = "+442071838750";

async fn did(seller: &Person, number: &str) -> i64 {
    id(&seller.post("/api/seller/dids", json!({"number": number})).await)
}

#[tokio::test]
async fn a_campaign_is_created_read_changed_and_deleted() {
    let api = TestApi::start().await;
    let seller = api.seller("joe").await;
    let created = seller.post("/api/seller/campaigns", campaign("Solar")).await;
    let path = format!("/api/seller/campaigns/{}", id(&created));
    let read = seller.get(&path).await.expect(200);
    assert_eq!(read, created.expect(201));
    assert_eq!(read["dids"], json!([]));
    assert_eq!(read["clientSettings"], json!([]));
    let change = json!({"status": "paused", "dialTimeoutSeconds": 30, "description": "x"});
    let changed = seller.put(&path, change).await.expect(200);
    assert_eq!(changed["status"], "paused");
    assert_eq!(changed["routingStrategy"], "priority");
    let listed = seller.get("/api/seller/campaigns?status=paused").await.expect(200);
    assert_eq!(listed["items"][0]["name"], "Solar");
    seller.delete(&path).await.expect(204);
    seller.get(&path).await.expect(404);
}

#[tokio::test]
async fn a_campaigns_name_is_unique_per_seller() {
    let api = TestApi::start().await;
    let (joe, eve) = (api.seller("joe").await, api.seller("eve").await);
    joe.post("/api/seller/campaigns", campaign("Solar")).await.expect(201);
    let again = joe.post("/api/seller/campaigns", campaign("Solar")).await;
    assert_eq!(again.refused_fields(409), ["name"]);
    eve.post("/api/seller/campaigns", campaign("Solar")).await.expect(201);
}

#[tokio::test]
async fn a_did_is_in_one_active_campaign_at_most() {
    let api = TestApi::start().await;
    let seller = api.seller("joe").await;
    let did = did(&seller, NUMBER).await;
    let [one, two] = [campaign("One"), campaign("Two")];
    let one =
        format!("/api/seller/campaigns/{}", id(&seller.post("/api/seller/campaigns", one).await));
    let two =
        format!("/api/seller/campaigns/{}", id(&seller.post("/api/seller/campaigns", two).await));
    let set = seller.put(&format!("{one}/dids"), json!({"didIds": [did, did]})).await.expect(200);
    assert_eq!(set["dids"][0]["number"], NUMBER);
    let refused = seller.put(&format!("{two}/dids"), json!({"didIds": [did]})).await;
    assert_eq!(refused.refused_fields(409), ["didIds"]);
    seller.put(&two, json!({"status": "paused"})).await.expect(200);
    seller.put(&format!("{two}/dids"), json!({"didIds": [did]})).await.expect(200);
    let refused = seller.put(&two, json!({"status": "active"})).await;
    assert_eq!(refused.refused_fields(409), ["status"]);
    seller.put(&one, json!({"status": "inactive"})).await.expect(200);
    seller.put(&two, json!({"status": "active"})).await.expect(200);
    seller.put(&format!("{two}/dids"), json!({"didIds": []})).await.expect(200);
    seller.put(&one, json!({"status": "active"})).await.expect(200);
}

#[tokio::test]
async fn a_link_shows_its_caps_and_what_is_used_of_them() {
    let api = TestApi::start().await;
    let seller = api.seller("joe").await;
    let client = id(&api.staff().await.post("/api/admin/clients", client("acme")).await);
    let path = format!(
        "/api/seller/campaigns/{}",
        id(&seller.post("/api/seller/campaigns", campaign("Solar")).await)
    );
    let mut new = link(client);
    new["totalCallsAllowed"] = json!(0);
    new["dailyCap"] = json!(100);
    new["timeZone"] = json!("Europe/London");
    let created = seller.post(&format!("{path}/clients"), new).await.expect(201);
    assert_eq!(created["currentTotalCalls"], 0);
    assert_eq!(created["liveCalls"], 0);
    assert_eq!(created["hourlyCap"], Value::Null);
    let windows: Vec<_> =
        created["caps"].as_array().unwrap().iter().map(|cap| &cap["window"]).collect();
    assert_eq!(windows, ["concurrency", "total", "day"]);
    assert_eq!(
        created["caps"][0],
        json!({
            "scope": "link", "window": "concurrency", "limit": 2, "used": 0, "held": 0,
            "resetsAt": null,
        })
    );
    assert!(created["caps"][2]["resetsAt"].as_str().unwrap().ends_with('Z'));
    let own = format!("{path}/clients/{}", created["id"]);
    let changed = seller.put(&own, json!({"dailyCap": null, "weight": 3})).await.expect(200);
    assert_eq!(changed["dailyCap"], Value::Null);
    assert_eq!(changed["weight"], 3);
    assert_eq!(seller.get(&path).await.expect(200)["clientSettings"][0], changed);
    let again = seller.post(&format!("{path}/clients"), link(client)).await;
    assert_eq!(again.refused_fields(409), ["clientId"]);
    let refused = seller.put(&own, json!({"clientId": client})).await;
    assert_eq!(refused.refused_fields(400), ["clientId"]);
    seller.delete(&own).await.expect(204);
    seller.delete(&own).await.expect(404);
}

#[tokio::test]
async fn what_belongs_to_another_seller_is_not_there() {
    let api = TestApi::start().await;
    let (joe, eve) = (api.seller("joe").await, api.seller("eve").await);
    let client = id(&api.staff().await.post("/api/admin/clients", client("acme")).await);
    let path = format!(
        "/api/seller/campaigns/{}",
        id(&joe.post("/api/seller/campaigns", campaign("Solar")).await)
    );
    let setting = id(&joe.post(&format!("{path}/clients"), link(client)).await);
    let own = format!("{path}/clients/{setting}");
    eve.get(&path).await.expect(404);
    eve.put(&path, json!({"status": "paused"})).await.expect(404);
    eve.put(&format!("{path}/dids"), json!({"didIds": []})).await.expect(404);
    eve.post(&format!("{path}/clients"), link(client)).await.expect(404);
    eve.put(&own, json!({"weight": 1})).await.expect(404);
    eve.delete(&own).await.expect(404);
    eve.delete(&path).await.expect(404);
    let theirs = id(&eve.post("/api/seller/campaigns", campaign("Wind")).await);
    eve.put(&format!("/api/seller/campaigns/{theirs}/clients/{setting}"), json!({"weight": 1}))
        .await
        .expect(404);
    let foreign = did(&eve, NUMBER).await;
    joe.put(&format!("{path}/dids"), json!({"didIds": [foreign]})).await.expect(404);
    joe.post(&format!("{path}/clients"), link(999)).await.expect(404);
}

#[tokio::test]
async fn a_change_is_in_force_when_it_is_answered() {
    let api = TestApi::start().await;
    let (staff, seller) = (api.staff().await, api.seller("joe").await);
    let decide = || plan(&api.backend.routing.get(), NUMBER, 1).decision;
    let refused = |decision: Decision| match decision {
        Decision::Refuse(reason) => Some(reason),
        Decision::Offer(_) => None,
    };
    assert_eq!(refused(decide()), Some(CallReason::DidNotFound));
    let did = did(&seller, NUMBER).await;
    assert_eq!(refused(decide()), Some(CallReason::NoActiveCampaignForDid));
    let path = format!(
        "/api/seller/campaigns/{}",
        id(&seller.post("/api/seller/campaigns", campaign("Solar")).await)
    );
    seller.put(&format!("{path}/dids"), json!({"didIds": [did]})).await.expect(200);
    assert_eq!(refused(decide()), Some(CallReason::NoActiveClientsInCampaign));
    let client = id(&staff.post("/api/admin/clients", client("acme")).await);
    seller.post(&format!("{path}/clients"), link(client)).await.expect(201);
    assert_eq!(refused(decide()), None);
    staff
        .put(&format!("/api/admin/clients/{client}"), json!({"status": "inactive"}))
        .await
        .expect(200);
    assert_eq!(refused(decide()), Some(CallReason::NoActiveClientsInCampaign));
    seller.put(&path, json!({"status": "paused"})).await.expect(200);
    assert_eq!(refused(decide()), Some(CallReason::NoActiveCampaignForDid));
    staff
        .put(&format!("/api/admin/users/{}", seller.id), json!({"status": "suspended"}))
        .await
        .expect(200);
    assert_eq!(refused(decide()), Some(CallReason::OwnerInactive));
}
