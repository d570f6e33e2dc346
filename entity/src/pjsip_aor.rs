//! Where a client's endpoint is to be found, as Asterisk reads it by realtime.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "pjsip_aors")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// A `sip:` or `sips:` URI.
    pub contact: String,
    pub max_contacts: i32,
    /// Seconds between OPTIONS probes; 0 = none.
    pub qualify_frequency: i32,
}

impl ActiveModelBehavior for ActiveModel {}
