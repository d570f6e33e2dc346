//! The ledger of who holds what capacity.
//!
//! For every cap, at every instant, `used + held <= limit`. The ledger keeps
//! that promise by being the only place that says yes: a call asks with an
//! *ordered list of candidates*, each with the scopes that it would count in
//! and their limits, and the first that fits everywhere is held, in one atomic
//! step. Policy (who comes first) stays outside; the ledger only counts.
//!
//! It is a ledger of holders, not a counter. A *hold* belongs to one attempt of
//! one call, and goes through a few [`Stage`]s, only ever forward:
//!
//! * held: one unit of concurrency is taken, and one unit of volume in each
//!   window is held.
//! * used: the client answered; the volume is used.
//! * counted: the client's leg is gone and concurrency is free; the records
//!   don't tell of the call yet, so the ledger does.
//! * returned, or recorded: nothing is left, of an attempt that wasn't
//!   answered or of one that the records tell of.
//!
//! To say a stage twice, late or out of order is harmless, so an answer that
//! was lost is no harm either: say it again.
//!
//! Two stores stand side by side behind [`Ledger`]: [`memory`], for one
//! instance, and [`redis`], for several.

mod account;
pub mod caps;
pub mod keeper;
pub mod measured;
pub mod memory;
pub mod recount;
pub mod redis;
pub mod share;
pub mod window;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock::Timestamp;
use crate::ids::{CallId, CampaignId, ClientId, LinkId, SellerId};

pub use caps::Caps;
pub use keeper::Keeper;
pub use memory::MemoryLedger;
pub use redis::{RedisLedger, RedisSettings};
pub use share::Share;
pub use window::{Slot, Window, WindowKind, Windows};

/// Something that has caps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Scope {
    pub kind: ScopeKind,
    pub id: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeKind {
    Link,
    Client,
    Campaign,
    Seller,
}

/// A limit's kind: live calls at once, or calls counted in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cap {
    Concurrency,
    Volume(WindowKind),
}

/// One attempt of one call: what a hold belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HoldId {
    pub call: CallId,
    /// 1 for the first client that the call asks room for.
    pub attempt: u32,
}

/// What a hold would count in, and under which limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub scope: Scope,
    /// Live calls at once; none = no cap.
    pub concurrency: Option<u32>,
    /// Calls per window; none = no cap, 0 = no calls. Indexed by [`WindowKind`].
    pub volume: [Option<u32>; WindowKind::COUNT],
    /// The windows that the moment of the hold lies in.
    pub windows: Windows,
}

/// A link that might get the call, with all scopes that it counts in: all are taken or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub link: LinkId,
    pub claims: Vec<Claim>,
}

/// Whose turn a grant uses up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The order is as given and nothing is remembered.
    None,
    /// Candidates come by link id; begin after the link that this campaign offered a call last.
    Rotate(CampaignId),
    /// The order is as given (a later attempt of a rotated call); the grant moves the cursor.
    Advance(CampaignId),
}

/// "May one of these have this call?"
#[derive(Clone, Debug)]
pub struct Request {
    pub hold: HoldId,
    /// In the order in which they are to be tried.
    pub candidates: Vec<Candidate>,
    pub turn: Turn,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How far the candidates were rotated before the first was tried.
    pub rotated_by: usize,
    /// The link that was offered a call last, where the turn was rotated.
    pub cursor: Option<LinkId>,
    /// Candidates passed over, in the order in which they were tried.
    pub refusals: Vec<Refusal>,
    /// The link that now has a hold; none = no candidate had room.
    pub granted: Option<LinkId>,
    /// It was decided by this instance alone, within its [`Share`] of each limit.
    pub within_share: bool,
}

/// Why a candidate was passed over: the cap and the numbers that were compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    pub link: LinkId,
    pub scope: Scope,
    pub cap: Cap,
    pub used: u32,
    pub held: u32,
    pub limit: u32,
}

/// What is in use of one scope now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Live calls.
    pub live: u32,
    /// Answered calls per window.
    pub used: [u32; WindowKind::COUNT],
    /// Calls per window of which it isn't known yet whether they will be answered.
    pub held: [u32; WindowKind::COUNT],
}

/// How far a hold has come. It never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The client is being dialled.
    Held,
    /// The client answered.
    Used,
    /// The client's leg is gone; the records don't tell of the call yet.
    Counted,
    /// The client's leg is gone, and it never answered.
    Returned,
    /// The client's leg is gone, and the records tell of it.
    Recorded,
}

/// What a hold is, whatever the ledger thinks: its call knows best.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub hold: HoldId,
    pub stage: Stage,
    /// When it was taken: the windows that it counts in.
    pub moment: Timestamp,
    pub scopes: Vec<Scope>,
}

/// A hold as the ledger has it: of a call that is up, or that isn't in the records yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub hold: HoldId,
    /// The quarter of an hour in which it was taken.
    pub held_at: Timestamp,
    pub scopes: Vec<Scope>,
    /// The client answered.
    pub settled: bool,
    /// The client's leg is up.
    pub live: bool,
    /// The instance that leads the call.
    pub node: String,
}

/// What is used of a scope: what the ledger believes, or what the records say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Book {
    pub scope: Scope,
    /// Of all time.
    pub total: u32,
    /// By the quarter of an hour in which the calls were held.
    pub slots: Vec<(Slot, u32)>,
}

impl Book {
    /// What answered calls use, each named by a scope and the moment when it was held.
    pub fn of(calls: impl IntoIterator<Item = (Scope, Timestamp)>) -> Vec<Self> {
        let mut slots: BTreeMap<Scope, BTreeMap<Slot, u32>> = BTreeMap::new();
        for (scope, held_at) in calls {
            *slots.entry(scope).or_default().entry(Slot::of(held_at)).or_default() += 1;
        }
        let book = |(scope, slots): (Scope, BTreeMap<Slot, u32>)| Self {
            scope,
            total: slots.values().sum(),
            slots: slots.into_iter().collect(),
        };
        slots.into_iter().map(book).collect()
    }
}

/// What is to be added to a [`Book`], or taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    pub scope: Scope,
    pub total: i64,
    pub slots: Vec<(Slot, i64)>,
}

/// How far back records are counted by quarters of an hour: longer than any window
/// but that of all time.
pub const COUNTED_BACK: chrono::TimeDelta = chrono::TimeDelta::days(40);

/// How long the ledger believes in a hold of which nobody speaks.
#[derive(Clone, Copy, Debug)]
pub struct Leases {
    /// One that is being dialled: longer than any client is rung.
    pub held: Duration,
    /// One that was answered. Its caller and client may well talk on while the
    /// service that led them is away.
    pub used: Duration,
    /// How long one is remembered of which nothing is left.
    pub closed: Duration,
}

impl Default for Leases {
    fn default() -> Self {
        Self {
            held: Duration::from_secs(15 * 60),
            used: Duration::from_secs(4 * 60 * 60),
            closed: Duration::from_secs(10 * 60),
        }
    }
}

impl Leases {
    /// How long a hold that was answered is remembered when its lease is over.
    const LAPSED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

    const fn of(&self, kept: account::Kept) -> Duration {
        match kept {
            account::Kept::Held => self.held,
            account::Kept::Used | account::Kept::Counted => self.used,
            account::Kept::Lapsed => Self::LAPSED,
            account::Kept::Closed => self.closed,
        }
    }
}

/// What leases are measured by.
#[derive(Clone, Debug, Default)]
pub enum LeaseClock {
    /// The store's own.
    #[default]
    Own,
    /// Milliseconds that someone else sets.
    Manual(Arc<AtomicI64>),
}

/// Whether calls can be held.
///
/// A store that may have lost what it knew begins a new *epoch*: it starts
/// empty, is filled with what instances and records know, and only then opens.
/// What was meant for an earlier epoch doesn't reach it any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The store can't be reached.
    Away,
    /// Instances may say what they hold; nothing new is held.
    Filling(Arc<str>),
    Open(Arc<str>),
}

/// The store can't be asked.
#[derive(Debug, thiserror::Error)]
#[error("the capacity ledger can't be reached: {reason}")]
pub struct Unavailable {
    pub reason: String,
}

/// The capacity ledger's contract, the same for every store.
#[async_trait::async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Holds the first candidate whose caps all have room.
    ///
    /// Asked again with the same hold, it gives the same link again and takes nothing more.
    async fn reserve(&self, request: &Request) -> Result<Verdict, Unavailable>;

    /// What [`Ledger::reserve`] would answer now. Nothing is taken, no turn is used up.
    async fn preview(&self, request: &Request) -> Result<Verdict, Unavailable>;

    /// Takes note of how far holds have come. What isn't known is taken, even over
    /// a limit: no caller is hung up because of a counter, only new calls wait.
    /// What is repeated extends the hold's lease.
    async fn advance(&self, standing: &[Standing]) -> Result<(), Unavailable>;

    /// What is in use of each scope now, in the windows given.
    async fn usages(&self, asked: &[(Scope, Windows)]) -> Result<Vec<Usage>, Unavailable>;

    /// Sets where a campaign's rotation stands.
    async fn set_cursor(&self, campaign: CampaignId, link: LinkId) -> Result<(), Unavailable>;

    /// Every hold of which something is left.
    async fn holders(&self) -> Result<Vec<Holder>, Unavailable>;

    /// What is used of every scope.
    async fn books(&self) -> Result<Vec<Book>, Unavailable>;

    /// Mends what is used, by differences: calls that are counted meanwhile aren't lost.
    async fn correct(&self, corrections: &[Correction]) -> Result<(), Unavailable>;

    /// Whether calls can be held, and changes of that.
    fn status(&self) -> watch::Receiver<Status>;

    /// Whether it is this instance that is to fill the ledger, for the next few seconds.
    async fn may_fill(&self) -> Result<bool, Unavailable>;

    /// The ledger knows all that is used: calls can be held.
    async fn open(&self) -> Result<(), Unavailable>;
}

impl Scope {
    pub const fn link(id: LinkId) -> Self {
        Self { kind: ScopeKind::Link, id: id.0 }
    }

    pub const fn client(id: ClientId) -> Self {
        Self { kind: ScopeKind::Client, id: id.0 }
    }

    pub const fn campaign(id: CampaignId) -> Self {
        Self { kind: ScopeKind::Campaign, id: id.0 }
    }

    pub const fn seller(id: SellerId) -> Self {
        Self { kind: ScopeKind::Seller, id: id.0 }
    }
}

impl Standing {
    /// A hold of a candidate that the ledger granted.
    pub fn held(hold: HoldId, candidate: &Candidate) -> Option<Self> {
        let moment = candidate.claims.first()?.windows.moment();
        let scopes = candidate.claims.iter().map(|claim| claim.scope).collect();
        Some(Self { hold, stage: Stage::Held, moment, scopes })
    }

    pub fn with(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }
}

impl Verdict {
    /// The answer for a hold that exists already, of which no more is known than its scopes.
    fn of(scopes: &[Scope]) -> Self {
        let link = scopes.iter().find(|scope| scope.kind == ScopeKind::Link);
        let granted = link.map(|scope| LinkId(scope.id));
        let refusals = Vec::new();
        Self { rotated_by: 0, cursor: None, refusals, granted, within_share: false }
    }
}

impl Refusal {
    /// The stable string for a link that wasn't dialled.
    pub const fn reason(&self) -> &'static str {
        match (self.scope.kind, self.cap) {
            (ScopeKind::Link, Cap::Concurrency) => "concurrency_cap",
            (ScopeKind::Client, Cap::Concurrency) => "client_concurrency_cap",
            (ScopeKind::Campaign, Cap::Concurrency) => "campaign_concurrency_cap",
            (ScopeKind::Seller, Cap::Concurrency) => "seller_concurrency_cap",
            (_, Cap::Volume(WindowKind::Total)) => "total_cap",
            (_, Cap::Volume(WindowKind::Hour)) => "hourly_cap",
            (_, Cap::Volume(WindowKind::Day)) => "daily_cap",
            (_, Cap::Volume(WindowKind::Week)) => "weekly_cap",
            (_, Cap::Volume(WindowKind::Month)) => "monthly_cap",
        }
    }
}
