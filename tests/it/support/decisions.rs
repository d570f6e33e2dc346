//! What a call log says was decided agrees with what it says happened, and with what a
//! simulation says would happen.
//!
//! Every test of calls ends with this, for every log that it made: the attempts are the
//! links that the trace says were dialled, in that order; each link that was passed over
//! had a cap without room; the outcome follows from the attempts; the order is the one
//! that the trace's seed or cursor gives; and a simulated call meets with the same order.

use std::collections::BTreeSet;
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
            let newest =
                logs.iter().find(|log| log["did"]["number"] == number).expect("it has one");
            self.assert_simulated_alike(number, &newest["trace"]).await;
        }
    }

    /// A call to this number would meet with what the last one did, if nothing was changed.
    async fn assert_simulated_alike(&self, number: &str, last: &Value) {
        let asked = json!({"did": number});
        let Some(simulated) = self.admin().try_post("/api/admin/routing/simulate", asked).await
        else {
            panic!("a call to {number} can't be simulated");
        };
        let trace = &simulated["trace"];
        let sensible = assert_links(trace).and_then(|()| assert_order(trace));
        sensible.unwrap_or_else(|wrong| panic!("{wrong}: {simulated:#}"));
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
    // Where the service was killed just then, a client is dialled a second time.
    let is_repeated =
        |place: usize| attempts.get(place + 1).is_some_and(|(_, next)| attempts[place].1 == *next);
    let last_of_each: Vec<(u64, i64)> =
        (0..attempts.len()).filter(|place| !is_repeated(*place)).map(|at| attempts[at]).collect();
    ensure(dialled == last_of_each, || format!("dialled were {dialled:?}, and not {attempts:?}"))?;
    assert_outcome(log)
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
    for (place, link) in links.iter().enumerate() {
        let refused = &link["refusedBy"];
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
                ensure(!refused.is_null(), || format!("nothing shows the {word}"))?;
                let taken = count(&refused["used"]) + count(&refused["held"]);
                word == cap(refused) && taken >= count(&refused["limit"])
            }
        };
        ensure(expected && link["attempt"].is_null(), || format!("passed over: {link}"))?;
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
        format!("{} {} {} {obstacle:?}", link["linkId"], link["priority"], link["weight"])
    });
    (json!([trace["campaignId"], trace["strategy"]]), links.collect())
}

fn verdict(link: &Value) -> &str {
    link["verdict"].as_str().expect("a verdict")
}

fn number_of(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("not a number: {value}"))
}
