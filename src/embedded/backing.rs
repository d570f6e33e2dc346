//! What the service stands on: which servers are ours, where the others are.
//!
//! The embedded profile has a file. The production profile has PostgreSQL and
//! Redis: those that the settings name, and private ones in place of those that
//! they don't.

use std::path::{Path, PathBuf};

use super::postgres::{Passwords, Postgres};
use super::realtime::{Realtime, RealtimeError};
use super::redis::Redis;
use super::server::{Server, ServerError, end_leftover};
use super::{Folder, Options, Profile, RunError, asterisk};
use crate::config::Config;

/// What there is to be, before anything of it runs.
pub struct Backing {
    postgres: Option<Postgres>,
    redis: Option<Redis>,
    /// Where Asterisk reads clients; None where there is an Asterisk already.
    pub realtime: Option<Realtime>,
    /// What differs from the defaults, the file and the environment.
    pub settings: Vec<(&'static str, String)>,
}

/// Servers of ours that run.
#[derive(Default)]
pub struct Servers {
    postgres: Option<Server<Postgres>>,
    redis: Option<Server<Redis>>,
}

/// A port that one of our servers is to have.
pub struct Port {
    pub what: &'static str,
    pub option: &'static str,
    pub number: u16,
}

// === impl Backing ===

impl Backing {
    pub fn of(options: &Options, folder: &Folder) -> Result<Self, RunError> {
        match options.profile {
            Profile::Embedded => Self::embedded(options, folder),
            Profile::Production => Self::production(options, folder),
        }
    }

    fn embedded(options: &Options, folder: &Folder) -> Result<Self, RunError> {
        let file = folder.root.join("capconduit.db");
        let mut settings = vec![("database.url", format!("sqlite://{}", file.display()))];
        settings.push(("capacity.store", "memory".to_owned()));
        settings.extend(own_asterisk(options, folder)?);
        settings.extend([
            ("internal.token", folder.secret("internal-token")?),
            ("journal.directory", folder.root.join("journal").display().to_string()),
        ]);
        let realtime = Some(Realtime::Sqlite { file });
        Ok(Self { postgres: None, redis: None, realtime, settings })
    }

    fn production(options: &Options, folder: &Folder) -> Result<Self, RunError> {
        let file = options.config.as_deref();
        let given = |name| Config::given(file, name);
        let mut settings = vec![("capacity.store", "redis".to_owned())];
        let redis = if given("capacity.redis_url")?.is_some() {
            None
        } else {
            let password = folder.secret("redis-password")?;
            Some(Redis::new(&options.tools, &folder.root, options.redis_port, password)?)
        };
        settings.extend(redis.iter().map(|redis| ("capacity.redis_url", redis.url())));
        let (postgres, account) = match given("database.url")? {
            Some(url) => {
                let own = given("database.realtime_url")?.filter(|url| !url.is_empty());
                let own = own.map(|url| ("database.realtime_url", url));
                (None, own.unwrap_or(("database.url", url)))
            }
            None => {
                let postgres = private_postgres(options, folder)?;
                let account = ("database.realtime_url", postgres.realtime_url());
                settings.push(("database.url", postgres.url()));
                settings.push(("database.realtime_url", postgres.realtime_url()));
                (Some(postgres), account)
            }
        };
        if account.1.starts_with("sqlite:") {
            return Err(RealtimeError::NotPostgres.into());
        }
        let realtime = if given("ari.address")?.is_some() {
            None
        } else {
            settings.extend(own_asterisk(options, folder)?);
            Some(Realtime::postgres(account.0, &account.1)?)
        };
        if given("internal.token")?.is_none() {
            settings.push(("internal.token", folder.secret("internal-token")?));
        }
        if given("journal.directory")?.is_none() {
            let journal = folder.root.join("journal");
            settings.push(("journal.directory", journal.display().to_string()));
        }
        Ok(Self { postgres, redis, realtime, settings })
    }

    /// Ends what a killed run left behind, except Asterisk.
    pub async fn end_leftovers(&self) -> Result<(), ServerError> {
        if let Some(redis) = &self.redis {
            end_leftover(redis).await?;
        }
        if let Some(postgres) = &self.postgres {
            end_leftover(postgres).await?;
        }
        Ok(())
    }

    pub fn ports(&self, options: &Options) -> Vec<Port> {
        let database = self.postgres.as_ref().map(|_| Port {
            what: "PostgreSQL",
            option: "database",
            number: options.database_port,
        });
        let redis = self.redis.as_ref().map(|_| Port {
            what: "Redis",
            option: "redis",
            number: options.redis_port,
        });
        database.into_iter().chain(redis).collect()
    }

    /// Starts what is ours, into `servers`, so that it can be ended whatever happens.
    pub async fn start(&mut self, servers: &mut Servers) -> Result<(), RunError> {
        if let Some(redis) = self.redis.take() {
            redis.prepare()?;
            servers.redis.insert(Server::start(redis)?).ready().await?;
        }
        if let Some(postgres) = self.postgres.take() {
            postgres.prepare().await?;
            let server = servers.postgres.insert(Server::start(postgres)?);
            server.ready().await?;
            server.kind().make_database().await?;
        }
        Ok(())
    }
}

fn private_postgres(options: &Options, folder: &Folder) -> Result<Postgres, RunError> {
    let passwords = Passwords {
        superuser: folder.secret("postgres-password")?,
        service: folder.secret("database-password")?,
        asterisk: folder.secret("asterisk-database-password")?,
    };
    Ok(Postgres::new(&options.tools, &folder.root, options.database_port, passwords)?)
}

fn own_asterisk(
    options: &Options,
    folder: &Folder,
) -> Result<[(&'static str, String); 4], RunError> {
    Ok([
        ("ari.address", format!("127.0.0.1:{}", options.ari_port)),
        ("ari.application", asterisk::APPLICATION.to_owned()),
        ("ari.username", asterisk::ARI_USER.to_owned()),
        ("ari.password", folder.secret("ari-password")?),
    ])
}

// === impl Servers ===

impl Servers {
    /// Asterisk's rights, once the tables are there.
    pub async fn grant(&self) -> Result<(), sea_orm::DbErr> {
        match &self.postgres {
            Some(server) => server.kind().grant().await,
            None => Ok(()),
        }
    }

    /// Starts again what ends; why that is no use any more.
    pub async fn watch(&mut self) -> ServerError {
        tokio::select! {
            error = watch(&mut self.postgres) => error,
            error = watch(&mut self.redis) => error,
        }
    }

    pub async fn stop(self) {
        if let Some(redis) = self.redis {
            redis.stop().await;
        }
        if let Some(postgres) = self.postgres {
            postgres.stop().await;
        }
    }
}

async fn watch<K: super::server::Kind>(server: &mut Option<Server<K>>) -> ServerError {
    match server {
        Some(server) => server.watch().await,
        None => std::future::pending().await,
    }
}

/// Where other commands find these settings.
pub fn settings_file(data: &Path) -> PathBuf {
    data.join("capconduit.toml")
}
