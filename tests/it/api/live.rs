use std::sync::atomic::Ordering;

use capconduit::clock;
use capconduit::ids::{CampaignId, ClientId, LinkId, SellerId};
use capconduit::live::{LiveCall, LiveClient, LiveState};

use serde_json::json;

use crate::support::api::{Person, TestApi};

pub fn call(seller: i64) -> LiveCall {
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

pub fn client(id: i64) -> LiveClient {
    LiveClient {
        link: LinkId(id),
        id: ClientId(id),
        name: format!("Client {id}"),
        identifier: format!("client-{id}"),
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
async fn live_calls_are_filtered_by_seller_campaign_and_client() {
    let api = TestApi::start().await;
    let (joe, staff) = (api.seller("joe").await, api.staff().await);
    api.backend.live.put(call(joe.id));
    api.backend.live.put(LiveCall { client: Some(client(3)), ..call(joe.id) });
    let campaign = Some((CampaignId(5), "Solar".to_owned()));
    api.backend.live.put(LiveCall { campaign, ..call(joe.id + 1) });
    for (filter, of_all, of_joe) in
        [("", 3, 2), ("client_id=3", 1, 1), ("campaign_id=5", 1, 0), ("client_id=5", 0, 0)]
    {
        let total = async |who: &Person, side: &str| {
            let path = format!("/api/{side}/live?{filter}");
            who.get(&path).await.expect(200)["total"].as_u64().unwrap()
        };
        assert_eq!(total(&staff, "admin").await, of_all, "{filter}");
        assert_eq!(total(&joe, "seller").await, of_joe, "{filter}");
    }
    let of_joe = staff.get(&format!("/api/admin/live?user_id={}", joe.id)).await.expect(200);
    assert_eq!(of_joe["total"], 2);
    let bad = "user_id=x&campaign_id=0&client_id=";
    for path in ["/api/admin/live", "/api/admin/live/events"] {
        let refused = staff.get(&format!("{path}?{bad}")).await;
        assert_eq!(refused.refused_fields(400), ["campaign_id", "client_id", "user_id"]);
    }
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
    api.switch.is_busy.store(true, Ordering::SeqCst);
    let busy = staff.delete(&format!("/api/admin/live/{id}")).await;
    assert_eq!((busy.status, busy.retry_after), (503, Some(1)), "it is up, and can wait");
    api.switch.is_busy.store(false, Ordering::SeqCst);

    let because = |reason: &str| format!("/api/admin/live/{id}?reason={reason}");
    for bad in ["", "two%0Alines", &"x".repeat(61)] {
        let refused = staff.delete(&because(bad)).await;
        assert_eq!(refused.refused_fields(400), ["reason"]);
    }
    let longest = "x".repeat(60);
    staff.delete(&because(&longest)).await.expect(204);
    let told = api.switch.told.lock().clone();
    assert_eq!(told.first().unwrap(), "Hung up by staff");
    assert_eq!(told.last().unwrap(), &format!("Hung up by staff: {longest}"));
    assert!(told.last().unwrap().len() <= 80, "it fits into the record");
    let audit = api.admin().await.get("/api/admin/audit").await.expect(200);
    let entry = audit["items"].as_array().unwrap().iter().find(|entry| entry["resource"] == "call");
    assert_eq!(entry.unwrap()["after"], json!({"reason": longest}));
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
