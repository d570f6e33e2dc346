//! Clients and the realtime tables that Asterisk reads their endpoints from.
//!
//! The realtime tables are thin: only columns with a value, none of them null,
//! `disallow` before `allow`, because Asterisk applies columns in table order
//! and drops an object whole when one value is bad.

use sea_orm_migration::prelude::*;

use crate::columns::{at_least, constant, id, instant, nullable, number, one_of, reference, text};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let empty = |name, length| text(name, length).default("").take();
        let endpoints = Table::create()
            .table("pjsip_endpoints")
            .col(text("id", 100).primary_key())
            .col(empty("transport", 40))
            .col(empty("aors", 200))
            .col(empty("auth", 100))
            .col(empty("context", 40))
            .col(text("disallow", 200).default("all"))
            .col(text("allow", 200).default("ulaw,alaw,gsm"))
            .col(text("direct_media", 3).default("no"))
            .col(empty("outbound_auth", 100))
            .col(empty("from_user", 100))
            .col(empty("from_domain", 100))
            .col(empty("callerid", 200))
            // An endpoint is never recognised by the name that a caller claims.
            .col(constant("identify_by", "ip"))
            .col(constant("allow_transfer", "no"))
            .col(constant("allow_subscribe", "no"))
            .col(constant("allow_overlap", "no"))
            .col(constant("redirect_method", "user"))
            .col(constant("send_connected_line", "no"))
            .col(constant("trust_connected_line", "no"))
            .col(constant("trust_id_inbound", "no"))
            .col(constant("rtp_symmetric", "yes"))
            .col(constant("force_rport", "yes"))
            .col(constant("rewrite_contact", "yes"))
            .col(constant("rtp_timeout", "60"))
            .col(constant("rtp_timeout_hold", "300"))
            .col(constant("timers", "yes"))
            .col(constant("100rel", "no"))
            .col(constant("dtmf_mode", "rfc4733"))
            .take();
        let aors = Table::create()
            .table("pjsip_aors")
            .col(text("id", 100).primary_key())
            .col(empty("contact", 255))
            .col(number("max_contacts").default(1))
            .col(number("qualify_frequency").default(60))
            .col(constant("qualify_timeout", "1.0"))
            .col(constant("authenticate_qualify", "no"))
            .take();
        let auths = Table::create()
            .table("pjsip_auths")
            .col(text("id", 100).primary_key())
            .col(text("auth_type", 20).default("userpass"))
            .col(empty("username", 100))
            .col(empty("password", 100))
            .col(empty("realm", 100))
            .take();
        let clients = Table::create()
            .table("clients")
            .col(id())
            .col(text("client_identifier", 100).unique_key())
            .col(text("name", 200))
            .col(nullable(text("department", 200)))
            .col(one_of("status", &["active", "inactive"]))
            .col(nullable(text("notes", 4000)))
            .col(at_least(1, "max_concurrency"))
            .col(text("endpoint_id", 100).unique_key())
            .col(text("aor_id", 100).unique_key())
            .col(nullable(text("auth_id", 100)).unique_key())
            .col(instant("created_at"))
            .col(instant("updated_at"))
            .foreign_key(&mut realtime("endpoint_id", "pjsip_endpoints"))
            .foreign_key(&mut realtime("aor_id", "pjsip_aors"))
            .foreign_key(&mut realtime("auth_id", "pjsip_auths"))
            .take();
        for table in [endpoints, aors, auths, clients] {
            manager.create_table(table).await?;
        }
        Ok(())
    }
}

fn realtime(column: &'static str, table: &'static str) -> ForeignKeyCreateStatement {
    reference("clients", column, table, ForeignKeyAction::Restrict)
}
