//! The production profile with servers of its own: who may use them, and what
//! becomes of calls when they are lost.
//!
//! The calls of `calls/` run on this profile too: `make test` starts them a
//! second time, with servers that the settings name.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::process::{Signal, kill_process};
use sea_orm::{ConnectionTrait, DatabaseConnection};
use serde_json::json;

use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::postgres::Postgres;
use crate::support::production::with_asterisk;
use crate::support::seller::PASSWORD;
use crate::support::service::{Service, tools};
use crate::support::wait::{eventually, seconds};
use crate::support::web::Web;

const NUMBER: &str = "+15550101301";

async fn start() -> Service {
    let mut service = Service::prepare_with_private_servers();
    service.start_first().await;
    service
}

/// The database as Asterisk's account sees it.
async fn as_asterisk(service: &Service) -> DatabaseConnection {
    let own = service.database_url();
    let (_, place) = own.rsplit_once('@').unwrap();
    let password = service.secret("asterisk-database-password");
    capconduit::db::connect(&format!("postgres://asterisk:{password}@{place}")).await.unwrap()
}

#[tokio::test]
async fn private_servers_are_shut_to_others_and_asterisk_reads_clients_alone() {
    let mut service = start().await;
    for name in ["postgres", "redis", "postgres-password", "redis-password", "capconduit.toml"] {
        let mode = std::fs::metadata(service.data().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
    let settings = std::fs::read_to_string(service.data().join("capconduit.toml")).unwrap();
    let redis = settings.lines().find_map(|line| line.strip_prefix("capacity.redis_url = "));
    let redis = redis.unwrap().trim_matches('"');
    let ping = |url: &str| {
        let mut cli = Command::new(tools().join("bin/redis-cli"));
        let said = cli.args(["--no-auth-warning", "-u", url, "PING"]).output().unwrap();
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(ping(redis), "PONG");
    let (_, place) = redis.rsplit_once('@').unwrap();
    assert!(ping(&format!("redis://{place}")).starts_with("NOAUTH"));
    let own = service.database_url();
    let (_, place) = own.rsplit_once('@').unwrap();
    for account in ["postgres", "capconduit", "asterisk", "capconduit:wrong"] {
        let url = format!("postgres://{account}@{place}");
        assert!(capconduit::db::connect(&url).await.is_err(), "{account} without its password");
    }

    let asterisk = as_asterisk(&service).await;
    for table in ["pjsip_endpoints", "pjsip_aors", "pjsip_auths"] {
        asterisk.execute_unprepared(&format!("SELECT * FROM {table}")).await.unwrap();
    }
    for forbidden in [
        "SELECT * FROM users",
        "SELECT * FROM call_logs",
        "SET TRANSACTION READ WRITE; DELETE FROM pjsip_auths",
        "SET TRANSACTION READ WRITE; CREATE TABLE mine (id int)",
        "SET TRANSACTION READ WRITE; CREATE TEMP TABLE mine (id int)",
    ] {
        let refusal = asterisk.execute_unprepared(forbidden).await.unwrap_err().to_string();
        assert!(refusal.contains("permission denied"), "{forbidden}: {refusal}");
    }
    asterisk.close().await.unwrap();

    service.seller().await;
    let mut list = Command::new(env!("CARGO_BIN_EXE_capconduit"));
    let list = list.args(["user", "list", "--data"]).arg(service.data()).output().unwrap();
    assert!(String::from_utf8(list.stdout).unwrap().contains("seller-1"));
    service.stop();
    service.start_again().await;
    Web::sign_in(service.http_port, "seller-1", PASSWORD).await;
}

#[tokio::test]
async fn a_conversation_outlives_a_killed_run_whose_servers_are_started_anew() {
    let mut service = start().await;
    let client = Phones::start(&service, Manner::answers_after(50)).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    campaign.link(service.client(&client.contact()).await, json!({"totalCallsAllowed": 9})).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    assert_eq!(caller.answer().await, 200);
    let before = service.noted_process("postgres/postmaster.pid");

    service.kill();
    service.start_again().await;

    assert_ne!(service.noted_process("postgres/postmaster.pid"), before);
    assert_eq!(service.live_calls().await, 1, "the call is still up");
    caller.hang_up().await;
    let log = service.only_log().await;
    assert_eq!((&log["callStatus"], &log["reason"]), (&json!("ANSWERED"), &json!("answered")));
    assert_eq!(campaign.links().await[0].total(), 1);
    service.assert_clean().await;
}

#[tokio::test]
async fn servers_that_end_under_calls_are_started_again_and_what_changed_since_counts() {
    let service = start().await;
    let first = Phones::start(&service, Manner::answers_after(50)).await;
    let second = Phones::start(&service, Manner::answers_after(50)).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    let client = service.client(&first.contact()).await;
    campaign.link(client, json!({})).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    assert_eq!(caller.answer().await, 200);

    for (pid_file, signal) in [
        // In order, at once, and as the kernel does it when memory runs out.
        ("postgres/postmaster.pid", Signal::INT),
        ("postgres/postmaster.pid", Signal::QUIT),
        ("postgres/postmaster.pid", Signal::KILL),
        ("redis/redis.pid", Signal::KILL),
    ] {
        let before = service.noted_process(pid_file);
        kill_process(before, signal).unwrap();
        eventually("it runs again and calls are taken", seconds(20), async || {
            let noted = std::fs::read_to_string(service.data().join(pid_file)).ok()?;
            let now = noted.lines().next()?.trim().parse::<i32>().ok()?;
            let is_new = now != before.as_raw_nonzero().get();
            (is_new && service.admin().is_readable("/ready").await).then_some(())
        })
        .await;
        let contact = json!({"pjsip": {"aor": {"contact": second.contact()}}});
        service.admin().put(&format!("/api/admin/clients/{client}"), contact).await;
        let mut next = Phone::call(&service, NUMBER).await;
        assert_eq!(next.answer().await, 200, "the first call after {pid_file} got {signal:?}");
        next.hang_up().await;
        let contact = json!({"pjsip": {"aor": {"contact": first.contact()}}});
        service.admin().put(&format!("/api/admin/clients/{client}"), contact).await;
    }

    caller.hang_up().await;
    let logs = service.logs(5).await;
    assert!(logs.iter().all(|log| log["callStatus"] == "ANSWERED"), "{logs:#?}");
    let at = |phones: &Phones| phones.trace().count(|message| message.is_answer(200, "INVITE"));
    assert_eq!((at(&first), at(&second)), (1, 4), "a changed client is found at once");
    assert_eq!(campaign.links().await[0].total(), 5);
    service.assert_clean().await;
}

#[tokio::test]
async fn while_postgresql_is_away_calls_go_on_and_their_records_wait() {
    let mut server = Postgres::start();
    let url = with_asterisk(server.url()).await;
    let mut service = Service::prepare_on(&url).await;
    service.start_first().await;
    let client = Phones::start(&service, Manner::answers_after(50)).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    campaign.link(service.client(&client.contact()).await, json!({})).await;
    let mut talking = Phone::call(&service, NUMBER).await;
    assert_eq!(talking.answer().await, 200);

    server.stop();
    // Asterisk remembers the client.
    let mut meanwhile = Phone::call(&service, NUMBER).await;
    assert_eq!(meanwhile.answer().await, 200);
    talking.hang_up().await;
    meanwhile.hang_up().await;
    server.start_again();

    eventually("calls are taken", seconds(10), async || {
        service.admin().is_readable("/ready").await.then_some(())
    })
    .await;
    let mut next = Phone::call(&service, NUMBER).await;
    assert_eq!(next.answer().await, 200, "the first call afterwards");
    next.hang_up().await;
    let logs = service.logs(3).await;
    let status: Vec<_> = logs.iter().map(|log| log["callStatus"].as_str().unwrap()).collect();
    assert_eq!(status, ["ANSWERED"; 3]);
    assert_eq!(campaign.links().await[0].total(), 3);
    service.assert_clean().await;
}

#[tokio::test]
async fn what_the_production_profile_lacks_is_said_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let run = |settings: &[(&str, &str)], tools: &std::path::Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_capconduit"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["run", "--profile", "production"]);
        command.arg("--data").arg(folder.path().join("data")).arg("--tools").arg(tools);
        command.envs(settings.iter().copied());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    let said = run(&[], folder.path());
    assert!(said.contains("there is no Redis") && said.contains("fetch-tools redis"), "{said}");
    let redis = ("CAPCONDUIT__CAPACITY__REDIS_URL", "redis://127.0.0.1:1/0");
    let said = run(&[redis], folder.path());
    assert!(said.contains("no PostgreSQL") && said.contains("CAPCONDUIT__DATABASE__URL"), "{said}");
    let sqlite = ("CAPCONDUIT__DATABASE__URL", "sqlite://x.db");
    let said = run(&[redis, sqlite], &tools());
    assert!(said.contains("database.url"), "{said}");
    let odd = ("CAPCONDUIT__DATABASE__URL", "postgres://a:b%20c@127.0.0.1/d");
    let said = run(&[redis, odd], &tools());
    assert!(said.contains("Asterisk can't use this password"), "{said}");
    let nowhere = ("CAPCONDUIT__DATABASE__URL", "postgres://a:b@127.0.0.1:1/d");
    let said = run(&[redis, nowhere], &tools());
    assert!(said.contains("the database can't be"), "{said}");
}
