//! Caps of clients, campaigns and sellers beside those of links, and what
//! counting their answered calls needs.

use sea_orm_migration::prelude::*;

use crate::columns::{at_least, text};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["campaigns", "users"] {
            add(manager, table, at_least(1, "max_concurrency")).await?;
        }
        for table in ["clients", "campaigns", "users"] {
            for cap in
                ["total_calls_allowed", "hourly_cap", "daily_cap", "weekly_cap", "monthly_cap"]
            {
                add(manager, table, at_least(0, cap)).await?;
            }
            add(manager, table, text("time_zone", 64).default("UTC").take()).await?;
        }
        // Which of a scope's calls were answered in a window, and how many in all.
        for (name, scope) in [
            ("call_logs_link_answered", "campaign_client_setting_id"),
            ("call_logs_client_answered", "client_id"),
            ("call_logs_campaign_answered", "campaign_id"),
            ("call_logs_seller_answered", "user_id"),
        ] {
            let mut index = Index::create().name(name).table("call_logs").take();
            index.col(scope).col("call_status").col("held_at");
            manager.create_index(index).await?;
        }
        let superseded = Index::drop().name("call_logs_link_window").table("call_logs").to_owned();
        manager.drop_index(superseded).await?;
        // The newest of all scopes.
        let newest =
            Index::create().name("call_logs_held").table("call_logs").col("held_at").take();
        manager.create_index(newest).await
    }
}

/// One column at a time: SQLite adds no more.
async fn add(
    manager: &SchemaManager<'_>,
    table: &'static str,
    column: ColumnDef,
) -> Result<(), DbErr> {
    manager.alter_table(Table::alter().table(table).add_column(column).take()).await
}
