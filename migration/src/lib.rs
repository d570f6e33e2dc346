//! CapConduit's schema. Migrations only go forward and read the same on
//! SQLite and PostgreSQL.

use sea_orm_migration::prelude::*;

mod columns;
mod m20261122_000001_create_accounts;
mod m20261122_000002_create_clients;
mod m20261122_000003_create_routing;
mod m20261122_000004_create_call_records;
mod m20261122_000005_create_audit_log;
mod m20261123_000006_cap_every_scope;
mod m20261123_000007_create_configuration;

/// Runs the migrations, in order.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261122_000001_create_accounts::Migration),
            Box::new(m20261122_000002_create_clients::Migration),
            Box::new(m20261122_000003_create_routing::Migration),
            Box::new(m20261122_000004_create_call_records::Migration),
            Box::new(m20261122_000005_create_audit_log::Migration),
            Box::new(m20261123_000006_cap_every_scope::Migration),
            Box::new(m20261123_000007_create_configuration::Migration),
        ]
    }
}
