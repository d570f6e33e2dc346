//! `capconduit explain` and `capconduit replay` on both databases: records of the past,
//! settings of today, and other ones.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use capconduit::call::outcome::{Outcome, cause};
use capconduit::call::record::{Attempt, CallRecord, End};
use capconduit::capacity::{ScopeKind, WindowKind};
use capconduit::clock::{self, Timestamp};
use capconduit::ids::{CallId, CampaignId, ClientId, DidId, LinkId, SellerId};
use capconduit::routing::Trace;
use capconduit::routing::trace::{LinkTrace, RefusedBy};
use capconduit::store;
use capconduit_entity::{
    AttemptResult, CallReason, CallStatus, CampaignStatus, E164, Role, Status, Strategy,
    UserStatus, campaign, campaign_did, client, did, link, pjsip_aor, pjsip_endpoint, user,
};
use chrono::TimeDelta;
use sea_orm::{ActiveModelTrait, DatabaseConnection, EntityTrait, IntoActiveModel, Set};
use serde_json::Value;

use crate::support::postgres::Postgres;

const NUMBER: &str = "+442071838750";

/// A database, and the command that reads it.
struct Told {
    url: String,
    db: DatabaseConnection,
}

/// Runs a check on a database of each kind, with a campaign of two links.
async fn on_both(check: impl AsyncFn(&Told)) {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}", folder.path().join("test.db").display());
    let server = Postgres::start();
    for url in [sqlite, server.url()] {
        let db = capconduit::db::connect(&url).await.unwrap();
        capconduit::db::migrate(&db).await.unwrap();
        configure(&db).await;
        let told = Told { url, db };
        check(&told).await;
        told.db.close().await.unwrap();
    }
}

fn run(url: &str, words: &[&str]) -> Output {
    command(url, &[&["explain"], words].concat())
}

fn command(url: &str, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_capconduit"))
        .args(words)
        .env("CAPCONDUIT__DATABASE__URL", url)
        .output()
        .unwrap()
}

impl Told {
    fn explain(&self, call: CallId) -> String {
        let output = run(&self.url, &[&call.to_string()]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn set_link(&self, id: i64, change: impl FnOnce(&mut link::ActiveModel)) {
        let row = link::Entity::find_by_id(id).one(&self.db).await.unwrap().unwrap();
        let mut row = row.into_active_model();
        change(&mut row);
        row.update(&self.db).await.unwrap();
    }

    async fn keep(&self, record: &CallRecord) {
        store::records::insert(&self.db, &[Arc::new(record.clone())]).await.unwrap();
    }
}

/// A seller whose one number goes first to Acme (link 1), then to Beta (link 2).
async fn configure(db: &DatabaseConnection) {
    let now = at("2026-11-01T12:00:00Z");
    let seller = user::ActiveModel {
        username: Set("sally".to_owned()),
        email: Set("sally@example.com".to_owned()),
        password_hash: Set("hash".to_owned()),
        role: Set(Role::User),
        status: Set(UserStatus::Active),
        created_at: Set(now),
        updated_at: Set(now),
        ..Default::default()
    };
    seller.insert(db).await.unwrap();
    let number = did::ActiveModel {
        user_id: Set(1),
        number: Set(E164::parse(NUMBER).unwrap()),
        status: Set(Status::Active),
        created_at: Set(now),
        updated_at: Set(now),
        ..Default::default()
    };
    number.insert(db).await.unwrap();
    let solar = campaign::ActiveModel {
        user_id: Set(1),
        name: Set("Solar".to_owned()),
        routing_strategy: Set(Strategy::Priority),
        dial_timeout_seconds: Set(20),
        status: Set(CampaignStatus::Active),
        created_at: Set(now),
        updated_at: Set(now),
        ..Default::default()
    };
    solar.insert(db).await.unwrap();
    let answers = campaign_did::Model { campaign_id: 1, did_id: 1, active_did_id: Some(1) };
    answers.into_active_model().reset_all().insert(db).await.unwrap();
    for (id, name) in [(1, "Acme"), (2, "Beta")] {
        let identifier = name.to_lowercase();
        let place = pjsip_aor::Model {
            id: identifier.clone(),
            contact: "sip:acme@127.0.0.1:5080".to_owned(),
            max_contacts: 1,
            qualify_frequency: 0,
        };
        place.into_active_model().reset_all().insert(db).await.unwrap();
        let endpoint = pjsip_endpoint::ActiveModel {
            id: Set(identifier.clone()),
            aors: Set(identifier.clone()),
            context: Set("none".to_owned()),
            disallow: Set("all".to_owned()),
            allow: Set("ulaw".to_owned()),
            ..Default::default()
        };
        endpoint.insert(db).await.unwrap();
        let new = client::ActiveModel {
            client_identifier: Set(identifier.clone()),
            name: Set(name.to_owned()),
            status: Set(Status::Active),
            endpoint_id: Set(identifier.clone()),
            aor_id: Set(identifier.clone()),
            created_at: Set(now),
            updated_at: Set(now),
            ..Default::default()
        };
        new.insert(db).await.unwrap();
        let new = link::ActiveModel {
            campaign_id: Set(1),
            client_id: Set(id),
            status: Set(Status::Active),
            max_concurrency: Set(5),
            forwarding_priority: Set(i32::try_from(id).unwrap()),
            weight: Set(10),
            created_at: Set(now),
            updated_at: Set(now),
            ..Default::default()
        };
        new.insert(db).await.unwrap();
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn traced(id: i64, verdict: &str) -> LinkTrace {
    let (identifier, name) = if id == 1 { ("acme", "Acme") } else { ("beta", "Beta") };
    LinkTrace {
        link_id: LinkId(id),
        client_id: ClientId(id),
        client_identifier: identifier.to_owned(),
        client_name: name.to_owned(),
        priority: i32::try_from(id).unwrap(),
        weight: 10,
        verdict: verdict.to_owned(),
        attempt: (verdict == "dialled").then_some(1),
        refused_by: None,
        within_share: false,
    }
}

/// A call with one attempt, three seconds long, to the link that was dialled.
fn call(start: &str, result: AttemptResult, links: Vec<LinkTrace>) -> CallRecord {
    let started_at = at(start);
    let ended_at = started_at + TimeDelta::seconds(3);
    let dialled = links.iter().find(|link| link.attempt.is_some()).unwrap();
    let answered = result == AttemptResult::Answered;
    let answered_at = answered.then(|| started_at + TimeDelta::seconds(1));
    let attempt = Attempt {
        position: 1,
        link: dialled.link_id,
        client: dialled.client_id,
        client_name: dialled.client_name.clone(),
        client_identifier: dialled.client_identifier.clone(),
        held_at: started_at,
        dialled_at: None,
        ringing_at: None,
        answered_at,
        ended_at: Some(ended_at),
        result: Some(result),
        cause: Some(if answered { cause::NORMAL } else { cause::BUSY }),
        sip: (!answered).then_some(486),
    };
    let outcome = if answered { Outcome::ANSWERED } else { Outcome::unanswered(&[result]) };
    CallRecord {
        call: clock::new_call_id(),
        channel: format!("channel of {start}"),
        linked_channel: None,
        dialled: NUMBER.to_owned(),
        caller_number: Some("+15550001".to_owned()),
        caller_name: None,
        seller: Some(SellerId(1)),
        did: Some(DidId(1)),
        campaign: Some((CampaignId(1), "Solar".to_owned())),
        started_at,
        answered_at,
        attempts: vec![attempt],
        trace: Trace {
            revision: Some(0),
            did_id: Some(DidId(1)),
            seller_id: Some(SellerId(1)),
            campaign_id: Some(CampaignId(1)),
            campaign_name: Some("Solar".to_owned()),
            strategy: Some(Strategy::Priority),
            dial_timeout_seconds: Some(20),
            seed: Some(7),
            cursor: None,
            links,
        },
        unseen_since: None,
        ending: None,
        hung_up: None,
        end: Some(End { at: ended_at, outcome, cause: cause::NORMAL }),
    }
}

fn to_acme(start: &str) -> CallRecord {
    call(start, AttemptResult::Answered, vec![traced(1, "dialled"), traced(2, "not_reached")])
}

/// Acme had its one call of the day, so that Beta got this one, and was busy.
fn to_beta(start: &str) -> CallRecord {
    let refused_by = RefusedBy {
        scope: ScopeKind::Link,
        window: Some(WindowKind::Day),
        used: 1,
        held: 0,
        limit: 1,
    };
    let acme = LinkTrace { refused_by: Some(refused_by), ..traced(1, "daily_cap") };
    call(start, AttemptResult::Busy, vec![acme, traced(2, "dialled")])
}

#[track_caller]
fn assert_says(told: &str, lines: &[&str]) {
    for line in lines {
        assert!(told.contains(line), "{line:?} isn't in\n{told}");
    }
}

const THE_SAME: &str = "It would be decided the same.";

#[tokio::test]
async fn a_call_is_told_with_its_links_its_attempts_and_its_end() {
    on_both(async |told| {
        told.set_link(1, |link| link.daily_cap = Set(Some(1))).await;
        let (mut first, second) =
            (to_acme("2026-11-20T12:00:00Z"), to_beta("2026-11-20T12:05:00Z"));
        // The caller hung up: the client's leg is gone after the call.
        first.attempts[0].ended_at = Some(at("2026-11-20T12:00:03.004Z"));
        told.keep(&first).await;
        told.keep(&second).await;
        let said = told.explain(second.call);
        assert_says(
            &said,
            &[
                "+15550001 called +442071838750 on Friday, 20 November 2026, at 12:05:00.000 UTC.",
                "Everybody who was dialled was busy. Recorded as BUSY, all_busy.",
                "campaign 1 (Solar) answers it",
                "priority: the lower number first, among equals by lot and weight (seed 7).",
                "the link's dailyCap of 1 had no room, 1 call was used and 0 held.",
                "2. Beta (beta), link 2, priority 2, weight 10:\n     dialled, attempt 1.",
                "12:05:00.000  attempt 1: Beta (link 2) is dialled",
                "12:05:03.000  Beta is busy (SIP 486)",
                THE_SAME,
                "Nothing of the configuration has been changed since.",
            ],
        );
        assert_says(
            &told.explain(first.call),
            &[
                "Acme took it, and they talked for 2.0 s.",
                "12:00:03.000  the call is over: Normal Clearing (cause 16)\n  12:00:03.004  Acme",
            ],
        );
    })
    .await;
}

#[tokio::test]
async fn a_setting_that_differs_is_named_and_what_it_changes() {
    on_both(async |told| {
        let (first, second) = (to_acme("2026-11-20T12:00:00Z"), to_beta("2026-11-20T12:05:00Z"));
        let third = to_acme("2026-11-20T13:00:00Z");
        for record in [&first, &second, &third] {
            told.keep(record).await;
        }
        // A cap that had no room has some.
        told.set_link(1, |link| link.daily_cap = Set(Some(5))).await;
        assert_says(
            &told.explain(second.call),
            &[
                "First: then Beta (link 2) is dialled, today Acme (link 1) is dialled.",
                "link 1 (Acme): dailyCap was 1, is 5.",
            ],
        );
        assert_says(&told.explain(third.call), &[THE_SAME]);
        // One that had room has none: what was used is in the logs of that day.
        told.set_link(1, |link| link.daily_cap = Set(Some(1))).await;
        assert_says(
            &told.explain(third.call),
            &[
                "First: then Acme (link 1) is dialled, today Beta (link 2) is dialled.",
                "the link's dailyCap of 1 had no room, 1 call was used and 0 held.",
            ],
        );
        assert_says(&told.explain(first.call), &[THE_SAME]);
        // The calls of another day are no matter.
        let next_day = to_acme("2026-11-21T12:00:00Z");
        told.keep(&next_day).await;
        assert_says(&told.explain(next_day.call), &[THE_SAME]);
        // As many live calls at once as the records show.
        let beside = to_acme("2026-11-21T12:00:02Z");
        told.keep(&beside).await;
        told.set_link(1, |link| link.daily_cap = Set(None)).await;
        assert_says(&told.explain(beside.call), &[THE_SAME]);
        told.set_link(1, |link| link.max_concurrency = Set(1)).await;
        assert_says(
            &told.explain(beside.call),
            &["the link's maxConcurrency of 1 had no room, 1 call was ringing or up."],
        );
        told.set_link(1, |link| link.status = Set(Status::Inactive)).await;
        told.set_link(2, |link| link.weight = Set(11)).await;
        assert_says(
            &told.explain(first.call),
            &[
                "link 1 (Acme): status was active, is inactive.",
                "link 2 (Beta): weight was 10, is 11.",
            ],
        );
        link::Entity::delete_by_id(1).exec(&told.db).await.unwrap();
        assert_says(&told.explain(first.call), &["link 1 (Acme) is no more."]);
        campaign_did::Entity::delete_by_id((1, 1)).exec(&told.db).await.unwrap();
        assert_says(
            &told.explain(first.call),
            &[
                "today nobody is dialled (REJECTED, no_active_campaign_for_did).",
                "active campaign was 1 (Solar), is none.",
            ],
        );
        let json = run(&told.url, &[&first.call.to_string(), "--json"]);
        let json: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(json["today"]["decidesTheSame"], false);
        assert_eq!(
            json["today"]["parting"]["now"]["nobody"]["reason"],
            "no_active_campaign_for_did"
        );
        assert_eq!(json["trace"]["links"][0]["verdict"], "dialled");
    })
    .await;
}

#[tokio::test]
async fn an_instances_part_of_a_limit_is_told_as_such_and_not_compared_with_todays_limit() {
    on_both(async |told| {
        told.set_link(1, |link| link.daily_cap = Set(Some(5))).await;
        let mut alone = to_beta("2026-11-20T12:05:00Z");
        for link in &mut alone.trace.links {
            link.within_share = true;
        }
        // An older version's trace doesn't say.
        let older = to_beta("2026-11-20T12:06:00Z");
        for record in [&alone, &older] {
            told.keep(record).await;
        }
        let said = told.explain(alone.call);
        assert_says(
            &said,
            &[
                "The ledger was away: one instance decided alone, within its share of each cap.",
                "the instance's share of the link's dailyCap, 1, had no room, 1 call was used and 0 held.",
                "First: then Beta (link 2) is dialled, today Acme (link 1) is dialled.",
                "Then there was one instance's share of each cap, today there is the whole.",
                "Nothing of the configuration has been changed since.",
            ],
        );
        let json = run(&told.url, &[&alone.call.to_string(), "--json"]);
        let json: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(json["trace"]["links"][0]["withinShare"], true);
        assert_eq!(json["today"]["differences"].as_array().unwrap().len(), 0);
        let said = told.explain(older.call);
        assert_says(&said, &["link 1 (Acme): dailyCap was 1, is 5."]);
        assert!(!said.contains("share"), "{said}");
        // What one instance counted isn't what is in use of the whole.
        told.set_link(1, |link| link.daily_cap = Set(Some(1))).await;
        let parted = told.explain(alone.call);
        assert_says(&parted, &["today Acme (link 1) is dialled."]);
    })
    .await;
}

#[tokio::test]
async fn a_call_that_went_no_further_is_told_with_all_that_may_have_been_the_reason() {
    on_both(async |told| {
        let not_reached = vec![traced(1, "not_reached"), traced(2, "not_reached")];
        let mut refused = to_acme("2026-11-20T12:00:00Z");
        refused.attempts.clear();
        refused.answered_at = None;
        refused.trace.links = not_reached;
        let end = refused.end.unwrap();
        refused.end = Some(End { outcome: Outcome::NO_LEDGER, ..end });
        told.keep(&refused).await;
        assert_says(
            &told.explain(refused.call),
            &["It went no further: the ledger was away, or the service had too much to do or was about to end. Recorded as REJECTED, capacity_unavailable."],
        );
    })
    .await;
}

#[tokio::test]
async fn of_a_call_that_the_dialplan_led_no_decision_is_made_up() {
    on_both(async |told| {
        let answered = CallRecord {
            call: CallId::of_channel("1.1"),
            trace: Trace::default(),
            ..to_acme("2026-11-20T12:00:00Z")
        };
        let (status, reason) = (CallStatus::Rejected, CallReason::NoEligibleClientsAvailable);
        let end = End { outcome: Outcome::new(status, reason), ..answered.end.unwrap() };
        let refused = CallRecord {
            call: CallId::of_channel("1.2"),
            channel: "1.2".to_owned(),
            answered_at: None,
            attempts: Vec::new(),
            end: Some(end),
            ..answered.clone()
        };
        told.keep(&answered).await;
        told.keep(&refused).await;
        let said = told.explain(answered.call);
        assert_says(
            &said,
            &["The dialplan led this call by itself and reported it as ANSWERED, dialled over link 1 (Acme): no decision of the service is known"],
        );
        let said = told.explain(refused.call);
        assert_says(&said, &["reported it as REJECTED: no decision of the service is known"]);
        for guess in ["cap", "DID", "decided"] {
            assert!(!said.contains(guess), "{guess:?} is made up: {said}");
        }
        let output = run(&told.url, &["--json", &refused.call.to_string()]);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["decidedBy"], "dialplan");
        assert!(json["trace"].is_null() && json["today"].is_null(), "{json:#}");
    })
    .await;
}

#[tokio::test]
async fn what_can_not_be_explained_is_said_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |url: &str, words: &[&str]| {
        let output = run(url, words);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    let unknown = clock::new_call_id().to_string();
    // Nothing is made where there is nothing.
    let file = folder.path().join("nothing.db");
    let url = format!("sqlite://{}", file.display());
    assert!(refused(&url, &[&unknown]).contains("there is no database in"));
    assert!(!Path::new(&file).exists());
    let db = capconduit::db::connect(&url).await.unwrap();
    capconduit::db::migrate(&db).await.unwrap();
    assert!(refused(&url, &[&unknown]).contains("there is no log of call"));
    assert!(refused(&url, &["12"]).contains("\"12\" is no call id"));
}

/// What `capconduit replay` says of that day with this patch, and whether it went well.
fn replay(told: &Told, patch: &str, more: &[&str]) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("patch.toml");
    std::fs::write(&file, patch).unwrap();
    let words = ["replay", "--from", "2026-11-20", "--to", "2026-11-21T00:00:00Z", "--patch"];
    let output = command(&told.url, &[&words[..], &[file.to_str().unwrap()], more].concat());
    let said = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// Lines with their words one space apart.
fn squeezed(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[tokio::test]
async fn past_calls_are_replayed_by_a_patched_configuration() {
    on_both(async |told| {
        told.set_link(1, |link| link.daily_cap = Set(Some(1))).await;
        // Of the day before: it is in no window of these, and no call of theirs.
        told.keep(&to_acme("2026-11-19T23:59:59Z")).await;
        told.keep(&to_acme("2026-11-20T12:00:00Z")).await;
        told.keep(&to_beta("2026-11-20T12:05:00Z")).await;
        told.keep(&to_beta("2026-11-20T12:10:00Z")).await;

        let (_, said) = replay(told, "", &[]);
        let rows = squeezed(&said);
        for row in [
            "3 calls; the change makes something else of 0 of them.",
            "By the configuration as it is (revision 0), 3 come out as their logs say.",
            "all calls then 1 0 2",
            "as it is 1 0 2",
            "Acme (acme) then 1 2 0 daily_cap 2",
            "Beta (beta) then 0 0 2",
        ] {
            assert!(rows.iter().any(|said| said == row), "{row:?} isn't in\n{said}");
        }

        let patch = "[[links]]\nid = 1\ndailyCap = \"none\"\n";
        let (_, said) = replay(told, patch, &[]);
        let rows = squeezed(&said);
        for row in [
            "3 calls; the change makes something else of 2 of them.",
            "changed 3 0 0",
            "Acme (acme) then 1 2 0 daily_cap 2",
            "as it is 1 2 0 daily_cap 2",
            "Beta (beta) then 0 0 2",
            "changed 0 0 0",
        ] {
            assert!(rows.iter().any(|said| said == row), "{row:?} isn't in\n{said}");
        }
        assert_says(
            &said,
            &["Of 2 of 3 clients dialled by the changed configuration it isn't known"],
        );

        let (_, json) = replay(told, patch, &["--json"]);
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&json["calls"], &json["asRecorded"], &json["changed"]),
            (&3.into(), &3.into(), &2.into())
        );
        assert_eq!(json["clients"][0]["recorded"]["refused"][0]["reason"], "daily_cap");
        assert_eq!(json["clients"][0]["patched"]["delivered"], 3);

        // The calls of the client's other links, and those before, are counted too.
        let (_, said) = replay(told, "[[clients]]\nid = 1\ntotalCallsAllowed = 1\n", &[]);
        let row = "changed 0 3 0 total_cap 3";
        assert!(squeezed(&said).iter().any(|said| said == row), "{row:?} isn't in\n{said}");
    })
    .await;
}

#[tokio::test]
async fn a_patch_that_is_wrong_is_refused_by_the_name_of_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("test.db").display());
    let db = capconduit::db::connect(&url).await.unwrap();
    capconduit::db::migrate(&db).await.unwrap();
    configure(&db).await;
    let told = Told { url, db };
    for (patch, complaint) in [
        ("[[links]]\nid = 99\nweight = 1", "patch.links[0].id is 99: there is no such link"),
        ("[[links]]\nid = 1\nwieght = 1", "links[0].wieght is not a field of this request"),
        ("[[links]]\nid = 1\nweight = 0", "links[0].weight must be at least 1"),
        ("[[links]]\nid = 1\nweight = \"none\"", "links[0].weight must not be null"),
        (
            "[[campaigns]]\nid = 1\nroutingStrategy = \"fair\"",
            "campaigns[0].routingStrategy must be one of",
        ),
        ("[[queues]]\nid = 1", "queues is not a field of this request"),
        ("weight 1", "can't be read"),
    ] {
        let (went_well, said) = replay(&told, patch, &[]);
        assert!(!went_well && said.contains(complaint), "{patch:?}: {said}");
    }
    let (_, said) = replay(&told, "", &["--data", "/nowhere"]);
    assert!(said.contains("there is no database in /nowhere"), "{said}");
}
