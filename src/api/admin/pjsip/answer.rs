//! A client's endpoint as it is sent back, without the password.

use capconduit_entity::{pjsip_aor, pjsip_auth, pjsip_endpoint};
use poem_openapi::Object;

use crate::store::clients::Realtime;

/// A client's PJSIP objects.
#[derive(Object)]
pub struct Pjsip {
    endpoint: Endpoint,
    aor: Aor,
    #[oai(nullable)]
    auth: Option<Auth>,
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Endpoint {
    id: String,
    #[oai(nullable)]
    transport: Option<String>,
    aors: String,
    #[oai(nullable)]
    auth: Option<String>,
    context: String,
    disallow: String,
    allow: String,
    direct_media: String,
    #[oai(nullable)]
    outbound_auth: Option<String>,
    #[oai(nullable)]
    from_user: Option<String>,
    #[oai(nullable)]
    from_domain: Option<String>,
    #[oai(nullable)]
    callerid: Option<String>,
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Aor {
    id: String,
    contact: String,
    max_contacts: i32,
    qualify_frequency: i32,
}

/// Without its password, which is write only.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Auth {
    id: String,
    auth_type: String,
    #[oai(nullable)]
    username: Option<String>,
    #[oai(nullable)]
    realm: Option<String>,
}

impl From<Realtime> for Pjsip {
    fn from(rows: Realtime) -> Self {
        Self {
            endpoint: rows.endpoint.into(),
            aor: rows.aor.into(),
            auth: rows.auth.map(Into::into),
        }
    }
}

impl From<pjsip_endpoint::Model> for Endpoint {
    fn from(row: pjsip_endpoint::Model) -> Self {
        Self {
            id: row.id,
            transport: or_null(row.transport),
            aors: row.aors,
            auth: or_null(row.auth),
            context: row.context,
            disallow: row.disallow,
            allow: row.allow,
            direct_media: row.direct_media,
            outbound_auth: or_null(row.outbound_auth),
            from_user: or_null(row.from_user),
            from_domain: or_null(row.from_domain),
            callerid: or_null(row.callerid),
        }
    }
}

impl From<pjsip_aor::Model> for Aor {
    fn from(row: pjsip_aor::Model) -> Self {
        Self {
            id: row.id,
            contact: row.contact,
            max_contacts: row.max_contacts,
            qualify_frequency: row.qualify_frequency,
        }
    }
}

impl From<pjsip_auth::Model> for Auth {
    fn from(row: pjsip_auth::Model) -> Self {
        Self {
            id: row.id,
            auth_type: row.auth_type,
            username: or_null(row.username),
            realm: or_null(row.realm),
        }
    }
}
fn or_null(column: String) -> Option<String> {
    (!column.is_empty()).then_some(column)
}
