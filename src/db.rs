//! The database: how it is opened, how it is written to, and how all of it is read.

use std::time::Duration;

use capconduit_migration::Migrator;
use sea_orm::sqlx::Connection;
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    AccessMode, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction,
    DbBackend, DbErr, IsolationLevel, RuntimeErr, SqliteTransactionMode, TransactionOptions,
    TransactionTrait, sqlx,
};
use sea_orm_migration::MigratorTrait;

/// What a statement may take, but in [`begin_long_read`] and [`migrate`].
const STATEMENT_PATIENCE: Duration = Duration::from_secs(5);

/// Opens the database at `url`, without touching its schema.
///
/// # Errors
/// When the URL names no known kind of database, or it can't be reached.
pub async fn connect(url: &str) -> Result<DatabaseConnection, DbErr> {
    connect_with_patience(url, STATEMENT_PATIENCE).await
}

/// The same, where a statement may take so long on PostgreSQL. On SQLite none is cut off.
///
/// # Errors
/// As [`connect`].
pub async fn connect_with_patience(
    url: &str,
    statement: Duration,
) -> Result<DatabaseConnection, DbErr> {
    let statement_timeout = format!("{}ms", statement.as_millis());
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
                // A record leaves the journal once it is committed here: then a
                // power cut may not take it any more.
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(Duration::from_secs(5))
                .foreign_keys(true)
        })
        .map_sqlx_sqlite_pool_opts(|pool| {
            // A commit on a full disk fails and is undone by SQLite itself, of which
            // the connection's own count of transactions knows nothing: what it
            // committed from then on would be committed by nobody.
            pool.before_acquire(|connection, _| {
                Box::pin(async move { Ok(!connection.is_in_transaction()) })
            })
        })
        .map_sqlx_postgres_opts(move |postgres| {
            postgres
                .application_name("capconduit")
                .options([("statement_timeout", &*statement_timeout), ("timezone", "UTC")])
        });
    Database::connect(options).await
}

/// Whether it is the database that can't be had or take anything now, rather than the
/// query that is wrong: away, locked, full, or too slow.
pub fn is_away(err: &DbErr) -> bool {
    match err {
        DbErr::ConnectionAcquire(_) => true,
        DbErr::Conn(RuntimeErr::SqlxError(cause))
        | DbErr::Exec(RuntimeErr::SqlxError(cause))
        | DbErr::Query(RuntimeErr::SqlxError(cause)) => match &**cause {
            sqlx::Error::Database(said) => said.code().is_some_and(|code| means_away(&code)),
            _ => {
                matches!(
                    **cause,
                    sqlx::Error::Io(_) | sqlx::Error::PoolClosed | sqlx::Error::PoolTimedOut
                ) || matches!(err, DbErr::Conn(_))
            }
        },
        DbErr::Conn(_) => true,
        _ => false,
    }
}

/// PostgreSQL's codes have five characters, SQLite's are numbers.
fn means_away(code: &str) -> bool {
    if code.len() == 5 {
        // Connection, resources, operator's intervention (timeouts too), system, read-only.
        let classes = ["08", "53", "57", "58"];
        return classes.iter().any(|class| code.starts_with(class)) || code == "25006";
    }
    // The low byte: busy, locked, read-only, I/O error, full, can't open.
    code.parse::<u32>().is_ok_and(|code| [5, 6, 8, 10, 13, 14].contains(&(code & 0xFF)))
}

/// Brings the schema up to date. With a long history, that takes as long as it takes;
/// but nobody waits longer than usual for those who use a table.
///
/// # Errors
/// When a migration fails; those before it stay.
pub async fn migrate(db: &DatabaseConnection) -> Result<(), DbErr> {
    if db.get_database_backend() != DbBackend::Postgres {
        return Migrator::up(db, None).await;
    }
    let pending = Migrator::get_pending_migrations(db).await?.len();
    for _ in 0..pending {
        let txn = db.begin().await?;
        txn.execute_unprepared("SET LOCAL lock_timeout = '5s'").await?;
        txn.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
        Migrator::up(&txn, Some(1)).await?;
        txn.commit().await?;
    }
    Ok(())
}

/// Begins a transaction that reads, and sees the database as it is at the first of its reads.
///
/// Each of them may take ten minutes: those that read all of a long history do, which no
/// other statement may.
///
/// # Errors
/// When no connection is to be had.
pub async fn begin_long_read(db: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    if db.get_database_backend() != DbBackend::Postgres {
        return db.begin().await;
    }
    let (isolation, access) = (IsolationLevel::RepeatableRead, AccessMode::ReadOnly);
    let txn = db.begin_with_config(Some(isolation), Some(access)).await?;
    txn.execute_unprepared("SET LOCAL statement_timeout = '10min'").await?;
    Ok(txn)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_away_is_told_from_what_is_wrong() {
        for away in ["5", "517", "13", "3338", "57P01", "57014", "53100", "08006", "25006"] {
            assert!(means_away(away), "{away}");
        }
        for wrong in ["19", "2067", "1", "23505", "42P01", "22001", ""] {
            assert!(!means_away(wrong), "{wrong}");
        }
    }
}
