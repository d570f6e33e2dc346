use capconduit::capacity::{Correction, HoldId, Holder, Request, Scope, Slot, Stage, Standing};
use capconduit::clock;
use capconduit::ids::LinkId;
use capconduit::routing::{self, Decision};
use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::support::api::{Person, TestApi, campaign, client, id, link};
use crate::support::redis::Redis;
use crate::support::wait::{eventually, seconds};

const DID: &str = "+442071838750";

/// A campaign of `strategy` with three clients for one call each; the ids of the links.
async fn campaign_for_three(api: &TestApi, seller: &Person, strategy: &str) -> Vec<i64> {
    let admin = api.admin().await;
    let mut new = campaign("Solar");
    new["routingStrategy"] = json!(strategy);
    let campaign = id(&seller.post("/api/seller/campaigns", new).await);
    let did = id(&seller.post("/api/seller/dids", json!({"number": DID})).await);
    let path = format!("/api/seller/campaigns/{campaign}");
    seller.put(&format!("{path}/dids"), json!({"didIds": [did]})).await.expect(200);
    let mut links = Vec::new();
    for name in ["one", "two", "three"] {
        let client = id(&admin.post("/api/admin/clients", client(name)).await);
        let mut new = link(client);
        new["maxConcurrency"] = json!(1);
        new["dailyCap"] = json!(2);
        links.push(id(&seller.post(&format!("{path}/clients"), new).await));
    }
    links
}

/// Holds capacity as the next call would; the link that it got.
async fn call(api: &TestApi) -> Option<LinkId> {
    let Decision::Offer(offer) = routing::plan(&api.backend.routing.get(), DID, 7).decision else {
        return None;
    };
    let at = clock::now();
    let request = Request {
        hold: HoldId { call: clock::new_call_id(), attempt: 1 },
        candidates: offer.links.iter().map(|link| link.candidate(at)).collect(),
        turn: offer.first_turn(),
    };
    api.backend.keeper.reserve(&request).await.unwrap().granted
}

async fn simulate(person: &Person, side: &str) -> Value {
    person.post(&format!("/api/{side}/routing/simulate"), json!({"did": DID})).await.expect(200)
}

#[tokio::test]
async fn a_simulation_says_what_the_next_call_then_does_and_takes_nothing() {
    let api = TestApi::start().await;
    let seller = api.seller("joe").await;
    let links = campaign_for_three(&api, &seller, "round_robin").await;
    for round in 0..3 {
        let answers = [simulate(&seller, "seller").await, simulate(&seller, "seller").await];
        assert_eq!(answers[0], answers[1]);
        let mut expected = links.clone();
        expected.rotate_left(round);
        assert_eq!(answers[0]["order"], json!(expected), "{}", answers[0]);
        let first = answers[0]["first"]["campaignClientSettingId"].as_i64();
        assert!(api.backend.ledger.holders().await.unwrap().len() == round);
        assert_eq!(call(&api).await.map(|link| link.0), first);
    }
    let full = simulate(&seller, "seller").await;
    assert_eq!(full["callStatus"], "REJECTED_CC");
    assert_eq!(full["reason"], "no_eligible_clients_available");
    assert_eq!(full["first"], Value::Null);
    assert_eq!(full["order"], json!([]));
    let traced = &full["trace"]["links"][0];
    assert_eq!(traced["verdict"], "concurrency_cap");
    assert_eq!(traced["refusedBy"]["limit"], 1);
    assert_eq!(call(&api).await, None);
}

/// Every call that is held is answered and ends.
async fn talk_and_end(api: &TestApi) {
    let holders = api.backend.ledger.holders().await.unwrap();
    let over = holders.into_iter().map(|Holder { hold, held_at, scopes, .. }| Standing {
        hold,
        stage: Stage::Counted,
        moment: held_at,
        scopes,
    });
    api.backend.ledger.advance(&over.collect::<Vec<_>>()).await.unwrap();
}

#[tokio::test]
async fn a_simulation_of_another_day_counts_in_that_days_windows() {
    let api = TestApi::start().await;
    let seller = api.seller("joe").await;
    campaign_for_three(&api, &seller, "priority").await;
    while call(&api).await.is_some() {}
    talk_and_end(&api).await;
    while call(&api).await.is_some() {}
    talk_and_end(&api).await;
    assert_eq!(simulate(&seller, "seller").await["callStatus"], "REJECTED_TOTAL");
    let later = json!({"did": DID, "at": "2099-01-01T12:00:00+01:00", "callerNumber": "anonymous"});
    let free = seller.post("/api/seller/routing/simulate", later).await.expect(200);
    assert_eq!(free["callStatus"], Value::Null);
    assert_eq!(free["order"].as_array().unwrap().len(), 3);
    // To have looked at another day changes nothing of this one.
    assert_eq!(simulate(&seller, "seller").await["callStatus"], "REJECTED_TOTAL");
}

/// What others had used of a client's caps at any time is nobody's business.
#[tokio::test]
async fn a_simulation_of_a_day_that_is_over_is_one_of_now() {
    let api = TestApi::start().await;
    let seller = api.seller("joe").await;
    let links = campaign_for_three(&api, &seller, "priority").await;
    let then = clock::now() - TimeDelta::hours(25);
    let used = links.into_iter().map(|link| Correction {
        scope: Scope::link(LinkId(link)),
        total: 2,
        slots: vec![(Slot::of(then), 2)],
    });
    api.backend.ledger.correct(&used.collect::<Vec<_>>()).await.unwrap();
    for at in [then.to_rfc3339(), "0001-01-01T00:00:00Z".to_owned()] {
        let asked = json!({"did": DID, "at": at});
        let seen = seller.post("/api/seller/routing/simulate", asked).await.expect(200);
        assert_eq!(seen["callStatus"], Value::Null, "{at}");
    }
}

#[tokio::test]
async fn sellers_simulate_calls_to_their_own_dids_and_staff_to_any() {
    let api = TestApi::start().await;
    let (joe, eve) = (api.seller("joe").await, api.seller("eve").await);
    campaign_for_three(&api, &joe, "weighted").await;
    let staff = api.staff().await;
    eve.post("/api/seller/routing/simulate", json!({"did": DID})).await.expect(404);
    eve.post("/api/seller/routing/simulate", json!({"did": "+15550001111"})).await.expect(404);
    assert_eq!(simulate(&staff, "admin").await["trace"]["strategy"], "weighted");
    let unknown = json!({"did": "+15550001111"});
    let unknown = staff.post("/api/admin/routing/simulate", unknown).await.expect(200);
    assert_eq!(unknown["callStatus"], "REJECTED_DID");
    assert_eq!(unknown["reason"], "did_not_found");
    let bad = json!({"did": "020 7183 8750", "at": "yesterday"});
    let refused = staff.post("/api/admin/routing/simulate", bad).await;
    assert_eq!(refused.refused_fields(400), ["at", "did"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_shared_ledger_is_away_a_simulation_says_what_an_instance_alone_does() {
    let mut redis = Redis::start();
    let api = TestApi::of_two(&redis).await;
    let seller = api.seller("joe").await;
    let links = campaign_for_three(&api, &seller, "round_robin").await;
    let campaign = &seller.get("/api/seller/campaigns").await.expect(200)["items"][0]["id"];
    let path = format!("/api/seller/campaigns/{campaign}/clients/{}", links[1]);
    // Of one call at once no instance has a part, of three it has one.
    seller.put(&path, json!({"maxConcurrency": 3, "dailyCap": null})).await.expect(200);
    assert_eq!(simulate(&seller, "seller").await["trace"]["links"][0]["withinShare"], false);
    redis.stop();
    let asked = json!({"did": DID});
    let alone = eventually("the share is known", seconds(10), async || {
        let answer = seller.post("/api/seller/routing/simulate", asked.clone()).await;
        if answer.status == 503 {
            return None;
        }
        let answer = answer.expect(200);
        (answer["trace"]["links"][0]["withinShare"] == true).then_some(answer)
    })
    .await;
    let traced = &alone["trace"]["links"];
    assert_eq!(traced[0]["verdict"], "concurrency_cap");
    assert_eq!(traced[0]["refusedBy"]["limit"], 0);
    assert_eq!(alone["first"]["campaignClientSettingId"], links[1]);
    assert_eq!(
        (&traced[1]["withinShare"], &traced[2]["withinShare"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(simulate(&seller, "seller").await["trace"], alone["trace"], "nothing was taken");
    // For a dialplan that routes by itself, the same holds.
    let info = api.dialplan().get(&format!("/api/internal/route_info?did={DID}")).await.expect(200);
    let targets = info["routingInfo"]["targets"].as_array().unwrap();
    assert_eq!((targets.len(), &targets[0]["campaignClientSettingId"]), (1, &json!(links[1])));

    assert_eq!(call(&api).await, Some(LinkId(links[1])));
    assert_eq!(simulate(&seller, "seller").await["callStatus"], "REJECTED_CC");
    assert_eq!(call(&api).await, None);
}
