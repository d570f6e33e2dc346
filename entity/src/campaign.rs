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
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
