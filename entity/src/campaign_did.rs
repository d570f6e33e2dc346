//! Which DIDs a campaign answers.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "campaign_dids")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub campaign_id: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub did_id: i64,
    /// The DID while its campaign is active, else none. Unique, so that no race
    /// can give a DID a second active campaign.
    #[sea_orm(unique)]
    pub active_did_id: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
