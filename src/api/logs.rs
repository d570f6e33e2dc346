//! Call logs: a seller's own, and for admins and staff everyone's.

mod answers;
mod csv;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use capconduit_entity::CallStatus;
use chrono::NaiveDate;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};

pub use self::answers::NamedClient;
use self::answers::{CallLog, CallLogDetail, Logs, LogsPage};
use super::access::{Caller, Operator, Seller};
use super::callers::Callers;
use super::input::query::{Days, IdFilter, PageNumber, Parameter, PerPage};
use super::input::{Asked, Word};
use super::page::Paging;
use super::problem::{FieldErrors, List, Problem, Read, Refusal, not_found};
use super::{Backend, Tag};
use crate::store::call_logs::{self, Filter};

pub struct SellerLogsApi;
pub struct AdminLogsApi;

/// What a list of logs is sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Csv,
}

/// Where a list goes on: after the log of this id.
pub struct Cursor(i64);

/// The parameters of a list, as they were sent.
struct Asking {
    start_date: Query<Asked<NaiveDate>>,
    end_date: Query<Asked<NaiveDate>>,
    campaign_id: Query<Asked<IdFilter>>,
    did_id: Query<Asked<IdFilter>>,
    client_id: Query<Asked<IdFilter>>,
    call_status: Query<Asked<Word<CallStatus>>>,
    cursor: Query<Asked<Cursor>>,
    page: Query<Asked<PageNumber>>,
    per_page: Query<Asked<PerPage>>,
    format: Query<Asked<Format>>,
}

/// The parameters of a list, understood.
struct Question {
    filter: Filter,
    paging: Paging,
    format: Format,
}

#[OpenApi(prefix_path = "/api/seller/logs", tag = "Tag::Logs")]
impl SellerLogsApi {
    /// List my calls
    ///
    /// Newest first. Pages by `page`, or by `cursor` for a list that stays
    /// stable while calls end. Dates are days in UTC, both included.
    #[oai(path = "/", method = "get", operation_id = "listMyCallLogs")]
    #[expect(clippy::too_many_arguments, reason = "each parameter is a filter of its own")]
    async fn list(
        &self,
        caller: Seller,
        start_date: Query<Asked<NaiveDate>>,
        end_date: Query<Asked<NaiveDate>>,
        campaign_id: Query<Asked<IdFilter>>,
        did_id: Query<Asked<IdFilter>>,
        client_id: Query<Asked<IdFilter>>,
        call_status: Query<Asked<Word<CallStatus>>>,
        cursor: Query<Asked<Cursor>>,
        page: Query<Asked<PageNumber>>,
        per_page: Query<Asked<PerPage>>,
        format: Query<Asked<Format>>,
    ) -> Result<Logs, Refusal<List>> {
        let asking = Asking {
            start_date,
            end_date,
            campaign_id,
            did_id,
            client_id,
            call_status,
            cursor,
            page,
            per_page,
            format,
        };
        Ok(asking.answer(&caller, Some(caller.user.id), FieldErrors::default()).await?)
    }

    /// Read one of my calls
    ///
    /// With the clients that were tried, and why the call went where it went.
    #[oai(path = "/:id", method = "get", operation_id = "getMyCallLog")]
    async fn get(
        &self,
        caller: Seller,
        id: Path<i64>,
    ) -> Result<Json<CallLogDetail>, Refusal<Read>> {
        Ok(Json(detail(&caller, Some(caller.user.id), id.0).await?))
    }
}

#[OpenApi(prefix_path = "/api/admin/logs", tag = "Tag::Logs")]
impl AdminLogsApi {
    /// List calls of all sellers
    ///
    /// As sellers list their own; also of one seller, by `user_id`.
    #[oai(path = "/", method = "get", operation_id = "listCallLogs")]
    #[expect(clippy::too_many_arguments, reason = "each parameter is a filter of its own")]
    async fn list(
        &self,
        caller: Operator,
        user_id: Query<Asked<IdFilter>>,
        start_date: Query<Asked<NaiveDate>>,
        end_date: Query<Asked<NaiveDate>>,
        campaign_id: Query<Asked<IdFilter>>,
        did_id: Query<Asked<IdFilter>>,
        client_id: Query<Asked<IdFilter>>,
        call_status: Query<Asked<Word<CallStatus>>>,
        cursor: Query<Asked<Cursor>>,
        page: Query<Asked<PageNumber>>,
        per_page: Query<Asked<PerPage>>,
        format: Query<Asked<Format>>,
    ) -> Result<Logs, Refusal<List>> {
        let asking = Asking {
            start_date,
            end_date,
            campaign_id,
            did_id,
            client_id,
            call_status,
            cursor,
            page,
            per_page,
            format,
        };
        let mut errors = FieldErrors::default();
        let seller = user_id.0.or_complain("user_id", &mut errors).map(|id| id.0);
        Ok(asking.answer(&caller, seller, errors).await?)
    }

    /// Read one call
    ///
    /// With the clients that were tried, and why the call went where it went.
    #[oai(path = "/:id", method = "get", operation_id = "getCallLog")]
    async fn get(
        &self,
        caller: Operator,
        id: Path<i64>,
    ) -> Result<Json<CallLogDetail>, Refusal<Read>> {
        Ok(Json(detail(&caller, None, id.0).await?))
    }
}

impl Asking {
    /// The answer, about calls of `seller` only if one is given.
    async fn answer<K>(
        self,
        caller: &Caller<K>,
        seller: Option<i64>,
        errors: FieldErrors,
    ) -> Result<Logs, Problem> {
        let callers = Callers::shown_to(caller.user.role);
        self.understand(seller, errors)?.answer(&caller.backend, callers).await
    }

    fn understand(self, seller: Option<i64>, mut errors: FieldErrors) -> Result<Question, Problem> {
        let e = &mut errors;
        let days = Days::asked(self.start_date.0, self.end_date.0, e);
        let filter = Filter {
            seller,
            from: days.from,
            until: days.until,
            campaign: self.campaign_id.0.or_complain("campaign_id", e).map(|id| id.0),
            did: self.did_id.0.or_complain("did_id", e).map(|id| id.0),
            client: self.client_id.0.or_complain("client_id", e).map(|id| id.0),
            status: self.call_status.0.or_complain("call_status", e).map(|status| status.0),
            before_id: self.cursor.0.or_complain("cursor", e).map(|cursor| cursor.0),
        };
        let paging = Paging::asked(self.page.0, self.per_page.0, e);
        let format = self.format.0.or_complain("format", e).unwrap_or(Format::Json);
        errors.into_result()?;
        Ok(Question { filter, paging, format })
    }
}

impl Question {
    async fn answer(self, backend: &Backend, callers: Callers) -> Result<Logs, Problem> {
        match self.format {
            Format::Csv => Ok(Logs::Csv(csv::stream(backend.db.clone(), self.filter, callers))),
            Format::Json => Ok(Logs::Page(Json(self.page(backend, callers).await?))),
        }
    }

    async fn page(self, backend: &Backend, callers: Callers) -> Result<LogsPage, Problem> {
        let slice = self.paging.select(self.filter.query(), &backend.db).await?;
        let seen = self.paging.offset() + slice.items.len() as u64;
        let last = slice.items.last().filter(|_| seen < slice.total).map(|log| log.id);
        let page = self.paging.page(slice, |log| CallLog::from(callers.of(log)));
        Ok(LogsPage { page, next_cursor: last.map(|id| Cursor(id).text()) })
    }
}

async fn detail<K>(
    caller: &Caller<K>,
    seller: Option<i64>,
    id: i64,
) -> Result<CallLogDetail, Problem> {
    let db = &caller.backend.db;
    let log = call_logs::find(db, seller, id).await?;
    let log = log.ok_or_else(|| not_found("call log", id))?;
    let attempts = call_logs::attempts(db, log.id).await?;
    Ok(CallLogDetail::new(Callers::shown_to(caller.user.role).of(log), attempts))
}

impl Cursor {
    fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("log:{}", self.0))
    }
}

impl Parameter for Cursor {
    fn schema() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            description: Some("The `nextCursor` of the answer that this one follows."),
            ..MetaSchema::new("string")
        }))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let plain = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        plain
            .and_then(|plain| plain.strip_prefix("log:")?.parse().ok())
            .map(Self)
            .ok_or_else(|| "must be a nextCursor of an earlier answer".to_owned())
    }
}

impl Parameter for Format {
    fn schema() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            enum_items: vec!["json".into(), "csv".into()],
            default: Some("json".into()),
            description: Some("`csv` streams the whole list, unpaged."),
            ..MetaSchema::new("string")
        }))
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            _ => Err("must be json or csv".to_owned()),
        }
    }
}
