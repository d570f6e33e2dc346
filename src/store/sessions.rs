//! Signed-in browsers and API tokens: only hashes are stored.

use capconduit_entity::{api_token, session, user};
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, Select, Set,
};

use crate::clock::Timestamp;

/// Whose session this is, if it hasn't expired.
pub async fn user_of_session(
    db: &impl ConnectionTrait,
    id_hash: &str,
    now: Timestamp,
) -> Result<Option<user::Model>, DbErr> {
    let Some(session) = session::Entity::find_by_id(id_hash.to_owned()).one(db).await? else {
        return Ok(None);
    };
    if session.expires_at <= now {
        return Ok(None);
    }
    user::Entity::find_by_id(session.user_id).one(db).await
}

/// Whose token this is.
pub async fn user_of_token(
    db: &impl ConnectionTrait,
    token_hash: &str,
) -> Result<Option<user::Model>, DbErr> {
    let token = api_token::Entity::find()
        .filter(api_token::COLUMN.token_hash.eq(token_hash))
        .one(db)
        .await?;
    match token {
        Some(token) => user::Entity::find_by_id(token.user_id).one(db).await,
        None => Ok(None),
    }
}

/// Begins a session, and forgets those that have expired.
pub async fn begin(
    db: &impl ConnectionTrait,
    user: i64,
    id_hash: String,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<(), DbErr> {
    session::Entity::delete_many().filter(session::COLUMN.expires_at.lte(now)).exec(db).await?;
    let session = session::ActiveModel {
        id_hash: Set(id_hash),
        user_id: Set(user),
        created_at: Set(now),
        expires_at: Set(expires_at),
    };
    session::Entity::insert(session).exec_without_returning(db).await.map(drop)
}

pub async fn end(db: &impl ConnectionTrait, id_hash: &str) -> Result<(), DbErr> {
    session::Entity::delete_by_id(id_hash.to_owned()).exec(db).await.map(drop)
}

/// Ends an account's sessions but the one that is kept, and all its tokens.
pub async fn end_all_but(
    db: &impl ConnectionTrait,
    user: i64,
    kept_hash: &str,
) -> Result<(), DbErr> {
    session::Entity::delete_many()
        .filter(session::COLUMN.user_id.eq(user))
        .filter(session::COLUMN.id_hash.ne(kept_hash))
        .exec(db)
        .await?;
    api_token::Entity::delete_many().filter(api_token::COLUMN.user_id.eq(user)).exec(db).await?;
    Ok(())
}

pub fn tokens(user: i64) -> Select<api_token::Entity> {
    api_token::Entity::find()
        .filter(api_token::COLUMN.user_id.eq(user))
        .order_by_asc(api_token::COLUMN.id)
}

pub async fn create_token(
    db: &impl ConnectionTrait,
    user: i64,
    name: String,
    token_hash: String,
    now: Timestamp,
) -> Result<api_token::Model, DbErr> {
    let token = api_token::ActiveModel {
        user_id: Set(user),
        name: Set(name),
        token_hash: Set(token_hash),
        created_at: Set(now),
        ..Default::default()
    };
    token.insert(db).await
}

pub async fn find_token(
    db: &impl ConnectionTrait,
    user: i64,
    id: i64,
) -> Result<Option<api_token::Model>, DbErr> {
    tokens(user).filter(api_token::COLUMN.id.eq(id)).one(db).await
}

/// Deletes a token of this account; false if it has none of that id.
pub async fn delete_token(db: &impl ConnectionTrait, user: i64, id: i64) -> Result<bool, DbErr> {
    let deleted = api_token::Entity::delete_many()
        .filter(api_token::COLUMN.id.eq(id))
        .filter(api_token::COLUMN.user_id.eq(user))
        .exec(db)
        .await?;
    Ok(deleted.rows_affected > 0)
}
