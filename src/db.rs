//! The database: how it is opened, and how it is written to.

use std::time::Duration;

use capconduit_migration::Migrator;
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ConnectOptions, Database, DatabaseConnection, DatabaseTransaction, DbErr,
    SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use sea_orm_migration::MigratorTrait;

/// Opens the database at `url`, without touching its schema.
///
/// # Errors
/// When the URL names no known kind of database, or it can't be reached.
pub async fn connect(url: &str) -> Result<DatabaseConnection, DbErr> {
    let mut options = ConnectOptions::new(url);
    options
        .connect_timeout(Duration::from_secs(5))
        .acquire_timeout(Duration::from_secs(5))
        .max_connections(8)
        .sqlx_logging(false)
        .map_sqlx_sqlite_opts(|sqlite| {
            sqlite
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Normal)
                .busy_timeout(Duration::from_secs(5))
                .foreign_keys(true)
        })
        .map_sqlx_postgres_opts(|postgres| {
            postgres
                .application_name("capconduit")
                .options([("statement_timeout", "5s"), ("timezone", "UTC")])
        });
    Database::connect(options).await
}

/// Brings the schema up to date.
///
/// # Errors
/// When a migration fails; those before it stay.
pub async fn migrate(db: &DatabaseConnection) -> Result<(), DbErr> {
    Migrator::up(db, None).await
}

/// Begins a transaction that writes.
///
/// On SQLite it takes the write lock at once: a transaction that starts as a
/// reader and then writes fails with `database is locked` as soon as another
/// one wrote in between, whatever the busy timeout.
///
/// # Errors
/// When no connection is to be had, or the write lock isn't free in time.
pub async fn begin_write(db: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    db.begin_with_options(TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    })
    .await
}
