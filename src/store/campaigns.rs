//! Sellers' campaigns and which DIDs they answer. Every query is bound to the seller.

use std::collections::HashMap;

use capconduit_entity::{CampaignStatus, campaign, campaign_did};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, Select, Set,
};

/// A seller's campaigns by id, of one status or all.
pub fn list(seller: i64, status: Option<CampaignStatus>) -> Select<campaign::Entity> {
    let query = campaign::Entity::find()
        .filter(campaign::COLUMN.user_id.eq(seller))
        .order_by_asc(campaign::COLUMN.id);
    match status {
        Some(status) => query.filter(campaign::COLUMN.status.eq(status)),
        None => query,
    }
}

pub async fn find(
    db: &impl ConnectionTrait,
    seller: i64,
    id: i64,
) -> Result<Option<campaign::Model>, DbErr> {
    by_id(seller, id).one(db).await
}

/// Campaigns of any seller, by id.
///
/// # Errors
/// When the database can't be read.
pub async fn find_many(
    db: &impl ConnectionTrait,
    ids: Vec<i64>,
) -> Result<HashMap<i64, campaign::Model>, DbErr> {
    let rows = campaign::Entity::find().filter(campaign::COLUMN.id.is_in(ids)).all(db).await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

/// The campaign, locked until the transaction ends.
pub async fn find_locked(
    txn: &DatabaseTransaction,
    seller: i64,
    id: i64,
) -> Result<Option<campaign::Model>, DbErr> {
    by_id(seller, id).lock_exclusive().one(txn).await
}

fn by_id(seller: i64, id: i64) -> Select<campaign::Entity> {
    campaign::Entity::find_by_id(id).filter(campaign::COLUMN.user_id.eq(seller))
}

/// Keeps `active_did_id` in step with a campaign's status.
///
/// # Errors
/// A unique violation, where one of its DIDs has another active campaign.
pub async fn claim_dids(
    txn: &DatabaseTransaction,
    campaign: i64,
    status: CampaignStatus,
) -> Result<(), DbErr> {
    let claimed = match status {
        CampaignStatus::Active => Expr::col(campaign_did::Column::DidId),
        CampaignStatus::Inactive | CampaignStatus::Paused => Expr::value(None::<i64>),
    };
    campaign_did::Entity::update_many()
        .col_expr(campaign_did::Column::ActiveDidId, claimed)
        .filter(campaign_did::COLUMN.campaign_id.eq(campaign))
        .exec(txn)
        .await
        .map(drop)
}

/// Replaces the DIDs of a campaign.
///
/// # Errors
/// As [`claim_dids`].
pub async fn replace_dids(
    txn: &DatabaseTransaction,
    campaign: &campaign::Model,
    dids: impl IntoIterator<Item = i64>,
) -> Result<(), DbErr> {
    campaign_did::Entity::delete_many()
        .filter(campaign_did::COLUMN.campaign_id.eq(campaign.id))
        .exec(txn)
        .await?;
    let rows: Vec<_> = dids
        .into_iter()
        .map(|did| campaign_did::ActiveModel {
            campaign_id: Set(campaign.id),
            did_id: Set(did),
            active_did_id: Set((campaign.status == CampaignStatus::Active).then_some(did)),
        })
        .collect();
    if !rows.is_empty() {
        campaign_did::Entity::insert_many(rows).exec_without_returning(txn).await?;
    }
    Ok(())
}
