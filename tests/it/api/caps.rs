//! Caps of clients, campaigns and sellers: set, shown, and who may do it.

use std::sync::Arc;
use std::time::Duration;

use capconduit::capacity::recount::{Recount, RecountSettings};
use capconduit::capacity::{HoldId, Holder, Request, Stage, Standing};
use capconduit::clock;
use capconduit::ids::LinkId;
use capconduit::routing::{self, Decision};
use serde_json::{Value, json};

use crate::support::api::{Person, TestApi, campaign, client, id, link};

/// Caps of every kind, and the fields that they are set by.
fn every_cap() -> Value {
    json!({
        "maxConcurrency": 9, "totalCallsAllowed": 1000, "hourlyCap": 0, "dailyCap": 20,
        "weeklyCap": 100, "monthlyCap": 400, "timeZone": "Asia/Kathmandu",
    })
}

const WINDOWS: [&str; 6] = ["concurrency", "total", "hour", "day", "week", "month"];

fn with(mut thing: Value, more: Value) -> Value {
    let more = more.as_object().unwrap().clone();
    thing.as_object_mut().unwrap().extend(more);
    thing
}

fn seller(name: &str) -> Value {
    json!({
        "username": name, "email": format!("{name}@example.org"),
        "password": "a long password", "role": "user",
    })
}

/// The scopes and windows of the caps that a thing shows.
fn shown(thing: &Value) -> Vec<(&str, &str)> {
    let caps = thing["caps"].as_array().unwrap().iter();
    caps.map(|cap| (cap["scope"].as_str().unwrap(), cap["window"].as_str().unwrap())).collect()
}

fn cap<'a>(thing: &'a Value, scope: &str, window: &str) -> &'a Value {
    let mut caps = thing["caps"].as_array().unwrap().iter();
    caps.find(|cap| cap["scope"] == scope && cap["window"] == window).unwrap()
}

/// Creates, reads, lists, changes and clears all caps of a thing of `path`.
async fn caps_are_kept(person: &Person, path: &str, new: Value, scope: &str) {
    let created = person.post(path, with(new, every_cap())).await;
    let own = format!("{path}/{}", id(&created));
    let created = created.expect(201);
    for (field, value) in every_cap().as_object().unwrap() {
        assert_eq!(&created[field], value, "{field}");
    }
    assert_eq!(shown(&created), WINDOWS.map(|window| (scope, window)));
    let now = clock::now();
    let day = cap(&created, scope, "day");
    let resets_at: clock::Timestamp = day["resetsAt"].as_str().unwrap().parse().unwrap();
    assert!(now < resets_at && resets_at.to_rfc3339().contains("T18:15:00"), "{day}");
    assert_eq!(
        cap(&created, scope, "total"),
        &json!({
            "scope": scope, "window": "total", "limit": 1000, "used": 0, "held": 0,
            "resetsAt": null,
        })
    );
    assert_eq!(person.get(&own).await.expect(200), created);
    let listed = person.get(path).await.expect(200);
    let listed = listed["items"].as_array().unwrap().iter();
    let listed = listed.filter(|thing| thing["id"] == created["id"]).collect::<Vec<_>>();
    assert_eq!(listed[0]["caps"], created["caps"]);
    let change = json!({"maxConcurrency": null, "dailyCap": null, "hourlyCap": 7});
    let changed = person.put(&own, change).await.expect(200);
    assert_eq!(shown(&changed), ["total", "hour", "week", "month"].map(|window| (scope, window)));
    assert_eq!((&changed["hourlyCap"], &changed["dailyCap"]), (&json!(7), &Value::Null));
    assert_eq!(
        (&changed["weeklyCap"], &changed["timeZone"]),
        (&json!(100), &json!("Asia/Kathmandu"))
    );
    let cleared = json!({
        "totalCallsAllowed": null, "hourlyCap": null, "weeklyCap": null, "monthlyCap": null,
        "timeZone": "UTC",
    });
    assert_eq!(person.put(&own, cleared).await.expect(200)["caps"], json!([]));
    let bad = json!({
        "maxConcurrency": 0, "totalCallsAllowed": -1, "hourlyCap": 1.5, "dailyCap": "10",
        "weeklyCap": 3_000_000_000_u32, "monthlyCap": [], "timeZone": "London", "yearlyCap": 1,
    });
    let fields = [
        "dailyCap",
        "hourlyCap",
        "maxConcurrency",
        "monthlyCap",
        "timeZone",
        "totalCallsAllowed",
        "weeklyCap",
        "yearlyCap",
    ];
    assert_eq!(person.put(&own, bad.clone()).await.refused_fields(400), fields);
    let refused = person.post(path, bad).await.refused_fields(400);
    assert!(fields.iter().all(|field| refused.iter().any(|name| name == field)), "{refused:?}");
    assert_eq!(person.put(&own, json!({"timeZone": null})).await.refused_fields(400), ["timeZone"]);
}

#[tokio::test]
async fn staff_set_caps_of_clients() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    caps_are_kept(&staff, "/api/admin/clients", client("acme"), "client").await;
}

#[tokio::test]
async fn staff_set_caps_of_sellers() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    caps_are_kept(&staff, "/api/admin/users", seller("joe"), "seller").await;
}

#[tokio::test]
async fn sellers_set_caps_of_their_campaigns() {
    let api = TestApi::start().await;
    let joe = api.seller("joe").await;
    caps_are_kept(&joe, "/api/seller/campaigns", campaign("Solar"), "campaign").await;
}

#[tokio::test]
async fn what_is_created_without_caps_has_none() {
    let api = TestApi::start().await;
    let (staff, joe) = (api.staff().await, api.seller("joe").await);
    for created in [
        staff.post("/api/admin/clients", client("acme")).await,
        staff.post("/api/admin/users", seller("eve")).await,
        joe.post("/api/seller/campaigns", campaign("Solar")).await,
    ] {
        let created = created.expect(201);
        assert_eq!((&created["caps"], &created["timeZone"]), (&json!([]), &json!("UTC")));
        assert_eq!(
            (&created["maxConcurrency"], &created["hourlyCap"]),
            (&Value::Null, &Value::Null)
        );
    }
}

#[tokio::test]
async fn only_sellers_have_caps() {
    let api = TestApi::start().await;
    let admin = api.admin().await;
    let mut fields: Vec<String> = every_cap().as_object().unwrap().keys().cloned().collect();
    fields.sort();
    for role in ["staff", "admin"] {
        let mut new = with(seller(role), every_cap());
        new["role"] = json!(role);
        let refused = admin.post("/api/admin/users", new).await;
        assert_eq!(refused.refused_fields(400), fields);
    }
    let own = format!("/api/admin/users/{}", admin.id);
    assert_eq!(admin.put(&own, every_cap()).await.refused_fields(400), fields);
    admin.put(&own, json!({"dailyCap": null, "fullName": "The Boss"})).await.expect(200);

    let joe = admin.post("/api/admin/users", with(seller("joe"), every_cap())).await;
    let own = format!("/api/admin/users/{}", id(&joe));
    let both = json!({"role": "staff", "dailyCap": 3});
    assert_eq!(admin.put(&own, both).await.refused_fields(400), ["dailyCap"]);
    let promoted = admin.put(&own, json!({"role": "staff"})).await.expect(200);
    assert_eq!((&promoted["caps"], &promoted["maxConcurrency"]), (&json!([]), &Value::Null));
    let back = json!({"role": "user", "dailyCap": 3});
    let back = admin.put(&own, back).await.expect(200);
    assert_eq!(shown(&back), [("seller", "day")]);
}

#[tokio::test]
async fn who_signs_in_is_shown_without_caps() {
    let api = TestApi::start().await;
    let joe = api.seller("joe").await;
    let status = joe.get("/api/auth/status").await.expect(200);
    assert_eq!(status["user"].get("caps"), None);
}

const DID: &str = "+442071838750";

/// Two sellers' campaigns over one client: joe's with caps of every scope, eve's without.
struct Market {
    api: TestApi,
    staff: Person,
    joe: Person,
    client: i64,
    /// Joe's campaign.
    campaign: String,
    links: [i64; 2],
}

impl Market {
    async fn open() -> Self {
        let api = TestApi::start().await;
        let (staff, joe, eve) =
            (api.staff().await, api.seller("joe").await, api.seller("eve").await);
        let client = id(&staff.post("/api/admin/clients", client("acme")).await);
        let mut links = [0; 2];
        let mut campaigns = Vec::new();
        for (place, (seller, number)) in [(&joe, DID), (&eve, "+15550001111")].iter().enumerate() {
            let did = id(&seller.post("/api/seller/dids", json!({"number": number})).await);
            let new = id(&seller.post("/api/seller/campaigns", campaign("Solar")).await);
            let path = format!("/api/seller/campaigns/{new}");
            seller.put(&format!("{path}/dids"), json!({"didIds": [did]})).await.expect(200);
            links[place] = id(&seller.post(&format!("{path}/clients"), link(client)).await);
            campaigns.push(path);
        }
        let campaign = campaigns.remove(0);
        let client_path = format!("/api/admin/clients/{client}");
        staff.put(&client_path, json!({"maxConcurrency": 5, "dailyCap": 50})).await.expect(200);
        joe.put(&campaign, json!({"maxConcurrency": 4, "weeklyCap": 40})).await.expect(200);
        let account = format!("/api/admin/users/{}", joe.id);
        staff.put(&account, json!({"maxConcurrency": 3, "monthlyCap": 30})).await.expect(200);
        Self { api, staff, joe, client, campaign, links }
    }

    /// Holds what a call to `number` holds; the link that it got.
    async fn call(&self, number: &str) -> Option<LinkId> {
        let plan = routing::plan(&self.api.backend.routing.get(), number, 7);
        let Decision::Offer(offer) = plan.decision else { panic!("{plan:?}") };
        let at = clock::now();
        let request = Request {
            hold: HoldId { call: clock::new_call_id(), attempt: 1 },
            candidates: offer.links.iter().map(|link| link.candidate(at)).collect(),
            turn: offer.first_turn(),
        };
        self.api.backend.ledger.reserve(&request).await.unwrap().granted
    }

    async fn client(&self) -> Value {
        self.staff.get(&format!("/api/admin/clients/{}", self.client)).await.expect(200)
    }

    async fn account(&self) -> Value {
        self.staff.get(&format!("/api/admin/users/{}", self.joe.id)).await.expect(200)
    }
}

#[tokio::test]
async fn a_call_counts_in_all_scopes_and_everyone_sees_what_is_theirs() {
    let market = Market::open().await;
    assert_eq!(market.call(DID).await, Some(LinkId(market.links[0])));
    assert_eq!(market.call("+15550001111").await, Some(LinkId(market.links[1])));

    let campaign = market.joe.get(&market.campaign).await.expect(200);
    let above = [
        ("campaign", "concurrency"),
        ("campaign", "week"),
        ("seller", "concurrency"),
        ("seller", "month"),
    ];
    assert_eq!(shown(&campaign), above);
    let link = &campaign["clientSettings"][0];
    let expected: Vec<_> = [("link", "concurrency")].into_iter().chain(above).collect();
    assert_eq!(shown(link), expected);
    assert!(
        !campaign.to_string().contains("\"client\",\"window\""),
        "what others sold is not shown"
    );
    for (scope, window, limit) in [("campaign", "week", 40), ("seller", "month", 30)] {
        let cap = cap(link, scope, window);
        assert_eq!(
            (&cap["held"], &cap["used"], &cap["limit"]),
            (&json!(1), &json!(0), &json!(limit))
        );
    }
    assert_eq!(cap(link, "seller", "concurrency")["used"], 1);
    // The client is called for two sellers.
    let client = market.client().await;
    assert_eq!(shown(&client), [("client", "concurrency"), ("client", "day")]);
    assert_eq!((&client["caps"][0]["used"], &client["caps"][1]["held"]), (&json!(2), &json!(2)));
    let account = market.account().await;
    assert_eq!(
        account["caps"],
        json!([cap(link, "seller", "concurrency"), cap(link, "seller", "month")])
    );
}

#[tokio::test]
async fn a_cap_of_any_scope_refuses_and_the_simulation_says_which() {
    let market = Market::open().await;
    let account = format!("/api/admin/users/{}", market.joe.id);
    let client = format!("/api/admin/clients/{}", market.client);
    assert_eq!(market.call(DID).await, Some(LinkId(market.links[0])));
    let simulated = async || {
        let asked = json!({"did": DID});
        let answer = market.joe.post("/api/seller/routing/simulate", asked).await.expect(200);
        let traced = answer["trace"]["links"][0].clone();
        assert_eq!(market.call(DID).await, None, "{answer}");
        (answer["callStatus"].clone(), traced["verdict"].clone(), traced["refusedBy"].clone())
    };
    let none = |fields: [&str; 1]| json!({fields[0]: null});
    for (whose, field, limit, status, verdict, scope, window) in [
        (
            "campaign",
            "maxConcurrency",
            1,
            "REJECTED_CC",
            "campaign_concurrency_cap",
            "campaign",
            None,
        ),
        ("account", "maxConcurrency", 1, "REJECTED_CC", "seller_concurrency_cap", "seller", None),
        ("client", "maxConcurrency", 1, "REJECTED_CC", "client_concurrency_cap", "client", None),
        ("campaign", "hourlyCap", 1, "REJECTED_TOTAL", "hourly_cap", "campaign", Some("hour")),
        ("account", "totalCallsAllowed", 0, "REJECTED_TOTAL", "total_cap", "seller", Some("total")),
        ("client", "monthlyCap", 1, "REJECTED_TOTAL", "monthly_cap", "client", Some("month")),
    ] {
        let put = async |change: Value| match whose {
            "campaign" => market.joe.put(&market.campaign, change).await.expect(200),
            "account" => market.staff.put(&account, change).await.expect(200),
            _ => market.staff.put(&client, change).await.expect(200),
        };
        put(json!({field: limit})).await;
        let (used, held) = if window.is_none() { (1, 0) } else { (0, 1) };
        let refused_by =
            json!({"scope": scope, "window": window, "used": used, "held": held, "limit": limit});
        let expected = (json!(status), json!(verdict), refused_by);
        assert_eq!(simulated().await, expected, "{whose} {field}");
        put(none([field])).await;
    }
}

#[tokio::test]
async fn a_reported_call_counts_in_all_scopes_as_a_recount_finds_it() {
    let market = Market::open().await;
    let report = json!({
        "incomingDidNumber": DID, "timestampStart": clock::now().to_rfc3339(),
        "callStatus": "ANSWERED", "asteriskUniqueid": "1.1",
        "campaignClientSettingId": market.links[0],
    });
    market.api.dialplan().post("/api/internal/log_call", report).await.expect(201);
    let used = async || {
        let campaign = market.joe.get(&market.campaign).await.expect(200);
        let (client, account) = (market.client().await, market.account().await);
        [
            campaign["clientSettings"][0]["currentTotalCalls"].clone(),
            cap(&client, "client", "day")["used"].clone(),
            cap(&campaign, "campaign", "week")["used"].clone(),
            cap(&account, "seller", "month")["used"].clone(),
        ]
    };
    assert_eq!(used().await, [json!(1), json!(1), json!(1), json!(1)]);
    let truth = Arc::new(capconduit::store::truth::Records(market.api.backend.db.clone()));
    let settings = RecountSettings { grace: Duration::ZERO, interval: Duration::from_secs(60) };
    let recount = Recount::new(market.api.backend.keeper.clone(), truth, settings);
    let found = recount.verify(false).await.unwrap();
    assert_eq!((found.differences, found.scopes), (Vec::new(), 4));
}

#[tokio::test]
async fn a_change_of_caps_is_in_the_audit_log() {
    let market = Market::open().await;
    let admin = market.api.admin().await;
    let log = admin.get("/api/admin/audit?path=/api/admin/users/&per_page=1").await.expect(200);
    let entry = &log["items"][0];
    assert_eq!(
        (&entry["before"]["monthlyCap"], &entry["after"]["monthlyCap"]),
        (&Value::Null, &json!(30))
    );
    assert_eq!(entry["after"].get("caps"), None, "what was in use is no part of the change");
}

#[tokio::test]
async fn each_unit_in_use_has_a_calls_name_on_it() {
    let market = Market::open().await;
    let (api, staff) = (&market.api, &market.staff);
    let campaign = market.campaign.rsplit('/').next().unwrap();
    // Two answered calls of joe's, one that talks and one that rings; one of eve's rings.
    for (uniqueid, link) in [("1.1", 0), ("1.2", 0), ("1.3", 1)] {
        let report = json!({
            "incomingDidNumber": DID, "timestampStart": clock::now().to_rfc3339(),
            "callStatus": "ANSWERED", "asteriskUniqueid": uniqueid,
            "campaignClientSettingId": market.links[link],
        });
        let report = match link {
            0 => report,
            _ => with(report, json!({"incomingDidNumber": "+15550001111"})),
        };
        api.dialplan().post("/api/internal/log_call", report).await.expect(201);
    }
    market.call(DID).await.unwrap();
    let talking = api.backend.ledger.holders().await.unwrap();
    let talking = talking.into_iter().find(|holder| holder.live).unwrap();
    let Holder { hold, held_at, scopes, .. } = talking;
    let answered = Standing { hold, stage: Stage::Used, moment: held_at, scopes };
    api.backend.ledger.advance(&[answered]).await.unwrap();
    market.call(DID).await.unwrap();
    market.call("+15550001111").await.unwrap();

    let ledger = async |path: &str| staff.get(&format!("/api/admin/caps/{path}/ledger")).await;
    let client = ledger(&format!("client/{}", market.client)).await.expect(200);
    assert_eq!((&client["scope"], &client["id"]), (&json!("client"), &json!(market.client)));
    assert_eq!(client["caps"], market.client().await["caps"]);
    let states = |thing: &Value| {
        let holds = thing["holds"].as_array().unwrap().iter();
        let mut states: Vec<_> =
            holds.map(|hold| (hold["state"].to_string(), hold["live"] == true)).collect();
        states.sort();
        states
    };
    let (held, used) = (("\"held\"".to_owned(), true), ("\"used\"".to_owned(), true));
    assert_eq!(states(&client), [held.clone(), held.clone(), used.clone()]);
    let talking =
        client["holds"].as_array().unwrap().iter().find(|h| h["state"] == "used").unwrap();
    assert_eq!(talking["callId"], hold.call.to_string());
    assert_eq!((&talking["attempt"], &talking["userId"]), (&json!(1), &json!(market.joe.id)));
    assert_eq!(talking["campaignClientSettingId"], market.links[0]);
    let day = &client["windows"][0];
    assert_eq!((&day["window"], &day["calls"]["total"]), (&json!("day"), &json!(3)));
    assert_eq!(day["resetsAt"], cap(&client, "client", "day")["resetsAt"]);
    // All units of the cap are there: what is used is in the records, or answered just now.
    let day_cap = cap(&client, "client", "day");
    assert_eq!((&day_cap["used"], &day_cap["held"]), (&json!(4), &json!(2)));
    assert_eq!(cap(&client, "client", "concurrency")["used"], 3);

    for (path, window) in
        [(format!("campaign/{campaign}"), "week"), (format!("seller/{}", market.joe.id), "month")]
    {
        let found = ledger(&path).await.expect(200);
        assert_eq!(states(&found), [held.clone(), used.clone()], "{path}");
        let calls = &found["windows"][0]["calls"];
        assert_eq!((&found["windows"][0]["window"], &calls["total"]), (&json!(window), &json!(2)));
        assert!(calls["items"].as_array().unwrap().iter().all(|c| c["userId"] == market.joe.id));
    }
    let link = ledger(&format!("link/{}", market.links[1])).await.expect(200);
    assert_eq!((states(&link), &link["windows"]), (vec![held], &json!([])), "no volume cap is set");

    let page = format!("/api/admin/caps/client/{}/ledger?page=2&per_page=2", market.client);
    let page = staff.get(&page).await.expect(200)["windows"][0]["calls"].clone();
    assert_eq!((&page["pages"], page["items"].as_array().unwrap().len()), (&json!(2), 1));
    let log = page["items"][0]["logId"].as_i64().unwrap();
    let log = staff.get(&format!("/api/admin/logs/{log}")).await.expect(200);
    assert_eq!(
        (&log["callId"], &log["asteriskUniqueid"]),
        (&page["items"][0]["callId"], &json!("1.1"))
    );
}

#[tokio::test]
async fn the_ledger_of_what_is_not_there_is_not_there() {
    let market = Market::open().await;
    let ledger =
        async |path: &str| market.staff.get(&format!("/api/admin/caps/{path}/ledger")).await;
    for scope in ["link", "client", "campaign", "seller"] {
        ledger(&format!("{scope}/999")).await.expect(404);
    }
    // An account that doesn't sell.
    ledger(&format!("seller/{}", market.staff.id)).await.expect(404);
    let refused = ledger(&format!("did/{}", market.client)).await;
    assert_eq!(refused.refused_fields(400), ["scope"]);
    assert_eq!(ledger("client/acme").await.refused_fields(400), ["id"]);
    let bad = market.staff.get("/api/admin/caps/x/1/ledger?page=0&per_page=201").await;
    assert_eq!(bad.refused_fields(400), ["page", "per_page", "scope"]);
}
