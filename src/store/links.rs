//! Links of campaigns to clients.

use capconduit_entity::link;
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};

/// The links of a campaign, by id.
pub async fn of_campaign(
    db: &impl ConnectionTrait,
    campaign: i64,
) -> Result<Vec<link::Model>, DbErr> {
    link::Entity::find()
        .filter(link::COLUMN.campaign_id.eq(campaign))
        .order_by_asc(link::COLUMN.id)
        .all(db)
        .await
}

/// A link of this campaign, locked until the transaction ends.
pub async fn find_locked(
    txn: &DatabaseTransaction,
    campaign: i64,
    id: i64,
) -> Result<Option<link::Model>, DbErr> {
    link::Entity::find_by_id(id)
        .filter(link::COLUMN.campaign_id.eq(campaign))
        .lock_exclusive()
        .one(txn)
        .await
}

pub async fn delete(txn: &DatabaseTransaction, id: i64) -> Result<(), DbErr> {
    link::Entity::delete_by_id(id).exec(txn).await.map(drop)
}
