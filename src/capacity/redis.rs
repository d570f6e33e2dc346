//! The ledger in Redis, for several instances: one script, one round trip per step.
//!
//! All names carry one hash tag, so they lie in one slot of a cluster, and the
//! id of the epoch in force, so nothing that was meant for another reaches
//! this one. How the connection is kept and epochs begin: [`link`].

mod link;
mod wire;

use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{AsyncCommands, FromRedisValue, RedisError, Script, ScriptInvocation};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::link::{Link, Session};
use super::{
    Book, Correction, Holder, LeaseClock, Leases, Ledger, Request, Scope, Standing, Status,
    Unavailable, Usage, Verdict, Windows,
};
use crate::ids::{CampaignId, LinkId};

/// Where the ledger is, and how this instance uses it.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// `redis://[USER:PASSWORD@]HOST[:PORT]/DATABASE`
    pub url: String,
    /// What the names of all keys begin with, in braces.
    pub prefix: String,
    /// Who leads the calls that hold here: the same after a restart.
    pub node: String,
    pub leases: Leases,
    pub clock: LeaseClock,
    /// How long an answer is waited for.
    pub patience: Duration,
}

/// The ledger that several instances share.
pub struct RedisLedger {
    link: Arc<Link>,
    settings: RedisSettings,
}

macro_rules! script {
    ($name:ident, $file:literal) => {
        static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::new(concat!(include_str!("redis/common.lua"), include_str!($file)))
        });
    };
}

script!(RESERVE, "redis/reserve.lua");
script!(ADVANCE, "redis/advance.lua");
script!(USAGES, "redis/usages.lua");
script!(BOOKS, "redis/books.lua");
script!(CORRECT, "redis/correct.lua");

/// Holds or scopes that one script looks at: others wait meanwhile.
const BATCH: usize = 100;

// === impl RedisLedger ===

impl RedisLedger {
    /// A ledger that connects by itself, and again whenever it has to, until it is cancelled.
    ///
    /// # Errors
    /// When the URL isn't one.
    pub fn start(settings: RedisSettings, cancel: CancellationToken) -> Result<Self, RedisError> {
        let client = redis::Client::open(settings.url.as_str())?;
        let link = Arc::new(Link::new(client, &settings));
        tokio::spawn({
            let link = link.clone();
            async move { cancel.run_until_cancelled(link.keep()).await }
        });
        Ok(Self { link, settings })
    }

    async fn run<T: FromRedisValue>(
        &self,
        session: &Session,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, Unavailable> {
        let mut connection = session.connection.clone();
        let answer = call.invoke_async(&mut connection);
        self.within_patience(answer).await
    }

    async fn within_patience<T>(
        &self,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Unavailable> {
        match tokio::time::timeout(self.settings.patience, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.link.look();
                Err(unavailable(&error))
            }
            Err(_) => {
                self.link.look();
                Err(Unavailable { reason: "it did not answer in time".to_owned() })
            }
        }
    }

    /// A session in which holds may be told and asked for.
    fn session(&self) -> Result<Arc<Session>, Unavailable> {
        self.link.session().ok_or_else(|| Unavailable { reason: "it is away".to_owned() })
    }

    async fn ask(&self, request: &Request, dry: bool) -> Result<Verdict, Unavailable> {
        let session = self.session()?;
        if !session.is_open {
            return Err(Unavailable { reason: "it is being filled".to_owned() });
        }
        let mut call = RESERVE.prepare_invoke();
        wire::put_request(&mut call, request, dry, &session, &self.settings);
        let answer: String = self.run(&session, &call).await?;
        wire::read_verdict(&answer)
    }
}

fn unavailable_answer(answer: &str) -> Unavailable {
    Unavailable { reason: format!("it answered what can't be read: {}", wire::shortened(answer)) }
}

fn unavailable(error: &RedisError) -> Unavailable {
    Unavailable { reason: error.to_string() }
}

// === impl Ledger ===

#[async_trait::async_trait]
impl Ledger for RedisLedger {
    async fn reserve(&self, request: &Request) -> Result<Verdict, Unavailable> {
        self.ask(request, false).await
    }

    async fn preview(&self, request: &Request) -> Result<Verdict, Unavailable> {
        self.ask(request, true).await
    }

    async fn advance(&self, standing: &[Standing]) -> Result<(), Unavailable> {
        let session = self.session()?;
        for some in standing.chunks(BATCH) {
            let mut call = ADVANCE.prepare_invoke();
            wire::put_standing(&mut call, some, &session, &self.settings);
            let _: String = self.run(&session, &call).await?;
        }
        Ok(())
    }

    async fn usages(&self, asked: &[(Scope, Windows)]) -> Result<Vec<Usage>, Unavailable> {
        let session = self.session()?;
        let mut usages = Vec::with_capacity(asked.len());
        for some in asked.chunks(BATCH) {
            let mut call = USAGES.prepare_invoke();
            wire::put_asked(&mut call, some, &session, &self.settings);
            let answers: Vec<String> = self.run(&session, &call).await?;
            for answer in answers {
                usages.push(wire::read_usage(&answer)?);
            }
        }
        Ok(usages)
    }

    async fn set_cursor(&self, campaign: CampaignId, link: LinkId) -> Result<(), Unavailable> {
        let session = self.session()?;
        let mut connection = session.connection.clone();
        let name = wire::cursor_name(&session, campaign);
        let _: () = self.within_patience(connection.set(name, link.0)).await?;
        Ok(())
    }

    async fn holders(&self) -> Result<Vec<Holder>, Unavailable> {
        let session = self.session()?;
        let mut connection = session.connection.clone();
        let ids: Vec<String> =
            self.within_patience(connection.zrange(wire::leases_name(&session), 0, -1)).await?;
        let mut holders = Vec::new();
        for some in ids.chunks(BATCH) {
            let names: Vec<_> = some.iter().map(|id| wire::hold_name(&session, id)).collect();
            let holds: Vec<Option<String>> = self.within_patience(connection.mget(names)).await?;
            for (id, hold) in some.iter().zip(holds) {
                if let Some(hold) = hold {
                    holders.extend(wire::read_holder(id, &hold)?);
                }
            }
        }
        Ok(holders)
    }

    async fn books(&self) -> Result<Vec<Book>, Unavailable> {
        let session = self.session()?;
        let mut connection = session.connection.clone();
        let scopes: Vec<String> =
            self.within_patience(connection.smembers(wire::scopes_name(&session))).await?;
        let mut books = Vec::with_capacity(scopes.len());
        for some in scopes.chunks(BATCH) {
            let mut call = BOOKS.prepare_invoke();
            wire::put_scopes(&mut call, some, &session);
            let answers: Vec<(u32, Vec<i64>)> = self.run(&session, &call).await?;
            for (scope, (total, slots)) in some.iter().zip(answers) {
                books.push(wire::read_book(scope, total, &slots)?);
            }
        }
        Ok(books)
    }

    async fn correct(&self, corrections: &[Correction]) -> Result<(), Unavailable> {
        let session = self.session()?;
        for correction in corrections {
            for call in wire::corrections(&CORRECT, correction, &session) {
                let _: String = self.run(&session, &call).await?;
            }
        }
        Ok(())
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.link.status()
    }

    async fn may_fill(&self) -> Result<bool, Unavailable> {
        let session = self.session()?;
        self.within_patience(self.link.may_fill(&session)).await
    }

    async fn open(&self) -> Result<(), Unavailable> {
        let session = self.session()?;
        self.within_patience(self.link.open(&session)).await
    }
}
