//! The database is away for a minute, or slow, under load: no call is refused or waits
//! for it, the API says what is away, and afterwards every record is there, once. What it
//! has is known from then on, and it may take its time where the history is long.

use std::fs;
use std::time::{Duration, Instant};

use capconduit::capacity::recount::Truth;
use capconduit::store::truth::Records;
use capconduit::{clock, db};
use capconduit_entity::call_log;
use chrono::TimeDelta;
use sea_orm::sqlx::{self, Connection, SqliteConnection};
use sea_orm::{ConnectionTrait, DatabaseConnection, EntityTrait};
use serde_json::{Value, json};

use super::scene::{NORMAL, Scene};
use crate::support::callers::Plan;
use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::ports::Ports;
use crate::support::postgres::Postgres;
use crate::support::production::with_asterisk;
use crate::support::proxy::{Flow, Proxy};
use crate::support::seller::Campaign;
use crate::support::service::Service;
use crate::support::wait::{eventually, ms, seconds};

const NUMBER: &str = "+15550102001";
const AWAY: Duration = seconds(60);
/// Calls, two a second: from before the database is away until after it is back.
const CALLS: u32 = 140;
/// How long a slow database takes for each statement.
const SLOW: Duration = seconds(2);
/// With a client who answers after 50 ms.
const AT_ONCE: TimeDelta = TimeDelta::milliseconds(1_000);
/// How long the API may take to say that it can't.
const PATIENCE: Duration = seconds(12);

/// The load, and what it is for.
struct Load {
    client: Phones,
    campaign: Campaign,
    plan: Plan<'static>,
}

impl Load {
    async fn prepare(service: &Service, calls: u32) -> Self {
        let client = Phones::start(service, Manner::answers_after(50)).await;
        let campaign = service.seller().await.campaign(service, NUMBER, "priority", 20).await;
        campaign.link(service.client(&client.contact()).await, json!({})).await;
        Self { client, campaign, plan: Plan { number: NUMBER, calls, rate: 2, talk_ms: 1_500 } }
    }

    fn answered(&self) -> usize {
        self.client.trace().count(|message| message.is_answer(200, "INVITE"))
    }

    /// Every call was answered, and is recorded once.
    async fn assert_recorded(&self, service: &Service) {
        let calls = self.plan.calls;
        let logs = service.logs(calls as usize).await;
        assert!(logs.iter().all(|log| log["callStatus"] == "ANSWERED"), "{logs:#?}");
        let link = &self.campaign.links().await[0];
        assert_eq!((link.live(), link.total()), (0, u64::from(calls)));
        let (code, told) = service.verify_caps();
        assert!(code == 0 && told.contains("agrees"), "{code}: {told}");
        service.assert_clean().await;
    }
}

/// Asks for a thing that needs the database: it is refused as it should be, in time.
async fn assert_refused(service: &Service, path: &str, body: Value) {
    let asked = Instant::now();
    let (status, problem) = service.admin().refused(path, body).await;
    assert_eq!(status, 503, "{path}: {problem}");
    assert_eq!(problem["type"], "urn:capconduit:problem:unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("The database"), "{problem}");
    assert!(asked.elapsed() < PATIENCE, "{path}: {:?}", asked.elapsed());
}

fn sign_in() -> Value {
    json!({"username": "admin", "password": "whatever it is"})
}

fn new_user() -> Value {
    json!({"username": "late", "email": "late@example.com", "password": "a password of the late", "role": "user"})
}

/// How many records wait, beyond those of live calls.
async fn waiting(service: &Service) -> f64 {
    let metrics = service.metrics().await;
    assert_eq!(metrics.known("capconduit_journal_failing"), 0.0, "the journal is well");
    metrics.known("capconduit_journal_depth") - metrics.sum("capconduit_live_calls")
}

#[tokio::test]
async fn sqlite_is_locked_for_a_minute_and_no_call_and_no_record_is_lost() {
    let mut service = Service::prepare_embedded();
    service.start_first().await;
    let load = Load::prepare(&service, CALLS).await;
    let callers = load.plan.start(&service);
    eventually("calls are answered", seconds(10), async || (load.answered() >= 4).then_some(()))
        .await;

    let mut other = SqliteConnection::connect(&service.database_url()).await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
    let away = Instant::now();
    let answered = load.answered();
    assert_refused(&service, "/api/admin/users", new_user()).await;
    // Reading goes on: the lock keeps out those who write.
    assert!(service.admin().is_readable("/api/admin/logs").await);
    eventually("records wait", seconds(10), async || (waiting(&service).await > 5.0).then_some(()))
        .await;
    tokio::time::sleep(AWAY.saturating_sub(away.elapsed())).await;
    assert!(load.answered() > answered + 100, "calls went on");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();

    callers.finish(seconds(40)).await;
    load.assert_recorded(&service).await;
}

#[tokio::test]
async fn postgresql_is_stopped_for_a_minute_and_no_call_and_no_record_is_lost() {
    let mut server = Postgres::start();
    let mut service = Service::prepare_on(&with_asterisk(server.url()).await).await;
    service.start_first().await;
    let load = Load::prepare(&service, CALLS).await;
    let callers = load.plan.start(&service);
    eventually("calls are answered", seconds(10), async || (load.answered() >= 4).then_some(()))
        .await;

    server.stop();
    let away = Instant::now();
    let answered = load.answered();
    for (path, body) in [
        ("/api/auth/login", sign_in()),
        ("/api/admin/users", new_user()),
        ("/api/admin/routing/simulate", json!({"did": NUMBER})),
    ] {
        assert_refused(&service, path, body).await;
    }
    assert!(!service.admin().is_readable("/ready").await);
    assert!(service.admin().is_readable("/health").await);
    eventually("records wait", seconds(10), async || (waiting(&service).await > 5.0).then_some(()))
        .await;
    tokio::time::sleep(AWAY.saturating_sub(away.elapsed())).await;
    assert!(load.answered() > answered + 100, "calls went on: Asterisk remembers the client");
    server.start_again();

    callers.finish(seconds(40)).await;
    load.assert_recorded(&service).await;
}

/// Both the service and Asterisk ask a PostgreSQL that needs two seconds for each statement.
#[tokio::test]
async fn postgresql_is_slow_and_no_call_waits_for_it() {
    let server = Postgres::start();
    let ports = Ports::claim();
    let network = Proxy::start(ports.single(), server.port());
    let url = with_asterisk(Postgres::url_at(network.port)).await;
    let mut service = Service::prepare_on(&url).await;
    service.start_first().await;
    let load = Load::prepare(&service, 40).await;
    let callers = load.plan.start(&service);
    eventually("calls are answered", seconds(10), async || (load.answered() >= 4).then_some(()))
        .await;

    network.set(Flow::Slow(SLOW / 2));
    let asked = Instant::now();
    assert!(service.admin().is_readable("/api/admin/logs").await);
    assert!(asked.elapsed() >= SLOW, "the API waits for the database: {:?}", asked.elapsed());
    eventually("records wait", seconds(20), async || (waiting(&service).await > 5.0).then_some(()))
        .await;
    let trace = callers.finish(seconds(40)).await;
    for call in trace.calls().values() {
        let asked = call.when("an INVITE", |message| message.is_request("INVITE"));
        let taken = call.when("an answer", |message| message.final_status() == Some(200));
        assert!(taken - asked < AT_ONCE, "{}: {call:#?}", taken - asked);
    }
    assert!(waiting(&service).await > 0.0, "it was slow to the end");

    network.set(Flow::Open);
    eventually("nothing waits any more", seconds(40), async || {
        (waiting(&service).await == 0.0).then_some(())
    })
    .await;
    load.assert_recorded(&service).await;
}

#[tokio::test]
async fn what_waits_for_the_database_outlives_a_killed_service() {
    let mut server = Postgres::start();
    let mut service = Service::prepare_on(&with_asterisk(server.url()).await).await;
    service.start_first().await;
    let load = Load::prepare(&service, CALLS).await;
    let one_call = async || {
        let mut caller = Phone::call(&service, NUMBER).await;
        assert_eq!(caller.answer().await, 200);
        caller.hang_up().await;
    };
    // From its first call on, at the latest, Asterisk remembers the client.
    one_call().await;
    service.logs(1).await;
    server.stop();
    for _ in 0..3 {
        one_call().await;
    }
    eventually("three records wait", seconds(5), async || {
        (waiting(&service).await >= 3.0).then_some(())
    })
    .await;
    service.kill();
    // Whoever supervises it tries again.
    let said = service.fails_to_start().await;
    assert!(said.contains("the database") && said.lines().count() == 1, "{said}");

    server.start_again();
    service.start_again().await;
    let logs = service.logs(4).await;
    assert!(logs.iter().all(|log| log["callStatus"] == "ANSWERED"), "{logs:#?}");
    let link = &load.campaign.links().await[0];
    assert_eq!((link.live(), link.total()), (0, 4));
    service.assert_clean().await;
}

/// Its last frame is lost where the disk was full, and one from before the dial is there.
#[tokio::test]
async fn a_call_that_the_database_has_is_not_taken_up_again_and_its_unit_stays_used() {
    let mut scene = Scene::set(1, 20).await;
    let (caller, leg) = scene.ringing().await;
    let journal = scene.service.data().join("journal");
    let files = || fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path());
    let is_of_records =
        |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "journal");
    let left: Vec<_> =
        files().filter(is_of_records).map(|path| (fs::read(&path).unwrap(), path)).collect();
    scene.switch.answer(&leg);
    scene.until_state("talking").await;
    let log = scene.end_with(&caller).await;
    assert_eq!(log["callStatus"], "ANSWERED");

    scene.service.stop();
    files().filter(is_of_records).for_each(|path| fs::remove_file(path).unwrap());
    left.iter().for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
    scene.service.start_again().await;
    scene.until_up().await;
    assert!(scene.service.said().contains("calls that the database has are over"));
    assert_eq!(scene.service.live_calls().await, 0);
    let (caller, _) = scene.talking().await;
    scene.switch.hang_up(&caller, NORMAL, None);
    scene.service.logs(2).await;
    assert_eq!(scene.campaign.links().await[0].total(), 2, "both calls are used");
    scene.service.assert_clean().await;
}

/// What an ordinary statement may take here.
const HASTE: Duration = ms(500);

/// Makes whoever reads the calls wait for a second, as for millions of them.
async fn lengthen_history(db: &DatabaseConnection) {
    for table in ["call_logs", "call_attempts"] {
        let aside = format!("ALTER TABLE {table} RENAME TO short_{table}");
        let slow = format!(
            "CREATE VIEW {table} AS SELECT * FROM short_{table}
             WHERE (SELECT pg_sleep(1) IS NOT NULL)"
        );
        for statement in [aside, slow] {
            db.execute_unprepared(&statement).await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_ledger_learns_a_long_history_while_any_other_statement_that_long_is_cut_off() {
    let server = Postgres::start();
    let db = db::connect(&server.url()).await.unwrap();
    db::migrate(&db).await.unwrap();
    lengthen_history(&db).await;
    let hasty = db::connect_with_patience(&server.url(), HASTE).await.unwrap();
    let records = Records(hasty.clone());
    records.known(&[clock::new_call_id()]).await.unwrap();
    records.cursors().await.unwrap();
    // Also on a connection that was given more time before.
    let cut_off = call_log::Entity::find().all(&hasty).await.unwrap_err();
    assert!(db::is_away(&cut_off), "{cut_off}");
}

#[tokio::test]
async fn a_migration_of_a_long_history_is_not_cut_off() {
    let server = Postgres::start();
    let db = db::connect(&server.url()).await.unwrap();
    for statement in [
        "CREATE FUNCTION take_long() RETURNS event_trigger LANGUAGE plpgsql
         AS $$ BEGIN PERFORM pg_sleep(1); END $$",
        // One migration has such a statement.
        "CREATE EVENT TRIGGER long ON ddl_command_start WHEN TAG IN ('DROP INDEX')
         EXECUTE FUNCTION take_long()",
    ] {
        db.execute_unprepared(statement).await.unwrap();
    }
    let hasty = db::connect_with_patience(&server.url(), HASTE).await.unwrap();
    let began = Instant::now();
    db::migrate(&hasty).await.unwrap();
    assert!(began.elapsed() > seconds(1), "it took long");
    let cut_off = hasty.execute_unprepared("SELECT pg_sleep(1)").await.unwrap_err();
    assert!(db::is_away(&cut_off), "{cut_off}");
}
