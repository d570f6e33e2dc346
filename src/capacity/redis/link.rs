//! The connection to Redis, and the epochs of what is kept there.
//!
//! Redis may come back having forgotten: restarted from a file that is a second
//! old, replaced by a replica that was behind, or emptied. Counts that are too
//! low would sell calls twice. So nothing is trusted but what one and the same
//! server process has kept since it was filled: the epoch's mark names that
//! process (`run_id`), every new connection compares the two before it is used,
//! and where they differ, or the mark is gone, a new epoch begins.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rand::RngExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, AsyncConnectionConfig, Client, InfoDict, RedisError, Script};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::RedisSettings;
use crate::capacity::Status;

/// A connection to a server that keeps the epoch in force.
pub(super) struct Session {
    pub(super) connection: MultiplexedConnection,
    pub(super) epoch: Arc<str>,
    pub(super) is_open: bool,
    pub(super) epoch_name: String,
    /// What the names of everything in this epoch begin with.
    pub(super) base: String,
}

/// Keeps a session, and tells whether there is one.
pub(super) struct Link {
    client: Client,
    prefix: String,
    node: String,
    look_patience: Duration,
    session: ArcSwapOption<Session>,
    status: watch::Sender<Status>,
    /// Rung when a command failed: something may have changed.
    trouble: Notify,
}

const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// A server that answers no look for so long is away, unless commands are waited for longer.
const LOOK_PATIENCE: Duration = Duration::from_millis(500);
/// How often the server is looked at, without any trouble.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Looks are not repeated sooner, however much trouble there is.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
const RETRY_AFTER: Duration = Duration::from_millis(100);
const RETRY_SPREAD_MS: u64 = 100;
/// An instance that fills the ledger and is not heard of for so long is replaced.
const FILLER_LEASE_MS: u64 = 5_000;

/// Begins a new epoch, unless another instance was faster.
const BEGIN: &str = "
if (redis.call('GET', KEYS[1]) or '') == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2])
  redis.call('SET', KEYS[2], ARGV[3])
  redis.call('DEL', KEYS[3])
end
return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}";

/// Opens the epoch that was filled, if it is still the one in force.
const OPEN: &str = "
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2])
end
return 'OK'";

/// Clears names away, unless another epoch has begun meanwhile: they may be its.
const CLEAR: &str = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('EPOCH another has begun')
end
return redis.call('UNLINK', unpack(ARGV, 2))";

/// Makes the asking instance the one that fills, if there is no other.
const FILL: &str = "
local filler = redis.call('GET', KEYS[1])
if filler and filler ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1";

// === impl Link ===

impl Link {
    pub(super) fn new(client: Client, settings: &RedisSettings) -> Self {
        Self {
            client,
            prefix: format!("{{{}}}:", settings.prefix),
            node: settings.node.clone(),
            // A look may stand behind commands that are still waited for.
            look_patience: LOOK_PATIENCE.max(settings.patience),
            session: ArcSwapOption::empty(),
            status: watch::channel(Status::Away).0,
            trouble: Notify::new(),
        }
    }

    pub(super) fn session(&self) -> Option<Arc<Session>> {
        self.session.load_full()
    }

    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Something went wrong: the server is looked at now.
    pub(super) fn look(&self) {
        self.trouble.notify_one();
    }

    /// Connects, watches, and connects again, for ever.
    pub(super) async fn keep(&self) {
        let mut told = false;
        loop {
            match self.connect().await {
                Ok((connection, run)) => {
                    told = false;
                    info!("connected to Redis");
                    let error = self.watch(connection, &run).await;
                    warn!(error, "the connection to Redis is lost");
                }
                Err(error) if !told => {
                    told = true;
                    warn!(error, "Redis can't be reached; new calls can't be held");
                }
                Err(_) => {}
            }
            self.session.store(None);
            self.status.send_replace(Status::Away);
            let spread = Duration::from_millis(rand::rng().random_range(0..RETRY_SPREAD_MS));
            sleep(RETRY_AFTER + spread).await;
        }
    }

    /// A fresh connection, and the server process behind it.
    async fn connect(&self) -> Result<(MultiplexedConnection, String), String> {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_PATIENCE))
            .set_response_timeout(None);
        let connecting = self.client.get_multiplexed_async_connection_with_config(&settings);
        let mut connection = in_time(CONNECT_PATIENCE, connecting).await?;
        let asked = redis::cmd("INFO").arg("server").to_owned();
        let server: InfoDict =
            in_time(CONNECT_PATIENCE, asked.query_async(&mut connection)).await?;
        let run = server.get::<String>("run_id").ok_or("the server has no run_id")?;
        Ok((connection, run))
    }

    /// Follows the epochs of one server process. Gives the reason when it can't any more.
    async fn watch(&self, mut connection: MultiplexedConnection, run: &str) -> String {
        loop {
            let looked =
                in_time(self.look_patience, self.epoch_in_force(&mut connection, run)).await;
            match looked {
                Ok((epoch, is_open)) => self.follow(&connection, &epoch, is_open),
                Err(error) => return error,
            }
            sleep(LOOK_PAUSE).await;
            // Woken by trouble, or by the time.
            let _ = timeout(LOOK_INTERVAL, self.trouble.notified()).await;
        }
    }

    /// The epoch that this server process keeps; a new one, if it keeps none.
    async fn epoch_in_force(
        &self,
        connection: &mut MultiplexedConnection,
        run: &str,
    ) -> Result<(String, bool), RedisError> {
        let names = [self.epoch_name(), self.run_name()];
        let (mut mark, mut kept_by): (Option<String>, Option<String>) =
            connection.mget(&names).await?;
        if mark.is_none() || kept_by.as_deref() != Some(run) {
            let id = format!("{:016x}", rand::rng().random::<u64>());
            warn!(epoch = id, "Redis may have forgotten what is held: the ledger is filled anew");
            (mark, kept_by) = Script::new(BEGIN)
                .key(&names[0])
                .key(&names[1])
                .key(self.filler_name())
                .arg(mark.unwrap_or_default())
                .arg(format!("{id} filling"))
                .arg(run)
                .invoke_async(connection)
                .await?;
        }
        drop(kept_by);
        let mark = mark.unwrap_or_default();
        let (id, state) = mark.split_once(' ').unwrap_or((&mark, ""));
        Ok((id.to_owned(), state == "open"))
    }

    fn follow(&self, connection: &MultiplexedConnection, epoch: &str, is_open: bool) {
        let known = self.session.load();
        if known.as_ref().is_some_and(|known| *known.epoch == *epoch && known.is_open == is_open) {
            return;
        }
        let epoch: Arc<str> = epoch.into();
        self.session.store(Some(Arc::new(Session {
            connection: connection.clone(),
            base: format!("{}{epoch}:", self.prefix),
            epoch: epoch.clone(),
            is_open,
            epoch_name: self.epoch_name(),
        })));
        let status = if is_open { Status::Open(epoch) } else { Status::Filling(epoch) };
        info!(?status, "the ledger in Redis");
        self.status.send_replace(status);
    }

    pub(super) async fn may_fill(&self, session: &Session) -> Result<bool, RedisError> {
        let mut connection = session.connection.clone();
        Script::new(FILL)
            .key(self.filler_name())
            .arg(&self.node)
            .arg(FILLER_LEASE_MS)
            .invoke_async(&mut connection)
            .await
    }

    /// Opens the session's epoch, and clears away what is left of others.
    pub(super) async fn open(&self, session: &Session) -> Result<(), RedisError> {
        let mut connection = session.connection.clone();
        let _: String = Script::new(OPEN)
            .key(&session.epoch_name)
            .arg(format!("{} filling", session.epoch))
            .arg(format!("{} open", session.epoch))
            .invoke_async(&mut connection)
            .await?;
        self.look();
        let (prefix, base) = (self.prefix.clone(), session.base.clone());
        let (epoch_name, mark) = (self.epoch_name(), format!("{} open", session.epoch));
        tokio::spawn(async move {
            let others = Others { prefix, base, epoch_name, mark };
            if let Err(error) = others.clear_away(&mut connection).await {
                warn!(%error, "what is left of earlier epochs in Redis could not be cleared away");
            }
        });
        Ok(())
    }

    fn epoch_name(&self) -> String {
        format!("{}epoch", self.prefix)
    }

    fn run_name(&self) -> String {
        format!("{}run", self.prefix)
    }

    fn filler_name(&self) -> String {
        format!("{}filler", self.prefix)
    }
}

/// What is left of epochs that aren't in force any more.
struct Others {
    prefix: String,
    base: String,
    epoch_name: String,
    mark: String,
}

impl Others {
    async fn clear_away(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        // In a pattern, braces stand for themselves, and nothing else special is in a prefix.
        let pattern = format!("{}*:*", self.prefix);
        let mut cursor = 0_u64;
        loop {
            let (next, names): (u64, Vec<String>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(&pattern)
                .arg("COUNT")
                .arg(500)
                .query_async(connection)
                .await?;
            let old: Vec<_> =
                names.into_iter().filter(|name| !name.starts_with(&self.base)).collect();
            if !old.is_empty() {
                let clear = Script::new(CLEAR);
                let mut clear = clear.key(&self.epoch_name);
                clear.arg(&self.mark).arg(old);
                let _: i64 = clear.invoke_async(connection).await?;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }
}

async fn in_time<T>(
    patience: Duration,
    answer: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, String> {
    match timeout(patience, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} ms", patience.as_millis())),
    }
}
