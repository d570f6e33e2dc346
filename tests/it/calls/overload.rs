//! More callers at once than the switch is to be asked for.

use std::time::Instant;

use serde_json::json;

use crate::support::callers::Plan;
use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::service::Service;
use crate::support::sip::Trace;
use crate::support::wait::seconds;

const NUMBER: &str = "+15550101801";
const CALLERS: u32 = 60;
/// Long before any client answers, or a caller would ask again: nobody waits for a place.
const AT_ONCE_MS: i64 = 500;

/// How many INVITEs one call took.
fn times_asked(call: &Trace) -> usize {
    call.count(|message| message.is_request("INVITE"))
}

#[tokio::test]
async fn callers_over_the_limit_of_calls_in_setup_get_503_at_once_and_the_others_their_client() {
    let mut service = Service::prepare();
    service.settings.push(("CAPCONDUIT__CALLS__MOST_IN_SETUP", "4".to_owned()));
    service.start_first().await;
    let client = Phones::start(&service, Manner::answers_after(1_500)).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    campaign.link(service.client(&client.contact()).await, json!({})).await;

    // All within a moment, and phones that ask again half a second later.
    let plan = Plan { number: NUMBER, calls: CALLERS, rate: 2_000, talk_ms: 1 };
    let seen = plan.start(&service).finish(seconds(30)).await;
    let (mut refused, mut served) = (0, 0);
    for call in seen.calls().values() {
        let asked = call.when("an INVITE", |message| message.is_request("INVITE"));
        assert_eq!(times_asked(call), 1, "no caller has to ask again: {call:#?}");
        let answer = call.find(|message| message.final_status().is_some()).unwrap();
        match answer.final_status() {
            Some(200) => served += 1,
            Some(503) => {
                let waited = answer.at - asked;
                assert!(waited.num_milliseconds() < AT_ONCE_MS, "{waited}: {call:#?}");
                refused += 1;
            }
            other => panic!("{other:?}: {call:#?}"),
        }
    }
    assert!(refused > 0, "sixty at once are more than four in setup");
    assert!(served >= 4, "those in setup are served");
    let rung = client.trace().calls();
    assert!(rung.values().all(|call| times_asked(call) == 1), "nor has Asterisk: {rung:#?}");
    let logs = service.logs(CALLERS as usize).await;
    let told = logs.iter().filter(|log| log["reason"] == "capacity_unavailable").count();
    assert_eq!(told, refused);
    let counted = service.metrics().await.known("capconduit_calls_over_limit_total");
    assert!((counted - refused as f64).abs() < 0.5, "{counted}");
    // Places are given back: a later caller is served as ever.
    let mut late = Phone::call(&service, NUMBER).await;
    assert_eq!(late.answer().await, 200);
    late.hang_up().await;
    let ended = Instant::now();
    service.assert_clean().await;
    assert!(ended.elapsed() < seconds(20));
}
