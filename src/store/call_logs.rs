//! Call logs, newest first.

use capconduit_entity::{CallStatus, call_attempt, call_log};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select,
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
    pub fn query(&self) -> Select<call_log::Entity> {
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
        let query = call_log::Entity::find().order_by_desc(column.id);
        conditions.into_iter().flatten().fold(query, Select::filter)
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
