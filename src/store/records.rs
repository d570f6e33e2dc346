//! Writes call records, and reads back from them what the ledger has to know.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use capconduit_entity::{CallStatus, call_attempt, call_log};
use futures_util::TryStreamExt;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, ConnectionTrait, DatabaseConnection, DbErr, EntityTrait, FromQueryResult,
    QueryFilter, QueryOrder, QuerySelect, Select, StreamTrait,
};

use crate::call::CallRecord;
use crate::call::outcome::cause;
use crate::call::record::{Attempt, End};
use crate::capacity::{Book, COUNTED_BACK, Scope, ScopeKind, Slot, Window};
use crate::clock::{self, Timestamp};
use crate::db::begin_write;
use crate::ids::LinkId;

/// Rows of attempts in one statement: a fifth of the values that SQLite takes in one.
const ROWS: usize = 500;

/// Inserts final records with their attempts. One that is there already is left as it is.
///
/// # Errors
/// When the database refuses or can't be reached: then nothing was inserted.
pub async fn insert(db: &DatabaseConnection, records: &[Arc<CallRecord>]) -> Result<(), DbErr> {
    let txn = begin_write(db).await?;
    let calls = records.iter().map(|record| record.call.0);
    let known: HashSet<_> = call_log::Entity::find()
        .select_only()
        .column(call_log::Column::CallId)
        .filter(call_log::Column::CallId.is_in(calls))
        .into_tuple::<uuid::Uuid>()
        .all(&txn)
        .await?
        .into_iter()
        .collect();
    let created_at = clock::now();
    let mut rows = Vec::new();
    for record in records.iter().filter(|record| !known.contains(&record.call.0)) {
        if let Some(end) = &record.end {
            rows.push((log_row(record, end, created_at)?, &**record, end));
        }
    }
    insert_rows(&txn, rows).await?;
    txn.commit().await
}

/// Inserts call logs and the attempts of their records; what is inserted now, and wasn't
/// there. However many these are, it takes the time of a few statements.
async fn insert_rows(
    txn: &impl ConnectionTrait,
    rows: Vec<(call_log::ActiveModel, &CallRecord, &End)>,
) -> Result<Vec<call_log::Model>, DbErr> {
    let (rows, records): (Vec<_>, Vec<_>) =
        rows.into_iter().map(|(row, record, end)| (row, (record, end))).unzip();
    // Where another writer was first, the record is there, and whole.
    let unless_there = OnConflict::column(call_log::Column::CallId).do_nothing().to_owned();
    let logs = call_log::Entity::insert_many(rows)
        .on_conflict(unless_there)
        .exec_with_returning(txn)
        .await?;
    let mut ids: HashMap<_, _> = logs.iter().map(|log| (log.call_id, log.id)).collect();
    let mut attempts = Vec::new();
    for (record, end) in records {
        if let Some(id) = ids.remove(&record.call.0) {
            attempts.extend(record.attempts.iter().map(|attempt| attempt_row(id, attempt, end)));
        }
    }
    for some in attempts.chunks(ROWS) {
        let some = some.iter().cloned();
        call_attempt::Entity::insert_many(some).exec_without_returning(txn).await?;
    }
    Ok(logs)
}

/// What someone else who led a call says of it, beyond what a record holds.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub link: Option<i64>,
    pub client: Option<i64>,
    pub client_name: Option<String>,
    pub client_identifier: Option<String>,
    pub campaign: Option<i64>,
    pub duration_seconds: Option<i64>,
    pub billsec_seconds: Option<i64>,
    pub cause_text: Option<String>,
}

/// Whether there is the log of a call of this channel.
///
/// # Errors
/// When the database can't be read.
pub async fn is_recorded(db: &impl ConnectionTrait, channel: &str) -> Result<bool, DbErr> {
    let log = call_log::Entity::find()
        .select_only()
        .column(call_log::Column::Id)
        .filter(call_log::Column::AsteriskUniqueid.eq(channel))
        .into_tuple::<i64>()
        .one(db)
        .await?;
    Ok(log.is_some())
}

/// Inserts the final record of a call that someone else led; none if it is there already.
///
/// # Errors
/// When the database refuses or can't be reached.
pub async fn insert_told(
    txn: &impl ConnectionTrait,
    record: &CallRecord,
    told: Told,
) -> Result<Option<call_log::Model>, DbErr> {
    let Some(end) = &record.end else { return Ok(None) };
    let mut row = log_row(record, end, clock::now())?;
    row.campaign_client_setting_id = Set(told.link);
    row.client_id = Set(told.client);
    row.client_name = Set(told.client_name);
    row.client_identifier = Set(told.client_identifier);
    if record.campaign.is_none() {
        row.campaign_id = Set(told.campaign);
    }
    if let Some(seconds) = told.duration_seconds {
        row.duration_seconds = Set(seconds);
    }
    if let Some(seconds) = told.billsec_seconds {
        row.billsec_seconds = Set(seconds);
    }
    if let Some(text) = told.cause_text {
        row.hangup_cause_text = Set(text);
    }
    Ok(insert_rows(txn, vec![(row, record, end)]).await?.pop())
}

fn log_row(
    record: &CallRecord,
    end: &End,
    created_at: Timestamp,
) -> Result<call_log::ActiveModel, DbErr> {
    let answered = record.answered_attempt();
    let trace = serde_json::to_value(&record.trace).map_err(|e| DbErr::Json(e.to_string()))?;
    Ok(call_log::ActiveModel {
        id: NotSet,
        call_id: Set(record.call.0),
        user_id: Set(record.seller.map(|id| id.0)),
        campaign_id: Set(record.campaign.as_ref().map(|(id, _)| id.0)),
        campaign_name: Set(record.campaign.as_ref().map(|(_, name)| name.clone())),
        did_id: Set(record.did.map(|id| id.0)),
        client_id: Set(answered.map(|attempt| attempt.client.0)),
        client_name: Set(answered.map(|attempt| attempt.client_name.clone())),
        client_identifier: Set(answered.map(|attempt| attempt.client_identifier.clone())),
        campaign_client_setting_id: Set(answered.map(|attempt| attempt.link.0)),
        incoming_did_number: Set(record.dialled.clone()),
        caller_id_num: Set(record.caller_number.clone()),
        caller_id_name: Set(record.caller_name.clone()),
        timestamp_start: Set(record.started_at),
        timestamp_answered: Set(record.answered_at),
        timestamp_end: Set(end.at),
        held_at: Set(answered.map(|attempt| attempt.held_at)),
        duration_seconds: Set(record.duration_seconds(end)),
        billsec_seconds: Set(record.billed_seconds(end)),
        call_status: Set(end.outcome.status),
        reason: Set(end.outcome.reason),
        hangup_cause_code: Set(end.cause),
        hangup_cause_text: Set(record
            .hung_up
            .clone()
            .unwrap_or_else(|| cause::text(end.cause).to_owned())),
        asterisk_uniqueid: Set(record.channel.clone()),
        asterisk_linkedid: Set(record.linked_channel.clone()),
        trace: Set(trace),
        created_at: Set(created_at),
    })
}

fn attempt_row(call_log_id: i64, attempt: &Attempt, end: &End) -> call_attempt::ActiveModel {
    use capconduit_entity::AttemptResult::Canceled;
    call_attempt::ActiveModel {
        id: NotSet,
        call_log_id: Set(call_log_id),
        position: Set(i32::try_from(attempt.position).unwrap_or(i32::MAX)),
        campaign_client_setting_id: Set(attempt.link.0),
        client_id: Set(attempt.client.0),
        client_name: Set(attempt.client_name.clone()),
        client_identifier: Set(attempt.client_identifier.clone()),
        result: Set(attempt.result.unwrap_or(Canceled)),
        started_at: Set(attempt.held_at),
        ringing_at: Set(attempt.ringing_at),
        answered_at: Set(attempt.answered_at),
        ended_at: Set(attempt.ended_at.unwrap_or(end.at)),
        cause_code: Set(attempt.cause),
        sip_code: Set(attempt.sip),
    }
}

/// The column that names each kind of scope.
pub(super) const fn scope_column(kind: ScopeKind) -> call_log::Column {
    match kind {
        ScopeKind::Link => call_log::Column::CampaignClientSettingId,
        ScopeKind::Client => call_log::Column::ClientId,
        ScopeKind::Campaign => call_log::Column::CampaignId,
        ScopeKind::Seller => call_log::Column::UserId,
    }
}

/// Calls that count: those that a link answered.
///
/// `held_at` is set for them alone, and is in the index where the link isn't.
pub(super) fn counted() -> Select<call_log::Entity> {
    call_log::Entity::find()
        .filter(call_log::Column::CallStatus.eq(CallStatus::Answered))
        .filter(call_log::Column::HeldAt.is_not_null())
}

#[derive(FromQueryResult)]
struct Counted {
    campaign_client_setting_id: Option<i64>,
    client_id: Option<i64>,
    campaign_id: Option<i64>,
    user_id: Option<i64>,
    held_at: Timestamp,
}

impl Counted {
    fn scopes(&self) -> impl Iterator<Item = Scope> {
        let named = [
            (ScopeKind::Link, self.campaign_client_setting_id),
            (ScopeKind::Client, self.client_id),
            (ScopeKind::Campaign, self.campaign_id),
            (ScopeKind::Seller, self.user_id),
        ];
        named.into_iter().filter_map(|(kind, id)| Some(Scope { kind, id: id? }))
    }
}

/// The answered calls of every link, client, campaign and seller, as the ledger
/// wants to know them: also of those that are gone. The calls are counted as they come,
/// for there may be millions.
///
/// # Errors
/// When the database can't be read.
pub async fn answered<C>(db: &C, now: Timestamp) -> Result<Vec<Book>, DbErr>
where
    C: ConnectionTrait + StreamTrait,
{
    let mut slots: HashMap<Scope, BTreeMap<Slot, u32>> = HashMap::new();
    let mut newest = counted()
        .select_only()
        .columns(ScopeKind::ALL.iter().map(|kind| scope_column(*kind)))
        .column(call_log::Column::HeldAt)
        .filter(call_log::Column::HeldAt.gte(now - COUNTED_BACK))
        .into_model::<Counted>()
        .stream(db)
        .await?;
    while let Some(call) = newest.try_next().await? {
        let slot = Slot::of(call.held_at);
        for scope in call.scopes() {
            *slots.entry(scope).or_default().entry(slot).or_default() += 1;
        }
    }
    drop(newest);
    let mut known = Vec::new();
    for &kind in ScopeKind::ALL {
        for (id, total) in totals(db, kind).await? {
            let scope = Scope { kind, id };
            let total = u32::try_from(total).unwrap_or(u32::MAX);
            let slots = slots.remove(&scope).unwrap_or_default().into_iter().collect();
            known.push(Book { scope, total, slots });
        }
    }
    Ok(known)
}

/// How many calls each scope of a kind answered in all.
async fn totals(db: &impl ConnectionTrait, kind: ScopeKind) -> Result<Vec<(i64, i64)>, DbErr> {
    let column = scope_column(kind);
    counted()
        .select_only()
        .column(column)
        .column_as(call_log::Column::HeldAt.count(), "calls")
        .filter(column.is_not_null())
        .group_by(column)
        .into_tuple()
        .all(db)
        .await
}

/// A call that is a used unit of what it counts in.
#[derive(Clone, Debug, FromQueryResult)]
pub struct UsedUnit {
    pub id: i64,
    pub call_id: uuid::Uuid,
    pub campaign_client_setting_id: Option<i64>,
    pub client_id: Option<i64>,
    pub campaign_id: Option<i64>,
    pub user_id: Option<i64>,
    pub held_at: Timestamp,
}

/// The [`UsedUnit`]s of a scope in a window, newest first.
pub fn units_of(scope: Scope, window: Window) -> Select<call_log::Entity> {
    let query = counted()
        .select_only()
        .columns([call_log::Column::Id, call_log::Column::CallId])
        .columns(ScopeKind::ALL.iter().map(|kind| scope_column(*kind)))
        .column(call_log::Column::HeldAt)
        .filter(scope_column(scope.kind).eq(scope.id))
        .filter(call_log::Column::HeldAt.gte(window.start))
        .order_by_desc(call_log::Column::HeldAt)
        .order_by_desc(call_log::Column::Id);
    match window.end {
        Some(end) => query.filter(call_log::Column::HeldAt.lt(end)),
        None => query,
    }
}

#[derive(FromQueryResult)]
struct LastOffer {
    campaign_client_setting_id: i64,
    offered_at: Timestamp,
}

/// When each link was last offered a call: what rotations go on from.
///
/// # Errors
/// When the database can't be read.
pub async fn last_offers(db: &impl ConnectionTrait) -> Result<HashMap<LinkId, Timestamp>, DbErr> {
    let offers = call_attempt::Entity::find()
        .select_only()
        .column(call_attempt::Column::CampaignClientSettingId)
        .column_as(call_attempt::Column::StartedAt.max(), "offered_at")
        .group_by(call_attempt::Column::CampaignClientSettingId)
        .into_model::<LastOffer>()
        .all(db)
        .await?;
    Ok(offers
        .into_iter()
        .map(|offer| (LinkId(offer.campaign_client_setting_id), offer.offered_at))
        .collect())
}
