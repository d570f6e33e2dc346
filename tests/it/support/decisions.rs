//! What a call log says was decided agrees with what it says happened, and with what a
//! simulation says would happen.
//!
//! Every test of calls ends with this, for every log that it made: the attempts are the
//! links that the trace says were dialled, in that order; each link that was passed over
//! had a cap without room; the outcome follows from the attempts; the order is the one
//! that the trace's seed or cursor gives; and a simulated call meets with the same order.
//! Where the configuration is still the same, the links are those of today, and so are the
//! limits that were compared. What was counted, a log can't prove: the tests of caps do.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;

use capconduit::capacity::Caps;
use capconduit::ids::{CallId, CampaignId, ClientId, LinkId, SellerId};
use capconduit::routing::{Client, Link, strategy};
use capconduit_entity::{Status, Strategy};
use serde_json::{Value, json};

use super::seller::count;
use super::service::{Service, items};
use super::wait::{eventually, seconds};

/// More than any test of calls makes; of load tests these are the newest.
const MOST: usize = 200;

const OBSTACLES: [&str; 3] = ["link_inactive", "client_inactive", "no_endpoint"];

impl Service {
    /// Every log's trace agrees with its attempts and its outcome, and with a simulation.
    pub async fn assert_decisions_agree(&self) {
        eventually("every record is in the database", seconds(10), async || {
            (self.metrics().await.known("capconduit_journal_depth") == 0.0).then_some(())
        })
        .await;
        let path = format!("/api/admin/logs?page=1&per_page={MOST}");
        let mut logs = Vec::new();
        for log in items(&self.admin().get(&path).await) {
            let log = self.log_in_full(log).await;
            // Not one of a call that the dialplan led.
            let call = CallId::parse(log["callId"].as_str().unwrap()).unwrap();
            if !call.is_of_channel() {
                logs.push(log);
            }
        }
        for log in &logs {
            assert_agrees(log).unwrap_or_else(|wrong| panic!("{wrong}: {log:#}"));
        }
        let numbers: BTreeSet<&str> =
            logs.iter().filter_map(|log| log["did"]["number"].as_str()).collect();
        for number in numbers {
            let traces = logs.iter().filter(|log| log["did"]["number"] == number);
            let traces: Vec<&Value> = traces.map(|log| &log["trace"]).collect();
            self.assert_simulated_alike(number, &traces).await;
        }
    }

    /// A call to this number would meet with what these did, if nothing was changed since.
    async fn assert_simulated_alike(&self, number: &str, newest_first: &[&Value]) {
        let asked = json!({"did": number});
        let Some(simulated) = self.admin().try_post("/api/admin/routing/simulate", asked).await
        else {
            panic!("a call to {number} can't be simulated");
        };
        let trace = &simulated["trace"];
        let sensible = assert_links(trace).and_then(|()| assert_order(trace));
        sensible.unwrap_or_else(|wrong| panic!("{wrong}: {simulated:#}"));
        let mut limits = BTreeMap::new();
        for past in newest_first.iter().filter(|past| past["revision"] == trace["revision"]) {
            for path in compared(past) {
                if let Entry::Vacant(unknown) = limits.entry(path) {
                    let path = format!("/api/admin/caps/{}/ledger", unknown.key());
                    unknown.insert(self.admin().get(&path).await["caps"].clone());
                }
            }
            let alike = assert_as_configured(past, trace, &limits);
            alike.unwrap_or_else(|wrong| panic!("{wrong}: {past:#} {simulated:#}"));
        }
        let last = newest_first[0];
        if configuration(trace) != configuration(last) {
            return;
        }
        let drawn_alike = order(trace, &last["seed"], &last["cursor"]);
        assert_eq!(drawn_alike, candidates(last), "{trace:#} {last:#}");
        let would_be_tried: Vec<i64> = items(&trace["links"])
            .iter()
            .filter(|link| matches!(verdict(link), "dialled" | "not_reached"))
            .map(|link| number_of(&link["linkId"]))
            .collect();
        assert_eq!(simulated["order"], json!(would_be_tried), "{simulated:#}");
    }
}

type Agrees = Result<(), String>;

fn ensure(is_right: bool, wrong: impl FnOnce() -> String) -> Agrees {
    if is_right { Ok(()) } else { Err(wrong()) }
}

/// What a log says agrees with itself.
fn assert_agrees(log: &Value) -> Agrees {
    let trace = &log["trace"];
    assert_links(trace)?;
    assert_order(trace)?;
    let dialled = dialled(trace);
    let attempts: Vec<(u64, i64)> = items(&log["attempts"])
        .iter()
        .map(|it| (count(&it["position"]), number_of(&it["campaignClientSettingId"])))
        .collect();
    // Where the service was killed before it knew that a client was dialled, room is asked for
    // again: the client is dialled after all, or refused for a cap. Nobody else is, twice.
    let refused_after = refused_after_attempt(trace);
    let is_repeated = |place: usize| {
        let attempt = &items(&log["attempts"])[place];
        let is_unknown = attempt["result"] == "canceled" && attempt["ringingAt"].is_null();
        let (next, own) = (attempts.get(place + 1), attempts[place]);
        is_unknown && (refused_after.contains(&own) || next.is_some_and(|next| next.1 == own.1))
    };
    let is_before = |refused: &(u64, i64)| {
        attempts.iter().position(|attempt| attempt == refused).is_some_and(is_repeated)
    };
    ensure(refused_after.iter().all(is_before), || format!("passed over: {refused_after:?}"))?;
    let last_of_each: Vec<(u64, i64)> =
        (0..attempts.len()).filter(|place| !is_repeated(*place)).map(|at| attempts[at]).collect();
    ensure(dialled == last_of_each, || format!("dialled were {dialled:?}, and not {attempts:?}"))?;
    let of_links: BTreeMap<_, _> = items(&trace["links"])
        .iter()
        .map(|link| (number_of(&link["linkId"]), &link["clientId"]))
        .collect();
    for attempt in items(&log["attempts"]) {
        let link = number_of(&attempt["campaignClientSettingId"]);
        let client = &attempt["client"]["id"];
        ensure(of_links.get(&link) == Some(&client), || {
            format!("link {link} isn't of client {client}")
        })?;
    }
    for (of, id) in [("did", "didId"), ("campaign", "campaignId")] {
        ensure(log[of]["id"] == trace[id], || format!("the {of} isn't {}", trace[id]))?;
    }
    assert_outcome(log)
}

/// The links that a cap refused after an attempt, by its number.
fn refused_after_attempt(trace: &Value) -> Vec<(u64, i64)> {
    let refused = items(&trace["links"]).iter().filter(|link| verdict(link).ends_with("_cap"));
    let after = refused.filter(|link| !link["attempt"].is_null());
    after.map(|link| (count(&link["attempt"]), number_of(&link["linkId"]))).collect()
}

/// The scopes whose caps had no room, as paths name them.
fn compared(trace: &Value) -> impl Iterator<Item = String> {
    items(&trace["links"]).iter().filter_map(|link| Some(scope_of(trace, link)?.0))
}

/// The scope whose cap had no room for a link, as paths name it, and the numbers; none
/// where an instance compared its part of a limit.
fn scope_of<'a>(trace: &Value, link: &'a Value) -> Option<(String, &'a Value)> {
    let refused = &link["refusedBy"];
    if link["withinShare"] == true {
        return None;
    }
    let scope = refused["scope"].as_str()?;
    let id = match scope {
        "link" => &link["linkId"],
        "client" => &link["clientId"],
        "campaign" => &trace["campaignId"],
        _ => &trace["sellerId"],
    };
    Some((format!("{scope}/{id}"), refused))
}

/// A trace of today's configuration has its links and its limits.
fn assert_as_configured(trace: &Value, today: &Value, limits: &BTreeMap<String, Value>) -> Agrees {
    let (then, now) = (configuration(trace), configuration(today));
    ensure(then == now, || format!("it is {now:?}, and not {then:?}"))?;
    for (path, refused) in items(&trace["links"]).iter().filter_map(|it| scope_of(trace, it)) {
        let window = refused["window"].as_str().unwrap_or("concurrency");
        let cap = items(&limits[&path]).iter().find(|cap| cap["window"] == window);
        let limit = cap.map_or(&Value::Null, |cap| &cap["limit"]);
        ensure(*limit == refused["limit"], || format!("{window} of {path} is {limit}"))?;
    }
    Ok(())
}

/// The outcome follows from what became of the attempts.
fn assert_outcome(log: &Value) -> Agrees {
    let results: Vec<&str> =
        items(&log["attempts"]).iter().map(|it| it["result"].as_str().unwrap()).collect();
    let links = items(&log["trace"]["links"]);
    let (status, reason) = (log["callStatus"].as_str().unwrap(), log["reason"].as_str().unwrap());
    let is_answered = results.last() == Some(&"answered");
    ensure(is_answered == (status == "ANSWERED"), || format!("{status} after {results:?}"))?;
    if is_answered {
        let taker = &items(&log["attempts"]).last().unwrap()["client"]["id"];
        ensure(log["client"]["id"] == *taker, || format!("the client isn't {taker}"))?;
    }
    let earlier = results.iter().take(results.len().saturating_sub(1));
    ensure(earlier.clone().all(|result| *result != "answered"), || format!("{results:?}"))?;
    let is_failure = |result: &&str| matches!(*result, "rejected" | "unreachable" | "congestion");
    let (all_busy, all_failed) =
        (results.iter().all(|result| *result == "busy"), results.iter().all(is_failure));
    let nobody_left = links.iter().all(|link| verdict(link) != "not_reached");
    let refused = links.iter().filter(|link| !link["refusedBy"].is_null());
    let by_concurrency = refused.clone().filter(|link| link["refusedBy"]["window"].is_null());
    let (refused, by_concurrency) = (refused.count(), by_concurrency.count());
    let (is_right, expected) = match reason {
        "all_busy" => (nobody_left && all_busy, "BUSY"),
        "all_failed" => (nobody_left && all_failed && !all_busy, "FAILED"),
        "all_no_answer" => (nobody_left && !all_busy && !all_failed, "NOANSWER"),
        "no_eligible_clients_available" => {
            let status = match by_concurrency {
                0 => "REJECTED_TOTAL",
                all if all == refused => "REJECTED_CC",
                _ => "REJECTED",
            };
            (nobody_left && results.is_empty() && refused > 0, status)
        }
        "no_active_clients_in_campaign" => {
            let left_out = links.iter().all(|link| OBSTACLES.contains(&verdict(link)));
            (left_out && results.is_empty(), "REJECTED")
        }
        "did_not_found" => (log["trace"]["didId"].is_null() && links.is_empty(), "REJECTED_DID"),
        "did_inactive" => (links.is_empty(), "REJECTED_DID"),
        "owner_inactive" | "no_active_campaign_for_did" => (links.is_empty(), "REJECTED"),
        "capacity_unavailable" => (true, "REJECTED"),
        "answered" => (is_answered, "ANSWERED"),
        "caller_abandoned" => (true, "CANCELED"),
        "system_error" => (true, "FAILED"),
        "interrupted" => (true, if is_answered { "ANSWERED" } else { "FAILED" }),
        other => return Err(format!("what is {other}?")),
    };
    ensure(is_right && status == expected, || format!("{status} {reason} after {results:?}"))
}

/// Nobody was passed over without a reason, and every reason is one.
fn assert_links(trace: &Value) -> Agrees {
    let links = items(&trace["links"]);
    let last = links.iter().rposition(|link| verdict(link) == "dialled");
    let mut attempt = 0;
    let is_left_out = |link: &Value| OBSTACLES.contains(&verdict(link));
    ensure(links.is_sorted_by_key(is_left_out), || "who takes part comes first".to_owned())?;
    for (place, link) in links.iter().enumerate() {
        let refused = &link["refusedBy"];
        let is_cap = verdict(link).ends_with("_cap");
        ensure(is_cap != refused.is_null(), || format!("no cap refused {link}"))?;
        let expected = match verdict(link) {
            "dialled" => {
                let number = count(&link["attempt"]);
                ensure(number > attempt, || format!("attempt {number} is after {attempt}"))?;
                attempt = number;
                continue;
            }
            "not_reached" => last.is_none_or(|last| place > last),
            word if OBSTACLES.contains(&word) => true,
            word => {
                let taken = count(&refused["used"]) + count(&refused["held"]);
                word == cap(refused) && taken >= count(&refused["limit"])
            }
        };
        ensure(expected && (is_cap || link["attempt"].is_null()), || {
            format!("passed over: {link}")
        })?;
    }
    Ok(())
}

/// The name of a cap that had no room.
fn cap(refused: &Value) -> String {
    let window = match refused["window"].as_str() {
        None => "concurrency",
        Some("hour") => "hourly",
        Some("day") => "daily",
        Some("week") => "weekly",
        Some("month") => "monthly",
        Some(other) => other,
    };
    match refused["scope"].as_str().unwrap() {
        scope if scope != "link" && window == "concurrency" => format!("{scope}_concurrency_cap"),
        _ => format!("{window}_cap"),
    }
}

/// The links stand in the order that the strategy gives for the trace's seed or cursor.
fn assert_order(trace: &Value) -> Agrees {
    let (found, expected) = (candidates(trace), order(trace, &trace["seed"], &trace["cursor"]));
    ensure(found == expected, || format!("the order is {found:?}, and not {expected:?}"))
}

/// The order in which this trace's candidates would be tried, by the code of real calls.
fn order(trace: &Value, seed: &Value, cursor: &Value) -> Vec<i64> {
    let strategy = match trace["strategy"].as_str() {
        None => return Vec::new(),
        Some("round_robin") => Strategy::RoundRobin,
        Some("priority") => Strategy::Priority,
        Some("weighted") => Strategy::Weighted,
        Some(other) => panic!("{other}"),
    };
    let seed = seed.as_u64().map_or(0, |seed| u32::try_from(seed).unwrap());
    let links = taking_part(trace).map(|link| Arc::new(link_of(link))).collect();
    let mut order: Vec<i64> =
        strategy::order(strategy, links, seed).iter().map(|link| link.id.0).collect();
    if let Some(cursor) = cursor.as_i64() {
        let passed = order.iter().filter(|link| **link <= cursor).count();
        let all = order.len().max(1);
        order.rotate_left(passed % all);
    }
    order
}

/// As much of a link as decides about its place.
fn link_of(link: &Value) -> Link {
    let client = Client {
        id: ClientId(number_of(&link["clientId"])),
        identifier: String::new(),
        name: String::new(),
        status: Status::Active,
        endpoint: "endpoint".to_owned(),
        caps: Caps::NONE,
    };
    Link {
        id: LinkId(number_of(&link["linkId"])),
        campaign: CampaignId(1),
        seller: SellerId(1),
        status: Status::Active,
        client: Arc::new(client),
        caps: Caps::NONE,
        campaign_caps: Caps::NONE,
        seller_caps: Caps::NONE,
        priority: i32::try_from(number_of(&link["priority"])).unwrap(),
        weight: u32::try_from(count(&link["weight"])).unwrap(),
    }
}

fn taking_part(trace: &Value) -> impl Iterator<Item = &Value> {
    items(&trace["links"]).iter().filter(|link| !OBSTACLES.contains(&verdict(link)))
}

fn candidates(trace: &Value) -> Vec<i64> {
    taking_part(trace).map(|link| number_of(&link["linkId"])).collect()
}

/// Links that were dialled, by their attempts.
fn dialled(trace: &Value) -> Vec<(u64, i64)> {
    let is_dialled = |link: &&Value| verdict(link) == "dialled";
    let all = items(&trace["links"]).iter().filter(is_dialled);
    all.map(|link| (count(&link["attempt"]), number_of(&link["linkId"]))).collect()
}

/// What of the configuration a trace shows, as far as it decides about the order.
fn configuration(trace: &Value) -> (Value, BTreeSet<String>) {
    let links = items(&trace["links"]).iter().map(|link| {
        let obstacle = OBSTACLES.contains(&verdict(link)).then(|| verdict(link));
        let [id, client] = [&link["linkId"], &link["clientId"]];
        format!("{id} {client} {} {} {obstacle:?}", link["priority"], link["weight"])
    });
    let of_campaign = ["sellerId", "didId", "campaignId", "strategy", "dialTimeoutSeconds"];
    (of_campaign.map(|field| trace[field].clone()).into(), links.collect())
}

fn verdict(link: &Value) -> &str {
    link["verdict"].as_str().expect("a verdict")
}

fn number_of(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("not a number: {value}"))
}

// === of a log that was falsified ===

fn falsifiable() -> Value {
    let link = |id: i64, verdict: &str, attempt: Value, refused_by: Value| {
        json!({
            "linkId": id, "clientId": 10 + id, "priority": id, "weight": 1, "verdict": verdict,
            "attempt": attempt, "refusedBy": refused_by, "withinShare": false,
        })
    };
    let cap = |scope: &str, window: Value, used: u32, held: u32| json!({"scope": scope, "window": window, "used": used, "held": held, "limit": 4});
    let none = || Value::Null;
    let attempt = |position: u32, link: i64, result: &str| {
        json!({
            "position": position, "campaignClientSettingId": link, "client": {"id": 10 + link},
            "result": result,
        })
    };
    json!({
        "did": {"id": 3}, "campaign": {"id": 7}, "client": {"id": 14},
        "callStatus": "ANSWERED", "reason": "answered",
        "attempts": [attempt(1, 2, "busy"), attempt(2, 4, "answered")],
        "trace": {
            "revision": 9, "didId": 3, "sellerId": 1, "campaignId": 7, "strategy": "priority",
            "dialTimeoutSeconds": 20, "seed": 1, "cursor": null,
            "links": [
                link(1, "concurrency_cap", none(), cap("link", none(), 4, 0)),
                link(2, "dialled", json!(1), none()),
                link(3, "daily_cap", none(), cap("client", json!("day"), 3, 1)),
                link(4, "dialled", json!(2), none()),
                link(5, "not_reached", none(), none()),
                link(6, "client_inactive", none(), none()),
            ],
        },
    })
}

#[test]
fn a_log_that_was_falsified_does_not_agree() {
    let today = falsifiable()["trace"].clone();
    let limits = [("link/1", "concurrency"), ("client/13", "day")];
    let limits =
        limits.map(|(of, window)| (of.to_owned(), json!([{"window": window, "limit": 4}])));
    let limits = BTreeMap::from(limits);
    let agrees = |log: &Value| {
        assert_agrees(log)?;
        let known: BTreeSet<_> = limits.keys().cloned().collect();
        let asked: BTreeSet<_> = compared(&log["trace"]).collect();
        ensure(asked.is_subset(&known), || format!("{asked:?} have no caps"))?;
        assert_as_configured(&log["trace"], &today, &limits)
    };
    assert_eq!(agrees(&falsifiable()), Ok(()));
    let set = |path: &str, value: Value| {
        let mut log = falsifiable();
        *log.pointer_mut(path).unwrap() = value;
        (format!("{path} is {}", log.pointer(path).unwrap()), log)
    };
    let mut falsified = vec![
        set("/callStatus", json!("BUSY")),
        set("/reason", json!("all_busy")),
        set("/client/id", json!(12)),
        set("/attempts/0/result", json!("answered")),
        set("/attempts/1/result", json!("no_answer")),
        set("/attempts/0/client/id", json!(14)),
        set("/attempts/1/campaignClientSettingId", json!(5)),
        set("/trace/didId", json!(4)),
        set("/trace/sellerId", json!(2)),
        set("/trace/campaignId", json!(8)),
        set("/trace/strategy", json!("round_robin")),
        set("/trace/dialTimeoutSeconds", json!(30)),
        set("/trace/cursor", json!(1)),
        set("/trace/links/0/verdict", json!("daily_cap")),
        set("/trace/links/0/verdict", json!("client_concurrency_cap")),
        set("/trace/links/0/verdict", json!("not_reached")),
        set("/trace/links/0/verdict", json!("link_inactive")),
        set("/trace/links/0/refusedBy", Value::Null),
        set("/trace/links/0/refusedBy/scope", json!("client")),
        set("/trace/links/0/refusedBy/window", json!("hour")),
        set("/trace/links/0/refusedBy/used", json!(3)),
        set("/trace/links/0/refusedBy/limit", json!(5)),
        set("/trace/links/0/refusedBy/limit", json!(3)),
        set("/trace/links/2/refusedBy/scope", json!("seller")),
        set("/trace/links/2/refusedBy/window", json!("week")),
        set("/trace/links/2/refusedBy/held", json!(0)),
        set("/trace/links/1/attempt", json!(2)),
        set("/trace/links/1/attempt", Value::Null),
        set("/trace/links/1/clientId", json!(19)),
        set("/trace/links/1/priority", json!(4)),
        set("/trace/links/1/weight", json!(2)),
        set("/trace/links/1/verdict", json!("not_reached")),
        set("/trace/links/3/verdict", json!("concurrency_cap")),
        set("/trace/links/4/verdict", json!("dialled")),
        set("/trace/links/4/refusedBy", today["links"][0]["refusedBy"].clone()),
        set("/trace/links/5/verdict", json!("not_reached")),
        set("/trace/links/5/verdict", json!("no_endpoint")),
    ];
    let repeated = |result: &str, ringing_at: Value| {
        let mut log = falsifiable();
        let attempts = log["attempts"].as_array_mut().unwrap();
        let mut first = attempts[0].clone();
        (first["result"], first["ringingAt"]) = (json!(result), ringing_at);
        attempts.insert(0, first);
        (attempts[1]["position"], attempts[2]["position"]) = (json!(2), json!(3));
        let links = &mut log["trace"]["links"];
        (links[1]["attempt"], links[3]["attempt"]) = (json!(2), json!(3));
        log
    };
    assert_eq!(agrees(&repeated("canceled", Value::Null)), Ok(()), "it was perhaps not dialled");
    let refused_anew = |result: &str, ringing_at: Value| {
        let mut log = falsifiable();
        let attempts = log["attempts"].as_array_mut().unwrap();
        attempts.insert(
            1,
            json!({
                "position": 2, "campaignClientSettingId": 3, "client": {"id": 13},
                "result": result, "ringingAt": ringing_at,
            }),
        );
        attempts[2]["position"] = json!(3);
        let links = &mut log["trace"]["links"];
        (links[2]["attempt"], links[3]["attempt"]) = (json!(2), json!(3));
        log
    };
    assert_eq!(agrees(&refused_anew("canceled", Value::Null)), Ok(()), "it lost its room");
    for (result, ringing_at) in
        [("busy", Value::Null), ("canceled", json!("2026-11-22T18:42:32.246Z"))]
    {
        let what = format!("one that was {result} is dialled again");
        falsified.push((what, repeated(result, ringing_at.clone())));
        let what = format!("one that was {result} is refused by a cap");
        falsified.push((what, refused_anew(result, ringing_at)));
    }
    for (one, other) in [(0, 1), (1, 3), (2, 3), (3, 4), (4, 5)] {
        let mut log = falsifiable();
        log["trace"]["links"].as_array_mut().unwrap().swap(one, other);
        falsified.push((format!("links {one} and {other} change places"), log));
    }
    for place in 0..6 {
        let mut log = falsifiable();
        log["trace"]["links"].as_array_mut().unwrap().remove(place);
        falsified.push((format!("link {place} is left out"), log));
    }
    for (what, log) in falsified {
        let refused = std::panic::catch_unwind(|| agrees(&log)).map_or(true, |told| told.is_err());
        assert!(refused, "nobody noticed that {what}");
    }
}
