//! Who changed what: every write leaves an entry, in its own transaction.
//!
//! A handler that writes begins a [`Write`], and can commit it only by saying
//! what changed. So there is no write without its entry and no entry without
//! its write. What is noted of a thing is what the API shows of it, which
//! never holds a secret.

use std::net::IpAddr;

use capconduit_entity::{Role, api_token, audit_entry, call_log, user};
use chrono::NaiveDate;
use poem::Request;
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::types::{Any, ToJSON};
use poem_openapi::{Object, OpenApi};
use sea_orm::{ActiveValue, DatabaseConnection, DatabaseTransaction, DbErr, EntityTrait, Set};
use serde_json::{Map, Value, json};

use super::AdminTag;
use super::access::{Admin, Caller, Kind, peer};
use super::input::query::{Days, IdFilter, PageNumber, PathPrefix, PerPage};
use super::input::{Asked, Word};
use super::page::{Page, Paging};
use super::problem::{FieldErrors, List, Refusal};
use super::stamp::Stamp;
use crate::capacity::recount::Findings;
use crate::store::audit::Filter;
use crate::store::configuration;
use crate::{clock, db};

/// Where a request came from, and what it was.
#[derive(Clone, Debug)]
pub struct Origin {
    pub address: Option<IpAddr>,
    method: String,
    path: String,
}

/// Who writes.
#[derive(Clone, Debug)]
pub enum Author {
    User {
        id: i64,
        name: String,
        role: Role,
    },
    /// The dialplan, by the internal token.
    Dialplan,
    /// Whoever may run commands on the machine.
    CommandLine,
}

/// A transaction that ends by saying what it changed. Dropped, it changes nothing.
pub struct Write {
    pub txn: DatabaseTransaction,
    author: Author,
    origin: Origin,
}

/// What a write changed.
#[derive(Clone, Debug)]
pub struct Change {
    resource: &'static str,
    id: String,
    before: Option<Value>,
    after: Option<Value>,
}

/// Something that is written through the API.
pub trait Audited {
    /// What kind of thing it is.
    const RESOURCE: &'static str;

    fn key(&self) -> String;

    /// What the API shows of it.
    fn facts(&self) -> Option<Value>;
}

/// What the log calls being signed in; its id is that of the user.
pub(super) const SESSION: &str = "session";
/// What the log calls a call that is up.
pub(super) const CALL: &str = "call";
/// What isn't asked when a call is routed: no other instance has to hear of it.
const NO_CONFIGURATION: &[&str] =
    &[call_log::Model::RESOURCE, api_token::Model::RESOURCE, Findings::RESOURCE, SESSION, CALL];
/// Columns that hold these have this much room.
const LONGEST_PATH: usize = 200;
/// Stands for the method of what came from the command line.
const COMMAND: &str = "COMMAND";

impl Origin {
    pub fn of(request: &Request) -> Self {
        Self {
            address: peer(request),
            method: request.method().to_string(),
            path: request.original_uri().path().chars().take(LONGEST_PATH).collect(),
        }
    }

    /// A command of `capconduit`, such as `user create`.
    pub fn command(command: &str) -> Self {
        let path = format!("capconduit {command}");
        Self { address: None, method: COMMAND.to_owned(), path }
    }
}

impl From<&user::Model> for Author {
    fn from(user: &user::Model) -> Self {
        Self::User { id: user.id, name: user.username.clone(), role: user.role }
    }
}

impl<K: Kind> Caller<K> {
    /// Begins a write of this caller.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub async fn begin_write(&self) -> Result<Write, DbErr> {
        Write::begin(&self.backend.db, Author::from(&self.user), self.origin.clone()).await
    }
}

impl Write {
    /// # Errors
    /// When the database can't be written to.
    pub async fn begin(
        db: &DatabaseConnection,
        author: Author,
        origin: Origin,
    ) -> Result<Self, DbErr> {
        Ok(Self { txn: db::begin_write(db).await?, author, origin })
    }

    /// Notes what was changed, and makes it last.
    ///
    /// # Errors
    /// When the database refuses; then nothing was changed.
    pub async fn commit(self, change: Change) -> Result<(), DbErr> {
        self.commit_after(change, || Ok::<_, DbErr>(())).await
    }

    /// The same, with a deed outside the database as the last step before the
    /// commit: nothing is done that couldn't be noted, nor noted if it fails.
    ///
    /// # Errors
    /// When the database refuses, or the deed fails.
    pub async fn commit_after<E: From<DbErr>>(
        self,
        change: Change,
        deed: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let is_configuration = !NO_CONFIGURATION.contains(&change.resource);
        let entry = self.entry(change);
        audit_entry::Entity::insert(entry).exec_without_returning(&self.txn).await?;
        if is_configuration {
            configuration::note_change(&self.txn).await?;
        }
        deed()?;
        Ok(self.txn.commit().await?)
    }

    fn entry(&self, change: Change) -> audit_entry::ActiveModel {
        let (user_id, username, role) = match &self.author {
            Author::User { id, name, role } => (Some(*id), Some(name.clone()), Some(*role)),
            Author::Dialplan | Author::CommandLine => (None, None, None),
        };
        audit_entry::ActiveModel {
            id: ActiveValue::NotSet,
            user_id: Set(user_id),
            username: Set(username),
            role: Set(role),
            address: Set(self.origin.address.map(|address| address.to_string())),
            method: Set(self.origin.method.clone()),
            path: Set(self.origin.path.clone()),
            resource: Set(change.resource.to_owned()),
            resource_id: Set(change.id),
            before: Set(change.before),
            after: Set(change.after),
            created_at: Set(clock::now()),
        }
    }
}

impl Change {
    /// Something happened to a thing of which nothing can be shown.
    pub fn to(resource: &'static str, id: impl ToString) -> Self {
        Self { resource, id: id.to_string(), before: None, after: None }
    }

    pub fn created<T: Audited>(thing: &T) -> Self {
        Self { after: thing.facts(), ..Self::to(T::RESOURCE, thing.key()) }
    }

    pub fn updated<T: Audited>(before: &T, after: &T) -> Self {
        Self { before: before.facts(), ..Self::created(after) }
    }

    pub fn deleted<T: Audited>(thing: &T) -> Self {
        Self { before: thing.facts(), ..Self::to(T::RESOURCE, thing.key()) }
    }

    /// A part of a thing was replaced.
    pub fn replaced(self, before: Value, after: Value) -> Self {
        Self { before: Some(before), after: Some(after), ..self }
    }

    /// Why it was done, if that was said.
    pub fn because(self, reason: Option<String>) -> Self {
        let after = reason.map(|reason| json!({"reason": reason}));
        Self { after: after.or(self.after), ..self }
    }

    /// A password was set, where `is_so`: all that may be said of it.
    pub fn with_new_password(mut self, is_so: bool) -> Self {
        if is_so {
            let after = self.after.get_or_insert_with(|| Value::Object(Map::new()));
            after["passwordChanged"] = Value::Bool(true);
        }
        self
    }
}

/// What an answer shows.
pub fn shown(answer: &impl ToJSON) -> Option<Value> {
    answer.to_json()
}

pub struct AuditApi;

/// One write.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct AuditEntry {
    id: i64,
    created_at: Stamp,
    /// Who wrote; `null` for the dialplan and for the command line, which have no account.
    #[oai(nullable)]
    user: Option<AuditUser>,
    /// The address that the request came from; `null` for the command line.
    #[oai(nullable)]
    address: Option<String>,
    /// The request's method; `COMMAND` for the command line.
    method: String,
    /// The request's path, or the command.
    path: String,
    /// What kind of thing was written, such as `client`.
    resource: String,
    resource_id: String,
    /// How it was, without secrets; `null` if it wasn't there.
    #[oai(nullable)]
    before: Option<Any<Value>>,
    /// How it is since, without secrets; `null` if it isn't there any more.
    #[oai(nullable)]
    after: Option<Any<Value>>,
}

/// An account as it was at the time.
#[derive(Object)]
struct AuditUser {
    id: i64,
    username: String,
    role: Word<Role>,
}

#[OpenApi(prefix_path = "/api/admin/audit", tag = "AdminTag::Audit")]
impl AuditApi {
    /// List who changed what
    ///
    /// Newest first, for admins alone. `path` is what the request's path
    /// begins with. Dates are days in UTC, both included.
    #[oai(path = "/", method = "get", operation_id = "listAuditLog")]
    #[expect(clippy::too_many_arguments, reason = "each parameter is a filter of its own")]
    async fn list(
        &self,
        caller: Admin,
        user_id: Query<Asked<IdFilter>>,
        path: Query<Asked<PathPrefix>>,
        start_date: Query<Asked<NaiveDate>>,
        end_date: Query<Asked<NaiveDate>>,
        page: Query<Asked<PageNumber>>,
        per_page: Query<Asked<PerPage>>,
    ) -> Result<Json<Page<AuditEntry>>, Refusal<List>> {
        let mut errors = FieldErrors::default();
        let paging = Paging::asked(page.0, per_page.0, &mut errors);
        let days = Days::asked(start_date.0, end_date.0, &mut errors);
        let filter = Filter {
            user: user_id.0.or_complain("user_id", &mut errors).map(|id| id.0),
            path: path.0.or_complain("path", &mut errors).map(|path| path.0),
            from: days.from,
            until: days.until,
        };
        errors.into_result()?;
        let slice = paging.select(filter.query(), &caller.backend.db).await?;
        Ok(Json(paging.page(slice, AuditEntry::from)))
    }
}

impl From<audit_entry::Model> for AuditEntry {
    fn from(row: audit_entry::Model) -> Self {
        let user = row.user_id.zip(row.username).zip(row.role);
        Self {
            id: row.id,
            created_at: row.created_at.into(),
            user: user.map(|((id, username), role)| AuditUser { id, username, role: Word(role) }),
            address: row.address,
            method: row.method,
            path: row.path,
            resource: row.resource,
            resource_id: row.resource_id,
            before: row.before.map(Any),
            after: row.after.map(Any),
        }
    }
}
