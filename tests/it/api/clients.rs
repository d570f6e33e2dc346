use std::sync::atomic::Ordering;

use capconduit_entity::{pjsip_aor, pjsip_auth, pjsip_endpoint};
use sea_orm::EntityTrait;
use serde_json::{Value, json};

use crate::support::api::{TestApi, campaign, client, id, link};

#[tokio::test]
async fn a_client_and_its_realtime_rows_live_and_die_together() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    let db = &api.backend.db;
    let created = staff.post("/api/admin/clients", client("acme")).await;
    let path = format!("/api/admin/clients/{}", id(&created));
    let endpoint = created.expect(201)["pjsip"]["endpoint"].clone();
    assert_eq!(endpoint["disallow"], "all");
    assert_eq!(endpoint["allow"], "ulaw,alaw,gsm");
    assert_eq!(endpoint["directMedia"], "no");
    assert_eq!(endpoint["transport"], Value::Null);
    assert_eq!(created.expect(201)["pjsip"]["aor"]["qualifyFrequency"], 60);
    let row = pjsip_endpoint::Entity::find_by_id("acme").one(db).await.unwrap().unwrap();
    assert_eq!(row.outbound_auth, "acme");
    staff.delete(&path).await.expect(204);
    staff.get(&path).await.expect(404);
    assert!(pjsip_endpoint::Entity::find().one(db).await.unwrap().is_none());
    assert!(pjsip_aor::Entity::find().one(db).await.unwrap().is_none());
    assert!(pjsip_auth::Entity::find().one(db).await.unwrap().is_none());
}

#[tokio::test]
async fn probing_begins_at_once_where_it_is_asked_for_and_only_there() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    let asked = || api.switch.probing_changes.load(Ordering::SeqCst);
    staff.post("/api/admin/clients", client("quiet")).await.expect(201);
    assert_eq!(asked(), 0);
    let mut probed = client("probed");
    probed["pjsip"]["aor"]["qualifyFrequency"] = 5.into();
    let path =
        format!("/api/admin/clients/{}", id(&staff.post("/api/admin/clients", probed).await));
    assert_eq!(asked(), 1);
    let slower = json!({"pjsip": {"aor": {"qualifyFrequency": 30}}});
    staff.put(&path, slower.clone()).await.expect(200);
    staff.put(&path, slower).await.expect(200);
    assert_eq!(asked(), 2);
}

#[tokio::test]
async fn a_refused_client_leaves_no_rows_behind() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    staff.post("/api/admin/clients", client("acme")).await.expect(201);
    let mut again = client("other");
    again["clientIdentifier"] = json!("acme");
    let refused = staff.post("/api/admin/clients", again).await;
    assert_eq!(refused.refused_fields(409), ["clientIdentifier"]);
    let mut again = client("other");
    again["pjsip"]["aor"]["id"] = json!("acme");
    again["pjsip"]["endpoint"]["aors"] = json!("acme");
    let refused = staff.post("/api/admin/clients", again).await;
    assert_eq!(refused.refused_fields(409), ["pjsip.aor.id"]);
    let rows = pjsip_endpoint::Entity::find().all(&api.backend.db).await.unwrap();
    assert_eq!(rows.len(), 1);
    staff.post("/api/admin/clients", client("other")).await.expect(201);
}

#[tokio::test]
async fn the_auth_password_is_never_sent_back() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    let created = staff.post("/api/admin/clients", client("acme")).await;
    let path = format!("/api/admin/clients/{}", id(&created));
    let changed = staff.put(&path, json!({"name": "New"})).await;
    for answer in [created, changed, staff.get(&path).await, staff.get("/api/admin/clients").await]
    {
        assert!(!answer.text.contains("s3cret-of-client"), "{}", answer.text);
    }
    let row = pjsip_auth::Entity::find_by_id("acme").one(&api.backend.db).await.unwrap().unwrap();
    assert_eq!(row.password, "s3cret-of-client");
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_nothing_else() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    let path = format!(
        "/api/admin/clients/{}",
        id(&staff.post("/api/admin/clients", client("acme")).await)
    );
    let change = json!({"pjsip": {"aor": {"contact": "sip:10.0.0.9"}}, "maxConcurrency": 5});
    let changed = staff.put(&path, change).await.expect(200);
    assert_eq!(changed["pjsip"]["aor"]["contact"], "sip:10.0.0.9");
    assert_eq!(changed["pjsip"]["aor"]["qualifyFrequency"], 60);
    assert_eq!(changed["pjsip"]["endpoint"]["outboundAuth"], "acme");
    assert_eq!(changed["maxConcurrency"], 5);
    let refused = staff.put(&path, json!({"pjsip": {"endpoint": {"aors": "other"}}})).await;
    assert_eq!(refused.refused_fields(400), ["pjsip.endpoint.aors"]);
}

#[tokio::test]
async fn references_follow_an_id_that_changes() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    let path = format!(
        "/api/admin/clients/{}",
        id(&staff.post("/api/admin/clients", client("acme")).await)
    );
    let change =
        json!({"pjsip": {"endpoint": {"id": "e2"}, "aor": {"id": "a2"}, "auth": {"id": "u2"}}});
    let pjsip = staff.put(&path, change).await.expect(200)["pjsip"].clone();
    assert_eq!(pjsip["endpoint"]["id"], "e2");
    assert_eq!(pjsip["endpoint"]["aors"], "a2");
    assert_eq!(pjsip["endpoint"]["outboundAuth"], "u2");
    let db = &api.backend.db;
    assert_eq!(pjsip_endpoint::Entity::find().all(db).await.unwrap().len(), 1);
    assert_eq!(pjsip_aor::Entity::find().all(db).await.unwrap().len(), 1);
    let auths = pjsip_auth::Entity::find().all(db).await.unwrap();
    assert_eq!(auths.len(), 1);
    assert_eq!(auths[0].password, "s3cret-of-client");
}

#[tokio::test]
async fn an_auth_is_removed_by_null_and_added_again() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    let path = format!(
        "/api/admin/clients/{}",
        id(&staff.post("/api/admin/clients", client("acme")).await)
    );
    let pjsip =
        staff.put(&path, json!({"pjsip": {"auth": null}})).await.expect(200)["pjsip"].clone();
    assert_eq!(pjsip["auth"], Value::Null);
    assert_eq!(pjsip["endpoint"]["outboundAuth"], Value::Null);
    assert!(pjsip_auth::Entity::find().one(&api.backend.db).await.unwrap().is_none());
    let refused = staff.put(&path, json!({"pjsip": {"auth": {"username": "u"}}})).await;
    assert_eq!(refused.refused_fields(400), ["pjsip.auth.id"]);
    let change =
        json!({"pjsip": {"auth": {"id": "n", "password": "p"}, "endpoint": {"outboundAuth": "n"}}});
    let pjsip = staff.put(&path, change).await.expect(200)["pjsip"].clone();
    assert_eq!(pjsip["auth"]["id"], "n");
}

#[tokio::test]
async fn a_linked_client_is_not_deleted() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    let seller = api.seller("joe").await;
    let client = id(&staff.post("/api/admin/clients", client("acme")).await);
    let campaign = id(&seller.post("/api/seller/campaigns", campaign("Solar")).await);
    let links = format!("/api/seller/campaigns/{campaign}/clients");
    let linked = id(&seller.post(&links, link(client)).await);
    staff.delete(&format!("/api/admin/clients/{client}")).await.expect(409);
    seller.delete(&format!("{links}/{linked}")).await.expect(204);
    staff.delete(&format!("/api/admin/clients/{client}")).await.expect(204);
}

#[tokio::test]
async fn clients_are_listed_by_status_and_sellers_see_the_active_ones() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    let seller = api.seller("joe").await;
    let mut idle = client("idle");
    idle["status"] = json!("inactive");
    staff.post("/api/admin/clients", client("busy")).await.expect(201);
    let idle = id(&staff.post("/api/admin/clients", idle).await);
    let listed = staff.get("/api/admin/clients?status=inactive").await.expect(200);
    assert_eq!(listed["items"][0]["id"], idle);
    assert_eq!(listed["total"], 1);
    let refused = staff.get("/api/admin/clients?status=asleep&page=x").await;
    assert_eq!(refused.refused_fields(400), ["page", "status"]);
    let offered = seller.get("/api/seller/campaigns/available_clients").await.expect(200);
    assert_eq!(offered["total"], 1);
    let fields: Vec<&String> = offered["items"][0].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["clientIdentifier", "department", "id", "name"]);
}
