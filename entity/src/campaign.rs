//! A seller's routing unit: strategy, ring timeout, DIDs, links.

use sea_orm::entity::prelude::*;

use crate::types::{CampaignStatus, Strategy};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "campaigns")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub user_id: i64,
    pub name: String,
    pub routing_strategy: Strategy,
    /// Seconds that one client is rung.
    pub dial_timeout_seconds: i32,
    pub status: CampaignStatus,
    pub description: Option<String>,
    /// Live calls at once over all links; none = no cap.
    pub max_concurrency: Option<i32>,
    /// Answered calls ever; none = no cap, 0 = no calls. So for the windows below.
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
