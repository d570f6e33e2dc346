//! A database of its own for each test: a SQLite file, or, where
//! [`POSTGRES_URL`] names a server, a database there.

use std::sync::atomic::{AtomicU32, Ordering};

use capconduit::db;
use sea_orm::{ConnectionTrait, DatabaseConnection};
use tempfile::TempDir;

/// The variable that names a PostgreSQL server for tests of the API.
pub const POSTGRES_URL: &str = "CAPCONDUIT_TEST_POSTGRES_URL";

/// What the names of databases on that server begin with.
pub const PREFIX: &str = "capconduit_test_";

pub struct TestDatabase {
    pub connection: DatabaseConnection,
    _folder: Option<TempDir>,
}

impl TestDatabase {
    pub async fn create() -> Self {
        match std::env::var(POSTGRES_URL) {
            Ok(server) => Self::in_postgres(&server).await,
            Err(_) => Self::in_sqlite().await,
        }
    }

    async fn in_sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}?mode=rwc", folder.path().join("test.sqlite").display());
        Self { connection: open(&url).await, _folder: Some(folder) }
    }

    /// `server` ends in the name of a database that exists.
    async fn in_postgres(server: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}_{number}", std::process::id());
        let admin = db::connect(server).await.unwrap();
        admin.execute_unprepared(&format!("DROP DATABASE IF EXISTS {name}")).await.unwrap();
        admin.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
        admin.close().await.unwrap();
        let (base, _) = server.rsplit_once('/').unwrap();
        Self { connection: open(&format!("{base}/{name}")).await, _folder: None }
    }
}

async fn open(url: &str) -> DatabaseConnection {
    let connection = db::connect(url).await.unwrap();
    db::migrate(&connection).await.unwrap();
    connection
}
