//! A seller's campaigns and the DIDs that they answer.

use std::collections::BTreeSet;

use capconduit_entity::{CampaignStatus, Status, Strategy, campaign, client, user};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use sea_orm::{ActiveModelTrait, DatabaseTransaction, IntoActiveModel, ModelTrait, Set};
use serde_json::{Value, json};

use super::dids::Did;
use super::links::{Link, describe_links, in_use};
use super::still_sells;
use crate::api::SellerTag;
use crate::api::access::Seller;
use crate::api::audit::{Audited, Change as Changed, shown};
use crate::api::auth::Gone;
use crate::api::caps::{CapUse, InUse, NewVolume, Volume, VolumeChange};
use crate::api::input::query::{PageNumber, PerPage};
use crate::api::input::{
    Asked, Body, Clearable, Given, Name, Paragraph, Request, Word, patch, patch_clearable,
};
use crate::api::page::{Page, Paging};
use crate::api::problem::{
    Change, Create, FieldErrors, List, Problem, Read, Refusal, Remove, conflict, not_found,
};
use crate::api::stamp::Stamp;
use crate::clock;
use crate::store::caps::Capped;
use crate::store::{campaigns, clients, dids, links};

pub struct CampaignsApi;

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct NewCampaign {
    /// Unique among your campaigns.
    #[oai(validator(max_length = 200))]
    name: Name,
    routing_strategy: Word<Strategy>,
    /// How long one client is rung.
    #[oai(validator(minimum(value = "1"), maximum(value = "600")))]
    dial_timeout_seconds: i32,
    /// `active` if left away.
    status: Option<Word<CampaignStatus>>,
    #[oai(validator(max_length = 1000), nullable)]
    description: Option<Paragraph>,
    /// Live calls at once over all links; `null` = no cap.
    #[oai(validator(minimum(value = "1")), nullable)]
    max_concurrency: Option<i32>,
    #[oai(flatten)]
    volume: NewVolume,
}

impl Request for NewCampaign {
    fn example() -> Value {
        json!({
            "name": "Solar", "routingStrategy": "priority", "dialTimeoutSeconds": 20,
            "maxConcurrency": 10, "dailyCap": 200, "timeZone": "Europe/London",
        })
    }
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct CampaignChange {
    #[oai(validator(max_length = 200))]
    name: Given<Name>,
    routing_strategy: Given<Word<Strategy>>,
    #[oai(validator(minimum(value = "1"), maximum(value = "600")))]
    dial_timeout_seconds: Given<i32>,
    status: Given<Word<CampaignStatus>>,
    #[oai(validator(max_length = 1000), nullable)]
    description: Clearable<Paragraph>,
    /// Live calls at once over all links; `null` = no cap.
    #[oai(validator(minimum(value = "1")), nullable)]
    max_concurrency: Clearable<i32>,
    #[oai(flatten)]
    volume: VolumeChange,
}

impl Request for CampaignChange {
    const MAY_BE_EMPTY: bool = false;

    fn example() -> Value {
        json!({"status": "paused"})
    }
}

#[derive(Object)]
#[oai(deny_unknown_fields, rename_all = "camelCase")]
struct DidSet {
    /// All DIDs that the campaign is to answer.
    #[oai(validator(max_items = 1000))]
    did_ids: Vec<i64>,
}

impl Request for DidSet {
    fn example() -> Value {
        json!({"didIds": [1, 2]})
    }
}

/// What a campaign is, whatever its calls.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct CampaignFacts {
    id: i64,
    user_id: i64,
    name: String,
    routing_strategy: Word<Strategy>,
    dial_timeout_seconds: i32,
    status: Word<CampaignStatus>,
    #[oai(nullable)]
    description: Option<String>,
    /// Live calls at once over all links.
    #[oai(nullable)]
    max_concurrency: Option<i32>,
    #[oai(flatten)]
    volume: Volume,
    created_at: Stamp,
    updated_at: Stamp,
}

/// A campaign.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Campaign {
    #[oai(flatten)]
    facts: CampaignFacts,
    /// Every cap that is set of the campaign and of the seller, with what is used of it now.
    caps: Vec<CapUse>,
}

/// A campaign with its DIDs and links.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct CampaignDetail {
    #[oai(flatten)]
    campaign: Campaign,
    dids: Vec<Did>,
    client_settings: Vec<Link>,
}

/// A client that calls can be sold to.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct AvailableClient {
    id: i64,
    client_identifier: String,
    name: String,
    #[oai(nullable)]
    department: Option<String>,
}

#[derive(ApiResponse)]
enum CampaignCreated {
    /// The new campaign.
    #[oai(status = 201)]
    Created(Json<CampaignDetail>),
}

#[OpenApi(prefix_path = "/api/seller/campaigns", tag = "SellerTag::Campaigns")]
impl CampaignsApi {
    /// List my campaigns
    ///
    /// By id, of one status or all; without their DIDs and links.
    #[oai(path = "/", method = "get", operation_id = "listCampaigns")]
    async fn list(
        &self,
        caller: Seller,
        status: Query<Asked<Word<CampaignStatus>>>,
        page: Query<Asked<PageNumber>>,
        per_page: Query<Asked<PerPage>>,
    ) -> Result<Json<Page<Campaign>>, Refusal<List>> {
        let mut errors = FieldErrors::default();
        let paging = Paging::asked(page.0, per_page.0, &mut errors);
        let status = status.0.or_complain("status", &mut errors).map(|status| status.0);
        errors.into_result()?;
        let query = campaigns::list(caller.user.id, status);
        let slice = paging.select(query, &caller.backend.db).await?;
        let above: &dyn Capped = &caller.user;
        let rows = slice.items.iter().map(|row| row as &dyn Capped).chain([above]);
        let in_use = InUse::ask(&*caller.backend.ledger, rows).await?;
        Ok(Json(paging.page(slice, |row| Campaign::new(row, &caller.user, &in_use))))
    }

    /// Create a campaign
    ///
    /// It takes calls once it has DIDs and links to clients.
    #[oai(path = "/", method = "post", operation_id = "createCampaign")]
    async fn create(
        &self,
        caller: Seller,
        Body(new): Body<NewCampaign>,
    ) -> Result<CampaignCreated, Refusal<Create>> {
        let write = caller.begin_write().await?;
        still_sells(&write.txn, &caller).await?;
        let row = new.into_row(caller.user.id).insert(&write.txn).await?;
        write.commit(Changed::created(&row)).await?;
        caller.backend.refresh_routing().await?;
        Ok(CampaignCreated::Created(Json(detail(&caller, row).await?)))
    }

    /// List clients that calls can be sold to
    ///
    /// Those that are active, by id: what a link needs as `clientId`.
    #[oai(path = "/available_clients", method = "get", operation_id = "listAvailableClients")]
    async fn available_clients(
        &self,
        caller: Seller,
        page: Query<Asked<PageNumber>>,
        per_page: Query<Asked<PerPage>>,
    ) -> Result<Json<Page<AvailableClient>>, Refusal<List>> {
        let mut errors = FieldErrors::default();
        let paging = Paging::asked(page.0, per_page.0, &mut errors);
        errors.into_result()?;
        let active = clients::list(Some(Status::Active));
        let slice = paging.select(active, &caller.backend.db).await?;
        Ok(Json(paging.page(slice, AvailableClient::from)))
    }

    /// Read one of my campaigns
    ///
    /// With its DIDs, and its links with what is used of their caps.
    #[oai(path = "/:id", method = "get", operation_id = "getCampaign")]
    async fn get(
        &self,
        caller: Seller,
        id: Path<i64>,
    ) -> Result<Json<CampaignDetail>, Refusal<Read>> {
        let row = campaigns::find(&caller.backend.db, caller.user.id, id.0).await?;
        let row = row.ok_or_else(|| not_found("campaign", id.0))?;
        Ok(Json(detail(&caller, row).await?))
    }

    /// Change one of my campaigns
    ///
    /// Activating it is refused while one of its DIDs is in another active campaign.
    #[oai(path = "/:id", method = "put", operation_id = "updateCampaign")]
    async fn update(
        &self,
        caller: Seller,
        id: Path<i64>,
        Body(change): Body<CampaignChange>,
    ) -> Result<Json<CampaignDetail>, Refusal<Change>> {
        let write = caller.begin_write().await?;
        let row = mine(&write.txn, &caller, id.0).await?;
        let before = row.clone();
        let row = change.apply(row).update(&write.txn).await?;
        campaigns::claim_dids(&write.txn, row.id, row.status).await.map_err(|err| {
            let taken = conflict("status", "one of its DIDs is in another active campaign");
            if err.sql_err().is_some() { taken } else { err.into() }
        })?;
        write.commit(Changed::updated(&before, &row)).await?;
        caller.backend.refresh_routing().await?;
        Ok(Json(detail(&caller, row).await?))
    }

    /// Delete one of my campaigns
    ///
    /// With its links. Live calls go on, and records of its calls stay.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteCampaign")]
    async fn delete(&self, caller: Seller, id: Path<i64>) -> Result<Gone, Refusal<Remove>> {
        let write = caller.begin_write().await?;
        let row = mine(&write.txn, &caller, id.0).await?;
        let changed = Changed::deleted(&row);
        row.delete(&write.txn).await?;
        write.commit(changed).await?;
        caller.backend.refresh_routing().await?;
        Ok(Gone::Gone)
    }

    /// Set the DIDs of one of my campaigns
    ///
    /// Replaces the whole set. A DID can be in one active campaign only.
    #[oai(path = "/:id/dids", method = "put", operation_id = "setCampaignDids")]
    async fn set_dids(
        &self,
        caller: Seller,
        id: Path<i64>,
        Body(set): Body<DidSet>,
    ) -> Result<Json<CampaignDetail>, Refusal<Change>> {
        let wanted: BTreeSet<i64> = set.did_ids.into_iter().collect();
        let write = caller.begin_write().await?;
        let row = mine(&write.txn, &caller, id.0).await?;
        let owned =
            dids::find_many(&write.txn, caller.user.id, wanted.iter().copied().collect()).await?;
        if let Some(foreign) = wanted.iter().find(|id| !owned.contains_key(id)) {
            return Err(not_found("DID", foreign).into());
        }
        let before: Vec<_> =
            dids::of_campaign(&write.txn, row.id).await?.into_iter().map(|did| did.id).collect();
        let changed = Changed::to(campaign::Model::RESOURCE, row.id)
            .replaced(json!({"didIds": before}), json!({"didIds": wanted}));
        campaigns::replace_dids(&write.txn, &row, wanted).await?;
        write.commit(changed).await?;
        caller.backend.refresh_routing().await?;
        Ok(Json(detail(&caller, row).await?))
    }
}

/// The caller's campaign of this id, locked until the transaction ends.
pub(super) async fn mine(
    txn: &DatabaseTransaction,
    caller: &Seller,
    id: i64,
) -> Result<campaign::Model, Problem> {
    let row = campaigns::find_locked(txn, caller.user.id, id).await?;
    row.ok_or_else(|| not_found("campaign", id))
}

async fn detail(caller: &Seller, row: campaign::Model) -> Result<CampaignDetail, Problem> {
    let db = &caller.backend.db;
    let dids = dids::of_campaign(db, row.id).await?;
    let links = links::of_campaign(db, row.id).await?;
    let in_use = in_use(caller, &row, &links).await?;
    Ok(CampaignDetail {
        client_settings: describe_links(caller, links, &in_use).await?,
        campaign: Campaign::new(row, &caller.user, &in_use),
        dids: dids.into_iter().map(Did::from).collect(),
    })
}

impl NewCampaign {
    fn into_row(self, seller: i64) -> campaign::ActiveModel {
        let now = clock::now();
        let mut row = campaign::ActiveModel {
            user_id: Set(seller),
            name: Set(self.name.into()),
            routing_strategy: Set(self.routing_strategy.0),
            dial_timeout_seconds: Set(self.dial_timeout_seconds),
            status: Set(self.status.map_or(CampaignStatus::Active, |status| status.0)),
            description: Set(self.description.map(Into::into)),
            max_concurrency: Set(self.max_concurrency),
            created_at: Set(now),
            updated_at: Set(now),
            ..Default::default()
        };
        self.volume.fill(&mut row);
        row
    }
}

impl CampaignChange {
    fn apply(self, row: campaign::Model) -> campaign::ActiveModel {
        let mut row = row.into_active_model();
        patch(self.name, &mut row.name);
        patch(self.routing_strategy, &mut row.routing_strategy);
        patch(self.dial_timeout_seconds, &mut row.dial_timeout_seconds);
        patch(self.status, &mut row.status);
        patch_clearable(self.description, &mut row.description);
        patch_clearable(self.max_concurrency, &mut row.max_concurrency);
        self.volume.apply(&mut row);
        row.updated_at = Set(clock::now());
        row
    }
}

impl Audited for campaign::Model {
    const RESOURCE: &'static str = "campaign";

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn facts(&self) -> Option<Value> {
        shown(&CampaignFacts::from(self.clone()))
    }
}

impl Campaign {
    fn new(row: campaign::Model, seller: &user::Model, in_use: &InUse) -> Self {
        let caps = in_use.of([row.scope(), seller.scope()]);
        Self { facts: row.into(), caps }
    }
}

impl From<campaign::Model> for CampaignFacts {
    fn from(row: campaign::Model) -> Self {
        Self {
            volume: Volume::from(&row),
            id: row.id,
            user_id: row.user_id,
            name: row.name,
            routing_strategy: Word(row.routing_strategy),
            dial_timeout_seconds: row.dial_timeout_seconds,
            status: Word(row.status),
            description: row.description,
            max_concurrency: row.max_concurrency,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
        }
    }
}

impl From<client::Model> for AvailableClient {
    fn from(row: client::Model) -> Self {
        Self {
            id: row.id,
            client_identifier: row.client_identifier,
            name: row.name,
            department: row.department,
        }
    }
}
