//! The one record per inbound call.
//!
//! No foreign keys: a record outlives what it names, so the names are kept too.

use sea_orm::entity::prelude::*;

use crate::types::{CallReason, CallStatus};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "call_logs")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    #[sea_orm(unique)]
    pub call_id: Uuid,
    pub user_id: Option<i64>,
    pub campaign_id: Option<i64>,
    pub campaign_name: Option<String>,
    pub did_id: Option<i64>,
    pub client_id: Option<i64>,
    pub client_name: Option<String>,
    pub client_identifier: Option<String>,
    pub campaign_client_setting_id: Option<i64>,
    pub incoming_did_number: String,
    pub caller_id_num: Option<String>,
    pub caller_id_name: Option<String>,
    pub timestamp_start: DateTimeUtc,
    pub timestamp_answered: Option<DateTimeUtc>,
    pub timestamp_end: DateTimeUtc,
    /// When the answering client's capacity was taken: decides the cap windows that the call counts in.
    pub held_at: Option<DateTimeUtc>,
    pub duration_seconds: i64,
    pub billsec_seconds: i64,
    pub call_status: CallStatus,
    pub reason: CallReason,
    /// Q.850.
    pub hangup_cause_code: i32,
    pub hangup_cause_text: String,
    pub asterisk_uniqueid: String,
    pub asterisk_linkedid: Option<String>,
    /// The decision trace: what routing and capacity returned, in order.
    pub trace: Json,
    pub created_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
