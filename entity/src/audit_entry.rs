//! Who changed what, through the API and the command line.
//!
//! No foreign keys: an entry outlives the account that it names.

use sea_orm::entity::prelude::*;

use crate::types::Role;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_log")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    /// None: the dialplan or the command line, which have no account.
    pub user_id: Option<i64>,
    pub username: Option<String>,
    pub role: Option<Role>,
    /// The address of the peer.
    pub address: Option<String>,
    pub method: String,
    pub path: String,
    /// What kind of thing was written.
    pub resource: String,
    pub resource_id: String,
    /// How it was, without secrets; none if it wasn't there.
    pub before: Option<Json>,
    /// How it is since, without secrets; none if it isn't there any more.
    pub after: Option<Json>,
    pub created_at: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
