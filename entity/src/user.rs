//! Accounts: admins, staff and sellers (role `user`).

use sea_orm::entity::prelude::*;

use crate::types::{Role, UserStatus};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "users")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    #[sea_orm(unique)]
    pub username: String,
    #[sea_orm(unique)]
    pub email: String,
    /// Argon2id, in PHC string form.
    pub password_hash: String,
    pub role: Role,
    pub status: UserStatus,
    pub full_name: Option<String>,
    pub company_name: Option<String>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
