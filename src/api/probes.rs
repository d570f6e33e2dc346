//! Is the service there, and can it take calls?

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};

use super::problem::{Open, Refusal, away};
use super::{Backend, Tag};
use crate::capacity::{Scope, Status, Windows};
use crate::clock;
use crate::ids::LinkId;

pub struct ProbesApi;

#[derive(Object)]
struct Probe {
    /// `ok`
    status: String,
}

#[OpenApi(tag = "Tag::Probes")]
impl ProbesApi {
    /// Is the process alive
    ///
    /// Asks nothing of its dependencies.
    #[oai(path = "/health", method = "get", operation_id = "getHealth")]
    async fn health(&self) -> Json<Probe> {
        Json(Probe { status: "ok".to_owned() })
    }

    /// Can calls be taken
    ///
    /// Asks the database, the counter store and the switch; 503 names the one that is away.
    #[oai(path = "/ready", method = "get", operation_id = "getReadiness")]
    async fn ready(&self, backend: Data<&Arc<Backend>>) -> Result<Json<Probe>, Refusal<Open>> {
        backend.db.ping().await.map_err(|_| away("The database"))?;
        let windows = Windows::at(clock::now(), chrono_tz::Tz::UTC);
        backend.ledger.usages(&[(Scope::link(LinkId(0)), windows)]).await?;
        if !matches!(*backend.ledger.status().borrow(), Status::Open(_)) {
            return Err(away("The capacity ledger").into());
        }
        if !backend.switch.is_ready() {
            return Err(away("Asterisk").into());
        }
        Ok(Json(Probe { status: "ok".to_owned() }))
    }
}
