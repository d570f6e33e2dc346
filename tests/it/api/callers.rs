//! Who may see who called.

use capconduit::live::LiveCall;
use capconduit_entity::CallStatus;
use serde_json::{Value, json};

use super::live::call;
use super::logs::log;
use crate::support::api::{Person, TestApi};

const NUMBER: &str = "+441134960000";

/// The number in every answer that has one, as this person is told it.
async fn told(api: &TestApi, person: &Person, side: &str, id: i64) -> Vec<Value> {
    let mut events = person.follow(&format!("/api/{side}/live/events")).await;
    let snapshot = events.news().await;
    let calls = api.backend.live.list();
    api.backend.live.put(LiveCall::clone(&calls[0]));
    let change = events.news().await;
    let live = person.get(&format!("/api/{side}/live")).await.expect(200);
    let logs = person.get(&format!("/api/{side}/logs")).await.expect(200);
    let one = person.get(&format!("/api/{side}/logs/{id}")).await.expect(200);
    let csv = person.get(&format!("/api/{side}/logs?format=csv")).await;
    let heads = csv.text.lines().next().unwrap().split(',');
    let values = csv.text.lines().nth(1).unwrap().split(',');
    let in_csv = |name: &str| heads.clone().zip(values.clone()).find(|(head, _)| *head == name);
    let name = in_csv("callerIdName").unwrap().1;
    assert_eq!(one["callerIdName"] == Value::Null, name.is_empty(), "{name}");
    assert_eq!(logs["items"][0]["callerIdName"], one["callerIdName"]);
    vec![
        snapshot.calls()[0]["callerIdNum"].clone(),
        change.data["call"]["callerIdNum"].clone(),
        live["items"][0]["callerIdNum"].clone(),
        logs["items"][0]["callerIdNum"].clone(),
        one["callerIdNum"].clone(),
        // With a guard against spreadsheets, unless it is a number.
        json!(in_csv("callerIdNum").unwrap().1.trim_matches(['"', '\''])),
        json!(if name.is_empty() { "no name" } else { "a name" }),
    ]
}

#[tokio::test]
async fn staff_tell_calls_apart_without_seeing_who_called() {
    let api = TestApi::start().await;
    let (joe, staff, admin) = (api.seller("joe").await, api.staff().await, api.admin().await);
    let id = log(&api, joe.id, "2026-11-22T10:00:00Z", CallStatus::Busy).await;
    api.backend.live.put(LiveCall { caller_number: Some(NUMBER.to_owned()), ..call(joe.id) });
    for (person, side, number, name) in [
        (&admin, "admin", NUMBER, "a name"),
        (&joe, "seller", NUMBER, "a name"),
        (&staff, "admin", "+44113496****", "no name"),
    ] {
        let mut expected = vec![json!(number); 6];
        expected.push(json!(name));
        assert_eq!(told(&api, person, side, id).await, expected, "{}", person.name);
    }
}
