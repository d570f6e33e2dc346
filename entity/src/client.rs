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
