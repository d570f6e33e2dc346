//! One client dialled for one call.

use sea_orm::entity::prelude::*;

use crate::types::AttemptResult;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "call_attempts")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub call_log_id: i64,
    /// 1 for the first client dialled.
    pub position: i32,
    pub campaign_client_setting_id: i64,
    pub client_id: i64,
    pub client_name: String,
    pub client_identifier: String,
    pub result: AttemptResult,
    pub started_at: DateTimeUtc,
    pub ringing_at: Option<DateTimeUtc>,
    pub answered_at: Option<DateTimeUtc>,
    pub ended_at: DateTimeUtc,
    /// Q.850, where the switch gave one.
    pub cause_code: Option<i32>,
    /// The client's final SIP status, where there was one.
    pub sip_code: Option<i32>,
}

impl ActiveModelBehavior for ActiveModel {}
