//! Call centres that buy calls.
//!
//! A client and the rows that Asterisk reads its endpoint from change
//! together, in one transaction, or not at all.

use capconduit_entity::{Status, client};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use sea_orm::{IntoActiveModel, Set};
use serde_json::{Value, json};

use super::pjsip::{self, Draft, NewPjsip, Pjsip, PjsipChange};
use crate::api::access::Operator;
use crate::api::audit::{Audited, Change as Changed, shown};
use crate::api::auth::Gone;
use crate::api::caps::{CapUse, InUse, NewVolume, Volume, VolumeChange};
use crate::api::input::query::{PageNumber, PerPage};
use crate::api::input::{
    Asked, Body, Clearable, Given, Line, Name, Paragraph, Request, Word, patch, patch_clearable,
};
use crate::api::page::{Page, Paging};
use crate::api::problem::{
    Change, Create, FieldErrors, List, Problem, Read, Refusal, Remove, broken,
    conflict as conflicting, not_found,
};
use crate::api::stamp::Stamp;
use crate::api::{AdminTag, Backend, conflict};
use crate::capacity::Unavailable;
use crate::clock;
use crate::store::caps::Capped;
use crate::store::clients::{self, Realtime};

pub struct ClientsApi;

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct NewClient {
    /// A short name that systems use, unique over the platform.
    #[oai(validator(max_length = 100))]
    client_identifier: Name,
    #[oai(validator(max_length = 200))]
    name: Name,
    #[oai(validator(max_length = 200), nullable)]
    department: Option<Line>,
    /// `active` if left away.
    status: Option<Word<Status>>,
    #[oai(validator(max_length = 4000), nullable)]
    notes: Option<Paragraph>,
    /// Live calls at once over all campaigns; `null` = no cap.
    #[oai(validator(minimum(value = "1")), nullable)]
    max_concurrency: Option<i32>,
    #[oai(flatten)]
    volume: NewVolume,
    pjsip: NewPjsip,
}

impl Request for NewClient {
    fn example() -> Value {
        json!({
            "clientIdentifier": "acme",
            "name": "Acme call centre",
            "department": "Solar",
            "maxConcurrency": 20,
            "dailyCap": 500,
            "timeZone": "Europe/London",
            "pjsip": {
                "endpoint": {
                    "id": "acme", "aors": "acme", "context": "from-client", "outboundAuth": "acme",
                },
                "aor": {"id": "acme", "contact": "sip:sales@192.0.2.10:5060"},
                "auth": {"id": "acme", "username": "capconduit", "password": "a secret of both"},
            },
        })
    }

    fn judge(body: &Value, errors: &mut FieldErrors) {
        pjsip::judge_new(&body["pjsip"], errors);
    }
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct ClientChange {
    #[oai(validator(max_length = 100))]
    client_identifier: Given<Name>,
    #[oai(validator(max_length = 200))]
    name: Given<Name>,
    #[oai(validator(max_length = 200), nullable)]
    department: Clearable<Line>,
    status: Given<Word<Status>>,
    #[oai(validator(max_length = 4000), nullable)]
    notes: Clearable<Paragraph>,
    /// Live calls at once over all campaigns; `null` = no cap.
    #[oai(validator(minimum(value = "1")), nullable)]
    max_concurrency: Clearable<i32>,
    #[oai(flatten)]
    volume: VolumeChange,
    pjsip: Given<PjsipChange>,
}

impl Request for ClientChange {
    const MAY_BE_EMPTY: bool = false;

    fn example() -> Value {
        json!({"status": "inactive", "pjsip": {"aor": {"contact": "sip:sales@192.0.2.11:5060"}}})
    }
}

/// What a client is, whatever its calls.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct ClientFacts {
    id: i64,
    client_identifier: String,
    name: String,
    #[oai(nullable)]
    department: Option<String>,
    status: Word<Status>,
    #[oai(nullable)]
    notes: Option<String>,
    /// Live calls at once over all campaigns.
    #[oai(nullable)]
    max_concurrency: Option<i32>,
    #[oai(flatten)]
    volume: Volume,
    pjsip: Pjsip,
    created_at: Stamp,
    updated_at: Stamp,
}

/// A call centre.
// Generated clients have a class of their own that is named `Client`.
#[derive(Object)]
#[oai(rename = "ClientDetail", rename_all = "camelCase")]
struct Client {
    #[oai(flatten)]
    facts: ClientFacts,
    /// Every cap that is set, with what is used of it now, over all sellers.
    caps: Vec<CapUse>,
}

#[derive(ApiResponse)]
enum ClientCreated {
    /// The new client.
    #[oai(status = 201)]
    Created(Json<Client>),
}

#[OpenApi(prefix_path = "/api/admin/clients", tag = "AdminTag::Clients")]
impl ClientsApi {
    /// List clients
    ///
    /// By id, of one status or all; without the passwords of their auths.
    #[oai(path = "/", method = "get", operation_id = "listClients")]
    async fn list(
        &self,
        caller: Operator,
        status: Query<Asked<Word<Status>>>,
        page: Query<Asked<PageNumber>>,
        per_page: Query<Asked<PerPage>>,
    ) -> Result<Json<Page<Client>>, Refusal<List>> {
        let mut errors = FieldErrors::default();
        let paging = Paging::asked(page.0, per_page.0, &mut errors);
        let status = status.0.or_complain("status", &mut errors).map(|status| status.0);
        errors.into_result()?;
        let db = &caller.backend.db;
        let slice = paging.select(clients::list(status), db).await?;
        let in_use = in_use(&caller.backend, &slice.items).await?;
        let mut rows = clients::realtime_rows(db, &slice.items).await?;
        Ok(Json(paging.try_page(slice, |client| {
            let rows = rows.remove(&client.id).ok_or_else(broken)?;
            let whole = Whole { client, realtime: rows };
            Ok::<_, Problem>(Client::new(whole, &in_use))
        })?))
    }

    /// Create a client
    ///
    /// With its PJSIP endpoint, AOR and maybe auth. The next call can be sent to it.
    #[oai(path = "/", method = "post", operation_id = "createClient")]
    async fn create(
        &self,
        caller: Operator,
        Body(new): Body<NewClient>,
    ) -> Result<ClientCreated, Refusal<Create>> {
        let probe = new.pjsip.aor.asks_for_probing();
        let write = caller.begin_write().await?;
        let (row, realtime) = new.into_rows();
        let row = clients::insert(&write.txn, row, &realtime).await?;
        let whole = Whole { client: row, realtime };
        write.commit(Changed::created(&whole)).await?;
        if probe {
            caller.backend.switch.probing_changed();
        }
        caller.backend.refresh_routing().await?;
        Ok(ClientCreated::Created(Json(describe(&caller.backend, whole).await?)))
    }

    /// Read a client
    ///
    /// With its PJSIP objects, but never with the password of its auth.
    #[oai(path = "/:id", method = "get", operation_id = "getClient")]
    async fn get(&self, caller: Operator, id: Path<i64>) -> Result<Json<Client>, Refusal<Read>> {
        let db = &caller.backend.db;
        let row = clients::find(db, id.0).await?.ok_or_else(|| not_found("client", id.0))?;
        let realtime = clients::realtime_of(db, &row).await?.ok_or_else(broken)?;
        Ok(Json(describe(&caller.backend, Whole { client: row, realtime }).await?))
    }

    /// Change a client
    ///
    /// Fields that are left away stay as they are, also within `pjsip`;
    /// `pjsip.auth: null` removes the auth.
    #[oai(path = "/:id", method = "put", operation_id = "updateClient")]
    async fn update(
        &self,
        caller: Operator,
        id: Path<i64>,
        Body(change): Body<ClientChange>,
    ) -> Result<Json<Client>, Refusal<Change>> {
        let write = caller.begin_write().await?;
        let row = clients::find_locked(&write.txn, id.0).await?;
        let row = row.ok_or_else(|| not_found("client", id.0))?;
        let realtime = clients::realtime_of(&write.txn, &row).await?.ok_or_else(broken)?;
        let before = Whole { client: row, realtime };
        let mut realtime = before.realtime.clone();
        let row = change.apply(before.client.clone(), &mut realtime)?;
        let row = clients::update(&write.txn, row, &before.realtime, &realtime).await?;
        let after = Whole { client: row, realtime };
        let new_password = before.password() != after.password();
        let changed = Changed::updated(&before, &after).with_new_password(new_password);
        write.commit(changed).await?;
        if before.realtime.aor.qualify_frequency != after.realtime.aor.qualify_frequency {
            caller.backend.switch.probing_changed();
        }
        if before.realtime != after.realtime {
            caller.backend.switch.client_changed().await;
        }
        caller.backend.refresh_routing().await?;
        Ok(Json(describe(&caller.backend, after).await?))
    }

    /// Delete a client
    ///
    /// Not one that is linked to a campaign.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteClient")]
    async fn delete(&self, caller: Operator, id: Path<i64>) -> Result<Gone, Refusal<Remove>> {
        let write = caller.begin_write().await?;
        let row = clients::find_locked(&write.txn, id.0).await?;
        let row = row.ok_or_else(|| not_found("client", id.0))?;
        let realtime = clients::realtime_of(&write.txn, &row).await?.ok_or_else(broken)?;
        let changed = Changed::deleted(&Whole { client: row.clone(), realtime });
        let linked =
            conflicting("id", "this client is linked to a campaign: remove the link first");
        clients::delete(&write.txn, row).await.map_err(conflict::about(linked))?;
        write.commit(changed).await?;
        caller.backend.refresh_routing().await?;
        Ok(Gone::Gone)
    }
}

async fn in_use(backend: &Backend, rows: &[client::Model]) -> Result<InUse, Unavailable> {
    InUse::ask(&*backend.ledger, rows.iter().map(|row| row as &dyn Capped)).await
}

async fn describe(backend: &Backend, whole: Whole) -> Result<Client, Unavailable> {
    let in_use = in_use(backend, std::slice::from_ref(&whole.client)).await?;
    Ok(Client::new(whole, &in_use))
}

impl NewClient {
    fn into_rows(self) -> (client::ActiveModel, Realtime) {
        let now = clock::now();
        let realtime: Realtime = self.pjsip.into();
        let mut row = client::ActiveModel {
            client_identifier: Set(self.client_identifier.into()),
            name: Set(self.name.into()),
            department: Set(self.department.map(Into::into)),
            status: Set(self.status.map_or(Status::Active, |status| status.0)),
            notes: Set(self.notes.map(Into::into)),
            max_concurrency: Set(self.max_concurrency),
            created_at: Set(now),
            updated_at: Set(now),
            ..Default::default()
        };
        self.volume.fill(&mut row);
        (row, realtime)
    }
}

impl ClientChange {
    fn apply(
        self,
        row: client::Model,
        realtime: &mut Realtime,
    ) -> Result<client::ActiveModel, Problem> {
        let mut errors = FieldErrors::default();
        if let Some(change) = self.pjsip {
            Draft(realtime).change(change, &mut errors);
        }
        errors.into_result()?;
        let mut row = row.into_active_model();
        patch(self.client_identifier, &mut row.client_identifier);
        patch(self.name, &mut row.name);
        patch_clearable(self.department, &mut row.department);
        patch(self.status, &mut row.status);
        patch_clearable(self.notes, &mut row.notes);
        patch_clearable(self.max_concurrency, &mut row.max_concurrency);
        self.volume.apply(&mut row);
        row.updated_at = Set(clock::now());
        Ok(row)
    }
}

/// A client with the rows of its endpoint.
#[derive(Clone)]
struct Whole {
    client: client::Model,
    realtime: Realtime,
}

impl Whole {
    fn password(&self) -> Option<&str> {
        self.realtime.auth.as_ref().map(|auth| auth.password.as_str())
    }
}

impl Audited for Whole {
    const RESOURCE: &'static str = "client";

    fn key(&self) -> String {
        self.client.id.to_string()
    }

    fn facts(&self) -> Option<Value> {
        shown(&ClientFacts::from(self.clone()))
    }
}

impl Client {
    fn new(whole: Whole, in_use: &InUse) -> Self {
        let caps = in_use.of([whole.client.scope()]);
        Self { facts: whole.into(), caps }
    }
}

impl From<Whole> for ClientFacts {
    fn from(Whole { client: row, realtime }: Whole) -> Self {
        Self {
            volume: Volume::from(&row),
            id: row.id,
            client_identifier: row.client_identifier,
            name: row.name,
            department: row.department,
            status: Word(row.status),
            notes: row.notes,
            max_concurrency: row.max_concurrency,
            pjsip: realtime.into(),
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
        }
    }
}
