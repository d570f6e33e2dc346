use capconduit::capacity::{ScopeKind, WindowKind};
use capconduit::clock;
use capconduit::ids::{CampaignId, ClientId, DidId, LinkId, SellerId};
use capconduit::routing::Trace;
use capconduit::routing::trace::{LinkTrace, RefusedBy};
use capconduit_entity::{AttemptResult, CallReason, CallStatus, Strategy, call_attempt, call_log};
use chrono::{DateTime, Utc};
use sea_orm::{ActiveModelTrait, Set};
use serde_json::{Value, json};

use crate::support::api::TestApi;

pub async fn log(api: &TestApi, seller: i64, start: &str, status: CallStatus) -> i64 {
    let start: DateTime<Utc> = start.parse().unwrap();
    let row = call_log::ActiveModel {
        call_id: Set(clock::new_call_id().0),
        user_id: Set(Some(seller)),
        campaign_id: Set(Some(7)),
        campaign_name: Set(Some("Solar".to_owned())),
        did_id: Set(Some(3)),
        client_id: Set(None),
        client_name: Set(None),
        client_identifier: Set(None),
        campaign_client_setting_id: Set(None),
        incoming_did_number: Set("+442071838750".to_owned()),
        caller_id_num: Set(Some("+441134960000".to_owned())),
        caller_id_name: Set(Some("=cmd()".to_owned())),
        timestamp_start: Set(start),
        timestamp_answered: Set(None),
        timestamp_end: Set(start),
        held_at: Set(None),
        duration_seconds: Set(0),
        billsec_seconds: Set(0),
        call_status: Set(status),
        reason: Set(CallReason::AllBusy),
        hangup_cause_code: Set(17),
        hangup_cause_text: Set("User busy".to_owned()),
        asterisk_uniqueid: Set("1.1".to_owned()),
        asterisk_linkedid: Set(None),
        trace: Set(serde_json::to_value(trace(seller)).unwrap()),
        created_at: Set(start),
        ..Default::default()
    };
    row.insert(&api.backend.db).await.unwrap().id
}

/// Of a call that went to the second link, for the first had no room.
fn trace(seller: i64) -> Trace {
    let link = |id, verdict: &str| LinkTrace {
        link_id: LinkId(id),
        client_id: ClientId(9),
        client_identifier: "acme".to_owned(),
        client_name: "Acme".to_owned(),
        priority: 1,
        weight: 10,
        verdict: verdict.to_owned(),
        attempt: (verdict == "dialled").then_some(1),
        refused_by: (verdict == "daily_cap").then_some(RefusedBy {
            scope: ScopeKind::Link,
            window: Some(WindowKind::Day),
            used: 4,
            held: 1,
            limit: 5,
        }),
        within_share: false,
    };
    Trace {
        revision: Some(12),
        did_id: Some(DidId(3)),
        seller_id: Some(SellerId(seller)),
        campaign_id: Some(CampaignId(7)),
        campaign_name: Some("Solar".to_owned()),
        strategy: Some(Strategy::RoundRobin),
        dial_timeout_seconds: Some(20),
        seed: None,
        cursor: Some(LinkId(4)),
        links: vec![link(5, "daily_cap"), link(6, "dialled"), link(4, "not_reached")],
    }
}

fn ids(answer: &Value) -> Vec<i64> {
    answer["items"].as_array().unwrap().iter().map(|log| log["id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn a_call_log_tells_the_whole_way_of_the_call() {
    let api = TestApi::start().await;
    let (joe, eve, staff) = (api.seller("joe").await, api.seller("eve").await, api.staff().await);
    let id = log(&api, joe.id, "2026-11-22T10:00:00.250Z", CallStatus::Busy).await;
    let at: DateTime<Utc> = "2026-11-22T10:00:01Z".parse().unwrap();
    let attempt = call_attempt::ActiveModel {
        call_log_id: Set(id),
        position: Set(1),
        campaign_client_setting_id: Set(5),
        client_id: Set(9),
        client_name: Set("Acme".to_owned()),
        client_identifier: Set("acme".to_owned()),
        result: Set(AttemptResult::Busy),
        started_at: Set(at),
        ringing_at: Set(None),
        answered_at: Set(None),
        ended_at: Set(at),
        cause_code: Set(Some(17)),
        sip_code: Set(Some(486)),
        ..Default::default()
    };
    attempt.insert(&api.backend.db).await.unwrap();
    let read = joe.get(&format!("/api/seller/logs/{id}")).await.expect(200);
    assert_eq!(read["campaign"], json!({"id": 7, "name": "Solar"}));
    assert_eq!(read["did"], json!({"id": 3, "number": "+442071838750"}));
    assert_eq!(read["client"], Value::Null);
    assert_eq!(read["timestampStart"], "2026-11-22T10:00:00.250Z");
    assert_eq!(read["callStatus"], "BUSY");
    assert_eq!(read["reason"], "all_busy");
    assert_eq!(read["attempts"][0]["result"], "busy");
    assert_eq!(read["attempts"][0]["startedAt"], "2026-11-22T10:00:01Z");
    assert_eq!(read["trace"], serde_json::to_value(trace(joe.id)).unwrap(), "as it is stored");
    eve.get(&format!("/api/seller/logs/{id}")).await.expect(404);
    staff.get(&format!("/api/admin/logs/{id}")).await.expect(200);
}

#[tokio::test]
async fn a_trace_that_cannot_be_read_does_not_hide_the_call() {
    let api = TestApi::start().await;
    let joe = api.seller("joe").await;
    let id = log(&api, joe.id, "2026-11-22T10:00:00Z", CallStatus::Busy).await;
    for trace in [json!({"links": [{"verdict": "in words of its own"}]}), json!(7)] {
        let row = call_log::ActiveModel { id: Set(id), trace: Set(trace), ..Default::default() };
        row.update(&api.backend.db).await.unwrap();
        let read = joe.get(&format!("/api/seller/logs/{id}")).await.expect(200);
        assert_eq!((&read["reason"], &read["trace"]), (&json!("all_busy"), &Value::Null));
    }
}

#[tokio::test]
async fn a_day_is_a_day_in_utc_and_both_ends_count() {
    let api = TestApi::start().await;
    let joe = api.seller("joe").await;
    let mut logs = Vec::new();
    for start in [
        "2026-11-20T23:59:59.999Z",
        "2026-11-21T00:00:00Z",
        "2026-11-22T23:59:59.999Z",
        "2026-11-23T00:00:00Z",
    ] {
        logs.push(log(&api, joe.id, start, CallStatus::Busy).await);
    }
    let path = "/api/seller/logs?start_date=2026-11-21&end_date=2026-11-22";
    assert_eq!(ids(&joe.get(path).await.expect(200)), [logs[2], logs[1]]);
    let refused =
        joe.get("/api/seller/logs?start_date=yesterday&call_status=GOOD&did_id=x&cursor=?").await;
    assert_eq!(refused.refused_fields(400), ["call_status", "cursor", "did_id", "start_date"]);
}

#[tokio::test]
async fn logs_are_filtered_and_bound_to_the_seller() {
    let api = TestApi::start().await;
    let (joe, eve, staff) = (api.seller("joe").await, api.seller("eve").await, api.staff().await);
    let one = log(&api, joe.id, "2026-11-22T10:00:00Z", CallStatus::Busy).await;
    let two = log(&api, joe.id, "2026-11-22T10:00:00Z", CallStatus::Answered).await;
    let other = log(&api, eve.id, "2026-11-22T10:00:00Z", CallStatus::Busy).await;
    let get = async |path: &str| ids(&joe.get(path).await.expect(200));
    assert_eq!(get("/api/seller/logs").await, [two, one]);
    assert_eq!(get("/api/seller/logs?call_status=BUSY").await, [one]);
    assert_eq!(get("/api/seller/logs?campaign_id=7&did_id=3").await, [two, one]);
    assert_eq!(get("/api/seller/logs?client_id=1").await, [] as [i64; 0]);
    let all = staff.get("/api/admin/logs").await.expect(200);
    assert_eq!(ids(&all), [other, two, one]);
    let of_eve = staff.get(&format!("/api/admin/logs?user_id={}", eve.id)).await.expect(200);
    assert_eq!(ids(&of_eve), [other]);
}

#[tokio::test]
async fn a_list_by_cursor_stays_as_it_is_while_calls_end() {
    let api = TestApi::start().await;
    let joe = api.seller("joe").await;
    let mut logs = Vec::new();
    for _ in 0..3 {
        logs.push(log(&api, joe.id, "2026-11-22T10:00:00Z", CallStatus::Busy).await);
    }
    let first = joe.get("/api/seller/logs?per_page=2").await.expect(200);
    assert_eq!(ids(&first), [logs[2], logs[1]]);
    log(&api, joe.id, "2026-11-22T11:00:00Z", CallStatus::Busy).await;
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = joe.get(&format!("/api/seller/logs?per_page=2&cursor={cursor}")).await.expect(200);
    assert_eq!(ids(&second), [logs[0]]);
    assert_eq!(second["nextCursor"], Value::Null);
}

#[tokio::test]
async fn logs_are_exported_whole_and_without_formulas() {
    let api = TestApi::start().await;
    let joe = api.seller("joe").await;
    for _ in 0..3 {
        log(&api, joe.id, "2026-11-22T10:00:00Z", CallStatus::Busy).await;
    }
    let export = joe.get("/api/seller/logs?format=csv&call_status=BUSY").await;
    assert_eq!(export.content_type, "text/csv; charset=utf-8");
    let lines: Vec<&str> = export.text.lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[0].starts_with("id,callId,"));
    assert!(lines[1].contains("\"'=cmd()\""), "{}", lines[1]);
}
