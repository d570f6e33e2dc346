use serde_json::{Value, json};

use crate::support::api::{Person, TestApi, campaign, client, id, link};

fn scopes(row: &Value) -> Vec<&str> {
    row["caps"].as_array().unwrap().iter().map(|cap| cap["scope"].as_str().unwrap()).collect()
}

async fn rows(person: &Person, path: &str) -> Vec<Value> {
    let page = person.get(path).await.expect(200);
    let rows = page["items"].as_array().unwrap().clone();
    assert_eq!(page["total"], rows.len());
    rows
}

#[tokio::test]
async fn each_link_is_shown_with_all_caps_that_its_calls_count_in() {
    let api = TestApi::start().await;
    let (joe, eve, staff) = (api.seller("joe").await, api.seller("eve").await, api.staff().await);
    let shared = id(&staff.post("/api/admin/clients", client("acme")).await);
    staff.put(&format!("/api/admin/clients/{shared}"), json!({"dailyCap": 8})).await.expect(200);
    staff
        .put(&format!("/api/admin/users/{}", joe.id), json!({"maxConcurrency": 4}))
        .await
        .expect(200);
    let mut links = Vec::new();
    let mut campaigns = Vec::new();
    for seller in [&joe, &eve] {
        let own = id(&seller.post("/api/seller/campaigns", campaign("Solar")).await);
        let path = format!("/api/seller/campaigns/{own}/clients");
        links.push(id(&seller.post(&path, link(shared)).await));
        campaigns.push(own);
    }

    let all = rows(&staff, "/api/admin/caps").await;
    let ids: Vec<_> = all.iter().map(|row| row["campaignClientSettingId"].clone()).collect();
    assert_eq!(json!(ids), json!(links));
    let of_joe = &all[0];
    assert_eq!(of_joe["user"], json!({"id": joe.id, "username": "joe"}));
    assert_eq!(of_joe["campaign"], json!({"id": campaigns[0], "name": "Solar"}));
    assert_eq!(of_joe["client"]["clientIdentifier"], "acme");
    assert_eq!((&of_joe["liveCalls"], &of_joe["status"]), (&json!(0), &json!("active")));
    let own_caps = scopes(of_joe).iter().filter(|scope| **scope == "link").count();
    assert!(own_caps > 0);
    assert_eq!(scopes(of_joe)[own_caps..], ["client", "seller"]);
    assert_eq!(of_joe["caps"][own_caps]["window"], "day");
    assert_eq!(of_joe["caps"][own_caps]["limit"], 8);
    assert_eq!(scopes(&all[1])[own_caps..], ["client"]);

    // What others sold the client is not this seller's business.
    let own = rows(&joe, "/api/seller/caps").await;
    assert_eq!(own.len(), 1);
    assert_eq!(own[0]["campaignClientSettingId"], links[0]);
    assert_eq!(scopes(&own[0])[own_caps..], ["seller"]);

    for (filter, count) in [
        (format!("user_id={}", eve.id), 1),
        (format!("campaign_id={}", campaigns[1]), 1),
        (format!("client_id={shared}"), 2),
        (format!("client_id={}", shared + 1), 0),
    ] {
        assert_eq!(rows(&staff, &format!("/api/admin/caps?{filter}")).await.len(), count);
    }
    let bad = "/api/admin/caps?user_id=x&campaign_id=0&client_id=&per_page=900";
    let refused = staff.get(bad).await.refused_fields(400);
    assert_eq!(refused, ["campaign_id", "client_id", "per_page", "user_id"]);
}
