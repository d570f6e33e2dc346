//! Which field a refused row is about.
//!
//! The database has the last word on what is unique: two requests that race
//! both pass any check made before. SQLite names columns (`users.username`),
//! PostgreSQL constraints (`users_username_key`); with the dot made an
//! underscore, one table of names serves both.

use sea_orm::{DbErr, SqlErr};

use super::problem::{Problem, conflict, in_use};

/// Part of the database's message, JSON name of the field, what is wrong with it.
const UNIQUE: &[(&str, &str, &str)] = &[
    ("users_username", "username", "is taken"),
    ("users_email", "email", "is taken"),
    ("clients_client_identifier", "clientIdentifier", "is taken"),
    ("clients_endpoint_id", "pjsip.endpoint.id", "is taken"),
    ("clients_aor_id", "pjsip.aor.id", "is taken"),
    ("clients_auth_id", "pjsip.auth.id", "is taken"),
    ("pjsip_endpoints_id", "pjsip.endpoint.id", "is taken"),
    ("pjsip_endpoints_pkey", "pjsip.endpoint.id", "is taken"),
    ("pjsip_aors_id", "pjsip.aor.id", "is taken"),
    ("pjsip_aors_pkey", "pjsip.aor.id", "is taken"),
    ("pjsip_auths_id", "pjsip.auth.id", "is taken"),
    ("pjsip_auths_pkey", "pjsip.auth.id", "is taken"),
    ("dids_number", "number", "is taken"),
    ("campaigns_name", "name", "is the name of another of your campaigns"),
    ("campaign_dids_active_did_id", "didIds", "a DID can be in one active campaign only"),
    ("campaign_client_settings_client_id", "clientId", "is linked to this campaign already"),
    ("links_client", "clientId", "is linked to this campaign already"),
];

/// The refusal for a row that the database refused; none for any other error.
pub fn of(err: &DbErr) -> Option<Problem> {
    if let Some(SqlErr::UniqueConstraintViolation(message)) = err.sql_err() {
        let message = message.replace('.', "_");
        let known = UNIQUE.iter().find(|(part, ..)| message.contains(part));
        return Some(known.map_or_else(
            || in_use("Something like this exists already."),
            |(_, field, what)| conflict(field, *what),
        ));
    }
    is_about_reference(err)
        .then(|| in_use("Something that this refers to is gone, or still refers to it."))
}

/// The same, where a missing or remaining reference is about one known thing.
pub fn about(reference: Problem) -> impl FnOnce(DbErr) -> Problem {
    move |err| if is_about_reference(&err) { reference } else { err.into() }
}

/// Whether a foreign key forbids it.
///
/// SQLite reports a key that restricts deletion as a trigger's constraint
/// (1811), which `sql_err` of sea-orm 2.0.4 doesn't know; the message is the same.
fn is_about_reference(err: &DbErr) -> bool {
    matches!(err.sql_err(), Some(SqlErr::ForeignKeyConstraintViolation(_)))
        || err.to_string().to_lowercase().contains("foreign key constraint")
}
