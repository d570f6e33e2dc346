//! Links of campaigns to clients.

use capconduit_entity::{campaign, link};
use sea_orm::sea_query::Query;
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    Select,
};

/// Which links are asked for; none = any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    pub seller: Option<i64>,
    pub campaign: Option<i64>,
    pub client: Option<i64>,
}

impl Filter {
    /// By client, then by id.
    pub fn query(self) -> Select<link::Entity> {
        let column = link::COLUMN;
        let of_seller = |seller: i64| {
            let campaigns = Query::select()
                .column(campaign::Column::Id)
                .from(campaign::Entity)
                .and_where(campaign::COLUMN.user_id.eq(seller))
                .take();
            column.campaign_id.in_subquery(campaigns)
        };
        let conditions = [
            self.seller.map(of_seller),
            self.campaign.map(|id| column.campaign_id.eq(id)),
            self.client.map(|id| column.client_id.eq(id)),
        ];
        let query = link::Entity::find().order_by_asc(column.client_id).order_by_asc(column.id);
        conditions.into_iter().flatten().fold(query, Select::filter)
    }
}

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
