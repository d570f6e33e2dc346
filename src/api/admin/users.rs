//! Accounts: admins, staff and sellers.
//!
//! Staff look after sellers' accounts alone. There is always an active admin.

use capconduit_entity::{Role, UserStatus, user};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use sea_orm::{ActiveModelTrait, IntoActiveModel, Set};
use serde_json::{Value, json};

use crate::api::access::Operator;
use crate::api::audit::{Audited, Change as Changed, shown};
use crate::api::auth::{Gone, Message};
use crate::api::caps::{self, CapUse, InUse, NewVolume, Volume, VolumeChange};
use crate::api::input::query::{PageNumber, PerPage};
use crate::api::input::{
    Asked, Body, Clearable, Email, Given, Line, Name, Request, Secret, Word, patch, patch_clearable,
};
use crate::api::page::{Page, Paging};
use crate::api::problem::{
    Change, Create, FieldErrors, List, Problem, Read, Refusal, Remove, conflict as conflicting,
    forbidden, not_found,
};
use crate::api::stamp::Stamp;
use crate::api::{AdminTag, Backend, conflict, password};
use crate::capacity::Unavailable;
use crate::clock;
use crate::store::caps::Capped;
use crate::store::users;

pub struct UsersApi;

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct NewUser {
    #[oai(validator(min_length = 3, max_length = 100))]
    username: Name,
    #[oai(validator(max_length = 254))]
    email: Email,
    #[oai(validator(min_length = 8, max_length = 256), write_only)]
    password: Secret,
    role: Word<Role>,
    /// `active` if left away.
    status: Option<Word<UserStatus>>,
    #[oai(validator(max_length = 200), nullable)]
    full_name: Option<Line>,
    #[oai(validator(max_length = 200), nullable)]
    company_name: Option<Line>,
    /// A seller's live calls at once over all campaigns; `null` = no cap. Only sellers have caps.
    #[oai(validator(minimum(value = "1")), nullable)]
    max_concurrency: Option<i32>,
    #[oai(flatten)]
    volume: NewVolume,
}

impl Request for NewUser {
    fn example() -> Value {
        json!({
            "username": "joe",
            "email": "joe@example.com",
            "password": "correct horse battery",
            "role": "user",
            "fullName": "Joe Doe",
            "companyName": "Joe Leads Ltd",
            "maxConcurrency": 50,
            "monthlyCap": 10000,
            "timeZone": "Europe/London",
        })
    }

    fn judge(body: &Value, errors: &mut FieldErrors) {
        let named = |role: &&Role| body["role"] == role.as_str();
        if Role::ALL.iter().find(named).is_some_and(|role| *role != Role::User) {
            let given = |field: &&&str| !body[**field].is_null();
            caps::FIELDS.iter().filter(given).for_each(|field| errors.add(*field, NO_CAPS));
        }
    }
}

/// What is to change; the username can't.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct UserChange {
    #[oai(validator(max_length = 254))]
    email: Given<Email>,
    #[oai(validator(min_length = 8, max_length = 256), write_only)]
    password: Given<Secret>,
    role: Given<Word<Role>>,
    status: Given<Word<UserStatus>>,
    #[oai(validator(max_length = 200), nullable)]
    full_name: Clearable<Line>,
    #[oai(validator(max_length = 200), nullable)]
    company_name: Clearable<Line>,
    /// A seller's live calls at once over all campaigns; `null` = no cap. Only sellers have caps.
    #[oai(validator(minimum(value = "1")), nullable)]
    max_concurrency: Clearable<i32>,
    #[oai(flatten)]
    volume: VolumeChange,
}

impl Request for UserChange {
    const MAY_BE_EMPTY: bool = false;

    fn example() -> Value {
        json!({"status": "suspended", "fullName": null})
    }
}

#[derive(Object)]
#[oai(deny_unknown_fields)]
struct PasswordReset {
    #[oai(validator(min_length = 8, max_length = 256), write_only)]
    password: Secret,
}

impl Request for PasswordReset {
    fn example() -> Value {
        json!({"password": "staple of many words"})
    }
}

/// An account.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct User {
    id: i64,
    username: String,
    email: String,
    role: Word<Role>,
    status: Word<UserStatus>,
    #[oai(nullable)]
    full_name: Option<String>,
    #[oai(nullable)]
    company_name: Option<String>,
    created_at: Stamp,
    updated_at: Stamp,
}

/// An account with its caps, where it is a seller's.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct AccountFacts {
    #[oai(flatten)]
    user: User,
    /// Live calls at once over all campaigns.
    #[oai(nullable)]
    max_concurrency: Option<i32>,
    #[oai(flatten)]
    volume: Volume,
}

/// An account with its caps, where it is a seller's.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Account {
    #[oai(flatten)]
    facts: AccountFacts,
    /// Every cap that is set, with what is used of it now.
    caps: Vec<CapUse>,
}

#[derive(ApiResponse)]
enum UserCreated {
    /// The new account.
    #[oai(status = 201)]
    Created(Json<Account>),
}

#[OpenApi(prefix_path = "/api/admin/users", tag = "AdminTag::Users")]
impl UsersApi {
    /// List accounts
    ///
    /// Admins see all accounts, staff those of sellers.
    #[oai(path = "/", method = "get", operation_id = "listUsers")]
    async fn list(
        &self,
        caller: Operator,
        page: Query<Asked<PageNumber>>,
        per_page: Query<Asked<PerPage>>,
    ) -> Result<Json<Page<Account>>, Refusal<List>> {
        let mut errors = FieldErrors::default();
        let paging = Paging::asked(page.0, per_page.0, &mut errors);
        errors.into_result()?;
        let visible = if caller.is_admin() { users::all() } else { users::sellers() };
        let slice = paging.select(visible, &caller.backend.db).await?;
        let in_use = in_use(&caller.backend, &slice.items).await?;
        Ok(Json(paging.page(slice, |row| Account::new(row, &in_use))))
    }

    /// Create an account
    ///
    /// Staff create sellers, admins any role.
    #[oai(path = "/", method = "post", operation_id = "createUser")]
    async fn create(
        &self,
        caller: Operator,
        Body(new): Body<NewUser>,
    ) -> Result<UserCreated, Refusal<Create>> {
        may_handle(&caller, new.role.0)?;
        let hash = password::hash(new.password.clone().into()).await?;
        let write = caller.begin_write().await?;
        let row = new.into_row(hash).insert(&write.txn).await?;
        write.commit(Changed::created(&row)).await?;
        caller.backend.refresh_routing().await?;
        Ok(UserCreated::Created(Json(describe(&caller.backend, row).await?)))
    }

    /// Read an account
    ///
    /// Never with its password or a hash of it.
    #[oai(path = "/:id", method = "get", operation_id = "getUser")]
    async fn get(&self, caller: Operator, id: Path<i64>) -> Result<Json<Account>, Refusal<Read>> {
        let row = users::find(&caller.backend.db, id.0).await?;
        let row = row.ok_or_else(|| not_found("user", id.0))?;
        may_handle(&caller, row.role)?;
        Ok(Json(describe(&caller.backend, row).await?))
    }

    /// Change an account
    ///
    /// A new password, a new role, or a status other than active ends its
    /// sessions and tokens. The last active admin stays one, and a seller who
    /// owns DIDs or campaigns stays a seller. Only sellers have caps: whoever
    /// stops being one has none.
    #[oai(path = "/:id", method = "put", operation_id = "updateUser")]
    async fn update(
        &self,
        caller: Operator,
        id: Path<i64>,
        Body(change): Body<UserChange>,
    ) -> Result<Json<Account>, Refusal<Change>> {
        let hash = match &change.password {
            Some(password) => Some(password::hash(password.clone().into()).await?),
            None => None,
        };
        let write = caller.begin_write().await?;
        let admins = users::lock_active_admins(&write.txn).await?;
        let row = users::find_locked(&write.txn, id.0).await?;
        let row = row.ok_or_else(|| not_found("user", id.0))?;
        may_handle(&caller, row.role)?;
        may_handle(&caller, change.role.map_or(row.role, |role| role.0))?;
        change.caps_are_a_sellers(&row)?;
        if change.unseats(&row) && admins == [row.id] {
            return Err(last_admin().into());
        }
        if change.leaves_selling(&row) && users::owns_anything(&write.txn, row.id).await? {
            return Err(conflicting("role", STILL_OWNS).into());
        }
        if change.signs_out(&row) {
            users::sign_out_everywhere(&write.txn, row.id).await?;
        }
        let (before, new_password) = (row.clone(), hash.is_some());
        let row = change.apply(row, hash).update(&write.txn).await?;
        let changed = Changed::updated(&before, &row).with_new_password(new_password);
        write.commit(changed).await?;
        caller.backend.refresh_routing().await?;
        Ok(Json(describe(&caller.backend, row).await?))
    }

    /// Delete an account
    ///
    /// Not one's own, not the last active admin, and not one that owns DIDs or campaigns.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteUser")]
    async fn delete(&self, caller: Operator, id: Path<i64>) -> Result<Gone, Refusal<Remove>> {
        let write = caller.begin_write().await?;
        let admins = users::lock_active_admins(&write.txn).await?;
        let row = users::find_locked(&write.txn, id.0).await?;
        let row = row.ok_or_else(|| not_found("user", id.0))?;
        may_handle(&caller, row.role)?;
        if row.id == caller.user.id {
            return Err(forbidden("Nobody can delete their own account.").into());
        }
        if admins == [row.id] {
            return Err(last_admin().into());
        }
        let owner = conflicting("id", STILL_OWNS);
        let changed = Changed::deleted(&row);
        users::delete(&write.txn, row).await.map_err(conflict::about(owner))?;
        write.commit(changed).await?;
        Ok(Gone::Gone)
    }

    /// Set an account's password
    ///
    /// Ends its sessions and tokens.
    #[oai(path = "/:id/password", method = "put", operation_id = "resetPassword")]
    async fn reset_password(
        &self,
        caller: Operator,
        id: Path<i64>,
        Body(reset): Body<PasswordReset>,
    ) -> Result<Json<Message>, Refusal<Change>> {
        let hash = password::hash(reset.password.into()).await?;
        let write = caller.begin_write().await?;
        let row = users::find_locked(&write.txn, id.0).await?;
        let row = row.ok_or_else(|| not_found("user", id.0))?;
        may_handle(&caller, row.role)?;
        let changed = Changed::to(user::Model::RESOURCE, row.id).with_new_password(true);
        users::set_password(&write.txn, row, hash, clock::now()).await?;
        write.commit(changed).await?;
        Ok(Json(Message { message: "The password is changed.".to_owned() }))
    }
}

async fn in_use(backend: &Backend, rows: &[user::Model]) -> Result<InUse, Unavailable> {
    InUse::ask(&*backend.ledger, rows.iter().map(|row| row as &dyn Capped)).await
}

async fn describe(backend: &Backend, row: user::Model) -> Result<Account, Unavailable> {
    let in_use = in_use(backend, std::slice::from_ref(&row)).await?;
    Ok(Account::new(row, &in_use))
}

const NO_CAPS: &str = "only sellers have caps";
const STILL_OWNS: &str = "this user still owns DIDs or campaigns: delete those first";

/// Only an admin handles accounts that aren't sellers'.
fn may_handle(caller: &Operator, role: Role) -> Result<(), Problem> {
    if caller.is_admin() || role == Role::User {
        return Ok(());
    }
    Err(forbidden("Only an admin may handle admin and staff accounts."))
}

fn last_admin() -> Problem {
    forbidden("This is the last active admin.")
}

impl NewUser {
    fn into_row(self, hash: String) -> user::ActiveModel {
        let now = clock::now();
        let mut row = user::ActiveModel {
            username: Set(self.username.into()),
            email: Set(self.email.into()),
            password_hash: Set(hash),
            role: Set(self.role.0),
            status: Set(self.status.map_or(UserStatus::Active, |status| status.0)),
            full_name: Set(self.full_name.map(Into::into)),
            company_name: Set(self.company_name.map(Into::into)),
            max_concurrency: Set(self.max_concurrency),
            created_at: Set(now),
            updated_at: Set(now),
            ..Default::default()
        };
        self.volume.fill(&mut row);
        row
    }
}

impl UserChange {
    /// Whether this account would stop being an active admin.
    fn unseats(&self, row: &user::Model) -> bool {
        let role = self.role.map_or(row.role, |role| role.0);
        let status = self.status.map_or(row.status, |status| status.0);
        role != Role::Admin || status != UserStatus::Active
    }

    /// Whether a seller would stop being one.
    fn leaves_selling(&self, row: &user::Model) -> bool {
        row.role == Role::User && self.role.is_some_and(|role| role.0 != Role::User)
    }

    fn sells(&self, row: &user::Model) -> bool {
        self.role.map_or(row.role, |role| role.0) == Role::User
    }

    /// Refuses caps of an account that doesn't sell.
    fn caps_are_a_sellers(&self, row: &user::Model) -> Result<(), Problem> {
        let mut errors = FieldErrors::default();
        if !self.sells(row) {
            let concurrency = self.max_concurrency.is_value().then_some("maxConcurrency");
            let given = concurrency.into_iter().chain(self.volume.given());
            given.for_each(|field| errors.add(field, NO_CAPS));
        }
        errors.into_result()
    }

    fn signs_out(&self, row: &user::Model) -> bool {
        let status = self.status.map_or(row.status, |status| status.0);
        self.password.is_some()
            || status != UserStatus::Active
            || self.role.is_some_and(|role| role.0 != row.role)
    }

    fn apply(self, row: user::Model, hash: Option<String>) -> user::ActiveModel {
        let sells = self.sells(&row);
        let mut row = row.into_active_model();
        patch(self.email, &mut row.email);
        patch(hash, &mut row.password_hash);
        patch(self.role, &mut row.role);
        patch(self.status, &mut row.status);
        patch_clearable(self.full_name, &mut row.full_name);
        patch_clearable(self.company_name, &mut row.company_name);
        if sells {
            patch_clearable(self.max_concurrency, &mut row.max_concurrency);
            self.volume.apply(&mut row);
        } else {
            row.max_concurrency = Set(None);
            caps::clear(&mut row);
        }
        row.updated_at = Set(clock::now());
        row
    }
}

impl Audited for user::Model {
    const RESOURCE: &'static str = "user";

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn facts(&self) -> Option<Value> {
        shown(&AccountFacts::from(self.clone()))
    }
}

impl Account {
    fn new(row: user::Model, in_use: &InUse) -> Self {
        let caps = in_use.of([row.scope()]);
        Self { facts: row.into(), caps }
    }
}

impl From<user::Model> for AccountFacts {
    fn from(row: user::Model) -> Self {
        let (volume, max_concurrency) = (Volume::from(&row), row.max_concurrency);
        Self { user: row.into(), max_concurrency, volume }
    }
}

impl From<user::Model> for User {
    fn from(row: user::Model) -> Self {
        Self {
            id: row.id,
            username: row.username,
            email: row.email,
            role: Word(row.role),
            status: Word(row.status),
            full_name: row.full_name,
            company_name: row.company_name,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
        }
    }
}
