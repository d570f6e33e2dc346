//! The calls behind each unit of a cap that is in use.
//!
//! A unit is a hold of the ledger, or an answered call in the records. A call
//! passes from the one to the other when its record is written. One whose leg
//! is still up then is in both: it has a unit of concurrency yet.

use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use uuid::Uuid;

use crate::api::access::Operator;
use crate::api::caps::{CapUse, InUse};
use crate::api::input::query::{InPath, PageNumber, PerPage};
use crate::api::input::{Asked, Word};
use crate::api::page::{Page, Paging, Slice};
use crate::api::problem::{FieldErrors, Problem, Read, Refusal, not_found};
use crate::api::stamp::Stamp;
use crate::api::{Backend, Tag};
use crate::capacity::{Caps, Holder, Scope, ScopeKind, Window, WindowKind};
use crate::clock;
use crate::store::caps;
use crate::store::records::{UsedUnit, units_of};
use crate::store::truth::recorded_of;

pub struct CapsApi;

/// What is in use of the caps of a link, a client, a campaign or a seller, call by call.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct CapLedger {
    scope: Word<ScopeKind>,
    id: i64,
    /// Every cap that is set, with what is used of it now.
    caps: Vec<CapUse>,
    /// Calls that the ledger knows of: those that are up, and answered ones whose records
    /// aren't written yet. Oldest first.
    holds: Vec<Hold>,
    /// Answered calls in the records, for each volume cap that is set.
    windows: Vec<AnsweredInWindow>,
}

/// A unit of capacity that one attempt of one call has taken.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Hold {
    call_id: Uuid,
    /// 1 for the first client that the call was offered to.
    attempt: u32,
    state: HoldState,
    /// Whether the client's leg is up: then it takes a unit of concurrency.
    live: bool,
    /// The quarter of an hour in which it was taken: the windows that it counts in.
    held_at: Stamp,
    /// The instance that leads the call; empty where there is only one.
    node: String,
    #[oai(nullable)]
    campaign_client_setting_id: Option<i64>,
    #[oai(nullable)]
    client_id: Option<i64>,
    #[oai(nullable)]
    campaign_id: Option<i64>,
    /// The seller.
    #[oai(nullable)]
    user_id: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum HoldState {
    /// It isn't known yet whether the client answers.
    Held,
    /// The client answered.
    Used,
}

/// The answered calls in the window of one cap.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct AnsweredInWindow {
    /// `total`, `hour`, `day`, `week` or `month`
    window: String,
    /// When the window began; `null` for all time.
    #[oai(nullable)]
    starts_at: Option<Stamp>,
    /// When the next window starts.
    #[oai(nullable)]
    resets_at: Option<Stamp>,
    /// Newest first. All windows are at the page that was asked for.
    calls: Page<AnsweredCall>,
}

/// An answered call, as far as it counts.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
struct AnsweredCall {
    /// The id of its call log.
    log_id: i64,
    call_id: Uuid,
    /// When its capacity was taken: the windows that it counts in.
    held_at: Stamp,
    #[oai(nullable)]
    campaign_client_setting_id: Option<i64>,
    #[oai(nullable)]
    client_id: Option<i64>,
    #[oai(nullable)]
    campaign_id: Option<i64>,
    /// The seller.
    #[oai(nullable)]
    user_id: Option<i64>,
}

#[OpenApi(prefix_path = "/api/admin/caps", tag = "Tag::Caps")]
impl CapsApi {
    /// List the calls behind a cap
    ///
    /// Every unit in use of a link, a client, a campaign or a seller has a call's
    /// name on it. `page` and `per_page` are about the answered calls.
    #[oai(path = "/:scope/:id/ledger", method = "get", operation_id = "getCapLedger")]
    async fn ledger(
        &self,
        caller: Operator,
        scope: Path<InPath<Word<ScopeKind>>>,
        id: Path<i64>,
        page: Query<Asked<PageNumber>>,
        per_page: Query<Asked<PerPage>>,
    ) -> Result<Json<CapLedger>, Refusal<Read>> {
        let mut errors = FieldErrors::default();
        let kind = scope.0.or_complain("scope", &mut errors);
        let paging = Paging::asked(page.0, per_page.0, &mut errors);
        errors.into_result()?;
        let scope = Scope { kind: kind.map_or(ScopeKind::Link, |kind| kind.0), id: id.0 };
        let backend = &caller.backend;
        let found = caps::find(&backend.db, scope).await?;
        let found = found.ok_or_else(|| not_found(scope.kind.as_str(), scope.id))?;
        let in_use = InUse::ask(&*backend.ledger, [&*found]).await?;
        Ok(Json(CapLedger {
            scope: Word(scope.kind),
            id: scope.id,
            caps: in_use.of([scope]),
            holds: holds(backend, scope).await?,
            windows: windows(backend, scope, found.caps(), paging).await?,
        }))
    }
}

async fn holds(backend: &Backend, scope: Scope) -> Result<Vec<Hold>, Problem> {
    let mut holders = backend.ledger.holders().await?;
    holders.retain(|holder| holder.scopes.contains(&scope));
    let over: Vec<_> =
        holders.iter().filter(|holder| !holder.live).map(|holder| holder.hold.call).collect();
    let recorded = recorded_of(&backend.db, &over).await?;
    holders.retain(|holder| holder.live || !recorded.contains_key(&holder.hold.call));
    holders.sort_by_key(|holder| (holder.held_at, holder.hold));
    Ok(holders.into_iter().map(Hold::from).collect())
}

async fn windows(
    backend: &Backend,
    scope: Scope,
    caps: Caps,
    paging: Paging,
) -> Result<Vec<AnsweredInWindow>, Problem> {
    let now = clock::now();
    let mut windows = Vec::new();
    for kind in WindowKind::ALL.into_iter().filter(|kind| caps.volume[kind.index()].is_some()) {
        let window = Window::at(kind, now, caps.zone);
        let units = units_of(scope, window);
        let slice: Slice<UsedUnit> = paging.select_part(units, &backend.db).await?;
        windows.push(AnsweredInWindow {
            window: kind.as_str().to_owned(),
            starts_at: window.end.map(|_| Stamp(window.start)),
            resets_at: window.end.map(Stamp),
            calls: paging.page(slice, AnsweredCall::from),
        });
    }
    Ok(windows)
}

impl From<Holder> for Hold {
    fn from(holder: Holder) -> Self {
        let id_of = |kind| {
            let scope = holder.scopes.iter().find(|scope| scope.kind == kind);
            scope.map(|scope| scope.id)
        };
        Self {
            call_id: holder.hold.call.0,
            attempt: holder.hold.attempt,
            state: if holder.settled { HoldState::Used } else { HoldState::Held },
            live: holder.live,
            held_at: holder.held_at.into(),
            campaign_client_setting_id: id_of(ScopeKind::Link),
            client_id: id_of(ScopeKind::Client),
            campaign_id: id_of(ScopeKind::Campaign),
            user_id: id_of(ScopeKind::Seller),
            node: holder.node,
        }
    }
}

impl From<UsedUnit> for AnsweredCall {
    fn from(unit: UsedUnit) -> Self {
        Self {
            log_id: unit.id,
            call_id: unit.call_id,
            held_at: unit.held_at.into(),
            campaign_client_setting_id: unit.campaign_client_setting_id,
            client_id: unit.client_id,
            campaign_id: unit.campaign_id,
            user_id: unit.user_id,
        }
    }
}
