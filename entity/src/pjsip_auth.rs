//! Credentials of clients' endpoints, as Asterisk reads them by realtime.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "pjsip_auths")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub auth_type: String,
    pub username: String,
    /// Never returned by the API, never logged.
    pub password: String,
    pub realm: String,
}

impl ActiveModelBehavior for ActiveModel {}
