//! What the report of a call names, over all sellers.

use capconduit_entity::{E164, campaign, client, did, link};
use sea_orm::{ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, QuerySelect};

/// A link, which stays until the transaction ends.
pub async fn link(txn: &DatabaseTransaction, id: i64) -> Result<Option<link::Model>, DbErr> {
    link::Entity::find_by_id(id).lock_shared().one(txn).await
}

pub async fn client(txn: &DatabaseTransaction, id: i64) -> Result<Option<client::Model>, DbErr> {
    client::Entity::find_by_id(id).one(txn).await
}

pub async fn campaign(
    txn: &DatabaseTransaction,
    id: i64,
) -> Result<Option<campaign::Model>, DbErr> {
    campaign::Entity::find_by_id(id).one(txn).await
}

pub async fn did(txn: &DatabaseTransaction, id: i64) -> Result<Option<did::Model>, DbErr> {
    did::Entity::find_by_id(id).one(txn).await
}

pub async fn did_of_number(
    txn: &DatabaseTransaction,
    number: E164,
) -> Result<Option<did::Model>, DbErr> {
    did::Entity::find().filter(did::Column::Number.eq(number)).one(txn).await
}
