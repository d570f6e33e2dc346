//! Links of a seller's campaigns to clients, with their caps and what is used of them.

use capconduit_entity::{Status, link};
use chrono_tz::Tz;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use sea_orm::{ActiveModelTrait, IntoActiveModel, Set};
use serde_json::{Value, json};

use super::campaigns::mine;
use crate::api::access::Seller;
use crate::api::audit::{Audited, Change as Changed};
use crate::api::auth::Gone;
use crate::api::input::{Body, Clearable, Given, Request, Word, ZoneName, patch, patch_clearable};
use crate::api::problem::{
    Change, Create, Problem, Refusal, Remove, broken, conflict as conflicting, not_found,
};
use crate::api::stamp::Stamp;
use crate::api::{Backend, SellerTag, conflict};
use crate::capacity::{Scope, Window, WindowKind, Windows};
use crate::clock;
use crate::clock::Timestamp;
use crate::ids::LinkId;
use crate::store::{clients, links};

pub struct LinksApi;

#[derive(Object)]
#[oai(deny_unknown_fields, rename_all = "camelCase")]
struct NewLink {
    client_id: i64,
    /// Live calls at once.
    #[oai(validator(minimum(value = "1")))]
    max_concurrency: i32,
    /// Lower is tried first, under the strategy `priority`.
    #[oai(validator(minimum(value = "0")))]
    forwarding_priority: i32,
    /// The share among equals.
    #[oai(validator(minimum(value = "1")))]
    weight: i32,
    /// Answered calls ever; `null` = no cap, 0 = no calls. So for the windows below.
    #[oai(validator(minimum(value = "0")), nullable)]
    total_calls_allowed: Option<i32>,
    /// `active` if left away.
    status: Option<Word<Status>>,
    #[oai(validator(minimum(value = "0")), nullable)]
    hourly_cap: Option<i32>,
    #[oai(validator(minimum(value = "0")), nullable)]
    daily_cap: Option<i32>,
    #[oai(validator(minimum(value = "0")), nullable)]
    weekly_cap: Option<i32>,
    #[oai(validator(minimum(value = "0")), nullable)]
    monthly_cap: Option<i32>,
    /// In which the windows start; `UTC` if left away.
    #[oai(validator(max_length = 64))]
    time_zone: Option<ZoneName>,
}

impl Request for NewLink {
    fn example() -> Value {
        json!({
            "clientId": 1,
            "maxConcurrency": 5,
            "forwardingPriority": 1,
            "weight": 10,
            "totalCallsAllowed": 1000,
            "dailyCap": 50,
            "timeZone": "Europe/London",
        })
    }
}

/// What is to change; the client can't.
#[derive(Object)]
#[oai(deny_unknown_fields, rename_all = "camelCase")]
struct LinkChange {
    #[oai(validator(minimum(value = "1")))]
    max_concurrency: Given<i32>,
    #[oai(validator(minimum(value = "0")))]
    forwarding_priority: Given<i32>,
    #[oai(validator(minimum(value = "1")))]
    weight: Given<i32>,
    #[oai(validator(minimum(value = "0")), nullable)]
    total_calls_allowed: Clearable<i32>,
    status: Given<Word<Status>>,
    #[oai(validator(minimum(value = "0")), nullable)]
    hourly_cap: Clearable<i32>,
    #[oai(validator(minimum(value = "0")), nullable)]
    daily_cap: Clearable<i32>,
    #[oai(validator(minimum(value = "0")), nullable)]
    weekly_cap: Clearable<i32>,
    #[oai(validator(minimum(value = "0")), nullable)]
    monthly_cap: Clearable<i32>,
    #[oai(validator(max_length = 64))]
    time_zone: Given<ZoneName>,
}

impl Request for LinkChange {
    const MAY_BE_EMPTY: bool = false;

    fn example() -> Value {
        json!({"dailyCap": 80, "hourlyCap": null})
    }
}

/// A campaign's contract with a client.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct Link {
    id: i64,
    campaign_id: i64,
    client_id: i64,
    client: LinkedClient,
    status: Word<Status>,
    max_concurrency: i32,
    forwarding_priority: i32,
    weight: i32,
    #[oai(nullable)]
    total_calls_allowed: Option<i32>,
    #[oai(nullable)]
    hourly_cap: Option<i32>,
    #[oai(nullable)]
    daily_cap: Option<i32>,
    #[oai(nullable)]
    weekly_cap: Option<i32>,
    #[oai(nullable)]
    monthly_cap: Option<i32>,
    time_zone: String,
    /// Answered calls ever.
    current_total_calls: u32,
    live_calls: u32,
    /// Every cap that is set, with what is used of it now.
    caps: Vec<CapUse>,
    created_at: Stamp,
    updated_at: Stamp,
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct LinkedClient {
    id: i64,
    client_identifier: String,
    name: String,
}

/// What is used of one cap; `used + held` never exceeds `limit`.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct CapUse {
    /// `concurrency`, `total`, `hour`, `day`, `week` or `month`
    window: String,
    limit: u32,
    /// Answered calls in the window, or live calls.
    used: u32,
    /// Calls of which it isn't known yet whether they will be answered.
    held: u32,
    /// When the next window starts.
    #[oai(nullable)]
    resets_at: Option<Stamp>,
}

#[derive(ApiResponse)]
enum LinkCreated {
    /// The new link.
    #[oai(status = 201)]
    Created(Json<Link>),
}

#[OpenApi(prefix_path = "/api/seller/campaigns", tag = "SellerTag::Campaigns")]
impl LinksApi {
    /// Link a client to one of my campaigns
    ///
    /// Calls of the campaign can go to the client, within the caps given here.
    #[oai(path = "/:id/clients", method = "post", operation_id = "createLink")]
    async fn create(
        &self,
        caller: Seller,
        id: Path<i64>,
        Body(new): Body<NewLink>,
    ) -> Result<LinkCreated, Refusal<Create>> {
        let write = caller.begin_write().await?;
        let campaign = mine(&write.txn, &caller, id.0).await?;
        if !clients::is_offered(&write.txn, new.client_id).await? {
            return Err(not_found("client", new.client_id).into());
        }
        let gone = conflicting("clientId", "this client was deleted just now");
        let row =
            new.into_row(campaign.id).insert(&write.txn).await.map_err(conflict::about(gone))?;
        write.commit(Changed::created(&row)).await?;
        caller.backend.refresh_routing().await?;
        Ok(LinkCreated::Created(Json(describe(&caller.backend, row).await?)))
    }

    /// Change a link
    ///
    /// A cap that is lowered below what is used stops new calls and drops none.
    #[oai(path = "/:id/clients/:settingId", method = "put", operation_id = "updateLink")]
    async fn update(
        &self,
        caller: Seller,
        id: Path<i64>,
        #[oai(name = "settingId")] setting_id: Path<i64>,
        Body(change): Body<LinkChange>,
    ) -> Result<Json<Link>, Refusal<Change>> {
        let write = caller.begin_write().await?;
        let campaign = mine(&write.txn, &caller, id.0).await?;
        let row = links::find_locked(&write.txn, campaign.id, setting_id.0).await?;
        let row = row.ok_or_else(|| not_found("link", setting_id.0))?;
        let before = row.clone();
        let row = change.apply(row).update(&write.txn).await?;
        write.commit(Changed::updated(&before, &row)).await?;
        caller.backend.refresh_routing().await?;
        Ok(Json(describe(&caller.backend, row).await?))
    }

    /// Remove a link
    ///
    /// Live calls go on, and records of its calls stay.
    #[oai(path = "/:id/clients/:settingId", method = "delete", operation_id = "deleteLink")]
    async fn delete(
        &self,
        caller: Seller,
        id: Path<i64>,
        #[oai(name = "settingId")] setting_id: Path<i64>,
    ) -> Result<Gone, Refusal<Remove>> {
        let write = caller.begin_write().await?;
        let campaign = mine(&write.txn, &caller, id.0).await?;
        let row = links::find_locked(&write.txn, campaign.id, setting_id.0).await?;
        let row = row.ok_or_else(|| not_found("link", setting_id.0))?;
        links::delete(&write.txn, row.id).await?;
        write.commit(Changed::deleted(&row)).await?;
        caller.backend.refresh_routing().await?;
        Ok(Gone::Gone)
    }
}

/// Links as they are sent, with what is used of their caps now.
pub(super) async fn describe_links(
    backend: &Backend,
    rows: Vec<link::Model>,
) -> Result<Vec<Link>, Problem> {
    let ids = rows.iter().map(|row| row.client_id).collect();
    let clients = clients::find_many(&backend.db, ids).await?;
    let mut described = Vec::with_capacity(rows.len());
    for row in rows {
        // A link that is deleted between the two reads has no client any more.
        if let Some(client) = clients.get(&row.client_id) {
            let client = LinkedClient {
                id: client.id,
                client_identifier: client.client_identifier.clone(),
                name: client.name.clone(),
            };
            described.push(with_usage(backend, row, client).await?);
        }
    }
    Ok(described)
}

async fn describe(backend: &Backend, row: link::Model) -> Result<Link, Problem> {
    describe_links(backend, vec![row]).await?.pop().ok_or_else(broken)
}

async fn with_usage(
    backend: &Backend,
    row: link::Model,
    client: LinkedClient,
) -> Result<Link, Problem> {
    let now = clock::now();
    let zone: Tz = row.time_zone.parse().unwrap_or(Tz::UTC);
    let windows = Windows::at(now, zone);
    let usage = backend.ledger.usages(&[(Scope::link(LinkId(row.id)), windows)]).await?;
    let usage = usage.into_iter().next().unwrap_or_default();
    let concurrency = CapUse {
        window: "concurrency".to_owned(),
        limit: row.max_concurrency.unsigned_abs(),
        used: usage.live,
        held: 0,
        resets_at: None,
    };
    let volumes = WindowKind::ALL.into_iter().zip(volume_caps(&row)).filter_map(|(kind, limit)| {
        Some(CapUse {
            window: kind.as_str().to_owned(),
            limit: limit?.unsigned_abs(),
            used: usage.used[kind.index()],
            held: usage.held[kind.index()],
            resets_at: end_of(kind, now, zone),
        })
    });
    let caps = std::iter::once(concurrency).chain(volumes).collect();
    let total = usage.used[WindowKind::Total.index()];
    Ok(Link::new(row, client, caps, total, usage.live))
}

fn volume_caps(row: &link::Model) -> [Option<i32>; WindowKind::COUNT] {
    [row.total_calls_allowed, row.hourly_cap, row.daily_cap, row.weekly_cap, row.monthly_cap]
}

fn end_of(kind: WindowKind, now: Timestamp, zone: Tz) -> Option<Stamp> {
    Window::at(kind, now, zone).end.map(Stamp)
}

impl NewLink {
    fn into_row(self, campaign: i64) -> link::ActiveModel {
        let now = clock::now();
        link::ActiveModel {
            campaign_id: Set(campaign),
            client_id: Set(self.client_id),
            status: Set(self.status.map_or(Status::Active, |status| status.0)),
            max_concurrency: Set(self.max_concurrency),
            forwarding_priority: Set(self.forwarding_priority),
            weight: Set(self.weight),
            total_calls_allowed: Set(self.total_calls_allowed),
            hourly_cap: Set(self.hourly_cap),
            daily_cap: Set(self.daily_cap),
            weekly_cap: Set(self.weekly_cap),
            monthly_cap: Set(self.monthly_cap),
            time_zone: Set(self.time_zone.map_or_else(|| "UTC".to_owned(), Into::into)),
            created_at: Set(now),
            updated_at: Set(now),
            ..Default::default()
        }
    }
}

impl LinkChange {
    fn apply(self, row: link::Model) -> link::ActiveModel {
        let mut row = row.into_active_model();
        patch(self.max_concurrency, &mut row.max_concurrency);
        patch(self.forwarding_priority, &mut row.forwarding_priority);
        patch(self.weight, &mut row.weight);
        patch_clearable(self.total_calls_allowed, &mut row.total_calls_allowed);
        patch(self.status, &mut row.status);
        patch_clearable(self.hourly_cap, &mut row.hourly_cap);
        patch_clearable(self.daily_cap, &mut row.daily_cap);
        patch_clearable(self.weekly_cap, &mut row.weekly_cap);
        patch_clearable(self.monthly_cap, &mut row.monthly_cap);
        patch(self.time_zone, &mut row.time_zone);
        row.updated_at = Set(clock::now());
        row
    }
}

impl Audited for link::Model {
    const RESOURCE: &'static str = "link";

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn facts(&self) -> Option<Value> {
        Some(json!({
            "id": self.id,
            "campaignId": self.campaign_id,
            "clientId": self.client_id,
            "status": self.status,
            "maxConcurrency": self.max_concurrency,
            "forwardingPriority": self.forwarding_priority,
            "weight": self.weight,
            "totalCallsAllowed": self.total_calls_allowed,
            "hourlyCap": self.hourly_cap,
            "dailyCap": self.daily_cap,
            "weeklyCap": self.weekly_cap,
            "monthlyCap": self.monthly_cap,
            "timeZone": self.time_zone,
        }))
    }
}

impl Link {
    fn new(
        row: link::Model,
        client: LinkedClient,
        caps: Vec<CapUse>,
        current_total_calls: u32,
        live_calls: u32,
    ) -> Self {
        Self {
            id: row.id,
            campaign_id: row.campaign_id,
            client_id: row.client_id,
            client,
            status: Word(row.status),
            max_concurrency: row.max_concurrency,
            forwarding_priority: row.forwarding_priority,
            weight: row.weight,
            total_calls_allowed: row.total_calls_allowed,
            hourly_cap: row.hourly_cap,
            daily_cap: row.daily_cap,
            weekly_cap: row.weekly_cap,
            monthly_cap: row.monthly_cap,
            time_zone: row.time_zone,
            current_total_calls,
            live_calls,
            caps,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
        }
    }
}
