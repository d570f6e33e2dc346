//! What a service of the production profile stands on: a database of its own on
//! the one PostgreSQL of this test run, and a Redis of its own.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use capconduit::db;
use sea_orm::ConnectionTrait;
use tempfile::TempDir;
use tokio::sync::{Mutex, OnceCell};

use super::postgres::Postgres;
use super::redis::Redis;

/// Which profile tests start services with: `embedded`, or `production`.
const PROFILE: &str = "CAPCONDUIT_TEST_PROFILE";
const GRANTS: &str = include_str!("../../../asterisk-conf/asterisk-grants.sql");

pub struct Production {
    pub redis: Redis,
    pub database_url: String,
    realtime_url: String,
}

pub fn is_wanted() -> bool {
    match std::env::var(PROFILE).as_deref() {
        Ok("production") => true,
        Ok("embedded") | Err(_) => false,
        Ok(other) => panic!("{PROFILE} is {other}: it must be embedded or production"),
    }
}

// === impl Production ===

impl Production {
    /// Does what an operator does before the first start.
    pub async fn prepare() -> Self {
        Self::prepare_on(server_url().await).await
    }

    /// The same on another server, which [`with_asterisk`] made ready.
    pub async fn prepare_on(server: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("calls_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let (base, _) = server.rsplit_once('/').unwrap();
        let database_url = format!("{base}/{name}");
        let realtime_url = database_url.replacen("capconduit@", "asterisk@", 1);
        // Rights belong to the role too, which all databases share.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
        let _turn = ONE_AT_A_TIME.lock().await;
        let admin = db::connect(server).await.unwrap();
        admin.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
        admin.close().await.unwrap();
        let database = db::connect(&database_url).await.unwrap();
        db::migrate(&database).await.unwrap();
        database.execute_unprepared(GRANTS).await.unwrap();
        database.close().await.unwrap();
        Self { redis: Redis::start(), database_url, realtime_url }
    }

    pub fn configure(&self, command: &mut Command) {
        command.args(["--profile", "production"]);
        self.configure_service(command);
    }

    /// The same for a service that runs alone.
    pub fn configure_service(&self, command: &mut Command) {
        command
            .env("CAPCONDUIT__DATABASE__URL", &self.database_url)
            .env("CAPCONDUIT__DATABASE__REALTIME_URL", &self.realtime_url)
            .env("CAPCONDUIT__CAPACITY__STORE", "redis")
            .env("CAPCONDUIT__CAPACITY__REDIS_URL", self.redis.url());
    }
}

/// Nothing is left to remove it at this run's end: the next run does.
fn folder_of_this_run() -> TempDir {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for entry in fs::read_dir(all).unwrap() {
        let path = entry.unwrap().path();
        if path.join("lock").exists() && lock(&path).is_some() {
            // Another run may be at it.
            drop(fs::remove_dir_all(path));
        }
    }
    tempfile::Builder::new().prefix("postgres-").tempdir_in(all).unwrap()
}

fn lock(folder: &Path) -> Option<File> {
    let file = File::create(folder.join("lock")).ok()?;
    file.try_lock().is_ok().then_some(file)
}

/// The one PostgreSQL of this test run, with Asterisk's role.
async fn server_url() -> &'static str {
    static URL: OnceCell<String> = OnceCell::const_new();
    URL.get_or_init(async || {
        let (tell, told) = tokio::sync::oneshot::channel();
        // The kernel ends it with the thread that started it: one that stays.
        std::thread::spawn(|| {
            let folder = folder_of_this_run();
            let _lock = lock(folder.path()).expect("nobody else knows of it");
            let server = Postgres::start_in(folder);
            tell.send(server.url()).unwrap();
            loop {
                std::thread::park();
            }
        });
        with_asterisk(told.await.unwrap()).await
    })
    .await
}

/// A server on which Asterisk has its role.
pub async fn with_asterisk(url: String) -> String {
    let admin = db::connect(&url).await.unwrap();
    admin.execute_unprepared("CREATE ROLE asterisk LOGIN").await.unwrap();
    admin.close().await.unwrap();
    url
}
