use std::sync::atomic::Ordering;

use capconduit::clock;
use capconduit::ids::SellerId;
use capconduit::live::{LiveCall, LiveState};

use crate::support::api::TestApi;

fn call(seller: i64) -> LiveCall {
    LiveCall {
        call: clock::new_call_id(),
        state: LiveState::Ringing,
        since: clock::now(),
        started_at: clock::now(),
        dialled: "+442071838750".to_owned(),
        caller_number: None,
        seller: Some(SellerId(seller)),
        did: None,
        campaign: None,
        client: None,
        attempts: 1,
    }
}

#[tokio::test]
async fn sellers_see_their_own_live_calls_and_staff_see_all() {
    let api = TestApi::start().await;
    let (joe, eve, staff) = (api.seller("joe").await, api.seller("eve").await, api.staff().await);
    let (of_joe, of_eve) = (call(joe.id), call(eve.id));
    api.backend.live.put(of_joe.clone());
    api.backend.live.put(of_eve);
    let seen = joe.get("/api/seller/live").await.expect(200);
    assert_eq!(seen["total"], 1);
    assert_eq!(seen["items"][0]["callId"], of_joe.call.to_string());
    assert_eq!(seen["items"][0]["state"], "ringing");
    assert_eq!(staff.get("/api/admin/live").await.expect(200)["total"], 2);
}

#[tokio::test]
async fn a_live_call_is_hung_up_and_another_is_not_there() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    let id = clock::new_call_id();
    api.switch.live.lock().push(id);
    staff.delete(&format!("/api/admin/live/{id}")).await.expect(204);
    staff.delete(&format!("/api/admin/live/{}", clock::new_call_id())).await.expect(404);
    staff.delete("/api/admin/live/nonsense").await.expect(404);
}

#[tokio::test]
async fn readiness_names_what_is_away() {
    let api = TestApi::start().await;
    let nobody = api.nobody();
    nobody.get("/health").await.expect(200);
    nobody.get("/ready").await.expect(200);
    api.switch.is_away.store(true, Ordering::SeqCst);
    let away = nobody.get("/ready").await.expect(503);
    assert!(away["detail"].as_str().unwrap().contains("Asterisk"));
    nobody.get("/health").await.expect(200);
}
