//! The HTTP API, for sellers and for those who operate the platform.
//!
//! Types are the documentation: `openapi/admin.yaml` and `openapi/seller.yaml`
//! are generated from the handlers in [`admin`], [`seller`] and [`auth`]. A
//! handler reads top to bottom: who is asking ([`access`]), what is asked
//! ([`input`]), one transaction, the answer. Every refusal is a [`problem`].
//!
//! An edit is in force for the next call when its request is answered: a write
//! that routing depends on reloads the routing snapshot before it answers.

pub mod access;
pub mod admin;
mod allow;
pub mod audit;
pub mod auth;
mod callers;
pub mod caps;
mod conflict;
pub mod console;
mod documents;
pub mod input;
mod internal;
pub mod live;
pub mod logs;
mod metrics;
mod page;
pub mod password;
mod probes;
pub mod problem;
pub mod replay;
pub mod seller;
mod server;
mod simulate;
mod stamp;
mod trace;
mod traffic;
pub mod tries;
mod usage;
mod wording;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use capconduit_entity::Role;
use chrono::Duration;
use poem::Request;
use poem_openapi::Tags;
use sea_orm::{ActiveModelTrait, DatabaseConnection, DbErr};
use tokio::sync::{Mutex, Semaphore};

pub use documents::{admin_document, seller_document};
pub use internal::InternalToken;
pub use live::{StreamSettings, Streams};
pub use metrics::{Figures, metrics_routes};
pub use server::{routes, serve};
pub use tries::{Tries, TryLimits};

use self::problem::Problem;
use crate::capacity::recount::{Recount, RecountSettings};
use crate::capacity::{Keeper, Ledger};
use crate::clock::Timestamp;
use crate::ids::CallId;
use crate::live::Live;
use crate::routing::snapshot::Current;
use crate::store::{self, truth::Records};

/// What the API works on.
pub struct Backend {
    pub db: DatabaseConnection,
    pub routing: Arc<Current>,
    pub ledger: Arc<dyn Ledger>,
    /// Speaks for the holds of this instance.
    pub keeper: Arc<Keeper>,
    /// Compares the ledger with the records.
    pub recount: Recount,
    pub live: Arc<Live>,
    pub switch: Arc<dyn Switch>,
    pub session: SessionSettings,
    /// Failed sign-ins of late.
    pub tries: Tries,
    pub internal_token: InternalToken,
    /// Those who follow live calls.
    pub streams: Streams,
    /// The right to replay past calls.
    pub replays: Semaphore,
    refresh: Refresh,
}

/// What the API asks of the switch.
#[async_trait::async_trait]
pub trait Switch: Send + Sync + 'static {
    /// Whether calls can be controlled now.
    fn is_ready(&self) -> bool;

    /// How often a client's address is to be probed was said or changed.
    ///
    /// The next call can go to a new client without this.
    fn probing_changed(&self);

    /// A client was changed: when this is over, the next call sees it, unless the
    /// switch is away.
    async fn client_changed(&self);

    /// Ends a live call, of whose record this is told.
    ///
    /// # Errors
    /// When it isn't ended.
    fn hang_up(&self, call: CallId, told: String) -> Result<(), NotHungUp>;
}

/// Why a call isn't hung up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotHungUp {
    /// No call of this id is up here.
    Absent,
    /// Too many others are to be hung up before it.
    Busy,
}

/// How browsers stay signed in.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// How long a session lasts from sign-in.
    pub lifetime: Duration,
    /// Whether browsers send the cookie over TLS only.
    pub secure_cookie: bool,
    /// How many failed sign-ins are borne.
    pub tries: TryLimits,
}

/// Loads of the routing snapshot, one at a time, so that no older one replaces a newer one.
#[derive(Default)]
struct Refresh {
    /// Counts the writes that asked for a load.
    asked: AtomicU64,
    /// How many of them the snapshot in force has seen.
    seen: Mutex<u64>,
}

/// Sections of both documents.
#[derive(Tags)]
enum Tag {
    /// Is the service there, and can it take calls?
    Probes,
    /// Signing in and out, one's own password, API tokens.
    Auth,
    /// One record per inbound call.
    Logs,
    /// Calls that are up now.
    Live,
    /// Who would get a call.
    Routing,
    /// What is in use of caps, call by call.
    Caps,
}

/// Sections of the admins' document.
#[derive(Tags)]
enum AdminTag {
    /// Accounts: admins, staff and sellers.
    Users,
    /// Call centres that buy calls, with their PJSIP endpoints.
    Clients,
    /// Who changed what.
    Audit,
    /// For a dialplan that routes without the Stasis application.
    Internal,
}

/// Sections of the sellers' document.
#[derive(Tags)]
enum SellerTag {
    /// Inbound numbers.
    Dids,
    /// Routing units: strategy, DIDs, links to clients with their caps.
    Campaigns,
}

impl Backend {
    pub fn new(
        db: DatabaseConnection,
        routing: Arc<Current>,
        keeper: Arc<Keeper>,
        live: Arc<Live>,
        switch: Arc<dyn Switch>,
        session: SessionSettings,
    ) -> Self {
        let tries = Tries::new(session.tries);
        let truth = Arc::new(Records(db.clone()));
        Self {
            recount: Recount::new(keeper.clone(), truth, RecountSettings::default()),
            db,
            routing,
            ledger: keeper.ledger().clone(),
            keeper,
            live,
            switch,
            session,
            tries,
            internal_token: InternalToken::default(),
            streams: Streams::default(),
            replays: Semaphore::new(1),
            refresh: Refresh::default(),
        }
    }

    /// Lets the dialplan in that sends this token; an empty one lets nobody in.
    #[must_use]
    pub fn with_internal_token(self, token: &str) -> Self {
        Self { internal_token: InternalToken::new(token), ..self }
    }

    #[must_use]
    pub fn with_streams(self, streams: Streams) -> Self {
        Self { streams, ..self }
    }

    /// What a request works on.
    ///
    /// # Errors
    /// A 500, if the server was put together wrongly.
    fn of(request: &Request) -> Result<&Arc<Self>, Problem> {
        request.data().ok_or_else(problem::broken)
    }

    /// Puts in force what another instance, or the command line, has changed.
    ///
    /// # Errors
    /// When the database can't be read; the old snapshot stays in force.
    pub async fn follow_configuration(&self) -> Result<i64, DbErr> {
        let revision = store::configuration::revision(&self.db).await?;
        if revision != self.routing.get().revision() {
            self.refresh_routing().await?;
        }
        Ok(revision)
    }

    /// Puts what the database holds in force, at the latest what was committed before the call.
    ///
    /// Requests that wait for the same load share it.
    ///
    /// # Errors
    /// When the database can't be read; the old snapshot stays in force.
    pub async fn refresh_routing(&self) -> Result<(), DbErr> {
        let mine = self.refresh.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut seen = self.refresh.seen.lock().await;
        if *seen >= mine {
            return Ok(());
        }
        let all = self.refresh.asked.load(Ordering::SeqCst);
        let snapshot = store::routing::load_snapshot(&self.db).await?;
        self.routing.set(snapshot);
        *seen = all;
        Ok(())
    }
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self { lifetime: Duration::hours(12), secure_cookie: true, tries: TryLimits::default() }
    }
}

/// Why the first admin couldn't be created.
#[derive(Debug, thiserror::Error)]
pub enum FirstAdminError {
    #[error("the database couldn't be asked for users")]
    Database(#[from] DbErr),
    #[error("the password couldn't be hashed")]
    Hash,
}

/// Creates the user `admin` if there is no user at all, and returns its password.
///
/// # Errors
/// When the database can't be read or written.
pub async fn create_first_admin(
    db: &DatabaseConnection,
    now: Timestamp,
) -> Result<Option<String>, FirstAdminError> {
    let txn = crate::db::begin_write(db).await?;
    if store::users::exist(&txn).await? {
        return Ok(None);
    }
    let one_time = password::readable();
    let hash = password::hash(one_time.clone()).await.map_err(|_| FirstAdminError::Hash)?;
    let admin = store::users::new_account("admin", "admin@localhost", hash, Role::Admin, now);
    admin.insert(&txn).await?;
    txn.commit().await?;
    Ok(Some(one_time))
}
