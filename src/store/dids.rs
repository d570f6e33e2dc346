//! Sellers' numbers. Every query is bound to the seller.

use std::collections::HashMap;

use capconduit_entity::{Status, campaign_did, did};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, Select};

/// A seller's DIDs by id, of one status or all.
pub fn list(seller: i64, status: Option<Status>) -> Select<did::Entity> {
    let query =
        did::Entity::find().filter(did::COLUMN.user_id.eq(seller)).order_by_asc(did::COLUMN.id);
    match status {
        Some(status) => query.filter(did::COLUMN.status.eq(status)),
        None => query,
    }
}

pub async fn find(
    db: &impl ConnectionTrait,
    seller: i64,
    id: i64,
) -> Result<Option<did::Model>, DbErr> {
    did::Entity::find_by_id(id).filter(did::COLUMN.user_id.eq(seller)).one(db).await
}

/// Which of these are the seller's, by id.
pub async fn find_many(
    db: &impl ConnectionTrait,
    seller: i64,
    ids: Vec<i64>,
) -> Result<HashMap<i64, did::Model>, DbErr> {
    let dids = list(seller, None).filter(did::COLUMN.id.is_in(ids)).all(db).await?;
    Ok(dids.into_iter().map(|did| (did.id, did)).collect())
}

/// The DIDs of a campaign, by id.
pub async fn of_campaign(
    db: &impl ConnectionTrait,
    campaign: i64,
) -> Result<Vec<did::Model>, DbErr> {
    let named = campaign_did::Entity::find()
        .filter(campaign_did::COLUMN.campaign_id.eq(campaign))
        .all(db)
        .await?;
    did::Entity::find()
        .filter(did::COLUMN.id.is_in(named.into_iter().map(|row| row.did_id)))
        .order_by_asc(did::COLUMN.id)
        .all(db)
        .await
}
