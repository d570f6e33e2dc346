//! Users, their sessions and their API tokens.

use sea_orm_migration::prelude::*;

use crate::columns::{id, instant, integer, nullable, one_of, reference, text};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let users = Table::create()
            .table("users")
            .col(id())
            .col(text("username", 100).unique_key())
            .col(text("email", 254).unique_key())
            .col(text("password_hash", 255))
            .col(one_of("role", &["admin", "staff", "user"]))
            .col(one_of("status", &["active", "inactive", "pending_approval", "suspended"]))
            .col(nullable(text("full_name", 200)))
            .col(nullable(text("company_name", 200)))
            .col(instant("created_at"))
            .col(instant("updated_at"))
            .take();
        let sessions = Table::create()
            .table("sessions")
            .col(text("id_hash", 64).primary_key())
            .col(integer("user_id"))
            .col(instant("created_at"))
            .col(instant("expires_at"))
            .foreign_key(&mut reference("sessions", "user_id", "users", ForeignKeyAction::Cascade))
            .take();
        let tokens = Table::create()
            .table("api_tokens")
            .col(id())
            .col(integer("user_id"))
            .col(text("name", 100))
            .col(text("token_hash", 64).unique_key())
            .col(instant("created_at"))
            .foreign_key(&mut reference(
                "api_tokens",
                "user_id",
                "users",
                ForeignKeyAction::Cascade,
            ))
            .take();
        for table in [users, sessions, tokens] {
            manager.create_table(table).await?;
        }
        Ok(())
    }
}
