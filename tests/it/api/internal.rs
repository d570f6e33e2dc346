use std::sync::Arc;
use std::time::Duration;

use capconduit::capacity::recount::{Recount, RecountSettings};
use capconduit::clock;
use capconduit_entity::call_log;
use sea_orm::{ActiveModelTrait, EntityTrait, IntoActiveModel, Set};
use serde_json::{Value, json};

use crate::support::api::{Person, TestApi, campaign, client, id, link};

const DID: &str = "+442071838750";

/// A seller's campaign with two clients, the second of them for one call in all.
struct Offer {
    campaign: i64,
    did: i64,
    clients: Vec<i64>,
    links: Vec<i64>,
}

async fn offer(api: &TestApi, seller: &Person, strategy: &str) -> Offer {
    let admin = api.admin().await;
    let mut new = campaign("Solar");
    new["routingStrategy"] = json!(strategy);
    let campaign = id(&seller.post("/api/seller/campaigns", new).await);
    let did = id(&seller.post("/api/seller/dids", json!({"number": DID})).await);
    let path = format!("/api/seller/campaigns/{campaign}");
    seller.put(&format!("{path}/dids"), json!({"didIds": [did]})).await.expect(200);
    let (mut clients, mut links) = (Vec::new(), Vec::new());
    for (name, total) in [("one", Value::Null), ("two", json!(1))] {
        let client = id(&admin.post("/api/admin/clients", client(name)).await);
        let mut new = link(client);
        new["forwardingPriority"] = json!(links.len());
        new["totalCallsAllowed"] = total;
        links.push(id(&seller.post(&format!("{path}/clients"), new).await));
        clients.push(client);
    }
    Offer { campaign, did, clients, links }
}

fn report(uniqueid: &str, status: &str) -> Value {
    json!({
        "incomingDidNumber": DID,
        "timestampStart": clock::now().to_rfc3339(),
        "callStatus": status,
        "asteriskUniqueid": uniqueid,
    })
}

fn answered_by(uniqueid: &str, link: i64) -> Value {
    let mut report = report(uniqueid, "ANSWERED");
    report["campaignClientSettingId"] = json!(link);
    report
}

async fn used(seller: &Person, offer: &Offer, link: usize) -> Value {
    let path = format!("/api/seller/campaigns/{}", offer.campaign);
    let campaign = seller.get(&path).await.expect(200);
    campaign["clientSettings"][link]["currentTotalCalls"].clone()
}

#[tokio::test]
async fn the_dialplan_is_let_in_by_its_token_alone() {
    let api = TestApi::start().await;
    let admin = api.admin().await;
    let guess = api.nobody().with("x-internal-api-token", "guess");
    let empty = api.nobody().with("x-internal-api-token", "");
    for other in [api.nobody(), guess, empty, admin] {
        other.get("/api/internal/route_info?did=1").await.expect(401);
        other.post("/api/internal/log_call", report("1.1", "BUSY")).await.expect(401);
    }
    api.dialplan().get("/api/admin/users").await.expect(401);
}

#[tokio::test]
async fn targets_come_in_routing_order_and_those_at_a_cap_are_left_out() {
    let api = TestApi::start().await;
    let joe = api.seller("joe").await;
    let offer = offer(&api, &joe, "priority").await;
    let dialplan = api.dialplan();
    // A plus that isn't encoded is a space.
    for did in ["%2B442071838750", "+442071838750", "442071838750"] {
        let path = format!("/api/internal/route_info?did={did}");
        let answer = dialplan.get(&path).await.expect(200);
        assert_eq!(answer["status"], "proceed");
        let info = &answer["routingInfo"];
        assert_eq!((&info["userId"], &info["didId"]), (&json!(joe.id), &json!(offer.did)));
        assert_eq!(info["campaignId"], offer.campaign);
        assert_eq!(info["routingStrategy"], "priority");
        assert_eq!(info["dialTimeoutSeconds"], 20);
        let expected = json!({
            "campaignClientSettingId": offer.links[0],
            "clientId": offer.clients[0],
            "clientIdentifier": "one",
            "clientName": "Client one",
            "sipUri": "sip:agent@127.0.0.1:5070",
            "maxConcurrency": 2,
            "weight": 10,
            "priority": 0,
            "outboundAuth": "one",
            "calleridOverride": null,
            "context": "from-client",
            "transport": null,
        });
        assert_eq!(info["targets"][0], expected);
        assert_eq!(info["targets"][1]["campaignClientSettingId"], offer.links[1]);
    }
    let second = answered_by("1.1", offer.links[1]);
    dialplan.post("/api/internal/log_call", second).await.expect(201);
    let left = dialplan.get("/api/internal/route_info?did=442071838750").await.expect(200);
    assert_eq!(left["routingInfo"]["targets"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_call_that_nobody_can_have_is_rejected_with_its_reason() {
    let api = TestApi::start().await;
    let joe = api.seller("joe").await;
    let offer = offer(&api, &joe, "priority").await;
    let dialplan = api.dialplan();
    let refused = dialplan.get("/api/internal/route_info?did=15550001111").await;
    assert_eq!(refused.status, 404);
    let refused: Value = serde_json::from_str(&refused.text).unwrap();
    assert_eq!(refused, json!({"status": "reject", "rejectReason": "did_not_found"}));
    for link in &offer.links {
        let path = format!("/api/seller/campaigns/{}/clients/{link}", offer.campaign);
        joe.put(&path, json!({"dailyCap": 0})).await.expect(200);
    }
    let full = dialplan.get("/api/internal/route_info?did=442071838750").await;
    assert!(full.text.contains("no_eligible_clients_available"), "{full:?}");
    assert_eq!(dialplan.get("/api/internal/route_info").await.refused_fields(400), ["did"]);
}

#[tokio::test]
async fn a_reported_call_is_recorded_and_counted_once() {
    let api = TestApi::start().await;
    let joe = api.seller("joe").await;
    let offer = offer(&api, &joe, "priority").await;
    let dialplan = api.dialplan();
    let mut call = answered_by("1795372952.7", offer.links[0]);
    let start = clock::now() - chrono::TimeDelta::seconds(1);
    call["timestampStart"] = json!(start.to_rfc3339());
    call["durationSeconds"] = json!(42);
    call["billsecSeconds"] = json!(35);
    call["hangupCauseCode"] = json!(16);
    call["callerIdNum"] = json!("+15550001111");
    call["asteriskLinkedid"] = json!("");
    let answer = dialplan.post("/api/internal/log_call", call.clone()).await.expect(201);
    assert_eq!(answer["status"], "success");
    let racers = (0..4).map(|_| dialplan.post("/api/internal/log_call", call.clone()));
    for again in futures_util::future::join_all(racers).await {
        assert_eq!(again.refused_fields(409), ["asteriskUniqueid"]);
    }
    let log = joe.get(&format!("/api/seller/logs/{}", answer["cdrId"])).await.expect(200);
    assert_eq!(log["campaign"], json!({"id": offer.campaign, "name": "Solar"}));
    assert_eq!(log["did"], json!({"id": offer.did, "number": DID}));
    assert_eq!(log["client"]["clientIdentifier"], "one");
    assert_eq!((&log["durationSeconds"], &log["billsecSeconds"]), (&json!(42), &json!(35)));
    assert_eq!((&log["reason"], &log["asteriskLinkedid"]), (&json!("answered"), &Value::Null));
    assert_eq!(log["attempts"][0]["result"], "answered");
    assert_eq!((&log["decidedBy"], &log["trace"]), (&json!("dialplan"), &Value::Null));
    assert_eq!(used(&joe, &offer, 0).await, 1);
    assert_eq!(used(&joe, &offer, 1).await, 0);
}

#[tokio::test]
async fn what_the_ledger_counts_is_what_a_recount_finds() {
    let api = TestApi::start().await;
    let joe = api.seller("joe").await;
    let offer = offer(&api, &joe, "priority").await;
    let dialplan = api.dialplan();
    for (uniqueid, status) in [("1.1", "ANSWERED"), ("1.2", "ANSWERED"), ("1.3", "NOANSWER")] {
        let mut call = answered_by(uniqueid, offer.links[0]);
        call["callStatus"] = json!(status);
        dialplan.post("/api/internal/log_call", call).await.expect(201);
    }
    // Without a link, there is nothing to count it for.
    dialplan.post("/api/internal/log_call", report("1.4", "ANSWERED")).await.expect(201);
    assert_eq!(used(&joe, &offer, 0).await, 2);
    let truth = Arc::new(capconduit::store::truth::Records(api.backend.db.clone()));
    let settings = RecountSettings { grace: Duration::ZERO, interval: Duration::from_secs(60) };
    let recount = Recount::new(api.backend.keeper.clone(), truth, settings);
    assert_eq!(recount.verify(false).await.unwrap().differences, []);
}

#[tokio::test]
async fn of_two_racing_reports_one_wins() {
    let api = TestApi::start().await;
    let joe = api.seller("joe").await;
    let offer = offer(&api, &joe, "priority").await;
    let dialplan = api.dialplan();
    for round in 0..5 {
        let call = answered_by(&format!("1.{round}"), offer.links[0]);
        let racers = (0..4).map(|_| dialplan.post("/api/internal/log_call", call.clone()));
        let mut statuses: Vec<u16> =
            futures_util::future::join_all(racers).await.iter().map(|a| a.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409, 409, 409]);
    }
    assert_eq!(used(&joe, &offer, 0).await, 5);
}

#[tokio::test]
async fn a_report_moves_the_rotation_on() {
    let api = TestApi::start().await;
    let joe = api.seller("joe").await;
    let offer = offer(&api, &joe, "round_robin").await;
    let dialplan = api.dialplan();
    let first = async || {
        let answer = dialplan.get("/api/internal/route_info?did=442071838750").await.expect(200);
        answer["routingInfo"]["targets"][0]["campaignClientSettingId"].as_i64().unwrap()
    };
    assert_eq!((first().await, first().await), (offer.links[0], offer.links[0]));
    let mut call = answered_by("1.1", offer.links[0]);
    call["callStatus"] = json!("BUSY");
    dialplan.post("/api/internal/log_call", call).await.expect(201);
    assert_eq!(first().await, offer.links[1]);
}

#[tokio::test]
async fn a_bad_report_names_every_field_and_an_unknown_link_is_not_there() {
    let api = TestApi::start().await;
    let joe = api.seller("joe").await;
    let offer = offer(&api, &joe, "priority").await;
    let dialplan = api.dialplan();
    let post = async |body: Value| dialplan.post("/api/internal/log_call", body).await;
    let required = ["asteriskUniqueid", "callStatus", "incomingDidNumber", "timestampStart"];
    assert_eq!(post(json!({})).await.refused_fields(400), required);
    let bad = json!({
        "incomingDidNumber": "",
        "timestampStart": "2026-11-22T12:00:00Z",
        "timestampAnswered": "2026-11-22T11:00:00Z",
        "timestampEnd": "now",
        "callStatus": "ANSWER",
        "asteriskUniqueid": "x\u{7}",
        "hangupCauseCode": 128,
        "billsecSeconds": -1,
        "clientId": 0,
        "colour": "red",
    });
    let fields = [
        "asteriskUniqueid",
        "billsecSeconds",
        "callStatus",
        "clientId",
        "colour",
        "hangupCauseCode",
        "incomingDidNumber",
        "timestampAnswered",
        "timestampEnd",
    ];
    assert_eq!(post(bad).await.refused_fields(400), fields);
    let mut early = report("1.1", "BUSY");
    early["timestampStart"] = json!("2999-01-01T00:00:00Z");
    assert_eq!(post(early).await.refused_fields(400), ["timestampStart"]);
    let mut foreign = answered_by("1.1", offer.links[0]);
    foreign["clientId"] = json!(offer.clients[1]);
    foreign["campaignId"] = json!(999);
    foreign["userId"] = json!(999);
    let fields = ["campaignId", "clientId", "userId"];
    assert_eq!(post(foreign).await.refused_fields(400), fields);
    post(answered_by("1.1", 999)).await.expect(404);
    post(answered_by("1.1", offer.links[0])).await.expect(201);
}

#[tokio::test]
async fn a_call_that_the_application_recorded_is_not_recorded_again() {
    let api = TestApi::start().await;
    let dialplan = api.dialplan();
    dialplan.post("/api/internal/log_call", report("1.1", "BUSY")).await.expect(201);
    // As the application names its calls.
    let log = call_log::Entity::find().one(&api.backend.db).await.unwrap().unwrap();
    let mut log = log.into_active_model();
    log.call_id = Set(clock::new_call_id().0);
    log.update(&api.backend.db).await.unwrap();
    let again = dialplan.post("/api/internal/log_call", report("1.1", "BUSY")).await;
    assert_eq!(again.refused_fields(409), ["asteriskUniqueid"]);
}
