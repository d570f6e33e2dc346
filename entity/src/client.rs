//! Call centres that buy calls.

use sea_orm::entity::prelude::*;

use crate::types::Status;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "clients")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    #[sea_orm(unique)]
    pub client_identifier: String,
    pub name: String,
    pub department: Option<String>,
    pub status: Status,
    pub notes: Option<String>,
    /// Live calls at once over all campaigns; none = no cap.
    pub max_concurrency: Option<i32>,
    /// Answered calls ever; none = no cap, 0 = no calls. So for the windows below.
    pub total_calls_allowed: Option<i32>,
    pub hourly_cap: Option<i32>,
    pub daily_cap: Option<i32>,
    pub weekly_cap: Option<i32>,
    pub monthly_cap: Option<i32>,
    /// IANA name of the zone in which the windows start.
    pub time_zone: String,
    #[sea_orm(unique)]
    pub endpoint_id: String,
    #[sea_orm(unique)]
    pub aor_id: String,
    #[sea_orm(unique)]
    pub auth_id: Option<String>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
