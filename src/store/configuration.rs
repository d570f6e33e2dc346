//! The configuration's revision: it grows with every write that others have to see.

use capconduit_entity::configuration;
use sea_orm::prelude::Expr;
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, ExprTrait, QuerySelect};

/// The revision that was committed last.
///
/// # Errors
/// When the database can't be read.
pub async fn revision(db: &impl ConnectionTrait) -> Result<i64, DbErr> {
    let revision = configuration::Entity::find()
        .select_only()
        .column(configuration::Column::Revision)
        .into_tuple::<i64>()
        .one(db)
        .await?;
    Ok(revision.unwrap_or_default())
}

/// Notes in a transaction that it changes the configuration: its last statement,
/// since others that change it wait from here on.
///
/// # Errors
/// When the database refuses.
pub async fn note_change(txn: &impl ConnectionTrait) -> Result<(), DbErr> {
    let revision = Expr::col(configuration::Column::Revision);
    configuration::Entity::update_many()
        .col_expr(configuration::Column::Revision, revision.add(1))
        .exec(txn)
        .await?;
    Ok(())
}
