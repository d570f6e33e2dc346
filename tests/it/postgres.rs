//! The suite of the API, run again on PostgreSQL.
//!
//! Tests of the API know nothing of databases: each takes the one that it is
//! given. So the same program runs them a second time, on a server of its own.

use std::process::Command;

use sea_orm::{ConnectionTrait, DbBackend, Statement};

use crate::support::database::{POSTGRES_URL, PREFIX};
use crate::support::postgres::Postgres;

#[tokio::test]
async fn the_whole_api_suite_holds_on_postgresql_too() {
    let server = Postgres::start();
    // It ends with this process, however this process ends.
    let ran = Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(std::env::current_exe().unwrap())
        .args(["api::", "--color=never"])
        .env(POSTGRES_URL, server.url())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success(),
        "on PostgreSQL:\n{said}\n{}",
        String::from_utf8_lossy(&ran.stderr)
    );

    let db = capconduit::db::connect(&server.url()).await.unwrap();
    let count = format!("SELECT count(*) AS n FROM pg_database WHERE datname LIKE '{PREFIX}%'");
    let row = db.query_one_raw(Statement::from_string(DbBackend::Postgres, count)).await.unwrap();
    let databases: i64 = row.unwrap().try_get("", "n").unwrap();
    assert!(databases > 50, "only {databases} tests used PostgreSQL:\n{said}");
}
