//! Call logs and attempts. They name what they were about without foreign
//! keys: a record outlives the DID, campaign or client that it names.

use sea_orm_migration::prelude::*;

use crate::columns::{id, instant, integer, nullable, number, one_of, reference, text};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let logs = Table::create()
            .table("call_logs")
            .col(id())
            .col(ColumnDef::new("call_id").uuid().not_null().unique_key())
            .col(nullable(integer("user_id")))
            .col(nullable(integer("campaign_id")))
            .col(nullable(text("campaign_name", 200)))
            .col(nullable(integer("did_id")))
            .col(nullable(integer("client_id")))
            .col(nullable(text("client_name", 200)))
            .col(nullable(text("client_identifier", 100)))
            .col(nullable(integer("campaign_client_setting_id")))
            .col(text("incoming_did_number", 64))
            .col(nullable(text("caller_id_num", 64)))
            .col(nullable(text("caller_id_name", 128)))
            .col(instant("timestamp_start"))
            .col(nullable(instant("timestamp_answered")))
            .col(instant("timestamp_end"))
            .col(nullable(instant("held_at")))
            .col(integer("duration_seconds"))
            .col(integer("billsec_seconds"))
            .col(one_of(
                "call_status",
                &[
                    "ANSWERED",
                    "NOANSWER",
                    "BUSY",
                    "FAILED",
                    "CANCELED",
                    "REJECTED_CC",
                    "REJECTED_TOTAL",
                    "REJECTED_DID",
                    "REJECTED",
                ],
            ))
            .col(text("reason", 48))
            .col(number("hangup_cause_code"))
            .col(text("hangup_cause_text", 80))
            .col(text("asterisk_uniqueid", 150))
            .col(nullable(text("asterisk_linkedid", 150)))
            .col(ColumnDef::new("trace").json_binary().not_null())
            .col(instant("created_at"))
            .take();
        manager.create_table(logs).await?;
        for (name, columns) in [
            ("call_logs_seller", &["user_id", "id"] as &[_]),
            ("call_logs_campaign", &["campaign_id", "id"]),
            ("call_logs_client", &["client_id", "id"]),
            ("call_logs_did", &["did_id", "id"]),
            ("call_logs_link_window", &["campaign_client_setting_id", "held_at"]),
            ("call_logs_start", &["timestamp_start"]),
            ("call_logs_uniqueid", &["asterisk_uniqueid"]),
        ] {
            let mut index = Index::create().name(name).table("call_logs").take();
            for column in columns {
                index.col(*column);
            }
            manager.create_index(index).await?;
        }
        let attempts = Table::create()
            .table("call_attempts")
            .col(id())
            .col(integer("call_log_id"))
            .col(number("position"))
            .col(integer("campaign_client_setting_id"))
            .col(integer("client_id"))
            .col(text("client_name", 200))
            .col(text("client_identifier", 100))
            .col(text("result", 48))
            .col(instant("started_at"))
            .col(nullable(instant("ringing_at")))
            .col(nullable(instant("answered_at")))
            .col(instant("ended_at"))
            .col(nullable(number("cause_code")))
            .col(nullable(number("sip_code")))
            .foreign_key(&mut reference(
                "call_attempts",
                "call_log_id",
                "call_logs",
                ForeignKeyAction::Cascade,
            ))
            .index(
                Index::create()
                    .unique()
                    .name("call_attempts_position")
                    .col("call_log_id")
                    .col("position"),
            )
            .take();
        manager.create_table(attempts).await?;
        let offers = Index::create()
            .name("call_attempts_offers")
            .table("call_attempts")
            .col("campaign_client_setting_id")
            .col("started_at")
            .take();
        manager.create_index(offers).await
    }
}
