//! The ledger of who holds what capacity.
//!
//! For every cap, at every instant, `used + held <= limit`. The ledger keeps
//! that promise by being the only place that says yes: a call asks with an
//! *ordered list of candidates*, each with the scopes that it would count in
//! and their limits, and the first that fits everywhere is held, in one atomic
//! step. Policy (who comes first) stays outside; the ledger only counts.
//!
//! It is a ledger of holders, not a counter: sets of hold ids per scope. To
//! reserve, settle or release twice is harmless, and what is in use can always
//! be listed. A *hold* belongs to one attempt of one call:
//!
//! * reserve: takes one unit of concurrency, and holds one unit of volume in
//!   each window.
//! * settle: the client answered; the held volume becomes used.
//! * release: the client's leg is gone; concurrency is freed, and volume that
//!   was still held is returned.
//!
//! Two stores are planned behind [`Ledger`]: [`memory`], for one instance, and
//! one in Redis, for several.

pub mod caps;
pub mod memory;
pub mod window;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{CallId, CampaignId, ClientId, LinkId, SellerId};

pub use caps::Caps;
pub use memory::MemoryLedger;
pub use window::{Window, WindowKind, Windows};

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

/// A hold that exists whatever the ledger thinks: its call is up.
#[derive(Clone, Debug)]
pub struct Standing {
    pub hold: HoldId,
    pub claims: Vec<Claim>,
    pub settled: bool,
}

/// What the records know of a scope: its answered calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    pub scope: Scope,
    /// Of all time.
    pub total: u32,
    /// When the newer ones were held, oldest first: at least those of [`MOMENTS_KEPT`].
    pub moments: Vec<Timestamp>,
}

/// Longer than any window but that of all time.
pub const MOMENTS_KEPT: chrono::TimeDelta = chrono::TimeDelta::days(40);

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

    /// The client answered: the hold's volume becomes used. Unknown holds are ignored.
    async fn settle(&self, hold: HoldId) -> Result<(), Unavailable>;

    /// The client's leg is gone: frees the hold, returns volume that wasn't settled.
    /// Unknown holds are ignored.
    async fn release(&self, hold: HoldId) -> Result<(), Unavailable>;

    /// Notes that these calls are up, and takes their capacity even over a limit:
    /// no caller is hung up because of a counter, only new calls wait.
    async fn renew(&self, standing: &[Standing]) -> Result<(), Unavailable>;

    /// What is in use of each scope now, in the windows given.
    async fn usages(&self, asked: &[(Scope, Windows)]) -> Result<Vec<Usage>, Unavailable>;

    /// A call that was led elsewhere was answered: one unit of `scope` is used in
    /// every window that `moment` lies in, over the limit too.
    async fn count(&self, scope: Scope, moment: Timestamp) -> Result<(), Unavailable>;

    /// Replaces what the ledger believes to be used by what the records say.
    async fn recount(&self, answered: &[Answered]) -> Result<(), Unavailable>;

    /// Sets where a campaign's rotation stands.
    async fn set_cursor(&self, campaign: CampaignId, link: LinkId) -> Result<(), Unavailable>;

    /// Every hold there is.
    async fn holders(&self) -> Result<Vec<HoldId>, Unavailable>;
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
