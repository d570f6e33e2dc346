//! Clients' SIP endpoints, as Asterisk reads them by realtime.
//!
//! Columns bear Asterisk's option names. Constants that keep an endpoint safe
//! (no transfers, no identification by name, ...) are defaults of the schema
//! and have no field here, so nothing can write them.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "pjsip_endpoints")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub transport: String,
    pub aors: String,
    pub auth: String,
    pub context: String,
    pub disallow: String,
    pub allow: String,
    pub direct_media: String,
    pub outbound_auth: String,
    pub from_user: String,
    pub from_domain: String,
    pub callerid: String,
}

impl ActiveModelBehavior for ActiveModel {}
