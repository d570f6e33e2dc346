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
    /// A seller's live calls at once over all campaigns; none = no cap.
    pub max_concurrency: Option<i32>,
    /// A seller's answered calls ever; none = no cap, 0 = no calls. So for the windows below.
    pub total_calls_allowed: Option<i32>,
    pub hourly_cap: Option<i32>,
    pub daily_cap: Option<i32>,
    pub weekly_cap: Option<i32>,
    pub monthly_cap: Option<i32>,
    /// IANA name of the zone in which the windows start.
    pub time_zone: String,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
