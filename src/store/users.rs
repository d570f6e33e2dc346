//! Accounts, with the rule that there is always an active admin.

use std::collections::HashMap;

use capconduit_entity::{Role, UserStatus, api_token, campaign, did, session, user};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait,
    IntoActiveModel, ModelTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, Select, Set,
};

use crate::clock::Timestamp;

/// A new active account with nothing but what it must have.
pub fn new_account(
    username: &str,
    email: &str,
    password_hash: String,
    role: Role,
    now: Timestamp,
) -> user::ActiveModel {
    user::ActiveModel {
        username: Set(username.to_owned()),
        email: Set(email.to_owned()),
        password_hash: Set(password_hash),
        role: Set(role),
        status: Set(UserStatus::Active),
        full_name: Set(None),
        company_name: Set(None),
        created_at: Set(now),
        updated_at: Set(now),
        ..Default::default()
    }
}

/// Gives an account another password, and ends its sessions and tokens.
pub async fn set_password(
    txn: &DatabaseTransaction,
    row: user::Model,
    password_hash: String,
    now: Timestamp,
) -> Result<user::Model, DbErr> {
    sign_out_everywhere(txn, row.id).await?;
    let mut row = row.into_active_model();
    row.password_hash = Set(password_hash);
    row.updated_at = Set(now);
    row.update(txn).await
}

/// All accounts, by id.
pub fn all() -> Select<user::Entity> {
    user::Entity::find().order_by_asc(user::COLUMN.id)
}

/// Sellers' accounts, by id.
pub fn sellers() -> Select<user::Entity> {
    all().filter(user::COLUMN.role.eq(Role::User))
}

pub async fn find(db: &impl ConnectionTrait, id: i64) -> Result<Option<user::Model>, DbErr> {
    user::Entity::find_by_id(id).one(db).await
}

/// Accounts by id.
///
/// # Errors
/// When the database can't be read.
pub async fn find_many(
    db: &impl ConnectionTrait,
    ids: Vec<i64>,
) -> Result<HashMap<i64, user::Model>, DbErr> {
    let rows = user::Entity::find().filter(user::COLUMN.id.is_in(ids)).all(db).await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

/// The account, locked until the transaction ends.
pub async fn find_locked(txn: &DatabaseTransaction, id: i64) -> Result<Option<user::Model>, DbErr> {
    user::Entity::find_by_id(id).lock_exclusive().one(txn).await
}

pub async fn find_by_name(
    db: &impl ConnectionTrait,
    username: &str,
) -> Result<Option<user::Model>, DbErr> {
    user::Entity::find().filter(user::COLUMN.username.eq(username)).one(db).await
}

pub async fn exist(db: &impl ConnectionTrait) -> Result<bool, DbErr> {
    Ok(user::Entity::find().count(db).await? > 0)
}

/// The account if it is an active seller's, and stays one until the transaction ends.
pub async fn find_seller_locked(
    txn: &DatabaseTransaction,
    id: i64,
) -> Result<Option<user::Model>, DbErr> {
    user::Entity::find_by_id(id)
        .filter(user::COLUMN.role.eq(Role::User))
        .filter(user::COLUMN.status.eq(UserStatus::Active))
        .lock_shared()
        .one(txn)
        .await
}

/// Whether the account owns DIDs or campaigns.
pub async fn owns_anything(txn: &DatabaseTransaction, id: i64) -> Result<bool, DbErr> {
    let dids = did::Entity::find().filter(did::COLUMN.user_id.eq(id)).count(txn).await?;
    let campaigns =
        campaign::Entity::find().filter(campaign::COLUMN.user_id.eq(id)).count(txn).await?;
    Ok(dids + campaigns > 0)
}

/// The ids of the active admins, locked until the transaction ends.
///
/// Taken before any other account is, so that two admins who demote each other
/// at once neither both succeed nor wait for each other for ever.
pub async fn lock_active_admins(txn: &DatabaseTransaction) -> Result<Vec<i64>, DbErr> {
    let admins = user::Entity::find()
        .filter(user::COLUMN.role.eq(Role::Admin))
        .filter(user::COLUMN.status.eq(UserStatus::Active))
        .order_by_asc(user::COLUMN.id)
        .lock_exclusive()
        .all(txn)
        .await?;
    Ok(admins.into_iter().map(|admin| admin.id).collect())
}

/// Deletes an account, with its sessions and tokens.
pub async fn delete(txn: &DatabaseTransaction, user: user::Model) -> Result<(), DbErr> {
    user.delete(txn).await.map(drop)
}

/// Ends every session and token of an account.
pub async fn sign_out_everywhere(txn: &DatabaseTransaction, user: i64) -> Result<(), DbErr> {
    session::Entity::delete_many().filter(session::COLUMN.user_id.eq(user)).exec(txn).await?;
    api_token::Entity::delete_many().filter(api_token::COLUMN.user_id.eq(user)).exec(txn).await?;
    Ok(())
}
