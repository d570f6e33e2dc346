//! A PostgreSQL of our own: on loopback, each account with a password and with
//! no more rights than it needs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::asterisk::write_private;
use super::server::{Kind, ServerError, failed, program, unwritten};
use crate::db;

pub struct Postgres {
    tools: PathBuf,
    program: PathBuf,
    home: PathBuf,
    log: PathBuf,
    port: u16,
    passwords: Passwords,
}

/// Each account's own.
pub struct Passwords {
    /// `postgres`, which makes the others.
    pub superuser: String,
    /// `capconduit`, which owns the database.
    pub service: String,
    /// `asterisk`, which reads clients.
    pub asterisk: String,
}

/// What Asterisk's account may do; for servers of an operator's own too.
const GRANTS: &str = include_str!("../../asterisk-conf/asterisk-grants.sql");

// === impl Postgres ===

impl Postgres {
    /// In the folder `postgres` of `data`.
    ///
    /// # Errors
    /// When its programs aren't there.
    pub fn new(
        tools: &Path,
        data: &Path,
        port: u16,
        passwords: Passwords,
    ) -> Result<Self, ServerError> {
        Ok(Self {
            tools: tools.to_owned(),
            program: program::<Self>(tools, "postgres")?,
            home: data.join("postgres"),
            log: data.join("log/postgres.log"),
            port,
            passwords,
        })
    }

    /// The service's own database.
    pub fn url(&self) -> String {
        self.url_of("capconduit", &self.passwords.service, "capconduit")
    }

    /// The same, as Asterisk sees it.
    pub fn realtime_url(&self) -> String {
        self.url_of("asterisk", &self.passwords.asterisk, "capconduit")
    }

    fn url_of(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    async fn as_superuser(&self, database: &str) -> Result<DatabaseConnection, DbErr> {
        db::connect(&self.url_of("postgres", &self.passwords.superuser, database)).await
    }

    /// Makes its folder, if it isn't there.
    ///
    /// # Errors
    /// When that fails, with what `initdb` says.
    pub async fn prepare(&self) -> Result<(), ServerError> {
        if self.home.join("PG_VERSION").exists() {
            return Ok(());
        }
        println!("Preparing PostgreSQL's folder; only the first start does this ...");
        // It gets its name when it is complete.
        let new = self.home.with_extension("new");
        if new.exists() {
            fs::remove_dir_all(&new).map_err(unwritten::<Self>(&new))?;
        }
        let password = self.home.with_extension("password");
        write_private(&password, &self.passwords.superuser)
            .map_err(unwritten::<Self>(&password))?;
        let made = as_ordinary_user(&program::<Self>(&self.tools, "initdb")?)
            .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8"])
            .arg("--no-locale")
            .arg("--pwfile")
            .arg(&password)
            .arg("-D")
            .arg(&new)
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .output()
            .await;
        fs::remove_file(&password).map_err(unwritten::<Self>(&password))?;
        let made = made.map_err(failed::<Self>)?;
        if made.status.success() {
            return fs::rename(&new, &self.home).map_err(unwritten::<Self>(&self.home));
        }
        let said = String::from_utf8_lossy(&made.stderr);
        if said.starts_with("unshare:") {
            return Err(ServerError::Root(said.trim().to_owned()));
        }
        let tail = said.trim().to_owned();
        Err(ServerError::Ended { what: "PostgreSQL's initdb", status: made.status, tail })
    }

    /// The service's account and its database.
    ///
    /// # Errors
    /// When PostgreSQL refuses.
    pub async fn make_database(&self) -> Result<(), DbErr> {
        let db = self.as_superuser("postgres").await?;
        for (role, password) in
            [("capconduit", &self.passwords.service), ("asterisk", &self.passwords.asterisk)]
        {
            let verb = match found(&db, "pg_roles", "rolname", role).await? {
                true => "ALTER",
                false => "CREATE",
            };
            // Passwords of ours have letters and digits only.
            let sql = format!("{verb} ROLE {role} LOGIN PASSWORD '{password}'");
            db.execute_unprepared(&sql).await?;
        }
        if !found(&db, "pg_database", "datname", "capconduit").await? {
            db.execute_unprepared("CREATE DATABASE capconduit OWNER capconduit").await?;
        }
        // PostgreSQL 14 and older let nobody but its owner make tables in `public`.
        let inside = self.as_superuser("capconduit").await?;
        inside.execute_unprepared("GRANT ALL ON SCHEMA public TO capconduit").await?;
        inside.close().await?;
        db.close().await
    }

    /// Asterisk's rights, once the tables are there.
    ///
    /// # Errors
    /// When PostgreSQL refuses.
    pub async fn grant(&self) -> Result<(), DbErr> {
        let db = self.as_superuser("capconduit").await?;
        db.execute_unprepared(GRANTS).await?;
        db.close().await
    }
}

impl Kind for Postgres {
    const WHAT: &'static str = "PostgreSQL";
    const TOOL: &'static str = "postgres";
    const SETTING: &'static str = "CAPCONDUIT__DATABASE__URL";
    /// Clients are disconnected, what is written is synced.
    const END: Signal = Signal::INT;
    /// The next start repairs what was being written. Not KILL: that would leave
    /// its processes behind.
    const CUT_OFF: Signal = Signal::QUIT;

    fn command(&self) -> Command {
        let mut command = as_ordinary_user(&self.program);
        command
            .arg("-D")
            .arg(&self.home)
            .args(["-p", &self.port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "timezone=UTC", "-c", "log_timezone=UTC"]);
        command
    }

    fn home(&self) -> &Path {
        &self.home
    }

    fn pid_file(&self) -> PathBuf {
        self.home.join("postmaster.pid")
    }

    fn log(&self) -> &Path {
        &self.log
    }

    async fn answers(&self) -> bool {
        // The pool would try again and again, while PostgreSQL may have ended.
        if TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            return false;
        }
        let Ok(db) = self.as_superuser("postgres").await else { return false };
        db.ping().await.is_ok() && db.close().await.is_ok()
    }
}

async fn found(
    db: &DatabaseConnection,
    table: &str,
    column: &str,
    name: &str,
) -> Result<bool, DbErr> {
    let sql = format!("SELECT 1 FROM {table} WHERE {column} = $1");
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, [name.into()]);
    Ok(db.query_one_raw(statement).await?.is_some())
}

/// PostgreSQL refuses to run as root: then it gets a user of a namespace of its
/// own, in which nobody is root, and the files are that user's.
fn as_ordinary_user(program: &Path) -> Command {
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if !is_root {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-user=1000", "--map-group=1000"]).arg(program);
    command
}
