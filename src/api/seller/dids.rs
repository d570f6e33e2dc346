//! A seller's numbers.

use capconduit_entity::{E164, Status, did};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use sea_orm::{ActiveModelTrait, IntoActiveModel, ModelTrait, Set};
use serde_json::{Value, json};

use super::still_sells;
use crate::api::SellerTag;
use crate::api::access::Seller;
use crate::api::audit::{Audited, Change as Changed, shown};
use crate::api::auth::Gone;
use crate::api::input::query::{PageNumber, PerPage};
use crate::api::input::{
    Asked, Body, Clearable, E164Text, Given, Paragraph, Request, Word, patch, patch_clearable,
};
use crate::api::page::{Page, Paging};
use crate::api::problem::{
    Change, Create, FieldErrors, List, Problem, Read, Refusal, Remove, bad_field, not_found,
};
use crate::api::stamp::Stamp;
use crate::clock;
use crate::store::dids;

pub struct DidsApi;

#[derive(Object)]
#[oai(deny_unknown_fields)]
struct NewDid {
    /// In E.164 form, such as `+442071838750`; unique over the platform.
    number: E164Text,
    #[oai(validator(max_length = 1000), nullable)]
    description: Option<Paragraph>,
    /// `active` if left away.
    status: Option<Word<Status>>,
}

impl Request for NewDid {
    fn example() -> Value {
        json!({"number": "+442071838750", "description": "Solar, London"})
    }
}

/// What is to change; the number can't.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct DidChange {
    #[oai(validator(max_length = 1000), nullable)]
    description: Clearable<Paragraph>,
    status: Given<Word<Status>>,
}

impl Request for DidChange {
    const MAY_BE_EMPTY: bool = false;

    fn example() -> Value {
        json!({"status": "inactive"})
    }
}

/// An inbound number.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct Did {
    id: i64,
    user_id: i64,
    number: String,
    #[oai(nullable)]
    description: Option<String>,
    status: Word<Status>,
    created_at: Stamp,
    updated_at: Stamp,
}

#[derive(ApiResponse)]
enum DidCreated {
    /// The new DID.
    #[oai(status = 201)]
    Created(Json<Did>),
}

#[OpenApi(prefix_path = "/api/seller/dids", tag = "SellerTag::Dids")]
impl DidsApi {
    /// List my DIDs
    ///
    /// By id, of one status or all.
    #[oai(path = "/", method = "get", operation_id = "listDids")]
    async fn list(
        &self,
        caller: Seller,
        status: Query<Asked<Word<Status>>>,
        page: Query<Asked<PageNumber>>,
        per_page: Query<Asked<PerPage>>,
    ) -> Result<Json<Page<Did>>, Refusal<List>> {
        let mut errors = FieldErrors::default();
        let paging = Paging::asked(page.0, per_page.0, &mut errors);
        let status = status.0.or_complain("status", &mut errors).map(|status| status.0);
        errors.into_result()?;
        let query = dids::list(caller.user.id, status);
        let slice = paging.select(query, &caller.backend.db).await?;
        Ok(Json(paging.page(slice, Did::from)))
    }

    /// Add a DID
    ///
    /// Calls to it are routed once it is in an active campaign.
    #[oai(path = "/", method = "post", operation_id = "createDid")]
    async fn create(
        &self,
        caller: Seller,
        Body(new): Body<NewDid>,
    ) -> Result<DidCreated, Refusal<Create>> {
        let row = new.into_row(caller.user.id)?;
        let write = caller.begin_write().await?;
        still_sells(&write.txn, &caller).await?;
        let row = row.insert(&write.txn).await?;
        write.commit(Changed::created(&row)).await?;
        caller.backend.refresh_routing().await?;
        Ok(DidCreated::Created(Json(row.into())))
    }

    /// Read one of my DIDs
    ///
    /// Which campaigns answer it is told by those.
    #[oai(path = "/:id", method = "get", operation_id = "getDid")]
    async fn get(&self, caller: Seller, id: Path<i64>) -> Result<Json<Did>, Refusal<Read>> {
        let row = dids::find(&caller.backend.db, caller.user.id, id.0).await?;
        let row = row.ok_or_else(|| not_found("DID", id.0))?;
        Ok(Json(row.into()))
    }

    /// Change one of my DIDs
    ///
    /// The number itself can't be changed.
    #[oai(path = "/:id", method = "put", operation_id = "updateDid")]
    async fn update(
        &self,
        caller: Seller,
        id: Path<i64>,
        Body(change): Body<DidChange>,
    ) -> Result<Json<Did>, Refusal<Change>> {
        let write = caller.begin_write().await?;
        let row = dids::find(&write.txn, caller.user.id, id.0).await?;
        let row = row.ok_or_else(|| not_found("DID", id.0))?;
        let before = row.clone();
        let row = change.apply(row).update(&write.txn).await?;
        write.commit(Changed::updated(&before, &row)).await?;
        caller.backend.refresh_routing().await?;
        Ok(Json(row.into()))
    }

    /// Delete one of my DIDs
    ///
    /// Live calls go on, and records of its calls stay.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteDid")]
    async fn delete(&self, caller: Seller, id: Path<i64>) -> Result<Gone, Refusal<Remove>> {
        let write = caller.begin_write().await?;
        let row = dids::find(&write.txn, caller.user.id, id.0).await?;
        let row = row.ok_or_else(|| not_found("DID", id.0))?;
        let changed = Changed::deleted(&row);
        row.delete(&write.txn).await?;
        write.commit(changed).await?;
        caller.backend.refresh_routing().await?;
        Ok(Gone::Gone)
    }
}

impl NewDid {
    fn into_row(self, seller: i64) -> Result<did::ActiveModel, Problem> {
        let now = clock::now();
        let number =
            E164::parse(&self.number).map_err(|err| bad_field("number", err.to_string()))?;
        Ok(did::ActiveModel {
            user_id: Set(seller),
            number: Set(number),
            description: Set(self.description.map(Into::into)),
            status: Set(self.status.map_or(Status::Active, |status| status.0)),
            created_at: Set(now),
            updated_at: Set(now),
            ..Default::default()
        })
    }
}

impl DidChange {
    fn apply(self, row: did::Model) -> did::ActiveModel {
        let mut row = row.into_active_model();
        patch_clearable(self.description, &mut row.description);
        patch(self.status, &mut row.status);
        row.updated_at = Set(clock::now());
        row
    }
}

impl Audited for did::Model {
    const RESOURCE: &'static str = "did";

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn facts(&self) -> Option<Value> {
        shown(&Did::from(self.clone()))
    }
}

impl From<did::Model> for Did {
    fn from(row: did::Model) -> Self {
        Self {
            id: row.id,
            user_id: row.user_id,
            number: row.number.into(),
            description: row.description,
            status: Word(row.status),
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
        }
    }
}
