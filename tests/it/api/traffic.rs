use capconduit::clock;
use capconduit::ids::CallId;
use capconduit_entity::{CallReason, CallStatus, call_log};
use chrono::{DurationRound, TimeDelta};
use sea_orm::{ActiveModelTrait, Set};
use serde_json::{Value, json};

use super::live::call;
use super::logs::log;
use crate::support::api::{Person, TestApi};

/// The minutes in which something came, and what.
async fn came(person: &Person, path: &str) -> Vec<(String, u64, Value)> {
    let traffic = person.get(path).await.expect(200);
    let minutes = traffic["minutes"].as_array().unwrap().iter();
    let row = |minute: &Value| {
        let start = minute["start"].as_str().unwrap().to_owned();
        (start, minute["live"].as_u64().unwrap(), minute["ended"].clone())
    };
    minutes.map(row).filter(|(_, live, ended)| *live > 0 || *ended != json!([])).collect()
}

#[tokio::test]
async fn calls_are_counted_by_minute_and_by_what_became_of_them() {
    let api = TestApi::start().await;
    let (joe, eve, staff) = (api.seller("joe").await, api.seller("eve").await, api.staff().await);
    let running = clock::now().duration_trunc(TimeDelta::minutes(1)).unwrap();
    let at = |minutes: i64, seconds: i64| {
        let at = running - TimeDelta::minutes(minutes) + TimeDelta::seconds(seconds);
        at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    };
    for (seller, minutes, seconds, status) in [
        (joe.id, 3, 0, CallStatus::Answered),
        (joe.id, 3, 59, CallStatus::Answered),
        (joe.id, 3, 30, CallStatus::RejectedCc),
        (eve.id, 2, 0, CallStatus::Busy),
        (joe.id, 59, 0, CallStatus::NoAnswer),
        (joe.id, 60, 59, CallStatus::Answered),
    ] {
        log(&api, seller, &at(minutes, seconds), status).await;
    }
    api.backend.live.put(call(joe.id));

    let of = |status: &str, calls: u64| json!({"callStatus": status, "calls": calls});
    let of_joe = came(&joe, "/api/seller/traffic").await;
    assert_eq!(of_joe[0], (at(59, 0), 0, json!([of("NOANSWER", 1)])));
    assert_eq!(of_joe[1], (at(3, 0), 0, json!([of("ANSWERED", 2), of("REJECTED_CC", 1)])));
    // A minute may have passed since.
    assert_eq!((of_joe[2].1, &of_joe[2].2, of_joe.len()), (1, &json!([]), 3));
    let of_all = came(&staff, "/api/admin/traffic?minutes=10").await;
    assert_eq!(of_all[1], (at(2, 0), 0, json!([of("BUSY", 1)])));
    assert_eq!(of_all.len(), 3, "{of_all:?}");
    let path = format!("/api/admin/traffic?minutes=10&user_id={}", eve.id);
    assert_eq!(came(&staff, &path).await, [of_all[1].clone()]);

    let mixed = log(&api, eve.id, &at(2, 1), CallStatus::Rejected).await;
    log(&api, eve.id, &at(2, 2), CallStatus::Rejected).await;
    let mixed = call_log::ActiveModel {
        id: Set(mixed),
        reason: Set(CallReason::NoEligibleClientsAvailable),
        ..Default::default()
    };
    let refused_by_caps = mixed.update(&api.backend.db).await.unwrap();
    // A call of which it is not known what refused it.
    let reported = call_log::ActiveModel {
        id: Set(log(&api, eve.id, &at(2, 3), CallStatus::Rejected).await),
        call_id: Set(CallId::of_channel("1763895600.7").0),
        reason: Set(refused_by_caps.reason),
        ..Default::default()
    };
    reported.update(&api.backend.db).await.unwrap();
    let traffic = staff.get(&path).await.expect(200);
    let minutes = traffic["minutes"].as_array().unwrap();
    let minute = minutes.iter().find(|minute| minute["start"] == at(2, 0)).unwrap();
    assert_eq!(minute["ended"], json!([of("BUSY", 1), of("REJECTED", 3)]));
    assert_eq!(minute["refusedByCaps"], 1, "caps of either kind refused one, and not the others");

    let whole = staff.get("/api/admin/traffic?minutes=180").await.expect(200);
    assert_eq!(whole["minutes"].as_array().unwrap().len(), 180);
    for bad in ["0", "181", "x"] {
        let refused = staff.get(&format!("/api/admin/traffic?minutes={bad}")).await;
        assert_eq!(refused.refused_fields(400), ["minutes"]);
    }
}
