//! Links of a seller's campaigns to clients, with their caps and what is used of them.

use capconduit_entity::{Status, campaign, client, link};
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use sea_orm::{ActiveModelTrait, DbErr, IntoActiveModel, Set};
use serde_json::{Value, json};

use super::campaigns::mine;
use crate::api::access::Seller;
use crate::api::audit::{Audited, Change as Changed};
use crate::api::auth::Gone;
use crate::api::caps::{CapUse, InUse, NewVolume, Volume, VolumeChange};
use crate::api::input::{Body, Given, Request, Word, patch};
use crate::api::problem::{
    Change, Create, Problem, Refusal, Remove, broken, conflict as conflicting, not_found,
};
use crate::api::stamp::Stamp;
use crate::api::{SellerTag, conflict};
use crate::capacity::{Scope, Unavailable, Usage, WindowKind};
use crate::clock;
use crate::ids::CampaignId;
use crate::store::caps::Capped;
use crate::store::{clients, links};

pub struct LinksApi;

#[derive(Object)]
#[oai(rename_all = "camelCase")]
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
    /// `active` if left away.
    status: Option<Word<Status>>,
    #[oai(flatten)]
    volume: NewVolume,
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
#[oai(rename_all = "camelCase")]
struct LinkChange {
    #[oai(validator(minimum(value = "1")))]
    max_concurrency: Given<i32>,
    #[oai(validator(minimum(value = "0")))]
    forwarding_priority: Given<i32>,
    #[oai(validator(minimum(value = "1")))]
    weight: Given<i32>,
    status: Given<Word<Status>>,
    #[oai(flatten)]
    volume: VolumeChange,
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
    #[oai(flatten)]
    volume: Volume,
    /// Answered calls ever.
    current_total_calls: u32,
    live_calls: u32,
    /// Every cap that is set of the link, of its campaign and of the seller, with what is
    /// used of it now.
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
        Ok(LinkCreated::Created(Json(describe(&caller, row, &campaign).await?)))
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
        Ok(Json(describe(&caller, row, &campaign).await?))
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

/// What is used of all caps that these links of a campaign count in.
///
/// Not of the client's: what others sold it is not this seller's business.
pub(super) async fn in_use(
    caller: &Seller,
    campaign: &campaign::Model,
    links: &[link::Model],
) -> Result<InUse, Unavailable> {
    let above: [&dyn Capped; 2] = [campaign, &caller.user];
    let links = links.iter().map(|row| row as &dyn Capped);
    InUse::ask(&*caller.backend.ledger, links.chain(above)).await
}

/// Links of a campaign as they are sent.
pub(super) async fn describe_links(
    caller: &Seller,
    rows: Vec<link::Model>,
    in_use: &InUse,
) -> Result<Vec<Link>, DbErr> {
    let ids = rows.iter().map(|row| row.client_id).collect();
    let clients = clients::find_many(&caller.backend.db, ids).await?;
    let describe = |row: link::Model| {
        // A link that is deleted between the two reads has no client any more.
        let client = clients.get(&row.client_id)?;
        let campaign = Scope::campaign(CampaignId(row.campaign_id));
        let caps = in_use.of([row.scope(), campaign, caller.user.scope()]);
        let usage = in_use.usage(row.scope());
        Some(Link::new(row, client.into(), caps, &usage))
    };
    Ok(rows.into_iter().filter_map(describe).collect())
}

async fn describe(
    caller: &Seller,
    row: link::Model,
    campaign: &campaign::Model,
) -> Result<Link, Problem> {
    let in_use = in_use(caller, campaign, std::slice::from_ref(&row)).await?;
    let links = describe_links(caller, vec![row], &in_use).await?;
    links.into_iter().next().ok_or_else(broken)
}

impl NewLink {
    fn into_row(self, campaign: i64) -> link::ActiveModel {
        let now = clock::now();
        let mut row = link::ActiveModel {
            campaign_id: Set(campaign),
            client_id: Set(self.client_id),
            status: Set(self.status.map_or(Status::Active, |status| status.0)),
            max_concurrency: Set(self.max_concurrency),
            forwarding_priority: Set(self.forwarding_priority),
            weight: Set(self.weight),
            created_at: Set(now),
            updated_at: Set(now),
            ..Default::default()
        };
        self.volume.fill(&mut row);
        row
    }
}

impl LinkChange {
    fn apply(self, row: link::Model) -> link::ActiveModel {
        let mut row = row.into_active_model();
        patch(self.max_concurrency, &mut row.max_concurrency);
        patch(self.forwarding_priority, &mut row.forwarding_priority);
        patch(self.weight, &mut row.weight);
        patch(self.status, &mut row.status);
        self.volume.apply(&mut row);
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
    fn new(row: link::Model, client: LinkedClient, caps: Vec<CapUse>, usage: &Usage) -> Self {
        Self {
            volume: Volume::from(&row),
            id: row.id,
            campaign_id: row.campaign_id,
            client_id: row.client_id,
            client,
            status: Word(row.status),
            max_concurrency: row.max_concurrency,
            forwarding_priority: row.forwarding_priority,
            weight: row.weight,
            current_total_calls: usage.used[WindowKind::Total.index()],
            live_calls: usage.live,
            caps,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
        }
    }
}

impl From<&client::Model> for LinkedClient {
    fn from(row: &client::Model) -> Self {
        Self {
            id: row.id,
            client_identifier: row.client_identifier.clone(),
            name: row.name.clone(),
        }
    }
}
