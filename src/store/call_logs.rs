//! Call logs, newest first.

use capconduit_entity::{CallReason, CallStatus, call_attempt, call_log};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, DbErr, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, Select,
};

use crate::clock::Timestamp;

/// Which logs are asked for; none = any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub seller: Option<i64>,
    /// Calls that began at or after this.
    pub from: Option<Timestamp>,
    /// Calls that began before this.
    pub until: Option<Timestamp>,
    pub campaign: Option<i64>,
    pub did: Option<i64>,
    pub client: Option<i64>,
    pub status: Option<CallStatus>,
    /// Logs older than this one: ids grow, so a list from here stays as it is while calls end.
    pub before_id: Option<i64>,
}

impl Filter {
    /// Newest first.
    pub fn query(&self) -> Select<call_log::Entity> {
        self.unordered().order_by_desc(call_log::COLUMN.id)
    }

    fn unordered(&self) -> Select<call_log::Entity> {
        let column = call_log::COLUMN;
        let conditions = [
            self.seller.map(|id| column.user_id.eq(id)),
            self.from.map(|from| column.timestamp_start.gte(from)),
            self.until.map(|until| column.timestamp_start.lt(until)),
            self.campaign.map(|id| column.campaign_id.eq(id)),
            self.did.map(|id| column.did_id.eq(id)),
            self.client.map(|id| column.client_id.eq(id)),
            self.status.map(|status| column.call_status.eq(status)),
            self.before_id.map(|id| column.id.lt(id)),
        ];
        conditions.into_iter().flatten().fold(call_log::Entity::find(), Select::filter)
    }
}

/// The logs that follow in a filtered list, at most `limit`.
pub async fn next(
    db: &impl ConnectionTrait,
    filter: &Filter,
    limit: u64,
) -> Result<Vec<call_log::Model>, DbErr> {
    filter.query().limit(limit).all(db).await
}

/// One log; of one seller, or of all.
pub async fn find(
    db: &impl ConnectionTrait,
    seller: Option<i64>,
    id: i64,
) -> Result<Option<call_log::Model>, DbErr> {
    let filter = Filter { seller, ..Filter::default() };
    filter.query().filter(call_log::COLUMN.id.eq(id)).one(db).await
}

/// Calls that came in the same minute and ended alike.
#[derive(Clone, Copy, Debug)]
pub struct Came {
    /// When the minute began.
    pub minute: Timestamp,
    /// Whether a dialplan led them and reported them, see [`crate::ids::CallId::of_channel`].
    pub reported: bool,
    pub status: CallStatus,
    pub reason: CallReason,
    pub calls: u64,
}

/// The calls that came since `from`, counted by minute; of one seller, or of all.
///
/// # Errors
/// When the database can't be read.
pub async fn came(
    db: &impl ConnectionTrait,
    seller: Option<i64>,
    from: Timestamp,
) -> Result<Vec<Came>, DbErr> {
    // Minutes since 1970 and the version of the call's id, in words of either database.
    let (minute, version) = match db.get_database_backend() {
        DbBackend::Postgres => (
            "CAST(FLOOR(EXTRACT(EPOCH FROM timestamp_start) / 60) AS BIGINT)",
            "substr(CAST(call_id AS TEXT), 15, 1)",
        ),
        _ => {
            ("CAST(strftime('%s', timestamp_start) AS INTEGER) / 60", "substr(hex(call_id), 13, 1)")
        }
    };
    let filter = Filter { seller, from: Some(from), ..Filter::default() };
    let rows: Vec<(i64, String, CallStatus, CallReason, i64)> = filter
        .unordered()
        .select_only()
        .column_as(Expr::cust(minute), "minute")
        .column_as(Expr::cust(version), "version")
        .column(call_log::Column::CallStatus)
        .column(call_log::Column::Reason)
        .column_as(call_log::Column::Id.count(), "calls")
        .group_by(Expr::cust(minute))
        .group_by(Expr::cust(version))
        .group_by(call_log::Column::CallStatus)
        .group_by(call_log::Column::Reason)
        .order_by_asc(Expr::cust(minute))
        .order_by_asc(call_log::Column::CallStatus)
        .into_tuple()
        .all(db)
        .await?;
    let came = |(minute, version, status, reason, calls): (i64, String, _, _, i64)| {
        let minute = Timestamp::from_timestamp(minute.checked_mul(60)?, 0)?;
        let reported = version == "8";
        Some(Came { minute, reported, status, reason, calls: calls.unsigned_abs() })
    };
    Ok(rows.into_iter().filter_map(came).collect())
}

/// The attempts of a call, in order.
pub async fn attempts(
    db: &impl ConnectionTrait,
    log: i64,
) -> Result<Vec<call_attempt::Model>, DbErr> {
    call_attempt::Entity::find()
        .filter(call_attempt::COLUMN.call_log_id.eq(log))
        .order_by_asc(call_attempt::COLUMN.position)
        .all(db)
        .await
}
