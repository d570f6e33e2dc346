//! The audit log. It names who wrote without a foreign key: an entry outlives the account.

use sea_orm_migration::prelude::*;

use crate::columns::{id, instant, integer, nullable, text};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let log = Table::create()
            .table("audit_log")
            .col(id())
            .col(nullable(integer("user_id")))
            .col(nullable(text("username", 100)))
            .col(nullable(text("role", 48)))
            .col(nullable(text("address", 45)))
            .col(text("method", 10))
            .col(text("path", 200))
            .col(text("resource", 40))
            .col(text("resource_id", 64))
            .col(ColumnDef::new("before").json_binary().null())
            .col(ColumnDef::new("after").json_binary().null())
            .col(instant("created_at"))
            .take();
        manager.create_table(log).await?;
        for (name, columns) in
            [("audit_log_user", &["user_id", "id"] as &[_]), ("audit_log_time", &["created_at"])]
        {
            let mut index = Index::create().name(name).table("audit_log").take();
            for column in columns {
                index.col(*column);
            }
            manager.create_index(index).await?;
        }
        Ok(())
    }
}
