//! Past calls, and what was in use when they were decided.

use std::collections::{HashMap, HashSet};

use capconduit_entity::{call_attempt, call_log};
use futures_util::TryStreamExt;
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter,
    QueryOrder, QuerySelect, Select, StreamTrait,
};

use super::records::{counted, scope_column};
use crate::call::CallRecord;
use crate::call::outcome::{Outcome, cause};
use crate::call::record::{Attempt, End};
use crate::capacity::{COUNTED_BACK, Correction, Scope, Slot};
use crate::clock::Timestamp;
use crate::ids::{CallId, CampaignId, ClientId, DidId, LinkId, SellerId};
use crate::replay::in_use::Open;
use crate::replay::{InUse, campaign_of};
use crate::routing::{Campaign, Snapshot};

/// No call is longer, as far as is looked for those that were up at a moment.
const LONGEST_CALL: chrono::TimeDelta = chrono::TimeDelta::hours(24);

/// The record of a call that is over; none if there is none.
///
/// # Errors
/// When the database can't be read, or the record can't.
pub async fn find(db: &impl ConnectionTrait, call: CallId) -> Result<Option<CallRecord>, DbErr> {
    let logs = call_log::Entity::find().filter(call_log::Column::CallId.eq(call.0)).all(db).await?;
    Ok(with_attempts(db, logs).await?.pop())
}

/// What was in use at `at`: of these scopes the answered calls, of all the open attempts.
///
/// The call that is asked for takes no part, nor do those that are still up: they have no
/// log yet.
///
/// # Errors
/// When the database can't be read.
pub async fn in_use(
    db: &(impl ConnectionTrait + StreamTrait),
    at: Timestamp,
    scopes: &HashSet<Scope>,
    but: Option<CallId>,
) -> Result<InUse, DbErr> {
    let open = open_at(db, at, but).await?;
    let counted_as_open: HashSet<CallId> = open
        .iter()
        .filter(|open| open.answered_at.is_some_and(|answered| answered <= at))
        .map(|open| open.standing.hold.call)
        .collect();
    let mut used = Vec::new();
    for scope in scopes {
        used.push(used_of(db, *scope, at, &counted_as_open).await?);
    }
    Ok(InUse { used, open, cursors: Vec::new() })
}

/// The link out of these that was offered a call last before `at`.
///
/// # Errors
/// When the database can't be read.
pub async fn last_offered(
    db: &impl ConnectionTrait,
    links: impl IntoIterator<Item = LinkId>,
    at: Timestamp,
) -> Result<Option<LinkId>, DbErr> {
    let last: Option<i64> = call_attempt::Entity::find()
        .select_only()
        .column(call_attempt::Column::CampaignClientSettingId)
        .filter(
            call_attempt::Column::CampaignClientSettingId
                .is_in(links.into_iter().map(|link| link.0)),
        )
        .filter(call_attempt::Column::StartedAt.lt(at))
        .order_by_desc(call_attempt::Column::StartedAt)
        .order_by_desc(call_attempt::Column::Id)
        .into_tuple()
        .one(db)
        .await?;
    Ok(last.map(LinkId))
}

/// Why past calls weren't read.
#[derive(Debug)]
pub enum Unread {
    TooMany,
    Database(DbErr),
}

impl From<DbErr> for Unread {
    fn from(err: DbErr) -> Self {
        Self::Database(err)
    }
}

/// The records of the calls that came from `from` until before `to`, in order.
///
/// # Errors
/// When there are more than `most`, or the database can't be read.
pub async fn between(
    db: &impl ConnectionTrait,
    from: Timestamp,
    to: Timestamp,
    most: u64,
) -> Result<Vec<CallRecord>, Unread> {
    let logs = call_log::Entity::find()
        .filter(call_log::Column::TimestampStart.gte(from))
        .filter(call_log::Column::TimestampStart.lt(to))
        .order_by_asc(call_log::Column::TimestampStart)
        .order_by_asc(call_log::Column::Id)
        .limit(most + 1)
        .all(db)
        .await?;
    if logs.len() as u64 > most {
        return Err(Unread::TooMany);
    }
    Ok(with_attempts(db, logs).await?)
}

/// What was in use before these calls came, of all that they may count in by these configurations.
///
/// # Errors
/// When the database can't be read.
pub async fn before(
    db: &(impl ConnectionTrait + StreamTrait),
    at: Timestamp,
    records: &[CallRecord],
    configurations: [&Snapshot; 2],
) -> Result<InUse, DbErr> {
    let mut campaigns: HashMap<CampaignId, Vec<LinkId>> = HashMap::new();
    let mut scopes = HashSet::new();
    let mut numbers = HashSet::new();
    for record in records.iter().filter(|record| numbers.insert(&record.dialled)) {
        for campaign in configurations.into_iter().filter_map(|c| campaign_of(record, c)) {
            scopes.extend(counted_in(&campaign, at));
            let links = campaign.links.iter().map(|link| link.id).collect();
            campaigns.insert(campaign.id, links);
        }
    }
    let mut in_use = in_use(db, at, &scopes, None).await?;
    for (campaign, links) in campaigns {
        let cursor = last_offered(db, links, at).await?;
        in_use.cursors.extend(cursor.map(|link| (campaign, link)));
    }
    Ok(in_use)
}

/// What has a cap on volume, of all that calls of the campaign count in.
pub fn counted_in(campaign: &Campaign, at: Timestamp) -> HashSet<Scope> {
    let claims = campaign.links.iter().flat_map(|link| link.candidate(at).claims);
    let capped = claims.filter(|claim| claim.volume.iter().any(Option::is_some));
    capped.map(|claim| claim.scope).collect()
}

async fn open_at(
    db: &impl ConnectionTrait,
    at: Timestamp,
    but: Option<CallId>,
) -> Result<Vec<Open>, DbErr> {
    let logs = call_log::Entity::find()
        .filter(call_log::Column::TimestampStart.gte(at - LONGEST_CALL))
        .filter(call_log::Column::TimestampStart.lt(at))
        .filter(call_log::Column::TimestampEnd.gt(at))
        .all(db)
        .await?;
    let records = with_attempts(db, logs).await?;
    let others = records.iter().filter(|record| Some(record.call) != but);
    Ok(others
        .flat_map(|record| {
            let spans = |attempt: &&Attempt| {
                attempt.held_at < at && attempt.ended_at.is_some_and(|ended| ended > at)
            };
            let spanning = record.attempts.iter().filter(spans);
            spanning.filter_map(move |attempt| Open::of(record, attempt, at))
        })
        .collect())
}

/// The calls of a scope that had been answered by `at`, but for these.
async fn used_of(
    db: &(impl ConnectionTrait + StreamTrait),
    scope: Scope,
    at: Timestamp,
    but: &HashSet<CallId>,
) -> Result<Correction, DbErr> {
    let answered_by_then = |query: Select<call_log::Entity>| {
        let answered = call_log::Column::TimestampAnswered;
        query
            .filter(scope_column(scope.kind).eq(scope.id))
            .filter(call_log::Column::HeldAt.lt(at))
            .filter(Condition::any().add(answered.lte(at)).add(answered.is_null()))
    };
    let mut slots: HashMap<Slot, i64> = HashMap::new();
    let mut newer = answered_by_then(counted())
        .select_only()
        .columns([call_log::Column::CallId, call_log::Column::HeldAt])
        .filter(call_log::Column::HeldAt.gte(at - COUNTED_BACK))
        .into_tuple::<(uuid::Uuid, Timestamp)>()
        .stream(db)
        .await?;
    while let Some((call, held_at)) = newer.try_next().await? {
        if !but.contains(&CallId(call)) {
            *slots.entry(Slot::of(held_at)).or_default() += 1;
        }
    }
    drop(newer);
    let older = answered_by_then(counted())
        .filter(call_log::Column::HeldAt.lt(at - COUNTED_BACK))
        .count(db)
        .await?;
    let total = slots.values().sum::<i64>() + i64::try_from(older).unwrap_or(i64::MAX);
    Ok(Correction { scope, total, slots: slots.into_iter().collect() })
}

/// Values that one statement may name, in either database.
const NAMED: usize = 500;

/// Logs as the records that they were made of.
async fn with_attempts(
    db: &impl ConnectionTrait,
    logs: Vec<call_log::Model>,
) -> Result<Vec<CallRecord>, DbErr> {
    let mut attempts: HashMap<i64, Vec<Attempt>> = HashMap::new();
    for some in logs.chunks(NAMED) {
        let rows = call_attempt::Entity::find()
            .filter(call_attempt::Column::CallLogId.is_in(some.iter().map(|log| log.id)))
            .order_by_asc(call_attempt::Column::Position)
            .all(db)
            .await?;
        for row in rows {
            attempts.entry(row.call_log_id).or_default().push(attempt(row));
        }
    }
    logs.into_iter()
        .map(|log| {
            let attempts = attempts.remove(&log.id).unwrap_or_default();
            record(log, attempts)
        })
        .collect()
}

fn record(log: call_log::Model, attempts: Vec<Attempt>) -> Result<CallRecord, DbErr> {
    let trace = serde_json::from_value(log.trace).map_err(|err| {
        DbErr::Json(format!("the trace of call {} can't be read: {err}", log.call_id))
    })?;
    let outcome = Outcome { status: log.call_status, reason: log.reason };
    let end = End { at: log.timestamp_end, outcome, cause: log.hangup_cause_code };
    let campaign = log.campaign_id.map(CampaignId);
    let text = log.hangup_cause_text;
    Ok(CallRecord {
        call: CallId(log.call_id),
        channel: log.asterisk_uniqueid,
        linked_channel: log.asterisk_linkedid,
        dialled: log.incoming_did_number,
        caller_number: log.caller_id_num,
        caller_name: log.caller_id_name,
        seller: log.user_id.map(SellerId),
        did: log.did_id.map(DidId),
        campaign: campaign.map(|id| (id, log.campaign_name.unwrap_or_default())),
        started_at: log.timestamp_start,
        answered_at: log.timestamp_answered,
        attempts,
        trace,
        unseen_since: None,
        ending: None,
        hung_up: (text != cause::text(end.cause)).then_some(text),
        end: Some(end),
    })
}

fn attempt(row: call_attempt::Model) -> Attempt {
    Attempt {
        position: u32::try_from(row.position).unwrap_or(0),
        link: LinkId(row.campaign_client_setting_id),
        client: ClientId(row.client_id),
        client_name: row.client_name,
        client_identifier: row.client_identifier,
        held_at: row.started_at,
        dialled_at: None,
        ringing_at: row.ringing_at,
        answered_at: row.answered_at,
        ended_at: Some(row.ended_at),
        result: Some(row.result),
        cause: row.cause_code,
        sip: row.sip_code,
    }
}
