//! Links: campaign x client with caps, priority and weight.

use sea_orm::entity::prelude::*;

use crate::types::Status;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "campaign_client_settings")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub campaign_id: i64,
    pub client_id: i64,
    pub status: Status,
    /// Live calls at once, at least 1.
    pub max_concurrency: i32,
    /// Lower is tried first.
    pub forwarding_priority: i32,
    /// Share among equals, at least 1.
    pub weight: i32,
    /// Calls ever; none = no cap, 0 = no calls. So for the windows below.
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
