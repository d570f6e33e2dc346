//! DIDs, campaigns and links.

use sea_orm_migration::prelude::*;

use crate::columns::{at_least, id, instant, integer, nullable, number, one_of, reference, text};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        use ForeignKeyAction::{Cascade, Restrict};
        let dids = Table::create()
            .table("dids")
            .col(id())
            .col(integer("user_id"))
            .col(text("number", 16).unique_key())
            .col(nullable(text("description", 1000)))
            .col(one_of("status", &["active", "inactive"]))
            .col(instant("created_at"))
            .col(instant("updated_at"))
            .foreign_key(&mut reference("dids", "user_id", "users", Restrict))
            .take();
        let campaigns = Table::create()
            .table("campaigns")
            .col(id())
            .col(integer("user_id"))
            .col(text("name", 200))
            .col(one_of("routing_strategy", &["priority", "round_robin", "weighted"]))
            .col(
                number("dial_timeout_seconds")
                    .check(Expr::col("dial_timeout_seconds").between(1, 600)),
            )
            .col(one_of("status", &["active", "inactive", "paused"]))
            .col(nullable(text("description", 1000)))
            .col(instant("created_at"))
            .col(instant("updated_at"))
            .foreign_key(&mut reference("campaigns", "user_id", "users", Restrict))
            .index(Index::create().unique().name("campaigns_name").col("user_id").col("name"))
            .take();
        let campaign_dids = Table::create()
            .table("campaign_dids")
            .col(integer("campaign_id"))
            .col(integer("did_id"))
            // The DID while its campaign is active: unique, so that two racing
            // writes can't give a DID two active campaigns.
            .col(nullable(integer("active_did_id")).unique_key())
            .primary_key(Index::create().col("campaign_id").col("did_id"))
            .foreign_key(&mut reference("campaign_dids", "campaign_id", "campaigns", Cascade))
            .foreign_key(&mut reference("campaign_dids", "did_id", "dids", Cascade))
            .take();
        let links = Table::create()
            .table("campaign_client_settings")
            .col(id())
            .col(integer("campaign_id"))
            .col(integer("client_id"))
            .col(one_of("status", &["active", "inactive"]))
            .col(number("max_concurrency").check(Expr::col("max_concurrency").gte(1)))
            .col(number("forwarding_priority"))
            .col(number("weight").check(Expr::col("weight").gte(1)))
            .col(at_least(0, "total_calls_allowed"))
            .col(at_least(0, "hourly_cap"))
            .col(at_least(0, "daily_cap"))
            .col(at_least(0, "weekly_cap"))
            .col(at_least(0, "monthly_cap"))
            .col(text("time_zone", 64).default("UTC"))
            .col(instant("created_at"))
            .col(instant("updated_at"))
            .foreign_key(&mut reference(
                "campaign_client_settings",
                "campaign_id",
                "campaigns",
                Cascade,
            ))
            .foreign_key(&mut reference(
                "campaign_client_settings",
                "client_id",
                "clients",
                Restrict,
            ))
            .index(
                Index::create().unique().name("links_client").col("campaign_id").col("client_id"),
            )
            .take();
        for table in [dids, campaigns, campaign_dids, links] {
            manager.create_table(table).await?;
        }
        Ok(())
    }
}
