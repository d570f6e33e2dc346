//! Clients with the realtime rows of their endpoints.

use std::collections::HashMap;

use capconduit_entity::{Status, client, pjsip_aor, pjsip_auth, pjsip_endpoint};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait,
    IntoActiveModel, QueryFilter, QueryOrder, QuerySelect, Select, Set,
};

use crate::clock::Timestamp;

/// The rows of one client's PJSIP objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realtime {
    pub endpoint: pjsip_endpoint::Model,
    pub aor: pjsip_aor::Model,
    pub auth: Option<pjsip_auth::Model>,
}

/// Clients by id, of one status or all.
pub fn list(status: Option<Status>) -> Select<client::Entity> {
    let query = client::Entity::find().order_by_asc(client::COLUMN.id);
    match status {
        Some(status) => query.filter(client::COLUMN.status.eq(status)),
        None => query,
    }
}

pub async fn find(db: &impl ConnectionTrait, id: i64) -> Result<Option<client::Model>, DbErr> {
    client::Entity::find_by_id(id).one(db).await
}

/// Which clients there are, and when each was changed last.
///
/// # Errors
/// When the database can't be read.
pub async fn versions(db: &impl ConnectionTrait) -> Result<Vec<(i64, Timestamp)>, DbErr> {
    client::Entity::find()
        .select_only()
        .columns([client::Column::Id, client::Column::UpdatedAt])
        .order_by_asc(client::COLUMN.id)
        .into_tuple()
        .all(db)
        .await
}

/// The client, locked until the transaction ends.
pub async fn find_locked(
    txn: &DatabaseTransaction,
    id: i64,
) -> Result<Option<client::Model>, DbErr> {
    client::Entity::find_by_id(id).lock_exclusive().one(txn).await
}

/// Whether sellers can link this client.
pub async fn is_offered(db: &impl ConnectionTrait, id: i64) -> Result<bool, DbErr> {
    let client = list(Some(Status::Active)).filter(client::COLUMN.id.eq(id)).one(db).await?;
    Ok(client.is_some())
}

/// The clients of these ids, by id.
pub async fn find_many(
    db: &impl ConnectionTrait,
    ids: Vec<i64>,
) -> Result<HashMap<i64, client::Model>, DbErr> {
    let clients = client::Entity::find().filter(client::COLUMN.id.is_in(ids)).all(db).await?;
    Ok(clients.into_iter().map(|client| (client.id, client)).collect())
}

/// The realtime rows of these clients, by client.
pub async fn realtime_rows(
    db: &impl ConnectionTrait,
    clients: &[client::Model],
) -> Result<HashMap<i64, Realtime>, DbErr> {
    let ids = |id: fn(&client::Model) -> Option<&String>| -> Vec<String> {
        clients.iter().filter_map(id).cloned().collect()
    };
    let endpoints = pjsip_endpoint::Entity::find()
        .filter(pjsip_endpoint::COLUMN.id.is_in(ids(|client| Some(&client.endpoint_id))))
        .all(db)
        .await?;
    let aors = pjsip_aor::Entity::find()
        .filter(pjsip_aor::COLUMN.id.is_in(ids(|client| Some(&client.aor_id))))
        .all(db)
        .await?;
    let auths = pjsip_auth::Entity::find()
        .filter(pjsip_auth::COLUMN.id.is_in(ids(|client| client.auth_id.as_ref())))
        .all(db)
        .await?;
    let mut endpoints: HashMap<_, _> =
        endpoints.into_iter().map(|row| (row.id.clone(), row)).collect();
    let mut aors: HashMap<_, _> = aors.into_iter().map(|row| (row.id.clone(), row)).collect();
    let mut auths: HashMap<_, _> = auths.into_iter().map(|row| (row.id.clone(), row)).collect();
    let rows = clients.iter().filter_map(|client| {
        let endpoint = endpoints.remove(&client.endpoint_id)?;
        let aor = aors.remove(&client.aor_id)?;
        let auth = client.auth_id.as_ref().and_then(|id| auths.remove(id));
        Some((client.id, Realtime { endpoint, aor, auth }))
    });
    Ok(rows.collect())
}

/// The realtime rows of one client.
pub async fn realtime_of(
    db: &impl ConnectionTrait,
    client: &client::Model,
) -> Result<Option<Realtime>, DbErr> {
    Ok(realtime_rows(db, std::slice::from_ref(client)).await?.remove(&client.id))
}

/// Creates a client after the rows that it names.
pub async fn insert(
    txn: &DatabaseTransaction,
    mut client: client::ActiveModel,
    realtime: &Realtime,
) -> Result<client::Model, DbErr> {
    insert_endpoint(txn, &realtime.endpoint).await?;
    insert_aor(txn, &realtime.aor).await?;
    if let Some(auth) = &realtime.auth {
        insert_auth(txn, auth).await?;
    }
    name_rows(&mut client, realtime);
    client.insert(txn).await
}

/// Changes a client and its rows. A row whose id changes is made anew, because
/// the client refers to it: first the new row, then the reference, then the old one goes.
pub async fn update(
    txn: &DatabaseTransaction,
    mut client: client::ActiveModel,
    before: &Realtime,
    after: &Realtime,
) -> Result<client::Model, DbErr> {
    if before.endpoint.id != after.endpoint.id {
        insert_endpoint(txn, &after.endpoint).await?;
    } else if before.endpoint != after.endpoint {
        after.endpoint.clone().into_active_model().reset_all().update(txn).await?;
    }
    if before.aor.id != after.aor.id {
        insert_aor(txn, &after.aor).await?;
    } else if before.aor != after.aor {
        after.aor.clone().into_active_model().reset_all().update(txn).await?;
    }
    match (&before.auth, &after.auth) {
        (Some(before), Some(after)) if before.id == after.id => {
            after.clone().into_active_model().reset_all().update(txn).await?;
        }
        (_, Some(after)) => insert_auth(txn, after).await?,
        (_, None) => {}
    }
    name_rows(&mut client, after);
    let client = client.update(txn).await?;
    delete_left_behind(txn, before, after).await?;
    Ok(client)
}

/// Deletes a client, then its rows.
pub async fn delete(txn: &DatabaseTransaction, client: client::Model) -> Result<(), DbErr> {
    client::Entity::delete_by_id(client.id).exec(txn).await?;
    pjsip_endpoint::Entity::delete_by_id(client.endpoint_id).exec(txn).await?;
    pjsip_aor::Entity::delete_by_id(client.aor_id).exec(txn).await?;
    if let Some(auth) = client.auth_id {
        pjsip_auth::Entity::delete_by_id(auth).exec(txn).await?;
    }
    Ok(())
}

async fn delete_left_behind(
    txn: &DatabaseTransaction,
    before: &Realtime,
    after: &Realtime,
) -> Result<(), DbErr> {
    if before.endpoint.id != after.endpoint.id {
        pjsip_endpoint::Entity::delete_by_id(before.endpoint.id.clone()).exec(txn).await?;
    }
    if before.aor.id != after.aor.id {
        pjsip_aor::Entity::delete_by_id(before.aor.id.clone()).exec(txn).await?;
    }
    let kept = after.auth.as_ref().map(|auth| &auth.id);
    if let Some(auth) = before.auth.as_ref().filter(|auth| Some(&auth.id) != kept) {
        pjsip_auth::Entity::delete_by_id(auth.id.clone()).exec(txn).await?;
    }
    Ok(())
}

fn name_rows(client: &mut client::ActiveModel, realtime: &Realtime) {
    client.endpoint_id = Set(realtime.endpoint.id.clone());
    client.aor_id = Set(realtime.aor.id.clone());
    client.auth_id = Set(realtime.auth.as_ref().map(|auth| auth.id.clone()));
}

async fn insert_endpoint(
    txn: &DatabaseTransaction,
    row: &pjsip_endpoint::Model,
) -> Result<(), DbErr> {
    let row = row.clone().into_active_model().reset_all();
    pjsip_endpoint::Entity::insert(row).exec_without_returning(txn).await.map(drop)
}

async fn insert_aor(txn: &DatabaseTransaction, row: &pjsip_aor::Model) -> Result<(), DbErr> {
    let row = row.clone().into_active_model().reset_all();
    pjsip_aor::Entity::insert(row).exec_without_returning(txn).await.map(drop)
}

async fn insert_auth(txn: &DatabaseTransaction, row: &pjsip_auth::Model) -> Result<(), DbErr> {
    let row = row.clone().into_active_model().reset_all();
    pjsip_auth::Entity::insert(row).exec_without_returning(txn).await.map(drop)
}
