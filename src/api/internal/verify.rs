//! Is what the ledger believes to be used what the call logs say?

use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use serde_json::{Value, json};
use tracing::error;

use super::Dialplan;
use crate::api::AdminTag;
use crate::api::audit::{Audited, Change};
use crate::api::input::{Body, Request, Word};
use crate::api::problem::{Check, Problem, Refusal, away};
use crate::capacity::ScopeKind;
use crate::capacity::recount::{Difference, Findings};

pub struct VerifyApi;

#[derive(Object)]
#[oai(deny_unknown_fields, rename_all = "camelCase")]
struct Verification {
    /// Whether the ledger is to be mended where it differs; `false` if left away.
    repair: Option<bool>,
}

impl Request for Verification {
    fn example() -> Value {
        json!({"repair": false})
    }
}

/// What was compared, and what differs.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Verified {
    /// Scopes of which anything was ever used.
    scopes: u64,
    /// Holds of calls that are up or that aren't in the call logs yet.
    holds: u64,
    differences: Vec<DifferentScope>,
    /// Holds of this instance that none of its calls stood for; they are given back.
    holds_without_call: u64,
    /// Whether anything was mended.
    repaired: bool,
}

/// A scope of which more or less is used than the ledger believes.
#[derive(Object)]
struct DifferentScope {
    scope: Word<ScopeKind>,
    id: i64,
    /// Answered calls that the ledger doesn't know; below zero, ones that it counts in excess.
    calls: i64,
}

#[OpenApi(prefix_path = "/api/internal/caps", tag = "AdminTag::Internal")]
impl VerifyApi {
    /// Compare the capacity ledger with the call logs
    ///
    /// As `capconduit caps verify` does. The service does so by itself now and
    /// then, and mends what differs.
    #[oai(path = "/verify", method = "post", operation_id = "verifyCaps")]
    async fn verify(
        &self,
        dialplan: Dialplan,
        Body(asked): Body<Verification>,
    ) -> Result<Json<Verified>, Refusal<Check>> {
        let repair = asked.repair.unwrap_or_default();
        let findings = dialplan.backend.recount.verify(repair).await.map_err(unavailable)?;
        if repair {
            dialplan.begin_write().await?.commit(Change::created(&findings)).await?;
        }
        Ok(Json(Verified::new(findings)))
    }
}

fn unavailable(err: anyhow::Error) -> Problem {
    error!(error = %format!("{err:#}"), "the ledger can't be compared with the call logs");
    away("The capacity ledger or the database")
}

impl Audited for Findings {
    const RESOURCE: &'static str = "capacityLedger";

    fn key(&self) -> String {
        "all".to_owned()
    }

    fn facts(&self) -> Option<Value> {
        serde_json::to_value(self).ok()
    }
}

impl Verified {
    fn new(findings: Findings) -> Self {
        let Findings { differences, holds_without_call, scopes, holds, repaired } = findings;
        Self {
            scopes: scopes as u64,
            holds: holds as u64,
            differences: differences.into_iter().map(DifferentScope::new).collect(),
            holds_without_call: holds_without_call as u64,
            repaired,
        }
    }
}

impl DifferentScope {
    const fn new(Difference { scope, calls }: Difference) -> Self {
        Self { scope: Word(scope.kind), id: scope.id, calls }
    }
}
